//! A disk without room, and users whose logs cannot be read.

use proto_wire::status::Code;

use super::World;

#[test]
fn a_full_disk_refuses_writes_delivers_what_was_taken_and_comes_back_by_itself() {
    let mut world = World::new(1, 1 << 20);
    // Users whose tails are known: others are asked for once more when they are.
    let first = world.send(1, 2, [0; 10], "first");
    world.run();
    world.sent(first);
    let before = world.send(1, 2, [1; 10], "before");
    world.turn();
    world.store.set_full(true);
    world.core.set_full(true);
    world.run();
    world.sent(before);
    assert_eq!(world.log(2, 100).len(), 2, "what was acknowledged is delivered");
    let refused = world.send(1, 2, [2; 10], "too late");
    world.run();
    let status = world.error(refused);
    assert_eq!(status.code, Code::NoRoom);
    assert!(status.text.contains("disk is full") && status.retry_after_ms > 0, "{status:?}");
    assert!(status.code.is_safe_to_retry());
    assert_eq!(world.log(2, 100).len(), 2, "reads go on, and nothing was applied");
    world.store.set_full(false);
    world.core.set_full(false);
    let again = world.send(1, 2, [2; 10], "too late");
    world.run();
    world.sent(again);
    assert_eq!(world.log(2, 100).len(), 3);
    let told: Vec<_> = world.logs.iter().filter(|line| line.contains("the disk")).collect();
    assert_eq!(told.len(), 2, "once for each: {told:?}");
}

#[test]
fn while_the_store_does_not_keep_pace_new_writes_are_refused_and_nothing_else() {
    let mut world = World::new(1, 1 << 20);
    // Users whose tails are known, as above.
    let first = world.send(1, 2, [0; 10], "first");
    world.run();
    world.sent(first);
    let before = world.send(1, 2, [9; 10], "before");
    world.turn();
    world.core.set_behind(true);
    world.run();
    world.sent(before);
    let refused = world.send(1, 2, [1; 10], "second");
    world.run();
    let status = world.error(refused);
    assert!(status.code == Code::Overloaded && status.retry_after_ms > 0, "{status:?}");
    assert_eq!(world.log(2, 100).len(), 2, "reads go on, and what was taken is delivered");
    world.core.set_behind(false);
    let again = world.send(1, 2, [1; 10], "second");
    world.run();
    world.sent(again);
    assert_eq!(world.log(2, 100).len(), 3);
}
