//! The ring: its queues, entering the kernel, reaping, and its end.

use std::io;
use std::marker::PhantomData;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use io_uring::{IoUring, cqueue, opcode, squeue, types};

use crate::buffers::{BufferId, BufferRing, BufferRingError, Group};
use crate::completion::Completion;
use crate::inflight::{DROPPING, InFlightTable};
use crate::limits;
use crate::op::Full;
use crate::sys;
use crate::token::{Errno, Slot};
use crate::wake::RingAddress;

/// An io_uring of the thread that made it.
pub struct Ring {
    pub(crate) io: IoUring,
    /// The index of the ring's descriptor among the thread's registered ones.
    pub(crate) registered: Option<u32>,
    pub(crate) direct_slots: u32,
    pub(crate) in_flight: InFlightTable,
    pub(crate) groups: Groups,
    /// Neither sent nor shared: SINGLE_ISSUER lets one thread enter, and the registered index is a thread's.
    pub(crate) this_thread: PhantomData<*const ()>,
}

/// How an entering of the kernel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Submitted, and as many completions as asked for are there.
    Ran,
    /// The time was up.
    TimedOut,
    /// A signal came.
    Interrupted,
    /// The kernel wants completions reaped, or memory freed, before it takes more. What was not taken stays
    /// queued: reap, then submit again.
    BackPressure,
}

/// What to wait for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wait {
    /// Return as soon as this many completions are there.
    pub min_complete: u32,
    /// Return after this time, however few there are. For ever, when absent.
    pub timeout: Option<Duration>,
    /// After this time one completion is enough: it gathers batches under load and costs nothing when idle
    /// (Linux 6.12; before that one completion is enough at once).
    pub min_wait: Option<Duration>,
}

/// The kernel refused to be entered. What is back-pressure is no error: see [`Outcome`].
#[derive(Debug, thiserror::Error)]
#[error("io_uring_enter failed")]
pub struct EnterError(#[source] Errno);

#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error("slot {} is not among the ring's {slots} direct descriptors", slot.0)]
    NoSuchSlot { slot: Slot, slots: u32 },
    #[error("the kernel refused to install a descriptor in slot {}", slot.0)]
    Refused { slot: Slot, source: io::Error },
}

impl Ring {
    /// Submits what is queued, without waiting. Makes no system call when there is nothing to do.
    pub fn submit(&mut self) -> Result<Outcome, EnterError> {
        if self.queued() == 0 && !self.has_deferred() {
            return Ok(Outcome::Ran);
        }
        self.enter(Wait::default())
    }

    /// Submits what is queued and waits for `min_complete` completions, at most for `timeout`.
    pub fn submit_and_wait(
        &mut self,
        min_complete: u32,
        timeout: Option<Duration>,
    ) -> Result<Outcome, EnterError> {
        self.enter(Wait { min_complete, timeout, min_wait: None })
    }

    /// As [`Ring::submit_and_wait`], with everything that can be waited for.
    pub fn wait(&mut self, wait: Wait) -> Result<Outcome, EnterError> {
        self.enter(wait)
    }

    /// The next completion, `None` when there is none now. Call it in a loop with a bound; what a turn leaves
    /// is there in the next.
    ///
    /// While the kernel says that deferred work waits, an empty queue is filled again first. One enter does at
    /// most max(20, asked) of it (Linux 6.13, test `one_enter_does_a_bounded_part_of_the_deferred_work`), so a
    /// caller that drains to `None` leaves no backlog.
    ///
    /// That flag may be set though nothing waits: another core that adds work marks it after this one has taken
    /// the work and cleared it (Linux 6.18). So an enter that brought nothing ends the look; asking again while the
    /// flag stands would spin for as long as nobody else adds work. What it left is done by the next enter.
    #[inline]
    pub fn next_completion(&mut self) -> Option<Completion> {
        let mut entered = false;
        loop {
            match self.pop() {
                Some(entry) => {
                    let completion = Completion::decode(&entry, &mut self.in_flight, &self.groups);
                    if completion.is_some() {
                        return completion;
                    }
                    entered = false;
                }
                None => {
                    if entered || !self.has_deferred() || !matches!(self.run_deferred(), Ok(Outcome::Ran)) {
                        return None;
                    }
                    entered = true;
                }
            }
        }
    }

    /// As many completions as are there, at most `limit`: [`Ring::next_completion`] for a loop that does not
    /// touch the ring in its body.
    pub fn completions(&mut self, limit: usize) -> impl Iterator<Item = Completion> + '_ {
        std::iter::from_fn(move || self.next_completion()).take(limit)
    }

    /// Completions that can be reaped without entering the kernel.
    pub fn ready(&mut self) -> usize {
        self.io.completion().len()
    }

    /// Requests queued and not yet submitted.
    pub fn queued(&mut self) -> usize {
        self.io.submission().len()
    }

    /// Requests that can be queued before the next submit.
    pub fn room(&mut self) -> usize {
        let queue = self.io.submission();
        queue.capacity() - queue.len()
    }

    /// Sends, connects and socket options that are in flight.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.used()
    }

    pub fn direct_slots(&self) -> u32 {
        self.direct_slots
    }

    /// Where other threads reach this ring. Stale when the ring is dropped.
    pub fn address(&self) -> RingAddress {
        RingAddress(self.io.as_raw_fd())
    }

    /// Makes a group of `count` (a power of two) buffers of `buffer_bytes` for receives.
    pub fn buffer_ring(&mut self, count: u32, buffer_bytes: u32) -> Result<BufferRing, BufferRingError> {
        let (id, base) = self.groups.next(count)?;
        let group = Rc::new(Group::new(id, base, count, buffer_bytes)?);
        // SAFETY: the ring of entries is `count` entries long, page-aligned, and lives as long as `groups`,
        // which outlives the kernel's use of it: see `Drop`.
        unsafe {
            self.io.submitter().register_buf_ring_with_flags(group.ring_address(), count as u16, id, 0)
        }
        .map_err(|source| BufferRingError::Register { source })?;
        group.provide_all();
        self.groups.0.push(Rc::clone(&group));
        Ok(BufferRing::new(group))
    }

    /// Puts an ordinary descriptor in a slot, in place of what was there. The slot then holds the only
    /// reference to it.
    pub fn install(&mut self, slot: Slot, fd: OwnedFd) -> Result<(), InstallError> {
        if slot.0 >= self.direct_slots {
            return Err(InstallError::NoSuchSlot { slot, slots: self.direct_slots });
        }
        match self.io.submitter().register_files_update(slot.0, &[fd.as_raw_fd()]) {
            Ok(1) => Ok(()),
            Ok(_) => Err(InstallError::Refused { slot, source: io::ErrorKind::Other.into() }),
            Err(source) => Err(InstallError::Refused { slot, source }),
        }
    }

    /// # Safety
    /// Memory that the entries name must be valid until their completions.
    pub(crate) unsafe fn push(&mut self, entries: &[squeue::Entry]) -> Result<(), Full> {
        // SAFETY: the caller answers for the memory. Entries enter together or not at all.
        unsafe { self.io.submission().push_multiple(entries) }.map_err(|_| Full::Submissions)
    }

    #[inline]
    fn pop(&mut self) -> Option<cqueue::Entry> {
        self.io.completion().next()
    }

    fn has_deferred(&mut self) -> bool {
        let queue = self.io.submission();
        queue.taskrun() || queue.cq_overflow()
    }

    fn run_deferred(&mut self) -> Result<Outcome, EnterError> {
        self.enter_for(0, Wait::default())
    }

    fn enter(&mut self, wait: Wait) -> Result<Outcome, EnterError> {
        let queued = self.queued() as u32;
        self.enter_for(queued, wait)
    }

    /// GETEVENTS always: only with it does an enter do deferred work, also that of what it just submitted.
    fn enter_for(&mut self, to_submit: u32, mut wait: Wait) -> Result<Outcome, EnterError> {
        if wait.min_wait.is_some() && !self.io.params().is_feature_min_timeout() {
            wait = Wait { min_complete: wait.min_complete.min(1), min_wait: None, ..wait };
        }
        let timespec = wait.timeout.map(|timeout| sys::KernelTimespec {
            seconds: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            nanoseconds: timeout.subsec_nanos().into(),
        });
        let arg = sys::GeteventsArg {
            min_wait_us: wait.min_wait.map_or(0, |time| u32::try_from(time.as_micros()).unwrap_or(u32::MAX)),
            timespec: timespec.as_ref().map_or(0, |timespec| std::ptr::from_ref(timespec) as u64),
            ..Default::default()
        };
        let waits = wait.min_complete > 0;
        let (fd, registered) = match self.registered {
            Some(index) => (index as i32, sys::ENTER_REGISTERED_RING),
            None => (self.io.as_raw_fd(), 0),
        };
        let flags = sys::ENTER_GETEVENTS | registered | if waits { sys::ENTER_EXT_ARG } else { 0 };
        match sys::enter(fd, to_submit, wait.min_complete, flags, waits.then_some(&arg)) {
            Ok(taken) if taken < to_submit => Ok(Outcome::BackPressure),
            Ok(_) => Ok(Outcome::Ran),
            Err(libc::ETIME) => Ok(Outcome::TimedOut),
            Err(libc::EINTR) => Ok(Outcome::Interrupted),
            Err(libc::EAGAIN | libc::EBUSY | libc::ENOMEM) => Ok(Outcome::BackPressure),
            Err(other) => Err(EnterError(Errno(other))),
        }
    }

    /// Cancels everything and reaps until nothing is left that could touch memory of ours. False when
    /// something is still in flight after the bounded wait.
    fn quiesce(&mut self) -> bool {
        for _ in 0..limits::DROP_ROUNDS_MAX {
            let cancel = opcode::AsyncCancel2::new(types::CancelBuilder::any()).build();
            let cancel = cancel.user_data(DROPPING.user_data());
            // SAFETY: a cancel names no memory. A full queue is emptied by the enter below, and the next round
            // queues it.
            let _ = unsafe { self.push(&[cancel]) };
            if self.submit_and_wait(1, Some(Duration::from_millis(limits::DROP_WAIT_MS))).is_err() {
                return false;
            }
            if self.discard_completions() == Some(0) && self.in_flight.used() == 0 {
                return true;
            }
        }
        false
    }

    /// Gives how many requests the last cancel-everything found, if its completion was among them.
    fn discard_completions(&mut self) -> Option<i32> {
        let mut cancelled = None;
        loop {
            let mut any = false;
            while let Some(entry) = self.pop() {
                any = true;
                cancelled = Completion::cancelled_by_drop(&entry).or(cancelled);
                drop(Completion::decode(&entry, &mut self.in_flight, &self.groups));
            }
            // The flag may be stale, as told at `next_completion`: a round that brought nothing is the last.
            if !any || !self.has_deferred() || self.run_deferred().is_err() {
                return cancelled;
            }
        }
    }
}

/// Submits what is queued (a last GOODBYE may be), cancels what does not end, and waits for it. Sockets in the
/// slots are closed by the kernel a little later. What is still in flight after a bounded wait keeps its
/// memory for ever: the kernel may yet write to it.
impl Drop for Ring {
    fn drop(&mut self) {
        if !self.quiesce() {
            mem::forget(mem::replace(&mut self.in_flight, InFlightTable::new(0)));
            mem::forget(mem::take(&mut self.groups));
        }
        if let Some(index) = self.registered {
            // It holds a reference to the ring, which else would live as long as the thread. On an error it
            // does just that.
            let _ = sys::unregister_ring_fd(self.io.as_raw_fd(), index);
        }
    }
}

/// The buffer groups of a ring.
#[derive(Default)]
pub(crate) struct Groups(Vec<Rc<Group>>);

impl Groups {
    /// The group's number and the number of its first buffer.
    fn next(&self, count: u32) -> Result<(u16, u16), BufferRingError> {
        let used = self.0.last().map_or(0, |last| u32::from(last.base) + u32::from(last.count));
        if used + count > limits::BUFFERS_OF_A_RING_MAX || count == 0 {
            return Err(BufferRingError::TooMany { used, asked: count });
        }
        Ok((self.0.len() as u16, used as u16))
    }

    pub fn lend(&self, number: u16, len: u32) -> Option<BufferId> {
        self.0.iter().find_map(|group| group.lend(number, len))
    }
}
