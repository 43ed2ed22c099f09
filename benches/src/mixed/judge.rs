//! The end of a mixed run: the books of all devices of a user are equal, and equal to what the model knows.
//!
//! Every difference is counted under the name of its check, and the first are told in words.

use std::collections::BTreeMap;

use ahash::AHashMap;
use proto_wire::names::GROUP_BIT;
use proto_wire::pb::Relation;

use super::draw::{destination, setting_key};
use super::model::{Back, Message, Model, Slot};
use super::owner::{Owner, texts_twice};
use super::people::People;
use crate::check::Text;
use crate::limits;
use crate::state::{Book, Item};
use crate::workload::Destination;

/// What is wrong, by check.
#[derive(Debug, Default)]
pub struct Verdict {
    pub wrong: BTreeMap<&'static str, u64>,
    pub complaints: Vec<String>,
}

pub struct Judge<'a> {
    people: &'a People,
    model: &'a Model,
    statics: &'a AHashMap<u64, u32>,
    changing: &'a AHashMap<u64, u32>,
    /// By user, the first device first.
    owners: Vec<Vec<&'a Owner>>,
    verdict: Verdict,
}

impl Verdict {
    pub fn count(&self, check: &str) -> u64 {
        self.wrong.get(check).copied().unwrap_or(0)
    }

    pub fn total(&self) -> u64 {
        self.wrong.values().sum()
    }
}

impl<'a> Judge<'a> {
    pub fn new(
        people: &'a People,
        model: &'a Model,
        statics: &'a AHashMap<u64, u32>,
        changing: &'a AHashMap<u64, u32>,
        all: impl Iterator<Item = &'a Owner>,
    ) -> Self {
        let mut owners = vec![Vec::new(); people.users() as usize];
        for owner in all {
            owners[owner.user as usize].push(owner);
        }
        owners.iter_mut().for_each(|of_user: &mut Vec<&Owner>| of_user.sort_by_key(|owner| owner.line));
        Self { people, model, statics, changing, owners, verdict: Verdict::default() }
    }

    pub fn judge(mut self) -> Verdict {
        if self.model.outstanding > 0 {
            // Servers that are up answer everything in the end.
            self.verdict.wrong.insert("unanswered", self.model.outstanding);
        }
        self.devices();
        self.messages();
        self.shown_messages();
        self.unread();
        self.contacts();
        self.receipts();
        self.words();
        self.groups();
        self.moments();
        self.comments();
        self.verdict
    }

    fn differ(&mut self, check: &'static str, told: impl FnOnce() -> String) {
        *self.verdict.wrong.entry(check).or_default() += 1;
        if self.verdict.complaints.len() < limits::COMPLAINTS_MAX {
            self.verdict.complaints.push(format!("{check}: {}", told()));
        }
    }

    fn id(&self, user: u32) -> u64 {
        self.people.who.user(user)
    }

    fn book(&self, user: u32) -> &'a Book {
        &self.owners[user as usize][0].book
    }

    fn users(&self) -> std::ops::Range<u32> {
        0..self.people.users()
    }

    /// All devices of a user show the same.
    fn devices(&mut self) {
        for of_user in self.owners.clone() {
            let digest = of_user[0].book.digest();
            for other in of_user[1..].iter().filter(|other| other.book.digest() != digest) {
                self.differ("devices", || {
                    let differences = of_user[0].book.differences(&other.book);
                    format!(
                        "user {}, devices {} and {}: {differences:?}",
                        other.user, of_user[0].line, other.line
                    )
                });
            }
        }
    }

    /// Every acknowledged message stands at its sender and its receivers, and is taken back where it was.
    fn messages(&mut self) {
        let model = self.model;
        for (id, message) in model.messages.iter().enumerate().filter(|(_, message)| message.item != 0) {
            self.message_at("own_missing", id, message, message.sender);
            match destination(self.people, self.statics, message.to) {
                Some(Destination::Phone(to)) if to != message.sender => {
                    if !model.has_blocked(to, message.sender) {
                        self.message_at("missing", id, message, to);
                    }
                }
                Some(Destination::Group(group)) => {
                    let members = &self.people.population.groups()[group as usize].members;
                    for &member in members.iter().filter(|&&member| member != message.sender) {
                        self.message_at("missing", id, message, member);
                    }
                }
                // In a changing group it is for those who were members: `groups` compares them.
                _ => {}
            }
        }
    }

    fn message_at(&mut self, check: &'static str, id: usize, message: &Message, user: u32) {
        let item = (self.id(message.sender), message.item);
        // A recall of one who is no member any more reaches nobody.
        let is_certain = !self.changing.contains_key(&message.to);
        for owner in self.owners[user as usize].clone() {
            let line = owner.line;
            match owner.book.message(item) {
                None => self.differ(check, || format!("message {id} ({message:?}) is not at device {line}")),
                Some(shown) if shown.recalled => {
                    if message.back == Back::No {
                        self.differ("recalls", || format!("nobody took message {id} back: device {line}"));
                    }
                }
                Some(shown) => {
                    if Text::parse(&shown.text).is_none_or(|text| text.id as usize != id) {
                        self.differ("misdelivered", || format!("message {id} is {shown:?} at device {line}"));
                    } else if message.back == Back::Done && is_certain {
                        self.differ("recalls", || {
                            format!("message {id} was taken back, not at device {line}")
                        });
                    }
                }
            }
        }
    }

    /// Nothing is shown that nobody sent, or twice, or to whom it was not sent.
    fn shown_messages(&mut self) {
        let model = self.model;
        let sent = model.messages.iter().filter(|message| message.item != 0);
        let known: AHashMap<Item, &Message> =
            sent.map(|message| ((self.id(message.sender), message.item), message)).collect();
        for owner in self.owners.clone().into_iter().flatten() {
            let (line, me) = (owner.line, owner.book.user());
            let twice = texts_twice(&owner.book);
            if twice > 0 {
                self.differ("duplicates", || format!("{twice} messages are twice at device {line}"));
            }
            for (item, shown) in owner.book.all_messages() {
                let was_sent = match known.get(&item) {
                    Some(message) => message.to == shown.to,
                    None => Text::parse(&shown.text).is_some_and(|text| {
                        model.messages.get(text.id as usize).is_some_and(|message| message.item == 0)
                    }),
                };
                let is_for = match destination(self.people, self.statics, shown.to) {
                    Some(Destination::Group(group)) => {
                        self.people.population.groups()[group as usize].index_of(owner.user).is_some()
                    }
                    Some(Destination::Phone(_)) => shown.to == me || shown.from == me,
                    None => self.changing.contains_key(&shown.to),
                };
                if !was_sent || !is_for || shown.from != item.0 {
                    self.differ("misdelivered", || format!("device {line} shows {item:x?}: {shown:?}"));
                }
            }
        }
    }

    /// The counts of the books are those of the messages that came, by the marks that were acknowledged.
    fn unread(&mut self) {
        let model = self.model;
        let mut counts: AHashMap<(u32, u64), usize> = AHashMap::new();
        for message in model.messages.iter().filter(|m| m.item != 0 && m.back != Back::Done) {
            let item = (self.id(message.sender), message.item);
            let (receivers, with) = match destination(self.people, self.statics, message.to) {
                Some(Destination::Phone(to)) => (vec![to], item.0),
                Some(Destination::Group(group)) => {
                    (self.people.population.groups()[group as usize].members.clone(), message.to)
                }
                None => continue,
            };
            for user in receivers.into_iter().filter(|&user| user != message.sender) {
                let read = model.marks.get(&(user, with)).map_or(0, |mark| mark.read);
                let came = self.owners[user as usize][0].arrived.get(&item);
                *counts.entry((user, with)).or_default() += usize::from(came.is_some_and(|&at| at > read));
            }
        }
        for user in self.users() {
            for conversation in self.book(user).conversations() {
                let with = conversation.with;
                // What a blocked one takes back is not told.
                let other = self.people.who.phone_of(with);
                let is_certain = match other {
                    Some(other) => !model.has_blocked(user, other),
                    None => self.statics.contains_key(&with),
                };
                let counted = counts.get(&(user, with)).copied().unwrap_or(0);
                if is_certain && counted != conversation.unread {
                    self.differ("unread", || {
                        format!("user {user} with {with:x}: {} shown, {counted} counted", conversation.unread)
                    });
                }
            }
        }
    }

    /// Both sides agree on what they are to each other, and contacts whom nobody touched are contacts.
    fn contacts(&mut self) {
        for user in self.users() {
            for peer in self.book(user).peers() {
                let Some(other) = self.people.who.phone_of(peer.peer) else { continue };
                let there = self.book(other).peer(self.id(user));
                let relation = there.map_or(Relation::None, |there| there.relation());
                let fits = matches!(
                    (peer.relation(), relation),
                    (Relation::None, Relation::None)
                        | (Relation::Contact, Relation::Contact)
                        | (Relation::Asked, Relation::Asks)
                        | (Relation::Asks, Relation::Asked)
                );
                if !fits || peer.ended != there.map_or(0, |there| there.ended) {
                    self.differ("contacts", || format!("user {user} has {peer:?}, user {other} {there:?}"));
                }
            }
            for n in 0..self.people.population.contacts() {
                let other = self.people.population.contact(user, n);
                if self.model.is_untouched(user, other) && !self.book(user).is_contact(self.id(other)) {
                    self.differ("contacts", || format!("users {user} and {other} are contacts no more"));
                }
            }
        }
    }

    /// What one read is what the other was told of, unless that one blocked it, and what was acknowledged.
    fn receipts(&mut self) {
        for user in self.users() {
            for peer in self.book(user).peers() {
                let Some(other) = self.people.who.phone_of(peer.peer) else { continue };
                let there = self.book(other).peer(self.id(user));
                let here = there.map_or((0, 0), |there| (there.read_here, there.delivered_here));
                let is_told = !self.model.has_blocked(user, other);
                if is_told && (peer.read_there, peer.delivered_there) != here {
                    self.differ("receipts", || {
                        format!("user {user} was told {peer:?}, user {other} {there:?}")
                    });
                }
            }
        }
        for (&(user, with), mark) in &self.model.marks {
            let kept = self.book(user).peer(with);
            let kept = kept.map_or((0, 0), |kept| (kept.read, kept.read_here));
            let is_group = with & GROUP_BIT != 0;
            if kept != (mark.read, if is_group { 0 } else { mark.read_item }) {
                self.differ("receipts", || format!("user {user} marked {mark:?} of {with:x}, kept {kept:?}"));
            }
        }
    }

    /// The last value that a user set is there.
    fn words(&mut self) {
        for (&(user, slot), word) in &self.model.words {
            let book = self.book(user);
            let switch = |on: bool| if on { "1" } else { "" }.to_owned();
            let shown = match slot {
                Slot::Blocked(other) => switch(book.peer(self.id(other)).is_some_and(|peer| peer.blocked)),
                Slot::Starred(other) => switch(book.peer(self.id(other)).is_some_and(|peer| peer.starred)),
                Slot::Remark(other) => {
                    book.peer(self.id(other)).map_or_else(String::new, |peer| peer.remark.clone())
                }
                Slot::Setting(at) => {
                    let settings = book.me().map(|me| &me.settings[..]).unwrap_or_default();
                    let found = settings.iter().find(|setting| setting.key == setting_key(at));
                    found.map_or_else(String::new, |setting| setting.value.clone())
                }
                Slot::Nick => {
                    let profile = book.me().and_then(|me| me.profile.as_ref());
                    profile.map_or_else(String::new, |profile| profile.nick.clone())
                }
            };
            if shown != word.value {
                self.differ("settings", || format!("user {user}, {slot:?}: {shown:?} instead of {word:?}"));
            }
        }
    }

    /// Of each group the members that are in it know the same state, and what was said since they came.
    fn groups(&mut self) {
        let ids: Vec<u64> = self.statics.keys().chain(self.changing.keys()).copied().collect();
        let mut present: AHashMap<u64, Vec<u32>> = AHashMap::new();
        for user in self.users() {
            for group in self.book(user).groups() {
                present.entry(group.group).or_default().push(user);
            }
        }
        for id in ids {
            let users = present.remove(&id).unwrap_or_default();
            let Some(&first) = users.first() else { continue };
            let (state, version) = (self.book(first).group(id), self.book(first).group_version(id));
            for &user in &users {
                if (self.book(user).group(id), self.book(user).group_version(id)) != (state, version) {
                    let other = self.book(user).group(id);
                    self.differ("groups", || format!("{state:?} at user {first}, {other:?} at user {user}"));
                }
            }
            let mut members: Vec<u64> = users.iter().map(|&user| self.id(user)).collect();
            members.sort_unstable();
            if state.is_some_and(|state| state.members != members) {
                self.differ("groups", || format!("{members:x?} show a group, its members are {state:x?}"));
            }
            self.said_in_group(id, &users);
        }
        for (id, users) in present {
            self.differ("groups", || format!("users {users:?} show group {id:x}, which nobody made"));
        }
    }

    fn said_in_group(&mut self, id: u64, users: &[u32]) {
        let since: Vec<u64> = users.iter().map(|&user| self.member_since(id, user)).collect();
        let said: Vec<AHashMap<u64, Item>> = users.iter().map(|&user| self.numbered(id, user)).collect();
        let mut all: AHashMap<u64, Item> = AHashMap::new();
        for (at, numbers) in said.iter().enumerate() {
            for (&number, &item) in numbers.iter().filter(|(number, _)| **number > since[at]) {
                let first = *all.entry(number).or_insert(item);
                if first != item {
                    let user = users[at];
                    self.differ("disagreements", || {
                        format!("number {number} of group {id:x} is {first:x?}, and {item:x?} at user {user}")
                    });
                }
            }
        }
        for (at, numbers) in said.iter().enumerate() {
            let lacks = |(number, _): &(&u64, &Item)| **number > since[at] && !numbers.contains_key(number);
            let lacking: Vec<u64> = all.iter().filter(lacks).map(|(&number, _)| number).collect();
            if !lacking.is_empty() {
                let (user, since) = (users[at], since[at]);
                self.differ("missing", || {
                    format!("user {user}, in group {id:x} since {since}, lacks {lacking:?}")
                });
            }
        }
    }

    /// The number with which a member was invited last.
    fn member_since(&self, id: u64, user: u32) -> u64 {
        let me = self.id(user);
        let invites = self.book(user).events(id).into_iter().rev().find(|(_, event)| {
            event.action() == proto_wire::pb::GroupAction::Invite && event.users.contains(&me)
        });
        invites.map_or(0, |(_, event)| event.group_number)
    }

    /// What a member has of a group, by the group's numbers.
    fn numbered(&self, id: u64, user: u32) -> AHashMap<u64, Item> {
        let book = self.book(user);
        let messages = book.messages(id).map(|(_, item, message)| (message.group_number, item));
        let events = book.events(id).into_iter().map(|(item, event)| (event.group_number, item));
        messages.chain(events).filter(|(number, _)| *number > 0).collect()
    }

    /// Contacts whom nobody touched have heard of every moment that is there and not hidden from them, and of no other.
    fn moments(&mut self) {
        let model = self.model;
        for post in model.posts.iter().filter(|post| post.number != 0) {
            let item = (self.id(post.author), post.number);
            let own = self.book(post.author).posts().iter().any(|(own, _)| *own == item);
            if own == (post.back == Back::Done) {
                self.differ("moments", || format!("{post:?} at its author: {own}"));
            }
            for n in 0..self.people.population.contacts() {
                let contact = self.people.population.contact(post.author, n);
                if !model.is_untouched(post.author, contact) {
                    continue;
                }
                let hears = post.back != Back::Done && post.hidden_from != Some(contact);
                for owner in self.owners[contact as usize].clone() {
                    if owner.book.has_heard(item) != hears {
                        let line = owner.line;
                        self.differ("moments", || format!("{post:?}: device {line} should hear: {hears}"));
                    }
                }
            }
        }
    }

    /// What was said to a moment stands at its writer and at the moment's author, and is gone when it was taken away.
    fn comments(&mut self) {
        let model = self.model;
        for said in model.comments.iter().filter(|said| said.number != 0) {
            let item = (self.id(said.from), said.number);
            let mut places = vec![said.from];
            if said.author != said.from && !model.has_blocked(said.author, said.from) {
                places.push(said.author);
            }
            for user in places {
                for owner in self.owners[user as usize].clone() {
                    if owner.book.comment(item).is_some() == (said.back == Back::Done) {
                        let line = owner.line;
                        self.differ("comments", || format!("{said:?} at device {line}"));
                    }
                }
            }
        }
    }
}
