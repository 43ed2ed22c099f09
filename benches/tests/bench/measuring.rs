//! Does it measure what it says?

use std::time::Duration;

use serde_json::Value;

use crate::run::{Bench, read, said};
use crate::standin::{Service, start};

const MS: Duration = Duration::from_millis(1);

fn p(report: &Value, key: &str) -> f64 {
    report["latency_ms"][key].as_f64().expect("a latency")
}

/// A server that stands still for 500 ms of 4 s: of all that should have started, an eighth waited up to 500 ms. The open
/// loop says so. The closed loop has asked once a phone meanwhile, and its p99 knows nothing of the stall.
#[test]
fn a_stall_shows_in_the_open_loop_and_is_hidden_by_the_closed_one() {
    let service = Service { stall: Some((2_000 * MS, 500 * MS)), ..Service::default() };
    let args = "call --clients 64 --seconds 4 --payload 20";
    let open = Bench::new("open", start(service)).report(&format!("{args} --rate 1500 --arrival constant"));
    let closed = Bench::new("closed", start(service)).report(&format!("{args} --closed"));

    assert_eq!(
        (open["pace"]["kind"].as_str(), closed["pace"]["kind"].as_str()),
        (Some("open"), Some("closed"))
    );
    assert!(p(&open, "max") >= 450.0, "{open}");
    assert!(p(&open, "p99") >= 300.0, "an eighth waited, 500 ms at most: {}", p(&open, "p99"));
    let done = open["calls"].as_u64().expect("a count");
    assert!((5_000..=6_000).contains(&done), "nothing that was due in the stall is left out: {done}");
    let second = |report: &Value| -> f64 {
        let points = report["measured"]["timeline"]["points"].as_array().expect("points").clone();
        points.iter().filter_map(|point| point["operations"]["call"]["max_ms"].as_f64()).fold(0.0, f64::max)
    };
    assert!(second(&open) >= 450.0, "the timeline has it too");

    assert!(p(&closed, "max") >= 450.0, "each phone saw it once");
    assert!(p(&closed, "p99") < 100.0 && p(&closed, "p99") * 3.0 < p(&open, "p99"), "{}", p(&closed, "p99"));
    assert!(closed["pace"]["hides"].as_str().is_some_and(|told| told.contains("stalls")));
}

/// A server that takes 2 ms a call gives 500 a second and no more. In 3 s a tenth beyond it is 300 ms behind.
#[test]
fn find_max_finds_a_known_limit_and_confirms_it() {
    let service = Service { each: 2 * MS, ..Service::default() };
    let bench = Bench::new("find-max", start(service));
    let report = bench.report(
        "find-max --p99 300ms --clients 64 --from 125 --trial 2 --confirm 3 --steps 3 --arrival constant",
    );
    let found = report["highest_rate"].as_f64().expect("a rate");
    assert!((250.0..=575.0).contains(&found), "{found} of 500: {}", report["trials"]);
    assert_eq!(report["confirmed"]["held"], true);
    assert!(report["confirmed"]["seconds"].as_f64().is_some_and(|s| (2.9..3.5).contains(&s)));
    assert!(report["confirmed"]["p99_ms"].as_f64().is_some_and(|ms| ms <= 300.0));
    let trials = report["trials"].as_array().expect("trials");
    assert!(trials.iter().any(|trial| trial["held"] == false && trial["rate"].as_f64() > Some(found)));
}

#[test]
fn a_ramp_has_a_line_and_a_histogram_a_step_and_shows_where_it_bends() {
    let service = Service { each: Duration::from_micros(500), ..Service::default() };
    let bench = Bench::new("ramp", start(service));
    let hdr = bench.dir.join("hdr");
    let report = bench.report(&format!(
        "ramp --clients 8,16,32 --rates 300,600,6000 --step 1 --arrival constant --hdr {}",
        hdr.display()
    ));
    let steps = report["steps"].as_array().expect("steps");
    assert_eq!(steps.len(), 3);
    assert_eq!(steps[1]["phones"], 16);
    assert!(steps[2]["p99_ms"].as_f64() > steps[0]["p99_ms"].as_f64(), "{steps:?}");
    assert!(steps[2]["dropped_starts"].as_u64() > Some(0), "6000 a second do not fit: {steps:?}");
    let log = std::fs::read_to_string(hdr.join("call.hdr")).expect("a log");
    assert_eq!(log.lines().filter(|line| line.starts_with("Tag=step_")).count(), 3, "{log}");
}

#[test]
fn soak_says_that_it_was_too_short_to_judge() {
    let report =
        Bench::new("soak", start(Service::default())).report("soak --clients 4 --rate 100 --seconds 2");
    assert!(report["leak"]["leaks"].is_null());
    assert!(
        report["verdict"].as_str().is_some_and(|told| told.contains("too short")),
        "{}",
        report["verdict"]
    );
    assert!(report["calls"].as_u64() > Some(150));
}

#[test]
fn two_runs_are_compared() {
    let bench = Bench::new("compare", start(Service::default()));
    let mut paths = Vec::new();
    for at in 0..4 {
        let path = bench.dir.join(format!("{at}.json"));
        let args = format!("call --clients 4 --rate 300 --seconds 1 --warm-up 0 --json {}", path.display());
        let output = bench.run(&args);
        assert!(output.status.success(), "{}", said(&output));
        paths.push(path);
    }
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_moorgate-bench"))
        .arg("compare")
        .args(&paths)
        .arg("--json")
        .arg(bench.dir.join("compared.json"))
        .output()
        .expect("it runs");
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}", said(&output));
    let compared = read(&bench.dir.join("compared.json"));
    crate::run::fits_its_schema("compare", &compared);
    assert_eq!(compared["reports_a_side"], serde_json::json!([2, 2]));
    assert!(
        compared["rows"].as_array().is_some_and(|rows| rows.iter().all(|row| row["interval"].is_array()))
    );
}
