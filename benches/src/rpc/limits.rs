//! Every bound of the comparison, and why it is what it is.

/// From the start of a process until it says that it is ready: a caller warms up for 150 ms.
pub const READY_WITHIN_MS: u64 = 10_000;

/// From the end of its standard input until it is killed.
pub const END_WITHIN_MS: u64 = 2_000;

/// A floor that is slower than this times the fastest of the run is in the kernel's slow mode (5 and 11 us of 16 KiB).
pub const SLOW_FLOOR: f64 = 1.4;

/// Rounds are made again so often at most, by the rounds that are wanted.
pub const ROUNDS_FACTOR_MAX: usize = 3;
