//! The checks: facts of a host against a need. A fact that is not known says nothing.

use crate::finding::{Finding, Severity, bytes, count};
use crate::host::{Cap, Host, PortRange};
use crate::limits;
use crate::need::Need;

/// What will not fit, or only just, the worst first.
pub fn check(host: &Host, need: &Need) -> Vec<Finding> {
    let checks = [
        io_uring,
        descriptors,
        open_files,
        memory,
        cgroup_memory,
        locked_memory,
        ports,
        listen_port,
        tcp_memory,
        conntrack,
        accept_queue,
    ];
    let mut findings: Vec<Finding> = checks.iter().filter_map(|check| check(host, need)).collect();
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings
}

/// Rings that `connections` take: one a core, and more where the limit of open files (`descriptors`) caps each
/// ring's table. Never 0.
pub fn shards_for(connections: u64, cores: u64, descriptors: u64) -> u64 {
    let table = descriptors.clamp(1, limits::DIRECT_TABLE_MAX);
    let with_room = u128::from(connections) * u128::from(limits::SHARD_ROOM_PERCENT);
    let by_table = with_room.div_ceil(100 * u128::from(table));
    u64::try_from(by_table).unwrap_or(u64::MAX).max(cores).max(1)
}

/// Source addresses that `connections` to one port take, each with the local ports of `range`.
pub fn source_addresses_for(connections: u64, range: PortRange) -> u64 {
    connections.div_ceil(range.ports().max(1)).max(1)
}

fn io_uring(host: &Host, _need: &Need) -> Option<Finding> {
    let finding = |severity, what: &str, have: String, mend: &str| {
        let need = "io_uring allowed for this process".to_owned();
        Some(Finding { severity, what: what.to_owned(), have, need, mend: mend.to_owned() })
    };
    let switch_on = "sysctl -w kernel.io_uring_disabled=0";
    match host.io_uring_disabled {
        Some(2..) => {
            let what = "io_uring is switched off on this host, and every connection lives in a ring";
            finding(Severity::Fatal, what, "kernel.io_uring_disabled = 2".into(), switch_on)
        }
        Some(1) if !host.may(Cap::SysAdmin) && !in_io_uring_group(host) => {
            let what = "io_uring is kept for the privileged and its group, and this process is neither";
            finding(Severity::Fatal, what, "kernel.io_uring_disabled = 1".into(), switch_on)
        }
        None if host.kernel_sysctls_visible && host.kernel >= Some(limits::IO_URING_SYSCTL_KERNEL) => {
            let what = "this kernel seems to be built without io_uring";
            let have = "no kernel.io_uring_disabled".into();
            finding(Severity::Warning, what, have, "run a kernel with CONFIG_IO_URING=y")
        }
        _ if host.seccomp_filtered == Some(true) => {
            let what = "a seccomp filter is on this process; those of container runtimes forbid io_uring";
            let mend = "if the ring cannot be made: docker run --security-opt seccomp=unconfined ...";
            finding(Severity::Note, what, "Seccomp: 2".into(), mend)
        }
        _ => None,
    }
}

fn in_io_uring_group(host: &Host) -> bool {
    host.io_uring_group.is_some_and(|group| host.groups.iter().flatten().any(|own| *own == group))
}

fn descriptors(host: &Host, need: &Need) -> Option<Finding> {
    let soft = host.descriptors_soft?;
    let cores = host.cores.unwrap_or(1);
    let shards = shards_for(need.connections, cores, soft);
    // What lets one ring a core do: its even share, with the same room.
    let share = need.connections.saturating_mul(limits::SHARD_ROOM_PERCENT).div_ceil(100 * cores.max(1));
    let wanted = share.clamp(limits::DESCRIPTORS_MIN, limits::DIRECT_TABLE_MAX);
    let severity = match () {
        () if soft < limits::DESCRIPTORS_MIN || shards > limits::SHARDS_MAX => Severity::Fatal,
        () if shards > cores && soft < wanted => Severity::Note,
        () => return None,
    };
    Some(Finding {
        severity,
        what: format!(
            "the limit of open files caps each ring's table: {} connections take {} rings on {} cores",
            count(need.connections),
            count(shards),
            count(cores)
        ),
        have: format!("{} descriptors", count(soft)),
        need: format!(
            "{} for one ring a core (at most {} rings are made)",
            count(wanted),
            limits::SHARDS_MAX
        ),
        mend: raise_descriptors(host, wanted),
    })
}

fn raise_descriptors(host: &Host, wanted: u64) -> String {
    let raise = if host.descriptors_hard.is_some_and(|hard| wanted <= hard) || host.may(Cap::SysResource) {
        format!("ulimit -n {wanted}")
    } else {
        format!(
            "prlimit --pid $$ --nofile={wanted}:{wanted} by root with CAP_SYS_RESOURCE, or LimitNOFILE={wanted} in the unit"
        )
    };
    match host.descriptors_ceiling {
        Some(ceiling) if ceiling < wanted => format!("sysctl -w fs.nr_open={wanted}; {raise}"),
        _ => raise,
    }
}

fn open_files(host: &Host, need: &Need) -> Option<Finding> {
    let (open, max) = (host.files_open?, host.files_max?);
    let wanted = open.saturating_add(need.connections.saturating_mul(need.role.ends()));
    if wanted <= max || host.may(Cap::SysAdmin) {
        return None;
    }
    Some(Finding {
        severity: Severity::Fatal,
        what: "open files of the whole machine: every connection is one, direct descriptor or not".to_owned(),
        have: format!("fs.file-max = {}, of which {} are open", count(max), count(open)),
        need: count(wanted),
        mend: format!("sysctl -w fs.file-max={}", wanted + wanted / 4),
    })
}

/// All that the run will take, processes and kernel.
fn memory_needed(host: &Host, need: &Need) -> u64 {
    let each = need.kernel_bytes_per_connection.saturating_add(need.user_bytes_per_connection);
    let soft = host.descriptors_soft.unwrap_or(limits::DIRECT_TABLE_MAX);
    let shards = shards_for(need.connections, host.cores.unwrap_or(1), soft).min(limits::SHARDS_MAX);
    let rings = (shards * need.role.ends()).saturating_mul(limits::SHARD_BYTES);
    need.connections.saturating_mul(each).saturating_add(rings).saturating_add(need.registered_bytes)
}

/// How `wanted` sits in `have`: `None` when there is room.
fn tightness(wanted: u64, have: u64) -> Option<Severity> {
    let tight = u128::from(wanted) * 100 > u128::from(have) * u128::from(limits::TIGHT_PERCENT);
    match () {
        () if wanted > have => Some(Severity::Fatal),
        () if tight => Some(Severity::Warning),
        () => None,
    }
}

fn memory_finding(host: &Host, need: &Need, have: u64, whose: &str, mend: &str) -> Option<Finding> {
    let wanted = memory_needed(host, need);
    let severity = tightness(wanted, have)?;
    let each = need.kernel_bytes_per_connection + need.user_bytes_per_connection;
    let roomy = u128::from(have) * u128::from(need.connections) * u128::from(limits::TIGHT_PERCENT)
        / (100 * u128::from(wanted.max(1)));
    Some(Finding {
        severity,
        what: format!(
            "memory{whose} for {} connections of {each} bytes each ({} of them the kernel's)",
            count(need.connections),
            need.kernel_bytes_per_connection
        ),
        have: bytes(have),
        need: bytes(wanted),
        mend: format!("{mend}; {} connections have room", count(roomy as u64)),
    })
}

fn memory(host: &Host, need: &Need) -> Option<Finding> {
    memory_finding(
        host,
        need,
        host.memory_available?,
        "",
        "free memory (ps aux --sort=-rss | head), or add some",
    )
}

fn cgroup_memory(host: &Host, need: &Need) -> Option<Finding> {
    let mend = "raise the limit: MemoryMax= in the unit, docker run --memory, or memory.max of the cgroup";
    memory_finding(host, need, host.cgroup_memory_left?, " that this process's cgroup allows", mend)
}

fn locked_memory(host: &Host, need: &Need) -> Option<Finding> {
    let soft = host.locked_bytes_soft?;
    let rings = match host.kernel {
        Some(kernel) if kernel < limits::RING_UNLOCKED_KERNEL => {
            let descriptors = host.descriptors_soft.unwrap_or(limits::DIRECT_TABLE_MAX);
            let shards = shards_for(need.connections, host.cores.unwrap_or(1), descriptors);
            shards.saturating_mul(limits::RING_LOCKED_BYTES)
        }
        _ => 0,
    };
    let wanted = need.registered_bytes.saturating_add(rings);
    if wanted <= soft || host.may(Cap::IpcLock) {
        return None;
    }
    Some(Finding {
        severity: Severity::Fatal,
        what: "locked memory: what is registered with a ring counts, and beyond the limit it is refused"
            .to_owned(),
        have: format!("RLIMIT_MEMLOCK {}", bytes(soft)),
        need: bytes(wanted),
        mend: format!("ulimit -l {}, or LimitMEMLOCK={wanted} in the unit", wanted.div_ceil(1024)),
    })
}

fn ports(host: &Host, need: &Need) -> Option<Finding> {
    let range = host.local_ports?;
    if !need.role.connects() {
        return None;
    }
    let addresses = u64::from(need.source_addresses.max(1));
    let reserved: u64 = host.reserved_ports.iter().flatten().map(|taken| overlap(range, *taken)).sum();
    let each = range.ports().saturating_sub(reserved);
    let severity = tightness(need.connections, each.saturating_mul(addresses))?;
    let (low, high) = limits::LOCAL_PORTS_WIDEST;
    let widest = PortRange { low, high };
    let mend = if tightness(need.connections, widest.ports().saturating_mul(addresses)).is_none() {
        format!("sysctl -w net.ipv4.ip_local_port_range='{low} {high}'")
    } else {
        let with_room = need.connections.saturating_mul(100).div_ceil(limits::TIGHT_PERCENT);
        let wanted = source_addresses_for(with_room, range);
        format!(
            "connect from {} source addresses (127.1.x.1 on loopback, else ip address add ADDRESS dev DEVICE)",
            count(wanted)
        )
    };
    Some(Finding {
        severity,
        what: "local ports of the phones' side: a source address has each port once for one listener"
            .to_owned(),
        have: format!("{} ports on each of {} source addresses", count(each), count(addresses)),
        need: format!("{} connections, and a fifth of the ports free", count(need.connections)),
        mend,
    })
}

fn overlap(a: PortRange, b: PortRange) -> u64 {
    PortRange { low: a.low.max(b.low), high: a.high.min(b.high) }.ports()
}

fn listen_port(host: &Host, need: &Need) -> Option<Finding> {
    let range = host.local_ports?;
    let port = need.listen_port.filter(|port| *port != 0)?;
    if !need.role.serves() || !range.contains(port) || host.is_reserved(port) {
        return None;
    }
    let kept: Vec<String> =
        host.reserved_ports.iter().flatten().map(|kept| format!("{}-{}", kept.low, kept.high)).collect();
    let list = kept.into_iter().chain([port.to_string()]).collect::<Vec<_>>().join(",");
    Some(Finding {
        severity: Severity::Warning,
        what: format!(
            "the listening port {port} is one that the kernel hands to outgoing connections; one of them \
             may hold it at the next start (address in use)"
        ),
        have: format!("net.ipv4.ip_local_port_range = {} {}", range.low, range.high),
        need: "a listening port outside, or kept back".to_owned(),
        mend: format!("sysctl -w net.ipv4.ip_local_reserved_ports={list}"),
    })
}

fn tcp_memory(host: &Host, need: &Need) -> Option<Finding> {
    let pages = host.tcp_pages?;
    let wanted = pages.used.saturating_add(need.connections.saturating_mul(need.role.ends()));
    if wanted <= pages.pressure {
        return None;
    }
    Some(Finding {
        severity: Severity::Warning,
        what: "TCP's memory when every connection has something queued at once, as in a storm: it is counted in \
               pages, and beyond the mark the kernel shrinks windows and drops"
            .to_owned(),
        have: format!("pressure at {} pages, end at {}", count(pages.pressure), count(pages.max)),
        need: format!("{} pages ({})", count(wanted), bytes(wanted.saturating_mul(limits::PAGE_BYTES))),
        mend: format!("sysctl -w net.ipv4.tcp_mem='{wanted} {} {}'", wanted + wanted / 4, wanted + wanted / 2),
    })
}

fn conntrack(host: &Host, need: &Need) -> Option<Finding> {
    let table = host.conntrack?;
    let wanted = table.used.saturating_add(need.connections);
    if wanted <= table.max {
        return None;
    }
    // Loaded and empty is no tracking yet: its hooks come with the first rule that needs them.
    let severity = if table.used > 0 { Severity::Fatal } else { Severity::Note };
    Some(Finding {
        severity,
        what: "the connection tracker: when its table is full, new connections are dropped".to_owned(),
        have: format!("nf_conntrack_max = {}, of which {} are used", count(table.max), count(table.used)),
        need: count(wanted),
        mend: format!("sysctl -w net.netfilter.nf_conntrack_max={}", wanted + wanted / 4),
    })
}

fn accept_queue(host: &Host, need: &Need) -> Option<Finding> {
    let max = host.accept_queue_max?;
    if !need.role.serves() || u64::from(need.backlog) <= max {
        return None;
    }
    Some(Finding {
        severity: Severity::Warning,
        what:
            "the accept queue is cut: in a reconnect storm the rest of the phones wait a second and try again"
                .to_owned(),
        have: format!("net.core.somaxconn = {}", count(max)),
        need: count(need.backlog.into()),
        mend: format!("sysctl -w net.core.somaxconn={}", need.backlog),
    })
}

#[cfg(test)]
mod tests;
