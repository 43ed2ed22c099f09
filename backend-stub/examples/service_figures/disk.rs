//! Room on the disk, and starts after an abort. What is written is written by a process of its own, because it ends
//! in an abort, as a killed backend does.

use std::path::Path;
use std::process::{Command, abort};
use std::time::Instant;
use std::{env, fs};

use backend_stub::storage::embedded::{self, Options};
use proto_wire::pb;

use crate::host::{Host, fail, forget_pages};
use crate::load::{Call, load};
use crate::report::{Report, disk_bytes, own_bytes};
use crate::town::{LONG, TEXT, send};

/// Sends under way while the store is filled.
const FILLING: usize = 2_000;

/// The design point: 10 million users with 100 changes each.
const DESIGN_CHANGES: f64 = 1e9;

pub fn disk(report: &Report, dir: &Path, users: u64, changes: u64) {
    run_to_abort(report, "fill", dir, &[users, changes]);
    filled(report, dir, users, changes);
}

/// What `fill` left.
pub fn filled(report: &Report, dir: &Path, users: u64, changes: u64) {
    let (rows, options) = ((users * changes) as f64, Options::new(dir));
    let (before, journals) = disk_bytes(dir);
    report.figure(
        "disk before a compaction",
        &[("bytes_a_change", before / rows), ("bytes", before), ("of_that_journal", journals)],
    );
    started(report, "start after an abort, files in the kernel's cache", Host::open(dir));
    forget_pages(dir);
    started(report, "start with a cold cache", Host::open(dir));
    let compacting = Instant::now();
    embedded::compact(&options, |_, _| {}).unwrap_or_else(|error| fail(&error.to_string()));
    let took_s = compacting.elapsed().as_secs_f64();
    let (after, _) = disk_bytes(dir);
    report.figure(
        "disk after a compaction",
        &[("bytes_a_change", after / rows), ("bytes", after), ("compaction_s", took_s)],
    );
    forget_pages(dir);
    started(report, "start after a compaction, cold", Host::open(dir));
    report.figure(
        "10 M users with 100 changes each, by arithmetic",
        &[
            ("gb_before", before / rows * DESIGN_CHANGES / 1e9),
            ("gb_after", after / rows * DESIGN_CHANGES / 1e9),
        ],
    );
}

fn started(report: &Report, name: &str, host: Host) {
    report.figure(
        name,
        &[
            ("opened_ms", host.opening.as_secs_f64() * 1000.0),
            ("recovered_ms", host.recovering.as_secs_f64() * 1000.0),
            ("process_bytes", own_bytes()),
            ("users_in_memory", host.core.counters().users as f64),
        ],
    );
}

/// Messages between any two users, so that each log gets as many changes on average.
pub fn fill(report: &Report, dir: &Path, users: u64, changes: u64) {
    let mut host = Host::open(dir);
    let (mut left, start) = (users * changes / 2, Instant::now());
    let next = |host: &mut Host| {
        left = left.checked_sub(1)?;
        let (user, to) = (1 + host.random(users), 1 + host.random(users - 1));
        Some(send(host, user, if to == user { users } else { to }))
    };
    let load = load(&mut host, FILLING, LONG, next, |_, _| {});
    let changes = load.acknowledged.max(1) as f64;
    report.figure(
        "fill",
        &[
            ("messages", changes),
            ("rows", load.rows as f64),
            ("refused", load.refused as f64),
            ("messages_per_s", changes / start.elapsed().as_secs_f64()),
            ("cpu_us_a_message", load.cpu.all() as f64 / changes),
            ("process_bytes", own_bytes()),
            ("users_in_memory", host.core.counters().users as f64),
            ("p50_us", load.latency_us(0.5)),
            ("p99.9_us", load.latency_us(0.999)),
            ("max_us", load.latency_us(1.0)),
            ("longest_turn_us", host.longest_turn.as_secs_f64() * 1e6),
            ("longest_turn_cpu_us", host.longest_turn_cpu.as_secs_f64() * 1e6),
        ],
    );
    abort();
}

pub fn recovery(report: &Report, dir: &Path, duties: u64) {
    run_to_abort(report, "pend", dir, &[duties]);
    let mut host = Host::open(dir);
    let found = host.core.counters().recovered;
    let landing = Instant::now();
    host.drain();
    let counters = host.core.counters();
    report.figure(
        "start with duties left",
        &[
            ("duties", found as f64),
            ("opened_ms", host.opening.as_secs_f64() * 1000.0),
            ("recovered_ms", host.recovering.as_secs_f64() * 1000.0),
            ("all_landed_ms_later", landing.elapsed().as_secs_f64() * 1000.0),
            ("landed", counters.delivered as f64),
            ("process_bytes", own_bytes()),
        ],
    );
}

/// Sends that are on disk, and of which the core never hears: their duties are left. Whoever sends is in memory
/// already, and sends once, so that no read is needed.
pub fn pend(dir: &Path, duties: u64) {
    let mut host = Host::open(dir);
    let mut user = 0;
    let next = |host: &mut Host| {
        user += 1;
        let token = (user <= 2 * duties).then(|| {
            host.call(|core, at, token| core.pull(at, token, user, 1, &pb::PullRequest::default()))
        })?;
        Some(Call { token, user })
    };
    load(&mut host, 256, LONG, next, |_, _| {});
    host.store.holds = true;
    for user in 1..=duties {
        let (id, text) = (host.upload_id(), TEXT.to_owned());
        let request = pb::SendRequest { id, to: duties + user, text, ..Default::default() };
        host.call(|core, at, token| core.send(at, token, user, 1, &request));
        // Batches of some size: the core keeps eight on their way, and what gathers is bounded.
        if user % (duties / 8).max(1) == 0 {
            host.turn();
        }
    }
    host.turn();
    while host.store.committed < host.store.submitted {
        host.turn();
    }
    let refused = host.take_ended().len();
    if refused > 0 {
        eprintln!("{refused} sends were refused: fewer duties are left");
    }
    abort();
}

fn run_to_abort(report: &Report, name: &str, dir: &Path, args: &[u64]) {
    if fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
        fail(&format!("{} is not empty", dir.display()));
    }
    let program = env::current_exe().unwrap_or_else(|error| fail(&error.to_string()));
    let mut command = Command::new(program);
    command.arg(name).arg(dir).args(args.iter().map(u64::to_string));
    if report.json {
        command.arg("--json");
    }
    if let Err(error) = command.status() {
        fail(&format!("{name} does not start: {error}"));
    }
}
