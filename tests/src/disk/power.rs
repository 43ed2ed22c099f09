//! The power of the disk, and what is wrong with it while it is on.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::Faults;
use super::model::Model;

/// What changes the disk or makes a change last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    Create,
    Write,
    SetSize,
    Rename,
    Unlink,
    Sync,
    SyncNames,
}

impl Step {
    pub const ALL: [Step; 7] =
        [Step::Create, Step::Write, Step::SetSize, Step::Rename, Step::Unlink, Step::Sync, Step::SyncNames];
}

/// When the power goes: at the `count`-th step from now of a kind, or of any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trip {
    pub step: Option<Step>,
    pub count: u64,
    /// The step is taken, and only its answer never comes.
    pub is_taken: bool,
}

#[derive(Debug)]
enum Power {
    On,
    Armed(Trip),
    /// Gone: who asks waits.
    Frozen,
    /// Gone: who asks gets an error.
    Off,
}

/// What the file system's threads and its owner share.
#[derive(Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

pub(super) struct State {
    pub model: Model,
    pub faults: Faults,
    power: Power,
    taken: HashMap<Step, u64>,
    random: StdRng,
}

impl Default for State {
    fn default() -> Self {
        Self {
            model: Model::new(0o755),
            faults: Faults::default(),
            power: Power::On,
            taken: HashMap::new(),
            random: StdRng::seed_from_u64(1),
        }
    }
}

/// What becomes of a step.
enum Reached {
    Go,
    /// The power goes with it.
    Last(Trip),
    Frozen,
    Off,
}

impl Shared {
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a step, if the power lets it; waits for its end if the power is gone.
    pub fn step<T>(&self, step: Step, take: impl FnOnce(&mut Model) -> Result<T, Errno>) -> Result<T, Errno> {
        let mut state = self.lock();
        match state.reach(step) {
            Reached::Go => return take(&mut state.model),
            Reached::Last(trip) if trip.is_taken => drop(take(&mut state.model)),
            Reached::Last(_) | Reached::Frozen => {}
            Reached::Off => return Err(Errno::EIO),
        }
        self.changed.notify_all();
        self.wait_until_off(state)
    }

    /// Looks at what is there, if the power lets it.
    pub fn look<T>(&self, look: impl FnOnce(&State) -> Result<T, Errno>) -> Result<T, Errno> {
        let state = self.lock();
        match state.power {
            Power::On | Power::Armed(_) => look(&state),
            Power::Frozen => self.wait_until_off(state),
            Power::Off => Err(Errno::EIO),
        }
    }

    fn wait_until_off<T>(&self, mut state: MutexGuard<'_, State>) -> Result<T, Errno> {
        while matches!(state.power, Power::Frozen) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Err(Errno::EIO)
    }

    pub fn power_off(&self) {
        self.lock().power = Power::Off;
        self.changed.notify_all();
    }
}

impl State {
    fn reach(&mut self, step: Step) -> Reached {
        match &mut self.power {
            Power::On => {}
            Power::Armed(trip) => {
                if trip.step.is_none_or(|wanted| wanted == step) {
                    trip.count = trip.count.saturating_sub(1);
                }
                if trip.count == 0 {
                    let trip = *trip;
                    self.power = Power::Frozen;
                    return Reached::Last(trip);
                }
            }
            Power::Frozen => return Reached::Frozen,
            Power::Off => return Reached::Off,
        }
        *self.taken.entry(step).or_default() += 1;
        Reached::Go
    }

    pub fn arm(&mut self, trip: Trip) {
        self.power = Power::Armed(trip);
    }

    pub fn disarm(&mut self) -> bool {
        if matches!(self.power, Power::Armed(_)) {
            self.power = Power::On;
        }
        matches!(self.power, Power::On)
    }

    pub fn is_frozen(&self) -> bool {
        matches!(self.power, Power::Frozen)
    }

    pub fn power_on(&mut self, cut: impl FnOnce(&mut Model) -> String) -> String {
        let said = cut(&mut self.model);
        self.power = Power::On;
        said
    }

    pub fn taken(&self, step: Step) -> u64 {
        self.taken.get(&step).copied().unwrap_or(0)
    }

    /// How long the next sync takes, in microseconds.
    pub fn sync_us(&mut self) -> u64 {
        self.faults.sync_us.map_or(0, |(least, most)| self.random.random_range(least..=most.max(least)))
    }
}
