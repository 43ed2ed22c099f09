//! One connection: a task reads and starts handlers, another writes.

use std::cell::{Cell, RefCell};
use std::io;
use std::mem;
use std::net::SocketAddr;

use ahash::AHashMap;
use bytes::Bytes;
use proto_wire::rpc::callee::{Admitted, Callee, CalleeConfig, Outcome};
use proto_wire::rpc::caller::{Action, Caller, CallerConfig, Request};
use proto_wire::rpc::header::{Header, HeaderError, Kind, flag, next_header};
use proto_wire::rpc::method::Method;
use proto_wire::status::{Code, Status};

use super::limits;
use crate::rt::{self, Signal, Stream};
use crate::stats::{Close, Stats};

/// This service in the headers of its calls.
const SERVICE: u16 = 2;

/// A connection that a caller opened.
pub struct Connection {
    pub(super) number: u64,
    stream: Stream,
    state: RefCell<State>,
    /// Something stands in `out`.
    to_write: Signal,
    /// `out` has become shorter.
    has_room: Signal,
    closed: Cell<Option<Close>>,
}

struct State {
    callee: Callee,
    caller: Caller<u64>,
    out: Vec<u8>,
    /// Bytes that the writer has taken and the kernel has not.
    writing: usize,
    /// Calls that run and whose caller waits.
    running: AHashMap<u64, Running>,
    /// Handlers that run, those of calls given up included.
    handlers: usize,
    started: u64,
    /// No call's time ends before this.
    earliest_deadline_ms: u64,
}

struct Running {
    /// Tells a call from a later one whose id is the same.
    serial: u64,
    admitted: Admitted,
}

/// A call that is to be run.
pub(super) struct Begun {
    pub serial: u64,
    pub admitted: Admitted,
    pub header: Header,
    pub body: Bytes,
}

/// What a frame asks of the owner.
pub(super) enum Frame {
    Call(Box<Begun>),
    /// A call that this side made has ended.
    Ended(u64, Result<Bytes, Status>),
    Done,
}

impl Connection {
    pub(super) fn new(number: u64, stream: Stream, now_ms: u64) -> Self {
        let config = CallerConfig { service: SERVICE, ..CallerConfig::default() };
        let mut caller = Caller::new(config, number);
        let mut out = Vec::new();
        // The peer has connected already: what the caller asks for has been done.
        caller.start(now_ms);
        caller.poll_action();
        caller.handle_connected(now_ms, &mut out);
        let state = State {
            callee: Callee::new(CalleeConfig { credit: limits::CREDIT, ..CalleeConfig::default() }),
            caller,
            out,
            writing: 0,
            running: AHashMap::new(),
            handlers: 0,
            started: 0,
            earliest_deadline_ms: u64::MAX,
        };
        Self {
            number,
            stream,
            state: RefCell::new(state),
            to_write: Signal::default(),
            has_room: Signal::default(),
            closed: Cell::new(None),
        }
    }

    pub fn peer(&self) -> SocketAddr {
        self.stream.peer()
    }

    /// Calls the peer. The end comes to [`super::Service::ended`] with `context`, unless it is refused here.
    pub fn call(&self, method: &Method, body: &[u8], context: u64, now_ms: u64) -> Result<(), Code> {
        if self.closed.get().is_some() {
            return Err(Code::Unavailable);
        }
        let request = Request {
            method: method.id,
            flags: if method.idempotent { flag::IDEMPOTENT } else { 0 },
            deadline_ms: method.deadline_ms,
            business_priority: method.priority,
            body,
            ..Request::default()
        };
        let mut state = self.state.borrow_mut();
        let State { caller, out, .. } = &mut *state;
        caller.call(&request, context, now_ms, out).map_err(|(_, code)| code)?;
        drop(state);
        self.has_output();
        Ok(())
    }

    pub(super) fn close(&self, close: Close) {
        if self.closed.get().is_none() {
            self.closed.set(Some(close));
            self.stream.shutdown();
            self.to_write.raise();
            self.has_room.raise();
        }
    }

    pub(super) fn close_reason(&self) -> Option<Close> {
        self.closed.get()
    }

    /// Writes what was appended, once a turn, until the connection is closed.
    pub(super) async fn write_until_closed(&self, stats: &Stats) {
        let mut bytes = Vec::new();
        while self.closed.get().is_none() {
            self.to_write.wait().await;
            // All that this turn still has to say goes with it.
            rt::yield_now().await;
            {
                let mut state = self.state.borrow_mut();
                mem::swap(&mut state.out, &mut bytes);
                state.writing = bytes.len();
            }
            if !bytes.is_empty() && self.stream.write_all(&bytes).await.is_err() {
                self.close(Close::Peer);
            }
            stats.writes.add(u64::from(!bytes.is_empty()));
            stats.out_bytes.add(bytes.len() as u64);
            bytes.clear();
            bytes.shrink_to(limits::KEEP_BYTES);
            self.state.borrow_mut().writing = 0;
            self.has_room.raise();
        }
    }

    /// Reads behind what `into` holds already. 0: the peer has ended.
    pub(super) async fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        while self.waiting_bytes() > limits::OUT_SOFT_BYTES && self.closed.get().is_none() {
            self.has_room.wait().await;
        }
        self.stream.read(into).await
    }

    /// Takes the frame at the front of `input`, which lies in `chunk` at `at`. Gives its length too; 0: it
    /// is not whole.
    pub(super) fn handle_frame(
        &self,
        input: &[u8],
        body: impl FnOnce(std::ops::Range<usize>) -> Bytes,
        now_ms: u64,
    ) -> Result<(Frame, usize), Bad> {
        let Some((header, header_bytes)) = next_header(input)? else { return Ok((Frame::Done, 0)) };
        let length = header_bytes + header.body_bytes as usize;
        let mut state = self.state.borrow_mut();
        let State { callee, caller, out, .. } = &mut *state;
        caller.handle_heard(now_ms);
        let frame = match header.kind {
            Kind::Call => match callee.handle_call(&header, now_ms, out).map_err(Bad::misbehaved)? {
                Some(admitted) => state.begin(admitted, header, || body(header_bytes..length)),
                None => Frame::Done,
            },
            Kind::Cancel | Kind::Ping => {
                if let Some(id) = callee.handle_control(&header, out).map_err(Bad::misbehaved)? {
                    state.running.remove(&id);
                }
                Frame::Done
            }
            Kind::Reply => {
                let context = caller.handle_reply(&header, now_ms, out).map_err(Bad::misbehaved)?;
                context.map_or(Frame::Done, |context| {
                    Frame::Ended(context, result_of(&header, body(header_bytes..length)))
                })
            }
            Kind::Credit | Kind::Pong | Kind::GoAway => {
                caller.handle_control(&header, now_ms, out).map_err(Bad::misbehaved)?;
                Frame::Done
            }
        };
        drop(state);
        self.has_output();
        Ok((frame, length))
    }

    /// A handler has ended: answers its call, if it is still wanted.
    pub(super) fn finish(&self, serial: u64, admitted: &Admitted, outcome: &Outcome, body: &[u8]) {
        let mut state = self.state.borrow_mut();
        state.handlers -= 1;
        if state.running.get(&admitted.call_id).is_some_and(|running| running.serial == serial) {
            state.running.remove(&admitted.call_id);
            let State { callee, out, .. } = &mut *state;
            callee.reply(admitted, outcome, body, out);
        }
        drop(state);
        self.has_output();
    }

    /// Runs what is due: the deadlines of both directions, pings. Gives calls of this side that ended.
    pub(super) fn handle_timeout(&self, now_ms: u64, ended: &mut Vec<(u64, Status)>) {
        let mut state = self.state.borrow_mut();
        if now_ms >= state.earliest_deadline_ms {
            state.expire(now_ms);
        }
        let State { caller, out, .. } = &mut *state;
        caller.handle_timeout(now_ms, out);
        while let Some((context, code)) = caller.poll_failed() {
            ended.push((context, Status::new(code, "the gateway did not answer")));
        }
        let is_dead = matches!(caller.poll_action(), Some(Action::Disconnect(_)));
        drop(state);
        if is_dead {
            self.close(Close::Dead);
        }
        self.has_output();
    }

    pub(super) fn poll_timeout(&self) -> u64 {
        let state = self.state.borrow();
        state.earliest_deadline_ms.min(state.caller.poll_timeout().unwrap_or(u64::MAX))
    }

    /// Ends all calls that this side made: none will be answered.
    pub(super) fn disconnect(&self, now_ms: u64) -> Vec<u64> {
        let mut state = self.state.borrow_mut();
        state.caller.handle_disconnected(now_ms);
        // What waited for credit would wait for the next connection, and there is none: let it expire.
        state.caller.handle_timeout(u64::MAX / 2, &mut Vec::new());
        std::iter::from_fn(|| state.caller.poll_failed()).map(|(context, _)| context).collect()
    }

    pub(super) fn go_away(&self) {
        let mut state = self.state.borrow_mut();
        let State { callee, out, .. } = &mut *state;
        callee.go_away(out);
        drop(state);
        self.has_output();
    }

    /// No handler runs and everything is written.
    pub(super) fn is_idle(&self) -> bool {
        self.state.borrow().handlers == 0 && self.waiting_bytes() == 0
    }

    fn waiting_bytes(&self) -> usize {
        let state = self.state.borrow();
        state.out.len() + state.writing
    }

    /// Wakes the writer if there is something to write, and closes when the peer does not read.
    fn has_output(&self) {
        let waiting = self.waiting_bytes();
        if waiting > limits::OUT_MAX_BYTES {
            self.close(Close::SlowReader);
        } else if waiting > 0 {
            self.to_write.raise();
        }
    }
}

impl State {
    fn begin(&mut self, admitted: Admitted, header: Header, body: impl FnOnce() -> Bytes) -> Frame {
        if self.handlers >= limits::MAX_HANDLERS {
            let outcome = Outcome { code: Code::TooMany, ..Outcome::OK };
            self.callee.reply(&admitted, &outcome, b"calls that were given up still run", &mut self.out);
            return Frame::Done;
        }
        self.started += 1;
        self.handlers += 1;
        self.earliest_deadline_ms = self.earliest_deadline_ms.min(admitted.deadline_at_ms);
        let serial = self.started;
        self.running.insert(admitted.call_id, Running { serial, admitted });
        Frame::Call(Box::new(Begun { serial, admitted, header, body: body() }))
    }

    /// Answers calls whose time is over. Their handlers run on to their end.
    fn expire(&mut self, now_ms: u64) {
        let mut earliest_ms = u64::MAX;
        let State { running, callee, out, .. } = self;
        running.retain(|_, call| {
            let is_over = call.admitted.deadline_at_ms <= now_ms;
            if is_over {
                let outcome = Outcome { code: Code::Deadline, ..Outcome::OK };
                callee.reply(&call.admitted, &outcome, b"the time of the call ran out", out);
            } else {
                earliest_ms = earliest_ms.min(call.admitted.deadline_at_ms);
            }
            !is_over
        });
        self.earliest_deadline_ms = earliest_ms;
    }
}

fn result_of(header: &Header, body: Bytes) -> Result<Bytes, Status> {
    if header.code() == Code::Ok {
        return Ok(body);
    }
    let mut status = Status::new(header.code(), String::from_utf8_lossy(&body));
    status.retry_after_ms = header.retry_after_ms.unwrap_or(0);
    Err(status)
}

/// Why a connection cannot go on.
#[derive(Debug)]
pub(super) struct Bad {
    pub close: Close,
    pub reason: String,
}

impl Bad {
    fn misbehaved(error: impl std::fmt::Display) -> Self {
        Self { close: Close::Misbehaved, reason: error.to_string() }
    }
}

impl From<HeaderError> for Bad {
    fn from(error: HeaderError) -> Self {
        let close = match error {
            HeaderError::Magic(_) => Close::BadMagic,
            HeaderError::Version(_) => Close::BadVersion,
            HeaderError::HeaderLength(_) | HeaderError::BodyLength(_) => Close::TooLong,
            HeaderError::Kind(_) | HeaderError::Extension => Close::BadHeader,
        };
        Self { close, reason: error.to_string() }
    }
}
