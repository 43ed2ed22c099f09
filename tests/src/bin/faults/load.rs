//! Phones that write to each other and to their groups.

use anyhow::Result;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tests::fleet::{Fleet, PhoneId};

/// Members of a group, with its owner.
const GROUP_MEMBERS: usize = 5;

/// Of 10 messages one goes to a group.
const TO_GROUP_IN: u32 = 10;

/// A burst has up to this many messages, if nothing else is said.
const BURST_MAX: u32 = 3;

/// From one burst of a phone to its next, at most.
const PAUSE_MAX_MS: u64 = 150;

/// Users from this one on are the load's.
pub const FIRST_USER: u64 = 1_000;

pub struct Load {
    phones: Vec<PhoneId>,
    /// The group of every phone.
    groups: Vec<u64>,
    /// When each phone writes next, and the last that it wrote.
    next: Vec<(u64, Option<tests::history::MessageId>)>,
    /// A phone writes up to this many messages without waiting for an answer in between.
    pub burst_max: u32,
    random: StdRng,
}

impl Load {
    /// Brings the phones up and makes their groups.
    pub fn start(fleet: &mut Fleet, phones: usize, seed: u64) -> Result<Self> {
        let phones = fleet.add_many(FIRST_USER, phones)?;
        let mut groups = Vec::new();
        for members in phones.chunks(GROUP_MEMBERS) {
            let users: Vec<u64> = members[1..].iter().map(|&member| fleet.user(member)).collect();
            let group = fleet.make_group(members[0], &users)?;
            groups.extend(members.iter().map(|_| group));
        }
        let next = vec![(0, None); phones.len()];
        Ok(Self { phones, groups, next, burst_max: BURST_MAX, random: StdRng::seed_from_u64(seed) })
    }

    /// Lets every phone write whose pause is over and whose last message is acknowledged.
    pub fn write(&mut self, fleet: &mut Fleet) {
        let now_ms = fleet.now_ms();
        for at in 0..self.phones.len() {
            let (next_ms, last) = self.next[at];
            if now_ms < next_ms || last.is_some_and(|id| !fleet.history.is_acknowledged(id)) {
                continue;
            }
            let from = self.phones[at];
            for _ in 0..self.random.random_range(1..=self.burst_max) {
                let to = self.receiver(at, fleet);
                let id = fleet.send(from, to);
                self.next[at] = (now_ms + self.random.random_range(0..PAUSE_MAX_MS), Some(id));
            }
        }
    }

    fn receiver(&mut self, at: usize, fleet: &Fleet) -> u64 {
        if self.random.random_ratio(1, TO_GROUP_IN) {
            return self.groups[at];
        }
        loop {
            // There are many phones.
            let to = *self.phones.choose(&mut self.random).expect("phones");
            if to != self.phones[at] {
                return fleet.user(to);
            }
        }
    }
}
