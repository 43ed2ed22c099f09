//! The model: what each deed does to what each user sees, and how it is answered.

use std::collections::{BTreeMap, BTreeSet};

use proto_wire::pb::change::Body;
use proto_wire::pb::{self, GroupAction, Relation};
use proto_wire::status::Code;

use super::book::{Book, Item};
use super::{Call, Deed};
use crate::logic::Verb;

#[derive(Default)]
pub struct Model {
    books: BTreeMap<u64, Book>,
    groups: Vec<Group>,
    /// Messages as they were sent: who, under which number, to whom.
    messages: Vec<(u64, u64, u64)>,
    /// How many of them are too old to be taken back.
    old: usize,
    /// Messages that were taken back: who, under which number.
    recalled: BTreeSet<Item>,
    posts: Vec<Post>,
    /// What was said: the post, by whom, under which number; whether it is still there.
    comments: Vec<(usize, u64, u64, bool)>,
}

struct Group {
    id: u64,
    owner: u64,
    name: String,
    members: Vec<u64>,
}

struct Post {
    author: u64,
    number: u64,
    hidden_from: Vec<u64>,
    withdrawn: bool,
}

impl Model {
    pub fn book(&mut self, user: u64) -> &Book {
        self.books.entry(user).or_default()
    }

    fn put(&mut self, user: u64, item: Item, body: Body) {
        self.books.entry(user).or_default().insert(item, body);
    }

    fn remove(&mut self, user: u64, item: Item) {
        self.books.entry(user).or_default().remove(&item);
    }

    fn peer(&self, user: u64, peer: u64) -> pb::Peer {
        match self.books.get(&user).and_then(|book| book.get(&(peer, 0))) {
            Some(Body::Peer(state)) => state.clone(),
            _ => pb::Peer { peer, ..Default::default() },
        }
    }

    fn change_peer(&mut self, user: u64, peer: u64, change: impl FnOnce(&mut pb::Peer)) {
        let mut state = self.peer(user, peer);
        change(&mut state);
        self.put(user, (peer, 0), Body::Peer(state));
    }

    /// The call that a deed makes; `None`: there is nothing to do it to.
    pub fn call(&self, user: u64, deed: &Deed, newest: u64) -> Option<Call> {
        let picked = |pick: usize, of: usize| (of > 0).then(|| pick % of.max(1));
        Some(match deed {
            Deed::Send { to } => {
                Call::Send(pb::SendRequest { to: *to, text: text(user), ..Default::default() })
            }
            Deed::SendToGroup { pick } => {
                let to = self.groups[picked(*pick, self.groups.len())?].id;
                Call::Send(pb::SendRequest { to, text: text(user), ..Default::default() })
            }
            Deed::CreateGroup { with } => {
                let (name, members) = ("group".to_owned(), vec![*with]);
                Call::CreateGroup(pb::CreateGroupRequest { name, members, ..Default::default() })
            }
            Deed::Group { pick, action, target } => {
                let group = &self.groups[picked(*pick, self.groups.len())?];
                let change = pb::GroupEvent {
                    action: *action,
                    users: if *action == 2 || *action == 4 { vec![] } else { vec![*target] },
                    name: if *action == 4 { format!("by {user}") } else { String::new() },
                    ..Default::default()
                };
                Call::Verb(Verb::ChangeGroup { group: group.id, change })
            }
            Deed::Contact { peer, what } => {
                let peer = *peer;
                Call::Verb(match what {
                    0 | 1 => Verb::Ask { peer, hello: format!("I am {user}") },
                    2 | 3 => Verb::Accept { peer },
                    4 => Verb::Remove { peer },
                    5 => Verb::Block { peer, on: !self.peer(user, peer).blocked },
                    6 => Verb::Star { peer, on: true },
                    _ => Verb::Remark { peer, remark: format!("{peer} of {user}") },
                })
            }
            Deed::Mark { peer } => {
                // The first version of one that was taken back may be behind the horizon: then nothing proves it.
                let theirs = self.messages.iter().filter(|(from, at, to)| {
                    from == peer && *to == user && !self.recalled.contains(&(*from, *at))
                });
                let last = theirs.map(|(_, number, _)| *number).max().unwrap_or(0);
                let (read, peer) = (newest, *peer);
                Call::Mark(pb::MarkRequest { peer, read, delivered_item: last, read_item: last })
            }
            Deed::Recall { pick } => {
                let own: Vec<u64> =
                    self.messages.iter().filter(|(from, ..)| *from == user).map(|(_, at, _)| *at).collect();
                Call::Verb(Verb::Recall { number: own[picked(*pick, own.len())?] })
            }
            Deed::Publish { hidden_from } => {
                let hidden_from = if *hidden_from == 0 { vec![] } else { vec![*hidden_from] };
                let post = pb::Post { text: format!("post of {user}"), hidden_from, ..Default::default() };
                Call::Verb(Verb::Publish { post })
            }
            Deed::Withdraw { pick } => {
                Call::Verb(Verb::Withdraw { moment: self.posts[picked(*pick, self.posts.len())?].number })
            }
            Deed::Say { pick, like } => {
                let Post { author, number, .. } = self.posts[picked(*pick, self.posts.len())?];
                let text = if *like { String::new() } else { text(user) };
                let comment = pb::Comment { author, post: number, text, like: *like, ..Default::default() };
                Call::Verb(Verb::Say { comment })
            }
            Deed::Unsay { pick } => {
                let (post, from, number, _) = self.comments[picked(*pick, self.comments.len())?];
                let Post { author, number: moment, .. } = self.posts[post];
                Call::Verb(Verb::Unsay { author, moment, from, number })
            }
            Deed::Setting { key, value } => {
                let value = if *value == 0 { String::new() } else { value.to_string() };
                Call::Verb(Verb::SetSetting { key: format!("key {key}"), value })
            }
            Deed::Forget | Deed::Rest => return None,
        })
    }

    /// What the answer must be. When it is yes, it is done here too, under the number that was given.
    pub fn take(&mut self, user: u64, call: &Call, outcome: Result<u64, Code>) -> Result<(), Code> {
        self.refuses(user, call, outcome)?;
        let number = outcome.unwrap_or(0);
        match call {
            Call::Send(request) => self.sent(user, number, request),
            Call::CreateGroup(request) => {
                let mut members = vec![user, request.members[0]];
                members.sort_unstable();
                members.dedup();
                self.groups.push(Group { id: number, owner: user, name: request.name.clone(), members });
                self.tell_state(self.groups.len() - 1);
            }
            Call::Mark(request) => self.marked(user, request),
            Call::Verb(verb) => self.verb(user, number, verb),
        }
        Ok(())
    }

    fn refuses(&self, user: u64, call: &Call, outcome: Result<u64, Code>) -> Result<(), Code> {
        let refuse = |wrong: bool, code: Code| if wrong { Err(code) } else { Ok(()) };
        let group = |id: u64| self.groups.iter().find(|group| group.id == id);
        match call {
            Call::Send(pb::SendRequest { to, .. }) => match group(*to) {
                Some(group) => refuse(!group.members.contains(&user), Code::Denied),
                None => refuse(*to != user && self.peer(*to, user).blocked, Code::Denied),
            },
            Call::CreateGroup(_) => Ok(()),
            Call::Mark(request) => refuse(request.peer == user, Code::Invalid),
            Call::Verb(verb) => match verb {
                Verb::Ask { peer, .. }
                | Verb::Accept { peer }
                | Verb::Remove { peer }
                | Verb::Remark { peer, .. }
                | Verb::Star { peer, .. }
                | Verb::Block { peer, .. }
                    if *peer == user =>
                {
                    Err(Code::Invalid)
                }
                Verb::Ask { peer, .. } => {
                    refuse(self.peer(user, *peer).relation() == Relation::Contact, Code::Exists)?;
                    refuse(self.is_full(user), Code::Limit)
                }
                Verb::Accept { peer } => match self.peer(user, *peer).relation() {
                    Relation::Asks => refuse(self.is_full(user), Code::Limit),
                    Relation::Contact => Err(Code::Exists),
                    Relation::None | Relation::Asked => Err(Code::NotFound),
                },
                Verb::Remove { peer } => {
                    refuse(self.peer(user, *peer).relation() == Relation::None, Code::NotFound)
                }
                Verb::ChangeGroup { group: id, change } => {
                    refuses_change(user, group(*id).expect("it was picked"), change)
                }
                Verb::Recall { number } => self.refuses_recall(user, *number, outcome),
                Verb::Withdraw { moment } => {
                    let mine = |post: &Post| (post.author, post.number) == (user, *moment) && !post.withdrawn;
                    refuse(!self.posts.iter().any(mine), Code::NotFound)
                }
                Verb::Say { comment } => {
                    let sees = |post: &Post| {
                        (post.author, post.number) == (comment.author, comment.post) && self.sees(user, post)
                    };
                    refuse(!self.posts.iter().any(sees), Code::NotFound)
                }
                Verb::Unsay { author, from, number, .. } => {
                    let there = |(_, by, at, there): &(usize, u64, u64, bool)| {
                        (*by, *at) == (*from, *number) && *there
                    };
                    refuse(!self.comments.iter().any(there), Code::NotFound)?;
                    refuse(user != *from && user != *author, Code::Denied)
                }
                _ => Ok(()),
            },
        }
    }

    /// Behind the horizon the first version of a message that has a later one may be gone.
    fn refuses_recall(&self, user: u64, number: u64, outcome: Result<u64, Code>) -> Result<(), Code> {
        let at = self.messages.iter().position(|(from, at, _)| (*from, *at) == (user, number));
        match outcome {
            _ if at.is_some_and(|at| at >= self.old) => {
                let to = at.map_or(0, |at| self.messages[at].2);
                let group = self.groups.iter().find(|group| group.id == to);
                match group {
                    Some(group) if !group.members.contains(&user) => Err(Code::Denied),
                    _ => Ok(()),
                }
            }
            Err(Code::NotFound) => Err(Code::NotFound),
            _ => Err(Code::Limit),
        }
    }

    pub fn rest(&mut self) {
        self.old = self.messages.len();
    }

    fn sees(&self, reader: u64, post: &Post) -> bool {
        let state = self.peer(post.author, reader);
        let is_contact = state.relation() == Relation::Contact && !state.blocked;
        !post.withdrawn && (reader == post.author || is_contact && !post.hidden_from.contains(&reader))
    }

    fn sent(&mut self, user: u64, number: u64, request: &pb::SendRequest) {
        let to = request.to;
        self.messages.push((user, number, to));
        let message = pb::Message { from: user, to, text: request.text.clone(), ..Default::default() };
        for hearer in self.hearers(user, to) {
            self.put(hearer, (user, number), Body::Message(message.clone()));
        }
    }

    fn hearers(&self, user: u64, to: u64) -> Vec<u64> {
        match self.groups.iter().find(|group| group.id == to) {
            Some(group) if group.members.contains(&user) => group.members.clone(),
            Some(_) => vec![user],
            None => vec![user, to],
        }
    }

    fn marked(&mut self, user: u64, request: &pb::MarkRequest) {
        let (peer, item, before) = (request.peer, request.read_item, self.peer(user, request.peer));
        let read = u64::from(request.read > 0).max(before.read);
        let here = before.read_here.max(item);
        // A mark that says nothing new leaves no trace.
        if (read, here) == (before.read, before.read_here) && !self.book(user).contains_key(&(peer, 0)) {
            return;
        }
        self.change_peer(user, peer, |state| {
            (state.read, state.read_here, state.delivered_here) = (read, here, here);
        });
        if here > before.read_here && !self.peer(peer, user).blocked {
            self.change_peer(peer, user, |state| {
                state.read_there = state.read_there.max(here);
                state.delivered_there = state.delivered_there.max(here);
            });
        }
    }

    fn verb(&mut self, user: u64, number: u64, verb: &Verb) {
        match verb {
            Verb::Ask { peer, hello } => self.wants(user, *peer, hello),
            Verb::Accept { peer } => self.wants(user, *peer, ""),
            Verb::Remove { peer } => {
                let ended = self.peer(user, *peer).ended + 1;
                self.both_end(user, *peer, ended, false);
            }
            Verb::Remark { peer, remark } => {
                self.change_peer(user, *peer, |state| state.remark = remark.clone())
            }
            Verb::Star { peer, on } => self.change_peer(user, *peer, |state| state.starred = *on),
            Verb::Block { peer, on } => self.change_peer(user, *peer, |state| state.blocked = *on),
            Verb::Recall { number } => self.recalled(user, *number),
            Verb::ChangeGroup { group, change } => self.group_changed(user, number, *group, change),
            Verb::Publish { post } => self.published(user, number, post),
            Verb::Withdraw { moment } => self.withdrawn(user, *moment),
            Verb::Say { comment } => {
                let at = |post: &Post| (post.author, post.number) == (comment.author, comment.post);
                let post = self.posts.iter().position(at).expect("it was seen");
                self.comments.push((post, user, number, true));
                let body = Body::Comment(pb::Comment { from: user, ..comment.clone() });
                self.put(user, (user, number), body.clone());
                self.put(comment.author, (user, number), body);
            }
            Verb::Unsay { author, from, number, .. } => {
                for comment in &mut self.comments {
                    comment.3 &= (comment.1, comment.2) != (*from, *number);
                }
                for reader in [*author, *from, user] {
                    self.remove(reader, (*from, *number));
                }
            }
            Verb::SetSetting { key, value } => {
                let mut me = match self.book(user).get(&(user, 0)) {
                    Some(Body::Me(me)) => me.clone(),
                    _ => pb::Me::default(),
                };
                me.settings.retain(|setting| setting.key != *key);
                if !value.is_empty() {
                    me.settings.push(pb::Setting { key: key.clone(), value: value.clone() });
                }
                self.put(user, (user, 0), Body::Me(me));
            }
            Verb::SetProfile { .. } | Verb::LogOut { .. } => unreachable!("no deed does this"),
        }
    }

    fn wants(&mut self, user: u64, peer: u64, hello: &str) {
        let both = self.peer(user, peer).relation() == Relation::Asks;
        let (mine, theirs) =
            if both { (Relation::Contact, Relation::Contact) } else { (Relation::Asked, Relation::Asks) };
        let ended = self.peer(user, peer).ended;
        self.change_peer(user, peer, |state| {
            (state.relation, state.hello, state.full) = (mine.into(), String::new(), false);
        });
        if self.peer(peer, user).blocked {
            return self.both_end(user, peer, ended + 1, false);
        }
        if self.peer(peer, user).relation() == Relation::Asked && self.is_full(peer) {
            return self.both_end(user, peer, ended + 1, true);
        }
        let hello = if both { String::new() } else { hello.to_owned() };
        self.change_peer(peer, user, |state| {
            (state.relation, state.hello, state.ended) = (theirs.into(), hello, ended);
            state.full = false;
        });
    }

    fn both_end(&mut self, user: u64, peer: u64, ended: u64, full: bool) {
        for (one, other) in [(user, peer), (peer, user)] {
            self.change_peer(one, other, |state| {
                (state.relation, state.hello, state.ended) = (Relation::None.into(), String::new(), ended);
                state.full = full;
            });
        }
    }

    /// Whether a user has all the contacts that it may have.
    fn is_full(&self, user: u64) -> bool {
        let is_contact = |peer: &u64| self.peer(user, *peer).relation() == Relation::Contact;
        (1..=super::USERS).filter(is_contact).count() as u64 >= super::MAX_CONTACTS
    }

    fn recalled(&mut self, user: u64, number: u64) {
        let (_, _, to) =
            *self.messages.iter().find(|(from, at, _)| (*from, *at) == (user, number)).expect("own");
        self.recalled.insert((user, number));
        let message = pb::Message { from: user, to, recalled: true, ..Default::default() };
        for hearer in self.hearers(user, to) {
            self.put(hearer, (user, number), Body::Message(message.clone()));
        }
    }

    fn group_changed(&mut self, user: u64, number: u64, id: u64, change: &pb::GroupEvent) {
        let at = self.groups.iter().position(|group| group.id == id).expect("it was picked");
        let group = &mut self.groups[at];
        let before = group.members.clone();
        match change.action() {
            GroupAction::Invite => {
                group.members.extend(&change.users);
                group.members.sort_unstable();
            }
            GroupAction::Remove => group.members.retain(|member| !change.users.contains(member)),
            GroupAction::Leave => {
                group.members.retain(|member| *member != user);
                if group.owner == user {
                    group.owner = group.members.first().copied().unwrap_or(0);
                }
            }
            GroupAction::Rename => group.name = change.name.clone(),
            GroupAction::Owner => group.owner = change.users[0],
            GroupAction::Unknown => unreachable!("no deed does this"),
        }
        let hearers = if group.members.len() >= before.len() { group.members.clone() } else { before };
        let event = pb::GroupEvent { group: id, by: user, ..change.clone() };
        for hearer in hearers {
            self.put(hearer, (user, number), Body::Event(event.clone()));
        }
        self.tell_state(at);
    }

    fn tell_state(&mut self, at: usize) {
        let Group { id, owner, name, members } = &self.groups[at];
        let state =
            pb::GroupState { group: *id, name: name.clone(), members: members.clone(), owner: *owner };
        let id = *id;
        for member in state.members.clone() {
            self.put(member, (id, 1), Body::Group(state.clone()));
        }
    }

    fn published(&mut self, user: u64, number: u64, post: &pb::Post) {
        let hidden_from = post.hidden_from.clone();
        self.put(user, (user, number), Body::Post(post.clone()));
        for peer in 1..=super::USERS {
            let state = self.peer(user, peer);
            let hears = peer != user && state.relation() == Relation::Contact && !state.blocked;
            if hears && !hidden_from.contains(&peer) {
                let reference = pb::PostRef { from: user, ..Default::default() };
                self.put(peer, (user, number), Body::PostRef(reference));
            }
        }
        self.posts.push(Post { author: user, number, hidden_from, withdrawn: false });
    }

    /// It is gone for its author, and for those who are contacts now.
    fn withdrawn(&mut self, user: u64, moment: u64) {
        let is_it = |post: &&mut Post| (post.author, post.number) == (user, moment);
        let post = self.posts.iter_mut().find(is_it).expect("it was there");
        post.withdrawn = true;
        let hidden_from = post.hidden_from.clone();
        self.remove(user, (user, moment));
        for peer in 1..=super::USERS {
            let state = self.peer(user, peer);
            let hears = peer != user && state.relation() == Relation::Contact && !state.blocked;
            if hears && !hidden_from.contains(&peer) {
                self.remove(peer, (user, moment));
            }
        }
    }
}

fn refuses_change(user: u64, group: &Group, change: &pb::GroupEvent) -> Result<(), Code> {
    let target = change.users.first().copied().unwrap_or(0);
    let is_member = |user: u64| group.members.contains(&user);
    let refuse = |wrong: bool, code: Code| if wrong { Err(code) } else { Ok(()) };
    refuse(!is_member(user), Code::Denied)?;
    match change.action() {
        GroupAction::Invite => refuse(is_member(target), Code::Exists),
        GroupAction::Remove => {
            refuse(user != group.owner, Code::Denied)?;
            refuse(target == group.owner, Code::Invalid)?;
            refuse(!is_member(target), Code::NotFound)
        }
        GroupAction::Owner => {
            refuse(user != group.owner, Code::Denied)?;
            refuse(!is_member(target), Code::NotFound)
        }
        _ => Ok(()),
    }
}

fn text(user: u64) -> String {
    format!("said by {user}")
}
