//! What goes into the core and what comes out.

use bytes::Bytes;
use prost::Message as _;
use proto_wire::names::Cursor;
use proto_wire::pb;
use proto_wire::status::Status;

use super::limits;
use crate::storage::{Batch, Read};

/// The time, as the owner's clocks say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// Monotonic milliseconds, from anywhere.
    pub now_ms: u64,
    /// The wall clock, milliseconds since 1970.
    pub unix_ms: u64,
}

/// What a core is told once.
#[derive(Debug, Clone)]
pub struct CoreConfig {
    /// This backend process, random at each start: gateways announce all sessions again when it changes.
    pub backend: u64,
    /// Random at each start: ids of groups come from it.
    pub seed: u64,
    /// Partitions of the store.
    pub partitions: u16,
    /// Rises when the store was restored and may have lost a tail.
    pub log_epoch: u32,
    /// What the store gave at its opening: every batch carries it, and a store that somebody claimed since refuses them.
    pub owner_epoch: u64,
    /// Rows and bodies kept in memory.
    pub hot_bytes: usize,
    /// Newest rows of a log that stay as written, whatever their age.
    pub horizon_rows: u64,
    /// Rows younger than this stay as written, however many there are.
    pub horizon_age_ms: u64,
    /// Behind the horizon, what was said goes after this time; 0: never.
    pub keep_ms: u64,
    /// Users in memory at once; calls of others are refused. A user takes about 130 bytes.
    pub max_users: usize,
    /// Contacts of one user.
    pub max_contacts: u64,
}

impl CoreConfig {
    pub fn new(backend: u64, seed: u64, partitions: u16) -> Self {
        Self {
            backend,
            seed,
            partitions,
            log_epoch: 1,
            owner_epoch: 0,
            hot_bytes: 32 * 1024 * 1024,
            horizon_rows: limits::HORIZON_ROWS,
            horizon_age_ms: limits::HORIZON_AGE_MS,
            keep_ms: 0,
            max_users: 4_000_000,
            max_contacts: limits::MAX_CONTACTS,
        }
    }
}

/// What the owner does next.
#[derive(Debug)]
pub enum Action {
    Submit {
        partition: u16,
        batch: Batch,
    },
    Read {
        partition: u16,
        read: Read,
    },
    /// Ends the verb that was called with this token.
    Answer {
        token: u64,
        answer: Result<Answer, Status>,
    },
    /// A call to a gateway's shard; its result goes to `handle_notify_result` with this token.
    Notify {
        token: u64,
        gateway: u64,
        shard: u16,
        request: pb::NotifyRequest,
    },
    /// A line for the operator.
    Log(String),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// With the end of the page that is in it, if one is: the cursor of the reply's header.
    Sent(pb::SendReply, Option<Cursor>),
    Group(pb::CreateGroupReply),
    Report(pb::ReportReply),
    Page(PageAnswer),
    Kv(Option<Bytes>),
    Profile(pb::Profile),
    Moment(pb::Moment),
    /// On disk; there is nothing to say.
    Done,
}

/// A page as it goes to the phone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageAnswer {
    /// An encoded `Page`.
    pub bytes: Bytes,
    /// The number that the page gives: the cursor of the reply's header.
    pub given: Cursor,
}

impl PageAnswer {
    pub fn to_page(&self) -> pb::Page {
        pb::Page::decode(self.bytes.clone()).expect("the page was encoded here; its format is tested")
    }
}

/// A name in the small key-value area: accounts by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KvKey {
    /// Its section is where the entry lives.
    pub owner: u64,
    pub kind: u8,
    pub name: Bytes,
}

/// What the core counts. Plain numbers: the owner publishes them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Rows given a number and committed.
    pub rows: u64,
    /// Messages acknowledged for the first time.
    pub sent: u64,
    /// Uploads answered again.
    pub repeated: u64,
    /// Uploads refused because their id was used for another body.
    pub conflicts: u64,
    /// Ids of uploads that were forgotten after their memory.
    pub uploads_expired: u64,
    /// Rows behind a horizon that went because a later one replaced them, or because of their age.
    pub rows_swept: u64,
    /// Duties that landed.
    pub delivered: u64,
    /// Duties that were found at start.
    pub recovered: u64,
    /// Recovered duties that had landed before.
    pub recovered_landed: u64,
    pub dead_letters: u64,
    /// Duties from before the start that wait because what they bring cannot be read.
    pub duties_stuck: u64,
    /// Users whose log cannot be read now.
    pub unreadable_logs: u64,
    /// What groups and authors have for logs that cannot be read now.
    pub set_aside: u64,
    /// Batches that failed for good.
    pub failed_batches: u64,
    /// Numbers that are void because their batch failed.
    pub void_numbers: u64,
    /// Logs found with a hole.
    pub broken_chains: u64,
    pub pages: u64,
    /// Pages that were made without the disk.
    pub pages_from_memory: u64,
    /// Answers of writes that carried what their senders lacked.
    pub pages_in_replies: u64,
    /// Calls refused for load.
    pub refused: u64,
    pub news: u64,
    /// News that carried their changes.
    pub news_inline: u64,
    /// News that the sweep told again.
    pub news_swept: u64,
    pub stale_routes: u64,
    pub notify_failures: u64,
    /// Gateways whose lease ended.
    pub leases_ended: u64,
    /// Users in memory now.
    pub users: u64,
    /// Routes stored now.
    pub online: u64,
    /// Duties in memory now.
    pub duties: u64,
    /// Bytes of rows and bodies in memory now.
    pub hot_bytes: u64,
}
