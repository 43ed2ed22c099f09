//! Every maximum of this crate, and why it is what it is.

/// Direct descriptors of one ring: the kernel's IORING_MAX_FIXED_FILES. RLIMIT_NOFILE caps it further.
pub const DIRECT_SLOTS_MAX: u32 = 1 << 20;

/// Submission entries: the kernel's IORING_MAX_ENTRIES.
pub const SQ_ENTRIES_MAX: u32 = 32_768;

/// Completion entries: twice the submissions, the kernel's IORING_MAX_CQ_ENTRIES.
pub const CQ_ENTRIES_MAX: u32 = 65_536;

/// Buffers of one provided-buffer ring: the kernel takes a power of two up to this.
pub const BUFFERS_OF_A_GROUP_MAX: u32 = 32_768;

/// Buffers of all groups of a ring together: a buffer's number in a completion has 16 bits, and the wrapper
/// numbers buffers through all groups, so that the number alone tells the group.
pub const BUFFERS_OF_A_RING_MAX: u32 = 65_536;

/// Bytes of one send: the kernel's length field is 32 bits and its result is a signed 32.
pub const SEND_BYTES_MAX: usize = i32::MAX as usize;

/// Requests that own memory (sends, connects, socket options) in flight at once unless configured.
/// One send a connection and a full table of connections.
pub const IN_FLIGHT_DEFAULT: u32 = 32_768;

/// Requests that own memory: the table numbers them in 32 bits, and four million sends in flight are more
/// than a ring's descriptors can have.
pub const IN_FLIGHT_MAX: u32 = 1 << 22;

/// Cancels that one close may carry: a poll, a receive, a send and one more.
pub const CANCELS_OF_A_CLOSE_MAX: usize = 4;

/// Rounds of cancelling when a ring is dropped, each waiting up to [`DROP_WAIT_MS`]: one is the rule, more
/// are for requests that a kernel worker was executing.
pub const DROP_ROUNDS_MAX: u32 = 20;

/// What one round of a drop waits for completions.
pub const DROP_WAIT_MS: u64 = 50;

/// Buffers that a send pool keeps of each class: what a turn of a busy shard has in flight.
pub const POOLED_BUFFERS_DEFAULT: usize = 64;
