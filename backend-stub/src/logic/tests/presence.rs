//! Presence races: late offlines, racing connects, leases, repeated reports, stale routes.

use proptest::prelude::*;
use proto_wire::pb;
use proto_wire::status::{Code, Status};

use super::World;
use crate::logic::{Answer, At, limits};
use proto_wire::names::Cursor;

pub(super) const GATEWAY: u64 = 0xaa;

pub(super) fn online(user: u64, slot: u32, counter: u32, applied: u64) -> pb::Online {
    pb::Online { user, device: 1, slot, generation: 1, counter, log_epoch: 1, applied }
}

fn offline(user: u64, slot: u32) -> pb::Offline {
    pb::Offline { user, device: 1, slot, generation: 1 }
}

impl World {
    pub(super) fn report(
        &mut self,
        gateway: u64,
        online: Vec<pb::Online>,
        offline: Vec<pb::Offline>,
    ) -> pb::ReportReply {
        let token = self.token();
        let request = pb::ReportRequest { gateway, shard: 2, online, offline, applied: Vec::new() };
        self.core.report(self.at, token, &request);
        self.run();
        match self.answers.remove(&token) {
            Some(Ok(Answer::Report(reply))) => reply,
            other => panic!("a reply was expected, not {other:?}"),
        }
    }

    fn message(&mut self, to: u64, id: u8) {
        self.send(99, to, [id; 10], "hello");
        self.run();
    }

    /// The slots that were told, each call answered as given.
    pub(super) fn told(&mut self, stale: &[u32]) -> Vec<(u64, u32)> {
        let mut slots = Vec::new();
        for (token, request) in std::mem::take(&mut self.notifies) {
            slots.extend(request.news.iter().map(|news| (request.gateway, news.slot)));
            self.core.handle_notify_result(self.at, token, Ok(&pb::NotifyReply { stale: stale.to_vec() }));
        }
        self.run();
        slots
    }
}

#[test]
fn a_session_that_is_behind_is_named_and_told_of_what_comes() {
    let mut world = World::new(1, 1 << 20);
    world.message(7, 1);
    let reply = world.report(GATEWAY, vec![online(7, 1, 1, 0), online(8, 2, 1, 0)], vec![]);
    assert_eq!(reply.behind, [pb::Behind { slot: 1, generation: 1, log_epoch: 1, newest: 1 }]);
    assert!(reply.replaced.is_empty() && reply.backend != 0);
    world.message(8, 2);
    let (_, request) = &world.notifies[0];
    assert_eq!((request.gateway, request.shard), (GATEWAY, 2));
    let news = &request.news[0];
    assert_eq!((news.slot, news.newest, news.prev, news.class), (2, 1, 0, 2));
    let page = <pb::Page as prost::Message>::decode(news.page.clone()).unwrap();
    assert_eq!((page.after, page.upto, page.changes.len(), page.more), (0, 1, 1, false));
    assert_eq!(world.told(&[]), [(GATEWAY, 2)]);
}

#[test]
fn a_late_offline_removes_only_the_route_that_is_equal() {
    let mut world = World::new(1, 1 << 20);
    world.report(GATEWAY, vec![online(7, 1, 1, 0)], vec![]);
    world.report(GATEWAY, vec![online(7, 5, 2, 0)], vec![]);
    world.report(GATEWAY, vec![], vec![offline(7, 1)]);
    world.message(7, 1);
    assert_eq!(world.told(&[]), [(GATEWAY, 5)]);
    world.report(GATEWAY, vec![], vec![offline(7, 5)]);
    world.message(7, 2);
    assert_eq!(world.told(&[]), []);
}

#[test]
fn of_racing_connects_the_highest_counter_wins_and_the_other_is_closed() {
    let mut world = World::new(1, 1 << 20);
    world.report(GATEWAY, vec![online(7, 5, 2, 0)], vec![]);
    let reply = world.report(0xbb, vec![online(7, 9, 1, 0)], vec![]);
    assert_eq!(reply.replaced, [pb::Replaced { slot: 9, generation: 1, close: 0 }]);
    world.message(7, 1);
    assert_eq!(world.told(&[]), [(GATEWAY, 5)]);
}

#[test]
fn an_older_connection_that_was_heard_of_first_is_closed_wherever_it_is() {
    let mut world = World::new(1, 1 << 20);
    world.report(GATEWAY, vec![online(7, 5, 1, 0)], vec![]);
    world.report(GATEWAY, vec![online(7, 5, 1, 0)], vec![]);
    assert!(world.notifies.is_empty(), "a repeat replaces nothing");
    let reply = world.report(0xbb, vec![online(7, 9, 2, 0)], vec![]);
    assert!(reply.replaced.is_empty());
    let (_, request) = world.notifies.pop().expect("the older gateway is told");
    assert_eq!((request.gateway, request.shard), (GATEWAY, 2));
    assert_eq!(request.replaced, [pb::Replaced { slot: 5, generation: 1, close: 0 }]);
    world.message(7, 1);
    assert_eq!(world.told(&[]), [(0xbb, 9)]);
}

#[test]
fn a_dead_gateways_routes_end_with_its_lease() {
    let mut world = World::new(1, 1 << 20);
    world.report(GATEWAY, vec![online(7, 1, 1, 0)], vec![]);
    world.pass(29_000);
    world.report(GATEWAY, vec![], vec![]);
    world.pass(29_000);
    world.message(7, 1);
    assert_eq!(world.told(&[]), [(GATEWAY, 1)]);
    world.pass(2_000);
    world.message(7, 2);
    assert_eq!(world.told(&[]), []);
    assert_eq!(world.core.counters().leases_ended, 1);
    // Its phones come back on another gateway and hear what they missed.
    let reply = world.report(0xbb, vec![online(7, 3, 2, 1)], vec![]);
    assert_eq!(reply.behind.len(), 1);
}

#[test]
fn a_stale_route_is_looked_up_again() {
    let mut world = World::new(1, 1 << 20);
    world.report(GATEWAY, vec![online(7, 1, 1, 0)], vec![]);
    world.message(7, 1);
    // While the call is in flight the phone connects anew.
    world.report(GATEWAY, vec![online(7, 6, 2, 1)], vec![]);
    world.message(7, 2);
    let (first, request) = world.notifies.remove(0);
    assert_eq!(request.news[0].slot, 1);
    assert_eq!(world.told(&[]), [(GATEWAY, 6)]);
    world.core.handle_notify_result(world.at, first, Ok(&pb::NotifyReply { stale: vec![0] }));
    world.run();
    assert_eq!(
        world.told(&[]),
        [(GATEWAY, 6)],
        "the first call named a route that had changed, so the new one is told"
    );
}

#[test]
fn a_route_that_the_gateway_does_not_know_is_removed() {
    let mut world = World::new(1, 1 << 20);
    world.report(GATEWAY, vec![online(7, 1, 1, 0)], vec![]);
    world.message(7, 1);
    world.told(&[0]);
    world.message(7, 2);
    assert_eq!(world.told(&[]), []);
}

#[test]
fn news_that_failed_are_told_again_and_unapplied_ones_swept() {
    let mut world = World::new(1, 1 << 20);
    world.report(GATEWAY, vec![online(7, 1, 1, 0)], vec![]);
    world.message(7, 1);
    let (token, _) = world.notifies.remove(0);
    world.core.handle_notify_result(world.at, token, Err(&Status::new(Code::Lost, "gone")));
    world.pass(1_500);
    assert_eq!(world.told(&[]), [(GATEWAY, 1)]);
    // The phone says nothing: a sweep later it is told again, for as long as it is connected.
    for _ in 0..3 {
        for _ in 0..7 {
            world.pass(20_000);
            world.report(GATEWAY, vec![], vec![]);
        }
        let told = world.told(&[]);
        assert!(!told.is_empty() && told.iter().all(|told| *told == (GATEWAY, 1)), "{told:?}");
    }
    world.core.applied(7, 1, Cursor::new(1, 1));
    world.pass(20_000);
    world.report(GATEWAY, vec![], vec![]);
    world.told(&[]);
    for _ in 0..7 {
        world.pass(20_000);
        world.report(GATEWAY, vec![], vec![]);
    }
    assert_eq!(world.told(&[]), []);
}

#[test]
fn idle_users_leave_memory_and_come_back() {
    let mut world = World::new(1, 1 << 20);
    world.message(7, 1);
    assert_eq!(world.core.counters().users, 2);
    world.pass(15 * 60_000);
    assert_eq!(world.core.counters().users, 0);
    world.message(7, 2);
    assert_eq!(world.log(7, 0).len(), 2);
}

#[derive(Debug, Clone)]
enum Step {
    Connect { gateway: u64, fresh: bool },
    Repeat(prop::sample::Index),
    Offline(prop::sample::Index),
    Message,
    Tell(bool),
    Applied,
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1u64..=2, any::<bool>()).prop_map(|(gateway, fresh)| Step::Connect { gateway, fresh }),
        2 => any::<prop::sample::Index>().prop_map(Step::Repeat),
        2 => any::<prop::sample::Index>().prop_map(Step::Offline),
        4 => Just(Step::Message),
        4 => any::<bool>().prop_map(Step::Tell),
        2 => Just(Step::Applied),
        1 => (0u64..40_000).prop_map(Step::Pass),
    ]
}

/// The reference: the route with the highest counter among those that were reported, unless it went
/// offline or its gateway's lease ended.
#[derive(Default)]
struct Model {
    sessions: Vec<(u64, pb::Online)>,
    route: Option<(u64, pb::Online)>,
    counter: u32,
    newest: u64,
    applied: u64,
    heard: [u64; 3],
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// A phone with a route is told of what it has not applied, whatever came late or twice.
    #[test]
    fn the_connected_phone_hears_of_the_newest(steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World::new(1, 1 << 20);
        let mut model = Model::default();
        for (index, step) in steps.iter().enumerate() {
            model.step(&mut world, index, step);
        }
        // Both gateways live on: whoever is connected hears of the newest within two sweeps.
        for (token, _) in std::mem::take(&mut world.notifies) {
            world.core.handle_notify_result(world.at, token, Ok(&pb::NotifyReply::default()));
        }
        world.run();
        model.expire(world.at);
        let mut heard = None;
        for _ in 0..9 {
            for gateway in [1, 2] {
                if world.at.now_ms < model.heard[gateway as usize] + 30_000 {
                    world.report(gateway, vec![], vec![]);
                    model.heard[gateway as usize] = world.at.now_ms;
                }
            }
            world.pass(15_000);
            for (token, request) in std::mem::take(&mut world.notifies) {
                for news in &request.news {
                    heard = Some((request.gateway, news.slot, news.newest));
                }
                world.core.handle_notify_result(world.at, token, Ok(&pb::NotifyReply::default()));
            }
            world.run();
        }
        let expected = model.route.filter(|_| model.applied < model.newest).map(|(gateway, online)| (gateway, online.slot, model.newest));
        prop_assert_eq!(heard, expected);
    }
}

impl Model {
    fn expire(&mut self, at: At) {
        if self.route.is_some_and(|(gateway, _)| self.heard[gateway as usize] + 30_000 <= at.now_ms) {
            self.route = None;
        }
    }

    fn step(&mut self, world: &mut World, index: usize, step: &Step) {
        self.expire(world.at);
        match step {
            Step::Connect { gateway, fresh } => {
                let counter =
                    if *fresh { self.sessions.len() as u32 + 1 } else { self.counter.saturating_sub(1) };
                let session = online(7, index as u32 + 1, counter, self.applied);
                self.sessions.push((*gateway, session));
                self.online(world, *gateway, session);
            }
            Step::Repeat(at) if !self.sessions.is_empty() => {
                let (gateway, session) = self.sessions[at.index(self.sessions.len())];
                self.online(world, gateway, session);
            }
            Step::Offline(at) if !self.sessions.is_empty() => {
                let (gateway, session) = self.sessions[at.index(self.sessions.len())];
                world.report(gateway, vec![], vec![offline(7, session.slot)]);
                self.heard[gateway as usize] = world.at.now_ms;
                if self.route.is_some_and(|(at, route)| (at, route.slot) == (gateway, session.slot)) {
                    self.route = None;
                }
            }
            Step::Repeat(_) | Step::Offline(_) => {}
            Step::Message => {
                world.send(99, 7, [index as u8; 10], "hello");
                world.run();
                self.newest += 1;
            }
            Step::Tell(works) => {
                for (token, _) in std::mem::take(&mut world.notifies) {
                    let (ok, lost) = (pb::NotifyReply::default(), Status::new(Code::Lost, "gone"));
                    world.core.handle_notify_result(
                        world.at,
                        token,
                        if *works { Ok(&ok) } else { Err(&lost) },
                    );
                }
                world.run();
            }
            Step::Applied => {
                world.core.applied(7, 1, Cursor::new(1, self.newest));
                if self.route.is_some() {
                    self.applied = self.newest;
                }
            }
            Step::Pass(ms) => {
                world.pass(*ms);
                // A lease ends with the next step of the sweep; in between it is as good as held.
                let lease = 30_000..30_000 + limits::SWEEP_STEP_MS;
                while self.heard.iter().any(|heard| lease.contains(&(world.at.now_ms - heard))) {
                    world.pass(limits::SWEEP_STEP_MS);
                }
            }
        }
    }

    fn online(&mut self, world: &mut World, gateway: u64, session: pb::Online) {
        let reply = world.report(gateway, vec![session], vec![]);
        self.heard[gateway as usize] = world.at.now_ms;
        if session.counter < self.counter {
            assert_eq!(reply.replaced.len(), 1);
            return;
        }
        assert!(reply.replaced.is_empty());
        assert_eq!(reply.behind.len(), usize::from(session.applied < self.newest));
        self.counter = session.counter;
        // A repeat of an old report says an old number; the phone says the rest with its next beat.
        let is_repeat = self.route.is_some_and(|(at, route)| (at, route.slot) == (gateway, session.slot));
        self.applied = if is_repeat { self.applied.max(session.applied) } else { session.applied };
        self.route = Some((gateway, session));
    }
}
