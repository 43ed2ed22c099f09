//! The directory of a store: whose it is, of what version, and what its journals lost at a crash.
//!
//! ```text
//! VERSION   "moorgate-store 1\npartitions N\n"
//! LOCK      held with flock by the process that has the store open
//! pN/       the engine's files of partition N
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::super::limits;
use super::OpenError;

/// The version of the keys and values that this program writes.
const STORE_VERSION: u32 = 1;
const NAME: &str = "moorgate-store";

pub(super) struct Directory {
    dir: PathBuf,
    pub partitions: u16,
    pub created: bool,
    /// The lock ends with this descriptor, however the process ends.
    _lock: File,
}

impl Directory {
    pub fn open(dir: &Path, partitions: u16) -> Result<Self, OpenError> {
        let io = |cause| OpenError::Io { dir: dir.to_owned(), cause };
        if !(1..=limits::MAX_PARTITIONS).contains(&partitions) {
            return Err(OpenError::Partitions(partitions));
        }
        create_durably(dir).map_err(io)?;
        let lock = lock(dir)?;
        let (partitions, created) = match fs::read_to_string(dir.join("VERSION")) {
            Ok(text) => (known_version(dir, &text)?, false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                refuse_foreign(dir)?;
                write_version(dir, partitions).map_err(io)?;
                (partitions, true)
            }
            Err(error) => return Err(io(error)),
        };
        Ok(Self { dir: dir.to_owned(), partitions, created, _lock: lock })
    }

    pub fn partition(&self, index: u16) -> PathBuf {
        self.dir.join(format!("p{index}"))
    }
}

/// A new directory is only there after its parent was synced.
fn create_durably(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(dir)?;
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
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

fn known_version(dir: &Path, text: &str) -> Result<u16, OpenError> {
    let foreign = || OpenError::Foreign { dir: dir.to_owned(), found: text.chars().take(80).collect() };
    let mut words = text.split_whitespace();
    if words.next() != Some(NAME) {
        return Err(foreign());
    }
    let found: u32 = words.next().and_then(|word| word.parse().ok()).ok_or_else(foreign)?;
    if found > STORE_VERSION {
        return Err(OpenError::Newer { dir: dir.to_owned(), found, known: STORE_VERSION });
    }
    match (words.next(), words.next().and_then(|word| word.parse().ok())) {
        (Some("partitions"), Some(partitions)) if (1..=limits::MAX_PARTITIONS).contains(&partitions) => {
            Ok(partitions)
        }
        _ => Err(foreign()),
    }
}

/// A directory without a VERSION file that holds partitions lost the file: making a store anew over it
/// would hide what is there.
fn refuse_foreign(dir: &Path) -> Result<(), OpenError> {
    if dir.join("p0").exists() {
        return Err(OpenError::Foreign { dir: dir.to_owned(), found: String::new() });
    }
    Ok(())
}

fn write_version(dir: &Path, partitions: u16) -> io::Result<()> {
    let new = dir.join("VERSION.new");
    let mut file = File::create(&new)?;
    write!(file, "{NAME} {STORE_VERSION}\npartitions {partitions}\n")?;
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
