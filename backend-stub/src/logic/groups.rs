//! A group numbers its messages in its home section; all members see that order.

use std::collections::VecDeque;
use std::sync::Arc;

use ahash::AHashMap;
use prost::Message as _;
use proto_wire::names::{GROUP_BIT, section_of};
use proto_wire::pb;
use proto_wire::random::Random;
use proto_wire::status::{Code, Status};

use super::api::At;
use super::append::Waiting;
use super::aside::TOO_LATE;
use super::checks::too_many_members;
use super::core::{Core, Effect, Purpose};
use super::duty::{StoredDuty, StoredTask};
use super::outbox::{Duty, Fanout, Task};
use super::recall::is_taken_back;
use super::users::Place;
use super::values::{Body, BodyHead, GroupMeta, Kind, RowBody};
use super::verbs::{Begin, Resume, Verb};
use super::{keys, limits};
use crate::storage::{Query, ReadError, Rows};

pub(super) struct Groups {
    groups: AHashMap<u64, Group>,
    /// Ids come from it.
    random: Random,
}

/// A group whose messages pass.
#[derive(Default)]
struct Group {
    loading: bool,
    loaded: bool,
    /// The last number given.
    tail: u64,
    members: Option<Members>,
    /// Duties and calls that wait until the group was read.
    waiting: VecDeque<Waits>,
    /// Numbered messages whose members are not all in memory yet, in order.
    fanouts: VecDeque<Fanout>,
    /// Members whose tails are being read for the first of them.
    members_loading: u32,
    /// Duties of its members that are on their way to the disk.
    setting_aside: bool,
    touched: u16,
}

enum Waits {
    Duty(Duty),
    Call(Resume),
}

#[derive(Clone)]
struct Members {
    meta: Arc<GroupMeta>,
    /// By section, so that what one section needs comes together.
    ids: Arc<[u64]>,
}

impl Members {
    fn new(meta: Arc<GroupMeta>) -> Self {
        let ids = by_section(&meta.members);
        Self { meta, ids }
    }

    fn has(&self, user: u64) -> bool {
        self.ids.binary_search_by_key(&(section_of(user), user), |&id| (section_of(id), id)).is_ok()
    }
}

pub(super) fn by_section(members: &[u64]) -> Arc<[u64]> {
    let mut ids = members.to_vec();
    ids.sort_unstable_by_key(|&id| (section_of(id), id));
    ids.into()
}

impl Groups {
    pub fn new(seed: u64) -> Self {
        Self { groups: AHashMap::new(), random: Random::new(seed) }
    }

    /// 63 random bits.
    pub fn fresh_id(&mut self) -> u64 {
        self.random.next() | GROUP_BIT
    }

    /// Groups that nobody wrote to for long leave memory.
    pub fn sweep(&mut self, sweep: u16, max_age: u16) {
        self.groups.retain(|_, group| {
            group.loading
                || !group.waiting.is_empty()
                || !group.fanouts.is_empty()
                || sweep.wrapping_sub(group.touched) < max_age
        });
    }
}

impl Core {
    pub(super) fn deliver_to_group(&mut self, at: At, id: u64, duty: Duty) {
        let group = self.groups.groups.entry(id).or_default();
        group.touched = self.presence.sweep();
        if group.loaded {
            return self.apply_to_group(at, id, duty);
        }
        group.waiting.push_back(Waits::Duty(duty));
        if !group.loading {
            group.loading = true;
            self.read_group(id);
        }
    }

    pub(super) fn is_group_loaded(&self, id: u64) -> bool {
        self.groups.groups.get(&id).is_some_and(|group| group.loaded)
    }

    /// Gives the continuation back when the group is in memory; else it is taken up once it is.
    pub(super) fn need_group(&mut self, id: u64, resume: Resume) -> Option<Resume> {
        let sweep = self.presence.sweep();
        let group = self.groups.groups.entry(id).or_default();
        group.touched = sweep;
        if group.loaded {
            return Some(resume);
        }
        if group.waiting.len() >= limits::MAX_WAITING {
            let refusal = Status::new(Code::Overloaded, "too many calls wait for this group");
            self.resume_refused(resume, refusal);
            return None;
        }
        group.waiting.push_back(Waits::Call(resume));
        if !group.loading {
            group.loading = true;
            self.read_group(id);
        }
        None
    }

    /// A group as it is now, if this user is a member. `need_group` has brought it.
    pub(super) fn group_of(&self, id: u64, user: u64) -> Result<&Arc<GroupMeta>, Status> {
        let members = self.groups.groups.get(&id).and_then(|group| group.members.as_ref());
        let members = members.ok_or_else(|| Status::new(Code::NotFound, "there is no such group"))?;
        if !members.has(user) {
            return Err(Status::new(Code::Denied, "only members write to a group"));
        }
        Ok(&members.meta)
    }

    fn read_group(&mut self, id: u64) {
        let section = section_of(id);
        let last = |from: &[u8], to: &[u8]| Query::Scan {
            from: from.to_vec(),
            to: to.to_vec(),
            max_rows: 1,
            max_bytes: u32::MAX,
            reverse: true,
        };
        let queries = vec![
            last(&keys::group(id, 0), &keys::group(id, u64::MAX)),
            last(&keys::body(section, id, 0), &keys::body(section, id, u64::MAX)),
        ];
        self.read(self.partition(section), queries, Purpose::Group(id));
    }

    pub(super) fn group_read(&mut self, at: At, id: u64, answer: Result<Vec<Rows>, ReadError>) {
        if self.is_shut(section_of(id)) {
            return self.group_unreadable(id);
        }
        let Some(group) = self.groups.groups.get_mut(&id) else { return };
        let meta = match &answer {
            Ok(rows) => rows[0].value().map(|value| GroupMeta::decode(value)).transpose(),
            Err(_) => return self.group_unreadable(id),
        };
        let Ok(meta) = meta else { return self.group_unreadable(id) };
        let last = answer.ok().and_then(|rows| keys::last_number(&rows[1].rows.first()?.0));
        // Numbers of failed commits are not given again.
        group.tail = group.tail.max(last.unwrap_or(0));
        group.members = meta.map(|meta| Members::new(meta.into()));
        group.loading = false;
        group.loaded = true;
        for waits in std::mem::take(&mut group.waiting) {
            match waits {
                Waits::Duty(duty) => self.deliver_to_group(at, id, duty),
                Waits::Call(resume) => self.resume(at, resume),
            }
        }
    }

    /// Calls are told; duties wait for another try at the next tick.
    fn group_unreadable(&mut self, id: u64) {
        self.presence.read_groups_again.push(id);
        let Some(group) = self.groups.groups.get_mut(&id) else { return };
        for waits in std::mem::take(&mut group.waiting) {
            match waits {
                Waits::Duty(_) => {
                    if let Some(group) = self.groups.groups.get_mut(&id) {
                        group.waiting.push_back(waits);
                    }
                }
                Waits::Call(resume) => {
                    self.resume_refused(resume, Status::new(Code::Internal, "this group cannot be read"));
                }
            }
        }
    }

    /// The disk could not be read before: once more, for what has time left.
    pub(super) fn read_groups_again(&mut self, at: At) {
        for id in std::mem::take(&mut self.presence.read_groups_again) {
            let Some(group) = self.groups.groups.get_mut(&id) else { continue };
            let is_over = |waits: &Waits| matches!(waits, Waits::Duty(duty) if duty.is_over(at));
            let (over, left): (VecDeque<Waits>, _) = group.waiting.drain(..).partition(is_over);
            group.waiting = left;
            for waits in over {
                if let Waits::Duty(duty) = waits {
                    self.dead_letter(&duty, TOO_LATE);
                }
            }
            self.read_group(id);
        }
    }

    fn apply_to_group(&mut self, at: At, id: u64, duty: Duty) {
        let Some(group) = self.groups.groups.get_mut(&id) else { return };
        match (&duty.task, &group.members) {
            (Task::Group { .. }, None) => self.dead_letter(&duty, "there is no such group"),
            // What was taken back by one who has left since is taken back: it was a member when that was acknowledged.
            (Task::Group { sender, body, .. }, Some(members))
                if !members.has(*sender) && !is_taken_back(body) =>
            {
                self.dead_letter(&duty, "the sender is not a member");
            }
            (Task::Group { sender, number, body, .. }, Some(members)) => {
                let (members, sender, number) = (members.clone(), *sender, *number);
                let outcome = body.numbered(group.tail + 1).map_err(|error| error.to_string());
                let change =
                    body.split().ok().filter(|(head, _)| head.kind == Kind::Event).map(|(_, event)| {
                        let event = pb::GroupEvent::decode(event).map_err(|error| error.to_string())?;
                        changed(&members.meta, &event).map_err(|status| status.text)
                    });
                match (outcome, change) {
                    (Ok(body), None) => {
                        self.remember(section_of(id), id, sender, number);
                        self.number_in_group(at, id, Some(duty), body, &members);
                    }
                    (Ok(body), Some(Ok(meta))) => {
                        self.remember(section_of(id), id, sender, number);
                        self.group_changes(at, id, duty, body, &members, meta);
                    }
                    (Err(reason), _) | (_, Some(Err(reason))) => self.dead_letter(&duty, &reason),
                }
            }
            (Task::Create { .. }, Some(_)) if duty.checks => self.landed_before(duty.section, duty.sequence),
            (Task::Create { .. }, Some(_)) => self.dead_letter(&duty, "there is such a group already"),
            (Task::Create { meta, .. }, None) => {
                let meta = meta.clone();
                let members = self.put_group(id, &meta);
                self.number_in_group(at, id, Some(duty), state_body(id, &meta), &members);
            }
            // None of a group's.
            _ => {}
        }
    }

    /// A new membership, in the batch that gathers.
    fn put_group(&mut self, id: u64, meta: &Arc<GroupMeta>) -> Members {
        let members = Members::new(meta.clone());
        self.scratch.clear();
        meta.encode(&mut self.scratch);
        self.put_scratch(section_of(id), &keys::group(id, meta.version));
        if let Some(group) = self.groups.groups.get_mut(&id) {
            group.members = Some(members.clone());
        }
        members
    }

    /// One commit: the new membership, what happened, and the state that comes of it. What happened goes to all who
    /// were or are members; the state to those who are.
    fn group_changes(&mut self, at: At, id: u64, duty: Duty, event: Body, before: &Members, meta: GroupMeta) {
        let meta = Arc::new(meta);
        let after = self.put_group(id, &meta);
        let hear = if after.ids.len() >= before.ids.len() { &after } else { before };
        self.number_in_group(at, id, Some(duty), event, hear);
        if !after.ids.is_empty() {
            self.number_in_group(at, id, None, state_body(id, &meta), &after);
        }
    }

    /// Invites, leaves, removes, renames, hands over: the caller's row, and the duty to the group.
    pub(super) fn change_group(&mut self, at: At, begin: Begin) {
        let (user, id, place) = (begin.user, begin.id, begin.place);
        let Verb::ChangeGroup { group, .. } = begin.verb else { return };
        let Some(Resume::Verb(begin)) = self.need_group(group, Resume::Verb(Box::new(begin))) else { return };
        let Verb::ChangeGroup { change, .. } = begin.verb else { return };
        let number = self.users.peek(place).tail + 1;
        let event = pb::GroupEvent { group, by: user, time_ms: at.unix_ms, group_number: 0, ..change };
        let outcome = self.group_of(group, user).and_then(|meta| changed(meta, &event)).map(|_| {
            let head = BodyHead { deleted: false, kind: Kind::Event, origin: user, item: number, version: 1 };
            let body = Body::encode(head, &event);
            self.append(place, RowBody::Own(body.clone()), None);
            self.begin_duty(at, section_of(user), Task::Group { group, sender: user, number, body });
            number
        });
        self.applied_verb(at, user, id, outcome);
    }

    /// One commit in the home section: the group's number, the body, the duty to the members.
    fn number_in_group(&mut self, at: At, id: u64, duty: Option<Duty>, body: Body, members: &Members) {
        let Some(group) = self.groups.groups.get_mut(&id) else { return };
        group.tail += 1;
        let number = group.tail;
        let section = section_of(id);
        self.open(section).put(&keys::body(section, id, number), &body.0);
        self.hot.put_body(id, number, body.clone());
        let task = StoredTask::Fanout { group: id, number, version: members.meta.version };
        let sequence = self.put_duty(section, &StoredDuty { created_ms: at.unix_ms, task });
        if let Some(duty) = duty {
            self.end_with(section, &duty);
            self.effect(section, Effect::Delivered(duty));
        }
        let landed = Arc::new([]);
        let fanout = Fanout {
            group: id,
            sequence,
            number,
            body,
            members: members.ids.clone(),
            landed,
            created_ms: at.unix_ms,
            aside: Vec::new(),
        };
        self.effect(section, Effect::BeginFanout(fanout));
    }

    /// The commit that would have made or changed a group failed: the disk has it as it is.
    pub(super) fn undo_fanout(&mut self, fanout: &Fanout) {
        self.counters.duties -= 1;
        let changes =
            fanout.body.split().is_ok_and(|(head, _)| matches!(head.kind, Kind::Group | Kind::Event));
        if let (true, Some(group)) = (changes, self.groups.groups.get_mut(&fanout.group)) {
            group.loaded = false;
        }
    }

    pub(super) fn begin_fanout(&mut self, at: At, fanout: Fanout) {
        let id = fanout.group;
        let group = self.groups.groups.entry(id).or_default();
        group.touched = self.presence.sweep();
        // One that was stuck comes before those that were numbered meanwhile.
        let behind = group.fanouts.iter().rposition(|other| other.number < fanout.number);
        group.fanouts.insert(behind.map_or(0, |at| at + 1), fanout);
        if group.fanouts.len() == 1 {
            self.drive_fanouts(at, id);
        }
    }

    /// A member's tail is in memory, or cannot be read.
    pub(super) fn member_loaded(&mut self, at: At, id: u64) {
        let Some(group) = self.groups.groups.get_mut(&id) else { return };
        group.members_loading -= 1;
        if group.members_loading == 0 {
            self.drive_fanouts(at, id);
        }
    }

    /// Brings the messages to the members, in order: the first waits until the tails of all its members
    /// are in memory. What is for members whose tails cannot be read is set aside first.
    pub(super) fn drive_fanouts(&mut self, at: At, id: u64) {
        if self.is_group_held(id) {
            return;
        }
        loop {
            let group = self.groups.groups.get(&id);
            let Some(group) = group.filter(|group| group.members_loading == 0 && !group.setting_aside) else {
                return;
            };
            let Some(first) = group.fanouts.front() else { return };
            let (members, number, body) = (first.members.clone(), first.number, first.body.clone());
            let (created_ms, has_duty) = (first.created_ms, first.receivers_aside());
            let (mut loading, mut aside) = (0, Vec::new());
            for &receiver in members.iter().filter(|member| !has_duty.contains(member)) {
                let place = self.user(receiver);
                if self.aside.has(receiver) || self.aside.is_unreadable(place) {
                    aside.push(Task::Member { receiver, group: id, number, body: body.clone() });
                } else if !self.users.peek(place).loaded {
                    self.wait(place, Waiting::Fanout { group: id });
                    loading += 1;
                }
            }
            let Some(group) = self.groups.groups.get_mut(&id) else { return };
            group.members_loading = loading;
            if loading > 0 {
                return;
            }
            if !aside.is_empty() {
                group.setting_aside = true;
                return self.set_aside(id, created_ms, aside);
            }
            let Some(fanout) = group.fanouts.pop_front() else { return };
            let partitions = self.fan_out(&fanout, None);
            self.fanned_into(at, fanout, partitions);
        }
    }

    /// The duties of those members are on disk, or their commit failed and there are none.
    pub(super) fn members_set_aside(&mut self, at: At, id: u64, mut duties: Vec<Duty>) {
        let Some(group) = self.groups.groups.get_mut(&id) else { return };
        group.setting_aside = false;
        if let Some(first) = group.fanouts.front_mut() {
            first.aside.append(&mut duties);
        }
        self.drive_fanouts(at, id);
    }

    /// A group's message that was set aside for one member. It has landed at the others, so the section may say so.
    pub(super) fn land_of_group(
        &mut self,
        place: Place,
        group: u64,
        number: u64,
        body: &Body,
    ) -> Result<(), Status> {
        let user = self.users.peek(place).id;
        let section = section_of(user);
        let (head, _) = body.split().map_err(|error| Status::new(Code::Internal, error.to_string()))?;
        if section != section_of(group) {
            self.open(section).put(&keys::body(section, group, number), &body.0);
        }
        let item = is_later(&head, user).then_some((head.origin, head.item, head.version));
        self.append(place, RowBody::Group { group, number }, item);
        Ok(())
    }

    /// Rows for the members in all partitions or in one. A section's rows and its copy of the body come in
    /// one commit, so the copy is also its memory that the message has landed; the home section had the
    /// body before and keeps a number instead. Gives the partitions in which there was something to do.
    fn fan_out(&mut self, fanout: &Fanout, only: Option<u16>) -> Vec<u16> {
        let Fanout { group, number, body, .. } = fanout;
        let home = section_of(*group);
        let Ok((head, _)) = body.split() else { return Vec::new() };
        let mut partitions = Vec::new();
        let aside = fanout.receivers_aside();
        for members in fanout.members.chunk_by(|a, b| section_of(*a) == section_of(*b)) {
            let section = section_of(members[0]);
            let partition = self.partition(section);
            let is_for_nobody = members.iter().all(|member| aside.contains(member));
            if is_for_nobody || fanout.landed.contains(&section) || only.is_some_and(|only| only != partition)
            {
                continue;
            }
            if section == home {
                self.remember(section, *group, *group, *number);
            } else {
                self.open(section).put(&keys::body(section, *group, *number), &body.0);
            }
            for member in members.iter().filter(|member| !aside.contains(member)) {
                let place = self.user(*member);
                let item = is_later(&head, *member).then_some((head.origin, head.item, head.version));
                self.append(place, RowBody::Group { group: *group, number: *number }, item);
            }
            if !partitions.contains(&partition) {
                partitions.push(partition);
            }
        }
        for partition in &partitions {
            // Any section of a partition names it.
            self.effect(*partition, Effect::FannedOut(fanout.clone()));
        }
        if self.config.partitions == 1 && !partitions.is_empty() {
            self.open(home).delete(&keys::duty(home, fanout.sequence));
        }
        partitions
    }

    fn fanned_into(&mut self, at: At, fanout: Fanout, partitions: Vec<u16>) {
        if partitions.is_empty() {
            self.end_fanout(at, fanout, true);
        } else if self.config.partitions > 1 {
            let key = (section_of(fanout.group), fanout.sequence);
            self.outbox.left.insert(key, partitions.len() as u16);
        }
    }

    /// The rows of the members in one partition are on disk.
    pub(super) fn fanned_out(&mut self, at: At, fanout: Fanout) {
        if self.config.partitions == 1 {
            return self.end_fanout(at, fanout, false);
        }
        let key = (section_of(fanout.group), fanout.sequence);
        let Some(left) = self.outbox.left.get_mut(&key) else { return };
        *left -= 1;
        if *left == 0 {
            self.outbox.left.remove(&key);
            self.end_fanout(at, fanout, true);
        }
    }

    /// All have it whose logs can be read; the others' duties begin.
    fn end_fanout(&mut self, at: At, fanout: Fanout, deletes: bool) {
        let home = section_of(fanout.group);
        if deletes {
            self.open(home).delete(&keys::duty(home, fanout.sequence));
        }
        self.counters.delivered += 1;
        self.counters.duties -= 1;
        fanout.aside.into_iter().for_each(|duty| self.deliver(at, duty));
    }

    /// The commit of one partition failed for good.
    pub(super) fn fan_out_again(&mut self, partition: u16, fanout: Fanout) {
        self.fan_out(&fanout, Some(partition));
    }
}

impl Fanout {
    /// Members who get it by a duty of their own.
    pub fn receivers_aside(&self) -> Vec<u64> {
        self.aside.iter().filter_map(|duty| duty.task.receiver()).collect()
    }
}

/// The change that tells members of their group. It is the item 1 of the group.
fn state_body(group: u64, meta: &GroupMeta) -> Body {
    let head = BodyHead { deleted: false, kind: Kind::Group, origin: group, item: 1, version: meta.version };
    let state =
        pb::GroupState { group, name: meta.name.clone(), members: meta.members.clone(), owner: meta.owner };
    Body::encode(head, &state)
}

/// Whether a member has an earlier version of the item: its writer has the one without a number; all have it when
/// it was taken back, or when it is a later state of the group.
fn is_later(head: &BodyHead, member: u64) -> bool {
    match head.kind {
        Kind::Group => head.version > 1,
        _ => head.version > 2 || (head.version > 1 && member == head.origin),
    }
}

/// What a change makes of a group, if the one who wants it may.
fn changed(meta: &GroupMeta, event: &pb::GroupEvent) -> Result<GroupMeta, Status> {
    let mut next = GroupMeta { version: meta.version + 1, ..meta.clone() };
    let is_member = |user: &u64| meta.members.contains(user);
    let owner_only = || match event.by == meta.owner {
        true => Ok(()),
        false => Err(Status::new(Code::Denied, "only the owner of the group may do this")),
    };
    match event.action() {
        pb::GroupAction::Invite => {
            next.members.extend_from_slice(&event.users);
            next.members.sort_unstable();
            next.members.dedup();
            if next.members.len() > proto_wire::limits::MAX_GROUP_MEMBERS {
                return Err(too_many_members());
            }
            if next.members.len() == meta.members.len() {
                return Err(Status::new(Code::Exists, "all of them are members already"));
            }
        }
        pb::GroupAction::Remove => {
            owner_only()?;
            if event.users.contains(&meta.owner) {
                return Err(Status::invalid("an owner leaves, and is not removed"));
            }
            if !event.users.iter().any(is_member) {
                return Err(Status::new(Code::NotFound, "none of them is a member"));
            }
            next.members.retain(|member| !event.users.contains(member));
        }
        pb::GroupAction::Leave => {
            next.members.retain(|member| *member != event.by);
            if meta.owner == event.by {
                // The group goes to whoever has the lowest id: nobody is asked, and all agree.
                next.owner = next.members.first().copied().unwrap_or(0);
            }
        }
        pb::GroupAction::Rename => next.name = event.name.clone(),
        pb::GroupAction::Owner => {
            owner_only()?;
            let owner = event.users.first().copied().unwrap_or(0);
            if !is_member(&owner) {
                return Err(Status::new(Code::NotFound, "the new owner is not a member"));
            }
            next.owner = owner;
        }
        pb::GroupAction::Unknown => return Err(Status::invalid("it is not said what is to change")),
    }
    Ok(next)
}

/// How many sweeps a group or user stays untouched in memory.
pub(super) const IDLE_SWEEPS: u16 = (limits::IDLE_MS / limits::SWEEP_MS) as u16;
