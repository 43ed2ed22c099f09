//! A log that cannot be read: everybody else gets what is theirs, and it gets its own, once and in order, when it can be.

use proto_wire::names::section_of;
use proto_wire::pb;
use proto_wire::status::Code;

use super::{World, text};
use crate::logic::{Verb, keys};
use crate::storage::{Batch, ChangeLog as _, partition_of};

/// What a log's last row was before it was damaged.
struct Damage {
    key: Vec<u8>,
    value: Vec<u8>,
}

impl World {
    /// Time passes until nothing waits for the disk any more, also not for what cannot be read again and again.
    pub(super) fn rest(&mut self) {
        for _ in 0..80 {
            self.settle();
            self.at.now_ms += 500;
            self.at.unix_ms += 500;
            self.core.handle_timeout(self.at);
        }
        self.settle();
    }

    /// The store does all that waits. What waits for a log stays.
    fn settle(&mut self) {
        loop {
            self.turn();
            if (0..self.partitions).all(|p| self.store.waiting(p) + self.store.waiting_reads(p) == 0) {
                return;
            }
            self.store.run();
        }
    }

    /// So many times the store does something of what waits.
    fn step(&mut self, steps: u16) {
        for step in 0..steps {
            self.turn();
            match step % 4 {
                0 => drop(self.store.commit(step % self.partitions)),
                1 => drop(self.store.answer(step % self.partitions)),
                2 => while (0..self.partitions).any(|partition| self.store.answer(partition)) {},
                _ => self.store.run(),
            }
        }
    }

    /// Damages the last row of a log; the process dies, since memory would still know it.
    fn break_log(&mut self, user: u64) -> Damage {
        let first = keys::row(user, 0);
        let is_row = |key: &[u8]| key.starts_with(&first[..11]);
        let (key, value) = self.store.rows().filter(|(key, _)| is_row(key)).last().expect("a row");
        let damage = Damage { key: key.to_vec(), value: value.to_vec() };
        self.overwrite(user, &damage.key, b"\xff");
        self.crash();
        damage
    }

    fn mend_log(&mut self, user: u64, damage: &Damage) {
        self.overwrite(user, &damage.key, &damage.value);
    }

    /// Behind the owner's back.
    fn overwrite(&mut self, user: u64, key: &[u8], value: &[u8]) {
        let partition = partition_of(section_of(user), self.partitions);
        let mut batch = Batch::new(0);
        batch.owner_epoch = u64::MAX;
        batch.put(key, value);
        self.store.submit(partition, batch).expect("there is room");
        while self.store.commit(partition) {}
    }

    fn shown(&mut self, user: u64) -> Vec<String> {
        let log = self.log(user, 0);
        log.iter().map(text).filter(|text| !text.is_empty()).map(str::to_owned).collect()
    }

    fn told_of(&mut self, user: u64) -> Vec<u64> {
        let log = self.log(user, 0);
        let is_reference = |change: &&pb::Change| matches!(change.body, Some(pb::change::Body::PostRef(_)));
        log.iter().filter(is_reference).filter_map(|change| Some(change.item?.number)).collect()
    }

    /// A message that is acknowledged. Each has an id of its own, and a time.
    fn tell(&mut self, from: u64, to: u64, id: u8) {
        self.at.unix_ms += 1;
        let token = self.send(from, to, [id; 10], &id.to_string());
        self.settle();
        self.sent(token);
    }

    fn publish_one(&mut self, author: u64, id: u8) -> u64 {
        self.at.unix_ms += 1;
        let post = pb::Post { text: "sunrise".into(), ..Default::default() };
        let token = self.start_upload(author, 1, id, Verb::Publish { post });
        self.settle();
        self.sent(token).number.expect("a number").number
    }

    fn contacts_of(&mut self, author: u64, friends: &[u64]) {
        for &friend in friends {
            let ask = Verb::Ask { peer: friend, hello: String::new() };
            self.upload(author, 1, friend as u8, ask).expect("asked");
            self.upload(friend, 1, 100 + author as u8, Verb::Accept { peer: author }).expect("accepted");
        }
    }
}

#[test]
fn a_group_goes_on_without_the_member_whose_log_cannot_be_read() {
    for partitions in [1, 3] {
        let mut world = World::new(partitions, 0);
        let group = world.create_group(1, [9; 10], &[2, 3, 4]);
        let damage = world.break_log(3);
        world.settle();
        world.tell(2, group, 11);
        world.tell(1, group, 12);
        for user in [1, 2, 4] {
            assert_eq!(world.shown(user), ["11", "12"], "user {user} of {partitions}");
        }
        world.rest();
        assert_eq!((world.core.counters().set_aside, world.core.counters().unreadable_logs), (2, 1));
        let named = world.logs.iter().filter(|line| line.contains("the log of user 3 cannot be read"));
        assert_eq!(named.count(), 1, "told by name, once: {:?}", world.logs);
        let token = world.token();
        world.core.pull(world.at, token, 3, 1, &pb::PullRequest::default());
        world.settle();
        assert_eq!(world.error(token).code, Code::Internal, "a call is answered at once");
        // Another process finds what was set aside, and goes on with it.
        world.crash();
        world.settle();
        world.tell(4, group, 13);
        world.rest();
        assert_eq!(world.core.counters().set_aside, 3);
        world.mend_log(3, &damage);
        world.rest();
        world.tell(4, group, 14);
        for user in 1..=4 {
            assert_eq!(world.shown(user), ["11", "12", "13", "14"], "user {user} of {partitions}");
        }
        let counters = *world.core.counters();
        assert_eq!((counters.duties, counters.dead_letters), (0, 0));
        assert_eq!((counters.set_aside, counters.unreadable_logs), (0, 0));
    }
}

#[test]
fn an_author_goes_on_without_the_contact_whose_log_cannot_be_read() {
    for partitions in [1, 3] {
        let mut world = World::new(partitions, 0);
        world.contacts_of(1, &[2, 3, 4]);
        let damage = world.break_log(3);
        world.settle();
        let first = world.publish_one(1, 50);
        let second = world.publish_one(1, 51);
        world.at.unix_ms += 1;
        let token = world.start_upload(1, 1, 52, Verb::Withdraw { moment: first });
        world.settle();
        world.sent(token);
        for user in [2, 4] {
            assert_eq!(world.told_of(user), [second], "user {user} of {partitions}");
        }
        world.crash();
        world.rest();
        assert_eq!(world.core.counters().set_aside, 3);
        world.mend_log(3, &damage);
        world.rest();
        let third = world.publish_one(1, 53);
        for user in [2, 3, 4] {
            assert_eq!(world.told_of(user), [second, third], "user {user} of {partitions}");
        }
        assert_eq!((world.core.counters().duties, world.core.counters().dead_letters), (0, 0));
    }
}

/// The process dies while something is set aside, and again while it is landing; the log is mended before the first
/// death, or after it.
#[test]
fn a_crash_at_any_step_gives_each_its_own_once_and_in_order() {
    for steps in 0..48u16 {
        for (partitions, mended_first) in
            (1..=3).flat_map(|partitions| [(partitions, false), (partitions, true)])
        {
            let mut world = World::new(partitions, 0);
            let group = world.create_group(1, [9; 10], &[2, 3, 4]);
            world.contacts_of(1, &[2, 3, 4]);
            let damage = world.break_log(3);
            world.settle();
            world.tell(2, group, 11);
            world.at.unix_ms += 1;
            world.send(4, group, [12; 10], "12");
            let post = pb::Post { text: "sunrise".into(), ..Default::default() };
            world.start_upload(1, 1, 50, Verb::Publish { post });
            world.step(steps);
            if mended_first {
                world.mend_log(3, &damage);
            }
            world.crash();
            if !mended_first {
                world.rest();
                world.mend_log(3, &damage);
                world.at.now_ms += 60_000;
                world.core.handle_timeout(world.at);
            }
            world.step(steps);
            world.crash();
            world.rest();
            world.answers.clear();
            let counted = (world.shown(3), world.told_of(3));
            for user in [1, 2, 4] {
                assert_eq!(world.shown(user), counted.0, "user {user} after {steps} steps");
            }
            for user in [2, 4] {
                assert_eq!(world.told_of(user), counted.1, "user {user} after {steps} steps");
            }
            assert!(counted.0 == ["11"] || counted.0 == ["11", "12"], "{counted:?} after {steps} steps");
            assert!(counted.1.len() <= 1, "{counted:?} after {steps} steps");
            world.tell(2, group, 13);
            assert_eq!(world.shown(3).last().map(String::as_str), Some("13"));
            assert_eq!((world.core.counters().duties, world.core.counters().dead_letters), (0, 0));
        }
    }
}

#[test]
fn what_waits_for_a_log_for_longer_than_a_week_is_a_dead_letter_with_its_name() {
    let mut world = World::new(3, 0);
    let group = world.create_group(1, [9; 10], &[2, 3]);
    let damage = world.break_log(3);
    world.settle();
    world.tell(2, group, 11);
    world.at.unix_ms += 8 * 24 * 3600 * 1000;
    world.rest();
    assert_eq!((world.core.counters().dead_letters, world.core.counters().duties), (1, 0));
    let named = format!("message 2 of group {group} for user 3");
    assert!(world.logs.iter().any(|line| line.contains(&named)), "{:?}", world.logs);
    assert_eq!(world.store.rows().filter(|(key, _)| key[10] == keys::DEAD).count(), 1);
    world.mend_log(3, &damage);
    world.rest();
    world.tell(2, group, 12);
    assert_eq!((world.shown(2), world.shown(3)), (vec!["11".to_owned(), "12".into()], vec!["12".to_owned()]));
}

/// The process starts while nothing of a partition can be read: what has to do with it waits, all others go on.
#[test]
fn a_start_does_not_wait_for_what_cannot_be_read() {
    let partition = |user: u64| partition_of(section_of(user), 3);
    let others = |than: u64| (1..).filter(move |user| partition(*user) != partition(than));
    let bad = 1;
    let (from, to) = (others(bad).next().expect("one"), others(bad).nth(1).expect("another"));
    let mut world = World::new(3, 0);
    // Both are in memory, so that the duty is on disk at once, and the receiver's side is not.
    world.tell(from, bad, 1);
    world.at.unix_ms += 1;
    let tokens: Vec<u64> = [2u8, 3]
        .map(|id| {
            world.at.unix_ms += 1;
            world.send(from, bad, [id; 10], &id.to_string())
        })
        .into();
    world.turn();
    while world.store.commit(partition(from)) {}
    world.turn();
    tokens.into_iter().for_each(|token| drop(world.sent(token)));
    world.crash();
    world.store.set_unreadable(partition(bad), true);
    world.rest();
    assert!(world.core.is_ready(), "it waits for what cannot be read");
    world.tell(from, to, 4);
    assert_eq!(world.shown(to), ["4"]);
    world.at.unix_ms += 1;
    let refused = world.send(bad, to, [5; 10], "5");
    world.settle();
    assert_eq!(world.error(refused).code, Code::Unavailable, "what it owes is not known");
    world.store.set_unreadable(partition(bad), false);
    world.rest();
    world.tell(from, bad, 6);
    world.tell(bad, to, 7);
    assert_eq!(world.shown(bad), ["1", "2", "3", "6", "7"]);
    assert_eq!(world.shown(to), ["4", "7"]);
    assert_eq!((world.core.counters().duties, world.core.counters().dead_letters), (0, 0));
}
