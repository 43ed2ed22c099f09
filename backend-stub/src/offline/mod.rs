//! The operator's tools: what looks into a store, checks, copies and mends it while no backend runs on it.
//!
//! Everything goes through [`store::Store`], which holds the same lock as a backend: on a data directory that one
//! serves, each tool says so and ends.

pub mod backup;
pub mod check;
mod content;
pub mod erase;
pub mod export;
pub mod limits;
mod progress;
pub mod restore;
mod rows_file;
pub mod store;
pub mod user;

use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::bail;

use self::progress::Progress;
use self::store::{Store, StoreError};
use crate::cli::{Tool, UserArg, UserTool};
use crate::clock::unix_ms;
use crate::storage::embedded::{self, Options};

#[cfg(test)]
mod tests;

/// Does what the command line asks. What it says goes to `out`; an error is why the process ends with 1.
pub fn run(tool: Tool, out: &mut impl Write) -> anyhow::Result<()> {
    let mut out = BufWriter::new(out);
    let result = dispatch(tool, &mut out).and_then(|()| Ok(out.flush()?));
    match result {
        // Whoever reads has seen enough.
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(is_closed_pipe) => Ok(()),
        result => result,
    }
}

fn is_closed_pipe(error: &io::Error) -> bool {
    error.kind() == ErrorKind::BrokenPipe
}

fn dispatch(tool: Tool, out: &mut impl Write) -> anyhow::Result<()> {
    match tool {
        Tool::User(UserTool::Show { user, json }) => {
            let (store, user) = open_user(&user)?;
            let summary = user::summary(&store, user)?;
            match json {
                true => writeln!(out, "{}", serde_json::to_string_pretty(&summary)?)?,
                false => write!(out, "{summary}")?,
            }
        }
        Tool::User(UserTool::Log { user, from, limit, json }) => {
            let (store, user) = open_user(&user)?;
            log(&store, user, from, limit.unwrap_or(usize::MAX), json, out)?;
        }
        Tool::User(UserTool::Export { user, dir, data }) => {
            let (store, user) = open_user(&UserArg { user, data })?;
            let export::Exported { rows, peers, moments, .. } = export::export(&store, user, &dir)?;
            writeln!(out, "user {user}: {rows} rows, {peers} peers, {moments} moments in {}", dir.display())?;
        }
        Tool::User(UserTool::Erase { user, yes }) => {
            let (store, user) = open_user(&user)?;
            erase_user(&store, user, yes, out)?;
        }
        Tool::Check(data) => check_store(&Store::open(&data.data)?, out)?,
        Tool::Compact(data) => compact(&data.data, out)?,
        Tool::Backup { dir, data } => {
            let manifest = backup::backup(&data.data, &dir)?;
            let bytes: u64 = manifest.files.iter().map(|file| file.bytes).sum();
            writeln!(out, "{} rows, {bytes} bytes in {}", manifest.rows, dir.display())?;
        }
        Tool::Restore { dir, from, data } => {
            let (backup, data) = from.map_or((dir.clone(), data.data), |backup| (backup, dir));
            let restored = restore::restore(&backup, &data, unix_ms())?;
            writeln!(
                out,
                "{} rows restored into {}; log_epoch was {} and is {}: phones take snapshots",
                restored.manifest.rows,
                data.display(),
                restored.manifest.log_epoch,
                restored.log_epoch
            )?;
        }
    }
    Ok(())
}

fn erase_user(store: &Store, user: u64, yes: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let erasure = erase::plan(store, user)?;
    if erasure.is_done {
        writeln!(out, "nothing is stored of user {user}")?;
        return Ok(());
    }
    write!(out, "{erasure}")?;
    if !yes {
        out.flush()?;
        bail!("nothing was removed; say --yes to remove it");
    }
    erase::erase(store, &erasure)?;
    writeln!(out, "removed")?;
    Ok(())
}

fn check_store(store: &Store, out: &mut impl Write) -> anyhow::Result<()> {
    let (mut shown, mut broken) = (0, None);
    let counts = check::check(store, &mut |fault| {
        if shown < limits::SHOWN_FAULTS {
            broken = writeln!(out, "{fault}").err().or(broken.take());
        }
        shown += 1;
    });
    if let Some(error) = broken {
        return Err(error.into());
    }
    write!(out, "{counts}")?;
    match counts.faults {
        0 => Ok(()),
        faults => {
            out.flush()?;
            bail!(
                "{faults} faults; keep a copy of the directory, check the disk, and restore a backup if they matter"
            )
        }
    }
}

fn compact(data: &Path, out: &mut impl Write) -> anyhow::Result<()> {
    let dir = data.join("store");
    if !dir.join("VERSION").is_file() {
        return Err(StoreError::NoStore(data.to_owned()).into());
    }
    let before = bytes_on_disk(&dir)?;
    let mut progress = Progress::new("compact");
    let cut = embedded::compact(&Options::new(&dir), |partition, of| {
        progress.at(partition.into(), of.into(), || format!("partition {partition}"));
    })?;
    for line in cut {
        tracing::warn!("{line}");
    }
    writeln!(out, "{before} bytes on the disk before, {} after", bytes_on_disk(&dir)?)?;
    Ok(())
}

/// What the files of a directory take: journals are allocated ahead and mostly empty.
fn bytes_on_disk(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { bytes_on_disk(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}

fn open_user(arg: &UserArg) -> anyhow::Result<(Store, u64)> {
    let store = Store::open(&arg.data.data)?;
    let user = user::find(&store, &arg.user)?;
    Ok((store, user))
}

fn log(
    store: &Store,
    user: u64,
    from: u64,
    limit: usize,
    json: bool,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    if !json {
        writeln!(out, "{:>8} {:>8}  {:<28} {:>7}  {:<9} text", "number", "prev", "item", "version", "kind")?;
    }
    for entry in user::entries(store, user, from).take(limit) {
        let entry = entry?;
        match json {
            true => writeln!(out, "{}", user::entry_json(&entry))?,
            false => writeln!(out, "{}", line(&entry))?,
        }
    }
    Ok(())
}

fn line(entry: &user::Entry) -> String {
    let user::Entry { number, row, body } = entry;
    let Some(body) = body else {
        return format!("{number:>8} {:>8}  the body of this row is missing or damaged", row.prev);
    };
    match content::content(body) {
        Ok((head, content)) => {
            let item = format!("{}/{}", head.origin, head.item);
            let text = if head.deleted { "(deleted)".to_owned() } else { content::line(&content) };
            let kind = content::kind_name(head.kind);
            format!("{number:>8} {:>8}  {item:<28} {:>7}  {kind:<9} {text}", row.prev, head.version)
        }
        Err(error) => format!("{number:>8} {:>8}  {error}", row.prev),
    }
}
