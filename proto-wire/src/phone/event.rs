//! What a phone tells its owner.

use bytes::Bytes;

use crate::frame::FrameError;
use crate::names::Cursor;
use crate::pb;
use crate::status::Code;

/// Names a call until its reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallHandle(pub u32);

/// What happened, or what the owner must do. The owner takes all events before it transmits.
#[derive(Debug, Clone, PartialEq)]
pub enum PhoneEvent {
    /// Open a socket, then say `handle_connected` or `handle_closed`.
    Connect {
        /// Where to; none: the usual address.
        to: Option<Box<str>>,
    },
    /// Close the socket, and forget it: nothing more of it is to be told.
    Disconnect,
    Welcomed {
        /// 0 for a session without a token.
        user: u64,
        interval_ms: u32,
        server_time_ms: u64,
    },
    /// A call has ended. A body beside another status than `Ok` is one sentence.
    Reply { handle: CallHandle, status: Code, given: Option<Cursor>, body: Bytes },
    /// Changes to apply, in order. Whoever takes this has applied it, says the phone to its server.
    Page { page: pb::Page },
    /// Part of a snapshot. `first`: what the owner held until now is to be forgotten.
    Snapshot { page: pb::Page, first: bool, last: bool },
    /// Changes came that do not fit to what is here. They were not applied; a pull follows.
    Gap { cursor: Cursor, log_epoch: u32, after: u64, why: GapWhy },
    /// `changes` changes up to number `upto` came again and were dropped.
    Repeat { changes: usize, upto: u64 },
    /// Something that stands in no log: somebody is typing.
    Notice { notice: pb::Notice },
    /// A pull failed. `retries`: it will be repeated; else the next notify or connection does that.
    SyncFailed { status: Code, text: String, retries: bool },
    /// The server drains. The phone finishes what is in flight and comes back by itself.
    GoAway { reconnect_after_ms: u32, to: Option<Box<str>> },
    /// The connection, or the attempt at one, is over.
    Closed {
        reason: CloseReason,
        text: String,
        /// Whether WELCOME had come.
        welcomed: bool,
        /// When the phone connects again; none: not by itself.
        reconnect_at_ms: Option<u64>,
    },
}

/// Why changes did not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapWhy {
    /// They begin beyond the cursor.
    Beyond,
    /// They are of another log_epoch.
    Epoch,
    /// Their numbers do not rise, or lie outside the page.
    NotRising,
    /// The page says that more follows but moves nothing.
    NoProgress,
    /// It should have been part of a snapshot, or should not have been.
    Snapshot,
    /// The bytes are no page.
    Malformed,
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The server said CLOSE with this code (`close::Reason`, or one of a later version).
    Server(u16),
    /// The server said GOAWAY, and what was in flight is done.
    GoAway,
    /// A beat was not answered.
    BeatLost,
    /// The server's end was closed without a word.
    Eof,
    /// The connection broke.
    Reset,
    /// It was never made: refused, unreachable or too slow.
    ConnectFailed,
    /// WELCOME did not come.
    WelcomeTimeout,
    /// The server speaks another major version.
    Version,
    /// What came is no frame.
    BadFrame(FrameError),
    /// A frame came that has no place there.
    OutOfPlace(u8),
    /// The owner closed it.
    ByOwner,
}

/// How the owner's socket ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// End of file.
    Eof,
    /// An error while it was open.
    Reset,
    /// It never opened.
    ConnectFailed,
}

/// What a phone has counted since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PhoneStats {
    pub welcomes: u32,
    pub beats: u32,
    pub beats_answered: u32,
    pub pulls: u32,
    pub gaps: u32,
    /// Changes that came again.
    pub repeats: u32,
    /// Calls sent again after a reconnect.
    pub resent: u32,
    /// Calls sent again because of their status.
    pub retried: u32,
    /// Replies to calls that had ended here before.
    pub replies_late: u32,
    /// Replies to calls that were never made.
    pub replies_unasked: u32,
    /// Frames of unknown types that may be skipped.
    pub frames_skipped: u32,
}
