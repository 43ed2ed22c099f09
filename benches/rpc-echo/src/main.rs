//! `moorgate-rpc-echo`: an echo server of the framework, a bare floor to compare with, and the caller of both. What
//! `moorgate-bench rpc` starts, a process for each.
#![forbid(unsafe_code)]

mod caller;
mod client;
mod floor;
mod server;

use std::net::SocketAddr;
use std::process::ExitCode;

use backend_stub::rpc::client::Transport;
use clap::{Parser, ValueEnum};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// The same in every process of the comparison.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Messages, servers and clients of `echo.proto`.
#[allow(dead_code)]
mod echo {
    include!(concat!(env!("OUT_DIR"), "/generated.rs"));
}

use echo::{pb, services};

/// Whose frames are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Wire {
    Moorgate,
    /// As moorgate, with the handlers on coroutines.
    Coroutine,
    Floor,
    /// Moorgate, a connection for each call.
    Short,
    /// Moorgate, a datagram each way.
    Udp,
}

/// Serves or calls an echo service; `moorgate-bench rpc` compares.
#[derive(Debug, Parser)]
#[command(name = "moorgate-rpc-echo")]
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
        Cli::Serve { wire, core, leaf } => pin(core).and_then(|()| match wire {
            Wire::Floor => floor::serve().map_err(|error| error.to_string()),
            wire => {
                let (on_coroutines, over_udp) = (wire == Wire::Coroutine, wire == Wire::Udp);
                server::serve(core, server::How { leaf, on_coroutines, over_udp })
            }
        }),
        Cli::Call { wire, core, target, payload, connections, in_flight, ms, gather } => {
            let load = caller::Load { target, payload, connections, in_flight, ms, gather };
            pin(core).and_then(|()| match wire {
                Wire::Moorgate | Wire::Coroutine => {
                    caller::call::<caller::Moorgate>(&load).map_err(|error| error.to_string())
                }
                Wire::Floor => caller::call::<caller::Floor>(&load).map_err(|error| error.to_string()),
                Wire::Short => client::call(load, core, Transport::Short),
                Wire::Udp => client::call(load, core, Transport::Udp),
            })
        }
    };
    match told {
        Ok(()) => ExitCode::SUCCESS,
        Err(told) => {
            eprintln!("moorgate-rpc-echo: {told}");
            ExitCode::FAILURE
        }
    }
}

fn pin(core: usize) -> Result<(), String> {
    let mut set = CpuSet::new();
    set.set(core)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
        .map_err(|error| format!("--core {core}: {error}"))
}

/// Tells the bench where the server listens.
fn ready(addr: SocketAddr) {
    use std::io::Write as _;
    let mut stdout = std::io::stdout();
    // Whoever does not read it has gone, and standard input has ended then too.
    let _ = writeln!(stdout, "listen={addr}").and_then(|()| stdout.flush());
}

/// Blocks until whoever started this is gone or closes the pipe.
fn until_stdin_ends() {
    let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
}
