//! What users cost in memory: connected, with a hot tail, and when they are gone for long.

use std::path::Path;

use crate::host::Host;
use crate::load::load;
use crate::report::{Report, own_bytes};
use crate::town::{LONG, PREPARING, send};

/// The lease of the gateway ends, and the users are idle for longer than they stay.
const AWAY_MS: u64 = 20 * 60_000;
const STEP_MS: u64 = 500;

pub fn run(report: &Report, dir: &Path, users: u64) {
    let mut host = Host::open(dir);
    let of_users = |bytes: f64| bytes / users as f64;
    let empty = own_bytes();
    host.connect(1..=users);
    let connected = own_bytes();
    report.figure(
        "connected users with empty logs",
        &[("users", host.core.counters().users as f64), ("bytes_each", of_users(connected - empty))],
    );
    let mut to = 0;
    let next = |host: &mut Host| {
        to += 1;
        (to <= users).then(|| send(host, 1 + to % users, to))
    };
    load(&mut host, PREPARING, LONG, next, |_, _| {});
    host.skipped_ms += STEP_MS;
    host.turn();
    let counters = *host.core.counters();
    report.figure(
        "two changes each",
        &[
            ("users", counters.users as f64),
            ("hot_bytes", counters.hot_bytes as f64),
            ("hot_bytes_a_change", counters.hot_bytes as f64 / counters.rows.max(1) as f64),
            ("process_bytes", own_bytes()),
        ],
    );
    let end = host.skipped_ms + AWAY_MS;
    while host.skipped_ms < end {
        host.skipped_ms += STEP_MS;
        host.turn();
    }
    report.figure(
        "20 minutes after their gateway went",
        &[("users_in_memory", host.core.counters().users as f64), ("process_bytes", own_bytes())],
    );
}
