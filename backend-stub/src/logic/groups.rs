//! A group numbers its messages in its home section; all members see that order.

use std::collections::VecDeque;
use std::sync::Arc;

use ahash::AHashMap;
use proto_wire::names::{GROUP_BIT, section_of};
use proto_wire::pb;

use super::api::At;
use super::append::Waiting;
use super::core::{Core, Effect, Purpose};
use super::outbox::{Duty, Fanout, Task};
use super::values::{Body, BodyHead, GroupMeta, Kind, RowBody, StoredDuty, StoredTask};
use super::{keys, limits};
use crate::storage::{Query, ReadError, Rows};

pub(super) struct Groups {
    groups: AHashMap<u64, Group>,
    /// State of the generator of ids.
    seed: u64,
}

/// A group whose messages pass.
#[derive(Default)]
struct Group {
    loading: bool,
    loaded: bool,
    /// The last number given.
    tail: u64,
    members: Option<Members>,
    /// Duties that wait until the group was read.
    waiting: VecDeque<Duty>,
    /// Numbered messages whose members are not all in memory yet, in order.
    fanouts: VecDeque<Fanout>,
    /// Members whose tails are being read for the first of them.
    members_loading: u32,
    touched: u16,
}

#[derive(Clone)]
struct Members {
    version: u64,
    /// By section, so that what one section needs comes together.
    ids: Arc<[u64]>,
}

impl Members {
    fn new(meta: &GroupMeta) -> Self {
        Self { version: meta.version, ids: by_section(&meta.members) }
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
        Self { groups: AHashMap::new(), seed }
    }

    /// A random id. The step and the mixing are splitmix64's; 63 bits of them are the id.
    pub fn fresh_id(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) | GROUP_BIT
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
        group.waiting.push_back(duty);
        if !group.loading {
            group.loading = true;
            self.read_group(id);
        }
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
        let Some(group) = self.groups.groups.get_mut(&id) else { return };
        let meta = match &answer {
            Ok(rows) => rows[0].value().map(|value| GroupMeta::decode(value)).transpose(),
            Err(_) => return self.presence.read_groups_again.push(id),
        };
        let Ok(meta) = meta else { return self.presence.read_groups_again.push(id) };
        let last = answer.ok().and_then(|rows| keys::last_number(&rows[1].rows.first()?.0));
        group.tail = last.unwrap_or(0);
        group.members = meta.map(|meta| Members::new(&meta));
        group.loading = false;
        group.loaded = true;
        for duty in std::mem::take(&mut group.waiting) {
            self.apply_to_group(at, id, duty);
        }
    }

    /// The disk could not be read before: once more.
    pub(super) fn read_groups_again(&mut self) {
        for id in std::mem::take(&mut self.presence.read_groups_again) {
            self.read_group(id);
        }
    }

    fn apply_to_group(&mut self, at: At, id: u64, duty: Duty) {
        let Some(group) = self.groups.groups.get_mut(&id) else { return };
        match (&duty.task, &group.members) {
            (Task::Group { .. }, None) => self.dead_letter(&duty, "there is no such group"),
            (Task::Group { sender, .. }, Some(members)) if !members.has(*sender) => {
                self.dead_letter(&duty, "the sender is not a member");
            }
            (Task::Group { sender, number, body, .. }, Some(members)) => {
                let (members, sender, number) = (members.clone(), *sender, *number);
                match body.numbered(group.tail + 1) {
                    Ok(body) => {
                        self.remember(section_of(id), id, sender, number);
                        self.number_in_group(at, id, duty, body, &members);
                    }
                    Err(error) => self.dead_letter(&duty, &error.to_string()),
                }
            }
            (Task::Create { .. }, Some(_)) => self.dead_letter(&duty, "there is such a group already"),
            (Task::Create { meta, .. }, None) => {
                let members = Members::new(meta);
                group.members = Some(members.clone());
                let meta = meta.clone();
                self.scratch.clear();
                meta.encode(&mut self.scratch);
                self.put_scratch(section_of(id), &keys::group(id, meta.version));
                self.number_in_group(at, id, duty, state_body(id, &meta), &members);
            }
            (Task::User { .. }, _) => {}
        }
    }

    /// One commit in the home section: the group's number, the body, the duty to the members.
    fn number_in_group(&mut self, at: At, id: u64, duty: Duty, body: Body, members: &Members) {
        let Some(group) = self.groups.groups.get_mut(&id) else { return };
        group.tail += 1;
        let number = group.tail;
        let section = section_of(id);
        self.open(section).put(&keys::body(section, id, number), &body.0);
        self.hot.put_body(id, number, body.clone());
        let task = StoredTask::Fanout { group: id, number, version: members.version };
        let sequence = self.put_duty(section, &StoredDuty { created_ms: at.unix_ms, task });
        self.end_with(section, &duty);
        self.effect(section, Effect::Delivered(duty));
        let landed = Arc::new([]);
        let fanout = Fanout { group: id, sequence, number, body, members: members.ids.clone(), landed };
        self.effect(section, Effect::BeginFanout(fanout));
    }

    /// The commit that would have made a group failed: it is not there.
    pub(super) fn undo_fanout(&mut self, fanout: &Fanout) {
        self.counters.duties -= 1;
        let is_birth = fanout.body.split().is_ok_and(|(head, _)| head.kind == Kind::Group && head.version == 1);
        if let (true, Some(group)) = (is_birth, self.groups.groups.get_mut(&fanout.group)) {
            group.members = None;
        }
    }

    pub(super) fn begin_fanout(&mut self, fanout: Fanout) {
        let id = fanout.group;
        let group = self.groups.groups.entry(id).or_default();
        group.touched = self.presence.sweep();
        group.fanouts.push_back(fanout);
        if group.fanouts.len() == 1 {
            self.drive_fanouts(id);
        }
    }

    pub(super) fn member_loaded(&mut self, id: u64) {
        let Some(group) = self.groups.groups.get_mut(&id) else { return };
        group.members_loading -= 1;
        if group.members_loading == 0 {
            self.drive_fanouts(id);
        }
    }

    /// Brings the messages to the members, in order: the first waits until the tails of all its members
    /// are in memory.
    fn drive_fanouts(&mut self, id: u64) {
        loop {
            let Some(first) = self.groups.groups.get(&id).and_then(|group| group.fanouts.front()) else {
                return;
            };
            let members = first.members.clone();
            let mut loading = 0;
            for member in members.iter() {
                let place = self.user(*member);
                if !self.users.peek(place).loaded {
                    self.wait(place, Waiting::Fanout { group: id });
                    loading += 1;
                }
            }
            let Some(group) = self.groups.groups.get_mut(&id) else { return };
            group.members_loading = loading;
            if loading > 0 {
                return;
            }
            let Some(fanout) = group.fanouts.pop_front() else { return };
            let partitions = self.fan_out(&fanout, None);
            self.fanned_into(fanout, partitions);
        }
    }

    /// Rows for the members in all partitions or in one. A section's rows and its copy of the body come in
    /// one commit, so the copy is also its memory that the message has landed; the home section had the
    /// body before and keeps a number instead. Gives the partitions in which there was something to do.
    fn fan_out(&mut self, fanout: &Fanout, only: Option<u16>) -> Vec<u16> {
        let Fanout { group, number, body, .. } = fanout;
        let home = section_of(*group);
        let Ok((head, _)) = body.split() else { return Vec::new() };
        let mut partitions = Vec::new();
        for members in fanout.members.chunk_by(|a, b| section_of(*a) == section_of(*b)) {
            let section = section_of(members[0]);
            let partition = self.partition(section);
            if fanout.landed.contains(&section) || only.is_some_and(|only| only != partition) {
                continue;
            }
            if section == home {
                self.remember(section, *group, *group, *number);
            } else {
                self.open(section).put(&keys::body(section, *group, *number), &body.0);
            }
            for member in members {
                let place = self.user(*member);
                let is_later = *member == head.origin && head.version > 1;
                let item = is_later.then_some((head.origin, head.item, head.version));
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

    fn fanned_into(&mut self, fanout: Fanout, partitions: Vec<u16>) {
        let home = section_of(fanout.group);
        if partitions.is_empty() {
            self.end_fanout(home, fanout.sequence);
        } else if self.config.partitions > 1 {
            self.outbox.left.insert((home, fanout.sequence), partitions.len() as u16);
        }
    }

    pub(super) fn fanned_out(&mut self, _partition: u16, fanout: Fanout) {
        let home = section_of(fanout.group);
        if self.config.partitions == 1 {
            self.counters.delivered += 1;
            self.counters.duties -= 1;
            return;
        }
        let key = (home, fanout.sequence);
        let Some(left) = self.outbox.left.get_mut(&key) else { return };
        *left -= 1;
        if *left == 0 {
            self.outbox.left.remove(&key);
            self.end_fanout(home, fanout.sequence);
        }
    }

    fn end_fanout(&mut self, home: u16, sequence: u64) {
        self.open(home).delete(&keys::duty(home, sequence));
        self.counters.delivered += 1;
        self.counters.duties -= 1;
    }

    /// The commit of one partition failed for good.
    pub(super) fn fan_out_again(&mut self, partition: u16, fanout: Fanout) {
        self.fan_out(&fanout, Some(partition));
    }
}

/// The change that tells members of their group. It is the item 1 of the group.
fn state_body(group: u64, meta: &GroupMeta) -> Body {
    let head = BodyHead { deleted: false, kind: Kind::Group, origin: group, item: 1, version: meta.version };
    let state =
        pb::GroupState { group, name: meta.name.clone(), members: meta.members.clone(), owner: meta.owner };
    Body::encode(head, &state)
}

/// How many sweeps a group or user stays untouched in memory.
pub(super) const IDLE_SWEEPS: u16 = (limits::IDLE_MS / limits::SWEEP_MS) as u16;
