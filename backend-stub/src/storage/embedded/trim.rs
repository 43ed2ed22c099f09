//! Journals without what is in tables already, before the engine replays them.
//!
//! The engine writes on in a journal until it has 64 MB and more. At start it reads all of it and asks a table of its
//! own, for each row, to which keyspace the row belongs; then it leaves out what is in tables. That took 2 us a row, for
//! 400 000 to a million rows, of which nearly none was needed. Here they are left out before, by the engine's own rule:
//! its tables hold every record up to the highest number in them.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use fjall::{AbstractTree as _, SeqNo};
use lsm_tree::{Config, SequenceNumberCounter};

use super::journal;
use crate::storage::limits;

/// Takes from the journals of a partition what is in its tables. What cannot be done is left as it is: the engine reads
/// all of it then, and says what is wrong.
pub(super) fn trim(partition: &Path) -> io::Result<()> {
    let journals: Vec<_> = journal::journals(partition)?;
    let mut bytes = 0;
    for (_, path) in &journals {
        bytes += fs::metadata(path)?.len();
    }
    if bytes < limits::TRIM_BYTES {
        return Ok(());
    }
    let Some(in_tables) = highest_in_tables(partition) else { return Ok(()) };
    for (_, path) in journals {
        let written = journal::written(&path)?;
        let needless = journal::length_up_to(&written, in_tables);
        if needless as u64 >= limits::TRIM_BYTES {
            replace(&path, &written[needless..])?;
        }
    }
    Ok(())
}

/// The number of the newest record that is in tables, as the engine will find it.
fn highest_in_tables(partition: &Path) -> Option<SeqNo> {
    let tree = only_keyspace(partition)?;
    let config = Config::new(tree, SequenceNumberCounter::default(), SequenceNumberCounter::default());
    config.open().ok()?.get_highest_persisted_seqno()
}

/// The directory of the rows' keyspace: the only one beside the engine's own, which is 0.
fn only_keyspace(partition: &Path) -> Option<PathBuf> {
    let mut found = None;
    for entry in fs::read_dir(partition.join("keyspaces")).ok()? {
        let path = entry.ok()?.path();
        if path.file_name().is_some_and(|name| name != "0") && found.replace(path).is_some() {
            return None;
        }
    }
    found
}

/// The new journal is on the disk before it takes the name of the old one.
fn replace(journal: &Path, rest: &[u8]) -> io::Result<()> {
    let new = journal.with_extension("jnl.new");
    // Nothing is written that was not there: the time of the last write stays, which clocks are compared with.
    let modified = fs::metadata(journal)?.modified()?;
    let written = File::create(&new).and_then(|mut file| {
        file.write_all(rest)?;
        file.set_modified(modified)?;
        file.sync_all()
    });
    match written {
        Ok(()) => fs::rename(&new, journal)?,
        // A disk without room: the old one does as well.
        Err(_) => return fs::remove_file(&new),
    }
    journal.parent().map_or(Ok(()), |partition| File::open(partition)?.sync_all())
}
