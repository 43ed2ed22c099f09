//! Bytes to phones: what a turn has for one phone leaves in one send, and at most one send is in flight.

use bytes::Bytes;
use gateway_ring::{Completion, Errno, Returned, SendBuf, Slot, Token};
use proto_wire::close::Reason;

use super::sessions::BEAT_FRAME;
use super::table::Output;
use super::{Shard, io, op};
use crate::session::State;

impl Shard {
    /// Sends what the turn left for each phone.
    pub(super) fn flush(&mut self) {
        let dirty = self.table.take_dirty();
        for &(slot, generation) in &dirty {
            if self.table.clear_dirty(slot, generation) {
                self.send_waiting(slot, generation);
            }
        }
        self.table.keep_dirty(dirty);
    }

    /// Starts the next send of a phone, unless one is in flight.
    fn send_waiting(&mut self, slot: u32, generation: u32) {
        match self.table.take_output(slot, generation) {
            Output::Nothing => {}
            Output::TooMuch => self.end(slot, generation, Reason::SlowReader, "the phone does not read"),
            Output::Beat => self.send_beat(slot, generation),
            Output::Bytes(out) => self.send(slot, generation, out.into()),
        }
    }

    /// Two bytes, for which there is room but with a peer that does not read: nobody waits for their completion, and
    /// nothing of them is in flight once they are submitted.
    fn send_beat(&mut self, slot: u32, generation: u32) {
        if let Some(session) = self.table.slab.current(slot, generation) {
            session.io &= !io::SENDING;
        }
        if self.queue(|ring| ring.send_now(Slot(slot), BEAT_FRAME, Token::new(op::SEND, generation, slot))) {
            self.table.desk.counters.sent_bytes.add(BEAT_FRAME.len() as u64);
        } else {
            self.end(slot, generation, Reason::Reset, "the kernel takes no send");
        }
    }

    /// The beat did not fit: it goes as everything else does, behind what is on its way.
    fn handle_unsent_beat(&mut self, slot: u32, generation: u32, result: Result<u32, Errno>) {
        self.table.desk.counters.sent_bytes.add((BEAT_FRAME.len() as u64).wrapping_neg());
        let Some(session) = self.table.slab.current(slot, generation) else { return };
        match result {
            Err(Errno::AGAIN) if session.io & io::SENDING != 0 => session.io |= io::BEAT,
            Err(Errno::AGAIN) => {
                session.io |= io::SENDING;
                self.send(slot, generation, Bytes::from_static(BEAT_FRAME).into());
            }
            // Half of it went.
            Ok(_) => self.end(slot, generation, Reason::SlowReader, "the phone does not read"),
            Err(_) => self.end(slot, generation, Reason::Reset, "the connection broke"),
        }
    }

    pub(super) fn send(&mut self, slot: u32, generation: u32, mut buf: SendBuf) {
        for _ in 0..3 {
            match self.ring.send(Slot(slot), buf, Token::new(op::SEND, generation, slot)) {
                Ok(_) => return,
                Err(refused) => {
                    buf = refused.buf;
                    let _ = self.ring.submit();
                }
            }
        }
        // The kernel takes nothing: the connection cannot be kept in step.
        if let Some(session) = self.table.slab.current(slot, generation) {
            session.io &= !io::SENDING;
        }
        self.end(slot, generation, Reason::Reset, "the kernel takes no send");
    }

    pub(super) fn handle_sent(&mut self, completion: Completion) {
        let (slot, generation) = (completion.token.slot(), completion.token.generation());
        let Returned::Sent(buf) = completion.returned else {
            return self.handle_unsent_beat(slot, generation, completion.result);
        };
        let asked = buf.len();
        if let Some(vec) = buf.into_vec() {
            self.table.desk.keep_buffer(vec);
        }
        let Some(session) = self.table.slab.current(slot, generation) else { return };
        session.io &= !io::SENDING;
        let state = session.state();
        match completion.result {
            Ok(sent) if sent as usize == asked => {
                self.table.desk.counters.sent_bytes.add(u64::from(sent));
                self.send_waiting(slot, generation);
                let done = self.table.slab.current(slot, generation).is_some_and(|s| s.io & io::SENDING == 0);
                if state == State::Closing && done {
                    self.drop_connection(slot, generation);
                }
            }
            // A send waits for room, so fewer bytes than asked for are an error's doing.
            _ if state == State::Closing => self.drop_connection(slot, generation),
            _ => self.end(slot, generation, Reason::Reset, "the connection broke"),
        }
    }
}
