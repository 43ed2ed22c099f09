//! The command line.

mod rates;
mod stand;

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::limits;
use crate::measure::Arrival;
use crate::output::Outputs;
use crate::servers::Cores;
use crate::session::Place;
use crate::sources::Sources;

pub use rates::{CompareArgs, FindMaxArgs, HtmlArgs, RampArgs, ScenarioName, SoakArgs};
pub use stand::{BroadcastArgs, HoldArgs, StormArgs};

/// Load for a Moorgate gateway, and a phone to talk through it.
#[derive(Debug, Parser)]
#[command(name = "moorgate-bench", version, arg_required_else_help = true, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  cargo run --release -p gateway -- up                  (in another terminal)
  moorgate-bench phone --user alice
  moorgate-bench chat --clients 10000 --seconds 30
  moorgate-bench chat --clients 2000 --seconds 30 --spawn --kill-backend-at 10 --kill-gateway-at 20
  moorgate-bench hold --connections 100000 --seconds 30 --spawn
  moorgate-bench broadcast --connections 100000 --rounds 20 --spawn
  moorgate-bench call --clients 64 --rate 20000 --seconds 10 --spawn --json call.json --html call.html
  moorgate-bench find-max --p99 50ms --clients 256 --spawn
  moorgate-bench compare before.json after.json

Exit code: 0 when all is well, 1 when something was lost, doubled or out of order, 2 when the run could not be made
(nobody there, another protocol, a rate that was not made, no room for connections or for the report).";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// A phone that you talk through: it signs up or logs in by name, sends what you type, and shows what arrives.
    #[command(after_help = "\
Examples:
  moorgate-bench phone --user alice
  printf 'send bob hello\\nquit\\n' | moorgate-bench phone --user alice")]
    Phone(PhoneArgs),
    /// Phones that chat: is anything lost, how long does it take, what does it cost?
    #[command(after_help = concat!("\
Without --rate it searches the highest rate that holds, then runs at 70 % of it (2000 a second with a kill).

Examples:
  moorgate-bench chat --clients 10000 --seconds 30
  moorgate-bench chat --clients 10000 --seconds 60 --rate 5000 --spawn --json chat.json
  moorgate-bench chat --clients 1000 --seconds 30 --spawn --kill-backend-at 10
  moorgate-bench chat --clients 2000 --seconds 20 --spawn --mix benches/mix.toml

With --mix everything that the services offer is done, 1000 times a second unless --rate says otherwise. At the end all devices of a user must show the same, and what the acknowledgements determine. The mix in the tree, benches/mix.toml:

", include_str!("../mix.toml")))]
    Chat(ChatArgs),
    /// Phones that only beat: what does a connection cost?
    #[command(after_help = "\
Examples:
  moorgate-bench hold --connections 100000 --seconds 30 --spawn
  moorgate-bench hold --connections 1000 --seconds 60 --heartbeat 10 --json hold.json")]
    Hold(HoldArgs),
    /// Notices for everybody, again and again: how fast does everybody have one, and do heartbeats suffer?
    #[command(after_help = "\
Examples:
  moorgate-bench broadcast --connections 100000 --rounds 20 --spawn
  moorgate-bench broadcast --connections 10000 --rounds 100 --interval 1 --heartbeat 10 --json broadcast.json")]
    Broadcast(BroadcastArgs),
    /// A gateway is killed, and all its phones come back at once: is anybody lost, and who notices?
    #[command(after_help = "\
Starts a backend and two gateways. Exit code 1 when a phone is lost, when the logic tier is called for reconnects, or
when the phones of the other gateway wait longer than they may.

Example:
  moorgate-bench storm --connections 200000 --spawn --json storm.json")]
    Storm(StormArgs),
    /// Forwarded calls to an echo service: how many a second, and what does one cost?
    #[command(after_help = "\
Examples:
  moorgate-bench call --clients 64 --payload 100 --seconds 10 --rate 20000 --spawn --html call.html
  moorgate-bench call --clients 64 --payload 100 --seconds 10 --closed --spawn")]
    Call(CallArgs),
    /// The highest rate that keeps a latency target, by search, confirmed by a longer run at the end.
    #[command(after_help = "\
Examples:
  moorgate-bench find-max --p99 50ms --clients 256 --spawn
  moorgate-bench find-max --p99 200ms --scenario chat --clients 10000 --spawn --html chat.html")]
    FindMax(FindMaxArgs),
    /// Calls at a rate, or from phones, that rise in steps: one line and one histogram a step.
    #[command(after_help = "\
Examples:
  moorgate-bench ramp --clients 256 --rates 5000-50000/10 --spawn --html ramp.html
  moorgate-bench ramp --clients 1000,5000,20000 --rates 10000 --step 10 --spawn")]
    Ramp(RampArgs),
    /// Calls at a rate for hours: does memory grow?
    #[command(after_help = "\
Example:
  moorgate-bench soak --clients 1000 --rate 2000 --seconds 14400 --spawn --json soak.json")]
    Soak(SoakArgs),
    /// Is B worse than A? Exit code: 0 the same or better, 1 worse, 2 cannot be compared.
    #[command(after_help = "\
Example, for a pipeline (a and b are two builds):
  for i in 1 2 3 4 5; do for v in a b; do $v/moorgate-bench call --clients 64 --rate 20000 --seconds 5 --spawn --json $v$i.json; done; done
  moorgate-bench compare a1.json b1.json a2.json b2.json a3.json b3.json a4.json b4.json a5.json b5.json")]
    Compare(CompareArgs),
    /// Makes the HTML page of a report that was written as JSON.
    Html(HtmlArgs),
    /// Loads an MQTT, NATS, WebSocket or echo server that you have, by the same schedule and histogram.
    #[command(after_help = "\
Examples:
  moorgate-bench peer --protocol mqtt --target 127.0.0.1:1883 --connections 15000 --work ping --rate 50000 --pid $(pidof mosquitto)
  moorgate-bench peer --protocol nats --target 127.0.0.1:4222 --connections 1000 --work fanout --rate 20
  moorgate-bench peer --protocol ws --target 127.0.0.1:9001 --connections 100 --work echo --path /echo --json ws.json")]
    Peer(crate::peers::cli::PeerArgs),
    /// Compares with mosquitto, HAProxy and NATS on this machine; `benches/peers/run` installs them first.
    #[command(after_help = "\
Examples:
  benches/peers/run --json peers.json
  moorgate-bench peers --only heartbeat,forward --rounds 15
  moorgate-bench peers --quick")]
    Peers(crate::peers::cli::PeersArgs),
    /// What an RPC server costs a call: our framework, a bare floor, tonic and tarpc, in turn.
    #[command(after_help = "\
Needs, of the same build: cargo build --release -p rpc-echo, and for tonic and tarpc
  cargo build --release --manifest-path benches/rpc-peers/Cargo.toml --target-dir target

Examples:
  moorgate-bench rpc --json rpc.json
  moorgate-bench rpc --rounds 3 --round-ms 200 --only tonic")]
    Rpc(crate::rpc::RpcArgs),
    /// A bare echo without state: what a heartbeat costs at least on this kernel.
    Floor(crate::peers::cli::FloorArgs),
}

/// Where the servers are.
#[derive(Debug, Args)]
pub struct PlaceArgs {
    /// The gateway's client port.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7600", conflicts_with = "spawn")]
    target: String,
    /// The private key that tokens are minted with.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "./moorgate-data/keys/issuer.pem",
        conflicts_with = "spawn"
    )]
    issuer_key: PathBuf,
    /// The gateway's admin port: its /status names the process whose memory and CPU are reported.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7601", conflicts_with = "spawn")]
    admin: SocketAddr,
    /// The backend's admin port, for the same.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7611", conflicts_with = "spawn")]
    backend_admin: SocketAddr,
    /// Start gateway and backend beside this program, on free ports and in a fresh directory that is removed.
    #[arg(long)]
    spawn: bool,
    /// Cores of the gateway, as 0,1; without: planned.
    #[arg(long, value_name = "LIST", value_delimiter = ',', requires = "spawn")]
    gateway_cores: Vec<usize>,
    #[arg(long, value_name = "LIST", value_delimiter = ',', requires = "spawn")]
    backend_cores: Vec<usize>,
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    bench_cores: Vec<usize>,
    /// Where phones connect from: addresses, ADDRESS/BITS or FIRST-LAST, comma between; without: 127.1.x.1 towards
    /// loopback, elsewhere the kernel chooses.
    #[arg(long, value_name = "LIST", value_parser = sources)]
    source: Option<Sources>,
    /// One line a second, also on a terminal.
    #[arg(long)]
    no_tui: bool,
    #[command(flatten)]
    pub output: OutputArgs,
    /// Who talks to whom, and when.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Where a report goes.
#[derive(Debug, Args)]
pub struct OutputArgs {
    /// Write the report as JSON (its schema: benches/schema).
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the report as one HTML page that needs nothing else.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write the histograms as DIR/OPERATION.hdr, one interval a phase.
    #[arg(long, value_name = "DIR")]
    hdr: Option<PathBuf>,
}

impl OutputArgs {
    pub fn outputs(&self) -> Outputs {
        Outputs { json: self.json.clone(), html: self.html.clone(), hdr: self.hdr.clone() }
    }
}

#[derive(Debug, Args)]
pub struct ChatArgs {
    /// Phones.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=4_000_000))]
    pub clients: u32,
    /// How long the measured load lasts.
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,
    /// Messages a second, of all phones together.
    #[arg(long, value_name = "R", value_parser = rate)]
    pub rate: Option<f64>,
    /// How the gaps between messages are drawn.
    #[arg(long, value_enum, default_value_t, conflicts_with = "mix")]
    pub arrival: Arrival,
    /// Kill the backend with SIGKILL so many seconds after the start of the load, and start it again.
    #[arg(long, value_name = "S", requires = "spawn", value_parser = seconds)]
    pub kill_backend_at: Option<f64>,
    /// The same with the gateway.
    #[arg(long, value_name = "S", requires = "spawn", value_parser = seconds)]
    pub kill_gateway_at: Option<f64>,
    /// Bytes of a message's text.
    #[arg(long, value_name = "BYTES", default_value_t = 80, value_parser = clap::value_parser!(u16).range(1..=8192))]
    pub text: u16,
    /// Do all kinds of things, by the weights of a TOML file (see below).
    #[arg(long, value_name = "FILE")]
    pub mix: Option<PathBuf>,
    /// Devices of every tenth user.
    #[arg(long, value_name = "N", default_value_t = 2, requires = "mix", value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::DEVICES_OF_A_USER_MAX)))]
    pub devices: u32,
    #[command(flatten)]
    pub place: PlaceArgs,
}

#[derive(Debug, Args)]
pub struct CallArgs {
    /// Phones.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    pub clients: u32,
    /// Bytes of a call's payload.
    #[arg(long, value_name = "B", default_value_t = 100, value_parser = clap::value_parser!(u16).range(0..=60_000))]
    pub payload: u16,
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,
    /// Seconds of the same load before, measured apart.
    #[arg(long, value_name = "S", default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=3_600))]
    pub warm_up: u64,
    /// Calls a second of all phones together, at their times whatever the server does; without: a closed loop.
    #[arg(long, value_name = "R", value_parser = rate, conflicts_with = "closed")]
    pub rate: Option<f64>,
    /// A closed loop: each phone calls when its last call was answered. It hides what a stall costs others.
    #[arg(long)]
    pub closed: bool,
    /// How the gaps between calls are drawn.
    #[arg(long, value_enum, default_value_t)]
    pub arrival: Arrival,
    #[command(flatten)]
    pub place: PlaceArgs,
}

#[derive(Debug, Args)]
pub struct PhoneArgs {
    /// 3 to 32 of a-z, 0-9, '_', '.', '-'. A new name is signed up.
    #[arg(long, value_name = "NAME")]
    pub user: String,
    /// Without: one made of the name, which is good for trying things out only.
    #[arg(long)]
    pub password: Option<String>,
    /// The gateway's client port.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7600")]
    pub target: String,
}

impl PlaceArgs {
    /// The target resolved; an error is a sentence.
    pub fn place(&self) -> Result<Place, String> {
        let given = [&self.gateway_cores, &self.backend_cores, &self.bench_cores];
        let cores = given.iter().any(|list| !list.is_empty()).then(|| Cores {
            gateway: self.gateway_cores.clone(),
            backend: self.backend_cores.clone(),
            bench: self.bench_cores.clone(),
        });
        Ok(Place {
            target: resolve(&self.target)?,
            issuer_key: self.issuer_key.clone(),
            admin: self.admin,
            backend_admin: self.backend_admin,
            spawn: self.spawn,
            cores,
            seed: self.seed,
            sources: self.source.clone().unwrap_or_default(),
            no_tui: self.no_tui,
            second_gateway: None,
        })
    }
}

/// The first address of `HOST:PORT`.
pub fn resolve(target: &str) -> Result<SocketAddr, String> {
    let failed = |why: String| format!("{target} is no address: {why} (say HOST:PORT)");
    let mut found = target.to_socket_addrs().map_err(|error| failed(error.to_string()))?;
    found.next().ok_or_else(|| failed("nothing has this name".to_owned()))
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.1..=1e7).contains(&rate) { Ok(rate) } else { Err("0.1 to 10000000 a second".to_owned()) }
}

fn sources(text: &str) -> Result<Sources, String> {
    Sources::parse(text).map_err(|error| error.to_string())
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=86_400.0).contains(&seconds) { Ok(seconds) } else { Err("0 to 86400 seconds".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_lines_of_the_readme_are_understood() {
        for line in [
            "moorgate-bench phone --user alice",
            "moorgate-bench chat --clients 10000 --seconds 30",
            "moorgate-bench chat --clients 10000 --seconds 30 --target localhost:7600 --json f",
            "moorgate-bench chat --clients 1000 --seconds 30 --spawn --kill-backend-at 10 --kill-gateway-at 20.5",
            "moorgate-bench hold --connections 100000 --seconds 30 --spawn --heartbeat 15",
            "moorgate-bench broadcast --connections 100000 --rounds 20 --interval 0.5 --spawn --hdr d",
            "moorgate-bench storm --connections 200000 --spawn --healthy-cores 1",
            "moorgate-bench call --clients 64 --payload 100 --spawn",
        ] {
            parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "moorgate-bench chat --clients 1 --seconds 30",
            "moorgate-bench chat --clients 10",
            "moorgate-bench chat --clients 10 --seconds 5 --kill-backend-at 3",
            "moorgate-bench chat --clients 10 --seconds 5 --rate -1",
            "moorgate-bench chat --clients 10 --seconds 5 --spawn --target 127.0.0.1:1",
            "moorgate-bench hold --connections 0 --seconds 1",
            "moorgate-bench broadcast --connections 1 --rounds 0",
            "moorgate-bench broadcast --connections 1 --rounds 1 --interval 0",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_target_without_a_port_is_told() {
        assert!(resolve("localhost").expect_err("no port").contains("HOST:PORT"));
        assert_eq!(resolve("127.0.0.1:7600"), Ok("127.0.0.1:7600".parse().expect("an address")));
    }
}
