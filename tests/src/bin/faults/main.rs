//! `faults`: a whole system under load, and what may go wrong with its processes and their disk.

#![forbid(unsafe_code)]

mod clock_back;
mod cold;
mod disk_faults;
mod kill;
mod load;
mod power_cut;
mod report;
mod run;
mod store_faults;
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
    /// fdatasync fails: the backend stops with the reason (needs FUSE).
    SyncFails(Args),
    /// The disk is full up to the reserve: writes are refused, reads go on, writes come back by themselves (needs FUSE).
    DiskFull(Args),
    /// Every fdatasync takes long, and the power goes meanwhile (needs FUSE).
    SlowDisk(Args),
    /// Tables cannot be read for a while: only who needs them gets an error (needs FUSE).
    ReadErrors(Args),
    /// The journal ends in half a record: it is cut, and told.
    TornTail(Args),
    /// A byte of the journal before its tail is damaged: the start is refused with where and what to do.
    Damage(Args),
    /// A value in a table is damaged: only its user gets an error, by name.
    DamagedValue(Args),
    /// The store was written by a newer version: the start is refused.
    NewerVersion(Args),
    /// A second process on the same store is refused, and the first goes on.
    SecondProcess(Args),
    /// The clock jumps back by a day or more, and forth again.
    ClockBack(Args),
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
    /// The backend cannot know when it wrote last.
    NoMemory,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::List => {
            list();
            Ok(true)
        }
        Command::Kill(args) => kill::run_kills(&args),
        Command::PowerCut(args) => run::run(&args, &mut power_cut::PowerCut::default()),
        Command::SyncFails(args) => run::run(&args, &mut disk_faults::SyncFails),
        Command::DiskFull(args) => run::run(&args, &mut disk_faults::DiskFull),
        Command::SlowDisk(args) => run::run(&args, &mut disk_faults::SlowDisk),
        Command::ReadErrors(args) => run::run(&args, &mut disk_faults::ReadErrors::default()),
        Command::TornTail(args) => run::run(&args, &mut store_faults::TornTail),
        Command::Damage(args) => run::run(&args, &mut store_faults::Damage),
        Command::DamagedValue(args) => run::run(&args, &mut store_faults::DamagedValue::default()),
        Command::NewerVersion(args) => run::run(&args, &mut store_faults::NewerVersion),
        Command::SecondProcess(args) => run::run(&args, &mut store_faults::SecondProcess),
        Command::ClockBack(args) => run::run(&args, &mut clock_back::ClockBack::default()),
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
