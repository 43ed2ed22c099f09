//! The whole path once: accept, poll, receive, send, close.

mod common;
use common::*;
use gateway_ring::*;
use std::io::{Read, Write};
use std::os::fd::AsFd;

#[test]
fn an_echo_goes_through_direct_descriptors_and_provided_buffers() {
    let mut ring = ring(16);
    let mut bufs = ring.buffer_ring(8, 512).unwrap();
    let (listener, addr) = loopback();
    ring.accept_multi(listener.as_fd(), Token::new(ACCEPT, 0, 0)).unwrap();
    let mut client = connect(&mut ring, addr);
    let slot = Slot(take(&mut ring, ACCEPT).result.unwrap());
    ring.poll_multi(slot, PollEvents::IN | PollEvents::RDHUP, Token::new(POLL, 1, slot.0)).unwrap();
    for round in 0..50u8 {
        client.write_all(&[round; 300]).unwrap();
        let poll = take(&mut ring, POLL);
        assert!(poll.more && PollEvents(poll.result.unwrap()).intersects(PollEvents::IN));
        ring.recv(slot, bufs.group(), Token::new(RECV, 1, slot.0)).unwrap();
        let received = take(&mut ring, RECV);
        assert_eq!(received.result, Ok(300));
        let id = received.buffer.unwrap();
        ring.send(slot, bufs.bytes(&id).to_vec(), Token::new(SEND, 1, slot.0)).unwrap();
        bufs.recycle(id);
        let sent = take(&mut ring, SEND);
        assert_eq!(sent.result, Ok(300));
        assert!(matches!(sent.returned, Returned::Sent(buf) if buf.as_slice() == [round; 300]));
        let mut back = [0; 300];
        client.read_exact(&mut back).unwrap();
        assert_eq!(back, [round; 300]);
    }
    assert_eq!((bufs.available(), ring.in_flight()), (8, 0));
}
