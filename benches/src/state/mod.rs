//! What a phone shows, made of nothing but the pages that it was given: messages by conversation, what is unread,
//! contacts, groups, moments, what was said to them, and what the user keeps of itself.
//!
//! The book is a function of the items' last versions. So pages in any cut give the same book as all at once, a
//! snapshot gives the same as the log, and two devices of one user that have the same cursor have the same
//! [`Book::digest`]. It opens nothing and reads no clock.

mod digest;
#[cfg(test)]
mod tests;
mod views;

use std::collections::BTreeMap;

use ahash::AHashMap;
use proto_wire::names::GROUP_BIT;
use proto_wire::pb::{self, GroupAction, change};

pub use views::Conversation;

/// Who an item is of: the user or group in whose log it was born, and its number there.
pub type Item = (u64, u64);

/// What one user's phone shows.
#[derive(Debug, Clone)]
pub struct Book {
    user: u64,
    items: AHashMap<Item, Entry>,
    talks: AHashMap<u64, Talk>,
    /// For each group the number of the newest change that took this user out of it.
    exits: AHashMap<u64, u64>,
    noted: Noted,
}

/// What came and changed nothing. None of it is an error of the phone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Noted {
    /// Changes of a version that was here already.
    pub again: u64,
    /// Changes of a version below the one that is here.
    pub older: u64,
    /// Changes that name no item or have no body.
    pub strange: u64,
}

/// What a change did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// The item is new, or has a later version.
    Shown,
    Again,
    Older,
    Strange,
}

/// An item as it is now.
#[derive(Debug, Clone)]
struct Entry {
    version: u64,
    /// Of the change that brought this version, in the user's own log.
    number: u64,
    /// Where a message stands in its conversation: the number of its last version with content. One that was taken
    /// back keeps its place, so a phone that never saw the content may have it elsewhere.
    place: u64,
    state: State,
}

#[derive(Debug, Clone)]
enum State {
    /// Kept so that older versions lose.
    Gone,
    Message(pb::Message),
    Group(pb::GroupState),
    Peer(pb::Peer),
    Event(pb::GroupEvent),
    Post(pb::Post),
    Heard(pb::PostRef),
    Comment(pb::Comment),
    Me(pb::Me),
}

/// A conversation's messages by their places.
#[derive(Debug, Clone, Default)]
struct Talk {
    places: BTreeMap<u64, Item>,
}

impl Book {
    pub fn new(user: u64) -> Self {
        Self {
            user,
            items: AHashMap::new(),
            talks: AHashMap::new(),
            exits: AHashMap::new(),
            noted: Noted::default(),
        }
    }

    pub fn user(&self) -> u64 {
        self.user
    }

    pub fn noted(&self) -> Noted {
        self.noted
    }

    /// A page of the log.
    pub fn apply(&mut self, page: &pb::Page) {
        for change in &page.changes {
            self.apply_change(change);
        }
    }

    /// A part of a snapshot; at the first, what was here is forgotten.
    pub fn apply_snapshot(&mut self, page: &pb::Page, first: bool) {
        if first {
            *self = Self { noted: self.noted, ..Self::new(self.user) };
        }
        self.apply(page);
    }

    /// One change of a page.
    pub fn apply_change(&mut self, change: &pb::Change) -> Applied {
        let applied = self.put(change);
        match applied {
            Applied::Shown => {}
            Applied::Again => self.noted.again += 1,
            Applied::Older => self.noted.older += 1,
            Applied::Strange => self.noted.strange += 1,
        }
        applied
    }

    fn put(&mut self, change: &pb::Change) -> Applied {
        let (Some(item), Some(state)) = (&change.item, state_of(change)) else { return Applied::Strange };
        let item = (item.origin, item.number);
        let before = self.items.get(&item);
        if let Some(before) = before.filter(|before| before.version >= change.version) {
            return if before.version == change.version { Applied::Again } else { Applied::Older };
        }
        let was_at = before.and_then(|before| Some((self.talk_of(&before.state)?, before.place)));
        let number = change.number;
        let mut place = number;
        if let Some((talk, was)) = was_at {
            if matches!(&state, State::Message(message) if message.recalled) {
                place = was;
            }
            self.talks.entry(talk).or_default().places.remove(&was);
        }
        if let Some(talk) = self.talk_of(&state) {
            self.talks.entry(talk).or_default().places.insert(place, item);
        }
        if let State::Event(event) = &state
            && self.takes_out(event)
        {
            let exit = self.exits.entry(event.group).or_default();
            *exit = number.max(*exit);
        }
        self.items.insert(item, Entry { version: change.version, number, place, state });
        Applied::Shown
    }

    /// The conversation that an item stands in, if it is a message.
    fn talk_of(&self, state: &State) -> Option<u64> {
        let State::Message(message) = state else { return None };
        Some(conversation_of(message, self.user))
    }

    /// Whether an event is the end of this user's membership. One that the group has not numbered has not happened.
    fn takes_out(&self, event: &pb::GroupEvent) -> bool {
        event.group_number > 0
            && match event.action() {
                GroupAction::Leave => event.by == self.user,
                GroupAction::Remove => event.users.contains(&self.user),
                _ => false,
            }
    }
}

/// The user or group that a message is talked about with.
pub fn conversation_of(message: &pb::Message, user: u64) -> u64 {
    if message.to & GROUP_BIT != 0 || message.from == user { message.to } else { message.from }
}

fn state_of(change: &pb::Change) -> Option<State> {
    if change.deleted {
        return Some(State::Gone);
    }
    Some(match change.body.clone()? {
        change::Body::Message(message) => State::Message(message),
        change::Body::Group(group) => State::Group(group),
        change::Body::Peer(peer) => State::Peer(peer),
        change::Body::Event(event) => State::Event(event),
        change::Body::Post(post) => State::Post(post),
        change::Body::PostRef(heard) => State::Heard(heard),
        change::Body::Comment(comment) => State::Comment(comment),
        change::Body::Me(me) => State::Me(me),
    })
}
