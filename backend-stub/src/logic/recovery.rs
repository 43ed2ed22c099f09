//! At start: every duty that was on disk is checked against its receiver's memory and goes back into the
//! outbox, in order, before anything new is written.
//!
//! Sections are scanned for duties. What was set aside comes first, then messages that groups had numbered, so that
//! nothing new of a group overtakes them; then the others, by sequence. That is one for all sections, so what made a group
//! comes before what its members sent to it.
//!
//! What cannot be read is tried a few times, and then stops nobody else. A duty of which it is not known whether it has
//! landed waits for its receiver's memory alone. One whose message cannot be read is stuck, and with it what comes after
//! it: the duties of its section, whose users write nothing meanwhile, or the messages of its group. Stuck ones are tried
//! again from time to time, and are dead letters in the end.

mod queries;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;
use std::sync::Arc;

use ahash::{AHashMap, AHashSet};
use proto_wire::names::{GROUP_BIT, SECTIONS, section_of};

use super::api::{Action, At};
use super::aside::TOO_LATE;
use super::core::{Core, Purpose};
use super::duty::{StoredDuty, StoredTask};
use super::groups::by_section;
use super::outbox::{Duty, Fanout, Task, body_of_row};
use super::values::{Body, GroupMeta};
use super::{keys, limits};
use crate::storage::{Query, ReadError, Rows, partition_of};
use queries::{duties_after, message_queries, remembered};

/// Duties that are checked with one read.
const CHUNK: usize = 128;

#[derive(Default)]
pub(super) struct Recovery {
    /// Scans of sections that have not ended.
    scans: usize,
    /// Scans that the store could not do, for the next tick.
    scan_again: Vec<Scan>,
    /// The same, of sections that nobody waits for any more: nothing new is taken there.
    shut: BTreeSet<u16>,
    scan_shut: Vec<Scan>,
    found: Vec<Found>,
    queue: VecDeque<Found>,
    /// What is being checked, and the answers so far.
    gathering: Option<Gathering>,
    stalled: bool,
    done: bool,
    /// What could not be read, in order, and when it is tried again.
    stuck: Vec<Found>,
    stuck_due_ms: u64,
    /// Sections of duties and groups of messages of which something is stuck: before this pass, and in it.
    held: AHashSet<u64>,
    held_now: AHashSet<u64>,
    /// Something was tried in vain as often as it should be: nothing else is tried as often.
    hasty: bool,
    /// Duties of members, set aside, whose message is still to be brought to the others: by group and number.
    attached: AHashMap<(u64, u64), Vec<Found>>,
}

/// A look for duties in some sections of one partition.
pub(super) struct Scan {
    queries: Vec<Query>,
    tries: u32,
}

#[derive(Debug, Clone)]
struct Found {
    section: u16,
    sequence: u64,
    duty: StoredDuty,
}

struct Gathering {
    step: Step,
    queries: Vec<(u16, Query)>,
    answers: Vec<Rows>,
    left: usize,
    /// Queries that the store could not answer.
    unread: Vec<usize>,
    /// How often they were asked before.
    tries: u32,
}

enum Step {
    Messages(Vec<Found>),
    /// A numbered message: its body and the members at its time.
    Fanout {
        found: Found,
    },
    /// In which of its sections it has landed.
    Landed {
        found: Found,
        body: Body,
        members: Arc<[u64]>,
        sections: Vec<u16>,
    },
}

pub(super) enum RecoveryRead {
    Scan(Scan),
    /// Which queries of the step a partition answers.
    Part(Vec<usize>),
}

impl Found {
    /// What comes from there keeps its order: a group, or a section.
    fn source(&self) -> u64 {
        match self.duty.task {
            StoredTask::Fanout { group, .. } => group,
            _ => u64::from(self.section),
        }
    }
}

impl Scan {
    fn section(&self) -> Option<u16> {
        let Some(Query::Scan { from, .. }) = self.queries.first() else { return None };
        from.first_chunk().map(|section| u16::from_be_bytes(*section))
    }
}

impl Recovery {
    fn holds(&self, source: u64) -> bool {
        self.held.contains(&source) || self.held_now.contains(&source)
    }

    pub fn is_done(&self) -> bool {
        self.done
    }
}

impl Core {
    pub(super) fn start_recovery(&mut self) {
        let partitions = self.config.partitions;
        for partition in 0..partitions {
            let sections: Vec<u16> =
                (0..SECTIONS).filter(|section| partition_of(*section, partitions) == partition).collect();
            for sections in sections.chunks(limits::MAX_QUERIES) {
                self.scan(partition, sections.iter().map(|section| duties_after(*section, 0)).collect());
            }
        }
    }

    fn scan(&mut self, partition: u16, queries: Vec<Query>) {
        self.scan_with(partition, Scan { queries, tries: 0 });
    }

    fn scan_with(&mut self, partition: u16, scan: Scan) {
        self.recovery.scans += 1;
        self.read(partition, scan.queries.clone(), Purpose::Recovery(RecoveryRead::Scan(scan)));
    }

    /// Whether it is not known what a section owes: nothing new begins there.
    pub(super) fn is_shut(&self, section: u16) -> bool {
        self.recovery.shut.contains(&section) || self.recovery.holds(u64::from(section))
    }

    /// Whether a message of a group is stuck, which comes before those that follow.
    pub(super) fn is_group_held(&self, group: u64) -> bool {
        self.recovery.holds(group)
    }

    pub(super) fn recovery_read(&mut self, at: At, read: RecoveryRead, answer: Result<Vec<Rows>, ReadError>) {
        match read {
            RecoveryRead::Scan(scan) => self.duties_scanned(scan, answer),
            RecoveryRead::Part(indices) => self.part_read(&indices, answer),
        }
        self.recover(at);
    }

    /// A scan failed: each section for itself, then a few times more, then without it.
    fn scan_failed(&mut self, scan: Scan) {
        if scan.queries.len() > 1 {
            let each = scan.queries.into_iter().map(|query| Scan { queries: vec![query], tries: 1 });
            return self.recovery.scan_again.extend(each);
        }
        let Some(section) = scan.section() else { return };
        let scan = Scan { tries: scan.tries.saturating_add(1), ..scan };
        if scan.tries <= limits::RECOVERY_TRIES {
            return self.recovery.scan_again.push(scan);
        }
        if self.recovery.shut.insert(section) {
            // Beyond what may stand there unread.
            self.outbox.sequence += 1 << 32;
            let text =
                format!("section {section}: what it owes cannot be read; its users write nothing meanwhile");
            self.actions.push_back(Action::Log(text));
        }
        self.recovery.scan_shut.push(scan);
    }

    fn duties_scanned(&mut self, scan: Scan, answer: Result<Vec<Rows>, ReadError>) {
        self.recovery.scans -= 1;
        let Ok(answer) = answer else { return self.scan_failed(scan) };
        if scan.section().is_some_and(|section| self.recovery.shut.remove(&section)) {
            // What it owes goes before anything new.
            self.recovery.done = false;
        }
        for rows in answer {
            let mut last = None;
            for (key, value) in &rows.rows {
                let section = u16::from_be_bytes([key[0], key[1]]);
                let Some(sequence) = keys::last_number(key) else { continue };
                last = Some((section, sequence));
                self.outbox.sequence = self.outbox.sequence.max(sequence);
                match StoredDuty::decode(value) {
                    Ok(duty) => self.recovery.found.push(Found { section, sequence, duty }),
                    Err(error) => {
                        let text = format!("duty {sequence} of section {section} stays where it is: {error}");
                        self.actions.push_back(Action::Log(text));
                    }
                }
            }
            if let (true, Some((section, sequence))) = (rows.more, last) {
                let partition = self.partition(section);
                self.scan(partition, vec![duties_after(section, sequence)]);
            }
        }
    }

    /// Goes on when nothing is being read.
    fn recover(&mut self, at: At) {
        let recovery = &mut self.recovery;
        let scans = recovery.scans > 0 || !recovery.scan_again.is_empty();
        if !recovery.done && scans || recovery.stalled {
            return;
        }
        if !recovery.found.is_empty() {
            let mut found = mem::take(&mut recovery.found);
            self.counters.recovered += found.len() as u64;
            self.counters.duties += found.len() as u64;
            self.attach(&mut found);
            found.sort_by_key(|found| match found.duty.task {
                // A later message may have been set aside before an earlier one.
                StoredTask::Member { number, .. } | StoredTask::Reference { number, .. } => (0, number, 0),
                StoredTask::Fanout { .. } => (1, found.sequence, found.section),
                _ => (2, found.sequence, found.section),
            });
            self.recovery.queue.extend(found);
        }
        let recovery = &mut self.recovery;
        if let Some(gathering) = recovery.gathering.take_if(|gathering| gathering.left == 0) {
            if !gathering.unread.is_empty() && gathering.tries < limits::RECOVERY_TRIES {
                recovery.stalled = true;
                recovery.gathering = Some(gathering);
                return;
            }
            recovery.hasty |= !gathering.unread.is_empty();
            self.checked(at, gathering.step, gathering.answers, &gathering.unread);
        }
        if self.recovery.gathering.is_none() {
            self.check_next(at);
        }
    }

    /// What is set aside is known before anything else begins. A member's duty whose message is found too belongs to
    /// that: it begins when the others have it.
    fn attach(&mut self, found: &mut Vec<Found>) {
        found.iter().for_each(|found| self.aside.note(found.duty.task.aside()));
        let fanouts = found.iter().filter_map(|found| match found.duty.task {
            StoredTask::Fanout { group, number, .. } => Some((group, number)),
            _ => None,
        });
        let fanouts: AHashSet<(u64, u64)> = fanouts.collect();
        for duty in mem::take(found) {
            match duty.duty.task {
                StoredTask::Member { group, number, .. } if fanouts.contains(&(group, number)) => {
                    self.recovery.attached.entry((group, number)).or_default().push(duty);
                }
                _ => found.push(duty),
            }
        }
    }

    /// The disk could not be read before: once more, each question for itself.
    pub(super) fn recover_again(&mut self, at: At) {
        let again = mem::take(&mut self.recovery.scan_again);
        for scan in again.into_iter().chain(mem::take(&mut self.recovery.scan_shut)) {
            let Some(section) = scan.section() else { continue };
            self.scan_with(self.partition(section), scan);
        }
        if mem::take(&mut self.recovery.stalled)
            && let Some(gathering) = self.recovery.gathering.take()
        {
            self.gather(gathering.step, gathering.queries, gathering.tries + 1);
        }
        let recovery = &mut self.recovery;
        let is_quiet = recovery.gathering.is_none() && recovery.queue.is_empty();
        if recovery.done && is_quiet && !recovery.stuck.is_empty() && at.now_ms >= recovery.stuck_due_ms {
            recovery.queue.extend(recovery.stuck.drain(..));
            self.check_next(at);
        }
    }

    fn check_next(&mut self, at: At) {
        // What comes after something that is stuck is not asked for.
        let first = loop {
            match self.recovery.queue.pop_front() {
                Some(found) if self.recovery.held_now.contains(&found.source()) => self.stick(at, found),
                Some(found) => break found,
                None => return self.end_pass(at),
            }
        };
        let tries = if self.recovery.hasty { limits::RECOVERY_TRIES } else { 0 };
        if let StoredTask::Fanout { group, number, version } = first.duty.task {
            let home = section_of(group);
            let queries = vec![
                (home, Query::Get(keys::group(group, version).to_vec())),
                (home, Query::Get(keys::body(home, group, number).to_vec())),
            ];
            return self.gather(Step::Fanout { found: first }, queries, tries);
        }
        let mut chunk = vec![first];
        let queue = &mut self.recovery.queue;
        let is_fanout = |found: &Found| matches!(found.duty.task, StoredTask::Fanout { .. });
        let more = queue.iter().take(CHUNK - 1).take_while(|found| !is_fanout(found)).count();
        chunk.extend(queue.drain(..more));
        let queries = chunk.iter().flat_map(|found| message_queries(&found.duty.task)).collect();
        self.gather(Step::Messages(chunk), queries, tries);
    }

    /// Nothing more is to be checked. Groups whose messages are not stuck any more go on.
    fn end_pass(&mut self, at: At) {
        self.recovery.done = true;
        let before = mem::take(&mut self.recovery.held);
        self.recovery.held = mem::take(&mut self.recovery.held_now);
        self.recovery.stuck_due_ms = at.now_ms + limits::READ_AGAIN_MS;
        self.counters.duties_stuck = self.recovery.stuck.len() as u64;
        let mut freed: Vec<u64> = before.difference(&self.recovery.held).copied().collect();
        freed.sort_unstable();
        for group in freed.into_iter().filter(|source| source & GROUP_BIT != 0) {
            self.drive_fanouts(at, group);
        }
    }

    /// What cannot be read waits for another pass, until its time has passed.
    fn stick(&mut self, at: At, found: Found) {
        let source = found.source();
        if found.duty.created_ms + limits::DUTY_LIFETIME_MS < at.unix_ms {
            self.leave_attached(&found);
            let (section, sequence) = (found.section, found.sequence);
            return self.bury(section, sequence, &found.duty, &format!("duty {sequence}"), TOO_LATE);
        }
        if self.recovery.held_now.insert(source) && !self.recovery.held.contains(&source) {
            let whose = if source & GROUP_BIT != 0 { "group" } else { "section" };
            let text = format!(
                "duty {} of {whose} {source} is stuck: what it brings cannot be read",
                found.sequence
            );
            self.actions.push_back(Action::Log(text));
        }
        self.recovery.stuck.push(found);
    }

    /// Asks each partition for its share of a step's queries; after a failure, for one query after the other. They are
    /// given with their sections.
    fn gather(&mut self, step: Step, queries: Vec<(u16, Query)>, tries: u32) {
        // In order, so that a run can be repeated.
        let mut parts: BTreeMap<(u16, usize), Vec<usize>> = BTreeMap::new();
        for (index, (section, _)) in queries.iter().enumerate() {
            let part = if tries == 0 { 0 } else { index };
            parts.entry((self.partition(*section), part)).or_default().push(index);
        }
        let answers = vec![Rows::default(); queries.len()];
        let left = parts.len();
        for ((partition, _), indices) in parts {
            let asked = indices.iter().map(|index| queries[*index].1.clone()).collect();
            self.read(partition, asked, Purpose::Recovery(RecoveryRead::Part(indices)));
        }
        self.recovery.gathering = Some(Gathering { step, queries, answers, left, unread: Vec::new(), tries });
    }

    fn part_read(&mut self, indices: &[usize], answer: Result<Vec<Rows>, ReadError>) {
        let Some(gathering) = &mut self.recovery.gathering else { return };
        gathering.left -= 1;
        match answer {
            Ok(answer) => {
                for (index, rows) in indices.iter().zip(answer) {
                    gathering.answers[*index] = rows;
                }
            }
            Err(_) => gathering.unread.extend(indices),
        }
    }

    fn checked(&mut self, at: At, step: Step, answers: Vec<Rows>, unread: &[usize]) {
        match step {
            Step::Messages(chunk) => {
                for (index, found) in chunk.into_iter().enumerate() {
                    if self.recovery.held_now.contains(&found.source()) {
                        self.stick(at, found);
                        continue;
                    }
                    let answer = |at: usize| (!unread.contains(&at)).then(|| &answers[at]);
                    self.message_checked(at, found, answer(2 * index), answer(2 * index + 1));
                }
            }
            Step::Fanout { found } | Step::Landed { found, .. } if !unread.is_empty() => {
                self.stick(at, found)
            }
            Step::Fanout { found } => self.fanout_read(at, found, &answers),
            Step::Landed { found, body, members, sections } => {
                self.fanout_checked(at, found, body, members, &sections, &answers);
            }
        }
    }

    /// It is known in which sections a group's message has landed.
    fn fanout_checked(
        &mut self,
        at: At,
        found: Found,
        body: Body,
        members: Arc<[u64]>,
        sections: &[u16],
        answers: &[Rows],
    ) {
        let StoredTask::Fanout { group, number, .. } = found.duty.task else { return };
        let home = section_of(group);
        let has_landed = |section: u16, rows: &Rows| {
            if section == home { remembered(rows) >= number } else { rows.value().is_some() }
        };
        let landed = sections
            .iter()
            .zip(answers)
            .filter(|(section, rows)| has_landed(**section, rows))
            .map(|(section, _)| *section);
        let landed: Arc<[u16]> = landed.collect();
        let mut aside = Vec::new();
        for member in self.recovery.attached.remove(&(group, number)).unwrap_or_default() {
            let Found { section, sequence, duty: StoredDuty { created_ms, task } } = member;
            if let StoredTask::Member { receiver, .. } = task {
                let task = Task::Member { receiver, group, number, body: body.clone() };
                aside.push(Duty { section, sequence, created_ms, checks: true, task });
            }
        }
        if landed.len() == sections.len() {
            // Only the commit that was to take the duty away is missing.
            self.landed_before(found.section, found.sequence);
            return aside.into_iter().for_each(|duty| self.deliver(at, duty));
        }
        let (sequence, created_ms) = (found.sequence, found.duty.created_ms);
        self.begin_fanout(at, Fanout { group, sequence, number, body, members, landed, created_ms, aside });
    }

    /// A duty that means nothing any more: what it brings is not there, or cannot be understood. It stays where it is.
    fn leave(&mut self, found: &Found) {
        self.aside.forget(found.duty.task.aside());
        self.leave_attached(found);
        self.counters.duties -= 1;
        let Found { section, sequence, .. } = found;
        let text =
            format!("duty {sequence} of section {section} stays where it is: its message cannot be read");
        self.actions.push_back(Action::Log(text));
    }

    /// What was set aside of a message that does not come goes with it.
    fn leave_attached(&mut self, found: &Found) {
        let StoredTask::Fanout { group, number, .. } = found.duty.task else { return };
        let attached = self.recovery.attached.remove(&(group, number));
        attached.unwrap_or_default().iter().for_each(|member| self.leave(member));
    }

    /// `memory` is what the receiver remembers, `row` the sender's row, or the group's body. None: it cannot be read.
    fn message_checked(&mut self, at: At, found: Found, memory: Option<&Rows>, row: Option<&Rows>) {
        let has_landed = match (&found.duty.task, memory) {
            (_, None) => false,
            (StoredTask::User { number, .. }, Some(memory))
            | (StoredTask::Group { number, .. }, Some(memory))
            | (StoredTask::Peer { number, .. }, Some(memory))
            | (StoredTask::Member { number, .. }, Some(memory))
            | (StoredTask::Reference { number, .. }, Some(memory)) => remembered(memory) >= *number,
            // It only moves forward, and contacts are asked one by one.
            (StoredTask::Receipt { .. } | StoredTask::Moment { .. }, _) => false,
            (StoredTask::Create { .. }, Some(memory)) => memory.value().is_some(),
            (StoredTask::Fanout { .. }, _) => return,
        };
        if has_landed {
            self.aside.forget(found.duty.task.aside());
            return self.landed_before(found.section, found.sequence);
        }
        let needs_row = matches!(
            found.duty.task,
            StoredTask::User { .. } | StoredTask::Group { .. } | StoredTask::Member { .. }
        );
        // Users are asked again when their duties land; groups are not.
        let asks_group = matches!(found.duty.task, StoredTask::Group { .. } | StoredTask::Create { .. });
        if row.is_none() && needs_row || memory.is_none() && asks_group {
            return self.stick(at, found);
        }
        let checks = memory.is_none();
        let value = row.and_then(Rows::value);
        let body = |number| value.and_then(|value| body_of_row(number, value));
        let task = match found.duty.task.clone() {
            StoredTask::User { receiver, sender, number } => {
                body(number).map(|body| Task::User { receiver, sender, number, body })
            }
            StoredTask::Group { group, sender, number } => {
                body(number).map(|body| Task::Group { group, sender, number, body })
            }
            StoredTask::Create { group, meta } => Some(Task::Create { group, meta }),
            StoredTask::Peer { receiver, sender, number, word } => {
                Some(Task::Peer { receiver, sender, number, word })
            }
            StoredTask::Receipt { receiver, sender, delivered, read } => {
                Some(Task::Receipt { receiver, sender, delivered, read })
            }
            StoredTask::Moment { author, moment, number, withdrawn } => {
                Some(Task::Moment { author, moment, number, withdrawn })
            }
            StoredTask::Member { receiver, group, number } => value
                .and_then(|value| Body::parse(value.clone()).ok())
                .map(|body| Task::Member { receiver, group, number, body }),
            StoredTask::Reference { receiver, author, moment, number, withdrawn } => {
                Some(Task::Reference { receiver, author, moment, number, withdrawn })
            }
            StoredTask::Fanout { .. } => None,
        };
        let Some(task) = task else { return self.leave(&found) };
        let Found { section, sequence, duty: StoredDuty { created_ms, .. } } = found;
        self.deliver(at, Duty { section, sequence, created_ms, checks, task });
    }

    pub(super) fn landed_before(&mut self, section: u16, sequence: u64) {
        self.counters.recovered_landed += 1;
        self.counters.duties -= 1;
        self.open(section).delete(&keys::duty(section, sequence));
    }

    fn fanout_read(&mut self, at: At, found: Found, answers: &[Rows]) {
        let StoredTask::Fanout { group, number, .. } = found.duty.task else { return };
        let meta = answers[0].value().and_then(|value| GroupMeta::decode(value).ok());
        let body = answers[1].value().and_then(|value| Body::parse(value.clone()).ok());
        let (Some(meta), Some(body)) = (meta, body) else { return self.leave(&found) };
        let members = by_section(&meta.members);
        let is_aside = |member: &&u64| self.aside.holds(**member, group, number);
        let others = members.iter().filter(|member| !is_aside(member));
        let mut sections: Vec<u16> = others.map(|member| section_of(*member)).collect();
        sections.dedup();
        if sections.is_empty() {
            // All of it is set aside: there is nothing to ask.
            return self.fanout_checked(at, found, body, members, &sections, &[]);
        }
        let home = section_of(group);
        let memory = |section: u16| match section == home {
            true => keys::origin(section, group, group),
            false => keys::body(section, group, number),
        };
        let queries =
            sections.iter().map(|section| (*section, Query::Get(memory(*section).to_vec()))).collect();
        self.gather(Step::Landed { found, body, members, sections }, queries, 0);
    }
}
