//! One notice for all phones. A shard gets it by one call of the logic tier or from the shard that got that call, and
//! works through its sessions, so many a turn, beside everything else.

use std::collections::VecDeque;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use gateway_ring::Doorbell;

use super::{Command, Shard};
use crate::limits;

/// The mailboxes of all shards, known once all have started.
pub type Peers = Arc<OnceLock<Vec<Mailbox>>>;

/// Where a shard takes commands.
#[derive(Clone)]
pub struct Mailbox {
    pub sender: SyncSender<Command>,
    pub doorbell: Doorbell,
}

impl Mailbox {
    /// False when it is full, or the shard is gone.
    pub fn send(&self, command: Command) -> bool {
        let sent = self.sender.try_send(command).is_ok();
        self.doorbell.ring();
        sent
    }
}

/// A notice on its way through the slots.
struct Handing {
    /// The whole frame, shared by all who get it.
    frame: Bytes,
    next: u32,
}

/// The notices that a shard is handing out, the oldest first.
#[derive(Default)]
pub(super) struct Broadcasts(VecDeque<Handing>);

impl Shard {
    /// Notices that the logic tier sent in this turn go to all shards, this one too.
    pub(super) fn spread_broadcasts(&mut self) {
        for frame in self.table.take_broadcasts() {
            for (index, peer) in self.peers.get().into_iter().flatten().enumerate() {
                let is_own = index == usize::from(self.table.desk.shard);
                if !is_own && !peer.send(Command::Broadcast(frame.clone())) {
                    self.table.desk.counters.broadcasts_dropped.add(1);
                }
            }
            self.begin_broadcast(frame);
        }
    }

    pub(super) fn begin_broadcast(&mut self, frame: Bytes) {
        let counters = &self.table.desk.counters;
        if self.broadcasts.0.len() >= limits::BROADCASTS_MAX {
            counters.broadcasts_dropped.add(1);
            return;
        }
        counters.broadcasts.add(1);
        self.broadcasts.0.push_back(Handing { frame, next: 0 });
    }

    /// Hands the oldest notice to the next sessions.
    pub(super) fn run_broadcasts(&mut self) {
        let Some(handing) = self.broadcasts.0.front_mut() else { return };
        let end = self.table.slab.end();
        let (frame, from) = (handing.frame.clone(), handing.next);
        let to = end.min(from + limits::BROADCAST_SLOTS_OF_A_TURN);
        handing.next = to;
        if to >= end {
            self.broadcasts.0.pop_front();
        }
        for slot in from..to {
            if let Some(generation) = self.table.announce(slot, &frame) {
                self.send(slot, generation, frame.clone().into());
            }
        }
        self.hurry |= !self.broadcasts.0.is_empty();
    }
}
