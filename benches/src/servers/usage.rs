//! What a server uses, over all its lives: a killed one's CPU time is not forgotten.

/// Readings of one server.
#[derive(Debug, Clone, Copy, Default)]
pub struct Meters {
    pid: Option<u32>,
    /// CPU time of earlier lives.
    ended_us: u64,
    /// The last reading of this life, which a kill makes final.
    last_us: u64,
}

/// A reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    pub cpu_us: u64,
    pub rss_bytes: u64,
}

impl Meters {
    pub fn of(pid: u32) -> Self {
        Self { pid: Some(pid), ..Self::default() }
    }

    /// A server that may not be known.
    pub fn maybe(pid: Option<u32>) -> Self {
        Self { pid, ..Self::default() }
    }

    /// None when its process is not known, or is of another machine or user.
    pub fn read(&mut self) -> Option<Usage> {
        let pid = self.pid?;
        self.last_us = tuning::proc_cpu_us(pid).ok()?;
        Some(Usage { cpu_us: self.ended_us + self.last_us, rss_bytes: tuning::proc_memory(pid).ok()? })
    }

    pub(super) fn of_this_life_us(&mut self) -> Option<u64> {
        self.read()?;
        Some(self.last_us)
    }

    pub(super) fn before_kill(&mut self) {
        let _ = self.read();
        self.ended_us += std::mem::take(&mut self.last_us);
    }

    pub(super) fn after_restart(&mut self, pid: u32) {
        self.pid = Some(pid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_of_earlier_lives_counts() {
        let own = std::process::id();
        let mut meters = Meters { pid: Some(own), ended_us: 5_000_000, last_us: 0 };
        let first = meters.read().expect("own process");
        assert!(first.cpu_us >= 5_000_000 && first.rss_bytes > 0);
        meters.before_kill();
        meters.after_restart(own);
        assert!(meters.read().expect("own process").cpu_us >= first.cpu_us);
        assert_eq!(Meters::maybe(None).read(), None);
    }
}
