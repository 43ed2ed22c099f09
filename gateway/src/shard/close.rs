//! How connections end: a CLOSE frame where the peer should know, then cancel and close in one batch.

use gateway_ring::{Cancel, Completion, Returned, Slot, Token};
use proto_wire::close::Reason;
use proto_wire::frame;
use proto_wire::pb;

use super::{RefusalLine, Shard, io, op};
use crate::limits;
use crate::session::{Owner, Refusal, State};

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
        let Some(session) = self.slab.current(slot, generation) else { return };
        if session.state() == State::Closing {
            // The peer left, or the frame could not be sent: there is nothing to wait for.
            self.drop_connection(slot, generation);
            return;
        }
        self.desk.counters.close(reason);
        match session.state() {
            State::Live => self.desk.counters.live.add(u64::MAX),
            State::Anonymous => self.desk.counters.anonymous.add(u64::MAX),
            State::Hello | State::Closing => {}
        }
        self.desk.offline(slot, session);
        session.set_closing();
        let silent = matches!(reason, Reason::PeerClosed | Reason::Reset);
        // A peer that does not read will not read this either.
        if silent || reason == Reason::SlowReader {
            self.drop_connection(slot, generation);
            return;
        }
        let close = pb::Close {
            code: reason as u32,
            text: text.to_owned(),
            reconnect_after_ms: 0,
            to: String::new(),
        };
        self.desk.with(&mut self.slab, &mut self.wheel, slot, generation, |_, desk| {
            frame::put_message(desk.out(), frame::kind::CLOSE, &close);
        });
        self.wheel.set(slot, self.desk.now_ms + limits::CLOSING_MS, &mut self.slab);
    }

    /// Frees the session and its slot now.
    pub(super) fn drop_connection(&mut self, slot: u32, generation: u32) {
        if self.slab.current(slot, generation).is_none() {
            return;
        }
        self.wheel.clear(slot, &mut self.slab);
        let Some(mut session) = self.slab.remove(slot) else { return };
        if let Some(extra) = self.desk.extras.get_mut(session.extra as usize) {
            self.desk.counters.queued_bytes.add((extra.out.len() as u64).wrapping_neg());
            self.desk.counters.partial_bytes.add((extra.partial.len() as u64).wrapping_neg());
            *extra = Default::default();
            self.desk.release_extra(&mut session);
        }
        self.desk.counters.connections.set(self.slab.len() as u64);
        // What is armed must be cancelled in the same batch, or the socket stays open without a FIN (Linux 6.18,
        // test `a_bare_close_under_an_armed_poll_sends_no_fin`). A receive does not wait, so it is no matter.
        let poll = Cancel::Token(Token::new(op::POLL, generation, slot));
        let cancels = [poll, Cancel::AllOn(Slot(slot))];
        let cancels = if session.io & io::SENDING == 0 { &cancels[..1] } else { &cancels[..] };
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
            self.desk.counters.refusals_suppressed.add(1);
        }
    }

    fn note_refusal(&mut self, slot: u32, generation: u32, refusal: &Refusal, first: Vec<u8>) {
        let second = self.desk.now_ms / 1000;
        if self.refusals_this_second.0 != second {
            self.refusals_this_second = (second, 0);
        }
        let told = &mut self.refusals_this_second.1;
        if *told >= limits::REFUSALS_A_SECOND_MAX || self.refusals.len() >= limits::REFUSALS_IN_FLIGHT_MAX {
            self.suppressed += 1;
            self.desk.counters.refusals_suppressed.add(1);
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
