//! Connecting, beating, dying and coming back.

use super::*;
use crate::close::Reason;
use crate::frame::FrameError;
use crate::pb::LastEnd;

#[test]
fn hello_comes_first_and_says_who_it_is() {
    let mut bench = Bench::new(|config| config.network_kind = 4);
    bench.phone.call(0x0601, Bytes::from_static(b"x"), 0, true, bench.now_ms);
    bench.phone.connect(bench.now_ms);
    bench.settle();
    assert_eq!(bench.take_events(), [PhoneEvent::Connect { to: None }]);
    assert_eq!(bench.take_sent(), []);
    bench.phone.handle_connected(bench.now_ms);
    bench.settle();
    let sent = bench.take_sent();
    let [Sent::Hello(hello)] = &sent[..] else { panic!("only HELLO before WELCOME: {sent:?}") };
    assert_eq!((hello.version_major, hello.device, hello.counter), (1, 9, 7));
    assert_eq!(&hello.token[..], b"token");
    assert_eq!(hello.network.as_ref().map(|network| network.kind), Some(4));
    assert_eq!(hello.last_end(), LastEnd::None);
    bench.say(kind::WELCOME, &welcome());
    assert!(matches!(
        bench.take_events()[..],
        [PhoneEvent::Welcomed { user: 42, interval_ms: 60_000, server_time_ms: 1_800_000_000_000 }]
    ));
    assert!(matches!(bench.take_sent()[..], [Sent::Call { method: 0x0601, attempt: 0, .. }]));
    assert!(bench.phone.is_up());
    assert_eq!(bench.phone.server_time_ms(bench.now_ms + 5), Some(1_800_000_000_005));
    let (a, b) = (bench.phone.upload_id(bench.now_ms), bench.phone.upload_id(bench.now_ms));
    assert_ne!(a, b);
    assert_eq!(a.map(|id| id.created_ms()), Some(1_800_000_000_000));
}

#[test]
fn a_silent_phone_beats_once_an_interval() {
    let mut bench = Bench::up(|_| {});
    bench.run_until(1_000 + 600_000, true);
    let sent = bench.take_sent();
    assert_eq!((beats(&sent), sent.len()), (10, 10));
    assert_eq!((bench.phone.stats().beats, bench.phone.stats().beats_answered), (10, 10));
    assert_eq!(bench.take_events(), []);
}

#[test]
fn what_is_sent_counts_as_a_beat() {
    let mut bench = Bench::up(|config| config.heartbeat_override_ms = Some(30_000));
    for turn in 1..=10 {
        bench.phone.call(0x0601, Bytes::new(), 0, true, bench.now_ms);
        bench.settle();
        let (id, ..) = bench.take_call();
        bench.reply(id, Code::Ok, None, b"");
        bench.run_until(1_000 + turn * 29_000, true);
    }
    assert_eq!(beats(&bench.take_sent()), 0);
    bench.run_until(bench.now_ms + 1_000, true);
    assert_eq!(beats(&bench.take_sent()), 1);
}

#[test]
fn an_unanswered_beat_means_a_dead_path() {
    let mut bench = Bench::up(|_| {});
    bench.run_until(61_000, false);
    assert_eq!(bench.take_sent(), [Sent::Beat(None)]);
    bench.run_until(61_000 + 7_999, false);
    assert_eq!(bench.take_events(), []);
    bench.run_until(61_000 + 8_000, false);
    let events = bench.take_events();
    assert_eq!(events[0], PhoneEvent::Disconnect);
    assert_eq!(closes(&events), [CloseReason::BeatLost]);
    bench.wait_for_connect();
    bench.connect();
    let sent = bench.take_sent();
    let Sent::Hello(hello) = &sent[0] else { panic!("HELLO is first: {sent:?}") };
    assert_eq!((hello.last_end(), hello.last_idle_ms, hello.counter), (LastEnd::BeatLost, 60_000, 8));
    assert_eq!((&hello.ticket[..], &hello.token[..]), (&b"ticket"[..], &b""[..]), "it stands for the token");
}

#[test]
fn a_ticket_that_is_refused_or_old_makes_place_for_the_token() {
    let mut bench = Bench::up(|_| {});
    // Comes back after a CLOSE and is given a ticket; gives the lengths of ticket and token that it came with.
    let again = |bench: &mut Bench, code: Reason, ticket_good_s| {
        bench.say(kind::CLOSE, &pb::Close { code: code as u32, ..pb::Close::default() });
        bench.wait_for_connect();
        bench.phone.handle_connected(bench.now_ms);
        bench.settle();
        let sent = bench.take_sent();
        let Some(Sent::Hello(hello)) = sent.last() else { panic!("HELLO is first: {sent:?}") };
        bench.say(kind::WELCOME, &pb::Welcome { ticket_good_s, ..welcome() });
        assert!(bench.phone.is_up());
        (hello.ticket.len(), hello.token.len())
    };
    assert_eq!(again(&mut bench, Reason::GoingAway, 3_600), (6, 0));
    assert_eq!(again(&mut bench, Reason::Ticket, 5), (0, 5), "it was refused");
    bench.run_until(bench.now_ms + 5_000, true);
    assert_eq!(again(&mut bench, Reason::GoingAway, 3_600), (0, 5), "it was good for 5 s");
    assert_eq!(again(&mut bench, Reason::GoingAway, 3_600), (6, 0));
    bench.phone.set_token(Box::from(*b"another"));
    assert_eq!(again(&mut bench, Reason::GoingAway, 3_600), (0, 7), "it may be another user's");
}

#[test]
fn any_traffic_shows_that_the_path_is_alive() {
    let mut bench = Bench::up(|_| {});
    bench.run_until(61_000 + 5_000, false);
    assert_eq!(bench.take_sent(), [Sent::Beat(None)]);
    bench.feed(&[kind::EVENT, 1, 0]);
    bench.run_until(61_000 + 20_000, false);
    assert_eq!(bench.take_events(), []);
    assert_eq!((bench.phone.stats().beats_answered, bench.phone.stats().frames_skipped), (0, 1));
}

#[test]
fn a_dead_path_is_found_under_calls_that_are_never_answered() {
    let mut bench = Bench::up(|config| config.heartbeat_override_ms = Some(20_000));
    // Something is sent all the time, so the interval never ends, yet nothing comes back.
    while bench.now_ms < 60_000 && closes(&bench.take_events()).is_empty() {
        bench.phone.call(0x0601, Bytes::new(), 3_000, false, bench.now_ms);
        bench.settle();
        bench.run_until(bench.now_ms + 2_000, false);
    }
    assert!(bench.now_ms <= 1_000 + 8_000 + 8_000 + 2_000, "found at {}", bench.now_ms);
    assert_eq!(bench.phone.stats().beats, 1);
}

#[test]
fn a_slow_answer_is_no_dead_path() {
    let mut bench = Bench::up(|_| {});
    bench.phone.call(0x0601, Bytes::new(), 50_000, true, bench.now_ms);
    bench.settle();
    let (id, ..) = bench.take_call();
    bench.run_until(45_000, true);
    assert!(beats(&bench.take_sent()) >= 4);
    bench.reply(id, Code::Ok, None, b"late but here");
    assert!(matches!(bench.take_events()[..], [PhoneEvent::Reply { status: Code::Ok, .. }]));
}

#[test]
fn waits_grow_and_a_stable_connection_ends_them() {
    let mut bench = Bench::new(|_| {});
    bench.phone.connect(bench.now_ms);
    bench.settle();
    let mut waits = vec![];
    for _ in 0..40 {
        bench.cut(Ended::ConnectFailed);
        waits.push(bench.wait_for_connect());
    }
    assert!(waits[0] <= 500 && waits[1] <= 1_000 && waits.iter().all(|&wait| wait <= 60_000), "{waits:?}");
    assert!(waits[10..].iter().any(|&wait| wait > 30_000) && waits[10..].iter().any(|&wait| wait < 30_000));
    // A server that welcomes and ends at once is no success.
    bench.connect();
    bench.cut(Ended::Eof);
    let wait = bench.wait_for_connect();
    bench.connect();
    bench.run_until(bench.now_ms + 10_000, true);
    bench.cut(Ended::Eof);
    assert!(bench.wait_for_connect() <= 500, "stable before; the wait after the unstable one was {wait}");
}

#[test]
fn a_close_says_when_to_come_back_or_never() {
    let mut bench = Bench::up(|_| {});
    let close = |reason: Reason, after_ms: u32| pb::Close {
        code: reason as u32,
        text: "because".to_owned(),
        reconnect_after_ms: after_ms,
        to: "other:7600".to_owned(),
    };
    bench.say(kind::CLOSE, &close(Reason::Overloaded, 12_345));
    assert_eq!(closes(&bench.take_events()), [CloseReason::Server(Reason::Overloaded as u16)]);
    assert_eq!(bench.wait_for_connect(), 12_345);
    assert_eq!(bench.take_events(), [PhoneEvent::Connect { to: Some("other:7600".into()) }]);
    bench.connect();
    bench.phone.call(0x0601, Bytes::new(), 0, true, bench.now_ms);
    bench.settle();
    bench.take_events();
    bench.say(kind::CLOSE, &close(Reason::Replaced, 5));
    let events = bench.take_events();
    assert!(matches!(events[0], PhoneEvent::Disconnect));
    assert!(
        events.iter().any(|event| matches!(event, PhoneEvent::Reply { status: Code::Lost, .. })),
        "{events:?}"
    );
    assert!(matches!(events.last(), Some(PhoneEvent::Closed { reconnect_at_ms: None, welcomed: true, .. })));
    assert_eq!(bench.phone.poll_timeout(), None);
    bench.phone.call(0x0601, Bytes::new(), 0, true, bench.now_ms);
    bench.settle();
    assert!(matches!(bench.take_events()[..], [PhoneEvent::Reply { status: Code::Unavailable, .. }]));
    // The owner may try again, for example with another token.
    bench.phone.set_token(Box::from(&b"fresh"[..]));
    bench.phone.connect(bench.now_ms);
    bench.connect();
    assert!(bench.phone.is_up());
}

#[test]
fn goaway_lets_what_is_in_flight_end() {
    let mut bench = Bench::up(|_| {});
    bench.phone.call(0x0601, Bytes::new(), 0, true, bench.now_ms);
    bench.settle();
    let (id, ..) = bench.take_call();
    bench.say(kind::GOAWAY, &pb::GoAway { reconnect_after_ms: 700, to: "next:1".to_owned() });
    bench.phone.call(0x0601, Bytes::from_static(b"later"), 0, true, bench.now_ms);
    bench.settle();
    assert_eq!(bench.take_sent(), [], "no new call after GOAWAY");
    bench.reply(id, Code::Ok, None, b"");
    let events = bench.take_events();
    assert_eq!(closes(&events), [CloseReason::GoAway]);
    assert!(matches!(events[1], PhoneEvent::Reply { status: Code::Ok, .. }));
    assert_eq!(bench.wait_for_connect(), 700);
    bench.connect();
    let sent = bench.take_sent();
    assert!(matches!(&sent[..], [Sent::Hello(_), Sent::Call { body, .. }] if body == b"later"), "{sent:?}");
}

#[test]
fn goaway_does_not_wait_for_ever() {
    let mut bench = Bench::up(|_| {});
    bench.phone.call(0x0601, Bytes::new(), 60_000, true, bench.now_ms);
    bench.settle();
    bench.say(kind::GOAWAY, &pb::GoAway::default());
    bench.run_until(1_000 + limits::GOAWAY_DRAIN_MS, true);
    assert_eq!(closes(&bench.take_events()), [CloseReason::GoAway]);
}

#[test]
fn a_server_that_never_answers_is_left() {
    let mut bench = Bench::new(|_| {});
    bench.phone.connect(bench.now_ms);
    bench.settle();
    bench.run_until(16_000, false);
    assert_eq!(closes(&bench.take_events()), [CloseReason::ConnectFailed]);
    bench.wait_for_connect();
    bench.phone.handle_connected(bench.now_ms);
    bench.settle();
    bench.run_until(bench.now_ms + 15_000, false);
    let events = bench.take_events();
    assert_eq!(closes(&events), [CloseReason::WelcomeTimeout]);
    assert!(matches!(events.last(), Some(PhoneEvent::Closed { welcomed: false, .. })));
}

#[test]
fn what_has_no_place_ends_the_connection() {
    for (bytes, reason) in [
        (&[kind::WELCOME, 2, 8, 1][..], CloseReason::OutOfPlace(kind::WELCOME)),
        (&[kind::HELLO, 0], CloseReason::OutOfPlace(kind::HELLO)),
        (&[kind::CALL, 0], CloseReason::OutOfPlace(kind::CALL)),
        (b"HTTP/1.1", CloseReason::BadFrame(FrameError::UnknownType(b'H'))),
    ] {
        let mut bench = Bench::up(|_| {});
        bench.feed(bytes);
        let events = bench.take_events();
        assert_eq!((&events[0], closes(&events)), (&PhoneEvent::Disconnect, vec![reason]));
        bench.wait_for_connect();
    }
    let mut bench = Bench::new(|_| {});
    bench.phone.connect(bench.now_ms);
    bench.settle();
    bench.phone.handle_connected(bench.now_ms);
    bench.feed(&[kind::REPLY, 8, 0, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!(closes(&bench.take_events()), [CloseReason::OutOfPlace(kind::REPLY)]);
}

#[test]
fn another_major_version_is_final_and_another_minor_is_welcome() {
    let mut bench = Bench::new(|_| {});
    bench.phone.connect(bench.now_ms);
    bench.settle();
    bench.phone.handle_connected(bench.now_ms);
    bench.settle();
    bench.say(kind::WELCOME, &pb::Welcome { version_major: 2, ..welcome() });
    assert!(matches!(
        bench.take_events().last(),
        Some(PhoneEvent::Closed { reason: CloseReason::Version, reconnect_at_ms: None, .. })
    ));
    bench.phone.connect(bench.now_ms);
    bench.settle();
    bench.phone.handle_connected(bench.now_ms);
    bench.settle();
    // Field 99 is of a version to come.
    let mut body = pb::Welcome { version_minor: 9, ..welcome() }.encode_to_vec();
    body.extend_from_slice(&[0x9a, 0x06, 1, b'?']);
    let mut out = Vec::new();
    frame::put_header(&mut out, kind::WELCOME, body.len());
    out.extend_from_slice(&body);
    bench.feed(&out);
    assert!(bench.phone.is_up());
}

#[test]
fn one_byte_at_a_time_is_the_same_as_all_at_once() {
    let mut out = Vec::new();
    Reply { id: 1, status: Code::Ok, given: None, retry_after_ms: None, body: b"answer" }.put(&mut out);
    out.extend_from_slice(&Beat::EMPTY);
    Notify { class: frame::Class::Now, newest: Cursor::new(1, 5), inline: None }.put(&mut out);
    let seen: Vec<_> = [1, 3, out.len()]
        .into_iter()
        .map(|step| {
            let mut bench = Bench::up(|_| {});
            bench.phone.call(0x0601, Bytes::new(), 0, true, bench.now_ms);
            bench.settle();
            out.chunks(step).for_each(|chunk| bench.feed(chunk));
            assert!(bench.phone.held.is_empty(), "nothing is held when nothing is missing");
            (bench.take_events(), bench.take_sent())
        })
        .collect();
    assert!(seen[0].0.len() == 1 && seen[0].1.len() == 2);
    assert!(seen[0] == seen[1] && seen[1] == seen[2]);
}

#[test]
fn an_idle_phone_is_small() {
    assert!(size_of::<Phone>() <= 408, "{} bytes", size_of::<Phone>());
    let bench = Bench::up(|_| {});
    assert_eq!(bench.phone.held.len() + bench.phone.events.0.capacity(), 0);
}

#[test]
fn a_closed_phone_is_silent() {
    let mut bench = Bench::up(|_| {});
    bench.phone.call(0x0601, Bytes::new(), 0, true, bench.now_ms);
    bench.settle();
    bench.phone.close();
    bench.settle();
    let events = bench.take_events();
    assert!(matches!(events[0], PhoneEvent::Reply { status: Code::Cancelled, .. }));
    assert_eq!((&events[1], closes(&events)), (&PhoneEvent::Disconnect, vec![CloseReason::ByOwner]));
    assert_eq!(bench.phone.poll_timeout(), None);
    bench.phone.handle_closed(bench.now_ms, Ended::Eof);
    bench.settle();
    assert_eq!(bench.take_events(), []);
    bench.phone.connect(bench.now_ms);
    bench.sent.clear();
    bench.connect();
    let sent = bench.take_sent();
    assert!(matches!(&sent[0], Sent::Hello(hello) if hello.last_end() == LastEnd::ByPhone), "{sent:?}");
}
