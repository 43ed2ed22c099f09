//! What calls gave.

use std::collections::BTreeMap;

use serde::Serialize;

use super::bench::CallOutcome;
use super::callers::Pace;
use crate::latency::Percentiles;
use crate::measure::{Arrival, Measured};
use crate::report::{Generator, HostFacts, Recorded, Report, figure, share};
use crate::servers::GatewayTold;

/// What a closed loop does not show, for every report of one.
pub const CLOSED_HIDES: &str = "a closed loop: each phone waits for its answer before it calls again, so a server that \
                                stalls is asked less, and the wait of those who would have called meanwhile is not in \
                                the latencies (--rate R is the open loop, whose latencies count from the intended time)";

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CallReport {
    pub schema: u32,
    pub command: &'static str,
    pub clients: u32,
    pub payload_bytes: usize,
    pub seconds: f64,
    /// Ctrl-C ended it before its time.
    pub ended_early: bool,
    pub pace: PaceReport,
    pub calls: u64,
    pub calls_per_second: f64,
    pub starts: u64,
    pub late_starts: u64,
    pub dropped_starts: u64,
    pub errors: u64,
    pub errors_by_status: BTreeMap<String, u64>,
    pub unanswered: u64,
    pub latency_ms: Percentiles,
    pub server: CallCost,
    /// The gateway's own word, of the measured load.
    pub gateway: Option<GatewayTold>,
    pub generator: Generator,
    pub host: HostFacts,
    pub measured: Measured,
    #[serde(skip)]
    pub recorded: Option<Recorded>,
}

/// Open or closed, and what that means for the latencies.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PaceReport {
    /// "open" or "closed".
    pub kind: &'static str,
    /// Calls a second that were asked for.
    pub rate: Option<f64>,
    pub arrival: Option<Arrival>,
    pub latency_from: &'static str,
    /// What the latencies do not show.
    pub hides: Option<&'static str>,
}

impl From<Pace> for PaceReport {
    fn from(pace: Pace) -> Self {
        match pace {
            Pace::Closed => Self {
                kind: "closed",
                rate: None,
                arrival: None,
                latency_from: "the start of the call",
                hides: Some(CLOSED_HIDES),
            },
            Pace::Open { rate, arrival } => Self {
                kind: "open",
                rate: Some(rate),
                arrival: Some(arrival),
                latency_from: "the intended start of the call",
                hides: None,
            },
        }
    }
}

#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CallCost {
    pub gateway: PartCost,
    pub backend: PartCost,
}

#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PartCost {
    pub cpu_us_per_call: Option<f64>,
    /// The share of one core.
    pub cores_used: Option<f64>,
    pub rss_bytes: Option<u64>,
}

impl CallCost {
    pub fn of(outcome: &CallOutcome) -> Self {
        let part = |at: usize| {
            let (from, to) = (outcome.before.0[at], outcome.after.0[at]);
            let cpu_us = from.zip(to).map(|(from, to)| to.cpu_us.saturating_sub(from.cpu_us));
            PartCost {
                cpu_us_per_call: share(cpu_us, outcome.latency.count()),
                cores_used: cpu_us.map(|us| us as f64 / 1e6 / outcome.seconds),
                rss_bytes: to.map(|usage| usage.rss_bytes),
            }
        };
        Self { gateway: part(0), backend: part(1) }
    }
}

impl Report for CallReport {
    fn is_good(&self) -> bool {
        self.errors + self.unanswered == 0 && self.calls > 0
    }

    fn summary(&self) -> String {
        let us = |part: &PartCost| figure(part.cpu_us_per_call, "us");
        let early = if self.ended_early { " (ended early)" } else { "" };
        let mut text = format!(
            "{:.0} forwarded calls a second ({} calls, {} errors, {} unanswered) by {} phones with {} bytes in {:.1} s{early}\n",
            self.calls_per_second,
            self.calls,
            self.errors,
            self.unanswered,
            self.clients,
            self.payload_bytes,
            self.seconds,
        );
        if let Some(rate) = self.pace.rate {
            text.push_str(&format!(
                "an open loop of {rate:.0} a second: {} started, {} of them late, {} dropped\n",
                self.starts, self.late_starts, self.dropped_starts
            ));
        }
        text.push_str(&format!(
            "latency from {}: p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, max {:.2} ms\n\
             CPU a call: {} {}, backend {}\n{}",
            self.pace.latency_from,
            self.latency_ms.p50,
            self.latency_ms.p99,
            self.latency_ms.p999,
            self.latency_ms.max,
            self.host.names()[0],
            us(&self.server.gateway),
            us(&self.server.backend),
            self.generator.verdict,
        ));
        if let Some(hides) = self.pace.hides {
            text.push_str(&format!("\n{hides}"));
        }
        text
    }

    crate::report::on_record!();

    fn shortfall(&self) -> Option<String> {
        let asked = self.pace.rate.filter(|_| !self.ended_early)?;
        crate::report::shortfall(asked, self.starts, self.dropped_starts, &self.generator)
    }
}
