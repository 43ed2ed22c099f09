//! A number that two books share when they show the same.

use std::hash::{DefaultHasher, Hash, Hasher};

use prost::Message;

use super::{Book, Entry, Item, State};

impl Book {
    /// Of everything that is shown. Left out is what is gone, and the place of a message that was taken back, which
    /// only a phone that saw its text can know.
    pub fn digest(&self) -> u64 {
        let mut items: Vec<(&Item, &Entry)> = self.items.iter().collect();
        items.sort_unstable_by_key(|(item, _)| **item);
        let mut hasher = DefaultHasher::new();
        for (item, entry) in items {
            self.put_item(*item, entry, &mut hasher);
        }
        let mut talks: Vec<u64> = self.talks.keys().copied().collect();
        talks.sort_unstable();
        for with in talks {
            let unread = self.unread(with);
            if unread > 0 {
                (with, unread).hash(&mut hasher);
            }
        }
        hasher.finish()
    }

    fn put_item(&self, item: Item, entry: &Entry, hasher: &mut DefaultHasher) {
        let Some((kind, bytes)) = self.shown(item, &entry.state) else { return };
        (item, entry.version, kind, bytes).hash(hasher);
        if !matches!(&entry.state, State::Message(message) if message.recalled) {
            entry.number.hash(hasher);
        }
    }

    /// The kind and the content of an item that is shown.
    fn shown(&self, item: Item, state: &State) -> Option<(u8, Vec<u8>)> {
        Some(match state {
            State::Gone => return None,
            State::Message(message) => (1, message.encode_to_vec()),
            State::Group(group) => {
                self.group(item.0)?;
                (2, group.encode_to_vec())
            }
            State::Peer(peer) => (3, peer.encode_to_vec()),
            State::Event(event) => (4, event.encode_to_vec()),
            State::Post(post) => (5, post.encode_to_vec()),
            State::Heard(heard) => (6, heard.encode_to_vec()),
            State::Comment(comment) => (7, comment.encode_to_vec()),
            State::Me(me) => (8, me.encode_to_vec()),
        })
    }

    /// Where two books differ, in words: the first few items.
    pub fn differences(&self, other: &Book) -> Vec<String> {
        const TOLD_MAX: usize = 3;
        let mut items: Vec<Item> = self.items.keys().chain(other.items.keys()).copied().collect();
        items.sort_unstable();
        items.dedup();
        let seen = |book: &Book, item: Item| {
            let entry = book.items.get(&item)?;
            let (kind, bytes) = book.shown(item, &entry.state)?;
            let is_recalled = matches!(&entry.state, State::Message(message) if message.recalled);
            Some((entry.version, if is_recalled { 0 } else { entry.number }, kind, bytes))
        };
        let words = |book: &Book, item: Item| match book.items.get(&item) {
            Some(entry) => format!("version {} as change {}: {:?}", entry.version, entry.number, entry.state),
            None => "nothing".to_owned(),
        };
        let different = items.into_iter().filter(|&item| seen(self, item) != seen(other, item));
        let told = different.take(TOLD_MAX).map(|item| {
            format!("item {:x}/{}: {} and {}", item.0, item.1, words(self, item), words(other, item))
        });
        told.collect()
    }
}
