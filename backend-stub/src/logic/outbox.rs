//! Duties to deliver: on disk with the change that made them, in order for each (source section,
//! receiver), gone when the receiver's side has committed.

use std::collections::VecDeque;
use std::sync::Arc;

use ahash::AHashMap;
use bytes::Bytes;
use prost::Message as _;
use proto_wire::names::section_of;
use proto_wire::pb;
use proto_wire::status::{Code, Status};

use super::api::{Action, At};
use super::append::Waiting;
use super::aside::TOO_LATE;
use super::core::{Core, Effect};
use super::duty::{PeerWord, StoredDuty, StoredTask};
use super::keys::{self, Key};
use super::users::Place;
use super::values::{Body, GroupMeta, Kind, RowBody, encode_number};
use crate::plant::{Fault, planted};

/// The outbox of all sections of this process.
#[derive(Default)]
pub(super) struct Outbox {
    /// The last sequence given. One for all sections: each of theirs rises.
    pub sequence: u64,
    /// Partitions in which a group's message is still to land, by home section and sequence; kept only
    /// when a store has several.
    pub left: AHashMap<(u16, u64), u16>,
    /// Duties to a user that wait until records are read, in order.
    pub held: AHashMap<u64, VecDeque<Duty>>,
}

/// A duty as it lies on the disk under its section and sequence, with what it delivers.
#[derive(Debug, Clone)]
pub(super) struct Duty {
    pub section: u16,
    pub sequence: u64,
    pub created_ms: u64,
    /// It may have landed before: the receiver's memory is asked first.
    pub checks: bool,
    pub task: Task,
}

#[derive(Debug, Clone)]
pub(super) enum Task {
    /// A message for a user's log.
    User { receiver: u64, sender: u64, number: u64, body: Body },
    /// A message that its group is to number.
    Group { group: u64, sender: u64, number: u64, body: Body },
    /// A group that is to be made.
    Create { group: u64, meta: Arc<GroupMeta> },
    /// A word about who knows whom.
    Peer { receiver: u64, sender: u64, number: u64, word: PeerWord },
    /// How far the receiver's messages came.
    Receipt { receiver: u64, sender: u64, delivered: u64, read: u64 },
    /// A moment of an author, or its end, for the contacts.
    Moment { author: u64, moment: u64, number: u64, withdrawn: bool },
    /// A group's message for one member, set aside.
    Member { receiver: u64, group: u64, number: u64, body: Body },
    /// A moment of an author, or its end, for one contact, set aside.
    Reference { receiver: u64, author: u64, moment: u64, number: u64, withdrawn: bool },
}

/// A message with its group's number, on its way to the members.
#[derive(Debug, Clone)]
pub(super) struct Fanout {
    pub group: u64,
    pub sequence: u64,
    pub number: u64,
    pub body: Body,
    /// The members at the time of the message, by section.
    pub members: Arc<[u64]>,
    /// Sections in which it had landed before a restart.
    pub landed: Arc<[u16]>,
    pub created_ms: u64,
    /// For members whose logs cannot be read: duties of their own, on disk.
    pub aside: Vec<Duty>,
}

impl Task {
    pub fn create(group: u64, owner: u64, name: &str, members: Vec<u64>) -> Self {
        Task::Create {
            group,
            meta: Arc::new(GroupMeta { owner, version: 1, name: name.to_owned(), members }),
        }
    }

    pub fn stored(&self) -> StoredTask {
        match self {
            Task::User { receiver, sender, number, .. } => {
                StoredTask::User { receiver: *receiver, sender: *sender, number: *number }
            }
            Task::Group { group, sender, number, .. } => {
                StoredTask::Group { group: *group, sender: *sender, number: *number }
            }
            Task::Create { group, meta } => StoredTask::Create { group: *group, meta: meta.clone() },
            Task::Peer { receiver, sender, number, word } => {
                StoredTask::Peer { receiver: *receiver, sender: *sender, number: *number, word: word.clone() }
            }
            Task::Receipt { receiver, sender, delivered, read } => StoredTask::Receipt {
                receiver: *receiver,
                sender: *sender,
                delivered: *delivered,
                read: *read,
            },
            Task::Moment { author, moment, number, withdrawn } => StoredTask::Moment {
                author: *author,
                moment: *moment,
                number: *number,
                withdrawn: *withdrawn,
            },
            Task::Member { receiver, group, number, .. } => {
                StoredTask::Member { receiver: *receiver, group: *group, number: *number }
            }
            Task::Reference { receiver, author, moment, number, withdrawn } => StoredTask::Reference {
                receiver: *receiver,
                author: *author,
                moment: *moment,
                number: *number,
                withdrawn: *withdrawn,
            },
        }
    }
}

impl Core {
    /// Writes a duty into the batch that gathers; it begins when that is committed.
    pub(super) fn begin_duty(&mut self, at: At, section: u16, task: Task) {
        let stored = StoredDuty { created_ms: at.unix_ms, task: task.stored() };
        let sequence = self.put_duty(section, &stored);
        self.effect(
            section,
            Effect::Begin(Duty { section, sequence, created_ms: at.unix_ms, checks: false, task }),
        );
    }

    pub(super) fn put_duty(&mut self, section: u16, stored: &StoredDuty) -> u64 {
        self.outbox.sequence += 1;
        let sequence = self.outbox.sequence;
        self.scratch.clear();
        stored.encode(&mut self.scratch);
        if !planted(Fault::DropDuty) {
            self.put_scratch(section, &keys::duty(section, sequence));
        }
        self.counters.duties += 1;
        sequence
    }

    /// Brings a duty to the owner of its receiver. All owners are in this process for now; a SET
    /// elsewhere gets a call from here, and its answer is `duty_landed`.
    ///
    /// A duty of this process is fresh: its number is the sender's newest, so the receiver cannot have
    /// seen it and its memory is written without being read. Duties from before a restart were checked
    /// against the memory when they were found, or are when it can be read.
    pub(super) fn deliver(&mut self, at: At, duty: Duty) {
        if duty.is_over(at) {
            return self.dead_letter(&duty, TOO_LATE);
        }
        self.aside.note(duty.task.aside());
        match &duty.task {
            Task::User { receiver, .. }
            | Task::Peer { receiver, .. }
            | Task::Receipt { receiver, .. }
            | Task::Member { receiver, .. }
            | Task::Reference { receiver, .. } => self.deliver_to_user(at, *receiver, duty),
            Task::Moment { .. } => self.spread(duty, true),
            Task::Group { group, .. } | Task::Create { group, .. } => self.deliver_to_group(at, *group, duty),
        }
    }

    /// The receiver's side: what the duty brings and the memory of its origin, in one commit.
    fn deliver_to_user(&mut self, at: At, receiver: u64, duty: Duty) {
        let place = self.user(receiver);
        if !self.users.peek(place).loaded {
            if self.is_overfull(place) {
                return self
                    .dead_letter(&duty, "its receiver's log cannot be read, and too much waits for it");
            }
            return self.wait(place, Waiting::Deliver(duty));
        }
        let keys = self.duty_keys(place, &duty);
        let Some(duty) = self.hold(place, &keys, duty) else { return };
        if duty.checks && self.has_landed(&duty) {
            self.aside.forget(duty.task.aside());
            return self.landed_before(duty.section, duty.sequence);
        }
        if let Err(status) = self.land(at, place, &duty) {
            return self.dead_letter(&duty, &status.text);
        }
        self.aside.forget(duty.task.aside());
        let section = section_of(receiver);
        if let Some((key, number)) = duty.task.memory_key() {
            self.remember_at(key, number);
        }
        self.end_with(section, &duty);
        self.effect(section, Effect::Delivered(duty));
    }

    fn land(&mut self, at: At, place: Place, duty: &Duty) -> Result<(), Status> {
        match &duty.task {
            Task::User { sender, body, .. } => self.land_item(place, *sender, body),
            Task::Peer { sender, word, .. } => self.land_word(at, place, *sender, word),
            Task::Receipt { sender, delivered, read, .. } => {
                self.land_receipt(place, *sender, *delivered, *read)
            }
            Task::Member { group, number, body, .. } => self.land_of_group(place, *group, *number, body),
            Task::Reference { author, moment, withdrawn, .. } => {
                self.land_reference(place, *author, *moment, duty.created_ms, *withdrawn);
                Ok(())
            }
            Task::Group { .. } | Task::Create { .. } | Task::Moment { .. } => Ok(()),
        }
    }

    /// A message, a comment, or a later version of one. From a blocked sender nothing new is taken; what is taken back
    /// is.
    fn land_item(&mut self, place: Place, sender: u64, body: &Body) -> Result<(), Status> {
        let receiver = self.users.peek(place).id;
        let (head, message) = body.split().map_err(|error| Status::new(Code::Internal, error.to_string()))?;
        if head.version == 1 && self.blocks(place, sender) {
            return Ok(());
        }
        if head.kind == Kind::Comment
            && pb::Comment::decode(message).is_ok_and(|comment| comment.author == receiver)
        {
            self.note_said(receiver, body);
        }
        let later = (head.version > 1).then_some((head.origin, head.item, head.version));
        self.append(place, RowBody::Own(body.clone()), later);
        Ok(())
    }

    /// Writes up to which of its numbers an origin was applied.
    pub(super) fn remember(&mut self, section: u16, receiver: u64, origin: u64, number: u64) {
        self.remember_at(keys::origin(section, receiver, origin), number);
    }

    fn remember_at(&mut self, key: Key, number: u64) {
        if planted(Fault::NoOriginMemory) {
            return;
        }
        self.scratch.clear();
        encode_number(number, &mut self.scratch);
        self.put_scratch(key.section(), &key);
    }

    /// Deletes a duty in the commit that fulfils it, when both lie in one partition.
    pub(super) fn end_with(&mut self, section: u16, duty: &Duty) {
        if self.partition(section) == self.partition(duty.section) {
            self.open(section).delete(&keys::duty(duty.section, duty.sequence));
        }
    }

    /// The receiver's side is on disk: the duty may go, with a later commit when it lies elsewhere.
    pub(super) fn duty_landed(&mut self, partition: u16, duty: &Duty) {
        self.counters.delivered += 1;
        self.counters.duties -= 1;
        if self.partition(duty.section) != partition {
            self.open(duty.section).delete(&keys::duty(duty.section, duty.sequence));
        }
    }

    /// A duty that cannot be fulfilled stays visible.
    pub(super) fn dead_letter(&mut self, duty: &Duty, reason: &str) {
        self.aside.forget(duty.task.aside());
        let stored = StoredDuty { created_ms: duty.created_ms, task: duty.task.stored() };
        self.bury(duty.section, duty.sequence, &stored, &duty.task.name(), reason);
    }

    pub(super) fn bury(&mut self, section: u16, sequence: u64, duty: &StoredDuty, name: &str, reason: &str) {
        self.scratch.clear();
        duty.encode(&mut self.scratch);
        self.put_scratch(section, &keys::dead(section, duty.created_ms, sequence));
        self.open(section).delete(&keys::duty(section, sequence));
        self.counters.dead_letters += 1;
        self.counters.duties -= 1;
        let text = format!("dead letter in section {section}: {name}: {reason}");
        self.actions.push_back(Action::Log(text));
    }
}

impl Duty {
    /// The number of the author's row, of a moment's duty.
    pub fn moment_number(&self) -> Option<u64> {
        match self.task {
            Task::Moment { number, .. } => Some(number),
            _ => None,
        }
    }
}

impl Task {
    /// The user whose log it changes, if it is one.
    pub fn receiver(&self) -> Option<u64> {
        match self {
            Task::User { receiver, .. }
            | Task::Peer { receiver, .. }
            | Task::Receipt { receiver, .. }
            | Task::Member { receiver, .. }
            | Task::Reference { receiver, .. } => Some(*receiver),
            Task::Group { .. } | Task::Create { .. } | Task::Moment { .. } => None,
        }
    }

    fn name(&self) -> String {
        match self {
            Task::User { receiver, sender, number, .. } => {
                format!("message {number} of user {sender} to user {receiver}")
            }
            Task::Group { group, sender, number, .. } => {
                format!("message {number} of user {sender} to group {group}")
            }
            Task::Create { group, meta } => format!("group {group} of user {}", meta.owner),
            Task::Peer { receiver, sender, .. } => format!("a word of user {sender} to user {receiver}"),
            Task::Receipt { receiver, sender, .. } => {
                format!("a receipt of user {sender} for user {receiver}")
            }
            Task::Moment { author, moment, .. } => format!("moment {moment} of user {author}"),
            Task::Member { receiver, group, number, .. } => {
                format!("message {number} of group {group} for user {receiver}")
            }
            Task::Reference { receiver, author, moment, .. } => {
                format!("moment {moment} of user {author} for user {receiver}")
            }
        }
    }
}

/// The body of a duty whose sender's row was read from disk.
pub(super) fn body_of_row(number: u64, value: &Bytes) -> Option<Body> {
    match super::values::Row::decode(number, value).ok()?.body {
        RowBody::Own(body) => Some(body),
        RowBody::Group { .. } => None,
    }
}
