//! Calls over UDP: a datagram each way, each one whole frame of `spec/rpc.md`.
//!
//! Sans-I/O: the owner moves datagrams between a [`DatagramCaller`] and a [`DatagramCallee`], whatever loses, repeats and
//! reorders them on the way.

mod callee;
mod caller;
mod held;

use std::ops::Range;

use super::header::{Header, HeaderError, next_header};

pub use callee::{Came, DatagramCallee, DatagramCalleeConfig, Running};
pub use caller::{Answered, DatagramCaller, DatagramConfig, Refused};
pub use held::{Held, HeldConfig, Ticket};

/// The largest datagram of either side. It passes the networks of a data centre in one piece: a fragment that is lost
/// would take the rest along.
pub const MAX_DATAGRAM_BYTES: usize = 1400;

/// Bytes of the body that says where a reply is held.
pub const TICKET_BYTES: usize = 16;

/// The frame that a datagram is, if it is exactly one.
fn whole(datagram: &[u8]) -> Result<Option<(Header, Range<usize>)>, HeaderError> {
    let Some((header, header_bytes)) = next_header(datagram)? else { return Ok(None) };
    let end = header_bytes + header.body_bytes as usize;
    Ok((end == datagram.len()).then_some((header, header_bytes..end)))
}

#[cfg(test)]
mod tests;
