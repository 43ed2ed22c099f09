//! A log that a flood of bad peers cannot fill.

use std::cell::Cell;

use super::limits;

/// Lets some lines a second through and counts the rest.
#[derive(Default)]
pub struct Quiet {
    second: Cell<u64>,
    lines: Cell<u32>,
    dropped: Cell<u64>,
}

impl Quiet {
    /// Whether a line may be written now; if so, how many were kept back since the last one.
    pub fn admit(&self, now_ms: u64) -> Option<u64> {
        if self.second.replace(now_ms / 1000) != now_ms / 1000 {
            self.lines.set(0);
        }
        if self.lines.get() >= limits::LOG_LINES_PER_SECOND {
            self.dropped.set(self.dropped.get() + 1);
            return None;
        }
        self.lines.set(self.lines.get() + 1);
        Some(self.dropped.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_bound_are_counted_and_told_later() {
        let quiet = Quiet::default();
        let written = (0..25).filter(|_| quiet.admit(5_000).is_some()).count();
        assert_eq!(written, 10);
        assert_eq!(quiet.admit(6_000), Some(15));
        assert_eq!(quiet.admit(6_001), Some(0));
    }
}
