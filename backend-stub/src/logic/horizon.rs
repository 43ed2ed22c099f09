//! The horizon of a log: above it rows stay as written, behind it only the newest state of each item stays. A
//! phone whose cursor is behind it gets a snapshot.
//!
//! The walk that forgets ids of uploads moves horizons too. A pass notes how far a log is; when that note is old enough,
//! the rows before it are old enough as well, without a time in each row. In the commit that deletes rows the record
//! says so, so that whoever reads the record after the rows knows whether any can be missing.

use std::collections::BTreeMap;

use ahash::AHashMap;
use prost::Message as _;
use proto_wire::names::section_of;
use proto_wire::pb;

use super::api::At;
use super::core::{Core, Purpose};
use super::values::{Body, Horizon, Kind, Row, RowBody, decode_number};
use super::{keys, limits};
use crate::storage::{Query, ReadError, Rows};

/// Rows of a user that are looked at.
pub(super) struct Sweep {
    user: u64,
    horizon: Horizon,
    rows: Vec<(u64, RowBody)>,
    /// Where the look ended: all up to here is swept then.
    upto: u64,
    bodies: AHashMap<(u64, u64), Body>,
}

pub(super) enum HorizonRead {
    /// The record and the newest row.
    Tail {
        user: u64,
    },
    Rows(Sweep),
    Bodies(Sweep, Vec<(u64, u64)>),
    Newest(Sweep, Vec<(u64, u64)>),
}

impl Core {
    /// Looks whether a user's horizon is to move. The walk goes on when it is done.
    pub(super) fn look_at_log(&mut self, user: u64) {
        let tail = Query::Scan {
            from: keys::row(user, 0).to_vec(),
            to: keys::row(user, u64::MAX).to_vec(),
            max_rows: 1,
            max_bytes: u32::MAX,
            reverse: true,
        };
        let queries = vec![Query::Get(keys::horizon(user).to_vec()), tail];
        self.read_for_horizon(user, queries, HorizonRead::Tail { user });
    }

    pub(super) fn horizon_read(&mut self, at: At, read: HorizonRead, answer: Result<Vec<Rows>, ReadError>) {
        self.expiry.end_read();
        // What cannot be read now is asked for again in the next step.
        let Ok(answer) = answer else { return };
        match read {
            HorizonRead::Tail { user } => self.tail_looked_at(at, user, &answer),
            HorizonRead::Rows(mut sweep) => {
                let rows = answer.into_iter().next().unwrap_or_default();
                sweep.take_rows(&rows);
                self.sweep_bodies(at, sweep);
            }
            HorizonRead::Bodies(mut sweep, wanted) => {
                for (key, rows) in wanted.into_iter().zip(&answer) {
                    if let Some(body) = rows.value().and_then(|value| Body::parse(value.clone()).ok()) {
                        sweep.bodies.insert(key, body);
                    }
                }
                self.sweep_newest(at, sweep);
            }
            HorizonRead::Newest(sweep, items) => {
                let newest = items.into_iter().zip(&answer).filter_map(|(item, rows)| {
                    Some((item, rows.value().and_then(|value| decode_number(value).ok())?))
                });
                let newest = newest.collect();
                self.end_sweep(at, sweep, &newest);
            }
        }
    }

    fn tail_looked_at(&mut self, at: At, user: u64, answer: &[Rows]) {
        let known = answer[0].value().and_then(|value| Horizon::decode(value).ok());
        let tail = answer[1].rows.first().and_then(|(key, _)| keys::last_number(key)).unwrap_or(0);
        let mut horizon = known.unwrap_or_default();
        let keeps = self.config.horizon_rows;
        let is_due = horizon.noted_ms + self.config.horizon_age_ms <= at.unix_ms;
        if known.is_none() && tail <= keeps {
            return self.walk_on(at, user);
        }
        if is_due {
            // What was noted is old enough now.
            horizon.number = horizon.number.max(horizon.noted.min(tail.saturating_sub(keeps)));
            (horizon.noted, horizon.noted_ms) = (tail, at.unix_ms);
            if self.config.keep_ms > 0 {
                // What stayed the last time may be beyond its time now.
                horizon.swept = 0;
            }
        }
        if horizon.swept < horizon.number {
            let query = Query::Scan {
                from: keys::row(user, horizon.swept + 1).to_vec(),
                to: keys::row(user, horizon.number).to_vec(),
                max_rows: limits::SWEEP_ROWS,
                max_bytes: u32::MAX,
                reverse: false,
            };
            let sweep = Sweep { user, horizon, rows: Vec::new(), upto: 0, bodies: AHashMap::new() };
            return self.read_for_horizon(user, vec![query], HorizonRead::Rows(sweep));
        }
        if is_due {
            self.put_horizon(user, &horizon);
        }
        self.walk_on(at, user);
    }

    fn sweep_bodies(&mut self, at: At, sweep: Sweep) {
        let group_row = |(_, body): &(u64, RowBody)| match body {
            RowBody::Group { group, number } => Some((*group, *number)),
            RowBody::Own(_) => None,
        };
        let wanted: Vec<(u64, u64)> = sweep.rows.iter().filter_map(group_row).collect();
        if wanted.is_empty() {
            return self.sweep_newest(at, sweep);
        }
        let section = section_of(sweep.user);
        let queries =
            wanted.iter().map(|(group, number)| Query::Get(keys::body(section, *group, *number).to_vec()));
        let queries = queries.collect();
        self.read_for_horizon(sweep.user, queries, HorizonRead::Bodies(sweep, wanted));
    }

    fn sweep_newest(&mut self, at: At, sweep: Sweep) {
        let items: BTreeMap<(u64, u64), ()> =
            sweep.rows.iter().filter_map(|(_, body)| Some((sweep.item(body)?, ()))).collect();
        let items: Vec<(u64, u64)> = items.into_keys().collect();
        if items.is_empty() {
            return self.end_sweep(at, sweep, &AHashMap::new());
        }
        let key = |(origin, item): &(u64, u64)| Query::Get(keys::item(sweep.user, *origin, *item).to_vec());
        let queries = items.iter().map(key).collect();
        self.read_for_horizon(sweep.user, queries, HorizonRead::Newest(sweep, items));
    }

    /// One commit: rows that a later one replaced go, and what is beyond its time; the record says how far.
    fn end_sweep(&mut self, at: At, mut sweep: Sweep, newest: &AHashMap<(u64, u64), u64>) {
        let user = sweep.user;
        let section = section_of(user);
        let keeps_ms = self.config.keep_ms;
        for (number, body) in &sweep.rows {
            let Some(item) = sweep.item(body) else { continue };
            let later = newest.get(&item).copied();
            let is_replaced = later.is_some_and(|later| later > *number);
            let is_over = keeps_ms > 0 && sweep.time_ms(body).is_some_and(|ms| ms + keeps_ms < at.unix_ms);
            if is_replaced || is_over {
                self.open(section).delete(&keys::row(user, *number));
                self.counters.rows_swept += 1;
            }
            if is_over && later == Some(*number) {
                self.open(section).delete(&keys::item(user, item.0, item.1));
            }
        }
        sweep.horizon.swept = sweep.upto;
        self.put_horizon(user, &sweep.horizon);
        // More of it comes with the next pass: a step's deletes stay bounded.
        self.walk_on(at, user);
    }

    fn put_horizon(&mut self, user: u64, horizon: &Horizon) {
        self.scratch.clear();
        horizon.encode(&mut self.scratch);
        self.put_scratch(section_of(user), &keys::horizon(user));
    }

    fn read_for_horizon(&mut self, user: u64, queries: Vec<Query>, read: HorizonRead) {
        if self.expiry.begin_read() {
            self.read(self.partition(section_of(user)), queries, Purpose::Horizon(Box::new(read)));
        }
    }
}

impl Sweep {
    fn take_rows(&mut self, rows: &Rows) {
        for (key, value) in &rows.rows {
            let Some(number) = keys::last_number(key) else { continue };
            // A damaged row stays where it is: a page or a check tells of it.
            if let Ok(row) = Row::decode(number, value) {
                self.rows.push((number, row.body));
            }
            self.upto = number;
        }
        if !rows.more {
            self.upto = self.horizon.number;
        }
    }

    fn body<'a>(&'a self, body: &'a RowBody) -> Option<&'a Body> {
        match body {
            RowBody::Own(body) => Some(body),
            RowBody::Group { group, number } => self.bodies.get(&(*group, *number)),
        }
    }

    fn item(&self, body: &RowBody) -> Option<(u64, u64)> {
        let (head, _) = self.body(body)?.split().ok()?;
        Some((head.origin, head.item))
    }

    /// When something was said. What a user keeps - contacts, groups, own moments, itself - has no such time.
    fn time_ms(&self, body: &RowBody) -> Option<u64> {
        let (head, message) = self.body(body)?.split().ok()?;
        match head.kind {
            Kind::Message => pb::Message::decode(message).ok().map(|message| message.sent_ms),
            Kind::Event => pb::GroupEvent::decode(message).ok().map(|event| event.time_ms),
            Kind::Comment => pb::Comment::decode(message).ok().map(|comment| comment.sent_ms),
            Kind::PostRef => pb::PostRef::decode(message).ok().map(|post| post.posted_ms),
            Kind::Group | Kind::Peer | Kind::Post | Kind::Me => None,
        }
        // A tombstone of a comment has no time: it stays.
        .filter(|ms| *ms > 0)
    }
}
