//! What a book is asked.

use proto_wire::names::GROUP_BIT;
use proto_wire::pb::{self, Relation};

use super::{Book, Entry, Item, State};

/// A line of the list of conversations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversation {
    /// A user or a group.
    pub with: u64,
    /// Of its last message, in the user's own log.
    pub last: u64,
    pub unread: usize,
}

impl Book {
    /// The conversations, the latest first.
    pub fn conversations(&self) -> Vec<Conversation> {
        let all = self.talks.iter().filter_map(|(&with, talk)| {
            let (&last, _) = talk.places.last_key_value()?;
            Some(Conversation { with, last, unread: self.unread(with) })
        });
        let mut all: Vec<_> = all.collect();
        all.sort_unstable_by(|a, b| (b.last, b.with).cmp(&(a.last, a.with)));
        all
    }

    /// Messages of others behind what was read, but for those that were taken back.
    pub fn unread(&self, with: u64) -> usize {
        let Some(talk) = self.talks.get(&with) else { return 0 };
        let read = self.peer(with).map_or(0, |peer| peer.read);
        let beyond = talk.places.range(read.saturating_add(1)..);
        beyond
            .filter(|(_, item)| {
                self.message(**item).is_some_and(|message| message.from != self.user && !message.recalled)
            })
            .count()
    }

    /// The messages of a conversation in their order, each with its place.
    pub fn messages(&self, with: u64) -> impl DoubleEndedIterator<Item = (u64, Item, &pb::Message)> {
        let places = self.talks.get(&with).into_iter().flat_map(|talk| &talk.places);
        places.filter_map(|(&place, &item)| Some((place, item, self.message(item)?)))
    }

    pub fn message(&self, item: Item) -> Option<&pb::Message> {
        match &self.items.get(&item)?.state {
            State::Message(message) => Some(message),
            _ => None,
        }
    }

    /// The number of the change that gave an item its present state; none: it is not here, or gone.
    pub fn number(&self, item: Item) -> Option<u64> {
        self.items.get(&item).filter(|entry| !matches!(entry.state, State::Gone)).map(|entry| entry.number)
    }

    /// Every message that is shown.
    pub fn all_messages(&self) -> impl Iterator<Item = (Item, &pb::Message)> {
        self.items.iter().filter_map(|(&item, entry)| match &entry.state {
            State::Message(message) => Some((item, message)),
            _ => None,
        })
    }

    /// What the user keeps of another user or a group.
    pub fn peer(&self, id: u64) -> Option<&pb::Peer> {
        match &self.items.get(&(id, 0))?.state {
            State::Peer(peer) => Some(peer),
            _ => None,
        }
    }

    /// All that is kept of other users, by id.
    pub fn peers(&self) -> Vec<&pb::Peer> {
        let peers = self.items.values().filter_map(|entry| match &entry.state {
            State::Peer(peer) if peer.peer & GROUP_BIT == 0 => Some(peer),
            _ => None,
        });
        let mut peers: Vec<_> = peers.collect();
        peers.sort_unstable_by_key(|peer| peer.peer);
        peers
    }

    pub fn relation(&self, user: u64) -> Relation {
        self.peer(user).map_or(Relation::None, pb::Peer::relation)
    }

    pub fn is_contact(&self, user: u64) -> bool {
        self.relation(user) == Relation::Contact
    }

    /// A group that the user is in.
    pub fn group(&self, id: u64) -> Option<&pb::GroupState> {
        let entry = self.items.get(&(id, 1))?;
        let State::Group(group) = &entry.state else { return None };
        let exit = self.exits.get(&id).copied().unwrap_or(0);
        (exit < entry.number && group.members.contains(&self.user)).then_some(group)
    }

    /// The groups that the user is in, by id.
    pub fn groups(&self) -> Vec<&pb::GroupState> {
        let ids = self.items.iter().filter_map(|(&(id, _), entry)| match entry.state {
            State::Group(_) => Some(id),
            _ => None,
        });
        let mut groups: Vec<_> = ids.filter_map(|id| self.group(id)).collect();
        groups.sort_unstable_by_key(|group| group.group);
        groups
    }

    /// The version of a group's state; it rises by one with each change.
    pub fn group_version(&self, id: u64) -> Option<u64> {
        self.group(id).and_then(|_| self.items.get(&(id, 1))).map(|entry| entry.version)
    }

    /// What happened in a group while the user heard of it: by the group's number, but for what has none.
    pub fn events(&self, group: u64) -> Vec<(Item, &pb::GroupEvent)> {
        let events = self.items.iter().filter_map(|(&item, entry)| match &entry.state {
            State::Event(event) if event.group == group && event.group_number > 0 => Some((item, event)),
            _ => None,
        });
        let mut events: Vec<_> = events.collect();
        events.sort_unstable_by_key(|(_, event)| event.group_number);
        events
    }

    /// Moments of those who are contacts now, the latest first.
    pub fn moments(&self) -> Vec<(Item, &pb::PostRef)> {
        let heard = self.items.iter().filter_map(|(&item, entry)| match &entry.state {
            State::Heard(heard) if self.is_contact(heard.from) => Some((item, heard)),
            _ => None,
        });
        let mut heard: Vec<_> = heard.collect();
        heard.sort_unstable_by_key(|(item, heard)| (std::cmp::Reverse(heard.posted_ms), *item));
        heard
    }

    /// Whether a moment was heard of and not withdrawn, whoever its author is now.
    pub fn has_heard(&self, moment: Item) -> bool {
        matches!(self.items.get(&moment), Some(Entry { state: State::Heard(_), .. }))
    }

    /// Own moments, the latest first.
    pub fn posts(&self) -> Vec<(Item, &pb::Post)> {
        let posts = self.items.iter().filter_map(|(&item, entry)| match &entry.state {
            State::Post(post) => Some((item, post)),
            _ => None,
        });
        let mut posts: Vec<_> = posts.collect();
        posts.sort_unstable_by_key(|(item, _)| std::cmp::Reverse(item.1));
        posts
    }

    /// What was said to a moment, as far as it stands in this user's log. Nothing of an own moment that is withdrawn.
    pub fn comments(&self, moment: Item) -> Vec<(Item, &pb::Comment)> {
        let is_gone = matches!(self.items.get(&moment), Some(Entry { state: State::Gone, .. }));
        let comments = self.items.iter().filter_map(|(&item, entry)| match &entry.state {
            State::Comment(comment) if !is_gone && (comment.author, comment.post) == moment => {
                Some((item, comment))
            }
            _ => None,
        });
        let mut comments: Vec<_> = comments.collect();
        comments.sort_unstable_by_key(|(item, comment)| (comment.sent_ms, *item));
        comments
    }

    pub fn comment(&self, item: Item) -> Option<&pb::Comment> {
        match &self.items.get(&item)?.state {
            State::Comment(comment) => Some(comment),
            _ => None,
        }
    }

    /// Profile, settings and devices.
    pub fn me(&self) -> Option<&pb::Me> {
        match &self.items.get(&(self.user, 0))?.state {
            State::Me(me) => Some(me),
            _ => None,
        }
    }

    /// The highest of the peer's messages to this user that is here: what a receipt says.
    pub fn last_item_of(&self, peer: u64) -> u64 {
        let last = self.messages(peer).rev().find(|(_, _, message)| message.from == peer);
        last.map_or(0, |(_, item, _)| item.1)
    }
}
