//! The rows of a partition in a file that says itself whether it is whole.
//!
//! ```text
//! "moorgate-rows 1\n"
//! record   length of the key u16, length of the value u32, key, value
//! end      0 u16, records u64, blake3 of all before (32 bytes)
//! ```
//! Numbers are little-endian; a key is never empty.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::limits;

const MAGIC: &[u8; 16] = b"moorgate-rows 1\n";

/// How much is handed to the disk at once.
const BUFFER_BYTES: usize = 1024 * 1024;

/// What was written or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole {
    pub rows: u64,
    pub bytes: u64,
    pub blake3: blake3::Hash,
}

pub struct RowsWriter {
    file: BufWriter<File>,
    hasher: blake3::Hasher,
    rows: u64,
    bytes: u64,
}

impl RowsWriter {
    /// Only its owner reads what it will hold.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let file = BufWriter::with_capacity(BUFFER_BYTES, file);
        let mut writer = Self { file, hasher: blake3::Hasher::new(), rows: 0, bytes: 0 };
        writer.put(MAGIC)?;
        Ok(writer)
    }

    pub fn row(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        let lengths = (u16::try_from(key.len()).ok(), u32::try_from(value.len()).ok());
        let (Some(key_length), Some(value_length)) = lengths else {
            return Err(io::Error::other("a row is longer than any that the logic writes"));
        };
        self.put(&key_length.to_le_bytes())?;
        self.put(&value_length.to_le_bytes())?;
        self.put(key)?;
        self.put(value)?;
        self.rows += 1;
        Ok(())
    }

    /// Ends the file; it is on the disk when this returns.
    pub fn finish(mut self) -> io::Result<Whole> {
        self.put(&0u16.to_le_bytes())?;
        self.put(&self.rows.to_le_bytes())?;
        let checksum = self.hasher.finalize();
        self.put(checksum.as_bytes())?;
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        Ok(Whole { rows: self.rows, bytes: self.bytes, blake3: self.hasher.finalize() })
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes)
    }
}

/// Why the rows of a file cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RowsError {
    #[error(transparent)]
    Io(io::Error),
    #[error("it is no file of rows")]
    Foreign,
    #[error("it ends in the middle of a record")]
    Short,
    #[error("the length of record {0} cannot be right")]
    Length(u64),
    #[error("it says that it has {said} records, and has {found}")]
    Count { said: u64, found: u64 },
    #[error("its checksum is wrong")]
    Checksum,
    #[error("something follows its end")]
    Longer,
}

impl From<io::Error> for RowsError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof { Self::Short } else { Self::Io(error) }
    }
}

pub struct RowsReader {
    file: BufReader<File>,
    hasher: blake3::Hasher,
    rows: u64,
    bytes: u64,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl RowsReader {
    pub fn open(path: &Path) -> Result<Self, RowsError> {
        let file = BufReader::with_capacity(BUFFER_BYTES, File::open(path).map_err(RowsError::Io)?);
        let (key, value) = (Vec::new(), Vec::new());
        let mut reader = Self { file, hasher: blake3::Hasher::new(), rows: 0, bytes: 0, key, value };
        let mut magic = [0; MAGIC.len()];
        reader.take(&mut magic)?;
        if magic == *MAGIC { Ok(reader) } else { Err(RowsError::Foreign) }
    }

    /// The next row; none: the file has ended, and it is whole.
    pub fn row(&mut self) -> Result<Option<(&[u8], &[u8])>, RowsError> {
        let key_length = usize::from(u16::from_le_bytes(self.take_array()?));
        if key_length == 0 {
            self.end()?;
            return Ok(None);
        }
        let value_length = u32::from_le_bytes(self.take_array()?) as usize;
        if value_length > limits::MAX_VALUE_BYTES {
            return Err(RowsError::Length(self.rows + 1));
        }
        let (mut key, mut value) = (std::mem::take(&mut self.key), std::mem::take(&mut self.value));
        key.resize(key_length, 0);
        value.resize(value_length, 0);
        self.take(&mut key)?;
        self.take(&mut value)?;
        (self.key, self.value) = (key, value);
        self.rows += 1;
        Ok(Some((&self.key, &self.value)))
    }

    fn end(&mut self) -> Result<(), RowsError> {
        let said = u64::from_le_bytes(self.take_array()?);
        let right = self.hasher.finalize();
        if self.take_array::<32>()? != *right.as_bytes() {
            return Err(RowsError::Checksum);
        }
        if said != self.rows {
            return Err(RowsError::Count { said, found: self.rows });
        }
        if self.file.read(&mut [0])? != 0 {
            return Err(RowsError::Longer);
        }
        Ok(())
    }

    /// What was read, once it has ended.
    pub fn whole(&self) -> Whole {
        Whole { rows: self.rows, bytes: self.bytes, blake3: self.hasher.finalize() }
    }

    fn take_array<const N: usize>(&mut self) -> Result<[u8; N], RowsError> {
        let mut bytes = [0; N];
        self.take(&mut bytes)?;
        Ok(bytes)
    }

    fn take(&mut self, bytes: &mut [u8]) -> Result<(), RowsError> {
        self.file.read_exact(bytes)?;
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}
