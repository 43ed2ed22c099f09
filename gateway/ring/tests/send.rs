//! Sending: what is owned, what is whole, what is refused.

mod common;
use common::*;
use gateway_ring::*;
use std::io::Read;

#[test]
fn a_send_larger_than_the_socket_buffer_completes_whole() {
    let mut ring = ring(4);
    let (mut client, slot) = pair(&mut ring);
    let bytes: Vec<u8> = (0..48u32 << 20).map(|n| (n % 251) as u8).collect();
    let expected = bytes.clone();
    ring.send(slot, bytes, Token::new(SEND, 0, slot.0)).unwrap();
    assert_quiet(&mut ring);
    let reader = std::thread::spawn(move || {
        let mut all = vec![0; expected.len()];
        client.read_exact(&mut all).unwrap();
        assert!(all == expected);
    });
    // One completion only, though the socket took it in many parts.
    assert_eq!(take(&mut ring, SEND).result, Ok(48 << 20));
    reader.join().unwrap();
    assert_quiet(&mut ring);
}

#[test]
fn a_send_at_once_is_told_only_when_it_fails() {
    static MUCH: [u8; 1 << 20] = [7; 1 << 20];
    let mut ring = ring(4);
    let (mut client, slot) = pair(&mut ring);
    ring.send_now(slot, b"hi", Token::new(SEND, 0, slot.0)).unwrap();
    assert_quiet(&mut ring);
    let mut two = [0; 2];
    client.read_exact(&mut two).unwrap();
    assert_eq!(&two, b"hi");
    // The peer reads no more: some megabytes later there is no room.
    let (mut sent, mut told) = (0, None);
    while told.is_none() {
        assert!(sent <= 64 << 20, "a socket takes no end of bytes");
        ring.send_now(slot, &MUCH, Token::new(SEND, 1, slot.0)).unwrap();
        ring.submit().unwrap();
        told = ring.next_completion();
        sent += MUCH.len();
    }
    let told = told.unwrap();
    assert_eq!(told.token, Token::new(SEND, 1, slot.0));
    let part = told.result.unwrap_or(0) as usize;
    assert!(part < MUCH.len(), "told, though it was whole");
    ring.send_now(slot, b"hi", Token::new(SEND, 2, slot.0)).unwrap();
    assert_eq!(take(&mut ring, SEND).result, Err(Errno::AGAIN));
    // It was not left waiting: what arrives is what was said to be sent.
    assert_quiet(&mut ring);
    let mut rest = vec![0; sent - MUCH.len() + part];
    client.read_exact(&mut rest).unwrap();
    assert!(rest.iter().all(|&byte| byte == 7));
    client.set_nonblocking(true).unwrap();
    assert_eq!(client.read(&mut two).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn a_short_send_is_told_and_the_rest_can_be_sent() {
    let mut ring = ring(4);
    let (mut client, slot) = pair(&mut ring);
    let bytes: Vec<u8> = (0..16u32 << 20).map(|n| (n % 251) as u8).collect();
    let expected = bytes.clone();
    let send = ring.send(slot, bytes::Bytes::from(bytes), Token::new(SEND, 0, slot.0)).unwrap();
    assert_quiet(&mut ring);
    ring.cancel(Cancel::InFlight(send)).unwrap();
    let completion = take(&mut ring, SEND);
    let part = completion.result.unwrap() as usize;
    assert!(part > 0 && part < expected.len());
    let Returned::Sent(mut rest) = completion.returned else { panic!("the buffer has not come back") };
    rest.advance(part);
    ring.send(slot, rest, Token::new(SEND, 0, slot.0)).unwrap();
    ring.submit().unwrap();
    let reader = std::thread::spawn(move || {
        let mut all = vec![0; expected.len()];
        client.read_exact(&mut all).unwrap();
        assert!(all == expected);
    });
    assert_eq!(take(&mut ring, SEND).result, Ok((16 << 20) - part as u32));
    reader.join().unwrap();
}

#[test]
fn a_send_to_a_peer_that_is_gone_is_an_error_and_no_signal() {
    let mut ring = ring(4);
    let (client, slot) = pair(&mut ring);
    // It leaves with bytes unread: a reset.
    ring.send(slot, b"unread".to_vec(), Token::new(SEND, 0, slot.0)).unwrap();
    take(&mut ring, SEND);
    drop(client);
    let mut results = Vec::new();
    for _ in 0..3 {
        ring.send(slot, b"x".to_vec(), Token::new(SEND, 0, slot.0)).unwrap();
        results.push(take(&mut ring, SEND).result);
    }
    assert_eq!(results.last(), Some(&Err(Errno::BROKEN_PIPE)));
}

#[test]
fn a_full_queue_gives_the_buffer_back() {
    let config =
        RingConfig { sq_entries: 4, cq_entries: 64, direct_slots: 4, in_flight_max: 6, ..Default::default() };
    let mut ring = Ring::new(config).unwrap();
    let (client, slot) = pair(&mut ring);
    let token = Token::new(SEND, 0, slot.0);
    for _ in 0..4 {
        ring.send(slot, vec![1; 8 << 20], token).unwrap();
    }
    let refused = ring.send(slot, vec![1; 10], token).unwrap_err();
    assert_eq!((refused.full, refused.buf.len()), (Full::Submissions, 10));
    // A close with its cancels enters whole or not at all.
    assert_eq!(ring.close(slot, &[Cancel::Token(token)], Token::new(CLOSE, 0, 0)), Err(Full::Submissions));
    assert_eq!(ring.queued(), 4);
    ring.submit().unwrap();
    for _ in 0..2 {
        ring.send(slot, refused_again(&refused), token).unwrap();
    }
    assert_eq!(ring.send(slot, vec![2; 10], token).unwrap_err().full, Full::InFlight);
    assert_eq!(ring.peer_name(slot, Family::V4, token), Err(Full::InFlight));
    drop(client);
    for _ in 0..6 {
        assert!(matches!(take(&mut ring, SEND).returned, Returned::Sent(_)));
    }
    assert_eq!(ring.in_flight(), 0);
}

fn refused_again(refused: &SendRefused) -> Vec<u8> {
    refused.buf.as_slice().to_vec()
}

#[test]
fn pooled_buffers_come_back_with_their_completions() {
    let mut ring = ring(4);
    let mut pool = SendPool::new(4);
    let (mut client, slot) = pair(&mut ring);
    let mut addresses = std::collections::HashSet::new();
    for round in 0..100u8 {
        let mut buf = pool.take(100);
        buf.extend_from_slice(&[round; 100]);
        addresses.insert(buf.as_ptr() as usize);
        ring.send(slot, buf, Token::new(SEND, 0, slot.0)).unwrap();
        let Returned::Sent(sent) = take(&mut ring, SEND).returned else { panic!("no buffer") };
        pool.put_sent(sent);
        let mut received = [0; 100];
        client.read_exact(&mut received).unwrap();
        assert_eq!(received, [round; 100]);
    }
    assert_eq!(addresses.len(), 1, "one buffer did for all");
}
