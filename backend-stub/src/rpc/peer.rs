//! The machines of one connection to a caller: its calls, which run here, and the calls that this side makes.
//! Opens nothing: whoever owns the bytes feeds frames and takes what stands in `out`.

use std::ops::Range;
use std::rc::Rc;

use ahash::AHashMap;
use bytes::Bytes;
use proto_wire::rpc::callee::{Admitted, Callee, CalleeConfig, Outcome};
use proto_wire::rpc::caller::{Action, Caller, CallerConfig, Request};
use proto_wire::rpc::header::{Header, HeaderError, Kind, flag, next_header};
use proto_wire::rpc::method::Method;
use proto_wire::status::{Code, Status};

use super::{Call, limits};
use crate::stats::Close;

/// This service in the headers of its calls.
const SERVICE: u16 = 2;

/// Both directions of one connection.
pub struct Peer {
    callee: Callee,
    caller: Caller<u64>,
    /// What is to be written.
    pub out: Vec<u8>,
    /// Calls that run and whose caller waits.
    running: AHashMap<u64, Running>,
    /// Handlers that run, those of calls given up included.
    handlers: usize,
    started: u64,
    /// The call that the owner begins at this moment. It has not been held, since most end at once.
    fresh: Option<u64>,
    /// No call's time ends before this.
    earliest_deadline_ms: u64,
}

struct Running {
    /// Tells a call from a later one whose id is the same.
    serial: u64,
    admitted: Admitted,
    /// Told when the call is over before its handler.
    call: Option<Rc<Call>>,
}

impl Running {
    fn over(&self) {
        if let Some(call) = &self.call {
            call.over.set();
        }
    }
}

/// A call that is to be run.
pub struct Begun {
    pub serial: u64,
    pub admitted: Admitted,
    pub header: Header,
    pub body: Bytes,
}

/// What a frame asks of the owner.
pub enum Frame {
    /// To be begun now: it is to end with `finish`, or be told to `hold`, before the next frame.
    Call(Begun),
    /// A call that this side made has ended.
    Ended(u64, Result<Bytes, Status>),
    Done,
}

/// Why a connection cannot go on.
#[derive(Debug)]
pub struct Bad {
    pub close: Close,
    pub reason: String,
}

impl Peer {
    /// The machines of a connection that a caller has just opened.
    pub fn new(number: u64, now_ms: u64) -> Self {
        let config = CallerConfig { service: SERVICE, ..CallerConfig::default() };
        let mut caller = Caller::new(config, number);
        let mut out = Vec::new();
        // The peer has connected already: what the caller asks for has been done.
        caller.start(now_ms);
        caller.poll_action();
        caller.handle_connected(now_ms, &mut out);
        Self {
            callee: Callee::new(CalleeConfig { credit: limits::CREDIT, ..CalleeConfig::default() }),
            caller,
            out,
            running: AHashMap::new(),
            handlers: 0,
            started: 0,
            fresh: None,
            earliest_deadline_ms: u64::MAX,
        }
    }

    /// Calls the peer. The end comes as [`Frame::Ended`], or from `handle_timeout` or `disconnect`.
    pub fn call(&mut self, method: &Method, body: &[u8], context: u64, now_ms: u64) -> Result<(), Code> {
        let request = Request {
            method: method.id,
            flags: if method.idempotent { flag::IDEMPOTENT } else { 0 },
            deadline_ms: method.deadline_ms,
            business_priority: method.priority,
            body,
            ..Request::default()
        };
        self.caller.call(&request, context, now_ms, &mut self.out).map(|_| ()).map_err(|(_, code)| code)
    }

    /// Takes the frame at the front of `input`; `body` gives the bytes of a range of it. Gives the frame's length
    /// too; 0: it is not whole.
    pub fn handle_frame(
        &mut self,
        input: &[u8],
        body: impl FnOnce(Range<usize>) -> Bytes,
        now_ms: u64,
    ) -> Result<(Frame, usize), Bad> {
        let Some((header, header_bytes)) = next_header(input)? else { return Ok((Frame::Done, 0)) };
        let length = header_bytes + header.body_bytes as usize;
        let Self { callee, caller, out, .. } = self;
        caller.handle_heard(now_ms);
        let frame = match header.kind {
            Kind::Call => match callee.admit(&header, now_ms, out).map_err(Bad::misbehaved)? {
                Some(admitted) => self.begin(admitted, header, || body(header_bytes..length)),
                None => Frame::Done,
            },
            Kind::Cancel | Kind::Ping => {
                if let Some(id) = callee.handle_control(&header, out).map_err(Bad::misbehaved)? {
                    self.running.remove(&id).iter().for_each(Running::over);
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
        Ok((frame, length))
    }

    /// A handler did not end at once.
    pub fn hold(&mut self, serial: u64, admitted: &Admitted) {
        // It did end, if nothing is fresh: then there is nothing to hold.
        if self.fresh.take_if(|fresh| *fresh == serial).is_some() {
            self.handlers += 1;
            self.earliest_deadline_ms = self.earliest_deadline_ms.min(admitted.deadline_at_ms);
            self.callee.hold(admitted);
            self.running.insert(admitted.call_id, Running { serial, admitted: *admitted, call: None });
        }
    }

    /// Whom to tell when the call is over before its handler, which has been held.
    pub fn tell(&mut self, admitted: &Admitted, call: Rc<Call>) {
        if let Some(running) = self.running.get_mut(&admitted.call_id) {
            running.call = Some(call);
        }
    }

    /// A handler has ended: answers its call, if it is still wanted.
    pub fn finish(&mut self, serial: u64, admitted: &Admitted, outcome: &Outcome, body: &[u8]) {
        if self.fresh.take_if(|fresh| *fresh == serial).is_some() {
            return self.callee.answer(admitted, outcome, body, &mut self.out);
        }
        self.handlers -= 1;
        if self.running.get(&admitted.call_id).is_some_and(|running| running.serial == serial) {
            self.running.remove(&admitted.call_id);
            self.callee.reply(admitted, outcome, body, &mut self.out);
        }
    }

    /// Runs what is due: the deadlines of both directions, pings. Gives calls of this side that ended. An error:
    /// the peer is dead.
    pub fn handle_timeout(&mut self, now_ms: u64, ended: &mut Vec<(u64, Status)>) -> Result<(), Bad> {
        if now_ms >= self.earliest_deadline_ms {
            self.expire(now_ms);
        }
        self.caller.handle_timeout(now_ms, &mut self.out);
        while let Some((context, code)) = self.caller.poll_failed() {
            ended.push((context, Status::new(code, "the gateway did not answer")));
        }
        match self.caller.poll_action() {
            Some(Action::Disconnect(why)) => Err(Bad { close: Close::Dead, reason: why.to_owned() }),
            _ => Ok(()),
        }
    }

    pub fn poll_timeout(&self) -> u64 {
        self.earliest_deadline_ms.min(self.caller.poll_timeout().unwrap_or(u64::MAX))
    }

    /// Ends all calls that this side made: none will be answered. Tells the handlers that run.
    pub fn disconnect(&mut self, now_ms: u64) -> Vec<u64> {
        self.running.drain().for_each(|(_, running)| running.over());
        self.caller.handle_disconnected(now_ms);
        // What waited for credit would wait for the next connection, and there is none: let it expire.
        self.caller.handle_timeout(u64::MAX / 2, &mut Vec::new());
        std::iter::from_fn(|| self.caller.poll_failed()).map(|(context, _)| context).collect()
    }

    pub fn go_away(&mut self) {
        self.callee.go_away(&mut self.out);
    }

    /// Handlers that run.
    pub fn handlers(&self) -> usize {
        self.handlers
    }

    fn begin(&mut self, admitted: Admitted, header: Header, body: impl FnOnce() -> Bytes) -> Frame {
        debug_assert!(self.fresh.is_none(), "the call before was neither ended nor held");
        if self.handlers >= limits::MAX_HANDLERS {
            let outcome = Outcome { code: Code::TooMany, ..Outcome::OK };
            self.callee.answer(&admitted, &outcome, b"calls that were given up still run", &mut self.out);
            return Frame::Done;
        }
        self.started += 1;
        self.fresh = Some(self.started);
        Frame::Call(Begun { serial: self.started, admitted, header, body: body() })
    }

    /// Answers calls whose time is over, in the order in which they came. Their handlers run on to their end.
    fn expire(&mut self, now_ms: u64) {
        let mut earliest_ms = u64::MAX;
        let mut over = Vec::new();
        self.running.retain(|_, call| {
            let is_over = call.admitted.deadline_at_ms <= now_ms;
            if is_over {
                over.push((call.serial, call.admitted));
                call.over();
            } else {
                earliest_ms = earliest_ms.min(call.admitted.deadline_at_ms);
            }
            !is_over
        });
        self.earliest_deadline_ms = earliest_ms;
        over.sort_unstable_by_key(|(serial, _)| *serial);
        let outcome = Outcome { code: Code::Deadline, ..Outcome::OK };
        for (_, admitted) in over {
            self.callee.reply(&admitted, &outcome, b"the time of the call ran out", &mut self.out);
        }
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
