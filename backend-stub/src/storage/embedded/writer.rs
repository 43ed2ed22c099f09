//! The writer of a partition: group commit.

use std::process;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use fjall::{Database, Keyspace, PersistMode};

use super::super::{Batch, Completion, Wake, limits};
use super::Done;
use crate::plant::{Fault, planted};

pub(super) struct Writer {
    pub database: Database,
    pub keyspace: Keyspace,
    pub batches: Receiver<Batch>,
    pub done: Arc<Done>,
    pub wake: Wake,
}

impl Writer {
    /// Commits what comes until the owner is gone.
    pub fn run(self) {
        let mut tokens = Vec::new();
        while let Ok(first) = self.batches.recv() {
            self.commit(first, &mut tokens);
            self.done.push(tokens.drain(..).map(|token| Completion::Committed { token }));
            (self.wake)();
        }
    }

    /// One commit with one fdatasync for all that waits.
    fn commit(&self, first: Batch, tokens: &mut Vec<u64>) {
        let durability = (!planted(Fault::CommitUnsynced)).then_some(PersistMode::SyncData);
        let mut group = self.database.batch().durability(durability);
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(batch) = next {
            for (key, value) in batch.iter() {
                match value {
                    Some(value) => group.insert(&self.keyspace, key, value),
                    None => group.remove(&self.keyspace, key),
                }
            }
            bytes += batch.bytes();
            tokens.push(batch.token);
            next = if bytes < limits::MAX_GROUP_BYTES { self.batches.try_recv().ok() } else { None };
        }
        if let Err(error) = group.commit() {
            stop(&error);
        }
    }
}

/// After a failed sync nobody knows what the disk holds: nothing may be acknowledged any more.
fn stop(error: &fjall::Error) -> ! {
    eprintln!(
        "moorgate: the store cannot write ({error}); stopping, so that nothing is acknowledged that is not on disk. \
         Check the disk and its free space, then start again: what was acknowledged is there"
    );
    process::abort()
}
