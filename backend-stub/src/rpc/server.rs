//! All connections: accepts, runs handlers, counts, ends.

use std::cell::{Cell, RefCell};
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;

use ahash::AHashMap;
use bytes::Bytes;
use proto_wire::rpc::callee::Outcome;
use proto_wire::status::{Code, Status};

use super::connection::Connection;
use super::peer::{Bad, Begun, Frame};
use super::{Call, Quiet, Service, limits};
use crate::clock::Clock;
use crate::rt::{self, Signal, Stream};
use crate::stats::{Close, Stats};

/// Serves a [`Service`] to its callers.
pub struct Server<S> {
    service: S,
    stats: Arc<Stats>,
    clock: Clock,
    connections: RefCell<AHashMap<u64, Rc<Connection>>>,
    next_number: Cell<u64>,
    /// When the owner next calls `handle_timeout`, and how it is asked to come earlier.
    alarm_at_ms: Cell<u64>,
    alarm: Signal,
    quiet: Quiet,
}

impl<S: Service> Server<S> {
    pub fn new(service: S, stats: Arc<Stats>, clock: Clock) -> Rc<Self> {
        Rc::new(Self {
            service,
            stats,
            clock,
            connections: RefCell::default(),
            next_number: Cell::new(1),
            alarm_at_ms: Cell::new(0),
            alarm: Signal::default(),
            quiet: Quiet::default(),
        })
    }

    /// Serves an accepted connection.
    pub fn adopt(self: &Rc<Self>, stream: TcpStream) {
        self.stats.accepted.add(1);
        if self.connections.borrow().len() >= limits::MAX_CONNECTIONS {
            self.stats.closed(Close::TooMany);
            return;
        }
        let number = self.next_number.replace(self.next_number.get() + 1);
        // An error: it was reset before it was looked at.
        let Ok(stream) = Stream::adopt(stream) else { return self.stats.closed(Close::Peer) };
        let connection = Rc::new(Connection::new(number, stream, self.clock.now_ms()));
        self.connections.borrow_mut().insert(number, connection.clone());
        self.stats.connections.set(self.connections.borrow().len() as u64);
        rt::spawn(self.clone().read(connection.clone()));
        let stats = self.stats.clone();
        rt::spawn(async move { connection.write_until_closed(&stats).await });
    }

    /// Runs what is due on every connection.
    pub fn handle_timeout(&self) {
        let now_ms = self.clock.now_ms();
        let connections: Vec<_> = self.connections.borrow().values().cloned().collect();
        let mut ended = Vec::new();
        for connection in connections {
            connection.handle_timeout(now_ms, &mut ended);
        }
        for (context, status) in ended {
            self.stats.notifies_failed.add(1);
            self.service.ended(context, Err(status));
        }
    }

    /// Waits until something may be due, or until `until_ms`.
    pub async fn timeout(&self, until_ms: u64) {
        let now_ms = self.clock.now_ms();
        let due_ms = self.connections.borrow().values().map(|c| c.poll_timeout()).min().unwrap_or(u64::MAX);
        let wait_ms =
            due_ms.min(until_ms).saturating_sub(now_ms).clamp(limits::TICK_MIN_MS, limits::TICK_MAX_MS);
        self.alarm_at_ms.set(now_ms + wait_ms);
        rt::signal_or_ms(&self.alarm, wait_ms).await;
    }

    /// Asks every caller to make no new calls here.
    pub fn go_away(&self) {
        self.connections.borrow().values().for_each(|connection| connection.go_away());
    }

    /// No handler runs and all answers have left.
    pub fn is_idle(&self) -> bool {
        self.connections.borrow().values().all(|connection| connection.is_idle())
    }

    pub fn close_all(&self) {
        let connections: Vec<_> = self.connections.borrow().values().cloned().collect();
        connections.iter().for_each(|connection| connection.close(Close::Stop));
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.connections.borrow().len()
    }

    async fn read(self: Rc<Self>, connection: Rc<Connection>) {
        let mut input = vec![0; limits::READ_BYTES];
        let mut filled = 0;
        while connection.close_reason().is_none() {
            let read = match connection.read(&mut input[filled..]).await {
                Ok(0) | Err(_) => {
                    connection.close(if filled == 0 { Close::Peer } else { Close::CutShort });
                    break;
                }
                Ok(read) => read,
            };
            filled += read;
            self.stats.reads.add(1);
            self.stats.in_bytes.add(read as u64);
            match self.handle_input(&connection, &input[..filled]) {
                Ok(used) => keep_rest(&mut input, &mut filled, used),
                Err((bad, at)) => self.refuse(&connection, &bad, &input[at..filled]),
            }
            // The handlers of this read go first, and what they say leaves together.
            rt::yield_now().await;
        }
        self.forget(&connection);
    }

    /// Takes all whole frames. Gives how many bytes they are; an error comes with where its frame begins.
    fn handle_input(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        input: &[u8],
    ) -> Result<usize, (Bad, usize)> {
        let arrived_us = self.clock.now_us();
        // Bodies share one copy of what was read.
        let mut chunk: Option<Bytes> = None;
        let mut at = 0;
        while at < input.len() && connection.close_reason().is_none() {
            let body = |range: std::ops::Range<usize>| {
                if range.is_empty() {
                    return Bytes::new();
                }
                let chunk = chunk.get_or_insert_with(|| Bytes::copy_from_slice(input));
                chunk.slice(at + range.start..at + range.end)
            };
            let frame = connection.handle_frame(&input[at..], body, arrived_us / 1000);
            match frame.map_err(|bad| (bad, at))? {
                (_, 0) => break,
                (Frame::Call(begun), length) => {
                    at += length;
                    self.begin(connection, *begun, arrived_us);
                }
                (Frame::Ended(context, result), length) => {
                    at += length;
                    self.stats.notifies_failed.add(u64::from(result.is_err()));
                    self.service.ended(context, result);
                }
                (Frame::Done, length) => at += length,
            }
        }
        Ok(at)
    }

    fn begin(self: &Rc<Self>, connection: &Rc<Connection>, begun: Begun, arrived_us: u64) {
        if begun.admitted.deadline_at_ms < self.alarm_at_ms.get() {
            self.alarm.raise();
        }
        let server = self.clone();
        let call = Call {
            connection: connection.clone(),
            identity: begun.header.identity,
            applied: begun.header.cursor,
            deadline_at_ms: begun.admitted.deadline_at_ms,
            given: Cell::new(None),
        };
        let Begun { serial, admitted, body, header } = begun;
        let (method, service) = (header.method, header.service);
        rt::spawn(async move {
            let begun_us = server.clock.now_us();
            let in_bytes = body.len() as u64;
            let result = server.service.serve(&call, method, body).await;
            let (outcome, body) = match result {
                Ok(body) => (Outcome { cursor: call.given.get(), ..Outcome::OK }, body),
                Err(status) => (Outcome::of(&status), Bytes::from(status.text)),
            };
            let stats = server.stats.method(method);
            stats.ended(outcome.code);
            stats.called_by(service);
            stats.in_bytes.add(in_bytes);
            stats.out_bytes.add(body.len() as u64);
            stats.queue.record(begun_us - arrived_us);
            stats.service.record(server.clock.now_us() - begun_us);
            call.connection.finish(serial, &admitted, &outcome, &body);
        });
    }

    /// A connection whose bytes make no sense any more: one line, and the end.
    fn refuse(&self, connection: &Connection, bad: &Bad, input: &[u8]) {
        if let Some(dropped) = self.quiet.admit(self.clock.now_ms()) {
            let first = &input[..input.len().min(limits::SHOWN_BYTES)];
            tracing::warn!(
                peer = %connection.peer(),
                reason = %bad.reason,
                first_bytes = %first.escape_ascii(),
                lines_kept_back = dropped,
                "closed a connection"
            );
        }
        connection.close(bad.close);
    }

    fn forget(&self, connection: &Rc<Connection>) {
        let close = connection.close_reason().unwrap_or(Close::Peer);
        self.stats.closed(close);
        if matches!(close, Close::SlowReader | Close::Dead)
            && let Some(dropped) = self.quiet.admit(self.clock.now_ms())
        {
            tracing::warn!(
                peer = %connection.peer(), reason = close.name(), lines_kept_back = dropped, "closed a connection"
            );
        }
        self.connections.borrow_mut().remove(&connection.number);
        self.stats.connections.set(self.connections.borrow().len() as u64);
        for context in connection.disconnect(self.clock.now_ms()) {
            self.stats.notifies_failed.add(1);
            self.service.ended(context, Err(Status::new(Code::Lost, "the connection to the gateway broke")));
        }
        self.service.closed(connection);
    }
}

/// Moves what is not a whole frame to the front, and makes room for the rest of it.
fn keep_rest(input: &mut Vec<u8>, filled: &mut usize, used: usize) {
    input.copy_within(used..*filled, 0);
    *filled -= used;
    if *filled == input.len() {
        // The frame is longer than the buffer. Its length was checked, so this ends.
        input.resize(input.len() * 2, 0);
    } else if *filled == 0 && input.len() > limits::KEEP_BYTES {
        *input = vec![0; limits::READ_BYTES];
    }
}
