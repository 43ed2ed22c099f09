//! Every bound of the logic, and why it is what it is.

/// Batches of one partition that the store has and has not answered. The writer takes all that waits
/// into one commit, so more of them add nothing but memory.
pub const MAX_BATCHES_IN_FLIGHT: usize = 8;

/// Effects of a batch at which the next one begins: a send has three, its landing two. At 3 us each, about 3 ms.
pub const EFFECTS_OF_A_BATCH: usize = 1024;

/// Effects of commits that one turn of the loop takes, or a batch more: phones wait for no longer than about 6 ms of it.
pub const EFFECTS_OF_A_TURN: usize = 2048;

/// Bytes that may gather for one partition before sends are refused: about a second of a slow disk.
pub const MAX_OPEN_BYTES: usize = 8 * 1024 * 1024;

/// Duties in memory that have not landed. A group of 500 counts once. At 150 bytes each: 30 MB.
pub const MAX_DUTIES: usize = 200_000;

/// Reads that the store has of one partition; others wait here.
pub const MAX_READS_IN_FLIGHT: usize = 512;

/// Reads that wait here before calls that need one are refused.
pub const MAX_READS_WAITING: usize = 16_384;

/// Queries of one read: enough to amortise the hand-over, few enough to keep the reader's turns short.
pub const MAX_QUERIES: usize = 128;

/// Duties to one user whose records are read at once. Each needs three at most.
pub const HELD_AHEAD: usize = MAX_QUERIES / 3;

/// Calls that wait for one user's tail, or for one upload.
pub const MAX_WAITING: usize = 1024;

/// Devices of one user with a route. The one that was heard longest ago goes first.
pub const MAX_DEVICES: usize = 8;

/// Gateway processes that hold a lease at once, with those whose routes are not swept yet.
pub const MAX_GATEWAYS: usize = 4096;

/// A gateway's routes end this long after its last report.
pub const GATEWAY_LEASE_MS: u64 = 30_000;

/// Every user is looked at once in this time: news that a phone has not applied are told again.
pub const SWEEP_MS: u64 = 60_000;

/// The sweep goes in steps, so that none takes long.
pub const SWEEP_STEP_MS: u64 = 500;

/// A user or group that nobody touched for this long leaves memory.
pub const IDLE_MS: u64 = 10 * 60_000;

/// News of one Notify call. At 40 bytes and a page each, well below the largest RPC body.
pub const MAX_NEWS: usize = 512;

/// Notify calls in flight to one shard. Further news wait and gather: only the newest number counts.
pub const MAX_NOTIFIES_IN_FLIGHT: u8 = 4;

/// A Notify that failed is repeated after this; the gateway may be starting.
pub const NOTIFY_RETRY_MS: u64 = 1_000;

/// News that wait for their repetition; beyond this the sweep repeats them.
pub const MAX_NOTIFY_RETRIES: usize = 100_000;

/// A device that was logged out is cut off so long after the commit: when it asked for that itself, its answer is
/// there first. On the way to it are one executor's turn and two sockets.
pub const LOGGED_OUT_GRACE_MS: u64 = 200;

/// Connections that wait for their end, at 24 bytes; beyond this they do not wait.
pub const MAX_ENDS_WAITING: usize = 10_000;

/// A page looks back through rows in memory at most this far before it asks the disk.
pub const MAX_HOT_ROWS: usize = 512;

/// Rows of one page before any are collapsed. More than a page carries, so that pages stay full.
pub const PAGE_ROWS: u32 = 512;

/// A duty that could not be applied for this long goes to the dead letters.
pub const DUTY_LIFETIME_MS: u64 = 7 * 24 * 3600 * 1000;

/// A log that could not be read is read again after a step of the sweep, then after twice as long each time, up to this.
pub const READ_AGAIN_MS: u64 = 16_000;

/// Such logs that are read again in one step, with two queries each.
pub const READ_AGAIN: usize = 512;

/// Duties in memory for one log that cannot be read; beyond it they go to the dead letters at once.
pub const MAX_WAITING_UNREADABLE: usize = 4096;

/// Reads of the recovery that fail are tried so often, half a second apart, before it goes on without them.
pub const RECOVERY_TRIES: u32 = 4;

/// Reads that the walk for expired ids of uploads makes in a step of the sweep. Two a user: a million
/// users take four hours.
pub const EXPIRY_READS: u32 = 64;

/// Ids that are deleted of one user in a pass of that walk; with `EXPIRY_READS`, at most 270 KB of deletes
/// a step. The next pass takes the others.
pub const EXPIRY_ROWS: u32 = 256;

/// The walk rests so long after each pass.
pub const EXPIRY_REST_MS: u64 = 3600 * 1000;

/// Duties that the recovery reads of one section at once.
pub const RECOVERY_ROWS: u32 = 1024;

/// The longest name of a group, in bytes.
pub const MAX_GROUP_NAME_BYTES: usize = 128;

/// The longest name of an entry of the small key-value area, and the largest value.
pub const MAX_KV_NAME_BYTES: usize = 255;
pub const MAX_KV_VALUE_BYTES: usize = 64 * 1024;

/// When a call is refused for load: try again after this.
pub const RETRY_AFTER_MS: u32 = 200;

/// Small records in memory, beside those of commits on their way: what users keep of peers.
pub const MAX_STATE_BYTES: usize = 16 * 1024 * 1024;

/// Records that are looked at when one comes or goes, to see whether they may leave memory.
pub const STATES_LOOKED_AT: usize = 64;

/// A message may be taken back for so long.
pub const RECALL_MS: u64 = 2 * 60 * 1000;

/// Contacts of one user.
pub const MAX_CONTACTS: u64 = 5000;

/// The text of a question to be a contact, and what a user calls another.
pub const MAX_HELLO_BYTES: usize = 256;
pub const MAX_REMARK_BYTES: usize = 128;

/// A profile and its settings are one item: it must stay far below a page.
pub const MAX_NICK_BYTES: usize = 64;
pub const MAX_ABOUT_BYTES: usize = 512;
pub const MAX_SETTINGS: usize = 128;
pub const MAX_SETTING_KEY_BYTES: usize = 64;
pub const MAX_SETTING_BYTES: usize = 256;
pub const MAX_LISTED_DEVICES: usize = 16;
pub const MAX_DEVICE_NAME_BYTES: usize = 64;

/// The address of an image.
pub const MAX_URL_BYTES: usize = 512;

/// Images of a moment, and contacts that it is hidden from.
pub const MAX_POST_IMAGES: usize = 9;
pub const MAX_HIDDEN: usize = 1000;

/// Contacts that are told of a moment with one commit: small beside `MAX_OPEN_BYTES`.
pub const CONTACTS_OF_A_PAGE: u32 = 256;

/// What was said to a moment, in one answer. A comment has at most 8 KiB.
pub const SAID_OF_A_PAGE: u32 = 100;
pub const SAID_BYTES_OF_A_PAGE: u32 = 32 * 1024;

/// Rows of a log that stay as written: a phone that was off for this many changes needs no snapshot.
pub const HORIZON_ROWS: u64 = 10_000;

/// Nor one that was off for this long. Never below the lifetime of a duty, whose row must be there.
pub const HORIZON_AGE_MS: u64 = 30 * 24 * 3600 * 1000;
const _: () = assert!(HORIZON_AGE_MS >= DUTY_LIFETIME_MS);

/// Rows behind a horizon that the walk looks at in one pass of a user.
pub const SWEEP_ROWS: u32 = 512;
