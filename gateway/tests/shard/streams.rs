//! Phones that talk much, whose receive stays armed.

use proto_wire::close::Reason;
use proto_wire::frame::Beat;

use super::phone::Phone;
use super::{Stage, wait_for, wait_until};

fn talker(stage: &Stage, user: u64) -> Phone {
    let mut phone = Phone::welcomed(stage.listen, &stage.token(user));
    (0..20).for_each(|_| phone.beats());
    phone
}

#[test]
fn a_phone_that_talks_streams_and_loses_nothing() {
    let stage = Stage::new();
    let mut phone = talker(&stage, 1);
    assert_eq!(stage.counters.streams.value(), 1);
    // More than all buffers of streams hold, and then a frame in two parts.
    let many = Beat::EMPTY.repeat(400_000);
    phone.send(&many);
    phone.send(&Beat::EMPTY[..1]);
    wait_for("all beats are heard", &stage.counters.beats, 400_020);
    phone.send(&Beat::EMPTY[1..]);
    wait_for("the last beat is heard", &stage.counters.beats, 400_021);
    drop(phone);

    wait_for("its slot is free", &stage.counters.connections, 0);
    assert_eq!(stage.counters.streams.value(), 0);
}

#[test]
fn a_stream_that_falls_silent_waits_with_a_poll_again() {
    let stage = Stage::new();
    let mut phone = talker(&stage, 1);
    wait_for("it is no stream any more", &stage.counters.streams, 0);
    phone.beats();
    assert_eq!(stage.counters.connections.value(), 1);
    (0..20).for_each(|_| phone.beats());
    assert_eq!(stage.counters.streams.value(), 1, "and a stream again when it talks");
}

#[test]
fn many_streams_share_the_buffers() {
    let stage = Stage::new();
    let mut phones: Vec<Phone> = (1..=60).map(|user| talker(&stage, user)).collect();
    assert_eq!(stage.counters.streams.value(), 60);
    let before = stage.counters.beats.value();
    let some = Beat::EMPTY.repeat(8_192);
    phones.iter_mut().for_each(|phone| phone.send(&some));
    wait_for("all beats of all are heard", &stage.counters.beats, before + 60 * 8_192);
    phones.iter_mut().for_each(|phone| phone.send(&[0x7f, 0x00]));
    wait_until("all are refused", || stage.closed(Reason::BadFrame) == 60);
    wait_for("their slots are free", &stage.counters.connections, 0);
    assert_eq!(stage.counters.streams.value(), 0);
}
