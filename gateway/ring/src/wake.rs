//! Waking a ring from another thread, and handing it a descriptor.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use io_uring::opcode;
use io_uring::types::{DestinationSlot, Fd, Fixed};

use crate::op::Full;
use crate::queue::Ring;
use crate::sys;
use crate::token::{Errno, Slot, Token};

/// Where other threads reach a ring. It is a number only: use it no longer than the ring lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingAddress(pub(crate) RawFd);

#[derive(Debug, thiserror::Error)]
pub enum PostError {
    #[error("the kernel cannot send a message without a ring; it needs Linux 6.13")]
    Unsupported,
    #[error("the ring is gone")]
    Gone,
    #[error("the ring cannot take the message now")]
    Busy,
    #[error("the message was not sent")]
    Other(#[source] Errno),
}

impl Ring {
    /// Posts a completion of `there` and `value` to another ring, waking it (Linux 6.18, test
    /// `a_message_wakes_a_ring_of_another_thread`). `here`, if given, tells this ring how it went.
    ///
    /// # Panics
    /// If `value` is above `i32::MAX`: it would be read as an error.
    pub fn message(
        &mut self,
        to: RingAddress,
        there: Token,
        value: u32,
        here: Option<Token>,
    ) -> Result<(), Full> {
        let entry = opcode::MsgRingData::new(Fd(to.0), message_value(value), there.user_data(), None).build();
        match here {
            Some(token) => self.push_plain(entry, token),
            None => self.push_silent(entry),
        }
    }

    /// Rings `doorbell` when completions come, and when work is deferred until this ring is entered: so a thread can wait
    /// for several rings. A poll of the doorbell by another ring ends each time, multishot or not (Linux 6.18, test
    /// `a_doorbell_tells_that_work_waits`). A poll of the ring's own descriptor would tell of completions only, which
    /// nobody makes while the ring is not entered.
    pub fn ring_for_work(&mut self, doorbell: &Doorbell) -> io::Result<()> {
        self.io.submitter().register_eventfd(doorbell.fd.as_raw_fd())
    }

    /// Puts the descriptor of `slot` into an automatic slot of another ring, where `there` completes with that
    /// slot; `here` tells this ring how it went. The descriptor is then in both: after `here` has succeeded,
    /// close the slot (Linux 6.18, test `a_descriptor_is_handed_to_another_ring`).
    pub fn hand_over(&mut self, slot: Slot, to: RingAddress, there: Token, here: Token) -> Result<(), Full> {
        let (slot, automatic) = (Fixed(slot.0.min(self.direct_slots)), DestinationSlot::auto_target());
        let entry = opcode::MsgRingSendFd::new(Fd(to.0), slot, automatic, there.user_data()).build();
        self.push_plain(entry, here)
    }
}

impl RingAddress {
    /// As [`Ring::message`], at once and from a thread that has no ring (Linux 6.13, test
    /// `a_thread_without_a_ring_wakes_one`). Before that: a [`Doorbell`].
    ///
    /// # Panics
    /// If `value` is above `i32::MAX`.
    pub fn post(self, there: Token, value: u32) -> Result<(), PostError> {
        let sqe = sys::RawSqe {
            opcode: sys::OP_MSG_RING,
            fd: self.0,
            off: there.user_data(),
            len: message_value(value) as u32,
            ..Default::default()
        };
        sys::send_msg_ring(sqe).map_err(|error| match error.raw_os_error().unwrap_or(0) {
            libc::EINVAL => PostError::Unsupported,
            libc::EBADF | libc::EBADFD => PostError::Gone,
            libc::EAGAIN | libc::EOVERFLOW | libc::ENOMEM => PostError::Busy,
            other => PostError::Other(Errno(other)),
        })
    }
}

fn message_value(value: u32) -> i32 {
    i32::try_from(value).expect("a message's value above i32::MAX would be read as an error")
}

/// An eventfd: any thread rings it, a ring polls it ([`Ring::poll_multi`] on `as_fd()` with
/// [`PollEvents::IN`](crate::PollEvents::IN)) and calls [`Doorbell::clear`] before it looks for what is new.
#[derive(Clone, Debug)]
pub struct Doorbell {
    fd: Arc<OwnedFd>,
}

impl Doorbell {
    pub fn new() -> io::Result<Self> {
        // SAFETY: a plain call; it names no memory.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and nobody else has it.
        Ok(Self { fd: Arc::new(unsafe { OwnedFd::from_raw_fd(fd) }) })
    }

    /// Never blocks; ringing twice before a clear is as good as once.
    pub fn ring(&self) {
        let one = 1u64;
        // SAFETY: reads the 8 bytes of `one`. The only error is a full counter, which is rung already.
        unsafe { libc::write(self.fd.as_raw_fd(), (&raw const one).cast(), 8) };
    }

    pub fn clear(&self) {
        let mut count = 0u64;
        // SAFETY: writes the 8 bytes of `count`. The only error is that it was not rung.
        unsafe { libc::read(self.fd.as_raw_fd(), (&raw mut count).cast(), 8) };
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
