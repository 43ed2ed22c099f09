//! A log behind its horizon: the state of items stays, a phone that is too far behind gets a snapshot.

use std::collections::BTreeMap;

use proto_wire::pb;

use super::World;
use crate::logic::Verb;

const HOUR_MS: u64 = 3600 * 1000;

/// The newest change of each item.
fn state(changes: &[pb::Change]) -> BTreeMap<(u64, u64), pb::Change> {
    let item = |change: &pb::Change| change.item.map(|item| (item.origin, item.number)).expect("an item");
    changes.iter().map(|change| (item(change), change.clone())).collect()
}

/// All pages from a cursor: whether they were a snapshot, and the changes.
fn sync(world: &mut World, user: u64, mut cursor: pb::Cursor, max_changes: u32) -> (bool, Vec<pb::Change>) {
    let (mut changes, mut snapshot_at, mut snapshot) = (Vec::new(), bytes::Bytes::new(), false);
    loop {
        let request = pb::PullRequest { cursor: Some(cursor), max_changes, snapshot_at: snapshot_at.clone() };
        let page = world.pull(user, request).expect("the log can be read");
        assert!(!(page.more && page.changes.is_empty()), "a page with more is never empty");
        snapshot |= page.snapshot;
        changes.extend(page.changes);
        snapshot_at = page.snapshot_next;
        if !page.snapshot {
            cursor = pb::Cursor { log_epoch: page.log_epoch, number: page.upto };
        }
        if !page.more {
            return (snapshot, changes);
        }
    }
}

/// User 1 with 40 messages, ten of them in a group, and a star that is switched 20 times.
fn busy(partitions: u16) -> World {
    let mut world = World::new(partitions, 0);
    let group = world.create_group(1, [255; 10], &[2, 3]);
    for index in 0..40u8 {
        world.send(2, if index % 4 == 0 { group } else { 1 }, [index; 10], &format!("text {index}"));
        if index % 2 == 0 {
            world.upload(1, 1, index, Verb::Star { peer: 2, on: index % 4 == 0 }).expect("a star");
        }
        world.run();
    }
    let token = world.send(1, 2, [99; 10], "taken back");
    world.run();
    let number = world.sent(token).number.expect("a number").number;
    world.upload(1, 1, 98, Verb::Recall { number }).expect("taken back");
    world
}

fn rows(world: &World, user: u64) -> usize {
    let prefix = crate::logic::keys::row(user, 0);
    world.store.rows().filter(|(key, _)| key[..11] == prefix[..11]).count()
}

#[test]
fn behind_the_horizon_the_newest_state_of_each_item_stays_and_a_phone_that_is_behind_gets_a_snapshot() {
    for partitions in [1, 3] {
        let mut world = busy(partitions);
        world.set_horizon(8, 2 * HOUR_MS, 0);
        let before = world.log(1, 7);
        let tail = before.last().expect("changes").number;
        let many = rows(&world, 1);
        world.pass(HOUR_MS);
        assert_eq!(rows(&world, 1), many, "nothing is old enough");
        world.pass(5 * HOUR_MS);
        assert!(rows(&world, 1) < many - 10, "{} of {many} rows are left", rows(&world, 1));
        assert!(world.core.counters().rows_swept > 0);
        let fresh = sync(&mut world, 1, pb::Cursor::default(), 5);
        assert_eq!(state(&fresh.1), state(&before));
        assert!(fresh.0, "a phone with nothing is behind too");
        let behind = pb::Cursor { log_epoch: 1, number: 3 };
        let late = sync(&mut world, 1, behind, 5);
        assert!(late.0);
        assert_eq!(state(&late.1), state(&before));
        // The newest eight stay as written: a phone that has all before them gets them from the log.
        let near = sync(&mut world, 1, pb::Cursor { log_epoch: 1, number: tail - 8 }, 3);
        assert!(!near.0);
        assert!(near.1.iter().all(|change| change.number > tail - 8));
        // Life goes on, also after a restart.
        world.crash();
        world.run();
        let token = world.send(2, 1, [200; 10], "after");
        world.run();
        world.sent(token);
        assert_eq!(sync(&mut world, 1, pb::Cursor { log_epoch: 1, number: tail }, 3).1.len(), 1);
        assert_eq!(state(&world.log_of(1)).len(), state(&before).len() + 1);
    }
}

#[test]
fn what_was_said_goes_after_its_time_and_what_is_kept_stays() {
    let mut world = busy(1);
    world.set_horizon(4, 2 * HOUR_MS, 3 * HOUR_MS);
    let before = state(&world.log(1, 0));
    world.pass(9 * HOUR_MS);
    let after = state(&world.log_of(1));
    let kept = |change: &&pb::Change| {
        matches!(change.body, Some(pb::change::Body::Peer(_) | pb::change::Body::Group(_)))
    };
    assert_eq!(before.values().filter(kept).count(), after.values().filter(kept).count());
    let said = |change: &&pb::Change| matches!(change.body, Some(pb::change::Body::Message(_)));
    let left = after.values().filter(said).count();
    assert!(left <= 4, "{left} messages are left of {}", before.values().filter(said).count());
}

impl World {
    fn set_horizon(&mut self, rows: u64, age_ms: u64, keep_ms: u64) {
        self.horizon = (rows, age_ms, keep_ms);
        self.crash();
        self.run();
    }

    fn log_of(&mut self, user: u64) -> Vec<pb::Change> {
        sync(self, user, pb::Cursor::default(), 0).1
    }
}
