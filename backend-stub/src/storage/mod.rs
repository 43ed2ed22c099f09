//! Where rows live: batches in, completions out, no runtime type.
//!
//! A store has partitions, fixed when it is made. A key begins with its section, and the section picks
//! the partition. What holds for every [`ChangeLog`]:
//!
//! - A batch is atomic and durable: it is committed as a whole, and `Committed` means that it is on disk.
//! - Completions of batches come in the order of submission within a partition.
//! - When a batch fails for good, every batch that was submitted to its partition before the failure was
//!   polled fails too: what is written on top of a lost row never lands.
//! - Whoever opens the store claims it with a higher owner_epoch. A batch of a lower one is refused from then on,
//!   and nothing of it lands.
//! - A read sees every batch whose completion was polled before the read was asked for.
//! - Reads never wait behind a commit.

mod batch;
pub mod embedded;
pub mod limits;
pub mod memory;

pub use batch::Batch;

use bytes::Bytes;

/// Called from the store's threads when completions wait; may be called for nothing.
pub type Wake = Box<dyn Fn() + Send>;

/// An engine that keeps batches and answers reads.
pub trait ChangeLog {
    /// How many partitions the store was made with.
    fn partitions(&self) -> u16;

    /// Asks for an atomic, durable commit. Refuses when too many batches wait.
    fn submit(&mut self, partition: u16, batch: Batch) -> Result<(), Full<Batch>>;

    /// Asks for rows. Refuses when too many reads wait. A partition's reads are answered in the order of the asking.
    fn read(&mut self, partition: u16, read: Read) -> Result<(), Full<Read>>;

    /// Appends what has ended. Never blocks.
    fn poll(&mut self, out: &mut Vec<Completion>);

    /// Whether so little room is left that only what must be written should be. A plain look at what is known.
    fn is_full(&self) -> bool {
        false
    }

    /// Whether a commit has waited for the engine so long that new writes should be refused. A plain look as well.
    fn is_behind(&self) -> bool {
        false
    }

    /// How far commits had to wait, in all partitions since the store was opened.
    fn waited(&self) -> Waited {
        Waited::default()
    }
}

/// How far commits had to wait for the engine, and for what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waited {
    /// Group commits that waited.
    pub commits: u64,
    pub ms: u64,
    /// Pauses between commits, so that merges keep pace.
    pub slowed_ms: u64,
    /// One waits at this moment.
    pub now: bool,
    /// In memtables, open and sealed.
    pub memtable_bytes: u64,
    pub sealed_memtables: usize,
    pub unmerged_tables: usize,
    /// Merges that wait for room on the disk.
    pub merges: usize,
}

/// The partition of a section.
pub fn partition_of(section: u16, partitions: u16) -> u16 {
    section % partitions
}

/// A queue of the store is full; what was refused comes back.
#[derive(Debug, thiserror::Error)]
#[error("the queue of the store is full")]
pub struct Full<T>(pub T);

/// Queries that are answered together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    pub token: u64,
    pub queries: Vec<Query>,
}

/// One question to the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    Get(Vec<u8>),
    /// The rows from `from` to `to`, both included, at most `max_rows` and about `max_bytes` of values.
    Scan {
        from: Vec<u8>,
        to: Vec<u8>,
        max_rows: u32,
        max_bytes: u32,
        reverse: bool,
    },
}

/// The rows of one query, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rows {
    pub rows: Vec<(Vec<u8>, Bytes)>,
    /// The bounds ended the scan, not its range.
    pub more: bool,
}

impl Rows {
    /// The value of a `Get`.
    pub fn value(&self) -> Option<&Bytes> {
        self.rows.first().map(|(_, value)| value)
    }
}

/// Why a read gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the store cannot be read: {0}")]
pub struct ReadError(pub String);

/// Why a batch was refused for good: whoever wrote it is not the owner any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("owner_epoch {owner_epoch} is over, another process claimed the store with owner_epoch {claimed}")]
pub struct Fenced {
    pub owner_epoch: u64,
    /// The epoch of the owner that the store has now.
    pub claimed: u64,
}

/// What ended.
#[derive(Debug)]
pub enum Completion {
    /// The batch is on disk.
    Committed { token: u64 },
    /// The batch will never be on disk.
    Failed { token: u64, reason: String },
    /// The batch will never be on disk, nor will any other of its owner.
    Fenced { token: u64, by: Fenced },
    /// The answers, one for each query.
    Read { token: u64, answer: Result<Vec<Rows>, ReadError> },
}
