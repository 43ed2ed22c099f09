//! The clocks of the process. Machines are told the time; only their owners look at it.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::logic::At;

/// Monotonic time since the process began to serve, and the wall clock.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    pub fn start() -> Self {
        Self(Instant::now())
    }

    pub fn now_us(&self) -> u64 {
        self.0.elapsed().as_micros() as u64
    }

    pub fn now_ms(&self) -> u64 {
        self.0.elapsed().as_millis() as u64
    }

    pub fn at(&self) -> At {
        At { now_ms: self.now_ms(), unix_ms: unix_ms() }
    }
}

/// Milliseconds since 1970. A clock before that says 0.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
