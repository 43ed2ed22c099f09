//! A notice for everybody, over all shards and gateways; and phones that come back with a ticket after their gateway
//! was killed.

use proto_wire::pb::notice::What;
use tests::{Launch, System, http_post, limits};

/// Enough that every shard of both gateways has some.
const PHONES: usize = 40;

#[test]
fn one_call_reaches_every_phone_of_every_gateway_once() {
    let mut system = System::new("everybody").expect("a system");
    system.add_gateway().expect("another gateway");
    system.start_all().expect("started");
    let mut fleet = system.fleet(1).expect("phones");
    let phones: Vec<_> = (1..=PHONES as u64).map(|user| fleet.add(user)).collect();
    for (at, &phone) in phones.iter().enumerate() {
        fleet.connect_to(phone, at % 2);
    }
    fleet.run_until("WELCOME", limits::SOON_MS, |fleet| fleet.up() == PHONES).expect("up");
    let admin = system.backend.admin();
    let answer = http_post(admin, "/broadcast", "high tide at noon").expect("an answer");
    assert!(answer.0 == 200 && answer.1.contains("\"gateways\":2"), "{answer:?}");
    let heard = |fleet: &tests::fleet::Fleet, phone| {
        let notices = fleet.seen(phone).notices.iter();
        notices
            .filter(|n| matches!(&n.what, Some(What::Announcement(a)) if a.text == "high tide at noon"))
            .count()
    };
    let all = |fleet: &tests::fleet::Fleet| phones.iter().all(|&phone| heard(fleet, phone) > 0);
    fleet.run_until("the notice", limits::SOON_MS, all).expect("told");
    fleet.run_for(300);
    assert!(phones.iter().all(|&phone| heard(&fleet, phone) == 1), "nobody hears it twice");
    let too_long = http_post(admin, "/broadcast", &"x".repeat(5_000)).expect("an answer");
    assert_eq!(too_long.0, 413, "{too_long:?}");
}

#[test]
fn after_a_kill_phones_come_back_by_ticket_where_the_key_is_shared() {
    for shares in [true, false] {
        let mut system = System::new("tickets").expect("a system");
        if shares {
            let key = system.dir.join("ticket.key");
            let made = Launch::of("moorgate", &system.dir).expect("built").log_as("key").arg("ticket-key");
            let mut made = made.start().expect("started");
            made.wait_for_end(limits::SOON_MS).expect("made");
            std::fs::write(&key, made.log()).expect("written");
            system.gateway().add_arg("--ticket-key");
            system.gateway().add_arg(key);
        }
        system.start_all().expect("started");
        let mut fleet = system.fleet(1).expect("phones");
        let phones = fleet.add_many(100, PHONES).expect("up");
        system.gateway().kill().expect("killed");
        system.gateway().start().expect("started again");
        let back = |fleet: &tests::fleet::Fleet| phones.iter().all(|&phone| fleet.seen(phone).welcomes == 2);
        fleet.run_until("WELCOME again", limits::SOON_MS, back).expect("back");
        let resumed = system.gateway().metric("moorgate_resumed_total").expect("a counter");
        let refused = system.gateway().metric("moorgate_closed_total{reason=\"ticket\"}").expect("a counter");
        let expected = if shares { (PHONES as u64, 0) } else { (0, PHONES as u64) };
        assert_eq!((resumed, refused), expected, "the key is shared: {shares}");
    }
}
