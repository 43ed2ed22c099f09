//! What does it cost to close one of many polled connections: cancelling its poll by token, or everything on its
//! slot? And what does a ring cost this process?
//!
//! Method: one ring holds both ends of N loopback connections, a multishot poll armed on each server's end; then
//! 500 of them are closed, one batch each, one way or the other, and reaped. Printed: microseconds a close, and
//! the growth of the process's RSS for the ring, its buffers and the N polled connections.
//!
//! `cargo run --release -p gateway-ring --example close_cost -- [connections]`

use std::os::fd::AsFd;
use std::time::Instant;

use gateway_ring::*;

const POLL: u8 = 1;
const OTHER: u8 = 2;
const CLOSES: u32 = 500;

fn main() {
    let connections = std::env::args().nth(1).map_or(9_000, |arg| arg.parse::<u32>().expect("a number"));
    assert!(connections > 2 * CLOSES, "too few to close");
    let before = rss_kib();
    let (mut ring, _bufs) = polled(connections);
    println!("{connections} polled connections: {} KiB of RSS for ring, buffers and all", rss_kib() - before);
    let by_token = |slot| Cancel::Token(Token::new(POLL, 0, slot));
    let all_on = |slot| Cancel::AllOn(Slot(slot));
    let first = connections;
    println!("by token         {:8.1} us a close", close(&mut ring, first..first + CLOSES, by_token));
    let first = connections + CLOSES;
    println!("all on its slot  {:8.1} us a close", close(&mut ring, first..first + CLOSES, all_on));
}

fn close(ring: &mut Ring, slots: std::ops::Range<u32>, cancel: impl Fn(u32) -> Cancel) -> f64 {
    let started = Instant::now();
    for slot in slots.clone() {
        ring.close(Slot(slot), &[cancel(slot)], Token::new(OTHER, 0, slot)).expect("room");
        let mut closed = 0;
        while closed < 2 {
            ring.submit_and_wait(1, None).expect("enter");
            closed += ring.completions(4).count();
        }
    }
    started.elapsed().as_micros() as f64 / slots.len() as f64
}

/// Slots 0..n are the clients' ends, n..2n the servers'.
fn polled(connections: u32) -> (Ring, BufferRing) {
    let config = RingConfig {
        direct_slots: 2 * connections,
        automatic_slots: Some(connections..2 * connections),
        ..Default::default()
    };
    let mut ring = Ring::new(config).expect("a ring");
    let bufs = ring.buffer_ring(64, 4096).expect("buffers");
    let listener =
        listener("127.0.0.1:0".parse().expect("an address"), &ListenOptions::default()).expect("a port");
    let addr = listener.local_addr().expect("bound");
    for slot in 0..connections {
        let socket = client_socket(Family::V4, &ClientOptions::default()).expect("a socket");
        ring.install(Slot(slot), socket).expect("a slot");
        ring.connect(Slot(slot), addr, Token::new(OTHER, 0, 0)).expect("room");
        ring.accept_one(listener.as_fd(), Token::new(OTHER, 0, 0)).expect("room");
        let mut done = 0;
        while done < 2 {
            ring.submit_and_wait(1, None).expect("enter");
            done += ring.completions(2).inspect(|c| assert!(c.result.is_ok())).count();
        }
        let server = connections + slot;
        ring.poll_multi(Slot(server), PollEvents::IN | PollEvents::RDHUP, Token::new(POLL, 0, server))
            .expect("room");
    }
    ring.submit().expect("enter");
    (ring, bufs)
}

fn rss_kib() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("proc");
    let line = |name| status.lines().find(|line| line.starts_with(name)).expect("a line");
    let kib = |name| line(name).split_whitespace().nth(1).and_then(|kib| kib.parse::<i64>().ok());
    kib("RssAnon:").expect("a number") + kib("RssShmem:").expect("a number")
}
