//! How long a busy shard waits for company before its turn.
//!
//! A turn with two completions in it costs the kernel as many switches, wake-ups and writes to a backend as one with
//! sixty. So while turns follow each other closely, each waits until some completions are there, or for a fraction of
//! a millisecond, which no phone can tell from its network. A shard whose turns are far apart answers at once.

use std::time::Duration;

use gateway_ring::Wait;

use crate::limits;

/// Whether turns follow each other closely.
pub struct Gather {
    /// 0: never wait for company.
    for_us: u64,
    /// When the last turn began, on the shard's clock.
    turned_us: u64,
    is_busy: bool,
}

impl Gather {
    pub fn new(for_us: u32) -> Self {
        Self { for_us: for_us.into(), turned_us: 0, is_busy: false }
    }

    /// A turn begins.
    pub fn turn(&mut self, now_us: u64) {
        self.is_busy = now_us.saturating_sub(self.turned_us) < self.for_us * limits::GATHER_BUSY_TIMES;
        self.turned_us = now_us;
    }

    /// What to wait for before the next turn, at most for `timeout`, with so many sessions.
    ///
    /// Whoever waits for this shard sends nothing meanwhile, so it must not wait for all of a few: one completion for
    /// [`limits::GATHER_SESSIONS`] sessions is company enough.
    pub fn wait(&self, timeout: Duration, sessions: usize) -> Wait {
        let enough = (sessions / limits::GATHER_SESSIONS).min(limits::GATHER_ENOUGH as usize) as u32;
        let gathers = self.is_busy && enough > 1 && !timeout.is_zero();
        Wait {
            min_complete: if gathers { enough } else { u32::from(!timeout.is_zero()) },
            timeout: Some(timeout),
            min_wait: gathers.then(|| timeout.min(Duration::from_micros(self.for_us))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(1);

    fn busy(for_us: u32) -> Gather {
        let mut gather = Gather::new(for_us);
        gather.turn(1_000_000);
        gather.turn(1_000_400);
        gather
    }

    #[test]
    fn turns_that_follow_each_other_closely_gather_and_others_do_not() {
        let wait = busy(500).wait(LONG, 9_000);
        assert_eq!(
            (wait.min_complete, wait.min_wait),
            (limits::GATHER_ENOUGH, Some(Duration::from_micros(500)))
        );
        let mut gather = busy(500);
        gather.turn(1_100_000);
        let wait = gather.wait(LONG, 9_000);
        assert_eq!((wait.min_complete, wait.min_wait, wait.timeout), (1, None, Some(LONG)));
    }

    #[test]
    fn a_few_sessions_are_not_waited_for_and_of_some_only_a_part() {
        assert_eq!(busy(500).wait(LONG, 31).min_complete, 1);
        assert_eq!(busy(500).wait(LONG, 31).min_wait, None);
        assert_eq!(busy(500).wait(LONG, 160).min_complete, 10);
    }

    #[test]
    fn nothing_waits_longer_than_it_may() {
        let wait = busy(500).wait(Duration::from_micros(200), 9_000);
        assert_eq!(wait.min_wait, Some(Duration::from_micros(200)));
        assert_eq!(busy(500).wait(Duration::ZERO, 9_000).min_complete, 0);
        assert_eq!(busy(0).wait(LONG, 9_000).min_complete, 1, "switched off");
    }
}
