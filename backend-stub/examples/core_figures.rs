//! How many messages a second core and store do together, and what each costs in CPU.
//!
//! `core_figures DIR SECONDS IN_FLIGHT`: 10 000 users with a route, the mix of the chat bench (90 % one to
//! one, 8 % to groups of 5, 1.5 % of 50, 0.5 % of 200), so many sends in flight. News are answered at
//! once; phones apply inline pages and pull without one. One logic thread, the store's own threads.

use std::collections::HashMap;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{env, fs, process};

use backend_stub::logic::{Action, Answer, At, Core, CoreConfig};
use backend_stub::storage::ChangeLog;
use backend_stub::storage::embedded::{Embedded, Options};
use proto_wire::names::{Cursor, UploadId};
use proto_wire::pb;

const USERS: u64 = 10_000;

struct Bench {
    core: Core,
    store: Embedded,
    woken: Receiver<()>,
    start: Instant,
    unix_start_ms: u64,
    random: u64,
    tokens: u64,
    groups: Vec<Vec<(u64, Vec<u64>)>>,
    started: HashMap<u64, Instant>,
    latencies_us: Vec<u32>,
    made: Vec<u64>,
    in_flight: usize,
    acknowledged: u64,
    refused: u64,
    /// The highest token that was answered.
    answered: u64,
}

fn main() {
    let args: Vec<String> = env::args().collect();
    let [_, dir, seconds, in_flight] = &args[..] else {
        eprintln!("core_figures DIR SECONDS IN_FLIGHT");
        process::exit(2);
    };
    let (seconds, in_flight): (u64, usize) =
        (seconds.parse().expect("seconds are a number"), in_flight.parse().expect("in flight is a number"));
    let mut bench = Bench::new(Path::new(dir));
    bench.connect();
    bench.make_groups();
    bench.load(Duration::from_secs(2), in_flight);
    bench.latencies_us.clear();
    let (before, rows, cpu, from) =
        (bench.acknowledged, bench.core.counters().rows, cpu_us(), Instant::now());
    bench.load(Duration::from_secs(seconds), in_flight);
    let (took, sent) = (from.elapsed().as_secs_f64(), bench.acknowledged - before);
    let rows = bench.core.counters().rows - rows;
    println!("{:.0} messages/s acknowledged, {:.0} rows/s", sent as f64 / took, rows as f64 / took);
    println!("{:.1} us of CPU a message in all threads", (cpu_us() - cpu) as f64 / sent as f64);
    bench.latencies_us.sort_unstable();
    let quantile = |q: f64| bench.latencies_us[((bench.latencies_us.len() - 1) as f64 * q) as usize];
    println!("ack latency p50 {} us, p99 {} us, max {} us", quantile(0.5), quantile(0.99), quantile(1.0));
    println!("refused {}, {:?}", bench.refused, bench.core.counters());
    for thread in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let read = |name: &str| fs::read_to_string(thread.path().join(name)).unwrap_or_default();
        let stat = read("schedstat");
        let ns: u64 = stat.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0);
        println!("  thread {:20} {:.2} s of CPU", read("comm").trim(), ns as f64 / 1e9);
    }
}

/// CPU of the process so far, from the scheduler's own counts.
fn cpu_us() -> u64 {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    tasks
        .filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|stat| stat.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()))
        .sum::<u64>()
        / 1000
}

impl Bench {
    fn new(dir: &Path) -> Self {
        let (wake, woken) = channel();
        // For trying other sizes: the engine's threads, and a memtable's MiB.
        let mut options = Options::new(dir);
        let setting = |name| env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
        options.worker_threads = setting("WORKERS").map_or(options.worker_threads, |count| count as usize);
        options.memtable_bytes = setting("MEMTABLE_MIB").map_or(options.memtable_bytes, |mib| mib << 20);
        let opened = Embedded::open(&options, |_| {
            let wake = wake.clone();
            Box::new(move || {
                let _ = wake.send(());
            })
        });
        let (store, opened) = opened.unwrap_or_else(|error| {
            eprintln!("{error}");
            process::exit(1);
        });
        let unix_start_ms =
            SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_millis() as u64;
        let config = CoreConfig {
            owner_epoch: opened.owner_epoch,
            ..CoreConfig::new(1, unix_start_ms, store.partitions())
        };
        let core = Core::new(config);
        let mut bench = Self {
            core,
            store,
            woken,
            start: Instant::now(),
            unix_start_ms,
            random: unix_start_ms,
            tokens: 0,
            groups: vec![Vec::new(); 3],
            started: HashMap::new(),
            latencies_us: Vec::new(),
            made: Vec::new(),
            in_flight: 0,
            acknowledged: 0,
            refused: 0,
            answered: 0,
        };
        while !bench.core.is_ready() {
            bench.turn(true);
        }
        bench
    }

    fn at(&self) -> At {
        let now_ms = self.start.elapsed().as_millis() as u64;
        At { now_ms, unix_ms: self.unix_start_ms + now_ms }
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.random >> 33) % below
    }

    fn connect(&mut self) {
        for from in (1..=USERS).step_by(500) {
            let online = (from..from + 500)
                .map(|user| pb::Online {
                    user,
                    device: 1,
                    slot: user as u32,
                    generation: 1,
                    counter: u32::MAX,
                    log_epoch: 1,
                    applied: 0,
                })
                .collect();
            let request = pb::ReportRequest { gateway: 1, shard: 0, online, ..Default::default() };
            self.tokens += 1;
            self.core.report(self.at(), self.tokens, &request);
            self.settle();
        }
    }

    fn make_groups(&mut self) {
        for (kind, size) in [5u64, 50, 200].into_iter().enumerate() {
            for _ in 0..50 {
                let first = 1 + self.random(USERS - size);
                let members: Vec<u64> = (first..first + size).collect();
                let id = self.upload_id();
                let request = pb::CreateGroupRequest { id, name: "g".into(), members: members.clone() };
                self.tokens += 1;
                self.core.create_group(self.at(), self.tokens, first, &request);
                let group = loop {
                    self.turn(true);
                    if let Some(group) = self.made.pop() {
                        break group;
                    }
                };
                self.groups[kind].push((group, members));
            }
        }
    }

    fn upload_id(&mut self) -> bytes::Bytes {
        let mut random = [0; 10];
        random[..8].copy_from_slice(&(self.random(u64::MAX) << 20 | self.tokens).to_le_bytes());
        random[8..].copy_from_slice(&(self.tokens as u16).to_le_bytes());
        bytes::Bytes::copy_from_slice(&UploadId::new(self.at().unix_ms, random).0)
    }

    /// Until the last call was answered.
    fn settle(&mut self) {
        while self.answered < self.tokens {
            self.turn(true);
        }
    }

    fn load(&mut self, time: Duration, in_flight: usize) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            while self.in_flight < in_flight {
                self.send();
            }
            self.turn(true);
        }
        while self.in_flight > 0 {
            self.turn(true);
        }
    }

    fn send(&mut self) {
        let dice = self.random(1000);
        let kind = match dice {
            0..900 => None,
            900..980 => Some(0),
            980..995 => Some(1),
            _ => Some(2),
        };
        let (from, to) = match kind {
            None => (1 + self.random(USERS), 1 + self.random(USERS)),
            Some(kind) => {
                let (index, member) = (self.random(50) as usize, self.random(5) as usize);
                let (group, members) = &self.groups[kind][index];
                (members[member], *group)
            }
        };
        let id = self.upload_id();
        self.tokens += 1;
        let token = self.tokens;
        self.started.insert(token, Instant::now());
        self.in_flight += 1;
        let text = "a message of some forty characters or so".to_owned();
        self.core.send(self.at(), token, from, 0, &pb::SendRequest { id, to, text, ..Default::default() });
    }

    fn turn(&mut self, waits: bool) {
        let at = self.at();
        let mut done = Vec::new();
        self.store.poll(&mut done);
        done.into_iter().for_each(|completion| self.core.handle_completion(at, completion));
        let mut moved = false;
        while let Some(action) = self.core.poll_action(at) {
            moved = true;
            match action {
                Action::Submit { partition, batch } => {
                    self.store.submit(partition, batch).expect("the core bounds its batches")
                }
                Action::Read { partition, read } => {
                    self.store.read(partition, read).expect("the core bounds its reads")
                }
                Action::Answer { token, answer } => self.answered(token, answer),
                Action::Notify { token, request, .. } => self.notified(at, token, &request),
                Action::Log(line) => println!("{line}"),
            }
        }
        if !moved && waits {
            let _ = self.woken.recv_timeout(Duration::from_millis(10));
        }
    }

    fn answered(&mut self, token: u64, answer: Result<Answer, proto_wire::status::Status>) {
        self.answered = self.answered.max(token);
        if let Some(started) = self.started.remove(&token) {
            self.in_flight -= 1;
            self.latencies_us.push(started.elapsed().as_micros() as u32);
        }
        match answer {
            Ok(Answer::Sent(..)) => self.acknowledged += 1,
            Ok(Answer::Group(reply)) => self.made.push(reply.group),
            Ok(_) => {}
            Err(status) => {
                self.refused += 1;
                if self.refused < 10 {
                    println!("{status}");
                }
            }
        }
    }

    fn notified(&mut self, at: At, token: u64, request: &pb::NotifyRequest) {
        self.core.handle_notify_result(at, token, Ok(&pb::NotifyReply::default()));
        for news in &request.news {
            let user = u64::from(news.slot);
            if news.page.is_empty() {
                self.tokens += 1;
                let cursor = Some(pb::Cursor { log_epoch: 1, number: news.newest.saturating_sub(1) });
                self.core.pull(at, self.tokens, user, 1, &pb::PullRequest { cursor, ..Default::default() });
            }
            self.core.applied(user, 1, Cursor::new(1, news.newest));
        }
    }
}
