//! What the whole machine's memory does, from `/proc/meminfo`.
//!
//! **What the kernel holds** is MemTotal - MemFree - Buffers - Cached - AnonPages - Hugetlb: all that is neither free,
//! nor page cache, nor a process's own. It is the only sum that misses nothing: the rings' memory and socket
//! buffers are in no line of `/proc/meminfo`, and the difference of MemAvailable is too small by about 1 KiB a
//! connection, since the inode and the dentry of a socket are "reclaimable" slabs, counted as available though
//! they are pinned (9 500 loopback connections here: 7 274 B by MemAvailable, 8 319 by this sum, of which Slab 8 030).
//!
//! **A connection's share**: read [`machine_memory`] with a warm-up's connections held and with all held, and
//! divide the difference of `kernel` by the connections between (both ends, when both are on the machine).
//! Processes' own memory does not enter, so nothing need be subtracted. Whatever else the machine does meanwhile
//! does enter (files opened by a compiler leave inodes), and free pages that each core keeps aside are noise of a
//! few MiB: quiet the machine, and compare by 10 000 connections at least.

use std::fs;

use crate::ReadError;
use crate::process::kib_field;

/// The machine's memory at one moment, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MachineMemory {
    pub total: u64,
    pub free: u64,
    /// What new work may take without swapping, as the kernel estimates it.
    pub available: u64,
    /// What the kernel itself holds: see the module's text for the sum.
    pub kernel: u64,
}

impl MachineMemory {
    /// Kernel bytes a connection, `self` being the later reading with `connections` more held than `before`.
    /// `None` when there were none, or when the machine freed more than they took.
    pub fn kernel_bytes_per_connection(&self, before: &MachineMemory, connections: u64) -> Option<u64> {
        self.kernel.checked_sub(before.kernel)?.checked_div(connections)
    }
}

const MEMINFO: &str = "/proc/meminfo";

pub fn machine_memory() -> Result<MachineMemory, ReadError> {
    let text = fs::read_to_string(MEMINFO)
        .map_err(|cause| ReadError::Unreadable { path: MEMINFO.to_owned(), cause })?;
    parse(&text)
}

pub fn machine_memory_available() -> Result<u64, ReadError> {
    Ok(machine_memory()?.available)
}

pub(crate) fn parse(text: &str) -> Result<MachineMemory, ReadError> {
    let must = |field: &'static str| {
        kib_field(text, field)
            .map(|kib| kib * 1024)
            .ok_or(ReadError::NoSuchField { path: MEMINFO.to_owned(), field })
    };
    let total = must("MemTotal")?;
    let free = must("MemFree")?;
    let huge = kib_field(text, "Hugetlb").unwrap_or(0) * 1024;
    let not_kernel = free + must("Buffers")? + must("Cached")? + must("AnonPages")? + huge;
    Ok(MachineMemory {
        total,
        free,
        available: must("MemAvailable")?,
        // The lines are not read at one instant; on an idle machine the sum may pass the total by a few pages.
        kernel: total.saturating_sub(not_kernel),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: &str = "MemTotal:       24684084 kB\nMemFree:        24485844 kB\nMemAvailable:   24427604 kB\n\
        Buffers:            1144 kB\nCached:            84896 kB\nSwapCached:            0 kB\n\
        AnonPages:          8772 kB\nSlab:              66356 kB\nHugetlb:            2048 kB\n";

    #[test]
    fn kernel_is_what_nobody_else_holds() {
        let memory = parse(IDLE).expect("a recorded text");
        assert_eq!(memory.available, 24_427_604 * 1024);
        assert_eq!(memory.kernel, (24_684_084 - 24_485_844 - 1144 - 84_896 - 8772 - 2048) * 1024);
    }

    #[test]
    fn a_missing_line_is_named() {
        let told = parse("MemTotal: 5 kB\nMemFree: 4 kB\n").expect_err("no Buffers").to_string();
        assert!(told.contains("Buffers"), "{told}");
    }

    #[test]
    fn a_connections_share() {
        let before = parse(IDLE).expect("a recorded text");
        let after = MachineMemory { kernel: before.kernel + 100_000 * 7_700, ..before };
        assert_eq!(after.kernel_bytes_per_connection(&before, 100_000), Some(7_700));
        assert_eq!(before.kernel_bytes_per_connection(&after, 100_000), None);
        assert_eq!(after.kernel_bytes_per_connection(&before, 0), None);
    }

    #[test]
    fn this_machine_has_memory() {
        let memory = machine_memory().expect("/proc/meminfo");
        assert!(memory.kernel > 0 && memory.kernel < memory.total);
        assert!(machine_memory_available().expect("/proc/meminfo") <= memory.total);
    }
}
