//! A device of a mixed run: what it shows, and in what order that came.

use ahash::{AHashMap, AHashSet};
use proto_wire::names::GROUP_BIT;
use proto_wire::pb::{self, change::Body};

use super::people::People;
use crate::check::Text;
use crate::state::{Applied, Book, Item};

/// A device: its book, and in what order things came.
#[derive(Debug)]
pub struct Owner {
    pub line: u32,
    pub user: u32,
    pub book: Book,
    /// Under which number the messages of others came first.
    pub arrived: AHashMap<Item, u64>,
    /// The highest item of each sender to this user, and the highest number of each group.
    last_item: AHashMap<u64, u64>,
    last_number: AHashMap<u64, u64>,
    pub strangers: Vec<u32>,
}

/// What came of a change.
#[derive(Debug)]
pub struct Taken {
    pub is_shown: bool,
    /// What is wrong with it, in words.
    pub wrong: Vec<(Wrong, String)>,
}

/// How a change is not what a log may bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    Strange,
    Duplicate,
    OutOfOrder,
}

impl Owner {
    pub fn new(line: u32, user: u32, people: &People) -> Self {
        Self {
            line,
            user,
            book: Book::new(people.who.user(user)),
            arrived: AHashMap::new(),
            last_item: AHashMap::new(),
            last_number: AHashMap::new(),
            strangers: people.strangers(user),
        }
    }

    /// A snapshot begins.
    pub fn forget(&mut self) {
        self.book.apply_snapshot(&pb::Page::default(), true);
        (self.last_item, self.last_number) = (AHashMap::new(), AHashMap::new());
    }

    /// A change of a page.
    pub fn take(&mut self, change: &pb::Change) -> Taken {
        let applied = self.book.apply_change(change);
        let mut wrong = Vec::new();
        match (applied, &change.body) {
            (Applied::Strange, _) => {
                wrong.push((Wrong::Strange, format!("a change that is none: {change:?}")));
            }
            (Applied::Shown, Some(Body::Message(message))) => self.note_arrival(change, message),
            (Applied::Shown, _) => {}
            // Both the writer and the moment's author may take a comment away.
            (Applied::Again, _) if change.deleted => {}
            // A writer's message gets its group's number after it was taken back.
            (Applied::Older, Some(Body::Message(message))) if message.from == self.book.user() => {}
            (Applied::Again | Applied::Older, _) => {
                wrong.push((Wrong::Duplicate, format!("{applied:?}: {change:?}")));
            }
        }
        if let Some(trouble) = self.check_order(change) {
            wrong.push((Wrong::OutOfOrder, trouble));
        }
        Taken { is_shown: applied == Applied::Shown, wrong }
    }

    fn note_arrival(&mut self, change: &pb::Change, message: &pb::Message) {
        if message.from != self.book.user() && !message.recalled {
            let item = change.item.unwrap_or_default();
            self.arrived.entry((item.origin, item.number)).or_insert(change.number);
        }
    }

    /// A sender's messages come in the order of the sender's log, what is in a group in the group's.
    fn check_order(&mut self, change: &pb::Change) -> Option<String> {
        let item = change.item?;
        let (in_group, group_number) = match change.body.as_ref()? {
            Body::Message(message) if message.to & GROUP_BIT != 0 => (Some(message.to), message.group_number),
            Body::Message(message) if !message.recalled && message.from != self.book.user() => (None, 0),
            Body::Event(event) => (Some(event.group), event.group_number),
            _ => return None,
        };
        let (known, number) = match in_group {
            Some(_) if group_number == 0 => return None,
            Some(group) => (self.last_number.entry(group).or_default(), group_number),
            None => (self.last_item.entry(item.origin).or_default(), item.number),
        };
        let before = std::mem::replace(known, number.max(*known));
        (number <= before).then(|| format!("number {number} came after {before}: {change:?}"))
    }
}

/// The texts of a device's messages that are there more than once.
pub fn texts_twice(book: &Book) -> u64 {
    let mut seen = AHashSet::new();
    let ids = book.all_messages().filter_map(|(_, message)| Text::parse(&message.text));
    ids.filter(|text| !seen.insert((text.run, text.id))).count() as u64
}
