//! What the phone must be told. No phone waits for ever.
//!
//! `newest` is what the backend told of, `told` what the phone was notified of, `applied` what the phone says it
//! has, `given` how far the replies that have passed bring it if it applies them: a sync's page, or its own change with
//! the reply of a write. A notify is *outstanding* while `told` is beyond both; newer news then only raises `newest`.
//! What was given keeps silence until a beat that says nothing new: only what the phone itself says ends the duty to
//! tell it.

use proto_wire::frame::{self, Class, Inline, Notify};
use proto_wire::limits::{MAX_INLINE_BYTES, MAX_SKIPPABLE_BODY_BYTES};
use proto_wire::names::Cursor;

use super::{Event, Owner, Session, State, flag};
use crate::limits;

/// What the backend says of a user's log.
#[derive(Debug, Clone, Copy)]
pub struct News<'a> {
    pub class: Class,
    pub newest: Cursor,
    /// Changes that fit when the phone has applied `prev`: an encoded page. Empty: none.
    pub prev: u64,
    pub page: &'a [u8],
}

impl Session {
    /// The log and the place in it that the phone came with.
    pub(super) fn start_log(&mut self, applied: Cursor) {
        self.log_epoch = applied.log_epoch;
        self.applied = applied.number;
        self.newest = applied.number;
        self.told = applied.number;
        self.given = applied.number;
    }

    /// The backend has news of this user.
    pub fn handle_news(&mut self, news: &News<'_>, now_ms: u64, owner: &mut impl Owner) {
        if self.state != State::Live || news.newest.log_epoch < self.log_epoch {
            return;
        }
        if news.newest.log_epoch > self.log_epoch {
            self.start_log(Cursor::new(news.newest.log_epoch, 0));
        }
        if news.newest.number <= self.applied {
            // The backend does not know it, or not yet.
            owner.applied(self);
            return;
        }
        self.newest = self.newest.max(news.newest.number);
        if self.is_outstanding() || self.newest <= self.given || news.class == Class::Lazy {
            owner.counted(Event::Coalesced);
            return;
        }
        let silent_ms = u64::from((now_ms as u32).wrapping_sub(self.heard_ms));
        if news.class == Class::Soon && silent_ms > limits::RADIO_TAIL_MS {
            self.flags |= flag::SOON;
            owner.wake_at(now_ms + limits::SOON_WINDOW_MS);
            return;
        }
        self.notify(news.class, self.inline_of(news), owner);
    }

    /// A notice that stands in no log. A phone whose queue waits gets it all the same: it is small, and the queue
    /// has its bound.
    pub fn handle_event(&mut self, notice: &[u8], owner: &mut impl Owner) {
        if self.state != State::Live || notice.len() > MAX_SKIPPABLE_BODY_BYTES {
            return;
        }
        owner.counted(Event::Notice);
        let out = owner.out();
        frame::put_header(out, frame::kind::EVENT, notice.len());
        out.extend_from_slice(notice);
    }

    /// The phone says what it has applied. True when that is more than before: then the backend has to learn it.
    pub(super) fn take_applied(&mut self, applied: Cursor) -> bool {
        if self.state != State::Live || applied.log_epoch < self.log_epoch {
            return false;
        }
        if applied.log_epoch > self.log_epoch {
            self.start_log(applied);
        } else if applied.number > self.applied {
            self.applied = applied.number;
            self.newest = self.newest.max(applied.number);
        } else {
            return false;
        }
        true
    }

    /// A sync ended; `given` is the highest number of its page, if it gave one. When the phone lacks more than
    /// that, it is told at once.
    pub(super) fn take_sync_end(&mut self, given: Option<Cursor>, owner: &mut impl Owner) {
        let given = given.filter(|given| given.log_epoch == self.log_epoch).map(|given| given.number);
        // Without a page the phone has not got what it asked for, whatever was given before.
        self.given = given.unwrap_or(self.applied);
        let lacks = self.newest > self.reached();
        if lacks && (given.is_some() || !self.is_outstanding()) {
            self.notify(Class::Now, None, owner);
        }
    }

    /// The reply of a write passed with the phone's own change and all that it had not said it has: it fits wherever
    /// the phone is. What is newer is told at once, unless a sync is out, whose end looks at it again.
    pub(super) fn take_written(&mut self, given: Cursor, owner: &mut impl Owner) {
        if self.state != State::Live || given.log_epoch < self.log_epoch {
            return;
        }
        if given.log_epoch > self.log_epoch {
            self.start_log(Cursor::new(given.log_epoch, 0));
        }
        self.given = self.given.max(given.number);
        self.newest = self.newest.max(given.number);
        let lacks = self.newest > self.reached() && !self.is_outstanding();
        if lacks && self.flags & (flag::SYNC_IN_FLIGHT | flag::SOON) == 0 {
            self.notify(Class::Now, None, owner);
        }
    }

    /// A beat came: what is not applied yet is told, or told again. `advanced`: it said that more was applied.
    pub(super) fn notify_at_beat(&mut self, advanced: bool, owner: &mut impl Owner) {
        if self.state != State::Live || self.newest <= self.applied || self.flags & flag::SYNC_IN_FLIGHT != 0
        {
            return;
        }
        if !advanced {
            self.given = self.applied;
        } else if self.newest <= self.given {
            return;
        }
        if self.is_outstanding() {
            // The phone has just applied a part of what it was told: it is at work on the rest.
            if advanced {
                return;
            }
            owner.counted(Event::NotifiedAgain);
        }
        self.notify(Class::Now, None, owner);
    }

    /// The radio is hot, or the window's end has come: what waited for it goes out.
    pub(super) fn flush_soon(&mut self, owner: &mut impl Owner) {
        if self.flags & flag::SOON == 0 {
            return;
        }
        self.flags &= !flag::SOON;
        if self.state == State::Live && self.newest > self.reached() && !self.is_outstanding() {
            self.notify(Class::Soon, None, owner);
        }
    }

    fn is_outstanding(&self) -> bool {
        self.told > self.reached()
    }

    /// Where the phone is when it has applied what replies gave.
    fn reached(&self) -> u64 {
        self.applied.max(self.given)
    }

    fn inline_of<'a>(&self, news: &News<'a>) -> Option<Inline<'a>> {
        let fits = !news.page.is_empty()
            && news.page.len() <= MAX_INLINE_BYTES
            && news.prev == self.reached()
            && news.newest.number == self.newest
            && self.flags & flag::SYNC_IN_FLIGHT == 0;
        fits.then_some(Inline { prev: news.prev, page: news.page })
    }

    fn notify(&mut self, class: Class, inline: Option<Inline<'_>>, owner: &mut impl Owner) {
        owner.counted(if inline.is_some() { Event::NotifiedInline } else { Event::Notified });
        self.flags &= !flag::SOON;
        self.told = self.newest;
        let newest = Cursor::new(self.log_epoch, self.newest);
        Notify { class, newest, inline }.put(owner.out());
    }
}
