//! The caller, step by step.

use super::*;
use crate::rpc::header::next_header;

fn up(config: CallerConfig) -> Caller<u32> {
    let mut caller = Caller::new(config, 7);
    caller.start(0);
    assert_eq!(caller.poll_action(), Some(Action::Connect));
    caller.handle_connected(0, &mut Vec::new());
    caller
}

fn request(deadline_ms: u32) -> Request<'static> {
    Request { method: 0x0601, deadline_ms, body: b"hello", ..Request::default() }
}

fn headers(mut bytes: &[u8]) -> Vec<Header> {
    let mut all = Vec::new();
    while let Some((header, header_bytes)) = next_header(bytes).expect("well formed") {
        bytes = &bytes[header_bytes + header.body_bytes as usize..];
        all.push(header);
    }
    assert!(bytes.is_empty());
    all
}

fn reply(call_id: u64, credit: u32) -> Header {
    Header { kind: Kind::Reply, call_id, credit, ..Header::default() }
}

#[test]
fn a_reply_finds_its_call_once() {
    let (mut caller, mut out) = (up(CallerConfig::default()), Vec::new());
    let id = caller.call(&request(100), 42, 0, &mut out).expect("room");
    assert_eq!(headers(&out)[0].call_id, id.0);
    assert_eq!(caller.handle_reply(&reply(id.0, 0), 1, &mut out), Ok(Some(42)));
    assert_eq!(caller.handle_reply(&reply(id.0, 0), 1, &mut out), Ok(None));
    assert_eq!(caller.late_replies(), 1);
    assert_eq!(caller.calls(), 0);
}

#[test]
fn an_answer_to_nothing_is_misbehaviour() {
    let (mut caller, mut out) = (up(CallerConfig::default()), Vec::new());
    let never = 9u64 << 32;
    assert_eq!(
        caller.handle_reply(&reply(never, 0), 1, &mut out),
        Err(PeerMisbehaved::AnswerToNothing(never))
    );
}

#[test]
fn a_deadline_ends_the_call_and_tells_the_callee() {
    let (mut caller, mut out) = (up(CallerConfig::default()), Vec::new());
    caller.call(&request(100), 1, 0, &mut out).expect("room");
    out.clear();
    assert_eq!(caller.poll_timeout(), Some(100));
    caller.handle_timeout(99, &mut out);
    assert_eq!(caller.poll_failed(), None);
    caller.handle_timeout(100, &mut out);
    assert_eq!(caller.poll_failed(), Some((1, Code::Deadline)));
    assert_eq!(headers(&out)[0].kind, Kind::Cancel);
}

#[test]
fn credit_holds_calls_back_and_lets_them_go_in_order() {
    let (mut caller, mut out) =
        (up(CallerConfig { initial_credit: 2, ..CallerConfig::default() }), Vec::new());
    let ids: Vec<_> = (0..4).map(|n| caller.call(&request(1000), n, 0, &mut out).expect("room").0).collect();
    assert_eq!(headers(&out).iter().map(|h| h.call_id).collect::<Vec<_>>(), ids[..2]);
    out.clear();
    caller.handle_reply(&reply(ids[0], 2), 10, &mut out).expect("known");
    let left = headers(&out);
    assert_eq!((left.len(), left[0].call_id, left[0].deadline_ms), (1, ids[2], 990));
}

#[test]
fn what_was_out_is_lost_and_what_waits_goes_out_on_the_next_connection() {
    let (mut caller, mut out) =
        (up(CallerConfig { initial_credit: 1, ..CallerConfig::default() }), Vec::new());
    caller.call(&request(1000), 1, 0, &mut out).expect("room");
    caller.call(&request(1000), 2, 0, &mut out).expect("room");
    caller.handle_disconnected(10);
    assert_eq!(caller.poll_failed(), Some((1, Code::Lost)));
    assert_eq!(caller.poll_failed(), None);
    let at = caller.poll_timeout().expect("a wait");
    caller.handle_timeout(at, &mut out);
    assert_eq!(caller.poll_action(), Some(Action::Connect));
    out.clear();
    caller.handle_connected(at, &mut out);
    assert_eq!(headers(&out).len(), 1);
}

#[test]
fn bounds_refuse_and_give_the_memory_back() {
    let mut caller: Caller<u32> = Caller::new(CallerConfig { max_calls: 1, ..CallerConfig::default() }, 1);
    let mut out = Vec::new();
    caller.call(&request(10), 1, 0, &mut out).expect("room");
    assert_eq!(caller.call(&request(10), 2, 0, &mut out), Err((2, Code::Overloaded)));
    caller.handle_timeout(10, &mut out);
    assert_eq!(caller.poll_failed(), Some((1, Code::Deadline)));
    assert!(out.is_empty(), "nothing was sent, so nothing is cancelled");
    assert_eq!(caller.waiting_bytes, 0);
    caller.call(&request(10), 3, 20, &mut out).expect("room again");
}

#[test]
fn a_silent_peer_is_pinged_and_then_left() {
    let (mut caller, mut out) = (up(CallerConfig::default()), Vec::new());
    caller.handle_timeout(5_000, &mut out);
    assert_eq!(headers(&out)[0].kind, Kind::Ping);
    caller.handle_timeout(9_999, &mut out);
    assert_eq!(caller.poll_action(), None);
    caller.handle_timeout(10_000, &mut out);
    assert!(matches!(caller.poll_action(), Some(Action::Disconnect(_))));
}

#[test]
fn a_pong_keeps_the_connection() {
    let (mut caller, mut out) = (up(CallerConfig::default()), Vec::new());
    caller.handle_timeout(5_000, &mut out);
    let pong = Header { kind: Kind::Pong, ..Header::default() };
    caller.handle_control(&pong, 5_001, &mut out).expect("in place");
    caller.handle_timeout(10_000, &mut out);
    assert_eq!(caller.poll_action(), None);
    assert_eq!(caller.poll_timeout(), Some(10_001));
}

#[test]
fn a_wait_grows_with_each_failure_and_stays_bounded() {
    let mut caller: Caller<()> = Caller::new(CallerConfig::default(), 3);
    let (mut now_ms, mut out) = (0, Vec::new());
    caller.start(now_ms);
    for _ in 0..40 {
        caller.poll_action();
        caller.handle_disconnected(now_ms);
        let until_ms = caller.poll_timeout().expect("a wait");
        assert!(until_ms - now_ms <= 2_000);
        now_ms = until_ms;
        caller.handle_timeout(now_ms, &mut out);
    }
}

#[test]
fn a_cancelled_call_is_gone() {
    let (mut caller, mut out) = (up(CallerConfig::default()), Vec::new());
    let id = caller.call(&request(100), 5, 0, &mut out).expect("room");
    assert_eq!(caller.cancel(id, &mut out), Some(5));
    assert_eq!(caller.cancel(id, &mut out), None);
    assert_eq!(headers(&out)[1].kind, Kind::Cancel);
    assert_eq!(caller.handle_reply(&reply(id.0, 0), 1, &mut out), Ok(None));
}

#[test]
fn a_one_way_call_ends_when_it_has_left() {
    let mut caller: Caller<u32> = Caller::new(CallerConfig::default(), 1);
    let mut out = Vec::new();
    let one_way = Request { flags: flag::ONE_WAY, ..request(100) };
    caller.call(&one_way, 1, 0, &mut out).expect("room");
    assert_eq!(caller.poll_left(), None, "it waits for the connection");
    caller.handle_connected(1, &mut out);
    assert_eq!(caller.poll_left(), Some(1));
    caller.call(&one_way, 2, 1, &mut out).expect("room");
    assert_eq!((caller.poll_left(), caller.poll_left(), caller.calls()), (Some(2), None, 0));
    assert_eq!(headers(&out).len(), 2);
    caller.handle_timeout(200, &mut out);
    assert_eq!(caller.poll_failed(), None);
}

#[test]
fn what_waits_can_be_taken_elsewhere_and_what_is_out_can_not() {
    let (mut caller, mut out) =
        (up(CallerConfig { initial_credit: 1, ..CallerConfig::default() }), Vec::new());
    let id = caller.call(&request(100), 1, 0, &mut out).expect("room");
    caller.call(&request(100), 2, 0, &mut out).expect("room");
    caller.give_back_waiting();
    assert_eq!((caller.poll_failed(), caller.poll_failed()), (Some((2, Code::Unavailable)), None));
    assert_eq!((caller.calls(), caller.waiting_bytes), (1, 0));
    assert_eq!(caller.handle_reply(&reply(id.0, 0), 1, &mut out), Ok(Some(1)));
}
