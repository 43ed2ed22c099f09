//! What holding gave.

use serde::Serialize;

use super::{Held, Run};
use crate::measure::Measured;
use crate::report::{Generator, HostFacts, Recorded, Report, SCHEMA, figure, share};
use crate::servers::GatewayTold;
use crate::session::Session;
use crate::standing::{Broadcast, Connections, Heartbeats, Setup};

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
    /// The gateway's own word, of the measured load.
    pub gateway: Option<GatewayTold>,
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
    pub(super) fn of(run: Run, session: &Session, recorded: Recorded) -> Self {
        let server = ServerCost::of(&run, session);
        let Run { connected, held, .. } = run;
        let n = f64::from(run.connections.asked);
        Self {
            schema: SCHEMA,
            command: "hold",
            seconds: held.seconds,
            ended_early: held.ended_early,
            heartbeat_s: run.heartbeat_s,
            connections: run.connections,
            setup: connected.setup,
            heartbeats: run.heartbeats,
            server,
            gateway: session.told.clone(),
            backend: BackendCost {
                user_bytes_per_connection: grown(held.rss(1), run.before.rss[1], n),
                rss_bytes: held.rss(1),
            },
            broadcast: run.broadcast,
            generator: Generator::judge(run.threads, &connected.totals, &held.totals, 0, 0),
            host: session.host.clone(),
            measured: recorded.recorder.measured(),
            recorded: Some(recorded),
        }
    }
}

impl Held {
    fn rss(&self, part: usize) -> Option<u64> {
        self.usage[part].map(|usage| usage.rss_bytes)
    }
}

/// What each of `n` added.
fn grown(after: Option<u64>, before: Option<u64>, n: f64) -> Option<f64> {
    Some((after? as f64 - before? as f64) / n)
}

impl ServerCost {
    fn of(run: &Run, session: &Session) -> Self {
        let (held, before, asked) = (&run.held, &run.before, run.connections.asked);
        let between = u64::from(asked - before.warm_up);
        let kernel = held.kernel.zip(before.kernel);
        Self {
            user_bytes_per_connection: grown(held.rss(0), before.rss[0], f64::from(asked)),
            user_bytes_in_all: share(held.rss(0), asked.into()),
            kernel_bytes_per_connection: kernel
                .and_then(|(after, before)| after.kernel_bytes_per_connection(&before, between)),
            kernel_bytes_of: match session.servers.target.ip().is_loopback() {
                true => "machine-wide, both ends of each connection",
                false => "machine-wide, the phones' end of each connection only",
            },
            cpu_us_per_heartbeat: share(held.cpu_us, run.heartbeats.answered),
            rss_bytes: held.rss(0),
            rss_bytes_after_warm_up: before.rss[0],
            rss_bytes_after_all_left: run.rss_after_all_left,
        }
    }
}

impl Report for HoldReport {
    fn is_good(&self) -> bool {
        let all_held = self.connections.held == u64::from(self.connections.asked);
        let all_beat = self.heartbeats.phones_without == 0 || self.ended_early;
        let all_heard = self.broadcast.as_ref().is_none_or(Broadcast::is_good);
        all_held && self.connections.lost == 0 && all_beat && all_heard
    }

    fn summary(&self) -> String {
        let bytes = |value| figure(value, "B");
        let whole = |value: Option<u64>| bytes(value.map(|bytes| bytes as f64));
        let (connections, heartbeats, server) = (&self.connections, &self.heartbeats, &self.server);
        format!(
            "held {} of {} connections for {:.0} s, lost {}; set up at {:.0} a second\n\
             {}: {} of user memory a connection ({} in all), {} of CPU a heartbeat\n\
             kernel:  {} a connection, {}\n\
             backend: {} a user\n\
             memory of the gateway: {} after the warm-up, {} after all had left\n\
             {} beats answered after the last connect; {} phones without one; from when a beat was due to its answer: p50 \
             {:.2} ms, p99 {:.2} ms, max {:.2} ms\n{}\n{}",
            connections.held,
            connections.asked,
            self.seconds,
            connections.lost,
            self.setup.per_second,
            self.host.names()[0],
            bytes(server.user_bytes_per_connection),
            bytes(server.user_bytes_in_all),
            figure(server.cpu_us_per_heartbeat, "us"),
            whole(server.kernel_bytes_per_connection),
            server.kernel_bytes_of,
            bytes(self.backend.user_bytes_per_connection),
            whole(server.rss_bytes_after_warm_up),
            whole(server.rss_bytes_after_all_left),
            heartbeats.answered,
            heartbeats.phones_without,
            heartbeats.latency_ms.p50,
            heartbeats.latency_ms.p99,
            heartbeats.latency_ms.max,
            self.broadcast.as_ref().map_or_else(String::new, Broadcast::summary),
            self.generator.verdict,
        )
    }

    crate::report::on_record!();
}
