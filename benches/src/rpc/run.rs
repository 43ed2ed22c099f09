//! The rounds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::limits;
use super::process::{Process, ProcessError};
use super::report::{Round, RpcReport, Taken};
use super::{LOADS, Load, Side};
use crate::report::HostFacts;
use crate::servers::Cores;
use crate::signals;

#[derive(Debug, Clone)]
pub struct Options {
    pub rounds: usize,
    pub round_ms: u64,
    /// Peers; empty: all.
    pub only: Vec<String>,
    pub server_core: usize,
    pub caller_core: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    #[error("{} is missing: cargo build --release -p rpc-echo", .0.display())]
    NoEcho(PathBuf),
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error("{}", signals::NOTHING_RAN)]
    Interrupted,
}

/// How the peers' program comes about.
const BUILD_PEERS: &str =
    "cargo build --release --manifest-path benches/rpc-peers/Cargo.toml --target-dir target";

pub fn run(options: &Options) -> Result<RpcReport, RpcError> {
    let (echo, peer) = (beside("moorgate-rpc-echo"), beside("moorgate-rpc-peer"));
    if !echo.is_file() {
        return Err(RpcError::NoEcho(echo));
    }
    let mut skipped = BTreeMap::new();
    let mut sides: Vec<Side> = Side::ALL.to_vec();
    sides.retain(|side| {
        let why = match side {
            side if !side.is_peer() => return true,
            side if !options.only.is_empty() && !options.only.iter().any(|name| name == side.word()) => {
                "--only".to_owned()
            }
            _ if !peer.is_file() => format!("{} is missing: {BUILD_PEERS}", peer.display()),
            _ => return true,
        };
        skipped.insert(side.word(), why);
        false
    });
    let stage = Stage { options, echo, peer };
    let mut all = Vec::new();
    let most = options.rounds * limits::ROUNDS_FACTOR_MAX;
    let mut ended_early = false;
    while all.len() < most && Taken::of(&all).kept.len() < options.rounds {
        match stage.round(&sides, all.len()) {
            Ok(round) => all.push(round),
            Err(_) if signals::interrupted() && all.is_empty() => return Err(RpcError::Interrupted),
            Err(_) if signals::interrupted() => {
                ended_early = true;
                break;
            }
            Err(error) => return Err(error.into()),
        }
    }
    let cores =
        Cores { backend: vec![options.server_core], bench: vec![options.caller_core], ..Cores::default() };
    let host = HostFacts::read(true, false, cores, Vec::new());
    Ok(RpcReport::new(options, &all, skipped, ended_early, host))
}

/// A program of the same build as this one.
fn beside(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    let mut directory = own.parent().unwrap_or(Path::new("/")).to_owned();
    if directory.ends_with("deps") {
        directory.pop();
    }
    directory.join(name)
}

struct Stage<'a> {
    options: &'a Options,
    echo: PathBuf,
    peer: PathBuf,
}

/// What one round gave, by load and side.
pub type Measured = BTreeMap<(&'static str, Side), Round>;

impl Stage<'_> {
    /// Each load on each side, which begin in another order in each round.
    fn round(&self, sides: &[Side], number: usize) -> Result<Measured, ProcessError> {
        let mut measured = Measured::new();
        for load in &LOADS {
            for at in 0..sides.len() {
                let side = sides[(at + number) % sides.len()];
                if !side.does(load) {
                    continue;
                }
                let round = self.measure(side, load)?;
                eprintln!(
                    "round {}, {}: {} {:.2} us of server CPU a call, {:.0} calls a second",
                    number + 1,
                    load.key,
                    side.word(),
                    round.cpu_us_per_unit,
                    round.calls_per_second
                );
                measured.insert((load.key, side), round);
            }
        }
        Ok(measured)
    }

    fn measure(&self, side: Side, load: &Load) -> Result<Round, ProcessError> {
        let program = if side.is_peer() { &self.peer } else { &self.echo };
        let Options { round_ms, server_core, caller_core, .. } = self.options;
        let within = Duration::from_millis(limits::READY_WITHIN_MS);
        let serve = |core: usize, leaf: &str| -> Result<_, ProcessError> {
            let server =
                Process::start(program, &words(&format!("serve {} --core {core} {leaf}", side.word())))?;
            let target = server.told(within, |line| line.strip_prefix("listen=").map(str::to_owned))?;
            Ok((server, target))
        };
        let leaf_server = if load.fans_out { Some(serve(*caller_core, "")?) } else { None };
        let leaf = leaf_server.as_ref().map_or(String::new(), |(_, address)| format!("--leaf {address}"));
        let (server, target) = serve(*server_core, &leaf)?;
        let Load { payload_bytes, connections, in_flight, .. } = load;
        let gather = if load.fans_out { "--gather" } else { "" };
        let mut caller = Process::start(
            program,
            &words(&format!(
                "call {} --core {caller_core} --target {target} --payload {payload_bytes} --connections {connections} \
                 --in-flight {in_flight} --ms {round_ms} {gather}",
                side.word()
            )),
        )?;
        caller.told(within, |line| (line == "warm").then_some(()))?;
        let (server_ns, caller_ns) = (server.cpu_ns(), caller.cpu_ns());
        caller.go();
        let within = within + Duration::from_millis(*round_ms);
        let told: serde_json::Value = caller.told(within, |line| serde_json::from_str(line).ok())?;
        let server_ns = server.cpu_ns().saturating_sub(server_ns) as f64;
        let caller_ns = caller.cpu_ns().saturating_sub(caller_ns) as f64;
        let figure = |name: &str| told[name].as_f64().unwrap_or(f64::NAN);
        let (calls, seconds) = (figure("calls"), figure("seconds"));
        Ok(Round {
            cpu_us_per_unit: server_ns / 1e3 / calls,
            calls_per_second: calls / seconds,
            server_busy: server_ns / 1e9 / seconds,
            caller_busy: caller_ns / 1e9 / seconds,
            p50_us: figure("p50_us"),
            p99_us: figure("p99_us"),
            p999_us: figure("p999_us"),
        })
    }
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}
