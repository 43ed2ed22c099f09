//! The binary of the reference backend.

#![forbid(unsafe_code)]

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use backend_stub::cli::{Cli, Command};
use backend_stub::config::BackendConfig;
use backend_stub::{embedded, offline};
use clap::Parser as _;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("moorgate-backend: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::CheckConfig { file } => {
            BackendConfig::read(&file)?.check()?;
            println!("{} is fine", file.display());
            Ok(())
        }
        Command::Call(call) => backend_stub::call::run(call, &mut std::io::stdout().lock()),
        Command::Tool(tool) => offline::run(tool, &mut std::io::stdout().lock()),
        Command::Serve(serve) => {
            let config = serve.config()?;
            stay_on(&config.cores)?;
            end_on_panic();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(serve_until_stopped(config))
        }
    }
}

/// Keeps all threads that will be started, those of the store too, on these cores.
fn stay_on(cores: &[usize]) -> anyhow::Result<()> {
    if cores.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    for &core in cores {
        set.set(core).with_context(|| format!("--cores: there can be no core {core}"))?;
    }
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| {
        format!("--cores: this process may not run on {cores:?}; `nproc` and `taskset -p $$` tell")
    })
}

/// A panic leaves the core in a state that nobody has thought of. A new start takes everything from disk.
fn end_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        std::process::abort();
    }));
}

/// Signals are taken before anything starts: one that comes early still stops cleanly.
async fn serve_until_stopped(config: BackendConfig) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot take SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot take SIGINT")?;
    let backend = embedded::start(config)?;
    let admin = backend.admin.map_or("none".to_owned(), |addr| addr.to_string());
    let mut stdout = std::io::stdout();
    // Whoever started this may have closed the pipe once it knew enough; that is no reason to end.
    let _ = writeln!(stdout, "ready listen={} admin={admin}", backend.listen).and_then(|()| stdout.flush());
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
        _ = interrupt.recv() => tracing::info!("Ctrl-C: stopping"),
    }
    backend.stop().context("the loop did not end well")
}
