//! What the conformance tests share: a ring, a listener, a client, and reaping with a bound.
#![allow(dead_code, reason = "each test file uses a part")]

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use gateway_ring::*;

pub const ACCEPT: u8 = 1;
pub const POLL: u8 = 2;
pub const RECV: u8 = 3;
pub const SEND: u8 = 4;
pub const CLOSE: u8 = 5;
pub const CONNECT: u8 = 6;
pub const OTHER: u8 = 7;
pub const WAKE: u8 = 8;

/// Long enough that only a completion that never comes reaches it.
pub const NEVER: Duration = Duration::from_secs(20);

pub fn ring(direct_slots: u32) -> Ring {
    Ring::new(RingConfig { sq_entries: 64, cq_entries: 256, direct_slots, ..Default::default() }).unwrap()
}

pub fn loopback() -> (TcpListener, SocketAddr) {
    let listener = listener("127.0.0.1:0".parse().unwrap(), &ListenOptions::default()).unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// A blocking client; the ring's accept is submitted first.
pub fn connect(ring: &mut Ring, addr: SocketAddr) -> TcpStream {
    ring.submit().unwrap();
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(NEVER)).unwrap();
    stream
}

/// The next completion, whatever it is.
pub fn next(ring: &mut Ring) -> Completion {
    for _ in 0..100 {
        if let Some(completion) = ring.next_completion() {
            return completion;
        }
        let outcome = ring.submit_and_wait(1, Some(NEVER)).unwrap();
        assert_ne!(outcome, Outcome::TimedOut, "no completion came");
    }
    panic!("the kernel kept returning without a completion");
}

/// The next completion, which must be of this op.
pub fn take(ring: &mut Ring, op: u8) -> Completion {
    let completion = next(ring);
    assert_eq!(completion.token.op(), op, "{completion:?}");
    completion
}

/// That no completion is there, once everything queued has been submitted and all deferred work done.
pub fn assert_quiet(ring: &mut Ring) {
    ring.submit().unwrap();
    if let Some(completion) = ring.next_completion() {
        panic!("unexpected {completion:?}");
    }
}

/// An accepted connection: the client's end and the slot of ours. The accept is one-shot.
pub fn pair(ring: &mut Ring) -> (TcpStream, Slot) {
    use std::os::fd::AsFd;
    let (listener, addr) = loopback();
    ring.accept_one(listener.as_fd(), Token::new(ACCEPT, 0, 0)).unwrap();
    let client = connect(ring, addr);
    let accepted = take(ring, ACCEPT);
    assert!(!accepted.more);
    (client, Slot(accepted.result.unwrap()))
}
