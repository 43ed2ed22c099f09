//! The phones of one thread: each keeps its user's book, does what the mix says, and repeats what was not answered.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ahash::AHashMap;
use bytes::Bytes;
use prost::Message as _;
use proto_wire::names::GROUP_BIT;
use proto_wire::pb::{self, Relation, change::Body};
use proto_wire::phone::{GapWhy, Phone, PhoneEvent};
use proto_wire::services::{contacts, messages};
use proto_wire::status::Code;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::draw::{Drawer, Drawn};
use super::kinds::Kind;
use super::model::Op;
use super::owner::{Owner, Taken, Wrong};
use super::shared::{ACK, DELIVER, Shared};
use crate::chat::is_final;
use crate::check::Text;
use crate::fleet::{App, Now, Phones};
use crate::limits;
use crate::measure::{Arrival, Arrivals, Tape};

/// What a thread counts.
#[derive(Debug, Default)]
pub struct Tally {
    pub duplicates: u64,
    pub out_of_order: u64,
    pub strange: u64,
    pub gaps: u64,
    pub bad_pages: u64,
    pub repeats: u64,
    pub snapshots: u64,
    pub syncs_failed: u64,
    pub typing_seen: u64,
    pub statuses: BTreeMap<String, u64>,
    pub complaints: Vec<String>,
    pub first_bad: Option<String>,
}

/// A call whose answer has not come.
#[derive(Clone)]
struct Pending {
    what: What,
    intended_us: u64,
    method: u16,
    body: Bytes,
}

#[derive(Clone)]
enum What {
    Mixed(Kind, Op),
    /// Of the set-up.
    Group(usize),
    Ask,
    Accept,
}

/// What is to be done once, before the load.
enum SetUp {
    Group(usize, u32),
    Ask(u32, u32),
}

pub struct Mixers {
    shared: Arc<Shared>,
    lines: Range<u32>,
    pub owners: Vec<Owner>,
    pub tally: Tally,
    pending: AHashMap<(u32, u32), Pending>,
    /// Calls that ended without an answer: when they are made again.
    again: VecDeque<(u64, u32, Pending)>,
    set_up: Vec<SetUp>,
    set_up_out: usize,
    /// Accepts that a page asked for: line and user.
    accepts: Vec<(u32, u64)>,
    static_ids: Vec<u64>,
    random: StdRng,
    /// Of the load, once it has begun.
    arrivals: Option<Arrivals>,
    tape: Tape,
    gather_us: u64,
}

impl Mixers {
    pub fn new(shared: &Arc<Shared>, lines: Range<u32>, seed: u64, gather_us: u64) -> Self {
        let people = &shared.people;
        let owners = lines.clone().map(|line| Owner::new(line, people.of_line(line).0, people)).collect();
        let mut set_up = Vec::new();
        for index in 0..shared.group_ids.len() {
            let (owner, _) = shared.first_members(index);
            if lines.contains(&owner) {
                set_up.push(SetUp::Group(index, owner));
            }
        }
        for user in (0..people.users()).filter(|user| lines.contains(user)) {
            set_up.extend(people.asks_first(user).into_iter().map(|other| SetUp::Ask(user, other)));
        }
        Self {
            shared: shared.clone(),
            owners,
            tally: Tally::default(),
            pending: AHashMap::new(),
            again: VecDeque::new(),
            set_up,
            set_up_out: 0,
            accepts: Vec::new(),
            static_ids: Vec::new(),
            random: StdRng::seed_from_u64(seed ^ u64::from(lines.start)),
            lines,
            arrivals: None,
            tape: Tape::new(&shared.recorder),
            gather_us,
        }
    }

    fn owner(&mut self, line: u32) -> &mut Owner {
        &mut self.owners[(line - self.lines.start) as usize]
    }

    fn call(&mut self, line: u32, machine: &mut Phone, pending: Pending, now: Now) {
        let handle = machine.call(pending.method, pending.body.clone(), 0, true, now.ms());
        self.pending.insert((line, handle.0), pending);
    }

    fn set_up_some(&mut self, phones: &mut Phones<'_>, now: Now) {
        while self.set_up_out < limits::SET_UP_IN_FLIGHT_MAX {
            let next = match self.accepts.pop() {
                Some((line, user)) => (line, What::Accept, user),
                None => match self.set_up.pop() {
                    Some(SetUp::Ask(user, other)) => (user, What::Ask, self.shared.people.who.user(other)),
                    Some(SetUp::Group(index, owner)) => (owner, What::Group(index), 0),
                    None => return,
                },
            };
            let (line, what, user) = next;
            let machine = phones.phone(line);
            let Some(upload) = machine.upload_id(now.ms()) else { continue };
            let id = Bytes::copy_from_slice(&upload.0);
            let (method, body) = match &what {
                What::Ask => {
                    let request = pb::AskRequest { id, user, hello: "hello".to_owned() };
                    (contacts::ASK.id, request.encode_to_vec())
                }
                What::Group(index) => {
                    let (owner, members) = self.shared.first_members(*index);
                    let others = members.iter().filter(|&&member| member != owner);
                    let members = others.map(|&member| self.shared.people.who.user(member)).collect();
                    let request = pb::CreateGroupRequest { id, name: format!("group {index}"), members };
                    (messages::CREATE_GROUP.id, request.encode_to_vec())
                }
                What::Accept | What::Mixed(..) => {
                    (contacts::ACCEPT.id, pb::PeerRequest { id, user }.encode_to_vec())
                }
            };
            self.set_up_out += 1;
            self.call(line, machine, Pending { what, intended_us: now.us, method, body: body.into() }, now);
        }
    }

    fn start_due(&mut self, phones: &mut Phones<'_>, now: Now) {
        let Some(load) = self.shared.load.get().copied() else { return };
        if self.arrivals.is_none() {
            let ids = self.shared.group_ids.iter().map(|id| id.load(Ordering::Relaxed));
            self.static_ids = ids.take(self.shared.people.population.groups().len()).collect();
            let part = self.lines.len() as f64 / f64::from(self.shared.people.lines());
            let (rate, seed) = (load.rate * part, self.random.random());
            self.arrivals = Some(Arrivals::new(Arrival::Poisson, rate, load.from_us, load.until_us, seed));
        }
        for _ in 0..limits::STARTS_OF_A_TURN_MAX {
            // One that was ended early starts nothing more.
            let due = self.arrivals.as_mut().filter(|_| !self.shared.is_over.load(Ordering::Relaxed));
            let Some(intended_us) = due.and_then(|arrivals| arrivals.pop(now.us)) else { return };
            self.start(phones, intended_us, now);
        }
    }

    fn start(&mut self, phones: &mut Phones<'_>, intended_us: u64, now: Now) {
        for _ in 0..limits::DRAWS_MAX {
            let kind = self.shared.weights.draw(&mut self.random);
            for _ in 0..limits::USERS_ASKED_MAX {
                let line = self.random.random_range(self.lines.clone());
                if self.start_at(phones.phone(line), line, kind, intended_us, now) {
                    return;
                }
            }
        }
    }

    /// Whether the line's user can do such a thing, and so does it.
    fn start_at(&mut self, machine: &mut Phone, line: u32, kind: Kind, intended_us: u64, now: Now) -> bool {
        let shared = self.shared.clone();
        let (Some(upload), Some(changing)) = (machine.upload_id(now.ms()), shared.changing.get()) else {
            return false;
        };
        let owner = &self.owners[(line - self.lines.start) as usize];
        let drawer = Drawer {
            people: &shared.people,
            user: owner.user,
            book: &owner.book,
            strangers: &owner.strangers,
            groups: &self.static_ids,
            changing,
            text_bytes: shared.text_bytes,
            now_us: now.us,
            intended_us,
            id: Bytes::copy_from_slice(&upload.0),
        };
        let mut model = shared.model();
        let Some(Drawn { op, method, body }) = drawer.draw(kind, &mut model, &mut self.random) else {
            return false;
        };
        model.sent(kind, &op);
        drop(model);
        self.tape.start(ACK, intended_us, now.us);
        shared.in_flight.fetch_add(1, Ordering::Relaxed);
        let pending = Pending { what: What::Mixed(kind, op), intended_us, method, body };
        self.call(line, machine, pending, now);
        true
    }

    fn repeat_due(&mut self, phones: &mut Phones<'_>, now: Now) {
        for _ in 0..limits::STARTS_OF_A_TURN_MAX {
            if self.again.front().is_none_or(|(due_ms, ..)| *due_ms > now.ms()) {
                break;
            }
            if let Some((_, line, pending)) = self.again.pop_front() {
                self.call(line, phones.phone(line), pending, now);
            }
        }
    }

    fn replied(&mut self, line: u32, pending: Pending, status: Code, body: Bytes, now: Now) {
        let shared = self.shared.clone();
        if status != Code::Ok {
            *self.tally.statuses.entry(status.name().to_owned()).or_default() += 1;
            if !is_final(status) {
                // The same body, so the same id: it is applied once however often it is sent.
                return self.again.push_back((now.ms() + limits::REPEAT_AFTER_MS, line, pending));
            }
        }
        match &pending.what {
            What::Mixed(kind, op) => {
                shared.in_flight.fetch_sub(1, Ordering::Relaxed);
                if status != Code::Ok {
                    let told = String::from_utf8_lossy(&body).into_owned();
                    let user_of = |id| shared.people.who.phone_of(id);
                    return shared.model().refused(*kind, op, status, &told, now.us, user_of);
                }
                // The answers of all writes say their number in one way; a mark's and a notice's have none.
                let number = pb::ChangeReply::decode(body).ok().and_then(|reply| reply.number);
                let number = number.map_or(0, |cursor| cursor.number);
                if number == 0 && !matches!(op, Op::Mark { .. } | Op::Typing) {
                    self.complain(line, "an acknowledgement that names nothing".to_owned());
                }
                shared.model().acknowledged(*kind, op, number, now.us);
                self.tape.done(ACK, pending.intended_us, now.us);
            }
            What::Group(index) => {
                self.set_up_out -= 1;
                let group = pb::CreateGroupReply::decode(body).map_or(0, |reply| reply.group);
                shared.group_ids[*index].store(group, Ordering::Relaxed);
            }
            // A yes that crossed another is answered `exists`.
            What::Ask | What::Accept => self.set_up_out -= 1,
        }
    }

    fn complain(&mut self, line: u32, complaint: String) {
        if self.tally.complaints.len() < limits::COMPLAINTS_MAX {
            self.tally.complaints.push(format!("device {line}: {complaint}"));
        }
    }

    fn page(&mut self, line: u32, page: &pb::Page, snapshot: Option<bool>, now: Now) {
        let shared = self.shared.clone();
        shared.last_page_us.store(now.us, Ordering::Relaxed);
        if snapshot == Some(true) {
            self.owner(line).forget();
        }
        for change in &page.changes {
            self.change(line, change, now);
        }
        if snapshot.is_none() || page.snapshot_next.is_empty() {
            shared.cursors[line as usize].store(page.upto, Ordering::Relaxed);
        }
    }

    fn change(&mut self, line: u32, change: &pb::Change, now: Now) {
        let is_first = line < self.shared.people.users();
        let Taken { is_shown, wrong } = self.owner(line).take(change);
        for (wrong, told) in wrong {
            *match wrong {
                Wrong::Strange => &mut self.tally.strange,
                Wrong::Duplicate => &mut self.tally.duplicates,
                Wrong::OutOfOrder => &mut self.tally.out_of_order,
            } += 1;
            self.complain(line, told);
        }
        match &change.body {
            Some(Body::Message(message)) if is_shown => self.message(line, message, now),
            Some(Body::Group(_)) if is_shown && is_first => {
                self.shared.told_groups.fetch_add(1, Ordering::Relaxed);
            }
            Some(Body::Peer(peer)) if is_shown && is_first => self.peer(line, peer),
            _ => {}
        }
    }

    fn message(&mut self, line: u32, message: &pb::Message, now: Now) {
        let is_first = line < self.shared.people.users();
        if message.from == self.owner(line).book.user() || message.recalled || !is_first {
            return;
        }
        if let Some(text) = Text::parse(&message.text) {
            self.shared.delivered.fetch_add(1, Ordering::Relaxed);
            self.tape.done(DELIVER, text.intended_us, now.us);
        }
    }

    fn peer(&mut self, line: u32, peer: &pb::Peer) {
        if self.shared.load.get().is_some() || peer.peer & GROUP_BIT != 0 {
            return;
        }
        match peer.relation() {
            Relation::Asks => self.accepts.push((line, peer.peer)),
            Relation::Contact => {
                self.shared.told_contacts.fetch_add(1, Ordering::Relaxed);
            }
            Relation::None | Relation::Asked => {}
        }
    }

    fn note_bad(&mut self, line: u32, what: impl std::fmt::Debug) {
        self.tally.first_bad.get_or_insert_with(|| format!("device {line}: {what:?}"));
    }
}

impl App for Mixers {
    type Machine = Phone;

    fn phone(&mut self, line: u32) -> Phone {
        self.shared.people.machine(line)
    }

    fn token(&mut self, line: u32) -> Box<[u8]> {
        let (user, _) = self.shared.people.of_line(line);
        self.shared.people.who.token(user)
    }

    fn event(&mut self, line: u32, _machine: &mut Phone, event: PhoneEvent, now: Now) {
        match event {
            PhoneEvent::Reply { handle, status, body, .. } => {
                if let Some(pending) = self.pending.remove(&(line, handle.0)) {
                    self.replied(line, pending, status, body, now);
                }
            }
            PhoneEvent::Page { page } => self.page(line, &page, None, now),
            PhoneEvent::Snapshot { page, first, .. } => {
                self.tally.snapshots += 1;
                self.page(line, &page, Some(first), now);
            }
            PhoneEvent::Gap { why: GapWhy::Beyond, .. } => self.tally.gaps += 1,
            PhoneEvent::Gap { cursor, log_epoch, after, why } => {
                self.tally.bad_pages += 1;
                self.note_bad(line, (why, cursor, log_epoch, after));
            }
            PhoneEvent::Repeat { changes, .. } => self.tally.repeats += changes as u64,
            PhoneEvent::Notice { .. } => self.tally.typing_seen += 1,
            PhoneEvent::SyncFailed { status, text, retries } => {
                self.tally.syncs_failed += 1;
                if !retries {
                    self.note_bad(line, (status, text));
                }
            }
            _ => {}
        }
    }

    fn turn(&mut self, phones: &mut Phones<'_>, now: Now) -> u64 {
        self.tape.tick(now.us);
        if self.shared.sets_up.load(Ordering::Relaxed) {
            self.set_up_some(phones, now);
        }
        self.repeat_due(phones, now);
        self.start_due(phones, now);
        let next_us = self.arrivals.as_ref().and_then(Arrivals::next_us);
        let next_us = next_us.unwrap_or(now.us + limits::TURN_MS * 1_000);
        next_us.max(now.us + self.gather_us)
    }
}
