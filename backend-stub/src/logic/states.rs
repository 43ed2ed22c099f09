//! Small records that decisions need, in memory while they are in use: what a user keeps of a peer, what is
//! known of a moment.
//!
//! A record is read once; from then on memory has it as the commits on their way will leave it, so that two changes
//! in a row see each other. It leaves memory when nothing is on its way and nobody waits, oldest first. A commit
//! that failed makes its records unknown: the disk is asked again.

use std::collections::{BTreeMap, VecDeque};

use ahash::AHashMap;
use bytes::Bytes;
use proto_wire::status::{Code, Status};

use super::api::{Answer, At};
use super::core::{Core, Effect, Purpose};
use super::keys::{self, Key};
use super::limits;
use super::verbs::Resume;
use crate::storage::{Query, ReadError, Rows};

#[derive(Default)]
pub(super) struct States {
    records: AHashMap<Key, Record>,
    /// As they came: the order in which they leave.
    order: VecDeque<Key>,
    bytes: usize,
    waiters: AHashMap<u64, Waiter>,
    next_waiter: u64,
    /// Duties whose records could not be read, for the next tick.
    again: Vec<Resume>,
}

#[derive(Default)]
struct Record {
    value: Option<Bytes>,
    loaded: bool,
    /// The store has been asked.
    reading: bool,
    /// Its answer may be from before the last commit that did not fail.
    outdated: bool,
    /// Commits on their way.
    writes: u32,
    /// Who waits, for it or for others beside it.
    pins: u32,
    /// Who waits for it to be read.
    waiters: Vec<u64>,
}

struct Waiter {
    keys: Vec<Key>,
    left: usize,
    failed: bool,
    resume: Resume,
}

/// What an entry costs beside its value.
const RECORD_BYTES: usize = 160;

/// Rows, their index and memories of origins are written by another way than records, so what was read of them is not
/// kept.
fn is_read_anew(key: &Key) -> bool {
    matches!(key.kind(), keys::ROW | keys::ITEM | keys::ORIGIN | keys::SEEN)
}

impl States {
    /// The value of a record that `need` has brought.
    pub fn value(&self, key: &Key) -> Option<&Bytes> {
        self.records.get(key)?.value.as_ref()
    }

    pub fn is_loaded(&self, key: &Key) -> bool {
        self.records.get(key).is_some_and(|record| record.loaded)
    }

    fn entry(&mut self, key: Key) -> &mut Record {
        if !self.records.contains_key(&key) {
            self.bytes += RECORD_BYTES;
            // Rows leave with those who asked for them.
            if !is_read_anew(&key) {
                self.order.push_back(key);
            }
        }
        self.records.entry(key).or_default()
    }

    fn set(&mut self, key: Key, value: Option<Bytes>) {
        let added = value.as_ref().map_or(0, Bytes::len);
        let record = self.entry(key);
        let before = std::mem::replace(&mut record.value, value).map_or(0, |value| value.len());
        record.loaded = true;
        self.bytes = self.bytes + added - before;
    }

    fn forget(&mut self, key: &Key) {
        if let Some(record) = self.records.remove(key) {
            self.bytes -= RECORD_BYTES + record.value.map_or(0, |value| value.len());
        }
    }

    fn unpin(&mut self, key: &Key) {
        let Some(record) = self.records.get_mut(key) else { return };
        record.pins -= 1;
        // What is read anew goes with those who asked for it. Not while another waits for
        // one or for what it needs besides: that one would never be taken up.
        if !record.is_in_use() && (!record.loaded || is_read_anew(key)) {
            self.forget(key);
        }
    }

    fn written(&mut self, key: &Key) {
        if let Some(record) = self.records.get_mut(key) {
            record.writes -= 1;
        }
    }

    /// Memory does not know the record any more. Who waits with it keeps its place.
    fn void(&mut self, key: &Key) {
        let Some(record) = self.records.get_mut(key) else { return };
        record.writes -= 1;
        record.loaded = false;
        record.outdated = record.reading;
        self.bytes -= record.value.take().map_or(0, |value| value.len());
        if !record.is_in_use() {
            self.forget(key);
        }
    }

    /// Lets the oldest go that are not in use. What left otherwise still stands in the order: that has a bound of
    /// its own. It looks at a few at a time, so that a call costs little even when all are in use; more than come with
    /// one call, so that it keeps up.
    fn shrink(&mut self) {
        let mut left = limits::STATES_LOOKED_AT;
        while self.is_too_large() && left > 0 {
            left -= 1;
            let Some(oldest) = self.order.pop_front() else { return };
            match self.records.get(&oldest) {
                Some(record) if record.is_in_use() => self.order.push_back(oldest),
                Some(_) => self.forget(&oldest),
                None => {}
            }
        }
    }

    fn is_too_large(&self) -> bool {
        self.bytes > limits::MAX_STATE_BYTES || self.order.len() > 2 * self.records.len() + 1024
    }
}

impl Record {
    fn is_in_use(&self) -> bool {
        self.writes > 0 || self.pins > 0 || self.reading
    }
}

impl Core {
    /// Gives the continuation back when all records are in memory; else it is taken up once they are.
    pub(super) fn need(&mut self, keys: &[Key], resume: Resume) -> Option<Resume> {
        let missing: Vec<Key> = keys.iter().filter(|key| !self.states.is_loaded(key)).copied().collect();
        if missing.is_empty() {
            return Some(resume);
        }
        let id = self.states.next_waiter;
        self.states.next_waiter += 1;
        let mut by_partition: BTreeMap<u16, Vec<Key>> = BTreeMap::new();
        for key in &missing {
            let partition = self.partition(key.section());
            let record = self.states.entry(*key);
            record.waiters.push(id);
            if !std::mem::replace(&mut record.reading, true) {
                by_partition.entry(partition).or_default().push(*key);
            }
        }
        for key in keys {
            self.states.entry(*key).pins += 1;
        }
        let waiter = Waiter { keys: keys.to_vec(), left: missing.len(), failed: false, resume };
        self.states.waiters.insert(id, waiter);
        for (partition, keys) in by_partition {
            let queries = keys.iter().map(|key| Query::Get(key.to_vec())).collect();
            self.read(partition, queries, Purpose::States(keys));
        }
        None
    }

    pub(super) fn states_read(&mut self, at: At, keys: Vec<Key>, answer: Result<Vec<Rows>, ReadError>) {
        let mut ready = Vec::new();
        for (index, key) in keys.iter().enumerate() {
            let Some(record) = self.states.records.get_mut(key) else { continue };
            let waiters = std::mem::take(&mut record.waiters);
            record.reading = false;
            let outdated = std::mem::take(&mut record.outdated);
            // What was written meanwhile is newer than what was read.
            if let (false, false, Ok(rows)) = (record.loaded, outdated, &answer) {
                self.states.set(*key, rows.get(index).and_then(Rows::value).cloned());
            }
            for id in waiters {
                let Some(waiter) = self.states.waiters.get_mut(&id) else { continue };
                waiter.left -= 1;
                waiter.failed |= answer.is_err() || outdated;
                if waiter.left == 0 {
                    ready.push(id);
                }
            }
        }
        for id in ready {
            let Some(waiter) = self.states.waiters.remove(&id) else { continue };
            if waiter.failed {
                self.resume_failed(waiter.resume);
            } else {
                self.resume(at, waiter.resume);
            }
            for key in &waiter.keys {
                self.states.unpin(key);
            }
        }
        self.states.shrink();
    }

    /// A record's next value, in the batch that gathers for its section.
    pub(super) fn put_state(&mut self, key: Key, value: Vec<u8>) {
        let section = key.section();
        self.open(section).put(&key, &value);
        self.states.set(key, Some(value.into()));
        self.states.entry(key).writes += 1;
        self.effect(section, Effect::State(key));
    }

    pub(super) fn state_committed(&mut self, key: &Key) {
        self.states.written(key);
        self.states.shrink();
    }

    /// The commit failed, and with it all that came after it: the disk has the record as it is.
    pub(super) fn state_void(&mut self, key: &Key) {
        self.states.void(key);
    }

    /// Answers with what a record says: when its commit is on its way, once that is on disk.
    pub(super) fn answer_from(&mut self, key: &Key, token: u64, answer: Answer) {
        match self.states.records.get(key) {
            Some(record) if record.writes > 0 => self.effect(key.section(), Effect::Answer { token, answer }),
            _ => self.answer(token, Ok(answer)),
        }
    }

    /// The disk could not be read: whoever called is told; what must not be lost waits for another try.
    fn resume_failed(&mut self, resume: Resume) {
        let status = Status::new(Code::Internal, "what this call depends on cannot be read");
        self.resume_refused(resume, status);
    }

    pub(super) fn resume_refused(&mut self, resume: Resume, status: Status) {
        match resume {
            Resume::Held(_) => self.states.again.push(resume),
            Resume::Verb(upload) => self.upload_failed(upload.user, upload.id, &status),
            Resume::Upload { token, .. }
            | Resume::Send { token, .. }
            | Resume::Mark { token, .. }
            | Resume::LogIn { token, .. }
            | Resume::Admit { token, .. }
            | Resume::Typing { token, .. }
            | Resume::Profile { token, .. }
            | Resume::Moment { token, .. }
            | Resume::Pull { token, .. } => self.answer(token, Err(status)),
            Resume::Report { report, online } => self.session_looked_up(report, &online, None),
        }
    }

    /// What could not be read before: once more.
    pub(super) fn read_states_again(&mut self, at: At) {
        for resume in std::mem::take(&mut self.states.again) {
            if let Resume::Held(receiver) = resume {
                self.end_held(at, receiver);
            }
            self.resume(at, resume);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_and_forgotten_leaves_nothing_behind() {
        let mut states = States::default();
        for number in 0..100_000 {
            for key in [keys::row(1, number), keys::peer(1, number)] {
                states.set(key, Some(Bytes::from_static(b"value")));
                states.forget(&key);
            }
            states.shrink();
        }
        assert!(states.order.len() <= 1024, "{}", states.order.len());
        assert_eq!((states.records.len(), states.bytes), (0, 0));
    }

    /// Far beyond the bound, and every record waits for its commit: a call looks at a few of them, and once the commits
    /// are done memory comes back.
    #[test]
    fn when_all_are_in_use_a_call_looks_at_few_of_them() {
        let mut states = States::default();
        let value = Bytes::from(vec![0; 4096]);
        let many = 2 * limits::MAX_STATE_BYTES / value.len();
        for number in 0..many as u64 {
            states.set(keys::peer(1, number), Some(value.clone()));
            states.entry(keys::peer(1, number)).writes += 1;
        }
        let first = *states.order.front().expect("they are in an order");
        states.shrink();
        let passed = states.order.iter().rev().position(|key| *key == first).expect("it is in use") + 1;
        assert_eq!((passed, states.records.len()), (limits::STATES_LOOKED_AT, many));
        for number in 0..many as u64 {
            states.written(&keys::peer(1, number));
            states.shrink();
        }
        assert!(states.bytes <= limits::MAX_STATE_BYTES, "{}", states.bytes);
    }

    /// Each pin belongs to its waiter, each write to its commit.
    #[test]
    fn a_record_stays_while_a_commit_is_on_its_way_whoever_leaves_it() {
        let (mut states, key) = (States::default(), keys::peer(1, 2));
        states.set(key, Some(Bytes::from_static(b"before")));
        states.entry(key).pins += 1;
        states.entry(key).writes += 1;
        states.void(&key);
        assert!(!states.is_loaded(&key) && states.value(&key).is_none());
        states.set(key, Some(Bytes::from_static(b"after")));
        states.entry(key).writes += 1;
        states.unpin(&key);
        assert!(states.entry(key).is_in_use());
        states.written(&key);
        assert!(!states.entry(key).is_in_use() && states.is_loaded(&key));
    }
}
