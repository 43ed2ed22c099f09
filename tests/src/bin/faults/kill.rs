//! Rounds of kills.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tests::System;
use tests::fleet::Fleet;

use crate::Common;
use crate::load::Load;
use crate::report::{Report, Round};

/// A round has at least this many acknowledged messages.
const ACKNOWLEDGED_MIN: u64 = 1_000;

/// The kill comes within this time from the start of the round's load.
const KILL_WITHIN_MS: u64 = 600;

/// The phones do not read for up to this time before the kill.
const LOOK_AWAY_US: u64 = 3_000;

/// The restart comes within this time from the kill.
const RESTART_WITHIN_MS: u64 = 200;

/// What was sent must be acknowledged and everywhere within this.
const DRAIN_WITHIN_MS: u64 = 60_000;

/// One round may take this long to have its messages acknowledged.
const LOAD_WITHIN_MS: u64 = 60_000;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many kills.
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Phones, each of a user of its own.
    #[arg(long, default_value_t = 200)]
    phones: usize,
    /// Kills of the backend only, or of the gateway only; both in turn otherwise.
    #[arg(long)]
    only: Option<Victim>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Victim {
    Backend,
    Gateway,
}

impl Victim {
    pub fn name(self) -> &'static str {
        match self {
            Victim::Backend => "backend",
            Victim::Gateway => "gateway",
        }
    }
}

/// True: nothing was lost, doubled or out of order.
pub fn run(args: &Args) -> Result<bool> {
    ensure!(args.phones >= 2, "--phones must be at least 2");
    let seed = args.common.seed.unwrap_or_else(rand::random);
    let mut report = Report::new(seed);
    let outcome = rounds(args, seed, &mut report);
    if let Some(path) = &args.common.json {
        std::fs::write(path, report.json()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    println!("{}", report.summary());
    if outcome.is_err() || !report.is_good() {
        println!("replay: faults kill --rounds {} --phones {} --seed {seed}", args.rounds, args.phones);
    }
    outcome.map(|()| report.is_good())
}

fn rounds(args: &Args, seed: u64, report: &mut Report) -> Result<()> {
    let mut system = System::start("faults-kill")?;
    let mut fleet = system.fleet(seed)?;
    let mut load = Load::start(&mut fleet, args.phones, seed)?;
    let mut random = StdRng::seed_from_u64(seed);
    for number in 1..=args.rounds {
        let victim = match args.only {
            Some(victim) => victim,
            None if random.random_bool(0.5) => Victim::Backend,
            None => Victim::Gateway,
        };
        let started = Instant::now();
        let before = fleet.history.acknowledged_in_all();
        let (in_flight, drained) = round(&mut system, &mut fleet, &mut load, victim, &mut random)?;
        let verdict = fleet.history.verdict();
        let round = Round {
            number,
            victim: victim.name(),
            acknowledged: verdict.acknowledged - before,
            in_flight_at_kill: in_flight,
            took_ms: started.elapsed().as_millis() as u64,
        };
        println!("{}", round.line(args.rounds));
        report.add(round, &verdict);
        if !verdict.is_good() {
            verdict.complaints.iter().for_each(|complaint| println!("  {complaint}"));
            return Ok(());
        }
        drained?;
        fleet.history.forget();
    }
    Ok(())
}

/// Loads, kills, restarts, and waits until all has come. Gives what was in flight at the kill, and whether the load
/// drained.
fn round(
    system: &mut System,
    fleet: &mut Fleet,
    load: &mut Load,
    victim: Victim,
    random: &mut StdRng,
) -> Result<(usize, Result<()>)> {
    let before = fleet.history.acknowledged_in_all();
    let kill_at_ms = fleet.now_ms() + random.random_range(20..KILL_WITHIN_MS);
    write_until(fleet, load, kill_at_ms);
    let server = match victim {
        Victim::Backend => &mut system.backend,
        Victim::Gateway => &mut system.gateways[0],
    };
    // The servers work on while the phones look away, so that the kill may come at any step of a message.
    load.write(fleet);
    std::thread::sleep(Duration::from_micros(random.random_range(0..LOOK_AWAY_US)));
    server.kill()?;
    let in_flight = fleet.in_flight();
    let restart_at_ms = fleet.now_ms() + random.random_range(0..RESTART_WITHIN_MS);
    write_until(fleet, load, restart_at_ms);
    server.start().with_context(|| format!("the {} did not come back", victim.name()))?;
    let until_ms = fleet.now_ms() + LOAD_WITHIN_MS;
    while fleet.history.acknowledged_in_all() < before + ACKNOWLEDGED_MIN {
        ensure!(
            fleet.now_ms() < until_ms,
            "no {ACKNOWLEDGED_MIN} acknowledgements within {LOAD_WITHIN_MS} ms"
        );
        load.write(fleet);
        fleet.turn(until_ms);
    }
    Ok((in_flight, fleet.settle(DRAIN_WITHIN_MS).map_err(Into::into)))
}

fn write_until(fleet: &mut Fleet, load: &mut Load, until_ms: u64) {
    while fleet.now_ms() < until_ms {
        load.write(fleet);
        fleet.turn(until_ms);
    }
}
