//! The rate that all sides of a work do, and the rounds that they take in turns.

use super::{CompareError, Stage};
use crate::peers::limits;
use crate::peers::side::{Deed, Round, Side};

impl Stage<'_> {
    /// The highest rate that all sides do: found for each, then the lowest of them and a little less.
    pub(super) fn rate(
        &mut self,
        sides: &mut [(&mut Box<dyn Side>, Deed)],
        from: f64,
        units: f64,
    ) -> Result<f64, CompareError> {
        if let Some(rate) = self.options.rate {
            return Ok(rate / units);
        }
        let mut lowest = f64::INFINITY;
        for (side, deed) in sides {
            let (mut rate, mut good, mut factor) = (from, 0.0, 2.0_f64);
            for _ in 0..limits::SEARCH_STEPS_MAX {
                let round = side.round(*deed, rate, units, limits::SEARCH_ROUND_MS)?;
                self.progress.line(&format!(
                    "{}: {:.0} a second: {:.0} % done, server {:.0} % busy, bench {:.0} %",
                    side.name(),
                    rate * units,
                    round.done_share * 100.0,
                    round.server_busy * 100.0,
                    round.bench_busy * 100.0
                ));
                if round.done_share >= limits::DRIVEN_SHARE {
                    good = rate;
                } else {
                    // Back to what was good, and on in smaller steps.
                    factor = factor.sqrt();
                    rate = if good > 0.0 { good } else { rate / 4.0 };
                }
                if factor < 1.1 || good >= lowest {
                    break;
                }
                rate *= factor;
            }
            if good == 0.0 {
                return Err(CompareError::NoRate(side.name()));
            }
            lowest = lowest.min(good);
        }
        Ok(lowest * limits::RATE_SHARE)
    }

    /// A-B-A-B: the rounds of all sides in turn, at one rate.
    pub(super) fn rounds(
        &mut self,
        sides: &mut [(&mut Box<dyn Side>, Deed)],
        rate: f64,
        units: f64,
    ) -> Result<Vec<Vec<Round>>, CompareError> {
        let mut all: Vec<Vec<Round>> = sides.iter().map(|_| Vec::new()).collect();
        for number in 1..=self.options.rounds {
            for ((side, deed), rounds) in sides.iter_mut().zip(&mut all) {
                let round = side.round(*deed, rate, units, self.options.round_ms)?;
                self.progress.line(&format!(
                    "round {number} of {}, {}: {:.2} us, {:.0} % done, server {:.0} % busy, bench {:.0} %",
                    self.options.rounds,
                    side.name(),
                    round.cpu_us_per_unit,
                    round.done_share * 100.0,
                    round.server_busy * 100.0,
                    round.bench_busy * 100.0
                ));
                rounds.push(round);
            }
        }
        Ok(all)
    }

    pub(super) fn connect_all(&mut self, sides: &mut [&mut Box<dyn Side>]) -> Result<(), CompareError> {
        for side in sides {
            let clients = side.clients();
            self.progress.line(&format!("{}: {clients} connections", side.name()));
            side.connect(clients)?;
        }
        Ok(())
    }
}
