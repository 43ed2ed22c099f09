//! Duties as they lie on the disk: a version byte, the kind, when it was created (u64), whom it is for (u64), then what
//! the kind needs.

use std::sync::Arc;

use bytes::BufMut;
use prost::encoding::encode_varint;

use super::values::{GroupMeta, Malformed, VERSION, byte, u64_le, varint, version};

/// What a duty asks for, as it lies on the disk. Bodies are not in it: they are in the sender's row or
/// the group's section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredTask {
    User {
        receiver: u64,
        sender: u64,
        number: u64,
    },
    Group {
        group: u64,
        sender: u64,
        number: u64,
    },
    Create {
        group: u64,
        meta: Arc<GroupMeta>,
    },
    Fanout {
        group: u64,
        number: u64,
        version: u64,
    },
    /// A word about who knows whom.
    Peer {
        receiver: u64,
        sender: u64,
        number: u64,
        word: PeerWord,
    },
    /// How far the receiver's messages came at the sender: items of the receiver.
    Receipt {
        receiver: u64,
        sender: u64,
        delivered: u64,
        read: u64,
    },
    /// A moment that contacts are to hear of, or of its withdrawal. `number` is that of the author's row.
    Moment {
        author: u64,
        moment: u64,
        number: u64,
        withdrawn: bool,
    },
    /// A group's message for a member whose log could not be read when the others got it.
    Member {
        receiver: u64,
        group: u64,
        number: u64,
    },
    /// The same of a moment, for a contact.
    Reference {
        receiver: u64,
        author: u64,
        moment: u64,
        number: u64,
        withdrawn: bool,
    },
}

/// What one side tells the other about who knows whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerWord {
    /// The sender wants the receiver as a contact, with what it says to that.
    Wants { ended: u64, hello: String },
    /// It is over, for the so-manieth time; perhaps because one of them has all the contacts that a user may have.
    Ends { ended: u64, full: bool },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredDuty {
    pub created_ms: u64,
    pub task: StoredTask,
}

impl StoredTask {
    /// Of what is set aside: receiver, group or author, and the number there.
    pub fn aside(&self) -> Option<(u64, u64, u64)> {
        match *self {
            StoredTask::Member { receiver, group, number } => Some((receiver, group, number)),
            StoredTask::Reference { receiver, author, number, .. } => Some((receiver, author, number)),
            _ => None,
        }
    }
}

impl StoredDuty {
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (kind, owner) = match &self.task {
            StoredTask::User { receiver, .. } => (1, *receiver),
            StoredTask::Group { group, .. } => (2, *group),
            StoredTask::Create { group, .. } => (3, *group),
            StoredTask::Fanout { group, .. } => (4, *group),
            StoredTask::Peer { receiver, .. } => (5, *receiver),
            StoredTask::Receipt { receiver, .. } => (6, *receiver),
            StoredTask::Moment { author, .. } => (7, *author),
            StoredTask::Member { receiver, .. } => (8, *receiver),
            StoredTask::Reference { receiver, .. } => (9, *receiver),
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
            StoredTask::Peer { sender, number, word, .. } => {
                out.put_u64_le(*sender);
                encode_varint(*number, out);
                word.encode(out);
            }
            StoredTask::Receipt { sender, delivered, read, .. } => {
                out.put_u64_le(*sender);
                encode_varint(*delivered, out);
                encode_varint(*read, out);
            }
            StoredTask::Moment { moment, number, withdrawn, .. } => {
                encode_varint(*moment, out);
                encode_varint(*number, out);
                out.push(u8::from(*withdrawn));
            }
            StoredTask::Member { group, number, .. } => {
                out.put_u64_le(*group);
                encode_varint(*number, out);
            }
            StoredTask::Reference { author, moment, number, withdrawn, .. } => {
                out.put_u64_le(*author);
                encode_varint(*moment, out);
                encode_varint(*number, out);
                out.push(u8::from(*withdrawn));
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
            5 => StoredTask::Peer {
                receiver: owner,
                sender: u64_le(rest, WHAT)?,
                number: varint(rest, WHAT)?,
                word: PeerWord::decode(rest)?,
            },
            6 => StoredTask::Receipt {
                receiver: owner,
                sender: u64_le(rest, WHAT)?,
                delivered: varint(rest, WHAT)?,
                read: varint(rest, WHAT)?,
            },
            7 => StoredTask::Moment {
                author: owner,
                moment: varint(rest, WHAT)?,
                number: varint(rest, WHAT)?,
                withdrawn: byte(rest, WHAT)? != 0,
            },
            8 => StoredTask::Member {
                receiver: owner,
                group: u64_le(rest, WHAT)?,
                number: varint(rest, WHAT)?,
            },
            9 => StoredTask::Reference {
                receiver: owner,
                author: u64_le(rest, WHAT)?,
                moment: varint(rest, WHAT)?,
                number: varint(rest, WHAT)?,
                withdrawn: byte(rest, WHAT)? != 0,
            },
            _ => return Err(Malformed(WHAT)),
        };
        Ok(Self { created_ms, task })
    }
}

impl PeerWord {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            PeerWord::Wants { ended, hello } => {
                out.push(1);
                encode_varint(*ended, out);
                out.extend_from_slice(hello.as_bytes());
            }
            PeerWord::Ends { ended, full } => {
                out.push(if *full { 3 } else { 2 });
                encode_varint(*ended, out);
            }
        }
    }

    fn decode(value: &mut &[u8]) -> Result<Self, Malformed> {
        let bad = || Malformed("duty");
        let kind = byte(value, "duty")?;
        let ended = varint(value, "duty")?;
        match kind {
            1 => {
                let hello = String::from_utf8(value.to_vec()).map_err(|_| bad())?;
                Ok(PeerWord::Wants { ended, hello })
            }
            2 | 3 => Ok(PeerWord::Ends { ended, full: kind == 3 }),
            _ => Err(bad()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn duties_come_back(number: u64, back: u64, group: u64, at: u64) {
            let meta = GroupMeta { owner: number, version: back, name: "böse".into(), members: vec![at, group] };
            for task in [
                StoredTask::User { receiver: group, sender: at, number },
                StoredTask::Group { group, sender: at, number },
                StoredTask::Create { group, meta: Arc::new(meta) },
                StoredTask::Fanout { group, number, version: back },
                StoredTask::Peer {
                    receiver: at,
                    sender: group,
                    number,
                    word: PeerWord::Wants { ended: at, hello: "grüß dich".into() },
                },
                StoredTask::Peer {
                    receiver: at,
                    sender: group,
                    number,
                    word: PeerWord::Ends { ended: at, full: back % 2 == 0 },
                },
                StoredTask::Receipt { receiver: at, sender: group, delivered: number, read: back },
                StoredTask::Moment { author: at, moment: back, number, withdrawn: at % 2 == 0 },
                StoredTask::Member { receiver: at, group, number },
                StoredTask::Reference {
                    receiver: back,
                    author: at,
                    moment: back,
                    number,
                    withdrawn: at % 2 == 0,
                },
            ] {
                let duty = StoredDuty { created_ms: at, task };
                let mut out = Vec::new();
                duty.encode(&mut out);
                prop_assert_eq!(StoredDuty::decode(&out), Ok(duty));
            }
        }

        #[test]
        fn random_bytes_are_refused_or_read_but_never_a_panic(bytes: Vec<u8>) {
            let _ = StoredDuty::decode(&bytes);
        }
    }
}
