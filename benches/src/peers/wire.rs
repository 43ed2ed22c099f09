//! What a protocol must bring: how it greets, how its frames are cut, what is asked in it.

use std::ops::Range;

use thiserror::Error;

use super::limits;

/// Which client this is, and what it does after it was let in.
#[derive(Debug, Clone, Default)]
pub struct Who {
    pub number: u32,
    /// Topics to subscribe to, before it counts as let in.
    pub topics: Vec<String>,
    /// HTTP's host and path, for those that upgrade.
    pub host: String,
    pub path: String,
}

/// Something to ask of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask<'a> {
    /// The protocol's own heartbeat.
    Ping,
    /// A message to all who subscribed to the topic. `acknowledged`: the server says that it has it (QoS 1).
    Publish { topic: &'a str, payload: &'a [u8], acknowledged: bool },
    /// A message that comes back.
    Echo { payload: &'a [u8] },
}

/// What a frame said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// The machine's own business.
    Nothing,
    /// We are in, with all subscriptions.
    Up,
    /// The answer to a ping.
    Pong,
    /// The server has what was published with `acknowledged`.
    Acknowledged,
    /// A message; its payload lies there in the input.
    Message(Range<usize>),
    /// News of so many things that are to be fetched or were given.
    News(u64),
    /// An asked thing was refused.
    Refused,
}

/// Why a connection cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WireError {
    #[error("the target does not speak {protocol}: it said {shown}")]
    NotSpoken { protocol: &'static str, shown: String },
    #[error("the {protocol} server refused us: {why}")]
    Refused { protocol: &'static str, why: String },
    #[error("what came is no {protocol}: {what}")]
    Malformed { protocol: &'static str, what: &'static str },
    #[error("a {protocol} message of {bytes} bytes is beyond the {max} that are taken", max = limits::MESSAGE_BYTES_MAX)]
    TooLarge { protocol: &'static str, bytes: usize },
}

impl WireError {
    /// With the first bytes that came, as a person can read them.
    pub fn not_spoken(protocol: &'static str, input: &[u8]) -> Self {
        let shown = input[..input.len().min(limits::SHOWN_BYTES)].escape_ascii().to_string();
        Self::NotSpoken { protocol, shown: format!("\"{shown}\"") }
    }
}

/// One connection's protocol, without a socket and without a clock.
pub trait Wire: 'static {
    /// As a person calls it.
    const NAME: &'static str;

    fn new(who: Who) -> Self;
    /// What lets it in, where the protocol has such a thing.
    fn set_token(&mut self, _token: Box<[u8]>) {}
    /// The connection is open: what is said first. True when that is all it takes to be in.
    fn greet(&mut self, out: &mut Vec<u8>) -> bool;
    /// Takes the frame at the front of `input`: its length, and what it said. None: bytes are missing. Whatever the
    /// cuts of the input, the same is heard.
    fn take(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Option<(usize, Heard)>, WireError>;
    /// Appends the question. False: this protocol has no such thing.
    fn ask(&mut self, ask: &Ask<'_>, out: &mut Vec<u8>) -> bool;
}
