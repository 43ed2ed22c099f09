//! The commands that choose rates: find-max, ramp, soak; and the one that compares what they gave.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{PlaceArgs, rate};
use crate::call::CallSetup;
use crate::chat::ChatOptions;
use crate::find_max::{FindMaxOptions, Scenario};
use crate::limits;
use crate::measure::Arrival;
use crate::ramp::{RampOptions, Step, parse_list};
use crate::search::Bounds;
use crate::soak::SoakOptions;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ScenarioName {
    /// Forwarded calls to the echo service.
    Call,
    /// Messages, until they are delivered.
    Chat,
}

#[derive(Debug, Args)]
pub struct FindMaxArgs {
    /// 99 of 100 must be done within this, from their intended start: 50ms, 0.5s.
    #[arg(long, value_name = "TIME", value_parser = milliseconds)]
    pub p99: f64,
    #[arg(long, value_enum, default_value = "call")]
    pub scenario: ScenarioName,
    /// Phones.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=4_000_000))]
    pub clients: u32,
    /// The first rate that is tried.
    #[arg(long, value_name = "R", default_value_t = limits::SEARCH_FROM, value_parser = rate)]
    pub from: f64,
    /// The highest rate that is tried.
    #[arg(long, value_name = "R", default_value_t = limits::SEARCH_TO, value_parser = rate)]
    pub to: f64,
    /// Halvings of what is not known: 4 give 3 %.
    #[arg(long, value_name = "N", default_value_t = limits::SEARCH_STEPS, value_parser = clap::value_parser!(u32).range(0..=12))]
    pub steps: u32,
    /// Seconds of a trial.
    #[arg(long, value_name = "S", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub trial: u64,
    /// Seconds of the run at the end that confirms.
    #[arg(long, value_name = "S", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub confirm: u64,
    /// Bytes of a call's payload, or of a message's text.
    #[arg(long, value_name = "B", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=8_192))]
    pub payload: u16,
    #[arg(long, value_enum, default_value_t)]
    pub arrival: Arrival,
    #[command(flatten)]
    pub place: PlaceArgs,
}

impl FindMaxArgs {
    pub fn options(&self) -> Result<FindMaxOptions, String> {
        let place = self.place.place()?;
        let scenario = match self.scenario {
            ScenarioName::Call => Scenario::Call {
                setup: CallSetup { clients: self.clients, payload_bytes: self.payload.into(), place },
                arrival: self.arrival,
            },
            ScenarioName::Chat => Scenario::Chat(ChatOptions {
                clients: self.clients,
                seconds: self.confirm,
                rate: None,
                arrival: self.arrival,
                kill_backend_at_s: None,
                kill_gateway_at_s: None,
                text_bytes: self.payload.into(),
                mix: None,
                place,
            }),
        };
        Ok(FindMaxOptions {
            p99_ms: self.p99,
            bounds: Bounds { from: self.from, to: self.to, steps: self.steps },
            trial_s: self.trial,
            confirm_s: self.confirm,
            scenario,
        })
    }
}

#[derive(Debug, Args)]
pub struct RampArgs {
    /// Phones; or the steps of them, as a list like that of --rates.
    #[arg(long, value_name = "N|LIST")]
    pub clients: String,
    /// Calls a second of each step: 1000,2000,4000 or FROM-TO/STEPS. One rate with steps of phones.
    #[arg(long, value_name = "LIST")]
    pub rates: String,
    /// Seconds of a step.
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub step: u64,
    #[arg(long, value_name = "B", default_value_t = 100, value_parser = clap::value_parser!(u16).range(0..=60_000))]
    pub payload: u16,
    #[arg(long, value_enum, default_value_t)]
    pub arrival: Arrival,
    #[command(flatten)]
    pub place: PlaceArgs,
}

impl RampArgs {
    pub fn options(&self) -> Result<RampOptions, String> {
        let clients = parse_list(&self.clients).map_err(|told| format!("--clients: {told}"))?;
        let rates = parse_list(&self.rates).map_err(|told| format!("--rates: {told}"))?;
        if clients.len() > 1 && rates.len() > 1 && clients.len() != rates.len() {
            return Err(format!("{} steps of --clients and {} of --rates", clients.len(), rates.len()));
        }
        let steps = clients.len().max(rates.len());
        let step = |at: usize| Step {
            phones: clients[at.min(clients.len() - 1)].clamp(1.0, 4e6) as u32,
            rate: rates[at.min(rates.len() - 1)],
        };
        let steps: Vec<Step> = (0..steps).map(step).collect();
        if !steps.is_sorted_by_key(|step| step.phones) {
            return Err("--clients: phones connect and stay, so their steps rise".to_owned());
        }
        let most = steps.last().map_or(1, |step| step.phones);
        let setup =
            CallSetup { clients: most, payload_bytes: self.payload.into(), place: self.place.place()? };
        Ok(RampOptions { setup, steps, step_s: self.step, arrival: self.arrival })
    }
}

#[derive(Debug, Args)]
pub struct SoakArgs {
    /// Phones.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    pub clients: u32,
    /// Calls a second.
    #[arg(long, value_name = "R", value_parser = rate)]
    pub rate: f64,
    #[arg(long, value_name = "S", default_value_t = 3_600, value_parser = clap::value_parser!(u64).range(1..=2_592_000))]
    pub seconds: u64,
    #[arg(long, value_name = "B", default_value_t = 100, value_parser = clap::value_parser!(u16).range(0..=60_000))]
    pub payload: u16,
    #[arg(long, value_enum, default_value_t)]
    pub arrival: Arrival,
    #[command(flatten)]
    pub place: PlaceArgs,
}

impl SoakArgs {
    pub fn options(&self) -> Result<SoakOptions, String> {
        let setup = CallSetup {
            clients: self.clients,
            payload_bytes: self.payload.into(),
            place: self.place.place()?,
        };
        Ok(SoakOptions { setup, seconds: self.seconds, rate: self.rate, arrival: self.arrival })
    }
}

#[derive(Debug, Args)]
pub struct CompareArgs {
    /// Reports in the order they were made: A B, or A B A B ...
    #[arg(value_name = "A B", num_args = 2.., required = true)]
    pub reports: Vec<PathBuf>,
    /// Judge although the reports are of different hosts.
    #[arg(long)]
    pub across_hosts: bool,
    /// Write the comparison as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct HtmlArgs {
    /// A report that was written with --json.
    pub report: PathBuf,
    pub page: PathBuf,
}

fn milliseconds(text: &str) -> Result<f64, String> {
    let (number, by) = match (text.strip_suffix("ms"), text.strip_suffix("us"), text.strip_suffix('s')) {
        (Some(number), ..) => (number, 1.0),
        (_, Some(number), _) => (number, 1e-3),
        (.., Some(number)) => (number, 1e3),
        _ => return Err("say a time with its unit, as 50ms".to_owned()),
    };
    let ms = number.trim().parse::<f64>().map_err(|_| "not a number".to_owned())? * by;
    if (0.001..=600_000.0).contains(&ms) { Ok(ms) } else { Err("1us to 600s".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!((milliseconds("50ms"), milliseconds("0.5s")), (Ok(50.0), Ok(500.0)));
        assert_eq!(milliseconds("250us"), Ok(0.25));
        for bad in ["50", "xms", "0ms", "1h"] {
            assert!(milliseconds(bad).is_err(), "{bad}");
        }
    }
}
