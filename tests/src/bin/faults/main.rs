//! `faults`: a whole system under load, and what may go wrong with its processes and their disk.

#![forbid(unsafe_code)]

mod kill;
mod load;
mod power_cut;
mod report;
mod run;
mod traced_phone;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use run::Args;

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
    /// SIGKILL of the backend or the gateway at a random moment under load, and a restart.
    Kill(kill::KillArgs),
    /// The power goes: what was not synced is gone, torn or in another order (needs FUSE).
    PowerCut(Args),
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

/// Faults of a disk or of the program itself that a scenario must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Plant {
    /// The disk forgets: at its restart a killed backend finds its store as it was before the load.
    Rollback,
    /// Syncs do nothing, as if none were asked for.
    NoSync,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::List => {
            list();
            Ok(true)
        }
        Command::Kill(args) => kill::run_kills(&args),
        Command::PowerCut(args) => run::run(&args, &mut power_cut::PowerCut::default()),
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

/// One line for each, its sentence as `--help` tells it.
fn list() {
    for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
        if command.get_name() != "list" {
            println!("{:<16}{}", command.get_name(), command.get_about().unwrap_or_default());
        }
    }
}
