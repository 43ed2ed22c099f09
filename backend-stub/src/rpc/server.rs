//! All connections: accepts, runs handlers, counts, ends.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::net::TcpStream;
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use ahash::AHashMap;
use bytes::Bytes;
use futures_lite::FutureExt as _;
use proto_wire::rpc::callee::Outcome;
use proto_wire::status::{Code, Status};

use super::connection::Connection;
use super::input::{Input, Taken};
use super::peer::{Bad, Frame};
use super::{Call, Quiet, Service, limits};
use crate::clock::Clock;
use crate::rt::{self, Inbox, Signal, Stream, Waker};
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
    /// The clock as it was last read, in a turn: one handler's end is the next one's beginning.
    seen_us: Cell<u64>,
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
            seen_us: Cell::new(0),
            quiet: Quiet::default(),
        })
    }

    /// Serves all that is accepted, and runs the timers, until `stop` is raised. For an owner without timers of its own; call
    /// `close` then.
    pub async fn serve(self: &Rc<Self>, accepted: Inbox<TcpStream>, stop: &Waker) {
        rt::spawn(self.clone().adopt_all(accepted));
        let timers = async {
            loop {
                self.timeout(u64::MAX).await;
                self.handle_timeout();
            }
        };
        futures_lite::future::or(stop.wait(), timers).await;
    }

    /// Asks callers to go, lets what is in flight end, for `grace_ms` at most, and ends all connections.
    pub async fn close(&self, grace_ms: u64) {
        let until_ms = self.clock.now_ms() + grace_ms;
        self.go_away();
        rt::sleep_ms(limits::TICK_MIN_MS).await;
        while self.clock.now_ms() < until_ms && !self.is_idle() {
            self.handle_timeout();
            rt::sleep_ms(limits::TICK_MIN_MS).await;
        }
        self.close_all();
        while self.clock.now_ms() < until_ms && self.connections() > 0 {
            rt::sleep_ms(1).await;
        }
    }

    async fn adopt_all(self: Rc<Self>, mut accepted: Inbox<TcpStream>) {
        while let Some(streams) = accepted.take().await {
            streams.into_iter().for_each(|stream| self.adopt(stream));
        }
    }

    /// Serves an accepted connection.
    pub fn adopt(self: &Rc<Self>, stream: TcpStream) {
        self.adopt_stream(|| Stream::adopt(stream));
    }

    /// Serves an accepted connection over a Unix socket.
    pub fn adopt_unix(self: &Rc<Self>, stream: UnixStream) {
        self.adopt_stream(|| Stream::adopt_unix(stream));
    }

    fn adopt_stream(self: &Rc<Self>, adopt: impl FnOnce() -> io::Result<Stream>) {
        self.stats.accepted.add(1);
        if self.connections.borrow().len() >= limits::MAX_CONNECTIONS {
            self.stats.closed(Close::TooMany);
            return;
        }
        let number = self.next_number.replace(self.next_number.get() + 1);
        // An error: it was reset before it was looked at.
        let Ok(stream) = adopt() else { return self.stats.closed(Close::Peer) };
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
        let (mut input, mut place) = (Input::default(), Place::default());
        while connection.close_reason().is_none() {
            let read = match connection.read(input.room()).await {
                Ok(0) | Err(_) => {
                    connection.close(if input.is_empty() { Close::Peer } else { Close::CutShort });
                    break;
                }
                Ok(read) => read,
            };
            input.came(read);
            self.stats.reads.add(1);
            self.stats.in_bytes.add(read as u64);
            let was_full = input.is_full();
            poll_fn(|context| {
                self.turn(&connection, &mut input, &mut place, Self::run, context);
                Poll::Ready(())
            })
            .await;
            if was_full {
                // There may be more, and the others shall not wait for its end.
                rt::yield_now().await;
            }
        }
        self.forget(&connection);
    }

    /// Takes all whole frames, begins their handlers, and writes what these said.
    fn turn<F: Future<Output = ()> + 'static>(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        input: &mut Input,
        place: &mut Place<F>,
        run: impl Fn(Rc<Self>, Rc<Call>, Bytes, u64) -> F,
        context: &mut Context<'_>,
    ) {
        let arrived_us = self.clock.now_us();
        self.seen_us.set(arrived_us);
        let taken = input.take();
        let mut used = 0;
        connection.begin_turn();
        while used < taken.bytes().len() && connection.close_reason().is_none() {
            match self.take_frame(connection, &taken, used, arrived_us) {
                Ok((_, 0)) => break,
                Ok((begun, length)) => {
                    used += length;
                    if let Some((call, body)) = begun {
                        let handler = run(self.clone(), call.clone(), body, arrived_us);
                        if let Some(task) = place.begin(handler, context) {
                            self.hold(&call);
                            rt::spawn(task);
                        }
                    }
                }
                Err(bad) => self.refuse(connection, &bad, &taken.bytes()[used..]),
            }
        }
        connection.end_turn(&self.stats);
        input.put_back(taken, used);
    }

    /// Gives the call that stands at `at`, if it is one, and the length of the frame; 0: it is not whole.
    fn take_frame(
        &self,
        connection: &Rc<Connection>,
        taken: &Taken,
        at: usize,
        arrived_us: u64,
    ) -> Result<(Option<(Rc<Call>, Bytes)>, usize), Bad> {
        let body = |range: Range<usize>| taken.body(at + range.start..at + range.end);
        let (frame, length) = connection.handle_frame(&taken.bytes()[at..], body, arrived_us / 1000)?;
        match frame {
            Frame::Call(begun) => {
                let (call, body) = Call::of(connection.clone(), begun);
                return Ok((Some((Rc::new(call), body)), length));
            }
            Frame::Ended(context, result) => {
                self.stats.notifies_failed.add(u64::from(result.is_err()));
                self.service.ended(context, result);
            }
            Frame::Done => {}
        }
        Ok((None, length))
    }

    /// One call, from its first step to its answer.
    async fn run(self: Rc<Self>, call: Rc<Call>, body: Bytes, arrived_us: u64) {
        let begun_us = self.seen_us.get();
        let in_bytes = body.len() as u64;
        let result = AssertUnwindSafe(self.service.serve(&call, call.method, body)).catch_unwind().await;
        let result = result.unwrap_or_else(|_| Err(self.panicked(&call)));
        let (outcome, body) = match result {
            Ok(body) => (Outcome { cursor: call.given.get(), ..Outcome::OK }, body),
            Err(status) => (Outcome::of(&status), Bytes::from(status.text)),
        };
        let ended_us = self.clock.now_us();
        self.seen_us.set(ended_us);
        let stats = self.stats.method(call.method);
        stats.ended(outcome.code);
        stats.called_by(call.service);
        stats.in_bytes.add(in_bytes);
        stats.out_bytes.add(body.len() as u64);
        stats.queue.record(begun_us - arrived_us);
        stats.service.record(ended_us - begun_us);
        if let Some(connection) = &call.connection {
            connection.finish(&call, &outcome, &body);
        }
    }

    /// What a caller is told of a handler that panicked. What the handler held may be half done; where that must not go on, the
    /// program ends at a panic.
    fn panicked(&self, call: &Call) -> Status {
        if let Some(dropped) = self.quiet.admit(self.clock.now_ms()) {
            tracing::error!(method = call.method, lines_kept_back = dropped, "a handler panicked");
        }
        Status::new(Code::Internal, "the handler panicked")
    }

    /// A handler waits for something: its call may be cancelled, and its time may run out.
    fn hold(&self, call: &Rc<Call>) {
        if let Some(connection) = &call.connection {
            connection.hold(call);
        }
        if call.deadline_at_ms < self.alarm_at_ms.get() {
            self.alarm.raise();
        }
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

/// Where handlers are run until they first wait: one place for all calls of a connection, so that those which end there need
/// no memory of their own.
struct Place<F>(Option<Pin<Box<Option<F>>>>);

impl<F> Default for Place<F> {
    fn default() -> Self {
        Self(None)
    }
}

impl<F: Future<Output = ()>> Place<F> {
    /// Gives what is to become a task when the handler does not end at once: the place goes with it. Its first wait woke
    /// the reader; as a task it is polled again, and waits for itself.
    fn begin(&mut self, handler: F, context: &mut Context<'_>) -> Option<impl Future<Output = ()> + use<F>> {
        let mut place = self.0.take().unwrap_or_else(|| Box::pin(None));
        place.set(Some(handler));
        let polled = place.as_mut().as_pin_mut().map(|handler| handler.poll(context));
        if polled.is_some_and(|polled| polled.is_pending()) {
            return Some(async move {
                if let Some(handler) = place.as_mut().as_pin_mut() {
                    handler.await;
                }
            });
        }
        place.set(None);
        self.0 = Some(place);
        None
    }
}
