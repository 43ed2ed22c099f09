//! What a fleet drives: a client of some protocol as a machine without a socket and without a clock.

use proto_wire::phone::{CloseReason, Phone, PhoneEvent};

pub use proto_wire::phone::Ended;

/// A client's side of one connection. The fleet feeds `handle_*`, takes every event, sends what
/// [`Machine::poll_transmit`] appends, and calls [`Machine::handle_timeout`] when it is due. Times are milliseconds that
/// never fall.
pub trait Machine: 'static {
    type Event;

    /// Asks for a connection: an event whose signal is [`Signal::Connect`] follows.
    fn connect(&mut self, now_ms: u64);
    /// What lets it in, given before its first connect.
    fn set_token(&mut self, _token: Box<[u8]>) {}
    fn handle_connected(&mut self, now_ms: u64);
    fn handle_bytes(&mut self, bytes: &[u8], now_ms: u64);
    /// The socket ended, other than by [`Signal::Disconnect`].
    fn handle_closed(&mut self, now_ms: u64, ended: Ended);
    fn handle_timeout(&mut self, now_ms: u64);
    /// When [`Machine::handle_timeout`] is due.
    fn poll_timeout(&self) -> Option<u64>;
    /// Appends what is to be sent now; `false` when that is nothing.
    fn poll_transmit(&mut self, out: &mut Vec<u8>) -> bool;
    fn poll_event(&mut self) -> Option<Self::Event>;

    /// What an event means to the fleet.
    fn signal(event: &Self::Event) -> Signal;
    /// Why a connection ended, of an event whose signal is [`Signal::Closed`].
    fn why(event: &Self::Event) -> String;
    /// Heartbeats that were answered since the machine was made.
    fn beats_answered(&self) -> u32;
}

/// What the fleet reads of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// It wants a connection.
    Connect,
    /// It wants its connection closed.
    Disconnect,
    /// It was let in.
    Up,
    /// Its connection, or its attempt at one, is over.
    Closed { was_up: bool, by_owner: bool },
    /// The app's business only.
    Other,
}

impl Machine for Phone {
    type Event = PhoneEvent;

    #[inline]
    fn connect(&mut self, now_ms: u64) {
        Phone::connect(self, now_ms);
    }

    #[inline]
    fn set_token(&mut self, token: Box<[u8]>) {
        Phone::set_token(self, token);
    }

    #[inline]
    fn handle_connected(&mut self, now_ms: u64) {
        Phone::handle_connected(self, now_ms);
    }

    #[inline]
    fn handle_bytes(&mut self, bytes: &[u8], now_ms: u64) {
        Phone::handle_bytes(self, bytes, now_ms);
    }

    #[inline]
    fn handle_closed(&mut self, now_ms: u64, ended: Ended) {
        Phone::handle_closed(self, now_ms, ended);
    }

    #[inline]
    fn handle_timeout(&mut self, now_ms: u64) {
        Phone::handle_timeout(self, now_ms);
    }

    #[inline]
    fn poll_timeout(&self) -> Option<u64> {
        Phone::poll_timeout(self)
    }

    #[inline]
    fn poll_transmit(&mut self, out: &mut Vec<u8>) -> bool {
        Phone::poll_transmit(self, out)
    }

    #[inline]
    fn poll_event(&mut self) -> Option<PhoneEvent> {
        Phone::poll_event(self)
    }

    #[inline]
    fn signal(event: &PhoneEvent) -> Signal {
        match event {
            PhoneEvent::Connect { .. } => Signal::Connect,
            PhoneEvent::Disconnect => Signal::Disconnect,
            PhoneEvent::Welcomed { .. } => Signal::Up,
            PhoneEvent::Closed { reason, welcomed, .. } => {
                Signal::Closed { was_up: *welcomed, by_owner: *reason == CloseReason::ByOwner }
            }
            _ => Signal::Other,
        }
    }

    fn why(event: &PhoneEvent) -> String {
        match event {
            PhoneEvent::Closed { reason, text, .. } => format!("{reason:?} {text}"),
            _ => String::new(),
        }
    }

    #[inline]
    fn beats_answered(&self) -> u32 {
        self.stats().beats_answered
    }
}
