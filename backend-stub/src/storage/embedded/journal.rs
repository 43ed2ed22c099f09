//! The engine's journals before the engine opens them. It ends a journal at the first record that it
//! cannot read, without a word: right for a torn tail, and a silent loss when good records follow.
//!
//! A commit is synced before the next one is written, so at most one record can be torn, the last of the
//! last journal. An unreadable record with a readable one behind it, or in an older journal, is damage.
//! What cannot be told apart: damage to the very last record looks like a torn one. What is not seen: a
//! seqno that changed to another between its neighbours, which changes no row.
//!
//! ```text
//! record: 1, items u32, seqno u64 | items | 3, xxh3 of the items u64, "FJL" 3
//! item:   2, type u8, compression u8, keyspace u64, key u16, value u32, on disk u32, key, value
//!    or   4, keyspace u64
//! behind the last record: zeros, allocated ahead
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use super::OpenError;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const TRAILER: &[u8] = b"FJL\x03";

/// Checks all journals of a partition. Cuts a torn tail and says so; changes nothing when there is damage.
pub(super) fn check(partition: &Path, cut: &mut Vec<String>) -> Result<(), OpenError> {
    let io = |cause| OpenError::Io { dir: partition.to_owned(), cause };
    let mut journals = journals(partition).map_err(io)?;
    let last = journals.pop();
    for (_, path) in journals {
        if let Some(bad) = unreadable(&written(&path).map_err(io)?) {
            return Err(damaged(path, &bad));
        }
    }
    let Some((_, path)) = last else { return Ok(()) };
    let bytes = written(&path).map_err(io)?;
    match unreadable(&bytes) {
        None => Ok(()),
        Some(bad) if bad.next.is_some() => Err(damaged(path, &bad)),
        Some(bad) => {
            let file = OpenOptions::new().write(true).open(&path).map_err(io)?;
            file.set_len(bad.at as u64).and_then(|()| file.sync_all()).map_err(io)?;
            cut.push(format!(
                "cut the torn tail of {}: {} bytes from {} on, a record that was being written when the process or the machine died",
                path.display(),
                bytes.len() - bad.at,
                bad.at
            ));
            Ok(())
        }
    }
}

/// Where a journal cannot be read, and where it can again.
struct Unreadable {
    at: usize,
    next: Option<usize>,
}

fn damaged(journal: PathBuf, bad: &Unreadable) -> OpenError {
    let follows = match bad.next {
        Some(next) => format!("readable records follow at byte {next}"),
        None => "newer journals follow".to_owned(),
    };
    OpenError::Journal { journal, offset: bad.at as u64, follows }
}

/// The journals of a partition, oldest first.
pub(super) fn journals(partition: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let entries = match fs::read_dir(partition) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut journals = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jnl")
            && let Some(number) = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok())
        {
            journals.push((number, path));
        }
    }
    journals.sort_unstable();
    Ok(journals)
}

/// The bytes of a journal without the zeros behind them. The engine begins another one at 64 MiB, which
/// bounds what is read at once.
pub(super) fn written(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    bytes.truncate(bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1));
    Ok(bytes)
}

/// The length of the records at the beginning that are not newer than `seqno`.
pub(super) fn length_up_to(bytes: &[u8], seqno: u64) -> usize {
    let mut at = 0;
    while let Some(record) = record(&bytes[at..]).filter(|record| record.seqno <= seqno) {
        at += record.length;
    }
    at
}

fn unreadable(bytes: &[u8]) -> Option<Unreadable> {
    let (mut at, mut seqno) = (0, None);
    while at < bytes.len() {
        let record = record(&bytes[at..]);
        // The checksum leaves the seqno out; that it never falls says when it is damaged.
        if record.as_ref().is_some_and(|record| Some(record.seqno) < seqno) {
            return Some(Unreadable { at, next: Some(at) });
        }
        let Some(record) = record else {
            // A text may hold the bytes of a record; only one that is newer than what was read counts.
            let next = (at + 1..bytes.len()).find(|&next| {
                bytes[next] == START
                    && self::record(&bytes[next..]).is_some_and(|record| Some(record.seqno) > seqno)
            });
            return Some(Unreadable { at, next });
        };
        seqno = Some(record.seqno);
        at += record.length;
    }
    None
}

struct Record {
    seqno: u64,
    length: usize,
}

/// The record at the beginning of `bytes`, if it is whole and its checksum is right.
fn record(bytes: &[u8]) -> Option<Record> {
    let mut rest = bytes;
    if take::<1>(&mut rest)? != [START] {
        return None;
    }
    let items = u32::from_le_bytes(take(&mut rest)?);
    let seqno = u64::from_le_bytes(take(&mut rest)?);
    let body = rest;
    for _ in 0..items {
        skip_item(&mut rest)?;
    }
    let body = &body[..body.len() - rest.len()];
    if take::<1>(&mut rest)? != [END] {
        return None;
    }
    let checksum = u64::from_le_bytes(take(&mut rest)?);
    let is_whole = take::<4>(&mut rest)? == TRAILER && xxh3_64(body) == checksum;
    is_whole.then(|| Record { seqno, length: bytes.len() - rest.len() })
}

fn skip_item(rest: &mut &[u8]) -> Option<()> {
    match take::<1>(rest)? {
        [ITEM] => {
            let _type_compression_keyspace = take::<10>(rest)?;
            let key = usize::from(u16::from_le_bytes(take(rest)?));
            let _value = take::<4>(rest)?;
            let on_disk = u32::from_le_bytes(take(rest)?) as usize;
            *rest = rest.get(key + on_disk..)?;
            Some(())
        }
        [CLEAR] => take::<8>(rest).map(drop),
        _ => None,
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(*taken)
}
