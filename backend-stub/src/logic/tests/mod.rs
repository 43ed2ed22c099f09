//! The core over a store in memory, stepped by hand: phones, a gateway, crashes at any step.

mod aside;
mod cold;
mod contacts;
mod crashes;
mod failures;
mod fencing;
mod full;
mod groups;
mod horizon;
mod me;
mod model;
mod moments;

mod index;
mod plants;
mod presence;
mod sync;
mod written;

use std::collections::BTreeMap;

use bytes::Bytes;
use proto_wire::names::UploadId;
use proto_wire::pb;
use proto_wire::status::Status;

use super::{Action, Answer, At, Core, CoreConfig, Upload, Verb, limits};
use crate::storage::ChangeLog as _;
use crate::storage::memory::Memory;

/// One process with its disk.
pub(super) struct World {
    pub core: Core,
    pub store: Memory,
    pub at: At,
    pub answers: BTreeMap<u64, Result<Answer, Status>>,
    pub notifies: Vec<(u64, pb::NotifyRequest)>,
    pub logs: Vec<String>,
    /// Bounds memory for rows; 0 makes every read go to the disk.
    hot_bytes: usize,
    /// Rows, age and time to keep, as `CoreConfig` has them.
    horizon: (u64, u64, u64),
    tokens: u64,
    starts: u64,
    partitions: u16,
}

impl World {
    pub fn new(partitions: u16, hot_bytes: usize) -> Self {
        let at = At { now_ms: 1_000_000, unix_ms: 1_800_000_000_000 };
        let horizon = (limits::HORIZON_ROWS, limits::HORIZON_AGE_MS, 0);
        let mut store = Memory::new(partitions);
        let core = core(1, store.claim(), partitions, hot_bytes, horizon);
        let mut world = Self {
            core,
            store,
            at,
            answers: BTreeMap::new(),
            notifies: Vec::new(),
            logs: Vec::new(),
            hot_bytes,
            horizon,
            tokens: 0,
            starts: 1,
            partitions,
        };
        world.run();
        assert!(world.core.is_ready());
        world
    }

    pub fn token(&mut self) -> u64 {
        self.tokens += 1;
        self.tokens
    }

    /// One turn: what the store has ended goes in, what the core wants goes out.
    pub fn turn(&mut self) {
        let mut completions = Vec::new();
        self.store.poll(&mut completions);
        for completion in completions {
            self.core.handle_completion(self.at, completion);
        }
        while let Some(action) = self.core.poll_action(self.at) {
            match action {
                Action::Submit { partition, batch } => {
                    self.store.submit(partition, batch).expect("the core bounds its batches")
                }
                Action::Read { partition, read } => {
                    self.store.read(partition, read).expect("the core bounds its reads")
                }
                Action::Answer { token, answer } => {
                    assert!(self.answers.insert(token, answer).is_none(), "a call has one answer");
                }
                Action::Notify { token, request, .. } => self.notifies.push((token, request)),
                Action::Log(text) => self.logs.push(text),
            }
        }
    }

    /// Until nothing moves any more.
    pub fn run(&mut self) {
        loop {
            self.turn();
            let waits = (0..self.partitions).any(|p| self.store.waiting(p) + self.store.waiting_reads(p) > 0);
            if !waits {
                assert!(self.core.is_idle());
                return;
            }
            self.store.run();
        }
    }

    /// The process dies and another starts on its disk. Answers that were not given are lost.
    pub fn crash(&mut self) {
        self.store.crash();
        self.starts += 1;
        self.core = core(self.starts, self.store.claim(), self.partitions, self.hot_bytes, self.horizon);
        self.notifies.clear();
    }

    pub fn send(&mut self, from: u64, to: u64, id: [u8; 10], text: &str) -> u64 {
        let token = self.token();
        let (id, text) = (self.upload_id(id), text.to_owned());
        let request = pb::SendRequest { id, to, text, ..Default::default() };
        self.core.send(self.at, token, from, 1, &request);
        token
    }

    pub fn upload_id(&self, random: [u8; 10]) -> Bytes {
        Bytes::copy_from_slice(&UploadId::new(self.at.unix_ms, random).0)
    }

    pub fn sent(&mut self, token: u64) -> pb::SendReply {
        match self.answers.remove(&token) {
            Some(Ok(Answer::Sent(reply, None))) => reply,
            other => panic!("a sent message was expected, not {other:?}"),
        }
    }

    /// An upload of a device of a user, with the store running: the number of its row, or the refusal.
    pub fn upload(&mut self, user: u64, device: u64, id: u8, verb: Verb) -> Result<u64, Status> {
        let token = self.start_upload(user, device, id, verb);
        self.run();
        match self.answers.remove(&token) {
            Some(Ok(Answer::Sent(reply, None))) => Ok(reply.number.expect("a change has a number").number),
            Some(Err(status)) => Err(status),
            other => panic!("a change was expected, not {other:?}"),
        }
    }

    /// The hash is of the verb: another verb under the same id is another body.
    pub fn start_upload(&mut self, user: u64, device: u64, id: u8, verb: Verb) -> u64 {
        let token = self.token();
        let mut hash = [0; 16];
        let shown = format!("{verb:?}");
        hash.copy_from_slice(&blake3::hash(shown.as_bytes()).as_bytes()[..16]);
        let upload = Upload { id: self.upload_id([id; 10]), hash, verb };
        self.core.upload(self.at, token, user, device, upload);
        token
    }

    pub fn mark(&mut self, user: u64, request: pb::MarkRequest) -> Result<(), Status> {
        let token = self.token();
        self.core.mark(self.at, token, user, 1, &request);
        self.run();
        match self.answers.remove(&token) {
            Some(Ok(Answer::Done)) => Ok(()),
            Some(Err(status)) => Err(status),
            other => panic!("a mark was expected, not {other:?}"),
        }
    }

    /// What a phone that has everything shows of a peer: the newest state of that item.
    pub fn peer(&mut self, user: u64, peer: u64) -> pb::Peer {
        let changes = self.log(user, 0);
        let states = changes.iter().filter_map(|change| match &change.body {
            Some(pb::change::Body::Peer(state)) if state.peer == peer => Some(state.clone()),
            _ => None,
        });
        states.last().unwrap_or_default()
    }

    pub fn error(&mut self, token: u64) -> Status {
        match self.answers.remove(&token) {
            Some(Err(status)) => status,
            other => panic!("an error was expected, not {other:?}"),
        }
    }

    pub fn create_group(&mut self, owner: u64, id: [u8; 10], members: &[u64]) -> u64 {
        let token = self.token();
        let request = pb::CreateGroupRequest {
            id: self.upload_id(id),
            name: "group".into(),
            members: members.to_vec(),
        };
        self.core.create_group(self.at, token, owner, &request);
        self.run();
        match self.answers.remove(&token) {
            Some(Ok(Answer::Group(reply))) => reply.group,
            other => panic!("a group was expected, not {other:?}"),
        }
    }

    /// One page, with the store running.
    pub fn pull(&mut self, user: u64, request: pb::PullRequest) -> Result<pb::Page, Status> {
        let token = self.token();
        self.core.pull(self.at, token, user, 1, &request);
        self.run();
        match self.answers.remove(&token) {
            Some(Ok(Answer::Page(page))) => {
                let decoded = page.to_page();
                assert_eq!((page.given.log_epoch, page.given.number), (decoded.log_epoch, decoded.upto));
                Ok(decoded)
            }
            Some(Err(status)) => Err(status),
            other => panic!("a page was expected, not {other:?}"),
        }
    }

    /// All that a user has, read from the beginning in pages of `max_changes`.
    pub fn log(&mut self, user: u64, max_changes: u32) -> Vec<pb::Change> {
        let mut changes: Vec<pb::Change> = Vec::new();
        let mut cursor = pb::Cursor::default();
        loop {
            let request = pb::PullRequest { cursor: Some(cursor), max_changes, ..Default::default() };
            let page = self.pull(user, request).expect("the log is whole");
            assert_eq!(page.after, cursor.number);
            assert!(!(page.more && page.changes.is_empty()), "a page with more is never empty");
            let numbers = page.changes.iter().map(|change| change.number);
            assert!(numbers.clone().is_sorted_by(|a, b| a < b));
            assert!(numbers.clone().all(|number| number > page.after && number <= page.upto));
            changes.extend(page.changes);
            cursor = pb::Cursor { log_epoch: page.log_epoch, number: page.upto };
            if !page.more {
                return changes;
            }
        }
    }

    /// Lets time pass and timers run.
    pub fn pass(&mut self, ms: u64) {
        let end = self.at.now_ms + ms;
        while self.at.now_ms < end {
            let step = self.core.poll_timeout().map_or(end, |due| due.clamp(self.at.now_ms + 1, end));
            self.at.unix_ms += step - self.at.now_ms;
            self.at.now_ms = step;
            self.core.handle_timeout(self.at);
            self.run();
        }
    }
}

fn core(backend: u64, owner_epoch: u64, partitions: u16, hot_bytes: usize, horizon: (u64, u64, u64)) -> Core {
    let (horizon_rows, horizon_age_ms, keep_ms) = horizon;
    let config = CoreConfig::new(backend, backend, partitions);
    Core::new(CoreConfig { owner_epoch, hot_bytes, horizon_rows, horizon_age_ms, keep_ms, ..config })
}

pub(super) fn text(change: &pb::Change) -> &str {
    match &change.body {
        Some(pb::change::Body::Message(message)) => &message.text,
        _ => "",
    }
}
