//! Every bound of the store, and why it is what it is.

/// Batches that wait for one writer. The logic keeps fewer in flight; this is the wall behind it.
pub const MAX_WAITING_BATCHES: usize = 256;

/// Reads that wait for one reader. A read takes microseconds warm and a millisecond cold, so a full
/// queue is a second or so of waiting: longer than a caller should.
pub const MAX_WAITING_READS: usize = 1024;

/// Bytes that one group commit takes along. At 1 GB/s of a disk this adds 4 ms to a commit at most.
pub const MAX_GROUP_BYTES: usize = 4 * 1024 * 1024;

/// The longest key of a batch: its length stands in 16 bits.
pub const MAX_KEY_BYTES: usize = u16::MAX as usize;

/// Partitions of a store: more than cores that one process will drive.
pub const MAX_PARTITIONS: u16 = 256;

/// Memtable of one partition. The engine stalls writers at four sealed ones, so a partition's memtables
/// take five times this, but for what is written during a merge: the engine's only worker seals them too, and while
/// it merges the open one grows, and the journal with it. With raw appends as fast as they went, 1.2 GB.
pub const MEMTABLE_BYTES: u64 = 16 * 1024 * 1024;

/// Cache of blocks read from disk, for all partitions together.
pub const CACHE_BYTES: u64 = 32 * 1024 * 1024;

/// Room on the disk below which writes are refused: what is acknowledged already must still be delivered, and tables
/// must still be written, for which four memtables are enough.
pub const RESERVE_BYTES: u64 = 64 * 1024 * 1024;

/// How often the room on the disk is looked at. At 1 GB/s of a disk the reserve lasts for 64 ms, but no backend writes
/// like that; at the 20 MB/s of the busiest ones it lasts for 3 s.
pub const ROOM_LOOK_EVERY_MS: u64 = 100;

/// A merge looks at the room on the disk each time it has taken so much: some milliseconds of merging, and a
/// sixteenth of the reserve.
pub const MERGE_LOOK_BYTES: usize = 4 * 1024 * 1024;

/// With this much room, in reserves, it is looked at less often.
pub const PLENTY_OF_RESERVES: u64 = 64;

/// ... namely this often.
pub const ROOM_LOOK_SELDOM_MS: u64 = 2_000;

/// Journals are read as they are when they hold less than this, or less than this that is in tables: 700 rows.
pub const TRIM_BYTES: u64 = 64 * 1024;

/// Threads of the engine that write tables and merge them, a partition. With two, the first spins while
/// the second merges; with one, neither is a memtable sealed nor a table written until a merge has ended. What has
/// gathered then is sealed and written at once, and commits wait for it when there are four: 64 ms in 99.9 % at 5 000
/// appends a second, 1.5 s at the highest rate that the machine does. There is no bound.
pub const WORKER_THREADS: usize = 1;
