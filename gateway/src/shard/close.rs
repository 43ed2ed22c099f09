//! How connections end: a CLOSE frame where the peer should know, then cancel and close in one batch.

use gateway_ring::{Cancel, Completion, Returned, Slot, Token};
use proto_wire::close::Reason;

use super::table::Ending;
use super::{RefusalLine, Shard, io, op};
use crate::limits;
use crate::session::Refusal;

/// A refusal whose peer's address is being asked for.
pub struct PendingRefusal {
    slot: u32,
    generation: u32,
    line: RefusalLine,
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
        match self.table.end(slot, generation, reason, text) {
            Ending::Drop => self.drop_connection(slot, generation),
            Ending::Gone | Ending::Says => {}
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
        if self.refusal_lines.try_send(line).is_err() {
            self.table.desk.counters.refusals_suppressed.add(1);
        }
    }

    fn note_refusal(&mut self, slot: u32, generation: u32, refusal: &Refusal, first: Vec<u8>) {
        let second = self.table.desk.now_ms / 1000;
        if self.refusals_this_second.0 != second {
            self.refusals_this_second = (second, 0);
        }
        let told = &mut self.refusals_this_second.1;
        if *told >= limits::REFUSALS_A_SECOND_MAX || self.refusals.len() >= limits::REFUSALS_IN_FLIGHT_MAX {
            self.suppressed += 1;
            self.table.desk.counters.refusals_suppressed.add(1);
            return;
        }
        *told += 1;
        let line = RefusalLine {
            peer: None,
            reason: refusal.reason,
            text: refusal.text.clone(),
            first,
            suppressed: std::mem::take(&mut self.suppressed),
        };
        self.refusals.push(PendingRefusal { slot, generation, line });
        let family = self.family;
        self.queue(|ring| ring.peer_name(Slot(slot), family, Token::new(op::PEER, generation, slot)));
    }
}
