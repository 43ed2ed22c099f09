//! What the threads of a mixed run share with its conductor.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use ahash::AHashMap;

use super::kinds::Weights;
use super::model::Model;
use super::people::People;
use crate::measure::{Op, Recorder};

/// A load: every thread makes its part of it.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub rate: f64,
    pub from_us: u64,
    pub until_us: u64,
}

/// What is measured: a change until its acknowledgement, a message until it is at a first device.
pub const ACK: Op = 0;
pub const DELIVER: Op = 1;
const OPERATIONS: [&str; 2] = ["ack", "deliver"];

pub struct Shared {
    pub people: People,
    pub weights: Weights,
    pub text_bytes: usize,
    pub model: Mutex<Model>,
    pub recorder: Arc<Recorder>,
    /// Set once, when the load begins.
    pub load: OnceLock<Load>,
    pub sets_up: AtomicBool,
    /// The ids of the population's groups, then of those whose members change; 0 until one is made.
    pub group_ids: Vec<AtomicU64>,
    /// Ids and indices of both, known once all are made.
    pub statics: OnceLock<AHashMap<u64, u32>>,
    pub changing: OnceLock<AHashMap<u64, u32>>,
    /// What first devices were told while the run was set up: memberships and contacts.
    pub told_groups: AtomicU64,
    pub told_contacts: AtomicU64,
    /// By line: up to where its phone has applied its user's log.
    pub cursors: Vec<AtomicU64>,
    pub last_page_us: AtomicU64,
    pub delivered: AtomicU64,
    /// Ctrl-C ended the load before its time.
    pub is_over: AtomicBool,
    /// Calls without an answer.
    pub in_flight: AtomicU64,
}

impl Shared {
    pub fn new(people: People, weights: Weights, text_bytes: usize) -> Self {
        let groups = people.population.groups().len() + people.changing_groups().len();
        let lines = people.lines();
        Self {
            model: Mutex::new(Model::new(people.users())),
            people,
            weights,
            text_bytes,
            recorder: Arc::new(Recorder::new(&OPERATIONS)),
            load: OnceLock::new(),
            sets_up: AtomicBool::new(false),
            group_ids: (0..groups).map(|_| AtomicU64::new(0)).collect(),
            statics: OnceLock::new(),
            changing: OnceLock::new(),
            told_groups: AtomicU64::new(0),
            told_contacts: AtomicU64::new(0),
            cursors: (0..lines).map(|_| AtomicU64::new(0)).collect(),
            last_page_us: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
            in_flight: AtomicU64::new(0),
        }
    }

    pub fn model(&self) -> MutexGuard<'_, Model> {
        // A thread that panicked while it held it ends the run; the figures are then of no use, but readable.
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The members that a group begins with; the first of the second is the owner.
    pub fn first_members(&self, index: usize) -> (u32, Vec<u32>) {
        let statics = self.people.population.groups();
        match statics.get(index) {
            Some(group) => (group.owner, group.members.clone()),
            None => {
                let members = self.people.changing_groups().swap_remove(index - statics.len());
                (members[0], members)
            }
        }
    }

    /// Users of which a device has applied less than another.
    pub fn users_apart(&self) -> usize {
        let users = self.people.users() as usize;
        let apart = (users..self.cursors.len()).filter(|&line| {
            let (user, _) = self.people.of_line(line as u32);
            let at = |line: usize| self.cursors[line].load(Ordering::Relaxed);
            at(line) != at(user as usize)
        });
        apart.count()
    }

    /// Once all groups are made.
    pub fn note_groups(&self) {
        let statics = self.people.population.groups().len();
        let ids: Vec<u64> = self.group_ids.iter().map(|id| id.load(Ordering::Relaxed)).collect();
        let by_id = |ids: &[u64]| ids.iter().enumerate().map(|(at, &id)| (id, at as u32)).collect();
        let _ = self.statics.set(by_id(&ids[..statics]));
        let _ = self.changing.set(by_id(&ids[statics..]));
    }
}
