//! The whole system in one process, in virtual time, from one seed: phones, gateways and a backend as they ship, with
//! networks and a disk that are simulated and do what networks and disks do.
//!
//! The machines are the product's own: `proto_wire::phone`, the table and the links of a gateway's shard, and the
//! backend's core with the machines of its connections. Only what moves bytes is replaced. A seed gives a plan (how many
//! of everything, how slow, what goes wrong), then all that happens; the same seed gives the same run, event by event.
//!
//! At the end load and faults stop, time runs on, and then every acknowledged message must be at every receiver once,
//! in its sender's order and its group's, every phone must have all of its user's log without any further news, and no
//! number may have been given twice. Some runs have all services instead of messages alone, with contacts, groups that
//! change, moments, horizons and devices that log out: then all phones of a user must show the same, and what the model of
//! the bench's mixed chat knows.

mod backend;
mod calls;
mod check;
mod crowd;
mod disk;
mod faults;
mod gate;
mod limits;
mod net;
mod phone;
mod plan;
mod plant;
mod queue;
mod random;
mod shared;
mod trace;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub use plant::Plant;

use crate::planted;
use plan::Plan;
use shared::Shared;
use world::World;

/// What is asked of a run beyond its seed.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Load and faults last so long; none: as the plan says.
    pub load_ms: Option<u64>,
    /// Load and faults end after so many events.
    pub steps: Option<u64>,
    /// Every line of the trace is printed.
    pub prints: bool,
    pub plant: Option<Plant>,
}

/// The end of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub seed: u64,
    /// Over all that happened, with all bytes.
    pub hash: u64,
    pub events: u64,
    pub virtual_ms: u64,
    pub acknowledged: u64,
    /// How often this and that happened, by name.
    pub counts: BTreeMap<String, u64>,
    /// What is wrong, in words.
    pub complaints: Vec<String>,
    pub last: Vec<String>,
}

impl Outcome {
    pub fn is_good(&self) -> bool {
        self.complaints.is_empty()
    }
}

/// Runs a seed to its end.
pub fn run(seed: u64, options: &Options) -> Outcome {
    planted::plant();
    let mut plan = Plan::of(seed);
    if let Some(load_ms) = options.load_ms {
        plan.load_us = load_ms * 1000;
    }
    let mut shared = Shared::new(seed, plan, options.prints);
    shared.plant = options.plant;
    shared.say(format!("seed {seed}: {:?}", shared.plan));
    let mut world = World::new(shared, options.steps.unwrap_or(u64::MAX));
    // An assertion of a machine that fails is a finding like any other.
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| world.run())) {
        let words = panic.downcast_ref::<String>().cloned();
        let words = words.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        world.shared.complain(format!("panic: {}", words.unwrap_or_default()));
    }
    world.backend.count(&mut world.shared);
    world.gates.iter().for_each(|gate| gate.count(&mut world.shared));
    world.phones.iter().for_each(|phone| phone.count(&mut world.shared));
    let deeds = world.shared.crowd.as_ref().map(|crowd| crowd.counts()).unwrap_or_default();
    deeds.iter().for_each(|(what, times)| world.shared.count(what, *times));
    Outcome {
        seed,
        hash: world.shared.trace.hash(),
        events: world.events,
        virtual_ms: world.shared.now_ms(),
        acknowledged: world.shared.acknowledged(),
        counts: world.shared.counts,
        last: world.shared.trace.last(),
        complaints: world.shared.complaints,
    }
}
