//! What a caller may rely on.

use proto_wire::pb;
use proto_wire::rpc::header::Kind;
use proto_wire::services::{echo, gateway, messages, presence, sync};
use proto_wire::status::Code;

use crate::client::{Client, Raw, phone};
use crate::fixture::{Backend, Bare, ECHO, PARK, RELEASE, http};

#[test]
fn an_echo_gives_back_what_it_got() {
    let backend = Backend::start();
    let mut client = Client::connect(backend.addr());
    for payload in [&b""[..], b"x", &[7; 60_000]] {
        let request = pb::EchoRequest { payload: payload.to_vec().into() };
        let reply: pb::EchoReply = client.call(&echo::SAY, None, &request).decode();
        assert_eq!(reply.payload, payload);
    }
    assert_eq!(backend.metric("moorgate_backend_calls_total{method=\"Echo.Say\",code=\"ok\"}"), 3);
    assert_eq!(backend.metric("moorgate_backend_service_seconds_count{method=\"Echo.Say\"}"), 3);
}

#[test]
fn many_calls_of_one_write_are_answered_in_few_writes() {
    let backend = Backend::start();
    let mut client = Client::connect(backend.addr());
    let request = pb::EchoRequest { payload: vec![1; 16].into() };
    let calls: Vec<u64> = (0..400).map(|_| client.begin(&echo::SAY, None, &request)).collect();
    for call in calls {
        assert_eq!(client.wait(call).code, Code::Ok);
    }
    let writes = backend.metric("moorgate_backend_writes_total");
    assert!(writes < 40, "{writes} writes for 400 answers");
}

#[test]
fn an_unknown_method_and_a_malformed_body_are_told_and_the_connection_goes_on() {
    let backend = Backend::start();
    let mut client = Client::connect(backend.addr());
    for method in [0x01ff, 0x0599, 0xff00, 0x0302] {
        let call = client.begin_raw(method, phone(7), b"");
        let reply = client.wait(call);
        assert_eq!(reply.code, Code::UnknownMethod, "{method:#x}: {}", reply.text());
        assert!(reply.text().contains(&format!("{method:#06x}")), "{}", reply.text());
    }
    // Known, but served by gateways.
    let call = client.begin_raw(gateway::NOTIFY.id, None, b"");
    assert_eq!(client.wait(call).code, Code::UnknownMethod);
    for method in [messages::SEND.id, sync::PULL.id, echo::SAY.id] {
        let call = client.begin_raw(method, phone(7), b"\xff\xff\xff\xff");
        assert_eq!(client.wait(call).code, Code::Invalid, "{method:#x}");
    }
    let call = client.begin_raw(presence::REPORT.id, None, b"\xff\xff\xff\xff");
    assert_eq!(client.wait(call).code, Code::Invalid);
    assert_eq!(client.call(&echo::SAY, None, &pb::EchoRequest::default()).code, Code::Ok);
}

#[test]
fn who_may_call_what_is_checked() {
    let backend = Backend::start();
    let mut client = Client::connect(backend.addr());
    for nobody in [None, phone(0)] {
        let reply = client.call(&messages::SEND, nobody, &pb::SendRequest::default());
        assert_eq!((reply.code, reply.text().as_str()), (Code::Denied, "this call needs a token"));
        assert_eq!(client.call(&sync::PULL, nobody, &pb::PullRequest::default()).code, Code::Denied);
        assert_eq!(client.call(&echo::SAY, nobody, &pb::EchoRequest::default()).code, Code::Ok);
    }
    assert_eq!(client.call(&presence::REPORT, phone(7), &pb::ReportRequest::default()).code, Code::Denied);
}

#[test]
fn a_call_that_takes_too_long_ends_and_its_place_is_free_again() {
    let bare = Bare::start();
    let mut raw = Raw::connect(bare.addr);
    raw.call(1, PARK, 20, b"");
    raw.call(2, ECHO, 20_000, b"quick");
    let (header, _) = raw.next(Kind::Reply);
    assert_eq!(header.call_id, 2);
    let (header, body) = raw.next(Kind::Reply);
    assert_eq!((header.call_id, header.code()), (1, Code::Deadline), "{}", body.escape_ascii());
    // The id may be used again; what the first call gives in the end goes nowhere.
    raw.call(1, PARK, 20_000, b"");
    raw.call(3, RELEASE, 20_000, b"");
    let (released, answered) = (raw.next(Kind::Reply), raw.next(Kind::Reply));
    let parked = if released.0.call_id == 3 { &released } else { &answered };
    assert_eq!(parked.1, 2u64.to_le_bytes());
    raw.control(Kind::Ping, 0);
    raw.next(Kind::Pong);
}

#[test]
fn a_call_that_was_given_up_gets_no_answer() {
    let bare = Bare::start();
    let mut raw = Raw::connect(bare.addr);
    raw.call(1, PARK, 20_000, b"");
    raw.control(Kind::Cancel, 1);
    raw.call(2, RELEASE, 20_000, b"");
    raw.call(3, ECHO, 20_000, b"last");
    let ids = [raw.next(Kind::Reply).0.call_id, raw.next(Kind::Reply).0.call_id];
    assert_eq!(ids, [2, 3]);
    // An answer that was still to come would come before the pong.
    raw.call(4, ECHO, 20_000, b"after");
    assert_eq!(raw.next(Kind::Reply).0.call_id, 4);
}

#[test]
fn replies_carry_the_credit_and_calls_beyond_it_are_refused() {
    let bare = Bare::start();
    let mut raw = Raw::connect(bare.addr);
    raw.call(1, ECHO, 20_000, b"");
    let credit = raw.next(Kind::Reply).0.credit;
    assert_eq!(credit, 4096);
    for id in 0..u64::from(credit) {
        raw.call(100 + id, PARK, 60_000, b"");
    }
    raw.call(2, ECHO, 20_000, b"");
    let (header, _) = raw.next(Kind::Reply);
    assert_eq!((header.call_id, header.code()), (2, Code::TooMany));
    raw.control(Kind::Cancel, 100);
    raw.call(3, RELEASE, 20_000, b"");
    let answers: Vec<u64> = (0..credit).map(|_| raw.next(Kind::Reply).0.call_id).collect();
    assert!(answers.contains(&3) && answers.contains(&101) && !answers.contains(&100));
}

#[test]
fn a_caller_that_only_makes_and_cancels_calls_is_refused() {
    let bare = Bare::start();
    let mut raw = Raw::connect(bare.addr);
    for id in 0..8192 {
        raw.call(id, PARK, 60_000, b"");
        raw.control(Kind::Cancel, id);
    }
    raw.call(9000, ECHO, 20_000, b"");
    let (header, body) = raw.next(Kind::Reply);
    assert_eq!((header.call_id, header.code()), (9000, Code::TooMany), "{}", body.escape_ascii());
}

#[test]
fn status_health_and_readiness_are_told() {
    let backend = Backend::start();
    let (line, body) = http(backend.admin(), "/status");
    assert_eq!(line, "HTTP/1.1 200 OK");
    assert!(body.contains(&format!("\"pid\":{}", std::process::id())), "{body}");
    assert_eq!(http(backend.admin(), "/healthz").1, "ok\n");
    assert_eq!(http(backend.admin(), "/readyz").1, "ready\n");
    assert_eq!(http(backend.admin(), "/other").0, "HTTP/1.1 404 Not Found");
}
