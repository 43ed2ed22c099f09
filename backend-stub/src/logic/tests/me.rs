//! Profile, settings, devices.

use proto_wire::pb;
use proto_wire::status::{Code, Status};

use super::World;
use crate::logic::{Answer, Verb};

const LOGGED_OUT: u32 = proto_wire::close::Reason::LoggedOut as u32;

impl World {
    fn me(&mut self, user: u64) -> pb::Me {
        let changes = self.log(user, 0);
        let mine = changes.into_iter().filter_map(|change| match change.body {
            Some(pb::change::Body::Me(me)) => Some(me),
            _ => None,
        });
        mine.last().unwrap_or_default()
    }

    /// Sessions that gateways were told to close.
    fn ends(&self) -> Vec<pb::Replaced> {
        self.notifies.iter().flat_map(|(_, notify)| notify.replaced.clone()).collect()
    }

    /// Timers run, and nothing becomes of what the store was given.
    fn pass_without_the_store(&mut self, ms: u64) {
        self.at.now_ms += ms;
        self.core.handle_timeout(self.at);
        self.turn();
    }

    fn log_in(&mut self, user: u64, device: u64) -> Result<(), Status> {
        let token = self.token();
        self.core.log_in(self.at, token, user, device, "a phone");
        self.run();
        match self.answers.remove(&token) {
            Some(Ok(Answer::Done)) => Ok(()),
            Some(Err(status)) => Err(status),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn profile_and_settings_are_one_item_of_the_log() {
    let mut world = World::new(3, 0);
    let profile = pb::Profile { nick: "Alice".into(), about: "here".into(), picture: None };
    world.upload(1, 1, 1, Verb::SetProfile { profile: profile.clone() }).expect("set");
    let set = |key: &str, value: &str| Verb::SetSetting { key: key.into(), value: value.into() };
    world.upload(1, 1, 2, set("sound", "off")).expect("set");
    world.upload(1, 1, 3, set("theme", "dark")).expect("set");
    world.upload(1, 1, 4, set("sound", "")).expect("taken away");
    let me = world.me(1);
    assert_eq!(me.profile.as_ref(), Some(&profile));
    assert_eq!(me.settings, [pb::Setting { key: "theme".into(), value: "dark".into() }]);
    let token = world.token();
    world.core.profile(token, 1);
    world.run();
    assert_eq!(world.answers.remove(&token), Some(Ok(Answer::Profile(profile))));
    assert_eq!(world.upload(1, 1, 5, set("", "x")).expect_err("no key").code, Code::Invalid);
    assert_eq!(world.upload(1, 1, 6, set("k", &"x".repeat(257))).expect_err("too long").code, Code::Limit);
    for index in 0..127u64 {
        world.upload(1, 1, 10 + index as u8, set(&format!("key {index}"), "x")).expect("set");
    }
    assert_eq!(world.upload(1, 1, 7, set("one more", "x")).expect_err("too many").code, Code::Limit);
}

#[test]
fn a_device_that_was_logged_out_is_refused_until_it_logs_in_again() {
    let mut world = World::new(3, 0);
    for device in [1, 2] {
        world.log_in(1, device).expect("logged in");
    }
    world.upload(1, 1, 1, Verb::LogOut { device: 2 }).expect("logged out");
    // A restart does not forget it.
    world.crash();
    world.run();
    let star = |on| Verb::Star { peer: 9, on };
    assert_eq!(world.upload(1, 2, 2, star(true)).expect_err("it is out").code, Code::Denied);
    world.upload(1, 1, 3, star(true)).expect("the other goes on");
    let token = world.token();
    world.core.pull(world.at, token, 1, 2, &pb::PullRequest::default());
    world.run();
    assert_eq!(world.error(token).code, Code::Denied);
    let me = world.me(1);
    assert_eq!(
        me.devices.iter().map(|known| (known.device, known.out)).collect::<Vec<_>>(),
        [(1, false), (2, true)]
    );
    world.log_in(1, 2).expect("logged in");
    world.upload(1, 2, 4, star(false)).expect("it is in again");
}

/// Its token is good for a while: it may connect, but hears of nothing.
#[test]
fn a_device_that_was_logged_out_is_told_nothing() {
    let session = |slot, counter| pb::Online {
        user: 1,
        device: 2,
        slot,
        generation: 1,
        counter,
        log_epoch: 1,
        ..Default::default()
    };
    for was_in_memory in [true, false] {
        let mut world = World::new(3, 1 << 20);
        world.log_in(1, 2).expect("logged in");
        let reply = world.report(7, vec![session(10, 1)], vec![]);
        assert!(reply.replaced.is_empty() && reply.behind.len() == 1);
        world.upload(1, 1, 1, Verb::LogOut { device: 2 }).expect("logged out");
        world.told(&[]);
        // The gateway did not hear of it.
        world.send(3, 1, [2; 10], "not for you");
        world.run();
        assert_eq!(world.told(&[]), []);
        if !was_in_memory {
            world.crash();
            world.run();
        }
        let reply = world.report(7, vec![session(11, 2)], vec![]);
        assert_eq!(reply.replaced, [pb::Replaced { slot: 11, generation: 1, close: LOGGED_OUT }]);
        assert!(reply.behind.is_empty());
        world.notifies.clear();
        world.send(3, 1, [3; 10], "nor this");
        world.run();
        world.pass(120_000);
        assert_eq!(world.told(&[]), []);
        world.log_in(1, 2).expect("logged in");
        let reply = world.report(7, vec![session(12, 3)], vec![]);
        assert!(reply.replaced.is_empty() && reply.behind.len() == 1);
    }
}

/// Device 1 logs itself out, or device 2.
#[test]
fn a_device_is_cut_off_after_the_commit_and_the_answer_to_who_logged_it_out() {
    for out in [1, 2] {
        for fails in [false, true] {
            let mut world = World::new(1, 1 << 20);
            let session = |device: u64| pb::Online {
                user: 1,
                device,
                slot: 10 + device as u32,
                generation: 1,
                counter: 1,
                log_epoch: 1,
                ..Default::default()
            };
            for device in [1, 2] {
                world.log_in(1, device).expect("logged in");
            }
            world.report(7, vec![session(1), session(2)], vec![]);
            world.pass(1_000);
            world.notifies.clear();
            world.at.unix_ms += 1;
            let token = world.start_upload(1, 1, 1, Verb::LogOut { device: out });
            world.turn();
            world.pass_without_the_store(1_000);
            assert!(!world.answers.contains_key(&token) && world.ends().is_empty(), "it is not on disk");
            if fails {
                world.store.fail(0);
                world.run();
                assert_eq!(world.error(token).code, Code::Unavailable);
                world.pass(1_000);
                assert!(world.ends().is_empty(), "it goes on");
                continue;
            }
            world.run();
            world.sent(token);
            assert!(world.ends().is_empty(), "the answer goes first");
            world.pass(1_000);
            let end = pb::Replaced { slot: 10 + out as u32, generation: 1, close: LOGGED_OUT };
            assert_eq!(world.ends(), [end]);
        }
    }
}

#[test]
fn a_device_that_is_out_is_not_pushed_from_the_list_by_others_that_log_in() {
    let mut world = World::new(1, 0);
    world.log_in(1, 2).expect("logged in");
    world.upload(1, 1, 1, Verb::LogOut { device: 2 }).expect("logged out");
    for device in 3..=20 {
        world.log_in(1, device).expect("logged in");
    }
    assert_eq!(world.me(1).devices.len(), 16);
    let star = Verb::Star { peer: 9, on: true };
    assert_eq!(world.upload(1, 2, 2, star).expect_err("it is out").code, Code::Denied);
}
