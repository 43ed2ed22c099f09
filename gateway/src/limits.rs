//! Every bound of the gateway, and why it is what it is.

/// Slots that a shard keeps beyond its connections, so that one too many is accepted, told so and closed
/// instead of ending the multishot accept.
pub const RESERVE_SLOTS: u32 = 64;

/// Completions handled in one turn. A turn of this many stays under 10 ms, which bounds how late timers are.
pub const COMPLETIONS_OF_A_TURN_MAX: usize = 1024;

/// Completions that are company enough for a turn of a busy shard, and the sessions that must be there for each. At
/// 36 000 forwarded calls a second, within `gather_us` of 1 000: 64 of them 9.4-10.2 us a call, 128 9.2-9.7; within 500,
/// 64 of them 9.9-10.4; none 15.7 (a proxy that copies bytes beside it: 20.4-23).
pub const GATHER_ENOUGH: u32 = 128;
pub const GATHER_SESSIONS: usize = 16;

/// Completions within the gathering time that make it worth while: of fewer a turn each costs little, and a wait much.
pub const GATHER_WORTH: u64 = 8;

/// They are counted over so many times the gathering time.
pub const GATHER_COUNTED_TIMES: u64 = 8;

/// Timers that run in one turn; the rest run in the next.
pub const TIMERS_OF_A_TURN_MAX: usize = 4096;

/// Buffers that bytes from phones are received into: a turn receives from this many phones at once.
pub const RECEIVE_BUFFERS: u32 = 64;
pub const RECEIVE_BUFFER_BYTES: u32 = 4096;

/// Arrivals in a row, each within this after the one before, that make a phone a stream: its receive stays armed, which
/// saves a poll and a request an arrival. It costs 600 B more in the kernel, so only those who talk have it.
pub const STREAM_AFTER: u8 = 4;
pub const STREAM_GAP_MS: u32 = 1_000;
/// A stream that is silent for longer waits with a poll again.
pub const STREAM_SILENT_MS: u32 = 5_000;
/// Streams looked at in one turn for their silence, and how often that is done.
pub const STREAMS_OF_A_LOOK: usize = 64;
pub const STREAM_LOOK_EVERY_MS: u64 = 100;
/// Buffers of streams, made with the first: what arrives between two turns. A longer arrival comes in parts.
pub const STREAM_BUFFERS: u32 = 512;
pub const STREAM_BUFFER_BYTES: u32 = 1024;

/// Buffers for backends. Their streams are few and wide.
pub const UPSTREAM_BUFFERS: u32 = 16;
pub const UPSTREAM_BUFFER_BYTES: u32 = 32 * 1024;

/// Submissions between two enters. 64 B each.
pub const SUBMISSIONS: u32 = 1024;

/// Completions that wait to be reaped; more end multishots. 16 B each.
pub const COMPLETIONS: u32 = 8192;

/// Backends of one shard.
pub const BACKENDS_MAX: usize = 16;

/// Sessions announced, gone or advanced in one report to a backend: some 30 KiB.
pub const REPORT_ENTRIES_MAX: usize = 512;

/// A report that is not full comes so long after the one before at least. In a storm of a million over 53 shards each of
/// them had told of two phones (0.44 calls of the logic tier a reconnect); a phone that comes alone is told of at once.
pub const REPORT_EVERY_MS: u64 = 100;

/// Sessions looked at in one turn for an announcement of all of them.
pub const ANNOUNCE_SCAN_MAX: u32 = 4096;

/// Ends of sessions that wait to be reported. Beyond it the oldest are dropped: the backend then learns from a
/// stale route's answer.
pub const OFFLINE_WAITING_MAX: usize = 65_536;

/// A report goes out at least this often: it renews the lease of 30 s.
pub const LEASE_RENEWAL_MS: u64 = 10_000;

/// Commands from the control thread that wait.
pub const MAILBOX: usize = 64;

/// Refusals whose peer's name is being asked for.
pub const REFUSALS_IN_FLIGHT_MAX: usize = 32;
/// Refusals logged a second and shard; the rest are only counted.
pub const REFUSALS_A_SECOND_MAX: u32 = 10;
/// Refusals that wait for the control thread.
pub const REFUSALS_WAITING_MAX: usize = 256;
/// Bytes of a refused peer that are kept for the log.
pub const FIRST_BYTES: usize = 32;

/// Peer addresses that a shard remembers for their limits: 96 KiB. Only those that owe something count, and who opens
/// connections no faster than it may owes for some ms each.
pub const ADDRESSES: usize = 4096;
/// Entries that an address may stand in: three cache lines to look through.
pub const ADDRESS_WAYS: usize = 8;
/// Peers' addresses that are being asked for because of their limits: as many as there are completions that wait. Who
/// comes beyond it is not counted.
pub const NAMES_IN_FLIGHT_MAX: u32 = COMPLETIONS;
/// Connections that an address limit ends with a word, a second and shard; in a flood the rest are dropped without.
pub const TOLD_OFF_A_SECOND_MAX: u32 = 500;
/// Phones that an address limit sends away come back spread over this, beyond the time until there is room: those of one
/// NAT are many.
pub const TOLD_OFF_SPREAD_MS: u64 = 10_000;

/// Calls over the limit, in a row, before the connection is closed.
pub const STRIKES_MAX: u8 = 100;

/// How long a closing connection may take to send its CLOSE frame.
pub const CLOSING_MS: u64 = 1_000;

/// After this much silence a radio is cold again (DCH to FACH takes about 5 s).
pub const RADIO_TAIL_MS: u64 = 5_000;
/// News of class `soon` waits for a frame of the phone at most this long.
pub const SOON_WINDOW_MS: u64 = 2_000;

/// Blocks of memory from this size on are mapped by themselves: a slab's chunk is larger, so that a storm's memory goes
/// back.
pub const MAPPED_APART_BYTES: u32 = 128 * 1024;

/// Buffers kept for sends, and the largest that is kept.
pub const SPARE_BUFFERS: usize = 64;
pub const SPARE_BUFFER_BYTES_MAX: usize = 8 * 1024;

/// The largest buffer that a link keeps for its next turn.
pub const LINK_BUFFER_BYTES_MAX: usize = 256 * 1024;

/// Sessions that are told to go away in one turn of a drain.
pub const GOAWAYS_OF_A_TURN_MAX: u32 = 1024;

/// Notices for all phones that a shard is handing out at once; one more is dropped and counted.
pub const BROADCASTS_MAX: usize = 8;
/// Slots that a turn hands a notice to: some 2 ms of sends, so that beats are answered meanwhile.
pub const BROADCAST_SLOTS_OF_A_TURN: u32 = 256;

/// How long a start waits for its port, which a killed gateway holds until the kernel has ended its rings.
pub const PORT_HELD_MS: u64 = 3_000;
/// The same when no process holds the port any more: 3.6 s with 200 000 connections that the kernel had to end.
pub const PORT_ORPHANED_MS: u64 = 120_000;
