//! One user in the store: who it is, its log with the bodies that rows only name, and what there is of it in all.

use std::collections::HashSet;
use std::fmt;

use bytes::Bytes;
use proto_wire::names::{GROUP_BIT, SECTIONS, section_of};
use proto_wire::pb::{self, Relation};
use serde::{Serialize, Serializer};

use super::content::{content, marks, parties};
use super::store::{Store, StoreError};
use crate::logic::duty::StoredDuty;
use crate::logic::keys;
use crate::logic::services::{ACCOUNT, Account, key_of};
use crate::logic::values::{Body, GroupMeta, Horizon, Kept, Kind, Malformed, MomentHead, Row, RowBody};
use crate::storage::ReadError;

/// Why something of a user cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    #[error("nobody has the name {0:?}")]
    NoName(String),
    #[error("{0:?} is no user: {1}")]
    NoUser(String, String),
    #[error("user {user}: {what} (`moorgate-backend check` tells all that is wrong)")]
    Damaged { user: u64, what: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<ReadError> for UserError {
    fn from(error: ReadError) -> Self {
        Self::Store(error.into())
    }
}

/// The user that an operator means: a number, or a name; `@` before a name of digits.
pub fn find(store: &Store, who: &str) -> Result<u64, UserError> {
    if let Ok(user) = who.parse::<u64>() {
        if user == 0 || user & GROUP_BIT != 0 {
            return Err(UserError::NoUser(
                who.to_owned(),
                "the ids of users go from 1 to 2^63 - 1".to_owned(),
            ));
        }
        return Ok(user);
    }
    let name = who.strip_prefix('@').unwrap_or(who);
    let key = key_of(name).map_err(|status| UserError::NoUser(who.to_owned(), status.text))?;
    let value = store.get(&keys::kv(key.owner, key.kind, &key.name))?;
    let value = value.ok_or_else(|| UserError::NoName(name.to_owned()))?;
    let account = Account::from_bytes(&value);
    let account = account.map_err(|status| {
        UserError::NoUser(who.to_owned(), format!("the account is damaged: {}", status.text))
    })?;
    Ok(account.user)
}

/// The keys of the names that a user has. Names are kept by their hashes, so all owners of the store are visited;
/// `each_section` hears how far that is.
pub(crate) fn names(
    store: &Store,
    user: u64,
    mut each_section: impl FnMut(u16),
) -> Result<Vec<Vec<u8>>, ReadError> {
    let mut names = Vec::new();
    for section in 0..SECTIONS {
        each_section(section);
        let partition = store.partition(section);
        let (mut owner, end) = (0, keys::first_of(section, GROUP_BIT));
        // An account is the first of its owner: its kind is below all others.
        while let Some((key, value)) = store.first_from(partition, &keys::first_of(section, owner), &end)? {
            let Some((_, at, kind, _)) = keys::split(&key).filter(|(_, at, _, _)| at & GROUP_BIT == 0) else {
                break;
            };
            if kind == ACCOUNT && Account::from_bytes(&value).is_ok_and(|account| account.user == user) {
                names.push(key);
            }
            owner = at + 1;
        }
    }
    Ok(names)
}

/// The name in the key of an account.
pub(crate) fn name_of_key(key: &[u8]) -> String {
    keys::split(key).map_or(String::new(), |(_, _, _, name)| String::from_utf8_lossy(name).into_owned())
}

/// A row with its body, wherever that lies.
#[derive(Debug)]
pub(crate) struct Entry {
    pub number: u64,
    pub row: Row,
    /// None: a group's body that is missing or cannot be read.
    pub body: Option<Body>,
}

/// The rows of a user from a number on.
pub(crate) fn entries(
    store: &Store,
    user: u64,
    from: u64,
) -> impl Iterator<Item = Result<Entry, UserError>> + '_ {
    let section = section_of(user);
    let (from, to) = (keys::row(user, from).to_vec(), keys::row(user, u64::MAX).to_vec());
    store.scan(store.partition(section), from, to).map(move |row| {
        let (key, value) = row?;
        let number = keys::last_number(&key).unwrap_or_default();
        let damaged =
            |error: Malformed| UserError::Damaged { user, what: format!("number {number}: {error}") };
        let row = Row::decode(number, &value).map_err(damaged)?;
        let body = match &row.body {
            RowBody::Own(body) => Some(body.clone()),
            RowBody::Group { group, number } => {
                store.get(&keys::body(section, *group, *number))?.and_then(|value| Body::parse(value).ok())
            }
        };
        Ok(Entry { number, row, body })
    })
}

/// All records of one kind that a user owns, decoded.
pub(crate) fn records<T>(
    store: &Store,
    user: u64,
    kind: u8,
    decode: impl Fn(&[u8], Bytes) -> Result<T, Malformed>,
) -> Result<Vec<T>, UserError> {
    let prefix = keys::kv(user, kind, &[]);
    let mut records = Vec::new();
    for record in store.prefix(&prefix) {
        let (key, value) = record?;
        let record = decode(&key, value);
        records.push(record.map_err(|error| UserError::Damaged { user, what: error.to_string() })?);
    }
    Ok(records)
}

/// What a user keeps of others, and of itself.
pub(crate) struct Peers {
    pub peers: Vec<(u64, Kept<pb::Peer>)>,
    pub me: Option<Kept<pb::Me>>,
}

pub(crate) fn peers(store: &Store, user: u64) -> Result<Peers, UserError> {
    let mut me = None;
    let decode = |key: &[u8], value: Bytes| match keys::last_number(key) {
        Some(peer) if peer == user => Kept::<pb::Me>::decode(&value).map(|kept| (peer, None, Some(kept))),
        Some(peer) => Kept::<pb::Peer>::decode(&value).map(|kept| (peer, Some(kept), None)),
        None => Err(Malformed("peer")),
    };
    let mut peers = Vec::new();
    for (peer, kept, own) in records(store, user, keys::PEER, decode)? {
        me = me.or(own);
        peers.extend(kept.map(|kept| (peer, kept)));
    }
    Ok(Peers { peers, me })
}

/// Every duty and dead letter of the store, with its key.
pub(crate) fn duties(store: &Store) -> impl Iterator<Item = Result<(Vec<u8>, Bytes), ReadError>> + '_ {
    (0..SECTIONS).flat_map(move |section| {
        let (from, to) = (keys::duty(section, 0), keys::dead(section, u64::MAX, u64::MAX));
        store.scan(store.partition(section), from.to_vec(), to.to_vec())
    })
}

/// What there is of a user.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    #[serde(serialize_with = "as_text")]
    pub user: u64,
    pub section: u16,
    /// The number of the newest row; 0: the log is empty.
    pub newest: u64,
    /// Up to here rows may be gone; a phone that is behind it gets a snapshot.
    pub horizon: u64,
    pub rows: u64,
    pub items: u64,
    /// Of rows and their own bodies; those of groups are shared.
    pub bytes: u64,
    pub marks: Vec<&'static str>,
    pub contacts: u64,
    /// Others of whom something is kept: asked, removed, blocked, read.
    pub other_peers: u64,
    pub blocked: u64,
    pub groups: Vec<GroupOf>,
    pub devices: Vec<DeviceOf>,
    pub moments: u64,
    pub moments_withdrawn: u64,
    /// Ids of uploads that are remembered.
    pub uploads: u64,
    pub duties_from: u64,
    pub duties_to: u64,
    pub dead_letters: u64,
}

/// A group that a user is in now.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct GroupOf {
    #[serde(serialize_with = "as_text")]
    pub group: u64,
    pub name: String,
    pub members: usize,
    pub is_owner: bool,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct DeviceOf {
    #[serde(serialize_with = "as_text")]
    pub device: u64,
    pub name: String,
    pub logged_in_ms: u64,
    pub is_out: bool,
}

fn as_text<S: Serializer>(id: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

pub fn summary(store: &Store, user: u64) -> Result<Summary, UserError> {
    let mut summary = Summary { user, section: section_of(user), ..Summary::default() };
    let (mut items, mut seen_groups) = (HashSet::new(), HashSet::new());
    for entry in entries(store, user, 0) {
        let Entry { number, row, body } = entry?;
        summary.newest = number;
        summary.rows += 1;
        summary.marks = marks(row.marks);
        if let RowBody::Own(body) = &row.body {
            summary.bytes += body.0.len() as u64;
        }
        let Some((head, _)) = body.as_ref().and_then(|body| body.split().ok()) else { continue };
        items.insert((head.origin, head.item));
        if head.kind == Kind::Group {
            seen_groups.insert(head.origin);
        }
    }
    let horizon = store.get(&keys::horizon(user))?.map(|value| Horizon::decode(&value)).transpose();
    let horizon = horizon.map_err(|error| UserError::Damaged { user, what: error.to_string() })?;
    summary.horizon = horizon.map_or(0, |horizon| horizon.number);
    summary.items = items.len() as u64;
    summary.groups = groups(store, user, seen_groups)?;
    summary.count_peers(peers(store, user)?);
    let moments = records(store, user, keys::MOMENT, |_, value| MomentHead::decode(&value))?;
    summary.moments_withdrawn = moments.iter().filter(|moment| moment.withdrawn).count() as u64;
    summary.moments = moments.len() as u64 - summary.moments_withdrawn;
    summary.uploads = records(store, user, keys::UPLOAD, |_, _| Ok(()))?.len() as u64;
    summary.count_duties(store)?;
    Ok(summary)
}

/// Of the groups that a log has heard of, those that have this user as a member now.
fn groups(store: &Store, user: u64, seen: HashSet<u64>) -> Result<Vec<GroupOf>, UserError> {
    let mut groups = Vec::new();
    for group in seen {
        let Some((_, value)) = store.last(&keys::kv(group, keys::GROUP, &[]))? else { continue };
        let meta = GroupMeta::decode(&value)
            .map_err(|error| UserError::Damaged { user, what: format!("group {group}: {error}") })?;
        if meta.members.contains(&user) {
            let (members, is_owner) = (meta.members.len(), meta.owner == user);
            groups.push(GroupOf { group, name: meta.name, members, is_owner });
        }
    }
    groups.sort_by_key(|group| group.group);
    Ok(groups)
}

impl Summary {
    fn count_peers(&mut self, peers: Peers) {
        for (_, kept) in &peers.peers {
            match kept.state.relation() {
                Relation::Contact => self.contacts += 1,
                _ => self.other_peers += 1,
            }
            self.blocked += u64::from(kept.state.blocked);
        }
        let devices = peers.me.map(|me| me.state.devices).unwrap_or_default();
        self.devices = devices
            .into_iter()
            .map(|known| DeviceOf {
                device: known.device,
                name: known.name,
                logged_in_ms: known.time_ms,
                is_out: known.out,
            })
            .collect();
    }

    fn count_duties(&mut self, store: &Store) -> Result<(), UserError> {
        for duty in duties(store) {
            let (key, value) = duty?;
            // One that cannot be read belongs to nobody that is known; a check tells it.
            let Ok(duty) = StoredDuty::decode(&value) else { continue };
            let (from, to) = parties(&duty.task);
            let (from, to) = (from == self.user, to == Some(self.user));
            if key.get(10) == Some(&keys::DEAD) {
                self.dead_letters += u64::from(from || to);
            } else {
                self.duties_from += u64::from(from);
                self.duties_to += u64::from(to);
            }
        }
        Ok(())
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "user {} (section {})", self.user, self.section)?;
        writeln!(f, "  newest number  {}, horizon {}", self.newest, self.horizon)?;
        writeln!(
            f,
            "  rows           {}, of {} items, {} bytes of its own",
            self.rows, self.items, self.bytes
        )?;
        let marks = if self.marks.is_empty() { "none".to_owned() } else { self.marks.join(", ") };
        writeln!(f, "  marks          {marks}")?;
        writeln!(
            f,
            "  contacts       {}; {} other peers; {} blocked",
            self.contacts, self.other_peers, self.blocked
        )?;
        writeln!(f, "  groups         {}", self.groups.len())?;
        for group in &self.groups {
            let owner = if group.is_owner { ", its owner" } else { "" };
            writeln!(f, "    {} {:?}, {} members{owner}", group.group, group.name, group.members)?;
        }
        writeln!(f, "  devices        {}", self.devices.len())?;
        for device in &self.devices {
            let out = if device.is_out { ", logged out" } else { "" };
            writeln!(
                f,
                "    {} {:?}, logged in at {} ms{out}",
                device.device, device.name, device.logged_in_ms
            )?;
        }
        writeln!(f, "  moments        {}; {} withdrawn", self.moments, self.moments_withdrawn)?;
        writeln!(f, "  uploads        {} remembered", self.uploads)?;
        writeln!(
            f,
            "  duties         {} from it, {} to it; {} dead letters",
            self.duties_from, self.duties_to, self.dead_letters
        )
    }
}

/// A row as JSON.
pub(crate) fn entry_json(entry: &Entry) -> serde_json::Value {
    use super::content::{id, kind_name, to_json};
    let mut value = serde_json::json!({
        "number": entry.number, "prev": entry.row.prev, "marks": marks(entry.row.marks),
    });
    if let RowBody::Group { group, number } = &entry.row.body {
        value["group"] = serde_json::json!({ "group": id(*group), "number": number });
    }
    if let Some((head, content)) = entry.body.as_ref().and_then(|body| content(body).ok()) {
        value["item"] = serde_json::json!({ "origin": id(head.origin), "number": head.item });
        value["version"] = head.version.into();
        value["deleted"] = head.deleted.into();
        value["kind"] = kind_name(head.kind).into();
        value["body"] = to_json(&content);
    }
    value
}
