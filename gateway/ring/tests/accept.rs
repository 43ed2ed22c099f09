//! Accepting into direct descriptors.

mod common;
use common::*;
use gateway_ring::*;
use std::io::Write;
use std::net::TcpStream;
use std::os::fd::AsFd;

#[test]
fn accepted_connections_fill_slots_and_closed_slots_are_filled_again() {
    let mut ring = ring(4);
    let (listener, addr) = loopback();
    ring.accept_multi(listener.as_fd(), Token::new(ACCEPT, 0, 0)).unwrap();
    let mut clients: Vec<TcpStream> = (0..3).map(|_| connect(&mut ring, addr)).collect();
    let mut slots: Vec<u32> = (0..3).map(|_| take(&mut ring, ACCEPT).result.unwrap()).collect();
    slots.sort();
    assert_eq!(slots, [0, 1, 2]);
    ring.close(Slot(1), &[], Token::new(CLOSE, 0, 1)).unwrap();
    assert_eq!(take(&mut ring, CLOSE).result, Ok(0));
    clients.extend((0..2).map(|_| connect(&mut ring, addr)));
    let mut again: Vec<u32> = (0..2).map(|_| take(&mut ring, ACCEPT).result.unwrap()).collect();
    again.sort();
    assert_eq!(again, [1, 3]);
    assert_quiet(&mut ring);
}

#[test]
fn an_accept_into_a_full_table_closes_the_socket_and_ends_the_multishot() {
    let mut ring = ring(1);
    let (listener, addr) = loopback();
    ring.accept_multi(listener.as_fd(), Token::new(ACCEPT, 0, 0)).unwrap();
    let first = connect(&mut ring, addr);
    assert!(take(&mut ring, ACCEPT).more);
    let mut lost = connect(&mut ring, addr);
    let ended = take(&mut ring, ACCEPT);
    assert_eq!((ended.result, ended.more), (Err(Errno::TABLE_FULL), false));
    assert_fin(&mut lost);
    // The next one waits in the backlog until a slot is free and an accept armed.
    let mut third = connect(&mut ring, addr);
    assert_quiet(&mut ring);
    ring.close(Slot(0), &[], Token::new(CLOSE, 0, 0)).unwrap();
    assert_eq!(take(&mut ring, CLOSE).result, Ok(0));
    ring.accept_one(listener.as_fd(), Token::new(ACCEPT, 1, 0)).unwrap();
    let accepted = take(&mut ring, ACCEPT);
    assert_eq!((accepted.result, accepted.more, accepted.token.generation()), (Ok(0), false, 1));
    third.write_all(b"x").unwrap();
    drop(first);
}

#[test]
fn a_close_is_told_before_an_accept_that_fills_its_slot() {
    let mut ring = ring(1);
    let (listener, addr) = loopback();
    let mut clients = Vec::new();
    ring.accept_one(listener.as_fd(), Token::new(ACCEPT, 0, 0)).unwrap();
    clients.push(connect(&mut ring, addr));
    assert_eq!(take(&mut ring, ACCEPT).result, Ok(0));
    for multishot in [false, true] {
        clients.push(TcpStream::connect(addr).unwrap());
        ring.close(Slot(0), &[], Token::new(CLOSE, 0, 0)).unwrap();
        if multishot {
            ring.accept_multi(listener.as_fd(), Token::new(ACCEPT, 0, 0)).unwrap();
        } else {
            ring.accept_one(listener.as_fd(), Token::new(ACCEPT, 0, 0)).unwrap();
        }
        assert_eq!(take(&mut ring, CLOSE).result, Ok(0));
        assert_eq!(take(&mut ring, ACCEPT).result, Ok(0));
    }
}

#[test]
fn a_completion_without_more_ends_a_multishot() {
    let mut ring = ring(4);
    let (listener, addr) = loopback();
    let token = Token::new(ACCEPT, 0, 0);
    ring.accept_multi(listener.as_fd(), token).unwrap();
    let _first = connect(&mut ring, addr);
    assert!(take(&mut ring, ACCEPT).more);
    ring.cancel(Cancel::Token(token)).unwrap();
    let ended = take(&mut ring, ACCEPT);
    assert_eq!((ended.result, ended.more), (Err(Errno::CANCELED), false));
    let _second = connect(&mut ring, addr);
    assert_quiet(&mut ring);
}

#[test]
fn accepts_keep_to_the_automatic_slots_and_leave_the_others_to_install() {
    let automatic_slots = Some(2..4);
    let config = RingConfig { direct_slots: 4, automatic_slots, ..Default::default() };
    let mut ring = Ring::new(config).unwrap();
    let (listener, addr) = loopback();
    let socket = client_socket(Family::V4, &ClientOptions::default()).unwrap();
    ring.install(Slot(0), socket).unwrap();
    ring.accept_multi(listener.as_fd(), Token::new(ACCEPT, 0, 0)).unwrap();
    let _clients: Vec<TcpStream> = (0..3).map(|_| connect(&mut ring, addr)).collect();
    let results: Vec<_> = (0..3).map(|_| take(&mut ring, ACCEPT).result).collect();
    assert_eq!(results, [Ok(2), Ok(3), Err(Errno::TABLE_FULL)]);
}

#[test]
fn an_installed_client_connects_from_its_source_address() {
    let mut ring = ring(4);
    let (listener, addr) = loopback();
    let source = "127.1.2.3:0".parse().unwrap();
    let options = ClientOptions { source: Some(source), ..Default::default() };
    ring.install(Slot(3), client_socket(Family::V4, &options).unwrap()).unwrap();
    ring.connect(Slot(3), addr, Token::new(CONNECT, 0, 3)).unwrap();
    assert_eq!(take(&mut ring, CONNECT).result, Ok(0));
    let (_server, peer) = listener.accept().unwrap();
    assert_eq!(peer.ip(), source.ip());
    assert!(peer.port() != 0 && ring.in_flight() == 0);
    let error = ring.install(Slot(4), client_socket(Family::V4, &options).unwrap()).unwrap_err();
    assert!(matches!(error, InstallError::NoSuchSlot { .. }));
}

#[test]
fn a_connect_that_is_refused_says_so_and_a_direct_socket_can_be_made_by_the_ring() {
    let mut ring = ring(4);
    let (listener, addr) = loopback();
    ring.socket(Family::V4, Token::new(OTHER, 0, 0)).unwrap();
    let slot = Slot(take(&mut ring, OTHER).result.unwrap());
    drop(listener);
    ring.connect(slot, addr, Token::new(CONNECT, 0, slot.0)).unwrap();
    assert_eq!(take(&mut ring, CONNECT).result, Err(Errno::REFUSED));
}

#[test]
fn the_peers_address_is_found_by_slot() {
    for bind in ["127.0.0.1:0", "[::1]:0"] {
        let mut ring = ring(4);
        let listener = listener(bind.parse().unwrap(), &ListenOptions::default()).unwrap();
        let addr = listener.local_addr().unwrap();
        ring.accept_one(listener.as_fd(), Token::new(ACCEPT, 0, 0)).unwrap();
        let client = connect(&mut ring, addr);
        let slot = Slot(take(&mut ring, ACCEPT).result.unwrap());
        ring.peer_name(slot, Family::of(&addr), Token::new(OTHER, 0, slot.0)).unwrap();
        let answer = take(&mut ring, OTHER);
        let expected = client.local_addr().unwrap();
        assert!(matches!(answer.returned, Returned::Peer(Some(peer)) if peer == expected), "{answer:?}");
        // An empty slot has no peer.
        ring.peer_name(Slot(3), Family::of(&addr), Token::new(OTHER, 0, 3)).unwrap();
        let answer = take(&mut ring, OTHER);
        assert_eq!(answer.result, Err(Errno::BAD_DESCRIPTOR));
        assert!(matches!(answer.returned, Returned::Peer(None)));
    }
}

#[test]
fn an_accepted_socket_inherits_the_listeners_options() {
    let keepalive = Keepalive { idle_s: 77, interval_s: 7, probes: 3 };
    let stream = StreamOptions {
        nodelay: true,
        user_timeout_ms: Some(12_345),
        keepalive: Some(keepalive),
        notsent_lowat_bytes: Some(16_384),
        send_buffer_bytes: Some(32_768),
        receive_buffer_bytes: Some(16_384),
    };
    let options = ListenOptions { stream, ..Default::default() };
    let listener = listener("127.0.0.1:0".parse().unwrap(), &options).unwrap();
    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    // What accept gives is the same socket in a slot as in the process's table, where it can be asked.
    let (accepted, _) = listener.accept().unwrap();
    let ask = |level, name| -> i32 {
        use std::os::fd::AsRawFd;
        let (mut value, mut len) = (0i32, 4u32);
        // SAFETY: value and len are writable and of the sizes that an int option has.
        let result = unsafe {
            libc::getsockopt(accepted.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut len)
        };
        assert_eq!((result, len), (0, 4));
        value
    };
    assert_eq!(ask(libc::IPPROTO_TCP, libc::TCP_NODELAY), 1);
    assert_eq!(ask(libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT), 12_345);
    assert_eq!(ask(libc::SOL_SOCKET, libc::SO_KEEPALIVE), 1);
    assert_eq!(ask(libc::IPPROTO_TCP, libc::TCP_KEEPIDLE), 77);
    assert_eq!(ask(libc::IPPROTO_TCP, libc::TCP_KEEPINTVL), 7);
    assert_eq!(ask(libc::IPPROTO_TCP, libc::TCP_KEEPCNT), 3);
    assert_eq!(ask(libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT), 16_384);
    assert_eq!(ask(libc::SOL_SOCKET, libc::SO_SNDBUF), 2 * 32_768);
    assert_eq!(ask(libc::SOL_SOCKET, libc::SO_RCVBUF), 2 * 16_384);
}
