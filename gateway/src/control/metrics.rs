//! The counters of all shards as OpenMetrics text.

use std::fmt::Write;

use proto_wire::close::Reason;
use proto_wire::status::Code;

use super::memory::bytes_by_state;
use super::serve::Running;
use crate::shard::counters::{CODES, Counters, TURN_BOUNDS_US};

/// Everything, as Prometheus reads it. Writing to a `String` cannot fail, so its results are dropped.
pub fn render(running: &Running) -> String {
    let mut text = String::with_capacity(16 * 1024);
    let counters = &running.counters;
    plain(&mut text, counters);
    by_label(&mut text, counters, "closed", "reason", "Connections closed.", |counters| {
        Reason::ALL
            .iter()
            .zip(&counters.closed)
            .map(|(reason, count)| (reason.name(), count.value()))
            .collect()
    });
    by_label(&mut text, counters, "replies", "code", "Replies to phones.", |counters| {
        let name = |at: usize| if at + 1 == CODES { "other" } else { Code(at as u16).name() };
        counters.replies.iter().enumerate().map(|(at, count)| (name(at), count.value())).collect()
    });
    turns(&mut text, counters);
    let _ = writeln!(
        text,
        "# TYPE moorgate_connection_bytes gauge\n# HELP moorgate_connection_bytes Memory of connections, by state."
    );
    for (state, bytes) in bytes_by_state(counters).each() {
        let _ = writeln!(text, "moorgate_connection_bytes{{state=\"{state}\"}} {bytes}");
    }
    if let Some(unknown) = running.unknown.established_minus_sessions(running) {
        let help = "Connections established in the kernel minus sessions here: near 0.";
        let name = "moorgate_established_minus_sessions";
        let _ = writeln!(text, "# TYPE {name} gauge\n# HELP {name} {help}\n{name} {unknown}");
    }
    gauge(&mut text, "resident_bytes", "Memory of this process.", resident_bytes());
    gauge(&mut text, "uptime_seconds", "Since the start.", running.started.elapsed().as_secs());
    text.push_str("# EOF\n");
    text
}

/// RssAnon + RssShmem + VmSwap + HugetlbPages.
pub fn resident_bytes() -> u64 {
    tuning::proc_memory(std::process::id()).unwrap_or(0)
}

fn plain(text: &mut String, shards: &[std::sync::Arc<Counters>]) {
    let each: Vec<_> = shards.iter().map(|counters| counters.each()).collect();
    let Some(first) = each.first() else { return };
    for (at, (name, is_total, help, _)) in first.iter().enumerate() {
        let (kind, suffix) = if *is_total { ("counter", "_total") } else { ("gauge", "") };
        let _ = writeln!(text, "# TYPE moorgate_{name} {kind}\n# HELP moorgate_{name} {help}");
        for (shard, counters) in each.iter().enumerate() {
            let _ = writeln!(text, "moorgate_{name}{suffix}{{shard=\"{shard}\"}} {}", counters[at].3);
        }
    }
}

/// Summed over shards: the labels are many.
fn by_label(
    text: &mut String,
    shards: &[std::sync::Arc<Counters>],
    name: &str,
    label: &str,
    help: &str,
    values: impl Fn(&Counters) -> Vec<(&'static str, u64)>,
) {
    let _ = writeln!(text, "# TYPE moorgate_{name} counter\n# HELP moorgate_{name} {help}");
    let all: Vec<_> = shards.iter().map(|counters| values(counters)).collect();
    let Some(first) = all.first() else { return };
    for (at, (value, _)) in first.iter().enumerate() {
        let sum: u64 = all.iter().map(|values| values[at].1).sum();
        let _ = writeln!(text, "moorgate_{name}_total{{{label}=\"{value}\"}} {sum}");
    }
}

fn turns(text: &mut String, shards: &[std::sync::Arc<Counters>]) {
    let help = "Time of a shard's turn, without the wait for work.";
    let _ = writeln!(text, "# TYPE moorgate_turn_seconds histogram\n# HELP moorgate_turn_seconds {help}");
    let mut below = 0;
    for at in 0..=TURN_BOUNDS_US.len() {
        below += shards.iter().map(|counters| counters.turns[at].value()).sum::<u64>();
        let bound = TURN_BOUNDS_US.get(at).map_or("+Inf".to_owned(), |&us| (us as f64 / 1e6).to_string());
        let _ = writeln!(text, "moorgate_turn_seconds_bucket{{le=\"{bound}\"}} {below}");
    }
    let us: u64 = shards.iter().map(|counters| counters.turn_us.value()).sum();
    let _ =
        writeln!(text, "moorgate_turn_seconds_count {below}\nmoorgate_turn_seconds_sum {}", us as f64 / 1e6);
}

fn gauge(text: &mut String, name: &str, help: &str, value: u64) {
    let _ = writeln!(
        text,
        "# TYPE moorgate_{name} gauge\n# HELP moorgate_{name} {help}\nmoorgate_{name} {value}"
    );
}
