//! When things start: an open loop, whose times do not depend on what the server does.

use clap::ValueEnum;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;

/// How the gaps between starts are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Arrival {
    /// All gaps are equal: the least burst that a rate can have.
    Constant,
    /// Exponential gaps, as those of many people who know nothing of each other are.
    #[default]
    Poisson,
}

/// The intended starts of one thread.
#[derive(Debug)]
pub struct Arrivals {
    arrival: Arrival,
    mean_gap_us: f64,
    next_us: f64,
    until_us: u64,
    random: StdRng,
}

impl Arrivals {
    /// `rate` a second between the two times.
    pub fn new(arrival: Arrival, rate: f64, from_us: u64, until_us: u64, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mean_gap_us = 1e6 / rate.max(1e-6);
        // Threads with constant gaps do not start in step with each other.
        let first = match arrival {
            Arrival::Constant => mean_gap_us * random.random::<f64>(),
            Arrival::Poisson => exponential(mean_gap_us, &mut random),
        };
        Self { arrival, mean_gap_us, next_us: from_us as f64 + first, until_us, random }
    }

    /// When the next start is; none: all are over.
    pub fn next_us(&self) -> Option<u64> {
        (self.next_us < self.until_us as f64).then_some(self.next_us as u64)
    }

    /// The intended time of the next start, when it is due. What was not asked for in time keeps its time.
    pub fn pop(&mut self, now_us: u64) -> Option<u64> {
        let intended_us = self.next_us().filter(|&due| due <= now_us)?;
        self.next_us += match self.arrival {
            Arrival::Constant => self.mean_gap_us,
            Arrival::Poisson => exponential(self.mean_gap_us, &mut self.random),
        };
        Some(intended_us)
    }

    /// Gives up what is left, and says how many starts that were.
    pub fn give_up(&mut self) -> u64 {
        let mut left = 0;
        while self.pop(self.until_us).is_some() {
            left += 1;
        }
        left
    }
}

fn exponential(mean_us: f64, random: &mut StdRng) -> f64 {
    let even: f64 = random.random();
    -mean_us * (1.0 - even).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(arrival: Arrival, rate: f64) -> Vec<u64> {
        let mut arrivals = Arrivals::new(arrival, rate, 2_000_000, 12_000_000, 7);
        std::iter::from_fn(|| arrivals.pop(u64::MAX)).collect()
    }

    #[test]
    fn the_rate_is_kept_and_the_gaps_are_as_told() {
        let constant = all(Arrival::Constant, 1_000.0);
        assert!((9_999..=10_000).contains(&constant.len()));
        assert!(constant.windows(2).all(|pair| (999..=1_001).contains(&(pair[1] - pair[0]))));
        let poisson = all(Arrival::Poisson, 1_000.0);
        assert!((9_500..10_500).contains(&poisson.len()), "{}", poisson.len());
        let gaps: Vec<f64> = poisson.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let deviation = (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64).sqrt();
        assert!((deviation / mean - 1.0).abs() < 0.1, "an exponential's deviation is its mean");
        assert!(poisson.iter().all(|at| (2_000_000..12_000_000).contains(at)));
    }

    #[test]
    fn starts_that_nobody_asked_for_keep_their_times_or_are_counted() {
        let mut arrivals = Arrivals::new(Arrival::Constant, 100.0, 0, 1_000_000, 1);
        let early = std::iter::from_fn(|| arrivals.pop(100_000)).count();
        let late: Vec<u64> = std::iter::from_fn(|| arrivals.pop(600_000)).collect();
        assert!((9..=10).contains(&early) && late.len() == 50);
        assert!(late.iter().all(|at| (100_000..=600_000).contains(at)));
        assert_eq!(early + late.len() + arrivals.give_up() as usize, 100);
        assert_eq!(arrivals.next_us(), None);
    }
}
