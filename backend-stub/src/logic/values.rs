//! The values of the store: compact, little-endian, a version byte first.
//!
//! ```text
//! row      1, 0, number - prev, replaced, BODY                     own body
//!          1, 1, number - prev, replaced, group u64, group number  body of a group, stored once a section
//! BODY     flags (1 deleted, 2 a group's state), origin u64, item number, version, protobuf of the body
//! upload   1, kind (0 send, 1 group), hash 16, number or group u64, time u64
//! duty     1, kind, created u64, ...
//! group    1, owner u64, version, name length, name, count, members u64 each
//! origin   1, number
//! item     1, newest number, version
//! ```
//! Numbers without a size are varints.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use prost::encoding::{decode_varint, encode_varint};

/// The format of all values.
const VERSION: u8 = 1;

const DELETED: u8 = 1;
const GROUP_STATE: u8 = 2;

/// A value that this program cannot read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a stored {0} cannot be read")]
pub struct Malformed(pub &'static str);

/// A change in a user's log, without its number, which is in the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The number of the row before it in this log; 0: it is the first.
    pub prev: u64,
    /// The highest number, up to this one, of a row that gave an item a second or later version.
    pub replaced: u64,
    pub body: RowBody,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowBody {
    Own(Body),
    Group { group: u64, number: u64 },
}

impl Row {
    pub fn encode(&self, number: u64, out: &mut Vec<u8>) {
        out.push(VERSION);
        out.push(matches!(self.body, RowBody::Group { .. }) as u8);
        encode_varint(number - self.prev, out);
        encode_varint(self.replaced, out);
        match &self.body {
            RowBody::Own(body) => out.extend_from_slice(&body.0),
            RowBody::Group { group, number } => {
                out.put_u64_le(*group);
                encode_varint(*number, out);
            }
        }
    }

    pub fn decode(number: u64, value: &Bytes) -> Result<Self, Malformed> {
        let mut rest = value.clone();
        let bad = || Malformed("row");
        version(&mut rest, "row")?;
        let kind = byte(&mut rest, "row")?;
        let prev = number.checked_sub(varint(&mut rest, "row")?).ok_or_else(bad)?;
        let replaced = varint(&mut rest, "row")?;
        let body = match kind {
            0 => RowBody::Own(Body::parse(rest)?),
            1 => RowBody::Group { group: u64_le(&mut rest, "row")?, number: varint(&mut rest, "row")? },
            _ => return Err(bad()),
        };
        Ok(Self { prev, replaced, body })
    }
}

/// An item's state as its origin gave it: the bytes of BODY above. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body(pub Bytes);

/// What stands before the protobuf of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyHead {
    pub deleted: bool,
    pub group_state: bool,
    pub origin: u64,
    pub item: u64,
    pub version: u64,
}

impl Body {
    fn with_head(head: BodyHead, room: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(24 + room);
        out.push(if head.deleted { DELETED } else { 0 } | if head.group_state { GROUP_STATE } else { 0 });
        out.put_u64_le(head.origin);
        encode_varint(head.item, &mut out);
        encode_varint(head.version, &mut out);
        out
    }

    /// A message as its sender writes it first: the group's number is not known yet.
    pub fn message(item: u64, from: u64, to: u64, sent_ms: u64, text: &str) -> Self {
        let head = BodyHead { deleted: false, group_state: false, origin: from, item, version: 1 };
        let mut out = Self::with_head(head, 32 + text.len());
        for (tag, value) in [(0x09, from), (0x11, to), (0x19, sent_ms)] {
            out.push(tag);
            out.put_u64_le(value);
        }
        if !text.is_empty() {
            out.push(0x22);
            encode_varint(text.len() as u64, &mut out);
            out.extend_from_slice(text.as_bytes());
        }
        Self(out.into())
    }

    /// The second version of a group's message: with its number in the group's order, which is the last
    /// field of the protobuf, so it is appended.
    pub fn numbered(&self, group_number: u64) -> Result<Self, Malformed> {
        let (head, message) = self.split()?;
        let mut out = Self::with_head(BodyHead { version: head.version + 1, ..head }, message.len() + 11);
        out.extend_from_slice(message);
        out.push(0x28);
        encode_varint(group_number, &mut out);
        Ok(Self(out.into()))
    }

    pub fn encode(head: BodyHead, message: &impl prost::Message) -> Self {
        let mut out = Self::with_head(head, message.encoded_len());
        message.encode(&mut out).expect("a Vec has room for any message");
        Self(out.into())
    }

    /// Nothing deletes items yet; readers of pages know it already.
    #[cfg(test)]
    pub fn tombstone(origin: u64, item: u64, version: u64) -> Self {
        Self(Self::with_head(BodyHead { deleted: true, group_state: false, origin, item, version }, 0).into())
    }

    /// Accepts bytes whose head can be read.
    pub fn parse(bytes: Bytes) -> Result<Self, Malformed> {
        let body = Self(bytes);
        body.split()?;
        Ok(body)
    }

    pub fn split(&self) -> Result<(BodyHead, &[u8]), Malformed> {
        let mut rest = &self.0[..];
        let flags = byte(&mut rest, "body")?;
        let head = BodyHead {
            deleted: flags & DELETED != 0,
            group_state: flags & GROUP_STATE != 0,
            origin: u64_le(&mut rest, "body")?,
            item: varint(&mut rest, "body")?,
            version: varint(&mut rest, "body")?,
        };
        Ok((head, rest))
    }
}

/// What an upload was answered with, and the hash of what it asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upload {
    pub hash: [u8; 16],
    pub answer: UploadAnswer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadAnswer {
    Sent { number: u64, time_ms: u64 },
    Group { group: u64 },
}

impl Upload {
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (kind, first, time_ms) = match self.answer {
            UploadAnswer::Sent { number, time_ms } => (0, number, time_ms),
            UploadAnswer::Group { group } => (1, group, 0),
        };
        out.extend_from_slice(&[VERSION, kind]);
        out.extend_from_slice(&self.hash);
        out.put_u64_le(first);
        out.put_u64_le(time_ms);
    }

    pub fn decode(mut value: &[u8]) -> Result<Self, Malformed> {
        let bad = Malformed("upload");
        version(&mut value, "upload")?;
        let kind = byte(&mut value, "upload")?;
        let (hash, mut rest) = value.split_first_chunk::<16>().ok_or(bad)?;
        let first = u64_le(&mut rest, "upload")?;
        let time_ms = u64_le(&mut rest, "upload")?;
        let answer = match kind {
            0 => UploadAnswer::Sent { number: first, time_ms },
            1 => UploadAnswer::Group { group: first },
            _ => return Err(bad),
        };
        Ok(Self { hash: *hash, answer })
    }
}

/// A group as it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMeta {
    pub owner: u64,
    pub version: u64,
    pub name: String,
    pub members: Vec<u64>,
}

impl GroupMeta {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        out.put_u64_le(self.owner);
        encode_varint(self.version, out);
        encode_varint(self.name.len() as u64, out);
        out.extend_from_slice(self.name.as_bytes());
        encode_varint(self.members.len() as u64, out);
        for member in &self.members {
            out.put_u64_le(*member);
        }
    }

    pub fn decode(mut value: &[u8]) -> Result<Self, Malformed> {
        let bad = || Malformed("group");
        version(&mut value, "group")?;
        let owner = u64_le(&mut value, "group")?;
        let version = varint(&mut value, "group")?;
        let length = varint(&mut value, "group")? as usize;
        let (name, mut value) = value.split_at_checked(length).ok_or_else(bad)?;
        let name = String::from_utf8(name.to_vec()).map_err(|_| bad())?;
        let count = varint(&mut value, "group")? as usize;
        if value.len() != count.saturating_mul(8) {
            return Err(bad());
        }
        let members = value.chunks_exact(8).map(|mut chunk| chunk.get_u64_le()).collect();
        Ok(Self { owner, version, name, members })
    }
}

/// What a duty asks for, as it lies on the disk. Bodies are not in it: they are in the sender's row or
/// the group's section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredTask {
    User { receiver: u64, sender: u64, number: u64 },
    Group { group: u64, sender: u64, number: u64 },
    Create { group: u64, meta: Arc<GroupMeta> },
    Fanout { group: u64, number: u64, version: u64 },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredDuty {
    pub created_ms: u64,
    pub task: StoredTask,
}

impl StoredDuty {
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (kind, owner) = match &self.task {
            StoredTask::User { receiver, .. } => (1, *receiver),
            StoredTask::Group { group, .. } => (2, *group),
            StoredTask::Create { group, .. } => (3, *group),
            StoredTask::Fanout { group, .. } => (4, *group),
        };
        out.extend_from_slice(&[VERSION, kind]);
        out.put_u64_le(self.created_ms);
        out.put_u64_le(owner);
        match &self.task {
            StoredTask::User { sender, number, .. } | StoredTask::Group { sender, number, .. } => {
                out.put_u64_le(*sender);
                encode_varint(*number, out);
            }
            StoredTask::Create { meta, .. } => meta.encode(out),
            StoredTask::Fanout { number, version, .. } => {
                encode_varint(*number, out);
                encode_varint(*version, out);
            }
        }
    }

    pub fn decode(mut value: &[u8]) -> Result<Self, Malformed> {
        const WHAT: &str = "duty";
        version(&mut value, WHAT)?;
        let kind = byte(&mut value, WHAT)?;
        let created_ms = u64_le(&mut value, WHAT)?;
        let owner = u64_le(&mut value, WHAT)?;
        let rest = &mut value;
        let task = match kind {
            1 => {
                StoredTask::User { receiver: owner, sender: u64_le(rest, WHAT)?, number: varint(rest, WHAT)? }
            }
            2 => StoredTask::Group { group: owner, sender: u64_le(rest, WHAT)?, number: varint(rest, WHAT)? },
            3 => StoredTask::Create { group: owner, meta: Arc::new(GroupMeta::decode(rest)?) },
            4 => {
                StoredTask::Fanout { group: owner, number: varint(rest, WHAT)?, version: varint(rest, WHAT)? }
            }
            _ => return Err(Malformed(WHAT)),
        };
        Ok(Self { created_ms, task })
    }
}

/// A number as the only content of a value: origin memory.
pub fn encode_number(number: u64, out: &mut Vec<u8>) {
    out.push(VERSION);
    encode_varint(number, out);
}

pub fn decode_number(mut value: &[u8]) -> Result<u64, Malformed> {
    version(&mut value, "number")?;
    varint(&mut value, "number")
}

fn version(from: &mut impl Buf, what: &'static str) -> Result<(), Malformed> {
    if byte(from, what)? == VERSION { Ok(()) } else { Err(Malformed(what)) }
}

fn byte(from: &mut impl Buf, what: &'static str) -> Result<u8, Malformed> {
    if from.has_remaining() { Ok(from.get_u8()) } else { Err(Malformed(what)) }
}

fn u64_le(from: &mut impl Buf, what: &'static str) -> Result<u64, Malformed> {
    if from.remaining() >= 8 { Ok(from.get_u64_le()) } else { Err(Malformed(what)) }
}

fn varint(from: &mut impl Buf, what: &'static str) -> Result<u64, Malformed> {
    decode_varint(from).map_err(|_| Malformed(what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use prost::Message as _;
    use proto_wire::pb;

    fn message(body: &Body) -> pb::Message {
        pb::Message::decode(body.split().unwrap().1).unwrap()
    }

    proptest! {
        #[test]
        fn a_message_is_the_protobuf_that_it_says(item: u64, from: u64, to: u64, sent_ms: u64, text: String, number: u64) {
            let body = Body::message(item, from, to, sent_ms, &text);
            let expected = pb::Message { from, to, sent_ms, text, group_number: 0 };
            prop_assert_eq!(message(&body), expected.clone());
            let numbered = body.numbered(number).unwrap();
            prop_assert_eq!(message(&numbered), pb::Message { group_number: number, ..expected });
            prop_assert_eq!(numbered.split().unwrap().0.version, 2);
            prop_assert_eq!(numbered.split().unwrap().0.item, item);
        }

        #[test]
        fn rows_and_duties_come_back(number in 1u64.., back in 1u64.., replaced: u64, group: u64, at: u64) {
            let prev = number - back.min(number);
            for body in [RowBody::Group { group, number: at }, RowBody::Own(Body::message(number, 1, 2, 3, "x"))] {
                let row = Row { prev, replaced, body };
                let mut out = Vec::new();
                row.encode(number, &mut out);
                prop_assert_eq!(Row::decode(number, &out.into()), Ok(row));
            }
            let meta = GroupMeta { owner: number, version: back, name: "böse".into(), members: vec![at, group] };
            for task in [
                StoredTask::User { receiver: group, sender: at, number },
                StoredTask::Group { group, sender: at, number },
                StoredTask::Create { group, meta: Arc::new(meta) },
                StoredTask::Fanout { group, number, version: back },
            ] {
                let duty = StoredDuty { created_ms: at, task };
                let mut out = Vec::new();
                duty.encode(&mut out);
                prop_assert_eq!(StoredDuty::decode(&out), Ok(duty));
            }
        }

        #[test]
        fn random_bytes_are_refused_or_read_but_never_a_panic(bytes: Vec<u8>, number: u64) {
            let shared = Bytes::from(bytes.clone());
            let _ = (Row::decode(number, &shared), Upload::decode(&bytes), GroupMeta::decode(&bytes));
            let _ = (StoredDuty::decode(&bytes), decode_number(&bytes), Body::parse(shared));
        }
    }
}
