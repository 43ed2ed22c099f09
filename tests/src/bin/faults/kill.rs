//! Rounds of kills.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tests::fleet::Fleet;
use tests::{Server, System};

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
    /// What was sent must be acknowledged and everywhere within this, in seconds.
    #[arg(long, default_value_t = 60)]
    drain: u64,
    /// A fault that must be found: shows that this can fail.
    #[arg(long, hide = true)]
    plant: Option<Plant>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Plant {
    /// The disk forgets: at its restart a killed backend finds its store as it was before the load.
    Rollback,
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
        let only = args.only.map_or_else(String::new, |victim| format!(" --only {}", victim.name()));
        println!("replay: faults kill --rounds {} --phones {}{only} --seed {seed}", args.rounds, args.phones);
    }
    outcome.map(|()| report.is_good())
}

fn rounds(args: &Args, seed: u64, report: &mut Report) -> Result<()> {
    let mut run = Run::start(args, seed)?;
    for number in 1..=args.rounds {
        let victim = match args.only {
            Some(victim) => victim,
            None if run.random.random_bool(0.5) => Victim::Backend,
            None => Victim::Gateway,
        };
        let started = Instant::now();
        let before = run.fleet.history.acknowledged_in_all();
        let (in_flight, drained) = run.round(victim)?;
        let verdict = run.fleet.history.verdict();
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
        run.fleet.history.forget();
    }
    Ok(())
}

/// A system and what goes on in it.
struct Run {
    fleet: Fleet,
    load: Load,
    system: System,
    random: StdRng,
    drain_ms: u64,
    plant: Option<Plant>,
}

impl Run {
    fn start(args: &Args, seed: u64) -> Result<Self> {
        let system = System::start("faults-kill")?;
        let mut fleet = system.fleet(seed)?;
        let load = Load::start(&mut fleet, args.phones, seed)?;
        let (random, drain_ms) = (StdRng::seed_from_u64(seed), args.drain * 1000);
        if args.plant.is_some() {
            copy(&system.dir.join("data/store"), &system.dir.join("kept"))?;
        }
        Ok(Self { fleet, load, system, random, drain_ms, plant: args.plant })
    }

    /// Loads, kills, restarts, and waits until all has come. Gives what was in flight at the kill, and whether the
    /// load drained.
    fn round(&mut self, victim: Victim) -> Result<(usize, Result<()>)> {
        let before = self.fleet.history.acknowledged_in_all();
        let kill_at_ms = self.fleet.now_ms() + self.random.random_range(20..KILL_WITHIN_MS);
        self.write_until(kill_at_ms);
        // The servers work on while the phones look away, so that the kill may come at any step of a message.
        self.load.write(&mut self.fleet);
        std::thread::sleep(Duration::from_micros(self.random.random_range(0..LOOK_AWAY_US)));
        self.server(victim).kill()?;
        let in_flight = self.fleet.in_flight();
        let restart_at_ms = self.fleet.now_ms() + self.random.random_range(0..RESTART_WITHIN_MS);
        self.write_until(restart_at_ms);
        if (self.plant, victim) == (Some(Plant::Rollback), Victim::Backend) {
            let store = self.system.dir.join("data/store");
            std::fs::remove_dir_all(&store)?;
            copy(&self.system.dir.join("kept"), &store)?;
        }
        self.server(victim).start().with_context(|| format!("the {} did not come back", victim.name()))?;
        let until_ms = self.fleet.now_ms() + LOAD_WITHIN_MS;
        while self.fleet.history.acknowledged_in_all() < before + ACKNOWLEDGED_MIN {
            let is_late = self.fleet.now_ms() >= until_ms;
            ensure!(!is_late, "no {ACKNOWLEDGED_MIN} acknowledgements within {LOAD_WITHIN_MS} ms");
            self.load.write(&mut self.fleet);
            self.fleet.turn(until_ms);
        }
        Ok((in_flight, self.fleet.settle(self.drain_ms).map_err(Into::into)))
    }

    fn server(&mut self, victim: Victim) -> &mut Server {
        match victim {
            Victim::Backend => &mut self.system.backend,
            Victim::Gateway => &mut self.system.gateways[0],
        }
    }

    fn write_until(&mut self, until_ms: u64) {
        while self.fleet.now_ms() < until_ms {
            self.load.write(&mut self.fleet);
            self.fleet.turn(until_ms);
        }
    }
}

/// A directory with all in it.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            std::fs::copy(entry.path(), &to)?;
        }
    }
    Ok(())
}
