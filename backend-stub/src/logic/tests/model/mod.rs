//! The whole backend against a model: plain maps, one thing at a time, nothing lost.
//!
//! Random users do random things; the process dies in the middle of some of them, and the phone repeats with the same
//! id until it is answered. Every answer must be the model's, and in the end both devices of each user - one that
//! synced after every step, one that begins with nothing - show what the model says.

mod book;
mod rules;

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use proto_wire::names::UploadId;
use proto_wire::pb;
use proto_wire::status::Code;

use super::World;
use crate::logic::{Answer, Upload, Verb};
use book::Book;
use rules::Model;

const USERS: u64 = 4;

/// One fewer than there are others.
const MAX_CONTACTS: u64 = 2;

/// What a user does. Numbers pick among what there is.
#[derive(Debug, Clone)]
pub enum Deed {
    Send {
        to: u64,
    },
    SendToGroup {
        pick: usize,
    },
    CreateGroup {
        with: u64,
    },
    Group {
        pick: usize,
        action: i32,
        target: u64,
    },
    Contact {
        peer: u64,
        what: u8,
    },
    Mark {
        peer: u64,
    },
    Recall {
        pick: usize,
    },
    Publish {
        hidden_from: u64,
    },
    Withdraw {
        pick: usize,
    },
    Say {
        pick: usize,
        like: bool,
    },
    Unsay {
        pick: usize,
    },
    Setting {
        key: u8,
        value: u8,
    },
    /// The first device forgets its place and is given a snapshot.
    Forget,
    /// So much time passes that horizons move.
    Rest,
}

#[derive(Debug, Clone)]
struct Step {
    user: u64,
    deed: Deed,
    /// The process dies after so many turns of it; 0: it does not.
    dies_after: u8,
}

fn deeds() -> impl Strategy<Value = Deed> {
    let user = || 1..=USERS;
    let pick = || any::<usize>();
    prop_oneof![
        6 => user().prop_map(|to| Deed::Send { to }),
        4 => pick().prop_map(|pick| Deed::SendToGroup { pick }),
        1 => user().prop_map(|with| Deed::CreateGroup { with }),
        4 => (pick(), 1i32..=5, user()).prop_map(|(pick, action, target)| Deed::Group { pick, action, target }),
        8 => (user(), 0u8..8).prop_map(|(peer, what)| Deed::Contact { peer, what }),
        3 => user().prop_map(|peer| Deed::Mark { peer }),
        2 => pick().prop_map(|pick| Deed::Recall { pick }),
        3 => (0..=USERS).prop_map(|hidden_from| Deed::Publish { hidden_from }),
        1 => pick().prop_map(|pick| Deed::Withdraw { pick }),
        4 => (pick(), any::<bool>()).prop_map(|(pick, like)| Deed::Say { pick, like }),
        2 => pick().prop_map(|pick| Deed::Unsay { pick }),
        2 => (0u8..3, 0u8..3).prop_map(|(key, value)| Deed::Setting { key, value }),
        1 => Just(Deed::Forget),
        1 => Just(Deed::Rest),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (1..=USERS, deeds(), prop_oneof![3 => Just(0u8), 1 => 1u8..12]);
    prop::collection::vec(step.prop_map(|(user, deed, dies_after)| Step { user, deed, dies_after }), 1..60)
}

/// A call as it is made, as often as it takes.
pub enum Call {
    Send(pb::SendRequest),
    CreateGroup(pb::CreateGroupRequest),
    Verb(Verb),
    Mark(pb::MarkRequest),
}

/// How it was answered: a number, a group, or a refusal.
type Outcome = Result<u64, Code>;

struct Run {
    world: World,
    model: Model,
    /// The first device of each user.
    books: BTreeMap<u64, (pb::Cursor, Book)>,
    ids: u64,
}

impl Run {
    fn new(partitions: u16) -> Self {
        let mut world = World::new(partitions, 0);
        world.horizon = (6, 3600 * 1000, 0);
        crash(&mut world);
        world.run();
        Self { world, model: Model::default(), books: BTreeMap::new(), ids: 0 }
    }

    fn step(&mut self, step: &Step) {
        let user = step.user;
        match &step.deed {
            Deed::Forget => {
                // A cursor of another log.
                let far = pb::Cursor { log_epoch: 1, number: u64::MAX };
                self.books.insert(user, (far, Book::new()));
            }
            Deed::Rest => {
                self.world.pass(2 * 3600 * 1000);
                self.model.rest();
            }
            deed => {
                let newest = self.books.get(&user).map_or(0, |(cursor, _)| cursor.number);
                let Some(call) = self.model.call(user, deed, newest) else { return };
                let outcome = self.make(user, &call, step.dies_after);
                let expected = self.model.take(user, &call, outcome);
                assert_eq!(outcome.map(drop), expected, "user {user}: {deed:?}");
            }
        }
        for user in 1..=USERS {
            self.sync(user);
        }
    }

    /// Makes a call, through deaths of the process, until it is answered and all is quiet.
    fn make(&mut self, user: u64, call: &Call, dies_after: u8) -> Outcome {
        self.ids += 1;
        self.world.at.unix_ms += 1;
        let mut random = [0; 10];
        random[..8].copy_from_slice(&self.ids.to_be_bytes());
        let id = Bytes::copy_from_slice(&UploadId::new(self.world.at.unix_ms, random).0);
        let mut token = self.begin(user, call, &id);
        if dies_after > 0 {
            let partitions = self.world.partitions;
            for turn in 0..dies_after {
                self.world.turn();
                match turn % 3 {
                    0 => self.world.store.run(),
                    1 => drop(self.world.store.commit(u16::from(turn) % partitions)),
                    _ => drop(self.world.store.answer(u16::from(turn) % partitions)),
                }
            }
            if !self.world.answers.contains_key(&token) {
                crash(&mut self.world);
                self.world.run();
                token = self.begin(user, call, &id);
            }
        }
        self.world.run();
        match self.world.answers.remove(&token).expect("an answer") {
            Ok(Answer::Sent(reply, _)) => Ok(reply.number.expect("a number").number),
            Ok(Answer::Group(reply)) => Ok(reply.group),
            Ok(Answer::Done) => Ok(0),
            Ok(other) => panic!("{other:?}"),
            Err(status) => Err(status.code),
        }
    }

    fn begin(&mut self, user: u64, call: &Call, id: &Bytes) -> u64 {
        let (token, at, id) = (self.world.token(), self.world.at, id.clone());
        let core = &mut self.world.core;
        match call {
            Call::Send(request) => core.send(at, token, user, 1, &pb::SendRequest { id, ..request.clone() }),
            Call::CreateGroup(request) => {
                core.create_group(at, token, user, &pb::CreateGroupRequest { id, ..request.clone() })
            }
            Call::Verb(verb) => {
                core.upload(at, token, user, 1, Upload { id, hash: [7; 16], verb: verb.clone() })
            }
            Call::Mark(request) => core.mark(at, token, user, 1, request),
        }
        token
    }

    /// The first device takes what it lacks, a few changes at a time.
    fn sync(&mut self, user: u64) {
        let (cursor, mut book) = self.books.remove(&user).unwrap_or_default();
        let cursor = sync(&mut self.world, user, cursor, &mut book, 3);
        self.books.insert(user, (cursor, book));
    }

    fn check(&mut self) {
        self.world.run();
        assert_eq!(self.world.core.counters().duties, 0);
        for user in 1..=USERS {
            self.sync(user);
            let expected = self.model.book(user);
            let mut fresh = Book::new();
            sync(&mut self.world, user, pb::Cursor::default(), &mut fresh, 0);
            let (_, first) = &self.books[&user];
            assert_eq!(&fresh, expected, "a new device of user {user} is not the model");
            assert_eq!(first, expected, "the first device of user {user} is not the model");
        }
    }
}

/// The process dies, and the next has the limits of these runs.
fn crash(world: &mut World) {
    world.crash();
    world.core.config.max_contacts = MAX_CONTACTS;
}

/// Pages from a cursor on, until there are no more. A snapshot begins with an empty book.
fn sync(
    world: &mut World,
    user: u64,
    mut cursor: pb::Cursor,
    book: &mut Book,
    max_changes: u32,
) -> pb::Cursor {
    let mut snapshot_at = Bytes::new();
    loop {
        let first = snapshot_at.is_empty();
        let request = pb::PullRequest { cursor: Some(cursor), max_changes, snapshot_at };
        let page = world.pull(user, request).expect("the log can be read");
        if page.snapshot && first {
            book.clear();
        }
        book::apply(book, page.changes);
        snapshot_at = page.snapshot_next;
        if !page.snapshot || !page.more {
            cursor = pb::Cursor { log_epoch: page.log_epoch, number: page.upto };
        }
        if !page.more {
            return cursor;
        }
    }
}

/// Two seconds, or some minutes with `tests/run --long`.
fn cases() -> u32 {
    if std::env::var_os("MOORGATE_LONG").is_some() { 20_000 } else { 200 }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn every_answer_and_every_phone_is_as_the_model_says(steps in steps(), partitions in 1u16..=3) {
        let mut run = Run::new(partitions);
        for step in &steps {
            run.step(step);
        }
        run.check();
    }
}
