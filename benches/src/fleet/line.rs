//! A phone and its socket.

use gateway_ring::InFlight;
use proto_wire::phone::Phone;

use super::timers::NEVER;

/// The state of a line's slot in the ring.
#[derive(Debug, Clone, Copy)]
pub(super) enum Socket {
    None,
    /// It waits for its turn to connect.
    Queued,
    Connecting(InFlight),
    Open,
    /// Its close is under way.
    Closing,
}

/// One phone of a thread. Its slot in the ring is its index.
#[derive(Debug)]
pub(super) struct Line<M> {
    pub phone: M,
    pub socket: Socket,
    /// Told apart from earlier sockets in the slot.
    pub generation: u32,
    /// When the timer calls.
    pub armed_ms: u64,
    pub sending: Option<InFlight>,
    /// A receive is in flight, or armed.
    pub receiving: bool,
    /// The poll fired while a receive was in flight.
    pub receive_again: bool,
    /// Counted among the connects that are open.
    pub pacing: bool,
    /// The machine asked for a connection while the old one was closing.
    pub reconnect: bool,
    pub was_welcomed: bool,
    /// Stands on the list of those to be flushed.
    pub dirty: bool,
    pub has_token: bool,
    /// Of the machine's count, already metered.
    pub beats_answered: u32,
}

impl<M> Line<M> {
    pub fn new(phone: M) -> Self {
        Self {
            phone,
            socket: Socket::None,
            generation: 0,
            armed_ms: NEVER,
            sending: None,
            receiving: false,
            receive_again: false,
            pacing: false,
            reconnect: false,
            was_welcomed: false,
            dirty: false,
            has_token: false,
            beats_answered: 0,
        }
    }
}

/// The phones of a thread, for its [`App`](super::App): whoever is touched is flushed in this turn.
pub struct Phones<'a, M = Phone> {
    pub(super) lines: &'a mut [Line<M>],
    pub(super) dirty: &'a mut Vec<u32>,
    pub(super) first: u32,
}

impl<M> Phones<'_, M> {
    /// The machine of a phone, by its number in the run.
    pub fn phone(&mut self, phone: u32) -> &mut M {
        let at = phone - self.first;
        let line = &mut self.lines[at as usize];
        if !line.dirty {
            line.dirty = true;
            self.dirty.push(at);
        }
        &mut line.phone
    }
}
