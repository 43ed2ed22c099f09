//! Every bound of the tests' own machinery, and why.

/// How often a wait looks again: short beside any start-up, long beside the cost of a look.
pub const POLL_EVERY_MS: u64 = 20;

/// How long a process may take to be ready. A gateway is ready in well under a second; two cores that also
/// compile, and a store that replays its journal, are the reason for the rest.
pub const READY_WITHIN_MS: u64 = 120_000;

/// How long a process may take to stop after SIGTERM before that is a failure.
pub const STOP_WITHIN_MS: u64 = 30_000;

/// How long one look at `/healthz` may take.
pub const HEALTH_WITHIN_MS: u64 = 1_000;

/// What is read of an HTTP answer. `/metrics` is the largest that a test asks for.
pub const HTTP_ANSWER_MAX: u64 = 4 << 20;

/// How much of a process's log is printed when a test fails.
pub const LOG_TAIL_BYTES: usize = 16 << 10;

/// Test ports are looked for from here to the kernel's own range of local ports.
pub const PORT_LOWEST: u16 = 12_000;

/// How many ports are tried before giving up.
pub const PORT_TRIES: u32 = 2_000;

/// Complaints kept in words; the rest are counted.
pub const COMPLAINTS_MAX: usize = 20;

/// How long a whole system may take for what it does in well under a second: two cores that also compile.
pub const SOON_MS: u64 = 30_000;

/// Bytes read from a phone's socket at once.
pub const READ_BYTES: usize = 64 << 10;

/// Longest sleep of the fleet's loop, so that a condition is looked at again.
pub const FLEET_TURN_MAX_MS: u64 = 20;

/// A message that was not taken is sent again after this, with the id it had.
pub const RESEND_AFTER_MS: u64 = 100;

/// How long one read or write of a bare phone may take.
pub const WIRE_WITHIN_MS: u64 = 20_000;
