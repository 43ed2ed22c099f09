//! Moments: the body lies once, in its author's log. Contacts get a reference; who reads asks the author's
//! side, which knows who is a contact now.

use std::collections::{BTreeMap, VecDeque};

use ahash::AHashMap;
use bytes::Bytes;
use prost::Message as _;
use proto_wire::names::{GROUP_BIT, section_of};
use proto_wire::pb::{self, Relation};
use proto_wire::status::{Code, Status};

use super::api::{Answer, At};
use super::append::Waiting;
use super::aside::TOO_LATE;
use super::core::{Core, Effect, Purpose};
use super::keys::{self, Key};
use super::limits;
use super::outbox::{Duty, Task, body_of_row};
use super::users::Place;
use super::values::{
    Body, BodyHead, Kept, Kind, MomentHead, RowBody, decode_number, decode_said, encode_number,
};
use super::verbs::Resume;
use crate::storage::{Query, ReadError, Rows};

/// Authors whose moments are on their way to their contacts.
#[derive(Default)]
pub(super) struct Moments {
    spreads: AHashMap<u64, Spread>,
}

/// One author's moments on their way, in order; the first is being told.
struct Spread {
    duties: VecDeque<Duty>,
    /// The contacts of the page that is being told.
    page: Vec<u64>,
    /// Where the next page of contacts begins.
    after: u64,
    /// Contacts who may know it already are asked what they remember: after a restart or a failed commit.
    asks: bool,
    more: bool,
    /// Reads, tails or commits of this page that are on their way.
    left: usize,
    /// One of those failed: the page once more when the others are in.
    again: bool,
}

/// A read for a moment's way.
pub(super) enum SpreadRead {
    Contacts,
    /// What these contacts remember of the author.
    Memory(Vec<u64>),
}

impl Core {
    /// One commit: the moment and the duty to tell the contacts.
    pub(super) fn publish(&mut self, at: At, place: Place, mut post: pb::Post) -> Result<u64, Status> {
        let (author, number) = (self.users.peek(place).id, self.users.peek(place).tail + 1);
        post.posted_ms = at.unix_ms;
        let head = BodyHead { deleted: false, kind: Kind::Post, origin: author, item: number, version: 1 };
        self.append(place, RowBody::Own(Body::encode(head, &post)), None);
        self.put_moment(author, number, MomentHead { number, withdrawn: false });
        let task = Task::Moment { author, moment: number, number, withdrawn: false };
        self.begin_duty(at, section_of(author), task);
        Ok(number)
    }

    pub(super) fn withdraw(&mut self, at: At, place: Place, moment: u64) -> Result<u64, Status> {
        let author = self.users.peek(place).id;
        self.moment_head(author, moment)?;
        let body = Body::tombstone(Kind::Post, author, moment, 2, &pb::Post::default());
        let number = self.append(place, RowBody::Own(body), Some((author, moment, 2)));
        self.put_moment(author, moment, MomentHead { number, withdrawn: true });
        let task = Task::Moment { author, moment, number, withdrawn: true };
        self.begin_duty(at, section_of(author), task);
        Ok(number)
    }

    /// One commit: the comment in its writer's log and the duty to bring it to the author's.
    pub(super) fn say(&mut self, at: At, place: Place, mut comment: pb::Comment) -> Result<u64, Status> {
        let (from, number) = (self.users.peek(place).id, self.users.peek(place).tail + 1);
        let pb::Comment { author, post, .. } = comment;
        self.moment_for(from, author, post)?;
        comment.from = from;
        comment.sent_ms = at.unix_ms;
        let head = BodyHead { deleted: false, kind: Kind::Comment, origin: from, item: number, version: 1 };
        let body = Body::encode(head, &comment);
        self.append(place, RowBody::Own(body.clone()), None);
        if author == from {
            self.note_said(author, &body);
        } else {
            let task = Task::User { receiver: author, sender: from, number, body };
            self.begin_duty(at, section_of(from), task);
        }
        Ok(number)
    }

    /// Takes a comment away: by its writer, or by the moment's author.
    pub(super) fn unsay(
        &mut self,
        at: At,
        place: Place,
        author: u64,
        moment: u64,
        from: u64,
        item: u64,
    ) -> Result<u64, Status> {
        let user = self.users.peek(place).id;
        let value =
            self.states.value(&keys::said(author, moment, from, item)).filter(|value| value.len() > 1);
        if value.is_none() {
            return Err(Status::new(Code::NotFound, "there is no such comment"));
        }
        if user != from && user != author {
            return Err(Status::new(
                Code::Denied,
                "only its writer or the moment's author takes a comment away",
            ));
        }
        let rest = pb::Comment { author, post: moment, from, ..Default::default() };
        let body = Body::tombstone(Kind::Comment, from, item, 2, &rest);
        let number = self.append(place, RowBody::Own(body.clone()), Some((from, item, 2)));
        if user == author {
            self.note_said(author, &body);
        }
        let other = if user == author { from } else { author };
        if other != user {
            let task = Task::User { receiver: other, sender: user, number, body };
            self.begin_duty(at, section_of(user), task);
        }
        Ok(number)
    }

    /// Keeps what was said beside the moment, at its author; or takes it away.
    pub(super) fn note_said(&mut self, author: u64, body: &Body) {
        let Ok((head, message)) = body.split() else { return };
        let Ok(comment) = pb::Comment::decode(message) else { return };
        let key = keys::said(author, comment.post, head.origin, head.item);
        let mut value = vec![VERSION];
        if !head.deleted {
            value.extend_from_slice(message);
        }
        self.put_state(key, value);
    }

    /// A moment with what was said to it, if the reader may see it.
    pub fn moment(&mut self, token: u64, reader: u64, request: &pb::GetMomentRequest) {
        let pb::GetMomentRequest { author, post, .. } = *request;
        if let Err(refusal) = super::checks::check_user(author) {
            return self.answer(token, Err(refusal));
        }
        let keys = [keys::peer(author, reader), keys::moment(author, post), keys::row(author, post)];
        let resume = Resume::Moment { token, reader, request: request.clone() };
        if self.need(&keys, resume).is_none() {
            return;
        }
        let found = self.moment_for(reader, author, post).and_then(|moment| {
            let from = match &request.after[..] {
                [] => keys::said(author, post, 0, 0),
                after => next_said(author, post, after)?,
            };
            Ok((moment, from))
        });
        match found {
            Ok((moment, from)) => {
                let query = Query::Scan {
                    from: from.to_vec(),
                    to: keys::said(author, post, u64::MAX, u64::MAX).to_vec(),
                    max_rows: limits::SAID_OF_A_PAGE,
                    max_bytes: limits::SAID_BYTES_OF_A_PAGE,
                    reverse: false,
                };
                let purpose = Purpose::Said { token, post: Box::new(moment) };
                self.read(self.partition(section_of(author)), vec![query], purpose);
            }
            Err(status) => self.answer(token, Err(status)),
        }
    }

    pub(super) fn said_read(&mut self, token: u64, post: pb::Post, answer: Result<Vec<Rows>, ReadError>) {
        let unreadable = |text: String| Status::new(Code::Internal, text);
        let rows = match answer.map(|rows| rows.into_iter().next().unwrap_or_default()) {
            Ok(rows) => rows,
            Err(error) => return self.answer(token, Err(unreadable(error.to_string()))),
        };
        let mut moment = pb::Moment { post: Some(post), ..Default::default() };
        for (key, value) in &rows.rows {
            let Some((from, number)) = said_of_key(key) else { continue };
            match decode_said(value) {
                Ok(Some(comment)) => moment.said.push(pb::Said { from, number, comment: Some(comment) }),
                Ok(None) => {}
                Err(error) => return self.answer(token, Err(unreadable(error.to_string()))),
            }
        }
        if let (true, Some((key, _))) = (rows.more, rows.rows.last()) {
            moment.next = Bytes::copy_from_slice(&key[key.len() - 16..]);
        }
        self.answer(token, Ok(Answer::Moment(moment)));
    }

    /// The moment, if there is one that this reader may see. `need` has brought the three records.
    fn moment_for(&self, reader: u64, author: u64, moment: u64) -> Result<pb::Post, Status> {
        // The same for all that is not to be seen: nobody learns whether it is there.
        let hidden = || Status::new(Code::NotFound, "there is no such moment for you");
        self.moment_head(author, moment).map_err(|_| hidden())?;
        let row = self.states.value(&keys::row(author, moment)).ok_or_else(hidden)?;
        let body = body_of_row(moment, row).ok_or_else(hidden)?;
        let (_, message) = body.split().map_err(|_| hidden())?;
        let mut post = pb::Post::decode(message).map_err(|_| hidden())?;
        if reader != author {
            let kept = self.kept::<pb::Peer>(&keys::peer(author, reader))?.state;
            let may_see = kept.relation() == Relation::Contact && !kept.blocked;
            if !may_see || post.hidden_from.contains(&reader) {
                return Err(hidden());
            }
            post.hidden_from.clear();
        }
        Ok(post)
    }

    /// A moment that is there and was not withdrawn.
    fn moment_head(&self, author: u64, moment: u64) -> Result<MomentHead, Status> {
        let value = self.states.value(&keys::moment(author, moment));
        let head = value.map(|value| MomentHead::decode(value)).transpose();
        match head.map_err(|error| Status::new(Code::Internal, error.to_string()))? {
            Some(head) if !head.withdrawn => Ok(head),
            _ => Err(Status::new(Code::NotFound, "there is no such moment")),
        }
    }

    fn put_moment(&mut self, author: u64, moment: u64, head: MomentHead) {
        let mut value = Vec::new();
        head.encode(&mut value);
        self.put_state(keys::moment(author, moment), value);
    }

    /// Tells an author's contacts of a moment, or of its withdrawal; one at a time, so that they keep their order.
    pub(super) fn spread(&mut self, duty: Duty, asks: bool) {
        let Task::Moment { author, .. } = duty.task else { return };
        if let Some(spread) = self.moments.spreads.get_mut(&author) {
            spread.asks |= asks;
            return spread.duties.push_back(duty);
        }
        let spread = Spread {
            duties: [duty].into(),
            page: Vec::new(),
            after: 0,
            asks,
            more: true,
            left: 0,
            again: false,
        };
        self.moments.spreads.insert(author, spread);
        self.spread_on(author);
    }

    /// The next page of contacts; behind the last the duty is done.
    fn spread_on(&mut self, author: u64) {
        let Some(spread) = self.moments.spreads.get_mut(&author) else { return };
        if spread.more {
            let Some(Task::Moment { moment, .. }) = spread.duties.front().map(|duty| &duty.task) else {
                return;
            };
            let post = Query::Get(keys::row(author, *moment).to_vec());
            let contacts = Query::Scan {
                from: keys::peer(author, spread.after).to_vec(),
                // What is kept of groups lies behind.
                to: keys::peer(author, GROUP_BIT - 1).to_vec(),
                max_rows: limits::CONTACTS_OF_A_PAGE,
                max_bytes: u32::MAX,
                reverse: false,
            };
            let purpose = Purpose::Spread { author, read: SpreadRead::Contacts };
            return self.read(self.partition(section_of(author)), vec![contacts, post], purpose);
        }
        let Some(duty) = spread.duties.pop_front() else { return };
        spread.after = 0;
        spread.more = true;
        let is_last = spread.duties.is_empty();
        if is_last {
            self.moments.spreads.remove(&author);
        }
        self.open(duty.section).delete(&keys::duty(duty.section, duty.sequence));
        self.counters.delivered += 1;
        self.counters.duties -= 1;
        if !is_last {
            self.spread_on(author);
        }
    }

    pub(super) fn spread_read(
        &mut self,
        author: u64,
        read: SpreadRead,
        answer: Result<Vec<Rows>, ReadError>,
    ) {
        let Ok(answer) = answer else {
            let Some(spread) = self.moments.spreads.get_mut(&author) else { return };
            match &read {
                // The page once more when the other reads of it are in: who knows already is left out then.
                SpreadRead::Memory(_) if spread.left > 1 => {
                    spread.left -= 1;
                    spread.again = true;
                }
                _ => self.presence.spread_again.push(author),
            }
            return;
        };
        match read {
            SpreadRead::Contacts => self.contacts_read(author, answer),
            SpreadRead::Memory(asked) => {
                let Some(spread) = self.moments.spreads.get_mut(&author) else { return };
                let Some(number) = spread.duties.front().and_then(Duty::moment_number) else { return };
                let remembers = |rows: &Rows| rows.value().and_then(|value| decode_number(value).ok());
                for (peer, rows) in asked.iter().zip(&answer) {
                    if remembers(rows).is_some_and(|known| known >= number) {
                        spread.page.retain(|other| other != peer);
                    }
                }
                spread.left -= 1;
                if spread.left > 0 {
                    return;
                }
                if std::mem::take(&mut spread.again) {
                    return self.presence.spread_again.push(author);
                }
                self.load_page(author);
            }
        }
    }

    fn contacts_read(&mut self, author: u64, answer: Vec<Rows>) {
        let Some(spread) = self.moments.spreads.get_mut(&author) else { return };
        let [rows, post] = &answer[..] else { return };
        let Some(number) = spread.duties.front().and_then(Duty::moment_number) else { return };
        let hidden_from = hidden_from(post);
        spread.more = rows.more;
        spread.page.clear();
        for (key, value) in &rows.rows {
            let Some(peer) = keys::last_number(key) else { continue };
            spread.after = peer + 1;
            let is_contact = peer != author
                && Kept::<pb::Peer>::decode(value)
                    .is_ok_and(|kept| kept.state.relation() == Relation::Contact && !kept.state.blocked);
            // One that was set aside before a restart has its duty.
            let has_duty = self.aside.holds(peer, author, number);
            if is_contact && !has_duty && !hidden_from.contains(&peer) {
                spread.page.push(peer);
            }
        }
        self.ask_page(author);
    }

    /// Asks the contacts of the page what they remember, when they may know the moment already.
    fn ask_page(&mut self, author: u64) {
        let Some(spread) = self.moments.spreads.get(&author) else { return };
        if !spread.asks || spread.page.is_empty() {
            return self.load_page(author);
        }
        let mut by_partition: BTreeMap<u16, Vec<u64>> = BTreeMap::new();
        for peer in &spread.page {
            by_partition.entry(self.partition(section_of(*peer))).or_default().push(*peer);
        }
        let Some(spread) = self.moments.spreads.get_mut(&author) else { return };
        spread.left = by_partition.len();
        for (partition, asked) in by_partition {
            let queries = asked.iter().map(|peer| Query::Get(keys::seen(*peer, author).to_vec())).collect();
            self.read(partition, queries, Purpose::Spread { author, read: SpreadRead::Memory(asked) });
        }
    }

    /// Brings the tails of the page's contacts. What is for those whose tails cannot be read is set aside first.
    fn load_page(&mut self, author: u64) {
        let Some(spread) = self.moments.spreads.get(&author) else { return };
        let Some(Duty { task: Task::Moment { moment, number, withdrawn, .. }, created_ms, .. }) =
            spread.duties.front()
        else {
            return;
        };
        let (moment, number, withdrawn, created_ms) = (*moment, *number, *withdrawn, *created_ms);
        let (mut left, mut aside) = (0, Vec::new());
        for receiver in spread.page.clone() {
            let place = self.user(receiver);
            if self.aside.has(receiver) || self.aside.is_unreadable(place) {
                aside.push(Task::Reference { receiver, author, moment, number, withdrawn });
            } else if !self.users.peek(place).loaded {
                self.wait(place, Waiting::Spread { author });
                left += 1;
            }
        }
        let Some(spread) = self.moments.spreads.get_mut(&author) else { return };
        spread.left = left;
        if left > 0 {
            return;
        }
        if aside.is_empty() {
            return self.tell_page(author);
        }
        spread.left = 1;
        self.set_aside(author, created_ms, aside);
    }

    /// The duties of those contacts are on disk: the page goes on without them.
    pub(super) fn contacts_set_aside(&mut self, author: u64, receivers: &[u64]) {
        if let Some(spread) = self.moments.spreads.get_mut(&author) {
            spread.page.retain(|peer| !receivers.contains(peer));
        }
        self.contact_loaded(author);
    }

    /// A contact's tail is in memory, or cannot be read.
    pub(super) fn contact_loaded(&mut self, author: u64) {
        let Some(spread) = self.moments.spreads.get_mut(&author) else { return };
        spread.left -= 1;
        if spread.left == 0 {
            // Who was there first may have left memory while another's tail could not be read.
            self.load_page(author);
        }
    }

    /// A row and the memory of it for each contact of the page, in the batches that gather.
    fn tell_page(&mut self, author: u64) {
        let Some(spread) = self.moments.spreads.get_mut(&author) else { return };
        let page = std::mem::take(&mut spread.page);
        let Some(Task::Moment { moment, number, withdrawn, .. }) =
            spread.duties.front().map(|duty| duty.task.clone())
        else {
            return;
        };
        let created_ms = spread.duties.front().map_or(0, |duty| duty.created_ms);
        let mut partitions: Vec<u16> = Vec::new();
        for peer in &page {
            let place = self.user(*peer);
            self.land_reference(place, author, moment, created_ms, withdrawn);
            let mut value = Vec::new();
            encode_number(number, &mut value);
            self.open(section_of(*peer)).put(&keys::seen(*peer, author), &value);
            let partition = self.partition(section_of(*peer));
            if !partitions.contains(&partition) {
                partitions.push(partition);
            }
        }
        let Some(spread) = self.moments.spreads.get_mut(&author) else { return };
        spread.left = partitions.len();
        if page.is_empty() {
            return self.spread_on(author);
        }
        for partition in partitions {
            // Any section of a partition names it.
            self.effect(partition, Effect::Told { author });
        }
        if let Some(spread) = self.moments.spreads.get_mut(&author) {
            spread.page = page;
        }
    }

    /// A contact's row: there is a moment, or it is gone.
    pub(super) fn land_reference(
        &mut self,
        place: Place,
        author: u64,
        moment: u64,
        posted_ms: u64,
        withdrawn: bool,
    ) {
        let later = withdrawn.then_some((author, moment, 2));
        self.append(place, RowBody::Own(reference(author, moment, posted_ms, withdrawn)), later);
    }

    /// A page's rows are on disk in one partition.
    pub(super) fn told(&mut self, author: u64) {
        let Some(spread) = self.moments.spreads.get_mut(&author) else { return };
        spread.left -= 1;
        self.page_told(author);
    }

    /// A commit with rows of the page failed: the page once more, for those who do not have it.
    pub(super) fn told_again(&mut self, author: u64) {
        let Some(spread) = self.moments.spreads.get_mut(&author) else { return };
        spread.left -= 1;
        (spread.asks, spread.again) = (true, true);
        self.page_told(author);
    }

    /// Goes on when all partitions have answered, with the same page if one of them failed.
    fn page_told(&mut self, author: u64) {
        let Some(spread) = self.moments.spreads.get_mut(&author) else { return };
        if spread.left > 0 {
            return;
        }
        if std::mem::take(&mut spread.again) {
            return self.ask_page(author);
        }
        spread.page.clear();
        self.spread_on(author);
    }

    /// The disk could not be read before: the page once more.
    pub(super) fn spread_again(&mut self, at: At) {
        for author in std::mem::take(&mut self.presence.spread_again) {
            let Some(spread) = self.moments.spreads.get_mut(&author) else { continue };
            spread.again = false;
            if let Some(duty) = spread.duties.front().filter(|duty| duty.is_over(at)).cloned() {
                // The next one begins anew.
                (spread.more, spread.after) = (true, 0);
                spread.page.clear();
                spread.duties.pop_front();
                let is_last = spread.duties.is_empty();
                self.dead_letter(&duty, TOO_LATE);
                if is_last {
                    self.moments.spreads.remove(&author);
                    continue;
                }
                self.spread_on(author);
                continue;
            }
            if spread.page.is_empty() { self.spread_on(author) } else { self.ask_page(author) }
        }
    }
}

const VERSION: u8 = 1;

/// What a contact's log has of a moment.
fn reference(author: u64, moment: u64, posted_ms: u64, withdrawn: bool) -> Body {
    let message = pb::PostRef { from: author, posted_ms };
    if withdrawn {
        return Body::tombstone(Kind::PostRef, author, moment, 2, &message);
    }
    let head = BodyHead { deleted: false, kind: Kind::PostRef, origin: author, item: moment, version: 1 };
    Body::encode(head, &message)
}

/// Who shall not hear of a moment, from the row that published it.
fn hidden_from(row: &Rows) -> Vec<u64> {
    let Some((key, value)) = row.rows.first() else { return Vec::new() };
    let body = keys::last_number(key).and_then(|number| body_of_row(number, value));
    let post = body.and_then(|body| pb::Post::decode(body.split().ok()?.1).ok());
    post.map_or(Vec::new(), |post| post.hidden_from)
}

fn said_of_key(key: &[u8]) -> Option<(u64, u64)> {
    let (rest, number) = key.split_last_chunk::<8>()?;
    Some((u64::from_be_bytes(*rest.last_chunk()?), u64::from_be_bytes(*number)))
}

/// The key behind the one that a page ended with.
fn next_said(author: u64, moment: u64, after: &[u8]) -> Result<Key, Status> {
    let (from, number) = (after.len() == 16)
        .then(|| said_of_key(after))
        .flatten()
        .ok_or_else(|| Status::invalid("this place is not ours"))?;
    let (from, number) = match number.checked_add(1) {
        Some(number) => (from, number),
        None => (from.saturating_add(1), 0),
    };
    Ok(keys::said(author, moment, from, number))
}
