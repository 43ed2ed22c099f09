//! Reads of a log: what a phone lacks, in order, a page at a time.
//!
//! A pull goes through up to three reads: rows, bodies of groups, newest versions of items. What was
//! written lately is in memory and needs none.

use ahash::AHashMap;
use proto_wire::limits::{MAX_INLINE_BYTES, MAX_PAGE_BYTES, MAX_PAGE_CHANGES};
use proto_wire::names::{Cursor, section_of};
use proto_wire::pb;
use proto_wire::status::{Code, Status};

use super::api::{Action, Answer, At, PageAnswer};
use super::append::Waiting;
use super::core::{Core, Purpose};
use super::page::{Ends, PageWriter, parse_snapshot_place};
use super::users::Place;
use super::values::{Body, Horizon, Row, RowBody, decode_number};
use super::verbs::Resume;
use super::{keys, limits};
use crate::storage::{Query, ReadError, Rows};

/// A page in the making.
pub(super) struct Pull {
    token: u64,
    user: Place,
    user_id: u64,
    /// Where the page begins.
    after: u64,
    /// Where the next read of rows begins: beyond `after` when all rows so far were collapsed.
    from: u64,
    /// What could be read when the rows were asked for.
    visible: u64,
    max_changes: usize,
    snapshot: bool,
    rows: Vec<(u64, RowBody)>,
    /// Group bodies that memory did not have.
    bodies: AHashMap<(u64, u64), Body>,
    /// The newest number of each item that has later versions, as far as it is known.
    newest: AHashMap<(u64, u64), u64>,
    /// What the read in flight asks for.
    asks: Asks,
    from_memory: bool,
}

enum Asks {
    Rows,
    Bodies(Vec<(u64, u64)>),
    Newest(Vec<(u64, u64)>),
}

impl Core {
    /// The changes after a cursor.
    pub fn pull(&mut self, _at: At, token: u64, user: u64, device: u64, request: &pb::PullRequest) {
        if !self.has_room(token, user) {
            return;
        }
        let place = self.user(user);
        if let Some(cursor) = request.cursor {
            self.applied(user, device, Cursor::new(cursor.log_epoch, cursor.number));
        }
        if !self.users.peek(place).loaded {
            return self.wait(place, Waiting::Pull { token, device, request: request.clone() });
        }
        let resume = || Resume::Pull { token, user, device, request: request.clone() };
        if self.admits_device(token, place, device, resume) {
            self.pull_loaded(token, place, request);
        }
    }

    fn pull_loaded(&mut self, token: u64, place: Place, request: &pb::PullRequest) {
        let user = self.users.at(place);
        let cursor = request.cursor.unwrap_or_default();
        let is_ours = cursor.log_epoch == self.config.log_epoch && cursor.number <= user.visible;
        let (after, snapshot) = if !request.snapshot_at.is_empty() {
            (parse_snapshot_place(self.config.log_epoch, &request.snapshot_at).unwrap_or(0), true)
        } else if is_ours {
            (cursor.number, false)
        } else {
            // A phone that has nothing begins at the log's beginning, for as long as the log has no
            // horizon; one with a cursor of another log gets the items' state.
            (0, cursor.number != 0)
        };
        user.pins += 1;
        let max_changes = match request.max_changes {
            0 => MAX_PAGE_CHANGES,
            asked => asked.min(MAX_PAGE_CHANGES),
        };
        let pull = Pull {
            token,
            user: place,
            user_id: user.id,
            after,
            from: after,
            visible: 0,
            max_changes: max_changes as usize,
            snapshot,
            rows: Vec::new(),
            bodies: AHashMap::new(),
            newest: AHashMap::new(),
            asks: Asks::Rows,
            from_memory: true,
        };
        self.pull_rows(Box::new(pull));
    }

    /// The rows of the page: from memory when it has them all.
    fn pull_rows(&mut self, mut pull: Box<Pull>) {
        pull.visible = self.users.peek(pull.user).visible;
        if pull.from >= pull.visible {
            return self.end_pull(pull);
        }
        if let Some(rows) = self.rows_in_memory(pull.user_id, pull.from, pull.visible, limits::MAX_HOT_ROWS) {
            pull.rows = rows;
            return self.pull_bodies(pull);
        }
        pull.from_memory = false;
        let query = Query::Scan {
            from: keys::row(pull.user_id, pull.from + 1).to_vec(),
            to: keys::row(pull.user_id, pull.visible).to_vec(),
            max_rows: limits::PAGE_ROWS,
            max_bytes: 2 * MAX_PAGE_BYTES as u32,
            reverse: false,
        };
        pull.asks = Asks::Rows;
        // Read after the rows: it says whether any of them may be missing.
        let horizon = Query::Get(keys::horizon(pull.user_id).to_vec());
        self.pull_asks(pull, vec![query, horizon]);
    }

    /// The rows in (`after`, `upto`], found backwards along the chain, so that none can be missing.
    fn rows_in_memory(&self, user: u64, after: u64, upto: u64, max: usize) -> Option<Vec<(u64, RowBody)>> {
        let mut rows = Vec::new();
        let mut number = upto;
        while number > after {
            if rows.len() == max {
                return None;
            }
            let row = self.hot.row(user, number)?;
            rows.push((number, row.body.clone()));
            number = row.prev;
        }
        rows.reverse();
        Some(rows)
    }

    fn pull_asks(&mut self, pull: Box<Pull>, queries: Vec<Query>) {
        self.read(self.partition(section_of(pull.user_id)), queries, Purpose::Pull(pull));
    }

    pub(super) fn pull_read(&mut self, mut pull: Box<Pull>, answer: Result<Vec<Rows>, ReadError>) {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                let text = format!("the log of user {} cannot be read", pull.user_id);
                self.actions.push_back(Action::Log(format!("{text}: {error}")));
                return self.pull_failed(pull, &text);
            }
        };
        let asks = std::mem::replace(&mut pull.asks, Asks::Rows);
        let result = match asks {
            Asks::Rows => {
                let horizon = answer.get(1).and_then(Rows::value).map(|value| Horizon::decode(value));
                let horizon = match horizon.transpose() {
                    Ok(horizon) => horizon.map_or(0, |horizon| horizon.number),
                    Err(error) => return self.pull_failed(pull, &error.to_string()),
                };
                if pull.from < horizon && !pull.snapshot {
                    // The phone is too far behind: it gets the items' state, from the beginning.
                    (pull.after, pull.from, pull.snapshot) = (0, 0, true);
                    return self.pull_rows(pull);
                }
                pull.take_rows(answer, horizon)
            }
            Asks::Bodies(wanted) => pull.take_bodies(&wanted, &answer),
            Asks::Newest(items) => {
                pull.take_newest(&items, &answer);
                return self.finish_pull(pull);
            }
        };
        match result {
            Ok(()) => self.pull_bodies(pull),
            Err(hole) => {
                self.counters.broken_chains += 1;
                let text = format!("the log of user {} is broken: {hole}", pull.user_id);
                self.actions.push_back(Action::Log(text.clone()));
                self.pull_failed(pull, &text);
            }
        }
    }

    /// Bodies of groups, which the rows only name.
    fn pull_bodies(&mut self, mut pull: Box<Pull>) {
        let mut wanted = Vec::new();
        for (_, body) in &pull.rows {
            let RowBody::Group { group, number } = body else { continue };
            let key = (*group, *number);
            if pull.bodies.contains_key(&key) {
                continue;
            }
            match self.hot.body(*group, *number) {
                Some(body) => {
                    pull.bodies.insert(key, body.clone());
                }
                None => wanted.push(key),
            }
        }
        if wanted.is_empty() {
            return self.pull_newest(pull);
        }
        pull.from_memory = false;
        let section = section_of(pull.user_id);
        let queries =
            wanted.iter().map(|(group, number)| Query::Get(keys::body(section, *group, *number).to_vec()));
        let queries = queries.collect();
        pull.asks = Asks::Bodies(wanted);
        self.pull_asks(pull, queries);
    }

    /// Which items have later versions. Most logs have none behind the page, and need no read.
    fn pull_newest(&mut self, mut pull: Box<Pull>) {
        let replaced = self.users.peek(pull.user).replaced;
        let upto = pull.rows.last().map_or(0, |(number, _)| *number);
        if replaced <= pull.from {
            return self.finish_pull(pull);
        }
        let mut items = Vec::new();
        let rows = std::mem::take(&mut pull.rows);
        for (number, body) in &rows {
            let Some(item) = pull.item(body) else { continue };
            if pull.newest.insert(item, *number).is_none() {
                items.push(item);
            }
        }
        pull.rows = rows;
        if replaced <= upto || items.is_empty() {
            return self.finish_pull(pull);
        }
        pull.from_memory = false;
        let queries =
            items.iter().map(|(origin, item)| Query::Get(keys::item(pull.user_id, *origin, *item).to_vec()));
        let queries = queries.collect();
        pull.asks = Asks::Newest(items);
        self.pull_asks(pull, queries);
    }

    fn finish_pull(&mut self, mut pull: Box<Pull>) {
        let mut writer = PageWriter::new();
        let mut upto = pull.from;
        for (number, body) in &pull.rows {
            let Some(body) = pull.body(body) else { continue };
            if pull.is_newest(*number, body) {
                let is_full = writer.changes() >= pull.max_changes
                    || (writer.changes() > 0 && writer.bytes() + body.0.len() + 64 > MAX_PAGE_BYTES);
                if is_full {
                    break;
                }
                writer.change(*number, body);
            }
            upto = *number;
        }
        let more = upto < pull.visible;
        if writer.changes() == 0 && more {
            // All of it was collapsed: a page is never empty when more follows.
            pull.from = upto;
            pull.rows.clear();
            pull.newest.clear();
            return self.pull_rows(pull);
        }
        pull.from = upto;
        self.answer_pull(pull, writer, more);
    }

    fn end_pull(&mut self, pull: Box<Pull>) {
        self.answer_pull(pull, PageWriter::new(), false);
    }

    fn answer_pull(&mut self, pull: Box<Pull>, writer: PageWriter, more: bool) {
        self.users.at(pull.user).pins -= 1;
        self.counters.pages += 1;
        self.counters.pages_from_memory += u64::from(pull.from_memory);
        let log_epoch = self.config.log_epoch;
        let ends = Ends { log_epoch, after: pull.after, upto: pull.from, more, snapshot: pull.snapshot };
        let given = Cursor::new(log_epoch, pull.from);
        let bytes = writer.finish(ends);
        self.answer(pull.token, Ok(Answer::Page(PageAnswer { bytes, given })));
    }

    fn pull_failed(&mut self, pull: Box<Pull>, text: &str) {
        self.users.at(pull.user).pins -= 1;
        self.answer(pull.token, Err(Status::new(Code::Internal, text)));
    }

    /// The changes in (`prev`, newest] as they may go with a notify: only from memory, only when small.
    pub(super) fn inline_page(&self, place: Place, prev: u64) -> Option<bytes::Bytes> {
        /// A row takes about 60 bytes at least.
        const MAX_ROWS: usize = MAX_INLINE_BYTES / 60;
        let user = self.users.peek(place);
        let rows = self.rows_in_memory(user.id, prev, user.visible, MAX_ROWS)?;
        let mut bodies = Vec::with_capacity(rows.len());
        for (number, body) in rows {
            let body = match body {
                RowBody::Own(body) => body,
                RowBody::Group { group, number } => self.hot.body(group, number)?.clone(),
            };
            let (head, _) = body.split().ok()?;
            bodies.push((number, (head.origin, head.item), body));
        }
        let mut writer = PageWriter::new();
        for (at, (number, item, body)) in bodies.iter().enumerate() {
            let is_newest =
                user.replaced <= prev || !bodies[at + 1..].iter().any(|(_, later, _)| later == item);
            if is_newest {
                writer.change(*number, body);
            }
            if writer.bytes() > MAX_INLINE_BYTES - 32 {
                return None;
            }
        }
        let ends = Ends {
            log_epoch: self.config.log_epoch,
            after: prev,
            upto: user.visible,
            more: false,
            snapshot: false,
        };
        Some(writer.finish(ends))
    }
}

impl Pull {
    /// Checks the chain: each row names the one before it, the first none behind the cursor, and the last
    /// is the newest unless more follows. Behind the horizon rows may be missing.
    fn take_rows(&mut self, answer: Vec<Rows>, horizon: u64) -> Result<(), String> {
        let Some(rows) = answer.into_iter().next() else { return Err("nothing was read".to_owned()) };
        let mut before = self.from;
        for (at, (key, value)) in rows.rows.iter().enumerate() {
            let number = keys::last_number(key).ok_or("a key has no number")?;
            let row = Row::decode(number, value).map_err(|error| format!("number {number}: {error}"))?;
            let follows = if at == 0 { row.prev <= before } else { row.prev == before };
            if !follows && row.prev > horizon {
                return Err(format!("number {} is missing before {number}", row.prev));
            }
            before = number;
            self.rows.push((number, row.body));
        }
        if !rows.more && before != self.visible {
            return Err(format!("number {} is missing after {before}", self.visible));
        }
        Ok(())
    }

    fn take_bodies(&mut self, wanted: &[(u64, u64)], answer: &[Rows]) -> Result<(), String> {
        for (key, rows) in wanted.iter().zip(answer) {
            let body = rows.value().and_then(|value| Body::parse(value.clone()).ok());
            let body = body.ok_or_else(|| format!("message {} of group {} is missing", key.1, key.0))?;
            self.bodies.insert(*key, body);
        }
        Ok(())
    }

    fn take_newest(&mut self, items: &[(u64, u64)], answer: &[Rows]) {
        for (item, rows) in items.iter().zip(answer) {
            let Some(number) = rows.value().and_then(|value| decode_number(value).ok()) else { continue };
            let newest = self.newest.entry(*item).or_default();
            *newest = number.max(*newest);
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

    fn is_newest(&self, number: u64, body: &Body) -> bool {
        if self.newest.is_empty() {
            return true;
        }
        let Ok((head, _)) = body.split() else { return false };
        self.newest.get(&(head.origin, head.item)).is_none_or(|newest| *newest <= number)
    }
}
