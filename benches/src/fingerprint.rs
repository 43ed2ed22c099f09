//! What two hosts, or two builds of the bench, may differ in: whoever compares reports wants to know.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// Settings of the kernel that move these figures.
const SYSCTLS: [&str; 18] = [
    "fs.file-max",
    "fs.nr_open",
    "kernel.io_uring_disabled",
    "kernel.numa_balancing",
    "net.core.busy_poll",
    "net.core.netdev_max_backlog",
    "net.core.rmem_max",
    "net.core.somaxconn",
    "net.core.wmem_max",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_congestion_control",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_mem",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_slow_start_after_idle",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
    "vm.overcommit_memory",
];

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Fingerprint {
    pub bench_version: &'static str,
    /// Of the tree that the program stands in, or that it is run in.
    pub commit: Option<String>,
    pub descriptors: Option<u64>,
    pub clock: Option<String>,
    pub governor: Option<String>,
    /// It is a virtual machine.
    pub hypervisor: bool,
    pub sysctls: BTreeMap<&'static str, String>,
}

impl Fingerprint {
    pub fn read() -> Self {
        let line = |path: &str| Some(fs::read_to_string(path).ok()?.trim().to_owned());
        let sysctl = |key: &&'static str| {
            let value = line(&format!("/proc/sys/{}", key.replace('.', "/")))?;
            Some((*key, value.split_ascii_whitespace().collect::<Vec<_>>().join(" ")))
        };
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Self {
            bench_version: env!("CARGO_PKG_VERSION"),
            commit: places().iter().find_map(|from| commit_of(from)),
            descriptors: tuning::raise_descriptor_limit().ok(),
            clock: line("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
            governor: line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            hypervisor: cpuinfo.split_ascii_whitespace().any(|word| word == "hypervisor"),
            sysctls: SYSCTLS.iter().filter_map(sysctl).collect(),
        }
    }
}

fn places() -> Vec<PathBuf> {
    [std::env::current_exe(), std::env::current_dir()].into_iter().flatten().collect()
}

/// Read from the files of git, which need not be installed.
fn commit_of(from: &Path) -> Option<String> {
    let marker = from.ancestors().map(|dir| dir.join(".git")).find(|path| path.exists())?;
    let dir = match fs::read_to_string(&marker) {
        // A worktree's is a file that names the directory.
        Ok(text) => marker.parent()?.join(text.trim().strip_prefix("gitdir: ")?),
        Err(_) => marker,
    };
    let head = fs::read_to_string(dir.join("HEAD")).ok()?;
    let Some(name) = head.trim().strip_prefix("ref: ") else { return short(&head) };
    let common = fs::read_to_string(dir.join("commondir")).ok();
    let common = common.map_or_else(|| dir.clone(), |path| dir.join(path.trim()));
    if let Ok(commit) = fs::read_to_string(common.join(name)) {
        return short(&commit);
    }
    let packed = fs::read_to_string(common.join("packed-refs")).ok()?;
    short(packed.lines().find_map(|line| line.strip_suffix(name))?)
}

fn short(commit: &str) -> Option<String> {
    let commit = commit.trim();
    let is_hash = commit.len() >= 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hash.then(|| commit[..12].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_a_fingerprint() {
        let told = Fingerprint::read();
        assert!(told.sysctls.contains_key("net.core.somaxconn"), "{told:?}");
        assert!(!told.sysctls["net.ipv4.tcp_mem"].contains('\t'));
        assert!(told.descriptors.is_some_and(|limit| limit > 0));
    }

    #[test]
    fn a_commit_is_found_from_a_branch_a_worktree_packed_refs_and_a_bare_head() {
        let hash = "0123456789abcdef0123456789abcdef01234567";
        let root = std::env::temp_dir().join(format!("moorgate-bench-commit-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("a directory")).expect("made");
            fs::write(path, text).expect("written");
        };
        write("plain/.git/HEAD", "ref: refs/heads/main\n");
        write("plain/.git/refs/heads/main", &format!("{hash}\n"));
        write("plain/target/release/x", "");
        assert_eq!(commit_of(&root.join("plain/target/release/x")).as_deref(), Some("0123456789ab"));
        write("tree/.git", &format!("gitdir: {}\n", root.join("plain/.git/worktrees/tree").display()));
        write("plain/.git/worktrees/tree/HEAD", "ref: refs/heads/side\n");
        write("plain/.git/worktrees/tree/commondir", "../..\n");
        write("plain/.git/packed-refs", &format!("# packed\n{hash} refs/heads/side\n"));
        assert_eq!(commit_of(&root.join("tree")).as_deref(), Some("0123456789ab"));
        write("bare/.git/HEAD", &format!("{hash}\n"));
        assert_eq!(commit_of(&root.join("bare")).as_deref(), Some("0123456789ab"));
        write("bad/.git/HEAD", "nonsense\n");
        assert_eq!(commit_of(&root.join("bad")), None);
        fs::remove_dir_all(&root).expect("removed");
    }
}
