//! The caller's side of one RPC connection: calls in flight, deadlines, cancel, credit, health, back-off.
//!
//! Owns no socket: the owner connects when [`Caller::poll_action`] says so, feeds what comes, and sends what
//! was appended to `out`. A call is encoded straight into `out` when it may leave at once; otherwise it waits
//! in a bounded queue for the connection or for credit. No body is kept once it has left, so a call
//! whose connection broke ends with [`Code::Lost`], and whoever made it decides whether to repeat it.

use std::collections::VecDeque;

use bytes::Bytes;
use thiserror::Error;

use super::header::{self, Header, Identity, Kind, flag};
use crate::names::Cursor;
use crate::status::Code;

/// The bounds of one connection.
#[derive(Debug, Clone)]
pub struct CallerConfig {
    /// This process as its callees see it.
    pub service: u16,
    /// Calls in flight and waiting together; the next one is refused.
    pub max_calls: usize,
    /// Bytes of calls that wait for the connection or for credit; the next one is refused.
    pub max_waiting_bytes: usize,
    /// Calls that may be out before the callee has said what it will hold.
    pub initial_credit: u32,
    /// Silence after which a ping goes out; the answer must come within as long again.
    pub ping_after_ms: u64,
    pub connect_timeout_ms: u64,
    /// The first wait after a failure; doubled up to the maximum, each with full jitter.
    pub backoff_min_ms: u64,
    pub backoff_max_ms: u64,
}

impl Default for CallerConfig {
    fn default() -> Self {
        Self {
            service: 0,
            max_calls: 16_384,
            max_waiting_bytes: 4 << 20,
            initial_credit: 1024,
            ping_after_ms: 5_000,
            connect_timeout_ms: 3_000,
            backoff_min_ms: 20,
            backoff_max_ms: 2_000,
        }
    }
}

/// What is asked of the callee. `deadline_ms` is the time left from now.
#[derive(Debug, Clone, Copy, Default)]
pub struct Request<'a> {
    pub method: u16,
    pub flags: u16,
    pub deadline_ms: u32,
    pub attempt: u8,
    pub home: u8,
    pub section: u16,
    pub business_priority: u8,
    pub user_priority: u8,
    pub identity: Option<Identity>,
    pub cursor: Option<Cursor>,
    /// The W3C traceparent's bytes.
    pub trace: Option<&'a Bytes>,
    pub body: &'a [u8],
}

impl Request<'_> {
    pub(super) fn header(&self, call_id: u64, service: u16) -> Header {
        Header {
            kind: Kind::Call,
            flags: self.flags,
            deadline_ms: self.deadline_ms,
            call_id,
            method: self.method,
            attempt: self.attempt,
            home: self.home,
            section: self.section,
            business_priority: self.business_priority,
            user_priority: self.user_priority,
            service,
            identity: self.identity,
            cursor: self.cursor,
            trace: self.trace.cloned(),
            ..Header::default()
        }
    }
}

/// Names a call of this connection: slot in the low half, generation in the high one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallId(pub u64);

/// What the owner must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Open the connection, then say `handle_connected` or `handle_disconnected`.
    Connect,
    /// Close it, then say `handle_disconnected`.
    Disconnect(&'static str),
}

/// What a callee may never do. The owner closes the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PeerMisbehaved {
    #[error("an answer came for call {0:#x}, which was never made")]
    AnswerToNothing(u64),
    #[error("a frame of kind {0:?} came that a callee never sends")]
    OutOfPlace(Kind),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nobody asked for the connection yet.
    Idle,
    /// The owner connects; it has until then.
    Connecting {
        until_ms: u64,
    },
    Up,
    /// The owner was told to close.
    Closing,
    /// The next attempt is then.
    Waiting {
        until_ms: u64,
    },
}

struct InFlight<T> {
    deadline_at_ms: u64,
    /// Whether its bytes were given to the owner.
    sent: bool,
    context: T,
}

struct Slot<T> {
    generation: u32,
    call: Option<InFlight<T>>,
}

struct Waiting {
    id: CallId,
    frame: Vec<u8>,
}

/// The machine. `T` is the owner's memory of a call: who asked, and under which number.
pub struct Caller<T> {
    config: CallerConfig,
    state: State,
    action: Option<Action>,
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    failed: VecDeque<(T, Code)>,
    /// One-way calls whose bytes were given to the owner: their end.
    left: VecDeque<T>,
    /// Calls out at the callee, and how many it holds at most.
    out: u32,
    credit: u32,
    /// No deadline lies before this; exact after each scan, else a lower bound.
    earliest_deadline_ms: u64,
    last_heard_ms: u64,
    ping_sent_at_ms: Option<u64>,
    failures: u32,
    random: u64,
    draining: bool,
    late_replies: u64,
}

impl<T> Caller<T> {
    /// `seed` feeds the jitter of the back-off only.
    pub fn new(config: CallerConfig, seed: u64) -> Self {
        Self {
            credit: config.initial_credit,
            config,
            state: State::Idle,
            action: None,
            slots: Vec::new(),
            free: Vec::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            failed: VecDeque::new(),
            left: VecDeque::new(),
            out: 0,
            earliest_deadline_ms: u64::MAX,
            last_heard_ms: 0,
            ping_sent_at_ms: None,
            failures: 0,
            random: seed | 1,
            draining: false,
            late_replies: 0,
        }
    }

    /// Asks for the connection, if there is none and none is under way.
    pub fn start(&mut self, now_ms: u64) {
        if self.state == State::Idle {
            self.ask_to_connect(now_ms);
        }
    }

    pub fn is_up(&self) -> bool {
        self.state == State::Up && !self.draining
    }

    /// Calls made and not ended.
    pub fn calls(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Replies that came after their call had ended here.
    pub fn late_replies(&self) -> u64 {
        self.late_replies
    }

    /// The connection stands. Calls that waited leave.
    pub fn handle_connected(&mut self, now_ms: u64, out: &mut Vec<u8>) {
        self.state = State::Up;
        self.last_heard_ms = now_ms;
        self.ping_sent_at_ms = None;
        self.credit = self.config.initial_credit;
        self.draining = false;
        self.release_waiting(now_ms, out);
    }

    /// The connection broke, was closed, or did not come about. What was out is lost; what waited waits on.
    pub fn handle_disconnected(&mut self, now_ms: u64) {
        if self.state == State::Up {
            self.failures = 0;
        }
        for at in 0..self.slots.len() {
            if self.slots[at].call.as_ref().is_some_and(|call| call.sent) {
                self.fail(at as u32, Code::Lost);
            }
        }
        self.out = 0;
        self.action = None;
        let wait_ms = self.backoff_ms();
        self.failures = self.failures.saturating_add(1);
        self.state = State::Waiting { until_ms: now_ms + wait_ms };
    }

    /// Any frame came: the peer lives.
    pub fn handle_heard(&mut self, now_ms: u64) {
        self.last_heard_ms = now_ms;
        self.failures = 0;
    }

    /// A reply: gives back the owner's memory of its call, or nothing when that had ended before.
    ///
    /// The body stays with the owner.
    pub fn handle_reply(
        &mut self,
        header: &Header,
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> Result<Option<T>, PeerMisbehaved> {
        debug_assert_eq!(header.kind, Kind::Reply);
        self.handle_heard(now_ms);
        let (at, generation) = split(CallId(header.call_id));
        let slot = self
            .slots
            .get_mut(at as usize)
            .filter(|slot| generation <= slot.generation)
            .ok_or(PeerMisbehaved::AnswerToNothing(header.call_id))?;
        let call = if generation == slot.generation { slot.call.take_if(|call| call.sent) } else { None };
        let Some(call) = call else {
            self.late_replies += 1;
            return Ok(None);
        };
        self.free_slot(at);
        self.out = self.out.saturating_sub(1);
        self.set_credit(header.credit);
        self.release_waiting(now_ms, out);
        Ok(Some(call.context))
    }

    /// A frame that is no reply and no call: credit, pong, goaway.
    pub fn handle_control(
        &mut self,
        header: &Header,
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), PeerMisbehaved> {
        self.handle_heard(now_ms);
        match header.kind {
            Kind::Credit => {
                self.set_credit(header.credit);
                self.release_waiting(now_ms, out);
            }
            Kind::Pong => self.ping_sent_at_ms = None,
            // What is out may still be answered; what is new waits for the next connection.
            Kind::GoAway => self.draining = true,
            kind => return Err(PeerMisbehaved::OutOfPlace(kind)),
        }
        Ok(())
    }

    /// Runs what is due: deadlines, pings, the end of a wait.
    pub fn handle_timeout(&mut self, now_ms: u64, out: &mut Vec<u8>) {
        if now_ms >= self.earliest_deadline_ms {
            self.expire(now_ms, out);
        }
        match self.state {
            State::Waiting { until_ms } if now_ms >= until_ms => self.ask_to_connect(now_ms),
            State::Connecting { until_ms } if now_ms >= until_ms => {
                self.disconnect("the connection did not come about in time");
            }
            State::Up if self.draining && self.out == 0 => {
                self.disconnect("the callee goes away");
            }
            State::Up => self.check_health(now_ms, out),
            _ => {}
        }
    }

    /// Makes a call. Refused (with the owner's memory given back) when its bounds are full.
    pub fn call(
        &mut self,
        request: &Request<'_>,
        context: T,
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> Result<CallId, (T, Code)> {
        let may_leave = self.is_up() && self.out < self.credit && self.waiting.is_empty();
        if self.calls() >= self.config.max_calls
            || (!may_leave && self.waiting_bytes + request.body.len() > self.config.max_waiting_bytes)
        {
            return Err((context, Code::Overloaded));
        }
        let deadline_at_ms = now_ms + u64::from(request.deadline_ms);
        self.earliest_deadline_ms = self.earliest_deadline_ms.min(deadline_at_ms);
        let id = self.take_slot(InFlight { deadline_at_ms, sent: may_leave, context });
        let header = request.header(id.0, self.config.service);
        if may_leave {
            self.out += 1;
            header.put(request.body, out);
            if request.flags & flag::ONE_WAY != 0 {
                self.end_one_way(id);
            }
        } else {
            self.start(now_ms);
            let mut frame = Vec::with_capacity(128 + request.body.len());
            header.put(request.body, &mut frame);
            self.waiting_bytes += frame.len();
            self.waiting.push_back(Waiting { id, frame });
        }
        Ok(id)
    }

    /// Gives a call up and tells the callee.
    pub fn cancel(&mut self, id: CallId, out: &mut Vec<u8>) -> Option<T> {
        let (at, generation) = split(id);
        let slot = self.slots.get_mut(at as usize).filter(|slot| slot.generation == generation)?;
        let call = slot.call.take()?;
        self.free_slot(at);
        if call.sent {
            self.out = self.out.saturating_sub(1);
            put_control(Kind::Cancel, id.0, out);
        }
        Some(call.context)
    }

    /// Gives back what waits, as [`Code::Unavailable`]: nothing of it has left, so it may go another way.
    pub fn give_back_waiting(&mut self) {
        for at in 0..self.slots.len() {
            if self.slots[at].call.as_ref().is_some_and(|call| !call.sent) {
                self.fail(at as u32, Code::Unavailable);
            }
        }
        self.drop_dead_waiting();
    }

    /// One-way calls that have left, one at a time: they have ended well.
    pub fn poll_left(&mut self) -> Option<T> {
        self.left.pop_front()
    }

    /// Calls that ended without a reply, one at a time.
    pub fn poll_failed(&mut self) -> Option<(T, Code)> {
        self.failed.pop_front()
    }

    pub fn poll_action(&mut self) -> Option<Action> {
        self.action.take()
    }

    /// When `handle_timeout` has something to do.
    pub fn poll_timeout(&self) -> Option<u64> {
        let state_ms = match self.state {
            State::Waiting { until_ms } | State::Connecting { until_ms } => until_ms,
            State::Up if self.draining && self.out == 0 => 0,
            State::Up => self.ping_sent_at_ms.unwrap_or(self.last_heard_ms) + self.config.ping_after_ms,
            State::Idle | State::Closing => u64::MAX,
        };
        Some(state_ms.min(self.earliest_deadline_ms)).filter(|&ms| ms != u64::MAX)
    }

    fn ask_to_connect(&mut self, now_ms: u64) {
        self.state = State::Connecting { until_ms: now_ms + self.config.connect_timeout_ms };
        self.action = Some(Action::Connect);
    }

    fn disconnect(&mut self, why: &'static str) {
        self.state = State::Closing;
        self.action = Some(Action::Disconnect(why));
    }

    fn check_health(&mut self, now_ms: u64, out: &mut Vec<u8>) {
        let after_ms = self.config.ping_after_ms;
        match self.ping_sent_at_ms {
            Some(sent_ms) if self.last_heard_ms >= sent_ms => self.ping_sent_at_ms = None,
            Some(sent_ms) if now_ms >= sent_ms + after_ms => {
                self.disconnect("a ping was not answered in time")
            }
            None if now_ms >= self.last_heard_ms + after_ms => {
                put_control(Kind::Ping, 0, out);
                self.ping_sent_at_ms = Some(now_ms);
            }
            _ => {}
        }
    }

    /// Full jitter over a doubling window (Brooker, "Exponential Backoff And Jitter", 2015).
    fn backoff_ms(&mut self) -> u64 {
        let doubled = self.config.backoff_min_ms.saturating_mul(1 << self.failures.min(20));
        let window_ms = doubled.min(self.config.backoff_max_ms).max(1);
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        1 + self.random % window_ms
    }

    fn expire(&mut self, now_ms: u64, out: &mut Vec<u8>) {
        let mut earliest_ms = u64::MAX;
        for at in 0..self.slots.len() {
            let Some(call) = &self.slots[at].call else { continue };
            if call.deadline_at_ms > now_ms {
                earliest_ms = earliest_ms.min(call.deadline_at_ms);
                continue;
            }
            if call.sent {
                self.out = self.out.saturating_sub(1);
                put_control(Kind::Cancel, id_of(at as u32, self.slots[at].generation).0, out);
            }
            self.fail(at as u32, Code::Deadline);
        }
        self.earliest_deadline_ms = earliest_ms;
        self.drop_dead_waiting();
        self.release_waiting(now_ms, out);
    }

    fn fail(&mut self, at: u32, code: Code) {
        if let Some(call) = self.slots[at as usize].call.take() {
            self.free_slot(at);
            self.failed.push_back((call.context, code));
        }
    }

    /// What waits and was cancelled or expired makes room.
    fn drop_dead_waiting(&mut self) {
        let slots = &self.slots;
        let bytes = &mut self.waiting_bytes;
        self.waiting.retain(|waiting| {
            let (at, generation) = split(waiting.id);
            let slot = &slots[at as usize];
            let alive = slot.generation == generation && slot.call.is_some();
            if !alive {
                *bytes -= waiting.frame.len();
            }
            alive
        });
    }

    fn release_waiting(&mut self, now_ms: u64, out: &mut Vec<u8>) {
        while self.is_up() && self.out < self.credit {
            let Some(Waiting { id, mut frame }) = self.waiting.pop_front() else { return };
            self.waiting_bytes -= frame.len();
            let (at, generation) = split(id);
            let slot = &mut self.slots[at as usize];
            let Some(call) = slot.call.as_mut().filter(|_| slot.generation == generation) else { continue };
            let left_ms = call.deadline_at_ms.saturating_sub(now_ms).clamp(1, u64::from(u32::MAX)) as u32;
            header::set_deadline(&mut frame, left_ms);
            call.sent = true;
            self.out += 1;
            out.extend_from_slice(&frame);
            if header::is_one_way(&frame) {
                self.end_one_way(id);
            }
        }
    }

    /// Nothing more will be heard of it. The callee's credit does not count it: its end is not told.
    fn end_one_way(&mut self, id: CallId) {
        let (at, _) = split(id);
        if let Some(call) = self.slots[at as usize].call.take() {
            self.free_slot(at);
            self.out = self.out.saturating_sub(1);
            self.left.push_back(call.context);
        }
    }

    fn set_credit(&mut self, credit: u32) {
        if credit > 0 {
            self.credit = credit;
        }
    }

    fn take_slot(&mut self, call: InFlight<T>) -> CallId {
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, call: None });
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[at as usize];
        slot.generation = slot.generation.wrapping_add(1);
        slot.call = Some(call);
        id_of(at, slot.generation)
    }

    fn free_slot(&mut self, at: u32) {
        debug_assert!(self.slots[at as usize].call.is_none());
        self.free.push(at);
    }
}

fn id_of(at: u32, generation: u32) -> CallId {
    CallId(u64::from(generation) << 32 | u64::from(at))
}

fn split(id: CallId) -> (u32, u32) {
    (id.0 as u32, (id.0 >> 32) as u32)
}

fn put_control(kind: Kind, call_id: u64, out: &mut Vec<u8>) {
    Header { kind, call_id, ..Header::default() }.put(&[], out);
}

#[cfg(test)]
mod tests;
