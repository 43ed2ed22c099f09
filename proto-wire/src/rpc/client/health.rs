//! Whether one endpoint takes its share: down, ejected for its failures, or coming back slowly.

use super::limits;

/// When an endpoint is left alone, and for how long.
#[derive(Debug, Clone)]
pub struct HealthConfig {
    /// Failures in a row after which it gets no calls for a while.
    pub eject_after: u32,
    /// For how long the first time; doubled each time that it fails at once when it comes back.
    pub eject_ms: u64,
    pub eject_max_ms: u64,
    /// From its return until it has its full share again.
    pub slow_start_ms: u64,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self { eject_after: 5, eject_ms: 1_000, eject_max_ms: 60_000, slow_start_ms: 10_000 }
    }
}

/// One endpoint.
#[derive(Debug, Default)]
pub struct Health {
    /// It could not be connected to, or takes no new calls. Its connection tells when that is over.
    is_down: bool,
    /// In a row.
    failures: u32,
    ejected_until_ms: Option<u64>,
    /// In a row, each right after the return from the last.
    ejections: u32,
    /// Since when it takes calls again, while it has not its full share.
    returned_at_ms: Option<u64>,
}

impl Health {
    /// One that joins others, which have their share already.
    pub fn joining(now_ms: u64) -> Self {
        Self { returned_at_ms: Some(now_ms), ..Self::default() }
    }

    pub fn is_down(&self) -> bool {
        self.is_down
    }

    pub fn is_ejected(&self) -> bool {
        self.ejected_until_ms.is_some()
    }

    /// Ends what is over by now. Call it before the others.
    pub fn refresh(&mut self, config: &HealthConfig, now_ms: u64) {
        if self.ejected_until_ms.is_some_and(|until_ms| until_ms <= now_ms) {
            self.ejected_until_ms = None;
            self.returned_at_ms = Some(now_ms);
            // On trial: the first failure ejects it again.
            self.failures = config.eject_after.saturating_sub(1);
        }
        if self.returned_at_ms.is_some_and(|at_ms| now_ms >= at_ms.saturating_add(config.slow_start_ms)) {
            self.returned_at_ms = None;
            self.ejections = 0;
        }
    }

    /// Its share of its load, in thousandths.
    pub fn share(&self, config: &HealthConfig, now_ms: u64) -> u32 {
        let Some(at_ms) = self.returned_at_ms else { return 1000 };
        let part = now_ms.saturating_sub(at_ms).saturating_mul(1000) / config.slow_start_ms.max(1);
        (part.min(1000) as u32).max(limits::SLOW_START_MIN)
    }

    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// A call failed. `may_eject`: enough others are left. Gives whether it is ejected now.
    pub fn failed(&mut self, config: &HealthConfig, may_eject: bool, now_ms: u64) -> bool {
        self.failures = self.failures.saturating_add(1);
        if self.failures < config.eject_after || !may_eject || self.is_ejected() {
            return false;
        }
        let doubled = config.eject_ms.saturating_mul(1 << self.ejections.min(limits::MAX_DOUBLINGS));
        self.ejected_until_ms = Some(now_ms.saturating_add(doubled.min(config.eject_max_ms)));
        self.ejections += 1;
        self.returned_at_ms = None;
        true
    }

    pub fn handle_up(&mut self, now_ms: u64) {
        if std::mem::take(&mut self.is_down) {
            self.failures = 0;
            self.returned_at_ms = Some(now_ms);
        }
    }

    pub fn handle_down(&mut self) {
        self.is_down = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_eject_and_each_relapse_doubles_the_time() {
        let (config, mut health) = (HealthConfig::default(), Health::default());
        (0..4).for_each(|_| assert!(!health.failed(&config, true, 0)));
        health.succeeded();
        (0..4).for_each(|_| assert!(!health.failed(&config, true, 0)));
        assert!(health.failed(&config, true, 0));
        let mut now_ms = 0;
        for wait_ms in [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000] {
            health.refresh(&config, now_ms + wait_ms - 1);
            assert!(health.is_ejected(), "{wait_ms}");
            now_ms += wait_ms;
            health.refresh(&config, now_ms);
            assert!(!health.is_ejected() && health.share(&config, now_ms) == limits::SLOW_START_MIN);
            assert!(health.failed(&config, true, now_ms));
        }
    }

    #[test]
    fn it_comes_back_slowly_and_is_forgiven_at_the_end() {
        let (config, mut health) = (HealthConfig::default(), Health::default());
        assert_eq!(health.share(&config, 0), 1000);
        assert_eq!((0..5).filter(|_| health.failed(&config, true, 0)).count(), 1);
        health.refresh(&config, 1_000);
        health.succeeded();
        let shares: Vec<u32> =
            [1_000, 3_000, 6_000, 10_999].iter().map(|&ms| health.share(&config, ms)).collect();
        assert_eq!(shares, [100, 200, 500, 999]);
        health.refresh(&config, 11_000);
        assert_eq!((health.share(&config, 11_000), health.ejections), (1000, 0));
    }

    #[test]
    fn the_last_one_is_not_ejected() {
        let (config, mut health) = (HealthConfig::default(), Health::default());
        assert!((0..100).all(|_| !health.failed(&config, false, 0)) && !health.is_ejected());
    }

    #[test]
    fn a_connection_that_stands_again_is_no_full_share_yet() {
        let (config, mut health) = (HealthConfig::default(), Health::default());
        health.handle_up(5);
        assert_eq!(health.share(&config, 5), 1000, "it was never down");
        health.handle_down();
        assert!(health.is_down());
        health.handle_up(5);
        assert_eq!((health.is_down(), health.share(&config, 5)), (false, 100));
    }
}
