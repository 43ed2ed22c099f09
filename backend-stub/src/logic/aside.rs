//! A log that cannot be read holds up nobody else. What a group or an author has for it becomes a duty of its own,
//! set aside: on disk before the others get theirs, it waits for that log alone, and goes to the dead letters after
//! its lifetime as any other.
//!
//! Order holds: while a receiver has something set aside that is not in a batch yet, what comes after it from a group
//! or an author is set aside too. A group's duty set aside begins when its message has landed at all the others, since a
//! section's copy of the body is the memory that it has.

use std::collections::BTreeSet;

use ahash::AHashMap;
use proto_wire::names::{GROUP_BIT, section_of};
use proto_wire::status::{Code, Status};

use super::api::{Action, At};
use super::append::Waiting;
use super::core::{Core, Effect};
use super::duty::StoredDuty;
use super::keys::{self, Key};
use super::limits;
use super::outbox::{Duty, Task};
use super::users::Place;
use super::values::decode_number;

#[derive(Default)]
pub(super) struct Aside {
    /// Users whose tail could not be read.
    unreadable: AHashMap<Place, Unreadable>,
    /// When each of them is read again; not those that are being read.
    due: BTreeSet<(u64, Place)>,
    /// What is set aside and in no batch of its receiver yet: for whom, then from which group or author under which
    /// number.
    waiting: AHashMap<u64, Vec<(u64, u64)>>,
}

struct Unreadable {
    tries: u32,
    due_ms: u64,
}

impl Aside {
    pub fn is_unreadable(&self, place: Place) -> bool {
        self.unreadable.contains_key(&place)
    }

    pub fn unreadable(&self) -> usize {
        self.unreadable.len()
    }

    /// Whether something waits for this receiver that must come first.
    pub fn has(&self, receiver: u64) -> bool {
        self.waiting.contains_key(&receiver)
    }

    /// Whether a receiver is to get this by a duty of its own.
    pub fn holds(&self, receiver: u64, source: u64, number: u64) -> bool {
        self.waiting.get(&receiver).is_some_and(|of| of.contains(&(source, number)))
    }

    /// Takes note of a duty that is set aside, as `Task::aside` names it; of others it does not.
    pub fn note(&mut self, duty: Option<(u64, u64, u64)>) {
        let Some((receiver, source, number)) = duty else { return };
        let of = self.waiting.entry(receiver).or_default();
        if !of.contains(&(source, number)) {
            of.push((source, number));
        }
    }

    /// It is in a batch, or a dead letter.
    pub fn forget(&mut self, duty: Option<(u64, u64, u64)>) {
        let Some((receiver, source, number)) = duty else { return };
        let Some(of) = self.waiting.get_mut(&receiver) else { return };
        of.retain(|known| *known != (source, number));
        if of.is_empty() {
            self.waiting.remove(&receiver);
        }
    }

    /// Reads that are due, a bounded number of them.
    fn take_due(&mut self, now_ms: u64) -> Vec<Place> {
        let mut places = Vec::new();
        while let Some(first) = self.due.first().copied().filter(|(due_ms, _)| *due_ms <= now_ms)
            && places.len() < limits::READ_AGAIN
        {
            self.due.remove(&first);
            places.push(first.1);
        }
        places
    }
}

impl Core {
    /// Calls are told, groups and authors go on without this user; what is for it alone waits for another try, and
    /// goes to the dead letters after its time.
    pub(super) fn tail_unreadable(&mut self, at: At, place: Place, why: &str) {
        let user = self.users.peek(place).id;
        let known = self.aside.unreadable.entry(place).or_insert(Unreadable { tries: 0, due_ms: 0 });
        let wait_ms = (limits::SWEEP_STEP_MS << known.tries.min(16)).min(limits::READ_AGAIN_MS);
        known.due_ms = at.now_ms + wait_ms;
        self.aside.due.insert((known.due_ms, place));
        let is_new = known.tries == 0;
        known.tries = known.tries.saturating_add(1);
        if is_new {
            let text = format!("the log of user {user} cannot be read: {why}; what others have for it waits");
            self.actions.push_back(Action::Log(text));
        }
        let broken = || Status::new(Code::Internal, format!("the log of user {user} cannot be read"));
        for what in self.waiting.remove(&place).unwrap_or_default() {
            match what {
                Waiting::Send { token, .. }
                | Waiting::CreateGroup { token, .. }
                | Waiting::Upload { token, .. }
                | Waiting::Pull { token, .. } => self.answer(token, Err(broken())),
                Waiting::Resume(resume) => self.resume_refused(resume, broken()),
                Waiting::Report { report, online } => self.session_looked_up(report, &online, None),
                Waiting::Fanout { group } => self.member_loaded(at, group),
                Waiting::Spread { author } => self.contact_loaded(author),
                Waiting::Deliver(duty) if duty.is_over(at) => self.dead_letter(&duty, TOO_LATE),
                what @ Waiting::Deliver(_) => self.waiting.entry(place).or_default().push_back(what),
            }
        }
    }

    /// Its tail was read.
    pub(super) fn tail_readable(&mut self, place: Place) {
        if self.aside.unreadable.remove(&place).is_some() {
            let text = format!("the log of user {} can be read again", self.users.peek(place).id);
            self.actions.push_back(Action::Log(text));
        }
    }

    /// A call came for a user whose log could not be read, and is not to wait for that log's turn.
    pub(super) fn look_again(&mut self, place: Place) {
        let Some(known) = self.aside.unreadable.get(&place) else { return };
        if self.aside.due.remove(&(known.due_ms, place)) {
            self.to_load.push(place);
        }
    }

    /// Logs that could not be read before: once more.
    pub(super) fn load_again(&mut self, at: At) {
        let mut due = self.aside.take_due(at.now_ms);
        self.to_load.append(&mut due);
        self.counters.unreadable_logs = self.aside.unreadable() as u64;
        self.counters.set_aside = self.aside.waiting.values().map(|of| of.len() as u64).sum();
    }

    /// Too much waits for a log that cannot be read: no more of it is kept in memory.
    pub(super) fn is_overfull(&self, place: Place) -> bool {
        self.aside.is_unreadable(place)
            && self.waiting.get(&place).is_some_and(|queue| queue.len() >= limits::MAX_WAITING_UNREADABLE)
    }

    /// Writes what some receivers of a group or an author are to get as duties of their own. The source goes on once
    /// they are on disk.
    pub(super) fn set_aside(&mut self, source: u64, created_ms: u64, tasks: Vec<Task>) {
        let section = section_of(source);
        let mut duties = Vec::with_capacity(tasks.len());
        for task in tasks {
            let stored = StoredDuty { created_ms, task: task.stored() };
            let sequence = self.put_duty(section, &stored);
            self.aside.note(task.aside());
            duties.push(Duty { section, sequence, created_ms, checks: false, task });
        }
        self.effect(section, Effect::SetAside { source, duties });
    }

    pub(super) fn aside_committed(&mut self, at: At, source: u64, duties: Vec<Duty>) {
        if source & GROUP_BIT != 0 {
            return self.members_set_aside(at, source, duties);
        }
        let receivers: Vec<u64> = duties.iter().filter_map(|duty| duty.task.receiver()).collect();
        duties.into_iter().for_each(|duty| self.deliver(at, duty));
        self.contacts_set_aside(source, &receivers);
    }

    pub(super) fn aside_void(&mut self, duties: &[Duty]) {
        self.counters.duties -= duties.len() as u64;
        duties.iter().for_each(|duty| self.aside.forget(duty.task.aside()));
    }

    /// Whether the receiver remembers what a duty brings. `need` has brought the memory.
    pub(super) fn has_landed(&self, duty: &Duty) -> bool {
        let memory =
            duty.task.memory_key().and_then(|(key, number)| Some((self.states.value(&key)?, number)));
        memory.is_some_and(|(value, number)| decode_number(value).is_ok_and(|known| known >= number))
    }
}

/// Why a duty ends without having landed.
pub(super) const TOO_LATE: &str = "it could not be delivered in 7 days";

impl Duty {
    /// Its lifetime has passed.
    pub fn is_over(&self, at: At) -> bool {
        self.created_ms + limits::DUTY_LIFETIME_MS < at.unix_ms
    }
}

impl Task {
    /// Of what is set aside: receiver, group or author, and the number there.
    pub fn aside(&self) -> Option<(u64, u64, u64)> {
        match self {
            Task::Member { receiver, group, number, .. } => Some((*receiver, *group, *number)),
            Task::Reference { receiver, author, number, .. } => Some((*receiver, *author, *number)),
            _ => None,
        }
    }

    /// Where a receiver remembers what came from an origin, and the number that it has then.
    pub fn memory_key(&self) -> Option<(Key, u64)> {
        match self {
            Task::User { receiver, sender, number, .. } | Task::Peer { receiver, sender, number, .. } => {
                Some((keys::origin(section_of(*receiver), *receiver, *sender), *number))
            }
            Task::Member { receiver, group, number, .. } => {
                Some((keys::origin(section_of(*receiver), *receiver, *group), *number))
            }
            Task::Reference { receiver, author, number, .. } => {
                Some((keys::seen(*receiver, *author), *number))
            }
            Task::Group { .. } | Task::Create { .. } | Task::Receipt { .. } | Task::Moment { .. } => None,
        }
    }
}
