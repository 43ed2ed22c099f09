//! The backend is gone, or slow: connections stay, calls end clearly, and nothing that was acknowledged is lost.

use bytes::Bytes;
use nix::sys::signal::Signal;
use prost::Message;
use proto_wire::names::UploadId;
use proto_wire::pb;
use proto_wire::services::{echo, messages};
use proto_wire::status::Code;
use tests::fleet::{self, Fleet};
use tests::wire::Wire;
use tests::{System, limits};

const ALICE: u64 = 11;
const BOB: u64 = 12;

fn welcomes(fleet: &Fleet, phones: &[fleet::PhoneId]) -> u32 {
    phones.iter().map(|&phone| fleet.seen(phone).welcomes).sum()
}

#[test]
fn a_backends_restart_keeps_all_connections() {
    let mut system = System::start("restart").expect("a system");
    let mut fleet = system.fleet(1).expect("phones");
    let phones = fleet.add_many(100, 100).expect("up");
    system.backend.kill().expect("killed");
    for &phone in &phones {
        fleet.send(phone, 100 + (fleet.user(phone) - 99) % 100);
    }
    fleet.run_for(500);
    assert_eq!((fleet.up(), fleet.in_flight()), (100, 100));
    system.backend.start().expect("started again");
    fleet.settle(limits::SOON_MS).expect("delivered");
    assert_eq!(welcomes(&fleet, &phones), 100, "a phone lost its connection");
    fleet.assert_good();
}

#[test]
fn without_a_backend_a_call_gets_a_clear_status() {
    let mut system = System::start("unavailable").expect("a system");
    let token = fleet::token(&system.issuer().expect("a key"), ALICE);
    let mut phone = Wire::greet(system.gateway().address(), &token, 1).expect("welcomed");
    system.backend.kill().expect("killed");
    system.gateway().wait_for_metric("moorgate_upstream_up", |up| up == 0).expect("noticed");
    phone.call(1, echo::SAY.id, 500, b"").expect("sent");
    let (status, text) = phone.reply(1).expect("a reply");
    let is_clear = [Code::Unavailable, Code::Deadline].contains(&status);
    assert!(is_clear && !text.is_empty(), "{status:?}: {:?}", String::from_utf8_lossy(&text));
    system.backend.start().expect("started again");
    system.gateway().wait_until_ready().expect("connected again");
    phone.call(2, echo::SAY.id, 10_000, b"").expect("sent");
    assert_eq!(phone.reply(2).expect("a reply").0, Code::Ok);
}

#[test]
fn news_while_the_backend_is_down_are_told_after_without_further_news() {
    let mut system = System::start("down").expect("a system");
    let mut fleet = system.fleet(1).expect("phones");
    let alice = fleet.add_up(ALICE).expect("up");
    let bob = fleet.add_up(BOB).expect("up");
    fleet.cut(bob);
    for _ in 0..3 {
        fleet.send_and_wait(alice, BOB).expect("acknowledged");
    }
    system.backend.kill().expect("killed");
    // Bob is let in without the backend, which cannot tell him anything yet.
    let other = fleet.add_device(BOB, 99, 0);
    fleet.connect(other);
    fleet.run_until("WELCOME", limits::SOON_MS, |fleet| fleet.is_up(other)).expect("welcomed");
    assert_eq!(fleet.seen(other).changes, 0);
    system.backend.start().expect("started again");
    fleet.run_until("delivery", limits::SOON_MS, |fleet| fleet.seen(other).changes == 3).expect("told");
    fleet.connect(bob);
    fleet.settle(limits::SOON_MS).expect("delivered");
    fleet.assert_good();
}

#[test]
fn what_was_acknowledged_just_before_a_kill_is_told_after_without_further_news() {
    let mut system = System::start("just-before").expect("a system");
    let mut fleet = system.fleet(1).expect("phones");
    let phones = fleet.add_many(100, 40).expect("up");
    for round in 0..5 {
        for &phone in &phones {
            fleet.send(phone, 100 + (fleet.user(phone) - 99 + round) % 40);
        }
        // As soon as the first is acknowledged: many deliveries are not begun.
        let before = fleet.history.acknowledged_in_all();
        fleet
            .run_until("an acknowledgement", limits::SOON_MS, |fleet| {
                fleet.history.acknowledged_in_all() > before
            })
            .expect("acknowledged");
        system.backend.kill().expect("killed");
        system.backend.start().expect("started again");
        fleet.settle(limits::SOON_MS).expect("delivered");
    }
    assert_eq!(welcomes(&fleet, &phones), 40, "a phone lost its connection");
    fleet.assert_good();
}

#[test]
fn an_upload_repeated_across_a_kill_is_applied_once() {
    let mut system = System::start("repeated").expect("a system");
    let issuer = system.issuer().expect("a key");
    let mut phone =
        Wire::greet(system.gateway().address(), &fleet::token(&issuer, ALICE), 1).expect("welcomed");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let id = UploadId::new(now.as_millis() as u64, [7; 10]);
    let (id, text) = (Bytes::copy_from_slice(&id.0), "once".to_owned());
    let request = pb::SendRequest { id, to: BOB, text, ..Default::default() };
    let body = request.encode_to_vec();
    let mut numbers = Vec::new();
    for call in 1..=6 {
        if call % 2 == 0 {
            system.backend.kill().expect("killed");
            system.backend.start().expect("started again");
            system.gateway().wait_until_ready().expect("connected again");
        }
        let (status, reply) = send_until_taken(&mut phone, call, &body);
        assert_eq!(status, Code::Ok, "{}", String::from_utf8_lossy(&reply));
        let reply = pb::SendReply::decode(&reply[..]).expect("a reply");
        assert_eq!(reply.repeated, call > 1, "call {call}");
        numbers.push(reply.number.unwrap_or_default());
    }
    assert!(numbers.iter().all(|number| *number == numbers[0]), "{numbers:?}");
    // The same id for something else is refused.
    let other = pb::SendRequest { text: "other".to_owned(), ..request }.encode_to_vec();
    assert_eq!(send_until_taken(&mut phone, 7, &other).0, Code::Conflict);
    // Bob has it once.
    let mut bob = Wire::greet(system.gateway().address(), &fleet::token(&issuer, BOB), 2).expect("welcomed");
    let pull = pb::PullRequest { cursor: Some(pb::Cursor::default()), ..Default::default() };
    bob.call(1, proto_wire::services::sync::PULL.id, 0, &pull.encode_to_vec()).expect("sent");
    let (status, page) = bob.reply(1).expect("a page");
    assert_eq!(status, Code::Ok);
    assert_eq!(pb::Page::decode(&page[..]).expect("a page").changes.len(), 1);
}

/// The backend may just have come back: a status that says "not applied" is not the end.
fn send_until_taken(phone: &mut Wire, call: u32, body: &[u8]) -> (Code, Vec<u8>) {
    for attempt in 0..100 {
        let id = call * 1000 + attempt;
        phone.call(id, messages::SEND.id, 0, body).expect("sent");
        let (status, reply) = phone.reply(id).expect("a reply");
        if !status.is_safe_to_retry() && status != Code::Lost {
            return (status, reply);
        }
        std::thread::sleep(std::time::Duration::from_millis(limits::POLL_EVERY_MS));
    }
    panic!("the backend never took it");
}

#[test]
fn with_a_slow_backend_connections_stay_and_calls_end_with_deadline() {
    let mut system = System::start("slow").expect("a system");
    let mut fleet = system.fleet(1).expect("phones");
    let phones = fleet.add_many(100, 20).expect("up");
    let token = fleet::token(&system.issuer().expect("a key"), ALICE);
    let mut bare = Wire::greet(system.gateway().address(), &token, 1).expect("welcomed");
    system.backend.running().pause().expect("stopped");
    for id in 1..=10 {
        bare.call(id, echo::SAY.id, 300, b"").expect("sent");
    }
    for id in 1..=10 {
        let (status, text) = bare.reply(id).expect("a reply, though the backend says nothing");
        assert!(
            status == Code::Deadline || status == Code::Unavailable,
            "{status:?}: {}",
            String::from_utf8_lossy(&text)
        );
        assert!(id > 1 || status == Code::Deadline, "{status:?}");
    }
    for &phone in &phones {
        fleet.send(phone, 100 + (fleet.user(phone) - 99) % 20);
    }
    fleet.run_for(300);
    system.backend.running().signal(Signal::SIGCONT).expect("going on");
    fleet.settle(limits::SOON_MS).expect("delivered");
    assert_eq!(welcomes(&fleet, &phones), 20, "a phone lost its connection");
    bare.call(11, echo::SAY.id, 10_000, b"").expect("sent");
    assert_eq!(bare.reply(11).expect("a reply").0, Code::Ok);
    fleet.assert_good();
}
