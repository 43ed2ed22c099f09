//! How long a busy shard waits for company before its turn.
//!
//! A turn with two completions in it costs the kernel as many switches, wake-ups and writes to a backend as one with
//! sixty. So a shard to which much comes waits until some completions are there, or for a millisecond, which no phone
//! can tell from its network. A shard to which less comes than would make company answers at once.

use std::time::Duration;

use gateway_ring::Wait;

use crate::limits;

/// How much comes.
pub struct Gather {
    /// 0: never wait for company.
    for_us: u64,
    /// Completions are counted from here, on the shard's clock.
    since_us: u64,
    count: u64,
    is_busy: bool,
}

impl Gather {
    pub fn new(for_us: u32) -> Self {
        Self { for_us: for_us.into(), since_us: 0, count: 0, is_busy: false }
    }

    /// A turn took so many completions.
    pub fn took(&mut self, completions: usize, now_us: u64) {
        self.count += completions as u64;
        let counted_us = now_us.saturating_sub(self.since_us);
        if counted_us >= self.for_us * limits::GATHER_COUNTED_TIMES {
            self.is_busy = self.count * self.for_us >= limits::GATHER_WORTH * counted_us.max(1);
            (self.since_us, self.count) = (now_us, 0);
        }
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

    /// After a while in which a turn of `completions` came every `every_us`.
    fn after(completions: usize, every_us: u64, for_us: u32) -> Gather {
        let mut gather = Gather::new(for_us);
        for turn in 1..=1_000 {
            gather.took(completions, turn * every_us);
        }
        gather
    }

    #[test]
    fn a_shard_gathers_while_much_comes() {
        let mut gather = after(1, 50, 1_000);
        let wait = gather.wait(LONG, 9_000);
        assert_eq!(
            (wait.min_complete, wait.min_wait),
            (limits::GATHER_ENOUGH, Some(Duration::from_micros(1_000)))
        );
        gather.took(1, 1_000_000);
        let wait = gather.wait(LONG, 9_000);
        assert_eq!(
            (wait.min_complete, wait.min_wait, wait.timeout),
            (1, None, Some(LONG)),
            "silence has passed"
        );
    }

    #[test]
    fn what_comes_seldom_is_no_company_in_one_turn_or_in_many() {
        assert_eq!(after(1, 500, 1_000).wait(LONG, 9_000).min_wait, None);
        assert_eq!(after(200, 100_000, 1_000).wait(LONG, 9_000).min_wait, None, "bursts of a beat's second");
        assert!(after(50, 1_000, 1_000).wait(LONG, 9_000).min_wait.is_some(), "gathering goes on");
    }

    #[test]
    fn a_few_sessions_are_not_waited_for_and_of_some_only_a_part() {
        assert_eq!(after(1, 50, 1_000).wait(LONG, 31).min_complete, 1);
        assert_eq!(after(1, 50, 1_000).wait(LONG, 31).min_wait, None);
        assert_eq!(after(1, 50, 1_000).wait(LONG, 160).min_complete, 10);
    }

    #[test]
    fn nothing_waits_longer_than_it_may() {
        let gather = after(1, 50, 1_000);
        assert_eq!(gather.wait(Duration::from_micros(200), 9_000).min_wait, Some(Duration::from_micros(200)));
        assert_eq!(gather.wait(Duration::ZERO, 9_000).min_complete, 0);
        assert_eq!(after(1, 50, 0).wait(LONG, 9_000).min_wait, None, "switched off");
    }
}
