//! The kernel's own structures and the system calls that the io-uring crate does not offer in the form
//! needed here: enter through a registered ring descriptor that outlives one `Submitter`, the range of
//! automatic slots, and messages from a thread without a ring.

use std::ffi::c_void;
use std::io;
use std::os::fd::RawFd;

use io_uring::squeue;

pub const ENTER_GETEVENTS: u32 = 1;
pub const ENTER_EXT_ARG: u32 = 1 << 3;
pub const ENTER_REGISTERED_RING: u32 = 1 << 4;

const REGISTER_RING_FDS: u32 = 20;
const UNREGISTER_RING_FDS: u32 = 21;
const REGISTER_FILE_ALLOC_RANGE: u32 = 25;
const REGISTER_SEND_MSG_RING: u32 = 31;

pub const OP_URING_CMD: u8 = 46;
pub const OP_MSG_RING: u8 = 40;
pub const SOCKET_URING_OP_GETSOCKOPT: u32 = 2;
pub const SOCKET_URING_OP_SETSOCKOPT: u32 = 3;
const SQE_FIXED_FILE: u8 = 1;

/// struct io_uring_getevents_arg
#[repr(C)]
#[derive(Default)]
pub struct GeteventsArg {
    pub sigmask: u64,
    pub sigmask_bytes: u32,
    pub min_wait_us: u32,
    pub timespec: u64,
}

/// struct __kernel_timespec
#[repr(C)]
#[derive(Default)]
pub struct KernelTimespec {
    pub seconds: i64,
    pub nanoseconds: i64,
}

/// struct io_uring_sqe, for the operations that the io-uring crate cannot build.
#[repr(C)]
#[derive(Default)]
pub struct RawSqe {
    pub opcode: u8,
    pub flags: u8,
    pub ioprio: u16,
    pub fd: i32,
    pub off: u64,
    pub addr: u64,
    pub len: u32,
    pub op_flags: u32,
    pub user_data: u64,
    pub buf_index: u16,
    pub personality: u16,
    pub file_index: u32,
    pub addr3: u64,
    pub pad: u64,
}

const _: () = assert!(size_of::<RawSqe>() == 64 && size_of::<squeue::Entry>() == 64);
const _: () = assert!(align_of::<RawSqe>() == align_of::<squeue::Entry>());

impl RawSqe {
    /// A socket command on a direct descriptor: its level, name, value and length.
    pub fn socket_option(slot: u32, command: u32, level: i32, name: i32, value: u64, len: u32) -> Self {
        Self {
            opcode: OP_URING_CMD,
            flags: SQE_FIXED_FILE,
            fd: slot as i32,
            off: u64::from(command),
            // level and optname share the address field: level in the low half.
            addr: u64::from(level as u32) | u64::from(name as u32) << 32,
            file_index: len,
            addr3: value,
            ..Self::default()
        }
    }

    pub fn into_entry(self) -> squeue::Entry {
        // SAFETY: `Entry` is a repr(C) wrapper around the kernel's 64-byte io_uring_sqe, which `RawSqe` lays
        // out field by field; sizes and alignments are asserted equal above, and every bit pattern is valid.
        unsafe { std::mem::transmute(self) }
    }
}

/// struct io_uring_rsrc_update
#[repr(C)]
struct RsrcUpdate {
    offset: u32,
    resv: u32,
    data: u64,
}

/// Registers the ring's descriptor with the calling thread and gives its index.
pub fn register_ring_fd(ring: RawFd) -> io::Result<u32> {
    let mut update = RsrcUpdate { offset: u32::MAX, resv: 0, data: ring as u64 };
    // SAFETY: `update` is one valid io_uring_rsrc_update that outlives the call, as nr_args says.
    unsafe { register(ring, REGISTER_RING_FDS, (&raw mut update).cast(), 1)? };
    Ok(update.offset)
}

pub fn unregister_ring_fd(ring: RawFd, index: u32) -> io::Result<()> {
    let mut update = RsrcUpdate { offset: index, resv: 0, data: 0 };
    // SAFETY: `update` is one valid io_uring_rsrc_update that outlives the call, as nr_args says.
    unsafe { register(ring, UNREGISTER_RING_FDS, (&raw mut update).cast(), 1) }.map(drop)
}

/// Restricts automatic slots to `len` slots from `start`.
pub fn register_alloc_range(ring: RawFd, start: u32, len: u32) -> io::Result<()> {
    #[repr(C)]
    struct FileIndexRange {
        off: u32,
        len: u32,
        resv: u64,
    }
    let mut range = FileIndexRange { off: start, len, resv: 0 };
    // SAFETY: the kernel reads one io_uring_file_index_range that outlives the call; nr_args must be 0.
    unsafe { register(ring, REGISTER_FILE_ALLOC_RANGE, (&raw mut range).cast(), 0) }.map(drop)
}

/// Sends one MSG_RING submission without a ring of one's own (Linux 6.13).
pub fn send_msg_ring(mut sqe: RawSqe) -> io::Result<()> {
    // SAFETY: the kernel reads one io_uring_sqe that outlives the call, as nr_args says; MSG_RING with data
    // names no memory of ours.
    unsafe { register(-1, REGISTER_SEND_MSG_RING, (&raw mut sqe).cast(), 1) }.map(drop)
}

/// # Safety
/// `arg` must be what the opcode wants, valid for `nr_args` items until the call returns.
unsafe fn register(ring: RawFd, opcode: u32, arg: *mut c_void, nr_args: u32) -> io::Result<i32> {
    // SAFETY: the caller answers for `arg`; the other arguments are plain numbers.
    let result = unsafe { libc::syscall(libc::SYS_io_uring_register, ring, opcode, arg, nr_args) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

/// io_uring_enter. Gives the number of submissions that the kernel took.
pub fn enter(
    ring: i32,
    to_submit: u32,
    min_complete: u32,
    flags: u32,
    arg: Option<&GeteventsArg>,
) -> Result<u32, i32> {
    let (pointer, bytes) = match arg {
        Some(arg) => (std::ptr::from_ref(arg).cast::<c_void>(), size_of::<GeteventsArg>()),
        None => (std::ptr::null(), 0),
    };
    // SAFETY: `pointer` is null or a GeteventsArg that outlives the call, with its true size. Memory named
    // by the submissions themselves is the affair of whoever queued them (see `Ring::push`).
    let result = unsafe {
        libc::syscall(libc::SYS_io_uring_enter, ring, to_submit, min_complete, flags, pointer, bytes)
    };
    if result < 0 {
        Err(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
    } else {
        Ok(result as u32)
    }
}
