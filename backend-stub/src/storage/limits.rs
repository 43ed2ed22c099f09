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

/// Memtable of one partition. One is open and some are sealed, so a partition's memtables take
/// [`MAX_SEALED_MEMTABLES`] and one of these, and as many group commits: 80 MB.
pub const MEMTABLE_BYTES: u64 = 16 * 1024 * 1024;

/// Sealed memtables of a partition with which its commits wait. One fills while another is written and two are slack
/// for a slow disk. The engine halts commits at four, and looks again after 100 ms only.
pub const MAX_SEALED_MEMTABLES: usize = 3;

/// Tables of a partition that are not merged, with which its commits wait until a merge has ended. A read looks into
/// each of them. The engine halts commits at 30; a table or two may come while a commit is on its way.
pub const MAX_UNMERGED_TABLES: usize = 28;

/// From so many unmerged tables on a commit is followed by a pause of [`SLOW_US_A_KIB`] for each KiB of it and each
/// table more, so that what is written slows down by degrees to what is merged, and no commit must be held. With one
/// table more a partition writes 100 MB/s at most, with twelve 8 MB/s.
pub const SLOW_FROM_TABLES: usize = 8;
pub const SLOW_US_A_KIB: u64 = 10;

/// A pause is taken when so much of it is owed: a sleep takes 60 us longer than it should.
pub const SLOW_MIN_US: u64 = 1_000;

/// The longest pause: the largest commit with five tables more. Who waits for the next commit waits for it.
pub const SLOW_MAX_US: u64 = 200_000;

/// How often a commit that waits looks again: small beside the 100 ms that the writing of a memtable takes.
pub const HELD_LOOK_EVERY_MS: u64 = 5;

/// A commit that waited so long is told, and new writes are refused until it goes on: calls begin to run into their
/// deadlines.
pub const TELL_HELD_MS: u64 = 1_000;

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

/// Threads of the engine that write tables and merge them, a partition. The first writes tables only; while all
/// others merge it passes the requests to merge round and round, and spins. With two that is during each merge, with
/// three when two parts of the tree are merged at once. With one no table is written during a merge.
pub const WORKER_THREADS: usize = 3;
