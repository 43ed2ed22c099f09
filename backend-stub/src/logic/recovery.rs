//! At start: every duty that was on disk is checked against its receiver's memory and goes back into the
//! outbox, in order, before anything new is written.
//!
//! Sections are scanned for duties. Messages that groups had numbered come first, so that nothing new of
//! a group overtakes them; then the others, by sequence. That is one for all sections, so what made a group comes before
//! what its members sent to it.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::sync::Arc;

use proto_wire::names::{SECTIONS, section_of};

use super::api::{Action, At};
use super::core::{Core, Purpose};
use super::duty::{StoredDuty, StoredTask};
use super::groups::by_section;
use super::outbox::{Duty, Fanout, Task, body_of_row};
use super::values::{Body, GroupMeta, decode_number};
use super::{keys, limits};
use crate::storage::{Query, ReadError, Rows, partition_of};

/// Duties that are checked with one read.
const CHUNK: usize = 128;

#[derive(Default)]
pub(super) struct Recovery {
    /// Scans of sections that have not ended.
    scans: usize,
    /// Scans that the store could not do, for the next tick.
    scan_again: Vec<(u16, Vec<Query>)>,
    found: Vec<Found>,
    queue: VecDeque<Found>,
    /// What is being checked, and the answers so far.
    gathering: Option<Gathering>,
    stalled: bool,
    done: bool,
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
    failed: bool,
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
    Scan(Vec<Query>),
    /// Which queries of the step a partition answers.
    Part(Vec<usize>),
}

impl Recovery {
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
        self.recovery.scans += 1;
        self.read(partition, queries.clone(), Purpose::Recovery(RecoveryRead::Scan(queries)));
    }

    pub(super) fn recovery_read(&mut self, at: At, read: RecoveryRead, answer: Result<Vec<Rows>, ReadError>) {
        match read {
            RecoveryRead::Scan(queries) => self.duties_scanned(queries, answer),
            RecoveryRead::Part(indices) => self.part_read(&indices, answer),
        }
        self.recover(at);
    }

    fn duties_scanned(&mut self, queries: Vec<Query>, answer: Result<Vec<Rows>, ReadError>) {
        self.recovery.scans -= 1;
        let Ok(answer) = answer else {
            let Some(Query::Scan { from, .. }) = queries.first() else { return };
            let partition = partition_of(u16::from_be_bytes([from[0], from[1]]), self.config.partitions);
            return self.recovery.scan_again.push((partition, queries));
        };
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
        if recovery.done || recovery.scans > 0 || !recovery.scan_again.is_empty() || recovery.stalled {
            return;
        }
        if !recovery.found.is_empty() {
            let mut found = mem::take(&mut recovery.found);
            self.counters.recovered += found.len() as u64;
            self.counters.duties += found.len() as u64;
            found.sort_by_key(|found| {
                (!matches!(found.duty.task, StoredTask::Fanout { .. }), found.sequence, found.section)
            });
            recovery.queue = found.into();
        }
        if let Some(gathering) = recovery.gathering.take_if(|gathering| gathering.left == 0) {
            if gathering.failed {
                recovery.stalled = true;
                recovery.gathering = Some(gathering);
                return;
            }
            self.checked(at, gathering.step, gathering.answers);
        }
        if self.recovery.gathering.is_none() {
            self.check_next();
        }
    }

    /// The disk could not be read before: once more.
    pub(super) fn recover_again(&mut self) {
        for (partition, queries) in mem::take(&mut self.recovery.scan_again) {
            self.scan(partition, queries);
        }
        if mem::take(&mut self.recovery.stalled)
            && let Some(gathering) = self.recovery.gathering.take()
        {
            self.gather(gathering.step, gathering.queries);
        }
    }

    fn check_next(&mut self) {
        let queue = &mut self.recovery.queue;
        let Some(first) = queue.pop_front() else {
            self.recovery.done = true;
            return;
        };
        if let StoredTask::Fanout { group, number, version } = first.duty.task {
            let home = section_of(group);
            let queries = vec![
                (home, Query::Get(keys::group(group, version).to_vec())),
                (home, Query::Get(keys::body(home, group, number).to_vec())),
            ];
            return self.gather(Step::Fanout { found: first }, queries);
        }
        let mut chunk = vec![first];
        chunk.extend(queue.drain(..queue.len().min(CHUNK - 1)));
        let queries = chunk.iter().flat_map(|found| message_queries(&found.duty.task)).collect();
        self.gather(Step::Messages(chunk), queries);
    }

    /// Asks each partition for its share of a step's queries. They are given with their sections.
    fn gather(&mut self, step: Step, queries: Vec<(u16, Query)>) {
        // In order, so that a run can be repeated.
        let mut parts: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
        for (index, (section, _)) in queries.iter().enumerate() {
            parts.entry(self.partition(*section)).or_default().push(index);
        }
        let answers = vec![Rows::default(); queries.len()];
        let left = parts.len();
        for (partition, indices) in parts {
            let asked = indices.iter().map(|index| queries[*index].1.clone()).collect();
            self.read(partition, asked, Purpose::Recovery(RecoveryRead::Part(indices)));
        }
        self.recovery.gathering = Some(Gathering { step, queries, answers, left, failed: false });
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
            Err(_) => gathering.failed = true,
        }
    }

    fn checked(&mut self, at: At, step: Step, answers: Vec<Rows>) {
        match step {
            Step::Messages(chunk) => {
                for (found, rows) in chunk.into_iter().zip(answers.chunks_exact(2)) {
                    self.message_checked(at, found, &rows[0], &rows[1]);
                }
            }
            Step::Fanout { found } => self.fanout_read(found, &answers),
            Step::Landed { found, body, members, sections } => {
                let StoredTask::Fanout { group, number, .. } = found.duty.task else { return };
                let home = section_of(group);
                let has_landed = |section: u16, rows: &Rows| {
                    if section == home { remembered(rows) >= number } else { rows.value().is_some() }
                };
                let landed = sections
                    .iter()
                    .zip(&answers)
                    .filter(|(section, rows)| has_landed(**section, rows))
                    .map(|(section, _)| *section);
                let landed: Arc<[u16]> = landed.collect();
                if landed.len() == sections.len() {
                    // Only the commit that was to take the duty away is missing.
                    return self.landed_before(found.section, found.sequence);
                }
                self.begin_fanout(Fanout { group, sequence: found.sequence, number, body, members, landed });
            }
        }
    }

    /// `memory` is what the receiver remembers, `row` the sender's row.
    fn message_checked(&mut self, at: At, found: Found, memory: &Rows, row: &Rows) {
        let Found { section, sequence, duty: StoredDuty { created_ms, task } } = found;
        let has_landed = match &task {
            StoredTask::User { number, .. }
            | StoredTask::Group { number, .. }
            | StoredTask::Peer { number, .. } => remembered(memory) >= *number,
            // It only moves forward, and contacts are asked one by one.
            StoredTask::Receipt { .. } | StoredTask::Moment { .. } => false,
            StoredTask::Create { .. } => memory.value().is_some(),
            StoredTask::Fanout { .. } => return,
        };
        if has_landed {
            return self.landed_before(section, sequence);
        }
        let body = |number| row.value().and_then(|value| body_of_row(number, value));
        let task = match task {
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
            StoredTask::Fanout { .. } => None,
        };
        match task {
            Some(task) => self.deliver(at, Duty { section, sequence, created_ms, task }),
            None => {
                self.counters.duties -= 1;
                let text = format!(
                    "duty {sequence} of section {section} stays where it is: its message cannot be read"
                );
                self.actions.push_back(Action::Log(text));
            }
        }
    }

    fn landed_before(&mut self, section: u16, sequence: u64) {
        self.counters.recovered_landed += 1;
        self.counters.duties -= 1;
        self.open(section).delete(&keys::duty(section, sequence));
    }

    fn fanout_read(&mut self, found: Found, answers: &[Rows]) {
        let StoredTask::Fanout { group, number, .. } = found.duty.task else { return };
        let meta = answers[0].value().and_then(|value| GroupMeta::decode(value).ok());
        let body = answers[1].value().and_then(|value| Body::parse(value.clone()).ok());
        let (Some(meta), Some(body)) = (meta, body) else {
            self.counters.duties -= 1;
            let text = format!(
                "duty {} of group {group} stays where it is: its message cannot be read",
                found.sequence
            );
            self.actions.push_back(Action::Log(text));
            return;
        };
        let members = by_section(&meta.members);
        let mut sections: Vec<u16> = members.iter().map(|member| section_of(*member)).collect();
        sections.dedup();
        let home = section_of(group);
        let memory = |section: u16| match section == home {
            true => keys::origin(section, group, group),
            false => keys::body(section, group, number),
        };
        let queries =
            sections.iter().map(|section| (*section, Query::Get(memory(*section).to_vec()))).collect();
        self.gather(Step::Landed { found, body, members, sections }, queries);
    }
}

fn duties_after(section: u16, sequence: u64) -> Query {
    Query::Scan {
        from: keys::duty(section, sequence + 1).to_vec(),
        to: keys::duty(section, u64::MAX).to_vec(),
        max_rows: limits::RECOVERY_ROWS,
        max_bytes: u32::MAX,
        reverse: false,
    }
}

/// What the receiver remembers of the origin, and the sender's row: with their sections.
fn message_queries(task: &StoredTask) -> [(u16, Query); 2] {
    let get = |section, key: keys::Key| (section, Query::Get(key.to_vec()));
    match task {
        StoredTask::User { receiver, sender, number }
        | StoredTask::Group { group: receiver, sender, number } => {
            let section = section_of(*receiver);
            [
                get(section, keys::origin(section, *receiver, *sender)),
                get(section_of(*sender), keys::row(*sender, *number)),
            ]
        }
        StoredTask::Peer { receiver, sender, .. } | StoredTask::Receipt { receiver, sender, .. } => {
            let section = section_of(*receiver);
            let memory = get(section, keys::origin(section, *receiver, *sender));
            [memory.clone(), memory]
        }
        StoredTask::Moment { author, moment, .. } => {
            let head = get(section_of(*author), keys::moment(*author, *moment));
            [head.clone(), head]
        }
        StoredTask::Create { group, .. } | StoredTask::Fanout { group, .. } => {
            let section = section_of(*group);
            [get(section, keys::group(*group, 1)), get(section, keys::group(*group, 1))]
        }
    }
}

/// The number in a memory of an origin; 0: none.
fn remembered(rows: &Rows) -> u64 {
    rows.value().and_then(|value| decode_number(value).ok()).unwrap_or(0)
}
