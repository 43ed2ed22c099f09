//! The phones of one thread: they say what the schedule tells, repeat what was not answered, and tell the checker what
//! came.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use ahash::AHashMap;
use bytes::Bytes;
use prost::Message;
use proto_wire::names::GROUP_BIT;
use proto_wire::pb;
use proto_wire::phone::{GapWhy, Phone, PhoneEvent};
use proto_wire::services::messages;
use proto_wire::status::Code;

use crate::check::{Checker, Delivery, Text};
use crate::fleet::{App, Now, Phones};
use crate::identity::Identities;
use crate::limits;
use crate::measure::{Arrival, Arrivals, Op, Recorder, Tape};
use crate::workload::{Destination, Population, Schedule, Start};

/// What is measured of a message.
pub const ACK: Op = 0;
pub const DELIVER: Op = 1;
pub const OPERATIONS: [&str; 2] = ["ack", "deliver"];

/// A load: every thread makes its part of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Load {
    /// Counts loads; 0 is none.
    pub number: u64,
    pub rate: f64,
    pub from_us: u64,
    pub until_us: u64,
    pub arrival: Arrival,
    pub seed: u64,
}

/// What all threads share with the conductor.
pub struct Shared {
    pub population: Arc<Population>,
    pub text_bytes: usize,
    pub recorder: Arc<Recorder>,
    pub checker: Mutex<Checker>,
    pub load: Mutex<Load>,
    pub next_id: AtomicU32,
    pub make_groups: AtomicBool,
    /// The id of each group, 0 until it is made.
    pub group_ids: Vec<AtomicU64>,
    /// Known once all are made.
    pub group_of_id: OnceLock<AHashMap<u64, u32>>,
    /// How often a member was told of a group it is in.
    pub group_states: AtomicU64,
    /// Messages that the server refused for good.
    pub refused: AtomicU64,
    pub tally: Mutex<Tally>,
}

/// What the phones of a thread counted, given when the thread ends.
#[derive(Debug, Default)]
pub struct Tally {
    /// Pages or inline changes that began beyond the phone's cursor.
    pub gaps: u64,
    /// Other pages that did not fit.
    pub bad_pages: u64,
    pub first_bad: Option<String>,
    /// Changes under a number that the phone had.
    pub repeats: u64,
    pub snapshots: u64,
    pub syncs_failed: u64,
    /// Answers other than `ok`, by status. Each led to a repetition with the same id, or is in `refused`.
    pub statuses: BTreeMap<String, u64>,
}

impl Shared {
    pub fn new(population: Arc<Population>, recorder: Arc<Recorder>, run: u32, text_bytes: usize) -> Self {
        Self {
            group_ids: population.groups().iter().map(|_| AtomicU64::new(0)).collect(),
            recorder,
            checker: Mutex::new(Checker::new(population.clone(), run)),
            population,
            text_bytes,
            load: Mutex::default(),
            next_id: AtomicU32::new(0),
            make_groups: AtomicBool::new(false),
            group_of_id: OnceLock::new(),
            group_states: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            tally: Mutex::default(),
        }
    }

    pub fn checker(&self) -> MutexGuard<'_, Checker> {
        // A thread that panicked while it held it ends the run; the figures are then of no use, but readable.
        self.checker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a load, and with it a phase of the checker.
    pub fn begin(&self, load: Load) {
        self.checker().begin_phase(self.next_id.load(Ordering::Relaxed));
        let mut current = self.load.lock().unwrap_or_else(PoisonError::into_inner);
        *current = Load { number: current.number + 1, ..load };
    }

    /// Ends the load early: what has not started never does.
    pub fn end(&self) {
        let mut current = self.load.lock().unwrap_or_else(PoisonError::into_inner);
        *current = Load { number: current.number + 1, rate: 0.0, ..*current };
    }
}

/// What is yet to be told to the checker.
enum Observation {
    Sent { id: u32, sender: u32, to: Destination },
    Acknowledged { id: u32, item: u64, intended_us: u64, at_us: u64 },
    Delivered { delivery: Delivery, at_us: u64 },
    Strange { receiver: u32, what: &'static str },
}

/// A call whose answer has not come, with all that its repetition needs.
#[derive(Clone)]
struct Pending {
    what: What,
    method: u16,
    body: Bytes,
}

#[derive(Clone, Copy)]
enum What {
    Message { id: u32, intended_us: u64 },
    Group { index: u32 },
}

pub struct Talkers {
    who: Identities,
    shared: Arc<Shared>,
    phones: Range<u32>,
    load_number: u64,
    schedule: Option<Schedule>,
    /// By phone and handle.
    pending: AHashMap<(u32, u32), Pending>,
    /// Calls that ended without an answer: when they are made again.
    again: VecDeque<(u64, u32, Pending)>,
    /// Groups whose owners are here and that are not asked for yet.
    groups: Vec<u32>,
    groups_in_flight: usize,
    observations: Vec<Observation>,
    gather_us: u64,
    tape: Tape,
    tally: Tally,
}

impl Talkers {
    pub fn new(who: &Identities, shared: &Arc<Shared>, phones: Range<u32>, gather_us: u64) -> Self {
        let all = shared.population.groups().iter().enumerate();
        let groups =
            all.filter(|(_, group)| phones.contains(&group.owner)).map(|(at, _)| at as u32).collect();
        Self {
            who: who.clone(),
            shared: shared.clone(),
            phones,
            load_number: 0,
            schedule: None,
            pending: AHashMap::new(),
            again: VecDeque::new(),
            groups,
            groups_in_flight: 0,
            observations: Vec::new(),
            gather_us,
            tape: Tape::new(&shared.recorder),
            tally: Tally::default(),
        }
    }

    fn take_load(&mut self) {
        let load = *self.shared.load.lock().unwrap_or_else(PoisonError::into_inner);
        if load.number != self.load_number {
            self.load_number = load.number;
            if load.rate == 0.0 {
                self.schedule = None;
                return;
            }
            let population = self.shared.population.clone();
            let part = self.phones.len() as f64 / f64::from(population.phones());
            let seed = load.seed ^ u64::from(self.phones.start);
            let arrivals = Arrivals::new(load.arrival, load.rate * part, load.from_us, load.until_us, !seed);
            self.schedule = Some(Schedule::new(population, self.phones.clone(), arrivals, seed));
        }
    }

    fn start_due(&mut self, phones: &mut Phones<'_>, now: Now) {
        for _ in 0..limits::STARTS_OF_A_TURN_MAX {
            let Some(start) = self.schedule.as_mut().and_then(|schedule| schedule.pop(now.us)) else { break };
            self.start(&start, phones.phone(start.sender), now);
        }
    }

    fn start(&mut self, start: &Start, machine: &mut Phone, now: Now) {
        let Start { intended_us, sender, to } = *start;
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let Some(upload) = machine.upload_id(now.ms()).filter(|_| id < limits::MESSAGES_MAX) else {
            return self.tape.dropped(ACK, intended_us, 1);
        };
        self.tape.start(ACK, intended_us, now.us);
        let text = Text { run: self.who.run, sender, id, intended_us };
        let request = pb::SendRequest {
            id: Bytes::copy_from_slice(&upload.0),
            to: match to {
                Destination::Phone(phone) => self.who.user(phone),
                Destination::Group(group) => self.shared.group_ids[group as usize].load(Ordering::Relaxed),
            },
            text: text.write(self.shared.text_bytes),
            wants_page: true,
            ..Default::default()
        };
        self.observations.push(Observation::Sent { id, sender, to });
        let what = What::Message { id, intended_us };
        let body = request.encode_to_vec().into();
        self.call(sender, machine, Pending { what, method: messages::SEND.id, body }, now);
    }

    fn call(&mut self, phone: u32, machine: &mut Phone, pending: Pending, now: Now) {
        let handle = machine.call(pending.method, pending.body.clone(), 0, true, now.ms());
        self.pending.insert((phone, handle.0), pending);
    }

    fn make_groups(&mut self, phones: &mut Phones<'_>, now: Now) {
        while self.groups_in_flight < limits::GROUPS_IN_FLIGHT_MAX {
            let Some(index) = self.groups.pop() else { break };
            let population = self.shared.population.clone();
            let group = &population.groups()[index as usize];
            let machine = phones.phone(group.owner);
            let Some(upload) = machine.upload_id(now.ms()) else { continue };
            let others = group.members.iter().filter(|&&member| member != group.owner);
            let request = pb::CreateGroupRequest {
                id: Bytes::copy_from_slice(&upload.0),
                name: format!("group {index}"),
                members: others.map(|&member| self.who.user(member)).collect(),
            };
            let body = request.encode_to_vec().into();
            let what = What::Group { index };
            self.groups_in_flight += 1;
            self.call(group.owner, machine, Pending { what, method: messages::CREATE_GROUP.id, body }, now);
        }
    }

    fn replied(&mut self, phone: u32, pending: Pending, status: Code, body: Bytes, now: Now) {
        if status == Code::Ok {
            let understood = match pending.what {
                What::Message { id, intended_us } => pb::SendReply::decode(body).is_ok_and(|reply| {
                    let item = reply.number.map_or(0, |cursor| cursor.number);
                    let at_us = now.us;
                    self.observations.push(Observation::Acknowledged { id, item, intended_us, at_us });
                    item != 0
                }),
                What::Group { index } => pb::CreateGroupReply::decode(body).is_ok_and(|reply| {
                    self.shared.group_ids[index as usize].store(reply.group, Ordering::Relaxed);
                    self.groups_in_flight -= 1;
                    reply.group & GROUP_BIT != 0
                }),
            };
            if !understood {
                let what = "an acknowledgement that names nothing";
                self.observations.push(Observation::Strange { receiver: phone, what });
            }
            return;
        }
        *self.tally.statuses.entry(status.name().to_owned()).or_default() += 1;
        if is_final(status) {
            self.shared.refused.fetch_add(1, Ordering::Relaxed);
            let text = String::from_utf8_lossy(&body).into_owned();
            self.tally
                .first_bad
                .get_or_insert_with(|| format!("phone {phone} was refused: {status:?}: {text}"));
        } else {
            // The same body, so the same id: it is applied once however often it is sent.
            self.again.push_back((now.ms() + limits::REPEAT_AFTER_MS, phone, pending));
        }
    }

    fn repeat_due(&mut self, phones: &mut Phones<'_>, now: Now) {
        for _ in 0..limits::STARTS_OF_A_TURN_MAX {
            if self.again.front().is_none_or(|(due_ms, ..)| *due_ms > now.ms()) {
                break;
            }
            if let Some((_, phone, pending)) = self.again.pop_front() {
                self.call(phone, phones.phone(phone), pending, now);
            }
        }
    }

    fn page(&mut self, receiver: u32, page: pb::Page, now: Now) {
        for change in page.changes {
            let item = change.item.unwrap_or_default();
            match change.body {
                Some(pb::change::Body::Message(message)) => self.message(receiver, item, &message, now),
                Some(pb::change::Body::Group(_)) => {
                    self.shared.group_states.fetch_add(1, Ordering::Relaxed);
                }
                _ => {
                    let what = "a change that no phone of the bench made";
                    self.observations.push(Observation::Strange { receiver, what });
                }
            }
        }
    }

    fn message(&mut self, receiver: u32, item: pb::ItemId, message: &pb::Message, now: Now) {
        let Some(text) = Text::parse(&message.text) else {
            let what = "a text that no phone of the bench wrote";
            return self.observations.push(Observation::Strange { receiver, what });
        };
        let to = if message.to & GROUP_BIT != 0 {
            let groups = self.shared.group_of_id.get();
            groups.and_then(|groups| groups.get(&message.to)).map(|&group| Destination::Group(group))
        } else {
            self.who.phone_of(message.to).map(Destination::Phone)
        };
        let origin = self.who.phone_of(item.origin).filter(|_| item.origin == message.from);
        let delivery =
            Delivery { receiver, origin, item: item.number, text, to, group_number: message.group_number };
        self.observations.push(Observation::Delivered { delivery, at_us: now.us });
    }

    fn note_bad(&mut self, phone: u32, what: impl std::fmt::Debug) {
        self.tally.first_bad.get_or_insert_with(|| format!("phone {phone}: {what:?}"));
    }

    /// Tells the checker, before anything of this turn leaves: so no message is delivered before it was sent.
    fn report(&mut self) {
        if self.observations.is_empty() {
            return;
        }
        let mut checker = self.shared.checker();
        for observation in self.observations.drain(..) {
            match observation {
                Observation::Sent { id, sender, to } => checker.sent(id, sender, to),
                Observation::Acknowledged { id, item, intended_us, at_us } => {
                    checker.acknowledged(id, item);
                    self.tape.done(ACK, intended_us, at_us);
                }
                Observation::Delivered { delivery, at_us } => {
                    if checker.delivered(&delivery) {
                        self.tape.done(DELIVER, delivery.text.intended_us, at_us);
                    }
                }
                Observation::Strange { receiver, what } => checker.strange(receiver, what),
            }
        }
    }
}

impl App for Talkers {
    type Machine = Phone;

    fn phone(&mut self, phone: u32) -> Phone {
        self.who.machine(phone)
    }

    fn token(&mut self, phone: u32) -> Box<[u8]> {
        self.who.token(phone)
    }

    fn event(&mut self, phone: u32, _machine: &mut Phone, event: PhoneEvent, now: Now) {
        match event {
            PhoneEvent::Reply { handle, status, body, .. } => {
                if let Some(pending) = self.pending.remove(&(phone, handle.0)) {
                    self.replied(phone, pending, status, body, now);
                }
            }
            PhoneEvent::Page { page } => self.page(phone, page, now),
            PhoneEvent::Snapshot { page, .. } => {
                self.tally.snapshots += 1;
                self.page(phone, page, now);
            }
            PhoneEvent::Gap { why: GapWhy::Beyond, .. } => self.tally.gaps += 1,
            PhoneEvent::Gap { cursor, log_epoch, after, why } => {
                self.tally.bad_pages += 1;
                self.note_bad(phone, (why, cursor, log_epoch, after));
            }
            PhoneEvent::Repeat { changes, .. } => self.tally.repeats += changes as u64,
            PhoneEvent::SyncFailed { status, text, retries } => {
                self.tally.syncs_failed += 1;
                if !retries {
                    self.note_bad(phone, (status, text));
                }
            }
            _ => {}
        }
    }

    fn turn(&mut self, phones: &mut Phones<'_>, now: Now) -> u64 {
        self.tape.tick(now.us);
        self.take_load();
        if self.shared.make_groups.load(Ordering::Relaxed) {
            self.make_groups(phones, now);
        }
        self.repeat_due(phones, now);
        self.start_due(phones, now);
        self.report();
        let next_us = self.schedule.as_ref().and_then(Schedule::next_us).unwrap_or(u64::MAX);
        // What is due within the gathering leaves in one turn; its latency counts from its own time all the same.
        next_us.max(now.us + self.gather_us)
    }
}

/// Gives what it has counted when its thread ends.
impl Drop for Talkers {
    fn drop(&mut self) {
        self.report();
        let own = std::mem::take(&mut self.tally);
        let mut all = self.shared.tally.lock().unwrap_or_else(PoisonError::into_inner);
        all.gaps += own.gaps;
        all.bad_pages += own.bad_pages;
        all.repeats += own.repeats;
        all.snapshots += own.snapshots;
        all.syncs_failed += own.syncs_failed;
        all.first_bad = all.first_bad.take().or(own.first_bad);
        for (status, count) in own.statuses {
            *all.statuses.entry(status).or_default() += count;
        }
    }
}

/// Whether sending it again would end the same way.
pub(crate) fn is_final(status: Code) -> bool {
    matches!(
        status,
        Code::Invalid
            | Code::Denied
            | Code::NotFound
            | Code::Conflict
            | Code::Exists
            | Code::UnknownMethod
            | Code::Limit
            | Code::Expired
    )
}
