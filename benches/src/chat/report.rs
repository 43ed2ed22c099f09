//! What a chat gave.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::latency::Percentiles;
use crate::measure::{Arrival, Measured};
use crate::mixed::KindCount;
use crate::report::{Generator, HostFacts, Recorded, Report, figure};
use crate::servers::GatewayTold;

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ChatReport {
    pub schema: u32,
    pub command: &'static str,
    pub clients: u32,
    pub seconds: f64,
    /// Ctrl-C ended the load before its time.
    pub ended_early: bool,
    pub arrival: Arrival,
    /// Starts that were due and could not be made.
    pub dropped_starts: u64,
    /// Messages of the measured load. Everything that is wrong counts over all loads, those of the search too.
    pub sent: u64,
    pub acknowledged: u64,
    /// Copies at receivers other than the sender.
    pub delivered: u64,
    pub duplicates: u64,
    pub gaps: u64,
    pub missing: u64,
    pub out_of_order: u64,
    /// Numbers of groups that are one message here and another there.
    pub disagreements: u64,
    pub misdelivered: u64,
    /// Acknowledged messages that the sender's own log did not show.
    pub own_missing: u64,
    /// Never answered: they may have arrived, once.
    pub unacknowledged: u64,
    pub repeats: u64,
    pub bad_pages: u64,
    pub snapshots: u64,
    pub syncs_failed: u64,
    /// Answers other than `ok` on the way.
    pub statuses: BTreeMap<String, u64>,
    pub refused: u64,
    /// The rate that was asked for.
    pub rate: f64,
    pub acknowledged_per_second: f64,
    pub deliveries_per_second: f64,
    pub latency_ms: Latencies,
    /// From the end of the load until all was there; none: it never was.
    pub drained_after_ms: Option<u64>,
    pub server: ServerCosts,
    /// The gateway's own word, of the measured load.
    pub gateway: Option<GatewayTold>,
    pub kills: Vec<Kill>,
    pub search: Vec<Trial>,
    /// The highest rate of the search that held.
    pub highest_rate: Option<f64>,
    pub connections_lost: u64,
    pub generator: Generator,
    /// The first of what was wrong.
    pub complaints: Vec<String>,
    pub first_bad: Option<String>,
    pub seed: u64,
    pub groups: BTreeMap<String, usize>,
    pub host: HostFacts,
    /// Of a mix, by kind: then the counts above are of all kinds together, and latencies too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kinds: Option<BTreeMap<&'static str, KindCount>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<StateReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,
    #[serde(skip)]
    pub recorded: Option<Recorded>,
}

/// What phones show at the end of a mix, against each other and the model.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StateReport {
    pub users: u32,
    pub devices: u32,
    /// Whatever differs, of all checks.
    pub differ: u64,
    pub by_check: BTreeMap<String, u64>,
    /// Typing notices that came; they are kept nowhere and may be lost.
    pub typing_seen: u64,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Latencies {
    pub ack: Percentiles,
    pub deliver: Percentiles,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ServerCosts {
    pub gateway: PartCost,
    pub backend: PartCost,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PartCost {
    /// A message with all its deliveries and all their syncs.
    pub cpu_us_per_message: Option<f64>,
    pub rss_bytes: Option<u64>,
    /// The share of one core.
    pub cores_used: Option<f64>,
}

/// A SIGKILL in mid-run.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Kill {
    pub part: &'static str,
    pub at_s: f64,
    /// Messages that were sent and not acknowledged at that moment.
    pub in_flight: u64,
    pub ready_after_ms: u64,
}

/// A step of the search.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Trial {
    pub rate: f64,
    pub held: bool,
    /// While the load lasted.
    pub acknowledged_per_second: f64,
    pub ack_p99_ms: f64,
    pub deliver_p50_ms: f64,
    pub deliver_p99_ms: f64,
    /// What was yet to come 1 s after the end.
    pub left: u64,
    pub late_starts: u64,
    pub dropped_starts: u64,
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.0} a second {}: p99 {:.0} ms to the acknowledgement, {:.0} ms to the delivery, {} left after 1 s, {} \
             late starts",
            self.rate,
            if self.held { "holds" } else { "does not hold" },
            self.ack_p99_ms,
            self.deliver_p99_ms,
            self.left,
            self.late_starts
        )
    }
}

impl Report for ChatReport {
    /// Nothing missing, doubled or out of order.
    fn is_good(&self) -> bool {
        let wrong = self.duplicates + self.missing + self.out_of_order + self.disagreements;
        let differ = self.state.as_ref().map_or(0, |state| state.differ);
        wrong + self.misdelivered + self.own_missing + self.bad_pages + self.refused + differ == 0
            && self.acknowledged > 0
    }

    fn summary(&self) -> String {
        let mut text = format!(
            "{} phones, {:.0} {} a second for {:.0} s: {} sent, {} acknowledged ({:.0}/s), {} delivered ({:.0}/s)\n",
            self.clients,
            self.rate,
            if self.kinds.is_some() { "changes" } else { "messages" },
            self.seconds,
            self.sent,
            self.acknowledged,
            self.acknowledged_per_second,
            self.delivered,
            self.deliveries_per_second,
        );
        for (name, told) in [("acknowledged", &self.latency_ms.ack), ("delivered", &self.latency_ms.deliver)]
        {
            text.push_str(&format!(
                "{name:>12}: p50 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms, max {:.1} ms\n",
                told.p50, told.p99, told.p999, told.max
            ));
        }
        let parts = [&self.server.gateway, &self.server.backend];
        for (name, part) in
            self.host.names().into_iter().zip(parts).filter(|(_, part)| part.rss_bytes.is_some())
        {
            let rss = part.rss_bytes.map(|bytes| bytes as f64 / f64::from(1 << 20));
            text.push_str(&format!(
                "{name:>12}: {} of CPU a message, {} of memory\n",
                figure(part.cpu_us_per_message, "us"),
                figure(rss, "MiB"),
            ));
        }
        for kill in &self.kills {
            text.push_str(&format!(
                "{:>12}: {} killed at {:.1} s with {} in flight, ready again after {} ms\n",
                "SIGKILL", kill.part, kill.at_s, kill.in_flight, kill.ready_after_ms
            ));
        }
        if let Some(highest) = self.highest_rate {
            text.push_str(&format!(
                "{:>12}: {highest:.0} a second is the highest rate that held\n",
                "search"
            ));
        }
        text.push_str(&self.mixed());
        text.push_str(&format!(
            "missing {}, duplicates {}, out of order {}, disagreements {}, misdelivered {}, own missing {}; gaps {}, \
             repeats {}, unacknowledged {}; {}\n{}",
            self.missing,
            self.duplicates,
            self.out_of_order,
            self.disagreements,
            self.misdelivered,
            self.own_missing,
            self.gaps,
            self.repeats,
            self.unacknowledged,
            self.drained_after_ms
                .map_or_else(|| "not all came in time".to_owned(), |ms| format!("all was there {ms} ms after the end")),
            self.generator.verdict,
        ));
        for complaint in self.complaints.iter().chain(&self.first_bad) {
            text.push_str(&format!("\n  {complaint}"));
        }
        text
    }

    crate::report::on_record!();

    fn shortfall(&self) -> Option<String> {
        if self.ended_early || self.kinds.is_some() {
            return None;
        }
        crate::report::shortfall(self.rate, self.sent, self.dropped_starts, &self.generator)
    }
}

impl ChatReport {
    /// The kinds and the states of a mix; nothing without one.
    fn mixed(&self) -> String {
        let (Some(kinds), Some(state)) = (&self.kinds, &self.state) else { return String::new() };
        let mut text = String::new();
        for (kind, count) in kinds {
            text.push_str(&format!(
                "{kind:>14}: {} sent, {} acknowledged, {} refused\n",
                count.sent, count.acknowledged, count.refused
            ));
        }
        text.push_str(&format!(
            "{} devices of {} users: {} differences {:?}\n",
            state.devices, state.users, state.differ, state.by_check
        ));
        text
    }
}
