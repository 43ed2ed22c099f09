//! What a connection and a shard cost, line by line. The compiler checks the sizes that it can see; the
//! `hold` bench measures the sum.

use crate::limits;
use crate::session::Session;
use crate::shard::{addresses, wheel};

/// The record of an idle connection, by design at most this.
pub const SESSION_BYTES_MAX: usize = 96;
const _: () = assert!(size_of::<Session>() <= SESSION_BYTES_MAX);

/// Kept in a session for what comes: a network key, the learned interval, rate limits.
pub const SESSION_RESERVE_BYTES: usize = 8;

/// One armed POLL_ADD in the kernel, measured on Linux 6.18.
pub const KERNEL_POLL_BYTES: usize = 256;

/// A line of the budget: what, and its bytes.
pub type Line = (&'static str, usize);

/// What an idle connection costs this process and, beyond the socket itself, its kernel.
pub const CONNECTION: &[Line] =
    &[("session record", size_of::<Session>()), ("armed poll (kernel)", KERNEL_POLL_BYTES)];

/// What a shard costs whether it has connections or not.
pub const SHARD: &[Line] = &[
    ("receive buffers for phones", (limits::RECEIVE_BUFFERS * limits::RECEIVE_BUFFER_BYTES) as usize),
    ("receive buffers for backends", (limits::UPSTREAM_BUFFERS * limits::UPSTREAM_BUFFER_BYTES) as usize),
    ("submission queue", limits::SUBMISSIONS as usize * 64),
    ("completion queue", limits::COMPLETIONS as usize * 16),
    ("timer wheel", wheel::BUCKETS * size_of::<u32>()),
    ("peer addresses, when limited", addresses::TABLE_BYTES),
    ("spare send buffers, at most", limits::SPARE_BUFFERS * limits::SPARE_BUFFER_BYTES_MAX),
];

const fn sum(lines: &[Line]) -> usize {
    let (mut total, mut at) = (0, 0);
    while at < lines.len() {
        total += lines[at].1;
        at += 1;
    }
    total
}

/// The fixed cost of a shard stays under this.
pub const SHARD_BYTES_MAX: usize = 1600 * 1024;
const _: () = assert!(sum(SHARD) <= SHARD_BYTES_MAX);

/// Whatever addresses there are, a shard's table of them stays at this.
pub const ADDRESSES_BYTES_MAX: usize = 128 * 1024;
const _: () = assert!(addresses::TABLE_BYTES <= ADDRESSES_BYTES_MAX);

/// The budget as a table.
pub fn table() -> String {
    let mut text = String::from("an idle connection\n");
    for (what, bytes) in CONNECTION {
        text += &format!("  {what:<32}{bytes:>10} B\n");
    }
    text += "a shard\n";
    for (what, bytes) in SHARD {
        text += &format!("  {what:<32}{bytes:>10} B\n");
    }
    text + &format!("  {:<32}{:>10} B\n", "in all", sum(SHARD))
}
