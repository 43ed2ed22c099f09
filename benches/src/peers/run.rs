//! The commands: `peers` compares, `peer` loads one server that somebody has.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, SystemTime};
use std::{env, fs, io};

use clap::ValueEnum;
use serde::Serialize;

use super::compare::{CompareError, Options, Stage, versions};
use super::limits;
use super::load::{Cast, Load, Order, Orders, Work};
use super::mqtt::Mqtt;
use super::nats::Nats;
use super::report::{Comparison, SCHEMA};
use super::side::SideError;
use super::tcp::Tcp;
use super::wire::Wire;
use super::ws::WebSocket;
use crate::clock::Clock;
use crate::fleet::{Fleet, FleetConfig, FleetError, Receive, wait_until};
use crate::measure::{Arrival, Measured};
use crate::report::{Generator, HostFacts, Progress, Recorded, Report};
use crate::servers::Cores;

/// Compares with what is installed here.
pub fn compare(options: &Options) -> Result<Comparison, CompareError> {
    let available = gateway_ring::available_cores();
    let [server_core, bench_core, ..] = available[..] else { return Err(CompareError::OneCore) };
    let directory = Directory::make()?;
    let mut progress = Progress::new();
    let cores = Cores { gateway: vec![server_core], backend: Vec::new(), bench: vec![bench_core] };
    let mut report = Comparison {
        schema: SCHEMA,
        command: "peers",
        ended_early: false,
        ratios: Default::default(),
        raw: Default::default(),
        skipped: Default::default(),
        floor: None,
        versions: versions(options.nats.as_deref()).into_iter().collect(),
        rounds: options.rounds,
        round_ms: options.round_ms,
        server_core,
        bench_core,
        host: HostFacts::read(true, false, cores, Vec::new()),
    };
    let mut stage = Stage {
        options,
        directory: &directory.0,
        server_core,
        bench_core,
        clock: Clock::start(),
        progress: &mut progress,
    };
    match stage.run(&mut report) {
        // Whatever broke first: a server that was still starting, a round. The works that were done are what ran.
        Err(_) if crate::signals::interrupted() && report.raw.is_empty() => {
            return Err(SideError::Interrupted.into());
        }
        Err(_) if crate::signals::interrupted() => report.ended_early = true,
        ran => ran?,
    }
    Ok(report)
}

/// Removed with all in it when dropped.
struct Directory(PathBuf);

impl Directory {
    fn make() -> io::Result<Self> {
        let directory = env::temp_dir().join(format!("moorgate-peers-{}", std::process::id()));
        fs::create_dir_all(&directory)?;
        // mosquitto started by root reads its files as a user of its own.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&directory, open)?;
        Ok(Self(directory))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What is left of it is in the temporary directory.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a target speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// MQTT 3.1.1.
    Mqtt,
    Nats,
    /// WebSocket (RFC 6455).
    Ws,
    /// A TCP server that sends back what it gets.
    Tcp,
}

/// What is done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PeerWork {
    /// Connections stand.
    Idle,
    /// The protocol's heartbeats.
    Ping,
    /// A message that comes back (ws, tcp).
    Echo,
    /// Each connection publishes to its own topic and hears it (mqtt, nats).
    Publish,
    /// One connection publishes to all others (mqtt, nats).
    Fanout,
}

#[derive(Debug, Clone)]
pub struct PeerOptions {
    pub protocol: Protocol,
    pub target: SocketAddr,
    pub host: String,
    pub path: String,
    pub connections: u32,
    pub work: PeerWork,
    pub rate: f64,
    pub arrival: Arrival,
    pub payload_bytes: usize,
    pub acknowledged: bool,
    pub seconds: u64,
    pub pid: Option<u32>,
    pub cores: Vec<usize>,
}

#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    #[error("--protocol {0:?} has no --work {1:?} (see --help)")]
    NoSuchWork(Protocol, PeerWork),
    #[error("{0}")]
    Host(String),
    #[error(transparent)]
    Fleet(#[from] FleetError),
    #[error("{target}: only {up} of {asked} connections were let in: {trouble}")]
    NotUp { target: SocketAddr, up: u64, asked: u32, trouble: String },
    #[error("{}", crate::signals::NOTHING_RAN)]
    Interrupted,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PeerReport {
    pub schema: u32,
    pub command: &'static str,
    /// Ctrl-C ended it before its time.
    pub ended_early: bool,
    pub protocol: &'static str,
    pub work: String,
    pub connections: u32,
    pub up: u64,
    pub lost: u64,
    pub seconds: f64,
    pub asked: u64,
    pub done: u64,
    pub done_per_second: f64,
    /// Starts that were due when nobody was free: the server did not keep up.
    pub dropped: u64,
    pub refused: u64,
    pub server: PeerCost,
    pub measured: Measured,
    pub generator: Generator,
    pub host: HostFacts,
    #[serde(skip)]
    pub recorded: Option<Recorded>,
}

/// Of the process that `--pid` names.
#[derive(Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PeerCost {
    pub cpu_us_per_operation: Option<f64>,
    pub cores_used: Option<f64>,
    pub rss_bytes: Option<u64>,
    pub user_bytes_per_connection: Option<f64>,
}

impl Report for PeerReport {
    fn is_good(&self) -> bool {
        self.lost == 0 && self.refused == 0 && self.up == u64::from(self.connections)
    }

    fn summary(&self) -> String {
        let latency = self.measured.operations.values().flat_map(|phases| phases.values()).next();
        let latency = latency.map_or("no latencies".to_owned(), |of| {
            let told = &of.latency_ms;
            format!(
                "p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, max {:.2} ms",
                told.p50, told.p99, told.p999, told.max
            )
        });
        let of_server = |value: Option<f64>, unit| crate::report::figure(value, unit);
        format!(
            "{} {}: {:.0} a second done ({} asked, {} dropped, {} refused) over {} of {} connections, {} lost\n\
             latency from the intended time: {latency}\n\
             server: {} an operation, {} of user memory a connection\n{}",
            self.protocol,
            self.work,
            self.done_per_second,
            self.asked,
            self.dropped,
            self.refused,
            self.up,
            self.connections,
            self.lost,
            of_server(self.server.cpu_us_per_operation, "us"),
            of_server(self.server.user_bytes_per_connection, "B"),
            self.generator.verdict,
        )
    }

    crate::report::on_record!();
}

/// Loads one server.
pub fn peer(options: &PeerOptions) -> Result<PeerReport, PeerError> {
    match options.protocol {
        Protocol::Mqtt => spoken::<Mqtt>(options),
        Protocol::Nats => spoken::<Nats>(options),
        Protocol::Ws => spoken::<WebSocket>(options),
        Protocol::Tcp => spoken::<Tcp>(options),
    }
}

fn work(options: &PeerOptions) -> Result<Work, PeerError> {
    let publishes = matches!(options.protocol, Protocol::Mqtt | Protocol::Nats);
    match options.work {
        PeerWork::Idle => Ok(Work::Listen),
        PeerWork::Ping => Ok(Work::Ping),
        PeerWork::Echo if !publishes => Ok(Work::Echo),
        PeerWork::Publish if options.protocol == Protocol::Mqtt => {
            Ok(Work::Publish { acknowledged: options.acknowledged })
        }
        PeerWork::Publish if publishes => Ok(Work::Publish { acknowledged: false }),
        PeerWork::Fanout if publishes => Ok(Work::Fanout),
        other => Err(PeerError::NoSuchWork(options.protocol, other)),
    }
}

fn spoken<W: Wire>(options: &PeerOptions) -> Result<PeerReport, PeerError> {
    let work = work(options)?;
    let has_teller = options.work == PeerWork::Fanout;
    let connections = options.connections + u32::from(has_teller);
    let sources = crate::sources::Sources::default();
    let findings =
        crate::preflight::check(connections, false, options.target, &sources).map_err(PeerError::Host)?;
    let (orders, clock, began) = (Orders::new(), Clock::start(), SystemTime::now());
    let cast = Arc::new(Cast {
        clients: connections,
        has_teller,
        all_hear: has_teller,
        each_hears: options.work == PeerWork::Publish,
        host: options.host.clone(),
        path: options.path.clone(),
        who: None,
        payload_bytes: options.payload_bytes,
    });
    let config = FleetConfig {
        target: options.target,
        phones: connections,
        receive: if options.work == PeerWork::Idle { Receive::Poll } else { Receive::Armed },
        cores: options.cores.clone(),
        threads: options.cores.len().max(1),
        niceness: 0,
        clock,
        gather_us: limits::GATHER_US,
        sources,
    };
    let rss = || options.pid.and_then(|pid| tuning::proc_memory(pid).ok());
    let cpu = || options.pid.and_then(|pid| tuning::proc_cpu_us(pid).ok());
    let rss_before = rss();
    let fleet = Fleet::start(&config, |range| Load::<W>::new(&orders, &cast, range))?;
    connect_all(&fleet, options.target, connections)?;
    let rss_bytes = rss();
    let mut progress = Progress::new();
    let (before, cpu_before, from_us) = (fleet.totals(), cpu(), clock.now_us());
    let until_us = from_us + options.seconds * 1_000_000;
    orders.recorder.begin_phase("measured", from_us);
    orders.give(Order { work, rate: options.rate, arrival: options.arrival, from_us, until_us });
    let (mut second, mut last) = (0, 0);
    wait_until(&fleet, options.seconds * 1_000, || {
        let now_s = (clock.now_us() - from_us) / 1_000_000;
        if now_s > second {
            let done = orders.done.load(Ordering::Relaxed);
            progress.line(&format!(
                "{now_s} s: {} done in this second, {} up",
                done - last,
                fleet.totals().up
            ));
            (second, last) = (now_s, done);
        }
        false
    });
    let ended_early = crate::signals::take();
    let seconds = (clock.now_us() - from_us) as f64 / 1e6;
    // What is on its way still counts: it was started in time.
    thread::sleep(Duration::from_millis(limits::ROUND_DRAIN_MS));
    orders.recorder.end_phase(until_us);
    let (after, cpu_after, threads) = (fleet.totals(), cpu(), fleet.threads());
    if fleet.has_failed() {
        return Err(fleet.stop().err().unwrap_or(FleetError::Panicked).into());
    }
    fleet.stop()?;
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let (asked, done, dropped) = (count(&orders.asked), count(&orders.done), count(&orders.dropped));
    let cpu_us = cpu_before.zip(cpu_after).map(|(from, to)| to.saturating_sub(from));
    let server = PeerCost {
        cpu_us_per_operation: crate::report::share(cpu_us, done),
        cores_used: cpu_us.map(|us| us as f64 / 1e6 / seconds),
        rss_bytes,
        user_bytes_per_connection: rss_before
            .zip(rss_bytes)
            .map(|(from, to)| to.saturating_sub(from) as f64 / f64::from(connections)),
    };
    let cores = Cores { bench: options.cores.clone(), ..Cores::default() };
    Ok(PeerReport {
        schema: SCHEMA,
        command: "peer",
        ended_early,
        protocol: W::NAME,
        work: format!("{:?}", options.work).to_lowercase(),
        connections,
        up: after.up,
        lost: after.lost,
        seconds,
        asked,
        done,
        done_per_second: done as f64 / seconds,
        dropped,
        refused: count(&orders.refused),
        server,
        generator: Generator::judge(threads, &before, &after, asked + dropped, 0),
        measured: orders.recorder.measured(),
        recorded: Some(Recorded { recorder: orders.recorder.clone(), began }),
        host: HostFacts::read(false, false, cores, findings),
    })
}

fn connect_all<W: Wire>(fleet: &Fleet<Load<W>>, target: SocketAddr, asked: u32) -> Result<(), PeerError> {
    fleet.connect(asked);
    let within_ms = limits::CONNECT_ALL_WITHIN_MS + u64::from(asked) / 2;
    wait_until(fleet, within_ms, || {
        let totals = fleet.totals();
        totals.up >= u64::from(asked) || totals.failed + totals.lost > 0
    });
    let up = fleet.totals().up;
    if crate::signals::interrupted() {
        return Err(PeerError::Interrupted);
    }
    if up < u64::from(asked) {
        let trouble = fleet.trouble().unwrap_or_else(|| "it took too long".to_owned());
        return Err(PeerError::NotUp { target, up, asked, trouble });
    }
    Ok(())
}
