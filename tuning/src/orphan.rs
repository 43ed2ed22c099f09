//! A port whose listener nobody owns any more: its process was killed, and the kernel still ends what it had open.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind};

/// "no such process"
const ESRCH: i32 = 3;

/// Whether something listens on a TCP port that no process holds. A killed io_uring server looks like that until a
/// worker of the kernel has closed its connections, 3.6 s with 200 000 of them (Linux 6.18). False when it cannot
/// be known: processes of others may not be looked into.
pub fn is_orphaned(port: u16) -> bool {
    let inodes: Vec<String> =
        ["/proc/net/tcp", "/proc/net/tcp6"].iter().flat_map(|path| listeners(path, port)).collect();
    !inodes.is_empty() && is_held_by_nobody(&inodes).unwrap_or(false)
}

/// Inodes of those that listen. They come first, so that a million connections behind them are not read.
fn listeners(path: &str, port: u16) -> Vec<String> {
    let Ok(file) = File::open(path) else { return Vec::new() };
    let lines = BufReader::new(file).lines().map_while(Result::ok).skip(1);
    let words = lines.map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    let listening = words.take_while(|words| words.get(3).is_some_and(|state| state == "0A"));
    let suffix = format!(":{port:04X}");
    let of_port = listening.filter(|words| words[1].ends_with(&suffix));
    of_port.filter_map(|words| words.get(9).cloned()).collect()
}

/// None: a process could not be looked into.
fn is_held_by_nobody(inodes: &[String]) -> Option<bool> {
    let names: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let is_process = entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit());
        if !is_process {
            continue;
        }
        let descriptors = match fs::read_dir(entry.path().join("fd")) {
            Ok(descriptors) => descriptors,
            // It has ended meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(ESRCH) => {
                continue;
            }
            Err(_) => return None,
        };
        for descriptor in descriptors.flatten() {
            if let Ok(target) = fs::read_link(descriptor.path())
                && names.iter().any(|name| target.as_os_str() == name.as_str())
            {
                return Some(false);
            }
        }
    }
    Some(true)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_port_that_a_process_listens_on_is_no_orphan_and_a_free_one_neither() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        assert_eq!(listeners("/proc/net/tcp", port).len(), 1);
        assert!(!is_orphaned(port));
        drop(listener);
        assert!(listeners("/proc/net/tcp", port).is_empty() && !is_orphaned(port));
    }
}
