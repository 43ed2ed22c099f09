//! What is yet to happen, by time; at one time in the order in which it was put in.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::collections::BinaryHeap;

use backend_stub::storage::Completion;

use super::net::{ConnId, Side};
use super::phone::Upload;

/// Something that happens at its time.
#[derive(Debug)]
pub enum Event {
    /// A connection reaches who is to accept it.
    Opened(ConnId),
    /// The opener hears that it stands, or that it was refused.
    Answered {
        conn: ConnId,
        accepted: bool,
    },
    /// Bytes reach one side.
    Arrive {
        conn: ConnId,
        side: Side,
        bytes: Vec<u8>,
    },
    /// One side learns that it is over.
    Over {
        conn: ConnId,
        side: Side,
        reset: bool,
    },
    /// One side reads.
    Read {
        conn: ConnId,
        side: Side,
    },
    PhoneTimer(usize),
    /// A person does something with a phone.
    Act(usize),
    /// An upload that was not taken is sent again.
    Again {
        phone: usize,
        upload: Upload,
    },
    SwitchOn(usize),
    GateTurn {
        gate: usize,
        shard: usize,
        life: u32,
    },
    /// The kernel took what was sent.
    Sent {
        gate: usize,
        shard: usize,
        life: u32,
        slot: u32,
        generation: u32,
    },
    GateStarts(usize),
    BackendTurn {
        life: u32,
    },
    BackendStarts,
    BackendCrashes,
    Commit {
        partition: u16,
        life: u32,
    },
    AnswerReads {
        partition: u16,
        life: u32,
    },
    Told {
        completion: Box<Completion>,
        life: u32,
    },
    Fault,
    Quiet,
    /// Load and faults end.
    Calm,
    /// Is everything where it belongs?
    Look,
}

/// The queue. Events of one time and kind are not merged: whoever asks for a turn knows whether one is queued.
#[derive(Debug, Default)]
pub struct Queue {
    heap: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    next: u64,
}

impl Queue {
    pub fn push(&mut self, at_us: u64, event: Event) {
        self.next += 1;
        self.heap.push(Reverse((at_us, self.next)));
        self.events.insert(self.next, event);
    }

    pub fn pop(&mut self) -> Option<(u64, Event)> {
        let Reverse((at_us, sequence)) = self.heap.pop()?;
        // Every place in the heap has its event.
        Some((at_us, self.events.remove(&sequence)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_in_the_order_they_were_put_in() {
        let mut queue = Queue::default();
        for (at_us, phone) in [(5, 1), (3, 2), (5, 3), (3, 4)] {
            queue.push(at_us, Event::PhoneTimer(phone));
        }
        let mut phones = Vec::new();
        while let Some((_, Event::PhoneTimer(phone))) = queue.pop() {
            phones.push(phone);
        }
        assert_eq!(phones, [2, 4, 1, 3]);
    }
}
