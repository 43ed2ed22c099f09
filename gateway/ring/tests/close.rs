//! Closing slots, and what comes after.

mod common;
use common::*;
use gateway_ring::*;
use std::io::{Read, Write};
use std::os::fd::AsFd;

#[test]
fn a_close_after_a_cancel_sends_fin() {
    let mut ring = ring(4);
    let (mut client, slot, poll) = polled_pair(&mut ring, 1);
    ring.close(slot, &[Cancel::Token(poll)], Token::new(CLOSE, 1, slot.0)).unwrap();
    let mut ops = [next(&mut ring), next(&mut ring)];
    ops.sort_by_key(|completion| completion.token.op());
    assert_eq!((ops[0].token, ops[0].result, ops[0].more), (poll, Err(Errno::CANCELED), false));
    assert_eq!((ops[1].token.op(), ops[1].result), (CLOSE, Ok(0)));
    assert_fin(&mut client);
    assert_quiet(&mut ring);
}

/// What must not be relied on, so that it is noticed when a kernel changes it: the pair of the test above.
#[test]
fn a_bare_close_under_an_armed_poll_sends_no_fin() {
    let mut ring = ring(4);
    let (mut client, slot, poll) = polled_pair(&mut ring, 1);
    ring.close(slot, &[], Token::new(CLOSE, 1, slot.0)).unwrap();
    assert_eq!(take(&mut ring, CLOSE).result, Ok(0));
    assert_quiet(&mut ring);
    assert_no_fin(&client);
    // The socket lives on under the poll, though the slot is free.
    client.write_all(b"x").unwrap();
    assert_eq!(take(&mut ring, POLL).token, poll);
    ring.cancel(Cancel::Token(poll)).unwrap();
    assert_eq!(take(&mut ring, POLL).result, Err(Errno::CANCELED));
    // Closed at last, with unread bytes: a reset, or an end.
    assert!(matches!(client.read(&mut [0; 1]), Ok(0) | Err(_)));
}

#[test]
fn everything_on_a_slot_can_be_cancelled_without_naming_it() {
    let mut ring = ring(4);
    let bufs = ring.buffer_ring(2, 64).unwrap();
    let (mut client, slot, _) = polled_pair(&mut ring, 1);
    let (other, _other_slot, _) = polled_pair(&mut ring, 9);
    ring.recv_multi(slot, bufs.group(), Token::new(RECV, 1, slot.0)).unwrap();
    ring.submit().unwrap();
    ring.close(slot, &[Cancel::AllOn(slot)], Token::new(CLOSE, 1, slot.0)).unwrap();
    let all: Vec<Completion> = (0..3).map(|_| next(&mut ring)).collect();
    let count = |result| all.iter().filter(|completion| completion.result == result).count();
    assert_eq!((count(Err(Errno::CANCELED)), count(Ok(0))), (2, 1));
    assert_fin(&mut client);
    assert_no_fin(&other);
    assert_quiet(&mut ring);
}

#[test]
fn a_close_cancels_a_send_that_the_peer_does_not_take() {
    let mut ring = ring(4);
    let (client, slot, poll) = polled_pair(&mut ring, 1);
    let bytes = 64 << 20;
    let send = ring.send(slot, vec![0; bytes], Token::new(SEND, 1, slot.0)).unwrap();
    assert_quiet(&mut ring);
    assert_eq!(ring.in_flight(), 1);
    let cancels = [Cancel::Token(poll), Cancel::InFlight(send)];
    ring.close(slot, &cancels, Token::new(CLOSE, 1, slot.0)).unwrap();
    let all: Vec<Completion> = (0..3).map(|_| next(&mut ring)).collect();
    let sent = all.iter().find(|completion| completion.token.op() == SEND).unwrap();
    // What had gone into the socket is told, else that it was cancelled; the buffer comes back either way.
    assert!(
        matches!(sent.result, Ok(part) if (part as usize) < bytes) || sent.result == Err(Errno::CANCELED)
    );
    assert!(matches!(&sent.returned, Returned::Sent(buf) if buf.len() == bytes));
    assert_eq!(ring.in_flight(), 0);
    drop(client);
    assert_quiet(&mut ring);
}

#[test]
fn a_stale_completion_is_told_by_its_generation() {
    let mut ring = ring(1);
    let (listener, addr) = loopback();
    ring.accept_one(listener.as_fd(), Token::new(ACCEPT, 0, 0)).unwrap();
    let mut first = connect(&mut ring, addr);
    let slot = Slot(take(&mut ring, ACCEPT).result.unwrap());
    ring.poll_multi(slot, PollEvents::IN, Token::new(POLL, 1, slot.0)).unwrap();
    ring.submit().unwrap();
    // A poll fires, is not reaped, and in the same batch its slot is closed and given to another.
    first.write_all(b"news").unwrap();
    let mut second = std::net::TcpStream::connect(addr).unwrap();
    let cancels = [Cancel::Token(Token::new(POLL, 1, slot.0))];
    ring.close(slot, &cancels, Token::new(CLOSE, 1, slot.0)).unwrap();
    ring.accept_one(listener.as_fd(), Token::new(ACCEPT, 2, 0)).unwrap();
    ring.poll_multi(slot, PollEvents::IN, Token::new(POLL, 2, slot.0)).unwrap();
    second.write_all(b"more").unwrap();
    let mut seen = Vec::new();
    while !seen.contains(&(POLL, 2)) {
        let completion = next(&mut ring);
        seen.push((completion.token.op(), completion.token.generation()));
    }
    // One slot number, two connections: only the generation tells them apart.
    assert!(seen.contains(&(CLOSE, 1)) && seen.contains(&(ACCEPT, 2)), "{seen:?}");
    assert!(
        seen.contains(&(POLL, 1)) || matches!(ring.next_completion(), Some(c) if c.token.generation() == 1)
    );
}

#[test]
fn an_empty_slot_and_one_beyond_the_table_are_no_descriptors() {
    let mut ring = ring(4);
    for slot in [Slot(2), Slot(4), Slot(u32::MAX)] {
        ring.close(slot, &[], Token::new(CLOSE, 0, 0)).unwrap();
        let closed = take(&mut ring, CLOSE).result;
        assert!(matches!(closed, Err(Errno(libc::EBADF | libc::EINVAL))), "{slot:?} {closed:?}");
        ring.shutdown(slot, ShutdownHow::Both, Token::new(OTHER, 0, 0)).unwrap();
        assert_eq!(take(&mut ring, OTHER).result, Err(Errno::BAD_DESCRIPTOR));
    }
}

#[test]
fn a_shutdown_ends_one_direction() {
    let mut ring = ring(4);
    let bufs = ring.buffer_ring(2, 64).unwrap();
    let (mut client, slot) = pair(&mut ring);
    ring.shutdown(slot, ShutdownHow::Write, Token::new(OTHER, 0, slot.0)).unwrap();
    assert_eq!(take(&mut ring, OTHER).result, Ok(0));
    assert_fin(&mut client);
    client.write_all(b"still").unwrap();
    ring.recv(slot, bufs.group(), Token::new(RECV, 0, slot.0)).unwrap();
    assert_eq!(take(&mut ring, RECV).result, Ok(5));
}

#[test]
fn a_reset_on_close_is_a_reset() {
    let mut ring = ring(4);
    let (mut client, slot) = pair(&mut ring);
    ring.set_option(slot, SocketOption::ResetOnClose, Token::new(OTHER, 0, slot.0)).unwrap();
    assert_eq!(take(&mut ring, OTHER).result, Ok(0));
    ring.close(slot, &[], Token::new(CLOSE, 0, slot.0)).unwrap();
    assert_eq!(take(&mut ring, CLOSE).result, Ok(0));
    assert_eq!(client.read(&mut [0; 1]).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}
