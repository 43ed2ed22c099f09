//! A load for hours: does memory grow, do latencies drift, does anything get lost?

use serde::Serialize;

use crate::call::{CallBench, CallCost, CallPlan, CallSetup, Pace};
use crate::latency::Percentiles;
use crate::leak::Leak;
use crate::measure::{Arrival, Measured, Point};
use crate::report::{Generator, HostFacts, Recorded, Report, SCHEMA};
use crate::servers::GatewayTold;
use crate::session::RunError;

#[derive(Debug, Clone)]
pub struct SoakOptions {
    pub setup: CallSetup,
    pub seconds: u64,
    pub rate: f64,
    pub arrival: Arrival,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SoakReport {
    pub schema: u32,
    pub command: &'static str,
    pub clients: u32,
    pub payload_bytes: usize,
    pub seconds: f64,
    pub ended_early: bool,
    pub rate: f64,
    pub arrival: Arrival,
    pub calls: u64,
    pub errors: u64,
    pub unanswered: u64,
    pub late_starts: u64,
    pub dropped_starts: u64,
    pub connections_lost: u64,
    pub latency_ms: Percentiles,
    /// Of the gateway.
    pub leak: Leak,
    pub leak_of_backend: Leak,
    pub is_good: bool,
    pub verdict: String,
    pub server: CallCost,
    /// The gateway's own word, of the measured load.
    pub gateway: Option<GatewayTold>,
    pub generator: Generator,
    pub host: HostFacts,
    pub measured: Measured,
    #[serde(skip)]
    pub recorded: Option<Recorded>,
}

pub fn run(options: &SoakOptions) -> Result<SoakReport, RunError> {
    let setup = &options.setup;
    let mut bench = CallBench::open(setup, "moorgate-bench soak")?;
    bench.connect(setup.clients)?;
    let pace = Pace::Open { rate: options.rate, arrival: options.arrival };
    let plan = CallPlan { phase: "load", pace, phones: setup.clients, for_ms: options.seconds * 1_000 };
    bench.session.watch_others();
    let outcome = bench.run(&plan)?;
    bench.session.note_others();
    let generator = bench.judge(&outcome);
    let lost = outcome.after.1.lost - outcome.before.1.lost;
    let (session, recorded, _) = bench.close()?;
    let measured = recorded.recorder.measured();
    let from_s = measured.phases.last().map_or(0.0, |phase| phase.from_s);
    let leak_of = |read: fn(&Point) -> Option<u64>| {
        let in_load = measured.timeline.points.iter().filter(|point| point.s as f64 >= from_s);
        let readings: Vec<(f64, f64)> =
            in_load.filter_map(|point| Some((point.s as f64, read(point)? as f64))).collect();
        Leak::judge(&readings)
    };
    let leak = leak_of(|point| point.gauges?.gateway.rss_bytes);
    let leak_of_backend = leak_of(|point| point.gauges?.backend.rss_bytes);
    let failed = outcome.counts.errors + outcome.unanswered + lost;
    let leaks = [&leak, &leak_of_backend].into_iter().any(|leak| leak.leaks == Some(true));
    Ok(SoakReport {
        schema: SCHEMA,
        command: "soak",
        clients: setup.clients,
        payload_bytes: setup.payload_bytes,
        seconds: outcome.seconds,
        ended_early: outcome.ended_early,
        rate: options.rate,
        arrival: options.arrival,
        calls: outcome.latency.count(),
        errors: outcome.counts.errors,
        unanswered: outcome.unanswered,
        late_starts: outcome.counts.late,
        dropped_starts: outcome.counts.dropped,
        connections_lost: lost,
        latency_ms: outcome.latency.percentiles(),
        is_good: failed == 0 && !leaks && outcome.latency.count() > 0,
        verdict: format!("gateway: {}; backend: {}", leak.verdict, leak_of_backend.verdict),
        leak,
        leak_of_backend,
        server: CallCost::of(&outcome),
        gateway: session.told.clone(),
        generator,
        host: session.host.clone(),
        measured,
        recorded: Some(recorded),
    })
}

impl Report for SoakReport {
    fn is_good(&self) -> bool {
        self.is_good
    }

    fn summary(&self) -> String {
        format!(
            "{} calls in {:.0} s at {:.0} a second by {} phones: {} errors, {} unanswered, {} connections lost, {} late \
             and {} dropped starts\nlatency: p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, max {:.2} ms\n{}\n{}",
            self.calls,
            self.seconds,
            self.rate,
            self.clients,
            self.errors,
            self.unanswered,
            self.connections_lost,
            self.late_starts,
            self.dropped_starts,
            self.latency_ms.p50,
            self.latency_ms.p99,
            self.latency_ms.p999,
            self.latency_ms.max,
            self.verdict,
            self.generator.verdict
        )
    }

    crate::report::on_record!();

    fn shortfall(&self) -> Option<String> {
        let starts = self.calls + self.errors + self.unanswered;
        if self.ended_early {
            return None;
        }
        crate::report::shortfall(self.rate, starts, self.dropped_starts, &self.generator)
    }
}
