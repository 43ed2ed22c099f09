//! Who the users and devices of a mixed run are, and who has to do with whom.

use std::sync::Arc;

use proto_wire::phone::Phone;

use crate::identity::Identities;
use crate::limits;
use crate::workload::Population;

/// The people of a run. A *line* is a device's place in the fleet: first the users' first devices, then the others.
#[derive(Debug, Clone)]
pub struct People {
    pub who: Identities,
    pub population: Arc<Population>,
    /// Devices that every tenth user has.
    devices: u32,
}

impl People {
    pub fn new(who: Identities, population: Arc<Population>, devices: u32) -> Self {
        Self { who, population, devices: devices.max(1) }
    }

    pub fn users(&self) -> u32 {
        self.population.phones()
    }

    pub fn lines(&self) -> u32 {
        self.users() + self.users().div_ceil(limits::USERS_OF_A_SECOND_DEVICE) * (self.devices - 1)
    }

    /// The user of a line, and which of the user's devices it is.
    pub fn of_line(&self, line: u32) -> (u32, u32) {
        match line.checked_sub(self.users()) {
            None => (line, 0),
            Some(at) => {
                let others = self.devices - 1;
                (at / others * limits::USERS_OF_A_SECOND_DEVICE, 1 + at % others)
            }
        }
    }

    pub fn machine(&self, line: u32) -> Phone {
        let (user, device) = self.of_line(line);
        self.who.machine_of(user, device)
    }

    /// Users beside the contacts in the circle: their relations to this one come and go.
    pub fn strangers(&self, user: u32) -> Vec<u32> {
        let from = self.population.contacts() / 2 + 1;
        let steps = from..from + limits::STRANGERS;
        let both = steps.flat_map(|step| [i64::from(step), -i64::from(step)]);
        let mut others: Vec<u32> = both.map(|step| self.population.around(user, step)).collect();
        others.retain(|&other| other != user && self.population.contact_index(user, other).is_none());
        // In a small circle the two sides meet.
        others.sort_unstable();
        others.dedup();
        others
    }

    /// Groups whose members change, by the members that each begins with; the first is its owner.
    pub fn changing_groups(&self) -> Vec<Vec<u32>> {
        let count = (self.users() / limits::USERS_OF_A_CHANGING_GROUP).max(1);
        let group = |at: u32| {
            let first = at * limits::USERS_OF_A_CHANGING_GROUP;
            let size = limits::CHANGING_GROUP_BEGINS_WITH.min(self.users());
            (first..first + size).map(|place| self.population.at(place)).collect()
        };
        (0..count).map(group).collect()
    }

    /// Contacts that the user asks when the run is set up; the others ask the user.
    pub fn asks_first(&self, user: u32) -> Vec<u32> {
        let contacts = self.population.contacts();
        if contacts == 1 {
            let other = self.population.contact(user, 0);
            return if user < other { vec![other] } else { Vec::new() };
        }
        (0..contacts / 2).map(|n| self.population.contact(user, n)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto_wire::phone::PhoneConfig;
    use proto_wire_token::IssuerKey;

    fn people(users: u32, devices: u32) -> People {
        let who = Identities::new(Arc::new(IssuerKey::generate()), 7, 1, PhoneConfig::default());
        People::new(who, Arc::new(Population::new(users, 3)), devices)
    }

    #[test]
    fn every_tenth_user_has_more_devices() {
        let people = people(25, 3);
        assert_eq!(people.lines(), 25 + 3 * 2);
        let others: Vec<_> = (25..31).map(|line| people.of_line(line)).collect();
        assert_eq!(others, [(0, 1), (0, 2), (10, 1), (10, 2), (20, 1), (20, 2)]);
        assert_eq!(people.of_line(24), (24, 0));
        let ids: std::collections::BTreeSet<u64> =
            (0..people.lines()).map(|line| people.machine(line).device()).collect();
        assert_eq!(ids.len(), 31, "each device has a number of its own");
        assert_eq!(self::people(25, 1).lines(), 25);
    }

    #[test]
    fn each_pair_of_contacts_is_asked_once_and_strangers_are_none() {
        for users in [2, 3, 9, 40] {
            let people = people(users, 2);
            let mut pairs = std::collections::BTreeSet::new();
            for user in 0..users {
                for other in people.asks_first(user) {
                    assert!(pairs.insert((user.min(other), user.max(other))), "{user} and {other} twice");
                }
                assert!(people.strangers(user).iter().all(|&other| other < users && other != user));
            }
            assert_eq!(pairs.len() as u32 * 2, users * people.population.contacts());
        }
        assert!(!people(40, 2).strangers(0).is_empty());
    }

    #[test]
    fn changing_groups_have_distinct_members() {
        for users in [2, 8, 100] {
            for group in people(users, 2).changing_groups() {
                let distinct: std::collections::BTreeSet<_> = group.iter().collect();
                assert!(!group.is_empty() && distinct.len() == group.len(), "{group:?}");
            }
        }
    }
}
