//! All that is stored of a user, as JSON lines for whoever asks for it.
//!
//! ```text
//! account.jsonl   its number, its names, its profile, settings and devices
//! rows.jsonl      the rows of its log
//! peers.jsonl     what it keeps of others
//! moments.jsonl   its moments with what was said to them
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use proto_wire::names::SECTIONS;
use proto_wire::pb::change::Body as Content;
use serde_json::{Value, json};

use super::content::{content, id, to_json};
use super::progress::Progress;
use super::store::Store;
use super::user::{UserError, entries, entry_json, name_of_key, names, peers, records};
use crate::logic::keys;
use crate::logic::values::{Malformed, MomentHead, Row, RowBody, decode_said};

#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error(transparent)]
    User(#[from] UserError),
    #[error("{} holds something already; give a directory that is empty or does not exist", .0.display())]
    NotEmpty(PathBuf),
    #[error("{}: {cause}", path.display())]
    Io { path: PathBuf, cause: io::Error },
}

/// How many lines each file has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exported {
    pub names: u64,
    pub rows: u64,
    pub peers: u64,
    pub moments: u64,
}

pub fn export(store: &Store, user: u64, dir: &Path) -> Result<Exported, ExportError> {
    let io = |cause| ExportError::Io { path: dir.to_owned(), cause };
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io)?;
    if fs::read_dir(dir).map_err(io)?.next().is_some() {
        return Err(ExportError::NotEmpty(dir.to_owned()));
    }
    let kept = peers(store, user)?;
    let mut progress = Progress::new("export: looking for its name");
    let names = names(store, user, |section| {
        progress.at(section.into(), SECTIONS.into(), || format!("section {section}"));
    });
    let names: Vec<String> = names.map_err(UserError::from)?.iter().map(|key| name_of_key(key)).collect();
    let me = kept.me.map_or(Value::Null, |me| to_json(&Content::Me(me.state)));
    let mut account = Lines::create(dir, "account.jsonl")?;
    account.line(&json!({ "user": id(user), "names": names, "me": me }))?;
    account.finish()?;

    let mut rows = Lines::create(dir, "rows.jsonl")?;
    for entry in entries(store, user, 0) {
        rows.line(&entry_json(&entry?))?;
    }
    let mut others = Lines::create(dir, "peers.jsonl")?;
    for (_, kept) in kept.peers {
        let state = to_json(&Content::Peer(kept.state));
        others.line(&json!({ "number": kept.number, "version": kept.version, "state": state }))?;
    }
    let mut moments = Lines::create(dir, "moments.jsonl")?;
    for moment in moments_of(store, user)? {
        moments.line(&moment)?;
    }
    Ok(Exported {
        names: names.len() as u64,
        rows: rows.finish()?,
        peers: others.finish()?,
        moments: moments.finish()?,
    })
}

fn moments_of(store: &Store, user: u64) -> Result<Vec<Value>, UserError> {
    let heads = records(store, user, keys::MOMENT, |key, value| {
        let moment = keys::last_number(key).ok_or(Malformed("moment"))?;
        Ok((moment, MomentHead::decode(&value)?))
    })?;
    let mut moments = Vec::with_capacity(heads.len());
    for (moment, head) in heads {
        let damaged =
            |error: Malformed| UserError::Damaged { user, what: format!("moment {moment}: {error}") };
        let row = store.get(&keys::row(user, moment))?.map(|row| Row::decode(moment, &row)).transpose();
        let post = match row.map_err(damaged)?.map(|row| row.body) {
            Some(RowBody::Own(body)) => to_json(&content(&body).map_err(damaged)?.1),
            // Withdrawn, and behind the horizon.
            _ => Value::Null,
        };
        moments.push(json!({
            "moment": moment, "withdrawn": head.withdrawn, "post": post, "said": said(store, user, moment)?,
        }));
    }
    Ok(moments)
}

fn said(store: &Store, user: u64, moment: u64) -> Result<Vec<Value>, UserError> {
    let mut said = Vec::new();
    let prefix = keys::said(user, moment, 0, 0);
    for record in store.prefix(&prefix[..prefix.len() - 16]) {
        let (_, value) = record?;
        let comment = decode_said(&value);
        let comment = comment
            .map_err(|error| UserError::Damaged { user, what: format!("moment {moment}: {error}") })?;
        said.extend(comment.map(|comment| to_json(&Content::Comment(comment))));
    }
    Ok(said)
}

/// A file of JSON objects, one a line. Only its owner reads it.
struct Lines {
    path: PathBuf,
    file: BufWriter<File>,
    lines: u64,
}

impl Lines {
    fn create(dir: &Path, name: &str) -> Result<Self, ExportError> {
        let path = dir.join(name);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        match file {
            Ok(file) => Ok(Self { path, file: BufWriter::new(file), lines: 0 }),
            Err(cause) => Err(ExportError::Io { path, cause }),
        }
    }

    fn line(&mut self, value: &Value) -> Result<(), ExportError> {
        self.lines += 1;
        let Self { path, file, .. } = self;
        writeln!(file, "{value}").map_err(|cause| ExportError::Io { path: path.clone(), cause })
    }

    fn finish(mut self) -> Result<u64, ExportError> {
        let flushed = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        flushed.map_err(|cause| ExportError::Io { path: self.path, cause })?;
        Ok(self.lines)
    }
}
