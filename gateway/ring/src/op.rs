//! The requests: each a typed method that queues one submission, without a system call.
//!
//! Completions are told under each. All of them answer an empty or unknown slot with
//! [`Errno::BAD_DESCRIPTOR`](crate::Errno::BAD_DESCRIPTOR).

use std::net::SocketAddr;
use std::ops::BitOr;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use io_uring::types::{DestinationSlot, Fd, Fixed};
use io_uring::{opcode, squeue, types};

use crate::addr::{Family, RawAddr};
use crate::inflight::{InFlight, Owned, SILENT};
use crate::limits;
use crate::queue::Ring;
use crate::send::SendBuf;
use crate::sys;
use crate::token::{Slot, Token};

/// A request could not be queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// The submission queue is full: submit, then try again.
    #[error("the submission queue is full")]
    Submissions,
    /// Too many requests that own memory are in flight: reap completions, then try again.
    #[error("too many requests are in flight")]
    InFlight,
}

/// A send that could not be queued, and its buffer back.
#[derive(Debug, thiserror::Error)]
#[error("{full}")]
pub struct SendRefused {
    pub full: Full,
    pub buf: SendBuf,
}

/// What a request acts on: a slot, or a descriptor of the process, which must stay open until the next submit.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    Slot(Slot),
    Fd(RawFd),
}

impl From<Slot> for Target {
    fn from(slot: Slot) -> Self {
        Self::Slot(slot)
    }
}

impl From<BorrowedFd<'_>> for Target {
    fn from(fd: BorrowedFd<'_>) -> Self {
        Self::Fd(fd.as_raw_fd())
    }
}

/// The events of a poll, asked for and found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PollEvents(pub u32);

impl PollEvents {
    pub const IN: Self = Self(libc::POLLIN as u32);
    pub const OUT: Self = Self(libc::POLLOUT as u32);
    /// The peer has closed, or shut down, its sending side.
    pub const RDHUP: Self = Self(libc::POLLRDHUP as u32);
    /// Found without being asked for.
    pub const HUP: Self = Self(libc::POLLHUP as u32);
    /// Found without being asked for.
    pub const ERR: Self = Self(libc::POLLERR as u32);

    pub fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl BitOr for PollEvents {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What to cancel.
#[derive(Clone, Copy, Debug)]
pub enum Cancel {
    /// An accept, poll or receive, by its token. Costs one look-up.
    Token(Token),
    /// A send, connect or socket option.
    InFlight(InFlight),
    /// Everything on a slot. The kernel walks all armed polls of the ring for it: for rare use.
    AllOn(Slot),
}

#[derive(Clone, Copy, Debug)]
pub enum ShutdownHow {
    Read,
    Write,
    Both,
}

/// An option that is set on a direct descriptor.
#[derive(Clone, Copy, Debug)]
pub enum SocketOption {
    NoDelay(bool),
    UserTimeoutMs(u32),
    Keepalive(bool),
    NotSentLowat(u32),
    SendBuffer(u32),
    ReceiveBuffer(u32),
    /// A close sends RST at once and leaves no TIME_WAIT.
    ResetOnClose,
}

impl Ring {
    /// Accepts connections into automatic slots until cancelled. Result: a slot. Ends with
    /// [`Errno::TABLE_FULL`](crate::Errno::TABLE_FULL) when no slot is free, and that connection is lost
    /// (Linux 6.18, test `an_accept_into_a_full_table_closes_the_socket_and_ends_the_multishot`).
    pub fn accept_multi(&mut self, listener: impl Into<Target>, token: Token) -> Result<(), Full> {
        let entry = match listener.into() {
            Target::Slot(slot) => {
                opcode::AcceptMulti::new(self.fixed(slot)).allocate_file_index(true).build()
            }
            Target::Fd(fd) => opcode::AcceptMulti::new(Fd(fd)).allocate_file_index(true).build(),
        };
        self.push_plain(entry, token)
    }

    /// Accepts one connection into an automatic slot. Result: the slot.
    pub fn accept_one(&mut self, listener: impl Into<Target>, token: Token) -> Result<(), Full> {
        let (addr, len) = (std::ptr::null_mut(), std::ptr::null_mut());
        let slot = Some(DestinationSlot::auto_target());
        let entry = match listener.into() {
            Target::Slot(listener) => {
                opcode::Accept::new(self.fixed(listener), addr, len).file_index(slot).build()
            }
            Target::Fd(fd) => opcode::Accept::new(Fd(fd), addr, len).file_index(slot).build(),
        };
        self.push_plain(entry, token)
    }

    /// Tells of `events` until cancelled. Result: the events found. It is edge-like: after a completion,
    /// receive until [`Errno::AGAIN`](crate::Errno::AGAIN) or until `sock_nonempty` is false (Linux 6.18, test
    /// `a_multishot_poll_tells_of_news_and_not_of_a_state`).
    pub fn poll_multi(
        &mut self,
        target: impl Into<Target>,
        events: PollEvents,
        token: Token,
    ) -> Result<(), Full> {
        self.poll(target.into(), events, true, token)
    }

    /// Tells once when one of `events` is there.
    pub fn poll_one(
        &mut self,
        target: impl Into<Target>,
        events: PollEvents,
        token: Token,
    ) -> Result<(), Full> {
        self.poll(target.into(), events, false, token)
    }

    /// Receives what is there into a buffer of the group, without waiting. Result: a count, 0 at the end of
    /// the stream, [`Errno::AGAIN`](crate::Errno::AGAIN) when nothing is there (no buffer is then used).
    pub fn recv(&mut self, slot: Slot, group: u16, token: Token) -> Result<(), Full> {
        let entry = opcode::Recv::new(self.fixed(slot), std::ptr::null_mut(), 0)
            .buf_group(group)
            .flags(libc::MSG_DONTWAIT)
            .build()
            .flags(squeue::Flags::BUFFER_SELECT);
        self.push_plain(entry, token)
    }

    /// Receives until the end of the stream, an error or [`Errno::NO_BUFFERS`](crate::Errno::NO_BUFFERS), each
    /// time into a buffer of the group (Linux 6.18, test
    /// `a_multishot_receive_ends_without_buffers_and_goes_on_when_armed_again`). Armed it costs the kernel 600
    /// bytes more than a poll: for connections that stream.
    pub fn recv_multi(&mut self, slot: Slot, group: u16, token: Token) -> Result<(), Full> {
        let entry = opcode::RecvMulti::new(self.fixed(slot), group).build();
        self.push_plain(entry, token)
    }

    /// Sends all of `buf`, waiting for room as long as it takes. Result: the bytes sent, fewer only after an
    /// error or a cancel (Linux 6.18, test `a_send_larger_than_the_socket_buffer_completes_whole`). The buffer
    /// comes back as [`Returned::Sent`](crate::Returned::Sent). At most one send may be in flight on a slot:
    /// submissions are not ordered.
    pub fn send(
        &mut self,
        slot: Slot,
        buf: impl Into<SendBuf>,
        token: Token,
    ) -> Result<InFlight, SendRefused> {
        let buf = buf.into();
        if let Err(full) = self.room_for_owned() {
            return Err(SendRefused { full, buf });
        }
        let bytes = buf.as_slice();
        let (start, len) = (bytes.as_ptr(), bytes.len().min(limits::SEND_BYTES_MAX) as u32);
        let entry = opcode::Send::new(self.fixed(slot), start, len)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build();
        Ok(self.push_owned(entry, Owned::Send(buf), token))
    }

    /// Sends all of `bytes` at the next submit, or tells that it could not: there is a completion only then, with
    /// [`Errno::AGAIN`](crate::Errno::AGAIN) when there was no room, an error, or fewer bytes than asked for (Linux
    /// 6.18, test `a_send_at_once_is_told_only_when_it_fails`). Nothing stays in flight behind the submit.
    pub fn send_now(&mut self, slot: Slot, bytes: &'static [u8], token: Token) -> Result<(), Full> {
        let len = bytes.len().min(limits::SEND_BYTES_MAX) as u32;
        // WAITALL makes a short send a failure, which is told; DONTWAIT lets it fail in place of waiting.
        let entry = opcode::Send::new(self.fixed(slot), bytes.as_ptr(), len)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL | libc::MSG_DONTWAIT)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS);
        // SAFETY: the bytes live for ever.
        unsafe { self.push(&[entry.user_data(token.user_data())]) }
    }

    /// Connects the socket in `slot`.
    pub fn connect(&mut self, slot: Slot, peer: SocketAddr, token: Token) -> Result<InFlight, Full> {
        self.room_for_owned()?;
        let addr = Box::new(RawAddr::new(&peer));
        let entry = opcode::Connect::new(self.fixed(slot), addr.as_ptr().cast(), addr.len()).build();
        Ok(self.push_owned(entry, Owned::Connect(addr), token))
    }

    /// Makes a TCP socket in an automatic slot. Result: the slot. For one with options or a source address:
    /// [`client_socket`](crate::client_socket) and [`Ring::install`].
    pub fn socket(&mut self, family: Family, token: Token) -> Result<(), Full> {
        let entry = opcode::Socket::new(family.domain(), libc::SOCK_STREAM, libc::IPPROTO_TCP)
            .file_index(Some(DestinationSlot::auto_target()))
            .build();
        self.push_plain(entry, token)
    }

    /// Asks for the peer's address, which comes as [`Returned::Peer`](crate::Returned::Peer). `family` is that
    /// of the listener: the length must be exactly its address's (Linux 6.7, test
    /// `the_peers_address_is_found_by_slot`).
    pub fn peer_name(&mut self, slot: Slot, family: Family, token: Token) -> Result<(), Full> {
        const SO_PEERNAME: i32 = 28;
        self.room_for_owned()?;
        let mut addr = Box::new(RawAddr::empty(family));
        let (value, len) = (addr.as_mut_ptr() as u64, addr.len());
        let command = sys::SOCKET_URING_OP_GETSOCKOPT;
        let slot = self.fixed(slot).0;
        let sqe = sys::RawSqe::socket_option(slot, command, libc::SOL_SOCKET, SO_PEERNAME, value, len);
        self.push_owned(sqe.into_entry(), Owned::PeerName(addr), token);
        Ok(())
    }

    /// Sets an option of the socket in `slot`.
    pub fn set_option(&mut self, slot: Slot, option: SocketOption, token: Token) -> Result<(), Full> {
        self.room_for_owned()?;
        let (level, name, value, len) = option.parts();
        let value = Box::new(value);
        let (address, command) = (value.as_ptr() as u64, sys::SOCKET_URING_OP_SETSOCKOPT);
        let slot = self.fixed(slot).0;
        let sqe = sys::RawSqe::socket_option(slot, command, level, name, address, len);
        self.push_owned(sqe.into_entry(), Owned::OptionValue(value), token);
        Ok(())
    }

    /// Shuts one or both directions down. Wait for its completion before closing: unordered, it may find the
    /// slot empty.
    pub fn shutdown(&mut self, slot: Slot, how: ShutdownHow, token: Token) -> Result<(), Full> {
        let how = match how {
            ShutdownHow::Read => libc::SHUT_RD,
            ShutdownHow::Write => libc::SHUT_WR,
            ShutdownHow::Both => libc::SHUT_RDWR,
        };
        let entry = opcode::Shutdown::new(self.fixed(slot), how).build();
        self.push_plain(entry, token)
    }

    /// Cancels what is armed on a slot and closes it, in one batch: pass *everything* that is armed or in
    /// flight there. With anything left armed the socket stays open, without FIN and without a completion
    /// (Linux 6.18, tests `a_close_after_a_cancel_sends_fin` and `a_bare_close_under_an_armed_poll_sends_no_fin`).
    ///
    /// When the close's completion is reaped the slot is the kernel's again: an accept, or an
    /// [`Ring::install`], may fill it at once; the close is told first (Linux 6.18, test
    /// `a_close_is_told_before_an_accept_that_fills_its_slot`). Completions of what was cancelled come before or *after* that,
    /// with [`Errno::CANCELED`](crate::Errno::CANCELED) or a last result: they carry the old generation.
    ///
    /// # Panics
    /// With more than [`limits::CANCELS_OF_A_CLOSE_MAX`] cancels.
    pub fn close(&mut self, slot: Slot, cancels: &[Cancel], token: Token) -> Result<(), Full> {
        assert!(cancels.len() <= limits::CANCELS_OF_A_CLOSE_MAX, "too many cancels for one close");
        let close = || opcode::Close::new(self.fixed(slot)).build().user_data(token.user_data());
        let mut batch: [squeue::Entry; limits::CANCELS_OF_A_CLOSE_MAX + 1] = std::array::from_fn(|_| close());
        for (entry, cancel) in batch.iter_mut().zip(cancels) {
            *entry = self.cancel_entry(*cancel);
        }
        // SAFETY: cancels and closes name no memory.
        unsafe { self.push(&batch[..=cancels.len()]) }
    }

    /// Cancels, for its effect only: the cancelled request's own completion tells.
    pub fn cancel(&mut self, cancel: Cancel) -> Result<(), Full> {
        let entry = self.cancel_entry(cancel);
        // SAFETY: a cancel names no memory.
        unsafe { self.push(&[entry]) }
    }

    /// A slot as the kernel wants it. One beyond the table is mapped to the first that is not in it, so that
    /// no arithmetic on it can come out as another descriptor.
    fn fixed(&self, slot: Slot) -> Fixed {
        Fixed(slot.0.min(self.direct_slots))
    }

    fn poll(&mut self, target: Target, events: PollEvents, multi: bool, token: Token) -> Result<(), Full> {
        let entry = match target {
            Target::Slot(slot) => opcode::PollAdd::new(self.fixed(slot), events.0).multi(multi).build(),
            Target::Fd(fd) => opcode::PollAdd::new(Fd(fd), events.0).multi(multi).build(),
        };
        self.push_plain(entry, token)
    }

    fn cancel_entry(&self, cancel: Cancel) -> squeue::Entry {
        let entry = match cancel {
            Cancel::Token(token) => opcode::AsyncCancel::new(token.user_data()).build(),
            Cancel::InFlight(at) => opcode::AsyncCancel::new(at.token().user_data()).build(),
            Cancel::AllOn(slot) => {
                opcode::AsyncCancel2::new(types::CancelBuilder::fd(self.fixed(slot)).all()).build()
            }
        };
        silent(entry)
    }

    /// Queues a request that names no memory.
    pub(crate) fn push_plain(&mut self, entry: squeue::Entry, token: Token) -> Result<(), Full> {
        // SAFETY: the callers' entries name no memory of ours: receives take provided buffers, accepts have
        // null addresses.
        unsafe { self.push(&[entry.user_data(token.user_data())]) }
    }

    /// Queues a request whose completion, if it succeeds, nobody awaits. It names no memory.
    pub(crate) fn push_silent(&mut self, entry: squeue::Entry) -> Result<(), Full> {
        // SAFETY: as in `push_plain`.
        unsafe { self.push(&[silent(entry)]) }
    }

    fn room_for_owned(&mut self) -> Result<(), Full> {
        if self.in_flight.is_full() {
            return Err(Full::InFlight);
        }
        if self.room() == 0 { Err(Full::Submissions) } else { Ok(()) }
    }

    /// Queues a request whose memory is `owned`, after [`Ring::room_for_owned`] has said that there is room.
    fn push_owned(&mut self, entry: squeue::Entry, owned: Owned, token: Token) -> InFlight {
        let at = self.in_flight.insert(token, owned);
        // SAFETY: what the entry names is a heap allocation behind `owned`, which the table keeps until the
        // completion that carries `at`. Its moving into the table has not moved the allocation.
        let pushed = unsafe { self.push(&[entry.user_data(at.token().user_data())]) };
        debug_assert!(pushed.is_ok(), "the caller has seen room");
        at
    }
}

impl SocketOption {
    /// Level, name, value and the value's length.
    fn parts(self) -> (i32, i32, [i32; 2], u32) {
        let number = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
        let int = |level, name, value| (level, name, [value, 0], 4);
        match self {
            Self::NoDelay(on) => int(libc::IPPROTO_TCP, libc::TCP_NODELAY, on.into()),
            Self::UserTimeoutMs(ms) => int(libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, number(ms)),
            Self::Keepalive(on) => int(libc::SOL_SOCKET, libc::SO_KEEPALIVE, on.into()),
            Self::NotSentLowat(bytes) => int(libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, number(bytes)),
            Self::SendBuffer(bytes) => int(libc::SOL_SOCKET, libc::SO_SNDBUF, number(bytes)),
            Self::ReceiveBuffer(bytes) => int(libc::SOL_SOCKET, libc::SO_RCVBUF, number(bytes)),
            // struct linger: on, with 0 seconds.
            Self::ResetOnClose => (libc::SOL_SOCKET, libc::SO_LINGER, [1, 0], 8),
        }
    }
}

fn silent(entry: squeue::Entry) -> squeue::Entry {
    entry.user_data(SILENT.user_data()).flags(squeue::Flags::SKIP_SUCCESS)
}
