//! Every bound of a client, and why it is what it is.

/// Callees of one client. All are looked at for each call by key, some 2 ns each.
pub const MAX_ENDPOINTS: usize = 256;

/// Times that one call is made, the first included, whatever is configured. More in a row is no accident any more.
pub const MAX_ATTEMPTS: u8 = 5;

/// Calls that never left may go elsewhere so often beside that: it costs no callee anything.
pub const MAX_MOVES: u8 = 8;

/// Retries that a client may make before its calls have paid for any, and the most that it saves up: a client that was
/// quiet for a day must not make an outage worse for ten times as long.
pub const BUDGET_RESERVE: u32 = 10;
pub const BUDGET_MAX: u32 = 100;

/// The share of its load, in thousandths, that an endpoint begins with when it comes or comes back.
pub const SLOW_START_MIN: u32 = 100;

/// Doublings of the time for which an endpoint is ejected.
pub const MAX_DOUBLINGS: u32 = 10;
