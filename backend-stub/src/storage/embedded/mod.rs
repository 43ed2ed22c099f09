//! The engine inside the process, on fjall: one journal, one writer and one reader a partition.
//!
//! The writer takes all that waits (up to a bound) into one commit with one fdatasync. The reader is a
//! thread of its own: a cold read never stalls the logic and never waits behind an fdatasync. When a
//! commit fails the process prints the reason and aborts: after a failed fdatasync nobody knows what the
//! disk holds, so nothing is tried again.

mod compact;
mod directory;
mod journal;
mod merges;
mod owner;
mod pace;
mod reader;
mod room;
mod said;
#[cfg(test)]
mod tests;
mod trim;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use fjall::compaction::filter::Factory;
use fjall::{Database, Keyspace, KeyspaceCreateOptions};

pub use self::compact::compact;
use self::directory::{Directory, Version};
use self::merges::{Filters, Merges};
use self::owner::Owner;
use self::pace::Pace;
use self::room::Room;
use super::{Batch, ChangeLog, Completion, Full, Read, Waited, Wake, limits};

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct Options {
    pub dir: PathBuf,
    /// Partitions of a new store. A store that exists keeps its own.
    pub partitions: u16,
    /// Of a new store: one that is restored begins another.
    pub log_epoch: u32,
    /// A partition has one open and [`limits::MAX_SEALED_MEMTABLES`] sealed ones at most.
    pub memtable_bytes: u64,
    pub cache_bytes: u64,
    /// Threads of the engine that write tables and merge them.
    pub worker_threads: usize,
    /// Room on the disk below which the store says that it is full.
    pub reserve_bytes: u64,
}

impl Options {
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            partitions: 1,
            log_epoch: 1,
            memtable_bytes: limits::MEMTABLE_BYTES,
            cache_bytes: limits::CACHE_BYTES,
            worker_threads: limits::WORKER_THREADS,
            reserve_bytes: limits::RESERVE_BYTES,
        }
    }
}

/// What was found at opening.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    pub created: bool,
    pub partitions: u16,
    /// Rises when a store was restored: cursors of before name another log.
    pub log_epoch: u32,
    /// Of this opening, above that of every one before: what batches must carry.
    pub owner_epoch: u64,
    /// A line for each journal whose torn tail was cut: what was being written when the process or the
    /// machine died. Nothing in it had been acknowledged.
    pub cut: Vec<String>,
    /// When something was written last, by the machine's clock of then; 0: never.
    pub written_unix_ms: u64,
}

/// Why a store does not open. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{dir} is in use by another process; stop that one, or give this one another data directory")]
    InUse { dir: PathBuf },
    #[error(
        "{dir} was written by a newer version of Moorgate (store version {found}, this program knows {known}); run that version, or restore a backup from before the upgrade into another directory"
    )]
    Newer { dir: PathBuf, found: u32, known: u32 },
    #[error(
        "{dir} holds files but no store of Moorgate (its VERSION file says {found:?}); give an empty directory or the right one"
    )]
    Foreign { dir: PathBuf, found: String },
    #[error(
        "{} is missing, a partition of the store: nothing was changed, because what was acknowledged in it would be lost; put it back, or restore a backup into an empty directory", dir.display()
    )]
    NoPartition { dir: PathBuf },
    #[error("a store has 1 to 256 partitions, not {0}")]
    Partitions(u16),
    #[error("{dir} cannot be used: {cause}; check that it exists, is writable and has free space")]
    Io { dir: PathBuf, cause: io::Error },
    #[error(
        "the journal {} is damaged at byte {offset}, and {follows}: nothing was changed, because what was acknowledged would be lost; keep a copy of the directory, check the disk, then restore a backup into an empty directory", journal.display()
    )]
    Journal { journal: PathBuf, offset: u64, follows: String },
    #[error("the store in {dir} is damaged: {cause}; keep a copy of the directory, then restore a backup")]
    Damaged { dir: PathBuf, cause: fjall::Error },
}

/// The open store. Dropping it commits what was submitted and stops its threads.
pub struct Embedded {
    partitions: Vec<Partition>,
    done: Arc<Done>,
    room: Room,
    merges: Arc<Merges>,
    /// Held for as long as the store is open.
    _directory: Directory,
}

struct Partition {
    batches: Option<SyncSender<Batch>>,
    reads: Option<SyncSender<Read>>,
    pace: Arc<Pace>,
    threads: Vec<JoinHandle<()>>,
}

/// Completions on their way from the threads to the owner.
#[derive(Default)]
struct Done {
    any: AtomicBool,
    completions: Mutex<Vec<Completion>>,
}

impl Done {
    fn push(&self, completions: impl IntoIterator<Item = Completion>) {
        self.completions.lock().unwrap_or_else(PoisonError::into_inner).extend(completions);
        self.any.store(true, Ordering::Release);
    }
}

impl Embedded {
    /// Opens the store in a directory, or makes it. `wake` gives the wake-up of each thread: it is asked
    /// twice a partition, for its writer and its reader.
    pub fn open(options: &Options, mut wake: impl FnMut(u16) -> Wake) -> Result<(Self, Opened), OpenError> {
        said::listen();
        let merges = Merges::new(options.dir.clone(), options.reserve_bytes);
        let made = Version { partitions: options.partitions, log_epoch: options.log_epoch, owner_epoch: 0 };
        let directory = Directory::open(&options.dir, made)?;
        let mut opened = Opened {
            created: directory.created,
            partitions: directory.partitions,
            log_epoch: directory.log_epoch,
            owner_epoch: directory.owner_epoch,
            cut: Vec::new(),
            written_unix_ms: directory.written_unix_ms(),
        };
        if directory.created {
            // Opened, they make all that they need; closed again, they get their names.
            for index in 0..directory.partitions {
                let path = directory.new_partition(index);
                drop(open_engine(&path, options, directory.partitions, None, &mut opened.cut)?);
            }
            directory.complete()?;
        }
        directory.name_partitions()?;
        let done = Arc::new(Done::default());
        let mut partitions = Vec::new();
        for index in 0..directory.partitions {
            let path = directory.partition(index);
            let (database, keyspace) =
                open_engine(&path, options, directory.partitions, Some(&merges), &mut opened.cut)?;
            let owner = Owner::of(&directory);
            let pace = Arc::new(Pace::new(database, keyspace, options.memtable_bytes));
            let partition = Partition::start(index, pace, owner, &done, wake(index), wake(index));
            partitions.push(partition.map_err(|cause| OpenError::Io { dir: options.dir.clone(), cause })?);
        }
        let room = Room::watch(options.dir.clone(), options.reserve_bytes)
            .map_err(|cause| OpenError::Io { dir: options.dir.clone(), cause })?;
        Ok((Self { partitions, done, room, merges, _directory: directory }, opened))
    }
}

fn open_engine(
    path: &Path,
    options: &Options,
    partitions: u16,
    merges: Option<&Arc<Merges>>,
    cut: &mut Vec<String>,
) -> Result<(Database, Keyspace), OpenError> {
    let damaged = |cause| match cause {
        fjall::Error::Io(cause) => OpenError::Io { dir: path.to_owned(), cause },
        fjall::Error::Locked => OpenError::InUse { dir: path.to_owned() },
        cause => OpenError::Damaged { dir: path.to_owned(), cause },
    };
    journal::check(path, cut)?;
    trim::trim(path).map_err(|cause| damaged(cause.into()))?;
    let before = directory::journal_lengths(path).map_err(|cause| damaged(cause.into()))?;
    let mut builder = Database::builder(path)
        .cache_size(options.cache_bytes / u64::from(partitions))
        .worker_threads(options.worker_threads)
        .manual_journal_persist(true);
    if let Some(merges) = merges.cloned() {
        let filters: Arc<dyn Factory> = Arc::new(Filters(merges));
        builder = builder.with_compaction_filter_factories(Arc::new(move |_| Some(filters.clone())));
    }
    let database = builder.open().map_err(damaged)?;
    let memtable_bytes = options.memtable_bytes;
    let create = || KeyspaceCreateOptions::default().max_memtable_size(memtable_bytes);
    let keyspace = database.keyspace("rows", create).map_err(damaged)?;
    directory::told_cuts(&before, cut);
    // Before anything is acknowledged.
    directory::sync_directories(path).map_err(|cause| damaged(cause.into()))?;
    Ok((database, keyspace))
}

impl Partition {
    fn start(
        index: u16,
        pace: Arc<Pace>,
        owner: Owner,
        done: &Arc<Done>,
        writer_wake: Wake,
        reader_wake: Wake,
    ) -> io::Result<Self> {
        let (batches, batches_in) = sync_channel(limits::MAX_WAITING_BATCHES);
        let (reads, reads_in) = sync_channel(limits::MAX_WAITING_READS);
        let reader = reader::Reader {
            keyspace: pace.keyspace.clone(),
            reads: reads_in,
            done: done.clone(),
            wake: reader_wake,
        };
        let writer = writer::Writer {
            pace: pace.clone(),
            owner,
            batches: batches_in,
            done: done.clone(),
            wake: writer_wake,
        };
        let threads = vec![
            thread::Builder::new().name(format!("store-write-{index}")).spawn(move || writer.run())?,
            thread::Builder::new().name(format!("store-read-{index}")).spawn(move || reader.run())?,
        ];
        Ok(Self { batches: Some(batches), reads: Some(reads), pace, threads })
    }
}

impl ChangeLog for Embedded {
    fn partitions(&self) -> u16 {
        self.partitions.len() as u16
    }

    fn submit(&mut self, partition: u16, batch: Batch) -> Result<(), Full<Batch>> {
        send(&self.partitions[usize::from(partition)].batches, batch)
    }

    fn read(&mut self, partition: u16, read: Read) -> Result<(), Full<Read>> {
        send(&self.partitions[usize::from(partition)].reads, read)
    }

    fn poll(&mut self, out: &mut Vec<Completion>) {
        if self.done.any.swap(false, Ordering::Acquire) {
            out.append(&mut self.done.completions.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn is_full(&self) -> bool {
        self.room.is_full()
    }

    fn is_behind(&self) -> bool {
        self.partitions.iter().any(|partition| partition.pace.is_behind())
    }

    fn waited(&self) -> Waited {
        let mut waited = Waited { merges: self.merges.waiting(), ..Waited::default() };
        self.partitions.iter().for_each(|partition| partition.pace.add_to(&mut waited));
        waited
    }
}

fn send<T>(queue: &Option<SyncSender<T>>, item: T) -> Result<(), Full<T>> {
    let Some(queue) = queue else { return Err(Full(item)) };
    queue.try_send(item).map_err(|refused| match refused {
        TrySendError::Full(item) | TrySendError::Disconnected(item) => Full(item),
    })
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.merges.close();
        for partition in &mut self.partitions {
            partition.batches = None;
            partition.reads = None;
        }
        for thread in self.partitions.iter_mut().flat_map(|partition| partition.threads.drain(..)) {
            // A thread that panicked has said so; there is nothing more to end.
            let _ = thread.join();
        }
    }
}
