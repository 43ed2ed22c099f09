//! Phones: the machines of `proto_wire::phone` on plain sockets, all in the caller's thread.
//!
//! A fleet repeats a message that was not taken, with the id it had, and writes down all that came in its
//! [`History`]. It moves only inside of [`Fleet::run_until`] and [`Fleet::turn`].

mod line;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use prost::Message;
use proto_wire::pb;
use proto_wire::phone::{Backoff, CallHandle, Device, Phone, PhoneConfig, PhoneEvent};
use proto_wire::rpc::method::Method;
use proto_wire::services::messages;
use proto_wire::status::Code;
use proto_wire_token::{Claims, IssuerKey};

use crate::history::{History, MessageId, long_text};
use crate::limits;
use line::Line;

pub use line::{PhoneId, Reply, Seen};

/// Many phones and what they have seen.
pub struct Fleet {
    start: Instant,
    config: Arc<PhoneConfig>,
    issuer: IssuerKey,
    gateways: Vec<SocketAddr>,
    lines: Vec<Line>,
    /// Messages whose answer has not come.
    uploads: HashMap<(PhoneId, CallHandle), Upload>,
    /// Messages that were not taken: when they are sent again.
    again: Vec<(u64, PhoneId, Upload)>,
    pub history: History,
    seed: u64,
    /// How many bytes a message has on top of its shortest text.
    pub more_text_bytes: usize,
    /// Answers to uploads other than `ok`, for the report.
    pub refused: HashMap<String, u64>,
}

/// A message on its way.
#[derive(Debug, Clone)]
struct Upload {
    id: MessageId,
    body: Bytes,
}

/// Nothing came of a wait.
#[derive(Debug, thiserror::Error)]
#[error("no {awaited} within {within_ms} ms; {state}")]
pub struct TooLate {
    awaited: String,
    within_ms: u64,
    state: String,
}

/// Phones that are told of news, never ask by themselves, and come back soon.
pub fn config() -> PhoneConfig {
    PhoneConfig {
        sync_on_connect: false,
        reconnect: Backoff { first_ms: 100, min_ms: 200, max_ms: 2_000, stable_after_ms: 1_000 },
        ..PhoneConfig::default()
    }
}

/// A token of a user, good for an hour.
pub fn token(issuer: &IssuerKey, user: u64) -> String {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    issuer.mint(&Claims { user, home: 0, device: None, issued_s: now_s, expires_s: now_s + 3600 })
}

impl Fleet {
    pub fn new(gateway: SocketAddr, issuer: IssuerKey, config: PhoneConfig, seed: u64) -> Self {
        Self {
            start: Instant::now(),
            config: Arc::new(config),
            issuer,
            gateways: vec![gateway],
            lines: Vec::new(),
            uploads: HashMap::new(),
            again: Vec::new(),
            history: History::default(),
            seed,
            more_text_bytes: 0,
            refused: HashMap::new(),
        }
    }

    /// Where a phone goes when the gateway before does not let it in.
    pub fn add_gateway(&mut self, gateway: SocketAddr) {
        self.gateways.push(gateway);
    }

    /// A new phone of `user`, whose device has the user's number. It does not connect yet.
    pub fn add(&mut self, user: u64) -> PhoneId {
        self.add_device(user, user, 0)
    }

    /// A new phone whose device has connected `counter` times before.
    pub fn add_device(&mut self, user: u64, device: u64, counter: u32) -> PhoneId {
        let id = PhoneId(self.lines.len());
        let token = token(&self.issuer, user).into_bytes().into_boxed_slice();
        let device = Device { id: device, token, counter, ..Device::default() };
        let seed = self.seed ^ (id.0 as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let phone = Phone::new(self.config.clone(), device, seed);
        self.lines.push(Line::new(phone, user));
        self.history.add_phone(user);
        id
    }

    /// A new phone that is up.
    pub fn add_up(&mut self, user: u64) -> Result<PhoneId, TooLate> {
        let phone = self.add(user);
        self.connect(phone);
        self.run_until("WELCOME", limits::SOON_MS, |fleet| fleet.is_up(phone))?;
        Ok(phone)
    }

    /// `count` phones, of users from `first` on, all up.
    pub fn add_many(&mut self, first: u64, count: usize) -> Result<Vec<PhoneId>, TooLate> {
        let phones: Vec<PhoneId> = (0..count as u64).map(|at| self.add(first + at)).collect();
        phones.iter().for_each(|&phone| self.connect(phone));
        self.run_until("WELCOME of all", limits::SOON_MS, |fleet| {
            phones.iter().all(|&phone| fleet.is_up(phone))
        })?;
        Ok(phones)
    }

    /// Connects to the first gateway of the fleet.
    pub fn connect(&mut self, phone: PhoneId) {
        self.connect_to(phone, 0);
    }

    /// Connects to one of the gateways, by the order they were added in.
    pub fn connect_to(&mut self, phone: PhoneId, gateway: usize) {
        let now_ms = self.now_ms();
        let line = &mut self.lines[phone.0];
        line.gateway = gateway;
        line.seen.page(now_ms, true);
        line.phone.connect(now_ms);
        self.serve(phone);
    }

    /// The phone is switched off: its socket ends without a word, and it does not come back by itself.
    pub fn cut(&mut self, phone: PhoneId) {
        self.lines[phone.0].phone.close();
        self.serve(phone);
    }

    /// The phone's network is gone: its end of the socket is forgotten, and it comes back by itself.
    pub fn lose_path(&mut self, phone: PhoneId) {
        let now_ms = self.now_ms();
        self.lines[phone.0].lose_path(now_ms);
        self.serve(phone);
    }

    pub fn is_up(&self, phone: PhoneId) -> bool {
        self.lines[phone.0].phone.is_up()
    }

    pub fn up(&self) -> usize {
        self.lines.iter().filter(|line| line.phone.is_up()).count()
    }

    pub fn user(&self, phone: PhoneId) -> u64 {
        self.lines[phone.0].user
    }

    /// What a phone has seen.
    pub fn seen(&self, phone: PhoneId) -> &Seen {
        &self.lines[phone.0].seen
    }

    /// Sends a message to a user or a group, and again until it is acknowledged. The phone must have been up.
    pub fn send(&mut self, from: PhoneId, to: u64) -> MessageId {
        let now_ms = self.now_ms();
        let id = self.history.sent(self.user(from), to);
        let upload = self.lines[from.0].phone.upload_id(now_ms).expect("a phone that was up before");
        let (id_bytes, text) = (Bytes::copy_from_slice(&upload.0), long_text(id, self.more_text_bytes));
        let request = pb::SendRequest { id: id_bytes, to, text, wants_page: true, ..Default::default() };
        self.upload(from, Upload { id, body: request.encode_to_vec().into() });
        id
    }

    /// Messages that are sent and not acknowledged.
    pub fn in_flight(&self) -> usize {
        self.uploads.len() + self.again.len()
    }

    /// Sends a message and waits until it is acknowledged.
    pub fn send_and_wait(&mut self, from: PhoneId, to: u64) -> Result<MessageId, TooLate> {
        let id = self.send(from, to);
        self.run_until("acknowledgement", limits::SOON_MS, |fleet| fleet.history.is_acknowledged(id))?;
        Ok(id)
    }

    /// Makes a group of the owner's user and `members`.
    pub fn make_group(&mut self, owner: PhoneId, members: &[u64]) -> Result<u64, TooLate> {
        let now_ms = self.now_ms();
        let upload = self.lines[owner.0].phone.upload_id(now_ms).expect("a phone that was up before");
        let request = pb::CreateGroupRequest {
            id: Bytes::copy_from_slice(&upload.0),
            name: "group".to_owned(),
            members: members.to_vec(),
        };
        let handle = self.lines[owner.0].phone.call_method(&messages::CREATE_GROUP, &request, now_ms);
        self.serve(owner);
        let reply = self.wait_for_reply(owner, handle)?;
        let group = pb::CreateGroupReply::decode(reply.body).unwrap_or_default().group;
        assert!(reply.status == Code::Ok && group != 0, "the group was not made: {:?}", reply.status);
        self.history.add_group(group, members.iter().copied().chain([self.user(owner)]));
        Ok(group)
    }

    /// The id of a new upload of a phone that has been up.
    pub fn upload_id(&mut self, phone: PhoneId) -> Bytes {
        let now_ms = self.now_ms();
        let id = self.lines[phone.0].phone.upload_id(now_ms).expect("a phone that was up before");
        Bytes::copy_from_slice(&id.0)
    }

    /// Calls a method and waits for its answer.
    pub fn ask(
        &mut self,
        phone: PhoneId,
        method: &'static Method,
        request: &impl Message,
    ) -> Result<Reply, TooLate> {
        let now_ms = self.now_ms();
        let handle = self.lines[phone.0].phone.call_method(method, request, now_ms);
        self.serve(phone);
        self.wait_for_reply(phone, handle)
    }

    /// Calls any method.
    pub fn call(&mut self, phone: PhoneId, method: u16, body: Bytes, deadline_ms: u32) -> CallHandle {
        let now_ms = self.now_ms();
        let handle = self.lines[phone.0].phone.call(method, body, deadline_ms, false, now_ms);
        self.serve(phone);
        handle
    }

    pub fn reply(&self, phone: PhoneId, handle: CallHandle) -> Option<&Reply> {
        self.lines[phone.0].replies.get(&handle)
    }

    pub fn wait_for_reply(&mut self, phone: PhoneId, handle: CallHandle) -> Result<Reply, TooLate> {
        self.run_until("reply", limits::SOON_MS, |fleet| fleet.reply(phone, handle).is_some())?;
        // It was just there.
        Ok(self.lines[phone.0].replies.remove(&handle).expect("the reply"))
    }

    /// Waits until all that was sent is acknowledged and everywhere.
    pub fn settle(&mut self, within_ms: u64) -> Result<(), TooLate> {
        let mut looked_at_ms = 0;
        self.run_until("arrival of everything", within_ms, |fleet| {
            let now_ms = fleet.now_ms();
            if fleet.in_flight() > 0 || now_ms < looked_at_ms + 2 * limits::FLEET_TURN_MAX_MS {
                return false;
            }
            looked_at_ms = now_ms;
            fleet.history.missing() == 0
        })
    }

    /// Everything has come, once and in order, or this panics with the first complaints.
    pub fn assert_good(&self) {
        let verdict = self.history.verdict();
        assert!(verdict.is_good(), "{:?}\n{}", verdict.counts, verdict.complaints.join("\n"));
    }

    /// Moves until `done`, for `within_ms` at most.
    pub fn run_until(
        &mut self,
        awaited: &str,
        within_ms: u64,
        mut done: impl FnMut(&Fleet) -> bool,
    ) -> Result<(), TooLate> {
        let until_ms = self.now_ms() + within_ms;
        loop {
            if done(self) {
                return Ok(());
            }
            if self.now_ms() >= until_ms {
                return Err(TooLate { awaited: awaited.to_owned(), within_ms, state: self.state() });
            }
            self.turn(until_ms);
        }
    }

    /// Moves for a time, whatever happens.
    pub fn run_for(&mut self, ms: u64) {
        let until_ms = self.now_ms() + ms;
        while self.now_ms() < until_ms {
            self.turn(until_ms);
        }
    }

    /// Waits for sockets and timers, for a moment at most, and serves them.
    pub fn turn(&mut self, until_ms: u64) {
        let now_ms = self.now_ms();
        let due_ms = self.lines.iter().filter_map(|line| line.phone.poll_timeout()).min().unwrap_or(u64::MAX);
        let again_ms = self.again.iter().map(|(at_ms, ..)| *at_ms).min().unwrap_or(u64::MAX);
        let wait_ms = due_ms.min(again_ms).min(until_ms).saturating_sub(now_ms);
        for phone in self.wait(wait_ms.min(limits::FLEET_TURN_MAX_MS)) {
            let now_ms = self.now_ms();
            self.lines[phone.0].handle_ready(now_ms);
            self.serve(phone);
        }
        let now_ms = self.now_ms();
        for at in 0..self.lines.len() {
            if self.lines[at].phone.poll_timeout().is_some_and(|due_ms| due_ms <= now_ms) {
                self.lines[at].phone.handle_timeout(now_ms);
                self.serve(PhoneId(at));
            }
        }
        let (due, rest) =
            std::mem::take(&mut self.again).into_iter().partition(|(at_ms, ..)| *at_ms <= now_ms);
        self.again = rest;
        let due: Vec<(u64, PhoneId, Upload)> = due;
        due.into_iter().for_each(|(_, phone, upload)| self.upload(phone, upload));
    }

    /// Monotonic milliseconds since the fleet was made.
    pub fn now_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64 + 1
    }

    /// The phones whose sockets have something for them.
    fn wait(&self, wait_ms: u64) -> Vec<PhoneId> {
        let (mut ids, mut polled) = (Vec::new(), Vec::new());
        for (at, line) in self.lines.iter().enumerate() {
            let Some(socket) = &line.socket else { continue };
            let mut flags = PollFlags::POLLIN;
            flags.set(PollFlags::POLLOUT, line.wants_to_write());
            ids.push(PhoneId(at));
            polled.push(PollFd::new(socket.as_fd(), flags));
        }
        if polled.is_empty() {
            std::thread::sleep(Duration::from_millis(wait_ms));
            return Vec::new();
        }
        // A signal only makes this turn a short one.
        let _ = poll(&mut polled, PollTimeout::try_from(wait_ms as i32).unwrap_or(PollTimeout::ZERO));
        let ready = polled.iter().map(|fd| fd.any().unwrap_or(false));
        ids.into_iter().zip(ready).filter(|(_, ready)| *ready).map(|(id, _)| id).collect()
    }

    fn upload(&mut self, phone: PhoneId, upload: Upload) {
        let now_ms = self.now_ms();
        let method = &messages::SEND;
        let line = &mut self.lines[phone.0];
        let handle = line.phone.call(method.id, upload.body.clone(), 0, method.idempotent, now_ms);
        self.uploads.insert((phone, handle), upload);
        self.serve(phone);
    }

    /// Takes what the phone's machine has to say.
    fn serve(&mut self, id: PhoneId) {
        let now_ms = self.now_ms();
        loop {
            while let Some(event) = self.lines[id.0].phone.poll_event() {
                self.handle_event(id, event, now_ms);
            }
            if !self.lines[id.0].transmit(now_ms) {
                return;
            }
        }
    }

    fn handle_event(&mut self, id: PhoneId, event: PhoneEvent, now_ms: u64) {
        let line = &mut self.lines[id.0];
        match event {
            PhoneEvent::Connect { .. } => {
                let gateway = self.gateways[line.gateway % self.gateways.len()];
                line.open(gateway, now_ms);
            }
            PhoneEvent::Disconnect => line.drop_socket(),
            PhoneEvent::Reply { handle, status, body, .. } => {
                self.handle_reply(id, handle, Reply { status, body }, now_ms)
            }
            PhoneEvent::Page { page } => {
                line.seen.page(now_ms, false);
                line.seen.changes += page.changes.len() as u64;
                page.changes.iter().for_each(|change| line.seen.take(change));
                page.changes.iter().for_each(|change| self.history.applied(id.0, change));
            }
            // No log here is long enough for one.
            PhoneEvent::Snapshot { page, .. } => {
                line.seen.page(now_ms, false);
                line.seen.snapshots += 1;
                page.changes.iter().for_each(|change| line.seen.take(change));
                page.changes.iter().for_each(|change| self.history.applied(id.0, change));
            }
            other => line.note(other),
        }
    }

    fn handle_reply(&mut self, id: PhoneId, handle: CallHandle, reply: Reply, now_ms: u64) {
        let Some(upload) = self.uploads.remove(&(id, handle)) else {
            self.lines[id.0].replies.insert(handle, reply);
            return;
        };
        if reply.status == Code::Ok {
            let answer = pb::SendReply::decode(reply.body).unwrap_or_default();
            self.history.acknowledged(upload.id, answer.number.unwrap_or_default().number);
            return;
        }
        *self.refused.entry(format!("{:?}: {}", reply.status, reply.text())).or_default() += 1;
        self.again.push((now_ms + limits::RESEND_AFTER_MS, id, upload));
    }

    /// What a wait that failed looked like.
    fn state(&self) -> String {
        let closes: Vec<_> = self.lines.iter().flat_map(|line| line.seen.closes.last()).take(5).collect();
        let mut gaps = (0, 0, 0);
        for line in &self.lines {
            gaps = (gaps.0 + line.seen.gaps, gaps.1 + line.seen.repeats, gaps.2 + line.seen.syncs_failed);
        }
        format!(
            "{} of {} phones up, {} uploads out, {} copies missing, (gaps, repeats, syncs failed) {gaps:?}, last closes {closes:?}, refused {:?}, {:#?}",
            self.up(),
            self.lines.len(),
            self.in_flight(),
            self.history.missing(),
            self.refused,
            self.history.verdict(),
        )
    }
}
