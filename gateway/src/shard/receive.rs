//! Bytes from phones: a poll says that something is there, a receive takes it into a shared buffer, and the
//! session gets it frame by frame, in place.

use gateway_ring::{BufferId, Completion, Errno, PollEvents, Slot, Token};
use proto_wire::close::Reason;
use proto_wire::frame::next_frame;

use super::{Shard, io, op};
use crate::limits;
use crate::session::{Refusal, State};

impl Shard {
    /// An idle connection holds this poll and nothing else (Linux 6.18: 256 B; an armed receive is 864 B).
    pub(super) fn arm_poll(&mut self, slot: u32, generation: u32) {
        let events = PollEvents::IN | PollEvents::RDHUP;
        self.queue(|ring| ring.poll_multi(Slot(slot), events, Token::new(op::POLL, generation, slot)));
    }

    pub(super) fn handle_poll(&mut self, completion: &Completion) {
        let (slot, generation) = (completion.token.slot(), completion.token.generation());
        let Some(session) = self.slab.current(slot, generation) else { return };
        if session.state() == State::Closing && session.io & io::ARMED == 0 {
            return;
        }
        if !completion.more {
            session.io &= !io::ARMED;
        }
        if completion.result.is_err() {
            self.end(slot, generation, Reason::Reset, "the connection broke");
            return;
        }
        self.want_receive(slot, generation);
        // A multishot that ended, whatever its result, is armed again.
        if !completion.more
            && let Some(session) = self.slab.current(slot, generation)
        {
            session.io |= io::ARMED;
            self.arm_poll(slot, generation);
        }
    }

    /// Queues a receive, once at a time.
    pub(super) fn want_receive(&mut self, slot: u32, generation: u32) {
        let Some(session) = self.slab.current(slot, generation) else { return };
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
            if self.slab.current(slot, generation).is_none() {
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
        let again = self.slab.current(slot, generation).is_some_and(|session| {
            let again = session.io & io::RECEIVE_AGAIN != 0;
            session.io &= !(io::RECEIVING | io::RECEIVE_AGAIN);
            again
        });
        match completion.result {
            Ok(0) => self.end(slot, generation, Reason::PeerClosed, "the phone closed"),
            Ok(_) => {
                if let Some(id) = completion.buffer {
                    self.feed(slot, generation, id);
                }
                if completion.sock_nonempty || again {
                    self.want_receive(slot, generation);
                }
                return;
            }
            Err(Errno::AGAIN) if again => self.want_receive(slot, generation),
            Err(Errno::AGAIN | Errno::CANCELED) => {}
            Err(Errno::NO_BUFFERS) => {
                self.desk.counters.without_buffer.add(1);
                self.want_receive(slot, generation);
            }
            Err(_) => self.end(slot, generation, Reason::Reset, "the connection broke"),
        }
        if let Some(id) = completion.buffer {
            self.phone_buffers.recycle(id);
        }
    }

    fn feed(&mut self, slot: u32, generation: u32, id: BufferId) {
        let bytes = self.phone_buffers.bytes(&id);
        self.desk.counters.received_bytes.add(bytes.len() as u64);
        let now_ms = self.desk.now_ms;
        let result = self.desk.with(&mut self.slab, &mut self.wheel, slot, generation, |session, desk| {
            let limit = desk.limits.max_body_bytes;
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
        });
        self.phone_buffers.recycle(id);
        if let Some(Err((refusal, first))) = result {
            self.refuse(slot, generation, refusal, first);
        }
    }
}
