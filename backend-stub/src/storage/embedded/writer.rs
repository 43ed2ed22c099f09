//! The writer of a partition: group commit.

use std::process;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use fjall::{OwnedWriteBatch, PersistMode};

use super::super::{Batch, Completion, Wake, limits};
use super::Done;
use super::owner::Owner;
use super::pace::Pace;
use crate::plant::{Fault, planted};

pub(super) struct Writer {
    pub pace: Arc<Pace>,
    pub owner: Owner,
    pub batches: Receiver<Batch>,
    pub done: Arc<Done>,
    pub wake: Wake,
}

impl Writer {
    /// Commits what comes until the owner is gone.
    pub fn run(mut self) {
        let (mut ended, mut owed_us) = (Vec::new(), 0);
        while let Ok(first) = self.batches.recv() {
            if let Err(error) = self.pace.wait() {
                stop(&error);
            }
            let bytes = self.commit(first, &mut ended);
            self.done.push(ended.drain(..));
            (self.wake)();
            // Behind the acknowledgement: nobody waits for it.
            if let Err(error) = self.pace.seal() {
                stop(&error);
            }
            self.pace.slow_down(bytes, &mut owed_us);
        }
    }

    /// One commit with one fdatasync for all that waits, and that this process may still write. Gives its bytes.
    fn commit(&mut self, first: Batch, ended: &mut Vec<Completion>) -> usize {
        let claimed = self.owner.claimed();
        let durability = (!planted(Fault::CommitUnsynced)).then_some(PersistMode::SyncData);
        let mut group = self.pace.database.batch().durability(durability);
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(batch) = next {
            let (token, fenced) = (batch.token, batch.fenced_by(claimed));
            if fenced.is_none() {
                self.put(&batch, &mut group);
            }
            bytes += batch.bytes();
            ended.push(match fenced {
                Some(by) => Completion::Fenced { token, by },
                None => Completion::Committed { token },
            });
            next = if bytes < limits::MAX_GROUP_BYTES { self.batches.try_recv().ok() } else { None };
        }
        if let Err(error) = group.commit() {
            stop(&error);
        }
        bytes
    }

    fn put(&self, batch: &Batch, group: &mut OwnedWriteBatch) {
        for (key, value) in batch.iter() {
            match value {
                Some(value) => group.insert(&self.pace.keyspace, key, value),
                None => group.remove(&self.pace.keyspace, key),
            }
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
