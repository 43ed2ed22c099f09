//! The keys of the store.
//!
//! ```text
//! section u16 BE | owner u64 BE | kind u8 | ...
//!   L  row of a user's log           number u64 BE
//!   I  newest number of an item      origin u64 BE, item number u64 BE
//!   U  an upload that was applied    id (16 bytes)
//!   O  origin memory of a receiver   origin u64 BE
//!   G  members of a group            version u64 BE
//!   B  body of a group's message     group's number u64 BE
//!   D  duty to deliver (owner 0)     sequence u64 BE
//!   X  dead letter (owner 0)         created u64 BE, sequence u64 BE
//!   C  what a user keeps of a peer   peer u64 BE (the user itself: profile, settings, devices)
//!   M  a moment of an author         number u64 BE
//!   E  what was said to a moment     number u64 BE, from u64 BE, number there u64 BE
//!   Q  memory of an author's moments author u64 BE
//!   N  how many contacts a user has
//!   H  the horizon of a user's log
//!   other kinds: the small key-value area (accounts: A), name
//! ```
//!
//! The section is that of the user or group, with one exception: a section keeps a copy of a group's
//! bodies (B) for the members who live in it. The copy lands with their rows, so it is also the memory
//! that the message has landed there; in the home section, which has the body before, `O` of the group
//! for itself is that memory. `I` is written for
//! the second and later versions of an item only: a row whose item has no `I` is its only version.

use std::ops::Deref;

use proto_wire::names::section_of;

pub const ROW: u8 = b'L';
pub const ITEM: u8 = b'I';
pub const UPLOAD: u8 = b'U';
pub const ORIGIN: u8 = b'O';
pub const GROUP: u8 = b'G';
pub const BODY: u8 = b'B';
pub const DUTY: u8 = b'D';
pub const DEAD: u8 = b'X';
pub const PEER: u8 = b'C';
pub const MOMENT: u8 = b'M';
pub const SAID: u8 = b'E';
pub const SEEN: u8 = b'Q';
pub const CONTACTS: u8 = b'N';
pub const HORIZON: u8 = b'H';

/// All kinds that the core itself writes; others are the key-value area's.
pub const KINDS: &[u8] =
    &[ROW, ITEM, UPLOAD, ORIGIN, GROUP, BODY, DUTY, DEAD, PEER, MOMENT, SAID, SEEN, CONTACTS, HORIZON];

/// A key without an allocation. The longest is that of what was said to a moment: 35 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    bytes: [u8; 36],
    length: u8,
}

impl Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl Key {
    fn new(section: u16, owner: u64, kind: u8) -> Self {
        let mut bytes = [0; 36];
        bytes[..2].copy_from_slice(&section.to_be_bytes());
        bytes[2..10].copy_from_slice(&owner.to_be_bytes());
        bytes[10] = kind;
        Self { bytes, length: 11 }
    }

    pub fn section(&self) -> u16 {
        u16::from_be_bytes([self.bytes[0], self.bytes[1]])
    }

    pub fn kind(&self) -> u8 {
        self.bytes[10]
    }

    fn and(mut self, more: &[u8]) -> Self {
        let at = usize::from(self.length);
        self.bytes[at..at + more.len()].copy_from_slice(more);
        self.length += more.len() as u8;
        self
    }

    fn number(self, number: u64) -> Self {
        self.and(&number.to_be_bytes())
    }
}

pub fn row(user: u64, number: u64) -> Key {
    Key::new(section_of(user), user, ROW).number(number)
}

pub fn item(user: u64, origin: u64, number: u64) -> Key {
    Key::new(section_of(user), user, ITEM).number(origin).number(number)
}

pub fn upload(user: u64, id: &[u8; 16]) -> Key {
    Key::new(section_of(user), user, UPLOAD).and(id)
}

/// What a receiver remembers of an origin. A home section's memory of its group has the group for both.
pub fn origin(section: u16, receiver: u64, origin: u64) -> Key {
    Key::new(section, receiver, ORIGIN).number(origin)
}

pub fn group(group: u64, version: u64) -> Key {
    Key::new(section_of(group), group, GROUP).number(version)
}

pub fn body(section: u16, group: u64, number: u64) -> Key {
    Key::new(section, group, BODY).number(number)
}

pub fn duty(section: u16, sequence: u64) -> Key {
    Key::new(section, 0, DUTY).number(sequence)
}

/// A sequence may come again after a restart; with the duty's time it does not.
pub fn dead(section: u16, created_ms: u64, sequence: u64) -> Key {
    Key::new(section, 0, DEAD).number(created_ms).number(sequence)
}

pub fn peer(user: u64, peer: u64) -> Key {
    Key::new(section_of(user), user, PEER).number(peer)
}

pub fn horizon(user: u64) -> Key {
    Key::new(section_of(user), user, HORIZON)
}

pub fn contacts(user: u64) -> Key {
    Key::new(section_of(user), user, CONTACTS)
}

pub fn moment(author: u64, number: u64) -> Key {
    Key::new(section_of(author), author, MOMENT).number(number)
}

/// What `from` said under its own `number` to a moment.
pub fn said(author: u64, moment: u64, from: u64, number: u64) -> Key {
    Key::new(section_of(author), author, SAID).number(moment).number(from).number(number)
}

/// Up to which change of an author's moments a contact was told.
pub fn seen(contact: u64, author: u64) -> Key {
    Key::new(section_of(contact), contact, SEEN).number(author)
}

/// A key of the small key-value area.
pub fn kv(owner: u64, kind: u8, name: &[u8]) -> Vec<u8> {
    let mut key = Key::new(section_of(owner), owner, kind).to_vec();
    key.extend_from_slice(name);
    key
}

/// Before every key of an owner.
pub fn first_of(section: u16, owner: u64) -> Key {
    Key::new(section, owner, 0)
}

/// Section, owner and kind of a key, and what comes behind them.
pub fn split(key: &[u8]) -> Option<(u16, u64, u8, &[u8])> {
    let (section, rest) = key.split_first_chunk()?;
    let (owner, rest) = rest.split_first_chunk()?;
    let (kind, rest) = rest.split_first()?;
    Some((u16::from_be_bytes(*section), u64::from_be_bytes(*owner), *kind, rest))
}

pub fn owner(key: &[u8]) -> Option<u64> {
    key.get(2..)?.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// The number at the end of a key of kind L, B, G, D, X, C, M or E.
pub fn last_number(key: &[u8]) -> Option<u64> {
    key.last_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_user_are_in_order_and_apart_from_others() {
        assert!(row(7, 1)[..] < row(7, 2)[..]);
        assert!(row(7, 255)[..] < row(7, 256)[..]);
        assert!(row(7, u64::MAX)[..11] == row(7, 0)[..11]);
        assert_eq!(last_number(&row(7, 300)), Some(300));
        assert_eq!(item(1, 2, 3).len(), 27);
    }
}
