//! The highest rate that holds, whatever holding means to who asks.

/// Where a search begins, where it gives up, and how often it halves what it does not know.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub from: f64,
    pub to: f64,
    pub steps: u32,
}

/// Doubles the rate until it does not hold, or halves it until it does, then halves the distance. Gives the highest
/// that held, if any, and all trials in their order. `trial` says whether a rate held.
pub fn highest<T, E>(
    bounds: &Bounds,
    mut trial: impl FnMut(f64) -> Result<(bool, T), E>,
) -> Result<(Option<f64>, Vec<T>), E> {
    let mut trials = Vec::new();
    let (mut held, mut failed) = (None, None);
    let mut rate = bounds.from;
    while (held.is_none() || failed.is_none()) && (bounds.from / HALVINGS_BELOW..=bounds.to).contains(&rate) {
        let (holds, told) = trial(rate)?;
        trials.push(told);
        if holds {
            held = Some(rate);
            rate *= 2.0;
        } else {
            failed = Some(rate);
            rate /= 2.0;
        }
    }
    if let (Some(mut low), Some(mut high)) = (held, failed) {
        for _ in 0..bounds.steps {
            let middle = (low + high) / 2.0;
            let (holds, told) = trial(middle)?;
            trials.push(told);
            if holds {
                low = middle;
            } else {
                high = middle;
            }
        }
        held = Some(low);
    }
    Ok((held, trials))
}

/// A start that does not hold is halved down to this share of it.
const HALVINGS_BELOW: f64 = 64.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn find(limit: f64, from: f64) -> (Option<f64>, usize) {
        let bounds = Bounds { from, to: 1e6, steps: 6 };
        let found = highest(&bounds, |rate| Ok::<_, ()>((rate <= limit, rate))).expect("no trial fails");
        assert!(found.1.iter().all(|rate| *rate <= 1e6));
        (found.0, found.1.len())
    }

    #[test]
    fn the_limit_is_found_from_below_and_from_above() {
        for (limit, from) in
            [(23_456.0, 1_000.0), (23_456.0, 500_000.0), (1_000.0, 1_000.0), (99_000.0, 98_000.0)]
        {
            let (found, trials) = find(limit, from);
            let found = found.expect("something holds");
            assert!(found <= limit && found > limit * 0.97, "{found} of {limit} from {from}");
            assert!(trials < 20, "{trials}");
        }
    }

    #[test]
    fn nothing_holds_or_everything_does() {
        assert_eq!(find(0.0, 1_000.0).0, None);
        assert_eq!(find(f64::INFINITY, 1_000.0).0, Some(512_000.0));
    }
}
