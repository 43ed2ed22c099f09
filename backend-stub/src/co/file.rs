//! Reading files: on the threads for what blocks, since a disk may take its time.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::{limits, unblock};

/// The whole of a file.
pub fn read_file(path: impl Into<PathBuf>) -> io::Result<Vec<u8>> {
    let path = path.into();
    unblock(move || fs::read(path))?
}

/// A file that is read.
#[derive(Debug)]
pub struct File {
    file: Arc<fs::File>,
    at: u64,
}

impl File {
    pub fn open(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        let file = unblock(move || fs::File::open(path))??;
        Ok(Self { file: Arc::new(file), at: 0 })
    }

    pub fn len(&self) -> io::Result<u64> {
        let file = self.file.clone();
        unblock(move || file.metadata().map(|metadata| metadata.len()))?
    }

    pub fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|bytes| bytes == 0)
    }
}

impl Read for File {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let (file, at, most) = (self.file.clone(), self.at, into.len().min(limits::FILE_READ_BYTES));
        // The buffer of the caller lies on a stack that may be unwound while the thread reads.
        let read = unblock(move || {
            let mut bytes = vec![0; most];
            let read = file.read_at(&mut bytes, at)?;
            bytes.truncate(read);
            Ok::<_, io::Error>(bytes)
        })??;
        into[..read.len()].copy_from_slice(&read);
        self.at += read.len() as u64;
        Ok(read.len())
    }
}

impl Seek for File {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let (base, offset) = match to {
            SeekFrom::Start(at) => (at, 0),
            SeekFrom::Current(offset) => (self.at, offset),
            SeekFrom::End(offset) => (self.len()?, offset),
        };
        self.at = base.checked_add_signed(offset).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
