//! The ratios, what they must be, and the raw figures of every round.

use std::collections::BTreeMap;

use serde::Serialize;

use super::run::{Measured, Options};
use super::{LOADS, Side, limits};
use crate::peers::stats::{self, Estimate};
use crate::report::{HostFacts, Report, SCHEMA};

/// One load on one server in one round.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Round {
    /// Of the server's process, a call.
    pub cpu_us_per_unit: f64,
    pub calls_per_second: f64,
    /// Shares of the cores that server and caller used.
    pub server_busy: f64,
    pub caller_busy: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
}

/// From the call to its reply at the caller, medians of the rounds.
#[derive(Debug, Clone, Copy, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Latency {
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
}

/// A transport by itself: medians of the rounds.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Transport {
    /// Of the server.
    pub cpu_us_per_call: f64,
    pub calls_per_second: f64,
    pub p50_us: f64,
    pub p99_us: f64,
}

/// Handlers on coroutines.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Coroutine {
    /// The server's CPU a call, by that of async handlers.
    pub ratio_to_async: BTreeMap<&'static str, f64>,
}

/// A ratio with what it is made of.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Raw {
    pub ratio: Option<f64>,
    /// Where it lies with 95 % (bootstrap over the rounds' pairs).
    pub low: Option<f64>,
    pub high: Option<f64>,
    pub must_be: String,
    pub is_met: bool,
    pub unit: &'static str,
    /// Medians.
    pub ours: Option<f64>,
    pub peer: Option<f64>,
    pub peer_name: &'static str,
    pub connections: usize,
    pub units_per_second: Option<f64>,
    pub ours_rounds: Vec<Round>,
    pub peer_rounds: Vec<Round>,
    pub note: &'static str,
}

/// The whole comparison.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RpcReport {
    pub schema: u32,
    pub command: &'static str,
    pub ended_early: bool,
    /// The server's CPU a call, ours by the peer's, by load: medians of the rounds' ratios.
    pub ratio_to_tonic: BTreeMap<&'static str, f64>,
    /// ... with `Bytes` in the peer's messages.
    pub ratio_to_tonic_bytes: BTreeMap<&'static str, f64>,
    pub ratio_to_tarpc: BTreeMap<&'static str, f64>,
    pub ratio_to_floor: BTreeMap<&'static str, f64>,
    pub coroutine: Coroutine,
    /// A connection for each call, 16 at once.
    pub short: Option<Transport>,
    /// A datagram each way, 64 calls at once.
    pub udp: Option<Transport>,
    /// Of ours, by load.
    pub calls_per_second: BTreeMap<&'static str, f64>,
    pub latency: BTreeMap<&'static str, Latency>,
    /// The floor's CPU in us a call, by load.
    pub floor: BTreeMap<&'static str, f64>,
    /// Each server's, by load.
    pub cpu_us_per_call: BTreeMap<&'static str, BTreeMap<Side, f64>>,
    pub rounds: usize,
    /// Rounds whose floor was in the kernel's slow mode; they are in no other figure.
    pub rounds_thrown_away: usize,
    /// Their floors at 16 KiB, us a call.
    pub slow_floors: Vec<f64>,
    pub round_ms: u64,
    pub server_core: usize,
    pub caller_core: usize,
    pub raw: BTreeMap<String, Raw>,
    /// Servers that could not be had, and why.
    pub skipped: BTreeMap<&'static str, String>,
    pub host: HostFacts,
}

/// Which rounds count.
pub struct Taken<'a> {
    pub kept: Vec<&'a Measured>,
    pub slow_floors: Vec<f64>,
}

impl<'a> Taken<'a> {
    pub fn of(rounds: &'a [Measured]) -> Self {
        let floor = |round: &Measured| {
            round.get(&("k16", Side::Floor)).map_or(f64::INFINITY, |round| round.cpu_us_per_unit)
        };
        let fastest = rounds.iter().map(floor).fold(f64::INFINITY, f64::min);
        let (kept, slow): (Vec<_>, Vec<_>) =
            rounds.iter().partition(|round| floor(round) <= fastest * limits::SLOW_FLOOR);
        Self { kept, slow_floors: slow.into_iter().map(floor).collect() }
    }

    fn rounds(&self, load: &'static str, side: Side) -> Vec<Round> {
        self.kept.iter().filter_map(|round| round.get(&(load, side)).copied()).collect()
    }

    fn median(&self, load: &'static str, side: Side, of: impl Fn(&Round) -> f64) -> Option<f64> {
        stats::median(&self.rounds(load, side).iter().map(of).collect::<Vec<_>>())
    }
}

/// The most that handlers on coroutines may cost, by async ones.
const COROUTINE: f64 = 1.3;

/// The most that a load may cost, by tonic's.
fn most(load: &str) -> f64 {
    match load {
        "b20" => 0.20,
        "k1" => 0.15,
        "k16" => 0.50,
        "b20_16x4" => 0.35,
        _ => f64::INFINITY,
    }
}

impl RpcReport {
    pub fn new(
        options: &Options,
        rounds: &[Measured],
        skipped: BTreeMap<&'static str, String>,
        ended_early: bool,
        host: HostFacts,
    ) -> Self {
        let taken = Taken::of(rounds);
        let cost = |round: &Round| round.cpu_us_per_unit;
        let by_load = |of: &dyn Fn(&'static str) -> Option<f64>| -> BTreeMap<&'static str, f64> {
            LOADS.iter().filter_map(|load| Some((load.key, of(load.key)?))).collect()
        };
        let ratios = |side: Side| by_load(&|load| Some(estimate(&taken, load, side)?.median));
        let latency = |load: &'static str| {
            Some(Latency {
                p50_us: taken.median(load, Side::Moorgate, |round| round.p50_us)?,
                p99_us: taken.median(load, Side::Moorgate, |round| round.p99_us)?,
                p999_us: taken.median(load, Side::Moorgate, |round| round.p999_us)?,
            })
        };
        let costs = |load| {
            let of = |side: Side| Some((side, taken.median(load, side, cost)?));
            Side::ALL.into_iter().filter_map(of).collect()
        };
        Self {
            schema: SCHEMA,
            command: "rpc",
            ended_early,
            ratio_to_tonic: ratios(Side::Tonic),
            ratio_to_tonic_bytes: ratios(Side::TonicBytes),
            ratio_to_tarpc: ratios(Side::Tarpc),
            ratio_to_floor: ratios(Side::Floor),
            short: transport(&taken, "short", Side::Short),
            udp: transport(&taken, "udp", Side::Udp),
            coroutine: Coroutine {
                ratio_to_async: LOADS
                    .iter()
                    .filter_map(|load| {
                        Some((load.key, 1.0 / estimate(&taken, load.key, Side::Coroutine)?.median))
                    })
                    .collect(),
            },
            calls_per_second: by_load(&|load| {
                taken.median(load, Side::Moorgate, |round| round.calls_per_second)
            }),
            latency: LOADS.iter().filter_map(|load| Some((load.key, latency(load.key)?))).collect(),
            floor: by_load(&|load| taken.median(load, Side::Floor, cost)),
            cpu_us_per_call: LOADS.iter().map(|load| (load.key, costs(load.key))).collect(),
            rounds: taken.kept.len(),
            rounds_thrown_away: taken.slow_floors.len(),
            raw: raw(&taken),
            slow_floors: taken.slow_floors,
            round_ms: options.round_ms,
            server_core: options.server_core,
            caller_core: options.caller_core,
            skipped,
            host,
        }
    }
}

fn transport(taken: &Taken<'_>, load: &'static str, side: Side) -> Option<Transport> {
    Some(Transport {
        cpu_us_per_call: taken.median(load, side, |round| round.cpu_us_per_unit)?,
        calls_per_second: taken.median(load, side, |round| round.calls_per_second)?,
        p50_us: taken.median(load, side, |round| round.p50_us)?,
        p99_us: taken.median(load, side, |round| round.p99_us)?,
    })
}

fn estimate(taken: &Taken<'_>, load: &'static str, side: Side) -> Option<Estimate> {
    let costs = |side| taken.rounds(load, side).iter().map(|round| round.cpu_us_per_unit).collect::<Vec<_>>();
    stats::ratio(&costs(Side::Moorgate), &costs(side))
}

fn raw(taken: &Taken<'_>) -> BTreeMap<String, Raw> {
    let mut all = BTreeMap::new();
    for load in &LOADS {
        for side in Side::ALL.into_iter().filter(|side| *side != Side::Moorgate) {
            let Some(estimate) = estimate(taken, load.key, side) else { continue };
            let (must_be, is_met) = match side {
                Side::Tonic if most(load.key).is_finite() => {
                    (format!("<= {}", most(load.key)), estimate.median <= most(load.key))
                }
                // Async handlers by those on coroutines, which may cost 1.3 times as much.
                Side::Coroutine => (format!(">= {:.2}", 1.0 / COROUTINE), estimate.median >= 1.0 / COROUTINE),
                Side::Tarpc => ("< 1".to_owned(), estimate.median < 1.0),
                _ => ("told only".to_owned(), true),
            };
            let cost = |round: &Round| round.cpu_us_per_unit;
            all.insert(
                format!("{}_to_{}", load.key, side.word().replace('-', "_")),
                Raw {
                    ratio: Some(estimate.median),
                    low: Some(estimate.low),
                    high: Some(estimate.high),
                    must_be,
                    is_met,
                    unit: "us of the server's CPU a call",
                    ours: taken.median(load.key, Side::Moorgate, cost),
                    peer: taken.median(load.key, side, cost),
                    peer_name: side.word(),
                    connections: load.connections,
                    units_per_second: taken.median(load.key, Side::Moorgate, |round| round.calls_per_second),
                    ours_rounds: taken.rounds(load.key, Side::Moorgate),
                    peer_rounds: taken.rounds(load.key, side),
                    note: note(side),
                },
            );
        }
    }
    all
}

/// What one side does that the other does not.
fn note(side: Side) -> &'static str {
    match side {
        Side::Floor => "ours has deadlines, credit, cancel and counts by method; the floor copies",
        Side::Tarpc => {
            "ours counts by method, code and caller, and keeps histograms of queue and service time"
        }
        _ => {
            "ours counts by method, code and caller, and keeps histograms of queue and service time; tonic speaks HTTP/2, \
             which any gRPC client can"
        }
    }
}

impl Report for RpcReport {
    /// Though a ratio is not met: the table says so.
    fn is_good(&self) -> bool {
        true
    }

    fn host(&self) -> &HostFacts {
        &self.host
    }

    fn summary(&self) -> String {
        let mut text = format!(
            "the server's CPU a call, ours by the peer's; {} rounds of {} ms, {} thrown away whose floor was slow; server on \
             core {}, caller on {}\n\n",
            self.rounds, self.round_ms, self.rounds_thrown_away, self.server_core, self.caller_core
        );
        for (key, raw) in &self.raw {
            let figure = |value: Option<f64>| value.map_or("?".to_owned(), |value| format!("{value:.2}"));
            let verdict = match (raw.must_be.as_str(), raw.is_met) {
                ("told only", _) => "",
                (_, true) => "met",
                (_, false) => "NOT MET",
            };
            text.push_str(&format!(
                "{key:<24} {:>6} [{} .. {}]  must be {:<9} {verdict:<8} ours {} us, {} {} us\n",
                figure(raw.ratio),
                figure(raw.low),
                figure(raw.high),
                raw.must_be,
                figure(raw.ours),
                raw.peer_name,
                figure(raw.peer),
            ));
        }
        for (load, latency) in &self.latency {
            text.push_str(&format!(
                "{load:<24} {:.0} calls a second, p50 {:.0}, p99 {:.0}, p99.9 {:.0} us\n",
                self.calls_per_second.get(load).copied().unwrap_or(f64::NAN),
                latency.p50_us,
                latency.p99_us,
                latency.p999_us,
            ));
        }
        for (name, told) in [("short connections", &self.short), ("udp", &self.udp)] {
            let Some(told) = told else { continue };
            text.push_str(&format!(
                "{name:<24} {:.2} us of server CPU a call, {:.0} calls a second, p50 {:.0}, p99 {:.0} us\n",
                told.cpu_us_per_call, told.calls_per_second, told.p50_us, told.p99_us
            ));
        }
        for (name, why) in &self.skipped {
            text.push_str(&format!("{name} was left out: {why}\n"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(floor: f64, ours: f64, tonic: f64) -> Measured {
        let sides = [
            (Side::Floor, floor),
            (Side::Moorgate, ours),
            (Side::Coroutine, ours * 2.0),
            (Side::Tonic, tonic),
        ];
        LOADS
            .iter()
            .flat_map(|load| sides.map(|(side, us)| ((load.key, side), us)))
            .map(|(key, cpu_us_per_unit)| (key, Round { cpu_us_per_unit, ..Round::default() }))
            .collect()
    }

    fn report(rounds: &[Measured]) -> RpcReport {
        let options = Options { rounds: 3, round_ms: 100, only: Vec::new(), server_core: 0, caller_core: 1 };
        let host = HostFacts::read(true, false, crate::servers::Cores::default(), Vec::new());
        RpcReport::new(&options, rounds, BTreeMap::from([("tarpc", "not here".to_owned())]), false, host)
    }

    #[test]
    fn a_round_whose_floor_is_slow_is_in_no_figure_but_its_count() {
        let rounds = [measured(11.0, 90.0, 10.0), measured(5.0, 2.0, 10.0), measured(6.0, 2.2, 10.0)];
        let report = report(&rounds);
        assert_eq!((report.rounds, report.rounds_thrown_away), (2, 1));
        assert_eq!(report.slow_floors, [11.0]);
        assert_eq!(report.floor["k16"], 5.5);
        let ratio = report.ratio_to_tonic["b20"];
        assert!((0.2..=0.22).contains(&ratio), "{ratio}");
        assert_eq!(report.raw["b20_to_tonic"].ours_rounds.len(), 2);
    }

    #[test]
    fn a_ratio_is_met_at_its_bound_and_told_when_it_is_not() {
        let report = report(&[measured(1.0, 2.0, 10.0); 1]);
        assert!(report.raw["b20_to_tonic"].is_met && !report.raw["k1_to_tonic"].is_met);
        assert!(report.ratio_to_tarpc.is_empty());
        assert_eq!(report.coroutine.ratio_to_async["k1"], 2.0);
        assert!(
            !report.raw["k1_to_coroutine"].is_met && report.raw["fan_out_to_tonic"].must_be == "told only"
        );
        let text = report.summary();
        assert!(text.contains("NOT MET") && text.contains("tarpc was left out: not here"), "{text}");
    }

    #[test]
    fn a_report_fits_its_schema_also_without_a_round() {
        let schema = serde_json::to_value(schemars::schema_for!(RpcReport)).expect("a schema");
        for rounds in [Vec::new(), vec![measured(1.0, 2.0, 4.0)]] {
            let mut value = serde_json::to_value(report(&rounds)).expect("a report has a JSON form");
            let told = jsonschema::validate(&schema, &value);
            assert!(told.is_ok(), "{told:?}");
            value["ratio_to_tonic"] = "much".into();
            assert!(jsonschema::validate(&schema, &value).is_err());
        }
    }
}
