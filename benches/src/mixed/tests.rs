//! The judge is shown runs that went well, and each way in which one can go wrong.

use std::sync::Arc;

use ahash::AHashMap;
use proto_wire::names::GROUP_BIT;
use proto_wire::pb::{self, GroupAction, Relation, change::Body};
use proto_wire::phone::PhoneConfig;
use proto_wire_token::IssuerKey;

use super::judge::{Judge, Verdict};
use super::kinds::{DEFAULT, Kind, Weights};
use super::model::{Model, Op, Slot};
use super::owner::Owner;
use super::people::People;
use super::shared::Shared;
use crate::check::Text;
use crate::identity::Identities;
use crate::workload::Population;

const USERS: u32 = 12;
const GROUP: u64 = GROUP_BIT | 5;

/// A server that gives every device of a user the same changes.
struct World {
    shared: Shared,
    model: Model,
    owners: Vec<Owner>,
    /// Of each user's log.
    numbers: Vec<u64>,
    statics: AHashMap<u64, u32>,
    changing: AHashMap<u64, u32>,
}

fn owner(line: u32, people: &People) -> Owner {
    Owner::new(line, people.of_line(line).0, people)
}

impl World {
    /// All are contacts of their contacts, and nothing has happened.
    fn new() -> Self {
        let who = Identities::new(Arc::new(IssuerKey::generate()), 7, 1, PhoneConfig::default());
        let people = People::new(who, Arc::new(Population::new(USERS, 3)), 2);
        let shared = Shared::new(people, Weights::parse(DEFAULT).expect("a mix"), 80);
        let owners = (0..shared.people.lines()).map(|line| owner(line, &shared.people)).collect();
        let changing = [(GROUP, 0)].into_iter().collect();
        let mut world = Self {
            shared,
            model: Model::new(USERS),
            owners,
            numbers: vec![0; USERS as usize],
            statics: AHashMap::new(),
            changing,
        };
        for user in 0..USERS {
            for n in 0..world.shared.people.population.contacts() {
                let other = world.shared.people.population.contact(user, n);
                world.relate(user, other, 1, Relation::Contact);
            }
        }
        world
    }

    fn id(&self, user: u32) -> u64 {
        self.shared.people.who.user(user)
    }

    fn contact(&self, user: u32) -> u32 {
        self.shared.people.population.contact(user, 0)
    }

    /// A change in a user's log, at the devices that pass.
    fn put_at(
        &mut self,
        user: u32,
        item: (u64, u64),
        version: u64,
        body: Option<Body>,
        at: impl Fn(u32) -> bool,
    ) -> u64 {
        self.numbers[user as usize] += 1;
        let number = self.numbers[user as usize];
        let change = pb::Change {
            number,
            item: Some(pb::ItemId { origin: item.0, number: item.1 }),
            version,
            deleted: body.is_none(),
            body,
        };
        for owner in self.owners.iter_mut().filter(|owner| owner.user == user && at(owner.line)) {
            owner.book.apply_change(&change);
            if item.0 != owner.book.user() {
                owner.arrived.insert(item, number);
            }
        }
        number
    }

    fn put(&mut self, user: u32, item: (u64, u64), version: u64, body: Option<Body>) -> u64 {
        self.put_at(user, item, version, body, |_| true)
    }

    fn relate(&mut self, user: u32, other: u32, version: u64, relation: Relation) {
        let peer = pb::Peer {
            peer: self.id(other),
            relation: relation.into(),
            ended: version / 2,
            ..Default::default()
        };
        self.put(user, (peer.peer, 0), version, Some(Body::Peer(peer)));
    }

    fn message(&self, from: u32, to: u64, id: u32, recalled: bool) -> Body {
        let text = Text { run: self.shared.people.who.run, sender: from, id, intended_us: 1 };
        let text = if recalled { String::new() } else { text.write(60) };
        let from = self.id(from);
        Body::Message(pb::Message { from, to, sent_ms: 1, text, recalled, ..Default::default() })
    }

    fn done(&mut self, kind: Kind, op: &Op, number: u64) {
        self.model.sent(kind, op);
        self.model.acknowledged(kind, op, number, 1);
    }

    /// A message that was acknowledged and stands at its sender.
    fn send(&mut self, from: u32, to: u64) -> (u32, (u64, u64)) {
        let id = self.model.new_message(from, to).expect("room");
        let item = (self.id(from), self.numbers[from as usize] + 1);
        let body = self.message(from, to, id, false);
        let number = self.put(from, item, 1, Some(body));
        self.done(Kind::Message, &Op::Send { id }, number);
        (id, item)
    }

    fn judge(&self) -> Verdict {
        let people = &self.shared.people;
        Judge::new(people, &self.model, &self.statics, &self.changing, self.owners.iter()).judge()
    }

    fn assert_only(&self, check: &str) {
        let verdict = self.judge();
        let checks: Vec<&str> = verdict.wrong.keys().copied().collect();
        assert_eq!(checks, [check], "{:?}", verdict.complaints);
        assert!(verdict.complaints[0].starts_with(check));
    }

    fn assert_good(&self) {
        let verdict = self.judge();
        assert_eq!(verdict.total(), 0, "{:?}", verdict.complaints);
    }
}

#[test]
fn a_message_must_be_at_its_receiver_and_counts_as_unread() {
    let mut world = World::new();
    world.assert_good();
    let to = world.contact(1);
    let (id, item) = world.send(1, world.id(to));
    world.assert_only("missing");
    let body = world.message(1, world.id(to), id, false);
    world.put(to, item, 1, Some(body.clone()));
    world.assert_good();
    // A mark that was acknowledged and is not kept.
    let mark = super::model::Mark { read: world.numbers[to as usize], read_item: item.1 };
    world.done(Kind::Mark, &Op::Mark { user: to, peer: world.id(1), mark }, 0);
    let verdict = world.judge();
    assert_eq!((verdict.count("receipts"), verdict.count("unread")), (1, 1), "{:?}", verdict.complaints);
}

#[test]
fn a_call_that_is_never_answered_is_told() {
    let mut world = World::new();
    world.model.sent(Kind::Typing, &Op::Typing);
    assert_eq!(world.judge().count("unanswered"), 1);
}

#[test]
fn a_message_is_there_once_and_only_where_it_was_sent() {
    let mut world = World::new();
    let to = world.contact(1);
    let (id, item) = world.send(1, world.id(to));
    let body = world.message(1, world.id(to), id, false);
    world.put(to, item, 1, Some(body.clone()));
    world.put(to, (item.0, 999), 1, Some(body.clone()));
    let verdict = world.judge();
    assert_eq!((verdict.count("duplicates"), verdict.count("misdelivered")), (1, 1));
    let mut world = World::new();
    let (to, other) = (world.contact(1), world.contact(world.contact(1)));
    let (_, item) = world.send(1, world.id(to));
    world.put(to, item, 1, Some(body.clone()));
    world.put(other, item, 1, Some(body));
    assert_eq!(world.judge().count("misdelivered"), 1);
}

#[test]
fn what_was_taken_back_is_gone_everywhere() {
    let mut world = World::new();
    let to = world.contact(1);
    let (id, item) = world.send(1, world.id(to));
    let (body, recalled) =
        (world.message(1, world.id(to), id, false), world.message(1, world.id(to), id, true));
    world.put(to, item, 1, Some(body));
    assert_eq!(world.model.take_message(1, 2), Some(id));
    let number = world.put(1, item, 3, Some(recalled.clone()));
    world.done(Kind::Recall, &Op::Recall { id }, number);
    let verdict = world.judge();
    assert_eq!((verdict.count("recalls"), verdict.count("unread")), (1, 1), "{:?}", verdict.complaints);
    world.put(to, item, 3, Some(recalled));
    world.assert_good();
}

#[test]
fn devices_of_a_user_show_the_same() {
    let mut world = World::new();
    let first = world.shared.people.users();
    let (user, _) = world.shared.people.of_line(first);
    let me = pb::Me::default();
    world.put_at(user, (world.id(user), 0), 1, Some(Body::Me(me)), |line| line != first);
    world.assert_only("devices");
}

#[test]
fn both_sides_agree_on_what_they_are_to_each_other() {
    let mut world = World::new();
    let other = world.contact(1);
    world.model.note_end(1, other);
    world.relate(1, other, 2, Relation::None);
    world.assert_only("contacts");
    world.relate(other, 1, 2, Relation::None);
    world.assert_good();
    world.relate(other, 1, 3, Relation::Asks);
    world.assert_only("contacts");
    world.relate(1, other, 3, Relation::Asked);
    world.assert_good();
    let mut world = World::new();
    let other = world.contact(1);
    world.relate(1, other, 2, Relation::None);
    world.relate(other, 1, 2, Relation::None);
    assert_eq!(world.judge().count("contacts"), 2, "nobody asked for it");
}

#[test]
fn the_last_word_of_a_user_stays() {
    let mut world = World::new();
    let op = Op::Put { user: 1, slot: Slot::Setting(0), value: "blue".to_owned() };
    world.done(Kind::Setting, &op, 9);
    world.assert_only("settings");
    let settings = vec![pb::Setting { key: super::draw::setting_key(0), value: "blue".to_owned() }];
    let me = pb::Me { settings, ..Default::default() };
    world.put(1, (world.id(1), 0), 1, Some(Body::Me(me)));
    world.assert_good();
}

#[test]
fn members_of_a_group_know_the_same() {
    let mut world = World::new();
    let state = |world: &World, users: &[u32]| {
        let members = users.iter().map(|&user| world.id(user)).collect();
        Body::Group(pb::GroupState { group: GROUP, name: "g".into(), members, owner: world.id(users[0]) })
    };
    for user in [1, 2] {
        let body = state(&world, &[1, 2]);
        world.put(user, (GROUP, 1), 1, Some(body));
    }
    world.assert_good();
    let event = |world: &World, number| {
        let (by, users) = (world.id(1), vec![world.id(3)]);
        let action = GroupAction::Invite.into();
        Body::Event(pb::GroupEvent {
            group: GROUP,
            by,
            action,
            users,
            group_number: number,
            ..Default::default()
        })
    };
    let later = state(&world, &[1, 2, 3]);
    for user in [1, 3] {
        let body = event(&world, 4);
        world.put(user, (world.id(1), 50), 2, Some(body));
        world.put(user, (GROUP, 1), 2, Some(later.clone()));
    }
    let verdict = world.judge();
    assert_eq!((verdict.count("groups"), verdict.count("missing")), (1, 1), "{:?}", verdict.complaints);
    let body = event(&world, 4);
    world.put(2, (world.id(1), 50), 2, Some(body));
    world.put(2, (GROUP, 1), 2, Some(later));
    world.assert_good();
    // One number that is two items, and nothing at a third member.
    for (user, item) in [(1, 51), (2, 52)] {
        let body = event(&world, 6);
        world.put(user, (world.id(1), item), 2, Some(body));
    }
    let verdict = world.judge();
    assert_eq!(
        (verdict.count("disagreements"), verdict.count("missing")),
        (1, 1),
        "{:?}",
        verdict.complaints
    );
}

#[test]
fn a_moment_is_heard_by_whom_it_is_for() {
    let mut world = World::new();
    let hidden = world.contact(1);
    let post = world.model.new_post(1, Some(hidden));
    let item = (world.id(1), 77);
    world.put(1, item, 1, Some(Body::Post(pb::Post::default())));
    world.done(Kind::Publish, &Op::Publish { post }, 77);
    let contacts = world.shared.people.population.contacts();
    let others: Vec<u32> = (1..contacts).map(|n| world.shared.people.population.contact(1, n)).collect();
    world.assert_only("moments");
    let heard = Some(Body::PostRef(pb::PostRef { from: item.0, posted_ms: 1 }));
    for &other in &others {
        world.put(other, item, 1, heard.clone());
    }
    world.assert_good();
    world.put(hidden, item, 1, heard);
    world.assert_only("moments");
    assert_eq!(world.model.take_post(1), Some(post));
    world.done(Kind::Withdraw, &Op::Withdraw { post }, 78);
    world.put(1, item, 2, None);
    world.put(hidden, item, 2, None);
    world.assert_only("moments");
    for &other in &others {
        world.put(other, item, 2, None);
    }
    world.assert_good();
}

#[test]
fn what_was_said_is_at_both() {
    let mut world = World::new();
    let from = world.contact(1);
    let comment = world.model.new_comment(from, 1, 5);
    let said = pb::Comment { author: world.id(1), post: 5, from: world.id(from), ..Default::default() };
    let item = (world.id(from), 88);
    world.put(from, item, 1, Some(Body::Comment(said.clone())));
    world.done(Kind::Comment, &Op::Say { comment }, 88);
    world.assert_only("comments");
    world.put(1, item, 1, Some(Body::Comment(said)));
    world.assert_good();
    assert_eq!(world.model.take_comment(from), Some(comment));
    world.done(Kind::Unsay, &Op::Unsay { comment }, 89);
    world.put(from, item, 2, None);
    world.assert_only("comments");
    world.put(1, item, 2, None);
    world.assert_good();
}
