//! What does the wrapper add to an echo? The same pings over the wrapper and over the io-uring crate alone.
//!
//! Method: one thread and one ring hold both ends of each connection (direct descriptors, loopback TCP). A ping
//! is four requests of the server's kind: poll (multishot, armed once), receive into a provided buffer, send,
//! and the same at the client's end. Every connection has one ping in flight. Both runs set the same ring flags
//! and submit once a turn. Printed: nanoseconds a round trip, the best of five runs each, interleaved.
//!
//! `cargo run --release -p gateway-ring --example ping_cost -- [connections] [pings]`

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Instant;

use gateway_ring::*;

const PING_BYTES: usize = 64;
const BUFFERS: u32 = 4096;
const BUFFER_BYTES: u32 = 512;
/// Without a bound a turn need not end: what it submits when the queue is full completes in it.
const COMPLETIONS_OF_A_TURN_MAX: u32 = 4096;

fn main() {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<u32>().expect("a number"));
    let (connections, pings) = (args.next().unwrap_or(64), args.next().unwrap_or(200_000));
    if let Some(&core) = available_cores().last() {
        pin_current_thread(core).expect("a core of our own list");
    }
    let (mut wrapped, mut raw) = (f64::MAX, f64::MAX);
    for _ in 0..5 {
        wrapped = wrapped.min(with_the_wrapper(connections, pings));
        raw = raw.min(raw::with_the_crate_alone(connections, pings));
    }
    println!("{connections} connections, {pings} pings of {PING_BYTES} bytes, both ends on one thread");
    println!("wrapper   {wrapped:8.0} ns a round trip");
    println!("io-uring  {raw:8.0} ns a round trip");
    println!("added     {:8.0} ns, {:.1} %", wrapped - raw, (wrapped / raw - 1.0) * 100.0);
}

const POLL: u8 = 1;
const RECV: u8 = 2;
const SEND: u8 = 3;
const OTHER: u8 = 4;

/// Slots 0..n are the clients' ends, n..2n the servers'.
fn with_the_wrapper(connections: u32, pings: u32) -> f64 {
    let mut ring = Ring::new(RingConfig {
        sq_entries: 1024,
        cq_entries: 8192,
        direct_slots: 2 * connections,
        automatic_slots: Some(connections..2 * connections),
        ..Default::default()
    })
    .expect("a ring");
    let mut bufs = ring.buffer_ring(BUFFERS, BUFFER_BYTES).expect("buffers");
    let mut pool = SendPool::new(2 * connections as usize);
    connect_all(&mut ring, connections);
    for slot in 0..2 * connections {
        ring.poll_multi(Slot(slot), PollEvents::IN, Token::new(POLL, 0, slot)).expect("room");
        ring.submit().expect("enter");
    }
    let ping = |ring: &mut Ring, pool: &mut SendPool, slot: u32, bytes: &[u8]| {
        let mut buf = pool.take(bytes.len());
        buf.extend_from_slice(bytes);
        if let Err(refused) = ring.send(Slot(slot), buf, Token::new(SEND, 0, slot)) {
            ring.submit().expect("enter");
            ring.send(Slot(slot), refused.buf, Token::new(SEND, 0, slot)).expect("room after a submit");
        }
    };
    let started = Instant::now();
    (0..connections).for_each(|slot| ping(&mut ring, &mut pool, slot, &[7; PING_BYTES]));
    let mut done = 0;
    while done < pings {
        ring.submit_and_wait(1, None).expect("enter");
        for _ in 0..COMPLETIONS_OF_A_TURN_MAX {
            let Some(completion) = ring.next_completion() else { break };
            let slot = completion.token.slot();
            match completion.token.op() {
                POLL => {
                    while ring.recv(Slot(slot), bufs.group(), Token::new(RECV, 0, slot)).is_err() {
                        ring.submit().expect("enter");
                    }
                }
                RECV => {
                    let id = completion.buffer.expect("the ping");
                    done += u32::from(slot < connections);
                    ping(&mut ring, &mut pool, slot, bufs.bytes(&id));
                    bufs.recycle(id);
                }
                _ => {
                    if let Returned::Sent(sent) = completion.returned {
                        pool.put_sent(sent);
                    }
                }
            }
        }
    }
    started.elapsed().as_nanos() as f64 / f64::from(done)
}

fn connect_all(ring: &mut Ring, connections: u32) {
    let options =
        ListenOptions { stream: StreamOptions { nodelay: true, ..Default::default() }, ..Default::default() };
    let listener = listener("127.0.0.1:0".parse().expect("an address"), &options).expect("a port");
    let addr: SocketAddr = listener.local_addr().expect("bound");
    ring.accept_multi(listener.as_fd(), Token::new(OTHER, 0, 0)).expect("room");
    for slot in 0..connections {
        let client = ClientOptions { stream: options.stream.clone(), ..Default::default() };
        ring.install(Slot(slot), client_socket(Family::V4, &client).expect("a socket")).expect("a slot");
        ring.connect(Slot(slot), addr, Token::new(OTHER, 0, slot)).expect("room");
        for _ in 0..2 {
            while ring.ready() == 0 {
                ring.submit_and_wait(1, None).expect("enter");
            }
            ring.next_completion().expect("ready").result.expect("connected");
        }
    }
    ring.cancel(Cancel::Token(Token::new(OTHER, 0, 0))).expect("room");
    ring.submit().expect("enter");
    while ring.next_completion().is_some() {}
}

/// The same without the wrapper, and so without its safety: fixed send buffers, one for each slot.
mod raw {
    use super::*;
    use io_uring::types::Fixed;
    use io_uring::{IoUring, cqueue, opcode, squeue};
    use std::net::{TcpListener, TcpStream};
    use std::sync::atomic::{AtomicU16, Ordering};

    struct Raw {
        io: IoUring,
        entries: *mut u8,
        buffers: Vec<u8>,
        tail: u16,
        sends: Vec<[u8; PING_BYTES]>,
    }

    pub fn with_the_crate_alone(connections: u32, pings: u32) -> f64 {
        let io = IoUring::<squeue::Entry, cqueue::Entry>::builder()
            .setup_cqsize(8192)
            .setup_submit_all()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_no_sqarray()
            .build(1024)
            .expect("a ring");
        let layout = std::alloc::Layout::from_size_align(BUFFERS as usize * 16, 4096).expect("a layout");
        // SAFETY: the layout is not empty. Never freed: a measurement leaks 4 KiB.
        let entries = unsafe { std::alloc::alloc_zeroed(layout) };
        let buffers = vec![0; (BUFFERS * BUFFER_BYTES) as usize];
        let sends = vec![[7; PING_BYTES]; 2 * connections as usize];
        let mut raw = Raw { io, entries, buffers, tail: 0, sends };
        // SAFETY: the entries live for ever.
        unsafe { raw.io.submitter().register_buf_ring_with_flags(entries as u64, BUFFERS as u16, 0, 0) }
            .expect("buffers");
        (0..BUFFERS as u16).for_each(|number| raw.provide(number));
        let _streams = raw.connect_all(connections);
        for slot in 0..2 * connections {
            raw.push(opcode::PollAdd::new(Fixed(slot), 1).multi(true).build(), POLL, slot);
        }
        raw.io.submit().expect("enter");
        let started = Instant::now();
        (0..connections).for_each(|slot| raw.send(slot));
        let mut done = 0;
        while done < pings {
            raw.io.submit_and_wait(1).expect("enter");
            for _ in 0..COMPLETIONS_OF_A_TURN_MAX {
                let Some(entry) = raw.io.completion().next() else {
                    if !raw.io.submission().taskrun() {
                        break;
                    }
                    raw.io.submit().expect("enter");
                    continue;
                };
                let slot = entry.user_data() as u32;
                match (entry.user_data() >> 32) as u8 {
                    POLL => {
                        let entry =
                            opcode::Recv::new(Fixed(slot), std::ptr::null_mut(), 0).flags(libc::MSG_DONTWAIT);
                        raw.push(entry.build().flags(squeue::Flags::BUFFER_SELECT), RECV, slot);
                    }
                    RECV => {
                        let number = cqueue::buffer_select(entry.flags()).expect("the ping");
                        let start = usize::from(number) * BUFFER_BYTES as usize;
                        let bytes = &raw.buffers[start..start + PING_BYTES];
                        raw.sends[slot as usize].copy_from_slice(bytes);
                        done += u32::from(slot < connections);
                        raw.send(slot);
                        raw.provide(number);
                    }
                    _ => {}
                }
            }
        }
        started.elapsed().as_nanos() as f64 / f64::from(done)
    }

    impl Raw {
        fn push(&mut self, entry: squeue::Entry, op: u8, slot: u32) {
            let entry = entry.user_data(u64::from(op) << 32 | u64::from(slot));
            // SAFETY: entries name the sends' buffers only, which live as long as the ring and are not written
            // to while a ping is under way.
            while unsafe { self.io.submission().push(&entry) }.is_err() {
                self.io.submit().expect("enter");
            }
        }

        fn send(&mut self, slot: u32) {
            let bytes = &self.sends[slot as usize];
            let entry = opcode::Send::new(Fixed(slot), bytes.as_ptr(), PING_BYTES as u32)
                .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL);
            self.push(entry.build(), SEND, slot);
        }

        fn provide(&mut self, number: u16) {
            let offset = usize::from(number) * BUFFER_BYTES as usize;
            // SAFETY: the masked index is below the number of entries; the tail stands in entry 0 at byte 14.
            unsafe {
                let entry = self.entries.add(usize::from(self.tail & (BUFFERS as u16 - 1)) * 16);
                entry.cast::<u64>().write(self.buffers.as_mut_ptr().add(offset) as u64);
                entry.add(8).cast::<u32>().write(BUFFER_BYTES);
                entry.add(12).cast::<u16>().write(number);
                self.tail = self.tail.wrapping_add(1);
                (*self.entries.add(14).cast::<AtomicU16>()).store(self.tail, Ordering::Release);
            }
        }

        fn connect_all(&mut self, connections: u32) -> Vec<TcpStream> {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            let addr = listener.local_addr().expect("bound");
            let connected =
                || (TcpStream::connect(addr).expect("connected"), listener.accept().expect("one").0);
            let (clients, servers): (Vec<_>, Vec<_>) = (0..connections).map(|_| connected()).unzip();
            let all: Vec<TcpStream> = clients.into_iter().chain(servers).collect();
            all.iter().for_each(|stream| stream.set_nodelay(true).expect("an option"));
            let fds: Vec<_> = all.iter().map(|stream| stream.as_raw_fd()).collect();
            self.io.submitter().register_files(&fds).expect("slots");
            all
        }
    }
}
