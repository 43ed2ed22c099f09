//! A user's log: numbers, the watermark below which all is readable, and what waits for a tail.

use proto_wire::names::{GROUP_BIT, UploadId, section_of};
use proto_wire::pb;
use proto_wire::status::{Code, Status};

use super::api::At;
use super::core::{Core, Effect, Purpose};
use super::outbox::Duty;
use super::users::Place;
use super::values::{Row, RowBody, encode_number};
use super::verbs::{Resume, Upload};
use super::{keys, limits};
use crate::plant::{Fault, planted};
use crate::storage::{Query, ReadError, Rows};
use prost::encoding::encode_varint;

/// What waits until a user's tail was read.
pub(super) enum Waiting {
    Send {
        token: u64,
        device: u64,
        request: pb::SendRequest,
    },
    CreateGroup {
        token: u64,
        request: pb::CreateGroupRequest,
    },
    Pull {
        token: u64,
        device: u64,
        request: pb::PullRequest,
    },
    /// A session of a report: is it behind?
    Report {
        report: u64,
        online: pb::Online,
    },
    Deliver(Duty),
    Upload {
        token: u64,
        device: u64,
        upload: Box<Upload>,
    },
    Resume(Resume),
    /// An author's moment waits for the tails of contacts.
    Spread {
        author: u64,
    },
    /// A group's message waits for the tails of its members.
    Fanout {
        group: u64,
    },
}

impl Core {
    /// The place of a user; its tail is asked for when it is new in memory.
    pub(super) fn user(&mut self, id: u64) -> Place {
        let (place, new) = self.users.place(id);
        let sweep = self.presence.sweep();
        let user = self.users.at(place);
        user.touched = sweep;
        if new {
            user.pins += 1;
            self.to_load.push(place);
            self.counters.users = self.users.len() as u64;
        }
        place
    }

    /// Lets something wait for a user's tail. Calls are refused when too many wait; duties never are,
    /// they are bounded where they arise.
    pub(super) fn wait(&mut self, place: Place, what: Waiting) {
        let queue = self.waiting.entry(place).or_default();
        let full = queue.len() >= limits::MAX_WAITING;
        match what {
            Waiting::Send { token, .. }
            | Waiting::CreateGroup { token, .. }
            | Waiting::Upload { token, .. }
            | Waiting::Pull { token, .. }
                if full =>
            {
                self.refuse(token, Status::new(Code::Overloaded, "too many calls of this user wait"));
            }
            Waiting::Resume(resume) if full => {
                let refusal = Status::new(Code::Overloaded, "too many calls of this user wait");
                self.resume_refused(resume, refusal);
            }
            what => {
                let hurries =
                    !matches!(what, Waiting::Deliver(_) | Waiting::Fanout { .. } | Waiting::Spread { .. });
                queue.push_back(what);
                if hurries {
                    self.look_again(place);
                }
            }
        }
    }

    /// Whether there is room for a user that is not in memory.
    pub(super) fn has_room(&mut self, token: u64, id: u64) -> bool {
        if id == 0 || id & GROUP_BIT != 0 {
            self.answer(token, Err(Status::invalid("this is not the id of a user")));
            return false;
        }
        if self.users.len() < self.config.max_users || self.users.find(id).is_some() {
            return true;
        }
        self.refuse(token, Status::new(Code::Overloaded, "too many users are active"));
        false
    }

    /// Gives a change the next number of a user's log. `item` is that of a second or later version.
    pub(super) fn append(&mut self, place: Place, body: RowBody, item: Option<(u64, u64, u64)>) -> u64 {
        let user = self.users.at(place);
        let number = user.tail + 1;
        let prev = user.head;
        user.tail = number;
        user.head = number;
        if planted(Fault::VisibleEarly) {
            user.visible = number;
        }
        if item.is_some() {
            user.replaced = number;
        }
        user.pins += 1;
        let id = user.id;
        let section = section_of(id);
        let row = Row { prev, replaced: user.replaced, marks: user.marks, body };
        self.scratch.clear();
        row.encode(number, &mut self.scratch);
        self.put_scratch(section, &keys::row(id, number));
        if let Some((origin, item, version)) = item {
            self.scratch.clear();
            encode_number(number, &mut self.scratch);
            encode_varint(version, &mut self.scratch);
            if !planted(Fault::IndexBehind) {
                self.put_scratch(section, &keys::item(id, origin, item));
            }
        }
        self.hot.put_row(id, number, row);
        self.effect(section, Effect::Row { user: place, number });
        number
    }

    /// Commits of a user come in order, so the row's number is the new watermark.
    pub(super) fn row_committed(&mut self, place: Place, number: u64) {
        self.counters.rows += 1;
        let user = self.users.at(place);
        debug_assert!(
            number > user.visible || planted(Fault::VisibleEarly),
            "commits of a partition come in the order of submission"
        );
        user.visible = number;
        user.pins -= 1;
        self.has_news(place);
    }

    /// The number is void: the next row follows the last one that is committed.
    pub(super) fn row_void(&mut self, place: Place) {
        self.counters.void_numbers += 1;
        let user = self.users.at(place);
        user.head = user.visible;
        if planted(Fault::NumberTwice) {
            user.tail = user.visible;
        }
        user.pins -= 1;
    }

    /// Asks for the tails of users who are new in memory, many in one read.
    pub(super) fn flush_loads(&mut self) {
        if self.to_load.is_empty() {
            return;
        }
        let mut by_partition: Vec<Vec<Place>> = vec![Vec::new(); usize::from(self.config.partitions)];
        for place in std::mem::take(&mut self.to_load) {
            let partition = self.partition(section_of(self.users.peek(place).id));
            by_partition[usize::from(partition)].push(place);
        }
        for (partition, places) in by_partition.into_iter().enumerate() {
            for places in places.chunks(limits::MAX_QUERIES / 2) {
                let queries =
                    places.iter().flat_map(|place| tail_queries(self.users.peek(*place).id)).collect();
                self.read(partition as u16, queries, Purpose::Users(places.to_vec()));
            }
        }
    }

    pub(super) fn users_read(&mut self, at: At, places: Vec<Place>, answer: Result<Vec<Rows>, ReadError>) {
        let answer = match answer {
            Ok(answer) => answer,
            Err(_) if places.len() > 1 => {
                // One that cannot be read must not take the others along: each for itself.
                for place in places {
                    let user = self.users.peek(place).id;
                    let partition = self.partition(section_of(user));
                    self.read(partition, tail_queries(user).into(), Purpose::Users(vec![place]));
                }
                return;
            }
            Err(error) => {
                for place in places {
                    self.tail_unreadable(at, place, &error.to_string());
                }
                return;
            }
        };
        for (place, rows) in places.into_iter().zip(answer.chunks_exact(2)) {
            match self.tail_read(place, &rows[0], &rows[1]) {
                Ok(()) => {
                    self.tail_readable(place);
                    self.resume_waiting(at, place);
                }
                Err(text) => {
                    self.counters.broken_chains += u64::from(!self.aside.is_unreadable(place));
                    self.tail_unreadable(at, place, &text);
                }
            }
        }
    }

    fn tail_read(&mut self, place: Place, log: &Rows, uploads: &Rows) -> Result<(), String> {
        let user = self.users.at(place);
        if let Some((key, value)) = log.rows.first() {
            let number = keys::last_number(key).unwrap_or_default();
            let row = Row::decode(number, value)
                .map_err(|error| format!("it is damaged at number {number}: {error}"))?;
            user.tail = number;
            user.head = number;
            user.visible = number;
            user.replaced = row.replaced;
            user.marks = row.marks;
        }
        let latest = uploads.rows.first().and_then(|(key, _)| key.last_chunk::<16>());
        user.last_upload_ms = latest.map_or(0, |id| UploadId(*id).created_ms());
        user.loaded = true;
        user.pins -= 1;
        Ok(())
    }

    fn resume_waiting(&mut self, at: At, place: Place) {
        let Some(queue) = self.waiting.remove(&place) else { return };
        let user = self.users.peek(place).id;
        for what in queue {
            match what {
                Waiting::Send { token, device, request } => self.send(at, token, user, device, &request),
                Waiting::CreateGroup { token, request } => self.create_group(at, token, user, &request),
                Waiting::Pull { token, device, request } => self.pull(at, token, user, device, &request),
                Waiting::Report { report, online } => self.session_looked_up(report, &online, Some(place)),
                Waiting::Deliver(duty) => self.deliver(at, duty),
                Waiting::Fanout { group } => self.member_loaded(at, group),
                Waiting::Upload { token, device, upload } => self.upload(at, token, user, device, *upload),
                Waiting::Resume(resume) => self.resume(at, resume),
                Waiting::Spread { author } => self.contact_loaded(author),
            }
        }
    }
}

/// The last row of a log, and the upload whose id was created last.
fn tail_queries(user: u64) -> [Query; 2] {
    let last = |from: &[u8], to: &[u8]| Query::Scan {
        from: from.to_vec(),
        to: to.to_vec(),
        max_rows: 1,
        max_bytes: u32::MAX,
        reverse: true,
    };
    [
        last(&keys::row(user, 0), &keys::row(user, u64::MAX)),
        last(&keys::upload(user, &[0; 16]), &keys::upload(user, &[0xff; 16])),
    ]
}
