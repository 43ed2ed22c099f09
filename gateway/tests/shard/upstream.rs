//! Calls up, news down, and a backend that breaks the rules.

use std::io::Write;

use gateway::config::Limits;
use prost::Message;
use proto_wire::close::Reason;
use proto_wire::frame::{self, Beat, Notify};
use proto_wire::names::{Cursor, section_of};
use proto_wire::pb;
use proto_wire::rpc::header::{Header, Kind};
use proto_wire::services;
use proto_wire::status::Code;

use super::phone::{End, Phone, hello};
use super::{GATEWAY, Stage, wait_for, wait_until};

fn acknowledged() -> pb::ReportReply {
    pb::ReportReply { backend: 1, ..Default::default() }
}

/// The session that the backend is told of next.
fn next_online(backend: &mut super::backend::Connection) -> pb::Online {
    loop {
        if let Some(online) = backend.report(&acknowledged()).online.pop() {
            return online;
        }
    }
}

fn news(online: &pb::Online, newest: u64, prev: u64, page: &'static [u8]) -> pb::News {
    pb::News {
        slot: online.slot,
        generation: online.generation,
        class: 2,
        log_epoch: 1,
        newest,
        prev,
        page: page.into(),
    }
}

fn request(news: Vec<pb::News>) -> pb::NotifyRequest {
    pb::NotifyRequest { gateway: GATEWAY, shard: 3, news, ..Default::default() }
}

#[test]
fn the_first_frame_to_a_backend_says_whose_connection_it_is() {
    let stage = Stage::new();
    let mut backend = stage.backend.accept();
    let report = backend.report(&acknowledged());
    assert_eq!((report.gateway, report.shard), (GATEWAY, 3));
}

#[test]
fn a_call_carries_who_makes_it_and_its_reply_comes_back() {
    let stage = Stage::new();
    let mut backend = stage.backend.accept();
    let mut phone = Phone::welcomed(stage.listen, &stage.token(5));
    phone.call(41, services::sync::PULL.id, b"opaque");
    let (call, body) = backend.call();
    let identity = call.identity.expect("an identity");
    assert_eq!((identity.user, identity.device, call.section), (5, 9, section_of(5)));
    assert_eq!((identity.route.gateway, identity.route.shard), (GATEWAY, 3));
    assert_eq!((call.cursor, &body[..]), (Some(Cursor::new(1, 4)), &b"opaque"[..]));
    assert_eq!(call.deadline_ms, services::sync::PULL.deadline_ms);
    let given = Some(Cursor::new(1, 8));
    let reply = Header { kind: Kind::Reply, call_id: call.call_id, cursor: given, ..Header::default() };
    backend.send(&reply, b"page");
    let (kind, body) = phone.frame().expect("a reply");
    assert_eq!(kind, frame::kind::REPLY);
    let reply = frame::Reply::parse(&body).expect("a reply");
    assert_eq!((reply.id, reply.status, reply.given, reply.body), (41, Code::Ok, given, &b"page"[..]));
}

#[test]
fn news_reaches_the_phone_and_a_stale_or_forged_route_is_answered() {
    let stage = Stage::new();
    let mut backend = stage.backend.accept();
    let mut phone = Phone::connect(stage.listen);
    phone.send(&hello(&stage.token(5), 9, 1, Cursor::new(1, 4)));
    phone.frame().expect("welcome");
    let online = next_online(&mut backend);
    assert_eq!((online.user, online.applied, online.counter), (5, 4, 1));
    let mut forged = news(&online, 9, 0, b"");
    forged.slot = 4_000_000_000;
    let mut stale = news(&online, 9, 0, b"");
    stale.generation += 1;
    let told = backend.notify(&request(vec![forged, news(&online, 5, 4, b"changes"), stale]));
    assert_eq!(told, [0, 2]);
    let (kind, body) = phone.frame().expect("a notify");
    assert_eq!(kind, frame::kind::NOTIFY);
    let notify = Notify::parse(&body).expect("a notify");
    assert_eq!(notify.newest, Cursor::new(1, 5));
    assert_eq!(notify.inline.map(|inline| inline.page), Some(&b"changes"[..]));
    let elsewhere = pb::NotifyRequest { gateway: GATEWAY + 1, ..request(vec![news(&online, 6, 5, b"")]) };
    assert_eq!(backend.notify(&elsewhere), [0], "another gateway's route");
    // What the phone applied is reported.
    let mut out = Vec::new();
    Beat { applied: Some(Cursor::new(1, 5)) }.put(&mut out);
    phone.send(&out);
    let applied = loop {
        if let Some(applied) = backend.report(&acknowledged()).applied.pop() {
            break applied;
        }
    };
    assert_eq!((applied.user, applied.number), (5, 5));
}

#[test]
fn who_is_behind_is_told_and_who_was_replaced_is_closed() {
    let stage = Stage::new();
    let mut backend = stage.backend.accept();
    let mut phone = Phone::welcomed(stage.listen, &stage.token(5));
    let (online, call) = loop {
        let (header, body) = backend.frame();
        let report = pb::ReportRequest::decode(&body[..]).expect("a report");
        if let Some(online) = report.online.first() {
            break (*online, header);
        }
        backend.answer(&header, &acknowledged().encode_to_vec());
    };
    let (slot, generation) = (online.slot, online.generation);
    let reply = pb::ReportReply {
        behind: vec![pb::Behind { slot, generation, log_epoch: 1, newest: 3 }],
        ..acknowledged()
    };
    backend.answer(&call, &reply.encode_to_vec());
    assert_eq!(phone.frame().expect("a notify").0, frame::kind::NOTIFY);
    let reply = pb::ReportReply {
        replaced: vec![pb::Replaced { slot, generation, ..Default::default() }],
        ..acknowledged()
    };
    let other = Phone::welcomed(stage.listen, &stage.token(6));
    backend.report(&reply);
    assert_eq!(phone.end(), End::Close(Reason::Replaced as u32));
    drop(other);
}

#[test]
fn a_session_that_was_replaced_elsewhere_is_closed_by_news() {
    let stage = Stage::new();
    let mut backend = stage.backend.accept();
    let phone = Phone::welcomed(stage.listen, &stage.token(5));
    let online = next_online(&mut backend);
    let gone = pb::Replaced { slot: online.slot, generation: online.generation + 1, ..Default::default() };
    let here = pb::Replaced { slot: online.slot, generation: online.generation, ..Default::default() };
    let told = pb::NotifyRequest { replaced: vec![gone, here], ..request(vec![]) };
    assert!(backend.notify(&told).is_empty());
    assert_eq!(phone.end(), End::Close(Reason::Replaced as u32));
}

#[test]
fn an_end_is_reported_with_the_route_that_ended() {
    let stage = Stage::new();
    let mut backend = stage.backend.accept();
    let phone = Phone::welcomed(stage.listen, &stage.token(5));
    let online = next_online(&mut backend);
    drop(phone);
    let offline = loop {
        if let Some(offline) = backend.report(&acknowledged()).offline.pop() {
            break offline;
        }
    };
    assert_eq!((offline.user, offline.slot, offline.generation), (5, online.slot, online.generation));
}

#[test]
fn after_a_backends_restart_all_sessions_are_announced_again_and_stay() {
    let stage = Stage::new();
    let mut backend = stage.backend.accept();
    let mut phones: Vec<_> = (1..=5).map(|user| Phone::welcomed(stage.listen, &stage.token(user))).collect();
    let mut seen = 0;
    while seen < 5 {
        seen += backend.report(&acknowledged()).online.len();
    }
    phones[0].call(1, services::echo::SAY.id, b"x");
    backend.call();
    drop(backend);
    let (id, status, _) = phones[0].reply();
    assert_eq!((id, Code(status)), (1, Code::Lost));
    let mut backend = stage.backend.accept();
    let mut users = Vec::new();
    while users.len() < 5 {
        users.extend(
            backend
                .report(&pb::ReportReply { backend: 2, ..Default::default() })
                .online
                .iter()
                .map(|o| o.user),
        );
    }
    users.sort_unstable();
    assert_eq!(users, [1, 2, 3, 4, 5]);
    phones.iter_mut().for_each(Phone::beats);
    phones[0].call(2, services::echo::SAY.id, b"x");
    let (call, _) = backend.call();
    backend.answer(&call, b"y");
    assert_eq!(phones[0].reply(), (2, 0, b"y".to_vec()));
}

#[test]
fn a_backend_that_breaks_the_protocol_is_left_and_phones_stay() {
    let stage = Stage::new();
    let mut phone = Phone::welcomed(stage.listen, &stage.token(5));
    let mut backend = stage.backend.accept();
    backend.report(&acknowledged());
    backend.stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").expect("written");
    wait_for("garbage is noticed", &stage.counters.upstream_misbehaved, 1);
    let mut backend = stage.backend.accept();
    backend.report(&acknowledged());
    backend.send(&Header { kind: Kind::Reply, call_id: 77 << 32 | 5, ..Header::default() }, b"");
    wait_for("an answer to nothing is noticed", &stage.counters.upstream_misbehaved, 2);
    let mut backend = stage.backend.accept();
    let (header, _) = backend.frame();
    let mut huge = Vec::new();
    Header { kind: Kind::Reply, call_id: header.call_id, ..Header::default() }.put(&[], &mut huge);
    huge[8..12].copy_from_slice(&(100u32 << 20).to_le_bytes());
    backend.stream.write_all(&huge).expect("written");
    wait_for("a length beyond reason is noticed", &stage.counters.upstream_misbehaved, 3);
    phone.beats();
}

#[test]
fn without_a_backend_connections_stay_and_calls_end_within_their_deadline() {
    let stage = Stage::new();
    let mut phone = Phone::welcomed(stage.listen, &stage.token(5));
    let mut backend = stage.backend.accept();
    wait_for("it is up", &stage.counters.upstream_up, 1);
    // It hangs: it takes the call and never answers.
    let mut out = Vec::new();
    let (method, body) = (services::echo::SAY.id, &b"x"[..]);
    frame::Call { id: 1, method, attempt: 0, deadline_ms: 200, applied: None, body }.put(&mut out);
    phone.send(&out);
    let (id, status, text) = phone.reply();
    assert_eq!((id, Code(status)), (1, Code::Deadline));
    assert!(!text.is_empty());
    // The answer comes after all: too late for the phone, and no misbehaviour.
    let (call, _) = backend.call();
    backend.answer(&call, b"y");
    wait_for("it is counted", &stage.counters.upstream_late, 1);
    assert_eq!(stage.counters.upstream_misbehaved.value(), 0);
    drop(backend);
    phone.beats();
}

#[test]
fn a_stop_says_goodbye() {
    let mut stage = Stage::with(Limits::default(), 100);
    let phone = Phone::welcomed(stage.listen, &stage.token(5));
    stage.stop();
    assert_eq!(phone.end(), End::Close(Reason::GoingAway as u32));
}

#[test]
fn a_drain_asks_phones_to_go_and_accepts_no_more() {
    let stage = Stage::new();
    let mut phone = Phone::welcomed(stage.listen, &stage.token(5));
    let shard = stage.shard.as_ref().expect("it runs");
    assert!(shard.send(gateway::shard::Command::Drain { over_ms: 50 }));
    assert_eq!(phone.frame().expect("a goaway").0, frame::kind::GOAWAY);
    phone.beats();
    wait_until("nobody else gets in", || {
        use std::io::Read;
        let Ok(mut late) = std::net::TcpStream::connect(stage.listen) else { return true };
        late.set_read_timeout(Some(std::time::Duration::from_millis(200))).expect("a time-out");
        late.write_all(&Beat::EMPTY).is_err() || late.read(&mut [0; 16]).is_err()
    });
}
