//! A user as a whole: the chain of its log, and all that names rows of it.

use std::collections::HashMap;

use bytes::Bytes;
use proto_wire::pb::{self, Relation};

use super::super::content::content;
use super::{Bodies, Found};
use crate::logic::keys;
use crate::logic::values::{
    BodyHead, Horizon, Kept, Malformed, MomentHead, Row, RowBody, Upload, UploadAnswer, decode_index,
    decode_number, decode_said,
};

/// An item: whose it is, and its number there.
type Item = (u64, u64);

pub(super) struct UserCheck {
    pub id: u64,
    /// Rows up to here may be gone.
    horizon: u64,
    /// The numbers of the rows, in order.
    rows: Vec<u64>,
    items: HashMap<Item, Newest>,
    /// Of the last row.
    replaced: u64,
    marks: u8,
    index: Vec<(Item, u64, u64)>,
    kept: Vec<(Item, u64, u64)>,
    contacts: u64,
    /// What the count of contacts says.
    counted: u64,
    moments: HashMap<u64, u64>,
    /// Moment, and the item that was said.
    said: Vec<(u64, Item)>,
    /// Numbers that uploads were answered with.
    answered: Vec<u64>,
}

/// The newest row of an item.
struct Newest {
    number: u64,
    version: u64,
    rows: u32,
    /// It says of itself that it gave an item a later version.
    replaces: bool,
}

impl UserCheck {
    pub fn new(id: u64) -> Self {
        Self {
            id,
            horizon: 0,
            rows: Vec::new(),
            items: HashMap::new(),
            replaced: 0,
            marks: 0,
            index: Vec::new(),
            kept: Vec::new(),
            contacts: 0,
            counted: 0,
            moments: HashMap::new(),
            said: Vec::new(),
            answered: Vec::new(),
        }
    }

    pub fn record(&mut self, found: &mut Found<'_>, bodies: &Bodies, kind: u8, rest: &[u8], value: Bytes) {
        let number = keys::last_number(rest).unwrap_or_default();
        let read = match kind {
            keys::ROW => return self.row(found, bodies, number, &value),
            keys::ITEM => self.index_entry(found, rest, &value),
            keys::PEER => self.peer(found, number, &value),
            keys::UPLOAD => self.upload(found, &value),
            keys::MOMENT => self.moment(found, number, &value),
            keys::SAID => self.comment(found, rest, &value),
            keys::HORIZON => Horizon::decode(&value).map(|horizon| self.horizon = horizon.number),
            keys::CONTACTS => decode_number(&value).map(|count| self.counted = count),
            keys::ORIGIN | keys::SEEN => decode_number(&value).map(drop),
            _ => Err(Malformed("record of this kind")),
        };
        if let Err(error) = read {
            found.fault(self.id, number, error.to_string());
        }
    }

    fn row(&mut self, found: &mut Found<'_>, bodies: &Bodies, number: u64, value: &Bytes) {
        found.counts.rows += 1;
        let before = self.rows.last().copied().unwrap_or(0);
        self.rows.push(number);
        let row = match Row::decode(number, value) {
            Ok(row) => row,
            Err(error) => return found.fault(self.id, number, error.to_string()),
        };
        // Behind the horizon only the newest state of each item stays.
        if row.prev > before.max(self.horizon) {
            found.fault(self.id, number, format!("the row {} before it is missing", row.prev));
        } else if row.prev < before {
            found.fault(
                self.id,
                number,
                format!("it follows {before}, and says that it follows {}", row.prev),
            );
        }
        if row.replaced < self.replaced || row.replaced > number {
            found.fault(
                self.id,
                number,
                format!("{} cannot be the last row that replaced one", row.replaced),
            );
        }
        if self.marks & !row.marks != 0 {
            found.fault(self.id, number, "a mark of the rows before is lost");
        }
        (self.replaced, self.marks) = (row.replaced, row.marks);
        let is_group = matches!(row.body, RowBody::Group { .. });
        let head = match &row.body {
            RowBody::Own(body) => content(body).map(|(head, _)| head).map_err(|error| error.to_string()),
            RowBody::Group { group, number } => bodies
                .heads
                .get(&(*group, *number))
                .copied()
                .ok_or_else(|| format!("message {number} of group {group}, its body, is missing")),
        };
        match head {
            Ok(head) => self.item(number, &head, row.replaced == number),
            // One of those that cannot be read, perhaps.
            Err(_) if is_group && bodies.has_gaps => {}
            Err(what) => found.fault(self.id, number, what),
        }
    }

    fn item(&mut self, number: u64, head: &BodyHead, replaces: bool) {
        let first = Newest { number, version: head.version, rows: 0, replaces };
        let newest = self.items.entry((head.origin, head.item)).or_insert(first);
        newest.rows += 1;
        (newest.number, newest.version, newest.replaces) = (number, head.version, replaces);
    }

    fn index_entry(&mut self, found: &mut Found<'_>, rest: &[u8], value: &[u8]) -> Result<(), Malformed> {
        found.counts.index_entries += 1;
        let [origin, item] = numbers(rest);
        let (number, version) = decode_index(value)?;
        self.index.push(((origin, item), number, version));
        Ok(())
    }

    fn peer(&mut self, found: &mut Found<'_>, peer: u64, value: &[u8]) -> Result<(), Malformed> {
        found.counts.peers += 1;
        let (number, version) = if peer == self.id {
            let kept = Kept::<pb::Me>::decode(value)?;
            (kept.number, kept.version)
        } else {
            let kept = Kept::<pb::Peer>::decode(value)?;
            self.contacts += u64::from(kept.state.relation() == Relation::Contact);
            (kept.number, kept.version)
        };
        self.kept.push(((peer, 0), number, version));
        Ok(())
    }

    fn upload(&mut self, found: &mut Found<'_>, value: &[u8]) -> Result<(), Malformed> {
        found.counts.uploads += 1;
        if let UploadAnswer::Sent { number, .. } = Upload::decode(value)?.answer {
            self.answered.push(number);
        }
        Ok(())
    }

    fn moment(&mut self, found: &mut Found<'_>, moment: u64, value: &[u8]) -> Result<(), Malformed> {
        found.counts.moments += 1;
        self.moments.insert(moment, MomentHead::decode(value)?.number);
        Ok(())
    }

    fn comment(&mut self, found: &mut Found<'_>, rest: &[u8], value: &[u8]) -> Result<(), Malformed> {
        found.counts.comments += 1;
        let [moment, from, item] = numbers(rest);
        decode_said(value)?;
        self.said.push((moment, (from, item)));
        Ok(())
    }

    /// All records are in: whatever names a row or an item must name what is there.
    pub fn end(self, found: &mut Found<'_>) {
        found.counts.users += u64::from(!self.rows.is_empty());
        let id = self.id;
        let mut indexed = HashMap::with_capacity(self.index.len());
        for (item, number, version) in &self.index {
            indexed.insert(*item, ());
            self.newest_is(found, "the index", *item, *number, *version);
            if self.items.get(item).is_some_and(|newest| newest.number == *number && !newest.replaces) {
                found.fault(id, *number, "it replaces a row and does not say so");
            }
        }
        for (item, newest) in &self.items {
            if newest.rows > 1 && !indexed.contains_key(item) {
                let (origin, item) = item;
                found.fault(
                    id,
                    newest.number,
                    format!("item {origin}/{item} has {} rows and no index entry", newest.rows),
                );
            }
        }
        for (item, number, version) in &self.kept {
            self.newest_is(found, "what is kept", *item, *number, *version);
        }
        if self.horizon > self.rows.last().copied().unwrap_or(0) {
            found.fault(id, self.horizon, "the horizon is there, and no row that far");
        }
        if self.contacts != self.counted {
            found.fault(
                id,
                0,
                format!("there are {} contacts, and {} are counted", self.contacts, self.counted),
            );
        }
        self.end_moments(found);
        for number in &self.answered {
            if *number > self.horizon && self.rows.binary_search(number).is_err() {
                found.fault(id, *number, "an upload was answered with this number, and its row is missing");
            }
        }
    }

    fn end_moments(&self, found: &mut Found<'_>) {
        for (moment, number) in &self.moments {
            let newest = self.items.get(&(self.id, *moment)).map(|newest| newest.number);
            if newest != Some(*number) {
                found.fault(
                    self.id,
                    *moment,
                    format!("the moment names row {number}, and that is not its newest"),
                );
            }
        }
        for (moment, item) in &self.said {
            if !self.moments.contains_key(moment) {
                found.fault(
                    self.id,
                    *moment,
                    format!("user {} said something to it, and it is no moment", item.0),
                );
            }
            // Comments behind a horizon may be gone with the time.
            if self.horizon == 0 && !self.items.contains_key(item) {
                let (from, number) = item;
                found.fault(self.id, *moment, format!("the row of comment {from}/{number} is missing"));
            }
        }
    }

    fn newest_is(&self, found: &mut Found<'_>, who: &str, item: Item, number: u64, version: u64) {
        let (origin, at) = item;
        let what = match self.items.get(&item) {
            None => format!("{who} of item {origin}/{at} names it, and no row has that item"),
            Some(newest) if newest.number != number => {
                format!("{who} of item {origin}/{at} names it, and the newest row is {}", newest.number)
            }
            Some(newest) if newest.version != version => {
                format!(
                    "{who} of item {origin}/{at} says version {version}, and the row has {}",
                    newest.version
                )
            }
            Some(_) => return,
        };
        found.fault(self.id, number, what);
    }
}

fn numbers<const N: usize>(rest: &[u8]) -> [u64; N] {
    let mut numbers = [0; N];
    for (number, bytes) in numbers.iter_mut().zip(rest.chunks_exact(8)) {
        *number = u64::from_be_bytes(bytes.try_into().unwrap_or_default());
    }
    numbers
}
