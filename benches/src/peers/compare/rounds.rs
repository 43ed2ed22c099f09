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
                let round =
                    side.round(*deed, rate, units, whole_starts_ms(rate, units, limits::SEARCH_ROUND_MS))?;
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
                let round =
                    side.round(*deed, rate, units, whole_starts_ms(rate, units, self.options.round_ms))?;
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

/// How long a round is. Where one start leads to thousands of deliveries, a few starts fall into a round, and with a
/// part of one more or less it would seem a rate that it is not: it becomes a whole number of them.
fn whole_starts_ms(rate: f64, units: f64, at_least_ms: u64) -> u64 {
    if units <= 1.0 {
        return at_least_ms;
    }
    let starts = (rate * at_least_ms as f64 / 1e3).ceil().max(limits::STARTS_OF_A_ROUND_MIN);
    (starts * 1e3 / rate).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_of_few_starts_holds_a_whole_number_of_them() {
        assert_eq!(whole_starts_ms(10_000.0, 1.0, 1_000), 1_000);
        assert_eq!(whole_starts_ms(4.0, 15_000.0, 1_000), 1_000);
        assert_eq!(whole_starts_ms(5.0, 15_000.0, 3_000), 3_000);
        assert_eq!(whole_starts_ms(5.2, 15_000.0, 3_000), 3_077, "16 starts");
        assert_eq!(whole_starts_ms(0.5, 15_000.0, 1_000), 8_000, "never fewer than four");
    }
}
