//! Power cuts. They need FUSE: `with_fuse` in their names says so, and `tests/run` skips them by name where it is not.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use tests::disk::Trip;
use tests::{Launch, System, WorkDir, is_long, limits};

/// Rounds of power cuts: 10 of them leave room for all else in the time of `tests/run`.
const ROUNDS: u32 = 10;
const ROUNDS_LONG: u32 = 300;

/// First starts that are cut.
const FIRST_STARTS: u64 = 12;
const FIRST_STARTS_LONG: u64 = 300;

/// Steps of the disk in a first start, at least.
const FIRST_STEPS: u64 = 90;

/// Runs power cuts, and gives the exit code, what was said, and the figures.
fn power_cut(args: &[&str]) -> (Option<i32>, String, Value) {
    let dir = WorkDir::new("power-cut").expect("a directory");
    let launch = Launch::of("faults", &dir).expect("built").args(["power-cut", "--json", "figures.json"]);
    let mut process = launch.args(args.iter().copied()).start().expect("started");
    let within_ms = if is_long() { 120 * limits::SOON_MS } else { 8 * limits::SOON_MS };
    let status = process.wait_for_end(within_ms).expect("an end");
    let figures = fs::read_to_string(dir.join("figures.json")).expect("figures");
    (status.code(), process.log(), serde_json::from_str(&figures).expect("JSON"))
}

#[test]
fn with_fuse_power_cuts_lose_nothing_that_was_acknowledged() {
    let rounds = if is_long() { ROUNDS_LONG } else { ROUNDS };
    let mut args = vec!["--rounds".to_owned(), rounds.to_string()];
    if let Ok(seed) = std::env::var("MOORGATE_SEED") {
        args.extend(["--seed".to_owned(), seed]);
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (code, said, figures) = power_cut(&args);
    assert_eq!(code, Some(0), "{said}");
    for key in ["lost", "doubled", "out_of_order"] {
        assert_eq!(figures[key], 0, "{said}");
    }
    assert_eq!(figures["rounds"], rounds);
    assert!(figures["acknowledged"].as_u64() >= Some(u64::from(rounds) * 1_000), "{said}");
}

#[test]
fn with_fuse_a_commit_without_fdatasync_is_found_by_a_power_cut() {
    let plant = ["--rounds", "3", "--seed", "5", "--drain", "3", "--plant", "no-sync"];
    let (code, said, figures) = power_cut(&plant);
    assert_eq!(code, Some(1), "{said}");
    assert!(figures["lost"].as_u64() > Some(0), "{said}");
    assert!(said.contains("replay: faults power-cut"), "{said}");
}

#[test]
fn with_fuse_a_first_start_that_is_cut_anywhere_is_followed_by_a_good_one() {
    let starts = if is_long() { FIRST_STARTS_LONG } else { FIRST_STARTS };
    let mut random = StdRng::seed_from_u64(starts);
    for start in 0..starts {
        let count = 1 + start * FIRST_STEPS / starts;
        let mut system = System::on_disk("first-start").expect("a system");
        let seed: u64 = random.random();
        system.disk().arm(Trip { step: None, count, is_taken: random.random_bool(0.5) });
        let mut process = system.backend.launch().start().expect("started");
        process
            .wait_until("its cut", limits::READY_WITHIN_MS, |_| system.disk().is_frozen().then_some(()))
            .expect("a start has more steps than this");
        process.signal(Signal::SIGKILL).expect("killed");
        system.disk().power_off();
        process.kill().expect("killed");
        let survived = system.disk().cut(seed);
        let files = system.disk().files();
        if let Err(error) = system.backend.start() {
            panic!("after a cut at step {count} (seed {seed}): {survived}; {files:?}: {error}");
        }
        let key = system.disk().read(Path::new("keys/issuer.pem")).expect("a key");
        // What it says once it is up stays.
        system.backend.kill().expect("killed");
        system.disk().cut_to_synced();
        system.backend.start().expect("started again");
        assert_eq!(system.disk().read(Path::new("keys/issuer.pem")), Some(key), "step {count}");
    }
}
