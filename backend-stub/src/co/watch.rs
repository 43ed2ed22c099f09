//! Notices what blocks the thread for real: a coroutine that runs long without waiting makes all others of its thread wait.

use std::cell::RefCell;
use std::time::Instant;

use ahash::AHashMap;
use backend_stacks::{Label, ticks};

use super::limits;
use crate::rpc::Quiet;

/// One method that has blocked its thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    pub label: Label,
    pub times: u64,
    pub longest_us: u64,
}

const OTHERS: Label = Label { service: "others", method: "others" };

pub(super) struct Watch {
    blocked_after_us: u64,
    /// The watch's beginning, on both clocks: so it is known how long a tick is.
    started: Instant,
    started_ticks: u64,
    /// By service and method: how often, and the longest.
    found: RefCell<AHashMap<(&'static str, &'static str), (u64, u64)>>,
    quiet: Quiet,
}

impl Watch {
    pub fn new(blocked_after_us: u64) -> Self {
        Self {
            blocked_after_us,
            started: Instant::now(),
            started_ticks: ticks(),
            found: RefCell::default(),
            quiet: Quiet::default(),
        }
    }

    /// A coroutine ran from then until now, without giving its thread back. Nearly always that was short, and this costs
    /// a look at the processor's counter.
    pub fn ran(&self, label: Label, began_ticks: u64) {
        let ran_ticks = ticks().saturating_sub(began_ticks);
        // A tick is a nanosecond at the most.
        if ran_ticks > self.blocked_after_us * 1000 {
            self.look(label, ran_ticks);
        }
    }

    #[cold]
    fn look(&self, label: Label, ran_ticks: u64) {
        let lived_ticks = ticks().saturating_sub(self.started_ticks).max(1);
        let us = self.started.elapsed().as_micros() * u128::from(ran_ticks) / u128::from(lived_ticks);
        if us > u128::from(self.blocked_after_us) {
            self.note(label, us as u64);
        }
    }

    pub fn blocked(&self) -> Vec<Blocked> {
        let found = self.found.borrow();
        let mut blocked: Vec<Blocked> = found
            .iter()
            .map(|(&(service, method), &(times, longest_us))| Blocked {
                label: Label { service, method },
                times,
                longest_us,
            })
            .collect();
        blocked.sort_by_key(|blocked| (std::cmp::Reverse(blocked.times), blocked.label.service));
        blocked
    }

    fn note(&self, label: Label, us: u64) {
        let mut found = self.found.borrow_mut();
        let is_known = found.contains_key(&(label.service, label.method));
        let label = if is_known || found.len() < limits::BLOCKED_NAMES_MAX { label } else { OTHERS };
        let entry = found.entry((label.service, label.method)).or_default();
        *entry = (entry.0 + 1, entry.1.max(us));
        if let Some(dropped) = self.quiet.admit(self.started.elapsed().as_millis() as u64) {
            tracing::warn!(
                service = label.service,
                method = label.method,
                ms = us / 1000,
                times = entry.0,
                lines_kept_back = dropped,
                "a handler has blocked its thread: let it wait with `co`, or give the work to `co::unblock`"
            );
        }
    }
}
