//! The ratio of two medians, and where it lies when the reports are drawn again.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Resamplings: the ends of the interval are then good to a percent of its width.
const RESAMPLINGS: usize = 4_000;

#[derive(Debug, PartialEq)]
pub(super) struct Ratio {
    pub a: f64,
    pub b: f64,
    pub ratio: f64,
    pub interval: Option<(f64, f64)>,
}

/// None when a side is empty, or nothing can be divided by.
pub(super) fn ratio(a: &[f64], b: &[f64]) -> Option<Ratio> {
    let (median_a, median_b) = (median(a.to_vec())?, median(b.to_vec())?);
    if median_a <= 0.0 {
        return None;
    }
    let interval = (a.len() > 1 && b.len() > 1).then(|| bootstrap(a, b));
    Some(Ratio { a: median_a, b: median_b, ratio: median_b / median_a, interval })
}

/// Between which the ratio lies in 95 of 100 resamplings.
fn bootstrap(a: &[f64], b: &[f64]) -> (f64, f64) {
    // Always the same draw, so that a verdict can be repeated.
    let mut random = StdRng::seed_from_u64(1);
    let mut draw = |side: &[f64]| {
        let drawn = (0..side.len()).map(|_| side[random.random_range(0..side.len())]).collect();
        median(drawn).unwrap_or(0.0)
    };
    let ratios = (0..RESAMPLINGS).map(|_| {
        let (of_a, of_b) = (draw(a), draw(b));
        of_b / of_a.max(f64::MIN_POSITIVE)
    });
    let mut ratios: Vec<f64> = ratios.collect();
    ratios.sort_by(f64::total_cmp);
    let at = |share: f64| ratios[((RESAMPLINGS - 1) as f64 * share).round() as usize];
    (at(0.025), at(0.975))
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_holds_the_truth_and_knows_noise() {
        let mut random = StdRng::seed_from_u64(7);
        let mut draw = |mean: f64, noise: f64| -> Vec<f64> {
            (0..15).map(|_| mean * (1.0 + noise * (random.random::<f64>() - 0.5))).collect()
        };
        let quiet = ratio(&draw(10.0, 0.02), &draw(12.0, 0.02)).expect("a ratio");
        let (low, high) = quiet.interval.expect("repeats");
        assert!(low > 1.17 && high < 1.23 && low < high, "{quiet:?}");
        let noisy = ratio(&draw(10.0, 1.0), &draw(10.5, 1.0)).expect("a ratio");
        let (low, high) = noisy.interval.expect("repeats");
        assert!(low < 1.0 && high > 1.0, "{noisy:?}");
    }

    #[test]
    fn one_report_has_no_interval_and_nothing_has_no_ratio() {
        assert_eq!(ratio(&[4.0], &[5.0]), Some(Ratio { a: 4.0, b: 5.0, ratio: 1.25, interval: None }));
        assert_eq!(ratio(&[0.0], &[5.0]), None);
        assert_eq!(ratio(&[], &[5.0]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0, 10.0]), Some(2.5));
    }
}
