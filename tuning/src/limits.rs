//! Every bound of the checks, and why it is what it is.

/// A ring's table of direct descriptors ends here whatever RLIMIT_NOFILE says (`IORING_MAX_FIXED_FILES`).
pub const DIRECT_TABLE_MAX: u64 = 1 << 20;

/// A descriptor limit below this leaves no room beside the slots that an accept keeps in reserve (64) and the
/// process's own files.
pub const DESCRIPTORS_MIN: u64 = 256;

/// Room for imbalance: SO_REUSEPORT spreads connections by hash, so the fullest table is above the mean.
pub const SHARD_ROOM_PERCENT: u64 = 105;

/// More rings than this on one host are refused: each is a thread, and a million connections at the lowest
/// limit seen in the field for servers (4096) take 257.
pub const SHARDS_MAX: u64 = 512;

/// Fixed cost of a shard, in bytes: the design's bound for one of 20 000 connections.
pub const SHARD_BYTES: u64 = 1536 * 1024;

/// What the kernel holds for one idle connection at one end: the socket (3 540-3 670 measured) and its armed
/// poll (256).
pub const KERNEL_BYTES_ONE_END: u64 = 3900;

/// Assumed for a connection in user space when the caller does not say: session and its share of the process.
pub const USER_BYTES_DEFAULT: u64 = 256;

/// Above this share of what is there, memory or ports are called tight: the rest of the machine breathes too,
/// and the kernel's search for a free port grows long.
pub const TIGHT_PERCENT: u64 = 80;

/// The accept queue that a listener asks for.
pub const BACKLOG_DEFAULT: u32 = 4096;

/// What a connection's queued data is charged at least: the kernel accounts whole pages.
pub const PAGE_BYTES: u64 = 4096;

/// Ring memory counts against RLIMIT_MEMLOCK before this kernel, and against the memory cgroup from it on.
pub const RING_UNLOCKED_KERNEL: (u32, u32) = (5, 12);

/// What one ring's queues take of RLIMIT_MEMLOCK on such an old kernel.
pub const RING_LOCKED_BYTES: u64 = 1024 * 1024;

/// `kernel.io_uring_disabled` exists since this kernel; a newer one without it was built without io_uring.
pub const IO_URING_SYSCTL_KERNEL: (u32, u32) = (6, 6);

/// The widest range of local ports that a mend proposes. Below 10 240 services listen.
pub const LOCAL_PORTS_WIDEST: (u16, u16) = (10_240, 65_535);

/// A cgroup path has at most this many levels that are looked at.
pub const CGROUP_LEVELS_MAX: usize = 32;
