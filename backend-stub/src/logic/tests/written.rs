//! A sender's own change comes with the answer of its write: it is not told besides, and not lost with the answer.

use prost::Message as _;
use proto_wire::names::Cursor;
use proto_wire::pb;

use super::World;
use super::presence::{GATEWAY, online};
use crate::logic::Answer;

impl World {
    /// A send of user 7 from a device that applies pages.
    fn write(&mut self, device: u64, id: u8, text: &str) -> u64 {
        let token = self.token();
        let (id, text) = (self.upload_id([id; 10]), text.to_owned());
        let request = pb::SendRequest { id, to: 8, text, wants_page: true, ..Default::default() };
        self.core.send(self.at, token, 7, device, &request);
        token
    }

    /// The page of an answer, if it has one: where it begins, and its numbers.
    fn page(&mut self, token: u64) -> Option<(u64, Vec<u64>)> {
        let Some(Ok(Answer::Sent(reply, given))) = self.answers.remove(&token) else { panic!("no answer") };
        let given = given?;
        let page = pb::Page::decode(reply.page).expect("a page");
        assert_eq!(Cursor::new(page.log_epoch, page.upto), given);
        assert!(!page.more && !page.snapshot && !reply.repeated);
        Some((page.after, page.changes.iter().map(|change| change.number).collect()))
    }

    /// The news since the last look, by slot: where the changes begin, and the newest. All arrive.
    fn news(&mut self) -> Vec<(u32, u64, u64)> {
        let news = self.notifies.iter().flat_map(|(_, request)| &request.news);
        let mut news: Vec<_> = news.map(|news| (news.slot, news.prev, news.newest)).collect();
        news.sort_unstable();
        self.told(&[]);
        news
    }
}

/// User 7 with two devices in slots 1 and 2. User 8, whom they write to, is in memory.
fn two_devices() -> World {
    let mut world = World::new(1, 1 << 20);
    world.log(8, 0);
    let other = pb::Online { device: 2, ..online(7, 2, 1, 0) };
    world.report(GATEWAY, vec![online(7, 1, 1, 0), other], vec![]);
    world
}

#[test]
fn the_writing_device_gets_its_change_with_the_answer_and_the_others_are_told() {
    let mut world = two_devices();
    let token = world.write(1, 1, "a");
    world.run();
    assert_eq!(world.page(token), Some((0, vec![1])));
    assert_eq!(world.news(), [(2, 0, 1)]);
    world.core.applied(7, 1, Cursor::new(1, 1));
    let token = world.write(1, 2, "b");
    world.run();
    assert_eq!(world.page(token), Some((1, vec![2])));
    assert_eq!(world.news(), [(2, 1, 2)]);
    // News that comes behind it begins where the answer ended.
    world.send(99, 7, [3; 10], "c");
    world.run();
    assert_eq!(world.news(), [(1, 2, 3), (2, 2, 3)]);
    // The device has not said that it has 2 and 3, so they go along.
    let token = world.write(1, 4, "d");
    world.run();
    assert_eq!(world.page(token), Some((1, vec![2, 3, 4])));
}

/// News of another comes while the answer of a write is being committed: the answer takes it along, and it is not told to
/// that device besides. When the commit fails it is told.
#[test]
fn what_comes_while_the_answer_is_on_its_way_goes_along_once() {
    for fails in [false, true] {
        let mut world = two_devices();
        world.send(99, 7, [1; 10], "warm");
        world.run();
        world.news();
        world.core.applied(7, 1, Cursor::new(1, 1));
        world.at.unix_ms += 1;
        world.send(99, 7, [2; 10], "from another");
        world.turn();
        world.store.commit(0);
        world.turn();
        // Its row is on the way to the disk, and behind it the write.
        world.at.unix_ms += 1;
        let token = world.write(1, 3, "a");
        world.turn();
        assert_eq!(world.store.waiting(0), 2);
        world.store.commit(0);
        world.turn();
        let told: Vec<u32> =
            world.notifies.iter().flat_map(|(_, request)| &request.news).map(|news| news.slot).collect();
        assert_eq!(told, [2], "the other device hears of it at once");
        if fails {
            world.store.fail(0);
            world.run();
            world.error(token);
            assert_eq!(world.news(), [(1, 1, 2), (2, 1, 2)]);
        } else {
            world.run();
            assert_eq!(world.page(token), Some((1, vec![2, 3])));
            assert_eq!(world.news(), [(2, 1, 2), (2, 2, 3)]);
        }
    }
}

#[test]
fn what_came_in_the_same_turn_goes_along() {
    let mut world = two_devices();
    world.send(99, 7, [1; 10], "warm");
    world.run();
    world.news();
    let token = world.write(1, 2, "a");
    // Its id is later, so that it is known to be new, and both are in one commit.
    world.at.unix_ms += 1;
    world.send(7, 7, [3; 10], "b");
    world.run();
    assert_eq!(world.page(token), Some((0, vec![1, 2, 3])));
    assert_eq!(world.news(), [(2, 1, 3)]);
}

#[test]
fn a_device_that_does_not_say_that_it_has_it_is_told_by_the_sweep() {
    let mut world = two_devices();
    let token = world.write(1, 1, "a");
    world.run();
    assert!(world.page(token).is_some());
    world.core.applied(7, 2, Cursor::new(1, 1));
    world.news();
    let mut told = Vec::new();
    for _ in 0..7 {
        world.pass(20_000);
        world.report(GATEWAY, vec![], vec![]);
        told.extend(world.news());
    }
    assert!(!told.is_empty() && told.iter().all(|told| *told == (1, 0, 1)), "{told:?}");
    world.core.applied(7, 1, Cursor::new(1, 1));
    world.pass(20_000);
    world.news();
    world.report(GATEWAY, vec![], vec![]);
    world.pass(20_000);
    assert_eq!(world.news(), []);
}

#[test]
fn a_repeat_has_no_page_and_its_device_is_told() {
    let mut world = two_devices();
    let first = world.write(1, 1, "a");
    world.run();
    assert!(world.page(first).is_some());
    world.news();
    let again = world.write(1, 1, "a");
    world.run();
    let answer = &world.answers[&again];
    assert!(matches!(answer, Ok(Answer::Sent(reply, None)) if reply.repeated && reply.page.is_empty()));
    assert!(world.news().contains(&(1, 0, 1)), "the first answer was lost, and the page in it");
    // A repeat that comes before the commit: nobody knows which of the two calls is still waited for.
    let (first, again) = (world.write(1, 2, "b"), world.write(1, 2, "b"));
    world.run();
    assert_eq!((world.page(first), world.page(again)), (None, None));
    assert!(world.news().iter().any(|(slot, _, newest)| (*slot, *newest) == (1, 2)));
}

#[test]
fn a_device_that_connected_anew_is_told_and_so_is_one_that_is_not_known_here() {
    let mut world = two_devices();
    let token = world.write(1, 1, "a");
    let other = world.write(3, 2, "b");
    world.report(GATEWAY, vec![online(7, 5, 2, 0)], vec![]);
    world.run();
    assert_eq!((world.page(token), world.page(other)), (None, None));
    assert!(world.news().iter().any(|(slot, _, newest)| (*slot, *newest) == (5, 2)));
}

#[test]
fn a_change_that_is_too_large_and_one_that_nobody_asked_for_is_told() {
    let mut world = two_devices();
    let token = world.write(1, 1, &"x".repeat(2_000));
    world.run();
    assert_eq!((world.page(token), world.news()), (None, vec![(1, 0, 1), (2, 0, 1)]));
    for device in [1, 2] {
        world.core.applied(7, device, Cursor::new(1, 1));
    }
    let token = world.send(7, 8, [2; 10], "an old phone's");
    world.run();
    assert_eq!((world.page(token), world.news()), (None, vec![(1, 1, 2), (2, 1, 2)]));
}

#[test]
fn after_a_crash_between_commit_and_answer_the_sessions_are_told() {
    let mut world = two_devices();
    let token = world.write(1, 1, "a");
    world.turn();
    world.store.run();
    world.crash();
    world.run();
    assert!(!world.answers.contains_key(&token));
    let reply = world.report(GATEWAY, vec![online(7, 1, 1, 0)], vec![]);
    assert_eq!(reply.behind, [pb::Behind { slot: 1, generation: 1, log_epoch: 1, newest: 1 }]);
    let again = world.write(1, 1, "a");
    world.run();
    assert_eq!(world.page(again), None);
}
