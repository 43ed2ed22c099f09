//! Pages: collapse, bounds, snapshots, broken chains.

use proptest::prelude::*;
use proto_wire::pb;
use proto_wire::status::Code;

use super::{World, text};
use crate::logic::keys;

fn id(index: u64) -> [u8; 10] {
    let mut id = [0; 10];
    id[..8].copy_from_slice(&index.to_be_bytes());
    id
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// The reference: all rows of the log in order, and of each item only the last.
    #[test]
    fn pages_of_any_size_give_the_collapsed_log(to_group: Vec<bool>, max_changes in 0u32..20, hot: bool, restart: bool) {
        let mut world = World::new(1, if hot { 1 << 20 } else { 0 });
        let group = world.create_group(1, [9; 10], &[2, 3]);
        let mut expected = Vec::new();
        let mut number = 1; // the group's state
        for (index, to_group) in to_group.iter().enumerate() {
            let token = world.send(1, if *to_group { group } else { 2 }, id(index as u64), &index.to_string());
            world.run();
            number += 1;
            prop_assert_eq!(world.sent(token).number.unwrap().number, number);
            let item = number;
            // The group's number comes as a later version of the same item.
            number += u64::from(*to_group);
            expected.push((number, item, 1 + u64::from(*to_group), index.to_string()));
        }
        if restart {
            world.crash();
            world.run();
        }
        let log = world.log(1, max_changes);
        let found: Vec<_> = log[1..].iter().map(|c| (c.number, c.item.unwrap().number, c.version, text(c).to_owned())).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn a_cursor_in_the_middle_gets_the_rest(count in 1u64..40, at in 0u64..40, hot: bool) {
        let at = at.min(count);
        let mut world = World::new(1, if hot { 1 << 20 } else { 0 });
        for index in 0..count {
            world.send(1, 2, id(index), &index.to_string());
        }
        world.run();
        let cursor = Some(pb::Cursor { log_epoch: 1, number: at });
        let page = world.pull(2, pb::PullRequest { cursor, ..Default::default() }).unwrap();
        prop_assert_eq!((page.after, page.upto, page.more), (at, count, false));
        let texts: Vec<_> = page.changes.iter().map(text).map(str::to_owned).collect();
        prop_assert_eq!(texts, (at..count).map(|index| index.to_string()).collect::<Vec<_>>());
    }
}

#[test]
fn a_cursor_of_another_log_gets_a_snapshot_that_can_be_taken_up_again() {
    let mut world = World::new(1, 1 << 20);
    for index in 0..10 {
        world.send(1, 2, id(index), &index.to_string());
    }
    world.run();
    for cursor in [pb::Cursor { log_epoch: 7, number: 3 }, pb::Cursor { log_epoch: 1, number: 99 }] {
        let mut request = pb::PullRequest { cursor: Some(cursor), max_changes: 4, ..Default::default() };
        let mut texts = Vec::new();
        let last = loop {
            let page = world.pull(2, request.clone()).unwrap();
            assert!(page.snapshot);
            texts.extend(page.changes.iter().map(|change| text(change).to_owned()));
            assert_eq!(page.more, !page.snapshot_next.is_empty());
            if !page.more {
                break page.upto;
            }
            request.snapshot_at = page.snapshot_next;
        };
        assert_eq!(last, 10);
        assert_eq!(texts, (0..10).map(|index| index.to_string()).collect::<Vec<_>>());
    }
}

#[test]
fn a_hole_in_a_log_is_an_error_that_names_the_user() {
    for lost in [1, 3, 5] {
        let mut world = World::new(1, 0);
        for index in 0..5 {
            world.send(1, 2, id(index), "x");
        }
        world.run();
        assert!(world.store.damage(&keys::row(2, lost)));
        let status = world.pull(2, pb::PullRequest::default()).expect_err("a row is gone");
        assert_eq!(status.code, Code::Internal);
        assert!(status.text.contains("user 2"), "{status}");
        assert_eq!(world.core.counters().broken_chains, 1);
    }
}

#[test]
fn a_page_is_cut_by_bytes_and_the_next_goes_on() {
    let mut world = World::new(1, 0);
    let long = "x".repeat(8 * 1024);
    for index in 0..20 {
        world.send(1, 2, id(index), &long);
    }
    world.run();
    let page = world.pull(2, pb::PullRequest::default()).unwrap();
    assert!(page.more && page.changes.len() < 20 && !page.changes.is_empty());
    assert_eq!(world.log(2, 0).len(), 20);
}

#[test]
fn a_sync_right_after_the_write_reads_no_disk() {
    let mut world = World::new(1, 1 << 20);
    let group = world.create_group(1, [9; 10], &[2, 3]);
    world.send(1, group, id(1), "a");
    world.send(1, 2, id(2), "b");
    world.run();
    assert_eq!(world.log(2, 0).len(), 3);
    assert_eq!(world.core.counters().pages, world.core.counters().pages_from_memory);
}
