//! `sim`: the whole system in virtual time, from one seed.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use tests::sim::{self, Options, Outcome, Plant};

/// Runs phones, gateways and a backend in one process, in virtual time, with everything that goes wrong, from one seed.
#[derive(Debug, Parser)]
#[command(name = "sim")]
struct Cli {
    /// The seed, or the first of them; none: a random one, which is told.
    #[arg(long)]
    seed: Option<u64>,
    /// So many seeds, one after the other.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Load and faults end after so many events.
    #[arg(long)]
    steps: Option<u64>,
    /// Load and faults last so long, in virtual time.
    #[arg(long)]
    seconds: Option<u64>,
    /// Prints every event.
    #[arg(long)]
    trace: bool,
    /// Prints how often this and that happened.
    #[arg(long)]
    counts: bool,
    /// A fault that the checks must find: the run fails when they do not.
    #[arg(long)]
    plant: Option<Plant>,
    /// Seeds that are run at once.
    #[arg(long, default_value_t = 1)]
    threads: u64,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let first = cli.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let options = Options {
        load_ms: cli.seconds.map(|seconds| seconds * 1000),
        steps: cli.steps,
        prints: cli.trace,
        plant: cli.plant,
    };
    // A panic of a machine is told with its seed; here only where it was.
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    let started = Instant::now();
    let results = run_all(first, &cli, &options);
    let failed = results.iter().filter(|outcome| !outcome.is_good()).count();
    let sum = |of: fn(&Outcome) -> u64| results.iter().map(of).sum::<u64>();
    println!(
        "{} seeds from {first}: {failed} failed; {} events, {} s of virtual time, {} messages acknowledged, in {:.1} s",
        results.len(),
        sum(|outcome| outcome.events),
        sum(|outcome| outcome.virtual_ms) / 1000,
        sum(|outcome| outcome.acknowledged),
        started.elapsed().as_secs_f64(),
    );
    let mut counts = BTreeMap::new();
    for (what, times) in results.iter().flat_map(|outcome| &outcome.counts) {
        *counts.entry(what).or_insert(0) += times;
    }
    for (what, times) in counts.iter().filter(|_| cli.counts) {
        println!("{times:>12} {what}");
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_all(first: u64, cli: &Cli, options: &Options) -> Vec<Outcome> {
    let threads = cli.threads.max(1);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                scope.spawn(move || {
                    let seeds = (worker..cli.seeds).step_by(threads as usize);
                    let outcomes = seeds.map(|at| {
                        let outcome = sim::run(first.wrapping_add(at), options);
                        tell(&outcome, cli);
                        outcome
                    });
                    outcomes.collect::<Vec<_>>()
                })
            })
            .collect();
        // A worker that panicked has said why.
        workers.into_iter().filter_map(|worker| worker.join().ok()).flatten().collect()
    })
}

fn tell(outcome: &Outcome, cli: &Cli) {
    if outcome.is_good() {
        if let Some(gaps) = outcome.counts.get("gaps").filter(|_| cli.counts) {
            println!("seed {}: {gaps} gaps", outcome.seed);
        }
        if cli.seeds == 1 {
            println!("seed {}: good; {} events, hash {:016x}", outcome.seed, outcome.events, outcome.hash);
        }
        return;
    }
    let mut replay = format!("cargo run --release -p tests --bin sim -- --seed {}", outcome.seed);
    for (name, value) in [("--steps", cli.steps), ("--seconds", cli.seconds)] {
        if let Some(value) = value {
            replay += &format!(" {name} {value}");
        }
    }
    if let Some(plant) = cli.plant.and_then(|plant| clap::ValueEnum::to_possible_value(&plant)) {
        replay += &format!(" --plant {}", plant.get_name());
    }
    let last = if cli.trace { String::new() } else { outcome.last.join("\n") };
    println!(
        "{last}\nseed {} FAILED:\n  {}\nreplay: {replay} --trace",
        outcome.seed,
        outcome.complaints.join("\n  ")
    );
}
