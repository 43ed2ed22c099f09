//! Medians and their intervals: CPU figures swing from round to round, and a ratio without its interval says nothing.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;

/// Draws of a bootstrap: the ends of the interval are then good to about a percent of its width.
const DRAWS: usize = 2_000;

/// A median, and where it lies with 95 %.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

/// The median of the rounds' ratios `over[i] / under[i]`. Rounds that follow each other share the machine's mood, so
/// they are compared in pairs.
pub fn ratio(over: &[f64], under: &[f64]) -> Option<Estimate> {
    let pairs: Vec<f64> =
        over.iter().zip(under).filter(|(_, under)| **under > 0.0).map(|(over, under)| over / under).collect();
    let middle = median(&pairs)?;
    let mut random = StdRng::seed_from_u64(pairs.len() as u64);
    let mut medians: Vec<f64> = (0..DRAWS)
        .filter_map(|_| {
            let drawn: Vec<f64> = pairs.iter().map(|_| pairs[random.random_range(0..pairs.len())]).collect();
            median(&drawn)
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    let at = |share: f64| medians[((medians.len() - 1) as f64 * share).round() as usize];
    Some(Estimate { median: middle, low: at(0.025), high: at(0.975) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0, f64::NAN]), Some(2.5));
    }

    #[test]
    fn a_ratio_is_of_pairs_and_its_interval_holds_it() {
        // Both sides slow down together: the pairs agree though the rounds do not.
        let under: Vec<f64> = (1..=15).map(f64::from).collect();
        let over: Vec<f64> = under.iter().map(|value| value * 2.0).collect();
        assert_eq!(ratio(&over, &under), Some(Estimate { median: 2.0, low: 2.0, high: 2.0 }));
        let noisy: Vec<f64> =
            under.iter().enumerate().map(|(at, value)| value * if at % 3 == 0 { 3.0 } else { 2.0 }).collect();
        let told = ratio(&noisy, &under).expect("a ratio");
        assert!(told.low <= told.median && told.median <= told.high && told.high > 2.0, "{told:?}");
        assert_eq!(ratio(&[1.0], &[0.0]), None);
    }
}
