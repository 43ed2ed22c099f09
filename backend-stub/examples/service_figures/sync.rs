//! What phones get that lack changes, or all of them.

use std::path::Path;
use std::time::Instant;

use backend_stub::logic::Answer;
use bytes::Bytes;
use proto_wire::pb;

use crate::host::{Host, fail};
use crate::report::{Report, quantile, read_from_disk_bytes};
use crate::town::fill_log;

const USER: u64 = 1;

/// Phones that lack nothing.
const IDLE: u64 = 10_000;

/// All pages of a sync.
#[derive(Default)]
struct Synced {
    us: f64,
    bytes: usize,
    pages: u64,
    changes: usize,
    upto: u64,
    queries: u64,
    slowest_page_us: f64,
    disk_bytes: f64,
    is_snapshot: bool,
}

fn pull_all(host: &mut Host, user: u64, from: pb::Cursor) -> Synced {
    let (disk_bytes, queries, start) = (read_from_disk_bytes(), host.store.queries, Instant::now());
    let mut synced = Synced::default();
    let (mut cursor, mut snapshot_at) = (from, Bytes::new());
    loop {
        let page_start = Instant::now();
        let request = pb::PullRequest {
            cursor: Some(cursor),
            snapshot_at: std::mem::take(&mut snapshot_at),
            ..Default::default()
        };
        let answer = host.ask(|core, at, token| core.pull(at, token, user, 1, &request));
        let Answer::Page(answer) = answer else { fail("a page was asked for") };
        synced.slowest_page_us = synced.slowest_page_us.max(page_start.elapsed().as_secs_f64() * 1e6);
        synced.us = start.elapsed().as_secs_f64() * 1e6;
        let page = answer.to_page();
        synced.bytes += answer.bytes.len();
        synced.pages += 1;
        synced.changes += page.changes.len();
        synced.upto = page.upto;
        synced.is_snapshot |= page.snapshot;
        if !page.more {
            break;
        }
        snapshot_at = page.snapshot_next;
        if snapshot_at.is_empty() {
            cursor = pb::Cursor { log_epoch: page.log_epoch, number: page.upto };
        }
    }
    synced.queries = host.store.queries - queries;
    synced.disk_bytes = read_from_disk_bytes() - disk_bytes;
    synced
}

fn tell(report: &Report, name: &str, synced: &Synced) {
    report.figure(
        name,
        &[
            ("us", synced.us),
            ("slowest_page_us", synced.slowest_page_us),
            ("bytes", synced.bytes as f64),
            ("pages", synced.pages as f64),
            ("changes", synced.changes as f64),
            ("queries", synced.queries as f64),
            ("read_from_disk_bytes", synced.disk_bytes),
            ("snapshot", f64::from(u8::from(synced.is_snapshot))),
        ],
    );
}

pub fn sync(report: &Report, dir: &Path) {
    let mut host = Host::open(dir);
    // Others write as well: their rows lie between.
    for other in 100..110 {
        fill_log(&mut host, other, 2_000);
    }
    fill_log(&mut host, USER, 11_000);
    let newest = pull_all(&mut host, USER, pb::Cursor { log_epoch: 1, number: 0 }).upto;
    let behind = |missing: u64| pb::Cursor { log_epoch: 1, number: newest - missing };
    for missing in [1, 100, 10_000] {
        let synced = pull_all(&mut host, USER, behind(missing));
        tell(report, &format!("sync of {missing}, hot"), &synced);
    }
    for missing in [1, 100, 10_000] {
        host = host.cold(dir);
        let synced = pull_all(&mut host, USER, behind(missing));
        tell(report, &format!("sync of {missing}, cold"), &synced);
    }
    idle(report, &mut host);
}

/// Users of whom nothing is new.
fn idle(report: &Report, host: &mut Host) {
    let queries = host.store.queries;
    host.connect(1_000..1_000 + IDLE);
    report.figure(
        "first report of a session",
        &[("queries_each", (host.store.queries - queries) as f64 / IDLE as f64)],
    );
    let (mut took_ns, disk_bytes) = (Vec::new(), read_from_disk_bytes());
    let queries = host.store.queries;
    let nothing = pb::Cursor { log_epoch: 1, number: 0 };
    for user in 1_000..1_000 + IDLE {
        let start = Instant::now();
        let request = pb::PullRequest { cursor: Some(nothing), ..Default::default() };
        host.ask(|core, at, token| core.pull(at, token, user, 1, &request));
        took_ns.push(start.elapsed().as_nanos() as u32);
    }
    took_ns.sort_unstable();
    // The walk over old ids reads too, in its own time; it asks for nothing of these pulls.
    report.figure(
        "sync of an idle user",
        &[
            ("users", IDLE as f64),
            ("queries_of_all", (host.store.queries - queries) as f64),
            ("read_from_disk_bytes", read_from_disk_bytes() - disk_bytes),
            ("p50_ns", quantile(&took_ns, 0.5)),
            ("p99_ns", quantile(&took_ns, 0.99)),
        ],
    );
}

pub fn snapshot(report: &Report, dir: &Path) {
    let mut host = Host::open(dir);
    for other in 100..110 {
        fill_log(&mut host, other, 2_000);
    }
    fill_log(&mut host, USER, 20_000);
    // A cursor of a log that is no more.
    let elsewhere = pb::Cursor { log_epoch: 99, number: 5 };
    let synced = pull_all(&mut host, USER, elsewhere);
    tell(report, "snapshot of 20 000 items, hot", &synced);
    let mut host = host.cold(dir);
    let synced = pull_all(&mut host, USER, elsewhere);
    tell(report, "snapshot of 20 000 items, cold", &synced);
    let synced = pull_all(&mut host, USER, elsewhere);
    tell(report, "snapshot of 20 000 items, cold, once more", &synced);
}
