//! Who knows whom. Each phone has a few contacts, so that conversations repeat and their order can be checked,
//! and is in one group of each size.

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

/// The sizes of groups.
pub const GROUP_SIZES: [u32; 3] = [5, 50, 200];

/// Contacts of a phone: as many neighbours to each side in a shuffled circle.
const NEIGHBOURS: u32 = 4;

/// No group of that size.
const NONE: u32 = u32::MAX;

/// The phones of a run, their contacts and groups.
#[derive(Debug)]
pub struct Population {
    /// The circle, and where each phone stands in it.
    circle: Vec<u32>,
    place: Vec<u32>,
    groups: Vec<Group>,
    /// For each phone its group of each size.
    group_of: Vec<[u32; GROUP_SIZES.len()]>,
    neighbours: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Sorted. With fewer phones than a size has, a group has all of them.
    pub members: Vec<u32>,
    pub owner: u32,
}

impl Population {
    /// `phones` is at least 2.
    pub fn new(phones: u32, seed: u64) -> Self {
        Self::with_neighbours(phones, NEIGHBOURS, seed)
    }

    /// With so many contacts to each side at most.
    pub fn with_neighbours(phones: u32, neighbours: u32, seed: u64) -> Self {
        assert!(phones >= 2, "a conversation has two ends");
        let mut random = StdRng::seed_from_u64(seed);
        let mut circle: Vec<u32> = (0..phones).collect();
        circle.shuffle(&mut random);
        let mut place = vec![0; phones as usize];
        for (at, &phone) in circle.iter().enumerate() {
            place[phone as usize] = at as u32;
        }
        let mut groups = Vec::new();
        let mut group_of = vec![[NONE; GROUP_SIZES.len()]; phones as usize];
        for (class, &size) in GROUP_SIZES.iter().enumerate() {
            let mut order: Vec<u32> = (0..phones).collect();
            order.shuffle(&mut random);
            for members in order.chunks_exact(size.min(phones) as usize) {
                for &member in members {
                    group_of[member as usize][class] = groups.len() as u32;
                }
                let owner = members[0];
                let mut members = members.to_vec();
                members.sort_unstable();
                groups.push(Group { members, owner });
            }
        }
        // In a small circle the two sides must not meet.
        let neighbours = neighbours.min((phones - 1) / 2);
        Self { circle, place, groups, group_of, neighbours }
    }

    pub fn phones(&self) -> u32 {
        self.circle.len() as u32
    }

    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The group of the size class that a phone is in.
    pub fn group_of(&self, phone: u32, class: usize) -> Option<u32> {
        let group = self.group_of[phone as usize][class];
        (group != NONE).then_some(group)
    }

    /// How many contacts each phone has.
    pub fn contacts(&self) -> u32 {
        (2 * self.neighbours).max(1)
    }

    /// Contact `n` of a phone, below [`Population::contacts`].
    pub fn contact(&self, phone: u32, n: u32) -> u32 {
        let phones = self.phones();
        let step = if n < self.neighbours.max(1) { n + 1 } else { phones - (n - self.neighbours + 1) };
        self.circle[((self.place[phone as usize] + step) % phones) as usize]
    }

    /// The phone that stands so many steps further in the circle, or back.
    pub fn around(&self, phone: u32, steps: i64) -> u32 {
        let place = i64::from(self.place[phone as usize]) + steps;
        self.circle[place.rem_euclid(i64::from(self.phones())) as usize]
    }

    /// The phone at a place of the circle.
    pub fn at(&self, place: u32) -> u32 {
        self.circle[(place % self.phones()) as usize]
    }

    /// Which contact of `phone` the other is; the relation goes both ways.
    pub fn contact_index(&self, phone: u32, other: u32) -> Option<u32> {
        let phones = self.phones();
        let step = (self.place[other as usize] + phones - self.place[phone as usize]) % phones;
        if self.neighbours == 0 {
            return (step == 1).then_some(0);
        }
        if (1..=self.neighbours).contains(&step) {
            Some(step - 1)
        } else if step != 0 && phones - step <= self.neighbours {
            Some(self.neighbours + (phones - step) - 1)
        } else {
            None
        }
    }
}

impl Group {
    /// Where a member stands among the members.
    pub fn index_of(&self, phone: u32) -> Option<usize> {
        self.members.binary_search(&phone).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn contacts_are_others_and_each_has_one_place(phones in 2u32..300, seed: u64) {
            let population = Population::new(phones, seed);
            for phone in 0..phones {
                let mut seen = std::collections::BTreeSet::new();
                for n in 0..population.contacts() {
                    let other = population.contact(phone, n);
                    prop_assert!(other != phone && other < phones);
                    prop_assert!(seen.insert(other), "two contacts are one");
                    prop_assert_eq!(population.contact_index(phone, other), Some(n));
                    prop_assert!(population.contact_index(other, phone).is_some(), "one way only");
                }
            }
        }

        #[test]
        fn groups_have_their_size_and_distinct_members(phones in 2u32..900, seed: u64) {
            let population = Population::new(phones, seed);
            for group in population.groups() {
                prop_assert!(group.members.is_sorted_by(|a, b| a < b));
                prop_assert!(group.index_of(group.owner).is_some());
            }
            for (class, &size) in GROUP_SIZES.iter().enumerate() {
                let in_one = (0..phones).filter(|&phone| population.group_of(phone, class).is_some()).count();
                let size = size.min(phones);
                prop_assert_eq!(in_one as u32, phones / size * size);
            }
        }
    }

    #[test]
    fn one_seed_is_one_population() {
        let (one, two) = (Population::new(1000, 7), Population::new(1000, 7));
        assert_eq!((&one.circle, one.groups()), (&two.circle, two.groups()));
        assert_ne!(one.circle, Population::new(1000, 8).circle);
        assert_eq!(one.groups().len(), 200 + 20 + 5);
    }
}
