//! Every maximum of the wire, and why it is what it is. Both sides of a connection know these.

/// The largest body of a client frame. A text, an image reference or a page of changes fits many
/// times over; media never travels on the long connection.
pub const MAX_FRAME_BODY_BYTES: usize = 64 * 1024;

/// The largest body of a frame whose type is unknown but may be skipped (0x80-0xBF): enough for a
/// notice, too little to be worth sending as an attack.
pub const MAX_SKIPPABLE_BODY_BYTES: usize = 4 * 1024;

/// A frame's length is a varint of at most this many bytes (21 bits of length).
pub const MAX_LENGTH_BYTES: usize = 3;

/// HELLO carries a token and a ticket; before it nothing is known of the peer, so it gets little.
pub const MAX_HELLO_BODY_BYTES: usize = 4 * 1024;

/// The longest token that is looked at.
pub const MAX_TOKEN_BYTES: usize = 2 * 1024;

/// NOTIFY carries changes inline only below this, so that it stays in one segment of 1 400 bytes.
pub const MAX_INLINE_BYTES: usize = 1280;

/// Calls of one phone in flight at once. A phone's screens rarely ask for more than four things.
pub const MAX_PHONE_CALLS_IN_FLIGHT: usize = 16;

/// The largest body of an RPC frame: 16 notifies of a full page, or one snapshot page, and far below what
/// a length in a forged header could claim.
pub const MAX_RPC_BODY_BYTES: usize = 4 * 1024 * 1024;

/// The largest RPC header with all its extensions.
pub const MAX_RPC_HEADER_BYTES: usize = 4 * 1024;

/// A page of changes carries at most this many, whatever the phone asks for.
pub const MAX_PAGE_CHANGES: u32 = 500;

/// A page of changes is cut at about this many bytes; it always holds at least one change.
pub const MAX_PAGE_BYTES: usize = 48 * 1024;

/// The longest text of a message.
pub const MAX_TEXT_BYTES: usize = 8 * 1024;

/// Members of a group.
pub const MAX_GROUP_MEMBERS: usize = 500;

/// How long the server remembers the id of an upload; an older one is refused.
pub const UPLOAD_MEMORY_MS: u64 = 7 * 24 * 3600 * 1000;

/// How far an upload's creation time may lie ahead of the server's clock.
pub const UPLOAD_SKEW_MS: u64 = 10 * 60 * 1000;

/// Calls of one phone that wait for a connection or for one of the places in flight; the next one ends with
/// `TooMany`. A phone without a network must not fill its memory with what its user taps.
pub const MAX_PHONE_CALLS_WAITING: usize = 64;

/// A call that a phone gave up keeps its place among those in flight until it is answered, but not longer: no server
/// holds one for so long.
pub const CALL_HELD_MS: u64 = 60_000;

/// The longest ticket that a phone keeps.
pub const MAX_TICKET_BYTES: usize = 1024;

/// The longest place of a snapshot that a phone keeps.
pub const MAX_SNAPSHOT_PLACE_BYTES: usize = 1024;

/// The longest address that a phone is sent to: a DNS name and a port.
pub const MAX_ADDRESS_BYTES: usize = 260;

/// No server may ask a phone to beat more often, lest a zero in WELCOME makes every phone a storm.
pub const MIN_HEARTBEAT_MS: u32 = 1000;

/// After GOAWAY a phone waits at most this long for the answers it still expects.
pub const GOAWAY_DRAIN_MS: u64 = 5_000;
