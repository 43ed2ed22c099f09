//! What a gateway knows its phones by: the public keys of issuers, and the root keys of resume tickets.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use proto_wire_token::limits::TICKET_KEY_BYTES;
use proto_wire_token::{Resuming, TicketKeys, Verifier};

use crate::shard::SharedVerify;

/// Where the keys come from: read at the start, and again at SIGHUP.
#[derive(Debug)]
pub struct KeySource {
    verify: PathBuf,
    ticket: Option<PathBuf>,
    /// Without a file: tickets are good at this process alone.
    own: [u8; TICKET_KEY_BYTES],
}

impl KeySource {
    pub fn new(verify: &Path, ticket: Option<&Path>) -> Result<Self> {
        Ok(Self { verify: verify.to_owned(), ticket: ticket.map(Path::to_owned), own: fresh()? })
    }

    pub fn read(&self) -> Result<SharedVerify> {
        let path = &self.verify;
        let pem = std::fs::read_to_string(path).with_context(|| {
            format!("cannot read the public keys {} (name them with --verify-key)", path.display())
        })?;
        let tokens = Verifier::from_pems(&[&pem])
            .with_context(|| format!("{} does not hold public keys of issuers", path.display()))?;
        let tickets = match &self.ticket {
            None => TicketKeys::new(self.own),
            Some(path) => {
                let text = std::fs::read_to_string(path).with_context(|| {
                    format!(
                        "cannot read the ticket keys {0} (make one: moorgate ticket-key > {0})",
                        path.display()
                    )
                })?;
                TicketKeys::from_text(&text)
                    .with_context(|| format!("{} does not hold ticket keys", path.display()))?
            }
        };
        Ok(Arc::new(Resuming { tokens, tickets }))
    }
}

/// Makes a file with a root key, unless there is one.
pub fn ensure(path: &Path) -> Result<()> {
    let new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match new {
        Ok(mut file) => file.write_all(fresh_text()?.as_bytes()).and_then(|()| file.sync_all()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
    .with_context(|| format!("cannot make the ticket key {}", path.display()))
}

/// A new root key, as its file holds it.
pub fn fresh_text() -> Result<String> {
    Ok(TicketKeys::to_text(&fresh()?))
}

fn fresh() -> Result<[u8; TICKET_KEY_BYTES]> {
    let mut key = [0; TICKET_KEY_BYTES];
    getrandom::fill(&mut key)
        .map_err(|error| anyhow::anyhow!("the kernel gives no random numbers: {error}"))?;
    Ok(key)
}
