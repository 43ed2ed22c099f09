use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::measure::{Arrival, Arrivals};
use crate::workload::Schedule;

const RUN: u32 = 77;

/// A made-up system: phones send, every log is right, until a fault is planted.
struct World {
    population: Arc<Population>,
    /// In the order of each receiver's log.
    logs: Vec<Vec<Delivery>>,
    sent: Vec<(u32, Destination, u64)>,
}

impl World {
    fn new(phones: u32, messages: usize, seed: u64) -> World {
        let population = Arc::new(Population::new(phones, seed));
        let arrivals = Arrivals::new(Arrival::Poisson, 1e4, 0, u64::MAX / 2, seed);
        let mut schedule = Schedule::new(population.clone(), 0..phones, arrivals, seed);
        let mut items = vec![0u64; phones as usize];
        let mut numbers = vec![0u64; population.groups().len()];
        let mut world = World { logs: vec![Vec::new(); phones as usize], sent: Vec::new(), population };
        for id in 0..messages as u32 {
            let start = schedule.pop(u64::MAX).expect("an endless schedule");
            let sender = start.sender;
            items[sender as usize] += 1;
            let item = items[sender as usize];
            let text = Text { run: RUN, sender, id, intended_us: start.intended_us };
            let mut delivery = Delivery {
                receiver: sender,
                origin: Some(sender),
                item,
                text,
                to: Some(start.to),
                group_number: 0,
            };
            world.sent.push((sender, start.to, item));
            world.logs[sender as usize].push(delivery);
            match start.to {
                Destination::Phone(phone) => {
                    delivery.receiver = phone;
                    world.logs[phone as usize].push(delivery);
                }
                Destination::Group(group) => {
                    numbers[group as usize] += 1;
                    delivery.group_number = numbers[group as usize];
                    for &member in &world.population.groups()[group as usize].members {
                        delivery.receiver = member;
                        world.logs[member as usize].push(delivery);
                    }
                }
            }
        }
        world
    }

    /// What the checker says of it when logs are read in some interleaving.
    fn check(&self, seed: u64) -> Verdict {
        let mut random = StdRng::seed_from_u64(seed);
        let mut checker = Checker::new(self.population.clone(), RUN);
        for (id, &(sender, to, _)) in self.sent.iter().enumerate() {
            checker.sent(id as u32, sender, to);
        }
        let mut at = vec![0; self.logs.len()];
        let mut left: usize = self.logs.iter().map(Vec::len).sum();
        let mut unacknowledged: Vec<usize> = (0..self.sent.len()).collect();
        while left > 0 || !unacknowledged.is_empty() {
            if !unacknowledged.is_empty() && (left == 0 || random.random_bool(0.3)) {
                let id = unacknowledged.swap_remove(random.random_range(0..unacknowledged.len()));
                checker.acknowledged(id as u32, self.sent[id].2);
            }
            let phone = random.random_range(0..self.logs.len());
            if let Some(delivery) = self.logs[phone].get(at[phone]) {
                checker.delivered(delivery);
                at[phone] += 1;
                left -= 1;
            }
        }
        let outstanding = checker.outstanding();
        let verdict = checker.finish();
        assert_eq!((outstanding.deliveries, outstanding.own), (verdict.missing, verdict.own_missing));
        verdict
    }

    /// Where a copy for another than its sender stands, to a group or not.
    fn find(&self, to_group: bool) -> (usize, usize) {
        for (phone, log) in self.logs.iter().enumerate() {
            for (at, delivery) in log.iter().enumerate() {
                let is_group = matches!(delivery.to, Some(Destination::Group(_)));
                if is_group == to_group && delivery.text.sender != phone as u32 {
                    return (phone, at);
                }
            }
        }
        panic!("no such delivery in this world");
    }

    /// Two copies in one log from the same stream, neither of them the reader's own.
    fn find_pair(&self, to_group: bool) -> (usize, usize, usize) {
        for (phone, log) in self.logs.iter().enumerate() {
            for (first, one) in log.iter().enumerate() {
                for (second, other) in log.iter().enumerate().skip(first + 1) {
                    let is_group = matches!(one.to, Some(Destination::Group(_)));
                    let foreign = one.text.sender != phone as u32 && other.text.sender != phone as u32;
                    let one_stream = one.to == other.to && (to_group || one.origin == other.origin);
                    if is_group == to_group && foreign && one_stream {
                        return (phone, first, second);
                    }
                }
            }
        }
        panic!("no such pair in this world");
    }
}

proptest! {
    #[test]
    fn a_right_world_is_good_in_any_interleaving(phones in 2u32..60, messages in 1usize..400, seed: u64) {
        let world = World::new(phones, messages, seed);
        let verdict = world.check(seed ^ 1);
        prop_assert!(verdict.is_good(), "{:?}", verdict.complaints);
        prop_assert_eq!(verdict.counts.acknowledged, messages as u64);
        let copies: usize = world.logs.iter().map(Vec::len).sum();
        let to_groups = world.sent.iter().filter(|sent| matches!(sent.1, Destination::Group(_))).count();
        // A sender's log holds its message to a group twice: without and with the group's number.
        prop_assert_eq!((verdict.counts.delivered + verdict.counts.own) as usize, copies - to_groups);
    }

    #[test]
    fn a_lost_copy_is_missing(seed: u64, to_group: bool) {
        let mut world = World::new(40, 500, seed);
        let (phone, at) = world.find(to_group);
        world.logs[phone].remove(at);
        let verdict = world.check(seed);
        prop_assert_eq!(verdict.missing, 1, "{:?}", verdict.complaints);
        prop_assert!(verdict.complaints[0].contains(&format!("[{phone}]")), "{:?}", verdict.complaints);
        prop_assert!(!verdict.is_good());
    }

    #[test]
    fn a_copy_under_a_second_number_is_a_duplicate(seed: u64, to_group: bool) {
        let mut world = World::new(40, 500, seed);
        let (phone, at) = world.find(to_group);
        let again = world.logs[phone][at];
        world.logs[phone].push(again);
        let verdict = world.check(seed);
        prop_assert_eq!((verdict.counts.duplicates, verdict.missing), (1, 0), "{:?}", verdict.complaints);
        prop_assert!(!verdict.is_good());
    }

    #[test]
    fn an_upload_that_was_applied_twice_is_a_duplicate(seed: u64, to_group: bool) {
        let mut world = World::new(40, 500, seed);
        let (phone, at) = world.find(to_group);
        let mut again = world.logs[phone][at];
        again.item += 1_000;
        again.group_number += if to_group { 1_000 } else { 0 };
        world.logs[phone].push(again);
        let verdict = world.check(seed);
        prop_assert_eq!(verdict.counts.duplicates, 1, "{:?}", verdict.complaints);
    }

    #[test]
    fn swapped_copies_are_out_of_order(seed: u64, to_group: bool) {
        let mut world = World::new(12, 600, seed);
        let (phone, first, second) = world.find_pair(to_group);
        world.logs[phone].swap(first, second);
        let verdict = world.check(seed);
        prop_assert!(verdict.counts.out_of_order > 0, "{:?}", verdict.complaints);
        prop_assert_eq!((verdict.missing, verdict.counts.duplicates), (0, 0));
    }

    #[test]
    fn members_that_number_two_messages_differently_disagree(seed: u64) {
        let mut world = World::new(12, 600, seed);
        let (phone, first, second) = world.find_pair(true);
        let number = world.logs[phone][first].group_number;
        world.logs[phone][first].group_number = world.logs[phone][second].group_number;
        world.logs[phone][second].group_number = number;
        world.logs[phone].swap(first, second);
        let verdict = world.check(seed);
        prop_assert!(verdict.counts.disagreements > 0, "{:?}", verdict.complaints);
    }
}

#[test]
fn an_unacknowledged_message_may_be_missing_and_may_arrive_but_once() {
    let population = Arc::new(Population::new(2, 1));
    let mut checker = Checker::new(population, RUN);
    let delivery = |id| Delivery {
        receiver: 1,
        origin: Some(0),
        item: u64::from(id) + 1,
        text: Text { run: RUN, sender: 0, id, intended_us: 0 },
        to: Some(Destination::Phone(1)),
        group_number: 0,
    };
    for id in 0..3 {
        checker.sent(id, 0, Destination::Phone(1));
    }
    checker.delivered(&delivery(0));
    checker.delivered(&delivery(2));
    checker.delivered(&delivery(2));
    let verdict = checker.finish();
    assert_eq!((verdict.missing, verdict.unacknowledged, verdict.counts.delivered), (0, 3, 2));
    assert_eq!(verdict.counts.duplicates, 1);
}

#[test]
fn what_does_not_belong_is_told() {
    let population = Arc::new(Population::new(3, 1));
    let mut checker = Checker::new(population, RUN);
    checker.sent(0, 0, Destination::Phone(1));
    let right = Delivery {
        receiver: 1,
        origin: Some(0),
        item: 1,
        text: Text { run: RUN, sender: 0, id: 0, intended_us: 0 },
        to: Some(Destination::Phone(1)),
        group_number: 0,
    };
    let wrong = [
        Delivery { receiver: 2, ..right },
        Delivery { origin: Some(2), ..right },
        Delivery { origin: None, ..right },
        Delivery { to: Some(Destination::Phone(2)), ..right },
        Delivery { text: Text { run: RUN + 1, ..right.text }, ..right },
        Delivery { text: Text { id: 9, ..right.text }, ..right },
    ];
    assert!(wrong.iter().all(|delivery| !checker.delivered(delivery)));
    assert!(checker.delivered(&right));
    checker.acknowledged(0, 7);
    let verdict = checker.finish();
    assert_eq!(verdict.counts.misdelivered, wrong.len() as u64 + 1, "the acknowledged number differs too");
    assert_eq!(verdict.counts.delivered, 1);
}

#[test]
fn a_phase_counts_its_own_messages() {
    let population = Arc::new(Population::new(2, 1));
    let mut checker = Checker::new(population, RUN);
    checker.sent(0, 0, Destination::Phone(1));
    checker.begin_phase(1);
    checker.acknowledged(0, 1);
    checker.sent(1, 0, Destination::Phone(1));
    checker.acknowledged(1, 2);
    assert_eq!((checker.phase().sent, checker.phase().acknowledged), (1, 1));
    assert_eq!((checker.counts().sent, checker.counts().acknowledged), (2, 2));
    assert_eq!(checker.outstanding(), Outstanding { acknowledgements: 0, deliveries: 2, own: 2 });
}
