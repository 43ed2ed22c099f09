//! Phones that only stand: are their beats and the notices for everybody measured, from when they were due?

use std::time::Duration;

use serde_json::Value;

use crate::run::Bench;
use crate::standin::{Service, start_with_admin};

const MS: Duration = Duration::from_millis(1);

fn operation(report: &Value, name: &str, phase: &str) -> Value {
    report["measured"]["operations"][name][phase].clone()
}

#[test]
fn notices_reach_each_phone_once_and_beats_are_kept() {
    let (target, admin) = start_with_admin(Service::default());
    let bench = Bench::new("broadcast", target).with_admin(admin);
    let hdr = bench.dir.join("hdr");
    let report = bench.report(&format!(
        "broadcast --connections 30 --rounds 4 --interval 0.5 --heartbeat 1 --hdr {}",
        hdr.display()
    ));
    let told = &report["broadcast"];
    assert_eq!((told["asked"].as_u64(), told["delivered"].as_u64()), (Some(120), Some(120)), "{told}");
    assert_eq!(told["twice"], 0);
    assert_eq!(report["rounds"].as_array().map(Vec::len), Some(4));
    assert_eq!(report["connections"]["held"], 30);
    assert_eq!(
        (&report["heartbeats"]["phones_without"], &report["heartbeats"]["lost"]),
        (&0.into(), &0.into())
    );
    let notices = operation(&report, "notice", "rounds");
    assert_eq!((notices["starts"].as_u64(), notices["done"].as_u64()), (Some(120), Some(120)), "{notices}");
    assert!(report["latency_ms"]["max"].as_f64() > Some(0.0));
    for name in ["beat", "notice"] {
        let log = std::fs::read_to_string(hdr.join(format!("{name}.hdr"))).expect("a log");
        assert!(log.lines().any(|line| line.starts_with("Tag=rounds")), "{log}");
    }
}

/// A server that answers a beat 80 ms late: each beat took that long, from when it was due.
#[test]
fn hold_measures_beats_from_when_they_were_due() {
    let (target, admin) = start_with_admin(Service { beat: 80 * MS, ..Service::default() });
    let bench = Bench::new("hold", target).with_admin(admin);
    let report = bench.report("hold --connections 20 --seconds 2 --heartbeat 1");
    let beats = &report["heartbeats"];
    assert!(beats["latency_ms"]["p50"].as_f64() >= Some(79.0), "{beats}");
    assert!(beats["answered"].as_u64() >= Some(20) && beats["lost"] == 0, "{beats}");
    let recorded = operation(&report, "beat", "hold");
    assert!(recorded["starts"].as_u64() >= recorded["done"].as_u64(), "{recorded}");
    assert!(recorded["done"].as_u64() >= Some(20), "{recorded}");
    assert_eq!(report["broadcast"]["delivered"], 20);
}
