//! The figures of a run.

use serde_json::json;
use tests::history::{Counts, Verdict};

/// Rounds in which something was in flight when the kill came, of all: fewer say that the kills hit nothing.
const IN_FLIGHT_SHARE_MIN: f64 = 0.8;
/// Of fewer rounds one that found nothing in flight, on a quick disk, says nothing.
const SHARE_FROM_ROUNDS: usize = 5;

pub struct Round {
    pub number: usize,
    pub victim: &'static str,
    pub acknowledged: u64,
    pub in_flight_at_kill: usize,
    pub took_ms: u64,
}

pub struct Report {
    seed: u64,
    rounds: Vec<Round>,
    counts: Counts,
}

impl Round {
    pub fn line(&self, of: usize) -> String {
        format!(
            "round {}/{of}: {} killed with {} in flight, {} acknowledged, {} ms",
            self.number, self.victim, self.in_flight_at_kill, self.acknowledged, self.took_ms
        )
    }
}

impl Report {
    pub fn new(seed: u64) -> Self {
        Self { seed, rounds: Vec::new(), counts: Counts::default() }
    }

    /// A round that ended. The verdict is of all rounds so far.
    pub fn add(&mut self, round: Round, verdict: &Verdict) {
        self.rounds.push(round);
        self.counts = verdict.counts;
    }

    pub fn is_good(&self) -> bool {
        self.counts == Counts::default()
            && !self.rounds.is_empty()
            && (self.rounds.len() < SHARE_FROM_ROUNDS || self.in_flight_share() >= IN_FLIGHT_SHARE_MIN)
    }

    pub fn summary(&self) -> String {
        let Counts { lost, doubled, out_of_order, strange } = self.counts;
        format!(
            "{} rounds, {} acknowledged, in flight at {:.0} % of kills: lost {lost}, doubled {doubled}, out of order {out_of_order}, strange {strange}",
            self.rounds.len(),
            self.acknowledged(),
            self.in_flight_share() * 100.0,
        )
    }

    pub fn json(&self) -> String {
        let each = |of: fn(&Round) -> u64| self.rounds.iter().map(of).collect::<Vec<_>>();
        let report = json!({
            "rounds": self.rounds.len(),
            "acknowledged": self.acknowledged(),
            "acknowledged_by_round": each(|round| round.acknowledged),
            "in_flight_at_kill": each(|round| round.in_flight_at_kill as u64),
            "in_flight_share": self.in_flight_share(),
            "killed": self.rounds.iter().map(|round| round.victim).collect::<Vec<_>>(),
            "took_ms": each(|round| round.took_ms),
            "lost": self.counts.lost,
            "doubled": self.counts.doubled,
            "out_of_order": self.counts.out_of_order,
            "strange": self.counts.strange,
            "seed": self.seed,
        });
        format!("{report:#}\n")
    }

    fn acknowledged(&self) -> u64 {
        self.rounds.iter().map(|round| round.acknowledged).sum()
    }

    fn in_flight_share(&self) -> f64 {
        let hit = self.rounds.iter().filter(|round| round.in_flight_at_kill > 0).count();
        hit as f64 / self.rounds.len().max(1) as f64
    }
}
