//! `faults`: a whole system under load, and what may go wrong with its processes.

#![forbid(unsafe_code)]

mod kill;
mod load;
mod report;
mod traced_phone;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Breaks a system under load, and checks that nothing that was acknowledged is lost.
#[derive(Debug, Parser)]
#[command(name = "faults")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Names the faults.
    List,
    /// SIGKILL of the backend or the gateway at a random moment of every round, and a restart.
    Kill(kill::Args),
    /// A phone that strace watches.
    #[command(hide = true)]
    TracedPhone(traced_phone::Args),
}

/// What every fault shares.
#[derive(Debug, clap::Args)]
pub struct Common {
    /// The same seed makes the same plan; none: a random one, which is told.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Where the figures go as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::List => {
            println!(
                "kill    SIGKILL of the backend or the gateway at a random moment under load, and a restart"
            );
            Ok(true)
        }
        Command::Kill(args) => kill::run(&args),
        Command::TracedPhone(args) => traced_phone::run(&args),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("faults: {error:#}");
            ExitCode::FAILURE
        }
    }
}
