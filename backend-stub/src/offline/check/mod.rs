//! Reads all of a store and tells what does not fit together.
//!
//! Partitions are read from their beginning to their end, once. Of each section the groups are read first, since the
//! rows of its users name their bodies; then one owner after the other is gathered and checked as a whole. In memory are
//! the bodies' heads of one section and the numbers and items of one user: 100 bytes a row of the longest log.

mod group;
mod user;

use std::collections::HashMap;
use std::fmt;

use bytes::Bytes;
use proto_wire::names::{GROUP_BIT, SECTIONS, section_of};
use serde::Serialize;

use self::group::GroupCheck;
use self::user::UserCheck;
use super::content::{content, duty_line};
use super::progress::Progress;
use super::store::{Store, end_of};
use crate::logic::duty::{StoredDuty, StoredTask};
use crate::logic::keys;
use crate::logic::services::{ACCOUNT, Account, key_of};
use crate::logic::values::{Body, BodyHead};

/// Something that does not fit, of a user or a group; owner 0 has the duties.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub owner: u64,
    /// The number of the row, message or duty that it is about; 0: of none.
    pub number: u64,
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.owner {
            0 => write!(f, "duty {}: {}", self.number, self.what),
            owner => {
                let who = if owner & GROUP_BIT == 0 { "user" } else { "group" };
                write!(f, "{who} {owner}, number {}: {}", self.number, self.what)
            }
        }
    }
}

/// What was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub records: u64,
    pub bytes: u64,
    pub users: u64,
    pub rows: u64,
    pub index_entries: u64,
    pub uploads: u64,
    pub peers: u64,
    pub moments: u64,
    pub comments: u64,
    pub accounts: u64,
    pub groups: u64,
    pub bodies: u64,
    pub duties: u64,
    pub dead_letters: u64,
    pub faults: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} records, {} bytes", self.records, self.bytes)?;
        writeln!(f, "{} users with {} rows and {} index entries", self.users, self.rows, self.index_entries)?;
        writeln!(
            f,
            "{} accounts, {} uploads remembered, {} peers kept, {} moments, {} comments",
            self.accounts, self.uploads, self.peers, self.moments, self.comments
        )?;
        writeln!(f, "{} groups, {} bodies of their messages", self.groups, self.bodies)?;
        writeln!(f, "{} duties, {} dead letters", self.duties, self.dead_letters)?;
        writeln!(f, "{} faults", self.faults)
    }
}

/// Checks all of a store; `fault` hears of each fault.
pub fn check(store: &Store, fault: &mut dyn FnMut(&Fault)) -> Counts {
    let found = Found { counts: Counts::default(), hears: fault };
    let mut check = Check {
        store,
        found,
        section: None,
        bodies: Bodies::default(),
        user: None,
        group: None,
        progress: Progress::new("check"),
    };
    for partition in 0..store.partitions {
        check.partition(partition);
    }
    check.found.counts
}

/// The counts, and where faults go.
struct Found<'a> {
    counts: Counts,
    hears: &'a mut dyn FnMut(&Fault),
}

impl Found<'_> {
    fn fault(&mut self, owner: u64, number: u64, what: impl Into<String>) {
        self.counts.faults += 1;
        (self.hears)(&Fault { owner, number, what: what.into() });
    }
}

/// The heads of the bodies that a section has of groups' messages.
#[derive(Default)]
struct Bodies {
    heads: HashMap<(u64, u64), BodyHead>,
    /// Some of them cannot be read.
    has_gaps: bool,
}

struct Check<'a> {
    store: &'a Store,
    found: Found<'a>,
    section: Option<u16>,
    bodies: Bodies,
    /// The owner that is being gathered.
    user: Option<UserCheck>,
    group: Option<GroupCheck>,
    progress: Progress,
}

impl Check<'_> {
    fn partition(&mut self, partition: u16) {
        self.section = None;
        let (store, mut from) = (self.store, Some(Vec::new()));
        while let Some(begin) = from.take() {
            let mut behind = begin.clone();
            for record in store.scan(partition, begin, end_of(&[])) {
                match record {
                    Ok((key, value)) => {
                        self.take(partition, &key, value);
                        behind = after(key);
                    }
                    Err(_) => {
                        from = self.step_over(partition, behind);
                        break;
                    }
                }
            }
        }
        self.end_owners();
    }

    /// Records cannot be read: takes them one by one up to there, says whose they are, and gives where reading goes on
    /// behind them: at the next owner, or else at the next section that can be read.
    fn step_over(&mut self, partition: u16, mut at: Vec<u8>) -> Option<Vec<u8>> {
        let (store, end) = (self.store, end_of(&[]));
        let error = loop {
            match store.first_from(partition, &at, &end) {
                Ok(Some((key, value))) => {
                    self.take(partition, &key, value);
                    at = after(key);
                }
                // It could be read this time.
                Ok(None) => return None,
                Err(error) => break error,
            }
        };
        let (section, owner) =
            keys::split(&at).map_or((partition, 0), |(section, owner, ..)| (section, owner));
        // What is known of it is not all: nothing can be said of how it fits together.
        (self.user, self.group) = (None, None);
        let sections = (section + 1..SECTIONS).filter(|next| store.partition(*next) == partition);
        let next_owner = owner.checked_add(1).map(|next| keys::first_of(section, next));
        let mut places = next_owner.into_iter().chain(sections.map(|next| keys::first_of(next, 0)));
        let next = places.find(|place| store.first_from(partition, place, &end).is_ok());
        let upto = next.as_ref().and_then(|next| keys::split(next)).map(|(section, ..)| section);
        let upto = match upto {
            Some(next) if next == section => "the next owner".to_owned(),
            Some(next) => format!("section {next}"),
            None => "the end of the partition".to_owned(),
        };
        self.found.fault(
            owner,
            0,
            format!("what follows in section {section}, up to {upto}, cannot be read: {error}"),
        );
        next.map(|next| next.to_vec())
    }

    fn take(&mut self, partition: u16, key: &[u8], value: Bytes) {
        self.found.counts.records += 1;
        self.found.counts.bytes += (key.len() + value.len()) as u64;
        let Some((section, owner, kind, rest)) = keys::split(key) else {
            return self.found.fault(0, 0, format!("the key {key:02x?} is none of the store's"));
        };
        if self.section != Some(section) {
            self.end_owners();
            self.begin_section(partition, section);
        }
        if length_of(kind).is_some_and(|length| length != rest.len())
            || (length_of(kind).is_none() && kind != ACCOUNT)
        {
            let kind = char::from(kind);
            return self.found.fault(owner, 0, format!("a record of kind {kind:?} has the key {rest:02x?}"));
        }
        self.record(section, owner, kind, rest, value);
    }

    fn begin_section(&mut self, partition: u16, section: u16) {
        self.section = Some(section);
        if section >= SECTIONS || self.store.partition(section) != partition {
            self.found.fault(0, 0, format!("records of section {section} lie in partition {partition}"));
        }
        let counts = self.found.counts;
        let done = u64::from(partition) * u64::from(SECTIONS) + u64::from(section);
        let of = u64::from(self.store.partitions) * u64::from(SECTIONS);
        self.progress.at(done, of, || format!("{} records, {} faults", counts.records, counts.faults));
        self.bodies = Bodies::default();
        let (from, to) = (keys::first_of(section, GROUP_BIT), keys::body(section, u64::MAX, u64::MAX));
        for record in self.store.scan(partition, from.to_vec(), to.to_vec()) {
            // Told when reading comes to it.
            let Ok((key, value)) = record else {
                self.bodies.has_gaps = true;
                break;
            };
            let Some((_, group, keys::BODY, _)) = keys::split(&key) else { continue };
            let number = keys::last_number(&key).unwrap_or_default();
            self.found.counts.bodies += 1;
            match Body::parse(value).and_then(|body| content(&body)) {
                Ok((head, _)) => drop(self.bodies.heads.insert((group, number), head)),
                Err(error) => self.found.fault(group, number, format!("{error}, in section {section}")),
            }
        }
    }

    fn record(&mut self, section: u16, owner: u64, kind: u8, rest: &[u8], value: Bytes) {
        match owner {
            0 => self.duty(section, kind, rest, &value),
            // The bodies were read already.
            _ if kind == keys::BODY => {}
            _ if section_of(owner) != section => {
                self.found.fault(owner, 0, format!("a record of it lies in section {section}"));
            }
            _ if kind == ACCOUNT => self.account(owner, rest, &value),
            group if group & GROUP_BIT != 0 => {
                if self.group.as_ref().is_none_or(|known| known.id != group) {
                    self.end_owners();
                    self.group = Some(GroupCheck::new(group));
                }
                if let Some(known) = &mut self.group {
                    known.record(&mut self.found, kind, rest, &value);
                }
            }
            user => {
                if self.user.as_ref().is_none_or(|known| known.id != user) {
                    self.end_owners();
                    self.user = Some(UserCheck::new(user));
                }
                if let Some(known) = &mut self.user {
                    known.record(&mut self.found, &self.bodies, kind, rest, value);
                }
            }
        }
    }

    fn end_owners(&mut self) {
        if let Some(user) = self.user.take() {
            user.end(&mut self.found);
        }
        if let Some(group) = self.group.take() {
            group.end(&mut self.found);
        }
    }

    fn account(&mut self, owner: u64, name: &[u8], value: &[u8]) {
        self.found.counts.accounts += 1;
        let is_in_place =
            std::str::from_utf8(name).is_ok_and(|name| key_of(name).is_ok_and(|key| key.owner == owner));
        if !is_in_place {
            self.found.fault(
                owner,
                0,
                format!("the name {:?} is not kept here", String::from_utf8_lossy(name)),
            );
        }
        if let Err(status) = Account::from_bytes(value) {
            let name = String::from_utf8_lossy(name);
            self.found.fault(owner, 0, format!("the account of {name:?}: {}", status.text));
        }
    }

    fn duty(&mut self, section: u16, kind: u8, rest: &[u8], value: &[u8]) {
        let sequence = keys::last_number(rest).unwrap_or_default();
        match kind {
            keys::DUTY => self.found.counts.duties += 1,
            keys::DEAD => self.found.counts.dead_letters += 1,
            other => {
                self.found.fault(
                    0,
                    sequence,
                    format!("a record of kind {:?} has no owner", char::from(other)),
                );
                return;
            }
        }
        let task = match StoredDuty::decode(value) {
            Ok(duty) => duty.task,
            Err(error) => return self.found.fault(0, sequence, format!("{error}, in section {section}")),
        };
        if kind == keys::DEAD {
            return;
        }
        for (owner, key, what) in needs(&task) {
            let what = match self.store.get(&key) {
                _ if section_of(owner) != section => format!("it is not of section {section}"),
                Ok(Some(_)) => continue,
                Ok(None) => format!("{what} is missing"),
                Err(error) => format!("{what}: {error}"),
            };
            self.found.fault(0, sequence, format!("{}: {what}", duty_line(&task)));
        }
    }
}

/// What must be there for a duty to be carried out, and whose it is.
fn needs(task: &StoredTask) -> Vec<(u64, keys::Key, &'static str)> {
    match *task {
        StoredTask::User { sender, number, .. }
        | StoredTask::Group { sender, number, .. }
        | StoredTask::Peer { sender, number, .. } => {
            vec![(sender, keys::row(sender, number), "the sender's row")]
        }
        StoredTask::Fanout { group, number, version } => vec![
            (group, keys::group(group, version), "the membership of its time"),
            (group, keys::body(section_of(group), group, number), "its body"),
        ],
        StoredTask::Member { group, number, .. } => {
            vec![(group, keys::body(section_of(group), group, number), "its body")]
        }
        StoredTask::Moment { author, moment, number, .. }
        | StoredTask::Reference { author, moment, number, .. } => vec![
            (author, keys::moment(author, moment), "the moment"),
            (author, keys::row(author, number), "the author's row"),
        ],
        StoredTask::Create { .. } | StoredTask::Receipt { .. } => Vec::new(),
    }
}

/// Right behind a key.
fn after(mut key: Vec<u8>) -> Vec<u8> {
    key.push(0);
    key
}

/// How many bytes follow the kind in a key.
fn length_of(kind: u8) -> Option<usize> {
    match kind {
        keys::CONTACTS | keys::HORIZON => Some(0),
        keys::ROW
        | keys::ORIGIN
        | keys::GROUP
        | keys::BODY
        | keys::DUTY
        | keys::PEER
        | keys::MOMENT
        | keys::SEEN => Some(8),
        keys::ITEM | keys::UPLOAD | keys::DEAD => Some(16),
        keys::SAID => Some(24),
        _ => None,
    }
}
