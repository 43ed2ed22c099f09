//! Does memory grow? Of its readings over a long run: the slope that outliers do not move, and whether what it adds up to
//! is beyond what allocators do by themselves.

use serde::Serialize;

/// The front of a run in which caches and tables fill.
const WARM_UP_SHARE: f64 = 0.2;
/// Readings that a verdict needs.
const READINGS_MIN: usize = 30;
/// Growth below either is no leak: pages of an allocator, a table that doubled.
const GROWTH_BYTES: f64 = 1024.0 * 1024.0;
const GROWTH_SHARE: f64 = 0.02;
/// Pairs of readings that a slope is drawn from; more are thinned.
const READINGS_FOR_SLOPE_MAX: usize = 400;

#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Leak {
    /// None: too short to tell.
    pub leaks: Option<bool>,
    pub bytes_per_hour: Option<f64>,
    /// After the warm-up, by the slope.
    pub grown_bytes: Option<f64>,
    pub judged_seconds: f64,
    pub verdict: String,
}

impl Leak {
    /// From (second, bytes), in the order of time.
    pub fn judge(readings: &[(f64, f64)]) -> Self {
        let from = (readings.len() as f64 * WARM_UP_SHARE) as usize;
        let judged = &readings[from.min(readings.len())..];
        let seconds = judged.last().zip(judged.first()).map_or(0.0, |(last, first)| last.0 - first.0);
        if judged.len() < READINGS_MIN {
            return Self {
                leaks: None,
                bytes_per_hour: None,
                grown_bytes: None,
                judged_seconds: seconds,
                verdict: format!("too short to judge memory: {} readings after the warm-up", judged.len()),
            };
        }
        let slope = slope(judged);
        let (grown, level) = (slope * seconds, judged[0].1);
        // The last quarter stands above all of the first: a sawtooth that comes back is no leak.
        let quarter = judged.len() / 4;
        let highest_first = judged[..quarter].iter().map(|point| point.1).fold(0.0, f64::max);
        let lowest_last =
            judged[judged.len() - quarter..].iter().map(|point| point.1).fold(f64::INFINITY, f64::min);
        let leaks = grown > GROWTH_BYTES.max(level * GROWTH_SHARE) && lowest_last > highest_first;
        let per_hour = slope * 3_600.0;
        let mib = |bytes: f64| bytes / (1024.0 * 1024.0);
        let verdict = format!(
            "{}: {:+.2} MiB an hour, {:+.2} MiB in the {seconds:.0} s after the warm-up, from {:.2} MiB",
            if leaks { "memory grows" } else { "memory does not grow" },
            mib(per_hour),
            mib(grown),
            mib(level)
        );
        Self {
            leaks: Some(leaks),
            bytes_per_hour: Some(per_hour),
            grown_bytes: Some(grown),
            judged_seconds: seconds,
            verdict,
        }
    }
}

/// The median of the slopes of all pairs (Theil and Sen): a third of the readings may be wrong.
fn slope(readings: &[(f64, f64)]) -> f64 {
    let step = readings.len().div_ceil(READINGS_FOR_SLOPE_MAX);
    let few: Vec<(f64, f64)> = readings.iter().copied().step_by(step).collect();
    let mut slopes: Vec<f64> = Vec::new();
    for (at, from) in few.iter().enumerate() {
        slopes.extend(few[at + 1..].iter().map(|to| (to.1 - from.1) / (to.0 - from.0).max(1e-9)));
    }
    slopes.sort_by(f64::total_cmp);
    slopes.get(slopes.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: f64 = 1024.0 * 1024.0;

    fn judged(bytes: impl Fn(f64) -> f64) -> Leak {
        let readings: Vec<(f64, f64)> = (0..600).map(|s| (f64::from(s), bytes(f64::from(s)))).collect();
        Leak::judge(&readings)
    }

    #[test]
    fn a_leak_is_told_from_a_warm_up_a_sawtooth_and_noise() {
        let leak = judged(|s| 50.0 * MIB + s * 20_000.0 + (s * 7.7).sin() * MIB);
        assert_eq!(leak.leaks, Some(true), "{leak:?}");
        assert!((60.0..75.0).contains(&(leak.bytes_per_hour.expect("a slope") / MIB)), "{leak:?}");
        assert_eq!(judged(|s| 50.0 * MIB + s.min(100.0) * MIB).leaks, Some(false), "a warm-up");
        assert_eq!(judged(|s| 50.0 * MIB + (s % 100.0) * 0.2 * MIB).leaks, Some(false), "a sawtooth");
        assert_eq!(judged(|s| 50.0 * MIB + (s * 7.7).sin() * 5.0 * MIB).leaks, Some(false), "noise");
        assert_eq!(judged(|s| 500.0 * MIB + s * 2_000.0).leaks, Some(false), "within 2 %");
    }

    #[test]
    fn a_short_run_is_not_judged() {
        let leak = Leak::judge(&[(0.0, 1.0), (1.0, 9e9)]);
        assert_eq!(leak.leaks, None);
        assert!(leak.verdict.contains("too short"));
        assert_eq!(Leak::judge(&[]).leaks, None);
    }
}
