//! Who knows whom: both sides agree, whatever crosses on the way.

use proptest::prelude::*;
use proto_wire::pb::{self, Relation};
use proto_wire::status::Code;

use super::{World, text};
use crate::logic::Verb;

fn ask(peer: u64) -> Verb {
    Verb::Ask { peer, hello: "it is me".into() }
}

#[test]
fn a_question_is_answered_and_both_are_contacts_until_one_ends_it() {
    let mut world = World::new(3, 0);
    world.upload(1, 1, 1, ask(2)).expect("asked");
    assert_eq!(world.peer(1, 2).relation(), Relation::Asked);
    let asks = world.peer(2, 1);
    assert_eq!((asks.relation(), asks.hello.as_str()), (Relation::Asks, "it is me"));
    world.upload(2, 1, 1, Verb::Accept { peer: 1 }).expect("accepted");
    assert_eq!(world.peer(1, 2).relation(), Relation::Contact);
    assert_eq!(world.peer(2, 1).relation(), Relation::Contact);
    assert_eq!(world.upload(1, 1, 2, ask(2)).expect_err("they are").code, Code::Exists);
    world.upload(1, 1, 3, Verb::Remark { peer: 2, remark: "the tall one".into() }).expect("a remark");
    world.upload(1, 1, 4, Verb::Star { peer: 2, on: true }).expect("a star");
    world.upload(2, 1, 2, Verb::Remove { peer: 1 }).expect("removed");
    assert_eq!(world.peer(2, 1).relation(), Relation::None);
    let left = world.peer(1, 2);
    assert_eq!(left.relation(), Relation::None);
    assert!(left.starred && left.remark == "the tall one", "what is one's own stays");
    assert_eq!(world.upload(1, 1, 5, Verb::Remove { peer: 2 }).expect_err("no contact").code, Code::NotFound);
    assert_eq!(world.upload(1, 1, 6, Verb::Accept { peer: 2 }).expect_err("not asked").code, Code::NotFound);
}

/// None of them is known to the one they ask: a read for each, but not one after the other.
#[test]
fn many_who_ask_one_user_do_not_wait_for_each_others_reads() {
    const MANY: u64 = 300;
    let mut world = World::new(1, 0);
    for user in 2..2 + MANY {
        world.start_upload(user, 1, 1, ask(1));
    }
    let mut turns = 0;
    world.turn();
    while !world.core.is_idle() {
        world.store.run();
        world.turn();
        turns += 1;
    }
    assert!(turns < 30, "{turns} turns of the store for {MANY} who ask");
    for user in 2..2 + MANY {
        assert_eq!(world.peer(1, user).relation(), Relation::Asks, "user {user}");
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_its_own_status() {
    let mut world = World::new(1, 1 << 20);
    let long = "x".repeat(300);
    for (verb, code) in [
        (ask(1), Code::Invalid),
        (ask(0), Code::Invalid),
        (ask(1 << 63), Code::Invalid),
        (Verb::Ask { peer: 2, hello: long.clone() }, Code::Limit),
        (Verb::Remark { peer: 2, remark: long }, Code::Limit),
        (Verb::Accept { peer: 2 }, Code::NotFound),
        (Verb::Recall { number: 77 }, Code::NotFound),
        (Verb::Recall { number: 0 }, Code::Invalid),
    ] {
        let refused = world.upload(1, 1, 9, verb.clone()).expect_err("it makes no sense");
        assert_eq!(refused.code, code, "{verb:?}: {refused}");
        assert!(!refused.text.is_empty());
    }
    assert!(world.log(1, 0).is_empty(), "nothing is half applied");
}

#[test]
fn a_block_stops_messages_at_once_and_its_end_lets_them_through() {
    let mut world = World::new(3, 0);
    world.upload(1, 1, 1, Verb::Block { peer: 2, on: true }).expect("blocked");
    // The mark is in the log: a restart does not forget it.
    world.crash();
    world.run();
    let token = world.send(2, 1, [1; 10], "let me in");
    world.run();
    assert_eq!(world.error(token).code, Code::Denied);
    world.upload(2, 1, 2, ask(1)).expect("asking is not refused");
    assert_eq!(world.peer(1, 2).relation(), Relation::None, "but it is over at once");
    assert_eq!(world.peer(2, 1).relation(), Relation::None);
    let token = world.send(3, 1, [2; 10], "hello");
    world.run();
    world.sent(token);
    world.upload(1, 1, 3, Verb::Block { peer: 2, on: false }).expect("no more");
    let token = world.send(2, 1, [3; 10], "thank you");
    world.run();
    world.sent(token);
    let log = world.log(1, 0);
    let texts: Vec<&str> = log.iter().map(text).filter(|text| !text.is_empty()).collect();
    assert_eq!(texts, ["hello", "thank you"]);
}

/// The one who blocks is safe even from what was on its way.
#[test]
fn a_message_that_was_on_its_way_is_not_taken_after_the_block() {
    let mut world = World::new(1, 0);
    // Both are in memory.
    for user in [1, 2] {
        world.upload(user, 1, 1, Verb::Star { peer: 9, on: true }).expect("a star");
    }
    let sent = world.send(2, 1, [5; 10], "too late");
    world.at.unix_ms += 1;
    let block = world.start_upload(1, 1, 20, Verb::Block { peer: 2, on: true });
    world.run();
    world.sent(sent);
    world.sent(block);
    assert!(world.log(1, 0).iter().all(|change| text(change).is_empty()));
    assert_eq!(world.core.counters().duties, 0);
}

#[test]
fn marks_only_move_forward_and_tell_the_other_how_far_it_was_read() {
    let mut world = World::new(3, 0);
    let mut items = Vec::new();
    for index in 0..3u8 {
        let token = world.send(1, 2, [index; 10], "x");
        world.run();
        items.push(world.sent(token).number.expect("a number").number);
    }
    let mark = |read, delivered_item, read_item| pb::MarkRequest { peer: 1, read, delivered_item, read_item };
    world.mark(2, mark(2, items[1], items[0])).expect("marked");
    world.mark(2, mark(1, items[0], 0)).expect("behind is no error");
    world.mark(2, mark(u64::MAX, items[2], items[1])).expect("marked");
    let (reader, writer) = (world.peer(2, 1), world.peer(1, 2));
    assert!(reader.read >= 3 && reader.read < 100, "not beyond what there was to read: {reader:?}");
    assert_eq!((writer.delivered_there, writer.read_there), (items[2], items[1]));
    let rows = world.core.counters().rows;
    world.mark(2, mark(2, items[1], items[0])).expect("nothing new");
    assert_eq!(world.core.counters().rows, rows, "what says nothing new writes nothing");
    assert_eq!(world.mark(2, pb::MarkRequest::default()).expect_err("with nobody").code, Code::Invalid);
}

/// User 2 has nothing of user 1, or is blocked by it.
#[test]
fn a_receipt_of_who_was_never_written_to_or_is_blocked_writes_nothing_at_the_author() {
    for hot_bytes in [0, 1 << 20] {
        let mut world = World::new(3, hot_bytes);
        let mut items = [0, 0];
        for (index, to) in [(0, 3u64), (1, 2)] {
            let token = world.send(1, to, [index as u8 + 1; 10], "hello");
            world.run();
            items[index] = world.sent(token).number.expect("a number").number;
            let rows = world.log(1, 0).len();
            let up_to = items[index];
            let mark = |item| pb::MarkRequest { peer: 1, delivered_item: item, ..Default::default() };
            if index == 0 {
                for item in [up_to, u64::MAX] {
                    world.mark(2, mark(item)).expect("it is its own business");
                    assert_eq!(world.log(1, 0).len(), rows, "2 has no message of 1, but told of {item}");
                }
                assert_eq!(world.core.counters().duties, 0);
                world.crash();
                world.run();
                world.mark(3, mark(up_to)).expect("marked");
                assert_eq!(world.peer(1, 3).delivered_there, up_to);
            }
        }
        world.upload(1, 1, 5, Verb::Block { peer: 3, on: true }).expect("blocked");
        let rows = world.log(1, 0).len();
        let read = pb::MarkRequest { peer: 1, read_item: items[0], ..Default::default() };
        world.mark(3, read).expect("its own business");
        assert_eq!((world.log(1, 0).len(), world.peer(1, 3).read_there), (rows, 0));
        assert_eq!(world.core.counters().duties, 0);
    }
}

/// Both whom user 1 asks say yes, but it may have one contact.
#[test]
fn a_yes_to_one_who_has_all_the_contacts_it_may_have_is_over_on_both_sides() {
    let mut world = World::new(3, 0);
    world.core.config.max_contacts = 1;
    for peer in [2, 3] {
        world.upload(1, 1, peer as u8, ask(peer)).expect("asked");
    }
    for user in [2, 3] {
        world.upload(user, 1, 10, Verb::Accept { peer: 1 }).expect("accepted");
    }
    assert_eq!(
        (world.peer(1, 2).relation(), world.peer(2, 1).relation()),
        (Relation::Contact, Relation::Contact)
    );
    for (user, peer) in [(1, 3), (3, 1)] {
        let kept = world.peer(user, peer);
        assert_eq!(
            (kept.relation(), kept.full, kept.ended),
            (Relation::None, true, 1),
            "{user} keeps {kept:?}"
        );
    }
    assert_eq!(world.upload(1, 1, 20, ask(4)).expect_err("no room").code, Code::Limit);
    // Neither has lost a place by it, and they may try again.
    world.upload(1, 1, 21, Verb::Remove { peer: 2 }).expect("removed");
    world.upload(3, 1, 22, ask(1)).expect("asked");
    assert!(!world.peer(3, 1).full);
    world.upload(1, 1, 23, Verb::Accept { peer: 3 }).expect("accepted");
    assert_eq!(
        (world.peer(1, 3).relation(), world.peer(3, 1).relation()),
        (Relation::Contact, Relation::Contact)
    );
}

#[test]
fn a_message_is_taken_back_within_its_time_by_its_sender_only() {
    let mut world = World::new(3, 0);
    let group = world.create_group(1, [9; 10], &[2, 3]);
    for (index, to) in [(1u8, 2), (2, group)] {
        let token = world.send(1, to, [index; 10], "oh no");
        world.run();
        let number = world.sent(token).number.expect("a number").number;
        world.upload(1, 1, 10 + index, Verb::Recall { number }).expect("taken back");
        for user in [1, 2] {
            let log = world.log(user, 0);
            let states: Vec<&pb::Message> = log
                .iter()
                .filter(|change| change.item.is_some_and(|item| (item.origin, item.number) == (1, number)))
                .filter_map(|change| match &change.body {
                    Some(pb::change::Body::Message(message)) => Some(message),
                    _ => None,
                })
                .collect();
            assert!(
                states.len() == 1 && states[0].recalled && states[0].text.is_empty(),
                "{user}: {states:?}"
            );
        }
    }
    let theirs = world
        .log(2, 0)
        .iter()
        .find(|change| text(change) == "stays" || change.number > 0)
        .map(|change| change.number);
    let refused =
        world.upload(2, 1, 20, Verb::Recall { number: theirs.expect("a row") }).expect_err("not theirs");
    assert!(matches!(refused.code, Code::Denied | Code::NotFound), "{refused}");
    let token = world.send(1, 2, [7; 10], "stays");
    world.run();
    let number = world.sent(token).number.expect("a number").number;
    world.pass(2 * 60 * 1000 + 1);
    assert_eq!(world.upload(1, 1, 30, Verb::Recall { number }).expect_err("too late").code, Code::Limit);
}

#[derive(Debug, Clone)]
enum Step {
    Do(u64, u64, u8),
    Turn,
    Commit(u16),
    Answer(u16),
    Fail(u16),
    Crash(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => (1u64..=3, 1u64..=2, 0u8..11)
            .prop_map(|(user, next, what)| Step::Do(user, (user + next - 1) % 3 + 1, what)),
        6 => Just(Step::Turn),
        6 => (0u16..3).prop_map(Step::Commit),
        6 => (0u16..3).prop_map(Step::Answer),
        1 => (0u16..3).prop_map(Step::Fail),
        1 => (0u16..3).prop_map(Step::Crash),
    ];
    prop::collection::vec(step, 1..100)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Words cross, commits fail, the process dies, users have all the contacts they may have: in the end both sides
    /// agree, and nobody has more.
    #[test]
    fn both_sides_agree_in_the_end(steps in steps(), partitions in 1u16..=3, max_contacts in 1u64..=3) {
        let mut world = World::new(partitions, 0);
        world.core.config.max_contacts = max_contacts;
        for (index, step) in steps.iter().enumerate() {
            match step {
                Step::Do(user, peer, what) => {
                    let (peer, on) = (*peer, index % 2 == 0);
                    let verb = match what {
                        0..=3 => ask(peer),
                        4..=7 => Verb::Accept { peer },
                        8 => Verb::Remove { peer },
                        9 => Verb::Block { peer, on },
                        _ => Verb::Star { peer, on },
                    };
                    world.start_upload(*user, 1, index as u8, verb);
                }
                Step::Turn => world.turn(),
                Step::Commit(at) => drop(world.store.commit(at % partitions)),
                Step::Answer(at) => drop(world.store.answer(at % partitions)),
                Step::Fail(at) => world.store.fail(at % partitions),
                Step::Crash(written) => {
                    for partition in 0..partitions.min(*written) {
                        world.store.commit_untold(partition);
                    }
                    world.crash();
                    world.core.config.max_contacts = max_contacts;
                }
            }
        }
        world.run();
        world.pass(2_000);
        prop_assert_eq!(world.core.counters().duties, 0);
        prop_assert_eq!(world.core.counters().dead_letters, 0);
        for (a, b) in [(1, 2), (1, 3), (2, 3)] {
            let (left, right) = (world.peer(a, b).relation(), world.peer(b, a).relation());
            let agree = matches!(
                (left, right),
                (Relation::None, Relation::None)
                    | (Relation::Contact, Relation::Contact)
                    | (Relation::Asked, Relation::Asks)
                    | (Relation::Asks, Relation::Asked)
            );
            prop_assert!(agree, "{} and {}: {:?} and {:?}", a, b, left, right);
        }
        for user in 1..=3 {
            let contacts = (1..=3).filter(|peer| world.peer(user, *peer).relation() == Relation::Contact);
            let contacts = contacts.count() as u64;
            prop_assert!(contacts <= max_contacts, "{} has {} contacts", user, contacts);
            // The count that the next word is checked against is that of the log.
            let key = crate::logic::keys::contacts(user).to_vec();
            let counted = world.store.rows().find(|(stored, _)| *stored == key);
            let counted = counted.map_or(0, |(_, value)| {
                crate::logic::values::decode_number(value).expect("a number")
            });
            prop_assert_eq!(counted, contacts);
        }
    }
}
