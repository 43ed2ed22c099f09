//! A notice for all phones, and phones that come back with a ticket.

use std::sync::Arc;

use prost::Message;
use proto_wire::close::Reason;
use proto_wire::frame;
use proto_wire::names::Cursor;
use proto_wire::pb;
use proto_wire::rpc::header::{Header, Kind};
use proto_wire::services::gateway;
use proto_wire::status::Code;
use proto_wire_token::{Resuming, TicketKeys, Verifier};

use super::backend::Connection;
use super::phone::{End, Phone, hello};
use super::{Command, GATEWAY, Stage, wait_for};

/// Calls Broadcast and gives the status.
fn broadcast(backend: &mut Connection, gateway: u64, notice: Vec<u8>) -> Code {
    let header = Header { kind: Kind::Call, method: gateway::BROADCAST.id, call_id: 9, ..Header::default() };
    let request = pb::BroadcastRequest { gateway, notice: notice.into() };
    backend.send(&header, &request.encode_to_vec());
    loop {
        let (header, _) = backend.call();
        if header.kind == Kind::Reply {
            return header.code();
        }
    }
}

#[test]
fn a_notice_for_all_reaches_who_is_there_with_a_token() {
    let stage = Stage::new();
    let mut backend = stage.backend.accept();
    let mut phones: Vec<Phone> =
        (1..=3).map(|user| Phone::welcomed(stage.listen, &stage.token(user))).collect();
    let mut nobody = Phone::connect(stage.listen);
    nobody.send(&hello("", 9, 1, Cursor::default()));
    assert_eq!(nobody.frame().expect("an answer").0, frame::kind::WELCOME);
    assert_eq!(broadcast(&mut backend, GATEWAY, b"all of you".to_vec()), Code::Ok);
    for phone in &mut phones {
        assert_eq!(phone.frame(), Some((frame::kind::EVENT, b"all of you".to_vec())));
        phone.beats();
    }
    nobody.beats();
    assert_eq!(stage.counters.broadcast_phones.value(), 3);
}

#[test]
fn a_notice_for_another_gateway_or_too_long_is_refused() {
    let stage = Stage::new();
    let mut backend = stage.backend.accept();
    assert_eq!(broadcast(&mut backend, GATEWAY + 1, b"x".to_vec()), Code::Unavailable);
    assert_eq!(broadcast(&mut backend, GATEWAY, vec![0; 4097]), Code::Limit);
    assert_eq!(broadcast(&mut backend, GATEWAY, vec![0; 4096]), Code::Ok);
}

/// A stage whose gateway gives tickets.
fn resuming() -> Stage {
    let stage = Stage::new();
    let tokens = Verifier::from_pems(&[&stage.issuer.public_pem()]).expect("a key");
    let keys = Arc::new(Resuming { tokens, tickets: TicketKeys::new([3; 32]) });
    let shard = stage.shard.as_ref().expect("runs");
    assert!(shard.send(Command::ReloadKeys(keys)));
    stage
}

fn with_ticket(ticket: &[u8], device: u64, counter: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let ticket = ticket.to_vec().into();
    let hello = pb::Hello { version_major: 1, ticket, device, counter, ..Default::default() };
    frame::put_message(&mut out, frame::kind::HELLO, &hello);
    out
}

#[test]
fn a_phone_comes_back_with_its_ticket_and_nobody_else_does() {
    let stage = resuming();
    let mut phone = Phone::connect(stage.listen);
    phone.send(&hello(&stage.token(5), 9, 1, Cursor::default()));
    let (_, body) = phone.frame().expect("WELCOME");
    let welcome = pb::Welcome::decode(&body[..]).expect("WELCOME");
    assert!(welcome.ticket_good_s > 0);
    drop(phone);
    let mut again = Phone::connect(stage.listen);
    again.send(&with_ticket(&welcome.ticket, 9, 2));
    let (kind, body) = again.frame().expect("an answer");
    assert_eq!(kind, frame::kind::WELCOME);
    let renewed = pb::Welcome::decode(&body[..]).expect("WELCOME");
    assert_eq!((renewed.user, renewed.ticket.len()), (5, welcome.ticket.len()));
    wait_for("a HELLO was resumed", &stage.counters.resumed, 1);

    let mut thief = Phone::connect(stage.listen);
    thief.send(&with_ticket(&welcome.ticket, 10, 1));
    assert_eq!(thief.end(), End::Close(Reason::Ticket as u32), "it is bound to its device");
    let mut forger = Phone::connect(stage.listen);
    let mut forged = welcome.ticket.to_vec();
    forged[5] ^= 1;
    forger.send(&with_ticket(&forged, 9, 3));
    assert_eq!(forger.end(), End::Close(Reason::Ticket as u32));
    assert_eq!(stage.closed(Reason::Ticket), 2);
}
