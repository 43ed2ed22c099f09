//! What comes before a chat: all phones are here, all groups are made, and every member knows of its own.

use std::sync::atomic::Ordering;

use super::conductor::{ChatBench, Second};
use crate::fleet::wait_until;
use crate::limits;
use crate::session::RunError;

impl ChatBench<'_> {
    pub(super) fn connect(&mut self) -> Result<(), RunError> {
        let asked = u64::from(self.options.clients);
        self.fleet.connect(self.options.clients);
        let within_ms = limits::SETUP_WITHIN_MS + asked / 2;
        let (fleet, progress) = (&self.fleet, &mut self.progress);
        let mut second = Second::new();
        let done = wait_until(fleet, within_ms, || {
            let totals = fleet.totals();
            if second.is_over() {
                progress.line(&format!("connecting: {} of {asked} welcomed", totals.welcomed));
            }
            totals.up >= asked
        });
        if done { Ok(()) } else { Err(self.fail("not all phones were welcomed")) }
    }

    /// Makes all groups, and waits until every member knows of its own.
    pub(super) fn make_groups(&mut self) -> Result<(), RunError> {
        let groups = self.shared.population.groups();
        let members: u64 = groups.iter().map(|group| group.members.len() as u64).sum();
        self.shared.make_groups.store(true, Ordering::Relaxed);
        let (fleet, shared, progress) = (&self.fleet, &self.shared, &mut self.progress);
        let mut second = Second::new();
        let count = groups.len();
        let made = wait_until(fleet, limits::GROUPS_WITHIN_MS, || {
            let made = shared.group_ids.iter().filter(|id| id.load(Ordering::Relaxed) != 0).count();
            if second.is_over() {
                progress.line(&format!("making groups: {made} of {count}"));
            }
            made == count
        });
        if !made {
            return Err(self.fail("not all groups were made"));
        }
        let ids = shared.group_ids.iter().enumerate();
        let by_id = ids.map(|(index, id)| (id.load(Ordering::Relaxed), index as u32)).collect();
        let _ = shared.group_of_id.set(by_id);
        let told = wait_until(fleet, limits::GROUPS_WITHIN_MS, || {
            let told = shared.group_states.load(Ordering::Relaxed);
            if second.is_over() {
                progress.line(&format!("telling members: {told} of {members}"));
            }
            told >= members
        });
        if told {
            return Ok(());
        }
        let told = self.shared.group_states.load(Ordering::Relaxed);
        Err(self.fail(&format!("only {told} of {members} members were told of their groups")))
    }
}
