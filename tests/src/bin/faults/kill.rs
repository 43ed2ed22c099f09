//! Rounds of kills.

use std::path::Path;

use anyhow::{Context, Result};
use rand::Rng;
use tests::{Server, System};

use crate::Plant;
use crate::run::{Args, Hit, Run, Scenario, run};

#[derive(Debug, clap::Args)]
pub struct KillArgs {
    /// Kills of the backend only, or of the gateway only; either of them otherwise.
    #[arg(long)]
    only: Option<Victim>,
    #[command(flatten)]
    args: Args,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Victim {
    Backend,
    Gateway,
}

impl Victim {
    fn name(self) -> &'static str {
        match self {
            Victim::Backend => "backend",
            Victim::Gateway => "gateway",
        }
    }
}

/// True: nothing was lost, doubled or out of order.
pub fn run_kills(args: &KillArgs) -> Result<bool> {
    run(&args.args, &mut Kill { only: args.only })
}

struct Kill {
    only: Option<Victim>,
}

impl Scenario for Kill {
    fn name(&self) -> &'static str {
        "kill"
    }

    fn own_options(&self) -> String {
        self.only.map_or(String::new(), |only| format!(" --only {}", only.name()))
    }

    fn plants(&self) -> &'static [Plant] {
        &[Plant::Rollback]
    }

    fn system(&mut self) -> Result<System> {
        Ok(System::new("faults-kill")?)
    }

    fn begin(&mut self, run: &mut Run) -> Result<()> {
        if run.plant.is_some() {
            copy(&run.system.dir.join("data/store"), &run.system.dir.join("kept"))?;
        }
        Ok(())
    }

    fn round(&mut self, run: &mut Run) -> Result<Hit> {
        let victim = match self.only {
            Some(victim) => victim,
            None if run.random.random_bool(0.5) => Victim::Backend,
            None => Victim::Gateway,
        };
        run.write_a_while();
        run.look_away();
        server(run, victim).kill()?;
        let in_flight = run.fleet.in_flight();
        run.write_until_restart();
        if (run.plant, victim) == (Some(Plant::Rollback), Victim::Backend) {
            let store = run.system.dir.join("data/store");
            std::fs::remove_dir_all(&store)?;
            copy(&run.system.dir.join("kept"), &store)?;
        }
        server(run, victim).start().with_context(|| format!("the {} did not come back", victim.name()))?;
        Ok(Hit { what: victim.name(), in_flight })
    }
}

fn server(run: &mut Run, victim: Victim) -> &mut Server {
    match victim {
        Victim::Backend => &mut run.system.backend,
        Victim::Gateway => &mut run.system.gateways[0],
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
