//! An upload is applied once: the id in the same commit as the change, the first answer for a repeat.

use ahash::AHashMap;
use bytes::Bytes;
use prost::Message as _;
use proto_wire::names::{Cursor, GROUP_BIT, UploadId, UploadIdError, section_of};
use proto_wire::pb;
use proto_wire::status::{Code, Status};

use super::api::{Answer, At};
use super::append::Waiting;
use super::checks::{check_members, check_send};
use super::core::{Core, Effect, Purpose};
use super::news::Written;
use super::outbox::Task;
use super::users::Place;
use super::values::{Body, RowBody, Upload, UploadAnswer};
use super::verbs::{Begin, Resume, Verb};
use super::{keys, limits};
use crate::plant::{Fault, planted};
use crate::storage::{Query, ReadError, Rows};

/// Uploads that are being looked up or committed, by user and id.
#[derive(Default)]
pub(super) struct Uploads {
    pending: AHashMap<(u64, [u8; 16]), Pending>,
    /// How many of a user's the disk is asked about; only users that have any.
    asked: AHashMap<Place, u32>,
}

struct Pending {
    hash: [u8; 16],
    /// What it will be answered with, once it was given a number.
    answer: Option<UploadAnswer>,
    /// The call that came first.
    first: u64,
    /// Where that call came from, when it asked for the page.
    via: Option<Via>,
    /// Its repeats.
    repeats: Vec<u64>,
}

/// The connection that an upload came over: the page in its answer is for no other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Via {
    device: u64,
    /// The device's count of its connections.
    counter: u32,
}

/// An upload whose id may have been applied before: the disk is asked.
pub(super) struct CheckedUpload {
    user: Place,
    user_id: u64,
    id: [u8; 16],
    what: Change,
}

impl CheckedUpload {
    pub fn verb(begin: Begin) -> Self {
        let Begin { place, user, id, verb } = begin;
        Self { user: place, user_id: user, id, what: Change::Verb(verb) }
    }
}

/// What an upload asks for.
pub(super) enum Change {
    Send(pb::SendRequest),
    CreateGroup { name: String, members: Vec<u64> },
    Verb(Verb),
}

impl Core {
    /// Sends a text to a user or a group. `device` is the sender's.
    pub fn send(&mut self, at: At, token: u64, user: u64, device: u64, request: &pb::SendRequest) {
        if let Err(refusal) = check_send(request) {
            return self.answer(token, Err(refusal));
        }
        let Some((place, id)) = self.begin(at, token, user, &request.id) else { return };
        if !self.users.peek(place).loaded {
            return self.wait(place, Waiting::Send { token, device, request: request.clone() });
        }
        let resume = || Resume::Send { token, user, device, request: request.clone() };
        if !self.admits_device(token, place, device, resume) || !self.knows_receiver(user, request.to, resume)
        {
            return;
        }
        let hash = hash_of_send(request);
        let via = self.users.device(place, device).filter(|device| request.wants_page && device.is_online());
        let via = via.map(|device| Via { device: device.device, counter: device.counter });
        match self.begin_upload(token, place, id, hash, via) {
            Begun::New => self.apply_send(at, place, id, request),
            Begun::Ask => {
                let what = Change::Send(request.clone());
                self.ask_upload(CheckedUpload { user: place, user_id: user, id, what });
            }
            Begun::Waits => {}
        }
    }

    /// Whether all is in memory that says if a receiver takes a message: the group, or the user and whether they
    /// block the sender. If not, the call is taken up once it is.
    fn knows_receiver(&mut self, sender: u64, to: u64, resume: impl Fn() -> Resume) -> bool {
        if to & GROUP_BIT != 0 {
            return self.is_group_loaded(to) || self.need_group(to, resume()).is_some();
        }
        if to == sender {
            return true;
        }
        let receiver = self.user(to);
        if !self.users.peek(receiver).loaded {
            self.wait(receiver, Waiting::Resume(resume()));
            return false;
        }
        let keys = self.block_keys(receiver, sender);
        keys.is_empty() || self.need(&keys, resume()).is_some()
    }

    /// Whether a receiver takes a message, as far as it is known here; the receiver's side decides in the end.
    fn check_receiver(&self, sender: u64, to: u64) -> Result<(), Status> {
        if to & GROUP_BIT != 0 {
            return if self.is_group_loaded(to) { self.group_of(to, sender).map(drop) } else { Ok(()) };
        }
        match self.users.find(to) {
            Some(receiver) if to != sender && self.blocks(receiver, sender) => {
                Err(Status::new(Code::Denied, "this user takes no messages from you"))
            }
            _ => Ok(()),
        }
    }

    /// Makes a group.
    pub fn create_group(&mut self, at: At, token: u64, user: u64, request: &pb::CreateGroupRequest) {
        let members = match check_members(user, request) {
            Ok(members) => members,
            Err(refusal) => return self.answer(token, Err(refusal)),
        };
        let Some((place, id)) = self.begin(at, token, user, &request.id) else { return };
        if !self.users.peek(place).loaded {
            return self.wait(place, Waiting::CreateGroup { token, request: request.clone() });
        }
        let listed: Vec<u8> = members.iter().flat_map(|member| member.to_le_bytes()).collect();
        let hash = hash_of(&[b"group", request.name.as_bytes(), &listed]);
        match self.begin_upload(token, place, id, hash, None) {
            Begun::New => self.apply_create(at, place, id, &request.name, members),
            Begun::Ask => {
                let what = Change::CreateGroup { name: request.name.clone(), members };
                self.ask_upload(CheckedUpload { user: place, user_id: user, id, what });
            }
            Begun::Waits => {}
        }
    }

    /// Checks that hold for every upload, and finds the user.
    pub(super) fn begin(&mut self, at: At, token: u64, user: u64, id: &Bytes) -> Option<(Place, [u8; 16])> {
        let id = match UploadId::from_slice(id).and_then(|id| id.check(at.unix_ms).map(|()| id)) {
            Ok(id) => id.0,
            Err(error) => {
                let code = if error == UploadIdError::Expired { Code::Expired } else { Code::Invalid };
                self.answer(token, Err(Status::new(code, error.to_string())));
                return None;
            }
        };
        if !self.admit(token, section_of(user)) || !self.has_room(token, user) {
            return None;
        }
        Some((self.user(user), id))
    }

    /// Takes note of an upload. A repeat of one in flight waits for its answer.
    pub(super) fn begin_upload(
        &mut self,
        token: u64,
        place: Place,
        id: [u8; 16],
        hash: [u8; 16],
        via: Option<Via>,
    ) -> Begun {
        let user = self.users.at(place);
        let key = (user.id, id);
        if let Some(pending) = self.uploads.pending.get_mut(&key) {
            if pending.hash != hash {
                self.counters.conflicts += 1;
                self.answer(token, Err(conflict()));
            } else if pending.repeats.len() >= limits::MAX_WAITING {
                self.refuse(token, Status::new(Code::TooMany, "this upload is repeated too often"));
            } else {
                pending.repeats.push(token);
            }
            return Begun::Waits;
        }
        let pending = Pending { hash, answer: None, first: token, via, repeats: Vec::new() };
        self.uploads.pending.insert(key, pending);
        user.pins += 1;
        // An id that was created after every applied one was never applied. Only others cost a read, and what comes
        // behind one that is read: a user's uploads keep their order.
        let created_ms = UploadId(id).created_ms();
        let is_new = created_ms > user.last_upload_ms;
        user.last_upload_ms = user.last_upload_ms.max(created_ms);
        if is_new && !self.uploads.asked.contains_key(&place) { Begun::New } else { Begun::Ask }
    }

    pub(super) fn ask_upload(&mut self, upload: CheckedUpload) {
        *self.uploads.asked.entry(upload.user).or_default() += 1;
        let partition = self.partition(section_of(upload.user_id));
        let query = Query::Get(keys::upload(upload.user_id, &upload.id).to_vec());
        self.read(partition, vec![query], Purpose::Upload(Box::new(upload)));
    }

    pub(super) fn upload_read(
        &mut self,
        at: At,
        upload: CheckedUpload,
        answer: Result<Vec<Rows>, ReadError>,
    ) {
        let CheckedUpload { user, user_id, id, what } = upload;
        if let Some(asked) = self.uploads.asked.get_mut(&user) {
            *asked -= 1;
            if *asked == 0 {
                self.uploads.asked.remove(&user);
            }
        }
        let stored = answer.map(|rows| rows.first().and_then(Rows::value).map(|value| Upload::decode(value)));
        match stored {
            Ok(None) => match what {
                Change::Send(request) => self.apply_send(at, user, id, &request),
                Change::CreateGroup { name, members } => self.apply_create(at, user, id, &name, members),
                Change::Verb(verb) => {
                    self.apply(at, Box::new(Begin { place: user, user: user_id, id, verb }))
                }
            },
            Ok(Some(Ok(stored))) => self.upload_known(user_id, id, stored),
            Ok(Some(Err(_))) | Err(_) => {
                let text = "what this upload was answered with cannot be read";
                self.upload_failed(user_id, id, &Status::new(Code::Internal, text));
            }
        }
    }

    /// It was applied before: the first answer again, or a conflict.
    fn upload_known(&mut self, user: u64, id: [u8; 16], stored: Upload) {
        let Some(pending) = self.end_upload(user, id) else { return };
        for token in std::iter::once(pending.first).chain(pending.repeats) {
            if pending.hash == stored.hash {
                self.counters.repeated += 1;
                let answer = self.upload_answer(stored.answer, true);
                self.answer(token, Ok(answer));
            } else {
                self.counters.conflicts += 1;
                self.answer(token, Err(conflict()));
            }
        }
        self.answer_was_lost(user);
    }

    /// A repeat tells that the first answer did not arrive, and with it perhaps a page: what the sender's devices
    /// did not say that they have is told to them.
    fn answer_was_lost(&mut self, user: u64) {
        let Some(place) = self.users.find(user) else { return };
        let (visible, mut behind) = (self.users.peek(place).visible, Vec::new());
        self.users.each_device(place, |device| {
            if device.applied < visible {
                behind.push(device.device);
            }
        });
        for device in behind {
            self.tell_again(place, device);
        }
    }

    /// One commit: the sender's row, the id, the duty to deliver.
    fn apply_send(&mut self, at: At, place: Place, id: [u8; 16], request: &pb::SendRequest) {
        let user = self.users.peek(place);
        let (sender, number, to) = (user.id, user.tail + 1, request.to);
        if let Err(refusal) = self.check_receiver(sender, to) {
            return self.upload_failed(sender, id, &refusal);
        }
        let body = match &request.image {
            None => Body::message(number, sender, to, at.unix_ms, &request.text),
            image => {
                let (text, image) = (request.text.clone(), image.clone());
                let sent_ms = at.unix_ms;
                Body::message_with(
                    number,
                    &pb::Message { from: sender, to, sent_ms, text, image, ..Default::default() },
                )
            }
        };
        self.append(place, RowBody::Own(body.clone()), None);
        self.record_upload(sender, id, UploadAnswer::Sent { number, time_ms: at.unix_ms });
        if to & GROUP_BIT != 0 {
            self.begin_duty(at, section_of(sender), Task::Group { group: to, sender, number, body });
        } else if to != sender {
            self.begin_duty(at, section_of(sender), Task::User { receiver: to, sender, number, body });
        }
    }

    /// One commit: the id and the duty to make the group.
    fn apply_create(&mut self, at: At, place: Place, id: [u8; 16], name: &str, members: Vec<u64>) {
        let owner = self.users.peek(place).id;
        let group = self.groups.fresh_id();
        self.record_upload(owner, id, UploadAnswer::Group { group });
        let task = Task::create(group, owner, name, members);
        self.begin_duty(at, section_of(owner), task);
    }

    pub(super) fn record_upload(&mut self, user: u64, id: [u8; 16], answer: UploadAnswer) {
        let Some(pending) = self.uploads.pending.get_mut(&(user, id)) else { return };
        pending.answer = Some(answer);
        let via = pending.via;
        let upload = Upload { hash: pending.hash, answer };
        self.scratch.clear();
        upload.encode(&mut self.scratch);
        self.put_scratch(section_of(user), &keys::upload(user, &id));
        if let Some(via) = via {
            self.count_answer(user, via, true);
        }
        if planted(Fault::AckBeforeCommit) {
            return self.upload_committed(user, id);
        }
        self.effect(section_of(user), Effect::Upload { user, id });
    }

    pub(super) fn upload_committed(&mut self, user: u64, id: [u8; 16]) {
        let Some(pending) = self.end_upload(user, id) else { return };
        let Some(given) = pending.answer else { return };
        if matches!(given, UploadAnswer::Sent { .. }) {
            self.counters.sent += 1;
        }
        let answer = self.upload_answer(given, false);
        match (answer, pending.via.filter(|_| pending.repeats.is_empty())) {
            (Answer::Sent(reply, _), Some(Via { device, counter })) => {
                self.reply_with_page(Written { token: pending.first, user, device, counter, reply });
            }
            (answer, _) => self.answer(pending.first, Ok(answer)),
        }
        for token in pending.repeats {
            self.counters.repeated += 1;
            let answer = self.upload_answer(given, true);
            self.answer(token, Ok(answer));
        }
    }

    pub(super) fn upload_failed(&mut self, user: u64, id: [u8; 16], status: &Status) {
        let Some(pending) = self.end_upload(user, id) else { return };
        for token in std::iter::once(pending.first).chain(pending.repeats) {
            self.answer(token, Err(status.clone()));
        }
    }

    /// An answer that will take along what its device lacks is being committed, or is no more: then the device is told
    /// what the answer did not bring.
    fn count_answer(&mut self, user: u64, via: Via, begins: bool) {
        let Some(place) = self.users.find(user) else { return };
        let Some(device) = self.users.device(place, via.device) else { return };
        device.answers =
            if begins { device.answers.saturating_add(1) } else { device.answers.saturating_sub(1) };
        if !begins {
            self.has_news(place);
        }
    }

    fn end_upload(&mut self, user: u64, id: [u8; 16]) -> Option<Pending> {
        let pending = self.uploads.pending.remove(&(user, id))?;
        if let (Some(via), Some(_)) = (pending.via, pending.answer) {
            self.count_answer(user, via, false);
        }
        if let Some(place) = self.users.find(user) {
            self.users.at(place).pins -= 1;
        }
        Some(pending)
    }

    fn upload_answer(&self, answer: UploadAnswer, repeated: bool) -> Answer {
        let ack = pb::Ack::Local as i32;
        match answer {
            UploadAnswer::Sent { number, time_ms } => {
                let Cursor { log_epoch, number } = Cursor::new(self.config.log_epoch, number);
                let number = Some(pb::Cursor { log_epoch, number });
                let page = Bytes::new();
                Answer::Sent(pb::SendReply { ack, number, server_time_ms: time_ms, repeated, page }, None)
            }
            UploadAnswer::Group { group } => Answer::Group(pb::CreateGroupReply { ack, group, repeated }),
        }
    }
}

pub(super) enum Begun {
    /// Never applied: apply it.
    New,
    /// The disk knows whether it was applied.
    Ask,
    /// It waits for the same upload, or was answered.
    Waits,
}

fn conflict() -> Status {
    Status::new(Code::Conflict, "the id of this upload was used for something else")
}

fn hash_of_send(request: &pb::SendRequest) -> [u8; 16] {
    let (to, text) = (request.to.to_le_bytes(), request.text.as_bytes());
    match &request.image {
        None => hash_of(&[b"send", &to, text]),
        Some(image) => hash_of(&[b"send", &to, text, &image.encode_to_vec()]),
    }
}

/// Tells two bodies of one upload's id apart. Stored, so it must not change.
pub(super) fn hash_of(parts: &[&[u8]]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let mut hash = [0; 16];
    hash.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    hash
}
