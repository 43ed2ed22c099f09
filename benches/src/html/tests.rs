use serde_json::json;

use super::*;

/// A report of every kind of chart, with words that must not become markup.
pub(crate) fn sample() -> Value {
    let points: Vec<Value> = (0..60)
        .map(|s| {
            let slow = if s == 30 { 500.0 } else { 0.0 };
            let ms = 1.0 + f64::from(s % 7) * 0.2;
            json!({
                "s": s,
                "operations": {"call": {"count": 1000 + s, "errors": 0, "late": if s == 30 { 40 } else { 0 }, "dropped": 0,
                    "p50_ms": ms, "p99_ms": ms * 4.0 + slow, "max_ms": ms * 9.0 + slow}},
                "gauges": {"up": 64, "lost": 0, "kernel_bytes": 1_000_000_000 + s * 1000,
                    "gateway": {"cores": 0.4, "rss_bytes": 4_000_000 + s * 100},
                    "backend": {"cores": 0.6, "rss_bytes": 9_000_000}, "bench": {"cores": 0.3, "rss_bytes": 8_000_000}},
            })
        })
        .collect();
    json!({
        "schema": 1, "command": "call", "clients": 64, "seconds": 60.0, "calls_per_second": 1030.0,
        "pace": {"kind": "open", "rate": 1030.0, "arrival": "poisson", "hides": null},
        "latency_ms": {"p50": 1.6, "p99": 6.5, "p999": 505.0, "max": 519.0},
        "generator": {"verdict": "the generator kept up </script><b>", "was_the_limit": false},
        "host": {"kernel": "6.18 <b>", "cores": 2, "findings": ["one", "two"]},
        "server": {"gateway": {"cpu_us_per_call": 6.1, "rss_bytes": 4_000_000}},
        "measured": {
            "phases": [{"name": "load", "from_s": 0.0, "until_s": 60.0}],
            "operations": {"call": {"load": {"starts": 61000, "late_starts": 40, "dropped_starts": 0, "done": 61000, "errors": 0,
                "latency_ms": {"p50": 1.6, "p99": 6.5, "p999": 505.0, "max": 519.0},
                "percentiles": [[0.0, 0.9], [0.5, 1.6], [0.75, 2.0], [0.9, 3.0], [0.99, 6.5], [0.999, 505.0], [1.0, 519.0]]}}},
            "timeline": {"seconds_a_point": 1, "points": points},
        },
    })
}

#[test]
fn a_page_has_all_charts_needs_nothing_and_escapes_words() {
    let text = page(&sample());
    for title in [
        "Latency over time",
        "Latency by percentile",
        "Rate",
        "Connections",
        "Bytes a connection",
        "CPU of both sides",
        "Memory",
        "Operations by phase",
        "Host",
    ] {
        assert!(text.contains(title), "{title} is missing");
    }
    let namespace = "http://www.w3.org/2000/svg";
    assert!(!text.replace(namespace, "").contains("http"), "nothing is fetched");
    assert_eq!(text.matches("</script>").count(), 2, "no word ends a script");
    assert!(!text.contains("6.18 <b>") || text.contains("6.18 &lt;b&gt;"));
    assert!(!text.contains("NaN") && !text.contains("inf "));
}

#[test]
fn a_report_without_measurements_is_a_page_all_the_same() {
    let text = page(&json!({"schema": 1, "command": "x", "host": {"cores": 2}}));
    assert!(text.contains("moorgate-bench x") && !text.contains("<figure>"));
}

fn comparison() -> Value {
    let rounds = |us: f64| -> Vec<Value> {
        (0..15).map(|at| json!({"cpu_us_per_unit": us + f64::from(at % 3) * 0.1, "done": 9})).collect()
    };
    json!({
        "schema": 1, "command": "peers", "rounds": 15, "round_ms": 3000, "host": {"cores": 2},
        "versions": {"mosquitto": "2.0 <x>"}, "floor": "floor-uring: 2.1 us",
        "skipped": {"fanout_vs_nats": "nats-server is missing"},
        "raw": {"heartbeat_vs_mosquitto": {"ratio": 0.61, "low": 0.5, "high": 0.7, "must_be": "< 1", "is_met": true,
            "unit": "us of CPU a heartbeat", "ours": 3.1, "peer": 5.1, "peer_name": "mosquitto", "connections": 15000,
            "units_per_second": 40000.0, "ours_rounds": rounds(3.0), "peer_rounds": rounds(5.0),
            "generator_was_the_limit": true, "note": "ours & theirs"}},
    })
}

#[test]
fn a_comparison_has_its_ratios_and_a_chart_a_key() {
    let text = page(&comparison());
    for told in [
        "Ratios, ours by the peer",
        "<td>met, the generator was the limit",
        "ours &amp; theirs",
        "fanout_vs_nats was left out: nats-server is missing",
        "the floor is floor-uring: 2.1 us",
        "2.0 &lt;x&gt;",
    ] {
        assert!(text.contains(told), "{told} is missing");
    }
    assert_eq!(text.matches("<figure>").count(), 1);
    let mut worse = comparison();
    worse["raw"]["heartbeat_vs_mosquitto"]["is_met"] = false.into();
    assert!(page(&worse).contains("<td>not met"));
}
