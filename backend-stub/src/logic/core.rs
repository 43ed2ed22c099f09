//! The core: state, and the plumbing between verbs, commits, reads and actions.

use std::collections::VecDeque;
use std::mem;

use ahash::AHashMap;
use bytes::Bytes;
use proto_wire::pb;
use proto_wire::status::{Code, Status};

use super::api::{Action, Answer, At, CoreConfig, Counters, KvKey};
use super::aside::Aside;
use super::expiry::{Expiry, ExpiryRead};
use super::groups::Groups;
use super::horizon::HorizonRead;
use super::hot::Hot;
use super::keys::Key;
use super::limits;
use super::moments::{Moments, SpreadRead};
use super::news::Lanes;
use super::outbox::{Duty, Fanout, Outbox, Task};
use super::presence::Presence;
use super::recovery::{Recovery, RecoveryRead};
use super::states::States;
use super::sync::Pull;
use super::uploads::{CheckedUpload, Uploads};
use super::users::{Place, Users};
use crate::storage::{Batch, Completion, Fenced, Query, Read, ReadError, Rows, partition_of};

/// The domain of one process: logs, uploads, outbox, groups, presence. Single-threaded, without I/O and
/// without a clock; `poll_action` says what to do.
pub struct Core {
    pub(super) config: CoreConfig,
    pub(super) users: Users,
    pub(super) groups: Groups,
    pub(super) uploads: Uploads,
    pub(super) outbox: Outbox,
    pub(super) aside: Aside,
    pub(super) presence: Presence,
    pub(super) lanes: Lanes,
    pub(super) recovery: Recovery,
    pub(super) expiry: Expiry,
    pub(super) hot: Hot,
    pub(super) states: States,
    pub(super) moments: Moments,
    pub(super) counters: Counters,
    pub(super) actions: VecDeque<Action>,
    /// One for each partition of the store.
    partitions: Vec<Partition>,
    /// Reads that the store has, by token.
    reads: AHashMap<u64, (u16, Purpose)>,
    next_token: u64,
    /// Users whose tail is to be read.
    pub(super) to_load: Vec<Place>,
    /// What waits for a user's tail, by user.
    pub(super) waiting: AHashMap<Place, VecDeque<super::append::Waiting>>,
    /// The disk has no room but for what must be written.
    is_full: bool,
    /// The store does not keep pace with what is written.
    is_behind: bool,
    /// What gathers in some partition is enough for a batch.
    is_large: bool,
    /// Somebody else owns the store now: nothing is written or acknowledged any more.
    fenced: Option<Fenced>,
    /// Names being created in the key-value area.
    pub(super) kv_creating: ahash::AHashSet<KvKey>,
    /// A value being encoded.
    pub(super) scratch: Vec<u8>,
}

#[derive(Default)]
struct Partition {
    /// Gathers until the next `poll_action` finds room.
    open: Batch,
    open_effects: Vec<Effect>,
    /// What gathered before it, and grew large; in order.
    sealed: VecDeque<(Batch, Vec<Effect>)>,
    sealed_bytes: usize,
    in_flight: VecDeque<(u64, Vec<Effect>)>,
    /// Reads that wait for room in the store's queue.
    reads: VecDeque<(Vec<Query>, Purpose)>,
    reads_in_flight: usize,
}

impl Partition {
    fn next_batch(&mut self) -> Option<(Batch, Vec<Effect>)> {
        if let Some(sealed) = self.sealed.pop_front() {
            self.sealed_bytes -= sealed.0.bytes();
            return Some(sealed);
        }
        let has_some = !self.open.is_empty() || !self.open_effects.is_empty();
        has_some.then(|| (mem::take(&mut self.open), mem::take(&mut self.open_effects)))
    }

    /// What all would bring about that the store was not given yet; it is gone from here.
    fn take_unsubmitted(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        while let Some((_, batch)) = self.next_batch() {
            effects.extend(batch);
        }
        effects
    }
}

/// What a commit brings about, in the order of the batch.
#[derive(Debug)]
pub(super) enum Effect {
    /// The row is readable.
    Row {
        user: Place,
        number: u64,
    },
    /// The upload is applied: answer who waits.
    Upload {
        user: u64,
        id: [u8; 16],
    },
    /// The duty is on disk: deliver it.
    Begin(Duty),
    /// The duty has landed.
    Delivered(Duty),
    /// A group gave a message its number.
    BeginFanout(Fanout),
    /// The rows of the members in this partition are on disk.
    FannedOut(Fanout),
    Kv {
        token: u64,
    },
    KvCreated {
        token: u64,
        key: KvKey,
    },
    /// A record is on disk.
    State(Key),
    /// What some receivers of a group or an author are to get is a duty of theirs.
    SetAside {
        source: u64,
        duties: Vec<Duty>,
    },
    /// A device of a user is logged out.
    LoggedOut {
        user: u64,
        device: u64,
    },
    /// Contacts in this partition know of an author's moment.
    Told {
        author: u64,
    },
    /// What a call wrote is on disk.
    Answer {
        token: u64,
        answer: Answer,
    },
}

/// Why a read was asked for.
pub(super) enum Purpose {
    Users(Vec<Place>),
    Group(u64),
    Upload(Box<CheckedUpload>),
    Pull(Box<Pull>),
    KvGet { token: u64 },
    KvCreate { token: u64, key: KvKey, value: Bytes },
    Recovery(RecoveryRead),
    Expiry(ExpiryRead),
    States(Vec<Key>),
    Spread { author: u64, read: SpreadRead },
    Said { token: u64, post: Box<pb::Post> },
    Horizon(Box<HorizonRead>),
}

impl Core {
    pub fn new(config: CoreConfig) -> Self {
        let mut core = Self {
            users: Users::default(),
            groups: Groups::new(config.seed),
            uploads: Uploads::default(),
            outbox: Outbox::default(),
            aside: Aside::default(),
            presence: Presence::default(),
            lanes: Lanes::default(),
            recovery: Recovery::default(),
            expiry: Expiry::default(),
            hot: Hot::new(config.hot_bytes),
            states: States::default(),
            moments: Moments::default(),
            counters: Counters::default(),
            actions: VecDeque::new(),
            partitions: (0..config.partitions).map(|_| Partition::default()).collect(),
            reads: AHashMap::new(),
            next_token: 1,
            to_load: Vec::new(),
            waiting: AHashMap::new(),
            is_full: false,
            is_behind: false,
            is_large: false,
            fenced: None,
            kv_creating: Default::default(),
            scratch: Vec::new(),
            config,
        };
        core.start_recovery();
        core
    }

    /// Whether every duty that was found at start is back in the outbox. Before, sends are refused: they
    /// could overtake an older message of their sender.
    pub fn is_ready(&self) -> bool {
        self.recovery.is_done()
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Why this core is the owner no more; it has stopped then, and so should its process.
    pub fn fenced(&self) -> Option<Fenced> {
        self.fenced
    }

    /// What to do next; `None`: nothing more in this turn.
    pub fn poll_action(&mut self, at: At) -> Option<Action> {
        if self.actions.is_empty() {
            self.flush_loads();
            self.flush_batches();
            self.flush_reads();
            self.flush_news(at);
        }
        self.actions.pop_front()
    }

    /// Something that the store has ended.
    pub fn handle_completion(&mut self, at: At, completion: Completion) {
        match completion {
            Completion::Committed { token } => self.handle_committed(at, token),
            Completion::Failed { token, reason } => self.handle_failed(at, token, &reason),
            Completion::Fenced { token, by } => self.handle_fenced(token, by),
            Completion::Read { token, answer } => self.handle_read(at, token, answer),
        }
    }

    fn handle_committed(&mut self, at: At, token: u64) {
        let Some(index) = self.partition_in_flight(token) else { return };
        let Some((_, mut effects)) = self.partitions[index].in_flight.pop_front() else { return };
        for effect in effects.drain(..) {
            self.seal();
            self.take_effect(at, index as u16, effect);
        }
        // The buffer goes back to where the next effects gather, if that one has none yet.
        let open = &mut self.partitions[index].open_effects;
        if open.capacity() == 0 {
            *open = effects;
        }
    }

    /// The partition whose oldest batch in flight this is. A batch that was given up when one before it
    /// failed is none.
    fn partition_in_flight(&self, token: u64) -> Option<usize> {
        self.partitions
            .iter()
            .position(|partition| partition.in_flight.front().is_some_and(|(oldest, _)| *oldest == token))
    }

    fn take_effect(&mut self, at: At, partition: u16, effect: Effect) {
        match effect {
            Effect::Row { user, number } => self.row_committed(user, number),
            Effect::Upload { user, id } => self.upload_committed(user, id),
            Effect::Begin(duty) if matches!(duty.task, Task::Moment { .. }) => self.spread(duty, false),
            Effect::Begin(duty) => self.deliver(at, duty),
            Effect::Delivered(duty) => self.duty_landed(partition, &duty),
            Effect::BeginFanout(fanout) => self.begin_fanout(at, fanout),
            Effect::FannedOut(fanout) => self.fanned_out(at, fanout),
            Effect::SetAside { source, duties } => self.aside_committed(at, source, duties),
            Effect::Kv { token } => self.answer(token, Ok(Answer::Kv(None))),
            Effect::KvCreated { token, key } => {
                self.kv_creating.remove(&key);
                self.answer(token, Ok(Answer::Kv(None)));
            }
            Effect::State(key) => self.state_committed(&key),
            Effect::LoggedOut { user, device } => self.logged_out(at, user, device),
            Effect::Told { author } => self.told(author),
            Effect::Answer { token, answer } => self.answer(token, Ok(answer)),
        }
    }

    /// A batch failed for good: so do all behind it and the one that gathers, because their rows name
    /// its rows as the ones before them. Their numbers are void and never given again. What was a duty is
    /// delivered again; the rest is answered as not applied.
    fn handle_failed(&mut self, at: At, token: u64, reason: &str) {
        let Some(index) = self.partition_in_flight(token) else { return };
        let partition = &mut self.partitions[index];
        let mut effects: Vec<Effect> = Vec::new();
        self.counters.failed_batches += partition.in_flight.len() as u64;
        for (_, batch) in partition.in_flight.drain(..) {
            effects.extend(batch);
        }
        effects.extend(partition.take_unsubmitted());
        self.actions.push_back(Action::Log(format!("the store failed a commit: {reason}")));
        let mut again = Vec::new();
        for effect in effects {
            self.undo_effect(effect, &mut again);
        }
        self.hold_again(&mut again);
        for effect in again {
            match effect {
                Effect::Delivered(duty) => self.deliver(at, duty),
                Effect::FannedOut(fanout) => self.fan_out_again(index as u16, fanout),
                Effect::Told { author } => self.told_again(author),
                Effect::SetAside { source, .. } => self.aside_committed(at, source, Vec::new()),
                _ => {}
            }
        }
    }

    /// Nothing of this owner's lands any more. Duties are not tried again: they are on disk, and the new owner's.
    fn handle_fenced(&mut self, token: u64, by: Fenced) {
        if self.fenced.replace(by).is_none() {
            let text = format!("{by}: nothing is written or acknowledged here any more; stop this process");
            self.actions.push_back(Action::Log(text));
        }
        let Some(index) = self.partition_in_flight(token) else { return };
        let refused: Vec<_> = self.partitions[index].in_flight.drain(..).collect();
        self.counters.failed_batches += refused.len() as u64;
        self.give_up(refused.into_iter().flat_map(|(_, effects)| effects).collect());
    }

    /// What gathers has no owner to be written by.
    fn give_up_open(&mut self) {
        for index in 0..self.partitions.len() {
            let effects = self.partitions[index].take_unsubmitted();
            self.give_up(effects);
        }
    }

    fn give_up(&mut self, effects: Vec<Effect>) {
        let mut again = Vec::new();
        effects.into_iter().for_each(|effect| self.undo_effect(effect, &mut again));
    }

    fn undo_effect(&mut self, effect: Effect, again: &mut Vec<Effect>) {
        let not_applied = || Status::new(Code::Unavailable, "the store could not write; nothing was applied");
        match effect {
            Effect::Row { user, .. } => self.row_void(user),
            Effect::Upload { user, id } => self.upload_failed(user, id, &not_applied()),
            Effect::Begin(_) => self.counters.duties -= 1,
            // The device goes on.
            Effect::LoggedOut { .. } => {}
            // The number that the group gave is void; the message gets another one.
            Effect::BeginFanout(fanout) => self.undo_fanout(&fanout),
            Effect::Delivered(_) | Effect::FannedOut(_) | Effect::Told { .. } => again.push(effect),
            Effect::SetAside { ref duties, .. } => {
                self.aside_void(duties);
                again.push(effect);
            }
            Effect::State(key) => self.state_void(&key),
            Effect::Answer { token, .. } => self.answer(token, Err(not_applied())),
            Effect::Kv { token } => self.answer(token, Err(not_applied())),
            Effect::KvCreated { token, key } => {
                self.kv_creating.remove(&key);
                self.answer(token, Err(not_applied()));
            }
        }
    }

    fn handle_read(&mut self, at: At, token: u64, answer: Result<Vec<Rows>, ReadError>) {
        let Some((partition, purpose)) = self.reads.remove(&token) else { return };
        self.partitions[usize::from(partition)].reads_in_flight -= 1;
        if let Err(error) = &answer {
            self.actions.push_back(Action::Log(error.to_string()));
        }
        match purpose {
            Purpose::Users(places) => self.users_read(at, places, answer),
            Purpose::Group(group) => self.group_read(at, group, answer),
            Purpose::Upload(upload) => self.upload_read(at, *upload, answer),
            Purpose::Pull(pull) => self.pull_read(pull, answer),
            Purpose::KvGet { token } => self.kv_read(token, answer),
            Purpose::KvCreate { token, key, value } => self.kv_checked(token, key, value, answer),
            Purpose::Recovery(read) => self.recovery_read(at, read, answer),
            Purpose::Expiry(read) => self.expiry_read(at, read, answer),
            Purpose::States(keys) => self.states_read(at, keys, answer),
            Purpose::Spread { author, read } => self.spread_read(author, read, answer),
            Purpose::Horizon(read) => self.horizon_read(at, *read, answer),
            Purpose::Said { token, post } => self.said_read(token, *post, answer),
        }
    }

    pub(super) fn answer(&mut self, token: u64, answer: Result<Answer, Status>) {
        self.actions.push_back(Action::Answer { token, answer });
    }

    /// The store says whether its disk has room. While it has none, calls that write are refused; what was
    /// acknowledged is still delivered, from the store's reserve.
    pub fn set_full(&mut self, is_full: bool) {
        if mem::replace(&mut self.is_full, is_full) != is_full {
            let line = match is_full {
                true => "the disk is full up to the reserve: writes are refused, reads go on; make room",
                false => "the disk has room again: writes are taken",
            };
            self.actions.push_back(Action::Log(line.to_owned()));
        }
    }

    /// The store says whether it keeps pace. While it does not, new writes are refused, so that none waits longer than
    /// for what was taken before; the store tells the operator.
    pub fn set_behind(&mut self, is_behind: bool) {
        self.is_behind = is_behind;
    }

    /// Refuses a call that would write when too much waits already, or when the disk has no room.
    pub(super) fn admit(&mut self, token: u64, section: u16) -> bool {
        self.seal();
        let partition = &self.partitions[usize::from(self.partition(section))];
        let is_shut = self.is_shut(section);
        let refusal = if self.fenced.is_some() {
            Status::new(Code::Unavailable, "another backend owns the store now")
        } else if !self.recovery.is_done() {
            Status::new(Code::Unavailable, "the backend is starting")
        } else if is_shut {
            Status::new(Code::Unavailable, "what this section owes to others cannot be read")
        } else if self.is_full {
            Status::new(
                Code::NoRoom,
                "the server's disk is full; reading goes on, and writing once there is room",
            )
        } else if self.is_behind {
            Status::new(Code::Overloaded, "the server's disk does not keep pace with what is written")
        } else if partition.open.bytes() + partition.sealed_bytes > limits::MAX_OPEN_BYTES
            || self.counters.duties as usize > limits::MAX_DUTIES
            || partition.reads.len() > limits::MAX_READS_WAITING
        {
            Status::new(Code::Overloaded, "too many writes wait for the disk")
        } else {
            return true;
        };
        self.refuse(token, refusal);
        false
    }

    pub(super) fn refuse(&mut self, token: u64, refusal: Status) {
        self.counters.refused += 1;
        self.answer(token, Err(Status { retry_after_ms: limits::RETRY_AFTER_MS, ..refusal }));
    }

    pub(super) fn partition(&self, section: u16) -> u16 {
        partition_of(section, self.config.partitions)
    }

    /// The batch that gathers for a section.
    pub(super) fn open(&mut self, section: u16) -> &mut Batch {
        let partition = self.partition(section);
        &mut self.partitions[usize::from(partition)].open
    }

    /// The batch that gathers for a section, and the value that was encoded last.
    pub(super) fn put_scratch(&mut self, section: u16, key: &[u8]) {
        let partition = self.partition(section);
        self.partitions[usize::from(partition)].open.put(key, &self.scratch);
    }

    pub(super) fn effect(&mut self, section: u16, effect: Effect) {
        let partition = self.partition(section);
        let effects = &mut self.partitions[usize::from(partition)].open_effects;
        effects.push(effect);
        self.is_large |= effects.len() >= limits::EFFECTS_OF_A_BATCH;
    }

    /// Between two changes: what has grown large in a partition is a batch, and what follows begins another. So what one
    /// commit brings about is little enough for a turn; the writer takes all that wait into one commit anyway.
    fn seal(&mut self) {
        if !mem::take(&mut self.is_large) {
            return;
        }
        for partition in &mut self.partitions {
            if partition.open_effects.len() >= limits::EFFECTS_OF_A_BATCH {
                partition.sealed_bytes += partition.open.bytes();
                let batch = (mem::take(&mut partition.open), mem::take(&mut partition.open_effects));
                partition.sealed.push_back(batch);
            }
        }
    }

    /// How much a completion brings about, in effects. A turn takes so many.
    pub(crate) fn work_of(&self, completion: &Completion) -> usize {
        match completion {
            Completion::Committed { token } => {
                let batches = self.partitions.iter().flat_map(|partition| &partition.in_flight);
                batches.filter(|(of, _)| of == token).map(|(_, effects)| effects.len()).sum()
            }
            // A read brings about what one change does.
            Completion::Read { .. } => 4,
            Completion::Failed { .. } | Completion::Fenced { .. } => 0,
        }
    }

    pub(super) fn read(&mut self, partition: u16, queries: Vec<Query>, purpose: Purpose) {
        self.partitions[usize::from(partition)].reads.push_back((queries, purpose));
    }

    pub(super) fn token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }

    fn flush_batches(&mut self) {
        if self.fenced.is_some() {
            return self.give_up_open();
        }
        for index in 0..self.partitions.len() {
            while self.partitions[index].in_flight.len() < limits::MAX_BATCHES_IN_FLIGHT {
                let Some((mut batch, effects)) = self.partitions[index].next_batch() else { break };
                batch.token = self.token();
                batch.owner_epoch = self.config.owner_epoch;
                self.partitions[index].in_flight.push_back((batch.token, effects));
                self.actions.push_back(Action::Submit { partition: index as u16, batch });
            }
        }
    }

    fn flush_reads(&mut self) {
        for index in 0..self.partitions.len() {
            while self.partitions[index].reads_in_flight < limits::MAX_READS_IN_FLIGHT {
                let Some((queries, purpose)) = self.partitions[index].reads.pop_front() else { break };
                self.partitions[index].reads_in_flight += 1;
                let token = self.token();
                self.reads.insert(token, (index as u16, purpose));
                self.actions
                    .push_back(Action::Read { partition: index as u16, read: Read { token, queries } });
            }
        }
    }

    /// Nothing is on its way. What waits for a log that cannot be read does so for as long as that is so.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        self.reads.is_empty()
            && self.waiting.keys().all(|place| self.aside.is_unreadable(*place))
            && self.partitions.iter().all(|partition| {
                partition.open.is_empty()
                    && partition.open_effects.is_empty()
                    && partition.sealed.is_empty()
                    && partition.in_flight.is_empty()
                    && partition.reads.is_empty()
            })
    }
}
