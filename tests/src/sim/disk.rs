//! The backend's disk: the memory store with time between asking, doing and telling, and an eye on every row.
//!
//! What is committed survives a crash. What waits is lost or not, by chance. The word of a commit, and what a read
//! saw, come later than they happened; commits keep their order and reads theirs, between them there is none.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use backend_stub::storage::memory::Memory;
use backend_stub::storage::{Batch, ChangeLog, Completion, Full, Read, ReadError};

use super::plant::Plant;
use super::queue::Event;
use super::shared::Shared;

/// Kinds of rows, as `backend-stub/src/logic/keys.rs` draws them.
const ROW: u8 = b'L';
const UPLOAD: u8 = b'U';
const ORIGIN: u8 = b'O';
const DUTY: u8 = b'D';

/// The store, on one machine that may crash.
pub struct Disk {
    memory: Memory,
    lanes: Vec<Lane>,
    /// What the owner gets when it polls.
    told: Vec<Completion>,
    /// Rows of logs ever written: a number is given once.
    rows: BTreeSet<(u64, u64)>,
    newest: BTreeMap<u64, u64>,
    /// Numbers that were written a second time, to be complained of.
    twice: Vec<(u64, u64)>,
    /// Rows that this process has submitted: also a number whose commit failed is not given again.
    given: BTreeSet<(u64, u64)>,
    pub is_slow: bool,
    /// Of reads so many in a thousand fail.
    pub unreadable_permille: u64,
    /// A commit failed since the process began.
    has_failed: bool,
    plant: Option<Plant>,
}

/// A partition.
#[derive(Default)]
struct Lane {
    /// What the memory has waiting, to look into.
    waiting: VecDeque<Batch>,
    is_committing: bool,
    is_reading: bool,
    /// The first batch of a failure, whose word is on its way: what is submitted until it is there fails too.
    failed: Option<u64>,
    /// Batches that came behind a failure.
    behind_failure: Vec<Completion>,
    last_commit_us: u64,
    last_read_us: u64,
}

impl Disk {
    pub fn new(partitions: u16, plant: Option<Plant>) -> Self {
        Self {
            memory: Memory::new(partitions),
            lanes: (0..partitions).map(|_| Lane::default()).collect(),
            told: Vec::new(),
            rows: BTreeSet::new(),
            newest: BTreeMap::new(),
            twice: Vec::new(),
            given: BTreeSet::new(),
            is_slow: false,
            unreadable_permille: 0,
            has_failed: false,
            plant,
        }
    }

    /// The newest number on the disk of a user's log.
    pub fn newest(&self, user: u64) -> u64 {
        self.newest.get(&user).copied().unwrap_or(0)
    }

    /// Words wait to be polled.
    pub fn has_told(&self) -> bool {
        !self.told.is_empty()
    }

    /// Duties that lie there and should not. The delete of one may have been in a commit that failed: the next start
    /// finds that it was fulfilled.
    pub fn duties(&self) -> usize {
        if self.has_failed {
            return 0;
        }
        self.memory.rows().filter(|(key, _)| kind_of(key) == DUTY).count()
    }

    /// Asks for the time when what waits is done.
    pub fn start(&mut self, life: u32, shared: &mut Shared) {
        for partition in 0..self.lanes.len() as u16 {
            let behind = std::mem::take(&mut self.lanes[usize::from(partition)].behind_failure);
            self.send_word(partition, true, behind, life, shared);
        }
        let slow_us = if self.is_slow { shared.plan.slow_us } else { 0 };
        for (partition, lane) in (0u16..).zip(&mut self.lanes) {
            if !lane.is_committing && self.memory.waiting(partition) > 0 {
                lane.is_committing = true;
                let (from, to) = shared.plan.commit_us;
                let at_us =
                    shared.now_us + shared.random.between(from, to) + shared.random.below(slow_us + 1);
                shared.queue.push(at_us, Event::Commit { partition, life });
            }
            if !lane.is_reading && self.memory.waiting_reads(partition) > 0 {
                lane.is_reading = true;
                let (from, to) = shared.plan.disk_read_us;
                let at_us =
                    shared.now_us + shared.random.between(from, to) + shared.random.below(slow_us + 1);
                shared.queue.push(at_us, Event::AnswerReads { partition, life });
            }
        }
    }

    /// A group commit: some of what waits, at once.
    pub fn commit(&mut self, partition: u16, life: u32, shared: &mut Shared) {
        self.lanes[usize::from(partition)].is_committing = false;
        let waiting = self.memory.waiting(partition) as u64;
        for _ in 0..shared.random.between(1, waiting.max(1)) {
            self.write(partition);
            self.memory.commit(partition);
        }
        let done = self.done();
        self.send_word(partition, true, done, life, shared);
        self.report(shared);
        self.start(life, shared);
    }

    /// The oldest batch and all behind it fail for good.
    pub fn fail(&mut self, partition: u16, life: u32, shared: &mut Shared) -> bool {
        let lane = &mut self.lanes[usize::from(partition)];
        let Some(first) = lane.waiting.front().filter(|_| lane.failed.is_none()) else { return false };
        lane.failed = Some(first.token);
        lane.waiting.clear();
        self.has_failed = true;
        self.memory.fail(partition);
        let done = self.done();
        self.send_word(partition, true, done, life, shared);
        true
    }

    pub fn answer_reads(&mut self, partition: u16, life: u32, shared: &mut Shared) {
        self.lanes[usize::from(partition)].is_reading = false;
        let waiting = self.memory.waiting_reads(partition) as u64;
        for _ in 0..shared.random.between(1, waiting.max(1)) {
            self.memory.answer(partition);
        }
        let mut done = self.done();
        for completion in &mut done {
            if let Completion::Read { answer, .. } = completion
                && shared.random.chance(self.unreadable_permille)
            {
                *answer = Err(ReadError("a sector is damaged".to_owned()));
            }
        }
        self.send_word(partition, false, done, life, shared);
        self.start(life, shared);
    }

    /// At the end of a run: what waits to be read is answered and told.
    pub fn answer_at_once(&mut self) {
        for partition in 0..self.lanes.len() as u16 {
            while self.memory.answer(partition) {}
        }
        let done = self.done();
        self.told.extend(done);
    }

    /// The word of something is there.
    pub fn take_word(&mut self, completion: Completion) {
        self.told.push(completion);
    }

    /// The process dies. Of what waits some is on the disk and some is not; nobody is told of either.
    pub fn crash(&mut self, shared: &mut Shared) {
        for partition in 0..self.lanes.len() as u16 {
            let waiting = self.memory.waiting(partition) as u64;
            for _ in 0..shared.random.below(waiting + 1) {
                self.write(partition);
                self.memory.commit_untold(partition);
            }
        }
        self.memory.crash();
        self.lanes.iter_mut().for_each(|lane| *lane = Lane::default());
        self.told.clear();
        self.given.clear();
        self.is_slow = false;
        self.has_failed = false;
        self.report(shared);
        match self.plant {
            Some(Plant::DutyForgotten) => self.lose(|key| kind_of(key) == DUTY),
            Some(Plant::NumberTwice) => {
                let newest = self.newest.clone();
                self.lose(|key| kind_of(key) == ROW && newest.get(&owner_of(key)) == Some(&number_of(key)));
            }
            _ => {}
        }
    }

    /// A planted fault: rows that were on the disk are gone.
    fn lose(&mut self, is_lost: impl Fn(&[u8]) -> bool) {
        let keys = self.memory.rows().map(|(key, _)| key.to_vec());
        let lost: Vec<Vec<u8>> = keys.filter(|key| is_lost(key)).collect();
        for key in lost {
            self.memory.damage(&key);
        }
    }

    /// Looks into the batch that is written next.
    fn write(&mut self, partition: u16) {
        let Some(batch) = self.lanes[usize::from(partition)].waiting.pop_front() else { return };
        for (key, value) in batch.iter() {
            if kind_of(key) != ROW || value.is_none() {
                continue;
            }
            let (user, number) = (owner_of(key), number_of(key));
            if !self.rows.insert((user, number)) {
                self.twice.push((user, number));
            }
            let newest = self.newest.entry(user).or_default();
            *newest = number.max(*newest);
        }
    }

    fn report(&mut self, shared: &mut Shared) {
        for (user, number) in std::mem::take(&mut self.twice) {
            shared.complain(format!("number {number} of user {user} was given twice"));
        }
        shared.on_disk.clone_from(&self.newest);
    }

    fn done(&mut self) -> Vec<Completion> {
        let mut done = Vec::new();
        self.memory.poll(&mut done);
        done
    }

    /// What was done is told later, in the order it was done.
    fn send_word(
        &mut self,
        partition: u16,
        commits: bool,
        done: Vec<Completion>,
        life: u32,
        shared: &mut Shared,
    ) {
        let lane = &mut self.lanes[usize::from(partition)];
        let last_us = if commits { &mut lane.last_commit_us } else { &mut lane.last_read_us };
        for completion in done {
            let at_us = shared.now_us + shared.random.below(shared.plan.told_us);
            *last_us = at_us.max(*last_us);
            shared.queue.push(*last_us, Event::Told { completion: Box::new(completion), life });
        }
    }

    /// What a planted fault leaves out of a batch.
    fn without(&self, batch: Batch) -> Batch {
        let left_out = match self.plant {
            Some(Plant::UploadTwice) => UPLOAD,
            Some(Plant::OriginForgotten) => ORIGIN,
            _ => return batch,
        };
        let mut rest = Batch::new(batch.token);
        rest.owner_epoch = batch.owner_epoch;
        for (key, value) in batch.iter().filter(|(key, _)| kind_of(key) != left_out) {
            match value {
                Some(value) => rest.put(key, value),
                None => rest.delete(key),
            }
        }
        rest
    }
}

impl ChangeLog for Disk {
    fn partitions(&self) -> u16 {
        self.memory.partitions()
    }

    fn submit(&mut self, partition: u16, batch: Batch) -> Result<(), Full<Batch>> {
        let batch = self.without(batch);
        for (key, _) in batch.iter().filter(|(key, value)| kind_of(key) == ROW && value.is_some()) {
            let row = (owner_of(key), number_of(key));
            if !self.given.insert(row) {
                self.twice.push(row);
            }
        }
        let lane = &mut self.lanes[usize::from(partition)];
        if lane.failed.is_some() {
            let reason = "a batch before it failed".to_owned();
            lane.behind_failure.push(Completion::Failed { token: batch.token, reason });
            return Ok(());
        }
        if self.plant == Some(Plant::ToldBeforeCommit) {
            self.told.push(Completion::Committed { token: batch.token });
        }
        self.memory.submit(partition, batch.clone())?;
        lane.waiting.push_back(batch);
        Ok(())
    }

    fn read(&mut self, partition: u16, read: Read) -> Result<(), Full<Read>> {
        self.memory.read(partition, read)
    }

    fn poll(&mut self, out: &mut Vec<Completion>) {
        for completion in &self.told {
            let Completion::Failed { token, .. } = completion else { continue };
            for lane in self.lanes.iter_mut().filter(|lane| lane.failed == Some(*token)) {
                lane.failed = None;
            }
        }
        out.append(&mut self.told);
    }
}

fn kind_of(key: &[u8]) -> u8 {
    key.get(10).copied().unwrap_or(0)
}

fn owner_of(key: &[u8]) -> u64 {
    key.get(2..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

fn number_of(key: &[u8]) -> u64 {
    key.last_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}
