//! What notices for everybody gave.

use serde::Serialize;

use super::{BroadcastOptions, Run};
use crate::latency::Percentiles;
use crate::limits;
use crate::measure::Measured;
use crate::report::{Generator, HostFacts, Recorded, Report, SCHEMA, figure};
use crate::servers::GatewayTold;
use crate::session::Session;
use crate::standing::{Broadcast, Connections, Heartbeats, NOTICE, Setup};

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BroadcastReport {
    pub schema: u32,
    pub command: &'static str,
    pub seconds: f64,
    /// Ctrl-C came before the last round.
    pub ended_early: bool,
    pub interval_s: f64,
    pub heartbeat_s: u32,
    pub connections: Connections,
    pub setup: Setup,
    /// Of all rounds: phones are summed, `seconds` are those of the slowest.
    pub broadcast: Broadcast,
    pub rounds_asked: u32,
    pub rounds_late: u64,
    pub rounds: Vec<Round>,
    /// From when a notice was to be asked for until a phone had it, of all rounds and phones.
    pub latency_ms: Percentiles,
    pub heartbeats: Heartbeats,
    pub server: GatewayMemory,
    /// The gateway's own word, of the measured load.
    pub gateway: Option<GatewayTold>,
    pub generator: Generator,
    pub host: HostFacts,
    pub measured: Measured,
    #[serde(skip)]
    pub recorded: Option<Recorded>,
}

/// One notice.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Round {
    /// When it was to be asked for, in seconds of the rounds.
    pub at_s: f64,
    /// How much later it was.
    pub late_ms: f64,
    pub asked: u64,
    pub delivered: u64,
    pub twice: u64,
    /// From the request until the last phone had it.
    pub seconds: f64,
    pub cpu_us_per_phone: Option<f64>,
    pub trouble: Option<String>,
}

/// Queues that grow without bound would be seen here.
#[derive(Debug, Clone, Copy, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct GatewayMemory {
    pub rss_bytes_before: Option<u64>,
    /// The highest of all seconds.
    pub rss_bytes_highest: Option<u64>,
}

impl Round {
    pub(super) fn of(at_s: f64, late_ms: f64, told: &Broadcast) -> Self {
        let Broadcast { asked, delivered, twice, seconds, cpu_us_per_phone, .. } = *told;
        let trouble = told.trouble.clone();
        Self { at_s, late_ms, asked, delivered, twice, seconds, cpu_us_per_phone, trouble }
    }

    pub(super) fn is_late(&self) -> bool {
        self.late_ms * 1e3 > limits::LATE_START_US as f64
    }
}

impl BroadcastReport {
    pub(super) fn of(options: &BroadcastOptions, run: Run, session: &Session, recorded: Recorded) -> Self {
        let Run { connected, told, .. } = run;
        let rounds_late = told.rounds.iter().filter(|(round, _)| round.is_late()).count() as u64;
        let made = told.rounds.len() as u64;
        let measured = recorded.recorder.measured();
        let gauges = measured.timeline.points.iter().filter_map(|point| point.gauges?.gateway.rss_bytes);
        Self {
            schema: SCHEMA,
            command: "broadcast",
            seconds: told.seconds,
            ended_early: told.ended_early,
            interval_s: options.interval.as_secs_f64(),
            heartbeat_s: run.heartbeat_s,
            connections: run.connections,
            setup: connected.setup,
            broadcast: Broadcast::of_all(told.rounds.iter().map(|(_, told)| told)),
            rounds_asked: options.rounds,
            rounds_late,
            latency_ms: recorded.recorder.latency(NOTICE, told.phase).percentiles(),
            heartbeats: run.heartbeats,
            server: GatewayMemory {
                rss_bytes_before: told.rss_bytes_before,
                rss_bytes_highest: gauges.max(),
            },
            gateway: session.told.clone(),
            generator: Generator::judge(run.threads, &connected.totals, &told.totals, made, rounds_late),
            rounds: told.rounds.into_iter().map(|(round, _)| round).collect(),
            host: session.host.clone(),
            measured,
            recorded: Some(recorded),
        }
    }
}

impl Report for BroadcastReport {
    /// Each notice reached each phone once, nobody was lost, and no beat was.
    fn is_good(&self) -> bool {
        let Connections { asked, held, lost, .. } = self.connections;
        let all_made = self.rounds.len() == self.rounds_asked as usize || self.ended_early;
        let all_beat = self.heartbeats.phones_without == 0 || self.ended_early;
        self.broadcast.is_good()
            && all_made
            && held == u64::from(asked)
            && lost + self.heartbeats.lost == 0
            && all_beat
    }

    fn summary(&self) -> String {
        let (told, beats) = (&self.broadcast, &self.heartbeats);
        let trouble =
            told.trouble.as_ref().map_or_else(String::new, |why| format!("; not all were sent: {why}"));
        format!(
            "{} notices to {} phones, one every {} s: {} of {} delivered, {} twice, the slowest after {:.2} s, {} of the \
             gateway's CPU a phone{trouble}\n\
             from when it was to be asked for: p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, max {:.2} ms; {} rounds late\n\
             {} beats answered, {} lost, {} phones without one; p99 {:.2} ms\n\
             {} of {} connections stand, {} were lost; gateway's memory {} before, {} at most\n{}",
            self.rounds.len(),
            self.connections.asked,
            self.interval_s,
            told.delivered,
            told.asked,
            told.twice,
            told.seconds,
            figure(told.cpu_us_per_phone, "us"),
            self.latency_ms.p50,
            self.latency_ms.p99,
            self.latency_ms.p999,
            self.latency_ms.max,
            self.rounds_late,
            beats.answered,
            beats.lost,
            beats.phones_without,
            beats.latency_ms.p99,
            self.connections.held,
            self.connections.asked,
            self.connections.lost,
            figure(self.server.rss_bytes_before.map(mib), "MiB"),
            figure(self.server.rss_bytes_highest.map(mib), "MiB"),
            self.generator.verdict,
        )
    }

    crate::report::on_record!();
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
