//! The sessions of a shard without its sockets. What a step leaves for a socket is given back, and whoever owns the
//! sockets does it: the ring in a shard, virtual time in the simulator.

use bytes::Bytes;
use proto_wire::close::Reason;
use proto_wire::frame::{self, next_frame};
use proto_wire::pb;

use super::io;
use super::sessions::{Book, Desk, Down, Ended};
use super::slab::Slab;
use super::wheel::Wheel;
use crate::limits;
use crate::session::{Owner, Refusal, Session, State, Timer};
use crate::upstream::Link;

/// Sessions by slot, their timers, and what they act on.
pub struct Table {
    pub slab: Slab,
    pub wheel: Wheel,
    pub desk: Desk,
    /// Sessions that the logic tier wants closed.
    ended: Vec<Ended>,
    /// EVENT frames for all phones of the gateway.
    broadcasts: Vec<Bytes>,
}

/// What a connection did that it may not, and the first bytes of what came last.
pub type Refused = (Refusal, Vec<u8>);

/// What became of a timer.
#[derive(Debug)]
pub enum Ran {
    /// No timer is due.
    Nothing,
    /// One ran.
    Done,
    /// One ran out: the connection must end.
    Close { slot: u32, generation: u32, refusal: Refusal },
}

/// How a connection ends.
#[derive(Debug, PartialEq, Eq)]
pub enum Ending {
    /// It had gone before.
    Gone,
    /// There is nothing more to say: drop it now.
    Drop,
    /// Its CLOSE frame waits to be sent; then it is to be dropped.
    Says,
}

/// What a phone is to be sent now.
#[derive(Debug)]
pub enum Output {
    Nothing,
    /// More waits than the phone may have unread.
    TooMuch,
    /// An empty beat alone, which costs no buffer.
    Beat,
    Bytes(Vec<u8>),
}

impl Table {
    pub fn new(desk: Desk) -> Self {
        Self { slab: Slab::default(), wheel: Wheel::new(0), desk, ended: Vec::new(), broadcasts: Vec::new() }
    }

    /// A connection came into a slot. Gives its generation; HELLO must come within its time.
    pub fn accept(&mut self, slot: u32) -> u32 {
        let now_ms = self.desk.now_ms;
        let generation = self.slab.next_generation();
        self.slab.insert(slot, Session::new(generation, now_ms));
        let counters = &self.desk.counters;
        counters.accepted.add(1);
        counters.connections.set(self.slab.len() as u64);
        let hello_ms = self.desk.limits.hello_timeout_ms;
        self.wheel.set(slot, now_ms + hello_ms, &mut self.slab);
        generation
    }

    /// Runs a session's step. `None` when the slot is another session's by now.
    pub fn with<R>(
        &mut self,
        slot: u32,
        generation: u32,
        step: impl FnOnce(&mut Session, &mut Desk) -> R,
    ) -> Option<R> {
        self.desk.with(&mut self.slab, &mut self.wheel, slot, generation, step)
    }

    /// Bytes came from a phone: whole frames are handled, the rest is held.
    pub fn feed(&mut self, slot: u32, generation: u32, bytes: &[u8]) -> Result<(), Refused> {
        self.desk.counters.received_bytes.add(bytes.len() as u64);
        self.with(slot, generation, |session, desk| feed(session, desk, bytes)).unwrap_or(Ok(()))
    }

    /// Runs one timer that is due. The caller bounds its loop.
    pub fn run_timer(&mut self) -> Ran {
        let now_ms = self.desk.now_ms;
        let Some(slot) = self.wheel.pop(now_ms, &mut self.slab) else { return Ran::Nothing };
        let Some(session) = self.slab.get_mut(slot) else { return Ran::Done };
        let generation = session.generation;
        match self.with(slot, generation, |session, desk| session.handle_timer(now_ms, desk)) {
            Some(Timer::At(at_ms)) => self.wheel.set(slot, at_ms, &mut self.slab),
            Some(Timer::Close(refusal)) => return Ran::Close { slot, generation, refusal },
            None => {}
        }
        Ran::Done
    }

    /// Ends a connection. Its peer gets a CLOSE frame, unless it is the peer who left.
    pub fn end(&mut self, slot: u32, generation: u32, reason: Reason, text: &str) -> Ending {
        // A peer that does not read will not read this either.
        let is_silent = matches!(reason, Reason::PeerClosed | Reason::Reset | Reason::SlowReader);
        let close = (!is_silent).then(|| pb::Close {
            code: reason as u32,
            text: text.to_owned(),
            reconnect_after_ms: 0,
            to: String::new(),
        });
        self.end_with(slot, generation, reason, close)
    }

    /// Ends a connection with these words, or without.
    pub fn end_with(
        &mut self,
        slot: u32,
        generation: u32,
        reason: Reason,
        close: Option<pb::Close>,
    ) -> Ending {
        let Some(session) = self.slab.current(slot, generation) else { return Ending::Gone };
        if session.state() == State::Closing {
            // The peer left, or the frame could not be sent: there is nothing to wait for.
            return Ending::Drop;
        }
        self.desk.counters.close(reason);
        match session.state() {
            State::Live => self.desk.counters.live.add(u64::MAX),
            State::Anonymous => self.desk.counters.anonymous.add(u64::MAX),
            State::Hello | State::Closing => {}
        }
        self.desk.offline(slot, session);
        session.set_closing();
        let Some(close) = close else { return Ending::Drop };
        self.with(slot, generation, |_, desk| {
            frame::put_message(desk.out(), frame::kind::CLOSE, &close);
        });
        self.wheel.set(slot, self.desk.now_ms + limits::CLOSING_MS, &mut self.slab);
        Ending::Says
    }

    /// Frees the session and what it holds. Gives the shard's own bits of it, for what is still under way.
    pub fn remove(&mut self, slot: u32, generation: u32) -> Option<u8> {
        self.slab.current(slot, generation)?;
        self.wheel.clear(slot, &mut self.slab);
        let mut session = self.slab.remove(slot)?;
        let io = session.io;
        if let Some(extra) = self.desk.extras.get_mut(session.extra as usize) {
            self.desk.counters.queued_bytes.add((extra.out.len() as u64).wrapping_neg());
            self.desk.counters.partial_bytes.add((extra.partial.len() as u64).wrapping_neg());
            *extra = Default::default();
            self.desk.release_extra(&mut session);
        }
        self.desk.counters.connections.set(self.slab.len() as u64);
        Some(io)
    }

    /// The sessions that the turn left something for, each once. The list goes back with `keep_dirty`.
    pub fn take_dirty(&mut self) -> Vec<(u32, u32)> {
        std::mem::take(&mut self.desk.dirty)
    }

    /// One of that list is looked at now: what it is left from here on puts it into the list again.
    pub fn clear_dirty(&mut self, slot: u32, generation: u32) -> bool {
        let session = self.slab.current(slot, generation);
        session.map(|session| session.io &= !io::DIRTY).is_some()
    }

    /// Keeps the list's memory for the next turn, unless a storm made it large.
    pub fn keep_dirty(&mut self, mut dirty: Vec<(u32, u32)>) {
        dirty.clear();
        if self.desk.dirty.is_empty() && dirty.capacity() <= 4096 {
            self.desk.dirty = dirty;
        }
    }

    /// Takes what a phone is to be sent, which is in flight from here on; nothing while an earlier send is.
    pub fn take_output(&mut self, slot: u32, generation: u32) -> Output {
        let Some(session) = self.slab.current(slot, generation) else { return Output::Nothing };
        if session.io & io::SENDING != 0 {
            // Whoever is told goodbye has had its chance to read.
            let too_much = self.desk.waiting_bytes(session) > self.desk.limits.out_queue_bytes;
            return if too_much && session.state() != State::Closing {
                Output::TooMuch
            } else {
                Output::Nothing
            };
        }
        let beat = session.io & io::BEAT != 0;
        session.io &= !io::BEAT;
        let mut out = match self.desk.extras.get_mut(session.extra as usize) {
            Some(extra) => std::mem::take(&mut extra.out),
            None => Vec::new(),
        };
        self.desk.counters.queued_bytes.add((out.len() as u64).wrapping_neg());
        self.desk.release_extra(session);
        if out.is_empty() && !beat {
            return Output::Nothing;
        }
        session.io |= io::SENDING;
        if out.is_empty() {
            return Output::Beat;
        }
        if beat {
            out.extend_from_slice(super::sessions::BEAT_FRAME);
        }
        Output::Bytes(out)
    }

    /// Bytes came from the backend of a link. An error is its misbehaviour: the connection must be closed.
    pub fn feed_link(&mut self, at: usize, bytes: &[u8]) -> Result<(), String> {
        self.with_link(at, |link, now_ms, down| link.handle_bytes(bytes, now_ms, down))
    }

    /// Runs a step of a link that may bring something down.
    pub fn with_link<R>(&mut self, at: usize, step: impl FnOnce(&mut Link, u64, &mut Down<'_>) -> R) -> R {
        let Self { desk, slab, wheel, ended, broadcasts } = self;
        let mut link = desk.lend_link(at);
        let now_ms = desk.now_ms;
        let result = step(&mut link, now_ms, &mut Down { desk, slab, wheel, ended, broadcasts });
        self.desk.take_back(at, link);
        result
    }

    /// Runs a step of a link that looks sessions up.
    pub fn with_book(&mut self, at: usize, step: impl FnOnce(&mut Link, u64, &mut Book<'_>)) {
        let mut link = self.desk.lend_link(at);
        let links = self.desk.links.len();
        step(&mut link, self.desk.now_ms, &mut Book { slab: &mut self.slab, link: at, links });
        self.desk.take_back(at, link);
    }

    /// Sessions to be closed because a newer connection of their device is there, or because it was logged out.
    pub fn take_ended(&mut self) -> Vec<Ended> {
        std::mem::take(&mut self.ended)
    }

    /// Notices for all phones that came down in this turn.
    pub fn take_broadcasts(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.broadcasts)
    }

    /// A notice for whoever is in a slot. Gives the generation when the shared frame may be sent as it is, which is in
    /// flight from here on; who has something on the way gets a copy behind that.
    pub fn announce(&mut self, slot: u32, frame: &Bytes) -> Option<u32> {
        let session = self.slab.get_mut(slot).filter(|session| session.state() == State::Live)?;
        let generation = session.generation;
        self.desk.counters.broadcast_phones.add(1);
        let is_idle = session.io & (io::SENDING | io::DIRTY) == 0 && self.desk.waiting_bytes(session) == 0;
        if is_idle {
            session.io |= io::SENDING;
            return Some(generation);
        }
        self.with(slot, generation, |_, desk| desk.out().extend_from_slice(frame));
        None
    }
}

fn feed(session: &mut Session, desk: &mut Desk, bytes: &[u8]) -> Result<(), Refused> {
    let (limit, now_ms) = (desk.limits.max_body_bytes, desk.now_ms);
    let mut held = match desk.extras.get_mut(session.extra as usize) {
        Some(extra) => std::mem::take(&mut extra.partial),
        None => Vec::new(),
    };
    desk.counters.partial_bytes.add((held.len() as u64).wrapping_neg());
    if !held.is_empty() {
        held.extend_from_slice(bytes);
    }
    let mut input = if held.is_empty() { bytes } else { &held[..] };
    let first = input.get(..input.len().min(limits::FIRST_BYTES)).unwrap_or_default();
    let result = loop {
        match next_frame(&mut input, limit) {
            Ok(Some(frame)) => {
                if let Err(refusal) = session.handle_frame(frame, now_ms, desk) {
                    break Err((refusal, first.to_vec()));
                }
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err((Refusal::from(error), first.to_vec())),
        }
    };
    if result.is_ok() && !input.is_empty() {
        desk.counters.partial_bytes.add(input.len() as u64);
        let rest = input.to_vec();
        desk.extra_of(session).partial = rest;
    }
    desk.release_extra(session);
    result
}
