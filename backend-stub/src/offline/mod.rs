//! The operator's tools: what looks into a store, checks, copies and mends it while no backend runs on it.
//!
//! Everything goes through [`store::Store`], which holds the same lock as a backend: on a data directory that one
//! serves, each tool says so and ends.

mod content;
pub mod limits;
pub mod store;
pub mod user;

use std::io::{self, BufWriter, ErrorKind, Write};

use self::store::Store;
use crate::cli::{Tool, UserArg, UserTool};

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
    }
    Ok(())
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
