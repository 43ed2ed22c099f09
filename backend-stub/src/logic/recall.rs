//! A message taken back: the item gets a version without content, on the way that the message took.

use prost::Message as _;
use proto_wire::names::{GROUP_BIT, section_of};
use proto_wire::pb;
use proto_wire::status::{Code, Status};

use super::api::At;
use super::core::Core;
use super::keys;
use super::limits;
use super::outbox::{Task, body_of_row};
use super::users::Place;
use super::values::{Body, BodyHead, Kind, RowBody};
use super::verbs::{Begin, Resume, Verb};

/// The version of a message that was taken back: above the sender's first and the group's numbered one.
const RECALLED: u64 = 3;

/// Whether this is the version of a message without its content.
pub(super) fn is_taken_back(body: &Body) -> bool {
    body.split().is_ok_and(|(head, _)| head.kind == Kind::Message && head.version >= RECALLED)
}

impl Core {
    /// Takes a message back. `need` has brought its row and whether it has later versions; its group comes first too.
    pub(super) fn recall(&mut self, at: At, begin: Begin) {
        let (place, user, id) = (begin.place, begin.user, begin.id);
        let Verb::Recall { number: item } = begin.verb else { return };
        let message = self.own_message(user, item);
        let group = message.as_ref().ok().map(|message| message.to).filter(|to| to & GROUP_BIT != 0);
        if let Some(group) = group
            && !self.is_group_loaded(group)
        {
            // It is taken up again once the group is in memory.
            drop(self.need_group(group, Resume::Verb(Box::new(begin))));
            return;
        }
        let outcome = message.and_then(|message| self.take_back(at, place, item, &message));
        self.applied_verb(at, user, id, outcome);
    }

    /// One commit: the sender's row and the duty to tell the others.
    fn take_back(&mut self, at: At, place: Place, item: u64, message: &pb::Message) -> Result<u64, Status> {
        let sender = self.users.peek(place).id;
        if at.unix_ms > message.sent_ms + limits::RECALL_MS {
            return Err(Status::new(Code::Limit, "a message is taken back within two minutes"));
        }
        if message.to & GROUP_BIT != 0 {
            self.group_of(message.to, sender)?;
            // The version with the group's number must not come behind the one without content.
            if self.states.value(&keys::item(sender, sender, item)).is_none() {
                let text = "the group has not given this message its number yet";
                let retry_after_ms = limits::RETRY_AFTER_MS;
                return Err(Status { retry_after_ms, ..Status::new(Code::Unavailable, text) });
            }
        }
        let recalled = pb::Message {
            from: sender,
            to: message.to,
            sent_ms: message.sent_ms,
            recalled: true,
            ..Default::default()
        };
        let head = BodyHead { deleted: false, kind: Kind::Message, origin: sender, item, version: RECALLED };
        let body = Body::encode(head, &recalled);
        let number = self.append(place, RowBody::Own(body.clone()), Some((sender, item, RECALLED)));
        if message.to & GROUP_BIT != 0 {
            let task = Task::Group { group: message.to, sender, number, body };
            self.begin_duty(at, section_of(sender), task);
        } else if message.to != sender {
            let task = Task::User { receiver: message.to, sender, number, body };
            self.begin_duty(at, section_of(sender), task);
        }
        Ok(number)
    }

    fn own_message(&self, sender: u64, item: u64) -> Result<pb::Message, Status> {
        let none = || Status::new(Code::NotFound, "there is no such message");
        let row = self.states.value(&keys::row(sender, item)).ok_or_else(none)?;
        let body = body_of_row(item, row).ok_or_else(none)?;
        let (head, message) = body.split().map_err(|error| Status::new(Code::Internal, error.to_string()))?;
        if head.kind != Kind::Message || head.item != item {
            return Err(none());
        }
        if head.origin != sender {
            return Err(Status::new(Code::Denied, "only its sender takes a message back"));
        }
        pb::Message::decode(message).map_err(|error| Status::new(Code::Internal, error.to_string()))
    }
}
