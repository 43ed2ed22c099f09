//! Every bound of the operator's tools, and why it is what it is.

/// Rows and bytes of one read of a scan: enough to amortise the hand-over to the reader, and two of them in memory.
pub const SCAN_ROWS: u32 = 4096;
pub const SCAN_BYTES: u32 = 2 * 1024 * 1024;

/// Queries of one read, as the logic has them.
pub const QUERIES: usize = 128;

/// Bytes of one commit of a restore or an erasure: one fdatasync each, and far below the engine's journal.
pub const BATCH_BYTES: usize = 2 * 1024 * 1024;

/// Commits on their way at once: the next ones gather while the disk syncs.
pub const BATCHES_IN_FLIGHT: usize = 4;

/// Characters of a text in a line for a person.
pub const TEXT_CHARS: usize = 60;

/// How often work that takes long says how far it is.
pub const PROGRESS_EVERY_MS: u128 = 2_000;

/// Faults that a check prints; further ones are counted. A person reads no more, and a script has the exit code.
pub const SHOWN_FAULTS: u64 = 1_000;

/// The longest value that a backup may hold: beyond all that the logic writes, so that a damaged length is no
/// allocation of gigabytes.
pub const MAX_VALUE_BYTES: usize = 16 * 1024 * 1024;
