//! What an RPC server costs a call: our echo server, a bare floor, tonic and tarpc, each in a fresh process on one core with
//! its caller in another on the second, in turn, round after round.

pub mod limits;
pub mod report;
pub mod run;

mod process;

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::output::{self, Outputs};

#[derive(Debug, Args)]
pub struct RpcArgs {
    /// Write the report as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the ratios as one HTML page that needs nothing else.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Rounds that count; one whose floor was slow is thrown away and made again.
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    rounds: u16,
    /// Measured time of each load in each round.
    #[arg(long, value_name = "MS", default_value_t = 700, value_parser = clap::value_parser!(u64).range(50..=60_000))]
    round_ms: u64,
    /// Only these servers beside ours and the floor.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = ["tonic", "tonic-bytes", "tarpc", "none"])]
    only: Vec<String>,
    /// Core of the server, and of the caller; without: the first and the last there is.
    #[arg(long, value_name = "N", requires = "caller_core")]
    server_core: Option<usize>,
    #[arg(long, value_name = "N", requires = "server_core")]
    caller_core: Option<usize>,
}

impl RpcArgs {
    /// True though a ratio is not met: the table says so.
    pub fn run(&self) -> Result<bool, String> {
        let available = gateway_ring::available_cores();
        let (first, last) = (available.first().copied(), available.last().copied());
        let options = run::Options {
            rounds: self.rounds.into(),
            round_ms: self.round_ms,
            only: self.only.clone(),
            server_core: self.server_core.or(first).unwrap_or(0),
            caller_core: self.caller_core.or(last).unwrap_or(0),
        };
        let wanted = Outputs { json: self.json.clone(), html: self.html.clone(), hdr: None };
        output::tell(&wanted, || run::run(&options))
    }
}

/// What is asked of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    pub key: &'static str,
    pub payload_bytes: usize,
    pub connections: usize,
    /// Calls in flight over each connection.
    pub in_flight: usize,
    /// The handler asks 8 others at once, of a server of its own kind on the caller's core.
    pub fans_out: bool,
}

/// The loads, by their keys in the report.
pub const LOADS: [Load; 7] = [
    Load { key: "b20", payload_bytes: 20, connections: 1, in_flight: 64, fans_out: false },
    Load { key: "k1", payload_bytes: 1024, connections: 1, in_flight: 64, fans_out: false },
    Load { key: "k16", payload_bytes: 16 * 1024, connections: 1, in_flight: 64, fans_out: false },
    Load { key: "b20_16x4", payload_bytes: 20, connections: 16, in_flight: 4, fans_out: false },
    Load { key: "fan_out", payload_bytes: 20, connections: 1, in_flight: 16, fans_out: true },
    Load { key: "short", payload_bytes: 20, connections: 1, in_flight: 16, fans_out: false },
    Load { key: "udp", payload_bytes: 20, connections: 1, in_flight: 64, fans_out: false },
];

/// Who serves, and is called by its own client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Side {
    Moorgate,
    /// The same with the handlers on coroutines.
    Coroutine,
    /// The same, called by the framework's client with a connection for each call.
    Short,
    /// The same with a datagram each way.
    Udp,
    /// A plain loop of framed echo with prost.
    Floor,
    /// With the code that its generator makes unasked.
    Tonic,
    /// With `Bytes` for the payload.
    TonicBytes,
    /// Over bincode, the payload by `serde_bytes`.
    Tarpc,
}

impl Side {
    pub const ALL: [Side; 8] = [
        Side::Floor,
        Side::Moorgate,
        Side::Coroutine,
        Side::Short,
        Side::Udp,
        Side::Tonic,
        Side::TonicBytes,
        Side::Tarpc,
    ];

    /// As its program calls it, and as the report does but for the hyphen.
    pub fn word(self) -> &'static str {
        match self {
            Side::Moorgate => "moorgate",
            Side::Coroutine => "coroutine",
            Side::Short => "short",
            Side::Udp => "udp",
            Side::Floor => "floor",
            Side::Tonic => "tonic",
            Side::TonicBytes => "tonic-bytes",
            Side::Tarpc => "tarpc",
        }
    }

    /// A floor has no calls of its own, and a transport has one load.
    fn does(self, load: &Load) -> bool {
        match (self, load.key) {
            (Side::Short | Side::Udp, key) => key == self.word(),
            (_, "short" | "udp") => false,
            _ => !(load.fans_out && self == Side::Floor),
        }
    }

    fn is_peer(self) -> bool {
        !matches!(self, Side::Moorgate | Side::Coroutine | Side::Short | Side::Udp | Side::Floor)
    }
}
