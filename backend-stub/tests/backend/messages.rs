//! From a send to what the receiver sees.

use std::time::{SystemTime, UNIX_EPOCH};

use proto_wire::names::{Cursor, UploadId};
use proto_wire::pb;
use proto_wire::pb::change::Body;
use proto_wire::services::{messages, sync};
use proto_wire::status::Code;

use crate::client::{Client, Reply, phone};
use crate::fixture::Backend;

fn upload_id(n: u8) -> UploadId {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    UploadId::new(since.as_millis() as u64, [n; 10])
}

fn text(id: UploadId, to: u64, text: &str) -> pb::SendRequest {
    pb::SendRequest { id: id.0.to_vec().into(), to, text: text.into(), ..Default::default() }
}

fn pull(client: &mut Client, user: u64, number: u64) -> Reply {
    let cursor = Some(pb::Cursor { log_epoch: 1, number });
    client.call(&sync::PULL, phone(user), &pb::PullRequest { cursor, ..Default::default() })
}

fn texts(page: &pb::Page) -> Vec<String> {
    let messages = page.changes.iter().filter_map(|change| match &change.body {
        Some(Body::Message(message)) => Some(message.text.clone()),
        _ => None,
    });
    messages.collect()
}

#[test]
fn what_is_sent_is_told_and_synced_and_survives_a_restart() {
    let mut backend = Backend::start();
    let mut client = Client::connect(backend.addr());
    assert!(client.report(&[10, 20]).behind.is_empty());
    let sent: pb::SendReply =
        client.call(&messages::SEND, phone(10), &text(upload_id(1), 20, "hello")).decode();
    assert_eq!(sent.ack, i32::from(pb::Ack::Local));
    assert_eq!(sent.number, Some(pb::Cursor { log_epoch: 1, number: 1 }));

    // Slot 2 is the receiver's; the sender's own phone is told of its change as well.
    let mut news = client.next_news();
    while !news.news.iter().any(|news| news.slot == 2) {
        news = client.next_news();
    }
    assert_eq!((news.gateway, news.shard), (5, 3));
    let told = news.news.iter().find(|news| news.slot == 2).expect("the receiver is told");
    assert_eq!((told.log_epoch, told.newest, told.prev), (1, 1, 0));

    let reply = pull(&mut client, 20, 0);
    assert_eq!(reply.cursor, Some(Cursor::new(1, 1)));
    let page: pb::Page = reply.decode();
    assert_eq!((page.after, page.upto, page.more), (0, 1, false));
    assert_eq!(texts(&page), ["hello"]);

    backend.restart();
    let mut client = Client::connect(backend.addr());
    assert_eq!(texts(&pull(&mut client, 20, 0).decode()), ["hello"]);
    assert_eq!(texts(&pull(&mut client, 10, 0).decode()), ["hello"]);
    // Both phones come back with nothing applied: they are behind, and told so.
    assert_eq!(client.report(&[10, 20]).behind.len(), 2);
}

#[test]
fn news_follow_a_shard_to_its_new_connection() {
    let backend = Backend::start();
    let mut first = Client::connect(backend.addr());
    first.report(&[10, 20]);
    drop(first);
    let mut second = Client::connect(backend.addr());
    // The shard says who it is; its sessions are known.
    second.report(&[]);
    let sent = second.call(&messages::SEND, phone(10), &text(upload_id(1), 20, "still here?"));
    assert_eq!(sent.code, Code::Ok);
    while !second.next_news().news.iter().any(|news| news.slot == 2) {}
}

#[test]
fn a_send_that_is_repeated_is_applied_once() {
    let mut backend = Backend::start();
    let mut client = Client::connect(backend.addr());
    let request = text(upload_id(1), 20, "once");
    let first: pb::SendReply = client.call(&messages::SEND, phone(10), &request).decode();
    let again: pb::SendReply = client.call(&messages::SEND, phone(10), &request).decode();
    assert!(!first.repeated && again.repeated);
    assert_eq!(first.number, again.number);
    backend.restart();
    let mut client = Client::connect(backend.addr());
    let later: pb::SendReply = client.call(&messages::SEND, phone(10), &request).decode();
    assert!(later.repeated);
    let other = pb::SendRequest { text: "another".into(), ..request };
    assert_eq!(client.call(&messages::SEND, phone(10), &other).code, Code::Conflict);
    assert_eq!(texts(&pull(&mut client, 20, 0).decode()), ["once"]);
}

#[test]
fn many_sends_at_once_arrive_in_order() {
    let backend = Backend::start();
    let mut client = Client::connect(backend.addr());
    // Many ids of one millisecond, for which the disk is asked, and some of later ones, which are new without asking.
    let created_ms = upload_id(0).created_ms();
    let id = |n: u8| UploadId::new(created_ms + u64::from(n / 50), [n; 10]);
    let calls: Vec<u64> = (0..200)
        .map(|n| client.begin(&messages::SEND, phone(10), &text(id(n), 20, &n.to_string())))
        .collect();
    for call in calls {
        assert_eq!(client.wait(call).code, Code::Ok);
    }
    let mut arrived = Vec::new();
    let mut number = 0;
    while arrived.len() < 200 {
        let page: pb::Page = pull(&mut client, 20, number).decode();
        assert_eq!(page.after, number);
        number = page.upto;
        arrived.extend(texts(&page));
    }
    let expected: Vec<String> = (0..200).map(|n| n.to_string()).collect();
    assert_eq!(arrived, expected);
    let turns = backend.metric("moorgate_backend_turns_total");
    assert!(turns < 1000, "{turns} turns: calls do not share them");
}

#[test]
fn a_group_brings_its_messages_to_all_members() {
    let backend = Backend::start();
    let mut client = Client::connect(backend.addr());
    let request = pb::CreateGroupRequest {
        id: upload_id(1).0.to_vec().into(),
        name: "three".into(),
        members: vec![20, 30],
    };
    let group: pb::CreateGroupReply = client.call(&messages::CREATE_GROUP, phone(10), &request).decode();
    let sent = client.call(&messages::SEND, phone(20), &text(upload_id(2), group.group, "to all"));
    assert_eq!(sent.code, Code::Ok);
    for user in [10, 20, 30] {
        let mut number = 0;
        while number == 0 || !texts(&pull(&mut client, user, 0).decode()).contains(&"to all".to_owned()) {
            number = pull(&mut client, user, 0).decode::<pb::Page>().upto.max(1);
        }
    }
}

#[test]
fn refusals_of_the_core_come_through() {
    let backend = Backend::start();
    let mut client = Client::connect(backend.addr());
    let long = "x".repeat(proto_wire::limits::MAX_TEXT_BYTES + 1);
    assert_eq!(client.call(&messages::SEND, phone(10), &text(upload_id(1), 20, &long)).code, Code::Limit);
    let old = text(UploadId::new(1, [1; 10]), 20, "old");
    assert_eq!(client.call(&messages::SEND, phone(10), &old).code, Code::Expired);
    assert_eq!(client.call(&messages::SEND, phone(10), &pb::SendRequest::default()).code, Code::Invalid);
}
