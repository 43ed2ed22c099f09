//! What one address may do, on a real shard.

use std::io::Write;

use gateway::config::{AddressLimits, Limits};
use prost::Message;
use proto_wire::close::Reason;
use proto_wire::frame::{Beat, kind};
use proto_wire::names::Cursor;
use proto_wire::pb;

use super::phone::{End, Phone, hello};
use super::{PATIENCE, Stage};

/// More than any burst here. The rates are so low that this many come before they give as many more.
const MANY: usize = 200;

fn limited(connect_burst: u32, failed_hellos_per_min: u32) -> AddressLimits {
    AddressLimits { connects_per_s: 1, connect_burst, failed_hellos_per_min, limit_loopback: true }
}

fn stage(addresses: AddressLimits) -> Stage {
    Stage::with(Limits { addresses, ..Limits::default() }, 1_000)
}

/// A connection that says `first`, and the CLOSE that it gets; none: it was welcomed.
fn said(stage: &Stage, first: &[u8]) -> (Phone, Option<pb::Close>) {
    let mut phone = Phone::connect(stage.listen);
    // The shard may have closed before.
    let _ = phone.stream.write_all(first);
    let (kind, body) = phone.frame().expect("an answer");
    let close = (kind == kind::CLOSE).then(|| pb::Close::decode(&body[..]).expect("a close"));
    (phone, close)
}

fn code(stage: &Stage, first: &[u8]) -> Option<u32> {
    said(stage, first).1.map(|close| close.code)
}

#[test]
fn connections_over_the_limit_are_told_so_counted_and_logged_and_the_others_stay() {
    let stage = stage(limited(5, 0));
    let mut phones = Vec::new();
    let close = (0..MANY).find_map(|at| {
        let (phone, close) = said(&stage, &hello(&stage.token(5), at as u64 + 1, 1, Cursor::default()));
        phones.push(phone);
        close
    });
    let close = close.expect("one is too many");
    assert_eq!(close.code, Reason::AddressLimit as u32);
    assert!(close.reconnect_after_ms > 0 && close.text.contains("connections"), "{close:?}");
    assert!(phones.len() > 5, "a burst passes");
    assert_eq!((stage.counters.refused_connects.value(), stage.closed(Reason::AddressLimit)), (1, 1));
    let line = stage.refusals.recv_timeout(PATIENCE).expect("a line for the log");
    assert_eq!(line.reason, Reason::AddressLimit);
    assert!(line.peer.is_some_and(|peer| peer.ip().is_loopback()), "the peer is named");
    phones.pop();
    phones.iter_mut().for_each(Phone::beats);
}

#[test]
fn an_address_whose_hellos_fail_is_refused_whatever_it_says() {
    let stage = stage(AddressLimits { connects_per_s: 0, ..limited(1, 5) });
    let mut first = Phone::welcomed(stage.listen, &stage.token(5));
    let good = hello(&stage.token(6), 1, 1, Cursor::default());
    let limit = Some(Reason::AddressLimit as u32);
    let mut failed = 0;
    let is_refused = (0..MANY).any(|_| {
        failed += u64::from(code(&stage, &Beat::EMPTY) == Some(Reason::OutOfPlace as u32));
        code(&stage, &good) == limit
    });
    assert!(is_refused && failed >= 5, "{failed} failed");
    assert_eq!(stage.counters.failed_hellos.value(), failed);
    let refused = stage.counters.refused_failed_hellos.value();
    assert_eq!((stage.closed(Reason::AddressLimit), stage.counters.refused_connects.value()), (refused, 0));
    first.beats();
}

#[test]
fn a_flood_is_dropped_without_words() {
    let limits = Limits { addresses: limited(1, 0), hello_timeout_ms: 500, ..Limits::default() };
    let stage = Stage::with(limits, 2_000);
    // Two seconds' worth of words at once; a machine that is too busy for that gets some rounds.
    let at_once = 2 * gateway::limits::TOLD_OFF_A_SECOND_MAX + 2;
    let is_flooded = (0..20).any(|_| {
        let phones: Vec<_> = (0..at_once).map(|_| Phone::connect(stage.listen)).collect();
        phones.into_iter().map(Phone::end).any(|end| end == End::Silent)
    });
    assert!(is_flooded);
    assert_eq!(stage.closed(Reason::AddressLimit), stage.counters.refused_connects.value());
}

#[test]
fn without_limits_nobody_is_refused() {
    let mut lifted = limited(1, 1);
    lifted.lift();
    for addresses in [lifted, AddressLimits { limit_loopback: false, ..limited(1, 1) }] {
        let stage = stage(addresses);
        for user in 1..50 {
            Phone::welcomed(stage.listen, &stage.token(user)).beats();
            assert_eq!(code(&stage, &Beat::EMPTY), Some(Reason::OutOfPlace as u32));
        }
        assert_eq!((stage.closed(Reason::AddressLimit), stage.counters.failed_hellos.value()), (0, 0));
    }
}
