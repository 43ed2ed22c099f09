//! Every check with made-up facts: one host on which it fits, one on which it does not.

use super::*;
use crate::host::{Conntrack, TcpPages};
use crate::need::Role;

/// A host on which a hundred thousand connections, both ends, fit.
fn roomy() -> Host {
    Host {
        cores: Some(2),
        kernel: Some((6, 18)),
        descriptors_soft: Some(1 << 20),
        descriptors_hard: Some(1 << 20),
        descriptors_ceiling: Some(1 << 20),
        files_open: Some(400),
        files_max: Some(2_400_000),
        locked_bytes_soft: Some(8 << 20),
        capabilities: Some(0),
        groups: Some(vec![1000]),
        seccomp_filtered: Some(false),
        local_ports: Some(PortRange { low: 32_768, high: 60_999 }),
        reserved_ports: Some(vec![]),
        tcp_pages: Some(TcpPages { pressure: 383_867, max: 575_796, used: 242 }),
        conntrack: Some(Conntrack { max: 262_144, used: 12 }),
        accept_queue_max: Some(4096),
        memory_available: Some(24 << 30),
        cgroup_memory_left: None,
        io_uring_disabled: Some(0),
        io_uring_group: None,
        kernel_sysctls_visible: true,
    }
}

fn hundred_thousand() -> Need {
    Need { source_addresses: 8, listen_port: Some(7000), ..Need::new(Role::Both, 100_000) }
}

/// The one finding of `host`; its text is checked to hold `parts`.
fn only(host: &Host, need: &Need, parts: &[&str]) -> Severity {
    let findings = check(host, need);
    let [finding] = findings.as_slice() else { panic!("not one finding: {findings:#?}") };
    let text = finding.to_string();
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
    finding.severity
}

fn with_cap(cap: Cap) -> Option<u64> {
    Some(1 << cap as u32)
}

#[test]
fn a_roomy_host_says_nothing() {
    assert_eq!(check(&roomy(), &hundred_thousand()), vec![]);
}

#[test]
fn a_host_that_hides_its_facts_says_nothing() {
    assert_eq!(check(&Host::default(), &hundred_thousand()), vec![]);
}

#[test]
fn shards_follow_the_descriptor_limit() {
    assert_eq!(shards_for(0, 2, 20_000), 2);
    assert_eq!(shards_for(38_000, 2, 20_000), 2);
    assert_eq!(shards_for(100_000, 2, 20_000), 6);
    assert_eq!(shards_for(1_000_000, 2, 20_000), 53);
    assert_eq!(shards_for(1_000_000, 2, 1 << 20), 2);
    assert_eq!(shards_for(4_000_000, 2, u64::MAX), 5, "a ring's table ends at 2^20");
    assert_eq!(shards_for(u64::MAX, 0, 0), u64::MAX);
}

#[test]
fn source_addresses_follow_the_ports() {
    let range = PortRange { low: 32_768, high: 60_999 };
    assert_eq!(source_addresses_for(0, range), 1);
    assert_eq!(source_addresses_for(28_232, range), 1);
    assert_eq!(source_addresses_for(28_233, range), 2);
    assert_eq!(source_addresses_for(10, PortRange { low: 2, high: 1 }), 10);
}

#[test]
fn few_descriptors_mean_more_rings() {
    let host = Host { descriptors_soft: Some(20_000), descriptors_hard: Some(20_000), ..roomy() };
    let parts = ["6 rings on 2 cores", "20 000", "52 500", "prlimit", "LimitNOFILE=52500"];
    assert_eq!(only(&host, &hundred_thousand(), &parts), Severity::Note);
    let may = Host { capabilities: with_cap(Cap::SysResource), ..host };
    only(&may, &hundred_thousand(), &["mend: ulimit -n 52500"]);
    let soft_only = Host { descriptors_soft: Some(1024), ..roomy() };
    only(&soft_only, &hundred_thousand(), &["103 rings", "mend: ulimit -n 52500"]);
    let low_ceiling = Host { descriptors_ceiling: Some(30_000), ..soft_only };
    only(&low_ceiling, &hundred_thousand(), &["mend: sysctl -w fs.nr_open=52500; ulimit -n 52500"]);
}

#[test]
fn far_too_few_descriptors_do_not_fit() {
    let need = Need { source_addresses: 100, ..Need::new(Role::Gateway, 1_000_000) };
    let host = Host { descriptors_soft: Some(1024), conntrack: None, tcp_pages: None, ..roomy() };
    assert_eq!(only(&host, &need, &["1 026 rings"]), Severity::Fatal);
    let tiny = Host { descriptors_soft: Some(64), ..host };
    assert_eq!(only(&tiny, &Need::new(Role::Gateway, 10), &["64 descriptors"]), Severity::Fatal);
}

#[test]
fn open_files_of_the_machine() {
    let host = Host { files_max: Some(200_000), ..roomy() };
    let parts = ["fs.file-max = 200 000", "200 400", "sysctl -w fs.file-max=250500"];
    assert_eq!(only(&host, &hundred_thousand(), &parts), Severity::Fatal);
    let may = Host { capabilities: with_cap(Cap::SysAdmin), ..host };
    assert_eq!(check(&may, &hundred_thousand()), vec![]);
}

#[test]
fn memory_too_small_and_memory_tight() {
    let parts = ["100 000 connections of 8312 bytes", "512.0 MiB", "798.7 MiB", "free memory"];
    let small = Host { memory_available: Some(512 << 20), ..roomy() };
    assert_eq!(only(&small, &hundred_thousand(), &parts), Severity::Fatal);
    let tight = Host { memory_available: Some(900 << 20), ..roomy() };
    assert_eq!(only(&tight, &hundred_thousand(), &["900.0 MiB"]), Severity::Warning);
}

#[test]
fn a_cgroup_binds_before_the_machine() {
    let host = Host { cgroup_memory_left: Some(256 << 20), ..roomy() };
    assert_eq!(only(&host, &hundred_thousand(), &["cgroup", "256.0 MiB", "MemoryMax"]), Severity::Fatal);
}

#[test]
fn locked_memory_is_asked_for_registered_buffers_and_old_kernels() {
    let need = Need { registered_bytes: 16 << 20, ..hundred_thousand() };
    assert_eq!(only(&roomy(), &need, &["8.0 MiB", "16.0 MiB", "ulimit -l 16384"]), Severity::Fatal);
    let may = Host { capabilities: with_cap(Cap::IpcLock), ..roomy() };
    assert_eq!(check(&may, &need), vec![]);
    let old = Host { kernel: Some((5, 10)), locked_bytes_soft: Some(64 << 10), ..roomy() };
    only(&old, &hundred_thousand(), &["64.0 KiB", "2.0 MiB"]);
}

#[test]
fn ports_run_out() {
    let need =
        |connections, source_addresses| Need { source_addresses, ..Need::new(Role::Bench, connections) };
    let parts = ["28 232 ports on each of 1 source", "sysctl -w net.ipv4.ip_local_port_range='10240 65535'"];
    assert_eq!(only(&roomy(), &need(30_000, 1), &parts), Severity::Fatal);
    assert_eq!(only(&roomy(), &need(25_000, 1), &[]), Severity::Warning);
    assert_eq!(only(&roomy(), &need(100_000, 1), &["connect from 5 source addresses"]), Severity::Fatal);
    assert_eq!(check(&roomy(), &need(100_000, 5)), vec![], "what the mend says is enough");
    let kept = Host { reserved_ports: Some(vec![PortRange { low: 60_000, high: 65_000 }]), ..roomy() };
    only(&kept, &need(28_000, 1), &["27 232 ports"]);
    assert_eq!(check(&roomy(), &Need::new(Role::Gateway, 100_000)), vec![], "a gateway connects nowhere");
}

#[test]
fn a_listening_port_among_the_local_ones() {
    let need = Need { listen_port: Some(40_000), ..hundred_thousand() };
    let kept = vec![PortRange { low: 50_000, high: 50_001 }];
    let host = Host { reserved_ports: Some(kept), ..roomy() };
    let parts = ["port 40000", "32768 60999", "ip_local_reserved_ports=50000-50001,40000"];
    assert_eq!(only(&host, &need, &parts), Severity::Warning);
    let held = Host { reserved_ports: Some(vec![PortRange { low: 40_000, high: 40_000 }]), ..roomy() };
    assert_eq!(check(&held, &need), vec![]);
    assert_eq!(check(&roomy(), &Need { listen_port: Some(0), ..need }), vec![]);
}

#[test]
fn tcp_memory_in_a_storm() {
    let host = Host { tcp_pages: Some(TcpPages { pressure: 100_000, max: 150_000, used: 42 }), ..roomy() };
    let parts = ["100 000 pages", "200 042 pages", "tcp_mem='200042 250052 300063'"];
    assert_eq!(only(&host, &hundred_thousand(), &parts), Severity::Warning);
}

#[test]
fn the_tracker_counts_only_when_it_tracks() {
    let tracking = Host { conntrack: Some(Conntrack { max: 65_536, used: 9 }), ..roomy() };
    let parts = ["65 536", "100 009", "nf_conntrack_max=125011"];
    assert_eq!(only(&tracking, &hundred_thousand(), &parts), Severity::Fatal);
    let loaded = Host { conntrack: Some(Conntrack { max: 65_536, used: 0 }), ..roomy() };
    assert_eq!(only(&loaded, &hundred_thousand(), &[]), Severity::Note);
}

#[test]
fn a_short_accept_queue() {
    let host = Host { accept_queue_max: Some(128), ..roomy() };
    assert_eq!(only(&host, &hundred_thousand(), &["somaxconn = 128", "somaxconn=4096"]), Severity::Warning);
    let bench = Need { role: Role::Bench, ..hundred_thousand() };
    assert_eq!(check(&host, &bench), vec![]);
}

#[test]
fn io_uring_off() {
    let off = Host { io_uring_disabled: Some(2), ..roomy() };
    let mend = "sysctl -w kernel.io_uring_disabled=0";
    assert_eq!(only(&off, &hundred_thousand(), &["switched off", mend]), Severity::Fatal);
    let kept = Host { io_uring_disabled: Some(1), ..roomy() };
    assert_eq!(only(&kept, &hundred_thousand(), &["privileged", mend]), Severity::Fatal);
    let member = Host { io_uring_group: Some(1000), ..kept.clone() };
    assert_eq!(check(&member, &hundred_thousand()), vec![]);
    let admin = Host { capabilities: with_cap(Cap::SysAdmin), ..kept };
    assert_eq!(check(&admin, &hundred_thousand()), vec![]);
}

#[test]
fn io_uring_perhaps_off() {
    let absent = Host { io_uring_disabled: None, ..roomy() };
    assert_eq!(only(&absent, &hundred_thousand(), &["built without"]), Severity::Warning);
    let old = Host { kernel: Some((6, 1)), ..absent };
    assert_eq!(check(&old, &hundred_thousand()), vec![]);
    let filtered = Host { seccomp_filtered: Some(true), ..roomy() };
    assert_eq!(only(&filtered, &hundred_thousand(), &["seccomp"]), Severity::Note);
}

#[test]
fn the_worst_comes_first() {
    let host = Host {
        io_uring_disabled: Some(2),
        descriptors_soft: Some(20_000),
        accept_queue_max: Some(1),
        ..roomy()
    };
    let found: Vec<Severity> = check(&host, &hundred_thousand()).iter().map(|f| f.severity).collect();
    assert_eq!(found, vec![Severity::Fatal, Severity::Warning, Severity::Note]);
}
