//! Ctrl-C, wherever a run is: what ran is reported; where nothing ran a sentence says so; nothing is left behind.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::run::{Bench, fits_its_schema, read};
use crate::standin::{Service, start};

/// Sends SIGINT when it has said `when`; gives what it said after that, and how it ended.
fn interrupted(mut command: Command, when: &str) -> (String, ExitStatus) {
    let mut child: Child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it runs");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    assert!(lines.by_ref().map_while(Result::ok).any(|line| line.contains(when)), "it never said {when}");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).expect("sent");
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    (rest.join("\n"), child.wait().expect("it ends"))
}

/// The same; it must end well, with a report that says that it was ended.
fn reported(name: &str, args: &str, when: &str) -> Value {
    let bench = Bench::new(name, start(Service::default()));
    let path = bench.dir.join("early.json");
    let (rest, status) = interrupted(bench.command(&format!("{args} --json {}", path.display())), when);
    assert!(status.success(), "{status} {rest}");
    let report = read(&path);
    fits_its_schema(report["command"].as_str().expect("a command"), &report);
    assert_eq!(report["ended_early"], true);
    report
}

#[test]
fn in_a_load() {
    let args = "call --clients 4 --rate 200 --seconds 600 --warm-up 0";
    let report = reported("ended-load", args, "load: 1 of 600 s");
    assert!(report["calls"].as_u64() > Some(50) && report["errors"] == 0, "{report}");
}

#[test]
fn in_a_warm_up() {
    let args = "call --clients 4 --rate 200 --seconds 5 --warm-up 600";
    let report = reported("ended-warm-up", args, "warm-up: 1 of 600 s");
    assert!(report["calls"].as_u64() > Some(50), "{report}");
}

#[test]
fn in_a_search() {
    let args = "find-max --p99 1s --clients 8 --from 100 --to 150 --steps 0 --trial 1 --confirm 600";
    let report = reported("ended-search", args, "held; repeating it for 600 s");
    assert_eq!(report["trials"].as_array().map(Vec::len), Some(1), "{report}");
    assert_eq!(report["trials"][0]["held"], true);
    assert!(report["highest_rate"].is_null());
    assert!(report["verdict"].as_str().is_some_and(|told| told.contains("nothing was confirmed")));
}

#[test]
fn in_the_rounds_of_a_broadcast() {
    let (target, admin) = crate::standin::start_with_admin(Service::default());
    let bench = Bench::new("ended-rounds", target).with_admin(admin);
    let path = bench.dir.join("early.json");
    let args = format!("broadcast --connections 5 --rounds 600 --interval 1 --json {}", path.display());
    let (rest, status) = interrupted(bench.command(&args), "5 of 5 phones had it");
    assert!(status.success(), "{status} {rest}");
    let report = read(&path);
    assert_eq!((&report["ended_early"], &report["broadcast"]["delivered"]), (&true.into(), &5.into()));
}

/// A server that says that it is ready, and sleeps.
const SERVER: &str = "#!/bin/sh
echo $$ >> \"$DIR/pids\"
while [ $# -gt 0 ]; do
    if [ \"$1\" = --data ]; then mkdir -p \"$2/keys\" && cp \"$DIR/issuer.pem\" \"$2/keys/issuer.pem\"; fi
    shift
done
echo ready
exec sleep 600
";

/// The bench among servers of the test's own, in a directory whose `tmp` has its temporary files.
fn beside_servers(bench: &Bench, args: &str) -> Command {
    let program = bench.dir.join("moorgate-bench");
    fs::copy(env!("CARGO_BIN_EXE_moorgate-bench"), &program).expect("copied");
    for name in ["moorgate", "moorgate-backend"] {
        let path = bench.dir.join(name);
        fs::write(&path, SERVER).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
    }
    fs::create_dir_all(bench.dir.join("tmp")).expect("made");
    let mut command = Command::new(program);
    command.args(args.split_ascii_whitespace()).stdin(Stdio::null());
    command.env("DIR", &bench.dir).env("TMPDIR", bench.dir.join("tmp")).env_remove("MOORGATE_KEEP");
    command
}

fn left_in(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).expect("there").map(|entry| entry.expect("an entry").path()).collect()
}

/// Nobody listens, so the phones never come; then nothing ran, and servers and their directory go.
#[test]
fn in_the_set_up_nothing_is_reported_and_nothing_is_left() {
    for command in [
        "call --clients 2 --rate 10",
        "hold --connections 2 --seconds 5",
        "storm --connections 2 --healthy 2",
    ] {
        let bench = Bench::new("ended-set-up", ([127, 0, 0, 1], 1).into());
        let when = if command.starts_with("hold") { "warm-up: 2" } else { "connecting: 0 of 2" };
        let spawned = beside_servers(&bench, &format!("{command} --spawn --no-tui"));
        let (rest, status) = interrupted(spawned, when);
        assert_eq!(status.code(), Some(130), "{command}: {rest}");
        assert!(rest.contains("ended by Ctrl-C before anything was measured"), "{command}: {rest}");
        assert_eq!(left_in(&bench.dir.join("tmp")), Vec::<PathBuf>::new(), "{command}");
        let pids = fs::read_to_string(bench.dir.join("pids")).expect("servers ran");
        assert!(pids.lines().count() >= 2);
        for pid in pids.lines() {
            assert!(!Path::new("/proc").join(pid).exists(), "{command}: {pid} still runs");
        }
    }
}
