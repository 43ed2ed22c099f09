//! Provided buffers: memory that no idle connection owns. The kernel takes one when bytes have come.

use std::cell::{Cell, UnsafeCell};
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::{io, slice};

use crate::limits;

/// A received buffer. Whoever holds it may read it; give it back with [`BufferRing::recycle`]. One that is
/// dropped instead is lost to the group for the life of the ring.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a buffer that is not recycled is lost to its group"]
pub struct BufferId {
    /// Numbered through all groups of the ring.
    number: u16,
    len: u32,
}

impl BufferId {
    /// How many bytes were received into it.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// A group of equal buffers that receives are given to. Made by [`Ring::buffer_ring`](crate::Ring::buffer_ring).
///
/// It is a value apart from the ring, so that received bytes can be read while requests are queued.
#[derive(Debug)]
pub struct BufferRing {
    group: Rc<Group>,
}

#[derive(Debug, thiserror::Error)]
pub enum BufferRingError {
    #[error("{0} buffers were asked for; the kernel wants a power of two up to {max}", max = limits::BUFFERS_OF_A_GROUP_MAX)]
    Count(u32),
    #[error("a buffer of {0} bytes was asked for; 1 to 2^30 are possible")]
    Size(u32),
    #[error("a ring numbers its buffers in 16 bits: {used} are in use and {asked} more were asked for")]
    TooMany { used: u32, asked: u32 },
    #[error("no memory for {bytes} bytes of buffers")]
    Memory { bytes: usize, source: io::Error },
    #[error(
        "the kernel refused the buffers (with ENOMEM, raise the locked-memory limit: ulimit -l unlimited)"
    )]
    Register { source: io::Error },
}

impl BufferRing {
    pub(crate) fn new(group: Rc<Group>) -> Self {
        Self { group }
    }

    /// The group's number, which receives name.
    pub fn group(&self) -> u16 {
        self.group.id
    }

    /// Bytes of each buffer.
    pub fn buffer_bytes(&self) -> usize {
        self.group.buffer_bytes as usize
    }

    /// How many buffers the kernel has to give. When this is 0, receives end with
    /// [`Errno::NO_BUFFERS`](crate::Errno::NO_BUFFERS); re-arm them after a recycle, not before.
    pub fn available(&self) -> usize {
        self.group.count as usize - self.group.lent_count.get() as usize
    }

    /// The bytes that were received.
    ///
    /// # Panics
    /// If the buffer is not of this ring.
    #[inline]
    pub fn bytes<'a>(&'a self, id: &'a BufferId) -> &'a [u8] {
        let start = self.group.start_of(id);
        // SAFETY: `start_of` has seen that the buffer is of this group and lent: the kernel does not write to
        // it until `recycle`, which needs `&mut self`. `len` is what the kernel said it wrote, cut to the
        // buffer's size in `Group::lend`. Fresh mmap memory is initialised (zero).
        unsafe { slice::from_raw_parts(start.as_ptr(), id.len as usize) }
    }

    /// As [`BufferRing::bytes`], to decrypt or unmask in place.
    #[inline]
    pub fn bytes_mut<'a>(&'a mut self, id: &'a mut BufferId) -> &'a mut [u8] {
        let start = self.group.start_of(id);
        // SAFETY: as in `bytes`; `&mut self` keeps every other slice of this group away.
        unsafe { slice::from_raw_parts_mut(start.as_ptr(), id.len as usize) }
    }

    /// Gives the buffer back to the kernel. No system call.
    ///
    /// # Panics
    /// If the buffer is not of this ring.
    #[inline]
    pub fn recycle(&mut self, id: BufferId) {
        let index = self.group.index_of(&id);
        self.group.lent[index].set(false);
        self.group.lent_count.set(self.group.lent_count.get() - 1);
        self.group.provide(index as u16);
    }
}

/// The memory of a group, shared by the ring (which must outlive the kernel's use of it) and the
/// [`BufferRing`].
#[derive(Debug)]
pub(crate) struct Group {
    pub id: u16,
    /// The number of the first buffer.
    pub base: u16,
    pub count: u16,
    buffer_bytes: u32,
    /// Whether a buffer is with a [`BufferId`], and so not with the kernel.
    lent: Box<[Cell<bool>]>,
    lent_count: Cell<u16>,
    /// What the tail in the shared ring is: only this thread moves it.
    tail: Cell<u16>,
    memory: Mapping,
    ring: Mapping,
}

/// struct io_uring_buf. In entry 0, `tail` is the ring's tail.
#[repr(C)]
struct RingEntry {
    addr: UnsafeCell<u64>,
    len: UnsafeCell<u32>,
    number: UnsafeCell<u16>,
    tail: AtomicU16,
}

const _: () = assert!(size_of::<RingEntry>() == 16);

impl Group {
    pub fn new(id: u16, base: u16, count: u32, buffer_bytes: u32) -> Result<Self, BufferRingError> {
        if !count.is_power_of_two() || count > limits::BUFFERS_OF_A_GROUP_MAX {
            return Err(BufferRingError::Count(count));
        }
        if buffer_bytes == 0 || buffer_bytes > 1 << 30 {
            return Err(BufferRingError::Size(buffer_bytes));
        }
        let bytes = count as usize * buffer_bytes as usize;
        let map = |bytes| Mapping::new(bytes).map_err(|source| BufferRingError::Memory { bytes, source });
        let (memory, ring) = (map(bytes)?, map(count as usize * size_of::<RingEntry>())?);
        let lent = (0..count).map(|_| Cell::new(false)).collect();
        let (lent_count, tail) = (Cell::new(0), Cell::new(0));
        let count = count as u16;
        Ok(Self { id, base, count, buffer_bytes, lent, lent_count, tail, memory, ring })
    }

    /// Where the shared ring of entries lies, for registration.
    pub fn ring_address(&self) -> u64 {
        self.ring.start.as_ptr() as u64
    }

    /// Gives all buffers to the kernel, once, after registration.
    pub fn provide_all(&self) {
        for index in 0..self.count {
            self.provide(index);
        }
    }

    /// Marks the buffer that a completion names as lent. `None` when it is not of this group, or the kernel
    /// named one that it did not have.
    pub fn lend(&self, number: u16, len: u32) -> Option<BufferId> {
        let index = number.checked_sub(self.base)?;
        let lent = self.lent.get(index as usize)?;
        if lent.replace(true) {
            return None;
        }
        self.lent_count.set(self.lent_count.get() + 1);
        Some(BufferId { number, len: len.min(self.buffer_bytes) })
    }

    fn index_of(&self, id: &BufferId) -> usize {
        let index = usize::from(id.number.wrapping_sub(self.base));
        assert!(
            index < self.lent.len() && self.lent[index].get(),
            "buffer {} is not of this ring",
            id.number
        );
        index
    }

    fn start_of(&self, id: &BufferId) -> NonNull<u8> {
        let offset = self.index_of(id) * self.buffer_bytes as usize;
        // SAFETY: `index_of` is below the count, so the offset lies within the mapping of count buffers.
        unsafe { self.memory.start.add(offset) }
    }

    fn provide(&self, index: u16) {
        let tail = self.tail.get();
        let entries = self.ring.start.cast::<RingEntry>();
        let offset = usize::from(index) * self.buffer_bytes as usize;
        // SAFETY: the mapping holds `count` entries and the masked index is below that; it is page-aligned.
        // The kernel reads entries before the tail only, so this one is ours until the store below. Field by
        // field, so that the tail in entry 0 is left alone.
        unsafe {
            let entry = entries.add(usize::from(tail & (self.count - 1))).as_ref();
            *entry.addr.get() = self.memory.start.add(offset).as_ptr() as u64;
            *entry.len.get() = self.buffer_bytes;
            *entry.number.get() = self.base.wrapping_add(index);
        }
        self.tail.set(tail.wrapping_add(1));
        // SAFETY: as above, for entry 0. The kernel reads the tail with acquire.
        unsafe { entries.as_ref() }.tail.store(tail.wrapping_add(1), Ordering::Release);
    }
}

/// Anonymous zeroed memory, page-aligned, never made of huge pages.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

impl Mapping {
    fn new(bytes: usize) -> io::Result<Self> {
        let (read_write, private) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new anonymous mapping, wherever the kernel likes: it touches no memory that exists.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, read_write, private, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // Else the first touch of a sparse pool makes 2 MiB resident. A kernel without huge pages says EINVAL,
        // which is as good.
        // SAFETY: the range is the mapping just made; the advice changes no contents. DONTFORK, so that a
        // child's copy-on-write never moves pages under the kernel's feet.
        unsafe {
            libc::madvise(start, bytes, libc::MADV_NOHUGEPAGE);
            libc::madvise(start, bytes, libc::MADV_DONTFORK);
        }
        let start = NonNull::new(start.cast()).ok_or_else(io::Error::last_os_error)?;
        Ok(Self { start, bytes })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `new` with this length, and nothing borrows from it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_lent_once_and_only_within_its_group() {
        let group = Rc::new(Group::new(0, 100, 4, 64).unwrap());
        group.provide_all();
        let mut ring = BufferRing::new(Rc::clone(&group));
        let id = group.lend(102, 1000).unwrap();
        assert_eq!(id.len(), 64, "a length beyond the buffer is cut");
        assert!(group.lend(102, 1).is_none(), "the kernel cannot give a lent buffer");
        assert!(group.lend(99, 1).is_none() && group.lend(104, 1).is_none());
        assert_eq!((ring.bytes(&id), ring.available()), (&[0; 64][..], 3));
        ring.recycle(id);
        assert_eq!(ring.available(), 4);
        let again = group.lend(102, 1).unwrap();
        assert_eq!(ring.bytes(&again).len(), 1);
    }

    #[test]
    #[should_panic(expected = "not of this ring")]
    fn a_foreign_buffer_is_refused() {
        let (here, there) = (Group::new(0, 0, 4, 64).unwrap(), Group::new(0, 0, 4, 64).unwrap());
        let id = there.lend(1, 1).unwrap();
        BufferRing::new(Rc::new(here)).recycle(id);
    }

    #[test]
    fn counts_that_the_kernel_refuses_are_refused_with_the_reason() {
        assert!(matches!(Group::new(0, 0, 3, 64), Err(BufferRingError::Count(3))));
        assert!(matches!(Group::new(0, 0, 1 << 16, 64), Err(BufferRingError::Count(_))));
        assert!(matches!(Group::new(0, 0, 4, 0), Err(BufferRingError::Size(0))));
    }
}
