//! Every bound of the connections, and why it is what it is.

/// Connections at once. A shard of a gateway has one or two, so this is some hundred gateways.
pub const MAX_CONNECTIONS: usize = 4096;

/// What is asked of the kernel in one read: little of a peer that may say one thing and go, twice as much each time that a
/// read took all of it, up to the second.
pub const READ_BYTES: usize = 4 * 1024;
pub const READ_MAX_BYTES: usize = 256 * 1024;

/// Reads in a row that took less than an eighth of the buffer, after which it shrinks.
pub const CALM_READS: u32 = 64;

/// Bodies out of less than this are copied from the buffer, those out of more keep it: so what a handler holds keeps at most
/// sixteen times of what came with it.
pub const COPY_BYTES: usize = 16 * 1024;

/// Bytes that wait for one peer. Beyond the first no more calls of that peer are read; beyond the second,
/// reached only by the answers of calls that were admitted before and by news, it is closed.
pub const OUT_SOFT_BYTES: usize = 1024 * 1024;
pub const OUT_MAX_BYTES: usize = 16 * 1024 * 1024;

/// What a buffer may keep once it is empty.
pub const KEEP_BYTES: usize = 256 * 1024;

/// Calls held at once for one connection, as its caller is told.
pub const CREDIT: u32 = 4096;

/// Handlers at once for one connection. A call that was given up leaves its handler running for a while;
/// a caller that only makes and cancels calls is refused here.
pub const MAX_HANDLERS: usize = 2 * CREDIT as usize;

/// Lines of one kind in a log, in a second.
pub const LOG_LINES_PER_SECOND: u32 = 10;

/// Bytes of a bad frame that its log line shows.
pub const SHOWN_BYTES: usize = 32;

/// The timers look round at least this often, and at most this often.
pub const TICK_MAX_MS: u64 = 500;
pub const TICK_MIN_MS: u64 = 5;
