//! Every bound of the services, and why it is what it is.

/// Names are typed, shown, and looked up: short and of one alphabet.
pub const NAME_BYTES: std::ops::RangeInclusive<usize> = 3..=32;

/// Characters of a password. The bound above keeps a hash from taking long.
pub const PASSWORD_CHARS: std::ops::RangeInclusive<usize> = 8..=128;

/// Argon2id: 19 MiB and two passes. Source: OWASP Password Storage Cheat Sheet, 2024.
pub const HASH_MEMORY_KIB: u32 = 19 * 1024;
pub const HASH_PASSES: u32 = 2;

/// Passwords that wait for a worker. At 30 ms each a full queue is 2 s, which a person still waits.
pub const MAX_HASHES_WAITING: usize = 64;

/// When the queue is full: try again after this.
pub const HASH_RETRY_AFTER_MS: u32 = 2_000;

/// The largest payload that is given back: a phone's frame holds no more.
pub const MAX_ECHO_BYTES: usize = proto_wire::limits::MAX_FRAME_BODY_BYTES;
