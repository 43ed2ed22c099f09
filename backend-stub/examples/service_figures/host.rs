//! The core and its store, turned as the backend's loop turns them, without a network.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{fs, process};

use backend_stub::logic::{Answer, At, Core, CoreConfig};
use backend_stub::storage::embedded::{self, Embedded, Options};
use backend_stub::storage::{Batch, ChangeLog, Completion, Full, Read};
use backend_stub::turn::{self, Outward};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use proto_wire::names::{Cursor, UploadId};
use proto_wire::pb;
use proto_wire::status::Status;

/// The only gateway.
const GATEWAY: u64 = 1;
/// Its lease is renewed so often.
const RENEW_MS: u64 = 10_000;

pub struct Host {
    pub core: Core,
    pub store: Counted,
    woken: Receiver<()>,
    completions: Vec<Completion>,
    start: Instant,
    unix_start_ms: u64,
    /// Time that is only said to have passed.
    pub skipped_ms: u64,
    random: u64,
    tokens: u64,
    renewed_ms: u64,
    said: Said,
    /// When this user was told something.
    pub watched: u64,
    pub watched_told: Option<Instant>,
    pub longest_turn: Duration,
    /// The same without the time in which the thread had no core.
    pub longest_turn_cpu: Duration,
    ran: RanSoFar,
    pub opening: Duration,
    pub recovering: Duration,
}

/// A call that has ended.
pub struct Ended {
    pub token: u64,
    pub at: Instant,
    pub answer: Result<Answer, Status>,
}

#[derive(Default)]
struct Said {
    ended: Vec<Ended>,
    notices: Vec<(u64, pb::NotifyRequest)>,
}

impl Outward for Said {
    fn answer(&mut self, token: u64, answer: Result<Answer, Status>) {
        self.ended.push(Ended { token, at: Instant::now(), answer });
    }

    fn notify(&mut self, token: u64, _: u64, _: u16, request: &pb::NotifyRequest) -> Result<(), Status> {
        self.notices.push((token, request.clone()));
        Ok(())
    }

    fn log(&mut self, line: &str) {
        eprintln!("{line}");
    }
}

/// The store, with what it was asked for.
pub struct Counted {
    store: Embedded,
    /// Questions to the disk: gets and scans.
    pub queries: u64,
    pub submitted: u64,
    pub committed: u64,
    /// Keeps what has ended from the core.
    pub holds: bool,
}

impl ChangeLog for Counted {
    fn partitions(&self) -> u16 {
        self.store.partitions()
    }

    fn submit(&mut self, partition: u16, batch: Batch) -> Result<(), Full<Batch>> {
        self.submitted += 1;
        self.store.submit(partition, batch)
    }

    fn read(&mut self, partition: u16, read: Read) -> Result<(), Full<Read>> {
        self.queries += read.queries.len() as u64;
        self.store.read(partition, read)
    }

    fn poll(&mut self, out: &mut Vec<Completion>) {
        let before = out.len();
        self.store.poll(out);
        self.committed +=
            out[before..].iter().filter(|done| matches!(done, Completion::Committed { .. })).count() as u64;
        if self.holds {
            out.truncate(before);
        }
    }

    fn is_full(&self) -> bool {
        self.store.is_full()
    }
}

impl Host {
    pub fn open(dir: &Path) -> Self {
        let start = Instant::now();
        let (wake, woken) = channel();
        let opened = Embedded::open(&Options::new(dir), |_| {
            let wake = wake.clone();
            Box::new(move || {
                // The owner may be gone already.
                let _ = wake.send(());
            })
        });
        let (store, opened) = opened.unwrap_or_else(|error| fail(&error.to_string()));
        opened.cut.iter().for_each(|line| eprintln!("{line}"));
        let opening = start.elapsed();
        let unix_start_ms =
            SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_millis() as u64;
        let config = CoreConfig {
            owner_epoch: opened.owner_epoch,
            ..CoreConfig::new(GATEWAY, unix_start_ms, store.partitions())
        };
        let core = Core::new(config);
        let mut host = Self {
            core,
            store: Counted { store, queries: 0, submitted: 0, committed: 0, holds: false },
            woken,
            completions: Vec::new(),
            start,
            unix_start_ms,
            skipped_ms: 0,
            random: unix_start_ms,
            tokens: 0,
            renewed_ms: 0,
            said: Said::default(),
            watched: 0,
            watched_told: None,
            longest_turn: Duration::ZERO,
            longest_turn_cpu: Duration::ZERO,
            ran: RanSoFar::open(),
            opening,
            recovering: Duration::ZERO,
        };
        while !host.core.is_ready() {
            host.turn();
        }
        host.recovering = start.elapsed() - opening;
        host
    }

    /// All rows in tables, nothing of them in memory or in the kernel's cache, and no user in memory.
    pub fn cold(self, dir: &Path) -> Self {
        drop(self);
        embedded::compact(&Options::new(dir), |_, _| {}).unwrap_or_else(|error| fail(&error.to_string()));
        forget_pages(dir);
        Self::open(dir)
    }

    pub fn at(&self) -> At {
        let now_ms = self.start.elapsed().as_millis() as u64 + self.skipped_ms;
        At { now_ms, unix_ms: self.unix_start_ms + now_ms }
    }

    pub fn random(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.random >> 33) % below
    }

    pub fn upload_id(&mut self) -> bytes::Bytes {
        let mut random = [0; 10];
        random[..8].copy_from_slice(&self.random(u64::MAX).to_le_bytes());
        random[2..].copy_from_slice(&self.tokens.to_le_bytes());
        bytes::Bytes::copy_from_slice(&UploadId::new(self.at().unix_ms, random).0)
    }

    /// Calls the core. The answer is among `take_ended` later.
    pub fn call(&mut self, verb: impl FnOnce(&mut Core, At, u64)) -> u64 {
        self.tokens += 1;
        let at = self.at();
        verb(&mut self.core, at, self.tokens);
        self.tokens
    }

    /// Calls the core and waits for the answer.
    pub fn ask(&mut self, verb: impl FnOnce(&mut Core, At, u64)) -> Answer {
        let token = self.call(verb);
        loop {
            self.turn();
            if let Some(ended) = self.take_ended().into_iter().find(|ended| ended.token == token) {
                return ended.answer.unwrap_or_else(|status| fail(&status.to_string()));
            }
        }
    }

    pub fn take_ended(&mut self) -> Vec<Ended> {
        std::mem::take(&mut self.said.ended)
    }

    /// One turn; waits for the store when there was nothing to do. Phones take their news at once.
    pub fn turn(&mut self) {
        let (from, ran, at) = (Instant::now(), self.ran.read(), self.at());
        self.tick(at);
        let (ended, submitted, queries) = (self.said.ended.len(), self.store.submitted, self.store.queries);
        let before = self.store.committed;
        turn::take(&mut self.core, &mut self.store, &mut self.completions, at, &mut self.said);
        let mut moved = self.said.ended.len() > ended
            || (self.store.submitted, self.store.queries, self.store.committed)
                != (submitted, queries, before);
        for (token, request) in std::mem::take(&mut self.said.notices) {
            moved = true;
            self.notified(at, token, &request);
        }
        self.longest_turn = self.longest_turn.max(from.elapsed());
        self.longest_turn_cpu = self.longest_turn_cpu.max(self.ran.read() - ran);
        if !moved {
            let _ = self.woken.recv_timeout(Duration::from_millis(5));
        }
        while self.woken.try_recv().is_ok() {}
    }

    /// The timers of the loop, and the lease of the gateway.
    fn tick(&mut self, at: At) {
        if self.core.poll_timeout().is_some_and(|due_ms| due_ms <= at.now_ms) {
            self.core.handle_timeout(at);
        }
        if self.renewed_ms + RENEW_MS < at.now_ms && self.core.counters().online > 0 && self.skipped_ms == 0 {
            self.renewed_ms = at.now_ms;
            self.call(|core, at, token| {
                core.report(at, token, &pb::ReportRequest { gateway: GATEWAY, ..Default::default() })
            });
        }
    }

    /// Phones apply what comes with their news, and ask for what does not.
    fn notified(&mut self, at: At, token: u64, request: &pb::NotifyRequest) {
        self.core.handle_notify_result(at, token, Ok(&pb::NotifyReply::default()));
        for news in &request.news {
            let user = u64::from(news.slot);
            if user == self.watched {
                self.watched_told = Some(Instant::now());
            }
            if news.page.is_empty() {
                let cursor = Some(pb::Cursor { log_epoch: 1, number: news.newest.saturating_sub(1) });
                let request = pb::PullRequest { cursor, ..Default::default() };
                self.call(|core, at, token| core.pull(at, token, user, 1, &request));
            }
            self.core.applied(user, 1, Cursor::new(1, news.newest));
        }
    }

    /// Until every duty has landed.
    pub fn drain(&mut self) {
        while self.core.counters().duties > 0 {
            self.turn();
        }
    }

    /// Phones connect.
    pub fn connect(&mut self, users: impl Iterator<Item = u64>) {
        let users: Vec<u64> = users.collect();
        for users in users.chunks(500) {
            let online = users.iter().map(|user| pb::Online {
                user: *user,
                device: 1,
                slot: *user as u32,
                generation: 1,
                counter: 1,
                log_epoch: 1,
                applied: 0,
            });
            let request =
                pb::ReportRequest { gateway: GATEWAY, online: online.collect(), ..Default::default() };
            self.ask(|core, at, token| core.report(at, token, &request));
        }
    }
}

pub fn fail(text: &str) -> ! {
    eprintln!("{text}");
    process::exit(1);
}

/// Asks the kernel to forget what it has of a directory's files.
pub fn forget_pages(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            forget_pages(&entry.path());
        } else if let Ok(file) = fs::File::open(entry.path()) {
            // It may refuse: then the figure is one of a warm cache, which its time tells.
            let _ = file.sync_all();
            let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        }
    }
}

/// How long this thread has run, by the scheduler's count.
struct RanSoFar(File);

impl RanSoFar {
    fn open() -> Self {
        let path = "/proc/thread-self/schedstat";
        Self(File::open(path).unwrap_or_else(|error| fail(&format!("{path}: {error}"))))
    }

    fn read(&self) -> Duration {
        let mut text = [0; 64];
        let length = self.0.read_at(&mut text, 0).unwrap_or(0);
        let ran = std::str::from_utf8(&text[..length]).ok().and_then(|text| text.split(' ').next());
        Duration::from_nanos(ran.and_then(|ns| ns.parse().ok()).unwrap_or(0))
    }
}
