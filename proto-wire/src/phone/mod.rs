//! A phone as a machine: it connects, greets, beats, calls, is told of news, syncs, and comes back when it
//! is cut off. `spec/client.md` and `spec/sync.md` describe what it does.
//!
//! It owns no socket and no clock. The owner feeds `handle_*`, takes every event of [`Phone::poll_event`],
//! then sends what [`Phone::poll_transmit`] appends, and calls [`Phone::handle_timeout`] when
//! [`Phone::poll_timeout`] is due. Times are monotonic milliseconds and never fall.

mod backoff;
mod calls;
mod config;
mod event;
mod incoming;
mod link;
mod sync;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::frame::{self, Beat, kind};
use crate::names::{Cursor, UploadId};
use crate::pb::{self, LastEnd};
use crate::random::Random;
use crate::rpc::method::Method;
use crate::status::Code;
use calls::Calls;
use link::{Due, Link, NEVER, State};
use sync::Sync;

pub use config::{Backoff, Device, PhoneConfig};
pub use event::{CallHandle, CloseReason, Ended, GapWhy, PhoneEvent, PhoneStats};

/// One phone. Idle it owns its token and nothing else on the heap.
#[derive(Debug)]
pub struct Phone {
    config: Arc<PhoneConfig>,
    device: u64,
    token: Box<[u8]>,
    /// From the last WELCOME, for the next HELLO; good until then.
    ticket: Box<[u8]>,
    ticket_until_ms: u64,
    /// Where GOAWAY or CLOSE sent this phone; used once.
    to: Option<Box<str>>,
    /// The latest time that anyone told.
    now_ms: u64,
    /// The server's clock minus `now_ms`; none before the first WELCOME.
    server_offset_ms: Option<i64>,
    /// The user that the server named in WELCOME.
    user: u64,
    link: Link,
    calls: Calls,
    sync: Sync,
    random: Random,
    /// The front of a frame whose rest has not come.
    held: Box<[u8]>,
    events: Events,
    stats: PhoneStats,
}

impl Phone {
    /// A phone that does nothing until [`Phone::connect`]. `seed` feeds jitter and the ids of uploads: it is
    /// random where phones are real, and fixed where a run shall be repeated.
    pub fn new(config: Arc<PhoneConfig>, device: Device, seed: u64) -> Self {
        Self {
            config,
            device: device.id,
            token: device.token,
            ticket: Box::default(),
            ticket_until_ms: 0,
            to: None,
            now_ms: 0,
            server_offset_ms: None,
            user: 0,
            link: Link::new(device.counter),
            calls: Calls::new(),
            sync: Sync::new(device.cursor),
            random: Random::new(seed),
            held: Box::default(),
            events: Events::default(),
            stats: PhoneStats::default(),
        }
    }

    /// Asks for a connection, at once. Does nothing when there is one or one is on its way.
    pub fn connect(&mut self, now_ms: u64) {
        self.advance(now_ms);
        if !self.link.has_socket() {
            self.link.state = State::Connecting { until_ms: self.now_ms + self.config.connect_timeout_ms };
            self.events.push(PhoneEvent::Connect { to: self.to.take() });
        }
    }

    /// Calls a method. Exactly one [`PhoneEvent::Reply`] with this handle comes, whatever happens.
    ///
    /// `deadline_ms` 0: the method's own. `idempotent`: the call may be sent again when its answer was lost,
    /// because the method or the id of the upload in its body makes that harmless.
    pub fn call(
        &mut self,
        method_id: u16,
        body: Bytes,
        deadline_ms: u32,
        idempotent: bool,
        now_ms: u64,
    ) -> CallHandle {
        self.advance(now_ms);
        let handle = self.calls.add(method_id, body, deadline_ms, idempotent, self.now_ms, &mut self.events);
        if matches!(self.link.state, State::Ended) {
            self.calls.fail_all(Code::Unavailable, "the server refuses this phone", &mut self.events);
        }
        handle
    }

    /// Calls a method of the generated services; whether it may be repeated is in its `.proto`.
    pub fn call_method(&mut self, method: &Method, request: &impl prost::Message, now_ms: u64) -> CallHandle {
        self.call(
            method.id,
            crate::rpc::method::encode(request),
            method.deadline_ms,
            method.idempotent,
            now_ms,
        )
    }

    /// Pulls once, without having been told.
    pub fn sync_now(&mut self, now_ms: u64) {
        self.advance(now_ms);
        if self.link.up().is_some() {
            self.sync.want_pull();
        }
    }

    /// Closes. All calls end as cancelled; the phone is silent until the next [`Phone::connect`].
    pub fn close(&mut self) {
        self.calls.fail_all(Code::Cancelled, "the phone was closed", &mut self.events);
        if self.link.has_socket() {
            self.end(CloseReason::ByOwner, String::new(), After::Stay);
        }
        self.link.state = State::Idle;
    }

    /// Another token, for the next HELLO.
    pub fn set_token(&mut self, token: Box<[u8]>) {
        self.token = token;
        // It may be another user's.
        self.ticket = Box::default();
    }

    /// The socket is open.
    pub fn handle_connected(&mut self, now_ms: u64) {
        self.advance(now_ms);
        if matches!(self.link.state, State::Connecting { .. }) {
            self.link.counter = self.link.counter.wrapping_add(1);
            let until_ms = self.now_ms + self.config.welcome_timeout_ms;
            self.link.state = State::Greeting { until_ms, hello_due: true };
        }
    }

    /// Bytes came. What is wrong with them ends the connection and is told as an event.
    pub fn handle_bytes(&mut self, bytes: &[u8], now_ms: u64) {
        self.advance(now_ms);
        if self.link.is_open() {
            self.read(bytes);
        }
    }

    /// The socket ended, other than by [`PhoneEvent::Disconnect`].
    pub fn handle_closed(&mut self, now_ms: u64, ended: Ended) {
        self.advance(now_ms);
        if self.link.has_socket() {
            let reason = match ended {
                Ended::Eof => CloseReason::Eof,
                Ended::Reset => CloseReason::Reset,
                Ended::ConnectFailed => CloseReason::ConnectFailed,
            };
            self.end_silently(reason, String::new(), After::Return(None));
        }
    }

    /// Does what is due. Late is as good as early.
    pub fn handle_timeout(&mut self, now_ms: u64) {
        self.advance(now_ms);
        self.calls.handle_timeout(self.now_ms, &mut self.events);
        let given_up =
            self.sync.handle_timeout(self.now_ms, &self.config, &mut self.random, &mut self.events);
        if let Some(id) = given_up {
            self.calls.hold(id, crate::services::sync::PULL.id, self.now_ms);
        }
        match self.link.handle_timeout(self.now_ms, self.is_quiet()) {
            Due::Nothing => {}
            Due::Connect => self.connect(now_ms),
            Due::ConnectTimeout => self.end(CloseReason::ConnectFailed, String::new(), After::Return(None)),
            Due::WelcomeTimeout => self.end(CloseReason::WelcomeTimeout, String::new(), After::Return(None)),
            Due::BeatLost => self.end(CloseReason::BeatLost, String::new(), After::Return(None)),
            Due::Drained => self.end_drained(),
        }
    }

    /// The next event. Taking a page counts as having applied it.
    pub fn poll_event(&mut self) -> Option<PhoneEvent> {
        let event = self.events.pop()?;
        self.sync.note_taken(&event);
        Some(event)
    }

    /// Appends what is to be sent now; `false` when that is nothing.
    pub fn poll_transmit(&mut self, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        match &mut self.link.state {
            State::Greeting { hello_due, .. } if *hello_due => {
                *hello_due = false;
                self.put_hello(out);
            }
            State::Up(_) => self.put_frames(out),
            _ => {}
        }
        out.len() > start
    }

    /// When [`Phone::handle_timeout`] is due; none: not before something else happens.
    pub fn poll_timeout(&self) -> Option<u64> {
        let may_send = matches!(&self.link.state, State::Up(up) if !up.is_draining());
        let due = self
            .link
            .next_due_ms()
            .min(self.calls.next_due_ms(may_send, self.now_ms))
            .min(self.sync.next_due_ms(may_send, self.now_ms));
        (due != NEVER).then_some(due)
    }

    /// Whether WELCOME has come and the connection stands.
    pub fn is_up(&self) -> bool {
        matches!(self.link.state, State::Up(_))
    }

    /// What the owner has taken, thus applied.
    pub fn cursor(&self) -> Cursor {
        self.sync.applied()
    }

    /// Connections made, for the owner to store beside the cursor.
    pub fn counter(&self) -> u32 {
        self.link.counter
    }

    /// The user that the server named; 0 before, and in a session without a token.
    pub fn user(&self) -> u64 {
        self.user
    }

    pub fn device(&self) -> u64 {
        self.device
    }

    pub fn stats(&self) -> &PhoneStats {
        &self.stats
    }

    /// No call waits and none is out.
    pub fn is_idle(&self) -> bool {
        self.calls.is_empty() && !self.sync.is_out()
    }

    /// The server's clock, once it is known.
    pub fn server_time_ms(&self, now_ms: u64) -> Option<u64> {
        self.server_offset_ms.map(|offset| now_ms.saturating_add_signed(offset))
    }

    /// A new id for an upload; none before the first WELCOME, since it carries the server's time.
    pub fn upload_id(&mut self, now_ms: u64) -> Option<UploadId> {
        let created_ms = self.server_time_ms(now_ms)?;
        let mut random = [0; 10];
        random[..8].copy_from_slice(&self.random.next().to_le_bytes());
        random[8..].copy_from_slice(&self.random.next().to_le_bytes()[..2]);
        Some(UploadId::new(created_ms, random))
    }

    /// Time never falls here, whatever the owner says.
    fn advance(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
    }

    /// Nothing is out that will be answered.
    fn is_quiet(&self) -> bool {
        self.calls.in_flight() == 0 && !self.sync.is_out()
    }

    fn put_hello(&mut self, out: &mut Vec<u8>) {
        let applied = self.sync.applied_for_hello();
        // One of the two: a ticket spares the server a signature, and the network the token's bytes.
        if self.ticket_until_ms <= self.now_ms {
            self.ticket = Box::default();
        }
        let token = if self.ticket.is_empty() { &self.token[..] } else { &[] };
        let hello = pb::Hello {
            version_major: frame::VERSION_MAJOR,
            version_minor: frame::VERSION_MINOR,
            token: Bytes::copy_from_slice(token),
            device: self.device,
            counter: self.link.counter,
            applied: Some(pb::Cursor { log_epoch: applied.log_epoch, number: applied.number }),
            network: Some(pb::Network {
                kind: self.config.network_kind,
                operator: self.config.network_operator,
            }),
            last_end: self.link.last_end as i32,
            last_idle_ms: self.link.last_idle_ms,
            ticket: Bytes::copy_from_slice(&self.ticket),
            client: self.config.client.clone(),
        };
        frame::put_message(out, kind::HELLO, &hello);
    }

    /// Calls first: what they carry need not be said by a beat, and they count as one. What the server gave with the
    /// answers of writes waits for the next frame that leaves anyway.
    fn put_frames(&mut self, out: &mut Vec<u8>) {
        let now_ms = self.now_ms;
        let in_flight = self.calls.in_flight() + self.calls.held(now_ms) + usize::from(self.sync.is_out());
        let Some(up) = self.link.up() else { return };
        let start = out.len();
        let untold = self.sync.untold();
        let mut applied = untold;
        if !up.is_draining() {
            let mut places = up.max_in_flight().saturating_sub(in_flight);
            if places > 0 && self.sync.put(out, || self.calls.next_id(), &mut applied, now_ms, &self.config) {
                self.stats.pulls += 1;
                places -= 1;
            }
            self.calls.put(out, places, &mut applied, now_ms);
        }
        let called = out.len() > start;
        if let Some(cursor) = applied.filter(|_| self.sync.is_awaited()) {
            Beat { applied: Some(cursor) }.put(out);
            applied = None;
        }
        if up.take_beat(now_ms, out.len() > start, &self.config) {
            // Before the beat, which asks the server whether something is untold.
            if let Some(cursor) = applied.take() {
                Beat { applied: Some(cursor) }.put(out);
            }
            out.extend_from_slice(&Beat::EMPTY);
            self.stats.beats += 1;
        }
        if untold.is_some() && applied.is_none() {
            self.sync.note_told();
        }
        if out.len() > start {
            up.note_sent(now_ms, called, &self.config);
        }
    }

    fn end_drained(&mut self) {
        let after_ms = self.link.up().and_then(|up| up.reconnect_after_ms());
        self.end(CloseReason::GoAway, String::new(), After::Return(after_ms));
    }

    /// Ends a connection whose socket the owner still holds.
    fn end(&mut self, reason: CloseReason, text: String, after: After) {
        self.events.push(PhoneEvent::Disconnect);
        self.end_silently(reason, text, after);
    }

    fn end_silently(&mut self, reason: CloseReason, text: String, after: After) {
        let how = match reason {
            CloseReason::Server(_) | CloseReason::GoAway | CloseReason::Eof => LastEnd::ByServer,
            CloseReason::BeatLost => LastEnd::BeatLost,
            CloseReason::Reset | CloseReason::ConnectFailed => LastEnd::Reset,
            _ => LastEnd::ByPhone,
        };
        self.link.note_end(how, self.now_ms);
        self.held = Box::default();
        self.sync.handle_disconnected();
        self.calls.handle_disconnected(&mut self.stats, &mut self.events);
        let welcomed = self.is_up();
        let reconnect_at_ms = match after {
            After::Return(asked_ms) => {
                Some(self.link.wait(asked_ms, self.now_ms, &self.config, &mut self.random))
            }
            After::Stay => {
                self.link.state = State::Ended;
                self.calls.fail_all(Code::Unavailable, "the server refuses this phone", &mut self.events);
                None
            }
        };
        self.events.push(PhoneEvent::Closed { reason, text, welcomed, reconnect_at_ms });
    }
}

/// What follows the end of a connection.
#[derive(Debug, Clone, Copy)]
enum After {
    /// Another one: when the server said, or else after the back-off.
    Return(Option<u64>),
    /// Nothing, until the owner connects.
    Stay,
}

/// Events that wait for the owner; an empty queue holds no memory.
#[derive(Debug, Default)]
struct Events(VecDeque<PhoneEvent>);

impl Events {
    fn push(&mut self, event: PhoneEvent) {
        self.0.push_back(event);
    }

    fn pop(&mut self) -> Option<PhoneEvent> {
        let event = self.0.pop_front()?;
        if self.0.is_empty() {
            self.0 = VecDeque::new();
        }
        Some(event)
    }
}
