//! The power goes.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use rand::Rng;
use rand::seq::IndexedRandom;
use tests::disk::{Faults, Step, Trip};
use tests::{System, limits};

use crate::Plant;
use crate::run::{FAULT_WITHIN_MS, Hit, Run, Scenario};

/// Small memtables, so that tables are written, merged and removed in every round.
const CONFIGURATION: &str = "[store]\nmemtable_bytes = 1048576\n";

/// Long texts, so that a journal is full every few rounds.
const TEXT_BYTES: usize = 7_000;

/// Of 10 cuts so many come at a step of the disk, the rest at any moment.
const AT_STEP_IN_10: u32 = 6;

/// Of 10 starts so many are cut again.
const CUT_STARTS_IN_10: u32 = 3;

/// Steps before the cut: of those that are seldom, and of those that are many.
const SELDOM_MAX: u64 = 4;
const MANY_MAX: u64 = 200;

/// The key that all tokens are signed with, below the data directory.
const KEY: &str = "keys/issuer.pem";

#[derive(Default)]
pub struct PowerCut {
    key: Option<Vec<u8>>,
}

impl Scenario for PowerCut {
    fn name(&self) -> &'static str {
        "power-cut"
    }

    fn plants(&self) -> &'static [Plant] {
        &[Plant::NoSync]
    }

    fn system(&mut self) -> Result<System> {
        let mut system = System::on_disk("faults-power-cut")?;
        system.configure_backend(CONFIGURATION)?;
        Ok(system)
    }

    fn begin(&mut self, run: &mut Run) -> Result<()> {
        run.fleet.more_text_bytes = TEXT_BYTES;
        self.key = run.system.disk().read(Path::new(KEY));
        if run.plant.is_some() {
            run.system.disk().set_faults(Faults { lying_syncs: true, ..Faults::default() });
        }
        Ok(())
    }

    fn round(&mut self, run: &mut Run) -> Result<Hit> {
        if run.random.random_ratio(AT_STEP_IN_10, 10) {
            let trip = trip(run);
            run.system.disk().arm(trip);
        }
        let ms = run.random.random_range(20..FAULT_WITHIN_MS);
        run.write_until(ms, |run| run.system.disk().is_frozen());
        run.look_away();
        // A process that waits for the disk ends only when the disk answers.
        run.backend().running().signal(Signal::SIGKILL)?;
        run.system.disk().power_off();
        run.backend().kill()?;
        let in_flight = run.fleet.in_flight();
        run.write_until_restart();
        cut(run);
        start(run)?;
        ensure!(
            run.system.disk().read(Path::new(KEY)) == self.key,
            "the issuer's key is another after the cut"
        );
        Ok(Hit { what: "power", in_flight })
    }
}

fn trip(run: &mut Run) -> Trip {
    // The list is not empty.
    let step = *Step::ALL.choose(&mut run.random).expect("steps");
    let most = if matches!(step, Step::Write | Step::Sync) { MANY_MAX } else { SELDOM_MAX };
    let count = run.random.random_range(1..=most);
    Trip { step: Some(step), count, is_taken: run.random.random_bool(0.5) }
}

fn cut(run: &mut Run) {
    let disk = run.system.disk();
    let said = match run.plant {
        // A store of some moment, whole, so that it starts and what it lacks shows.
        Some(_) => disk.cut_to_synced(),
        None => disk.cut(run.random.random()),
    };
    println!("  {said}");
}

/// Starts the backend on what survived; some starts are cut as well.
fn start(run: &mut Run) -> Result<()> {
    if run.plant.is_none() && run.random.random_ratio(CUT_STARTS_IN_10, 10) {
        let count = run.random.random_range(1..MANY_MAX);
        let is_taken = run.random.random_bool(0.5);
        run.system.disk().arm(Trip { step: None, count, is_taken });
        let mut process = run.backend().launch().start()?;
        let disk = run.system.disk();
        // Frozen, or up; ready lines are told once the store is open.
        process
            .wait_until("start or its cut", limits::READY_WITHIN_MS, |process| {
                (disk.is_frozen() || process.log().contains("ready ")).then_some(())
            })
            .context("a start that was to be cut")?;
        process.signal(Signal::SIGKILL)?;
        disk.power_off();
        process.kill()?;
        cut(run);
    }
    run.start_backend()
}
