//! Commits and reads that fail, and the process goes on: memory must be as the disk is, and nothing may be lost,
//! doubled, reordered or left waiting.

use proto_wire::names::section_of;
use proto_wire::pb;
use proto_wire::status::Code;

use super::{World, text};
use crate::logic::{Answer, Verb};
use crate::storage::partition_of;

impl World {
    fn make_contacts(&mut self, a: u64, b: u64) {
        self.upload(a, 1, b as u8, Verb::Ask { peer: b, hello: String::new() }).expect("asked");
        self.upload(b, 1, 100 + a as u8, Verb::Accept { peer: a }).expect("accepted");
    }

    fn start_publish(&mut self, author: u64, id: u8) -> u64 {
        let post = pb::Post { text: "sunrise".into(), ..Default::default() };
        self.start_upload(author, 1, id, Verb::Publish { post })
    }

    fn references(&mut self, user: u64) -> usize {
        let changes = self.log(user, 0);
        changes.iter().filter(|change| matches!(change.body, Some(pb::change::Body::PostRef(_)))).count()
    }
}

/// A page of contacts lies in several partitions. One of them fails, then another commits.
#[test]
fn a_commit_that_fails_at_any_step_tells_each_contact_of_a_moment_once() {
    for partitions in 1..=3 {
        for failing in 0..partitions {
            for steps in 0..24 {
                let mut world = World::new(partitions, 0);
                for friend in 2..=6 {
                    world.make_contacts(1, friend);
                }
                let token = world.start_publish(1, 50);
                for step in 0..steps {
                    world.turn();
                    while (0..partitions).any(|partition| world.store.answer(partition)) {}
                    world.turn();
                    world.store.commit(step % partitions);
                }
                world.turn();
                world.store.fail(failing);
                world.turn();
                world.run();
                world.pass(2_000);
                let applied = usize::from(world.answers.remove(&token).expect("an answer").is_ok());
                for friend in 2..=6 {
                    assert_eq!(
                        world.references(friend),
                        applied,
                        "{friend} of {partitions}, {failing} failed after {steps} steps"
                    );
                }
                assert_eq!(world.core.counters().duties, 0);
            }
        }
    }
}

/// The tail of one contact cannot be read for so long that another leaves memory meanwhile.
#[test]
fn a_contact_that_left_memory_while_another_was_read_keeps_its_log() {
    let partition = |user: u64| partition_of(section_of(user), 3);
    let apart =
        |from: u64| (from..).find(|user| partition(*user) != partition(from)).expect("sections differ");
    let (author, late) = (1, apart(1));
    let early = (2..).find(|user| partition(*user) == partition(author) && *user != late).expect("one");
    let mut world = World::new(3, 0);
    for friend in [early, late] {
        world.make_contacts(author, friend);
    }
    let before = world.log(early, 0);
    world.crash();
    world.run();
    world.store.set_unreadable(partition(late), true);
    let token = world.start_publish(author, 50);
    for _ in 0..15 * 60 * 2 {
        world.at.now_ms += 500;
        world.at.unix_ms += 500;
        world.core.handle_timeout(world.at);
        for _ in 0..8 {
            world.turn();
            world.store.run();
        }
    }
    world.sent(token);
    assert_eq!(world.core.counters().set_aside, 1);
    world.store.set_unreadable(partition(late), false);
    world.rest();
    let after = world.log(early, 0);
    assert_eq!(after.len(), before.len() + 1);
    assert_eq!(after[..before.len()], before);
    assert_eq!((world.references(early), world.references(late)), (1, 1));
}

/// The first is on its way to the disk, what follows waits until a record is read; then the first fails.
#[test]
fn a_duty_that_failed_comes_before_those_that_wait_for_records() {
    let mut world = World::new(1, 0);
    // Both users are in memory, and what the sender keeps; what the receiver keeps is not.
    for user in [1, 2] {
        world.upload(user, 1, 1, Verb::Star { peer: 9, on: true }).expect("a star");
    }
    world.upload(2, 1, 2, Verb::Remove { peer: 1 }).expect_err("there is nothing to end");
    let mut tokens = Vec::new();
    world.at.unix_ms += 1;
    tokens.push(world.send(2, 1, [3; 10], "first"));
    world.at.unix_ms += 1;
    tokens.push(world.start_upload(2, 1, 4, Verb::Ask { peer: 1, hello: String::new() }));
    world.at.unix_ms += 1;
    tokens.push(world.send(2, 1, [5; 10], "second"));
    world.turn();
    world.store.commit(0);
    world.turn();
    world.turn();
    world.store.fail(0);
    world.run();
    for token in tokens {
        world.sent(token);
    }
    let log = world.log(1, 0);
    let texts: Vec<&str> = log.iter().map(text).filter(|text| !text.is_empty()).collect();
    assert_eq!(texts, ["first", "second"]);
    assert_eq!(world.core.counters().duties, 0);
}

/// What is kept of groups lies behind what is kept of users; the highest id has none behind it.
#[test]
fn a_mark_in_the_last_conversation_there_can_be_stops_no_moment() {
    let mut world = World::new(1, 0);
    world.make_contacts(1, 2);
    world.mark(1, pb::MarkRequest { peer: u64::MAX, read: 1, ..Default::default() }).expect("marked");
    let token = world.start_publish(1, 50);
    world.run();
    world.sent(token);
    assert_eq!(world.references(2), 1);
}

/// A reader asks for what its author is just publishing.
#[test]
fn a_read_that_ends_after_a_write_began_does_not_hide_what_is_written() {
    let mut world = World::new(1, 0);
    world.make_contacts(1, 2);
    let post = world.log(1, 0).last().expect("a change").number + 1;
    let ask = |world: &mut World| {
        let token = world.token();
        world.core.moment(token, 2, &pb::GetMomentRequest { author: 1, post, ..Default::default() });
        token
    };
    let early = ask(&mut world);
    world.turn();
    world.at.unix_ms += 1;
    let published = world.start_publish(1, 50);
    world.turn();
    assert!(world.store.answer(0), "the reader's");
    world.run();
    assert_eq!(world.sent(published).number.expect("a number").number, post);
    assert_eq!(world.error(early).code, Code::NotFound);
    let late = ask(&mut world);
    world.run();
    assert!(matches!(world.answers.remove(&late), Some(Ok(Answer::Moment(_)))));
}

/// What is not on disk yet is neither acknowledged nor shown.
#[test]
fn a_mark_that_is_repeated_and_a_profile_that_is_read_wait_for_the_commit_on_its_way() {
    let mut world = World::new(1, 0);
    world.upload(1, 1, 1, Verb::Star { peer: 2, on: true }).expect("a star");
    let mark = |world: &mut World, read| {
        let token = world.token();
        world.core.mark(world.at, token, 1, 1, &pb::MarkRequest { peer: 2, read, ..Default::default() });
        token
    };
    let (first, repeat) = (mark(&mut world, 1), mark(&mut world, 1));
    world.turn();
    assert!(!world.answers.contains_key(&first) && !world.answers.contains_key(&repeat));
    world.store.fail(0);
    world.run();
    for token in [first, repeat] {
        assert_eq!(world.error(token).code, Code::Unavailable);
    }
    let again = mark(&mut world, 1);
    world.run();
    assert_eq!(world.answers.remove(&again), Some(Ok(Answer::Done)));

    let named =
        |nick: &str| Verb::SetProfile { profile: pb::Profile { nick: nick.into(), ..Default::default() } };
    world.upload(1, 1, 2, named("before")).expect("set");
    world.at.unix_ms += 1;
    let set = world.start_upload(1, 1, 3, named("after"));
    let read = world.token();
    world.core.profile(read, 1);
    world.turn();
    assert!(!world.answers.contains_key(&read));
    world.store.fail(0);
    world.run();
    assert_eq!(world.error(set).code, Code::Unavailable);
    assert_eq!(world.error(read).code, Code::Unavailable);
}
