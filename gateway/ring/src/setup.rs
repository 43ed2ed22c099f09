//! Making a ring.

use std::io;
use std::marker::PhantomData;
use std::ops::Range;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, cqueue, squeue};

use crate::inflight::InFlightTable;
use crate::limits;
use crate::probe::{ProbeError, explain_refusal};
use crate::queue::{Groups, Ring};
use crate::sys;

/// What a ring is made with.
#[derive(Clone, Debug)]
pub struct RingConfig {
    /// Requests that can be queued between two submits; rounded up to a power of two. 64 B each.
    pub sq_entries: u32,
    /// Completions that can wait to be reaped; rounded up to a power of two. 16 B each. More are kept by
    /// the kernel, at the cost of ending multishots.
    pub cq_entries: u32,
    /// Places for direct descriptors. 8 B of kernel memory each.
    pub direct_slots: u32,
    /// The slots that accepts choose from; the others are for [`Ring::install`]. All, when absent.
    pub automatic_slots: Option<Range<u32>>,
    /// Sends, connects and socket options in flight at once.
    pub in_flight_max: u32,
}

impl Default for RingConfig {
    fn default() -> Self {
        Self {
            sq_entries: 256,
            cq_entries: 4096,
            direct_slots: 1024,
            automatic_slots: None,
            in_flight_max: limits::IN_FLIGHT_DEFAULT,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("{asked} submission entries were asked for; 1 to {max} are possible", max = limits::SQ_ENTRIES_MAX)]
    SqEntries { asked: u32 },
    #[error("{asked} completion entries were asked for; {least} to {max} are possible", max = limits::CQ_ENTRIES_MAX)]
    CqEntries { asked: u32, least: u32 },
    #[error(
        "{asked} direct descriptors were asked for, but the table of one ring is capped at {limit} by \
         RLIMIT_NOFILE and the kernel; raise it (ulimit -n {asked}, or LimitNOFILE= of the unit), or use \
         more rings"
    )]
    DirectSlots { asked: u32, limit: u32 },
    #[error("the automatic slots {range:?} do not lie within the {slots} direct descriptors")]
    AutomaticSlots { range: Range<u32>, slots: u32 },
    #[error(transparent)]
    Refused(#[from] ProbeError),
    #[error("the kernel refused {what}")]
    Register { what: &'static str, source: io::Error },
}

impl Ring {
    /// Makes a ring for the calling thread.
    ///
    /// SINGLE_ISSUER, DEFER_TASKRUN and TASKRUN_FLAG (Linux 6.1): completions are worked out only when this
    /// thread enters the kernel, so nothing interrupts a turn.
    pub fn new(config: RingConfig) -> Result<Self, SetupError> {
        check(&config)?;
        let io = IoUring::<squeue::Entry, cqueue::Entry>::builder()
            .dontfork()
            .setup_cqsize(config.cq_entries.next_power_of_two())
            .setup_submit_all()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_no_sqarray()
            .build(config.sq_entries)
            .map_err(|error| SetupError::Refused(explain_refusal(error)))?;
        register_slots(&io, &config)?;
        // Saves a descriptor look-up in each enter. A thread has 16 such places; without one it works as well.
        let registered = sys::register_ring_fd(io.as_raw_fd()).ok();
        Ok(Self {
            io,
            registered,
            direct_slots: config.direct_slots,
            in_flight: InFlightTable::new(config.in_flight_max),
            groups: Groups::default(),
            this_thread: PhantomData,
        })
    }
}

fn check(config: &RingConfig) -> Result<(), SetupError> {
    let RingConfig { sq_entries, cq_entries, direct_slots, .. } = *config;
    if sq_entries == 0 || sq_entries > limits::SQ_ENTRIES_MAX {
        return Err(SetupError::SqEntries { asked: sq_entries });
    }
    if cq_entries < sq_entries || cq_entries > limits::CQ_ENTRIES_MAX {
        return Err(SetupError::CqEntries { asked: cq_entries, least: sq_entries });
    }
    let limit = direct_slots_limit();
    if direct_slots > limit {
        return Err(SetupError::DirectSlots { asked: direct_slots, limit });
    }
    match &config.automatic_slots {
        Some(range) if range.is_empty() || range.end > direct_slots => {
            Err(SetupError::AutomaticSlots { range: range.clone(), slots: direct_slots })
        }
        _ => Ok(()),
    }
}

/// The most direct descriptors that one ring can have here.
///
/// The table is capped by the soft RLIMIT_NOFILE though its entries are not in the process's own table
/// (Linux 6.18, test `a_table_above_the_descriptor_limit_is_refused_with_the_mending_command`).
pub fn direct_slots_limit() -> u32 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a writable rlimit.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    u32::try_from(limit.rlim_cur).unwrap_or(u32::MAX).min(limits::DIRECT_SLOTS_MAX)
}

fn register_slots(io: &IoUring, config: &RingConfig) -> Result<(), SetupError> {
    if config.direct_slots == 0 {
        return Ok(());
    }
    let refused = |what| move |source| SetupError::Register { what, source };
    io.submitter()
        .register_files_sparse(config.direct_slots)
        .map_err(refused("the table of direct descriptors"))?;
    if let Some(range) = &config.automatic_slots {
        sys::register_alloc_range(io.as_raw_fd(), range.start, range.end - range.start)
            .map_err(refused("the range of automatic slots"))?;
    }
    Ok(())
}
