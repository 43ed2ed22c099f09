//! From phone to phone, through real processes.

use prost::Message;
use proto_wire::pb;
use proto_wire::services::echo;
use proto_wire::status::Code;
use tests::{System, limits};

const ALICE: u64 = 11;
const BOB: u64 = 12;

#[test]
fn a_message_reaches_its_receiver_and_its_senders_log() {
    let system = System::start("message").expect("a system");
    let mut fleet = system.fleet(1).expect("phones");
    let alice = fleet.add_up(ALICE).expect("up");
    let bob = fleet.add_up(BOB).expect("up");
    let id = fleet.send_and_wait(alice, BOB).expect("acknowledged");
    fleet.settle(limits::SOON_MS).expect("delivered");
    assert!(fleet.history.has(bob.0, id) && fleet.history.has(alice.0, id));
    fleet.assert_good();
    assert_eq!(fleet.seen(bob).gaps + fleet.seen(bob).snapshots + fleet.seen(bob).syncs_failed, 0);
}

#[test]
fn an_echo_comes_back_whole() {
    let system = System::start("echo").expect("a system");
    let mut fleet = system.fleet(1).expect("phones");
    let alice = fleet.add_up(ALICE).expect("up");
    for bytes in [0, 1, 1_400, 4_096, 50_000] {
        let payload = bytes::Bytes::from((0..bytes).map(|at| at as u8).collect::<Vec<u8>>());
        let request = pb::EchoRequest { payload: payload.clone() }.encode_to_vec();
        let handle = fleet.call(alice, echo::SAY.id, request.into(), 10_000);
        let reply = fleet.wait_for_reply(alice, handle).expect("a reply");
        assert_eq!(reply.status, Code::Ok, "{}", reply.text());
        assert_eq!(pb::EchoReply::decode(reply.body).expect("a reply").payload, payload);
    }
}

#[test]
fn all_members_see_a_group_in_one_order() {
    let system = System::start("group").expect("a system");
    let mut fleet = system.fleet(2).expect("phones");
    let phones = fleet.add_many(100, 20).expect("up");
    let members: Vec<u64> = (101..120).collect();
    let group = fleet.make_group(phones[0], &members).expect("a group");
    for _ in 0..10 {
        for &phone in &phones {
            fleet.send(phone, group);
        }
        fleet.turn(u64::MAX);
    }
    fleet.settle(limits::SOON_MS).expect("delivered");
    fleet.assert_good();
}

#[test]
fn many_write_to_one_and_each_senders_order_is_kept() {
    let system = System::start("many").expect("a system");
    let mut fleet = system.fleet(3).expect("phones");
    let phones = fleet.add_many(100, 30).expect("up");
    for _ in 0..20 {
        for &phone in &phones[1..] {
            fleet.send(phone, 100);
        }
        fleet.turn(u64::MAX);
    }
    fleet.settle(limits::SOON_MS).expect("delivered");
    fleet.assert_good();
}
