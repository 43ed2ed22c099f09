//! What does a connection cost that only beats? N authenticated phones of N users.
//!
//! Method: some warm-up phones (1 000, of users of their own) come, stand, and go; what the gateway holds then is its
//! base. All phones connect, as fast as they are welcomed. From the last WELCOME on they are held for S seconds, and
//! longer when a phone has not beaten by then: every phone has one beat answered after the last connect.
//!
//! - user bytes a connection: (RSS with all held - RSS after the warm-up) / N, of gateway and of backend.
//! - kernel bytes a connection: what the whole machine's kernel holds with all held, minus with the warm-up held, by
//!   the connections between. Both ends are in it when both are on this machine.
//! - CPU a heartbeat: the gateway's from the last WELCOME to the end, by the beats answered in that time.
//! - then one notice for everybody (see `broadcast`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use proto_wire::phone::{Phone, PhoneConfig, PhoneEvent};
use serde::Serialize;

use crate::broadcast::{self, Broadcast, Heard};
use crate::fleet::{App, Fleet, FleetConfig, Now, Phones, Receive, wait_until};
use crate::identity::Identities;
use crate::limits;
use crate::measure::{Live, Measured, Recorder, Watch};
use crate::report::{Generator, HostFacts, Progress, Recorded, Report, SCHEMA, figure, share};
use crate::session::{Place, RunError, Session};

#[derive(Debug, Clone)]
pub struct HoldOptions {
    pub connections: u32,
    pub seconds: u64,
    /// None: half of the time held, so that every phone beats, and at most what the gateway asks for.
    pub heartbeat_s: Option<u32>,
    pub place: Place,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HoldReport {
    pub schema: u32,
    pub command: &'static str,
    pub seconds: f64,
    /// Ctrl-C ended it before its time: then not every phone has beaten.
    pub ended_early: bool,
    pub heartbeat_s: u32,
    pub connections: Connections,
    pub setup: Setup,
    pub heartbeats: Heartbeats,
    pub server: ServerCost,
    pub backend: BackendCost,
    /// None: Ctrl-C came before.
    pub broadcast: Option<Broadcast>,
    pub generator: Generator,
    pub host: HostFacts,
    pub measured: Measured,
    #[serde(skip)]
    pub recorded: Option<Recorded>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Connections {
    pub asked: u32,
    /// Welcomed and standing at the end.
    pub held: u64,
    /// Ends after WELCOME, whether the phone came back or not.
    pub lost: u64,
    /// Attempts that ended before WELCOME, and were made again.
    pub failed_attempts: u64,
    /// What ended the first that ended.
    pub trouble: Option<String>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Setup {
    pub per_second: f64,
    pub seconds: f64,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Heartbeats {
    /// After the last connect.
    pub answered: u64,
    /// Phones of which none was answered after the last connect: 0 in a good run.
    pub phones_without: u64,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ServerCost {
    pub user_bytes_per_connection: Option<f64>,
    pub user_bytes_in_all: Option<f64>,
    pub kernel_bytes_per_connection: Option<u64>,
    pub kernel_bytes_of: &'static str,
    pub cpu_us_per_heartbeat: Option<f64>,
    pub rss_bytes: Option<u64>,
    pub rss_bytes_after_warm_up: Option<u64>,
    /// After all phones had left.
    pub rss_bytes_after_all_left: Option<u64>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BackendCost {
    pub user_bytes_per_connection: Option<f64>,
    pub rss_bytes: Option<u64>,
}

impl HoldReport {
    pub fn is_good(&self) -> bool {
        let all_held = self.connections.held == u64::from(self.connections.asked);
        let all_beat = self.heartbeats.phones_without == 0 || self.ended_early;
        let all_heard = self.broadcast.as_ref().is_none_or(Broadcast::is_good);
        all_held && self.connections.lost == 0 && all_beat && all_heard
    }

    pub fn summary(&self) -> String {
        let bytes = |value| figure(value, "B");
        format!(
            "held {} of {} connections for {:.0} s, lost {}; set up at {:.0} a second\n\
             {}: {} of user memory a connection ({} in all), {} of CPU a heartbeat\n\
             kernel:  {} a connection, {}\n\
             backend: {} a user\n\
             memory of the gateway: {} after the warm-up, {} after all had left\n\
             {} beats answered after the last connect; {} phones without one\n{}\n{}",
            self.connections.held,
            self.connections.asked,
            self.seconds,
            self.connections.lost,
            self.setup.per_second,
            self.host.names()[0],
            bytes(self.server.user_bytes_per_connection),
            bytes(self.server.user_bytes_in_all),
            figure(self.server.cpu_us_per_heartbeat, "us"),
            bytes(self.server.kernel_bytes_per_connection.map(|bytes| bytes as f64)),
            self.server.kernel_bytes_of,
            bytes(self.backend.user_bytes_per_connection),
            bytes(self.server.rss_bytes_after_warm_up.map(|bytes| bytes as f64)),
            bytes(self.server.rss_bytes_after_all_left.map(|bytes| bytes as f64)),
            self.heartbeats.answered,
            self.heartbeats.phones_without,
            self.broadcast.as_ref().map_or_else(String::new, Broadcast::summary),
            self.generator.verdict,
        )
    }
}

impl Report for HoldReport {
    fn is_good(&self) -> bool {
        self.is_good()
    }

    fn summary(&self) -> String {
        self.summary()
    }

    fn host(&self) -> &HostFacts {
        &self.host
    }

    fn recorded(&self) -> Option<&Recorded> {
        self.recorded.as_ref()
    }
}

/// What all threads of the phones share.
#[derive(Debug, Default)]
struct Shared {
    /// All have connected: from now on beats count.
    all_here: AtomicBool,
    /// Phones of which a beat was answered since.
    beaten: AtomicU64,
    /// Notices for everybody.
    heard: Heard,
}

/// Phones that only beat.
struct Holders {
    who: Identities,
    shared: Arc<Shared>,
    first: u32,
    /// Beats answered before all had connected; [`BEATEN`] once one was answered since.
    answered_before: Vec<u32>,
}

const BEATEN: u32 = u32::MAX;

impl Holders {
    fn new(who: &Identities, shared: &Arc<Shared>, range: std::ops::Range<u32>) -> Self {
        let answered_before = vec![0; range.len()];
        Self { who: who.clone(), shared: shared.clone(), first: range.start, answered_before }
    }
}

impl App for Holders {
    type Machine = Phone;

    fn phone(&mut self, phone: u32) -> Phone {
        self.who.machine(phone)
    }

    fn token(&mut self, phone: u32) -> Box<[u8]> {
        self.who.token(phone)
    }

    fn event(&mut self, _phone: u32, _machine: &mut Phone, event: PhoneEvent, now: Now) {
        self.shared.heard.note(&event, now);
    }

    fn heard(&mut self, phone: u32, machine: &Phone) {
        let before = &mut self.answered_before[(phone - self.first) as usize];
        let answered = machine.stats().beats_answered;
        if !self.shared.all_here.load(Ordering::Relaxed) {
            *before = answered;
        } else if *before != BEATEN && answered > *before {
            *before = BEATEN;
            self.shared.beaten.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn turn(&mut self, _phones: &mut Phones<'_>, now: Now) -> u64 {
        now.us + limits::TURN_MS * 1_000
    }
}

pub fn run(options: &HoldOptions) -> Result<HoldReport, RunError> {
    let asked = options.connections;
    let heartbeat_s = options.heartbeat_s.unwrap_or((options.seconds / 2).clamp(1, 240) as u32).max(1);
    let config = PhoneConfig {
        heartbeat_override_ms: Some(heartbeat_s * 1_000),
        sync_on_connect: false,
        ..PhoneConfig::default()
    };
    let warm_up = asked.min(limits::WARM_UP_CONNECTIONS);
    let mut session = Session::open(&options.place, asked, warm_up, config.clone())?;
    let mut progress = Progress::view("moorgate-bench hold", options.place.no_tui);
    let recorded = Recorded { recorder: Arc::new(Recorder::new(&[])), began: SystemTime::now() };
    let recorder = &recorded.recorder;
    let mut watch = Watch::new(recorder);
    recorder.begin_phase("warm-up", session.clock.now_us());
    let shared = Arc::new(Shared::default());
    let fleet_config = |phones| FleetConfig {
        target: session.servers.target,
        phones,
        receive: Receive::Poll,
        cores: session.cores.bench.clone(),
        threads: 1,
        niceness: 0,
        clock: session.clock,
        gather_us: 1_000,
        sources: options.place.sources.clone(),
    };
    let (all, few) = (fleet_config(asked), fleet_config(warm_up));
    // Rings and machines are there before the kernel's base is read.
    let fleet = Fleet::start(&all, |range| Holders::new(&session.who, &shared, range))?;

    let before = warm_up_and_measure(&mut session, &few, config, &mut progress)?;
    let began_us = session.clock.now_us();
    recorder.begin_phase("connect", began_us);
    fleet.connect(asked);
    let within_ms = limits::SETUP_WITHIN_MS + u64::from(asked) / 2;
    wait_until(&fleet, within_ms, || {
        let totals = fleet.totals();
        if watch.look(&mut session, totals).is_some() {
            progress.line(&format!(
                "connecting: {} of {asked} welcomed, {} failed attempts",
                totals.welcomed, totals.failed
            ));
        }
        totals.welcomed >= u64::from(asked)
    });
    let at_start = fleet.totals();
    if at_start.welcomed == 0 || fleet.has_failed() {
        let trouble = fleet.trouble();
        fleet.stop()?;
        return Err(session.explain("no phone was welcomed", trouble));
    }
    let setup_us = at_start.last_welcome_us.saturating_sub(began_us).max(1);
    shared.all_here.store(true, Ordering::Relaxed);
    let held_from_ms = session.clock.now_ms();
    recorder.begin_phase("hold", held_from_ms * 1_000);
    let cpu_from = session.usage()[0];
    session.watch_others();

    let for_ms = options.seconds * 1_000;
    hold(&fleet, &shared, for_ms, heartbeat_s, asked, &mut session, &mut watch, &mut progress);
    let ended_early = crate::signals::take();
    recorder.end_phase(session.clock.now_us());
    progress.end();
    let seconds = (session.clock.now_ms() - held_from_ms) as f64 / 1e3;
    let at_end = fleet.totals();
    let usage = session.usage();
    session.note_others();
    let kernel = tuning::machine_memory().ok();
    let broadcast = (!ended_early).then(|| {
        progress.line("one notice for everybody");
        recorder.begin_phase("broadcast", session.clock.now_us());
        let told = broadcast::to_all(&fleet, &mut session, &shared.heard);
        recorder.end_phase(session.clock.now_us());
        told
    });
    let left = fleet.totals();
    let (threads, trouble) = (fleet.threads(), fleet.trouble());
    fleet.stop()?;
    let after = rss_after_all_left(&mut session);

    let answered = at_end.beats_answered - at_start.beats_answered;
    let n = u64::from(asked);
    let rss = |part: usize| usage[part].map(|usage| usage.rss_bytes);
    let grown = |part: usize| Some((rss(part)? as f64 - before.rss[part]? as f64) / n as f64);
    let cpu_us = cpu_from.and_then(|from| Some(usage[0]?.cpu_us.saturating_sub(from.cpu_us)));
    let kernel_bytes = kernel.zip(before.kernel).and_then(|(after, before)| {
        after.kernel_bytes_per_connection(&before, n.saturating_sub(u64::from(warm_up)))
    });
    let lost = left.lost;
    Ok(HoldReport {
        schema: SCHEMA,
        command: "hold",
        seconds,
        ended_early,
        heartbeat_s,
        connections: Connections { asked, held: left.up, lost, failed_attempts: left.failed, trouble },
        setup: Setup {
            per_second: at_start.welcomed as f64 * 1e6 / setup_us as f64,
            seconds: setup_us as f64 / 1e6,
        },
        heartbeats: Heartbeats { answered, phones_without: n - shared.beaten.load(Ordering::Relaxed).min(n) },
        server: ServerCost {
            user_bytes_per_connection: grown(0),
            user_bytes_in_all: share(rss(0), n),
            kernel_bytes_per_connection: kernel_bytes,
            kernel_bytes_of: if session.servers.target.ip().is_loopback() {
                "machine-wide, both ends of each connection"
            } else {
                "machine-wide, the phones' end of each connection only"
            },
            cpu_us_per_heartbeat: share(cpu_us, answered),
            rss_bytes: rss(0),
            rss_bytes_after_warm_up: before.rss[0],
            rss_bytes_after_all_left: after,
        },
        broadcast,
        backend: BackendCost { user_bytes_per_connection: grown(1), rss_bytes: rss(1) },
        generator: Generator::judge(threads, &at_start, &at_end, 0, 0),
        host: session.host.clone(),
        measured: recorded.recorder.measured(),
        recorded: Some(recorded),
    })
}

/// The gateway's memory once all have left and it no longer falls: a million ends take it a while.
fn rss_after_all_left(session: &mut Session) -> Option<u64> {
    for _ in 0..limits::SETTLE_ROUNDS_MAX {
        if session.servers.connections().is_none_or(|left| left == 0) {
            break;
        }
        thread::sleep(Duration::from_millis(limits::SETTLE_MS));
    }
    let mut before = u64::MAX;
    for _ in 0..limits::SETTLE_ROUNDS_MAX {
        thread::sleep(Duration::from_millis(limits::SETTLE_MS));
        let now = session.usage()[0]?.rss_bytes;
        if now >= before {
            return Some(now);
        }
        before = now;
    }
    Some(before)
}

/// What there was before the phones came.
struct Before {
    rss: [Option<u64>; 2],
    /// With the warm-up held.
    kernel: Option<tuning::MachineMemory>,
}

fn warm_up_and_measure(
    session: &mut Session,
    few: &FleetConfig,
    config: PhoneConfig,
    progress: &mut Progress,
) -> Result<Before, RunError> {
    progress.line(&format!("warm-up: {} connections come and go", few.phones));
    let who = Identities::new(session.servers.issuer.clone(), Identities::fresh_run(), 1, config);
    let shared = Arc::new(Shared::default());
    let fleet = Fleet::start(few, |range| Holders::new(&who, &shared, range))?;
    fleet.connect(few.phones);
    let all = wait_until(&fleet, limits::SETUP_WITHIN_MS, || fleet.totals().up >= u64::from(few.phones));
    if !all {
        let (trouble, totals) = (fleet.trouble(), fleet.totals());
        fleet.stop()?;
        let what = format!("only {} of {} phones of the warm-up were welcomed", totals.welcomed, few.phones);
        return Err(session.explain(&what, trouble));
    }
    thread::sleep(Duration::from_millis(limits::SETTLE_MS));
    let kernel = tuning::machine_memory().ok();
    fleet.stop()?;
    thread::sleep(Duration::from_millis(limits::SETTLE_MS));
    Ok(Before { rss: session.usage().map(|usage| Some(usage?.rss_bytes)), kernel })
}

/// Until the time is up and every phone has beaten; a phone that cannot is waited for one interval more.
fn hold(
    fleet: &Fleet<Holders>,
    shared: &Shared,
    for_ms: u64,
    heartbeat_s: u32,
    asked: u32,
    session: &mut Session,
    watch: &mut Watch,
    progress: &mut Progress,
) {
    let clock = crate::clock::Clock::start();
    let longest_ms = for_ms.max(u64::from(heartbeat_s) * 1_000 + 10_000);
    wait_until(fleet, longest_ms, || {
        let (now_ms, totals) = (clock.now_ms(), fleet.totals());
        let beaten = shared.beaten.load(Ordering::Relaxed);
        if let Some(point) = watch.look(session, totals) {
            let what = format!("holding, {beaten} have beaten, {} beats answered", totals.beats_answered);
            let (elapsed_s, of_s) = (now_ms / 1_000, for_ms.div_ceil(1_000));
            progress.second(&Live { what, elapsed_s, of_s, asked: u64::from(asked), point });
        }
        now_ms >= for_ms && (beaten >= u64::from(asked) || now_ms >= longest_ms)
    });
}
