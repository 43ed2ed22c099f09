//! A disk that can lose its power: a file system of our own (FUSE) that a backend keeps its data on.
//!
//! It holds everything in memory, knows what was synced, and at a [`Disk::cut`] keeps that and, of the rest, what the
//! seed says: some pieces of 512 bytes and not others, some names and not others. It can also be slow, full,
//! unreadable, fail its syncs, or lie about them. It needs `/dev/fuse` and either root or `fusermount3`.

mod contents;
mod fuse;
mod model;
mod power;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fuser::{BackgroundSession, Config, MountOption};

pub use power::{Step, Trip};

use power::{Shared, State};

/// What stands before the mount in `/proc/mounts`.
pub const NAME: &str = "moorgate-test-disk";

/// A mounted disk. Dropped, it is unmounted, and what is on it is gone.
pub struct Disk {
    shared: Arc<Shared>,
    session: Option<BackgroundSession>,
}

/// What may be wrong with the disk while its power is on.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Syncs say that they are done and do nothing.
    pub lying_syncs: bool,
    /// Syncs fail with EIO.
    pub failing_syncs: bool,
    /// From when a sync is asked for to when it is done, in microseconds: at least and at most.
    pub sync_us: Option<(u64, u64)>,
    /// Reads of files fail with EIO where the path contains this.
    pub unreadable: Option<String>,
}

#[derive(Debug, thiserror::Error)]
#[error(
    "a disk of our own cannot be mounted on {dir}: {cause}; it needs /dev/fuse, and root or fusermount3 (apt-get install fuse3)"
)]
pub struct NoDisk {
    dir: PathBuf,
    cause: io::Error,
}

impl Disk {
    /// Mounts an empty disk on a directory that exists.
    pub fn mount(dir: &Path) -> Result<Self, NoDisk> {
        let shared = Arc::new(Shared::default());
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName(NAME.to_owned()), MountOption::DefaultPermissions];
        let session = fuser::spawn_mount(fuse::Files::new(shared.clone()), dir, &config)
            .map_err(|cause| NoDisk { dir: dir.to_owned(), cause })?;
        Ok(Self { shared, session: Some(session) })
    }

    /// The power goes at a step to come. Until [`Disk::cut`] nothing is answered any more.
    pub fn arm(&self, trip: Trip) {
        self.shared.lock().arm(trip);
    }

    /// The power stays on; false: it is gone already.
    pub fn disarm(&self) -> bool {
        self.shared.lock().disarm()
    }

    /// Whether the power is gone.
    pub fn is_frozen(&self) -> bool {
        self.shared.lock().is_frozen()
    }

    /// The power is gone now: whoever asks, or has asked and waits, gets EIO until the next [`Disk::cut`].
    pub fn power_off(&self) {
        self.shared.power_off();
    }

    /// Makes what was not synced survive or not, and gives the power back. Nothing may use the disk meanwhile. Says
    /// what survived.
    pub fn cut(&self, seed: u64) -> String {
        self.shared.power_off();
        self.shared.lock().power_on(|model| model.cut(seed))
    }

    /// A cut after which nothing is there but what was synced.
    pub fn cut_to_synced(&self) -> String {
        self.shared.power_off();
        self.shared.lock().power_on(model::Model::cut_to_synced)
    }

    /// Changes what is wrong with it.
    pub fn set_faults(&self, faults: Faults) {
        self.shared.lock().faults = faults;
    }

    /// What may still be written; none: as much as one likes.
    pub fn set_room(&self, room: Option<u64>) {
        self.shared.lock().model.room = room;
    }

    pub fn room(&self) -> Option<u64> {
        self.shared.lock().model.room
    }

    /// How often each kind of step was taken.
    pub fn steps(&self, step: Step) -> u64 {
        self.shared.lock().taken(step)
    }

    /// Changes bytes behind the back of whoever wrote them; the path is below the mount. True: there was such a file.
    pub fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut state = self.shared.lock();
        let State { model, .. } = &mut *state;
        let Some(ino) = model.find(path) else { return false };
        let Ok(file) = model.file(ino) else { return false };
        let before = file.read(0, file.size() as usize);
        let mut after = before.clone();
        change(&mut after);
        let first = before.iter().zip(&after).position(|(before, after)| before != after).unwrap_or(0);
        let is_done = model.set_size(ino, after.len() as u64).is_ok()
            && model.write(ino, first as u64, &after[first.min(after.len())..]).is_ok()
            && model.sync(ino).is_ok();
        is_done
    }

    /// All files, by their paths below the mount, with their sizes.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        self.shared.lock().model.files()
    }

    /// What is in a file.
    pub fn read(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.shared.lock();
        let file = state.model.file(state.model.find(path)?).ok()?;
        Some(file.read(0, file.size() as usize))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.shared.power_off();
        let Some(session) = self.session.take() else { return };
        if let Err(cause) = session.umount_and_join() {
            eprintln!("the disk of the test does not go: {cause}");
        }
    }
}

#[cfg(test)]
mod tests;
