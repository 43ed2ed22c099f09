//! The JSON of every report has the keys that its readers ask for.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use schemars::schema_for;
use serde::Serialize;
use serde_json::Value;

use crate::fleet::Totals;
use crate::latency::Percentiles;
use crate::measure::{Arrival, Measured, Recorder};
use crate::mixed::{Kind, KindCount};
use crate::report::{Generator, HostFacts, Report, SCHEMA};
use crate::servers::{Cores, GatewayTold};
use crate::standing::{Broadcast, Connections, Heartbeats, Setup};
use crate::{broadcast, call, chat, compare, find_max, hold, peers, ramp, rpc, soak, storm};

const LATENCY: Percentiles = Percentiles { p50: 1.0, p99: 2.0, p999: 3.0, max: 4.0 };

fn host() -> HostFacts {
    HostFacts::read(true, false, Cores::default(), vec!["a finding".into()])
}

fn measured() -> Measured {
    Recorder::new(&["call"]).measured()
}

fn generator() -> Generator {
    Generator::judge(1, &Totals::default(), &Totals::default(), 100, 1)
}

fn told() -> Option<GatewayTold> {
    let bytes = |bytes| BTreeMap::from([("idle".to_owned(), bytes)]);
    Some(GatewayTold {
        connections: 1,
        fullest_shard_by_mean: Some(1.0),
        bytes_by_state: bytes(96),
        bytes_per_connection_by_state: BTreeMap::from([("idle".to_owned(), 96.0)]),
        established_minus_sessions: Some(0),
        messages: 5,
        messages_per_second: 5.0,
        messages_per_second_per_core: Some(10.0),
    })
}

fn has(report: &impl Serialize, paths: &[&str]) {
    let value = serde_json::to_value(report).expect("a report has a JSON form");
    for path in paths {
        let found = path.split('.').try_fold(&value, |value, key| value.get(key));
        assert!(found.is_some_and(|found| !found.is_null()), "{path} is missing in {value:#}");
    }
    let Value::Object(_) = value else { panic!("no object") };
}

pub(crate) fn chat_report() -> chat::ChatReport {
    let part = || chat::PartCost { cpu_us_per_message: Some(1.0), rss_bytes: Some(2), cores_used: Some(0.5) };
    chat::ChatReport {
        schema: SCHEMA,
        command: "chat",
        clients: 2,
        seconds: 1.0,
        sent: 10,
        acknowledged: 10,
        delivered: 30,
        duplicates: 0,
        gaps: 0,
        missing: 0,
        out_of_order: 0,
        disagreements: 0,
        misdelivered: 0,
        own_missing: 0,
        unacknowledged: 0,
        repeats: 0,
        bad_pages: 0,
        snapshots: 0,
        syncs_failed: 0,
        statuses: BTreeMap::new(),
        refused: 0,
        rate: 10.0,
        acknowledged_per_second: 10.0,
        deliveries_per_second: 30.0,
        latency_ms: chat::Latencies { ack: LATENCY, deliver: LATENCY },
        drained_after_ms: Some(1),
        server: chat::ServerCosts { gateway: part(), backend: part() },
        gateway: told(),
        kills: Vec::new(),
        search: Vec::new(),
        highest_rate: None,
        connections_lost: 0,
        generator: generator(),
        complaints: Vec::new(),
        first_bad: None,
        ended_early: false,
        arrival: Arrival::Poisson,
        dropped_starts: 0,
        measured: Some(measured()),
        recorded: None,
        seed: 1,
        groups: BTreeMap::new(),
        host: host(),
        kinds: None,
        state: None,
    }
}

fn mixed_report(differ: u64) -> chat::ChatReport {
    let kinds = Kind::ALL.iter().map(|kind| (kind.name(), KindCount::default())).collect();
    let state =
        chat::StateReport { users: 20, devices: 22, differ, by_check: BTreeMap::new(), typing_seen: 3 };
    chat::ChatReport { kinds: Some(kinds), state: Some(state), ..chat_report() }
}

#[test]
fn chat() {
    let paths = "sent acknowledged delivered duplicates gaps missing rate deliveries_per_second out_of_order \
        latency_ms.ack.p50 latency_ms.ack.p99 latency_ms.ack.p999 latency_ms.ack.max \
        latency_ms.deliver.p50 latency_ms.deliver.p99 latency_ms.deliver.p999 latency_ms.deliver.max \
        server.gateway.cpu_us_per_message server.gateway.rss_bytes \
        server.backend.cpu_us_per_message server.backend.rss_bytes \
        generator.verdict generator.late_starts host.address_limits_lifted schema \
        gateway.bytes_per_connection_by_state.idle gateway.messages_per_second_per_core";
    has(&chat_report(), &paths.split_whitespace().collect::<Vec<_>>());
}

/// Without a mix nothing is added; with one, every kind has its counts.
#[test]
fn mixed_chat() {
    let plain = serde_json::to_value(chat_report()).expect("a report has a JSON form");
    assert!(plain.get("kinds").is_none() && plain.get("state").is_none());
    let report = mixed_report(0);
    has(&report, &["state.users", "state.devices", "state.differ"]);
    for kind in Kind::ALL {
        for key in ["sent", "acknowledged", "refused"] {
            has(&report, &[&format!("kinds.{}.{key}", kind.name())]);
        }
    }
    assert!(report.is_good() && report.summary().contains("22 devices of 20 users"));
    assert!(!mixed_report(1).is_good());
}

#[test]
fn a_chat_is_good_when_nothing_is_missing_doubled_or_out_of_order() {
    assert!(chat_report().is_good());
    let spoil: [fn(&mut chat::ChatReport); 7] = [
        |report| report.missing = 1,
        |report| report.duplicates = 1,
        |report| report.out_of_order = 1,
        |report| report.disagreements = 1,
        |report| report.misdelivered = 1,
        |report| report.own_missing = 1,
        |report| report.acknowledged = 0,
    ];
    for spoil in spoil {
        let mut report = chat_report();
        spoil(&mut report);
        assert!(!report.is_good(), "{}", report.summary());
    }
    // Allowed, and told: a number that comes again, a page that began beyond the cursor and was asked for anew.
    assert!(chat::ChatReport { gaps: 1, repeats: 1, unacknowledged: 1, ..chat_report() }.is_good());
}

fn connections(lost: u64) -> Connections {
    Connections { asked: 5, held: 5, lost, failed_attempts: 0, trouble: None }
}

const SETUP: Setup = Setup { per_second: 10.0, seconds: 0.5 };
const BEATS: Heartbeats = Heartbeats { answered: 5, phones_without: 0, lost: 0, latency_ms: LATENCY };

fn hold_report() -> hold::HoldReport {
    hold::HoldReport {
        schema: SCHEMA,
        command: "hold",
        seconds: 1.0,
        ended_early: false,
        heartbeat_s: 1,
        connections: connections(0),
        setup: SETUP,
        heartbeats: BEATS,
        server: hold::ServerCost {
            user_bytes_per_connection: Some(1.0),
            user_bytes_in_all: Some(2.0),
            kernel_bytes_per_connection: Some(3),
            kernel_bytes_of: "both ends",
            cpu_us_per_heartbeat: Some(4.0),
            rss_bytes: Some(5),
            rss_bytes_after_warm_up: Some(6),
            rss_bytes_after_all_left: Some(6),
        },
        gateway: told(),
        backend: hold::BackendCost { user_bytes_per_connection: Some(7.0), rss_bytes: Some(8) },
        broadcast: None,
        generator: generator(),
        host: host(),
        measured: measured(),
        recorded: None,
    }
}

#[test]
fn hold() {
    let report = hold_report();
    let paths = "connections.asked connections.held connections.lost server.user_bytes_per_connection \
        server.user_bytes_in_all server.kernel_bytes_per_connection server.cpu_us_per_heartbeat \
        backend.user_bytes_per_connection setup.per_second heartbeats.latency_ms.p99 \
        gateway.bytes_per_connection_by_state.idle gateway.messages_per_second_per_core";
    has(&report, &paths.split_whitespace().collect::<Vec<_>>());
    assert!(report.is_good());
    assert!(
        !hold::HoldReport { connections: connections(1), ..hold_report() }.is_good(),
        "lost, and came back"
    );
    let beats = Heartbeats { phones_without: 1, ..BEATS };
    assert!(!hold::HoldReport { heartbeats: beats, ..hold_report() }.is_good());
    let deaf = Broadcast { asked: 5, delivered: 4, ..Broadcast::default() };
    assert!(!hold::HoldReport { broadcast: Some(deaf), ..hold_report() }.is_good());
}

fn broadcast_report() -> broadcast::BroadcastReport {
    let round = broadcast::Round {
        at_s: 5.0,
        late_ms: 0.0,
        asked: 5,
        delivered: 5,
        twice: 0,
        seconds: 0.5,
        cpu_us_per_phone: Some(6.0),
        trouble: None,
    };
    broadcast::BroadcastReport {
        schema: SCHEMA,
        command: "broadcast",
        seconds: 10.0,
        ended_early: false,
        interval_s: 5.0,
        heartbeat_s: 5,
        connections: connections(0),
        setup: SETUP,
        broadcast: Broadcast { asked: 5, delivered: 5, cpu_us_per_phone: Some(6.0), ..Broadcast::default() },
        rounds_asked: 1,
        rounds_late: 0,
        rounds: vec![round],
        latency_ms: LATENCY,
        heartbeats: BEATS,
        gateway: told(),
        server: broadcast::GatewayMemory { rss_bytes_before: Some(1), rss_bytes_highest: Some(2) },
        generator: generator(),
        host: host(),
        measured: measured(),
        recorded: None,
    }
}

#[test]
fn broadcast() {
    let paths = "broadcast.delivered broadcast.seconds broadcast.cpu_us_per_phone broadcast.twice latency_ms.p99 \
        heartbeats.lost heartbeats.latency_ms.p99 connections.lost server.rss_bytes_highest rounds_late";
    has(&broadcast_report(), &paths.split_whitespace().collect::<Vec<_>>());
    assert!(broadcast_report().is_good());
    let spoil: [fn(&mut broadcast::BroadcastReport); 6] = [
        |report| report.broadcast.delivered = 4,
        |report| report.broadcast.twice = 1,
        |report| report.connections.lost = 1,
        |report| report.heartbeats.lost = 1,
        |report| report.heartbeats.phones_without = 1,
        |report| report.rounds_asked = 2,
    ];
    for spoil in spoil {
        let mut report = broadcast_report();
        spoil(&mut report);
        assert!(!report.is_good(), "{}", report.summary());
    }
}

#[test]
fn call() {
    let part = || call::PartCost { cpu_us_per_call: Some(1.0), cores_used: Some(1.0), rss_bytes: Some(1) };
    let report = call::CallReport {
        schema: SCHEMA,
        command: "call",
        clients: 1,
        payload_bytes: 1,
        seconds: 1.0,
        ended_early: false,
        pace: call::Pace::Closed.into(),
        calls: 1,
        calls_per_second: 1.0,
        starts: 1,
        late_starts: 0,
        dropped_starts: 0,
        unanswered: 0,
        errors: 0,
        errors_by_status: BTreeMap::new(),
        latency_ms: LATENCY,
        server: call::CallCost { gateway: part(), backend: part() },
        gateway: told(),
        generator: generator(),
        host: host(),
        measured: measured(),
        recorded: None,
    };
    has(&report, &["calls_per_second", "latency_ms.p99", "server.gateway.cpu_us_per_call"]);
    assert!(report.is_good());
    assert!(report.summary().contains("a closed loop"), "it says what it hides");
    assert!(!call::CallReport { unanswered: 1, ..report }.is_good());
}

fn storm_report() -> storm::StormReport {
    let healthy = storm::Healthy {
        phones: 5,
        lost: 0,
        errors: 0,
        p99_ms_before: 1.0,
        p99_ms_during: 19.0,
        p99_ratio: 19.0,
        generator: generator(),
        cores: vec![1],
    };
    storm::StormReport {
        schema: SCHEMA,
        command: "storm",
        connections: 5,
        ended_early: false,
        storm: storm::Storm {
            lost: 0,
            seconds_to_90: Some(1.0),
            seconds_to_all: Some(2.0),
            gateway_ready_after_s: 0.5,
            attempts: 6,
            resumed: Some(5),
            logic_calls_per_reconnect: Some(0.01),
            cpu_us_per_reconnect: Some(9.0),
            healthy,
        },
        gateway: told(),
        generator: generator(),
        host: host(),
        measured: measured(),
        recorded: None,
    }
}

#[test]
fn storm() {
    let mut report = storm_report();
    let paths = "storm.lost storm.seconds_to_90 storm.seconds_to_all storm.attempts storm.logic_calls_per_reconnect \
        storm.healthy.lost storm.healthy.p99_ratio storm.healthy.generator.late_starts \
        storm.healthy.generator.core_wait_share storm.healthy.cores generator.verdict";
    has(&report, &paths.split_whitespace().collect::<Vec<_>>());
    assert!(report.is_good(), "19 times 1 ms is below 20 ms");
    let summary = report.summary();
    assert!(summary.contains("1 of their 100 calls in the storm started late"), "{summary}");
    report.storm.healthy.p99_ms_during = 21.0;
    assert!(!report.is_good());
    let told: [fn(&mut storm::Storm); 4] = [
        |storm| storm.lost = 1,
        |storm| storm.healthy.lost = 1,
        |storm| storm.healthy.errors = 1,
        |storm| storm.logic_calls_per_reconnect = Some(1.0),
    ];
    for spoil in told {
        let mut report = storm_report();
        spoil(&mut report.storm);
        assert!(!report.is_good(), "{}", report.summary());
    }
}

/// The schemas in the tree are what the reports are made of; MOORGATE_WRITE_SCHEMAS=1 writes them.
#[test]
fn the_schemas_in_the_tree_are_those_of_the_reports() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema");
    let all = [
        ("broadcast", schema_for!(broadcast::BroadcastReport)),
        ("call", schema_for!(call::CallReport)),
        ("chat", schema_for!(chat::ChatReport)),
        ("hold", schema_for!(hold::HoldReport)),
        ("find-max", schema_for!(find_max::FindMaxReport)),
        ("peer", schema_for!(peers::run::PeerReport)),
        ("peers", schema_for!(peers::report::Comparison)),
        ("rpc", schema_for!(rpc::report::RpcReport)),
        ("ramp", schema_for!(ramp::RampReport)),
        ("soak", schema_for!(soak::SoakReport)),
        ("storm", schema_for!(storm::StormReport)),
        ("compare", schema_for!(compare::Comparison)),
    ];
    for (name, mut schema) in all {
        schema.insert("title".into(), format!("moorgate-bench {name}, schema {SCHEMA}").into());
        let path = dir.join(format!("{name}.json"));
        let made = serde_json::to_string_pretty(&schema).expect("a schema has a JSON form") + "\n";
        if std::env::var_os("MOORGATE_WRITE_SCHEMAS").is_some() {
            fs::create_dir_all(&dir).expect("made");
            fs::write(&path, &made).expect("written");
        }
        let stands = fs::read_to_string(&path).unwrap_or_default();
        assert!(stands == made, "{name}.json is not what the report is: MOORGATE_WRITE_SCHEMAS=1 writes it");
    }
}

#[test]
fn a_report_fits_its_schema_and_a_wrong_one_does_not() {
    let schema = serde_json::to_value(schema_for!(chat::ChatReport)).expect("a schema");
    let mut report = serde_json::to_value(chat_report()).expect("a report has a JSON form");
    let told = jsonschema::validate(&schema, &report);
    assert!(told.is_ok(), "{told:?}");
    report["sent"] = "many".into();
    assert!(jsonschema::validate(&schema, &report).is_err());
}
