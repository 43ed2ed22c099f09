//! Every bound of the coroutines, and why it is what it is.

/// A stack, its guard page included. Address space alone: what a handler does not touch is not there. 16 pages hold a
/// handler with some hundred frames, and a panic with its message.
pub const STACK_BYTES: usize = 64 * 1024;

/// Coroutines at once in a pool. At a page or two each this is some 100 MiB.
pub const STACKS: usize = 16 * 1024;

/// What stacks that nobody uses may keep, each counted as if it had been used to its end.
pub const KEEP_BYTES: usize = 64 * 1024 * 1024;

/// A handler that runs so long without waiting has blocked its thread: all other calls of the thread were late by as much.
pub const BLOCKED_AFTER_US: u64 = 5_000;

/// Methods whose blocking is counted by name; what is beyond is counted under "others".
pub const BLOCKED_NAMES_MAX: usize = 256;

/// When a call that found no stack shall be made again: at the least, and how much later at random.
pub const NO_STACK_RETRY_MS: u32 = 20;
pub const NO_STACK_RETRY_JITTER_MS: u32 = 80;

/// Threads for what blocks for real: file reads wait for a disk, which has few heads or queues.
pub const BLOCKING_THREADS: usize = 4;

/// Work that waits for these threads. Beyond it is refused.
pub const BLOCKING_QUEUE: usize = 4096;

/// The most that is read from a file in one go, and the copy of it that lives meanwhile.
pub const FILE_READ_BYTES: usize = 256 * 1024;
