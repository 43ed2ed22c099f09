use serde_json::json;

use super::*;

/// Reports in a directory that goes with them.
struct Reports {
    dir: PathBuf,
    paths: Vec<PathBuf>,
}

impl Reports {
    fn new(name: &str, reports: &[Value]) -> Self {
        let dir = std::env::temp_dir().join(format!("moorgate-bench-compare-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("made");
        let write = |(at, report): (usize, &Value)| {
            let path = dir.join(format!("{at}.json"));
            fs::write(&path, report.to_string()).expect("written");
            path
        };
        let paths = reports.iter().enumerate().map(write).collect();
        Self { dir, paths }
    }
}

impl Drop for Reports {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn call(per_second: f64, p99: f64) -> Value {
    json!({
        "schema": 1, "command": "call", "clients": 64, "calls_per_second": per_second,
        "latency_ms": {"p50": 1.0, "p99": p99, "p999": 9.0},
        "host": {"kernel": "6.18", "cpu": "x", "cores": 2},
    })
}

fn compared(name: &str, reports: &[Value]) -> Comparison {
    compare(&Reports::new(name, reports).paths, false).expect("comparable")
}

#[test]
fn repeats_tell_a_small_difference_from_noise() {
    let pairs = |by: f64| -> Vec<Value> {
        (0..8)
            .flat_map(|n| {
                let n = f64::from(n) * 5.0;
                [call(1_000.0 + n, 5.0), call((1_000.0 + n) * by, 5.0)]
            })
            .collect()
    };
    let worse = compared("worse", &pairs(0.9));
    assert_eq!((worse.verdict, worse.exit_code()), (Verdict::Worse, 1), "{}", worse.summary());
    assert!(worse.rows[0].interval.is_some_and(|(low, high)| low < 0.91 && high > 0.89 && high < 0.95));
    let better = compared("better", &pairs(1.2));
    assert_eq!((better.verdict, better.exit_code()), (Verdict::Better, 0));
    assert_eq!(compared("same", &pairs(0.995)).verdict, Verdict::Same);
}

#[test]
fn with_one_report_each_noise_is_unknown_and_said_to_be() {
    let slightly = compared("slightly", &[call(1_000.0, 5.0), call(900.0, 5.5)]);
    assert_eq!(slightly.verdict, Verdict::Same);
    assert!(slightly.summary().contains("noise is unknown"), "{}", slightly.summary());
    assert_eq!(compared("much", &[call(1_000.0, 5.0), call(500.0, 5.0)]).exit_code(), 1);
    assert_eq!(compared("itself", &[call(1_000.0, 5.0), call(1_000.0, 5.0)]).exit_code(), 0);
}

#[test]
fn what_cannot_be_compared_says_why() {
    let told = |name: &str, reports: &[Value]| {
        compare(&Reports::new(name, reports).paths, false).expect_err("not comparable").to_string()
    };
    let mut other = call(1.0, 1.0);
    other["schema"] = json!(2);
    assert!(told("schema", &[call(1.0, 1.0), other.clone()]).contains("different schemas, 1 and 2"));
    other["schema"] = json!(1);
    other["command"] = json!("hold");
    assert!(told("command", &[call(1.0, 1.0), other]).contains("different commands, call and hold"));
    assert!(told("odd", &[call(1.0, 1.0)]).contains("no pairs"));
    assert!(told("none", &[json!({"x": 1}), json!({"x": 1})]).contains("no report of moorgate-bench"));
    let missing = [PathBuf::from("/no/such/a.json"), PathBuf::from("/no/such/b.json")];
    assert!(compare(&missing, false).expect_err("none").to_string().contains("/no/such/a.json"));
}

#[test]
fn different_hosts_are_a_warning_and_no_verdict_unless_asked_for() {
    let mut other = call(2_000.0, 5.0);
    other["host"]["kernel"] = json!("6.1");
    let reports = Reports::new("hosts", &[call(1_000.0, 5.0), other]);
    let without = compare(&reports.paths, false).expect("a table");
    assert_eq!(without.exit_code(), 2);
    assert!(without.summary().contains("different hosts (kernel differ)"), "{}", without.summary());
    assert_eq!(compare(&reports.paths, true).expect("a table").exit_code(), 0);
}

#[test]
fn different_settings_are_a_warning() {
    let mut other = call(1_000.0, 5.0);
    other["clients"] = json!(128);
    let told = compared("settings", &[call(1_000.0, 5.0), other]).summary();
    assert!(told.contains("warning: clients differs: 64 and 128"), "{told}");
}
