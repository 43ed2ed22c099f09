//! Ids of uploads are forgotten when a repeat would be refused anyway: a slow walk over the owners of the
//! store, a few reads in each step of the sweep, that deletes ids beyond their memory. It moves horizons on its way.

use proto_wire::limits::{UPLOAD_MEMORY_MS, UPLOAD_SKEW_MS};
use proto_wire::names::{GROUP_BIT, SECTIONS, UploadId};

use super::api::At;
use super::core::{Core, Purpose};
use super::{keys, limits};
use crate::plant::{Fault, planted};
use crate::storage::{Query, ReadError, Rows};

/// Where the walk is.
#[derive(Default)]
pub(super) struct Expiry {
    section: u16,
    /// The next owner has at least this id.
    owner: u64,
    reads_left: u32,
    is_reading: bool,
    rests_until_ms: u64,
}

impl Expiry {
    /// Whether this step may read once more. If not, the next one begins with the same owner.
    pub fn begin_read(&mut self) -> bool {
        if self.reads_left == 0 {
            return false;
        }
        self.reads_left -= 1;
        self.is_reading = true;
        true
    }

    pub fn end_read(&mut self) {
        self.is_reading = false;
    }
}

pub(super) enum ExpiryRead {
    /// The first key of the next owner in the section.
    Owner,
    /// A user's ids beyond their memory.
    Uploads { user: u64 },
}

impl Core {
    /// A step of the walk.
    pub(super) fn expire_uploads(&mut self, at: At) {
        if at.now_ms < self.expiry.rests_until_ms || !self.is_ready() {
            return;
        }
        self.expiry.reads_left = limits::EXPIRY_READS;
        if !self.expiry.is_reading {
            self.read_next_owner();
        }
    }

    pub(super) fn expiry_read(&mut self, at: At, read: ExpiryRead, answer: Result<Vec<Rows>, ReadError>) {
        self.expiry.end_read();
        // What cannot be read now is asked for again in the next step.
        let Ok(Some(rows)) = answer.map(|rows| rows.into_iter().next()) else { return };
        match read {
            ExpiryRead::Owner => match rows.rows.first().and_then(|(key, _)| keys::owner(key)) {
                Some(user) if user != 0 && user & GROUP_BIT == 0 => {
                    self.expiry.owner = user;
                    self.read_expired(at, user);
                }
                Some(other) => self.go_on_after(at, other),
                None => self.go_on_after(at, u64::MAX),
            },
            ExpiryRead::Uploads { user } => {
                for (key, _) in &rows.rows {
                    self.counters.uploads_expired += 1;
                    self.open(self.expiry.section).delete(key);
                }
                // More of them come with the next pass: a step's deletes stay bounded.
                self.look_at_log(user);
            }
        }
    }

    /// All of this user was looked at.
    pub(super) fn walk_on(&mut self, at: At, user: u64) {
        self.go_on_after(at, user);
    }

    fn go_on_after(&mut self, at: At, owner: u64) {
        match owner.checked_add(1) {
            Some(next) => self.expiry.owner = next,
            None => {
                self.expiry.owner = 0;
                self.expiry.section = (self.expiry.section + 1) % SECTIONS;
                if self.expiry.section == 0 {
                    self.expiry.rests_until_ms = at.now_ms + limits::EXPIRY_REST_MS;
                    return;
                }
            }
        }
        self.read_next_owner();
    }

    fn read_next_owner(&mut self) {
        let Expiry { section, owner, .. } = self.expiry;
        let (from, to) = (keys::first_of(section, owner), keys::first_of(section, u64::MAX));
        self.read_for_expiry(&from, &to, 1, ExpiryRead::Owner);
    }

    /// An id goes later than its repeat is refused, in case the clock is set back a little.
    fn read_expired(&mut self, at: At, user: u64) {
        let memory_ms = if planted(Fault::ExpireEarly) { 0 } else { UPLOAD_MEMORY_MS + UPLOAD_SKEW_MS };
        let (from, to) = (UploadId([0; 16]), UploadId::new(at.unix_ms.saturating_sub(memory_ms), [0; 10]));
        let (from, to) = (keys::upload(user, &from.0), keys::upload(user, &to.0));
        self.read_for_expiry(&from, &to, limits::EXPIRY_ROWS, ExpiryRead::Uploads { user });
    }

    fn read_for_expiry(&mut self, from: &[u8], to: &[u8], max_rows: u32, read: ExpiryRead) {
        if !self.expiry.begin_read() {
            return;
        }
        let (from, to) = (from.to_vec(), to.to_vec());
        let query = Query::Scan { from, to, max_rows, max_bytes: u32::MAX, reverse: false };
        self.read(self.partition(self.expiry.section), vec![query], Purpose::Expiry(read));
    }
}
