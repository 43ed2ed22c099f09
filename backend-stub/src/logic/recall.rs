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

/// The version of a message that was taken back: above the sender's first and the group's numbered one.
const RECALLED: u64 = 3;

impl Core {
    /// One commit: the sender's row and the duty to tell the others. `need` has brought the message's row.
    pub(super) fn recall(&mut self, at: At, place: Place, item: u64) -> Result<u64, Status> {
        let sender = self.users.peek(place).id;
        let message = self.own_message(sender, item)?;
        if at.unix_ms > message.sent_ms + limits::RECALL_MS {
            return Err(Status::new(Code::Limit, "a message is taken back within two minutes"));
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
