//! The directory of a store: whose it is, of what version, and what its journals lost at a crash.
//!
//! ```text
//! VERSION   "moorgate-store 1\npartitions N\nlog_epoch N\nowner_epoch N\n"; without its line log_epoch is 1,
//!           and owner_epoch 0
//! LOCK      held with flock by the process that has the store open
//! pN/       the engine's files of partition N
//! pN.new/   the same, until the store is whole for the first time
//! ```
//!
//! VERSION is written when all partitions are made and on the disk. A power cut before leaves a directory that is
//! begun anew; a partition that is missing later is damage.
//!
//! Whoever opens the store raises owner_epoch in VERSION before anything else. LOCK keeps processes of one machine apart,
//! which is most of it; the epoch holds also where a lock does not: on a file system without locks, or when someone
//! removed LOCK to help themselves.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::super::limits;
use super::OpenError;

/// The version of the keys and values that this program writes.
const STORE_VERSION: u32 = 1;
const NAME: &str = "moorgate-store";

/// What the file of this name says of a store beside the version itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Version {
    pub partitions: u16,
    pub log_epoch: u32,
    /// Of the last owner.
    pub owner_epoch: u64,
}

pub(super) struct Directory {
    pub dir: PathBuf,
    pub partitions: u16,
    pub log_epoch: u32,
    /// Of whoever opened it now: above that of everybody who did before.
    pub owner_epoch: u64,
    pub created: bool,
    /// The lock ends with this descriptor, however the process ends.
    _lock: File,
}

impl Directory {
    /// `made` is what a store gets that is made now; one that exists keeps its own.
    pub fn open(dir: &Path, made: Version) -> Result<Self, OpenError> {
        let io = |cause| OpenError::Io { dir: dir.to_owned(), cause };
        if !(1..=limits::MAX_PARTITIONS).contains(&made.partitions) {
            return Err(OpenError::Partitions(made.partitions));
        }
        create_durably(dir).map_err(io)?;
        let lock = lock(dir)?;
        let (version, created) = match fs::read_to_string(dir.join("VERSION")) {
            Ok(text) => (known_version(dir, &text)?, false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                refuse_foreign(dir)?;
                remove_unfinished(dir).map_err(io)?;
                (made, true)
            }
            Err(error) => return Err(io(error)),
        };
        let Version { partitions, log_epoch, owner_epoch } = version;
        let owner_epoch = owner_epoch + 1;
        let directory =
            Self { dir: dir.to_owned(), partitions, log_epoch, owner_epoch, created, _lock: lock };
        if !created {
            write_version(dir, &directory).map_err(io)?;
        }
        Ok(directory)
    }

    /// The owner_epoch that stands in VERSION now.
    pub fn owner_epoch_in(dir: &Path) -> Option<u64> {
        let text = fs::read_to_string(dir.join("VERSION")).ok()?;
        known_version(dir, &text).ok().map(|version| version.owner_epoch)
    }

    /// Where a partition is made.
    pub fn new_partition(&self, index: u16) -> PathBuf {
        self.dir.join(format!("p{index}.new"))
    }

    /// All partitions of a new store are made: from now on it is one.
    pub fn complete(&self) -> Result<(), OpenError> {
        let completed = sync_directories(&self.dir).and_then(|()| write_version(&self.dir, self));
        completed.map_err(|cause| OpenError::Io { dir: self.dir.clone(), cause })
    }

    /// Gives the partitions their names, if a cut came before.
    pub fn name_partitions(&self) -> Result<(), OpenError> {
        let io = |cause| OpenError::Io { dir: self.dir.clone(), cause };
        for index in 0..self.partitions {
            let (new, path) = (self.new_partition(index), self.partition(index));
            if path.is_dir() {
                continue;
            }
            if !new.is_dir() {
                return Err(OpenError::NoPartition { dir: path });
            }
            fs::rename(new, path).map_err(io)?;
        }
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(io)
    }

    /// When a journal was written last; 0: there is none.
    pub fn written_unix_ms(&self) -> u64 {
        let journals =
            (0..self.partitions).flat_map(|index| fs::read_dir(self.partition(index)).into_iter().flatten());
        let written = journals.filter_map(|entry| {
            let entry =
                entry.ok().filter(|entry| entry.path().extension().is_some_and(|kind| kind == "jnl"))?;
            entry.metadata().ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok()
        });
        written.max().map_or(0, |since| since.as_millis() as u64)
    }

    pub fn partition(&self, index: u16) -> PathBuf {
        self.dir.join(format!("p{index}"))
    }
}

/// A new directory is only there after its parent was synced, and so is that one.
fn create_durably(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    create_durably(parent)?;
    fs::create_dir(dir)?;
    File::open(parent)?.sync_all()
}

/// Syncs a directory and all below it. The engine syncs the directories that it makes, but not the names of some of
/// them in their parents: after a power cut a partition's tables could be gone with their directory.
pub(super) fn sync_directories(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_directories(&entry.path())?;
        }
    }
    File::open(dir)?.sync_all()
}

fn lock(dir: &Path) -> Result<File, OpenError> {
    let io = |cause| OpenError::Io { dir: dir.to_owned(), cause };
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).open(dir.join("LOCK")).map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { dir: dir.to_owned() }),
        Err(TryLockError::Error(cause)) => Err(io(cause)),
    }
}

fn known_version(dir: &Path, text: &str) -> Result<Version, OpenError> {
    let foreign = || OpenError::Foreign { dir: dir.to_owned(), found: text.chars().take(80).collect() };
    let mut words = text.split_whitespace();
    if words.next() != Some(NAME) {
        return Err(foreign());
    }
    let found: u32 = words.next().and_then(|word| word.parse().ok()).ok_or_else(foreign)?;
    if found > STORE_VERSION {
        return Err(OpenError::Newer { dir: dir.to_owned(), found, known: STORE_VERSION });
    }
    let partitions = match (words.next(), words.next().and_then(|word| word.parse().ok())) {
        (Some("partitions"), Some(partitions)) if (1..=limits::MAX_PARTITIONS).contains(&partitions) => {
            partitions
        }
        _ => return Err(foreign()),
    };
    let log_epoch = match (words.next(), words.next().and_then(|word| word.parse().ok())) {
        (None, None) => 1,
        (Some("log_epoch"), Some(log_epoch)) if log_epoch > 0 => log_epoch,
        _ => return Err(foreign()),
    };
    let owner_epoch = match (words.next(), words.next().and_then(|word| word.parse().ok())) {
        (None, None) => 0,
        // The last one there can be is no epoch: nobody could follow.
        (Some("owner_epoch"), Some(owner_epoch)) if owner_epoch < u64::MAX => owner_epoch,
        _ => return Err(foreign()),
    };
    Ok(Version { partitions, log_epoch, owner_epoch })
}

/// A directory without a VERSION file that holds partitions lost the file: making a store anew over it
/// would hide what is there.
fn refuse_foreign(dir: &Path) -> Result<(), OpenError> {
    if dir.join("p0").exists() {
        return Err(OpenError::Foreign { dir: dir.to_owned(), found: String::new() });
    }
    Ok(())
}

/// Partitions that were being made when the process died; nothing was ever in them.
fn remove_unfinished(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "new") && path.is_dir() {
            fs::remove_dir_all(path)?;
        }
    }
    Ok(())
}

fn write_version(dir: &Path, store: &Directory) -> io::Result<()> {
    let Directory { partitions, log_epoch, owner_epoch, .. } = store;
    let new = dir.join("VERSION.new");
    let mut file = File::create(&new)?;
    write!(
        file,
        "{NAME} {STORE_VERSION}\npartitions {partitions}\nlog_epoch {log_epoch}\nowner_epoch {owner_epoch}\n"
    )?;
    file.sync_all()?;
    fs::rename(&new, dir.join("VERSION"))?;
    File::open(dir)?.sync_all()
}

/// The journals of a partition before the engine opens them, with where their written bytes end: the
/// engine allocates a journal ahead, and cuts what it cannot read without a word.
pub(super) fn journal_lengths(partition: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let entries = match fs::read_dir(partition) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut journals = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jnl") {
            let end = written_end(&File::open(&path)?)?;
            journals.push((path, end));
        }
    }
    Ok(journals)
}

/// The position after the last byte that is not zero.
fn written_end(file: &File) -> io::Result<u64> {
    let mut chunk = vec![0; 256 * 1024];
    let mut end = file.metadata()?.len();
    while end > 0 {
        let length = (chunk.len() as u64).min(end);
        let chunk = &mut chunk[..length as usize];
        file.read_exact_at(chunk, end - length)?;
        if let Some(last) = chunk.iter().rposition(|&byte| byte != 0) {
            return Ok(end - length + last as u64 + 1);
        }
        end -= length;
    }
    Ok(0)
}

/// Says which journals the engine cut short of their written bytes.
pub(super) fn told_cuts(before: &[(PathBuf, u64)], cut: &mut Vec<String>) {
    for (path, written) in before {
        // A journal that is gone was whole and is in tables now.
        let Ok(after) = fs::metadata(path) else { continue };
        if after.len() < *written {
            cut.push(format!(
                "cut the torn tail of {}: {} bytes that were being written when the process died, none of them acknowledged",
                path.display(),
                written - after.len()
            ));
        }
    }
}
