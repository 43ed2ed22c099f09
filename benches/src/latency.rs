//! Latencies: from the intended time, so that a stalled sender does not hide a stalled server.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Microseconds, three digits, up to ten minutes.
#[derive(Debug, Clone)]
pub struct Latency(Histogram<u32>);

/// What is reported of one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Percentiles {
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

const LONGEST_US: u64 = 600_000_000;

/// Points of the curve in each halving of the distance to 100 %.
const CURVE_STEPS: u32 = 4;

impl Default for Latency {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST_US, 3).expect("bounds that a histogram can have"))
    }
}

impl Latency {
    /// Records what happened at `now_us` and should have begun at `intended_us`.
    pub fn record(&mut self, intended_us: u64, now_us: u64) {
        self.0.saturating_record(now_us.saturating_sub(intended_us).max(1));
    }

    pub fn add(&mut self, other: &Latency) {
        self.0.add(&other.0).expect("equal bounds");
    }

    pub fn clear(&mut self) {
        self.0.reset();
    }

    /// For those who write it to a file.
    pub fn histogram(&self) -> &Histogram<u32> {
        &self.0
    }

    /// (share, ms) from the median to the maximum, denser towards the end: what a percentile plot draws.
    pub fn curve(&self) -> Vec<(f64, f64)> {
        let mut curve: Vec<(f64, f64)> = Vec::new();
        for value in self.0.iter_quantiles(CURVE_STEPS) {
            let point = (value.quantile_iterated_to(), value.value_iterated_to() as f64 / 1e3);
            if curve.last() != Some(&point) {
                curve.push(point);
            }
        }
        curve
    }

    pub fn count(&self) -> u64 {
        self.0.len()
    }

    pub fn p99_ms(&self) -> f64 {
        self.at(0.99)
    }

    pub fn percentiles(&self) -> Percentiles {
        Percentiles {
            p50: self.at(0.5),
            p99: self.at(0.99),
            p999: self.at(0.999),
            max: if self.0.is_empty() { 0.0 } else { self.0.max() as f64 / 1e3 },
        }
    }

    fn at(&self, quantile: f64) -> f64 {
        if self.0.is_empty() { 0.0 } else { self.0.value_at_quantile(quantile) as f64 / 1e3 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_shows_in_all_that_should_have_begun_in_it() {
        // 100 messages, one a millisecond; the sender sleeps from 10 ms to 60 ms, the server answers at once.
        let mut latency = Latency::default();
        for intended_ms in 0..100_u64 {
            let sent_ms = if (10..60).contains(&intended_ms) { 60 } else { intended_ms };
            latency.record(intended_ms * 1_000, sent_ms * 1_000 + 100);
        }
        let told = latency.percentiles();
        assert!(told.p50 > 0.0 && told.max >= 50.0, "{told:?}");
        assert!(told.p99 > 45.0, "half of the messages waited, up to 50 ms: {told:?}");
    }

    #[test]
    fn the_curve_rises_to_the_maximum() {
        let mut latency = Latency::default();
        (1..=10_000).for_each(|us| latency.record(0, us));
        let curve = latency.curve();
        assert!(curve.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{curve:?}");
        assert!((20..120).contains(&curve.len()));
        assert_eq!(curve.last().map(|last| last.0), Some(1.0));
        let median = curve.iter().find(|point| point.0 >= 0.5).expect("a median");
        assert!((4.9..5.1).contains(&median.1), "{median:?}");
        latency.clear();
        assert!(latency.curve().is_empty() && latency.count() == 0);
    }

    #[test]
    fn nothing_is_zero() {
        let told = Latency::default().percentiles();
        assert_eq!((told.p50, told.max), (0.0, 0.0));
    }
}
