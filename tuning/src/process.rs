//! What a process holds and has used, from `/proc/PID`.
//!
//! Memory is RssAnon + RssShmem + VmSwap + HugetlbPages: what the process itself caused. RssFile is left out,
//! because pages of the binary and the rings' own pages (mapped by the kernel, counted there) are in it. Before
//! Linux 6.17 these counters may lag by 64 pages a core; no figure below a MiB means anything there.

use std::fs;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::ReadError;

/// Ticks of `/proc/PID/stat` are 1/100 s: USER_HZ is part of the kernel's interface on x86-64 and aarch64.
const CPU_US_PER_TICK: u64 = 10_000;

/// Bytes that the process holds: RssAnon + RssShmem + VmSwap + HugetlbPages.
pub fn proc_memory(pid: u32) -> Result<u64, ReadError> {
    let path = format!("/proc/{pid}/status");
    memory_of_status(&read(&path)?).ok_or(ReadError::NoSuchField { path, field: "RssAnon" })
}

/// Microseconds of CPU that the process has used, user and system, all threads, in steps of 10 ms.
pub fn proc_cpu_us(pid: u32) -> Result<u64, ReadError> {
    let path = format!("/proc/{pid}/stat");
    cpu_us_of_stat(&read(&path)?).ok_or(ReadError::NoSuchField { path, field: "utime and stime" })
}

/// Raises this process's soft limit of open files to its hard limit and tells it. Each ring's table of direct
/// descriptors is capped by the soft limit at its creation, so this comes first at start.
pub fn raise_descriptor_limit() -> std::io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

fn read(path: &str) -> Result<String, ReadError> {
    fs::read_to_string(path).map_err(|cause| ReadError::Unreadable { path: path.to_owned(), cause })
}

/// `None` when there is no RssAnon: a kernel thread, or a process that has ended. The others may be missing from
/// a kernel that was built without them, and are then nothing.
fn memory_of_status(text: &str) -> Option<u64> {
    let anonymous = kib_field(text, "RssAnon")?;
    let rest: u64 =
        ["RssShmem", "VmSwap", "HugetlbPages"].iter().filter_map(|name| kib_field(text, name)).sum();
    Some((anonymous + rest) * 1024)
}

/// The figure of a line `Name:   123 kB`.
pub(crate) fn kib_field(text: &str, name: &str) -> Option<u64> {
    field(text, name)?.split_ascii_whitespace().next()?.parse().ok()
}

/// What follows `Name:` on its line.
pub(crate) fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

fn cpu_us_of_stat(text: &str) -> Option<u64> {
    // The command's name stands in brackets and may hold brackets and blanks itself: count from the last one.
    let after_name = &text[text.rfind(')')? + 1..];
    let mut fields = after_name.split_ascii_whitespace();
    // Field 3 (state) is the first here; utime is field 14 and stime 15.
    let user: u64 = fields.nth(11)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) * CPU_US_PER_TICK)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tmoorgate\nState:\tS (sleeping)\nVmRSS:\t   61728 kB\nRssAnon:\t   20112 kB\n\
        RssFile:\t    1616 kB\nRssShmem:\t      16 kB\nVmSwap:\t       8 kB\nHugetlbPages:\t    2048 kB\n\
        Threads:\t5\n";

    #[test]
    fn memory_is_what_the_process_caused() {
        assert_eq!(memory_of_status(STATUS), Some((20112 + 16 + 8 + 2048) * 1024));
    }

    #[test]
    fn memory_of_one_that_ended_is_unknown() {
        assert_eq!(memory_of_status("Name:\tmoorgate\nState:\tZ (zombie)\nThreads:\t1\n"), None);
    }

    #[test]
    fn memory_without_huge_pages_or_swap() {
        assert_eq!(memory_of_status("RssAnon:\t 4 kB\nRssShmem:\t 0 kB\n"), Some(4096));
    }

    #[test]
    fn cpu_with_a_name_that_has_brackets_and_blanks() {
        let stat = "4242 (a) R (b c) S 1 4242 4242 0 -1 4194304 105 0 0 0 123 45 7 8 20 0 1 0 240992 3133440";
        assert_eq!(cpu_us_of_stat(stat), Some((123 + 45) * 10_000));
    }

    #[test]
    fn cpu_of_a_cut_line_is_unknown() {
        assert_eq!(cpu_us_of_stat("4242 (moorgate) S 1 4242"), None);
        assert_eq!(cpu_us_of_stat(""), None);
    }

    #[test]
    fn this_process_has_memory_and_a_descriptor_limit() {
        let pid = std::process::id();
        assert!(proc_memory(pid).expect("own memory") > 0);
        proc_cpu_us(pid).expect("own CPU time");
        assert!(raise_descriptor_limit().expect("own limit") > 0);
        assert!(matches!(proc_memory(u32::MAX), Err(ReadError::Unreadable { .. })));
    }
}
