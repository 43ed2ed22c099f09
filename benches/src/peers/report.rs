//! The table of the comparison: a ratio, what it must be, the raw figures, and what one side does that the other does
//! not.

use std::collections::BTreeMap;

use serde::Serialize;

use super::limits;
use super::side::Round;
use super::stats::{self, Estimate};
use crate::report::{HostFacts, Report};

pub const SCHEMA: u32 = 1;

/// A key of the table.
struct Row {
    key: &'static str,
    unit: &'static str,
    most: f64,
    /// It must be below, not at.
    strictly: bool,
    /// What one side does that the other does not.
    note: &'static str,
}

const ROWS: [Row; 8] = [
    Row {
        key: "memory_vs_mosquitto",
        unit: "B of user memory a connection",
        most: 0.25,
        strictly: false,
        note: "ours checked a signed token and has a heartbeat timer and the user's log; mosquitto lets anonymous \
               clients in and keeps a topic each in its tree",
    },
    Row {
        key: "heartbeat_vs_floor",
        unit: "us of CPU a heartbeat",
        most: 1.15,
        strictly: false,
        note: "ours is authenticated, parses frames and moves a timer; the floor copies bytes back",
    },
    Row {
        key: "heartbeat_vs_mosquitto",
        unit: "us of CPU a heartbeat",
        most: 1.0,
        strictly: true,
        note: "ours answers a beat and looks whether news is untold; mosquitto answers PINGREQ",
    },
    Row {
        key: "forward_vs_haproxy",
        unit: "us of the proxy's CPU a forwarded round trip of 64 bytes",
        most: 0.45,
        strictly: false,
        note: "ours parses, checks the method's access, numbers the call and puts many calls on one upstream \
               connection; HAProxy copies bytes between two connections a client",
    },
    Row {
        key: "fanout_vs_mosquitto",
        unit: "us of CPU a delivery of 100 bytes",
        most: 1.0,
        strictly: true,
        note: "ours gets one call of a logic tier and hands one frame to all sessions; mosquitto matches one topic to all \
               subscribers",
    },
    Row {
        key: "fanout_vs_nats",
        unit: "us of CPU a delivery of 100 bytes",
        most: 0.5,
        strictly: false,
        note: "ours gets one call of a logic tier and hands one frame to all sessions; NATS (one P of Go) matches one subject to all \
               subscribers",
    },
    Row {
        key: "coalesced_vs_mosquitto",
        unit: "us of CPU a piece of news",
        most: 0.25,
        strictly: false,
        note: "the 8 pieces of a connection come in one go each second. Ours notifies once, and the phone's sync \
               through the gateway brings all; mosquitto delivers each. The logic tier's own CPU (pages of the sync) \
               is not in it, as the publisher's is not",
    },
    Row {
        key: "coalesced_spread_vs_mosquitto",
        unit: "us of CPU a piece of news",
        most: f64::INFINITY,
        strictly: false,
        note: "no limit is set: as above with the pieces 125 ms apart, so that a phone that syncs at once leaves little \
               to coalesce",
    },
];

/// The raw figures of a key.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Raw {
    #[serde(skip)]
    key: &'static str,
    pub ratio: Option<f64>,
    /// Where the ratio lies with 95 % (bootstrap over the rounds' pairs).
    pub low: Option<f64>,
    pub high: Option<f64>,
    pub must_be: String,
    pub is_met: bool,
    pub unit: &'static str,
    /// Medians.
    pub ours: Option<f64>,
    pub peer: Option<f64>,
    pub peer_name: &'static str,
    pub connections: u32,
    pub units_per_second: Option<f64>,
    pub ours_rounds: Vec<Round>,
    pub peer_rounds: Vec<Round>,
    /// The bench's own core was full, or a side did not do what the schedule wanted.
    pub generator_was_the_limit: bool,
    pub note: &'static str,
}

impl Raw {
    fn new(key: &'static str, estimate: Option<Estimate>, peer_name: &'static str, connections: u32) -> Self {
        let row = ROWS.iter().find(|row| row.key == key).expect("a key of the table");
        let ratio = estimate.map(|estimate| estimate.median);
        let is_met =
            ratio.is_some_and(|ratio| if row.strictly { ratio < row.most } else { ratio <= row.most });
        let must_be = match row.most {
            most if most.is_infinite() => "told only".to_owned(),
            most => format!("{} {most}", if row.strictly { "<" } else { "<=" }),
        };
        Self {
            key,
            ratio,
            low: estimate.map(|estimate| estimate.low),
            high: estimate.map(|estimate| estimate.high),
            must_be,
            is_met,
            unit: row.unit,
            ours: None,
            peer: None,
            peer_name,
            connections,
            units_per_second: None,
            ours_rounds: Vec::new(),
            peer_rounds: Vec::new(),
            generator_was_the_limit: false,
            note: row.note,
        }
    }

    pub fn of_bytes(key: &'static str, [ours, peer]: [f64; 2], connections: u32) -> Self {
        let estimate = stats::ratio(&[ours], &[peer]);
        Self { ours: Some(ours), peer: Some(peer), ..Self::new(key, estimate, "mosquitto", connections) }
    }

    pub fn of_rounds(
        key: &'static str,
        [ours, peer]: [&Vec<Round>; 2],
        peer_name: &'static str,
        units_per_second: f64,
        connections: u32,
    ) -> Self {
        let costs = |rounds: &[Round]| rounds.iter().map(|round| round.cpu_us_per_unit).collect::<Vec<_>>();
        let (ours_costs, peer_costs) = (costs(ours), costs(peer));
        let spoilt = ours.iter().chain(peer).filter(|round| {
            round.bench_busy > limits::BENCH_BUSY_MAX || round.done_share < limits::DRIVEN_SHARE
        });
        Self {
            ours: stats::median(&ours_costs),
            peer: stats::median(&peer_costs),
            units_per_second: Some(units_per_second),
            generator_was_the_limit: spoilt.count() * 4 > ours.len() + peer.len(),
            ours_rounds: ours.clone(),
            peer_rounds: peer.clone(),
            ..Self::new(key, stats::ratio(&ours_costs, &peer_costs), peer_name, connections)
        }
    }

    fn line(&self) -> String {
        let figure = |value: Option<f64>| value.map_or("?".to_owned(), |value| format!("{value:.2}"));
        let verdict = match (self.must_be.as_str(), self.is_met) {
            ("told only", _) => "",
            (_, true) => "met",
            (_, false) => "NOT MET",
        };
        let rate = self.units_per_second.map_or(String::new(), |rate| format!(", {rate:.0} a second"));
        let limit = if self.generator_was_the_limit { "; the generator was the limit" } else { "" };
        format!(
            "{:<30} {:>6} [{} .. {}]  must be {:<8} {verdict}\n    ours {}, {} {} {}; {} connections{rate}{limit}\n    {}",
            self.key,
            figure(self.ratio),
            figure(self.low),
            figure(self.high),
            self.must_be,
            figure(self.ours),
            self.peer_name,
            figure(self.peer),
            self.unit,
            self.connections,
            self.note,
        )
    }
}

/// The whole comparison.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Comparison {
    pub schema: u32,
    pub command: &'static str,
    /// Ctrl-C came before all works were done.
    pub ended_early: bool,
    /// Ours by the peer's: below 1 is less.
    pub ratios: BTreeMap<&'static str, f64>,
    pub raw: BTreeMap<&'static str, Raw>,
    /// Keys that could not be had, and why.
    pub skipped: BTreeMap<&'static str, String>,
    /// Which echo is the floor, and what both cost.
    pub floor: Option<String>,
    pub versions: BTreeMap<&'static str, String>,
    pub rounds: usize,
    pub round_ms: u64,
    pub server_core: usize,
    pub bench_core: usize,
    pub host: HostFacts,
}

impl Comparison {
    pub fn add(&mut self, raw: Raw) {
        if let Some(ratio) = raw.ratio {
            self.ratios.insert(raw.key, ratio);
        }
        self.raw.insert(raw.key, raw);
    }
}

impl Report for Comparison {
    /// Though a ratio is not met: the table says so.
    fn is_good(&self) -> bool {
        true
    }

    fn host(&self) -> &HostFacts {
        &self.host
    }

    fn summary(&self) -> String {
        let mut text = format!(
            "ours by the peer's, {} rounds of {} ms each in turn, one server core ({}), the bench on {}\n\n",
            self.rounds, self.round_ms, self.server_core, self.bench_core
        );
        for row in ROWS {
            if let Some(raw) = self.raw.get(row.key) {
                text.push_str(&raw.line());
                text.push('\n');
            } else if let Some(why) = self.skipped.get(row.key) {
                text.push_str(&format!("{:<30} skipped: {why}\n", row.key));
            }
        }
        if let Some(floor) = &self.floor {
            text.push_str(&format!("\nfloor: {floor}\n"));
        }
        for (name, version) in &self.versions {
            text.push_str(&format!("{name}: {version}\n"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(costs: &[f64], bench_busy: f64) -> Vec<Round> {
        let round =
            |&cost: &f64| Round { cpu_us_per_unit: cost, done_share: 1.0, bench_busy, ..Round::default() };
        costs.iter().map(round).collect()
    }

    #[test]
    fn a_key_is_met_at_its_bound_or_below_it_as_the_table_says() {
        let met = |key, ours: f64| {
            Raw::of_rounds(key, [&rounds(&[ours; 3], 0.5), &rounds(&[1.0; 3], 0.5)], "peer", 1.0, 1).is_met
        };
        assert!(met("heartbeat_vs_floor", 1.15) && !met("heartbeat_vs_floor", 1.16));
        assert!(met("heartbeat_vs_mosquitto", 0.99) && !met("heartbeat_vs_mosquitto", 1.0));
        assert!(met("coalesced_spread_vs_mosquitto", 7.0));
    }

    #[test]
    fn a_comparison_fits_its_schema_also_with_a_round_in_which_nothing_was_done() {
        let mut report = Comparison {
            schema: SCHEMA,
            command: "peers",
            ended_early: false,
            ratios: BTreeMap::new(),
            raw: BTreeMap::new(),
            skipped: BTreeMap::from([("fanout_vs_nats", "not here".to_owned())]),
            floor: None,
            versions: BTreeMap::new(),
            rounds: 2,
            round_ms: 400,
            server_core: 0,
            bench_core: 1,
            host: HostFacts::read(true, false, crate::servers::Cores::default(), Vec::new()),
        };
        let both = [&rounds(&[2.0, f64::NAN], 0.5), &rounds(&[4.0, 4.0], 0.5)];
        report.add(Raw::of_rounds("heartbeat_vs_mosquitto", both, "mosquitto", 5.0, 9));
        let schema = serde_json::to_value(schemars::schema_for!(Comparison)).expect("a schema");
        let mut value = serde_json::to_value(&report).expect("a report has a JSON form");
        let told = jsonschema::validate(&schema, &value);
        assert!(told.is_ok(), "{told:?}");
        assert!(value["raw"]["heartbeat_vs_mosquitto"]["ours_rounds"][1]["cpu_us_per_unit"].is_null());
        assert!(report.summary().contains("heartbeat_vs_mosquitto") && report.summary().contains("skipped"));
        value["ratios"] = "many".into();
        assert!(jsonschema::validate(&schema, &value).is_err());
    }

    #[test]
    fn a_full_generator_is_told() {
        let raw = |busy| {
            let both = [&rounds(&[2.0; 4], busy), &rounds(&[1.0; 4], 0.1)];
            Raw::of_rounds("fanout_vs_nats", both, "nats", 5.0, 9)
        };
        assert!(!raw(0.5).generator_was_the_limit && raw(0.99).generator_was_the_limit);
        let line = raw(0.99).line();
        assert!(line.contains("NOT MET") && line.contains("generator was the limit"), "{line}");
    }
}
