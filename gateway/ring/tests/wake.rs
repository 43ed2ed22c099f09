//! Waking rings and handing descriptors over.

mod common;
use common::*;
use gateway_ring::*;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::thread;

/// A thread with a ring of its own that gives its address and then does `work`.
fn other_thread(work: impl FnOnce(&mut Ring) + Send + 'static) -> (RingAddress, thread::JoinHandle<()>) {
    let (tell, address) = mpsc::channel();
    let thread = thread::spawn(move || {
        let mut ring = ring(4);
        tell.send(ring.address()).unwrap();
        work(&mut ring);
    });
    (address.recv().unwrap(), thread)
}

fn expect_wakes(ring: &mut Ring) {
    for value in 0..100 {
        let wake = take(ring, WAKE);
        assert_eq!((wake.token, wake.result, wake.more), (Token::new(WAKE, 5, 6), Ok(value), false));
    }
}

#[test]
fn a_message_wakes_a_ring_of_another_thread() {
    let mut ring = ring(4);
    let (address, thread) = other_thread(expect_wakes);
    for value in 0..100 {
        // Every tenth is told here too; the others leave no trace on this side.
        let here = (value % 10 == 0).then_some(Token::new(OTHER, 0, value));
        ring.message(address, Token::new(WAKE, 5, 6), value, here).unwrap();
        ring.submit().unwrap();
        if let Some(token) = here {
            let told = take(&mut ring, OTHER);
            assert_eq!((told.token, told.result), (token, Ok(0)));
        }
    }
    thread.join().unwrap();
    assert_quiet(&mut ring);
}

#[test]
fn a_thread_without_a_ring_wakes_one() {
    if !probe().unwrap().post_without_ring {
        return;
    }
    let (address, thread) = other_thread(expect_wakes);
    for value in 0..100 {
        address.post(Token::new(WAKE, 5, 6), value).unwrap();
    }
    thread.join().unwrap();
    assert!(matches!(address.post(Token::new(WAKE, 5, 6), 1), Err(PostError::Gone)));
}

#[test]
fn a_message_to_no_ring_is_told_to_its_sender() {
    let mut ring = ring(4);
    let gone = other_thread(|_| ()).0;
    let other_end = ring.address();
    ring.message(other_end, Token::new(WAKE, 0, 1), 7, None).unwrap();
    assert_eq!(take(&mut ring, WAKE).result, Ok(7), "a ring may send to itself");
    for _ in 0..100 {
        // The other thread may not have ended yet: then it goes through.
        ring.message(gone, Token::new(WAKE, 0, 0), 1, Some(Token::new(OTHER, 0, 0))).unwrap();
        if let Err(errno) = take(&mut ring, OTHER).result {
            assert!(
                matches!(errno.0, libc::EBADF | libc::EBADFD | libc::EOVERFLOW | libc::EOWNERDEAD),
                "{errno:?}"
            );
            return;
        }
        thread::yield_now();
    }
}

#[test]
fn a_descriptor_is_handed_to_another_ring() {
    let mut ring = ring(4);
    let (mut client, slot) = pair(&mut ring);
    let (address, thread) = other_thread(|other| {
        let mut bufs = other.buffer_ring(2, 64).unwrap();
        let handed = take(other, WAKE);
        let slot = Slot(handed.result.unwrap());
        assert_eq!(handed.token, Token::new(WAKE, 3, 9));
        other.poll_one(slot, PollEvents::IN, Token::new(POLL, 0, slot.0)).unwrap();
        take(other, POLL);
        other.recv(slot, bufs.group(), Token::new(RECV, 0, slot.0)).unwrap();
        let id = take(other, RECV).buffer.unwrap();
        let reply = [bufs.bytes(&id), b" back"].concat();
        bufs.recycle(id);
        other.send(slot, reply, Token::new(SEND, 0, slot.0)).unwrap();
        assert_eq!(take(other, SEND).result, Ok(10));
        other.close(slot, &[], Token::new(CLOSE, 0, slot.0)).unwrap();
        assert_eq!(take(other, CLOSE).result, Ok(0));
    });
    ring.hand_over(slot, address, Token::new(WAKE, 3, 9), Token::new(OTHER, 0, slot.0)).unwrap();
    take(&mut ring, OTHER).result.unwrap();
    ring.close(slot, &[], Token::new(CLOSE, 0, slot.0)).unwrap();
    assert_eq!(take(&mut ring, CLOSE).result, Ok(0));
    client.write_all(b"hello").unwrap();
    let mut all = Vec::new();
    client.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"hello back");
    thread.join().unwrap();
}

#[test]
fn a_descriptor_for_a_ring_without_room_stays_here() {
    let mut ring = ring(4);
    let (client, slot) = pair(&mut ring);
    let (address, thread) = other_thread(|other| {
        // Four are taken, the fifth is not told here.
        for _ in 0..4 {
            take(other, CONNECT).result.unwrap();
        }
        assert_eq!(take(other, WAKE).result, Ok(1));
    });
    let mut results = Vec::new();
    for _ in 0..5 {
        ring.hand_over(slot, address, Token::new(CONNECT, 0, 0), Token::new(OTHER, 0, slot.0)).unwrap();
        results.push(take(&mut ring, OTHER).result.err());
    }
    assert_eq!(results, [None, None, None, None, Some(Errno::TABLE_FULL)]);
    assert_no_fin(&client);
    ring.message(address, Token::new(WAKE, 0, 0), 1, None).unwrap();
    ring.submit().unwrap();
    thread.join().unwrap();
}

#[test]
fn a_doorbell_is_heard_by_a_poll_however_often_it_rings() {
    let mut ring = ring(0);
    let doorbell = Doorbell::new().unwrap();
    ring.poll_multi(doorbell.as_fd(), PollEvents::IN, Token::new(WAKE, 0, 0)).unwrap();
    assert_quiet(&mut ring);
    let bell = doorbell.clone();
    thread::spawn(move || (0..10).for_each(|_| bell.ring())).join().unwrap();
    assert!(take(&mut ring, WAKE).more);
    doorbell.clear();
    while ring.next_completion().is_some() {}
    assert_quiet(&mut ring);
    doorbell.ring();
    assert!(take(&mut ring, WAKE).more);
}

#[test]
fn a_doorbell_tells_that_work_waits() {
    let (mut parent, mut child) = (ring(0), ring(4));
    let doorbell = Doorbell::new().unwrap();
    child.ring_for_work(&doorbell).unwrap();
    let (mut client, slot) = pair(&mut child);
    child.poll_multi(slot, PollEvents::IN, Token::new(POLL, 0, slot.0)).unwrap();
    assert_quiet(&mut child);
    for _ in 0..10 {
        // What the child did so far rang too.
        doorbell.clear();
        parent.poll_multi(doorbell.as_fd(), PollEvents::IN, Token::new(WAKE, 0, 0)).unwrap();
        assert_quiet(&mut parent);
        client.write_all(b"x").unwrap();
        // The child is not entered: its completion is not there yet, only the work that makes it.
        assert_eq!(child.ready(), 0);
        assert!(!take(&mut parent, WAKE).more, "a ring's wake-up ends a multishot of another");
        assert_eq!(take(&mut child, POLL).token.slot(), slot.0);
    }
}
