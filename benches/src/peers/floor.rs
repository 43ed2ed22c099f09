//! The floor: a bare echo, without state, timers, authentication or bounds. What a heartbeat costs at least on this
//! kernel, by io_uring or by epoll: the cheaper is the limit. It doubles as the echo behind a proxy.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use clap::ValueEnum;
use gateway_ring::{
    BufferRingError, Cancel, EnterError, Errno, Full, Returned, Ring, RingConfig, SendPool, SetupError, Slot,
    Token, Wait,
};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// What waits for bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum How {
    /// A multishot receive and a send a message.
    #[default]
    Uring,
    /// A read and a write a message.
    Epoll,
}

#[derive(Debug, thiserror::Error)]
pub enum FloorError {
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, io::Error),
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error(transparent)]
    Buffers(#[from] BufferRingError),
    #[error(transparent)]
    Enter(#[from] EnterError),
    #[error(transparent)]
    Full(#[from] Full),
    #[error("epoll: {0}")]
    Epoll(#[from] nix::Error),
}

const ACCEPT: u8 = 1;
const RECEIVE: u8 = 2;
const SEND: u8 = 3;
const CLOSE: u8 = 4;
const EVENTS: usize = 1024;
/// How long a turn gathers when nothing waits; what Moorgate's shards do as well.
const GATHER: Duration = Duration::from_micros(50);

/// Echoes until the process is told to stop.
pub fn run(listen: SocketAddr, how: How, core: Option<usize>) -> Result<(), FloorError> {
    let refused = |error| FloorError::Listen(listen, error);
    let listener = TcpListener::bind(listen).map_err(refused)?;
    println!("ready {}", listener.local_addr().map_err(refused)?);
    if let Some(core) = core {
        // A core that is not there is slower, not wrong.
        let _ = gateway_ring::pin_current_thread(core);
    }
    match how {
        How::Uring => uring(&listener),
        How::Epoll => epoll(&listener).map_err(FloorError::Epoll),
    }
}

fn uring(listener: &TcpListener) -> Result<(), FloorError> {
    let slots = (tuning::raise_descriptor_limit().unwrap_or(1024) as u32).saturating_sub(64).min(1 << 20);
    let mut ring = Ring::new(RingConfig {
        sq_entries: 8_192,
        cq_entries: 65_536,
        direct_slots: slots,
        automatic_slots: Some(0..slots),
        in_flight_max: slots + 1024,
        ..RingConfig::default()
    })?;
    let mut buffers = ring.buffer_ring(8_192, 2_048)?;
    let mut pool = SendPool::new(8_192);
    let mut starved = Vec::new();
    ring.accept_multi(listener.as_fd(), Token::new(ACCEPT, 0, 0))?;
    while !crate::signals::interrupted() {
        let timeout = Some(Duration::from_millis(100));
        ring.wait(Wait { min_complete: 256, timeout, min_wait: Some(GATHER) })?;
        for slot in starved.drain(..) {
            receive(&mut ring, slot, buffers.group())?;
        }
        for _ in 0..8_192 {
            let Some(completion) = ring.next_completion() else { break };
            let slot = completion.token.slot();
            match (completion.token.op(), completion.result) {
                (ACCEPT, result) => {
                    if let Ok(slot) = result {
                        receive(&mut ring, slot, buffers.group())?;
                    }
                    if !completion.more {
                        ring.accept_multi(listener.as_fd(), Token::new(ACCEPT, 0, 0))?;
                    }
                }
                (RECEIVE, Ok(count)) if count > 0 => {
                    if let Some(id) = completion.buffer {
                        let mut buf = pool.take(id.len());
                        buf.extend_from_slice(buffers.bytes(&id));
                        buffers.recycle(id);
                        send(&mut ring, slot, buf)?;
                    }
                    if !completion.more {
                        starved.push(slot);
                    }
                }
                (RECEIVE, Err(Errno::NO_BUFFERS)) => starved.push(slot),
                (RECEIVE, _) => close(&mut ring, slot)?,
                (SEND, _) => {
                    if let Returned::Sent(buf) = completion.returned {
                        pool.put_sent(buf);
                    }
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn receive(ring: &mut Ring, slot: u32, group: u16) -> Result<(), FloorError> {
    let token = Token::new(RECEIVE, 0, slot);
    if ring.recv_multi(Slot(slot), group, token).is_err() {
        ring.submit()?;
        ring.recv_multi(Slot(slot), group, token)?;
    }
    Ok(())
}

/// Two sends of one connection may be in flight: its answers are all alike.
fn send(ring: &mut Ring, slot: u32, buf: Vec<u8>) -> Result<(), FloorError> {
    let token = Token::new(SEND, 0, slot);
    if let Err(refused) = ring.send(Slot(slot), buf, token) {
        ring.submit()?;
        ring.send(Slot(slot), refused.buf, token).map_err(|refused| refused.full)?;
    }
    Ok(())
}

/// The receive has ended, or is cancelled.
fn close(ring: &mut Ring, slot: u32) -> Result<(), FloorError> {
    let (cancels, token) = ([Cancel::Token(Token::new(RECEIVE, 0, slot))], Token::new(CLOSE, 0, slot));
    if ring.close(Slot(slot), &cancels, token).is_err() {
        ring.submit()?;
        ring.close(Slot(slot), &cancels, token)?;
    }
    Ok(())
}

fn epoll(listener: &TcpListener) -> nix::Result<()> {
    let failed = |error: io::Error| nix::Error::from_raw(error.raw_os_error().unwrap_or(0));
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    listener.set_nonblocking(true).map_err(failed)?;
    epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, u64::MAX))?;
    let mut streams: Vec<Option<TcpStream>> = Vec::new();
    let mut events = [EpollEvent::empty(); EVENTS];
    let mut bytes = [0; 2_048];
    while !crate::signals::interrupted() {
        let count = match epoll.wait(&mut events, EpollTimeout::from(100_u8)) {
            Err(nix::Error::EINTR) => continue,
            other => other?,
        };
        for event in &events[..count] {
            if event.data() == u64::MAX {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true).map_err(failed)?;
                    let _ = stream.set_nodelay(true);
                    let at = stream.as_raw_fd() as usize;
                    epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, at as u64))?;
                    streams.resize_with(streams.len().max(at + 1), || None);
                    streams[at] = Some(stream);
                }
                continue;
            }
            let at = event.data() as usize;
            let Some(stream) = &mut streams[at] else { continue };
            match stream.read(&mut bytes) {
                Ok(count @ 1..) => {
                    let _ = stream.write_all(&bytes[..count]);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Ok(_) | Err(_) => streams[at] = None,
            }
        }
    }
    Ok(())
}
