//! The floor: a plain loop of framed echo with prost and nothing else. A frame is a u32 of the body's length, 4 bytes of
//! nothing, a u64 that comes back, and the body.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::process;
use std::thread;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use prost::Message as _;

use crate::pb;

pub const HEADER_BYTES: usize = 16;

/// As much as ours reads at once.
const READ_BYTES: usize = 256 * 1024;

/// Events of one turn: more connections than the bench opens.
const EVENTS: usize = 64;

struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    filled: usize,
    out: Vec<u8>,
    /// Bytes of `out` that are written.
    written: usize,
}

pub fn serve() -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    listener.set_nonblocking(true)?;
    crate::ready(listener.local_addr()?);
    thread::spawn(|| {
        crate::until_stdin_ends();
        process::exit(0)
    });
    let epoll = Epoll::new(EpollCreateFlags::empty())?;
    epoll.add(listener.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, u64::MAX))?;
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut events = [EpollEvent::empty(); EVENTS];
    loop {
        let ready = epoll.wait(&mut events, EpollTimeout::NONE)?;
        for event in &events[..ready] {
            if event.data() == u64::MAX {
                accept(&listener, &epoll, &mut connections)?;
                continue;
            }
            let place = &mut connections[event.data() as usize];
            if place.as_mut().is_some_and(|connection| connection.turn(&epoll, event.data()).is_err()) {
                *place = None;
            }
        }
    }
}

fn accept(
    listener: &TcpListener,
    epoll: &Epoll,
    connections: &mut Vec<Option<Connection>>,
) -> io::Result<()> {
    let (stream, _) = listener.accept()?;
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    epoll.add(stream.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, connections.len() as u64))?;
    let input = vec![0; READ_BYTES];
    connections.push(Some(Connection { stream, input, filled: 0, out: Vec::new(), written: 0 }));
    Ok(())
}

impl Connection {
    fn turn(&mut self, epoll: &Epoll, at: u64) -> io::Result<()> {
        match self.stream.read(&mut self.input[self.filled..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => self.filled += read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        let mut used = 0;
        while let Some(body) = whole(&self.input[used..self.filled]) {
            let frame = &self.input[used..used + HEADER_BYTES + body];
            let request = pb::SayRequest::decode(&frame[HEADER_BYTES..])?;
            let reply = pb::SayReply { payload: request.payload };
            self.out.extend_from_slice(&(reply.encoded_len() as u64).to_le_bytes());
            self.out.extend_from_slice(&frame[8..HEADER_BYTES]);
            reply.encode(&mut self.out)?;
            used += frame.len();
        }
        self.input.copy_within(used..self.filled, 0);
        self.filled -= used;
        self.write(epoll, at)
    }

    fn write(&mut self, epoll: &Epoll, at: u64) -> io::Result<()> {
        let was_waiting = self.written > 0;
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        let waits = self.written < self.out.len();
        if !waits {
            self.out.clear();
            self.written = 0;
        }
        if waits != was_waiting {
            let flags = if waits { EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN };
            epoll.modify(self.stream.as_fd(), &mut EpollEvent::new(flags, at))?;
        }
        Ok(())
    }
}

/// Bytes of the body of the frame at the front, if it is whole.
pub fn whole(input: &[u8]) -> Option<usize> {
    let body = u32::from_le_bytes(*input.first_chunk::<4>()?) as usize;
    (input.len() >= HEADER_BYTES + body).then_some(body)
}
