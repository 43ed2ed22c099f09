//! The command lines of `peer`, `peers` and `floor`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::compare::{Options, WORKS};
use super::floor::{self, How};
use super::run::{self, PeerOptions, PeerWork, Protocol};
use crate::cli::{OutputArgs, resolve};
use crate::measure::Arrival;
use crate::output::{self, Outputs};

#[derive(Debug, Args)]
pub struct PeerArgs {
    /// What the target speaks.
    #[arg(long)]
    protocol: Protocol,
    /// Where it listens.
    #[arg(long, value_name = "HOST:PORT")]
    target: String,
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    connections: u32,
    #[arg(long, default_value = "ping")]
    work: PeerWork,
    /// Starts a second, of all connections together; with fanout, messages to all.
    #[arg(long, value_name = "R", default_value_t = 1_000.0, value_parser = rate)]
    rate: f64,
    /// How the gaps between starts are drawn.
    #[arg(long, default_value = "constant")]
    arrival: Arrival,
    /// Bytes of a message.
    #[arg(long, value_name = "B", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    payload: u32,
    /// QoS of what is published with MQTT. With 1 it is done when it is acknowledged.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=1))]
    qos: u8,
    /// The path that a WebSocket upgrades.
    #[arg(long, default_value = "/")]
    path: String,
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// The server's process, when it runs here: its CPU and memory are reported.
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// Cores of the bench's threads, as 0,1.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    bench_cores: Vec<usize>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
pub struct PeersArgs {
    /// Write the report as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the table and the rounds as one HTML page that needs nothing else.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Few connections, rounds and messages: whether it works, not what it costs.
    #[arg(long)]
    quick: bool,
    /// Only these works.
    #[arg(long, value_name = "WORKS", value_delimiter = ',', value_parser = WORKS)]
    only: Vec<String>,
    /// Rounds of each side.
    #[arg(long, value_name = "N", default_value_t = 15, conflicts_with = "quick", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    rounds: u16,
    #[arg(long, value_name = "MS", default_value_t = 3_000, conflicts_with = "quick", value_parser = clap::value_parser!(u64).range(200..=60_000))]
    round_ms: u64,
    /// Things done a second, instead of the highest that both sides do.
    #[arg(long, value_name = "R", value_parser = rate)]
    rate: Option<f64>,
    /// The NATS server's program; without: nats-server on the path.
    #[arg(long, value_name = "FILE")]
    nats: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct FloorArgs {
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7690")]
    listen: SocketAddr,
    #[arg(long, default_value = "uring")]
    how: How,
    /// The core that it is pinned to.
    #[arg(long, value_name = "N")]
    core: Option<usize>,
}

impl PeerArgs {
    pub fn run(&self) -> Result<bool, String> {
        let options = PeerOptions {
            protocol: self.protocol,
            target: resolve(&self.target)?,
            host: self.target.clone(),
            path: self.path.clone(),
            connections: self.connections,
            work: self.work,
            rate: self.rate,
            arrival: self.arrival,
            payload_bytes: self.payload as usize,
            acknowledged: self.qos == 1,
            seconds: self.seconds,
            pid: self.pid,
            cores: self.bench_cores.clone(),
        };
        output::tell(&self.output.outputs(), || run::peer(&options))
    }
}

impl PeersArgs {
    /// True though a ratio is not met: the table says so.
    pub fn run(&self) -> Result<bool, String> {
        let (clients, proxied_clients) = if self.quick { (500, 500) } else { (15_000, 9_000) };
        let options = Options {
            only: self.only.clone(),
            rounds: if self.quick { 2 } else { self.rounds.into() },
            round_ms: if self.quick { 400 } else { self.round_ms },
            clients,
            proxied_clients,
            nats: self.nats.clone(),
            rate: self.rate.or(self.quick.then_some(2_000.0)),
        };
        let wanted = Outputs { json: self.json.clone(), html: self.html.clone(), hdr: None };
        output::tell(&wanted, || run::compare(&options))
    }
}

impl FloorArgs {
    pub fn run(&self) -> Result<bool, String> {
        floor::run(self.listen, self.how, self.core).map(|()| true).map_err(|error| error.to_string())
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.01..=1e7).contains(&rate) { Ok(rate) } else { Err("0.01 to 10000000 a second".to_owned()) }
}
