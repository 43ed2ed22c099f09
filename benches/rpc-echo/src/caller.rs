//! The caller: a closed loop on one thread that costs as little as it can, so that the server is what is seen. All that has
//! come over a connection is read at once, and the calls that follow leave in one write.

use std::collections::VecDeque;
use std::io::{self, BufRead as _, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use prost::Message as _;
use proto_wire::rpc::header::{Header, Kind, next_header};
use proto_wire::status::Code;

use crate::floor::{HEADER_BYTES, whole};
use crate::{pb, services};

/// Before the measured time.
pub const WARM_UP: Duration = Duration::from_millis(150);

const READ_BYTES: usize = 512 * 1024;

/// What is done.
pub struct Load {
    pub target: SocketAddr,
    pub payload: usize,
    pub connections: usize,
    pub in_flight: usize,
    pub ms: u64,
    /// `Gather` is called, not `Say`.
    pub gather: bool,
}

/// A framing.
pub trait Wire {
    fn put_call(id: u64, gather: bool, body: &[u8], out: &mut Vec<u8>);

    /// The reply at the front, if it is whole: its id, its body, its length with its header.
    fn next_reply(input: &[u8]) -> io::Result<Option<(u64, &[u8], usize)>>;
}

/// The RPC's header.
pub struct Moorgate;

impl Wire for Moorgate {
    fn put_call(id: u64, gather: bool, body: &[u8], out: &mut Vec<u8>) {
        let method = if gather { &services::echo::GATHER } else { &services::echo::SAY };
        let header = Header {
            method: method.id,
            call_id: id,
            deadline_ms: method.deadline_ms,
            service: 3,
            ..Header::default()
        };
        header.put(body, out);
    }

    fn next_reply(input: &[u8]) -> io::Result<Option<(u64, &[u8], usize)>> {
        let Some((header, at)) = next_header(input).map_err(io::Error::other)? else { return Ok(None) };
        let end = at + header.body_bytes as usize;
        if header.kind != Kind::Reply || header.code() != Code::Ok {
            return Err(io::Error::other(format!("no good reply: {header:?}")));
        }
        Ok(Some((header.call_id, &input[at..end], end)))
    }
}

/// The floor's.
pub struct Floor;

impl Wire for Floor {
    fn put_call(id: u64, _: bool, body: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&(body.len() as u64).to_le_bytes());
        out.extend_from_slice(&id.to_le_bytes());
        out.extend_from_slice(body);
    }

    fn next_reply(input: &[u8]) -> io::Result<Option<(u64, &[u8], usize)>> {
        let Some(body) = whole(input) else { return Ok(None) };
        let (header, rest) = input.split_at(HEADER_BYTES);
        let id = u64::from_le_bytes(header[8..].try_into().expect("8 of 16 bytes"));
        Ok(Some((id, &rest[..body], HEADER_BYTES + body)))
    }
}

pub fn call<W: Wire>(load: &Load) -> io::Result<()> {
    let body = pb::SayRequest { payload: vec![7; load.payload].into() }.encode_to_vec();
    let mut links =
        (0..load.connections).map(|_| Link::<W>::connect(load, &body)).collect::<io::Result<Vec<_>>>()?;
    run(&mut links, WARM_UP)?;
    println!("warm");
    io::stdin().lock().read_line(&mut String::new())?;
    links.iter_mut().for_each(Link::reset);
    let began = Instant::now();
    run(&mut links, Duration::from_millis(load.ms))?;
    let seconds = began.elapsed().as_secs_f64();
    let mut latency = Histogram::<u64>::new(3).expect("three digits are allowed");
    links.iter().for_each(|link| latency.add(&link.latency_ns).expect("of one kind"));
    tell(&latency, seconds);
    Ok(())
}

/// Says what was done, as JSON.
pub fn tell(latency: &Histogram<u64>, seconds: f64) {
    let us = |quantile: f64| latency.value_at_quantile(quantile) as f64 / 1e3;
    let told = serde_json::json!({
        "calls": latency.len(), "seconds": seconds,
        "p50_us": us(0.5), "p99_us": us(0.99), "p999_us": us(0.999), "max_us": latency.max() as f64 / 1e3,
    });
    println!("{told}");
    // The bench looks at what this process used, and closes the pipe.
    crate::until_stdin_ends();
}

/// Calls until the time is over, then takes what is still out.
fn run<W: Wire>(links: &mut [Link<'_, W>], time: Duration) -> io::Result<()> {
    let until = Instant::now() + time;
    for link in links.iter_mut() {
        (0..link.in_flight).for_each(|_| link.put_call(Instant::now()));
        link.write()?;
    }
    let mut ready = Vec::new();
    while links.iter().any(|link| !link.sent_at.is_empty()) {
        let mut fds: Vec<_> =
            links.iter().map(|link| PollFd::new(link.stream.as_fd(), link.wanted())).collect();
        poll(&mut fds, PollTimeout::NONE)?;
        ready.clear();
        ready.extend(fds.iter().map(|fd| fd.any().unwrap_or(false)));
        for (link, _) in links.iter_mut().zip(&ready).filter(|(_, ready)| **ready) {
            link.turn(until)?;
        }
    }
    Ok(())
}

struct Link<'a, W> {
    stream: TcpStream,
    body: &'a [u8],
    in_flight: usize,
    gather: bool,
    next_id: u64,
    /// When each call that is out was made, by its id less `first_id`. Servers may answer in any order.
    sent_at: VecDeque<(u64, Instant)>,
    input: Vec<u8>,
    filled: usize,
    out: Vec<u8>,
    written: usize,
    latency_ns: Histogram<u64>,
    wire: std::marker::PhantomData<W>,
}

impl<'a, W: Wire> Link<'a, W> {
    fn connect(load: &Load, body: &'a [u8]) -> io::Result<Self> {
        let stream = TcpStream::connect(load.target)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            body,
            in_flight: load.in_flight,
            gather: load.gather,
            next_id: 1,
            sent_at: VecDeque::new(),
            input: vec![0; READ_BYTES],
            filled: 0,
            out: Vec::new(),
            written: 0,
            latency_ns: Histogram::new(3).expect("three digits are allowed"),
            wire: std::marker::PhantomData,
        })
    }

    fn reset(&mut self) {
        self.latency_ns.reset();
    }

    fn wanted(&self) -> PollFlags {
        let waits = self.written < self.out.len();
        if waits { PollFlags::POLLIN | PollFlags::POLLOUT } else { PollFlags::POLLIN }
    }

    fn put_call(&mut self, now: Instant) {
        W::put_call(self.next_id, self.gather, self.body, &mut self.out);
        self.sent_at.push_back((self.next_id, now));
        self.next_id += 1;
    }

    fn turn(&mut self, until: Instant) -> io::Result<()> {
        match self.stream.read(&mut self.input[self.filled..]) {
            Ok(0) => return Err(io::Error::other("the server has closed the connection")),
            Ok(read) => self.filled += read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        let (now, mut used) = (Instant::now(), 0);
        while let Some((id, body, length)) = W::next_reply(&self.input[used..self.filled])? {
            if body.len() != self.body.len() {
                return Err(io::Error::other(format!("an echo of {} bytes", body.len())));
            }
            used += length;
            self.ended(id, now)?;
            if now < until {
                self.put_call(now);
            }
        }
        self.input.copy_within(used..self.filled, 0);
        self.filled -= used;
        self.write()
    }

    fn ended(&mut self, id: u64, now: Instant) -> io::Result<()> {
        let at = self.sent_at.iter().position(|(of, _)| *of == id);
        let (_, sent_at) = at
            .and_then(|at| self.sent_at.remove(at))
            .ok_or_else(|| io::Error::other(format!("an answer to call {id}, which is not out")))?;
        self.latency_ns.record((now - sent_at).as_nanos() as u64).map_err(io::Error::other)?;
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(())
    }
}
