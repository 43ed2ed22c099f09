//! Memory and journal while the engine cannot keep pace.

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use std::{env, fs, process};

use super::*;

const MEMTABLE_BYTES: u64 = 64 << 10;

struct Dir(PathBuf);

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A store whose merges all wait until they are let go, as if the disk had no room.
struct Stalled {
    store: Embedded,
    woken: Receiver<()>,
    /// Behind the store, which is closed first.
    dir: Dir,
    owner_epoch: u64,
    submitted: u64,
    committed: u64,
}

impl Stalled {
    fn open(name: &str, worker_threads: usize) -> Self {
        let dir = env::temp_dir().join(format!("moorgate-pace-{name}-{}", process::id()));
        let _ = fs::remove_dir_all(&dir);
        let options = Options {
            memtable_bytes: MEMTABLE_BYTES,
            reserve_bytes: u64::MAX,
            worker_threads,
            ..Options::new(&dir)
        };
        let (wake, woken) = channel();
        let (store, opened) = Embedded::open(&options, |_| {
            let wake = wake.clone();
            Box::new(move || wake.send(()).unwrap_or_default())
        })
        .expect("a new directory");
        Self { store, woken, dir: Dir(dir), owner_epoch: opened.owner_epoch, submitted: 0, committed: 0 }
    }

    /// Whether the store took it.
    fn submit(&mut self) -> bool {
        let mut batch = Batch::new(self.submitted);
        batch.owner_epoch = self.owner_epoch;
        // Each table meets those before: they have to be merged.
        batch.put(&(self.submitted * 7919 % 40_009).to_be_bytes(), &[7; 1_000]);
        let took = self.store.submit(0, batch).is_ok();
        self.submitted += u64::from(took);
        took
    }

    fn poll(&mut self) {
        let mut done = Vec::new();
        self.store.poll(&mut done);
        for completion in done {
            assert!(matches!(completion, Completion::Committed { token } if token == self.committed));
            self.committed += 1;
        }
    }

    /// One after the other, as far as `rows` or until it is stopped.
    fn append(&mut self, rows: u64, is_stopped: impl Fn(Waited) -> bool) {
        while self.committed < rows {
            if self.submitted == self.committed {
                assert!(self.submit(), "nothing waits and the queue is full");
            }
            self.poll();
            if self.committed < self.submitted {
                if self.store.waited().merges > 0 && is_stopped(self.store.waited()) {
                    return;
                }
                let _ = self.woken.recv_timeout(Duration::from_millis(1));
            }
        }
    }

    fn journal_bytes(&self) -> usize {
        let journals = journal::journals(&self.dir.0.join("p0")).expect("the partition is there");
        journals.iter().map(|(_, path)| journal::written(path).expect("readable").len()).sum()
    }
}

/// 20 MB are asked for; what the engine can hold is far less. `is_full` once is for ever, as long as the merge waits.
fn stalled_and_let_go(name: &str, worker_threads: usize, tables: usize, is_full: impl Fn(Waited) -> bool) {
    const ROWS: u64 = 20_000;
    let mut stalled = Stalled::open(name, worker_threads);
    stalled.append(ROWS, |waited| waited.now && is_full(waited));
    let held = stalled.committed;
    assert!(held < ROWS, "all was taken and no commit waited");
    // Nothing is refused before the queue is full, and nothing of it is committed.
    while stalled.submit() {}
    stalled.poll();
    assert_eq!(stalled.committed, held);
    assert!(stalled.submitted - held >= limits::MAX_WAITING_BATCHES as u64);
    // It has not waited for long yet, or long enough that new writes are to be refused.
    while !stalled.store.is_behind() {
        std::thread::yield_now();
    }
    // A memtable is sealed by the commit that fills it.
    let bound = (MEMTABLE_BYTES + (2 << 10)) * (limits::MAX_SEALED_MEMTABLES as u64 + 1);
    let memory = stalled.store.waited().memtable_bytes;
    assert!(memory <= bound, "{memory} bytes in memtables, above {bound}");
    let (journal, bound) = (stalled.journal_bytes(), tables * MEMTABLE_BYTES as usize);
    assert!(journal <= bound, "{journal} bytes in journals, above {bound}");

    stalled.store.merges.close();
    stalled.append(held + ROWS / 4, |_| false);
    assert_eq!(stalled.committed, held + ROWS / 4, "writes go on");
    assert!(stalled.store.waited().commits > 0, "what waited is counted");
    if tables > limits::MAX_UNMERGED_TABLES {
        assert!(stalled.store.waited().slowed_ms > 0, "commits slow down before tables hold them");
    }
    assert!(!stalled.store.is_behind(), "new writes are taken again");
}

#[test]
fn a_merge_that_does_not_end_holds_commits_before_tables_pile_up_and_writes_go_on_after_it() {
    // All that was written: the engine begins another journal at 64 MB. Some tables may have been merged before.
    let tables = limits::MAX_UNMERGED_TABLES + limits::MAX_SEALED_MEMTABLES + 9;
    stalled_and_let_go("three", limits::WORKER_THREADS, tables, |waited| {
        waited.unmerged_tables >= limits::MAX_UNMERGED_TABLES
    });
}

#[test]
fn with_one_thread_of_the_engine_memory_and_journal_are_bounded_too() {
    // Some tables before the merge began: four, and what was sealed when it did.
    stalled_and_let_go("one", 1, 16, |waited| waited.sealed_memtables >= limits::MAX_SEALED_MEMTABLES);
}
