//! A copy of a data directory that can be brought back.
//!
//! ```text
//! pN.rows    all rows of partition N (`rows_file`)
//! keys/      the issuer's key and the file for gateways, as they are
//! MANIFEST   JSON (`Manifest`), and a line "blake3 HEX" of that JSON
//! ```
//! The store is held while it is copied, so nothing changes meanwhile. The manifest is written when all else is on the
//! disk: a directory without one is no backup.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use proto_wire::names::SECTIONS;
use serde::{Deserialize, Serialize};

use super::progress::Progress;
use super::rows_file::{RowsWriter, Whole};
use super::store::{Store, StoreError};
use crate::clock::unix_ms;
use crate::keys::{ISSUER, VERIFY};
use crate::logic::keys;
use crate::storage::ReadError;

/// The format of backups that this program writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

pub const MANIFEST: &str = "MANIFEST";

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    pub partitions: u16,
    /// Of the store that was copied.
    pub log_epoch: u32,
    pub taken_unix_ms: u64,
    /// Of all partitions.
    pub rows: u64,
    pub files: Vec<Copied>,
}

/// A file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    /// Its path in the backup.
    pub name: String,
    pub bytes: u64,
    /// Of a file of rows.
    pub rows: u64,
    pub blake3: String,
}

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{} holds something already; give a directory that is empty or does not exist", .0.display())]
    NotEmpty(PathBuf),
    #[error("{}: {cause}; what was written there so far is no backup: remove it", path.display())]
    Io { path: PathBuf, cause: io::Error },
}

impl From<ReadError> for BackupError {
    fn from(error: ReadError) -> Self {
        Self::Store(error.into())
    }
}

/// Copies the store and the keys of a data directory.
pub fn backup(data: &Path, dir: &Path) -> Result<Manifest, BackupError> {
    let store = Store::open(data)?;
    make_empty(dir)?;
    let mut files = Vec::new();
    let mut progress = Progress::new("backup");
    for partition in 0..store.partitions {
        files.push(copy_rows(&store, partition, dir, &mut progress)?);
    }
    files.extend(copy_keys(&data.join("keys"), dir)?);
    let manifest = Manifest {
        format: FORMAT,
        partitions: store.partitions,
        log_epoch: store.log_epoch,
        taken_unix_ms: unix_ms(),
        rows: files.iter().map(|file| file.rows).sum(),
        files,
    };
    write_manifest(dir, &manifest).map_err(at(&dir.join(MANIFEST)))?;
    Ok(manifest)
}

pub fn rows_name(partition: u16) -> String {
    format!("p{partition}.rows")
}

fn copy_rows(
    store: &Store,
    partition: u16,
    dir: &Path,
    progress: &mut Progress,
) -> Result<Copied, BackupError> {
    let name = rows_name(partition);
    let path = dir.join(&name);
    let mut writer = RowsWriter::create(&path).map_err(at(&path))?;
    let mut rows = 0;
    for row in store.all(partition) {
        let (key, value) = row?;
        writer.row(&key, &value).map_err(at(&path))?;
        rows += 1;
        let section = keys::split(&key).map_or(0, |(section, ..)| section);
        let done = u64::from(partition) * u64::from(SECTIONS) + u64::from(section);
        let of = u64::from(store.partitions) * u64::from(SECTIONS);
        progress.at(done, of, || format!("{rows} rows of partition {partition}"));
    }
    let Whole { rows, bytes, blake3 } = writer.finish().map_err(at(&path))?;
    Ok(Copied { name, bytes, rows, blake3: blake3.to_string() })
}

/// A data directory may have no keys yet: tools and tests make stores without.
fn copy_keys(from: &Path, dir: &Path) -> Result<Vec<Copied>, BackupError> {
    let mut files = Vec::new();
    for name in [ISSUER, VERIFY] {
        let path = from.join(name);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(cause) => return Err(BackupError::Io { path, cause }),
        };
        let copy = dir.join("keys").join(name);
        write_key(&copy, &bytes, 0o600).map_err(at(&copy))?;
        let blake3 = blake3::hash(&bytes).to_string();
        files.push(Copied { name: format!("keys/{name}"), bytes: bytes.len() as u64, rows: 0, blake3 });
    }
    Ok(files)
}

/// Writes a file into a directory that is made if need be; both are on the disk when this returns.
pub(super) fn write_key(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    sync_dir(dir)
}

pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn make_empty(dir: &Path) -> Result<(), BackupError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(at(dir))?;
    match fs::read_dir(dir).map_err(at(dir))?.next() {
        None => Ok(()),
        Some(_) => Err(BackupError::NotEmpty(dir.to_owned())),
    }
}

fn write_manifest(dir: &Path, manifest: &Manifest) -> io::Result<()> {
    sync_dir(dir)?;
    let json = serde_json::to_string_pretty(manifest)?;
    let new = dir.join("MANIFEST.new");
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    write!(file, "{json}\nblake3 {}\n", blake3::hash(json.as_bytes()))?;
    file.sync_all()?;
    fs::rename(&new, dir.join(MANIFEST))?;
    sync_dir(dir)?;
    // Its own name too.
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    sync_dir(parent.unwrap_or(Path::new(".")))
}

fn at(path: &Path) -> impl Fn(io::Error) -> BackupError {
    let path = path.to_owned();
    move |cause| BackupError::Io { path: path.clone(), cause }
}
