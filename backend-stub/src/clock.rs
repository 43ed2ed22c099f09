//! The clocks of the process. Machines are told the time; only their owners look at it.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::logic::At;

/// A machine's clock that stands further back than this behind what was written last is believed: rather was the clock
/// of then wrong, and to hold on to it would make all new ids of uploads look old.
pub const HOLD_MAX_MS: u64 = 2 * 24 * 3600 * 1000;

/// Monotonic time since the process began to serve, and a wall clock that never goes back: ids of uploads and their
/// memory are by it, and what was given yesterday's date by a clock that jumped would be from the future.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
    start_unix_ms: u64,
    offset_ms: i64,
}

impl Clock {
    pub fn start() -> Self {
        Self::start_after(0, 0).0
    }

    /// A clock that is not behind what was written last. `offset_ms` makes the machine's clock wrong, for tests. Gives
    /// a line for the operator when the machine's clock is behind.
    pub fn start_after(written_unix_ms: u64, offset_ms: i64) -> (Self, Option<String>) {
        let machine_ms = unix_ms().saturating_add_signed(offset_ms);
        let (start_unix_ms, line) = held(machine_ms, written_unix_ms);
        (Self { start: Instant::now(), start_unix_ms, offset_ms }, line)
    }

    pub fn now_us(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }

    pub fn now_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    pub fn at(&self) -> At {
        let now_ms = self.now_ms();
        let machine_ms = unix_ms().saturating_add_signed(self.offset_ms);
        At { now_ms, unix_ms: machine_ms.max(self.start_unix_ms + now_ms) }
    }
}

/// The wall clock to begin with.
fn held(machine_ms: u64, written_unix_ms: u64) -> (u64, Option<String>) {
    let behind_ms = written_unix_ms.saturating_sub(machine_ms);
    let behind_s = behind_ms / 1000;
    if behind_s == 0 {
        return (machine_ms, None);
    }
    if behind_ms > HOLD_MAX_MS {
        let line = format!(
            "the clock of this machine is {behind_s} s behind what was written last, and is believed; if it is wrong, \
             stop, set it and start again: uploads that were made meanwhile are refused as from the future"
        );
        return (machine_ms, Some(line));
    }
    let line = format!(
        "the clock of this machine is {behind_s} s behind what was written last: going on from there; set the clock"
    );
    (written_unix_ms, Some(line))
}

/// Milliseconds since 1970 by the machine's clock. A clock before that says 0.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 24 * 3600 * 1000;

    #[test]
    fn a_clock_that_jumped_back_goes_on_from_what_was_written_last() {
        let now = 1_800_000_000_000;
        assert_eq!(held(now, 0), (now, None));
        assert_eq!(held(now, now - 5_000), (now, None));
        let (start, line) = held(now - DAY_MS, now);
        assert_eq!(start, now);
        assert!(line.is_some_and(|line| line.contains("86400 s behind")));
    }

    #[test]
    fn a_date_that_is_far_ahead_is_not_kept_for_ever() {
        let now = 1_800_000_000_000;
        let (start, line) = held(now, now + HOLD_MAX_MS + 1_000);
        assert_eq!(start, now);
        assert!(line.is_some_and(|line| line.contains("is believed")));
    }

    #[test]
    fn it_never_goes_back_while_the_machine_does() {
        let (clock, _) = Clock::start_after(0, 0);
        let before = clock.at().unix_ms;
        let jumped = Clock { offset_ms: -(DAY_MS as i64), ..clock };
        assert!(jumped.at().unix_ms >= before);
        let ahead = Clock { offset_ms: DAY_MS as i64, ..clock };
        assert!(ahead.at().unix_ms >= before + DAY_MS);
    }
}
