//! Two processes on one store: the one that opened it later owns it.

use proto_wire::status::Code;

use super::{World, core, text};
use crate::logic::{Answer, Verb, keys};

/// The older one's append is on its way, another gathers and duties wait, when the store is claimed.
#[test]
fn an_older_owners_appends_are_refused_and_nothing_of_them_is_acknowledged() {
    for partitions in 1..=3 {
        let mut world = World::new(partitions, 0);
        let before = world.send(1, 2, [1; 10], "before");
        world.run();
        world.sent(before);
        let mut late: Vec<u64> = (2..6).map(|n| world.send(n.into(), 1, [n; 10], "late")).collect();
        world.turn();
        let owner_epoch = world.store.claim();
        let mut newer = core(9, owner_epoch, partitions, 0, world.horizon);
        late.push(world.start_upload(1, 1, 7, Verb::Star { peer: 2, on: true }));
        world.run();
        for token in late {
            assert_eq!(world.error(token).code, Code::Unavailable);
        }
        let by = world.core.fenced().expect("it was told");
        assert_eq!(by.claimed, by.owner_epoch + 1);
        assert_eq!(world.logs.len(), 1, "said once: {:?}", world.logs);
        assert!(world.logs[0].contains("another process claimed the store"), "{:?}", world.logs);
        // Later calls are refused at once, and time brings nothing of it to the disk.
        let rows: Vec<_> = world.store.rows().map(|(key, _)| key.to_vec()).collect();
        let refused = world.send(1, 2, [8; 10], "too late");
        world.turn();
        assert_eq!(world.error(refused).code, Code::Unavailable);
        world.pass(120_000);
        assert!(world.store.rows().map(|(key, _)| key).eq(rows.iter().map(Vec::as_slice)));

        // The newer one has the store to itself.
        std::mem::swap(&mut world.core, &mut newer);
        world.run();
        let after = world.send(1, 2, [9; 10], "after");
        world.run();
        assert_eq!(world.sent(after).number.expect("a number").number, 2);
        let log = world.log(2, 0);
        assert_eq!(log.iter().map(text).collect::<Vec<_>>(), ["before", "after"]);
        assert!(!world.answers.values().any(|answer| matches!(answer, Ok(Answer::Sent(..)))));
    }
}

/// A recovery, too, writes: one that is overtaken ends, and does not try for ever.
#[test]
fn an_owner_that_is_overtaken_while_it_recovers_stops() {
    let mut world = World::new(1, 0);
    world.send(1, 2, [1; 10], "a duty is left");
    while world.store.waiting(0) == 0 {
        world.turn();
        world.store.answer(0);
    }
    world.store.commit(0);
    world.crash();
    world.store.claim();
    world.run();
    assert!(world.core.fenced().is_some());
    assert!(world.store.rows().any(|(key, _)| keys::owner(key) == Some(1)), "the sender's is there");
    assert!(world.store.rows().all(|(key, _)| keys::owner(key) != Some(2)), "nothing was delivered");
}
