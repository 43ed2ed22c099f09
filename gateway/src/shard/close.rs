//! How connections end: a CLOSE frame where the peer should know, then cancel and close in one batch.

use std::net::SocketAddr;

use gateway_ring::{Cancel, Completion, Returned, Slot, Token};
use proto_wire::close::Reason;
use proto_wire::pb;

use super::addresses::{Excess, Limit};
use super::table::Ending;
use super::{RefusalLine, Shard, io, op};
use crate::limits;
use crate::session::{Refusal, State};

/// A refusal whose peer's address is being asked for.
pub struct PendingRefusal {
    slot: u32,
    generation: u32,
    line: RefusalLine,
}

/// Counts up to a bound, anew in each second.
#[derive(Debug, Default)]
pub struct PerSecond {
    second: u64,
    count: u32,
}

impl PerSecond {
    /// One more, if the bound allows it.
    fn take(&mut self, now_ms: u64, most: u32) -> bool {
        if self.second != now_ms / 1000 {
            *self = Self { second: now_ms / 1000, count: 0 };
        }
        let is_taken = self.count < most;
        self.count += u32::from(is_taken);
        is_taken
    }
}

impl Shard {
    /// Ends a connection and says why in the log: its peer did what it may not.
    pub(super) fn refuse(&mut self, slot: u32, generation: u32, refusal: Refusal, first: Vec<u8>) {
        if refusal.reason != Reason::PeerClosed {
            self.note_refusal(slot, generation, &refusal, first);
        }
        self.end(slot, generation, refusal.reason, &refusal.text);
    }

    /// Ends a connection. Its peer gets a CLOSE frame, unless it is the peer who left.
    pub(super) fn end(&mut self, slot: u32, generation: u32, reason: Reason, text: &str) {
        self.note_end(slot, generation, reason);
        match self.table.end(slot, generation, reason, text) {
            Ending::Drop => self.drop_connection(slot, generation),
            Ending::Gone | Ending::Says => {}
        }
    }

    /// Ends a connection whose address has had its share. The first ones are told when to come back.
    pub(super) fn tell_off(&mut self, slot: u32, generation: u32, peer: SocketAddr, excess: &Excess) {
        let now_ms = self.table.desk.now_ms;
        let is_open = self.table.slab.current(slot, generation).is_some_and(|s| s.state() != State::Closing);
        if !is_open {
            return;
        }
        match excess.of {
            Limit::Connects => self.table.desk.counters.refused_connects.add(1),
            Limit::FailedHellos => self.table.desk.counters.refused_failed_hellos.add(1),
        }
        let refusal = Refusal::new(Reason::AddressLimit, excess.text());
        if let Some(line) = self.refusal_line(&refusal, Vec::new()) {
            self.log_refusal(RefusalLine { peer: Some(peer), ..line });
        }
        // Generations follow each other, so those of one turn are spread evenly.
        let spread_ms = u64::from(generation.wrapping_mul(2_654_435_761)) % limits::TOLD_OFF_SPREAD_MS;
        let close = self.told_off.take(now_ms, limits::TOLD_OFF_A_SECOND_MAX).then(|| pb::Close {
            code: refusal.reason as u32,
            text: refusal.text,
            reconnect_after_ms: u32::try_from(excess.wait_ms + spread_ms).unwrap_or(u32::MAX),
            to: String::new(),
        });
        if self.table.end_with(slot, generation, refusal.reason, close) == Ending::Drop {
            self.drop_connection(slot, generation);
        }
    }

    /// Frees the session and its slot now.
    pub(super) fn drop_connection(&mut self, slot: u32, generation: u32) {
        let Some(under_way) = self.table.remove(slot, generation) else { return };
        // What is armed must be cancelled in the same batch, or the socket stays open without a FIN (Linux 6.18,
        // test `a_bare_close_under_an_armed_poll_sends_no_fin`). A receive does not wait, so it is no matter.
        let streams = under_way & io::STREAMS != 0;
        if streams {
            self.table.desk.counters.streams.add(u64::MAX);
        }
        let armed = if streams { op::STREAM } else { op::POLL };
        let armed = Cancel::Token(Token::new(armed, generation, slot));
        let cancels = [armed, Cancel::AllOn(Slot(slot))];
        // A stream whose poll is still being cancelled is as rare as a close under a send.
        let is_plain = under_way & io::SENDING == 0 && !(streams && under_way & io::ARMED != 0);
        let cancels = if is_plain { &cancels[..1] } else { &cancels[..] };
        self.queue(|ring| ring.close(Slot(slot), cancels, Token::new(op::CLOSE, generation, slot)));
    }

    pub(super) fn handle_peer(&mut self, completion: &Completion) {
        let (slot, generation) = (completion.token.slot(), completion.token.generation());
        let at = self.refusals.iter().position(|r| r.slot == slot && r.generation == generation);
        let Some(at) = at else { return };
        let mut line = self.refusals.swap_remove(at).line;
        if let Returned::Peer(peer) = completion.returned {
            line.peer = peer;
        }
        self.log_refusal(line);
    }

    fn note_refusal(&mut self, slot: u32, generation: u32, refusal: &Refusal, first: Vec<u8>) {
        let Some(line) = self.refusal_line(refusal, first) else { return };
        self.refusals.push(PendingRefusal { slot, generation, line });
        let family = self.family;
        self.queue(|ring| ring.peer_name(Slot(slot), family, Token::new(op::PEER, generation, slot)));
    }

    /// A line for the log, without its peer. None: too many were told in this second, so that it is only counted.
    fn refusal_line(&mut self, refusal: &Refusal, first: Vec<u8>) -> Option<RefusalLine> {
        let now_ms = self.table.desk.now_ms;
        let has_place = self.refusals.len() < limits::REFUSALS_IN_FLIGHT_MAX;
        if !has_place || !self.refusals_told.take(now_ms, limits::REFUSALS_A_SECOND_MAX) {
            self.suppressed += 1;
            self.table.desk.counters.refusals_suppressed.add(1);
            return None;
        }
        Some(RefusalLine {
            peer: None,
            reason: refusal.reason,
            text: refusal.text.clone(),
            first,
            suppressed: std::mem::take(&mut self.suppressed),
        })
    }

    fn log_refusal(&self, line: RefusalLine) {
        if self.refusal_lines.try_send(line).is_err() {
            self.table.desk.counters.refusals_suppressed.add(1);
        }
    }
}
