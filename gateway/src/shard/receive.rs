//! Bytes from phones: a poll says that something is there, a receive takes it into a shared buffer, and the
//! session gets it frame by frame, in place.

use gateway_ring::{BufferId, Completion, Errno, PollEvents, Slot, Token};
use proto_wire::close::Reason;

use super::{Shard, io, op};
use crate::session::State;

impl Shard {
    /// An idle connection holds this poll and nothing else (Linux 6.18: 256 B; an armed receive is 864 B).
    pub(super) fn arm_poll(&mut self, slot: u32, generation: u32) {
        let events = PollEvents::IN | PollEvents::RDHUP;
        self.queue(|ring| ring.poll_multi(Slot(slot), events, Token::new(op::POLL, generation, slot)));
    }

    pub(super) fn handle_poll(&mut self, completion: &Completion) {
        let (slot, generation) = (completion.token.slot(), completion.token.generation());
        let Some(session) = self.table.slab.current(slot, generation) else { return };
        if session.state() == State::Closing && session.io & io::ARMED == 0 {
            return;
        }
        if !completion.more {
            session.io &= !io::ARMED;
        }
        // It was cancelled, or what it tells of is received by now.
        if session.io & io::STREAMS != 0 {
            return;
        }
        if completion.result.is_err() {
            self.end(slot, generation, Reason::Reset, "the connection broke");
            return;
        }
        self.want_receive(slot, generation);
        // A multishot that ended, whatever its result, is armed again.
        if !completion.more
            && let Some(session) = self.table.slab.current(slot, generation)
        {
            session.io |= io::ARMED;
            self.arm_poll(slot, generation);
        }
    }

    /// Queues a receive, once at a time.
    pub(super) fn want_receive(&mut self, slot: u32, generation: u32) {
        let Some(session) = self.table.slab.current(slot, generation) else { return };
        if session.io & io::RECEIVING != 0 {
            session.io |= io::RECEIVE_AGAIN;
            return;
        }
        session.io |= io::RECEIVING;
        self.to_receive.push_back((slot, generation));
    }

    /// Issues receives, as many as there are buffers: each takes one when it is submitted.
    pub(super) fn issue_receives(&mut self) {
        let group = self.phone_buffers.group();
        for _ in 0..self.phone_buffers.available() {
            let Some((slot, generation)) = self.to_receive.pop_front() else { break };
            if self.table.slab.current(slot, generation).is_none() {
                continue;
            }
            self.queue(|ring| ring.recv(Slot(slot), group, Token::new(op::RECEIVE, generation, slot)));
        }
        if self.to_receive.is_empty() {
            if self.to_receive.capacity() > 4096 {
                self.to_receive.shrink_to(1024);
            }
        } else {
            self.hurry = true;
        }
    }

    pub(super) fn handle_receive(&mut self, completion: Completion) {
        let (slot, generation) = (completion.token.slot(), completion.token.generation());
        let again = self.table.slab.current(slot, generation).is_some_and(|session| {
            let again = session.io & io::RECEIVE_AGAIN != 0;
            session.io &= !(io::RECEIVING | io::RECEIVE_AGAIN);
            again
        });
        match completion.result {
            Ok(0) => self.end(slot, generation, Reason::PeerClosed, "the phone closed"),
            Ok(_) => {
                let talks = self.note_arrival(slot, generation);
                if let Some(id) = completion.buffer {
                    self.feed(slot, generation, id);
                }
                if talks && self.start_stream(slot, generation) {
                    return;
                }
                if completion.sock_nonempty || again {
                    self.want_receive(slot, generation);
                }
                return;
            }
            Err(Errno::AGAIN) if again => self.want_receive(slot, generation),
            Err(Errno::AGAIN | Errno::CANCELED) => {}
            Err(Errno::NO_BUFFERS) => {
                self.table.desk.counters.without_buffer.add(1);
                self.want_receive(slot, generation);
            }
            Err(_) => self.end(slot, generation, Reason::Reset, "the connection broke"),
        }
        if let Some(id) = completion.buffer {
            self.phone_buffers.recycle(id);
        }
    }

    fn feed(&mut self, slot: u32, generation: u32, id: BufferId) {
        let result = self.table.feed(slot, generation, self.phone_buffers.bytes(&id));
        self.phone_buffers.recycle(id);
        if let Err((refusal, first)) = result {
            self.refuse(slot, generation, refusal, first);
        }
    }
}
