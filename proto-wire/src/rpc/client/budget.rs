//! Retries are paid for by calls, so that they never make an overload worse than by their share.

use super::limits;

/// In hundredths of a retry.
#[derive(Debug)]
pub struct Budget {
    saved: u32,
    percent: u32,
}

impl Budget {
    /// At most `percent` retries for a hundred calls, beside a reserve.
    pub fn new(percent: u32) -> Self {
        Self { saved: if percent == 0 { 0 } else { limits::BUDGET_RESERVE * 100 }, percent }
    }

    /// A call was made.
    pub fn deposit(&mut self) {
        self.saved = (self.saved + self.percent).min(limits::BUDGET_MAX * 100);
    }

    /// Whether a retry is paid for; if so, it is.
    pub fn take(&mut self) -> bool {
        let left = self.saved.checked_sub(100);
        self.saved = left.unwrap_or(self.saved);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn retries_never_pass_their_share(percent in 0u32..50, steps in proptest::collection::vec(0u8..20, 1..2000)) {
            let mut budget = Budget::new(percent);
            let (mut calls, mut retries) = (0u32, 0u32);
            for step in steps {
                budget.deposit();
                calls += 1;
                for _ in 0..step {
                    retries += u32::from(budget.take());
                }
                let reserve = if percent == 0 { 0 } else { limits::BUDGET_RESERVE };
                prop_assert!(retries * 100 <= reserve * 100 + calls * percent);
            }
        }
    }

    #[test]
    fn what_is_saved_has_an_end() {
        let mut budget = Budget::new(10);
        (0..1_000_000).for_each(|_| budget.deposit());
        assert_eq!((0..1000).filter(|_| budget.take()).count(), limits::BUDGET_MAX as usize);
    }
}
