//! What the scenarios share: a system under load, rounds, and what comes of them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tests::fleet::{Fleet, PhoneId};
use tests::{Server, System};

use crate::load::{FIRST_USER, Load};
use crate::report::{Report, Round};
use crate::{Common, Plant};

/// A round has at least this many acknowledged messages.
pub const ACKNOWLEDGED_MIN: u64 = 1_000;

/// A fault comes within this time from the start of the round's load.
pub const FAULT_WITHIN_MS: u64 = 600;

/// The phones do not read for up to this time before the kill.
const LOOK_AWAY_US: u64 = 3_000;

/// The restart comes within this time from the kill.
const RESTART_WITHIN_MS: u64 = 200;

/// One round may take this long to have its messages acknowledged.
const LOAD_WITHIN_MS: u64 = 60_000;

/// After so many rounds new phones read logs from their beginning, and what was right is forgotten.
const AUDIT_EVERY: usize = 10;

/// So many logs each time, since they grow; all of them in a run that is not longer than that.
const AUDITED: usize = 40;

/// Whole logs take longer than what is new, in drains.
const AUDIT_DRAINS: u64 = 4;

/// What every scenario is told.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many rounds.
    #[arg(long, default_value_t = 10)]
    pub rounds: usize,
    /// Phones, each of a user of its own.
    #[arg(long, default_value_t = 200)]
    pub phones: usize,
    /// What was sent must be acknowledged and everywhere within this, in seconds.
    #[arg(long, default_value_t = 60)]
    pub drain: u64,
    /// A fault that must be found: shows that this can fail.
    #[arg(long, hide = true)]
    pub plant: Option<Plant>,
    #[command(flatten)]
    pub common: Common,
}

/// What went on when the fault came.
pub struct Hit {
    /// What was hit, for the report.
    pub what: &'static str,
    pub in_flight: usize,
}

/// What goes wrong in a round, under load. What it wants of the system is checked by itself; that nothing is lost is
/// checked after it.
pub trait Scenario {
    fn name(&self) -> &'static str;

    /// Plants that it knows.
    fn plants(&self) -> &'static [Plant] {
        &[]
    }

    /// Its own options, as they stand in the command that replays it: each with a space before it.
    fn own_options(&self) -> String {
        String::new()
    }

    /// The system that it needs, not started.
    fn system(&mut self) -> Result<System>;

    /// Before the first round: the system is up, and the load has begun.
    fn begin(&mut self, _: &mut Run) -> Result<()> {
        Ok(())
    }

    fn round(&mut self, run: &mut Run) -> Result<Hit>;
}

/// A system and what goes on in it.
pub struct Run {
    pub fleet: Fleet,
    pub load: Load,
    pub system: System,
    pub random: StdRng,
    pub plant: Option<Plant>,
    phones: usize,
    drain_ms: u64,
    audits: u64,
}

/// True: nothing was lost, doubled or out of order.
pub fn run(args: &Args, scenario: &mut dyn Scenario) -> Result<bool> {
    let name = scenario.name();
    ensure!(args.phones >= 2, "--phones must be at least 2");
    if let Some(plant) = &args.plant {
        ensure!(scenario.plants().contains(plant), "{name} does not know this --plant");
    }
    let seed = args.common.seed.unwrap_or_else(rand::random);
    let mut report = Report::new(seed);
    let outcome = rounds(args, scenario, seed, &mut report);
    if let Some(path) = &args.common.json {
        std::fs::write(path, report.json()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    println!("{}", report.summary());
    if outcome.is_err() || !report.is_good() {
        let (rounds, phones, own) = (args.rounds, args.phones, scenario.own_options());
        println!("replay: faults {name} --rounds {rounds} --phones {phones}{own} --seed {seed}");
    }
    outcome.map(|()| report.is_good())
}

fn rounds(args: &Args, scenario: &mut dyn Scenario, seed: u64, report: &mut Report) -> Result<()> {
    let mut run = Run::start(args, scenario.system()?, seed)?;
    scenario.begin(&mut run)?;
    for number in 1..=args.rounds {
        let started = Instant::now();
        let before = run.fleet.history.acknowledged_in_all();
        let hit = scenario.round(&mut run)?;
        let drained = run.drain(before);
        let is_audit = number % AUDIT_EVERY == 0 || number == args.rounds;
        let audited = if drained.is_ok() && is_audit { run.audit(args.rounds) } else { Ok(()) };
        let verdict = run.fleet.history.verdict();
        let round = Round {
            number,
            victim: hit.what,
            acknowledged: verdict.acknowledged - before,
            in_flight_at_kill: hit.in_flight,
            took_ms: started.elapsed().as_millis() as u64,
        };
        println!("{}", round.line(args.rounds));
        report.add(round, &verdict);
        if !verdict.is_good() {
            verdict.complaints.iter().for_each(|complaint| println!("  {complaint}"));
            return Ok(());
        }
        drained.and(audited)?;
    }
    Ok(())
}

impl Run {
    fn start(args: &Args, mut system: System, seed: u64) -> Result<Self> {
        system.start_all()?;
        let mut fleet = system.fleet(seed)?;
        let load = Load::start(&mut fleet, args.phones, seed)?;
        Ok(Self {
            fleet,
            load,
            system,
            random: StdRng::seed_from_u64(seed),
            plant: args.plant,
            phones: args.phones,
            drain_ms: args.drain * 1000,
            audits: 0,
        })
    }

    /// Lets the phones write for a while.
    pub fn write_for(&mut self, ms: u64) {
        let until_ms = self.fleet.now_ms() + ms;
        while self.fleet.now_ms() < until_ms {
            self.load.write(&mut self.fleet);
            self.fleet.turn(until_ms);
        }
    }

    /// Lets the phones write until something is so; false: it is not so after `within_ms`.
    pub fn write_until(&mut self, within_ms: u64, mut is_so: impl FnMut(&mut Run) -> bool) -> bool {
        let until_ms = self.fleet.now_ms() + within_ms;
        while !is_so(self) {
            if self.fleet.now_ms() >= until_ms {
                return false;
            }
            self.load.write(&mut self.fleet);
            self.fleet.turn(until_ms);
        }
        true
    }

    /// Writes up to a random moment.
    pub fn write_a_while(&mut self) {
        let ms = self.random.random_range(20..FAULT_WITHIN_MS);
        self.write_for(ms);
    }

    /// The servers work on while the phones look away, so that what comes next may come at any step of a message.
    pub fn look_away(&mut self) {
        self.load.write(&mut self.fleet);
        std::thread::sleep(Duration::from_micros(self.random.random_range(0..LOOK_AWAY_US)));
    }

    /// Writes while the server that was killed is away.
    pub fn write_until_restart(&mut self) {
        let ms = self.random.random_range(0..RESTART_WITHIN_MS);
        self.write_for(ms);
    }

    /// SIGKILL of the backend, under load. Gives what was in flight.
    pub fn kill_backend(&mut self) -> Result<usize> {
        self.write_a_while();
        self.look_away();
        self.system.backend.kill()?;
        Ok(self.fleet.in_flight())
    }

    /// How many phones the load has.
    pub fn phones(&self) -> usize {
        self.phones
    }

    pub fn backend(&mut self) -> &mut Server {
        &mut self.system.backend
    }

    /// Starts the backend on what there is.
    pub fn start_backend(&mut self) -> Result<()> {
        self.system.backend.start().context("the backend did not come back")
    }

    /// Starts the backend, which must refuse. Gives all that it said.
    pub fn start_refused(&mut self) -> Result<String> {
        let mut process = self.system.backend.launch().start()?;
        let ended = process.wait_for_end(tests::limits::READY_WITHIN_MS)?;
        ensure!(!ended.success(), "the backend started, though it should refuse:\n{}", process.log());
        Ok(process.log())
    }

    /// Makes the round's messages full, and waits until all is everywhere.
    pub fn drain(&mut self, before: u64) -> Result<()> {
        let is_enough = |run: &mut Run| run.fleet.history.acknowledged_in_all() >= before + ACKNOWLEDGED_MIN;
        let within_ms = self.drain_ms.min(LOAD_WITHIN_MS);
        let is_full = self.write_until(within_ms, is_enough);
        ensure!(
            is_full,
            "no {ACKNOWLEDGED_MIN} acknowledgements within {within_ms} ms; refused: {:?}",
            self.fleet.refused
        );
        self.fleet.settle(self.drain_ms).map_err(Into::into)
    }

    /// New devices read whole logs: what is in them now, not what the phones got once. Then what was right is forgotten.
    fn audit(&mut self, rounds: usize) -> Result<()> {
        self.audits += 1;
        let count = if rounds <= AUDIT_EVERY { self.phones } else { self.phones.min(AUDITED) };
        let users = rand::seq::index::sample(&mut self.random, self.phones, count);
        let readers: Vec<PhoneId> = users
            .into_iter()
            .map(|at| at as u64)
            .map(|at| self.fleet.add_device(FIRST_USER + at, self.audits << 32 | at, 0))
            .collect();
        for reader in &readers {
            self.fleet.history.set_late(reader.0);
            self.fleet.connect(*reader);
        }
        let began_ms = self.fleet.now_ms();
        let settled = self.fleet.settle(AUDIT_DRAINS * self.drain_ms);
        // Who waits for news is silent for a sweep of the backend, a minute; a slow machine has short silences.
        let silence_ms = readers.iter().map(|reader| self.fleet.seen(*reader).silence_ms).max().unwrap_or(0);
        println!(
            "  {} logs read anew in {} ms; the longest wait of one for a page: {silence_ms} ms",
            readers.len(),
            self.fleet.now_ms() - began_ms
        );
        if settled.is_ok() {
            for reader in &readers {
                self.fleet.cut(*reader);
                self.fleet.history.set_judged(reader.0, false);
            }
            self.fleet.history.forget();
        }
        settled.context("new devices do not get all").map_err(Into::into)
    }
}
