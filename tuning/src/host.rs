//! The facts of a host, read from `/proc` and `/sys`. A container may hide any of them: then it is `None`, and no
//! check that needs it says anything.

use std::fs;

use crate::process::field;
use crate::{limits, machine};

/// Bits of `CapEff` that the checks ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cap {
    /// Memory may be locked beyond RLIMIT_MEMLOCK.
    IpcLock = 14,
    /// io_uring is allowed though switched off for others; `fs.file-max` does not bind.
    SysAdmin = 21,
    /// Hard limits may be raised.
    SysResource = 24,
}

/// Ports from `low` to `high`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    pub low: u16,
    pub high: u16,
}

impl PortRange {
    pub fn contains(&self, port: u16) -> bool {
        (self.low..=self.high).contains(&port)
    }

    pub fn ports(&self) -> u64 {
        (u64::from(self.high) + 1).saturating_sub(u64::from(self.low))
    }
}

/// `net.ipv4.tcp_mem` in pages, and how many are in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpPages {
    pub pressure: u64,
    pub max: u64,
    pub used: u64,
}

/// The connection tracker's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conntrack {
    pub max: u64,
    pub used: u64,
}

/// What is known of this host, of this process's limits and of its rights.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    /// That this process may run on.
    pub cores: Option<u64>,
    pub kernel: Option<(u32, u32)>,
    /// RLIMIT_NOFILE; `u64::MAX` is unlimited.
    pub descriptors_soft: Option<u64>,
    pub descriptors_hard: Option<u64>,
    /// `fs.nr_open`: no limit can be raised beyond.
    pub descriptors_ceiling: Option<u64>,
    /// Open files of the whole machine, and `fs.file-max`.
    pub files_open: Option<u64>,
    pub files_max: Option<u64>,
    /// RLIMIT_MEMLOCK; `u64::MAX` is unlimited.
    pub locked_bytes_soft: Option<u64>,
    /// `CapEff` of this process.
    pub capabilities: Option<u64>,
    /// All groups of this process.
    pub groups: Option<Vec<u32>>,
    /// A seccomp filter is on this process.
    pub seccomp_filtered: Option<bool>,
    pub local_ports: Option<PortRange>,
    /// Ports of that range which the kernel never hands out by itself.
    pub reserved_ports: Option<Vec<PortRange>>,
    pub tcp_pages: Option<TcpPages>,
    /// `None` where the tracker is not loaded.
    pub conntrack: Option<Conntrack>,
    /// `net.core.somaxconn`: listen() cuts its queue to it.
    pub accept_queue_max: Option<u64>,
    pub memory_available: Option<u64>,
    /// What the tightest memory cgroup above this process leaves.
    pub cgroup_memory_left: Option<u64>,
    /// `kernel.io_uring_disabled`: 0 on, 1 for the privileged and its group only, 2 off.
    pub io_uring_disabled: Option<u8>,
    pub io_uring_group: Option<u32>,
    /// `/proc/sys/kernel` can be read, so a missing entry is missing from the kernel.
    pub kernel_sysctls_visible: bool,
}

impl Host {
    /// Reads this host. Never fails: what cannot be read is `None`.
    pub fn read() -> Host {
        let cores = std::thread::available_parallelism().ok().map(|n| n.get() as u64);
        Host { cores, ..Host::read_through(&|path| fs::read_to_string(path).ok()) }
    }

    /// Whether the process has the right; one that cannot be told counts as absent.
    pub fn may(&self, cap: Cap) -> bool {
        self.capabilities.is_some_and(|bits| bits >> (cap as u32) & 1 == 1)
    }

    pub fn is_reserved(&self, port: u16) -> bool {
        self.reserved_ports.iter().flatten().any(|range| range.contains(port))
    }

    fn read_through(read: &dyn Fn(&str) -> Option<String>) -> Host {
        let number = |path: &str| read(path)?.trim().parse::<u64>().ok();
        let limits_text = read("/proc/self/limits").unwrap_or_default();
        let status = read("/proc/self/status").unwrap_or_default();
        let files = read("/proc/sys/fs/file-nr").unwrap_or_default();
        let mut files = files.split_ascii_whitespace().map(|word| word.parse::<u64>().ok());
        let nofile = limit(&limits_text, "Max open files");
        let release = read("/proc/sys/kernel/osrelease");
        Host {
            cores: None,
            kernel: release.as_deref().and_then(kernel_version),
            descriptors_soft: nofile.map(|(soft, _)| soft),
            descriptors_hard: nofile.map(|(_, hard)| hard),
            descriptors_ceiling: number("/proc/sys/fs/nr_open"),
            files_open: files.next().flatten(),
            files_max: files.nth(1).flatten(),
            locked_bytes_soft: limit(&limits_text, "Max locked memory").map(|(soft, _)| soft),
            capabilities: field(&status, "CapEff").and_then(|hex| u64::from_str_radix(hex, 16).ok()),
            groups: groups(&status),
            seccomp_filtered: field(&status, "Seccomp").map(|mode| mode == "2"),
            local_ports: read("/proc/sys/net/ipv4/ip_local_port_range").and_then(|text| port_pair(&text)),
            reserved_ports: read("/proc/sys/net/ipv4/ip_local_reserved_ports").map(|text| port_list(&text)),
            tcp_pages: tcp_pages(read),
            conntrack: conntrack(&number),
            accept_queue_max: number("/proc/sys/net/core/somaxconn"),
            memory_available: read("/proc/meminfo")
                .and_then(|text| machine::parse(&text).ok())
                .map(|memory| memory.available),
            cgroup_memory_left: cgroup_memory_left(read),
            io_uring_disabled: number("/proc/sys/kernel/io_uring_disabled").and_then(|n| n.try_into().ok()),
            // -1 is "no group", and does not parse.
            io_uring_group: number("/proc/sys/kernel/io_uring_group").and_then(|n| n.try_into().ok()),
            kernel_sysctls_visible: release.is_some(),
        }
    }
}

/// Soft and hard figure of a line of `/proc/PID/limits`.
fn limit(text: &str, name: &str) -> Option<(u64, u64)> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let mut words = line.split_ascii_whitespace().map(|word| match word {
        "unlimited" => Some(u64::MAX),
        figure => figure.parse().ok(),
    });
    Some((words.next()??, words.next()??))
}

/// `6.18.44-fc` is (6, 18).
fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Effective group and supplementary ones.
fn groups(status: &str) -> Option<Vec<u32>> {
    let effective = field(status, "Gid")?.split_ascii_whitespace().nth(1)?.parse().ok()?;
    let others = field(status, "Groups").unwrap_or_default();
    let others = others.split_ascii_whitespace().filter_map(|word| word.parse().ok());
    Some(std::iter::once(effective).chain(others).collect())
}

fn port_pair(text: &str) -> Option<PortRange> {
    let mut words = text.split_ascii_whitespace();
    Some(PortRange { low: words.next()?.parse().ok()?, high: words.next()?.parse().ok()? })
}

/// `80,7000-7009`.
fn port_list(text: &str) -> Vec<PortRange> {
    let one = |item: &str| {
        let (low, high) = item.split_once('-').unwrap_or((item, item));
        Some(PortRange { low: low.trim().parse().ok()?, high: high.trim().parse().ok()? })
    };
    text.trim().split(',').filter_map(one).collect()
}

fn tcp_pages(read: &dyn Fn(&str) -> Option<String>) -> Option<TcpPages> {
    let text = read("/proc/sys/net/ipv4/tcp_mem")?;
    let mut words = text.split_ascii_whitespace().map(|word| word.parse::<u64>().ok());
    let (_, pressure, max) = (words.next()??, words.next()??, words.next()??);
    let stat = read("/proc/net/sockstat").unwrap_or_default();
    let used = field(&stat, "TCP")
        .and_then(|line| line.split_ascii_whitespace().skip_while(|word| *word != "mem").nth(1))
        .and_then(|word| word.parse().ok())
        .unwrap_or(0);
    Some(TcpPages { pressure, max, used })
}

fn conntrack(number: &dyn Fn(&str) -> Option<u64>) -> Option<Conntrack> {
    Some(Conntrack {
        max: number("/proc/sys/net/netfilter/nf_conntrack_max")?,
        used: number("/proc/sys/net/netfilter/nf_conntrack_count")?,
    })
}

/// The smallest room in any memory cgroup from this process's up to the root, in either version of cgroups.
fn cgroup_memory_left(read: &dyn Fn(&str) -> Option<String>) -> Option<u64> {
    let own = read("/proc/self/cgroup")?;
    let mut least: Option<u64> = None;
    for line in own.lines() {
        // `0::/path` is version 2; `4:memory:/path` the memory hierarchy of version 1.
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (mount, limit_file, used_file, cache) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
            "memory" => (
                "/sys/fs/cgroup/memory",
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_inactive_file",
            ),
            _ => continue,
        };
        // In a container with a cgroup namespace the path is "/", and so is what is mounted.
        let mut path = path.trim_end_matches('/');
        for _ in 0..limits::CGROUP_LEVELS_MAX {
            let figure = |file: &str| read(&format!("{mount}{path}/{file}"))?.trim().parse::<u64>().ok();
            if let (Some(max), Some(used)) = (figure(limit_file), figure(used_file)) {
                let stat = read(&format!("{mount}{path}/memory.stat")).unwrap_or_default();
                let left = max.saturating_sub(used.saturating_sub(stat_figure(&stat, cache)));
                least = Some(least.map_or(left, |least| least.min(left)));
            }
            let Some(parent) = path.rfind('/') else { break };
            path = &path[..parent];
        }
    }
    least
}

/// The figure of a line `name 123` of a cgroup's `memory.stat`.
fn stat_figure(stat: &str, name: &str) -> u64 {
    stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIXTURE: &[(&str, &str)] = &[
        (
            "/proc/self/limits",
            "Limit                     Soft Limit           Hard Limit           Units     \n\
             Max cpu time              unlimited            unlimited            seconds   \n\
             Max open files            1024                 20000                files     \n\
             Max locked memory         8388608              unlimited            bytes     \n",
        ),
        (
            "/proc/self/status",
            "Name:\tcat\nGid:\t100\t101\t100\t100\nGroups:\t4 27 \nCapEff:\t000001fffeffffff\nSeccomp:\t2\n\
             Seccomp_filters:\t1\n",
        ),
        ("/proc/sys/fs/nr_open", "1048576\n"),
        ("/proc/sys/fs/file-nr", "379\t0\t2466170\n"),
        ("/proc/sys/kernel/osrelease", "6.18.44-fc-v669\n"),
        ("/proc/sys/kernel/io_uring_disabled", "1\n"),
        ("/proc/sys/kernel/io_uring_group", "-1\n"),
        ("/proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
        ("/proc/sys/net/ipv4/ip_local_reserved_ports", "7000,40000-40009\n"),
        ("/proc/sys/net/ipv4/tcp_mem", "287898\t383867\t575796\n"),
        (
            "/proc/net/sockstat",
            "sockets: used 11\nTCP: inuse 1 orphan 0 tw 0 alloc 1 mem 242\nUDP: inuse 0 mem 7\n",
        ),
        ("/proc/sys/net/netfilter/nf_conntrack_max", "262144\n"),
        ("/proc/sys/net/netfilter/nf_conntrack_count", "12\n"),
        ("/proc/sys/net/core/somaxconn", "4096\n"),
        (
            "/proc/meminfo",
            "MemTotal: 900 kB\nMemFree: 500 kB\nMemAvailable: 700 kB\nBuffers: 1 kB\nCached: 2 kB\nAnonPages: 3 kB\n",
        ),
        ("/proc/self/cgroup", "4:memory:/box/inner\n1:cpu:/\n0::/\n"),
        ("/sys/fs/cgroup/memory/box/inner/memory.limit_in_bytes", "9223372036854771712\n"),
        ("/sys/fs/cgroup/memory/box/inner/memory.usage_in_bytes", "1000\n"),
        ("/sys/fs/cgroup/memory/box/memory.limit_in_bytes", "10000\n"),
        ("/sys/fs/cgroup/memory/box/memory.usage_in_bytes", "8000\n"),
        ("/sys/fs/cgroup/memory/box/memory.stat", "inactive_file 1\ntotal_inactive_file 3000\n"),
    ];

    fn recorded(path: &str) -> Option<String> {
        FIXTURE.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).to_owned())
    }

    #[test]
    fn every_fact_of_a_recorded_host() {
        let host = Host::read_through(&recorded);
        assert_eq!(
            host,
            Host {
                cores: None,
                kernel: Some((6, 18)),
                descriptors_soft: Some(1024),
                descriptors_hard: Some(20_000),
                descriptors_ceiling: Some(1 << 20),
                files_open: Some(379),
                files_max: Some(2_466_170),
                locked_bytes_soft: Some(8 << 20),
                capabilities: Some(0x1ff_feff_ffff),
                groups: Some(vec![101, 4, 27]),
                seccomp_filtered: Some(true),
                local_ports: Some(PortRange { low: 32_768, high: 60_999 }),
                reserved_ports: Some(vec![
                    PortRange { low: 7000, high: 7000 },
                    PortRange { low: 40_000, high: 40_009 }
                ]),
                tcp_pages: Some(TcpPages { pressure: 383_867, max: 575_796, used: 242 }),
                conntrack: Some(Conntrack { max: 262_144, used: 12 }),
                accept_queue_max: Some(4096),
                memory_available: Some(700 * 1024),
                cgroup_memory_left: Some(10_000 - (8000 - 3000)),
                io_uring_disabled: Some(1),
                io_uring_group: None,
                kernel_sysctls_visible: true,
            }
        );
        assert!(host.may(Cap::SysAdmin) && host.may(Cap::IpcLock) && !host.may(Cap::SysResource));
        assert!(host.is_reserved(40_005) && !host.is_reserved(40_010));
    }

    #[test]
    fn a_host_that_hides_everything_has_no_facts() {
        assert_eq!(Host::read_through(&|_| None), Host::default());
    }

    #[test]
    fn garbage_is_no_fact() {
        assert_eq!(
            Host::read_through(&|_| Some("\u{1f}?: x,\n-".into())),
            Host { reserved_ports: Some(vec![]), kernel_sysctls_visible: true, ..Host::default() }
        );
    }

    #[test]
    fn cgroup_version_2_takes_the_tightest_level() {
        let read = |path: &str| {
            let text = match path {
                "/proc/self/cgroup" => "0::/a/b\n",
                "/sys/fs/cgroup/a/b/memory.max" => "max\n",
                "/sys/fs/cgroup/a/b/memory.current" => "70\n",
                "/sys/fs/cgroup/a/memory.max" => "100\n",
                "/sys/fs/cgroup/a/memory.current" => "70\n",
                "/sys/fs/cgroup/a/memory.stat" => "file 60\ninactive_file 20\n",
                _ => return None,
            };
            Some(text.to_owned())
        };
        assert_eq!(cgroup_memory_left(&read), Some(50));
    }

    #[test]
    fn this_host_tells_its_limits() {
        let host = Host::read();
        assert!(host.cores.is_some_and(|cores| cores > 0));
        assert!(host.descriptors_soft.is_some_and(|soft| soft > 0));
        assert!(host.memory_available.is_some_and(|bytes| bytes > 0));
    }
}
