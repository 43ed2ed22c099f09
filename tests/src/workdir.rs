//! A fresh directory for one test.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, io, process};

/// A directory that nobody else uses, removed with all in it when dropped. It stays where `MOORGATE_KEEP=1` is
/// set, and is told.
#[derive(Debug)]
pub struct WorkDir {
    path: PathBuf,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

impl WorkDir {
    /// Makes one under the system's directory for temporary files (`TMPDIR`), `name` in its name.
    pub fn new(name: &str) -> io::Result<WorkDir> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("moorgate-test-{name}-{}-{number}", process::id()));
        // Left by a process of the same id that was killed: of no use to anyone.
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::create_dir_all(&path)?;
        Ok(WorkDir { path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if env::var_os("MOORGATE_KEEP").is_some_and(|value| value == "1") {
            eprintln!("kept: {}", self.path.display());
            return;
        }
        if let Err(cause) = fs::remove_dir_all(&self.path) {
            eprintln!("cannot remove {}: {cause}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_fresh_and_goes() {
        let one = WorkDir::new("workdir").expect("a directory");
        let two = WorkDir::new("workdir").expect("another");
        assert_ne!(one.path(), two.path());
        fs::create_dir(one.join("sub")).expect("a directory in it");
        fs::write(one.join("sub/file"), "x").expect("a file in that");
        let path = one.path().to_owned();
        assert!(path.is_dir());
        drop(one);
        assert!(!path.exists());
    }
}
