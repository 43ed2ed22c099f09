//! Phones that talk much keep a receive armed in place of the poll: one completion an arrival instead of a poll's, a
//! request and its completion. Who falls silent waits with a poll again, which costs the kernel less memory.

use std::collections::VecDeque;

use gateway_ring::{BufferId, BufferRing, Cancel, Completion, Errno, Slot, Token};
use proto_wire::close::Reason;

use super::{Shard, io, op};
use crate::limits;
use crate::session::State;

/// The phones whose receive stays armed.
#[derive(Default)]
pub(super) struct Streams {
    /// Made with the first stream: most shards of mostly idle phones have none.
    buffers: Option<BufferRing>,
    /// Each stands here once, in the order of the looks for silence.
    looks: VecDeque<(u32, u32)>,
    looked_ms: u64,
}

impl Shard {
    /// Bytes came by a poll. True when the phone has earned a stream.
    pub(super) fn note_arrival(&mut self, slot: u32, generation: u32) -> bool {
        let now_ms = self.table.desk.now_ms;
        let Some(session) = self.table.slab.current(slot, generation) else { return false };
        if session.silent_ms(now_ms) > limits::STREAM_GAP_MS {
            session.quick = 0;
            return false;
        }
        session.quick = session.quick.saturating_add(1);
        session.quick >= limits::STREAM_AFTER
    }

    /// From the poll to an armed receive. False: it stays with the poll.
    pub(super) fn start_stream(&mut self, slot: u32, generation: u32) -> bool {
        let Some(group) = self.stream_group() else { return false };
        let Some(session) = self.table.slab.current(slot, generation) else { return false };
        if session.state() != State::Live {
            return false;
        }
        session.io |= io::STREAMS;
        self.table.desk.counters.streams.add(1);
        self.streams.looks.push_back((slot, generation));
        let poll = Cancel::Token(Token::new(op::POLL, generation, slot));
        self.queue(|ring| ring.cancel(poll));
        self.arm_stream(slot, generation, group);
        true
    }

    fn stream_group(&mut self) -> Option<u16> {
        if self.streams.buffers.is_none() {
            // Without memory for them phones go on with polls.
            self.streams.buffers =
                self.ring.buffer_ring(limits::STREAM_BUFFERS, limits::STREAM_BUFFER_BYTES).ok();
        }
        self.streams.buffers.as_ref().map(BufferRing::group)
    }

    fn arm_stream(&mut self, slot: u32, generation: u32, group: u16) {
        let token = Token::new(op::STREAM, generation, slot);
        self.queue(|ring| ring.recv_multi(Slot(slot), group, token));
    }

    fn arm_again(&mut self, slot: u32, generation: u32) {
        if let Some(group) = self.stream_group() {
            self.arm_stream(slot, generation, group);
        }
    }

    pub(super) fn handle_streamed(&mut self, completion: Completion) {
        let (slot, generation) = (completion.token.slot(), completion.token.generation());
        if let Some(id) = completion.buffer {
            self.feed_streamed(slot, generation, id);
        }
        let Some(session) = self.table.slab.current(slot, generation) else { return };
        let streams = session.io & io::STREAMS != 0;
        match completion.result {
            Ok(0) => self.end(slot, generation, Reason::PeerClosed, "the phone closed"),
            Ok(_) if completion.more => {}
            Ok(_) if streams => self.arm_again(slot, generation),
            // More came in one turn than there are buffers. Those of this turn are back when this one is submitted.
            Err(Errno::NO_BUFFERS) if streams => {
                self.table.desk.counters.without_buffer.add(1);
                self.arm_again(slot, generation);
            }
            // Its last word, after it was cancelled.
            Ok(_) | Err(Errno::NO_BUFFERS | Errno::CANCELED) => {}
            Err(_) => self.end(slot, generation, Reason::Reset, "the connection broke"),
        }
    }

    fn feed_streamed(&mut self, slot: u32, generation: u32, id: BufferId) {
        let Some(buffers) = &mut self.streams.buffers else { return };
        let result = self.table.feed(slot, generation, buffers.bytes(&id));
        buffers.recycle(id);
        if let Err((refusal, first)) = result {
            self.refuse(slot, generation, refusal, first);
        }
    }

    /// Back to the poll, whose first word is of what is there already.
    fn end_stream(&mut self, slot: u32, generation: u32) {
        let Some(session) = self.table.slab.current(slot, generation) else { return };
        session.io &= !io::STREAMS;
        session.io |= io::ARMED;
        session.quick = 0;
        self.table.desk.counters.streams.add(u64::MAX);
        self.arm_poll(slot, generation);
    }

    /// Streams that have fallen silent go back to their polls; some are looked at, every now and then.
    pub(super) fn look_at_streams(&mut self) {
        let now_ms = self.table.desk.now_ms;
        if self.streams.looks.is_empty() || now_ms < self.streams.looked_ms + limits::STREAM_LOOK_EVERY_MS {
            return;
        }
        self.streams.looked_ms = now_ms;
        for _ in 0..limits::STREAMS_OF_A_LOOK.min(self.streams.looks.len()) {
            let Some((slot, generation)) = self.streams.looks.pop_front() else { break };
            let Some(session) = self.table.slab.current(slot, generation) else { continue };
            if session.io & io::STREAMS == 0 {
                continue;
            }
            if session.silent_ms(now_ms) < limits::STREAM_SILENT_MS || session.state() != State::Live {
                self.streams.looks.push_back((slot, generation));
                continue;
            }
            let stream = Cancel::Token(Token::new(op::STREAM, generation, slot));
            self.queue(|ring| ring.cancel(stream));
            self.end_stream(slot, generation);
        }
    }
}
