//! Moments: told by reference, read at their author by those who may.

use proto_wire::pb;
use proto_wire::status::{Code, Status};

use super::World;
use crate::logic::{Answer, Verb};

impl World {
    fn befriend(&mut self, a: u64, b: u64) {
        self.upload(a, 1, b as u8, Verb::Ask { peer: b, hello: String::new() }).expect("asked");
        self.upload(b, 1, 100 + a as u8, Verb::Accept { peer: a }).expect("accepted");
    }

    fn publish(&mut self, author: u64, id: u8, text: &str, hidden_from: &[u64]) -> u64 {
        let post = pb::Post { text: text.into(), hidden_from: hidden_from.to_vec(), ..Default::default() };
        self.upload(author, 1, id, Verb::Publish { post }).expect("published")
    }

    fn moment(&mut self, reader: u64, author: u64, post: u64) -> Result<pb::Moment, Status> {
        let token = self.token();
        let request = pb::GetMomentRequest { author, post, ..Default::default() };
        self.core.moment(token, reader, &request);
        self.run();
        match self.answers.remove(&token) {
            Some(Ok(Answer::Moment(moment))) => Ok(moment),
            Some(Err(status)) => Err(status),
            other => panic!("{other:?}"),
        }
    }

    /// The moments of others that a phone with everything has heard of.
    fn heard(&mut self, user: u64) -> Vec<(u64, u64)> {
        let changes = self.log(user, 0);
        let heard = changes.iter().filter(|change| matches!(change.body, Some(pb::change::Body::PostRef(_))));
        heard.filter_map(|change| change.item.map(|item| (item.origin, item.number))).collect()
    }

    fn comment(&mut self, user: u64, id: u8, author: u64, post: u64, text: &str) -> Result<u64, Status> {
        let like = text.is_empty();
        let comment = pb::Comment { author, post, text: text.into(), like, ..Default::default() };
        self.upload(user, 1, id, Verb::Say { comment })
    }
}

#[test]
fn contacts_hear_of_a_moment_and_read_it_at_its_author() {
    let mut world = World::new(3, 0);
    for friend in [2, 3, 4] {
        world.befriend(1, friend);
    }
    let post = world.publish(1, 50, "sunrise", &[4]);
    assert_eq!(world.heard(2), [(1, post)]);
    assert_eq!(world.heard(4), [], "it is hidden from this one");
    assert_eq!(world.heard(5), []);
    let read = world.moment(2, 1, post).expect("a contact reads it").post.expect("a post");
    assert!(read.text == "sunrise" && read.hidden_from.is_empty(), "who it is hidden from is not told");
    assert_eq!(world.moment(1, 1, post).expect("the author too").post.expect("a post").hidden_from, [4]);
    for stranger in [4, 5] {
        assert_eq!(world.moment(stranger, 1, post).expect_err("not for them").code, Code::NotFound);
    }
    world.upload(1, 1, 51, Verb::Remove { peer: 3 }).expect("removed");
    assert_eq!(world.moment(3, 1, post).expect_err("no contact any more").code, Code::NotFound);
    world.upload(1, 1, 52, Verb::Block { peer: 2, on: true }).expect("blocked");
    assert_eq!(world.moment(2, 1, post).expect_err("blocked").code, Code::NotFound);
    // The body lies once.
    let bodies = world.store.rows().filter(|(_, value)| value.windows(7).any(|w| w == b"sunrise")).count();
    assert_eq!(bodies, 1);
}

#[test]
fn what_is_said_reaches_the_author_and_can_be_taken_away() {
    let mut world = World::new(3, 0);
    for friend in [2, 3] {
        world.befriend(1, friend);
    }
    let post = world.publish(1, 50, "sunrise", &[]);
    let first = world.comment(2, 60, 1, post, "where?").expect("said");
    world.comment(3, 61, 1, post, "").expect("liked");
    assert_eq!(world.comment(5, 62, 1, post, "me too").expect_err("a stranger").code, Code::NotFound);
    let said = |moment: pb::Moment| moment.said.iter().map(|said| said.from).collect::<Vec<_>>();
    assert_eq!(said(world.moment(1, 1, post).expect("read")), [2, 3]);
    let told = |world: &mut World, user: u64| {
        let changes = world.log(user, 0);
        changes.iter().filter(|change| matches!(change.body, Some(pb::change::Body::Comment(_)))).count()
    };
    assert_eq!((told(&mut world, 1), told(&mut world, 2)), (2, 1));
    let unsay = |from, number| Verb::Unsay { author: 1, moment: post, from, number };
    assert_eq!(world.upload(3, 1, 63, unsay(2, first)).expect_err("not theirs").code, Code::Denied);
    world.upload(1, 1, 64, unsay(2, first)).expect("the author may");
    assert_eq!(said(world.moment(3, 1, post).expect("read")), [3]);
    assert_eq!((told(&mut world, 1), told(&mut world, 2)), (1, 0), "it is gone from both logs");
    assert_eq!(world.upload(1, 1, 65, unsay(2, first)).expect_err("it is gone").code, Code::NotFound);
    world.upload(1, 1, 66, Verb::Withdraw { moment: post }).expect("withdrawn");
    assert_eq!(world.moment(2, 1, post).expect_err("it is gone").code, Code::NotFound);
    assert_eq!(world.heard(2), [], "the reference collapsed to nothing");
    assert_eq!(
        world.upload(1, 1, 67, Verb::Withdraw { moment: post }).expect_err("twice").code,
        Code::NotFound
    );
}

/// A contact of the time of publishing is none any more when the moment is withdrawn: the reference stays in that log, and
/// whoever asks with it is told what strangers are told; also when it is a contact again.
#[test]
fn a_reference_that_stayed_with_a_former_contact_opens_nothing() {
    let mut world = World::new(3, 0);
    for friend in [2, 3] {
        world.befriend(1, friend);
    }
    let post = world.publish(1, 50, "sunrise", &[]);
    world.upload(1, 1, 51, Verb::Remove { peer: 3 }).expect("removed");
    world.upload(1, 1, 52, Verb::Withdraw { moment: post }).expect("withdrawn");
    assert_eq!((world.heard(2), world.heard(3)), (vec![], vec![(1, post)]));
    let stranger = world.moment(5, 1, post).expect_err("a stranger");
    assert_eq!(world.moment(3, 1, post).expect_err("no contact"), stranger);
    world.upload(1, 1, 53, Verb::Ask { peer: 3, hello: String::new() }).expect("asked");
    world.upload(3, 1, 54, Verb::Accept { peer: 1 }).expect("accepted");
    assert_eq!(world.moment(3, 1, post).expect_err("withdrawn"), stranger);
    assert_eq!(world.comment(3, 55, 1, post, "where?").expect_err("withdrawn").code, Code::NotFound);
}

/// Both wait for one row of the author's log.
#[test]
fn two_who_speak_at_once_are_both_answered() {
    let mut world = World::new(3, 0);
    for friend in [2, 3] {
        world.befriend(1, friend);
    }
    let post = world.publish(1, 50, "sunrise", &[]);
    world.crash();
    world.run();
    let comment = pb::Comment { author: 1, post, text: "me first".into(), ..Default::default() };
    let tokens = [2, 3].map(|user| world.start_upload(user, 1, 60, Verb::Say { comment: comment.clone() }));
    world.run();
    tokens.into_iter().for_each(|token| drop(world.sent(token)));
    assert_eq!(world.moment(1, 1, post).expect("read").said.len(), 2);
}

/// Whatever dies on the way, each contact hears of each moment exactly once.
#[test]
fn a_crash_at_any_step_tells_each_contact_once() {
    for steps in 0..40 {
        let mut world = World::new(1 + steps % 3, 0);
        for friend in 2..=5 {
            world.befriend(1, friend);
        }
        let post = pb::Post { text: "x".into(), ..Default::default() };
        let token = world.start_upload(1, 1, 50, Verb::Publish { post });
        for step in 0..steps {
            world.turn();
            match step % 3 {
                0 => drop(world.store.commit(step % world.partitions)),
                1 => drop(world.store.answer(step % world.partitions)),
                _ => world.store.run(),
            }
        }
        world.crash();
        world.run();
        let was_applied =
            !world.log(1, 0).iter().all(|change| !matches!(change.body, Some(pb::change::Body::Post(_))));
        for friend in 2..=5 {
            assert_eq!(world.heard(friend).len(), usize::from(was_applied), "after {steps} steps");
        }
        assert_eq!(world.core.counters().duties, 0);
        world.answers.remove(&token);
    }
}
