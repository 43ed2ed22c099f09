//! Which messages start: an open loop (see [`Arrivals`]), who sends and to whom.

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::Destination;
use super::population::{GROUP_SIZES, Population};
use crate::measure::Arrivals;

/// Of 1 000 messages: how many go to groups of each size; the rest is one to one.
#[derive(Debug, Clone, Copy)]
pub struct Mix {
    pub to_groups: [u32; GROUP_SIZES.len()],
}

/// 90 % one to one, 8 % to groups of 5, 1.5 % of 50, 0.5 % of 200: about 3 deliveries each.
impl Default for Mix {
    fn default() -> Self {
        Self { to_groups: [80, 15, 5] }
    }
}

/// A message to be started.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Start {
    pub intended_us: u64,
    pub sender: u32,
    pub to: Destination,
}

/// The starts of a range of senders.
#[derive(Debug)]
pub struct Schedule {
    population: Arc<Population>,
    senders: std::ops::Range<u32>,
    mix: Mix,
    arrivals: Arrivals,
    random: StdRng,
}

impl Schedule {
    pub fn new(
        population: Arc<Population>,
        senders: std::ops::Range<u32>,
        arrivals: Arrivals,
        seed: u64,
    ) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Self { population, senders, mix: Mix::default(), arrivals, random }
    }

    /// When the next start is; none: the schedule is over.
    pub fn next_us(&self) -> Option<u64> {
        self.arrivals.next_us()
    }

    /// The next start that is due.
    pub fn pop(&mut self, now_us: u64) -> Option<Start> {
        let intended_us = self.arrivals.pop(now_us)?;
        let (sender, to) = self.draw();
        Some(Start { intended_us, sender, to })
    }

    fn draw(&mut self) -> (u32, Destination) {
        let mut kind = self.random.random_range(0..1000);
        let mut sender = self.random.random_range(self.senders.clone());
        for (class, share) in self.mix.to_groups.into_iter().enumerate() {
            if kind < share {
                // The few that the last group of a size had no room for send to none of it.
                for _ in 0..16 {
                    if let Some(group) = self.population.group_of(sender, class) {
                        return (sender, Destination::Group(group));
                    }
                    sender = self.random.random_range(self.senders.clone());
                }
                break;
            }
            kind -= share;
        }
        let contact = self.random.random_range(0..self.population.contacts());
        (sender, Destination::Phone(self.population.contact(sender, contact)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Arrival;

    fn schedule(phones: u32, rate: f64, from_us: u64, until_us: u64, seed: u64) -> Schedule {
        let arrivals = Arrivals::new(Arrival::Poisson, rate, from_us, until_us, seed);
        Schedule::new(Arc::new(Population::new(phones, 1)), 0..phones, arrivals, seed)
    }

    fn starts(rate: f64, seconds: u64, seed: u64) -> Vec<Start> {
        let mut schedule = schedule(1000, rate, 5_000_000, 5_000_000 + seconds * 1_000_000, seed);
        std::iter::from_fn(|| schedule.pop(u64::MAX)).collect()
    }

    #[test]
    fn the_rate_and_the_mix_are_as_told() {
        let starts = starts(10_000.0, 30, 3);
        let near = |count: usize, expected: f64| {
            let off = (count as f64 - expected).abs() / expected;
            assert!(off < 0.1, "{count} of {expected} expected");
        };
        near(starts.len(), 300_000.0);
        assert!(starts.is_sorted_by_key(|start| start.intended_us));
        assert!(starts.iter().all(|start| (5_000_000..35_000_000).contains(&start.intended_us)));
        let population = Population::new(1000, 1);
        let to_groups_of = |size: usize| {
            let to_one = |start: &&Start| {
                matches!(start.to, Destination::Group(group)
                    if population.groups()[group as usize].members.len() == size)
            };
            starts.iter().filter(to_one).count()
        };
        near(to_groups_of(5), 24_000.0);
        near(to_groups_of(50), 4_500.0);
        near(to_groups_of(200), 1_500.0);
        for start in &starts {
            match start.to {
                Destination::Phone(to) => assert!(population.contact_index(start.sender, to).is_some()),
                Destination::Group(to) => {
                    assert!(population.groups()[to as usize].index_of(start.sender).is_some());
                }
            }
        }
    }

    #[test]
    fn one_seed_is_one_schedule() {
        assert_eq!(starts(500.0, 2, 9), starts(500.0, 2, 9));
        assert_ne!(starts(500.0, 2, 9), starts(500.0, 2, 10));
    }

    #[test]
    fn a_stalled_sender_gets_all_that_was_due_with_their_own_times() {
        let mut schedule = schedule(10, 1_000.0, 0, 1_000_000, 1);
        let mut before = 0;
        while schedule.pop(100_000).is_some() {
            before += 1;
        }
        // Nobody asks for 400 ms; then all of it is due, with the times it should have had.
        let late: Vec<Start> = std::iter::from_fn(|| schedule.pop(500_000)).collect();
        assert!((60..140).contains(&before) && (300..500).contains(&late.len()));
        assert!(late.iter().all(|start| (100_000..=500_000).contains(&start.intended_us)));
        assert!(schedule.next_us().is_some_and(|next| next > 500_000));
    }

    #[test]
    fn a_lonely_pair_talks_to_each_other() {
        let mut schedule = schedule(2, 1_000.0, 0, 1_000_000, 1);
        while let Some(start) = schedule.pop(u64::MAX) {
            if let Destination::Phone(to) = start.to {
                assert_eq!(to, 1 - start.sender);
            }
        }
    }
}
