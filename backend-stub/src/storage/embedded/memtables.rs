//! Lets go of memtables that are written to tables.
//!
//! The engine drops a memtable under the lock that every insert and every read takes: 16 MiB of small rows are 20 to
//! 60 ms in which nothing is acknowledged. Held here once more, it is dropped by this thread, which holds no lock.

use std::any::Any;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use fjall::{AbstractTree as _, Keyspace};

use super::super::limits;

type Memtable = Arc<dyn Any + Send + Sync>;

/// The writer's end.
pub(super) struct Memtables {
    /// The one that is written to, by its id.
    active: Option<u64>,
    held: Sender<Memtable>,
}

impl Memtables {
    pub fn start(name: String) -> io::Result<(Self, JoinHandle<()>)> {
        let (held, arrived) = channel();
        let thread = thread::Builder::new().name(name).spawn(move || let_go(&arrived))?;
        Ok((Self { active: None, held }, thread))
    }

    /// Looks after a commit whether there is another memtable. There are five at most, by the engine's own bound.
    pub fn note(&mut self, keyspace: &Keyspace) {
        let active = keyspace.tree.active_memtable();
        if self.active != Some(active.id()) {
            self.active = Some(active.id());
            // The thread ends after this sender.
            let _ = self.held.send(active);
        }
    }
}

/// Drops each once nobody else has it, until the writer is gone.
fn let_go(arrived: &Receiver<Memtable>) {
    let mut held: Vec<Memtable> = Vec::new();
    loop {
        match arrived.recv_timeout(Duration::from_millis(limits::MEMTABLE_LOOK_EVERY_MS)) {
            Ok(memtable) => held.push(memtable),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        held.retain(|memtable| Arc::strong_count(memtable) > 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_dropped_once_nobody_else_has_it_and_not_before() {
        let (held, arrived) = channel::<Memtable>();
        let thread = thread::spawn(move || let_go(&arrived));
        let memtable: Arc<String> = Arc::new("rows".to_owned());
        let watched = Arc::downgrade(&memtable);
        held.send(memtable.clone()).expect("the thread lives");
        thread::sleep(Duration::from_millis(2 * limits::MEMTABLE_LOOK_EVERY_MS));
        assert!(watched.upgrade().is_some());
        drop(memtable);
        while watched.upgrade().is_some() {
            thread::yield_now();
        }
        drop(held);
        thread.join().expect("it ends with its sender");
    }
}
