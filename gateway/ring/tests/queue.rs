//! Entering, waiting, bounds, and a ring's end.

mod common;
use common::*;
use gateway_ring::*;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[test]
fn one_enter_does_a_bounded_part_of_the_deferred_work() {
    const CONNECTIONS: usize = 60;
    let mut ring = ring(64);
    let mut clients: Vec<TcpStream> = (0..CONNECTIONS).map(|_| polled_pair(&mut ring, 0).0).collect();
    let write = |clients: &mut Vec<TcpStream>| clients.iter_mut().for_each(|c| c.write_all(b"x").unwrap());
    write(&mut clients);
    ring.submit().unwrap();
    // Linux 6.13 and later: 20 of them. All were done at once before that.
    let first = ring.ready();
    assert!(first == CONNECTIONS || first == 20, "{first}");
    let seen = std::iter::from_fn(|| ring.next_completion()).count();
    assert_eq!(seen, CONNECTIONS, "draining to none leaves no backlog");
    write(&mut clients);
    ring.submit_and_wait(CONNECTIONS as u32, Some(NEVER)).unwrap();
    assert_eq!(ring.ready(), CONNECTIONS, "as many are done as were asked for");
    assert_eq!(ring.completions(10).count(), 10);
    assert_eq!(ring.completions(1000).count(), CONNECTIONS - 10);
}

#[test]
fn a_wait_ends_with_its_time_or_with_enough_completions() {
    let mut ring = ring(4);
    let started = Instant::now();
    assert_eq!(ring.submit_and_wait(1, Some(Duration::from_millis(20))).unwrap(), Outcome::TimedOut);
    assert!(started.elapsed() >= Duration::from_millis(20));
    assert_eq!(ring.submit().unwrap(), Outcome::Ran);
    let (mut client, _, _) = polled_pair(&mut ring, 0);
    client.write_all(b"x").unwrap();
    assert_eq!(ring.submit_and_wait(1, None).unwrap(), Outcome::Ran);
    assert_eq!(ring.ready(), 1);
}

#[test]
fn a_gathering_wait_returns_what_it_has_after_its_time() {
    if !probe().unwrap().min_wait {
        return;
    }
    let mut ring = ring(4);
    let (mut client, _, _) = polled_pair(&mut ring, 0);
    client.write_all(b"x").unwrap();
    // One of the ten asked for is there: the short time ends it, not the long one.
    let wait = Wait { min_complete: 10, timeout: Some(NEVER), min_wait: Some(Duration::from_millis(5)) };
    ring.wait(wait).unwrap();
    assert_eq!(ring.ready(), 1);
}

#[test]
fn a_signal_interrupts_a_wait() {
    extern "C" fn nothing(_: i32) {}
    let handler: extern "C" fn(i32) = nothing;
    // SAFETY: the handler does nothing; without SA_RESTART, as a program's own handlers are.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as usize;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()), 0);
    }
    let (tell, waiter) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let mut ring = ring(0);
        // SAFETY: a plain call.
        tell.send(unsafe { libc::pthread_self() }).unwrap();
        ring.submit_and_wait(1, Some(NEVER)).unwrap()
    });
    let waiter = waiter.recv().unwrap();
    while !thread.is_finished() {
        // SAFETY: the thread is not joined yet, so its id is valid.
        unsafe { libc::pthread_kill(waiter, libc::SIGUSR1) };
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(thread.join().unwrap(), Outcome::Interrupted);
}

#[test]
fn a_full_completion_queue_loses_nothing_but_ends_multishots() {
    const CONNECTIONS: usize = 20;
    let config = RingConfig { sq_entries: 4, cq_entries: 8, direct_slots: 32, ..Default::default() };
    let mut ring = Ring::new(config).unwrap();
    let mut clients: Vec<(TcpStream, Token)> = (0..CONNECTIONS)
        .map(|n| {
            let (client, _, token) = polled_pair(&mut ring, n as u32);
            (client, token)
        })
        .collect();
    clients.iter_mut().for_each(|(client, _)| client.write_all(b"x").unwrap());
    // Asks the kernel to do all the work with room for 8.
    ring.submit_and_wait(CONNECTIONS as u32, Some(Duration::from_millis(1))).unwrap();
    let all: Vec<Completion> = std::iter::from_fn(|| ring.next_completion()).collect();
    let mut tokens: Vec<u32> = all.iter().map(|completion| completion.token.generation()).collect();
    tokens.sort();
    assert_eq!(tokens, (0..CONNECTIONS as u32).collect::<Vec<_>>(), "each poll is told of, once");
    // Those that have ended are armed again, one at a time: over waiting bytes each tells at once, and would
    // overflow the queue and end again.
    let ended: Vec<Token> = all.iter().filter(|completion| !completion.more).map(|c| c.token).collect();
    assert!(!ended.is_empty() && ended.len() < CONNECTIONS, "{}", ended.len());
    for token in ended {
        ring.poll_multi(Slot(token.slot()), PollEvents::IN, token).unwrap();
        assert!(matches!(next(&mut ring), Completion { more: true, .. }));
    }
    clients.iter_mut().for_each(|(client, _)| client.write_all(b"y").unwrap());
    let again = std::iter::from_fn(|| ring.next_completion()).count();
    assert_eq!(again, CONNECTIONS);
}

#[test]
fn dropping_a_ring_ends_its_requests_and_gives_their_memory_back() {
    struct Counted(Vec<u8>, #[expect(dead_code, reason = "counts")] Arc<()>);
    impl AsRef<[u8]> for Counted {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    let alive = Arc::new(());
    let mut ring = ring(8);
    let bufs = ring.buffer_ring(4, 64).unwrap();
    let (mut client, slot, _) = polled_pair(&mut ring, 0);
    ring.recv_multi(slot, bufs.group(), Token::new(RECV, 0, slot.0)).unwrap();
    let (mut late, late_slot) = pair(&mut ring);
    let stuck = bytes::Bytes::from_owner(Counted(vec![1; 64 << 20], Arc::clone(&alive)));
    ring.send(slot, stuck, Token::new(SEND, 0, slot.0)).unwrap();
    ring.submit().unwrap();
    // Queued and never submitted by hand: it goes out before the end.
    ring.send(late_slot, b"goodbye".to_vec(), Token::new(SEND, 0, late_slot.0)).unwrap();
    assert_eq!((ring.in_flight(), Arc::strong_count(&alive)), (2, 2));
    drop(ring);
    assert_eq!(Arc::strong_count(&alive), 1, "the stuck send has ended and its buffer is freed");
    let mut all = Vec::new();
    late.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"goodbye");
    // The sockets end too, though the thread lives on: its registered descriptor was given back.
    let mut sink = vec![0; 1 << 20];
    while client.read(&mut sink).is_ok_and(|count| count > 0) {}
    assert_eq!(bufs.available(), 4);
}

#[test]
fn a_thread_can_make_and_drop_more_rings_than_it_has_places_to_register_them() {
    let mut kept: Vec<Ring> = (0..20).map(|_| ring(1)).collect();
    for ring in &mut kept {
        ring.message(ring.address(), Token::new(WAKE, 0, 0), 3, None).unwrap();
        assert_eq!(take(ring, WAKE).result, Ok(3));
    }
    drop(kept);
    for _ in 0..50 {
        drop(ring(1));
    }
}

#[test]
fn a_table_above_the_descriptor_limit_is_refused_with_the_mending_command() {
    let limit = probe().unwrap().direct_slots_max;
    let make = |direct_slots| Ring::new(RingConfig { direct_slots, ..Default::default() });
    assert!(make(limit).is_ok());
    let error = make(limit + 1).err().unwrap();
    assert!(matches!(error, SetupError::DirectSlots { .. }));
    assert!(error.to_string().contains("ulimit -n"), "{error}");
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    let refuse = |config| Ring::new(config).err().unwrap();
    let base = RingConfig::default;
    assert!(matches!(refuse(RingConfig { sq_entries: 0, ..base() }), SetupError::SqEntries { .. }));
    assert!(matches!(refuse(RingConfig { cq_entries: 1, ..base() }), SetupError::CqEntries { .. }));
    let automatic_slots = Some(1000..1025);
    assert!(matches!(refuse(RingConfig { automatic_slots, ..base() }), SetupError::AutomaticSlots { .. }));
    let mut ring = Ring::new(base()).unwrap();
    assert!(matches!(ring.buffer_ring(3, 64), Err(BufferRingError::Count(3))));
    assert!(ring.buffer_ring(32_768, 1).is_ok() && ring.buffer_ring(32_768, 1).is_ok());
    assert!(matches!(ring.buffer_ring(1, 1), Err(BufferRingError::TooMany { .. })));
    let (listener, _) = loopback();
    for _ in 0..256 {
        ring.accept_one(listener.as_fd(), Token::new(ACCEPT, 0, 0)).unwrap();
    }
    assert_eq!(ring.accept_one(listener.as_fd(), Token::new(ACCEPT, 0, 0)), Err(Full::Submissions));
    assert_eq!((ring.queued(), ring.room()), (256, 0));
}
