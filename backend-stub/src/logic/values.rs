//! The values of the store: compact, little-endian, a version byte first.
//!
//! ```text
//! row      1, flags, number - prev, replaced, BODY                     own body
//!          1, flags, number - prev, replaced, group u64, group number  body of a group, stored once a section
//!          flags: 1 the body is a group's; the user's marks above it (`mark`), as they were from this row on
//! BODY     flags, origin u64, item number, version, protobuf of the body
//!          flags: 1 deleted; above it the kind: its field in `Change.body`, less 5
//! upload   1, kind (0 change, 1 group), hash 16, number or group u64, time u64
//! peer     1, newest row's number, version, protobuf of `Peer`, or of `Me` for the user itself
//! moment   1, flags (1 withdrawn), newest row's number
//! said     1, protobuf of `Comment`; nothing behind the 1 when it was taken away
//! horizon  1, number, swept, noted, time of the note u64
//! group    1, owner u64, version, name length, name, count, members u64 each
//! origin   1, number
//! item     1, newest number, version
//! ```
//! Numbers without a size are varints.

use bytes::{Buf, BufMut, Bytes};
use prost::encoding::{decode_varint, encode_varint};
use proto_wire::pb;

/// The format of all values.
pub(super) const VERSION: u8 = 1;

const DELETED: u8 = 1;

const GROUP_ROW: u8 = 1;

/// What stands in every row of a user since it became true, so that whoever reads the tail of a log knows.
pub mod mark {
    /// The user has blocked somebody at some time: what comes from others is checked against the peer.
    pub const BLOCKS: u8 = 1;
    /// The user has logged a device out at some time: calls are checked against the list of devices.
    pub const DEVICES: u8 = 2;
    /// Both: what a row may carry.
    pub const ALL: u8 = BLOCKS | DEVICES;
}

/// What a body is: the field of `Change.body` that its protobuf goes into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Message = 5,
    Group = 6,
    Peer = 7,
    Event = 8,
    Post = 9,
    PostRef = 10,
    Comment = 11,
    Me = 12,
}

impl Kind {
    const ALL: [Kind; 8] = [
        Kind::Message,
        Kind::Group,
        Kind::Peer,
        Kind::Event,
        Kind::Post,
        Kind::PostRef,
        Kind::Comment,
        Kind::Me,
    ];

    fn bits(self) -> u8 {
        (self as u8 - Kind::Message as u8) << 1
    }

    fn from_bits(flags: u8) -> Option<Self> {
        Self::ALL.get(usize::from(flags >> 1)).copied()
    }

    /// The tag of its field, length-delimited.
    pub fn tag(self) -> u8 {
        (self as u8) << 3 | 2
    }
}

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
    /// The user's marks, from this row on.
    pub marks: u8,
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
        let is_group = matches!(self.body, RowBody::Group { .. });
        out.push(if is_group { GROUP_ROW } else { 0 } | self.marks << 1);
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
        let flags = byte(&mut rest, "row")?;
        let marks = flags >> 1;
        if marks & !mark::ALL != 0 {
            return Err(bad());
        }
        let prev = number.checked_sub(varint(&mut rest, "row")?).ok_or_else(bad)?;
        let replaced = varint(&mut rest, "row")?;
        let body = if flags & GROUP_ROW == 0 {
            RowBody::Own(Body::parse(rest)?)
        } else {
            RowBody::Group { group: u64_le(&mut rest, "row")?, number: varint(&mut rest, "row")? }
        };
        Ok(Self { prev, replaced, marks, body })
    }
}

/// An item's state as its origin gave it: the bytes of BODY above. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body(pub Bytes);

/// What stands before the protobuf of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyHead {
    pub deleted: bool,
    pub kind: Kind,
    pub origin: u64,
    pub item: u64,
    pub version: u64,
}

impl Body {
    fn with_head(head: BodyHead, room: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(24 + room);
        out.push(if head.deleted { DELETED } else { 0 } | head.kind.bits());
        out.put_u64_le(head.origin);
        encode_varint(head.item, &mut out);
        encode_varint(head.version, &mut out);
        out
    }

    /// A message with more than a text.
    pub fn message_with(item: u64, message: &pb::Message) -> Self {
        let head = BodyHead { deleted: false, kind: Kind::Message, origin: message.from, item, version: 1 };
        Self::encode(head, message)
    }

    /// A message as its sender writes it first: the group's number is not known yet.
    pub fn message(item: u64, from: u64, to: u64, sent_ms: u64, text: &str) -> Self {
        let head = BodyHead { deleted: false, kind: Kind::Message, origin: from, item, version: 1 };
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

    /// The next version of what a member wrote to a group: with its number in the group's order, a field of its
    /// own in the protobuf, so it is appended. What was taken back has the higher version already.
    pub fn numbered(&self, group_number: u64) -> Result<Self, Malformed> {
        let (head, message) = self.split()?;
        let tag = if head.kind == Kind::Event { 0x38 } else { 0x28 };
        let mut out = Self::with_head(BodyHead { version: head.version + 1, ..head }, message.len() + 11);
        out.extend_from_slice(message);
        out.push(tag);
        encode_varint(group_number, &mut out);
        Ok(Self(out.into()))
    }

    pub fn encode(head: BodyHead, message: &impl prost::Message) -> Self {
        let mut out = Self::with_head(head, message.encoded_len());
        message.encode(&mut out).expect("a Vec has room for any message");
        Self(out.into())
    }

    /// An item that is gone. What stays of it is for the server only.
    pub fn tombstone(kind: Kind, origin: u64, item: u64, version: u64, rest: &impl prost::Message) -> Self {
        Self::encode(BodyHead { deleted: true, kind, origin, item, version }, rest)
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
            kind: Kind::from_bits(flags).ok_or(Malformed("body"))?,
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

/// What a user keeps of a peer, or of itself: the newest state of that item, beside its row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept<M> {
    /// The number of the row that has this state.
    pub number: u64,
    pub version: u64,
    pub state: M,
}

impl<M: prost::Message + Default> Kept<M> {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        encode_varint(self.number, out);
        encode_varint(self.version, out);
        self.state.encode(out).expect("a Vec has room for any message");
    }

    pub fn decode(mut value: &[u8]) -> Result<Self, Malformed> {
        const WHAT: &str = "peer";
        version(&mut value, WHAT)?;
        let (number, version) = (varint(&mut value, WHAT)?, varint(&mut value, WHAT)?);
        let state = M::decode(value).map_err(|_| Malformed(WHAT))?;
        Ok(Self { number, version, state })
    }
}

/// What the author's side knows of a moment beside its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MomentHead {
    /// The number of the row that has the newest version.
    pub number: u64,
    pub withdrawn: bool,
}

impl MomentHead {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[VERSION, u8::from(self.withdrawn)]);
        encode_varint(self.number, out);
    }

    pub fn decode(mut value: &[u8]) -> Result<Self, Malformed> {
        const WHAT: &str = "moment";
        version(&mut value, WHAT)?;
        let withdrawn = byte(&mut value, WHAT)? != 0;
        Ok(Self { number: varint(&mut value, WHAT)?, withdrawn })
    }
}

/// Where a log's rows stay as written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Horizon {
    /// Rows up to this number may be gone when a later one replaced them.
    pub number: u64,
    /// Up to here they are.
    pub swept: u64,
    /// How far the log was at the last note, and when that was (ms since 1970).
    pub noted: u64,
    pub noted_ms: u64,
}

impl Horizon {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        for number in [self.number, self.swept, self.noted] {
            encode_varint(number, out);
        }
        out.put_u64_le(self.noted_ms);
    }

    pub fn decode(mut value: &[u8]) -> Result<Self, Malformed> {
        const WHAT: &str = "horizon";
        version(&mut value, WHAT)?;
        let mut number = || varint(&mut value, WHAT);
        let (number, swept, noted) = (number()?, number()?, number()?);
        Ok(Self { number, swept, noted, noted_ms: u64_le(&mut value, WHAT)? })
    }
}

/// What was said to a moment; none: it was taken away.
pub fn decode_said(mut value: &[u8]) -> Result<Option<pb::Comment>, Malformed> {
    const WHAT: &str = "comment";
    version(&mut value, WHAT)?;
    if value.is_empty() {
        return Ok(None);
    }
    <pb::Comment as prost::Message>::decode(value).map(Some).map_err(|_| Malformed(WHAT))
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

/// What the index says of an item: its newest number, and that row's version.
pub fn decode_index(mut value: &[u8]) -> Result<(u64, u64), Malformed> {
    const WHAT: &str = "index entry";
    version(&mut value, WHAT)?;
    Ok((varint(&mut value, WHAT)?, varint(&mut value, WHAT)?))
}

pub(super) fn version(from: &mut impl Buf, what: &'static str) -> Result<(), Malformed> {
    if byte(from, what)? == VERSION { Ok(()) } else { Err(Malformed(what)) }
}

pub(super) fn byte(from: &mut impl Buf, what: &'static str) -> Result<u8, Malformed> {
    if from.has_remaining() { Ok(from.get_u8()) } else { Err(Malformed(what)) }
}

pub(super) fn u64_le(from: &mut impl Buf, what: &'static str) -> Result<u64, Malformed> {
    if from.remaining() >= 8 { Ok(from.get_u64_le()) } else { Err(Malformed(what)) }
}

pub(super) fn varint(from: &mut impl Buf, what: &'static str) -> Result<u64, Malformed> {
    decode_varint(from).map_err(|_| Malformed(what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use prost::Message as _;

    fn message(body: &Body) -> pb::Message {
        pb::Message::decode(body.split().unwrap().1).unwrap()
    }

    proptest! {
        #[test]
        fn a_message_is_the_protobuf_that_it_says(item: u64, from: u64, to: u64, sent_ms: u64, text: String, number: u64) {
            let body = Body::message(item, from, to, sent_ms, &text);
            let expected = pb::Message { from, to, sent_ms, text, ..Default::default() };
            prop_assert_eq!(message(&body), expected.clone());
            let numbered = body.numbered(number).unwrap();
            prop_assert_eq!(message(&numbered), pb::Message { group_number: number, ..expected });
            prop_assert_eq!(numbered.split().unwrap().0.version, 2);
            prop_assert_eq!(numbered.split().unwrap().0.item, item);
        }

        #[test]
        fn rows_come_back(number in 1u64.., back in 1u64.., replaced: u64, group: u64, at: u64) {
            let prev = number - back.min(number);
            for body in [RowBody::Group { group, number: at }, RowBody::Own(Body::message(number, 1, 2, 3, "x"))] {
                let row = Row { prev, replaced, marks: (at as u8) & mark::ALL, body };
                let mut out = Vec::new();
                row.encode(number, &mut out);
                prop_assert_eq!(Row::decode(number, &out.into()), Ok(row));
            }
        }

        #[test]
        fn what_is_kept_of_a_peer_or_a_moment_comes_back(number: u64, version: u64, remark: String, withdrawn: bool) {
            let kept = Kept { number, version, state: pb::Peer { remark, ..Default::default() } };
            let mut out = Vec::new();
            kept.encode(&mut out);
            prop_assert_eq!(Kept::decode(&out), Ok(kept));
            let head = MomentHead { number, withdrawn };
            out.clear();
            head.encode(&mut out);
            prop_assert_eq!(MomentHead::decode(&out), Ok(head));
            let horizon = Horizon { number, swept: version, noted: number, noted_ms: version };
            out.clear();
            horizon.encode(&mut out);
            prop_assert_eq!(Horizon::decode(&out), Ok(horizon));
        }

        #[test]
        fn random_bytes_are_refused_or_read_but_never_a_panic(bytes: Vec<u8>, number: u64) {
            let shared = Bytes::from(bytes.clone());
            let _ = (Row::decode(number, &shared), Upload::decode(&bytes), GroupMeta::decode(&bytes));
            let _ = (decode_number(&bytes), Body::parse(shared));
            let _ = (Kept::<pb::Peer>::decode(&bytes), MomentHead::decode(&bytes), Horizon::decode(&bytes));
        }
    }
}
