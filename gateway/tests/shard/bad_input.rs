//! What a peer may not do, and what it gets.

use std::io::Write;

use gateway::config::Limits;
use proto_wire::close::Reason;
use proto_wire::frame::{self, Beat};
use proto_wire::names::Cursor;
use proto_wire::services;
use proto_wire::status::Code;
use proto_wire_token::{Claims, IssuerKey};

use super::phone::{End, Phone, hello};
use super::{Stage, wait_for, wait_until};

/// Sends `bytes` on a fresh connection; it must be closed for `reason`, told so, counted and logged.
fn refused(stage: &Stage, bytes: &[u8], reason: Reason) {
    let before = stage.closed(reason);
    let mut phone = Phone::connect(stage.listen);
    phone.send(bytes);
    assert_eq!(phone.end(), End::Close(reason as u32));
    assert_eq!(stage.closed(reason), before + 1);
    let line = stage.refusals.recv_timeout(super::PATIENCE).expect("a line for the log");
    assert_eq!(line.reason, reason);
    assert!(line.peer.is_some_and(|peer| peer.ip().is_loopback()), "the peer is named");
    assert!(bytes.starts_with(&line.first) && !line.first.is_empty(), "the first bytes are kept");
}

#[test]
fn what_is_no_frame_is_refused_with_its_reason() {
    let stage = Stage::new();
    refused(&stage, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", Reason::BadFrame);
    refused(&stage, &[0xf3, 0x51, 0x09], Reason::BadFrame);
    refused(&stage, &[frame::kind::HELLO, 0x80, 0x00], Reason::BadFrame);
    refused(&stage, &[frame::kind::HELLO, 0xff, 0xff, 0x7f], Reason::FrameTooLarge);
    refused(&stage, &[frame::kind::EVENT, 0x81, 0x20], Reason::FrameTooLarge);
    refused(&stage, &Beat::EMPTY, Reason::OutOfPlace);
}

#[test]
fn tokens_that_are_no_good_are_refused() {
    let stage = Stage::new();
    let at_start = Cursor::default();
    refused(&stage, &hello("no token", 1, 1, at_start), Reason::BadToken);
    let claims = Claims { user: 5, home: 0, device: None, issued_s: 10, expires_s: 20 };
    refused(&stage, &hello(&stage.issuer.mint(&claims), 1, 1, at_start), Reason::ExpiredToken);
    let good = Claims { expires_s: u64::MAX / 2000, ..claims };
    refused(&stage, &hello(&IssuerKey::generate().mint(&good), 1, 1, at_start), Reason::BadToken);
    let bound = Claims { device: Some(4), ..good };
    refused(&stage, &hello(&stage.issuer.mint(&bound), 5, 1, at_start), Reason::BadToken);
}

#[test]
fn a_second_hello_is_refused() {
    let stage = Stage::new();
    let token = stage.token(5);
    let twice = [hello(&token, 1, 1, Cursor::default()), hello(&token, 1, 1, Cursor::default())].concat();
    let mut phone = Phone::connect(stage.listen);
    phone.send(&twice);
    assert_eq!(phone.end(), End::Close(Reason::OutOfPlace as u32));
}

#[test]
fn a_hello_that_never_comes_ends_the_connection() {
    let stage = Stage::with(Limits { hello_timeout_ms: 300, ..Limits::default() }, 100);
    let phone = Phone::connect(stage.listen);
    assert_eq!(phone.end(), End::Close(Reason::HelloTimeout as u32));
    let mut slow = Phone::connect(stage.listen);
    slow.send(&[frame::kind::HELLO]);
    assert_eq!(slow.end(), End::Close(Reason::HelloTimeout as u32));
    wait_for("both are gone", &stage.counters.connections, 0);
}

#[test]
fn a_phone_that_says_nothing_more_is_closed_as_idle() {
    let limits = Limits { heartbeat_ms: 1_000, heartbeat_margin_ms: 100, ..Limits::default() };
    let stage = Stage::with(limits, 100);
    let phone = Phone::welcomed(stage.listen, &stage.token(5));
    assert_eq!(phone.end(), End::Close(Reason::Idle as u32));
}

#[test]
fn frames_that_come_a_byte_at_a_time_are_frames() {
    let stage = Stage::new();
    let mut phone = Phone::connect(stage.listen);
    for byte in hello(&stage.token(5), 1, 1, Cursor::default()) {
        phone.send(&[byte]);
    }
    assert_eq!(phone.frame().expect("an answer").0, frame::kind::WELCOME);
    phone.beats();
    wait_for("nothing is kept of it", &stage.counters.with_extra, 0);
    assert_eq!(stage.counters.partial_bytes.value(), 0);
}

#[test]
fn random_bytes_never_hurt_the_others() {
    let stage = Stage::new();
    let mut good = Phone::welcomed(stage.listen, &stage.token(5));
    let mut random = 0x2545_f491_4f6c_dd1du64;
    for _ in 0..200 {
        let bytes: Vec<u8> = (0..300)
            .map(|_| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random as u8
            })
            .collect();
        // The shard may close in the middle of it.
        let _ = Phone::connect(stage.listen).stream.write_all(&bytes);
        good.beats();
    }
    wait_for("only the good one is left", &stage.counters.connections, 1);
}

#[test]
fn a_peer_that_does_not_read_is_closed_and_its_memory_bounded() {
    let stage = Stage::with(Limits { out_queue_bytes: 64 * 1024, ..Limits::default() }, 100);
    let mut backend = stage.backend.accept();
    let mut phone = Phone::welcomed(stage.listen, &stage.token(5));
    let body = vec![7; 60_000];
    let slow = Reason::SlowReader;
    // Loopback's socket buffers take some MiB first.
    for id in 0..2_000 {
        if stage.closed(slow) > 0 {
            break;
        }
        phone.call(id, services::echo::SAY.id, b"x");
        let (call, _) = backend.call();
        backend.answer(&call, &body);
        assert!(stage.counters.queued_bytes.value() < 1 << 20);
    }
    wait_until("it is closed", || stage.closed(slow) == 1);
    wait_for("nothing waits", &stage.counters.queued_bytes, 0);
}

#[test]
fn one_connection_too_many_is_told_so() {
    let stage = Stage::with(Limits::default(), 2);
    let phones: Vec<_> = (1..=2).map(|user| Phone::welcomed(stage.listen, &stage.token(user))).collect();
    let third = Phone::connect(stage.listen);
    assert_eq!(third.end(), End::Close(Reason::Overloaded as u32));
    drop(phones);
    wait_for("there is room", &stage.counters.connections, 0);
    Phone::welcomed(stage.listen, &stage.token(3)).beats();
}

#[test]
fn calls_beyond_the_limit_are_answered_and_a_flood_is_closed() {
    let stage = Stage::with(Limits { calls_in_flight: 2, ..Limits::default() }, 100);
    let _backend = stage.backend.accept();
    let mut phone = Phone::welcomed(stage.listen, &stage.token(5));
    for id in 0..3 {
        phone.call(id, services::echo::SAY.id, b"x");
    }
    let (id, status, _) = phone.reply();
    assert_eq!((id, Code(status)), (2, Code::TooMany));
    for id in 3..300 {
        let mut out = Vec::new();
        let (method, body) = (services::echo::SAY.id, &b"x"[..]);
        frame::Call { id, method, attempt: 0, deadline_ms: 0, applied: None, body }.put(&mut out);
        // The shard may close in the middle of it.
        if phone.stream.write_all(&out).is_err() {
            break;
        }
    }
    wait_until("it is closed", || stage.closed(Reason::Abuse) == 1);
}
