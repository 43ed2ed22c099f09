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

/// Two of these are a connection's ends: an ordinary client and a slot, with a multishot poll armed.
pub fn polled_pair(ring: &mut Ring, generation: u32) -> (TcpStream, Slot, Token) {
    let (client, slot) = pair(ring);
    let token = Token::new(POLL, generation, slot.0);
    ring.poll_multi(slot, PollEvents::IN | PollEvents::RDHUP, token).unwrap();
    assert_quiet(ring);
    (client, slot, token)
}

/// The completions that come until the one of `op`, that one last.
pub fn until(ring: &mut Ring, op: u8) -> Vec<Completion> {
    let mut all = Vec::new();
    loop {
        let completion = next(ring);
        let last = completion.token.op() == op;
        all.push(completion);
        if last {
            return all;
        }
    }
}

/// That the client's stream has ended.
pub fn assert_fin(client: &mut TcpStream) {
    use std::io::Read;
    assert_eq!(client.read(&mut [0; 16]).unwrap(), 0, "the stream goes on");
}

/// That the client's stream has neither ended nor anything to read.
pub fn assert_no_fin(client: &TcpStream) {
    client.set_nonblocking(true).unwrap();
    let peeked = client.peek(&mut [0; 16]);
    client.set_nonblocking(false).unwrap();
    assert_eq!(peeked.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}
