//! Every bound of the stacks, and why it is what it is.

/// A page of the machines that this runs on; checked when an arena is made.
pub const PAGE_BYTES: usize = 4096;

/// Below each stack, never to be touched. Code from rustc and from C compilers that probe their frames cannot step over
/// one page; what is compiled without probes could, with a frame that is larger than this.
pub const GUARD_BYTES: usize = PAGE_BYTES;

/// The smallest stack, its guard page included: less than this holds no panic with its message.
pub const STACK_MIN_BYTES: usize = 16 * 1024;

/// The largest: what needs more than a plain thread has is no handler.
pub const STACK_MAX_BYTES: usize = 8 * 1024 * 1024;

/// Arenas at once in a process: one for each service of each thread. The handler of faults looks through all of them.
pub const ARENAS_MAX: usize = 256;

/// Address space of one arena. No memory stands behind it until it is used.
pub const ARENA_MAX_BYTES: usize = 1 << 40;

/// Things that a coroutine may wait for in a row and that are ready at once, before others get their turn.
pub const READY_IN_A_ROW_MAX: u32 = 128;

/// The alternate stack on which an overflow is told, for a thread that has none.
pub const SIGNAL_STACK_BYTES: usize = 64 * 1024;
