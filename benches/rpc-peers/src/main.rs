//! `moorgate-rpc-peer`: echo servers and callers of tonic and tarpc, each on one thread, for `moorgate-bench rpc`. Their
//! command line is that of `moorgate-rpc-echo`.
#![forbid(unsafe_code)]

mod load;
mod over_tarpc;
mod over_tonic;

use std::future::Future;
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// The same in every process of the comparison.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Those whom one call of `Gather` asks.
pub const LEAVES: usize = 8;

pub type Error = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Wire {
    /// tonic with the code that its generator makes unasked.
    Tonic,
    /// tonic with `Bytes` for the payload.
    TonicBytes,
    /// tarpc over bincode, the payload by `serde_bytes`.
    Tarpc,
}

/// Serves or calls an echo service; `moorgate-bench rpc` compares.
#[derive(Debug, Parser)]
#[command(name = "moorgate-rpc-peer")]
enum Cli {
    /// Listens on a free port of loopback, says `listen=ADDR`, and serves until its standard input ends.
    Serve {
        wire: Wire,
        #[arg(long)]
        core: usize,
        /// Another such server, which `Gather` asks.
        #[arg(long)]
        leaf: Option<SocketAddr>,
    },
    /// Warms up, says `warm`, waits for a line, calls in a closed loop, and says what it did as JSON.
    Call {
        wire: Wire,
        #[arg(long)]
        core: usize,
        #[arg(long)]
        target: SocketAddr,
        #[arg(long)]
        payload: usize,
        #[arg(long, default_value_t = 1)]
        connections: usize,
        /// Calls in flight over each connection.
        #[arg(long, default_value_t = 64)]
        in_flight: usize,
        #[arg(long, default_value_t = 1000)]
        ms: u64,
        /// Calls `Gather` instead of `Say`.
        #[arg(long)]
        gather: bool,
    },
}

fn main() -> ExitCode {
    let told = match Cli::parse() {
        Cli::Serve { wire, core, leaf } => run(core, async move {
            std::thread::spawn(|| {
                let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
                std::process::exit(0)
            });
            match wire {
                Wire::Tonic => over_tonic::serve(leaf).await,
                Wire::TonicBytes => over_tonic::serve_bytes(leaf).await,
                Wire::Tarpc => over_tarpc::serve(leaf).await,
            }
        }),
        Cli::Call { wire, core, target, payload, connections, in_flight, ms, gather } => {
            run(core, async move {
                let load = load::Load { target, payload, connections, in_flight, ms, gather };
                match wire {
                    Wire::Tonic => over_tonic::call(load).await,
                    Wire::TonicBytes => over_tonic::call_bytes(load).await,
                    Wire::Tarpc => over_tarpc::call(load).await,
                }
            })
        }
    };
    match told {
        Ok(()) => ExitCode::SUCCESS,
        Err(told) => {
            eprintln!("moorgate-rpc-peer: {told}");
            ExitCode::FAILURE
        }
    }
}

/// On the current thread, which is pinned.
fn run(core: usize, task: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    let mut set = CpuSet::new();
    set.set(core).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, task)
}

/// Tells the bench where the server listens.
fn ready(addr: SocketAddr) {
    use std::io::Write as _;
    let mut stdout = std::io::stdout();
    let _ = writeln!(stdout, "listen={addr}").and_then(|()| stdout.flush());
}
