//! Both sides, step by step and over a network that loses, repeats and reorders.

use std::collections::HashMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::random::Random;
use crate::rpc::callee::Outcome;
use crate::rpc::caller::Request;
use crate::rpc::header::{Kind, flag};
use crate::status::Code;

const PEER: u32 = 1;

fn caller() -> DatagramCaller<u32> {
    DatagramCaller::new(DatagramConfig::default(), 1000)
}

fn callee() -> (DatagramCallee<u32>, Held) {
    (DatagramCallee::new(DatagramCalleeConfig::default()), Held::new(HeldConfig::default()))
}

fn request(flags: u16, deadline_ms: u32, body: &[u8]) -> Request<'_> {
    Request { method: 0x0601, flags, deadline_ms, body, ..Request::default() }
}

fn send(caller: &mut DatagramCaller<u32>, context: u32, flags: u16, now_ms: u64) -> Vec<u8> {
    let mut datagram = Vec::new();
    let made = caller.call(&request(flags, 1000, b"hello"), context, now_ms, &mut datagram);
    made.expect("room").expect("two-way");
    datagram
}

fn run(callee: &mut DatagramCallee<u32>, datagram: &[u8], now_ms: u64) -> Running<u32> {
    match callee.handle_datagram(PEER, datagram, now_ms) {
        Ok(Came::Call(running, _, _)) => running,
        other => panic!("{other:?}"),
    }
}

fn answer(
    callee: &mut DatagramCallee<u32>,
    held: &mut Held,
    running: &Running<u32>,
    body: &[u8],
    now_ms: u64,
) -> Option<Bytes> {
    callee.answer(running, &Outcome::OK, &Bytes::copy_from_slice(body), held, || [5; 16], now_ms)
}

#[test]
fn a_call_is_answered_and_a_copy_of_it_gets_the_same_answer() {
    let (mut caller, (mut callee, mut held)) = (caller(), callee());
    let datagram = send(&mut caller, 42, 0, 0);
    let running = run(&mut callee, &datagram, 1);
    assert_eq!(callee.handle_datagram(PEER, &datagram, 2), Ok(Came::Nothing), "it runs");
    let reply = answer(&mut callee, &mut held, &running, b"there", 3).expect("a reply");
    assert_eq!(callee.handle_datagram(PEER, &datagram, 4), Ok(Came::Answer(reply.clone())));
    assert!(matches!(callee.handle_datagram(PEER + 1, &datagram, 4), Ok(Came::Call(..))), "another's");
    match caller.handle_datagram(&reply, 5) {
        Some(Answered::Reply(42, header, body)) => {
            assert_eq!((header.code(), &reply[body]), (Code::Ok, &b"there"[..]));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(caller.handle_datagram(&reply, 6), None, "the second answer");
    assert_eq!((caller.late_replies(), caller.calls(), callee.repeated()), (1, 0, 2));
}

#[test]
fn a_call_is_remembered_beyond_its_deadline_and_then_forgotten() {
    let (mut caller, (mut callee, mut held)) = (caller(), callee());
    let datagram = send(&mut caller, 1, 0, 0);
    let running = run(&mut callee, &datagram, 0);
    answer(&mut callee, &mut held, &running, b"x", 0).expect("a reply");
    assert!(matches!(callee.handle_datagram(PEER, &datagram, 2_999), Ok(Came::Answer(_))));
    assert!(matches!(callee.handle_datagram(PEER, &datagram, 3_000), Ok(Came::Call(..))));
    assert_eq!(callee.known_bytes(), 0);
}

#[test]
fn only_what_may_run_twice_is_sent_again_each_time_after_a_longer_wait() {
    let mut caller = caller();
    let first = send(&mut caller, 1, flag::IDEMPOTENT, 0);
    send(&mut caller, 2, 0, 0);
    let (mut sent_at_ms, mut now_ms) = (Vec::new(), 0);
    while let Some(due_ms) = caller.poll_timeout() {
        now_ms = due_ms;
        caller.handle_timeout(now_ms);
        let mut again = Vec::new();
        while caller.poll_datagram(now_ms, &mut again) {
            let (header, body) = whole(&again).expect("a frame").expect("whole");
            assert_eq!((header.deadline_ms as u64, &again[body]), (1000 - now_ms, &b"hello"[..]));
            assert_eq!(again[16..24], first[16..24], "the same call");
            sent_at_ms.push(now_ms);
            again.clear();
        }
    }
    assert_eq!((sent_at_ms, now_ms), (vec![100, 300, 700], 1000));
    let mut failed = [caller.poll_failed(), caller.poll_failed()];
    failed.sort_by_key(|failed| failed.map(|(context, _)| context));
    assert_eq!(failed, [Some((1, Code::Deadline)), Some((2, Code::Deadline))]);
}

#[test]
fn the_wait_follows_what_the_way_takes() {
    let (mut caller, (mut callee, mut held)) = (caller(), callee());
    for now_ms in (0..2000).step_by(100) {
        let datagram = send(&mut caller, 1, flag::IDEMPOTENT, now_ms);
        let running = run(&mut callee, &datagram, now_ms);
        let reply = answer(&mut callee, &mut held, &running, b"x", now_ms).expect("a reply");
        assert!(caller.handle_datagram(&reply, now_ms + 30).is_some());
    }
    // What was due for calls that have ended is looked through once.
    caller.handle_timeout(5000);
    send(&mut caller, 1, flag::IDEMPOTENT, 5000);
    let wait_ms = caller.poll_timeout().map_or(0, |due_ms| due_ms - 5000);
    assert!((30..40).contains(&wait_ms), "{wait_ms}");
}

#[test]
fn what_is_too_large_is_refused_here_and_held_there() {
    let (mut caller, (mut callee, mut held)) = (caller(), callee());
    let (mut datagram, most) = (Vec::new(), MAX_DATAGRAM_BYTES - 64);
    let large = vec![7; most + 1];
    assert_eq!(caller.call(&request(0, 1000, &large), 1, 0, &mut datagram), Err((1, Refused::TooLarge)));
    assert!(datagram.is_empty() && caller.calls() == 0);
    let id =
        caller.call(&request(0, 1000, &large[1..]), 1, 0, &mut datagram).expect("room").expect("two-way");
    assert_eq!((datagram.len(), id), (MAX_DATAGRAM_BYTES, 1000));
    let running = run(&mut callee, &datagram, 0);
    let reply = answer(&mut callee, &mut held, &running, &large, 0).expect("a reply");
    assert_eq!(caller.handle_datagram(&reply, 1), Some(Answered::Held(1, [5; 16])));
    assert_eq!(held.fetch(&[5; 16], 999), Some((Bytes::from(large), None)));
    assert_eq!(held.fetch(&[5; 16], 1000), None);
}

#[test]
fn beyond_its_window_a_caller_sends_nothing() {
    let (mut caller, mut datagram) = (caller(), Vec::new());
    for n in 0..64 {
        assert!(caller.call(&request(0, 1000, b""), n, 0, &mut datagram).is_ok());
    }
    let sent = datagram.len();
    assert_eq!(caller.call(&request(0, 1000, b""), 64, 0, &mut datagram), Err((64, Refused::Full)));
    assert_eq!((datagram.len(), caller.calls()), (sent, 64));
    caller.cancel(1000, &mut datagram).expect("it is out");
    assert!(caller.call(&request(0, 1000, b""), 65, 0, &mut datagram).is_ok());
}

#[test]
fn a_sentence_that_is_too_long_is_cut_and_what_cannot_be_held_is_lost() {
    let (mut caller, (mut callee, _)) = (caller(), callee());
    let mut nothing = Held::new(HeldConfig { max_replies: 0, max_bytes: 0 });
    let running = run(&mut callee, &send(&mut caller, 1, 0, 0), 0);
    let outcome = Outcome { code: Code::Limit, ..Outcome::OK };
    let text = Bytes::from("a\u{e4}".repeat(2000));
    let reply = callee.answer(&running, &outcome, &text, &mut nothing, || [0; 16], 0).expect("a reply");
    let (header, body) = whole(&reply).expect("a frame").expect("whole");
    assert!(reply.len() <= MAX_DATAGRAM_BYTES && header.code() == Code::Limit);
    assert!(std::str::from_utf8(&reply[body]).is_ok_and(|said| said.len() > 1000));
    let running = run(&mut callee, &send(&mut caller, 1, 0, 0), 0);
    let reply = answer(&mut callee, &mut nothing, &running, &[1; 2000], 0).expect("a reply");
    let (header, _) = whole(&reply).expect("a frame").expect("whole");
    assert_eq!((header.code(), header.flags), (Code::Lost, 0));
}

#[test]
fn a_call_given_up_or_over_is_not_answered() {
    let (mut caller, (mut callee, mut held)) = (caller(), callee());
    let datagram = send(&mut caller, 7, 0, 0);
    let running = run(&mut callee, &datagram, 0);
    let mut cancel = Vec::new();
    assert_eq!(caller.cancel(1000, &mut cancel), Some(7));
    assert_eq!(callee.handle_datagram(PEER, &cancel, 1), Ok(Came::GivenUp(1000)));
    assert_eq!(callee.handle_datagram(PEER, &cancel, 1), Ok(Came::Nothing), "once");
    assert_eq!(answer(&mut callee, &mut held, &running, b"x", 2), None);
    assert_eq!(callee.handle_datagram(PEER, &datagram, 3), Ok(Came::Nothing), "nor run again");
    let running = run(&mut callee, &send(&mut caller, 8, 0, 0), 0);
    assert_eq!(answer(&mut callee, &mut held, &running, b"x", 1000), None);
    assert_eq!(callee.running(), 0);
}

#[test]
fn a_one_way_call_is_run_once_and_not_answered() {
    let (mut caller, (mut callee, mut held)) = (caller(), callee());
    let mut datagram = Vec::new();
    let left = caller.call(&request(flag::ONE_WAY, 1000, b""), 3, 0, &mut datagram);
    assert_eq!((left, caller.calls()), (Ok(Err(3)), 0));
    let running = run(&mut callee, &datagram, 0);
    assert_eq!(answer(&mut callee, &mut held, &running, b"x", 0), None);
    assert_eq!(callee.handle_datagram(PEER, &datagram, 0), Ok(Came::Nothing));
}

#[test]
fn without_room_to_remember_only_what_may_run_twice_is_run() {
    let config = DatagramCalleeConfig { max_known: 1, max_running: 3, ..DatagramCalleeConfig::default() };
    let (mut caller, mut callee) = (caller(), DatagramCallee::new(config));
    run(&mut callee, &send(&mut caller, 1, 0, 0), 0);
    let once = send(&mut caller, 2, 0, 0);
    let Ok(Came::Answer(reply)) = callee.handle_datagram(PEER, &once, 0) else { panic!("refused") };
    assert_eq!(whole(&reply).map(|whole| whole.map(|(header, _)| header.code())), Ok(Some(Code::Overloaded)));
    let twice = send(&mut caller, 3, flag::IDEMPOTENT, 0);
    run(&mut callee, &twice, 0);
    run(&mut callee, &twice, 0);
    assert!(matches!(callee.handle_datagram(PEER, &twice, 0), Ok(Came::Answer(_))), "three run");
}

#[test]
fn nobody_there_loses_what_is_out() {
    let mut caller = caller();
    send(&mut caller, 1, flag::IDEMPOTENT, 0);
    caller.handle_unreachable();
    assert_eq!((caller.poll_failed(), caller.poll_timeout()), (Some((1, Code::Lost)), None));
}

#[test]
fn what_is_no_frame_is_dropped() {
    let (mut caller, (mut callee, _)) = (caller(), callee());
    let call = send(&mut caller, 1, 0, 0);
    let mut two = call.clone();
    two.extend_from_slice(&call);
    let mut reply = call.clone();
    reply[3] = Kind::Reply as u8;
    let mut version = call.clone();
    version[2] = 9;
    for wrong in [&b""[..], b"M", b"GET / HTTP/1.1", &call[..63], &call[..66], &two, &reply, &version] {
        assert!(callee.handle_datagram(PEER, wrong, 0).is_err(), "{wrong:?}");
    }
    for wrong in [&b""[..], &call, &two, &version] {
        assert_eq!(caller.handle_datagram(wrong, 0), None);
    }
    assert_eq!((caller.ignored(), caller.calls()), (4, 1));
}

/// A datagram on its way.
struct OnItsWay {
    at_ms: u64,
    up: bool,
    bytes: Vec<u8>,
}

proptest! {
    #[test]
    fn over_any_network_each_call_ends_once_and_runs_once(
        seed: u64,
        lost in 0u64..60,
        twice in 0u64..40,
        delay_ms in 1u64..200,
        calls in 1u32..60,
    ) {
        let mut random = Random::new(seed);
        let (mut caller, (mut callee, mut held)) = (caller(), callee());
        let mut way: Vec<OnItsWay> = Vec::new();
        let mut running: Vec<(Running<u32>, u64, u32)> = Vec::new();
        let (mut runs, mut ends): (HashMap<u32, u32>, HashMap<u32, u32>) = (HashMap::new(), HashMap::new());
        let put = |way: &mut Vec<OnItsWay>, random: &mut Random, now_ms: u64, up: bool, bytes: &[u8]| {
            for _ in 0..1 + u32::from(random.next() % 100 < twice) {
                if random.next() % 100 >= lost {
                    let at_ms = now_ms + 1 + random.next() % delay_ms;
                    way.push(OnItsWay { at_ms, up, bytes: bytes.to_vec() });
                }
            }
        };
        let mut made = 0;
        for now_ms in 0..6000 {
            if made < calls && random.next() % 8 == 0 {
                let flags = if made % 2 == 0 { flag::IDEMPOTENT } else { 0 };
                let mut datagram = Vec::new();
                caller.call(&request(flags, 1000, &made.to_le_bytes()), made, now_ms, &mut datagram).expect("room").expect("two-way");
                put(&mut way, &mut random, now_ms, true, &datagram);
                made += 1;
            }
            let due: Vec<OnItsWay> = way.extract_if(.., |one| one.at_ms <= now_ms).collect();
            for one in due {
                if !one.up {
                    match caller.handle_datagram(&one.bytes, now_ms) {
                        Some(Answered::Reply(context, header, body)) => {
                            prop_assert_eq!(header.code(), Code::Ok);
                            prop_assert_eq!(&one.bytes[body], &context.to_le_bytes()[..]);
                            *ends.entry(context).or_default() += 1;
                        }
                        Some(Answered::Held(context, ticket)) => {
                            let (body, _) = held.fetch(&ticket, now_ms).expect("it is held");
                            prop_assert_eq!(&body[..4], &context.to_le_bytes()[..]);
                            *ends.entry(context).or_default() += 1;
                        }
                        None => {}
                    }
                    continue;
                }
                match callee.handle_datagram(PEER, &one.bytes, now_ms).expect("our own") {
                    Came::Call(call, _, body) => {
                        let context = u32::from_le_bytes(one.bytes[body].try_into().expect("four bytes"));
                        *runs.entry(context).or_default() += 1;
                        running.push((call, now_ms + random.next() % 50, context));
                    }
                    Came::Answer(reply) => put(&mut way, &mut random, now_ms, false, &reply),
                    Came::GivenUp(_) | Came::Nothing => {}
                }
            }
            for (call, _, context) in running.extract_if(.., |(_, at_ms, _)| *at_ms <= now_ms) {
                let mut body = context.to_le_bytes().to_vec();
                body.resize(if context % 5 == 4 { 2000 } else { 4 }, 0);
                let ticket = || { let mut ticket = [0; 16]; ticket[..4].copy_from_slice(&context.to_le_bytes()); ticket };
                if let Some(reply) = callee.answer(&call, &Outcome::OK, &body.into(), &mut held, ticket, now_ms) {
                    prop_assert!(reply.len() <= MAX_DATAGRAM_BYTES);
                    put(&mut way, &mut random, now_ms, false, &reply);
                }
            }
            caller.handle_timeout(now_ms);
            let mut again = Vec::new();
            while caller.poll_datagram(now_ms, &mut again) {
                put(&mut way, &mut random, now_ms, true, &std::mem::take(&mut again));
            }
            while let Some((context, code)) = caller.poll_failed() {
                prop_assert_eq!(code, Code::Deadline);
                *ends.entry(context).or_default() += 1;
            }
        }
        prop_assert_eq!(made, calls);
        prop_assert!((0..calls).all(|call| ends.get(&call) == Some(&1)), "{:?}", ends);
        prop_assert!(runs.values().all(|runs| *runs == 1), "{:?}", runs);
        prop_assert_eq!((caller.calls(), callee.running()), (0, 0));
        if lost == 0 && delay_ms < 100 {
            prop_assert_eq!(runs.len() as u32, calls);
        }
    }
}
