//! What no honest caller sends, and what it gets.

use std::io::Write;
use std::time::Duration;

use prost::Message;
use proto_wire::pb;
use proto_wire::rpc::header::{Header, Kind, next_header};
use proto_wire::services::{account, echo};
use proto_wire::status::Code;

use crate::client::{Client, Raw};
use crate::fixture::{Backend, Bare, ECHO};

fn frame(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut frame = Vec::new();
    Header { kind: Kind::Call, call_id: 1, method: ECHO, ..Header::default() }.put(b"body", &mut frame);
    change(&mut frame);
    frame
}

/// The bytes close their connection, are counted under `reason`, and hurt nobody else.
fn is_refused(backend: &Backend, bytes: &[u8], reason: &str) {
    let name = format!("moorgate_backend_closed_total{{reason=\"{reason}\"}}");
    let before = backend.metric(&name);
    let mut raw = Raw::connect(backend.addr());
    raw.send(bytes);
    assert!(raw.is_closed(), "{reason}");
    backend.reaches(&name, before + 1);
    let mut client = Client::connect(backend.addr());
    assert_eq!(client.call(&echo::SAY, None, &pb::EchoRequest::default()).code, Code::Ok);
}

#[test]
fn bytes_that_are_no_frame_close_the_connection_with_a_reason() {
    let backend = Backend::start();
    is_refused(&backend, b"GET / HTTP/1.1\r\nHost: moorgate\r\n\r\n", "bad_magic");
    is_refused(&backend, b"M!", "bad_magic");
    is_refused(&backend, &[0; 1000], "bad_magic");
    is_refused(&backend, &frame(|bytes| bytes[2] = 2), "bad_version");
    is_refused(&backend, &frame(|bytes| bytes[3] = 99), "bad_header");
    is_refused(&backend, &frame(|bytes| bytes[6..8].copy_from_slice(&63u16.to_le_bytes())), "too_long");
    let hundred_mib = 100u32 << 20;
    is_refused(
        &backend,
        &frame(|bytes| bytes[8..12].copy_from_slice(&hundred_mib.to_le_bytes())),
        "too_long",
    );
}

#[test]
fn frames_out_of_order_close_the_connection() {
    let backend = Backend::start();
    let reply = frame(|bytes| bytes[3] = Kind::Reply as u8);
    is_refused(&backend, &reply, "misbehaved");
    // Two calls of one id, the first of which takes its time.
    let request =
        pb::SignUpRequest { name: "alice".into(), password: "correct horse".into(), ..Default::default() };
    let mut call = Vec::new();
    Header { kind: Kind::Call, call_id: 1, method: account::SIGN_UP.id, ..Header::default() }
        .put(&request.encode_to_vec(), &mut call);
    is_refused(&backend, &[call.clone(), call].concat(), "misbehaved");
}

#[test]
fn a_caller_that_goes_in_mid_frame_leaves_nothing_behind() {
    let backend = Backend::start();
    let whole = frame(|_| {});
    for cut in [1, 7, 63, 64, whole.len() - 1] {
        let mut raw = Raw::connect(backend.addr());
        raw.send(&whole[..cut]);
        raw.0.shutdown(std::net::Shutdown::Write).expect("a socket");
        assert!(raw.is_closed());
    }
    backend.reaches("moorgate_backend_closed_total{reason=\"cut_short\"}", 5);
    backend.reaches("moorgate_backend_connections", 0);
}

#[test]
fn a_frame_that_comes_byte_by_byte_is_one_frame() {
    let bare = Bare::start();
    let mut raw = Raw::connect(bare.addr);
    for byte in frame(|_| {}) {
        raw.send(&[byte]);
    }
    let (header, body) = raw.next(Kind::Reply);
    assert_eq!((header.code(), body.as_slice()), (Code::Ok, &b"body"[..]));
}

#[test]
fn the_largest_frame_is_taken_and_one_byte_more_is_not() {
    let bare = Bare::start();
    let mut raw = Raw::connect(bare.addr);
    let most = proto_wire::limits::MAX_RPC_BODY_BYTES;
    let body = vec![b'x'; most];
    raw.call(1, ECHO, 20_000, &body);
    let (header, echoed) = raw.next(Kind::Reply);
    assert_eq!((header.code(), echoed.len()), (Code::Ok, most));
    raw.send(&frame(|bytes| bytes[8..12].copy_from_slice(&(most as u32 + 1).to_le_bytes())));
    assert!(raw.is_closed());
}

#[test]
fn a_peer_that_does_not_read_costs_a_bounded_number_of_bytes() {
    const BODY: usize = 32 * 1024;
    const CALLS: u64 = 4000;
    let bare = Bare::start();
    let mut raw = Raw::connect(bare.addr);
    raw.0.set_write_timeout(Some(Duration::from_millis(500))).expect("a socket");
    let mut sent = Vec::new();
    let blocked = (1..=CALLS).find(|&call_id| {
        let mut bytes = Vec::new();
        Header { kind: Kind::Call, call_id, method: ECHO, ..Header::default() }.put(&[7; BODY], &mut bytes);
        sent.extend_from_slice(&bytes);
        match raw.0.write(&bytes) {
            Ok(written) => {
                sent.drain(..written);
                !sent.is_empty()
            }
            Err(_) => true,
        }
    });
    let blocked = blocked.expect("125 MiB of answers that nobody reads do not fit");
    // Once it reads, all that was taken is answered.
    let mut reader = Raw(raw.0.try_clone().expect("a socket"));
    let writer = std::thread::spawn(move || {
        raw.0.set_write_timeout(None).expect("a socket");
        raw.send(&sent);
        raw
    });
    for _ in 0..blocked {
        let (header, body) = reader.next(Kind::Reply);
        assert_eq!((header.code(), body.len()), (Code::Ok, BODY));
    }
    drop(writer.join().expect("no panic"));
}

#[test]
fn random_bytes_do_not_stop_the_backend() {
    let backend = Backend::start();
    let mut random: u64 = 0x9e37_79b9_7f4a_7c15;
    for round in 0..200 {
        let mut bytes = frame(|_| {});
        for _ in 0..=round % 5 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let at = random as usize % bytes.len();
            bytes[at] = (random >> 32) as u8;
        }
        let mut raw = Raw::connect(backend.addr());
        raw.send(&bytes);
        raw.0.shutdown(std::net::Shutdown::Write).expect("a socket");
        assert!(raw.is_closed(), "round {round}: {:?}", next_header(&bytes));
    }
    assert_eq!(backend.metric("moorgate_backend_accepted_total"), 200);
    let mut client = Client::connect(backend.addr());
    assert_eq!(client.call(&echo::SAY, None, &pb::EchoRequest::default()).code, Code::Ok);
}
