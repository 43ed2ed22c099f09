//! Who is where: no phone waits for ever for news.

use nix::sys::signal::Signal;
use proto_wire::close::Reason;
use proto_wire::phone::CloseReason;
use tests::{System, limits};

const ALICE: u64 = 11;
const BOB: u64 = 12;

const REPLACED: CloseReason = CloseReason::Server(Reason::Replaced as u16);

#[test]
fn news_while_a_phone_is_offline_are_told_when_it_comes() {
    let system = System::start("offline").expect("a system");
    let mut fleet = system.fleet(1).expect("phones");
    let alice = fleet.add_up(ALICE).expect("up");
    let bob = fleet.add_up(BOB).expect("up");
    fleet.cut(bob);
    for _ in 0..5 {
        fleet.send_and_wait(alice, BOB).expect("acknowledged");
    }
    // A phone that never asks by itself: what it gets, it was told.
    let other = fleet.add_device(BOB, 99, 0);
    fleet.connect(other);
    fleet.run_until("delivery", limits::SOON_MS, |fleet| fleet.seen(other).changes == 5).expect("told");
    fleet.connect(bob);
    fleet.settle(limits::SOON_MS).expect("delivered");
    fleet.assert_good();
}

#[test]
fn all_phones_of_a_user_are_told() {
    let system = System::start("devices").expect("a system");
    let mut fleet = system.fleet(1).expect("phones");
    let alice = fleet.add_up(ALICE).expect("up");
    let phones: Vec<_> = (0..4).map(|device| fleet.add_device(BOB, 100 + device, 0)).collect();
    phones.iter().for_each(|&phone| fleet.connect(phone));
    fleet.run_until("WELCOME", limits::SOON_MS, |fleet| fleet.up() == 5).expect("up");
    for _ in 0..5 {
        fleet.send_and_wait(alice, BOB).expect("acknowledged");
    }
    fleet.settle(limits::SOON_MS).expect("delivered");
    fleet.assert_good();
}

#[test]
fn of_racing_connects_of_one_device_the_highest_counter_wins() {
    let mut system = System::new("racing").expect("a system");
    system.add_gateway().expect("another gateway");
    system.start_all().expect("started");
    let mut fleet = system.fleet(1).expect("phones");
    let alice = fleet.add_up(ALICE).expect("up");
    // The later connection of a device may be heard of first, and by another gateway.
    let counters = [7, 3, 9, 5, 1];
    let phones: Vec<_> = counters.iter().map(|&counter| fleet.add_device(BOB, BOB, counter)).collect();
    for (at, &phone) in phones.iter().enumerate() {
        fleet.connect_to(phone, at % 2);
    }
    let (winner, losers) = (phones[2], [phones[0], phones[1], phones[3], phones[4]]);
    let is_over =
        |fleet: &tests::fleet::Fleet| losers.iter().all(|&phone| fleet.seen(phone).closes == [REPLACED]);
    fleet.run_until("CLOSE of the older ones", limits::SOON_MS, is_over).expect("replaced");
    losers.iter().for_each(|phone| fleet.history.set_judged(phone.0, false));
    let id = fleet.send_and_wait(alice, BOB).expect("acknowledged");
    fleet.settle(limits::SOON_MS).expect("delivered");
    assert!(fleet.is_up(winner) && fleet.history.has(winner.0, id));
    assert!(fleet.seen(winner).closes.is_empty(), "{:?}", fleet.seen(winner));
    fleet.assert_good();
}

#[test]
fn a_late_offline_does_not_remove_the_newer_route() {
    let mut system = System::new("late").expect("a system");
    system.add_gateway().expect("another gateway");
    system.start_all().expect("started");
    let mut fleet = system.fleet(1).expect("phones");
    let alice = fleet.add(ALICE);
    fleet.connect_to(alice, 1);
    let bob = fleet.add_up(BOB).expect("up");
    fleet.run_until("WELCOME", limits::SOON_MS, |fleet| fleet.is_up(alice)).expect("up");
    fleet.send_and_wait(alice, BOB).expect("acknowledged");
    fleet.settle(limits::SOON_MS).expect("delivered");
    // The first gateway hears nothing for a while, and bob comes back over the second.
    system.gateways[0].running().pause().expect("stopped");
    fleet.cut(bob);
    fleet.connect_to(bob, 1);
    fleet.run_until("WELCOME", limits::SOON_MS, |fleet| fleet.is_up(bob)).expect("up");
    fleet.send_and_wait(alice, BOB).expect("acknowledged");
    fleet.settle(limits::SOON_MS).expect("delivered over the second gateway");
    // Now it learns that the old connection is gone, and says so.
    system.gateways[0].running().signal(Signal::SIGCONT).expect("going on");
    system.gateways[0].wait_for_metric("moorgate_connections", |connections| connections == 0).expect("gone");
    for _ in 0..10 {
        fleet.send_and_wait(alice, BOB).expect("acknowledged");
        fleet.settle(limits::SOON_MS).expect("delivered around the late offline");
    }
    fleet.settle(limits::SOON_MS).expect("delivered after the late offline");
    assert_eq!(fleet.seen(bob).welcomes, 2);
    fleet.assert_good();
}

#[test]
fn a_gateway_dies_and_its_phones_come_back_on_another() {
    let mut system = System::new("failover").expect("a system");
    system.add_gateway().expect("another gateway");
    system.start_all().expect("started");
    let mut fleet = system.fleet(1).expect("phones");
    let phones = fleet.add_many(100, 50).expect("up");
    for &phone in &phones {
        fleet.send(phone, 100 + (fleet.user(phone) - 99) % 50);
    }
    system.gateways[0].kill().expect("killed");
    // These are in flight, and these come while most are away.
    for &phone in &phones {
        fleet.send(phone, 100 + (fleet.user(phone) - 98) % 50);
    }
    fleet.settle(limits::SOON_MS).expect("delivered over the other gateway");
    let came_back = phones.iter().filter(|&&phone| fleet.seen(phone).welcomes == 2).count();
    assert_eq!(came_back, 50);
    fleet.assert_good();
}
