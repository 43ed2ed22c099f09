//! A store in memory with the promises of the real one, and a crash at the owner's word.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::{Batch, ChangeLog, Completion, Full, Query, Read, ReadError, Rows, limits};

/// For simulation and tests. Nothing happens by itself: `commit`, `answer` and `run` say when.
pub struct Memory {
    partitions: Vec<Partition>,
    completions: Vec<Completion>,
    /// Everything that waits is done when the owner polls.
    eager: bool,
    is_full: bool,
    /// What the last owner was given; 0: nobody claimed it yet.
    owner_epoch: u64,
}

#[derive(Default)]
struct Partition {
    /// What is on the disk.
    rows: BTreeMap<Vec<u8>, Bytes>,
    waiting: VecDeque<Batch>,
    reads: VecDeque<Read>,
    /// A failure that the owner has not polled: what it submits until then fails too.
    failed: bool,
    /// Its reads fail.
    unreadable: bool,
}

impl Memory {
    pub fn new(partitions: u16) -> Self {
        assert!((1..=limits::MAX_PARTITIONS).contains(&partitions), "a store has 1 to 256 partitions");
        Self {
            partitions: (0..partitions).map(|_| Partition::default()).collect(),
            completions: Vec::new(),
            eager: false,
            is_full: false,
            owner_epoch: 0,
        }
    }

    /// A store that does all that waits when it is polled.
    pub fn eager(partitions: u16) -> Self {
        Self { eager: true, ..Self::new(partitions) }
    }

    /// Another owner takes the store, as one that opens it does. Batches of those before are refused from now on.
    pub fn claim(&mut self) -> u64 {
        self.owner_epoch += 1;
        self.owner_epoch
    }

    /// Batches that wait in a partition.
    pub fn waiting(&self, partition: u16) -> usize {
        self.partitions[usize::from(partition)].waiting.len()
    }

    /// Reads that wait in a partition.
    pub fn waiting_reads(&self, partition: u16) -> usize {
        self.partitions[usize::from(partition)].reads.len()
    }

    /// Commits the oldest batch that waits, or refuses it. False: none does.
    pub fn commit(&mut self, partition: u16) -> bool {
        let owner_epoch = self.owner_epoch;
        let part = &mut self.partitions[usize::from(partition)];
        let Some(batch) = part.waiting.pop_front() else { return false };
        let token = batch.token;
        self.completions.push(match batch.fenced_by(owner_epoch) {
            Some(by) => Completion::Fenced { token, by },
            None => {
                part.apply(&batch);
                Completion::Committed { token }
            }
        });
        true
    }

    /// Commits the oldest batch but loses the word of it: it is on the disk when the process dies.
    pub fn commit_untold(&mut self, partition: u16) -> bool {
        let part = &mut self.partitions[usize::from(partition)];
        let Some(batch) = part.waiting.pop_front() else { return false };
        if batch.fenced_by(self.owner_epoch).is_none() {
            part.apply(&batch);
        }
        true
    }

    /// The oldest batch that waits fails for good, and all behind it.
    pub fn fail(&mut self, partition: u16) {
        let part = &mut self.partitions[usize::from(partition)];
        if part.waiting.is_empty() {
            return;
        }
        part.failed = true;
        for batch in part.waiting.drain(..) {
            self.completions.push(failed(batch.token));
        }
    }

    /// Answers the oldest read that waits. False: none does.
    pub fn answer(&mut self, partition: u16) -> bool {
        let part = &mut self.partitions[usize::from(partition)];
        let Some(read) = part.reads.pop_front() else { return false };
        let answer = match part.unreadable {
            true => Err(ReadError("the store was told not to read".to_owned())),
            false => Ok(read.queries.iter().map(|query| part.query(query)).collect()),
        };
        self.completions.push(Completion::Read { token: read.token, answer });
        true
    }

    /// Reads of a partition fail from now on, or no more.
    pub fn set_unreadable(&mut self, partition: u16, is_unreadable: bool) {
        self.partitions[usize::from(partition)].unreadable = is_unreadable;
    }

    /// Does all that waits.
    pub fn run(&mut self) {
        for partition in 0..self.partitions() {
            while self.commit(partition) {}
            while self.answer(partition) {}
        }
    }

    /// Says that its disk is full, or has room again.
    pub fn set_full(&mut self, is_full: bool) {
        self.is_full = is_full;
    }

    /// The process dies: what waits is lost, what is committed stays.
    pub fn crash(&mut self) {
        self.completions.clear();
        for part in &mut self.partitions {
            part.waiting.clear();
            part.reads.clear();
            part.failed = false;
        }
    }

    /// All rows of the disk, in the order of keys within a partition.
    pub fn rows(&self) -> impl Iterator<Item = (&[u8], &Bytes)> {
        self.partitions.iter().flat_map(|part| part.rows.iter().map(|(key, value)| (key.as_slice(), value)))
    }

    /// Takes a row away behind the owner's back, as a damaged disk would.
    pub fn damage(&mut self, key: &[u8]) -> bool {
        self.partitions.iter_mut().any(|part| part.rows.remove(key).is_some())
    }
}

fn failed(token: u64) -> Completion {
    Completion::Failed { token, reason: "the store was told to fail".to_owned() }
}

impl Partition {
    fn apply(&mut self, batch: &Batch) {
        for (key, value) in batch.iter() {
            match value {
                Some(value) => self.rows.insert(key.to_vec(), Bytes::copy_from_slice(value)),
                None => self.rows.remove(key),
            };
        }
    }

    fn query(&self, query: &Query) -> Rows {
        match query {
            Query::Get(key) => {
                let row = self.rows.get(key).map(|value| (key.clone(), value.clone()));
                Rows { rows: row.into_iter().collect(), more: false }
            }
            Query::Scan { from, to, .. } if from > to => Rows::default(),
            Query::Scan { from, to, max_rows, max_bytes, reverse } => {
                let range = self.rows.range(from.clone()..=to.clone());
                let mut range: Box<dyn Iterator<Item = _>> =
                    if *reverse { Box::new(range.rev()) } else { Box::new(range) };
                let mut answer = Rows::default();
                let mut bytes = 0;
                for (key, value) in &mut range {
                    if answer.rows.len() as u32 >= *max_rows || bytes >= *max_bytes as usize {
                        answer.more = true;
                        break;
                    }
                    bytes += value.len();
                    answer.rows.push((key.clone(), value.clone()));
                }
                answer
            }
        }
    }
}

impl ChangeLog for Memory {
    fn partitions(&self) -> u16 {
        self.partitions.len() as u16
    }

    fn submit(&mut self, partition: u16, batch: Batch) -> Result<(), Full<Batch>> {
        let part = &mut self.partitions[usize::from(partition)];
        if part.failed {
            self.completions.push(failed(batch.token));
            return Ok(());
        }
        if part.waiting.len() >= limits::MAX_WAITING_BATCHES {
            return Err(Full(batch));
        }
        part.waiting.push_back(batch);
        Ok(())
    }

    fn read(&mut self, partition: u16, read: Read) -> Result<(), Full<Read>> {
        let part = &mut self.partitions[usize::from(partition)];
        if part.reads.len() >= limits::MAX_WAITING_READS {
            return Err(Full(read));
        }
        part.reads.push_back(read);
        Ok(())
    }

    fn poll(&mut self, out: &mut Vec<Completion>) {
        if self.eager {
            self.run();
        }
        for part in &mut self.partitions {
            part.failed = false;
        }
        out.append(&mut self.completions);
    }

    fn is_full(&self) -> bool {
        self.is_full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(token: u64, key: &[u8], value: &[u8]) -> Batch {
        let mut batch = Batch::new(token);
        batch.put(key, value);
        batch
    }

    #[test]
    fn a_crash_loses_what_waits_and_keeps_what_is_committed() {
        let mut store = Memory::new(1);
        store.submit(0, batch(1, b"a", b"1")).unwrap();
        store.submit(0, batch(2, b"b", b"2")).unwrap();
        assert!(store.commit(0));
        store.crash();
        let keys: Vec<_> = store.rows().map(|(key, _)| key.to_vec()).collect();
        assert_eq!(keys, [b"a"]);
    }

    #[test]
    fn what_is_submitted_behind_an_unpolled_failure_fails_too() {
        let mut store = Memory::new(1);
        store.submit(0, batch(1, b"a", b"1")).unwrap();
        store.fail(0);
        store.submit(0, batch(2, b"b", b"2")).unwrap();
        let mut out = Vec::new();
        store.poll(&mut out);
        assert!(matches!(
            out[..],
            [Completion::Failed { token: 1, .. }, Completion::Failed { token: 2, .. }]
        ));
        store.submit(0, batch(3, b"c", b"3")).unwrap();
        assert!(store.commit(0));
        assert_eq!(store.rows().count(), 1);
    }

    #[test]
    fn scans_keep_their_bounds_in_both_directions() {
        let mut store = Memory::new(1);
        for (token, key) in [b"a", b"b", b"c", b"d"].into_iter().enumerate() {
            store.submit(0, batch(token as u64, key, b"x")).unwrap();
        }
        let scan = |max_rows, reverse| Query::Scan {
            from: b"b".to_vec(),
            to: b"d".to_vec(),
            max_rows,
            max_bytes: 1000,
            reverse,
        };
        store
            .read(0, Read { token: 9, queries: vec![scan(2, false), scan(2, true), scan(3, false)] })
            .unwrap();
        store.run();
        let mut out = Vec::new();
        store.poll(&mut out);
        let Some(Completion::Read { token: 9, answer: Ok(answer) }) = out.pop() else {
            panic!("a read was asked for")
        };
        let keys = |rows: &Rows| rows.rows.iter().map(|(key, _)| key[0]).collect::<Vec<_>>();
        assert_eq!((keys(&answer[0]), answer[0].more), (b"bc".to_vec(), true));
        assert_eq!((keys(&answer[1]), answer[1].more), (b"dc".to_vec(), true));
        assert_eq!((keys(&answer[2]), answer[2].more), (b"bcd".to_vec(), false));
    }
}
