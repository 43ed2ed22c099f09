//! The memory of an arena: one mapping without memory behind it, and the guard pages in it.

use std::io;
use std::ptr::{self, NonNull};

use libc::c_void;

use crate::limits::GUARD_BYTES;

/// `MADV_GUARD_INSTALL` of Linux 6.13: pages that fault when they are touched, without a mapping of their own. Relied on
/// by `a_guard_page_stays_when_its_stack_gives_memory_back` (seen on 6.18).
const MADV_GUARD_INSTALL: i32 = 102;

/// How a page is made untouchable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// `MADV_GUARD_INSTALL`: any number of stacks in one mapping.
    Install,
    /// `mprotect`, on older kernels: each stack takes two mappings of the `vm.max_map_count` (65 530) that a process may
    /// have, so some 32 000 stacks are the most.
    Protect,
}

/// Address space of its own.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<c_void>,
    bytes: usize,
}

impl Mapping {
    pub(crate) fn new(bytes: usize) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK;
        // SAFETY: a new anonymous mapping wherever the kernel likes touches no memory that is in use.
        let base =
            unsafe { libc::mmap(ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base).ok_or(io::ErrorKind::OutOfMemory)?;
        let mapping = Self { base, bytes };
        // One touched page must not make 2 MiB resident. Without huge pages in the kernel it fails, and need not be said.
        let _ = mapping.advise(0, bytes, libc::MADV_NOHUGEPAGE);
        Ok(mapping)
    }

    pub(crate) fn base(&self) -> usize {
        self.base.as_ptr() as usize
    }

    /// What this kernel can do, tried on the page at `at`.
    pub(crate) fn probe(&self, at: usize) -> Guard {
        match self.advise(at, GUARD_BYTES, MADV_GUARD_INSTALL) {
            Ok(()) => Guard::Install,
            Err(_) => Guard::Protect,
        }
    }

    /// Makes the page at `at` fault when it is touched.
    pub(crate) fn guard(&self, at: usize, guard: Guard) -> io::Result<()> {
        match guard {
            Guard::Install => self.advise(at, GUARD_BYTES, MADV_GUARD_INSTALL),
            Guard::Protect => {
                debug_assert!(at + GUARD_BYTES <= self.bytes);
                // SAFETY: the page lies within this mapping, at the end of a stack that is not in use.
                let done =
                    unsafe { libc::mprotect(self.base.as_ptr().byte_add(at), GUARD_BYTES, libc::PROT_NONE) };
                if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
            }
        }
    }

    /// Gives the memory of a range back; it reads as zeros when it is next touched. Guard pages stay.
    pub(crate) fn give_back(&self, at: usize, bytes: usize) {
        // It fails for locked memory only, which is kept then.
        let _ = self.advise(at, bytes, libc::MADV_DONTNEED);
    }

    fn advise(&self, at: usize, bytes: usize, advice: i32) -> io::Result<()> {
        debug_assert!(at + bytes <= self.bytes);
        // SAFETY: the range lies within this mapping; whoever asks for `MADV_DONTNEED` owns the stack in it and has no
        // frame on it.
        let done = unsafe { libc::madvise(self.base.as_ptr().byte_add(at), bytes, advice) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: all stacks hold the arena that owns this, so none is left.
        unsafe { libc::munmap(self.base.as_ptr(), self.bytes) };
    }
}
