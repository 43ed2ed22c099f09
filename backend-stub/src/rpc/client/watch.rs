//! A file of endpoints that is watched.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::rc::Weak;
use std::time::SystemTime;
use std::{fs, io};

use proto_wire::rpc::client::address::parse_list;

use super::{Shared, limits};
use crate::rt;

/// Gives the client what stands in the file, and again whenever it has changed. A file that cannot be read, or is wrong or
/// empty, changes nothing: it may be half written, and nobody is called where nobody is.
pub(super) async fn watch(path: PathBuf, client: Weak<Shared>) {
    let (mut seen, mut complained) = (None, String::new());
    while let Some(client) = client.upgrade().filter(|client| !client.is_closed.get()) {
        // A look at a small local file: some us of this thread.
        if let Err(reason) = look(&path, &mut seen, &client)
            && reason != complained
        {
            tracing::warn!(file = %path.display(), %reason, "the endpoints stay as they are");
            complained = reason;
        }
        drop(client);
        rt::sleep_ms(limits::WATCH_MS).await;
    }
}

/// Length and time of the last change of what was read.
type Seen = Option<(u64, Option<SystemTime>)>;

fn look(path: &Path, seen: &mut Seen, client: &Shared) -> Result<(), String> {
    let text = |error: io::Error| error.to_string();
    let about = fs::metadata(path).map_err(text)?;
    let now = Some((about.len(), about.modified().ok()));
    if *seen == now {
        return Ok(());
    }
    let mut list = String::new();
    fs::File::open(path)
        .and_then(|file| file.take(limits::MAX_FILE_BYTES).read_to_string(&mut list))
        .map_err(text)?;
    *seen = now;
    let list = parse_list(&list).map_err(|error| error.to_string())?;
    client.config.check_list(&list).map_err(|error| error.to_string())?;
    if list.is_empty() {
        return Err("there are no endpoints in it".to_owned());
    }
    tracing::info!(file = %path.display(), endpoints = list.len(), "endpoints read");
    client.set_endpoints(&list);
    Ok(())
}
