//! Commits keep pace with the engine, so that its memory and its journal have a bound.
//!
//! The engine's own threads seal a full memtable, write it to a table and merge tables. When they are at something else
//! the open memtable would grow, and the journal with it; and each commit would ask them to seal it, until their queue
//! is full, where one of them can wait for itself for ever. So the writer seals its memtable itself, and waits before
//! the next commit while too many sealed ones, or too many tables that are not merged, have gathered. The engine halts
//! commits as well, a little later, without a word. Before it comes to that commits slow down by degrees: with each
//! unmerged table more the pause after a commit is longer, in proportion to what the commit wrote.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{mem, thread};

use fjall::{AbstractTree as _, Database, Keyspace, PersistMode};

use super::super::{Waited, limits};

/// A partition's engine, and what its writer has waited for it.
pub(super) struct Pace {
    pub database: Database,
    pub keyspace: Keyspace,
    /// The open memtable is sealed when it holds more.
    memtable_bytes: u64,
    commits: AtomicU64,
    us: AtomicU64,
    slowed_us: AtomicU64,
    waits: AtomicBool,
    /// It has waited for so long that new writes should not join.
    is_behind: AtomicBool,
}

impl Pace {
    pub fn new(database: Database, keyspace: Keyspace, memtable_bytes: u64) -> Self {
        let [commits, us, slowed_us] = [0, 0, 0].map(AtomicU64::new);
        let [waits, is_behind] = [false, false].map(AtomicBool::new);
        Self { database, keyspace, memtable_bytes, commits, us, slowed_us, waits, is_behind }
    }

    pub fn add_to(&self, waited: &mut Waited) {
        waited.commits += self.commits.load(Ordering::Relaxed);
        waited.ms += self.us.load(Ordering::Relaxed) / 1000;
        waited.slowed_ms += self.slowed_us.load(Ordering::Relaxed) / 1000;
        waited.now |= self.waits.load(Ordering::Relaxed);
        waited.memtable_bytes += self.database.write_buffer_size();
        waited.sealed_memtables += self.keyspace.tree.sealed_memtable_count();
        waited.unmerged_tables += self.keyspace.tree.l0_run_count();
    }

    pub fn is_behind(&self) -> bool {
        self.is_behind.load(Ordering::Relaxed)
    }

    /// Waits until the engine can take a commit. An error is the engine's: it has ended.
    pub fn wait(&self) -> Result<(), fjall::Error> {
        if !self.must_wait() {
            return Ok(());
        }
        let since = Instant::now();
        let mut told = false;
        self.waits.store(true, Ordering::Relaxed);
        while self.must_wait() {
            // Says whether the engine still lives: one that has ended never catches up.
            self.database.persist(PersistMode::Buffer)?;
            if !told && since.elapsed() >= Duration::from_millis(limits::TELL_HELD_MS) {
                told = true;
                self.is_behind.store(true, Ordering::Relaxed);
                eprintln!(
                    "moorgate: commits of the store wait: {} memtables are not in tables yet and {} tables are not merged; \
                     they go on by themselves when the disk has caught up",
                    self.keyspace.tree.sealed_memtable_count(),
                    self.keyspace.tree.l0_run_count()
                );
            }
            thread::sleep(Duration::from_millis(limits::HELD_LOOK_EVERY_MS));
        }
        let us = since.elapsed().as_micros() as u64;
        self.waits.store(false, Ordering::Relaxed);
        self.is_behind.store(false, Ordering::Relaxed);
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.us.fetch_add(us, Ordering::Relaxed);
        if told {
            eprintln!("moorgate: commits of the store go on after {} ms", us / 1000);
        }
        Ok(())
    }

    /// After a commit of `bytes`: pauses as long as the engine is behind, or adds to what is `owed_us`.
    pub fn slow_down(&self, bytes: usize, owed_us: &mut u64) {
        *owed_us += pause_us(self.keyspace.tree.l0_run_count(), bytes);
        if *owed_us >= limits::SLOW_MIN_US {
            let us = mem::take(owed_us).min(limits::SLOW_MAX_US);
            thread::sleep(Duration::from_micros(us));
            self.slowed_us.fetch_add(us, Ordering::Relaxed);
        }
    }

    /// Seals the open memtable when it is full; the engine's threads write it to a table.
    pub fn seal(&self) -> Result<(), fjall::Error> {
        if self.keyspace.tree.active_memtable().size() > self.memtable_bytes {
            self.keyspace.rotate_memtable()?;
        }
        Ok(())
    }

    fn must_wait(&self) -> bool {
        self.keyspace.tree.sealed_memtable_count() >= limits::MAX_SEALED_MEMTABLES
            || self.keyspace.tree.l0_run_count() >= limits::MAX_UNMERGED_TABLES
    }
}

/// What a commit of `bytes` owes to the merges.
fn pause_us(unmerged_tables: usize, bytes: usize) -> u64 {
    let behind = unmerged_tables.saturating_sub(limits::SLOW_FROM_TABLES) as u64;
    behind * limits::SLOW_US_A_KIB * bytes as u64 / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With twelve tables behind, in bytes a second.
    const WRITTEN: u64 = 1024 * 1_000_000 / (limits::SLOW_US_A_KIB * 12);

    #[test]
    fn pauses_grow_with_what_is_behind_and_with_what_was_written() {
        assert_eq!(pause_us(limits::SLOW_FROM_TABLES, limits::MAX_GROUP_BYTES), 0);
        assert_eq!(pause_us(limits::SLOW_FROM_TABLES + 1, 1024), limits::SLOW_US_A_KIB);
        let commits = (WRITTEN / 4096) as usize;
        let second: u64 = (0..commits).map(|_| pause_us(limits::SLOW_FROM_TABLES + 12, 4096)).sum();
        assert!((990_000..=1_000_000).contains(&second), "{second}");
    }
}
