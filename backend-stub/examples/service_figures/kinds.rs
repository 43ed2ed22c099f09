//! Acknowledged changes a second by kind, and what a change costs until all that it brings about is on disk.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use backend_stub::logic::{Answer, Verb};
use proto_wire::pb;

use crate::host::Host;
use crate::load::{Call, Load, load};
use crate::report::Report;
use crate::town::{LONG, PREPARING, TEXT, befriend, make_group, mark, send, verb};

const USERS: u64 = 10_000;
const IN_FLIGHT: usize = 64;
const GROUPS: u64 = 200;
const GROUP_SIZE: u64 = 5;

/// Users who publish, and the contacts of each, who comment.
const AUTHORS: u64 = 200;
const CONTACTS: u64 = 20;

/// Messages that are written in order to be taken back: more than a few seconds need.
const RECALLED: u64 = 100_000;

struct Kinds<'a> {
    report: &'a Report,
    host: Host,
    time: Duration,
    only: Option<&'a str>,
}

pub fn run(report: &Report, dir: &Path, seconds: u64, only: Option<&str>) {
    let mut kinds = Kinds { report, host: Host::open(dir), time: Duration::from_secs(seconds), only };
    kinds.host.connect(1..=USERS);
    kinds.messages();
    kinds.group_messages();
    kinds.contacts();
    kinds.marks();
    kinds.recalls();
    kinds.moments();
    kinds.settings();
}

impl Kinds<'_> {
    fn wants(&self, kind: &str) -> bool {
        self.only.is_none_or(|only| only == kind)
    }

    fn measure(&mut self, next: impl FnMut(&mut Host) -> Option<Call>) -> Load {
        load(&mut self.host, IN_FLIGHT, self.time, next, |_, _| {})
    }

    fn tell(&self, kind: &str, load: &Load) {
        let changes = load.acknowledged.max(1) as f64;
        let us = |cpu: u64| cpu as f64 / changes;
        self.report.figure(
            kind,
            &[
                ("acknowledged_per_s", load.acknowledged as f64 / load.seconds),
                ("rows_a_change", load.rows as f64 / changes),
                ("queries_a_change", load.queries as f64 / changes),
                ("cpu_us_a_change", us(load.cpu.all())),
                ("logic_us", us(load.cpu.logic)),
                ("writer_us", us(load.cpu.writer)),
                ("reader_us", us(load.cpu.reader)),
                ("engine_us", us(load.cpu.engine)),
                ("waited_for_a_core_us", us(load.cpu.waited)),
                ("p50_us", load.latency_us(0.5)),
                ("p99_us", load.latency_us(0.99)),
                ("landing_ms", load.landing_ms),
                ("refused", load.refused as f64),
            ],
        );
    }

    /// Marks need what was sent here, so this one is always done.
    fn messages(&mut self) {
        let next = |host: &mut Host| {
            let (user, to) = (1 + host.random(USERS), 1 + host.random(USERS));
            Some(send(host, user, to))
        };
        self.measure(next);
        let load = self.measure(next);
        if self.wants("message") {
            self.tell("message", &load);
        }
    }

    fn group_messages(&mut self) {
        if !self.wants("group") {
            return;
        }
        let groups: Vec<(u64, u64)> = (0..GROUPS)
            .map(|at| {
                let first = 1 + at * GROUP_SIZE;
                let members: Vec<u64> = (first..first + GROUP_SIZE).collect();
                (make_group(&mut self.host, &members), first)
            })
            .collect();
        let load = self.measure(|host| {
            let (group, first) = groups[host.random(GROUPS) as usize];
            let user = first + host.random(GROUP_SIZE);
            Some(send(host, user, group))
        });
        self.tell("group message of 5", &load);
    }

    /// One asks, the other asks back, the first ends it: each is a change in both logs.
    fn contacts(&mut self) {
        if !self.wants("contact") {
            return;
        }
        let (mut made, pairs) = (0, USERS / 2);
        let load = self.measure(|host| {
            let (step, one) = (made / pairs % 3, 1 + made % pairs);
            let other = one + pairs;
            made += 1;
            let hello = "hello".to_owned();
            Some(match step {
                0 => verb(host, one, Verb::Ask { peer: other, hello }),
                1 => verb(host, other, Verb::Ask { peer: one, hello }),
                _ => verb(host, one, Verb::Remove { peer: other }),
            })
        });
        self.tell("contact change", &load);
    }

    fn marks(&mut self) {
        if !self.wants("mark") {
            return;
        }
        let mut made = 0;
        let load = self.measure(|host| {
            let (user, item) = (1 + made % USERS, 1 + made / USERS);
            made += 1;
            Some(mark(host, user, 1 + user % USERS, item))
        });
        self.tell("mark with its receipt", &load);
    }

    fn recalls(&mut self) {
        if !self.wants("recall") {
            return;
        }
        let (mut made, mut sent) = (0, Vec::new());
        let next = |host: &mut Host| {
            made += 1;
            let (user, to) = (1 + made % USERS, 1 + host.random(USERS));
            (made <= RECALLED).then(|| send(host, user, to))
        };
        load(&mut self.host, PREPARING, LONG, next, |user, answer| sent.extend(numbered(user, answer)));
        let mut sent = sent.into_iter();
        let load = self.measure(|host| {
            let (user, number) = sent.next()?;
            Some(verb(host, user, Verb::Recall { number }))
        });
        self.tell("recall", &load);
    }

    fn moments(&mut self) {
        if !self.wants("publish") && !self.wants("comment") {
            return;
        }
        let contact = |author: u64, at: u64| AUTHORS + 1 + (author - 1) * CONTACTS + at;
        let pairs: Vec<(u64, u64)> = (1..=AUTHORS)
            .flat_map(|author| (0..CONTACTS).map(move |at| (author, contact(author, at))))
            .collect();
        befriend(&mut self.host, &pairs);
        let mut newest = HashMap::new();
        let next = |host: &mut Host| {
            let author = 1 + host.random(AUTHORS);
            let post = pb::Post { text: TEXT.to_owned(), ..Default::default() };
            Some(verb(host, author, Verb::Publish { post }))
        };
        let published = load(&mut self.host, IN_FLIGHT, self.time, next, |user, answer| {
            newest.extend(numbered(user, answer))
        });
        if self.wants("publish") {
            self.tell("publish to 20 contacts", &published);
        }
        if self.wants("comment") {
            let said = self.measure(|host| {
                let author = 1 + host.random(AUTHORS);
                let from = contact(author, host.random(CONTACTS));
                let post = newest.get(&author).copied()?;
                let comment = pb::Comment { author, post, text: TEXT.to_owned(), ..Default::default() };
                Some(verb(host, from, Verb::Say { comment }))
            });
            self.tell("comment", &said);
        }
    }

    fn settings(&mut self) {
        if !self.wants("setting") {
            return;
        }
        let load = self.measure(|host| {
            let (user, key) = (1 + host.random(USERS), format!("setting {}", host.random(8)));
            let value = format!("value {}", host.random(1000));
            Some(verb(host, user, Verb::SetSetting { key, value }))
        });
        self.tell("setting", &load);
    }
}

fn numbered(user: u64, answer: &Answer) -> Option<(u64, u64)> {
    match answer {
        Answer::Sent(reply, _) => Some((user, reply.number.unwrap_or_default().number)),
        _ => None,
    }
}
