//! Waits with full jitter (Brooker, "Exponential Backoff And Jitter", 2015).

use super::config::Backoff;
use crate::random::Random;

impl Backoff {
    /// The wait after `failures` failures in a row, from 1.
    pub(super) fn wait_ms(&self, failures: u32, random: &mut Random) -> u64 {
        let window_ms = match failures {
            0 | 1 => self.first_ms,
            more => self.min_ms.saturating_mul(1 << (more - 2).min(32)),
        };
        random.next() % (window_ms.min(self.max_ms) + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_fill_their_window_and_the_window_grows_to_its_end() {
        let backoff = Backoff { first_ms: 500, min_ms: 1_000, max_ms: 60_000, stable_after_ms: 0 };
        let mut random = Random::new(7);
        for (failures, window_ms) in
            [(1, 500), (2, 1_000), (3, 2_000), (7, 32_000), (8, 60_000), (u32::MAX, 60_000)]
        {
            let waits: Vec<u64> = (0..2_000).map(|_| backoff.wait_ms(failures, &mut random)).collect();
            assert!(waits.iter().all(|&wait| wait <= window_ms));
            assert!(
                waits.iter().any(|&wait| wait < window_ms / 10)
                    && waits.iter().any(|&wait| wait > window_ms / 10 * 9)
            );
        }
    }
}
