//! Whether this process still owns the store: somebody else may have claimed the directory since.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use super::directory::Directory;

/// Looks at VERSION, which is replaced as a whole: another file there is another owner's.
pub(super) struct Owner {
    directory: PathBuf,
    seen: Option<Seen>,
    claimed: u64,
}

/// Inode and time: an inode's number may be given again.
#[derive(PartialEq, Eq)]
struct Seen(u64, i64, i64);

impl Owner {
    pub fn of(directory: &Directory) -> Self {
        let mut owner = Self { directory: directory.dir.clone(), seen: None, claimed: directory.owner_epoch };
        owner.claimed();
        owner
    }

    /// The highest owner_epoch that the store was claimed with. Costs a `stat`, which a commit's sync hides.
    pub fn claimed(&mut self) -> u64 {
        let path = self.directory.join("VERSION");
        // A file that cannot be read claims nothing; what is wrong with the disk shows at the commit.
        let Ok(metadata) = fs::metadata(&path) else { return self.claimed };
        let now = Some(Seen(metadata.ino(), metadata.mtime(), metadata.mtime_nsec()));
        if now != self.seen
            && let Some(epoch) = Directory::owner_epoch_in(&self.directory)
        {
            self.claimed = self.claimed.max(epoch);
            self.seen = now;
        }
        self.claimed
    }
}
