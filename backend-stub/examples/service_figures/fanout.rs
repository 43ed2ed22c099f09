//! One message for 500 members, one moment for 5 000 contacts; and what others feel of it.

use std::path::Path;
use std::time::{Duration, Instant};

use backend_stub::logic::Verb;
use proto_wire::pb;

use crate::host::Host;
use crate::load::load;
use crate::report::{Report, quantile};
use crate::town::{LONG, TEXT, befriend, make_group, send, verb};

const MEMBERS: u64 = 500;
const CONTACTS: u64 = 5_000;
const AUTHOR: u64 = 10_000;

/// Sends to another meanwhile, one after the other.
const OTHER: u64 = 50_000;

/// Whom many ask at once.
const ASKED: u64 = 100_000;

/// How often each is done while all is in memory.
const TIMES: usize = 20;

pub fn run(report: &Report, dir: &Path) {
    let mut host = Host::open(dir);
    let members: Vec<u64> = (1..=MEMBERS).collect();
    let group = make_group(&mut host, &members);
    let pairs: Vec<(u64, u64)> = (1..=CONTACTS).map(|at| (AUTHOR, AUTHOR + at)).collect();
    befriend(&mut host, &pairs);

    rush(report, &mut host);
    host = host.cold(dir);
    report.figure("group of 500, cold", &[("ms", to_group(&mut host, group))]);
    let took: Vec<f64> = (0..TIMES).map(|_| to_group(&mut host, group)).collect();
    report.figure("group of 500", &[("ms_median", median(&took)), ("ms_max", max(&took))]);

    alone(report, &mut host);
    host = host.cold(dir);
    // The last of the contacts is connected, so that it is told; the second user is in memory.
    host.watched = AUTHOR + CONTACTS;
    host.connect([AUTHOR + CONTACTS, OTHER].into_iter());
    send_until(&mut host, |_, sent| sent > 10);
    let told = to_contacts(&mut host);
    told.tell(report, "moment for 5 000 contacts, cold");
    let told: Vec<Told> = (0..TIMES).map(|_| to_contacts(&mut host)).collect();
    let mut all =
        Told { ms: median(&told.iter().map(|told| told.ms).collect::<Vec<_>>()), ..Told::default() };
    for one in told {
        all.sends_us.extend(one.sends_us);
        all.longest_turn = all.longest_turn.max(one.longest_turn);
    }
    all.tell(report, "moment for 5 000 contacts");
}

/// As many as may be contacts ask one user at once, of whom none of them is known.
fn rush(report: &Report, host: &mut Host) {
    let (start, rows) = (Instant::now(), host.core.counters().rows);
    host.longest_turn = Duration::ZERO;
    let mut asked = 0;
    let next = |host: &mut Host| {
        asked += 1;
        let ask = Verb::Ask { peer: ASKED, hello: "hello".to_owned() };
        (asked <= CONTACTS).then(|| verb(host, ASKED + asked, ask))
    };
    let load = load(host, CONTACTS as usize, LONG, next, |_, _| {});
    report.figure(
        "5 000 users ask one",
        &[
            ("ms", start.elapsed().as_secs_f64() * 1000.0),
            ("landing_ms", load.landing_ms),
            ("rows", (host.core.counters().rows - rows) as f64),
            ("logic_us_each", load.cpu.logic as f64 / CONTACTS as f64),
            ("longest_turn_us", host.longest_turn.as_secs_f64() * 1e6),
        ],
    );
}

/// Until the rows of all members and the sender's are on disk.
fn to_group(host: &mut Host, group: u64) -> f64 {
    let (start, rows) = (Instant::now(), host.core.counters().rows);
    send(host, 1, group);
    while host.core.counters().rows < rows + 1 + MEMBERS {
        host.turn();
    }
    let took = start.elapsed();
    host.drain();
    took.as_secs_f64() * 1000.0
}

#[derive(Default)]
struct Told {
    ms: f64,
    /// Sends of another user meanwhile.
    sends_us: Vec<u32>,
    longest_turn: Duration,
}

/// Until the last contact's row is on disk.
fn to_contacts(host: &mut Host) -> Told {
    let (start, rows) = (Instant::now(), host.core.counters().rows);
    (host.watched_told, host.longest_turn) = (None, Duration::ZERO);
    let post = pb::Post { text: TEXT.to_owned(), ..Default::default() };
    verb(host, AUTHOR, Verb::Publish { post });
    let sends_us = send_until(host, |host, _| host.watched_told.is_some());
    let ms = host.watched_told.map_or(0.0, |told| (told - start).as_secs_f64() * 1000.0);
    host.drain();
    let sends = sends_us.len() as u64;
    let landed = host.core.counters().rows - rows;
    assert!(landed >= 1 + CONTACTS + 2 * sends, "{landed} rows for all contacts and {sends} sends");
    Told { ms, sends_us, longest_turn: host.longest_turn }
}

/// The second user's sends without a moment under way.
fn alone(report: &Report, host: &mut Host) {
    host.longest_turn = Duration::ZERO;
    let sends_us = send_until(host, |_, sent| sent == 500);
    Told { ms: 0.0, sends_us, longest_turn: host.longest_turn }.tell(report, "no moment under way");
}

fn send_until(host: &mut Host, is_over: impl Fn(&Host, usize) -> bool) -> Vec<u32> {
    let mut took_us = Vec::new();
    while !is_over(host, took_us.len()) {
        let start = Instant::now();
        let token = send(host, OTHER, OTHER + 1).token;
        let ended = loop {
            host.turn();
            if let Some(ended) = host.take_ended().into_iter().find(|ended| ended.token == token) {
                break ended;
            }
        };
        took_us.push((ended.at - start).as_micros() as u32);
    }
    took_us
}

impl Told {
    fn tell(mut self, report: &Report, name: &str) {
        self.sends_us.sort_unstable();
        report.figure(
            name,
            &[
                ("ms", self.ms),
                ("sends_meanwhile", self.sends_us.len() as f64),
                ("send_p50_us", quantile(&self.sends_us, 0.5)),
                ("send_p99_us", quantile(&self.sends_us, 0.99)),
                ("send_max_us", quantile(&self.sends_us, 1.0)),
                ("longest_turn_us", self.longest_turn.as_secs_f64() * 1e6),
            ],
        );
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn max(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}
