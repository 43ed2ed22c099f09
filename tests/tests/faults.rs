//! The kills, and that they can fail.

use std::fs;

use serde_json::Value;
use tests::{Launch, WorkDir, limits};

/// Runs rounds of kills, and gives the exit code, what was said, and the figures.
fn kill(args: &[&str]) -> (Option<i32>, String, Value) {
    let dir = WorkDir::new("faults").expect("a directory");
    let launch = Launch::of("faults", &dir).expect("built").args(["kill", "--json", "figures.json"]);
    let mut process = launch.args(args.iter().copied()).start().expect("started");
    let status = process.wait_for_end(4 * limits::SOON_MS).expect("an end");
    let figures = fs::read_to_string(dir.join("figures.json")).expect("figures");
    (status.code(), process.log(), serde_json::from_str(&figures).expect("JSON"))
}

#[test]
fn rounds_of_kills_lose_nothing_and_say_so() {
    let (code, said, figures) = kill(&["--rounds", "3", "--seed", "5"]);
    assert_eq!(code, Some(0), "{said}");
    for key in ["lost", "doubled", "out_of_order"] {
        assert_eq!(figures[key], 0, "{said}");
    }
    assert_eq!((&figures["rounds"], &figures["seed"]), (&Value::from(3), &Value::from(5)));
    assert!(figures["acknowledged"].as_u64() >= Some(3_000), "{said}");
    let in_flight = figures["in_flight_at_kill"].as_array().expect("one each round");
    assert_eq!(in_flight.len(), 3);
    assert_eq!(said.lines().filter(|line| line.starts_with("round ")).count(), 3, "{said}");
}

#[test]
fn a_disk_that_forgets_is_found_out() {
    let plant = ["--rounds", "2", "--seed", "5", "--only", "backend", "--drain", "3", "--plant", "rollback"];
    let (code, said, figures) = kill(&plant);
    assert_eq!(code, Some(1), "{said}");
    assert!(figures["lost"].as_u64() > Some(0), "{said}");
    assert!(said.contains("replay: faults kill --rounds 2 --phones 200 --only backend --seed 5"), "{said}");
}
