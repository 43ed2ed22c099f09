//! Removes all that is stored of a user.
//!
//! One row without content stays, under the next number, and the horizon goes to it: numbers that others have seen are
//! never given twice, and a phone of the user that is still there gets a snapshot, which makes it forget what it has.

use std::fmt;

use proto_wire::names::{SECTIONS, section_of};
use proto_wire::pb;

use super::content::parties;
use super::limits;
use super::progress::Progress;
use super::store::{Store, StoreError};
use super::user::{Summary, UserError, duties, name_of_key, names, summary};
use crate::logic::duty::StoredDuty;
use crate::logic::keys;
use crate::logic::values::{Body, Horizon, Kind, Row, RowBody};
use crate::storage::Batch;

/// Kinds of records that are a user's own.
const OWN: &[u8] = &[
    keys::ROW,
    keys::ITEM,
    keys::UPLOAD,
    keys::ORIGIN,
    keys::PEER,
    keys::MOMENT,
    keys::SAID,
    keys::SEEN,
    keys::CONTACTS,
    keys::HORIZON,
];

/// What an erasure removes.
pub struct Erasure {
    pub summary: Summary,
    /// Keys of its names.
    names: Vec<Vec<u8>>,
    /// Keys of duties and dead letters from it and to it.
    duties: Vec<Vec<u8>>,
    records: u64,
    /// Only what an erasure before has left is there.
    pub is_done: bool,
}

/// Looks for all that is stored of a user.
pub fn plan(store: &Store, user: u64) -> Result<Erasure, UserError> {
    let summary = summary(store, user)?;
    let mut progress = Progress::new("erase: looking for its name");
    let names = names(store, user, |section| {
        progress.at(section.into(), SECTIONS.into(), || format!("section {section}"));
    })?;
    let mut of_it = Vec::new();
    for duty in duties(store) {
        let (key, value) = duty?;
        let is_of_it = StoredDuty::decode(&value).is_ok_and(|duty| {
            let (from, to) = parties(&duty.task);
            from == user || to == Some(user)
        });
        if is_of_it {
            of_it.push(key);
        }
    }
    let mut records = 0;
    for record in store.prefix(&owner_prefix(user)) {
        records += u64::from(is_own(&record?.0));
    }
    let left = left_behind(store, user, summary.newest)? && summary.rows == 1 && records == 2;
    let is_done = names.is_empty() && of_it.is_empty() && (left || records == 0);
    Ok(Erasure { summary, names, duties: of_it, records, is_done })
}

/// Removes it. The name goes last: an erasure that was killed is begun again with the same words.
pub fn erase(store: &Store, erasure: &Erasure) -> Result<(), UserError> {
    let Summary { user, newest, .. } = erasure.summary;
    remove(store, &erasure.duties)?;
    remove_own(store, user, newest)?;
    remove(store, &erasure.names)?;
    Ok(())
}

fn remove(store: &Store, keys: &[Vec<u8>]) -> Result<(), StoreError> {
    for key in keys {
        let section = keys::split(key).map_or(0, |(section, ..)| section);
        let mut batch = Batch::new(0);
        batch.delete(key);
        store.commit(store.partition(section), batch)?;
    }
    Ok(())
}

/// The first commit has the row that stays and the horizon behind which all others are, so that what comes after it can
/// be killed at any moment.
fn remove_own(store: &Store, user: u64, newest: u64) -> Result<(), UserError> {
    let partition = store.partition(section_of(user));
    let mut batch = Batch::new(0);
    let is_left = left_behind(store, user, newest)?;
    let stays = if is_left { newest } else { newest + 1 };
    if newest > 0 && !is_left {
        put_left_behind(&mut batch, user, newest, stays);
    }
    let kept = [keys::row(user, stays).to_vec(), keys::horizon(user).to_vec()];
    for record in store.prefix(&owner_prefix(user)) {
        let (key, _) = record?;
        if !is_own(&key) || (newest > 0 && kept.contains(&key)) {
            continue;
        }
        batch.delete(&key);
        if batch.bytes() >= limits::BATCH_BYTES {
            store.commit(partition, std::mem::take(&mut batch))?;
        }
    }
    if !batch.is_empty() {
        store.commit(partition, batch)?;
    }
    Ok(())
}

fn put_left_behind(batch: &mut Batch, user: u64, newest: u64, stays: u64) {
    let mut value = Vec::new();
    let body = Body::tombstone(Kind::Message, user, stays, 1, &pb::Message::default());
    Row { prev: newest, replaced: 0, marks: 0, body: RowBody::Own(body) }.encode(stays, &mut value);
    batch.put(&keys::row(user, stays), &value);
    value.clear();
    Horizon { number: stays, swept: stays, noted: stays, noted_ms: 0 }.encode(&mut value);
    batch.put(&keys::horizon(user), &value);
}

/// Whether the newest row is what an erasure left.
fn left_behind(store: &Store, user: u64, newest: u64) -> Result<bool, UserError> {
    let Some(value) = store.get(&keys::row(user, newest))? else { return Ok(false) };
    let row =
        Row::decode(newest, &value).map_err(|error| UserError::Damaged { user, what: error.to_string() })?;
    let RowBody::Own(body) = row.body else { return Ok(false) };
    let is_left = body.split().is_ok_and(|(head, rest)| {
        head.deleted
            && head.kind == Kind::Message
            && (head.origin, head.item) == (user, newest)
            && rest.is_empty()
    });
    Ok(is_left)
}

fn owner_prefix(user: u64) -> Vec<u8> {
    keys::first_of(section_of(user), user)[..10].to_vec()
}

fn is_own(key: &[u8]) -> bool {
    keys::split(key).is_some_and(|(_, _, kind, _)| OWN.contains(&kind))
}

impl fmt::Display for Erasure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary {
            user, rows, groups, uploads, moments, moments_withdrawn, contacts, other_peers, ..
        } = &self.summary;
        let names: Vec<String> = self.names.iter().map(|key| name_of_key(key)).collect();
        writeln!(f, "user {user}, {} records in all:", self.records)?;
        writeln!(f, "  its log of {rows} rows, and {uploads} ids of uploads")?;
        writeln!(
            f,
            "  what it keeps of {contacts} contacts and {other_peers} other peers, its profile, settings and devices"
        )?;
        writeln!(f, "  {} moments, with all that was said to them", moments + moments_withdrawn)?;
        writeln!(
            f,
            "  its account: {}",
            if names.is_empty() { "none".to_owned() } else { names.join(", ") }
        )?;
        writeln!(
            f,
            "  {} duties and dead letters from it and to it, which nobody gets any more",
            self.duties.len()
        )?;
        writeln!(
            f,
            "what others have of its messages, comments and contacts stays theirs; one row without content stays, so"
        )?;
        writeln!(f, "that no number is given twice. Its tokens are good until they expire.")?;
        for group in groups {
            writeln!(
                f,
                "it is still a member of group {} {:?}: what is written there is kept for it again; let it leave first",
                group.group, group.name
            )?;
        }
        Ok(())
    }
}
