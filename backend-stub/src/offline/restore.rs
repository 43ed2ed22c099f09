//! Brings a backup back into an empty data directory.
//!
//! All of it is verified before anything is written. The store is made beside its place and gets its name last: a
//! restore that was killed leaves no store, and is done again from the beginning.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use super::backup::{Copied, FORMAT, MANIFEST, Manifest, rows_name, sync_dir, write_key};
use super::limits;
use super::progress::Progress;
use super::rows_file::{RowsError, RowsReader};
use super::store::{Store, StoreError};
use crate::keys::{ISSUER, VERIFY};
use crate::logic::keys;
use crate::storage::embedded::Options;
use crate::storage::limits::MAX_PARTITIONS;
use crate::storage::{Batch, partition_of};

/// The store of a data directory while it is being restored.
pub const UNFINISHED: &str = "store.restoring";
const UNFINISHED_KEYS: &str = "keys.restoring";

/// Why a backup was not brought back. Nothing of it is in the data directory then, or all of it is done again.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("{} is no whole backup: it has no MANIFEST, which is written last; give another backup", .0.display())]
    NoManifest(PathBuf),
    #[error("{} is damaged: {what}; nothing was restored: give another backup", path.display())]
    Damaged { path: PathBuf, what: String },
    #[error("{} has format {found}, and this program knows {FORMAT}; restore it with the version that took it", path.display())]
    Newer { path: PathBuf, found: u32 },
    #[error("{} is not empty; restore into another data directory, or move away what is there", .0.display())]
    NotEmpty(PathBuf),
    #[error("{} is being restored by another process", .0.display())]
    Busy(PathBuf),
    #[error("{}: {cause}", path.display())]
    Io { path: PathBuf, cause: io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What was brought back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    pub manifest: Manifest,
    /// The epoch of the logs from now on.
    pub log_epoch: u32,
}

pub fn restore(backup: &Path, data: &Path, unix_ms: u64) -> Result<Restored, RestoreError> {
    let manifest = read_manifest(backup)?;
    make_room(data)?;
    let mut progress = Progress::new("restore: verifying");
    let mut rows = 0;
    for file in &manifest.files {
        verify(backup, &manifest, file, |more| {
            rows += more;
            progress.at(rows, manifest.rows, || format!("{rows} rows"));
        })?;
    }
    let log_epoch = next_epoch(manifest.log_epoch, unix_ms);
    fill(backup, data, &manifest, log_epoch)?;
    put_keys(backup, data, &manifest)?;
    let (unfinished, store) = (data.join(UNFINISHED), data.join("store"));
    fs::rename(&unfinished, store).and_then(|()| sync_dir(data)).map_err(at(data))?;
    Ok(Restored { manifest, log_epoch })
}

/// Above every epoch that phones may have seen: they take nothing of a lower one, and would take the numbers of an
/// equal one for their own log's. What the backup says is not enough: another may have been restored since, or this one
/// before. So the seconds since the beginning of 2026 are a lower bound, which lasts until 2162.
fn next_epoch(of_backup: u32, unix_ms: u64) -> u32 {
    const BEGINNING_S: u64 = 1_767_225_600;
    let since = (unix_ms / 1000).saturating_sub(BEGINNING_S);
    of_backup.saturating_add(1).max(u32::try_from(since).unwrap_or(u32::MAX))
}

fn read_manifest(backup: &Path) -> Result<Manifest, RestoreError> {
    let path = backup.join(MANIFEST);
    let damaged = |what: &str| RestoreError::Damaged { path: path.clone(), what: what.to_owned() };
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(RestoreError::NoManifest(backup.to_owned()));
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(damaged("it is no text")),
        Err(cause) => return Err(RestoreError::Io { path, cause }),
    };
    let (json, last) = text.trim_end().rsplit_once('\n').ok_or_else(|| damaged("it has no checksum"))?;
    let right = blake3::hash(json.as_bytes()).to_string();
    if last.strip_prefix("blake3 ") != Some(&right) {
        return Err(damaged("its checksum is wrong"));
    }
    // A newer one may say more: only its format is asked first.
    let format =
        serde_json::from_str::<serde_json::Value>(json).ok().and_then(|json| json["format"].as_u64());
    if let Some(found) = format.filter(|&format| format > FORMAT.into()) {
        return Err(RestoreError::Newer { path, found: found as u32 });
    }
    let manifest: Manifest = serde_json::from_str(json).map_err(|error| damaged(&error.to_string()))?;
    let rows_files = manifest.files.iter().filter(|file| file.name.ends_with(".rows")).count();
    let has_all =
        (0..manifest.partitions).all(|p| manifest.files.iter().any(|file| file.name == rows_name(p)));
    let is_known = |file: &Copied| {
        file.name.ends_with(".rows")
            || [ISSUER, VERIFY].iter().any(|name| file.name == format!("keys/{name}"))
    };
    if let Some(unknown) = manifest.files.iter().find(|file| !is_known(file)) {
        return Err(damaged(&format!("no backup has a file {:?}", unknown.name)));
    }
    if !(1..=MAX_PARTITIONS).contains(&manifest.partitions)
        || rows_files != usize::from(manifest.partitions)
        || !has_all
    {
        return Err(damaged("it does not name a file of rows for each partition"));
    }
    Ok(manifest)
}

/// Makes the data directory, or sees that nothing is in it but what a killed restore left.
fn make_room(data: &Path) -> Result<(), RestoreError> {
    DirBuilder::new().recursive(true).mode(0o755).create(data).map_err(at(data))?;
    let unfinished = data.join(UNFINISHED);
    let was_killed = unfinished.exists();
    for entry in fs::read_dir(data).map_err(at(data))? {
        let name = entry.map_err(at(data))?.file_name();
        let is_ours = name == UNFINISHED || name == UNFINISHED_KEYS || (was_killed && name == "keys");
        if !is_ours {
            return Err(RestoreError::NotEmpty(data.to_owned()));
        }
    }
    if File::open(unfinished.join("LOCK")).is_ok_and(|lock| lock.try_lock().is_err()) {
        return Err(RestoreError::Busy(data.to_owned()));
    }
    for name in [UNFINISHED, UNFINISHED_KEYS, "keys"] {
        match fs::remove_dir_all(data.join(name)) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                return Err(RestoreError::Io { path: data.join(name), cause });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Reads a file of the backup from its beginning to its end, and compares it with what the manifest says.
fn verify(
    backup: &Path,
    manifest: &Manifest,
    file: &Copied,
    mut read: impl FnMut(u64),
) -> Result<(), RestoreError> {
    let path = backup.join(&file.name);
    let damaged = |what: String| RestoreError::Damaged { path: path.clone(), what };
    let (bytes, rows, blake3) = match partition_of_name(&file.name) {
        Some(partition) => {
            let mut reader = RowsReader::open(&path).map_err(rows_error(&path))?;
            while let Some((key, _)) = reader.row().map_err(rows_error(&path))? {
                let section = keys::split(key).map(|(section, ..)| section);
                if section.map(|section| partition_of(section, manifest.partitions)) != Some(partition) {
                    return Err(damaged("a row in it belongs to another partition".to_owned()));
                }
                read(1);
            }
            let whole = reader.whole();
            (whole.bytes, whole.rows, whole.blake3)
        }
        None => {
            let bytes = fs::read(&path).map_err(|cause| damaged(cause.to_string()))?;
            (bytes.len() as u64, 0, blake3::hash(&bytes))
        }
    };
    if (bytes, rows, blake3.to_string()) != (file.bytes, file.rows, file.blake3.clone()) {
        return Err(damaged("it is not the file that the manifest names".to_owned()));
    }
    Ok(())
}

fn partition_of_name(name: &str) -> Option<u16> {
    name.strip_prefix('p')?.strip_suffix(".rows")?.parse().ok()
}

/// Writes all rows into a new store.
fn fill(backup: &Path, data: &Path, manifest: &Manifest, log_epoch: u32) -> Result<(), RestoreError> {
    let options =
        Options { partitions: manifest.partitions, log_epoch, ..Options::new(data.join(UNFINISHED)) };
    let store = Store::open_with(&options)?;
    let mut progress = Progress::new("restore: writing");
    let (mut rows, mut in_flight) = (0, VecDeque::new());
    for partition in 0..manifest.partitions {
        let path = backup.join(rows_name(partition));
        let mut reader = RowsReader::open(&path).map_err(rows_error(&path))?;
        let mut batch = Batch::new(0);
        while let Some((key, value)) = reader.row().map_err(rows_error(&path))? {
            batch.put(key, value);
            rows += 1;
            if batch.bytes() >= limits::BATCH_BYTES {
                in_flight.push_back(store.submit(partition, std::mem::take(&mut batch))?);
                settle(&store, &mut in_flight, limits::BATCHES_IN_FLIGHT)?;
                progress.at(rows, manifest.rows, || format!("{rows} rows"));
            }
        }
        if !batch.is_empty() {
            in_flight.push_back(store.submit(partition, batch)?);
        }
    }
    settle(&store, &mut in_flight, 0)?;
    Ok(())
}

/// Waits until at most `left` commits are on their way.
fn settle(store: &Store, in_flight: &mut VecDeque<u64>, left: usize) -> Result<(), StoreError> {
    while in_flight.len() > left {
        let Some(token) = in_flight.pop_front() else { break };
        store.settle(token)?;
    }
    Ok(())
}

fn put_keys(backup: &Path, data: &Path, manifest: &Manifest) -> Result<(), RestoreError> {
    let unfinished = data.join(UNFINISHED_KEYS);
    for file in &manifest.files {
        let Some(name) = file.name.strip_prefix("keys/") else { continue };
        let bytes = fs::read(backup.join(&file.name)).map_err(at(&backup.join(&file.name)))?;
        let mode = if name == ISSUER { 0o600 } else { 0o644 };
        write_key(&unfinished.join(name), &bytes, mode).map_err(at(&unfinished))?;
    }
    if unfinished.exists() {
        fs::rename(&unfinished, data.join("keys")).and_then(|()| sync_dir(data)).map_err(at(data))?;
    }
    Ok(())
}

fn rows_error(path: &Path) -> impl Fn(RowsError) -> RestoreError {
    let path = path.to_owned();
    move |error| match error {
        RowsError::Io(cause) if cause.kind() != io::ErrorKind::NotFound => {
            RestoreError::Io { path: path.clone(), cause }
        }
        error => RestoreError::Damaged { path: path.clone(), what: error.to_string() },
    }
}

fn at(path: &Path) -> impl Fn(io::Error) -> RestoreError {
    let path = path.to_owned();
    move |cause| RestoreError::Io { path: path.clone(), cause }
}
