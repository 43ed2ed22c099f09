//! Calls: places, deadlines, repeats.

use super::*;

impl Bench {
    fn call(&mut self, body: &'static [u8], deadline_ms: u32, idempotent: bool) -> CallHandle {
        let handle = self.phone.call(0x0201, Bytes::from_static(body), deadline_ms, idempotent, self.now_ms);
        self.settle();
        handle
    }

    fn replies(&mut self) -> Vec<(CallHandle, Code)> {
        let reply = |event| match event {
            PhoneEvent::Reply { handle, status, .. } => Some((handle, status)),
            _ => None,
        };
        self.take_events().into_iter().filter_map(reply).collect()
    }
}

#[test]
fn a_reply_finds_its_call() {
    let mut bench = Bench::up(|_| {});
    let (a, b) = (bench.call(b"a", 0, true), bench.call(b"b", 0, true));
    let sent = bench.take_sent();
    assert!(
        matches!(&sent[..], [Sent::Call { deadline_ms: 10_000, .. }, Sent::Call { .. }]),
        "the method's own"
    );
    bench.reply(b.0, Code::Ok, None, b"2");
    bench.reply(a.0, Code::NotFound, None, b"no such thing");
    assert_eq!(bench.replies(), [(b, Code::Ok), (a, Code::NotFound)]);
    assert!(bench.phone.is_idle());
}

#[test]
fn replies_that_nobody_asked_for_are_counted() {
    let mut bench = Bench::up(|_| {});
    let a = bench.call(b"a", 0, true);
    bench.reply(77, Code::Ok, None, b"");
    bench.reply(a.0, Code::Ok, None, b"");
    bench.reply(a.0, Code::Ok, None, b"");
    assert_eq!(bench.replies(), [(a, Code::Ok)]);
    let stats = bench.phone.stats();
    assert_eq!((stats.replies_unasked, stats.replies_late), (1, 1));
}

#[test]
fn no_more_calls_are_out_than_the_server_allows() {
    let mut bench = Bench::up(|_| {});
    let handles: Vec<_> = (0..6).map(|_| bench.call(b"x", 0, true)).collect();
    assert_eq!(bench.take_sent().len(), 4);
    bench.reply(handles[2].0, Code::Ok, None, b"");
    assert_eq!(bench.take_sent().len(), 1);
    for _ in 0..limits::MAX_PHONE_CALLS_WAITING {
        bench.call(b"x", 0, true);
    }
    let refused: Vec<_> = bench.replies().into_iter().filter(|(_, code)| *code == Code::TooMany).collect();
    assert_eq!(refused.len(), 1);
}

/// The server holds a call until it has answered it, and closes a phone that goes on making more than it may.
#[test]
fn a_call_that_was_given_up_keeps_its_place_until_its_answer_comes() {
    let mut bench = Bench::up(|_| {});
    let given_up: Vec<_> = (0..4).map(|_| bench.call(b"x", 1_000, true)).collect();
    bench.run_until(2_500, true);
    assert_eq!(bench.replies().len(), 4);
    bench.sent.clear();
    let next = bench.call(b"y", 0, true);
    assert_eq!(bench.take_sent(), []);
    bench.reply(given_up[1].0, Code::Deadline, None, b"");
    assert!(matches!(&bench.take_sent()[..], [Sent::Call { id, .. }] if *id == next.0));
    // The next connection knows nothing of them.
    bench.call(b"z", 0, true);
    assert_eq!(bench.take_sent(), []);
    bench.phone.handle_closed(bench.now_ms, Ended::Reset);
    bench.run_until(4_000, true);
    bench.connect();
    let calls = bench.take_sent().into_iter().filter(|sent| matches!(sent, Sent::Call { .. })).count();
    assert_eq!(calls, 2, "both calls");
}

#[test]
fn a_pull_that_was_given_up_keeps_its_place_too() {
    let mut bench = Bench::up(|config| config.pull_deadline_ms = 1_000);
    bench.notify(Cursor::new(1, 5), None);
    let pull = |sent: Vec<Sent>| sent.iter().filter(|sent| matches!(sent, Sent::Call { .. })).count();
    assert_eq!(pull(bench.take_sent()), 1);
    bench.run_until(2_100, true);
    for _ in 0..6 {
        bench.call(b"x", 0, true);
    }
    bench.run_until(2_900, true);
    assert_eq!(
        pull(bench.take_sent()),
        3,
        "three calls, or two and the next pull, beside the one that is held"
    );
}

#[test]
fn a_call_ends_at_its_deadline() {
    let mut bench = Bench::up(|_| {});
    let a = bench.call(b"a", 2_000, true);
    bench.run_until(2_999, true);
    assert_eq!(bench.replies(), []);
    bench.run_until(3_000, true);
    assert_eq!(bench.replies(), [(a, Code::Deadline)]);
    bench.reply(a.0, Code::Ok, None, b"");
    assert_eq!((bench.replies(), bench.phone.stats().replies_late), (vec![], 1));
    // One that never left ends as well.
    let mut offline = Bench::new(|_| {});
    let b = offline.call(b"b", 500, true);
    offline.run_until(2_000, true);
    assert_eq!(offline.replies(), [(b, Code::Deadline)]);
}

#[test]
fn a_cut_repeats_what_may_be_repeated_and_loses_the_rest() {
    let mut bench = Bench::up(|_| {});
    let (again, once) = (bench.call(b"again", 50_000, true), bench.call(b"once", 50_000, false));
    bench.take_sent();
    bench.cut(Ended::Reset);
    assert_eq!(bench.replies(), [(once, Code::Lost)]);
    let unsent = bench.call(b"unsent", 50_000, false);
    bench.wait_for_connect();
    bench.connect();
    let sent = bench.take_sent();
    let calls: Vec<_> = sent
        .iter()
        .filter_map(|sent| match sent {
            Sent::Call { id, method: 0x0201, attempt, body, .. } => Some((*id, *attempt, &body[..])),
            _ => None,
        })
        .collect();
    assert_eq!(calls, [(again.0, 1, &b"again"[..]), (unsent.0, 0, &b"unsent"[..])]);
    assert_eq!(bench.phone.stats().resent, 1);
    bench.reply(again.0, Code::Ok, None, b"");
    assert_eq!(bench.replies().first(), Some(&(again, Code::Ok)));
}

#[test]
fn a_status_that_is_safe_is_repeated_when_it_says() {
    let mut bench = Bench::up(|_| {});
    let a = bench.call(b"a", 10_000, false);
    bench.take_sent();
    bench.reply(a.0, Code::Overloaded, Some(1_500), b"");
    bench.run_until(2_499, true);
    assert_eq!(bench.take_sent(), []);
    bench.run_until(2_500, true);
    let (id, _, attempt, ..) = bench.take_call();
    assert_eq!((id, attempt), (a.0, 1));
    // What was lost behind the server may have been applied: only an idempotent call is repeated.
    bench.reply(a.0, Code::Lost, None, b"");
    assert_eq!(bench.replies(), [(a, Code::Lost)]);
    // The next attempt would come too late.
    let b = bench.call(b"b", 10_000, true);
    bench.reply(b.0, Code::Unavailable, Some(10_000), b"");
    assert_eq!(bench.replies(), [(b, Code::Unavailable)]);
}

#[test]
fn retries_have_an_end() {
    let mut bench = Bench::up(|config| config.max_retries = 3);
    let a = bench.call(b"a", 1_000_000, true);
    for attempt in 0..=3 {
        let (id, _, sent, ..) = bench.take_call();
        assert_eq!((id, sent), (a.0, attempt));
        bench.reply(a.0, Code::Unavailable, None, b"");
        let end_ms = bench.now_ms + 6_000;
        bench.run_until(end_ms, true);
    }
    assert_eq!((bench.replies(), bench.phone.stats().retried), (vec![(a, Code::Unavailable)], 3));
}

#[test]
fn a_body_larger_than_a_frame_ends_at_once() {
    let mut bench = Bench::up(|_| {});
    let huge = Bytes::from(vec![0; limits::MAX_FRAME_BODY_BYTES]);
    let a = bench.phone.call(0x0201, huge, 0, true, bench.now_ms);
    bench.settle();
    assert_eq!(bench.replies(), [(a, Code::Limit)]);
    // And one that waits is measured again when WELCOME says less.
    let mut bench = Bench::new(|_| {});
    let b = bench.phone.call(0x0201, Bytes::from(vec![0; 2_000]), 60_000, true, bench.now_ms);
    bench.phone.connect(bench.now_ms);
    bench.settle();
    bench.phone.handle_connected(bench.now_ms);
    bench.settle();
    bench.say(kind::WELCOME, &pb::Welcome { max_body_bytes: 1_000, ..welcome() });
    assert_eq!(bench.replies(), [(b, Code::Limit)]);
}
