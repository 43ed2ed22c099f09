//! The room that is left on the disk, looked at by a thread of its own.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::statvfs::statvfs;

use super::super::limits;

/// Looks until it is dropped.
pub(super) struct Room {
    is_full: Arc<AtomicBool>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Full below the reserve; not full again when there is a little more, so that it does not go to and fro.
struct Watch {
    dir: PathBuf,
    reserve_bytes: u64,
    is_full: Arc<AtomicBool>,
}

impl Room {
    /// Has looked once when it returns.
    pub fn watch(dir: PathBuf, reserve_bytes: u64) -> io::Result<Self> {
        let is_full = Arc::new(AtomicBool::new(false));
        let watch = Watch { dir, reserve_bytes, is_full: is_full.clone() };
        let (stop, stopped) = channel();
        let mut look_again_ms = watch.look();
        let thread = thread::Builder::new().name("store-room".to_owned()).spawn(move || {
            while stopped.recv_timeout(Duration::from_millis(look_again_ms)) == Err(RecvTimeoutError::Timeout)
            {
                look_again_ms = watch.look();
            }
        })?;
        Ok(Self { is_full, stop: Some(stop), thread: Some(thread) })
    }

    pub fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }
}

impl Watch {
    /// Gives when to look again.
    fn look(&self) -> u64 {
        // A disk that cannot be asked says so at the next write.
        let Some(free_bytes) = free_bytes(&self.dir) else { return limits::ROOM_LOOK_EVERY_MS };
        let was_full = self.is_full.load(Ordering::Relaxed);
        self.is_full.store(is_full(free_bytes, self.reserve_bytes, was_full), Ordering::Relaxed);
        let plenty = self.reserve_bytes.saturating_mul(limits::PLENTY_OF_RESERVES);
        if free_bytes > plenty { limits::ROOM_LOOK_SELDOM_MS } else { limits::ROOM_LOOK_EVERY_MS }
    }
}

fn is_full(free_bytes: u64, reserve_bytes: u64, was_full: bool) -> bool {
    let enough = if was_full { reserve_bytes.saturating_add(reserve_bytes / 8) } else { reserve_bytes };
    free_bytes < enough
}

pub(super) fn free_bytes(dir: &std::path::Path) -> Option<u64> {
    let said = statvfs(dir).ok()?;
    Some(said.blocks_available().saturating_mul(said.fragment_size()))
}

impl Drop for Room {
    fn drop(&mut self) {
        self.stop = None;
        // A thread that panicked has said so.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_below_the_reserve_and_not_before_there_is_a_little_more() {
        assert!(!is_full(800, 800, false));
        assert!(is_full(799, 800, false));
        assert!(is_full(899, 800, true));
        assert!(!is_full(900, 800, true));
        assert!(!is_full(0, 0, false), "no reserve, no refusal");
    }

    #[test]
    fn the_room_of_a_real_disk_is_told() {
        let free = free_bytes(&std::env::temp_dir()).expect("a disk");
        assert!(!Room::watch(std::env::temp_dir(), 0).expect("a thread").is_full());
        assert!(Room::watch(std::env::temp_dir(), free * 2 + 1).expect("a thread").is_full());
    }
}
