//! What a phone has of its user's log, and how it gets the rest: with a notify, by a pull, from a snapshot.
//!
//! `spec/sync.md` describes the rules. A change is applied once, in order; what does not fit is counted and
//! asked for, never applied.

use bytes::Bytes;
use prost::Message;

use super::Events;
use super::config::PhoneConfig;
use super::event::{GapWhy, PhoneEvent, PhoneStats};
use super::link::NEVER;
use crate::frame;
use crate::limits;
use crate::names::Cursor;
use crate::pb;
use crate::random::Random;
use crate::services;
use crate::status::Code;

#[derive(Debug)]
enum Pull {
    No,
    /// To be sent, but not before.
    Wanted {
        not_before_ms: u64,
    },
    Sent {
        id: u32,
        deadline_at_ms: u64,
        raised: bool,
    },
}

#[derive(Debug)]
pub(super) struct Sync {
    /// The end of what was given to the owner as events.
    cursor: Cursor,
    /// The end of what the owner has taken: what the server may be told.
    taken: Cursor,
    /// The newest number heard of.
    newest: Cursor,
    pull: Pull,
    /// Where the snapshot that is under way goes on; empty: none is.
    snapshot_at: Box<[u8]>,
    failures: u8,
    untold: Untold,
    /// Of what the owner has not taken yet some came with a notify or a pull: the server waits to hear of it.
    awaited: bool,
}

/// What the server does not know of `taken`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Untold {
    Nothing,
    /// It gave the rest with the answers of writes, and learns with the next frame that they were applied.
    Unhurried,
    /// It waits for it.
    Now,
}

impl Sync {
    pub fn new(cursor: Cursor) -> Self {
        Self {
            cursor,
            taken: cursor,
            newest: cursor,
            pull: Pull::No,
            snapshot_at: Box::default(),
            failures: 0,
            untold: Untold::Nothing,
            awaited: false,
        }
    }

    pub fn applied(&self) -> Cursor {
        self.taken
    }

    pub fn is_out(&self) -> bool {
        matches!(self.pull, Pull::Sent { .. })
    }

    /// HELLO tells what was applied.
    pub fn applied_for_hello(&mut self) -> Cursor {
        self.untold = Untold::Nothing;
        self.taken
    }

    /// What a frame that leaves anyway should tell the server, if anything.
    pub fn untold(&self) -> Option<Cursor> {
        (self.untold != Untold::Nothing).then_some(self.taken)
    }

    /// The server waits to hear it: a frame must leave for it.
    pub fn is_awaited(&self) -> bool {
        self.untold == Untold::Now
    }

    pub fn note_told(&mut self) {
        self.untold = Untold::Nothing;
    }

    /// The owner took an event: what it carries is applied from here on.
    pub fn note_taken(&mut self, event: &PhoneEvent) {
        if let PhoneEvent::Page { page } | PhoneEvent::Snapshot { page, last: true, .. } = event {
            self.taken = Cursor::new(page.log_epoch, page.upto);
            match self.untold {
                _ if page.upto == 0 => {}
                _ if self.awaited => self.untold = Untold::Now,
                Untold::Nothing => self.untold = Untold::Unhurried,
                Untold::Unhurried | Untold::Now => {}
            }
            self.awaited &= self.taken < self.cursor;
        }
    }

    /// It knows of something that it has not: a number, or the rest of a snapshot.
    pub fn is_behind(&self) -> bool {
        self.newest > self.cursor || !self.snapshot_at.is_empty()
    }

    pub fn want_pull(&mut self) {
        match &mut self.pull {
            Pull::No | Pull::Wanted { .. } => self.pull = Pull::Wanted { not_before_ms: 0 },
            Pull::Sent { raised, .. } => *raised = true,
        }
    }

    pub fn handle_disconnected(&mut self) {
        self.pull = Pull::No;
    }

    /// Appends a pull when one is wanted and may leave.
    pub fn put(
        &mut self,
        out: &mut Vec<u8>,
        next_id: impl FnOnce() -> u32,
        applied: &mut Option<Cursor>,
        now_ms: u64,
        config: &PhoneConfig,
    ) -> bool {
        let Pull::Wanted { not_before_ms } = self.pull else { return false };
        if not_before_ms > now_ms {
            return false;
        }
        let request = pb::PullRequest {
            cursor: Some(pb::Cursor { log_epoch: self.cursor.log_epoch, number: self.cursor.number }),
            max_changes: config.pull_max_changes,
            snapshot_at: Bytes::copy_from_slice(&self.snapshot_at),
        };
        let id = next_id();
        frame::Call {
            id,
            method: services::sync::PULL.id,
            attempt: self.failures,
            deadline_ms: config.pull_deadline_ms,
            applied: applied.take(),
            body: &request.encode_to_vec(),
        }
        .put(out);
        let deadline_at_ms = now_ms + u64::from(config.pull_deadline_ms);
        self.pull = Pull::Sent { id, deadline_at_ms, raised: false };
        true
    }

    pub fn handle_notify(&mut self, notify: &frame::Notify<'_>, stats: &mut PhoneStats, events: &mut Events) {
        if notify.newest > self.newest {
            self.newest = notify.newest;
            if let Pull::Sent { raised, .. } = &mut self.pull {
                *raised = true;
            }
        }
        // In the middle of a snapshot the cursor is not where the phone is.
        if let Some(inline) = notify.inline.filter(|_| self.snapshot_at.is_empty()) {
            match pb::Page::decode(inline.page) {
                Ok(page) if page.after == inline.prev && page.log_epoch == notify.newest.log_epoch => {
                    self.apply_inline(page, stats, events);
                }
                Ok(page) => self.gap(GapWhy::Malformed, &page, stats, events),
                Err(_) => self.gap(GapWhy::Malformed, &pb::Page::default(), stats, events),
            }
        }
        self.awaited |= self.taken < self.cursor;
        if self.newest <= self.cursor {
            // The server believes that this phone lacks something: tell it again.
            if self.taken == self.cursor {
                self.untold = Untold::Now;
            }
        } else if !self.is_out() {
            self.want_pull();
        }
    }

    /// The answer of a write gave what this phone wrote, and what it lacked before, up to `given`. Without a page, or
    /// with one that does not fit, the server believes that this phone has more than it has, so it asks.
    pub fn handle_given(
        &mut self,
        given: Cursor,
        page: Option<pb::Page>,
        stats: &mut PhoneStats,
        events: &mut Events,
    ) {
        self.newest = self.newest.max(given);
        if let Some(page) = page.filter(|_| self.snapshot_at.is_empty()) {
            if (page.log_epoch, page.upto) == (given.log_epoch, given.number) {
                self.apply_inline(page, stats, events);
            } else {
                self.gap(GapWhy::Malformed, &page, stats, events);
            }
        }
        if self.cursor < given {
            self.want_pull();
        }
    }

    /// A page that came unasked.
    fn apply_inline(&mut self, page: pb::Page, stats: &mut PhoneStats, events: &mut Events) {
        if page.snapshot {
            self.gap(GapWhy::Snapshot, &page, stats, events);
        } else if let Err((why, page)) = self.apply(page, stats, events) {
            self.gap(why, &page, stats, events);
        }
    }

    /// The reply of the pull that is out; `false`: it belongs to another call.
    pub fn handle_reply(
        &mut self,
        reply: &frame::Reply<'_>,
        now_ms: u64,
        config: &PhoneConfig,
        random: &mut Random,
        stats: &mut PhoneStats,
        events: &mut Events,
    ) -> bool {
        let Pull::Sent { id, raised, .. } = self.pull else { return false };
        if id != reply.id {
            return false;
        }
        self.pull = Pull::No;
        if reply.status != Code::Ok {
            let text = String::from_utf8_lossy(reply.body).into_owned();
            self.fail(reply.status, text, reply.retry_after_ms, now_ms, config, random, events);
            return true;
        }
        let progress = match pb::Page::decode(reply.body) {
            Ok(page) if page.snapshot => self.apply_snapshot(page, events),
            Ok(page) if !self.snapshot_at.is_empty() => Err((GapWhy::Snapshot, page)),
            Ok(page) => self.apply(page, stats, events),
            Err(_) => Err((GapWhy::Malformed, pb::Page::default())),
        };
        match progress {
            Ok(more) => {
                self.failures = 0;
                self.awaited |= self.taken < self.cursor;
                if more || (raised && self.newest > self.cursor) {
                    self.want_pull();
                }
            }
            Err((why, page)) => {
                self.snapshot_at = Box::default();
                self.gap(why, &page, stats, events);
                self.pull_later(None, now_ms, config, random);
            }
        }
        true
    }

    /// Gives up a pull that was not answered in time, and says which call it was.
    pub fn handle_timeout(
        &mut self,
        now_ms: u64,
        config: &PhoneConfig,
        random: &mut Random,
        events: &mut Events,
    ) -> Option<u32> {
        let Pull::Sent { id, deadline_at_ms, .. } = self.pull else { return None };
        if deadline_at_ms > now_ms {
            return None;
        }
        self.pull = Pull::No;
        let text = "no answer came in time".to_owned();
        self.fail(Code::Deadline, text, None, now_ms, config, random, events);
        Some(id)
    }

    pub fn next_due_ms(&self, may_send: bool, now_ms: u64) -> u64 {
        match self.pull {
            Pull::Sent { deadline_at_ms, .. } => deadline_at_ms,
            Pull::Wanted { not_before_ms } if may_send && not_before_ms > now_ms => not_before_ms,
            _ => NEVER,
        }
    }

    /// Applies a page of the log. `Ok(true)`: more follows.
    fn apply(
        &mut self,
        mut page: pb::Page,
        stats: &mut PhoneStats,
        events: &mut Events,
    ) -> Result<bool, (GapWhy, pb::Page)> {
        if let Err(why) = self.check(&page) {
            return Err((why, page));
        }
        let end = Cursor::new(page.log_epoch, page.upto);
        let here = self.cursor.number;
        let repeats = page.changes.iter().take_while(|change| change.number <= here).count();
        if repeats > 0 {
            let upto = page.changes[repeats - 1].number;
            page.changes.drain(..repeats);
            stats.repeats = stats.repeats.saturating_add(repeats as u32);
            events.push(PhoneEvent::Repeat { changes: repeats, upto });
        }
        let more = page.more;
        if end > self.cursor {
            self.cursor = end;
            events.push(PhoneEvent::Page { page });
        }
        Ok(more)
    }

    /// A page fits when it is of this log, begins at or before the cursor, and its numbers rise.
    fn check(&self, page: &pb::Page) -> Result<(), GapWhy> {
        // A phone that has applied nothing takes the epoch that it finds.
        if page.log_epoch != self.cursor.log_epoch && self.cursor.number != 0 {
            return Err(GapWhy::Epoch);
        }
        if page.after > self.cursor.number {
            return Err(GapWhy::Beyond);
        }
        if page.more && page.upto <= page.after {
            return Err(GapWhy::NoProgress);
        }
        let mut last = page.after;
        for change in &page.changes {
            if change.number <= last || change.number > page.upto {
                return Err(GapWhy::NotRising);
            }
            last = change.number;
        }
        Ok(())
    }

    /// Hands a part of a snapshot on; its last part moves the cursor.
    fn apply_snapshot(&mut self, page: pb::Page, events: &mut Events) -> Result<bool, (GapWhy, pb::Page)> {
        if page.log_epoch < self.cursor.log_epoch {
            return Err((GapWhy::Epoch, page));
        }
        if page.snapshot_next.len() > limits::MAX_SNAPSHOT_PLACE_BYTES {
            return Err((GapWhy::Malformed, page));
        }
        let (first, last) = (self.snapshot_at.is_empty(), page.snapshot_next.is_empty());
        self.snapshot_at = Box::from(&page.snapshot_next[..]);
        let more = !last || page.more;
        if last {
            let end = Cursor::new(page.log_epoch, page.upto);
            if end < self.cursor {
                return Err((GapWhy::NotRising, page));
            }
            self.cursor = end;
        }
        events.push(PhoneEvent::Snapshot { page, first, last });
        Ok(more)
    }

    fn gap(&mut self, why: GapWhy, page: &pb::Page, stats: &mut PhoneStats, events: &mut Events) {
        stats.gaps = stats.gaps.saturating_add(1);
        events.push(PhoneEvent::Gap {
            cursor: self.cursor,
            log_epoch: page.log_epoch,
            after: page.after,
            why,
        });
        self.want_pull();
    }

    #[allow(clippy::too_many_arguments)] // The machine's parts are borrowed apart.
    fn fail(
        &mut self,
        status: Code,
        text: String,
        retry_after_ms: Option<u32>,
        now_ms: u64,
        config: &PhoneConfig,
        random: &mut Random,
        events: &mut Events,
    ) {
        let retries = !matches!(status, Code::Invalid | Code::Denied | Code::NotFound | Code::UnknownMethod);
        if retries {
            self.pull_later(retry_after_ms, now_ms, config, random);
        } else {
            // Perhaps it is the place in the snapshot that was refused.
            self.snapshot_at = Box::default();
        }
        events.push(PhoneEvent::SyncFailed { status, text, retries });
    }

    fn pull_later(&mut self, asked_ms: Option<u32>, now_ms: u64, config: &PhoneConfig, random: &mut Random) {
        self.failures = self.failures.saturating_add(1);
        let wait_ms =
            asked_ms.map_or_else(|| config.retry.wait_ms(u32::from(self.failures), random), u64::from);
        self.pull = Pull::Wanted { not_before_ms: now_ms + wait_ms };
    }
}
