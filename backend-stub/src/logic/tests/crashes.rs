//! Messages to users and groups while the process dies and the store fails at any step: nothing
//! acknowledged is lost, nothing comes twice, each sender's order holds, all members see one order.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proto_wire::names::section_of;
use proto_wire::pb;
use proto_wire::status::Code;

use super::{World, text};
use crate::logic::Answer;

const USERS: u64 = 5;

#[derive(Debug, Clone)]
enum Step {
    /// A phone sends: from, to a user, or to the group when 0.
    Send(u64, u64),
    /// A phone repeats what was not answered, or what was.
    Repeat(prop::sample::Index),
    Turn,
    Commit(u16),
    Answer(u16),
    /// A recovery has many questions.
    AnswerAll,
    /// All batches of a partition that wait fail.
    Fail(u16),
    /// The process dies; the oldest batches of so many partitions were written, but nobody knows.
    Crash(u16),
    /// A phone syncs.
    Pull(u64),
    /// Reads of a partition fail, or do so no more.
    Unreadable(u16, bool),
    /// Time passes, so that what failed is tried again.
    Wait,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1..=USERS, 0..=USERS).prop_map(|(from, to)| Step::Send(from, to)),
        2 => any::<prop::sample::Index>().prop_map(Step::Repeat),
        6 => Just(Step::Turn),
        6 => (0u16..3).prop_map(Step::Commit),
        6 => (0u16..3).prop_map(Step::Answer),
        1 => (0u16..3).prop_map(Step::Fail),
        1 => (0u16..3).prop_map(Step::Crash),
        3 => (1..=USERS).prop_map(Step::Pull),
    ];
    prop::collection::vec(step, 1..120)
}

fn steps_with_bad_reads() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (1..=USERS, 0..=USERS).prop_map(|(from, to)| Step::Send(from, to)),
        2 => any::<prop::sample::Index>().prop_map(Step::Repeat),
        8 => Just(Step::Turn),
        6 => (0u16..3).prop_map(Step::Commit),
        4 => (0u16..3).prop_map(Step::Answer),
        8 => Just(Step::AnswerAll),
        1 => (0u16..3).prop_map(Step::Fail),
        1 => (0u16..3).prop_map(Step::Crash),
        2 => (0u16..3, any::<bool>()).prop_map(|(at, is_bad)| Step::Unreadable(at, is_bad)),
        8 => Just(Step::Wait),
    ];
    prop::collection::vec(step, 1..200)
}

/// A message that a phone wants to send, until it is answered.
#[derive(Debug, Clone)]
struct Upload {
    from: u64,
    to: u64,
    id: [u8; 10],
    /// The call in flight.
    token: Option<u64>,
    /// The number that it was acknowledged with.
    number: Option<u64>,
}

struct Phones {
    world: World,
    group: u64,
    uploads: Vec<Upload>,
    /// What each phone has applied, by number.
    applied: BTreeMap<u64, BTreeMap<u64, pb::Change>>,
    cursors: BTreeMap<u64, pb::Cursor>,
    pulls: BTreeMap<u64, u64>,
    /// Some reads of this run fail.
    has_bad_reads: bool,
}

impl Phones {
    fn new(partitions: u16, hot_bytes: usize) -> Self {
        let mut world = World::new(partitions, hot_bytes);
        let members: Vec<u64> = (1..=USERS).collect();
        let group = world.create_group(1, [0xff; 10], &members);
        Self {
            world,
            group,
            uploads: Vec::new(),
            applied: BTreeMap::new(),
            cursors: BTreeMap::new(),
            pulls: BTreeMap::new(),
            has_bad_reads: false,
        }
    }

    fn step(&mut self, step: &Step) {
        let partitions = self.world.partitions;
        match step {
            Step::Send(from, to) => {
                // A phone sends in order: the next when the one before was answered.
                if self.uploads.iter().any(|upload| upload.from == *from && upload.number.is_none()) {
                    return;
                }
                let index = self.uploads.len() as u64;
                let mut id = [0; 10];
                id[..8].copy_from_slice(&index.to_be_bytes());
                let to = if *to == 0 { self.group } else { *to };
                self.uploads.push(Upload { from: *from, to, id, token: None, number: None });
                self.call(index as usize);
            }
            Step::Repeat(index) if !self.uploads.is_empty() => self.call(index.index(self.uploads.len())),
            Step::Repeat(_) => {}
            Step::Turn => self.turn(),
            Step::Commit(partition) => drop(self.world.store.commit(partition % partitions)),
            Step::Answer(partition) => drop(self.world.store.answer(partition % partitions)),
            Step::AnswerAll => while (0..partitions).any(|partition| self.world.store.answer(partition)) {},
            Step::Fail(partition) => self.world.store.fail(partition % partitions),
            Step::Crash(written) => {
                for partition in 0..partitions.min(*written) {
                    self.world.store.commit_untold(partition);
                }
                self.crash();
            }
            Step::Pull(user) => {
                let token = self.world.token();
                let cursor = self.cursors.get(user).copied();
                let request = pb::PullRequest { cursor, max_changes: 3, ..Default::default() };
                self.world.core.pull(self.world.at, token, *user, 1, &request);
                self.pulls.insert(token, *user);
            }
            Step::Unreadable(partition, is_bad) => {
                self.world.store.set_unreadable(partition % partitions, *is_bad);
            }
            Step::Wait => self.wait(),
        }
    }

    /// The wall clock stands still: ids of uploads are made of it, and a repeat has the first one's.
    fn wait(&mut self) {
        self.world.at.now_ms += 500;
        self.world.core.handle_timeout(self.world.at);
        self.turn();
    }

    fn call(&mut self, index: usize) {
        let Upload { from, to, id, .. } = self.uploads[index];
        let token = self.world.send(from, to, id, &format!("{index}"));
        self.uploads[index].token = Some(token);
    }

    fn turn(&mut self) {
        self.world.turn();
        for (token, answer) in std::mem::take(&mut self.world.answers) {
            match answer {
                Ok(Answer::Sent(reply, _)) => self.acknowledged(token, &reply),
                Ok(Answer::Page(page)) => {
                    let user = self.pulls.remove(&token).expect("it was asked for");
                    self.apply(user, page.to_page());
                }
                Ok(other) => panic!("nobody asked for {other:?}"),
                Err(status) => {
                    let is_bad_read = self.has_bad_reads && status.code == Code::Internal;
                    let waits = matches!(status.code, Code::Unavailable | Code::Overloaded);
                    assert!(waits || is_bad_read, "{status}");
                }
            }
        }
    }

    fn acknowledged(&mut self, token: u64, reply: &pb::SendReply) {
        let number = reply.number.expect("a sent message has a number").number;
        // A repeat may have been sent since; then this answer came for an earlier call.
        if let Some(upload) = self.uploads.iter_mut().find(|upload| upload.token == Some(token)) {
            assert!(upload.number.is_none_or(|before| before == number), "the first answer again");
            upload.number = Some(number);
        }
    }

    fn apply(&mut self, user: u64, page: pb::Page) {
        let cursor = self.cursors.entry(user).or_default();
        assert!(page.after <= cursor.number || page.changes.is_empty(), "no gap");
        let applied = self.applied.entry(user).or_default();
        for change in page.changes {
            let before = applied.insert(change.number, change.clone());
            assert!(before.is_none_or(|before| before == change), "a number is given once");
        }
        cursor.log_epoch = page.log_epoch;
        cursor.number = cursor.number.max(page.upto);
    }

    fn crash(&mut self) {
        self.world.crash();
        self.world.answers.clear();
        self.pulls.clear();
    }

    /// Everything comes to rest: phones repeat until they have an answer.
    fn rest(&mut self) {
        for partition in 0..self.world.partitions {
            self.world.store.set_unreadable(partition, false);
        }
        // Every log that could not be read is read again in this time.
        for _ in 0..if self.has_bad_reads { 100 } else { 0 } {
            self.run();
            self.wait();
        }
        for _ in 0..10 {
            self.run();
            let open: Vec<usize> =
                (0..self.uploads.len()).filter(|index| self.uploads[*index].number.is_none()).collect();
            if open.is_empty() {
                return;
            }
            open.into_iter().for_each(|index| self.call(index));
        }
        panic!("uploads stay without an answer");
    }

    fn run(&mut self) {
        loop {
            self.turn();
            if self.world.core.is_idle() {
                return;
            }
            self.world.store.run();
        }
    }

    fn check(&mut self) {
        let mut orders = Vec::new();
        for user in 1..=USERS {
            let log = self.world.log(user, 4);
            for change in &log {
                if let Some(before) = self.applied.get(&user).and_then(|applied| applied.get(&change.number))
                {
                    assert_eq!(before, change, "a phone that was told a number finds it unchanged");
                }
            }
            self.check_messages(user, &log);
            let of_group = log.iter().filter_map(|change| match &change.body {
                Some(pb::change::Body::Message(message)) if message.to == self.group => {
                    Some((message.group_number, message.text.clone()))
                }
                _ => None,
            });
            let order: Vec<_> = of_group.collect();
            assert!(
                order.is_sorted_by(|a, b| a.0 < b.0),
                "the group's order is the order of its numbers: {order:?}"
            );
            orders.push(order);
        }
        assert!(orders.windows(2).all(|pair| pair[0] == pair[1]), "all members see one order: {orders:?}");
        let is_expected = |line: &String| self.has_bad_reads || line.contains("failed a commit");
        assert!(self.world.logs.iter().all(is_expected), "{:?}", self.world.logs);
        assert_eq!(self.world.core.counters().duties, 0);
    }

    /// Every message for this user is in its log once, in each sender's order.
    fn check_messages(&self, user: u64, log: &[pb::Change]) {
        for from in 1..=USERS {
            let expected: Vec<String> = (0..self.uploads.len())
                .filter(|index| {
                    let upload = &self.uploads[*index];
                    upload.from == from && (user == from || upload.to == user || upload.to == self.group)
                })
                .map(|index| index.to_string())
                .collect();
            let sent_by = |change: &&pb::Change| matches!(&change.body, Some(pb::change::Body::Message(message)) if message.from == from);
            let mut found: Vec<&str> = log.iter().filter(sent_by).map(text).collect();
            if user == from {
                // Its own messages to the group take their place when the group has numbered them.
                found.sort_by_key(|text| text.parse::<u64>().expect("texts are indices"));
            } else {
                // Messages to the user and through the group take different ways: each keeps its order.
                let group =
                    |index: &&str| self.uploads[index.parse::<usize>().expect("an index")].to == self.group;
                for through_group in [false, true] {
                    let part: Vec<_> = found.iter().filter(|index| group(index) == through_group).collect();
                    assert!(
                        part.is_sorted_by_key(|index| index.parse::<u64>().expect("an index")),
                        "{part:?}"
                    );
                }
                found.sort_by_key(|text| text.parse::<u64>().expect("texts are indices"));
            }
            assert_eq!(found, expected, "messages of {from} in the log of {user}");
        }
        for upload in self.uploads.iter().filter(|upload| upload.from == user && upload.to != self.group) {
            let number = upload.number.expect("at rest every upload is answered");
            assert!(log.iter().any(|change| change.number == number
                && change.item.is_some_and(|item| item.origin == user && item.number == number)));
        }
    }
}

fn run(partitions: u16, hot_bytes: usize, steps: &[Step]) {
    let mut phones = Phones::new(partitions, hot_bytes);
    phones.has_bad_reads = steps.iter().any(|step| matches!(step, Step::Unreadable(..)));
    for step in steps {
        phones.step(step);
    }
    phones.rest();
    phones.check();
    // What is on the disk alone says the same.
    phones.crash();
    phones.rest();
    phones.check();
    assert_eq!(phones.world.core.counters().recovered_landed, phones.world.core.counters().recovered);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_doubled_or_reordered(steps in steps(), hot: bool) {
        run(1, if hot { 1 << 20 } else { 0 }, &steps);
    }

    /// Logs, memories and duties that cannot be read for a while, also when the process starts.
    #[test]
    fn nor_while_reads_fail(steps in steps_with_bad_reads(), partitions in 1u16..=3, hot: bool) {
        run(partitions, if hot { 1 << 20 } else { 0 }, &steps);
    }

    #[test]
    fn nor_with_several_partitions(steps in steps(), hot: bool) {
        run(3, if hot { 1 << 20 } else { 0 }, &steps);
    }
}

/// Found by the simulator. The duty to make a group lies in its owner's section, a member's message to it in the
/// member's; a recovery by section brought the message first, and it became a dead letter.
#[test]
fn after_a_crash_a_group_is_made_before_what_was_sent_to_it_is_numbered() {
    // Ids of groups come from the seed: the next world's first is the same.
    let group = World::new(2, 1 << 20).create_group(1, [1; 10], &[2]);
    let (owner, member) = (1..100)
        .flat_map(|owner| (1..100).map(move |member| (owner, member)))
        .find(|(owner, member)| {
            section_of(*member) < section_of(*owner) && (section_of(*member) ^ section_of(group)) & 1 == 1
        })
        .expect("sections differ");
    let mut world = World::new(2, 1 << 20);
    let made = world.token();
    let request =
        pb::CreateGroupRequest { id: world.upload_id([1; 10]), name: "group".into(), members: vec![member] };
    world.core.create_group(world.at, made, owner, &request);
    run_until_answered(&mut world, made, section_of(owner) % 2);
    let sent = world.send(member, group, [2; 10], "first");
    // Acknowledged, but the group's own commit does not come to be.
    run_until_answered(&mut world, sent, section_of(member) % 2);
    world.sent(sent);
    world.crash();
    world.run();
    for user in [owner, member] {
        let log = world.log(user, 0);
        assert!(log.iter().any(|change| text(change) == "first"), "{log:?}\n{:?}", world.logs);
    }
}

/// Commits in one partition only.
fn run_until_answered(world: &mut World, token: u64, partition: u16) {
    for _ in 0..100 {
        world.turn();
        if world.answers.contains_key(&token) {
            return;
        }
        if !(0..2).any(|partition| world.store.answer(partition)) {
            world.store.commit(partition);
        }
    }
    panic!("no answer");
}
