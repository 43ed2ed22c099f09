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

/// A phone pauses this long after an acknowledgement, at most.
const PAUSE_MAX_MS: u64 = 100;

/// Users from this one on are the load's.
const FIRST_USER: u64 = 1_000;

pub struct Load {
    phones: Vec<PhoneId>,
    /// The group of every phone.
    groups: Vec<u64>,
    /// When each phone writes next, and the last that it wrote.
    next: Vec<(u64, Option<tests::history::MessageId>)>,
    random: StdRng,
    pub sent: u64,
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
        Ok(Self { phones, groups, next, random: StdRng::seed_from_u64(seed), sent: 0 })
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
            let to = if self.random.random_ratio(1, TO_GROUP_IN) {
                self.groups[at]
            } else {
                self.other(from, fleet)
            };
            let id = fleet.send(from, to);
            self.next[at] = (now_ms + self.random.random_range(0..PAUSE_MAX_MS), Some(id));
            self.sent += 1;
        }
    }

    fn other(&mut self, from: PhoneId, fleet: &Fleet) -> u64 {
        loop {
            // There are many phones.
            let to = *self.phones.choose(&mut self.random).expect("phones");
            if to != from {
                return fleet.user(to);
            }
        }
    }
}
