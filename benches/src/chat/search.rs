//! The highest rate that a chat holds: short loads, one after the other.

use super::conductor::{ChatBench, Measured, Stretch};
use super::report::Trial;
use super::talkers::{ACK, DELIVER};
use crate::limits;
use crate::report::Generator;
use crate::search::{self, Bounds};
use crate::session::RunError;

/// The share of the highest rate that the measured load has.
const SHARE_OF_HIGHEST: f64 = 0.7;

/// How a search for the rate ended: with it, or by Ctrl-C in the trial of one.
pub(super) enum Searched {
    Found(f64, Vec<Trial>),
    Ended(f64, Vec<Trial>, Box<Measured>),
}

impl ChatBench<'_> {
    pub(super) fn search(&mut self) -> Result<Searched, RunError> {
        let bounds = Bounds { from: limits::SEARCH_FROM, to: limits::SEARCH_TO, steps: limits::SEARCH_STEPS };
        let target_ms = limits::TRIAL_P99_MS as f64;
        let (mut trials, mut ended) = (Vec::new(), None);
        let searched = search::highest(&bounds, |rate| {
            let (trial, mut measured) = self.trial_of(rate, limits::TRIAL_MS, target_ms)?;
            if measured.ended_early {
                // It is judged as a load, and what a load sends may take longer to arrive.
                let within_ms = limits::DELIVERED_WITHIN_MS;
                measured.drained_after_ms = measured.drained_after_ms.or_else(|| self.drain(within_ms));
                ended = Some((rate, measured));
                return Err(RunError::Interrupted);
            }
            self.progress.say(&trial.to_string());
            let held = trial.held;
            trials.push(trial);
            Ok((held, ()))
        });
        if let Some((rate, measured)) = ended {
            return Ok(Searched::Ended(rate, trials, Box::new(measured)));
        }
        let (held, _) = searched?;
        Ok(Searched::Found(held.unwrap_or(limits::SEARCH_FROM) * SHARE_OF_HIGHEST, trials))
    }

    /// A short load. It holds while p99 of acknowledgement and delivery is within the target.
    fn trial_of(&mut self, rate: f64, for_ms: u64, target_ms: f64) -> Result<(Trial, Measured), RunError> {
        // What a failed trial left behind is no part of this.
        self.drain(limits::DELIVERED_WITHIN_MS);
        let measured = self.put(&Stretch {
            rate,
            for_ms,
            phase: &format!("trial of {rate:.0}/s"),
            what: &format!("trying {rate:.0} a second"),
            with_kills: false,
            drain_ms: limits::TRIAL_DRAIN_MS,
        })?;
        let phase = measured.phase;
        let left = measured.drained_after_ms.map_or_else(|| self.left(), |_| 0);
        self.recorder.gather();
        let counts = self.recorder.counts(ACK, phase);
        let p99_ms = |op| self.recorder.latency(op, phase).p99_ms();
        let (ack_p99_ms, deliver_p99_ms) = (p99_ms(ACK), p99_ms(DELIVER));
        let trial = Trial {
            rate,
            // A late start is in the latency already.
            held: left == 0 && counts.dropped == 0 && ack_p99_ms.max(deliver_p99_ms) <= target_ms,
            acknowledged_per_second: measured.counts_at_end.0 as f64 / measured.seconds,
            ack_p99_ms,
            deliver_p50_ms: self.recorder.latency(DELIVER, phase).percentiles().p50,
            deliver_p99_ms,
            left,
            late_starts: counts.late,
            dropped_starts: counts.dropped,
        };
        Ok((trial, measured))
    }

    /// A trial, and whether the bench was its limit.
    pub(crate) fn judged_trial(
        &mut self,
        rate: f64,
        for_ms: u64,
        target_ms: f64,
    ) -> Result<(Trial, Generator), RunError> {
        let before = self.fleet.totals();
        let (trial, measured) = self.trial_of(rate, for_ms, target_ms)?;
        if measured.ended_early {
            return Err(RunError::Interrupted);
        }
        let starts = (rate * for_ms as f64 / 1e3) as u64;
        let late = trial.late_starts + trial.dropped_starts;
        let generator = Generator::judge(self.fleet.threads(), &before, &self.fleet.totals(), starts, late);
        Ok((trial, generator))
    }
}
