//! What may go wrong with a store and its disk: each a scenario of `faults`, and each under load. Those with `with_fuse` in
//! their names need FUSE, and `tests/run` skips them by name where it is not.

use std::fs;

use serde_json::Value;
use tests::{Launch, WorkDir, is_long, limits};

const ROUNDS: u32 = 2;
const ROUNDS_LONG: u32 = 30;

/// Runs a scenario, and gives the exit code, what was said, and the figures.
fn faults(name: &str, args: &[&str]) -> (Option<i32>, String, Value) {
    let dir = WorkDir::new("store-faults").expect("a directory");
    let launch = Launch::of("faults", &dir).expect("built").args([name, "--json", "figures.json"]);
    let mut process = launch.args(args.iter().copied()).start().expect("started");
    let within_ms = if is_long() { 60 * limits::SOON_MS } else { 8 * limits::SOON_MS };
    let status = process.wait_for_end(within_ms).expect("an end");
    let figures = fs::read_to_string(dir.join("figures.json")).expect("figures");
    (status.code(), process.log(), serde_json::from_str(&figures).expect("JSON"))
}

/// Nothing is lost, doubled or out of order, and the scenario saw what it wants.
fn holds(name: &str) {
    let rounds = if is_long() { ROUNDS_LONG } else { ROUNDS };
    let (code, said, figures) = faults(name, &["--rounds", &rounds.to_string()]);
    assert_eq!(code, Some(0), "{said}");
    for key in ["lost", "doubled", "out_of_order"] {
        assert_eq!(figures[key], 0, "{said}");
    }
    assert_eq!(figures["rounds"], rounds, "{said}");
    assert!(figures["acknowledged"].as_u64() >= Some(u64::from(rounds) * 1_000), "{said}");
    assert!(figures["in_flight_at_kill"].is_array() && figures["seed"].is_u64(), "{said}");
}

#[test]
fn with_fuse_a_sync_that_fails_stops_the_backend_and_loses_nothing() {
    holds("sync-fails");
}

#[test]
fn with_fuse_a_full_disk_refuses_writes_and_nothing_else() {
    holds("disk-full");
}

#[test]
fn with_fuse_a_slow_disk_acknowledges_only_what_it_has() {
    holds("slow-disk");
}

#[test]
fn with_fuse_reads_that_fail_hurt_only_who_needs_them() {
    holds("read-errors");
}

#[test]
fn a_torn_tail_is_cut_and_told() {
    holds("torn-tail");
}

#[test]
fn damage_before_the_tail_is_refused_with_what_to_do() {
    holds("damage");
}

#[test]
fn a_damaged_value_hurts_its_user_by_name_and_nobody_else() {
    holds("damaged-value");
}

#[test]
fn a_store_of_a_newer_version_is_refused() {
    holds("newer-version");
}

#[test]
fn a_second_process_is_refused() {
    holds("second-process");
}

#[test]
fn a_clock_that_jumps_back_loses_and_doubles_nothing() {
    holds("clock-back");
}

#[test]
fn a_backend_that_did_not_hold_its_clock_would_be_found() {
    let (code, said, _) = faults("clock-back", &["--rounds", "1", "--drain", "5", "--plant", "no-memory"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("a repeat after the jump: invalid"), "{said}");
}

#[test]
fn every_scenario_is_listed_with_a_sentence() {
    let dir = WorkDir::new("faults-list").expect("a directory");
    let mut process = Launch::of("faults", &dir).expect("built").arg("list").start().expect("started");
    assert!(process.wait_for_end(limits::SOON_MS).expect("an end").success());
    let listed = process.log();
    let names: Vec<&str> =
        listed.lines().filter_map(|line| line.split_once("  ")).map(|(name, _)| name).collect();
    let wanted = [
        "kill",
        "power-cut",
        "sync-fails",
        "disk-full",
        "slow-disk",
        "read-errors",
        "torn-tail",
        "damage",
        "damaged-value",
        "newer-version",
        "second-process",
        "clock-back",
    ];
    assert_eq!(names, wanted, "{listed}");
    assert!(listed.lines().all(|line| line.len() > 40), "{listed}");
}
