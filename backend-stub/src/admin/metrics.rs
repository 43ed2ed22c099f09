//! The numbers as OpenMetrics text.

use std::fmt::Write as _;

use proto_wire::services;
use proto_wire::status::Code;

use crate::stats::{BUCKETS, CALLERS, CODES, Close, Histogram, MethodStats, Stats, StoreState};

/// All of them.
pub fn render(stats: &Stats) -> String {
    let mut text = String::with_capacity(32 * 1024);
    methods(&mut text, stats);
    connections(&mut text, stats);
    core(&mut text, stats);
    store(&mut text, stats);
    text.push_str("# EOF\n");
    text
}

/// Names every method, and what is counted for numbers that none has.
fn named(stats: &Stats) -> impl Iterator<Item = (String, &MethodStats)> {
    let known = services::METHODS.iter().map(|method| format!("{}.{}", method.service, method.name));
    known.chain(std::iter::once("unknown".to_owned())).zip(&stats.methods)
}

fn methods(text: &mut String, stats: &Stats) {
    head(text, "moorgate_backend_calls", "counter", "Calls that ended, by method and code.");
    for (name, method) in named(stats) {
        for code in 0..CODES {
            let (count, code) = (method.codes[code].value(), Code(code as u16).name());
            if count > 0 || code == "ok" {
                line(text, "moorgate_backend_calls_total", &[("method", &name), ("code", code)], count);
            }
        }
    }
    head(text, "moorgate_backend_callers", "counter", "Calls that ended, by method and calling service.");
    for (name, method) in named(stats) {
        for (caller, count) in CALLERS.iter().zip(&method.callers).filter(|(_, count)| count.value() > 0) {
            let labels = [("method", name.as_str()), ("caller", caller)];
            line(text, "moorgate_backend_callers_total", &labels, count.value());
        }
    }
    head(text, "moorgate_backend_call_in_bytes", "counter", "Bodies of requests.");
    for (name, method) in named(stats) {
        line(text, "moorgate_backend_call_in_bytes_total", &[("method", &name)], method.in_bytes.value());
    }
    head(text, "moorgate_backend_call_out_bytes", "counter", "Bodies of replies.");
    for (name, method) in named(stats) {
        line(text, "moorgate_backend_call_out_bytes_total", &[("method", &name)], method.out_bytes.value());
    }
    head(text, "moorgate_backend_queue_seconds", "histogram", "From arrival to the handler's first step.");
    for (name, method) in named(stats) {
        histogram(text, "moorgate_backend_queue_seconds", &name, &method.queue);
    }
    head(text, "moorgate_backend_service_seconds", "histogram", "From there to the answer.");
    for (name, method) in named(stats) {
        histogram(text, "moorgate_backend_service_seconds", &name, &method.service);
    }
}

fn connections(text: &mut String, stats: &Stats) {
    single(
        text,
        "moorgate_backend_connections",
        "gauge",
        "Connections of gateways.",
        stats.connections.value(),
    );
    single(text, "moorgate_backend_accepted", "counter", "Connections accepted.", stats.accepted.value());
    head(text, "moorgate_backend_closed", "counter", "Connections ended, by reason.");
    for close in Close::ALL {
        let count = stats.closes[*close as usize].value();
        line(text, "moorgate_backend_closed_total", &[("reason", close.name())], count);
    }
    for (name, what, count) in [
        ("moorgate_backend_in_bytes", "Bytes read.", &stats.in_bytes),
        ("moorgate_backend_out_bytes", "Bytes written.", &stats.out_bytes),
        ("moorgate_backend_reads", "Reads that gave something.", &stats.reads),
        ("moorgate_backend_writes", "Writes.", &stats.writes),
        ("moorgate_backend_turns", "Turns of the core.", &stats.turns),
        ("moorgate_backend_notifies", "Notify calls made.", &stats.notifies),
        ("moorgate_backend_notifies_failed", "Notify calls that did not end well.", &stats.notifies_failed),
        ("moorgate_backend_broadcasts", "Broadcast calls made, one a gateway.", &stats.broadcasts),
        (
            "moorgate_backend_broadcasts_failed",
            "Broadcast calls that did not end well.",
            &stats.broadcasts_failed,
        ),
        ("moorgate_backend_hashes_refused", "Sign-ups and log-ins refused for load.", &stats.hashes_refused),
    ] {
        single(text, name, "counter", what, count.value());
    }
}

fn core(text: &mut String, stats: &Stats) {
    let (core, _) = stats.published();
    for (name, what, value) in [
        ("moorgate_backend_users", "Users in memory.", core.users),
        ("moorgate_backend_online", "Routes of phones.", core.online),
        ("moorgate_backend_duties", "Duties that have not landed.", core.duties),
        ("moorgate_backend_unreadable_logs", "Users whose log cannot be read now.", core.unreadable_logs),
        (
            "moorgate_backend_set_aside",
            "Duties of groups and authors that wait for such logs.",
            core.set_aside,
        ),
        ("moorgate_backend_duties_stuck", "Duties that wait because they cannot be read.", core.duties_stuck),
    ] {
        single(text, name, "gauge", what, value);
    }
    for (name, what, value) in [
        ("moorgate_backend_rows", "Rows committed.", core.rows),
        ("moorgate_backend_sent", "Messages acknowledged for the first time.", core.sent),
        ("moorgate_backend_repeated", "Uploads answered again.", core.repeated),
        ("moorgate_backend_conflicts", "Upload ids used for another body.", core.conflicts),
        ("moorgate_backend_delivered", "Duties that landed.", core.delivered),
        ("moorgate_backend_recovered", "Duties found at start.", core.recovered),
        ("moorgate_backend_dead_letters", "Duties given up.", core.dead_letters),
        ("moorgate_backend_failed_batches", "Commits that failed.", core.failed_batches),
        ("moorgate_backend_void_numbers", "Numbers whose commit failed.", core.void_numbers),
        ("moorgate_backend_broken_chains", "Logs found with a hole.", core.broken_chains),
        ("moorgate_backend_pages", "Pages given.", core.pages),
        ("moorgate_backend_pages_from_memory", "Pages made without the disk.", core.pages_from_memory),
        (
            "moorgate_backend_pages_in_replies",
            "Answers of writes that carried what their senders lacked.",
            core.pages_in_replies,
        ),
        ("moorgate_backend_rows_swept", "Rows behind a horizon that went.", core.rows_swept),
        ("moorgate_backend_refused", "Calls refused for load.", core.refused),
        ("moorgate_backend_news", "News told.", core.news),
        ("moorgate_backend_news_inline", "News that carried their changes.", core.news_inline),
        ("moorgate_backend_news_swept", "News told again by the sweep.", core.news_swept),
        ("moorgate_backend_stale_routes", "Routes that a gateway called stale.", core.stale_routes),
        ("moorgate_backend_leases_ended", "Gateways whose lease ended.", core.leases_ended),
    ] {
        single(text, name, "counter", what, value);
    }
}

fn store(text: &mut String, stats: &Stats) {
    let (_, StoreState { is_full, waited }) = stats.published();
    for (name, what, value) in [
        (
            "moorgate_backend_disk_full",
            "1: the disk is full up to the reserve, writes are refused.",
            is_full.into(),
        ),
        ("moorgate_backend_commits_wait", "1: a commit waits for the engine.", waited.now.into()),
        ("moorgate_backend_memtable_bytes", "In memtables, open and sealed.", waited.memtable_bytes),
        (
            "moorgate_backend_sealed_memtables",
            "Memtables that are not in tables yet.",
            waited.sealed_memtables as u64,
        ),
        (
            "moorgate_backend_unmerged_tables",
            "Tables that are not merged yet.",
            waited.unmerged_tables as u64,
        ),
        ("moorgate_backend_merges_waiting", "Merges that wait for room on the disk.", waited.merges as u64),
    ] {
        single(text, name, "gauge", what, value);
    }
    for (name, what, value) in [
        ("moorgate_backend_commits_waited", "Group commits that waited for the engine.", waited.commits),
        ("moorgate_backend_commits_waited_ms", "How long they did, in milliseconds.", waited.ms),
        (
            "moorgate_backend_commits_slowed_ms",
            "Pauses between commits while merges are behind, in milliseconds.",
            waited.slowed_ms,
        ),
    ] {
        single(text, name, "counter", what, value);
    }
}

fn head(text: &mut String, name: &str, kind: &str, what: &str) {
    // A String grows as needed: writing to it cannot fail, here and below.
    let _ = writeln!(text, "# TYPE {name} {kind}\n# HELP {name} {what}");
}

fn single(text: &mut String, name: &str, kind: &str, what: &str, value: u64) {
    head(text, name, kind, what);
    let _ = writeln!(text, "{name}{} {value}", if kind == "counter" { "_total" } else { "" });
}

fn line(text: &mut String, name: &str, labels: &[(&str, &str)], value: u64) {
    let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
    let _ = writeln!(text, "{name}{{{}}} {value}", labels.join(","));
}

fn histogram(text: &mut String, name: &str, method: &str, histogram: &Histogram) {
    let mut below = 0;
    for (index, bucket) in histogram.buckets.iter().enumerate() {
        below += bucket.value();
        let bound = match index {
            last if last == BUCKETS - 1 => "+Inf".to_owned(),
            _ => format!("{}", (1u64 << index) as f64 / 1e6),
        };
        line(text, &format!("{name}_bucket"), &[("method", method), ("le", &bound)], below);
    }
    line(text, &format!("{name}_count"), &[("method", method)], below);
    let _ = writeln!(text, "{name}_sum{{method=\"{method}\"}} {}", histogram.sum_us.value() as f64 / 1e6);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_a_comment_or_a_name_and_a_number() {
        let stats = Stats::default();
        stats.method(0x0601).ended(Code::Ok);
        stats.method(0x0601).service.record(300);
        let text = render(&stats);
        assert!(text.contains("moorgate_backend_calls_total{method=\"Echo.Say\",code=\"ok\"} 1\n"), "{text}");
        assert!(text.contains("_service_seconds_bucket{method=\"Echo.Say\",le=\"0.000512\"} 1\n"), "{text}");
        assert!(text.ends_with("# EOF\n"));
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (_, number) = line.rsplit_once(' ').expect("a name and a number");
            assert!(number.parse::<f64>().is_ok(), "{line}");
        }
    }
}
