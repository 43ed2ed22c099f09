//! The operator's tools as processes: what they print, where, and their exit codes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{env, fs, process};

use backend_stub::config::BackendConfig;
use backend_stub::embedded;

struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let dir = env::temp_dir().join(format!("moorgate-tools-{name}-{}", process::id()));
        let _ = fs::remove_dir_all(&dir);
        Self(dir)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn run(words: &[&str], data: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moorgate-backend"));
    command.args(words).arg("--data").arg(data).output().expect("it runs")
}

#[track_caller]
fn assert_ends(output: &Output, code: i32, out: &str, error: &str) {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{stdout}{stderr}");
    assert!(stdout.contains(out) && stderr.contains(error), "{stdout}{stderr}");
}

#[test]
fn tools_work_beside_no_backend_and_say_so_beside_one() {
    let (dir, copy, anew) = (Dir::new("data"), Dir::new("copy"), Dir::new("anew"));
    let copy_name = copy.0.to_str().expect("a plain path");
    assert_ends(&run(&["check"], &dir.0), 1, "", "holds no store of Moorgate; say --data DIR");
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    let config = |data: &Path| BackendConfig {
        listen: free,
        admin: None,
        data: data.to_owned(),
        ..BackendConfig::default()
    };
    let backend = embedded::start(config(&dir.0)).expect("it starts");
    for words in [&["check"][..], &["compact"], &["user", "show", "1"], &["backup", copy_name]] {
        assert_ends(&run(words, &dir.0), 1, "", "is in use by another process");
    }
    backend.stop().expect("a clean end");
    assert_ends(&run(&["check"], &dir.0), 0, "0 faults", "");
    assert_ends(&run(&["compact"], &dir.0), 0, "bytes on the disk before", "");
    assert_ends(&run(&["user", "show", "7"], &dir.0), 0, "newest number  0", "");
    assert_ends(&run(&["user", "show", "nobody"], &dir.0), 1, "", "nobody has the name");
    assert_ends(&run(&["backup", copy_name], &dir.0), 0, "0 rows", "");
    assert_ends(&run(&["restore", copy_name], &dir.0), 1, "", "is not empty");
    assert_ends(&run(&["restore", copy_name], &anew.0), 0, "log_epoch was 1 and is", "");
    // Tokens of before are good: the keys came along.
    let issuer = |dir: &Path| fs::read(dir.join("keys/issuer.pem")).expect("a key");
    assert_eq!(issuer(&anew.0), issuer(&dir.0));
    embedded::start(config(&anew.0)).expect("it starts on what was restored").stop().expect("a clean end");
}
