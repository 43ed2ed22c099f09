//! One client connection's life: hello, heartbeat, notify, calls. Decides, moves nothing.
//!
//! A [`Session`] is a record of 96 bytes and a machine over it: it takes frames, news, replies and time, and
//! tells its [`Owner`] what to do. It knows no ring, no socket and no clock.

mod calls;
mod hello;
mod news;
#[cfg(test)]
mod tests;

use proto_wire::close::Reason;
use proto_wire::frame::{self, Beat, Call, Frame, FrameError};
use proto_wire::names::Cursor;
use proto_wire::rpc::method::Method;
use proto_wire::status::Code;
use proto_wire_token::{Claims, TICKET_BYTES, TokenError};

use crate::config::Limits;
use crate::{budget, limits};

pub use calls::Answer;
pub use news::News;

/// Where a connection stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum State {
    /// HELLO has not come yet.
    #[default]
    Hello,
    /// A session without a token: it may sign up and log in.
    Anonymous,
    Live,
    /// Its CLOSE frame is on the way out.
    Closing,
}

/// Bits of `Session::flags`.
mod flag {
    /// A sync of this phone is at the backend.
    pub const SYNC_IN_FLIGHT: u8 = 1;
    /// News waits for the radio or for the window's end.
    pub const SOON: u8 = 2;
    /// The connection was announced, so its end must be.
    pub const ANNOUNCED: u8 = 4;
}

/// The record. Numbers are under `log_epoch`.
#[derive(Debug, Default)]
pub struct Session {
    pub user: u64,
    pub device: u64,
    /// The newest number that the backend told of.
    newest: u64,
    /// The newest number that the phone was notified of.
    told: u64,
    /// What the phone itself says it has applied.
    applied: u64,
    /// The end of what a reply gave, until the phone's own word says more, or nothing new at a beat.
    given: u64,
    log_epoch: u32,
    /// The device's count of its connections.
    counter: u32,
    /// Told apart from earlier holders of the slot: 24 bits.
    pub generation: u32,
    /// When the last frame came, in ms since the shard began; wraps after 49 days and is only subtracted.
    heard_ms: u32,
    /// The wheel's links; the shard's.
    pub timer: crate::shard::wheel::Links,
    /// Where the shard keeps what an idle connection does not need; `NONE` when idle.
    pub extra: u32,
    /// What the phone was told, in seconds.
    interval_s: u16,
    state: State,
    flags: u8,
    calls: u8,
    strikes: u8,
    /// The shard's bits: sending, receiving, armed.
    pub io: u8,
    /// Arrivals that followed each other closely; the shard's.
    pub quick: u8,
    /// For a network key, the learned interval and rate limits.
    _reserve: [u8; budget::SESSION_RESERVE_BYTES],
}

/// Why a connection must be closed, for the peer, the log and the counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub reason: Reason,
    pub text: String,
}

impl Refusal {
    pub fn new(reason: Reason, text: impl Into<String>) -> Self {
        Self { reason, text: text.into() }
    }
}

impl From<FrameError> for Refusal {
    fn from(error: FrameError) -> Self {
        let reason = match error {
            FrameError::TooLarge { .. } => Reason::FrameTooLarge,
            _ => Reason::BadFrame,
        };
        Self::new(reason, error.to_string())
    }
}

/// What a session needs of its shard.
pub trait Owner {
    fn limits(&self) -> &Limits;
    fn unix_ms(&self) -> u64;
    fn verify(&self, token: &[u8]) -> Result<Claims, TokenError>;
    /// What a resume ticket says.
    fn resume(&self, ticket: &[u8]) -> Result<Claims, TokenError>;
    /// A ticket for a device's next HELLO, and for how many seconds it is good.
    fn ticket(&self, claims: &Claims, device: u64) -> Option<([u8; TICKET_BYTES], u64)>;
    /// The bytes that go to this peer at the end of the turn.
    fn out(&mut self) -> &mut Vec<u8>;
    /// An empty beat goes to this peer.
    fn beat(&mut self);
    /// Forwards a call. It comes back as `handle_reply`, unless it is refused here.
    fn call(&mut self, session: &Session, call: &Call<'_>, method: &'static Method) -> Result<(), Code>;
    /// The session is there: announce it.
    fn online(&mut self, session: &Session);
    /// The phone has applied more.
    fn applied(&mut self, session: &mut Session);
    /// The timer is wanted earlier than it is set.
    fn wake_at(&mut self, now_ms: u64);
    fn counted(&mut self, event: Event);
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Hello,
    Anonymous,
    /// A ticket stood for the token.
    Resumed,
    Beat,
    Call,
    CallRefused(Code),
    Notified,
    NotifiedInline,
    NotifiedAgain,
    Coalesced,
    Skipped,
    Notice,
}

/// What is wanted when a timer ran.
#[derive(Debug, PartialEq, Eq)]
pub enum Timer {
    /// Run again then.
    At(u64),
    Close(Refusal),
}

impl Session {
    /// A connection that was just accepted.
    pub fn new(generation: u32, now_ms: u64) -> Self {
        Self { generation, heard_ms: now_ms as u32, extra: u32::MAX, ..Self::default() }
    }

    pub fn state(&self) -> State {
        self.state
    }

    pub fn counter(&self) -> u32 {
        self.counter
    }

    /// Since the last frame.
    pub fn silent_ms(&self, now_ms: u64) -> u32 {
        (now_ms as u32).wrapping_sub(self.heard_ms)
    }

    pub fn applied_cursor(&self) -> Cursor {
        Cursor::new(self.log_epoch, self.applied)
    }

    /// Whether its end must be told.
    pub fn is_announced(&self) -> bool {
        self.flags & flag::ANNOUNCED != 0
    }

    /// From here on only the shard's own work is left: no frame is looked at.
    pub fn set_closing(&mut self) {
        self.state = State::Closing;
    }

    /// A whole frame came.
    pub fn handle_frame(
        &mut self,
        frame: Frame<'_>,
        now_ms: u64,
        owner: &mut impl Owner,
    ) -> Result<(), Refusal> {
        self.heard_ms = now_ms as u32;
        match (self.state, frame.kind) {
            (State::Closing, _) => Ok(()),
            (State::Hello, frame::kind::HELLO) => self.handle_hello(frame.body, owner),
            (State::Hello, kind) if frame::kind::is_skippable(kind) => {
                Err(out_of_place(kind, "came before HELLO"))
            }
            (State::Hello, kind) => Err(out_of_place(kind, "came before HELLO")),
            (_, frame::kind::BEAT) => self.handle_beat(Beat::parse(frame.body)?, owner),
            (_, frame::kind::CALL) => self.handle_call(&Call::parse(frame.body)?, owner),
            (_, frame::kind::CLOSE) => Err(Refusal::new(Reason::PeerClosed, "the phone said CLOSE")),
            (_, kind) if frame::kind::is_skippable(kind) => {
                owner.counted(Event::Skipped);
                Ok(())
            }
            (_, kind) => Err(out_of_place(kind, "may not come here")),
        }?;
        self.flush_soon(owner);
        Ok(())
    }

    /// Its time on the wheel is up.
    pub fn handle_timer(&mut self, now_ms: u64, owner: &mut impl Owner) -> Timer {
        let silent_ms = u64::from((now_ms as u32).wrapping_sub(self.heard_ms));
        let limits = owner.limits();
        let (allowed_ms, reason, text) = match self.state {
            State::Hello => (limits.hello_timeout_ms, Reason::HelloTimeout, "HELLO did not come in time"),
            State::Anonymous => (
                limits.anonymous_ttl_ms,
                Reason::AnonymousTimeout,
                "a session without a token has had its time",
            ),
            State::Live => (limits.idle_ms(self.interval_s), Reason::Idle, "no heartbeat came in time"),
            State::Closing => (limits::CLOSING_MS, Reason::Internal, "the close did not end in time"),
        };
        if silent_ms >= allowed_ms {
            return Timer::Close(Refusal::new(reason, text));
        }
        if self.flags & flag::SOON != 0 {
            self.flush_soon(owner);
        }
        Timer::At(now_ms + allowed_ms - silent_ms)
    }

    fn handle_beat(&mut self, beat: Beat, owner: &mut impl Owner) -> Result<(), Refusal> {
        owner.counted(Event::Beat);
        let advanced = beat.applied.is_some_and(|applied| self.take_applied(applied));
        if advanced {
            owner.applied(self);
        }
        // A beat that says what was applied is an answer to a notify; the answer to it is the next notify.
        if beat.applied.is_none() {
            owner.beat();
        }
        self.notify_at_beat(advanced, owner);
        Ok(())
    }
}

fn out_of_place(kind: u8, why: &str) -> Refusal {
    Refusal::new(Reason::OutOfPlace, format!("a frame of type {kind:#04x} {why}"))
}
