//! Merges wait while the disk has hardly any room. One writes its tables before it removes those that they replace, and
//! one that meets a full disk ends the engine, though nothing was lost.
//!
//! The engine asks a filter about every row of a merge, with no lock held: that is where a merge can wait. Meanwhile
//! memtables are still written to tables: what duties still commit, while writes are refused, takes of the reserve until
//! commits wait for the merge as well (`pace.rs`); reads go on.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use fjall::compaction::filter::{
    CompactionFilter, CompactionFilterResult, Context, Factory, ItemAccessor, Verdict,
};

use super::super::limits;
use super::room::free_bytes;

/// The merges of a store.
pub(super) struct Merges {
    dir: PathBuf,
    /// Room on the disk below which they wait.
    floor_bytes: u64,
    waiting: AtomicUsize,
    /// The store is being closed: what waits goes on, and ends with the engine.
    closing: AtomicBool,
}

impl Merges {
    /// Half of the reserve is theirs: writes are refused before they wait, and what was acknowledged has the other half.
    pub fn new(dir: PathBuf, reserve_bytes: u64) -> Arc<Self> {
        let floor_bytes = reserve_bytes / 2;
        Arc::new(Self { dir, floor_bytes, waiting: AtomicUsize::new(0), closing: AtomicBool::new(false) })
    }

    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    pub fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    fn has_room(&self) -> bool {
        // A disk that cannot be asked says so at the next write.
        let has_room = free_bytes(&self.dir).is_none_or(|free| free >= self.floor_bytes);
        has_room || self.closing.load(Ordering::Relaxed)
    }

    fn wait_for_room(&self) {
        if self.has_room() {
            return;
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let (dir, floor) = (self.dir.display(), self.floor_bytes);
        eprintln!(
            "moorgate: a merge of the store waits: less than {floor} bytes are free on the disk of {dir}; make room"
        );
        while !self.has_room() {
            thread::sleep(Duration::from_millis(limits::ROOM_LOOK_EVERY_MS));
        }
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        eprintln!("moorgate: the merge of the store goes on");
    }
}

/// Makes the filters, which keep everything.
pub(super) struct Filters(pub Arc<Merges>);

impl Factory for Filters {
    fn name(&self) -> &str {
        "moorgate-room"
    }

    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        // Looks at the first row: nothing was written then.
        Box::new(Filter { merges: self.0.clone(), unseen_bytes: limits::MERGE_LOOK_BYTES })
    }
}

struct Filter {
    merges: Arc<Merges>,
    /// Since the room was looked at last.
    unseen_bytes: usize,
}

impl CompactionFilter for Filter {
    fn filter_item(&mut self, item: ItemAccessor<'_>, _: &Context) -> CompactionFilterResult {
        self.unseen_bytes += item.key().len() + item.value()?.len();
        if self.unseen_bytes >= limits::MERGE_LOOK_BYTES {
            self.unseen_bytes = 0;
            self.merges.wait_for_room();
        }
        Ok(Verdict::Keep)
    }
}
