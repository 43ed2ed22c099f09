//! Uploads, groups and names: single cases with exact answers.

use bytes::Bytes;
use proto_wire::names::{GROUP_BIT, UploadId};
use proto_wire::pb;
use proto_wire::status::Code;

use super::{World, text};
use crate::logic::{Answer, KvKey, keys};

#[test]
fn a_repeat_gets_the_first_answer_and_another_body_a_conflict() {
    let mut world = World::new(1, 1 << 20);
    let first = world.send(1, 2, [1; 10], "a");
    // Still in flight: the repeat waits, another body is refused at once.
    world.turn();
    let repeat = world.send(1, 2, [1; 10], "a");
    let other = world.send(1, 2, [1; 10], "b");
    world.turn();
    assert!(!world.answers.contains_key(&first) && !world.answers.contains_key(&repeat));
    world.run();
    let first = world.sent(first);
    assert!(!first.repeated && first.ack == pb::Ack::Local as i32);
    let repeat = world.sent(repeat);
    assert_eq!(pb::SendReply { repeated: false, ..repeat.clone() }, first);
    assert!(repeat.repeated);
    assert_eq!(world.error(other).code, Code::Conflict);
    // Long after, in another process.
    world.crash();
    world.run();
    let (again, other) = (world.send(1, 2, [1; 10], "a"), world.send(1, 2, [1; 10], "b"));
    world.run();
    assert_eq!(world.sent(again), repeat);
    assert_eq!(world.error(other).code, Code::Conflict);
    assert_eq!(world.log(2, 0).len(), 1);
}

#[test]
fn nothing_is_acknowledged_before_its_commit() {
    let mut world = World::new(1, 1 << 20);
    world.send(1, 2, [1; 10], "warm");
    world.run();
    world.at.unix_ms += 1; // a later id is known to be new without a read
    let token = world.send(1, 2, [2; 10], "a");
    world.turn();
    assert_eq!(world.store.waiting(0), 1);
    world.turn();
    assert!(!world.answers.contains_key(&token));
    world.store.commit(0);
    world.turn();
    assert_eq!(world.sent(token).number.unwrap().number, 2);
}

#[test]
fn what_the_store_failed_is_not_applied_and_its_number_stays_void() {
    let mut world = World::new(1, 1 << 20);
    world.send(1, 2, [1; 10], "a");
    world.run();
    world.at.unix_ms += 1;
    let b = world.send(1, 2, [2; 10], "b");
    world.at.unix_ms += 1;
    let c = world.send(1, 2, [3; 10], "c");
    world.turn();
    world.store.fail(0);
    world.turn();
    assert_eq!(world.error(b).code, Code::Unavailable);
    assert_eq!(world.error(c).code, Code::Unavailable);
    let again = world.send(1, 2, [2; 10], "b");
    world.run();
    let reply = world.sent(again);
    assert_eq!((reply.number.unwrap().number, reply.repeated), (4, false));
    let numbers: Vec<u64> = world.log(1, 0).iter().map(|change| change.number).collect();
    assert_eq!(numbers, [1, 4]);
    assert_eq!(world.core.counters().void_numbers, 2);
}

#[test]
fn old_and_future_uploads_and_bad_requests_are_refused() {
    let mut world = World::new(1, 1 << 20);
    let mut refused = |id: Bytes, to: u64, text: &str, user: u64| {
        let token = world.token();
        let request = pb::SendRequest { id, to, text: text.to_owned(), ..Default::default() };
        world.core.send(world.at, token, user, 1, &request);
        world.run();
        world.error(token).code
    };
    let at = |ms| Bytes::copy_from_slice(&UploadId::new(ms, [1; 10]).0);
    let now = 1_800_000_000_000;
    assert_eq!(refused(at(now - proto_wire::limits::UPLOAD_MEMORY_MS), 2, "a", 1), Code::Expired);
    assert_eq!(refused(at(now + 3_600_000), 2, "a", 1), Code::Invalid);
    assert_eq!(refused(Bytes::from_static(b"short"), 2, "a", 1), Code::Invalid);
    assert_eq!(refused(at(now), 0, "a", 1), Code::Invalid);
    assert_eq!(refused(at(now), 2, &"x".repeat(8193), 1), Code::Limit);
    assert_eq!(refused(at(now), 2, "a", 0), Code::Invalid);
    assert_eq!(refused(at(now), 2, "a", GROUP_BIT | 5), Code::Invalid);
    assert_eq!(world.store.rows().count(), 0);
}

/// For some ids the disk is asked, for others not: still what a phone sends without waiting keeps its order.
#[test]
fn an_upload_whose_id_is_surely_new_does_not_overtake_one_that_is_looked_up() {
    let mut world = World::new(1, 1 << 20);
    world.send(1, 2, [1; 10], "first");
    world.run();
    world.send(1, 2, [2; 10], "looked up");
    world.at.unix_ms += 1;
    world.send(1, 2, [3; 10], "new");
    world.send(1, 2, [4; 10], "looked up as well");
    world.at.unix_ms += 1;
    world.run();
    world.send(1, 2, [5; 10], "new again");
    world.turn();
    assert_eq!(world.store.waiting_reads(0), 0, "nothing is looked up any more");
    world.run();
    let log = world.log(2, 0);
    let texts: Vec<&str> = log.iter().map(text).collect();
    assert_eq!(texts, ["first", "looked up", "new", "looked up as well", "new again"]);
}

#[test]
fn members_see_the_group_and_one_order() {
    let mut world = World::new(1, 0);
    let group = world.create_group(1, [9; 10], &[2, 3, 3, 1]);
    for (sender, name) in [(1, "a"), (2, "b"), (3, "c"), (1, "d")] {
        world.send(sender, group, [name.as_bytes()[0]; 10], name);
    }
    world.run();
    let mut orders = Vec::new();
    for user in 1..=3 {
        let log = world.log(user, 0);
        let Some(pb::change::Body::Group(state)) = &log[0].body else {
            panic!("the group comes first: {log:?}")
        };
        assert_eq!((state.group, state.owner, &state.members[..]), (group, 1, &[1, 2, 3][..]));
        orders.push(log[1..].iter().map(|change| text(change).to_owned()).collect::<Vec<_>>());
        assert!(log[1..].iter().all(|change| change.version == 2));
    }
    assert_eq!(orders[0].len(), 4);
    assert!(orders.iter().all(|order| order == &orders[0]));
}

#[test]
fn a_body_is_stored_once_a_section() {
    let mut world = World::new(1, 0);
    let members: Vec<u64> = (2..=300).collect();
    let group = world.create_group(1, [9; 10], &members);
    world.send(1, group, [1; 10], "a");
    world.run();
    let mut sections: Vec<u16> = (1..=300).map(proto_wire::names::section_of).collect();
    sections.push(proto_wire::names::section_of(group));
    sections.sort_unstable();
    sections.dedup();
    let bodies = world
        .store
        .rows()
        .filter(|(key, _)| key[10] == keys::BODY && keys::last_number(key) == Some(2))
        .count();
    assert_eq!(bodies, sections.len());
    assert_eq!(world.store.rows().filter(|(key, _)| key[10] == keys::DUTY).count(), 0);
}

#[test]
fn a_message_to_no_group_and_one_of_a_stranger_are_refused() {
    let mut world = World::new(1, 0);
    let group = world.create_group(1, [9; 10], &[2]);
    for (sender, to, code) in [(1, GROUP_BIT | 77, Code::NotFound), (5, group, Code::Denied)] {
        let token = world.send(sender, to, [sender as u8; 10], "lost");
        world.run();
        assert_eq!(world.error(token).code, code);
        assert!(world.log(sender, 0).iter().all(|change| text(change) != "lost"), "nothing is half applied");
    }
    assert_eq!(world.core.counters().dead_letters, 0);
    assert_eq!(world.store.rows().filter(|(key, _)| key[10] == keys::DUTY).count(), 0);
}

#[test]
fn creating_a_group_again_gives_the_same_group() {
    let mut world = World::new(3, 0);
    let group = world.create_group(1, [9; 10], &[2]);
    world.crash();
    world.run();
    assert_eq!(world.create_group(1, [9; 10], &[2]), group);
    assert_eq!(world.log(2, 0).len(), 1);
}

#[test]
fn a_name_is_taken_once() {
    let mut world = World::new(1, 0);
    let key = KvKey { owner: 7, kind: b'A', name: Bytes::from_static(b"alice") };
    let (first, second) = (world.token(), world.token());
    world.core.kv_create(first, key.clone(), Bytes::from_static(b"one"));
    world.core.kv_create(second, key.clone(), Bytes::from_static(b"two"));
    world.run();
    assert_eq!(world.answers.remove(&first), Some(Ok(Answer::Kv(None))));
    assert_eq!(world.error(second).code, Code::Overloaded);
    world.core.kv_create(second, key.clone(), Bytes::from_static(b"two"));
    let (read, none, put) = (world.token(), world.token(), world.token());
    world.core.kv_get(none, KvKey { name: Bytes::from_static(b"bob"), ..key.clone() });
    world.core.kv_put(put, KvKey { kind: b'L', ..key.clone() }, Bytes::new());
    world.core.kv_get(read, key);
    world.run();
    assert_eq!(world.answers.remove(&second), Some(Ok(Answer::Kv(Some(Bytes::from_static(b"one"))))));
    assert_eq!(world.answers.remove(&read), Some(Ok(Answer::Kv(Some(Bytes::from_static(b"one"))))));
    assert_eq!(world.answers.remove(&none), Some(Ok(Answer::Kv(None))));
    assert_eq!(world.error(put).code, Code::Invalid);
}

#[test]
fn a_duty_from_before_its_lifetime_is_a_dead_letter() {
    let mut world = World::new(1, 0);
    world.send(1, 2, [1; 10], "a");
    // The tails of the sender and of the receiver are read.
    for _ in 0..2 {
        world.turn();
        world.store.run();
    }
    world.turn();
    // The sender's commit is on disk, the receiver's is not.
    while !world.store.rows().any(|(key, _)| key[10] == keys::DUTY) {
        world.store.commit(0);
        world.turn();
    }
    world.crash();
    world.at.unix_ms += 8 * 24 * 3600 * 1000;
    world.run();
    assert!(world.core.is_ready());
    assert_eq!(world.core.counters().dead_letters, 1);
    assert!(world.log(2, 0).is_empty());
}

#[test]
fn ids_of_uploads_are_forgotten_after_their_memory_and_never_before() {
    const DAY_MS: u64 = 24 * 3600 * 1000;
    let mut world = World::new(3, 0);
    let ids = |world: &World| world.store.rows().filter(|(key, _)| key[10] == keys::UPLOAD).count();
    let first = world.at.unix_ms;
    for (index, user) in (1..=40u64).enumerate() {
        world.send(user, user + 1, [index as u8; 10], "old");
    }
    world.run();
    world.at.unix_ms += 3 * DAY_MS;
    world.send(1, 2, [200; 10], "newer");
    world.run();
    assert_eq!(ids(&world), 41);
    // A moment before the first would be refused: a whole pass forgets nothing, and a repeat is known.
    world.at.unix_ms = first + proto_wire::limits::UPLOAD_MEMORY_MS - 600_000;
    world.pass(120_000);
    assert_eq!(ids(&world), 41);
    let repeat = |world: &mut World| {
        let token = world.token();
        let id = Bytes::copy_from_slice(&UploadId::new(first, [0; 10]).0);
        let request = pb::SendRequest { id, to: 2, text: "old".to_owned(), ..Default::default() };
        world.core.send(world.at, token, 1, 1, &request);
        world.run();
        token
    };
    let token = repeat(&mut world);
    assert!(world.sent(token).repeated);
    // Beyond it the old ones go, the newer one stays, and the repeat is refused, not applied again.
    world.at.unix_ms += DAY_MS;
    world.pass(2 * 3600 * 1000);
    assert_eq!(ids(&world), 1);
    assert_eq!(world.core.counters().uploads_expired, 40);
    world.crash();
    world.run();
    let token = repeat(&mut world);
    assert_eq!(world.error(token).code, Code::Expired);
    assert_eq!(world.log(2, 0).len(), 3);
}
