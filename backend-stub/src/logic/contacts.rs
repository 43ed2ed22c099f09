//! Who knows whom: each side keeps the other as one item, and what one does reaches the other as a duty.
//!
//! Each side says `wants`, or `ends`. Who wants and hears that the other wants has a contact. An end counts up a
//! number that all words carry, so that a word from before it means nothing after it: whatever crosses on the way,
//! both sides end at the highest number, and there each knows whether the other wants. Everything else about a peer -
//! remark, block, how far it was read - is in the same item.

use std::collections::VecDeque;

use prost::Message as _;
use proto_wire::names::{GROUP_BIT, section_of};
use proto_wire::pb::{self, Relation};
use proto_wire::status::{Code, Status};

use super::api::{Answer, At};
use super::append::Waiting;
use super::aside::TOO_LATE;
use super::core::{Core, Effect};
use super::duty::PeerWord;
use super::keys::{self, Key};
use super::limits;
use super::outbox::{Duty, Task, body_of_row};
use super::users::Place;
use super::values::{Body, BodyHead, Kept, Kind, Row, RowBody, decode_number, encode_number, mark};
use super::verbs::{Resume, Verb};

impl Core {
    /// A user's own word about a peer. Gives the number of the row.
    pub(super) fn change_peer(&mut self, at: At, place: Place, verb: Verb) -> Result<u64, Status> {
        let user = self.users.peek(place).id;
        match verb {
            Verb::Ask { peer, hello } => self.ask(at, place, peer, hello),
            Verb::Accept { peer } => self.accept(at, place, peer),
            Verb::Remove { peer } => {
                let kept = self.kept::<pb::Peer>(&keys::peer(user, peer))?;
                if kept.state.relation() == Relation::None {
                    return Err(Status::new(Code::NotFound, "this user is no contact"));
                }
                self.end(at, place, peer, false)
            }
            Verb::Remark { peer, remark } => self.put_peer(place, peer, |state| state.remark = remark),
            Verb::Star { peer, on } => self.put_peer(place, peer, |state| state.starred = on),
            Verb::Block { peer, on } => {
                self.users.at(place).marks |= mark::BLOCKS;
                self.put_peer(place, peer, |state| state.blocked = on)
            }
            other => unreachable!("{other:?} is not about a peer"),
        }
    }

    fn ask(&mut self, at: At, place: Place, peer: u64, hello: String) -> Result<u64, Status> {
        let user = self.users.peek(place).id;
        match self.kept::<pb::Peer>(&keys::peer(user, peer))?.state.relation() {
            Relation::Contact => Err(Status::new(Code::Exists, "this user is a contact already")),
            // The other asked before: that is a yes.
            Relation::Asks => self.want(at, place, peer, Relation::Contact, hello),
            Relation::None | Relation::Asked => self.want(at, place, peer, Relation::Asked, hello),
        }
    }

    fn accept(&mut self, at: At, place: Place, peer: u64) -> Result<u64, Status> {
        let user = self.users.peek(place).id;
        match self.kept::<pb::Peer>(&keys::peer(user, peer))?.state.relation() {
            Relation::Asks => self.want(at, place, peer, Relation::Contact, String::new()),
            Relation::Contact => Err(Status::new(Code::Exists, "this user is a contact already")),
            Relation::None | Relation::Asked => Err(Status::new(Code::NotFound, "this user has not asked")),
        }
    }

    fn want(
        &mut self,
        at: At,
        place: Place,
        peer: u64,
        relation: Relation,
        hello: String,
    ) -> Result<u64, Status> {
        let user = self.users.peek(place).id;
        if self.is_full_of_contacts(user) {
            let text = format!("a user has at most {} contacts", self.config.max_contacts);
            return Err(Status::new(Code::Limit, text));
        }
        let ended = self.kept::<pb::Peer>(&keys::peer(user, peer))?.state.ended;
        let number = self.relate(place, peer, Next::new(relation, ended))?;
        self.tell_peer(at, place, peer, number, PeerWord::Wants { ended, hello });
        Ok(number)
    }

    /// `full`: because the user has all the contacts that a user may have.
    fn end(&mut self, at: At, place: Place, peer: u64, full: bool) -> Result<u64, Status> {
        let user = self.users.peek(place).id;
        let ended = self.kept::<pb::Peer>(&keys::peer(user, peer))?.state.ended + 1;
        let number = self.relate(place, peer, Next { full, ..Next::new(Relation::None, ended) })?;
        self.tell_peer(at, place, peer, number, PeerWord::Ends { ended, full });
        Ok(number)
    }

    fn is_full_of_contacts(&self, user: u64) -> bool {
        self.contact_count(user) >= self.config.max_contacts
    }

    fn contact_count(&self, user: u64) -> u64 {
        self.states.value(&keys::contacts(user)).and_then(|value| decode_number(value).ok()).unwrap_or(0)
    }

    /// Gives the relation to a peer its next state, and keeps the count of contacts.
    fn relate(&mut self, place: Place, peer: u64, next: Next) -> Result<u64, Status> {
        let user = self.users.peek(place).id;
        let before = self.kept::<pb::Peer>(&keys::peer(user, peer))?.state.relation();
        let relation = next.relation;
        let number = self.put_peer(place, peer, |state| {
            state.relation = relation.into();
            (state.ended, state.full, state.hello) = (next.ended, next.full, next.hello);
        })?;
        let (was, is) = (before == Relation::Contact, relation == Relation::Contact);
        if was != is {
            let count = self.contact_count(user);
            let count = if is { count + 1 } else { count.saturating_sub(1) };
            let mut value = Vec::new();
            encode_number(count, &mut value);
            self.put_state(keys::contacts(user), value);
        }
        Ok(number)
    }

    /// Gives what a user keeps of a peer its next state: a row and the record.
    pub(super) fn put_peer(
        &mut self,
        place: Place,
        peer: u64,
        change: impl FnOnce(&mut pb::Peer),
    ) -> Result<u64, Status> {
        let key = keys::peer(self.users.peek(place).id, peer);
        let mut kept = self.kept::<pb::Peer>(&key)?;
        kept.state.peer = peer;
        change(&mut kept.state);
        Ok(self.put_kept(place, key, Kind::Peer, peer, kept))
    }

    /// The next version of an item that a user keeps under a key of its own: item 0 of `origin`.
    pub(super) fn put_kept<M: prost::Message + Default>(
        &mut self,
        place: Place,
        key: Key,
        kind: Kind,
        origin: u64,
        mut kept: Kept<M>,
    ) -> u64 {
        kept.version += 1;
        let head = BodyHead { deleted: false, kind, origin, item: 0, version: kept.version };
        let body = Body::encode(head, &kept.state);
        let later = (kept.version > 1).then_some((origin, 0, kept.version));
        kept.number = self.append(place, RowBody::Own(body), later);
        let mut value = Vec::new();
        kept.encode(&mut value);
        self.put_state(key, value);
        kept.number
    }

    /// A record that `need` has brought; version 0 when there is none yet.
    pub(super) fn kept<M: prost::Message + Default>(&self, key: &Key) -> Result<Kept<M>, Status> {
        match self.states.value(key) {
            Some(value) => {
                Kept::decode(value).map_err(|error| Status::new(Code::Internal, error.to_string()))
            }
            None => Ok(Kept { number: 0, version: 0, state: M::default() }),
        }
    }

    fn tell_peer(&mut self, at: At, place: Place, receiver: u64, number: u64, word: PeerWord) {
        let sender = self.users.peek(place).id;
        self.begin_duty(at, section_of(sender), Task::Peer { receiver, sender, number, word });
    }

    /// Whether a user takes nothing from a sender. `need` has brought the record if the user blocks anybody.
    pub(super) fn blocks(&self, place: Place, sender: u64) -> bool {
        let user = self.users.peek(place);
        user.marks & mark::BLOCKS != 0
            && self.kept::<pb::Peer>(&keys::peer(user.id, sender)).is_ok_and(|kept| kept.state.blocked)
    }

    /// The other side of a word about who knows whom: in the receiver's commit.
    pub(super) fn land_word(
        &mut self,
        at: At,
        place: Place,
        sender: u64,
        word: &PeerWord,
    ) -> Result<(), Status> {
        let user = self.users.peek(place).id;
        let state = self.kept::<pb::Peer>(&keys::peer(user, sender))?.state;
        match word {
            PeerWord::Ends { ended, full } if *ended > state.ended => {
                let next = Next { full: *full, ..Next::new(Relation::None, *ended) };
                self.relate(place, sender, next)?;
            }
            // A question to one who blocks is over at once, on both sides.
            PeerWord::Wants { ended, .. } if *ended >= state.ended && state.blocked => {
                self.end(at, place, sender, false)?;
            }
            PeerWord::Wants { ended, hello } if *ended >= state.ended => {
                let mine = if *ended == state.ended { state.relation() } else { Relation::None };
                match mine {
                    // It said yes after this side got its last contact elsewhere: over as well, on both sides.
                    Relation::Asked if self.is_full_of_contacts(user) => {
                        self.end(at, place, sender, true)?;
                    }
                    Relation::Asked | Relation::Contact => {
                        self.relate(place, sender, Next::new(Relation::Contact, *ended))?;
                    }
                    Relation::None | Relation::Asks => {
                        let next = Next { hello: hello.clone(), ..Next::new(Relation::Asks, *ended) };
                        self.relate(place, sender, next)?;
                    }
                }
            }
            // From before an end that this side knows of.
            PeerWord::Ends { .. } | PeerWord::Wants { .. } => {}
        }
        Ok(())
    }

    /// Says how far a conversation was read, and what has arrived.
    pub fn mark(&mut self, at: At, token: u64, user: u64, device: u64, request: &pb::MarkRequest) {
        if request.peer == 0 || request.peer == user {
            return self
                .answer(token, Err(Status::invalid("a conversation is with another user or a group")));
        }
        if !self.admit(token, section_of(user)) || !self.has_room(token, user) {
            return;
        }
        let place = self.user(user);
        let resume = || Resume::Mark { token, user, device, request: *request };
        if !self.users.peek(place).loaded {
            return self.wait(place, Waiting::Resume(resume()));
        }
        if !self.admits_device(token, place, device, resume) {
            return;
        }
        if self.need(&[keys::peer(user, request.peer)], resume()).is_none() {
            return;
        }
        match self.mark_loaded(at, place, request) {
            Ok(true) => self.effect(section_of(user), Effect::Answer { token, answer: Answer::Done }),
            // All of it was said before, perhaps a moment ago.
            Ok(false) => self.answer_from(&keys::peer(user, request.peer), token, Answer::Done),
            Err(status) => self.answer(token, Err(status)),
        }
    }

    /// Whether anything moved forward.
    fn mark_loaded(&mut self, at: At, place: Place, request: &pb::MarkRequest) -> Result<bool, Status> {
        let (user, visible) = (self.users.peek(place).id, self.users.peek(place).visible);
        let pb::MarkRequest { peer, .. } = *request;
        let is_group = peer & GROUP_BIT != 0;
        let mut kept = self.kept::<pb::Peer>(&keys::peer(user, peer))?;
        let before = kept.state.clone();
        let state = &mut kept.state;
        state.peer = peer;
        state.read = state.read.max(request.read.min(visible));
        if !is_group {
            state.read_here = state.read_here.max(request.read_item);
            state.delivered_here = state.delivered_here.max(request.delivered_item).max(state.read_here);
        }
        if (state.read, state.read_here, state.delivered_here)
            == (before.read, before.read_here, before.delivered_here)
        {
            return Ok(false);
        }
        let (delivered, read) = (state.delivered_here, state.read_here);
        let tells = (read, delivered) != (before.read_here, before.delivered_here);
        self.put_kept(place, keys::peer(user, peer), Kind::Peer, peer, kept);
        if tells {
            let task = Task::Receipt { receiver: peer, sender: user, delivered, read };
            self.begin_duty(at, section_of(user), task);
        }
        Ok(true)
    }

    /// A receipt at the one who wrote the messages. It only moves forward, so it needs no memory. Who is blocked, or was
    /// never written to, tells nothing: strangers must not fill a log.
    pub(super) fn land_receipt(
        &mut self,
        place: Place,
        sender: u64,
        delivered: u64,
        read: u64,
    ) -> Result<(), Status> {
        let (user, visible) = (self.users.peek(place).id, self.users.peek(place).visible);
        let kept = self.kept::<pb::Peer>(&keys::peer(user, sender))?.state;
        let is_known =
            || has_told(&kept) || self.may_have_written(user, sender, delivered.max(read), visible);
        if kept.blocked || !is_known() {
            return Ok(());
        }
        let (delivered, read) = (delivered.min(visible), read.min(visible));
        if delivered <= kept.delivered_there && read <= kept.read_there {
            return Ok(());
        }
        self.put_peer(place, sender, |state| {
            state.delivered_there = state.delivered_there.max(delivered);
            state.read_there = state.read_there.max(read);
        })?;
        Ok(())
    }

    /// Whether an item of a user is a message to this peer. Its row is in the hot tail, or `need` has brought it. One
    /// that was swept behind the horizon may have been.
    fn may_have_written(&self, user: u64, peer: u64, item: u64, visible: u64) -> bool {
        let is_gone =
            self.hot.row(user, item).is_none() && self.states.value(&keys::row(user, item)).is_none();
        if is_gone {
            return item <= visible;
        }
        let body = match self.hot.row(user, item) {
            Some(Row { body: RowBody::Own(body), .. }) => Some(body.clone()),
            Some(_) => None,
            None => self.states.value(&keys::row(user, item)).and_then(|value| body_of_row(item, value)),
        };
        body.is_some_and(|body| {
            let is_own = |head: &BodyHead| (head.kind, head.origin, head.item) == (Kind::Message, user, item);
            let message = body.split().ok().filter(|(head, _)| is_own(head));
            message.and_then(|(_, message)| pb::Message::decode(message).ok()).is_some_and(|it| it.to == peer)
        })
    }

    /// What a receipt needs: what is kept of its sender, and for the first one the message that it is for.
    fn receipt_keys(&self, user: u64, sender: u64, item: u64) -> Vec<Key> {
        let mut keys = vec![keys::peer(user, sender)];
        let kept = self.states.is_loaded(&keys[0]).then(|| self.kept::<pb::Peer>(&keys[0]));
        let is_first = kept.is_some_and(|kept| kept.is_ok_and(|kept| !has_told(&kept.state)));
        if is_first && self.hot.row(user, item).is_none() {
            keys.push(keys::row(user, item));
        }
        keys
    }

    /// What must be in memory before it is known whether a user blocks a sender: for most users nothing.
    pub(super) fn block_keys(&self, place: Place, sender: u64) -> Vec<Key> {
        let user = self.users.peek(place);
        if user.marks & mark::BLOCKS == 0 { Vec::new() } else { vec![keys::peer(user.id, sender)] }
    }

    /// What must be in memory before a duty lands on a user: three records at most.
    pub(super) fn duty_keys(&self, place: Place, duty: &Duty) -> Vec<Key> {
        let user = self.users.peek(place);
        let mut keys = match &duty.task {
            Task::User { sender, .. } => self.block_keys(place, *sender),
            Task::Peer { sender, .. } => vec![keys::peer(user.id, *sender), keys::contacts(user.id)],
            Task::Receipt { sender, delivered, read, .. } => {
                self.receipt_keys(user.id, *sender, *delivered.max(read))
            }
            _ => Vec::new(),
        };
        if duty.checks {
            keys.extend(duty.task.memory_key().map(|(key, _)| key));
        }
        keys
    }

    /// Duties to a user whose records were being read. When many wait, the records of many are read at once: a
    /// user whom thousands turn to would hear from one with each read.
    pub(super) fn release(&mut self, at: At, receiver: u64) {
        while let Some(mut held) = self.outbox.held.remove(&receiver) {
            let ahead = held.len().min(limits::HELD_AHEAD);
            let Some(place) = self.users.find(receiver) else {
                return held.into_iter().for_each(|duty| self.deliver(at, duty));
            };
            let mut keys = Vec::new();
            for key in held.iter().take(ahead).flat_map(|duty| self.duty_keys(place, duty)) {
                if !keys.contains(&key) {
                    keys.push(key);
                }
            }
            if self.need(&keys, Resume::Held(receiver)).is_none() {
                self.outbox.held.insert(receiver, held);
                return;
            }
            let behind = held.split_off(ahead);
            self.users.at(place).pins -= 1;
            held.into_iter().for_each(|duty| self.deliver(at, duty));
            if behind.is_empty() {
                return;
            }
            match self.outbox.held.get_mut(&receiver) {
                // One of them waits again, and those behind it wait for it.
                Some(again) => return again.extend(behind),
                None => {
                    self.users.at(place).pins += 1;
                    self.outbox.held.insert(receiver, behind);
                }
            }
        }
    }

    /// What has waited for records for longer than its lifetime goes to the dead letters.
    pub(super) fn end_held(&mut self, at: At, receiver: u64) {
        let Some(held) = self.outbox.held.get_mut(&receiver) else { return };
        let (over, left) = held.drain(..).partition(|duty| duty.is_over(at));
        *held = left;
        let over: VecDeque<Duty> = over;
        over.iter().for_each(|duty| self.dead_letter(duty, TOO_LATE));
    }

    /// Duties whose commit failed go before those to the same user that wait for records: they came first.
    pub(super) fn hold_again(&mut self, failed: &mut Vec<Effect>) {
        for effect in std::mem::take(failed).into_iter().rev() {
            let receiver = match &effect {
                Effect::Delivered(duty) => duty.task.receiver(),
                _ => None,
            };
            match (receiver.and_then(|receiver| self.outbox.held.get_mut(&receiver)), effect) {
                (Some(held), Effect::Delivered(duty)) => {
                    self.aside.note(duty.task.aside());
                    held.push_front(duty);
                }
                (_, effect) => failed.push(effect),
            }
        }
        failed.reverse();
    }

    /// Lets duties to a user wait, in order, until records are read.
    pub(super) fn hold(&mut self, place: Place, keys: &[Key], duty: Duty) -> Option<Duty> {
        let receiver = self.users.peek(place).id;
        if let Some(held) = self.outbox.held.get_mut(&receiver) {
            held.push_back(duty);
            return None;
        }
        if self.need(keys, Resume::Held(receiver)).is_some() {
            return Some(duty);
        }
        self.users.at(place).pins += 1;
        self.outbox.held.insert(receiver, [duty].into());
        None
    }
}

/// Whether a peer has told how far it came: then it was written to.
fn has_told(kept: &pb::Peer) -> bool {
    kept.delivered_there > 0 || kept.read_there > 0
}

/// What a relation to a peer is from now on.
struct Next {
    relation: Relation,
    ended: u64,
    /// It ended because one of them has all the contacts that a user may have.
    full: bool,
    hello: String,
}

impl Next {
    fn new(relation: Relation, ended: u64) -> Self {
        Self { relation, ended, full: false, hello: String::new() }
    }
}
