//! When phones want to be called: a heap in which a phone stands once, or a few times with old entries that are
//! skipped.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// No timer.
pub const NEVER: u64 = u64::MAX;

#[derive(Debug, Default)]
pub struct Timers(BinaryHeap<Reverse<(u64, u32)>>);

impl Timers {
    /// Makes sure that `line` is called at `due_ms` at the latest. `armed_ms` is the line's own word of when it is
    /// called next; a later due needs nothing, since the call re-arms.
    pub fn arm(&mut self, line: u32, due_ms: u64, armed_ms: &mut u64) {
        if due_ms < *armed_ms {
            *armed_ms = due_ms;
            self.0.push(Reverse((due_ms, line)));
        }
    }

    /// A line that is due, and the time it was armed for: an old entry when its `armed_ms` says otherwise.
    pub fn pop(&mut self, now_ms: u64) -> Option<(u64, u32)> {
        let Reverse((due_ms, _)) = *self.0.peek()?;
        (due_ms <= now_ms).then(|| self.0.pop().map(|Reverse(entry)| entry))?
    }

    pub fn next_ms(&self) -> u64 {
        self.0.peek().map_or(NEVER, |Reverse((due_ms, _))| *due_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_earlier_time_counts_and_the_old_entry_is_told_apart() {
        let mut timers = Timers::default();
        let mut armed = NEVER;
        timers.arm(3, 500, &mut armed);
        timers.arm(3, 900, &mut armed);
        timers.arm(3, 200, &mut armed);
        assert_eq!((armed, timers.next_ms()), (200, 200));
        assert_eq!(timers.pop(199), None);
        assert_eq!(timers.pop(1000), Some((200, 3)));
        assert_eq!(timers.pop(1000), Some((500, 3)), "500 is not what the line was armed for: old");
        assert_eq!(timers.pop(1000), None);
    }
}
