//! The store of a data directory that no backend holds, read and written without a core: one thread, one thing at a time.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};

use bytes::Bytes;

use super::limits;
use crate::storage::embedded::{Embedded, OpenError, Options};
use crate::storage::{Batch, ChangeLog, Completion, Full, Query, Read, ReadError, Rows, partition_of};

/// Why the store of a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{} holds no store of Moorgate; say --data DIR with the directory that the backend serves", .0.display())]
    NoStore(PathBuf),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the store cannot write: {0}")]
    Write(String),
}

/// The open store.
pub struct Store {
    inner: RefCell<Inner>,
    pub partitions: u16,
    pub log_epoch: u32,
}

struct Inner {
    owner_epoch: u64,
    engine: Embedded,
    woken: Receiver<()>,
    tokens: u64,
    completions: Vec<Completion>,
    /// What has ended and was not asked for yet.
    ended: HashMap<u64, Completion>,
}

impl Store {
    /// Opens the store of a data directory; it must be there.
    pub fn open(data: &Path) -> Result<Self, StoreError> {
        let dir = data.join("store");
        if !dir.join("VERSION").is_file() {
            return Err(StoreError::NoStore(data.to_owned()));
        }
        Self::open_with(&Options::new(dir))
    }

    /// Opens a store, or makes it.
    pub fn open_with(options: &Options) -> Result<Self, StoreError> {
        let (wake, woken) = channel();
        let (engine, opened) = Embedded::open(options, |_| {
            let wake = wake.clone();
            Box::new(move || {
                // Nobody waits for what ends after its receiver.
                let _ = wake.send(());
            })
        })?;
        for line in opened.cut {
            tracing::warn!("{line}");
        }
        let inner = Inner {
            owner_epoch: opened.owner_epoch,
            engine,
            woken,
            tokens: 0,
            completions: Vec::new(),
            ended: HashMap::default(),
        };
        Ok(Self { inner: inner.into(), partitions: opened.partitions, log_epoch: opened.log_epoch })
    }

    pub fn partition(&self, section: u16) -> u16 {
        partition_of(section, self.partitions)
    }

    /// The value under a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        let rows = self.query(section(key), vec![Query::Get(key.to_vec())])?;
        Ok(rows.first().and_then(Rows::value).cloned())
    }

    /// The values under keys of one section.
    pub fn get_all(&self, keys: &[impl AsRef<[u8]>]) -> Result<Vec<Option<Bytes>>, ReadError> {
        let mut values = Vec::with_capacity(keys.len());
        for keys in keys.chunks(limits::QUERIES) {
            let queries = keys.iter().map(|key| Query::Get(key.as_ref().to_vec())).collect();
            let rows = self.query(section(keys[0].as_ref()), queries)?;
            values.extend(rows.iter().map(|rows| rows.value().cloned()));
        }
        Ok(values)
    }

    /// The last row that begins so.
    pub fn last(&self, prefix: &[u8]) -> Result<Option<(Vec<u8>, Bytes)>, ReadError> {
        let (from, to) = (prefix.to_vec(), end_of(prefix));
        let query = Query::Scan { from, to, max_rows: 1, max_bytes: u32::MAX, reverse: true };
        let rows = self.query(section(prefix), vec![query])?;
        Ok(rows.into_iter().next().and_then(|rows| rows.rows.into_iter().next()))
    }

    /// The first row of a partition from one key to another, both included.
    pub fn first_from(
        &self,
        partition: u16,
        from: &[u8],
        to: &[u8],
    ) -> Result<Option<(Vec<u8>, Bytes)>, ReadError> {
        let (from, to) = (from.to_vec(), to.to_vec());
        let query = Query::Scan { from, to, max_rows: 1, max_bytes: u32::MAX, reverse: false };
        let rows = self.query_in(partition, vec![query])?;
        Ok(rows.into_iter().next().and_then(|rows| rows.rows.into_iter().next()))
    }

    /// All rows that begin so, in order.
    pub fn prefix(&self, prefix: &[u8]) -> Scan<'_> {
        self.scan(self.partition(section(prefix)), prefix.to_vec(), end_of(prefix))
    }

    /// All rows of a partition, in order.
    pub fn all(&self, partition: u16) -> Scan<'_> {
        self.scan(partition, Vec::new(), end_of(&[]))
    }

    /// The rows of a partition between two keys, both included, in order.
    pub fn scan(&self, partition: u16, from: Vec<u8>, to: Vec<u8>) -> Scan<'_> {
        Scan { store: self, partition, to, page: Vec::new().into_iter(), next: Next::Ask(from) }
    }

    fn query(&self, section: u16, queries: Vec<Query>) -> Result<Vec<Rows>, ReadError> {
        self.query_in(self.partition(section), queries)
    }

    fn query_in(&self, partition: u16, queries: Vec<Query>) -> Result<Vec<Rows>, ReadError> {
        let token = self.ask(partition, queries)?;
        self.inner.borrow_mut().answer(token)
    }

    fn ask(&self, partition: u16, queries: Vec<Query>) -> Result<u64, ReadError> {
        let mut inner = self.inner.borrow_mut();
        inner.tokens += 1;
        let token = inner.tokens;
        let asked = inner.engine.read(partition, Read { token, queries });
        asked.map_err(|full: Full<Read>| ReadError(full.to_string()))?;
        Ok(token)
    }

    /// Hands a commit in; `settle` waits for it.
    pub fn submit(&self, partition: u16, mut batch: Batch) -> Result<u64, StoreError> {
        let mut inner = self.inner.borrow_mut();
        inner.tokens += 1;
        batch.token = inner.tokens;
        batch.owner_epoch = inner.owner_epoch;
        let submitted = inner.engine.submit(partition, batch);
        submitted.map_err(|full| StoreError::Write(full.to_string()))?;
        Ok(inner.tokens)
    }

    /// Waits until a commit is on the disk.
    pub fn settle(&self, token: u64) -> Result<(), StoreError> {
        match self.inner.borrow_mut().wait(token) {
            Completion::Failed { reason, .. } => Err(StoreError::Write(reason)),
            Completion::Fenced { by, .. } => Err(StoreError::Write(by.to_string())),
            _ => Ok(()),
        }
    }

    pub fn commit(&self, partition: u16, batch: Batch) -> Result<(), StoreError> {
        let token = self.submit(partition, batch)?;
        self.settle(token)
    }
}

impl Inner {
    fn answer(&mut self, token: u64) -> Result<Vec<Rows>, ReadError> {
        match self.wait(token) {
            Completion::Read { answer, .. } => answer,
            _ => Err(ReadError("a commit ended under the token of a read".to_owned())),
        }
    }

    fn wait(&mut self, token: u64) -> Completion {
        loop {
            if let Some(completion) = self.ended.remove(&token) {
                return completion;
            }
            self.engine.poll(&mut self.completions);
            if self.completions.is_empty() {
                // The store's threads live as long as it does; a wake that came for nothing is no matter.
                let _ = self.woken.recv();
            }
            for completion in self.completions.drain(..) {
                let token = match &completion {
                    Completion::Committed { token }
                    | Completion::Failed { token, .. }
                    | Completion::Fenced { token, .. }
                    | Completion::Read { token, .. } => *token,
                };
                self.ended.insert(token, completion);
            }
        }
    }
}

/// Rows in order. The next read is under way while the last one is being worked on.
pub struct Scan<'a> {
    store: &'a Store,
    partition: u16,
    to: Vec<u8>,
    page: std::vec::IntoIter<(Vec<u8>, Bytes)>,
    next: Next,
}

enum Next {
    Ask(Vec<u8>),
    Asked(u64),
    Over,
}

impl Scan<'_> {
    fn ask(&self, from: Vec<u8>) -> Result<u64, ReadError> {
        let query = Query::Scan {
            from,
            to: self.to.clone(),
            max_rows: limits::SCAN_ROWS,
            max_bytes: limits::SCAN_BYTES,
            reverse: false,
        };
        self.store.ask(self.partition, vec![query])
    }

    fn turn_page(&mut self) -> Result<(), ReadError> {
        let token = match std::mem::replace(&mut self.next, Next::Over) {
            Next::Ask(from) => self.ask(from)?,
            Next::Asked(token) => token,
            Next::Over => return Ok(()),
        };
        let answer = self.store.inner.borrow_mut().answer(token)?;
        let rows = answer.into_iter().next().unwrap_or_default();
        if let (true, Some((last, _))) = (rows.more, rows.rows.last()) {
            // Right behind the last key.
            let mut from = last.clone();
            from.push(0);
            self.next = Next::Asked(self.ask(from)?);
        }
        self.page = rows.rows.into_iter();
        Ok(())
    }
}

impl Iterator for Scan<'_> {
    type Item = Result<(Vec<u8>, Bytes), ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.page.next() {
                return Some(Ok(row));
            }
            if matches!(self.next, Next::Over) {
                return None;
            }
            if let Err(error) = self.turn_page() {
                self.next = Next::Over;
                return Some(Err(error));
            }
        }
    }
}

impl Drop for Scan<'_> {
    fn drop(&mut self) {
        // What nobody wants any more must not stay among what has ended.
        if let (Next::Asked(token), Ok(mut inner)) = (&self.next, self.store.inner.try_borrow_mut()) {
            let _ = inner.answer(*token);
        }
    }
}

fn section(key: &[u8]) -> u16 {
    key.first_chunk().map_or(0, |bytes| u16::from_be_bytes(*bytes))
}

/// Behind every key that begins so: no key of the store has so many of these bytes behind its kind.
pub(super) fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    end.extend_from_slice(&[0xff; 40]);
    end
}
