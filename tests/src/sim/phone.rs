//! A phone, the person who holds it, and what both remember across a restart: the log's place, the count of
//! connections, and the messages that are not acknowledged yet.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use proto_wire::names::Cursor;
use proto_wire::pb;
use proto_wire::phone::{
    Backoff, CallHandle, CloseReason, Device, Ended, Phone as Machine, PhoneConfig, PhoneEvent,
};
use proto_wire::rpc::method::Method;
use proto_wire::services::{self, messages};
use proto_wire::status::Code;

use super::crowd::{Call, Deed};
use super::limits;
use super::net::{Address, ConnId, Input, Node, Side};
use super::queue::Event;
use super::shared::Shared;
use crate::history::{MessageId, text};

/// Something that is repeated with the id it has until it is acknowledged.
#[derive(Debug, Clone)]
pub struct Upload {
    what: What,
    method: &'static Method,
    body: Bytes,
}

#[derive(Debug, Clone)]
enum What {
    Message(MessageId),
    Group,
    Deed(Deed),
}

/// A group that a phone has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub id: u64,
    pub members: Vec<u64>,
}

/// One phone.
pub struct Phone {
    pub index: usize,
    pub user: u64,
    pub device: u64,
    machine: Machine,
    config: Arc<PhoneConfig>,
    conn: Option<ConnId>,
    /// The gateway that it tries.
    gate: usize,
    /// What is out.
    uploads: BTreeMap<CallHandle, Upload>,
    /// What is not out yet.
    outbox: VecDeque<Upload>,
    /// What waits for its next attempt.
    waiting: usize,
    pub is_off: bool,
    timer_us: Option<u64>,
    /// Numbers that it has applied, and what they were.
    pub log: BTreeMap<u64, pb::Change>,
    gaps: u64,
    repeats: u64,
    /// Groups that were made by it since they were last asked for.
    pub made: Vec<Group>,
    group_members: Vec<u64>,
}

impl Phone {
    pub fn new(index: usize, user: u64, device: u64, shared: &mut Shared) -> Self {
        let config = Arc::new(PhoneConfig {
            sync_on_connect: shared.plan.sync_on_connect,
            pull_max_changes: shared.plan.pull_max_changes,
            reconnect: Backoff { first_ms: 100, min_ms: 200, max_ms: 20_000, stable_after_ms: 5_000 },
            ..PhoneConfig::default()
        });
        let machine = machine(&config, user, device, 0, Cursor::default(), shared.random.next());
        shared.history.add_phone(user);
        if let Some(crowd) = &mut shared.crowd {
            crowd.add_phone(index, user);
        }
        Self {
            index,
            user,
            device,
            machine,
            config,
            conn: None,
            gate: shared.random.next() as usize,
            uploads: BTreeMap::new(),
            outbox: VecDeque::new(),
            waiting: 0,
            is_off: true,
            timer_us: None,
            log: BTreeMap::new(),
            gaps: 0,
            repeats: 0,
            made: Vec::new(),
            group_members: Vec::new(),
        }
    }

    pub fn count(&self, shared: &mut Shared) {
        shared.count("gaps", self.gaps);
        shared.count("changes that came again", self.repeats);
    }

    pub fn conn(&self) -> Option<ConnId> {
        self.conn
    }

    pub fn is_up(&self) -> bool {
        self.machine.is_up()
    }

    pub fn cursor(&self) -> Cursor {
        self.machine.cursor()
    }

    /// Everything that it has sent is acknowledged.
    pub fn is_idle(&self) -> bool {
        self.uploads.is_empty() && self.outbox.is_empty() && self.waiting == 0
    }

    pub fn switch_on(&mut self, shared: &mut Shared) {
        self.is_off = false;
        self.machine.connect(shared.now_ms());
        self.serve(shared);
    }

    /// Its person switches it off. It stays so until it is switched on.
    pub fn switch_off(&mut self, shared: &mut Shared) {
        self.is_off = true;
        self.machine.close();
        self.serve(shared);
    }

    /// The program is killed and starts again with what it had stored.
    pub fn restart(&mut self, shared: &mut Shared) {
        let (counter, cursor) = (self.machine.counter(), self.machine.cursor());
        if let Some(conn) = self.conn.take() {
            let learns = !shared.random.chance(shared.plan.untold_permille);
            shared.kill(conn, Side::Opener, learns);
        }
        let seed = shared.random.next();
        self.machine = machine(&self.config, self.user, self.device, counter, cursor, seed);
        self.timer_us = None;
        for (_, upload) in std::mem::take(&mut self.uploads) {
            self.send_later(upload, shared);
        }
        self.switch_on(shared);
    }

    /// Drops the path without a word and connects again at once, elsewhere: two connections of one device race.
    pub fn race(&mut self, shared: &mut Shared) {
        if let Some(conn) = self.conn.take() {
            shared.forget(conn, Side::Opener);
            self.gate += 1;
            self.machine.handle_closed(shared.now_ms(), Ended::Reset);
            self.machine.connect(shared.now_ms());
        }
        self.serve(shared);
    }

    /// A message to a user or a group. Nothing before the first WELCOME.
    pub fn send(&mut self, to: u64, shared: &mut Shared) {
        let Some(upload) = self.machine.upload_id(shared.now_ms()) else { return };
        let id = shared.history.sent(self.user, to);
        shared.note("phone {a} sends m{b} to {c}", [self.index as u64, u64::from(id.0), to]);
        let id_bytes = Bytes::copy_from_slice(&upload.0);
        // Some as a phone that knows no pages in answers.
        let wants_page = !upload.0[15].is_multiple_of(4);
        let request = pb::SendRequest { id: id_bytes, to, text: text(id), wants_page, ..Default::default() };
        let body = request.encode_to_vec().into();
        self.upload(Upload { what: What::Message(id), method: &messages::SEND, body }, shared);
    }

    /// Makes a group. `made` has it when it is acknowledged. Nothing before the first WELCOME.
    pub fn make_group(&mut self, members: Vec<u64>, shared: &mut Shared) -> bool {
        let Some(upload) = self.machine.upload_id(shared.now_ms()) else { return false };
        shared.note("phone {a} makes a group of {b}", [self.index as u64, members.len() as u64, 0]);
        let request = pb::CreateGroupRequest {
            id: Bytes::copy_from_slice(&upload.0),
            name: "group".to_owned(),
            members: members.clone(),
        };
        self.group_members = members;
        let body = request.encode_to_vec().into();
        self.upload(Upload { what: What::Group, method: &messages::CREATE_GROUP, body }, shared);
        true
    }

    /// The id of a new upload. None before the first WELCOME.
    pub fn upload_id(&mut self, shared: &Shared) -> Option<Bytes> {
        let id = self.machine.upload_id(shared.now_ms())?;
        Some(Bytes::copy_from_slice(&id.0))
    }

    /// Something that a person does, as the crowd has drawn it.
    pub fn call(&mut self, call: Call, shared: &mut Shared) {
        let Some(method) = services::method(call.method) else { return };
        shared.note("phone {a} calls {b}", [self.index as u64, u64::from(call.method), 0]);
        self.upload(Upload { what: What::Deed(call.deed), method, body: call.body }, shared);
    }

    pub fn again(&mut self, upload: Upload, shared: &mut Shared) {
        self.waiting -= 1;
        self.upload(upload, shared);
    }

    /// People do not type on when nothing leaves.
    pub fn is_stuck(&self) -> bool {
        self.outbox.len() > limits::OUTBOX_MAX
    }

    fn upload(&mut self, upload: Upload, shared: &mut Shared) {
        self.outbox.push_back(upload);
        self.serve(shared);
    }

    fn send_upload(&mut self, upload: Upload, shared: &mut Shared) {
        let method = upload.method;
        let handle = self.machine.call(method.id, upload.body.clone(), 0, method.idempotent, shared.now_ms());
        self.uploads.insert(handle, upload);
    }

    pub fn answered(&mut self, conn: ConnId, accepted: bool, shared: &mut Shared) {
        if self.conn != Some(conn) {
            return;
        }
        if accepted {
            self.machine.handle_connected(shared.now_ms());
        } else {
            self.conn = None;
            self.machine.handle_closed(shared.now_ms(), Ended::ConnectFailed);
        }
        self.serve(shared);
    }

    pub fn input(&mut self, conn: ConnId, input: Input, shared: &mut Shared) {
        if self.conn != Some(conn) {
            return;
        }
        let now_ms = shared.now_ms();
        let ended = match input {
            Input::Bytes(bytes) => {
                self.machine.handle_bytes(&bytes, now_ms);
                None
            }
            Input::Eof => Some(Ended::Eof),
            Input::Reset => Some(Ended::Reset),
        };
        if let Some(ended) = ended {
            self.conn = None;
            self.machine.handle_closed(now_ms, ended);
        }
        self.serve(shared);
    }

    pub fn timer(&mut self, shared: &mut Shared) {
        if self.timer_us != Some(shared.now_us) {
            return;
        }
        self.timer_us = None;
        self.machine.handle_timeout(shared.now_ms());
        self.serve(shared);
    }

    /// Takes what the machine has to say.
    fn serve(&mut self, shared: &mut Shared) {
        loop {
            while let Some(event) = self.machine.poll_event() {
                self.handle_event(event, shared);
            }
            if !self.is_off
                && self.uploads.len() < limits::UPLOADS_OUT
                && let Some(upload) = self.outbox.pop_front()
            {
                // One that cannot be taken ends at once, which is an event.
                self.send_upload(upload, shared);
                continue;
            }
            let mut out = Vec::new();
            if !self.machine.poll_transmit(&mut out) {
                break;
            }
            if let Some(conn) = self.conn {
                shared.send(conn, Side::Opener, out);
            }
        }
        let Some(due_ms) = self.machine.poll_timeout() else { return };
        let at_us = (due_ms * 1000).max(shared.now_us + 1);
        if self.timer_us.is_none_or(|queued_us| at_us < queued_us) {
            self.timer_us = Some(at_us);
            shared.queue.push(at_us, Event::PhoneTimer(self.index));
        }
    }

    fn handle_event(&mut self, event: PhoneEvent, shared: &mut Shared) {
        match event {
            PhoneEvent::Connect { .. } => {
                let to = Address::Gate(self.gate % shared.plan.gates);
                self.conn = Some(shared.open(Node::Phone(self.index), to));
            }
            PhoneEvent::Disconnect => {
                if let Some(conn) = self.conn.take() {
                    shared.close(conn, Side::Opener);
                }
            }
            PhoneEvent::Page { page } => self.apply(page, shared),
            PhoneEvent::Snapshot { page, first, .. } => self.apply_snapshot(page, first, shared),
            PhoneEvent::Reply { handle, status, body, .. } => self.replied(handle, status, body, shared),
            PhoneEvent::Closed { reason, reconnect_at_ms, .. } => {
                shared.note("phone {a} is cut off", [self.index as u64, 0, 0]);
                if !matches!(reason, CloseReason::GoAway) && shared.random.chance(500) {
                    self.gate += 1;
                }
                let is_out = shared.crowd.as_ref().is_some_and(|crowd| crowd.is_leaving(self.index));
                if reconnect_at_ms.is_none() && reason != CloseReason::ByOwner && !is_out {
                    let text = format!("phone {} was refused for good: {reason:?}", self.index);
                    shared.complain(text);
                }
            }
            PhoneEvent::Welcomed { .. } => {
                shared.note(
                    "phone {a} is welcomed by gateway {b}",
                    [self.index as u64, (self.gate % shared.plan.gates) as u64, 0],
                );
            }
            PhoneEvent::Notice { .. } => {}
            PhoneEvent::Gap { .. } => {
                self.gaps += 1;
                shared.say(format!("phone {}: {event:?}", self.index));
            }
            PhoneEvent::Repeat { .. } => self.repeats += 1,
            PhoneEvent::SyncFailed { .. } | PhoneEvent::GoAway { .. } => {
                shared.say(format!("phone {}: {event:?}", self.index));
            }
        }
    }

    fn apply(&mut self, page: pb::Page, shared: &mut Shared) {
        shared.note(
            "phone {a} applies {b} changes up to number {c}",
            [self.index as u64, page.changes.len() as u64, page.upto],
        );
        for change in page.changes {
            match &mut shared.crowd {
                Some(crowd) => {
                    let wrong = crowd.take(self.index, &change);
                    wrong.into_iter().for_each(|words| shared.complain(words));
                }
                None => shared.history.applied(self.index, &change),
            }
            let number = change.number;
            if number > shared.on_disk.get(&self.user).copied().unwrap_or(0) {
                shared
                    .complain(format!("phone {} applied number {number} before it was on disk", self.index));
            }
            if self.log.insert(number, change).is_some() {
                shared.complain(format!("phone {} applied number {number} twice", self.index));
            }
        }
    }

    fn apply_snapshot(&mut self, page: pb::Page, first: bool, shared: &mut Shared) {
        shared.count("pages of snapshots", 1);
        match &mut shared.crowd {
            Some(crowd) if shared.plan.horizon.is_some() => {
                if first {
                    self.log.clear();
                    crowd.forget(self.index);
                }
            }
            _ => {
                let text = format!("phone {} got a snapshot: it was ahead of its log: {page:?}", self.index);
                shared.complain(text);
            }
        }
        self.apply(page, shared);
    }

    fn replied(&mut self, handle: CallHandle, status: Code, body: Bytes, shared: &mut Shared) {
        let Some(upload) = self.uploads.remove(&handle) else { return };
        if status != Code::Ok {
            let is_final = !status.is_safe_to_retry()
                && !matches!(status, Code::Lost | Code::Deadline | Code::Internal | Code::Cancelled);
            if is_final {
                if let What::Deed(deed) = upload.what {
                    return done(deed, status, body, shared);
                }
                let text = String::from_utf8_lossy(&body).into_owned();
                shared.complain(format!("phone {}: {:?} ended {status:?}: {text}", self.index, upload.what));
            }
            return self.send_later(upload, shared);
        }
        match upload.what {
            What::Message(id) => {
                let answer = pb::SendReply::decode(body).unwrap_or_default();
                let number = answer.number.unwrap_or_default().number;
                shared
                    .note("m{a} is acknowledged as number {b} of {c}", [u64::from(id.0), number, self.user]);
                shared.history.acknowledged(id, number);
            }
            What::Group => {
                let id = pb::CreateGroupReply::decode(body).unwrap_or_default().group;
                shared.note("group {a} is acknowledged", [id, 0, 0]);
                let members = self.group_members.iter().copied().chain([self.user]).collect();
                self.made.push(Group { id, members });
            }
            What::Deed(deed) => done(deed, status, body, shared),
        }
    }

    fn send_later(&mut self, upload: Upload, shared: &mut Shared) {
        self.waiting += 1;
        let at_us = shared.now_us + 50_000 + shared.random.below(100_000);
        shared.queue.push(at_us, Event::Again { phone: self.index, upload });
    }
}

fn done(deed: Deed, status: Code, body: Bytes, shared: &mut Shared) {
    let now_us = shared.now_us;
    let wrong = shared.crowd.as_mut().and_then(|crowd| crowd.replied(deed, status, body, now_us));
    wrong.into_iter().for_each(|words| shared.complain(words));
}

fn machine(
    config: &Arc<PhoneConfig>,
    user: u64,
    device: u64,
    counter: u32,
    cursor: Cursor,
    seed: u64,
) -> Machine {
    let token = Box::new(user.to_le_bytes());
    Machine::new(config.clone(), Device { id: device, token, counter, cursor }, seed)
}
