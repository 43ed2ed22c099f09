//! A group as it changes: who may do what, who hears of it, who gets the messages.

use proto_wire::names::section_of;
use proto_wire::pb::{self, GroupAction};
use proto_wire::status::{Code, Status};

use super::{World, text};
use crate::logic::Verb;
use crate::storage::partition_of;

impl World {
    fn change(
        &mut self,
        user: u64,
        id: u8,
        group: u64,
        action: GroupAction,
        users: &[u64],
    ) -> Result<u64, Status> {
        let name = if action == GroupAction::Rename { "renamed".to_owned() } else { String::new() };
        let change =
            pb::GroupEvent { action: action.into(), users: users.to_vec(), name, ..Default::default() };
        self.upload(user, 1, id, Verb::ChangeGroup { group, change })
    }

    fn state(&mut self, user: u64) -> Option<pb::GroupState> {
        let states = self.log(user, 0).into_iter().filter_map(|change| match change.body {
            Some(pb::change::Body::Group(state)) => Some(state),
            _ => None,
        });
        states.last()
    }

    fn events(&mut self, user: u64) -> Vec<(GroupAction, u64)> {
        let events = self.log(user, 0).into_iter().filter_map(|change| match change.body {
            Some(pb::change::Body::Event(event)) => Some((event.action(), event.group_number)),
            _ => None,
        });
        events.collect()
    }

    fn texts(&mut self, user: u64) -> Vec<String> {
        self.log(user, 0)
            .iter()
            .map(|change| text(change).to_owned())
            .filter(|text| !text.is_empty())
            .collect()
    }

    fn say(&mut self, user: u64, group: u64, id: u8, what: &str) -> Result<(), Status> {
        let token = self.send(user, group, [id; 10], what);
        self.run();
        match self.answers.remove(&token) {
            Some(Ok(_)) => Ok(()),
            Some(Err(status)) => Err(status),
            None => panic!("no answer"),
        }
    }
}

#[test]
fn members_come_and_go_and_get_what_was_said_while_they_were_there() {
    let mut world = World::new(3, 0);
    let group = world.create_group(1, [9; 10], &[2]);
    world.say(1, group, 1, "before").expect("said");
    world.change(2, 2, group, GroupAction::Invite, &[3, 4]).expect("any member invites");
    world.say(3, group, 3, "with four").expect("said");
    world.change(1, 4, group, GroupAction::Remove, &[4]).expect("the owner removes");
    world.say(2, group, 5, "with three").expect("said");
    assert_eq!(world.say(4, group, 6, "let me").expect_err("not a member").code, Code::Denied);
    world.change(3, 7, group, GroupAction::Leave, &[]).expect("left");
    world.crash();
    world.run();
    world.say(1, group, 8, "with two").expect("said");
    assert_eq!(world.texts(1), ["before", "with four", "with three", "with two"]);
    assert_eq!(world.texts(2), ["before", "with four", "with three", "with two"]);
    assert_eq!(world.texts(3), ["with four", "with three"]);
    assert_eq!(world.texts(4), ["with four"]);
    assert_eq!(world.state(1).expect("a state").members, [1, 2]);
    assert_eq!(world.state(2).expect("a state"), world.state(1).expect("a state"));
    assert_eq!(
        world.events(4).iter().map(|(action, _)| *action).collect::<Vec<_>>(),
        [GroupAction::Invite, GroupAction::Remove]
    );
    // Who did it has its own event with the group's number too, and all agree on the numbers.
    assert_eq!(world.events(1), world.events(2));
    assert!(world.events(1).iter().all(|(_, number)| *number > 0));
    assert_eq!(world.core.counters().dead_letters, 0);
}

#[test]
fn only_who_may_does_and_nothing_is_half_applied() {
    let mut world = World::new(1, 0);
    let group = world.create_group(1, [9; 10], &[2, 3]);
    let before = world.state(2).expect("a state");
    for (user, action, users, code) in [
        (2, GroupAction::Remove, vec![3], Code::Denied),
        (2, GroupAction::Owner, vec![2], Code::Denied),
        (1, GroupAction::Remove, vec![1], Code::Invalid),
        (1, GroupAction::Remove, vec![7], Code::NotFound),
        (1, GroupAction::Remove, vec![], Code::Invalid),
        (1, GroupAction::Owner, vec![7], Code::NotFound),
        (1, GroupAction::Invite, vec![2], Code::Exists),
        (1, GroupAction::Invite, (10..508).collect(), Code::Limit),
        (1, GroupAction::Invite, (10..600).collect(), Code::Invalid),
        (7, GroupAction::Invite, vec![7], Code::Denied),
        (1, GroupAction::Unknown, vec![], Code::Invalid),
    ] {
        let refused = world.change(user, 20, group, action, &users).expect_err("it may not");
        assert_eq!(refused.code, code, "{action:?} of {user}: {refused}");
    }
    // What an action has no use for would go to every member too, in a change larger than a frame.
    for change in [
        pb::GroupEvent {
            action: GroupAction::Rename.into(),
            name: "x".into(),
            users: vec![5; 8000],
            ..Default::default()
        },
        pb::GroupEvent { action: GroupAction::Leave.into(), name: "x".repeat(60_000), ..Default::default() },
    ] {
        let refused = world.upload(1, 1, 21, Verb::ChangeGroup { group, change }).expect_err("too large");
        assert!(matches!(refused.code, Code::Invalid | Code::Limit), "{refused}");
    }
    assert_eq!(world.state(2), Some(before));
    world.change(1, 1, group, GroupAction::Owner, &[3]).expect("handed over");
    world.change(2, 2, group, GroupAction::Rename, &[]).expect("renamed");
    world.change(3, 3, group, GroupAction::Leave, &[]).expect("left");
    let state = world.state(2).expect("a state");
    assert_eq!((state.owner, state.name.as_str(), &state.members[..]), (1, "renamed", &[1, 2][..]));
    for user in [1, 2] {
        world.change(user, 4, group, GroupAction::Leave, &[]).expect("left");
    }
    assert_eq!(world.say(1, group, 5, "alone").expect_err("nobody is in it").code, Code::Denied);
}

/// What was on its way when its writer was removed becomes a dead letter, and is told.
#[test]
fn a_message_that_crosses_the_removal_of_its_writer_is_a_dead_letter() {
    let mut world = World::new(1, 0);
    let group = world.create_group(1, [9; 10], &[2, 3]);
    world.say(2, group, 1, "in time").expect("said");
    let change = pb::GroupEvent { action: GroupAction::Remove.into(), users: vec![2], ..Default::default() };
    let removed = world.start_upload(1, 1, 2, Verb::ChangeGroup { group, change });
    let said = world.send(2, group, [3; 10], "too late");
    world.run();
    world.sent(removed);
    world.sent(said);
    assert_eq!(world.core.counters().dead_letters, 1);
    assert!(world.logs.iter().any(|line| line.contains("not a member")), "{:?}", world.logs);
    assert_eq!(world.texts(3), ["in time"]);
}

#[test]
fn a_failed_commit_leaves_the_group_as_it_was() {
    let mut world = World::new(1, 0);
    let group = world.create_group(1, [9; 10], &[2]);
    let change = pb::GroupEvent { action: GroupAction::Invite.into(), users: vec![3], ..Default::default() };
    let token = world.start_upload(2, 1, 1, Verb::ChangeGroup { group, change });
    // Once for the caller's commit, then for the group's.
    for _ in 0..40 {
        world.turn();
        if world.answers.contains_key(&token) {
            break;
        }
        world.store.run();
    }
    world.sent(token);
    world.turn();
    world.store.fail(0);
    world.run();
    world.pass(1_000);
    assert_eq!(world.state(3).expect("it was done again").members, [1, 2, 3]);
    assert_eq!(world.state(1), world.state(3));
    assert_eq!(world.core.counters().duties, 0);
}

/// The version with the group's number never comes behind the one without content: a new device would show the text
/// again. Here the commits of the group fail for as long as the phone asks.
#[test]
fn a_message_is_taken_back_once_the_group_has_numbered_it() {
    let mut world = World::new(1, 0);
    let group = world.create_group(1, [9; 10], &[2, 3]);
    world.say(2, group, 1, "all are in memory").expect("said");
    let said = world.send(2, group, [2; 10], "oh no");
    while !world.answers.contains_key(&said) {
        world.turn();
        world.store.run();
    }
    let number = world.sent(said).number.expect("a number").number;
    world.at.unix_ms += 1;
    let early = world.start_upload(2, 1, 30, Verb::Recall { number });
    while !world.answers.contains_key(&early) {
        world.turn();
        world.store.fail(0);
        while world.store.answer(0) {}
    }
    let refused = world.error(early);
    assert!(refused.code == Code::Unavailable && refused.code.is_safe_to_retry(), "{refused}");
    assert!(refused.retry_after_ms > 0);
    world.run();
    world.upload(2, 1, 30, Verb::Recall { number }).expect("the same, later");
    for user in [1, 2, 3] {
        assert_eq!(world.texts(user), ["all are in memory"], "a new device of {user} shows no text");
    }
    world.change(1, 33, group, GroupAction::Remove, &[2]).expect("removed");
    assert_eq!(world.upload(2, 1, 34, Verb::Recall { number }).expect_err("no member").code, Code::Denied);
}

/// The owner removes the writer in the same moment in which the writer takes the message back: both were acknowledged,
/// so the others see no text any more.
#[test]
fn what_is_taken_back_while_its_writer_is_removed_is_gone_for_the_others() {
    for partitions in [1, 3] {
        let mut world = World::new(partitions, 0);
        let group = world.create_group(1, [9; 10], &[2, 3]);
        let token = world.send(2, group, [1; 10], "oh no");
        world.run();
        let item = world.sent(token).number.expect("a number").number;
        let change = pb::GroupEvent { action: 3, users: vec![2], ..Default::default() };
        // What the recall needs has been read; the removal is decided before it, and reaches the group first.
        world.at.unix_ms += 1;
        let recalled = world.start_upload(2, 1, 21, Verb::Recall { number: item });
        world.turn();
        while (0..partitions).any(|partition| world.store.answer(partition)) {}
        let removed = world.start_upload(1, 1, 20, Verb::ChangeGroup { group, change });
        world.turn();
        world.store.commit(partition_of(section_of(1), partitions));
        world.turn();
        world.run();
        world.sent(removed);
        world.sent(recalled);
        for user in [1, 2, 3] {
            let log = world.log(user, 0);
            let of_item =
                log.iter().filter(|change| change.item.is_some_and(|it| (it.origin, it.number) == (2, item)));
            let shown: Vec<_> = of_item
                .filter_map(|change| match &change.body {
                    Some(pb::change::Body::Message(message)) => {
                        Some((message.recalled, message.text.as_str()))
                    }
                    _ => None,
                })
                .collect();
            assert_eq!(shown, [(true, "")], "user {user} of {partitions}");
        }
        assert_eq!((world.core.counters().dead_letters, world.core.counters().duties), (0, 0));
    }
}
