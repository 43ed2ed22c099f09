//! The commands whose phones only stand: hold, broadcast, storm.

use std::time::Duration;

use clap::Args;

use super::{PlaceArgs, rate};
use crate::broadcast::BroadcastOptions;
use crate::hold::HoldOptions;
use crate::limits;
use crate::servers::StormCores;
use crate::storm::StormOptions;

#[derive(Debug, Args)]
pub struct StormArgs {
    /// Phones that are cut, each of a user of its own.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    pub connections: u32,
    /// Phones of the gateway beside it.
    #[arg(long, value_name = "N", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub healthy: u32,
    /// Their calls a second, together.
    #[arg(long, value_name = "R", default_value_t = 500.0, value_parser = rate)]
    pub rate: f64,
    /// Cores of the gateway beside it and of the threads of its phones, as 1,2; without: planned.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub healthy_cores: Vec<usize>,
    #[command(flatten)]
    pub place: PlaceArgs,
}

impl StormArgs {
    pub fn options(&self) -> Result<StormOptions, String> {
        let mut place = self.place.place()?;
        if !place.spawn {
            return Err("a storm kills its gateway, so it starts its own: say --spawn".to_owned());
        }
        let planned = StormCores::plan(&gateway_ring::available_cores());
        let healthy =
            if self.healthy_cores.is_empty() { planned.healthy } else { self.healthy_cores.clone() };
        place.cores.get_or_insert(planned.stormed);
        place.second_gateway = Some(healthy);
        let (connections, healthy, rate) = (self.connections, self.healthy, self.rate);
        Ok(StormOptions { connections, healthy, rate, place })
    }
}

#[derive(Debug, Args)]
pub struct HoldArgs {
    /// Phones, each of a user of its own.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    pub connections: u32,
    /// How long they are held, after the last connect.
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,
    /// Seconds between beats; without: half of the time held, at most 240.
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(1..=600))]
    pub heartbeat: Option<u32>,
    #[command(flatten)]
    pub place: PlaceArgs,
}

impl HoldArgs {
    pub fn options(&self) -> Result<HoldOptions, String> {
        let (connections, seconds, heartbeat_s) = (self.connections, self.seconds, self.heartbeat);
        Ok(HoldOptions { connections, seconds, heartbeat_s, place: self.place.place()? })
    }
}

#[derive(Debug, Args)]
pub struct BroadcastArgs {
    /// Phones, each of a user of its own.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    pub connections: u32,
    /// Notices.
    #[arg(long, value_name = "R", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::ROUNDS_MAX)))]
    pub rounds: u32,
    /// Seconds from one to the next.
    #[arg(long, value_name = "S", default_value = "5", value_parser = interval)]
    pub interval: Duration,
    /// Seconds between beats; without: half of the time of all rounds, at most 240.
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(1..=600))]
    pub heartbeat: Option<u32>,
    #[command(flatten)]
    pub place: PlaceArgs,
}

impl BroadcastArgs {
    pub fn options(&self) -> Result<BroadcastOptions, String> {
        let (connections, rounds, interval) = (self.connections, self.rounds, self.interval);
        let place = self.place.place()?;
        Ok(BroadcastOptions { connections, rounds, interval, heartbeat_s: self.heartbeat, place })
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.01..=86_400.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("0.01 to 86400 seconds".to_owned())
    }
}
