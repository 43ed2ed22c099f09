//! What comes back from the kernel.

use std::net::SocketAddr;

use io_uring::cqueue;

use crate::buffers::BufferId;
use crate::inflight::{DROPPING, InFlightTable, Owned, SILENT};
use crate::queue::Groups;
use crate::send::SendBuf;
use crate::token::{Errno, Token};

/// One completion.
#[derive(Debug)]
pub struct Completion {
    /// What the caller gave the request, or what another ring's message carries.
    pub token: Token,
    /// What the operation gave: a slot for an accept, an event mask for a poll, a count of bytes for a send
    /// or a receive, the value of a message.
    pub result: Result<u32, Errno>,
    /// A multishot goes on. When false, the request has ended, whatever its result (Linux 6.18, test
    /// `a_completion_without_more_ends_a_multishot`).
    pub more: bool,
    /// More bytes were waiting when a receive completed.
    pub sock_nonempty: bool,
    /// The buffer that bytes were received into.
    pub buffer: Option<BufferId>,
    /// What the request owned or found out.
    pub returned: Returned,
}

/// What a completion gives beside its number.
#[derive(Debug)]
pub enum Returned {
    Nothing,
    /// The buffer of a send, sent or not. After a short send: `advance` it and send it again.
    Sent(SendBuf),
    /// The answer to [`Ring::peer_name`](crate::Ring::peer_name), absent when it failed.
    Peer(Option<SocketAddr>),
}

impl Completion {
    /// The caller's form of a completion; `None` for those that nobody awaits.
    #[inline]
    pub(crate) fn decode(
        entry: &cqueue::Entry,
        in_flight: &mut InFlightTable,
        groups: &Groups,
    ) -> Option<Self> {
        let (token, flags) = (Token::from_user_data(entry.user_data()), entry.flags());
        let result = match entry.result() {
            negative @ ..0 => Err(Errno(-negative)),
            value => Ok(value as u32),
        };
        let (token, returned) = if token.op() == Token::RESERVED_OP {
            let (token, owned) = in_flight.finish(token)?;
            (token, Self::give_back(owned, &result))
        } else {
            (token, Returned::Nothing)
        };
        let buffer = cqueue::buffer_select(flags).and_then(|number| groups.lend(number, result.unwrap_or(0)));
        let (more, sock_nonempty) = (cqueue::more(flags), cqueue::sock_nonempty(flags));
        Some(Self { token, result, more, sock_nonempty, buffer, returned })
    }

    /// The number of requests that a drop's cancel-everything found, when this is its completion.
    pub(crate) fn cancelled_by_drop(entry: &cqueue::Entry) -> Option<i32> {
        debug_assert_ne!(SILENT, DROPPING);
        (entry.user_data() == DROPPING.user_data()).then(|| entry.result())
    }

    fn give_back(owned: Owned, result: &Result<u32, Errno>) -> Returned {
        match owned {
            Owned::Send(buf) => Returned::Sent(buf),
            Owned::PeerName(addr) => Returned::Peer(result.is_ok().then(|| addr.decode()).flatten()),
            Owned::Connect(_) | Owned::OptionValue(_) => Returned::Nothing,
        }
    }
}
