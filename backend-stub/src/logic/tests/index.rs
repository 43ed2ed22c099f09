//! The index of an item's newest version: needed where the later version lies behind what a page reads.

use super::World;
use crate::logic::limits::PAGE_ROWS;

#[test]
fn a_version_that_a_far_later_row_replaced_is_not_in_the_log() {
    let mut world = World::new(1, 0);
    let group = world.create_group(1, [9; 10], &[2, 3]);
    let warm = world.send(1, 2, [8; 10], "the sender's tail is known");
    world.run();
    world.sent(warm);
    let to_group = world.send(1, group, [7; 10], "numbered late");
    // All of them before the group gives its number.
    let between = PAGE_ROWS as u64 + 50;
    let others: Vec<u64> = (0..between)
        .map(|index| {
            let mut id = [0; 10];
            id[..8].copy_from_slice(&index.to_be_bytes());
            world.send(1, 2, id, "between")
        })
        .collect();
    world.run();
    let item = world.sent(to_group).number.expect("a number").number;
    others.into_iter().for_each(|token| drop(world.sent(token)));
    for max_changes in [0, 7] {
        let log = world.log(1, max_changes);
        let versions: Vec<(u64, u64)> = log
            .iter()
            .filter(|change| change.item.is_some_and(|found| found.origin == 1 && found.number == item))
            .map(|change| (change.number, change.version))
            .collect();
        assert_eq!(versions.len(), 1, "{versions:?}");
        assert!(versions[0].0 > item + between && versions[0].1 == 2, "{versions:?}");
    }
}
