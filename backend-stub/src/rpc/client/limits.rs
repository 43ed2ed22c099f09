//! Every bound of a client, and why it is what it is.

/// What a buffer may keep once it is empty.
pub const KEEP_BYTES: usize = 256 * 1024;

/// Bytes that wait for a callee that does not read, of one connection. The next call is refused: it may go elsewhere.
pub const OUT_MAX_BYTES: usize = 16 * 1024 * 1024;

/// The timers look round at least this often, and at most this often.
pub const TICK_MAX_MS: u64 = 500;
pub const TICK_MIN_MS: u64 = 5;

/// Long connections to one endpoint. More than a few only cost wake-ups.
pub const MAX_CONNECTIONS: usize = 16;

/// Connections of single calls at once. Each is a descriptor, and a port of this host for a minute after its end.
pub const MAX_SHORT: usize = 4096;

/// A file of endpoints is looked at so often.
pub const WATCH_MS: u64 = 500;

/// A file of endpoints that is longer holds no more than the most there may be.
pub const MAX_FILE_BYTES: u64 = 64 * 1024;

/// An endpoint that left the list may answer what it was asked for so long.
pub const LEAVE_MS: u64 = 60_000;

/// A traceparent has 55 bytes. What is much longer is none, and is not carried.
pub const MAX_TRACE_BYTES: usize = 256;
