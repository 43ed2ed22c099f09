//! The callee's side: which datagram begins a call, and which only repeats one.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::Hash;
use std::ops::Range;

use bytes::Bytes;

use super::{Held, MAX_DATAGRAM_BYTES, Ticket, whole};
use crate::rpc::callee::Outcome;
use crate::rpc::header::{Header, HeaderError, Kind, flag};
use crate::status::Code;

/// The bounds of one socket.
#[derive(Debug, Clone)]
pub struct DatagramCalleeConfig {
    /// Handlers at once.
    pub max_running: usize,
    /// Calls that are remembered, with their answers, so that a datagram which comes twice runs nothing twice.
    pub max_known: usize,
    /// Bytes of those answers.
    pub max_known_bytes: usize,
    /// The longest a call may take whatever its caller says, and what it gets when its caller says nothing.
    pub max_deadline_ms: u32,
    /// A call is remembered for so long beyond its deadline: a network may deliver a copy late.
    pub linger_ms: u64,
}

impl Default for DatagramCalleeConfig {
    fn default() -> Self {
        Self {
            max_running: 4096,
            max_known: 65_536,
            max_known_bytes: 32 << 20,
            max_deadline_ms: 60_000,
            linger_ms: 2_000,
        }
    }
}

/// A call that is to be run and then given to [`DatagramCallee::answer`], once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Running<P> {
    pub peer: P,
    pub call_id: u64,
    pub deadline_at_ms: u64,
    pub one_way: bool,
    is_known: bool,
}

/// What a datagram asks of the owner.
#[derive(Debug, PartialEq, Eq)]
pub enum Came<P> {
    /// Run it; the body is this range of the datagram.
    Call(Running<P>, Header, Range<usize>),
    /// Send this back.
    Answer(Bytes),
    /// The caller of this call, which runs, has given it up.
    GivenUp(u64),
    /// It was run or is running, or is nothing to answer.
    Nothing,
}

#[derive(Debug)]
enum Known {
    Running,
    /// Its caller does not wait any more.
    GivenUp,
    /// Nothing is kept of a one-way call's answer, nor of one for which there was no room.
    Answered(Option<Bytes>),
}

/// The machine. `P` names a peer: its address and port.
#[derive(Debug)]
pub struct DatagramCallee<P> {
    config: DatagramCalleeConfig,
    known: HashMap<(P, u64), Known>,
    /// When each is forgotten.
    until: BinaryHeap<Reverse<(u64, P, u64)>>,
    known_bytes: usize,
    running: usize,
    repeated: u64,
}

impl<P: Copy + Eq + Hash + Ord> DatagramCallee<P> {
    pub fn new(config: DatagramCalleeConfig) -> Self {
        Self {
            config,
            known: HashMap::new(),
            until: BinaryHeap::new(),
            known_bytes: 0,
            running: 0,
            repeated: 0,
        }
    }

    /// A datagram came. An error: it is none of ours, and nothing is answered to who sent it.
    pub fn handle_datagram(
        &mut self,
        peer: P,
        datagram: &[u8],
        now_ms: u64,
    ) -> Result<Came<P>, Option<HeaderError>> {
        let (header, body) = whole(datagram).map_err(Some)?.ok_or(None)?;
        self.forget(now_ms);
        let key = (peer, header.call_id);
        match header.kind {
            Kind::Call => {}
            Kind::Cancel => {
                return Ok(match self.known.get_mut(&key) {
                    Some(known @ Known::Running) => {
                        *known = Known::GivenUp;
                        Came::GivenUp(header.call_id)
                    }
                    _ => Came::Nothing,
                });
            }
            _ => return Err(None),
        }
        if let Some(known) = self.known.get(&key) {
            self.repeated += 1;
            return Ok(match known {
                Known::Answered(Some(datagram)) => Came::Answer(datagram.clone()),
                _ => Came::Nothing,
            });
        }
        let one_way = header.flags & flag::ONE_WAY != 0;
        let may_run_twice = header.flags & flag::IDEMPOTENT != 0;
        let is_known = self.known.len() < self.config.max_known;
        if self.running >= self.config.max_running || (!is_known && !may_run_twice) {
            let text = b"too many calls over UDP at once";
            let refusal = put(header.call_id, 0, &Outcome { code: Code::Overloaded, ..Outcome::OK }, text);
            return Ok(if one_way { Came::Nothing } else { Came::Answer(refusal) });
        }
        let max_ms = self.config.max_deadline_ms;
        let deadline_ms = if header.deadline_ms == 0 { max_ms } else { header.deadline_ms.min(max_ms) };
        let deadline_at_ms = now_ms + u64::from(deadline_ms);
        if is_known {
            self.known.insert(key, Known::Running);
            self.until.push(Reverse((deadline_at_ms + self.config.linger_ms, peer, header.call_id)));
        }
        self.running += 1;
        let running = Running { peer, call_id: header.call_id, deadline_at_ms, one_way, is_known };
        Ok(Came::Call(running, header, body))
    }

    /// A call has ended. Gives the datagram that answers it, if anybody waits for one. A reply that does not fit is held
    /// under the ticket that `ticket` makes.
    pub fn answer(
        &mut self,
        call: &Running<P>,
        outcome: &Outcome,
        body: &Bytes,
        held: &mut Held,
        ticket: impl FnOnce() -> Ticket,
        now_ms: u64,
    ) -> Option<Bytes> {
        self.running = self.running.saturating_sub(1);
        let key = (call.peer, call.call_id);
        let is_given_up = matches!(self.known.get(&key), Some(Known::GivenUp));
        let datagram = (!call.one_way && !is_given_up && now_ms < call.deadline_at_ms)
            .then(|| datagram_of(call, outcome, body, held, ticket, now_ms));
        if call.is_known
            && let Some(known) = self.known.get_mut(&key)
        {
            let bytes = datagram.as_ref().map_or(0, Bytes::len);
            let has_room = self.known_bytes + bytes <= self.config.max_known_bytes;
            *known = Known::Answered(datagram.clone().filter(|_| has_room));
            self.known_bytes += if has_room { bytes } else { 0 };
        }
        datagram
    }

    /// Handlers that run.
    pub fn running(&self) -> usize {
        self.running
    }

    /// Bytes of answers that are kept.
    pub fn known_bytes(&self) -> usize {
        self.known_bytes
    }

    /// Datagrams that repeated a call which was known.
    pub fn repeated(&self) -> u64 {
        self.repeated
    }

    fn forget(&mut self, now_ms: u64) {
        while let Some(Reverse((until_ms, peer, call_id))) = self.until.peek().copied()
            && until_ms <= now_ms
        {
            self.until.pop();
            if let Some(Known::Answered(Some(datagram))) = self.known.remove(&(peer, call_id)) {
                self.known_bytes -= datagram.len();
            }
        }
    }
}

/// The answer as a datagram; or one that says where it is held, or that it is lost.
fn datagram_of<P>(
    call: &Running<P>,
    outcome: &Outcome,
    body: &Bytes,
    held: &mut Held,
    ticket: impl FnOnce() -> Ticket,
    now_ms: u64,
) -> Bytes {
    if outcome.code != Code::Ok {
        return put(call.call_id, 0, outcome, cut(body));
    }
    let datagram = put(call.call_id, 0, outcome, body);
    if datagram.len() <= MAX_DATAGRAM_BYTES {
        return datagram;
    }
    let ticket = ticket();
    if held.put(ticket, body.clone(), outcome.cursor, call.deadline_at_ms, now_ms) {
        return put(call.call_id, flag::HELD, &Outcome::OK, &ticket);
    }
    // It ran, so it is not refused.
    let lost = Outcome { code: Code::Lost, ..Outcome::OK };
    put(call.call_id, 0, &lost, b"the answer does not fit a datagram, and there is no room to hold it")
}

/// As much of a sentence as fits.
fn cut(text: &[u8]) -> &[u8] {
    let text = std::str::from_utf8(text).unwrap_or_default();
    let end = (0..=text.len().min(MAX_TEXT_BYTES)).rev().find(|at| text.is_char_boundary(*at));
    &text.as_bytes()[..end.unwrap_or(0)]
}

/// A header with all extensions of a reply has 92 bytes.
const MAX_TEXT_BYTES: usize = MAX_DATAGRAM_BYTES - 128;

fn put(call_id: u64, flags: u16, outcome: &Outcome, body: &[u8]) -> Bytes {
    let header = Header {
        kind: Kind::Reply,
        flags,
        call_id,
        status: outcome.code.0,
        cursor: outcome.cursor,
        retry_after_ms: outcome.retry_after_ms,
        ..Header::default()
    };
    let mut datagram = Vec::with_capacity(128 + body.len());
    header.put(body, &mut datagram);
    datagram.into()
}
