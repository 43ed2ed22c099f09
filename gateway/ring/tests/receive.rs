//! Polling and receiving.

mod common;
use common::*;
use gateway_ring::*;
use std::io::Write;
use std::net::Shutdown;

#[test]
fn a_multishot_poll_tells_of_news_and_not_of_a_state() {
    let mut ring = ring(4);
    let (mut client, slot, token) = polled_pair(&mut ring, 1);
    client.write_all(b"one").unwrap();
    assert!(take(&mut ring, POLL).more);
    // The bytes are still there, and it does not tell again.
    assert_quiet(&mut ring);
    // More bytes are news.
    client.write_all(b"two").unwrap();
    assert!(take(&mut ring, POLL).more);
    // One that is armed over waiting bytes tells at once.
    ring.cancel(Cancel::Token(token)).unwrap();
    assert_eq!(take(&mut ring, POLL).result, Err(Errno::CANCELED));
    ring.poll_multi(slot, PollEvents::IN, Token::new(POLL, 2, slot.0)).unwrap();
    let poll = take(&mut ring, POLL);
    assert_eq!((poll.token.generation(), poll.more), (2, true));
    assert!(PollEvents(poll.result.unwrap()).intersects(PollEvents::IN));
}

#[test]
fn the_peers_end_is_told_by_the_poll_and_a_poll_of_one_shot_tells_once() {
    let mut ring = ring(4);
    let (client, _slot, _) = polled_pair(&mut ring, 1);
    client.shutdown(Shutdown::Write).unwrap();
    let poll = take(&mut ring, POLL);
    assert!(PollEvents(poll.result.unwrap()).intersects(PollEvents::RDHUP));
    let (mut client, slot) = pair(&mut ring);
    ring.poll_one(slot, PollEvents::IN, Token::new(POLL, 2, slot.0)).unwrap();
    ring.submit().unwrap();
    client.write_all(b"x").unwrap();
    assert!(!take(&mut ring, POLL).more);
    client.write_all(b"x").unwrap();
    assert_quiet(&mut ring);
}

#[test]
fn a_receive_of_nothing_says_again_and_takes_no_buffer() {
    let mut ring = ring(4);
    let mut bufs = ring.buffer_ring(2, 64).unwrap();
    let (mut client, slot) = pair(&mut ring);
    for _ in 0..5 {
        ring.recv(slot, bufs.group(), Token::new(RECV, 0, slot.0)).unwrap();
        let received = take(&mut ring, RECV);
        assert_eq!((received.result, received.buffer), (Err(Errno::AGAIN), None));
    }
    assert_eq!(bufs.available(), 2);
    // The kernel has not lost them either.
    client.write_all(&[7; 128]).unwrap();
    let mut held = Vec::new();
    for nonempty in [true, false] {
        ring.recv(slot, bufs.group(), Token::new(RECV, 0, slot.0)).unwrap();
        let received = take(&mut ring, RECV);
        assert_eq!((received.result, received.sock_nonempty), (Ok(64), nonempty));
        held.push(received.buffer.unwrap());
    }
    for id in held {
        assert_eq!(bufs.bytes(&id), [7; 64]);
        bufs.recycle(id);
    }
}

#[test]
fn the_end_of_the_stream_is_a_receive_of_zero_bytes() {
    let mut ring = ring(4);
    let mut bufs = ring.buffer_ring(2, 64).unwrap();
    let (client, slot) = pair(&mut ring);
    client.shutdown(Shutdown::Write).unwrap();
    ring.recv(slot, bufs.group(), Token::new(RECV, 0, slot.0)).unwrap();
    let received = take(&mut ring, RECV);
    assert_eq!(received.result, Ok(0));
    // Whether a buffer comes with it is the kernel's affair; one that does is given back as any other.
    if let Some(id) = received.buffer {
        assert!(id.is_empty());
        bufs.recycle(id);
    }
    assert_eq!(bufs.available(), 2);
}

#[test]
fn a_one_shot_receive_without_buffers_says_so() {
    let mut ring = ring(4);
    let mut bufs = ring.buffer_ring(1, 64).unwrap();
    let (mut client, slot) = pair(&mut ring);
    client.write_all(&[1; 100]).unwrap();
    ring.recv(slot, bufs.group(), Token::new(RECV, 0, slot.0)).unwrap();
    let held = take(&mut ring, RECV).buffer.unwrap();
    assert_eq!(bufs.available(), 0);
    ring.recv(slot, bufs.group(), Token::new(RECV, 0, slot.0)).unwrap();
    assert_eq!(take(&mut ring, RECV).result, Err(Errno::NO_BUFFERS));
    bufs.recycle(held);
    ring.recv(slot, bufs.group(), Token::new(RECV, 0, slot.0)).unwrap();
    let received = take(&mut ring, RECV);
    assert_eq!(received.result, Ok(36));
    bufs.recycle(received.buffer.unwrap());
}

#[test]
fn a_multishot_receive_ends_without_buffers_and_goes_on_when_armed_again() {
    let mut ring = ring(4);
    let mut bufs = ring.buffer_ring(2, 64).unwrap();
    let (mut client, slot) = pair(&mut ring);
    let token = Token::new(RECV, 0, slot.0);
    ring.recv_multi(slot, bufs.group(), token).unwrap();
    ring.submit().unwrap();
    client.write_all(&[5; 200]).unwrap();
    let mut held = Vec::new();
    for _ in 0..2 {
        let received = take(&mut ring, RECV);
        assert_eq!((received.result, received.more), (Ok(64), true));
        held.push(received.buffer.unwrap());
    }
    let ended = take(&mut ring, RECV);
    assert_eq!((ended.result, ended.more), (Err(Errno::NO_BUFFERS), false));
    // Buffers alone do not bring it back.
    held.drain(..).for_each(|id| bufs.recycle(id));
    assert_quiet(&mut ring);
    ring.recv_multi(slot, bufs.group(), token).unwrap();
    let rest: Vec<Completion> = (0..2).map(|_| take(&mut ring, RECV)).collect();
    assert_eq!(rest.iter().map(|c| c.result).collect::<Vec<_>>(), [Ok(64), Ok(8)]);
    assert!(rest.iter().all(|c| c.more));
    rest.into_iter().for_each(|c| bufs.recycle(c.buffer.unwrap()));
    client.shutdown(Shutdown::Write).unwrap();
    let ended = take(&mut ring, RECV);
    assert_eq!((ended.result, ended.more), (Ok(0), false));
}

#[test]
fn a_buffer_tells_its_group_by_its_number() {
    let mut ring = ring(4);
    let mut small = ring.buffer_ring(2, 16).unwrap();
    let mut large = ring.buffer_ring(4, 1024).unwrap();
    assert_ne!(small.group(), large.group());
    let (mut client, slot) = pair(&mut ring);
    client.write_all(&[3; 516]).unwrap();
    ring.recv(slot, small.group(), Token::new(RECV, 0, slot.0)).unwrap();
    let first = take(&mut ring, RECV).buffer.unwrap();
    ring.recv(slot, large.group(), Token::new(RECV, 0, slot.0)).unwrap();
    let mut second = take(&mut ring, RECV).buffer.unwrap();
    assert_eq!((small.bytes(&first), large.bytes(&second)), (&[3; 16][..], &[3; 500][..]));
    large.bytes_mut(&mut second).fill(4);
    assert_eq!(large.bytes(&second), [4; 500]);
    small.recycle(first);
    large.recycle(second);
    assert_eq!((small.available(), large.available()), (2, 4));
}

#[test]
fn buffers_go_round_more_often_than_their_counter_has_numbers() {
    let mut ring = ring(4);
    let mut bufs = ring.buffer_ring(2, 64).unwrap();
    let (mut client, slot) = pair(&mut ring);
    for round in 0..70_000u32 {
        client.write_all(&round.to_le_bytes()).unwrap();
        ring.recv(slot, bufs.group(), Token::new(RECV, 0, slot.0)).unwrap();
        let id = take(&mut ring, RECV).buffer.unwrap();
        assert_eq!(bufs.bytes(&id), round.to_le_bytes());
        bufs.recycle(id);
    }
}
