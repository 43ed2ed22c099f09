//! What all parts of a run share: the time, chance, what is to come, the network, and the record.

use std::collections::BTreeMap;

use backend_stub::logic::At;

use super::crowd::Crowd;
use super::limits;
use super::net::Conn;
use super::plan::Plan;
use super::plant::Plant;
use super::queue::Queue;
use super::random::Random;
use super::trace::Trace;
use crate::history::History;

/// The world around the machines.
pub struct Shared {
    pub now_us: u64,
    pub random: Random,
    pub queue: Queue,
    pub conns: Vec<Conn>,
    pub plan: Plan,
    pub plant: Option<Plant>,
    pub trace: Trace,
    /// What was sent, acknowledged and applied.
    pub history: History,
    /// In a run of all services, instead of that.
    pub crowd: Option<Crowd>,
    /// The newest number on the disk of each user's log.
    pub on_disk: BTreeMap<u64, u64>,
    /// What is wrong beyond that.
    pub complaints: Vec<String>,
    /// Load and faults are over.
    pub is_calm: bool,
    /// How often this and that happened, by name: shows what runs reach.
    pub counts: BTreeMap<String, u64>,
}

impl Shared {
    pub fn new(seed: u64, plan: Plan, prints: bool) -> Self {
        let crowd = plan.services.clone();
        let crowd = crowd.map(|services| Crowd::new(seed, plan.users, services.neighbours, services.weights));
        Self {
            crowd,
            on_disk: BTreeMap::new(),
            now_us: limits::START_US,
            random: Random::new(seed),
            queue: Queue::default(),
            conns: Vec::new(),
            plan,
            plant: None,
            trace: Trace::new(prints),
            history: History::default(),
            complaints: Vec::new(),
            is_calm: false,
            counts: BTreeMap::new(),
        }
    }

    pub fn now_ms(&self) -> u64 {
        self.now_us / 1000
    }

    pub fn unix_ms(&self) -> u64 {
        limits::UNIX_MS + self.now_ms()
    }

    pub fn at(&self) -> At {
        At { now_ms: self.now_ms(), unix_ms: self.unix_ms() }
    }

    pub fn note(&mut self, template: &'static str, numbers: [u64; 3]) {
        self.trace.note(self.now_us, template, numbers);
    }

    pub fn say(&mut self, words: String) {
        self.trace.say(self.now_us, words);
    }

    pub fn complain(&mut self, words: String) {
        self.trace.say(self.now_us, format!("WRONG: {words}"));
        if self.complaints.len() < limits::COMPLAINTS_MAX {
            self.complaints.push(words);
        }
    }

    /// Messages, or whatever was done.
    pub fn acknowledged(&self) -> u64 {
        let deeds = self.crowd.as_ref().map_or(0, |crowd| crowd.model.total().acknowledged);
        deeds + self.history.acknowledged_in_all()
    }

    pub fn count(&mut self, what: &str, times: u64) {
        if times > 0 {
            *self.counts.entry(what.to_owned()).or_default() += times;
        }
    }

    pub fn is_planted(&self, plant: Plant) -> bool {
        self.plant == Some(plant)
    }
}
