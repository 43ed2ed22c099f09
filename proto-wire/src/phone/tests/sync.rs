//! Pages, notifies, gaps and snapshots.

use super::*;
use crate::services;

fn change(number: u64) -> pb::Change {
    pb::Change { number, item: Some(pb::ItemId { origin: 7, number }), version: 1, ..pb::Change::default() }
}

/// The page after `after` that holds `numbers` of epoch 1.
fn page(after: u64, numbers: &[u64], more: bool) -> pb::Page {
    let changes: Vec<_> = numbers.iter().copied().map(change).collect();
    let upto = numbers.last().copied().unwrap_or(after);
    pb::Page { log_epoch: 1, after, upto, more, changes, ..pb::Page::default() }
}

fn at(number: u64) -> Cursor {
    Cursor::new(1, number)
}

impl Bench {
    /// A phone that has applied up to `number`.
    fn synced(number: u64) -> Self {
        let mut bench = Bench::up(|_| {});
        bench.notify(at(number), Some(page(0, &(1..=number).collect::<Vec<_>>(), false)));
        assert_eq!(bench.phone.cursor(), at(number));
        bench.sent.clear();
        bench.events.clear();
        bench
    }

    /// The pull that is out: its id and the cursor that it asks from.
    fn take_pull(&mut self) -> (u32, pb::PullRequest) {
        let (id, method, _, _, body) = self.take_call();
        assert_eq!(method, services::sync::PULL.id);
        (id, pb::PullRequest::decode(&body[..]).expect("a pull"))
    }

    fn answer(&mut self, id: u32, page: &pb::Page) {
        self.reply(id, Code::Ok, None, &page.encode_to_vec());
    }

    /// Calls `Messages.Send`, and gives the call's id.
    fn write(&mut self) -> u32 {
        self.phone.call(services::messages::SEND.id, Bytes::new(), 0, true, self.now_ms);
        self.settle();
        self.take_call().0
    }

    /// The answer of a write, with what the server believes this phone lacked.
    fn written(&mut self, id: u32, given: Cursor, page: Bytes) {
        let body = pb::SendReply { page, ..pb::SendReply::default() }.encode_to_vec();
        let mut out = Vec::new();
        Reply { id, status: Code::Ok, given: Some(given), retry_after_ms: None, body: &body }.put(&mut out);
        self.feed(&out);
    }

    /// Numbers of the changes that were given to the owner.
    fn applied(&mut self) -> Vec<u64> {
        let numbers = |event| match event {
            PhoneEvent::Page { page } => page.changes.iter().map(|change| change.number).collect(),
            _ => vec![],
        };
        self.take_events().into_iter().flat_map(numbers).collect()
    }
}

#[test]
fn an_inline_page_that_fits_needs_no_round_trip() {
    let mut bench = Bench::up(|_| {});
    bench.notify(at(2), Some(page(0, &[1, 2], false)));
    assert_eq!(bench.applied(), [1, 2]);
    assert_eq!(bench.take_sent(), [Sent::Beat(Some(at(2)))]);
    // Versions that a later change replaced leave holes, which are no gaps.
    bench.notify(at(9), Some(page(2, &[5, 9], false)));
    assert_eq!(bench.applied(), [5, 9]);
    assert_eq!(bench.take_sent(), [Sent::Beat(Some(at(9)))]);
    assert_eq!((bench.phone.stats().pulls, bench.phone.stats().gaps), (0, 0));
}

#[test]
fn a_call_that_leaves_says_what_was_applied() {
    let mut bench = Bench::up(|_| {});
    let mut out = Vec::new();
    let bytes = page(0, &[1], false).encode_to_vec();
    let inline = Some(frame::Inline { prev: 0, page: &bytes });
    Notify { class: frame::Class::Now, newest: at(1), inline }.put(&mut out);
    bench.phone.handle_bytes(&out, bench.now_ms);
    while bench.phone.poll_event().is_some() {}
    bench.phone.call(0x0201, Bytes::new(), 0, true, bench.now_ms);
    bench.settle();
    assert!(matches!(
        bench.take_sent()[..],
        [Sent::Call { applied: Some(Cursor { log_epoch: 1, number: 1 }), .. }]
    ));
    bench.phone.call(0x0201, Bytes::new(), 0, true, bench.now_ms);
    bench.settle();
    assert!(matches!(bench.take_sent()[..], [Sent::Call { applied: None, .. }]), "once is enough");
}

#[test]
fn nothing_is_told_before_the_owner_took_it() {
    let mut bench = Bench::up(|_| {});
    let mut out = Vec::new();
    let bytes = page(0, &[1], false).encode_to_vec();
    let inline = Some(frame::Inline { prev: 0, page: &bytes });
    Notify { class: frame::Class::Now, newest: at(1), inline }.put(&mut out);
    bench.phone.handle_bytes(&out, bench.now_ms);
    assert!(!bench.phone.poll_transmit(&mut Vec::new()));
    assert_eq!(bench.phone.cursor(), Cursor::default());
    bench.settle();
    assert_eq!(bench.take_sent(), [Sent::Beat(Some(at(1)))]);
}

#[test]
fn a_notify_without_changes_is_pulled_page_by_page() {
    let mut bench = Bench::synced(2);
    bench.notify(at(6), None);
    let (id, request) = bench.take_pull();
    assert_eq!(request.cursor, Some(pb::Cursor { log_epoch: 1, number: 2 }));
    // News while a pull is out waits for it: one at a time.
    bench.notify(at(7), None);
    assert_eq!(bench.take_sent(), []);
    bench.answer(id, &page(2, &[3, 4], true));
    assert_eq!(bench.applied(), [3, 4]);
    let (id, _, _, applied, body) = bench.take_call();
    let request = pb::PullRequest::decode(&body[..]).expect("a pull");
    assert_eq!((request.cursor.map(|cursor| cursor.number), applied), (Some(4), Some(at(4))));
    bench.answer(id, &page(4, &[5, 6], false));
    assert_eq!(bench.applied(), [5, 6]);
    let sent = bench.take_sent();
    assert!(matches!(sent[..], [Sent::Beat(Some(_))]), "7 was told before the last pull left: {sent:?}");
}

#[test]
fn news_that_came_during_the_pull_is_pulled() {
    let mut bench = Bench::synced(2);
    bench.notify(at(3), None);
    let (id, _) = bench.take_pull();
    bench.notify(at(4), None);
    bench.answer(id, &page(2, &[3], false));
    let (id, request) = bench.take_pull();
    assert_eq!(request.cursor.map(|cursor| cursor.number), Some(3));
    bench.answer(id, &page(3, &[4], false));
    assert_eq!(bench.take_sent(), [Sent::Beat(Some(at(4)))]);
    assert_eq!(bench.applied(), [3, 4]);
}

#[test]
fn a_page_beyond_the_cursor_is_a_gap_and_is_never_applied() {
    let mut bench = Bench::synced(2);
    bench.notify(at(5), Some(page(4, &[5], false)));
    assert_eq!(
        bench.take_events(),
        [PhoneEvent::Gap { cursor: at(2), log_epoch: 1, after: 4, why: GapWhy::Beyond }]
    );
    let (id, _) = bench.take_pull();
    bench.answer(id, &page(2, &[3, 4, 5], false));
    assert_eq!(bench.applied(), [3, 4, 5]);
    assert_eq!(bench.phone.stats().gaps, 1);
}

#[test]
fn what_came_before_is_dropped() {
    let mut bench = Bench::synced(4);
    bench.notify(at(4), Some(page(2, &[3, 4], false)));
    assert_eq!(bench.take_events(), [PhoneEvent::Repeat { changes: 2, upto: 4 }]);
    assert_eq!(bench.take_sent(), [Sent::Beat(Some(at(4)))], "the server does not know: it is told again");
    bench.notify(at(6), Some(page(3, &[4, 5, 6], false)));
    let events = bench.take_events();
    assert_eq!(events[0], PhoneEvent::Repeat { changes: 1, upto: 4 });
    assert!(matches!(&events[1], PhoneEvent::Page { page } if page.changes.len() == 2));
    assert_eq!((bench.phone.stats().repeats, bench.phone.stats().pulls), (3, 0));
}

#[test]
fn an_inline_page_overtakes_the_pull_that_is_out() {
    let mut bench = Bench::synced(2);
    bench.notify(at(3), None);
    let (id, _) = bench.take_pull();
    bench.notify(at(4), Some(page(2, &[3, 4], false)));
    assert_eq!(bench.applied(), [3, 4]);
    bench.answer(id, &page(2, &[3], false));
    assert_eq!(bench.take_events(), [PhoneEvent::Repeat { changes: 1, upto: 3 }]);
    assert_eq!(bench.phone.cursor(), at(4));
    assert_eq!(bench.take_sent(), [Sent::Beat(Some(at(4)))]);
}

#[test]
fn pages_that_lie_are_refused() {
    for (lie, why) in [
        (page(2, &[4, 3], false), GapWhy::NotRising),
        (page(2, &[2, 3], false), GapWhy::NotRising),
        (pb::Page { upto: 3, ..page(2, &[3, 4], false) }, GapWhy::NotRising),
        (page(2, &[], true), GapWhy::NoProgress),
        (page(3, &[4], false), GapWhy::Beyond),
        (pb::Page { log_epoch: 2, ..page(2, &[3], false) }, GapWhy::Epoch),
    ] {
        let mut bench = Bench::synced(2);
        bench.notify(at(4), None);
        let (id, _) = bench.take_pull();
        bench.answer(id, &lie);
        let events = bench.take_events();
        assert!(matches!(&events[..], [PhoneEvent::Gap { why: found, .. }] if *found == why), "{events:?}");
        assert_eq!((bench.phone.cursor(), bench.take_sent()), (at(2), vec![]), "not at once again");
        bench.run_until(bench.now_ms + 1_000, true);
        let (id, _) = bench.take_pull();
        bench.reply(id, Code::Ok, None, &[0xff; 3]);
        assert!(matches!(bench.take_events()[..], [PhoneEvent::Gap { why: GapWhy::Malformed, .. }]));
    }
}

#[test]
fn another_epoch_is_answered_with_a_snapshot() {
    let mut bench = Bench::synced(5);
    let newest = Cursor::new(2, 3);
    bench.notify(newest, None);
    let (id, _) = bench.take_pull();
    let part = |next: &'static [u8], upto| pb::Page {
        log_epoch: 2,
        upto,
        snapshot: true,
        snapshot_next: Bytes::from_static(next),
        changes: vec![change(upto)],
        ..pb::Page::default()
    };
    bench.answer(id, &part(b"place", 2));
    assert!(matches!(bench.take_events()[..], [PhoneEvent::Snapshot { first: true, last: false, .. }]));
    assert_eq!(bench.phone.cursor(), at(5), "the cursor moves with the last part");
    let (id, request) = bench.take_pull();
    assert_eq!(&request.snapshot_at[..], b"place");
    // News in the middle is no page for this state.
    bench.notify(Cursor::new(2, 4), Some(pb::Page { log_epoch: 2, ..page(3, &[4], false) }));
    assert_eq!(bench.take_events(), []);
    // A cut in the middle: the snapshot goes on where it was.
    bench.cut(Ended::Reset);
    bench.wait_for_connect();
    bench.connect();
    bench.take_events();
    let sent = bench.take_sent();
    let Some(Sent::Call { id: again, body, .. }) = sent.last() else {
        panic!("a pull after a reconnect: {sent:?}")
    };
    assert!(*again != id && pb::PullRequest::decode(&body[..]).expect("a pull").snapshot_at == "place");
    bench.answer(*again, &part(b"", 3));
    assert!(matches!(bench.take_events()[..], [PhoneEvent::Snapshot { first: false, last: true, .. }]));
    assert_eq!(bench.phone.cursor(), Cursor::new(2, 3));
    let sent = bench.take_sent();
    assert_eq!(sent, [Sent::Beat(Some(Cursor::new(2, 3)))]);
    bench.notify(Cursor::new(2, 4), Some(pb::Page { log_epoch: 2, ..page(3, &[4], false) }));
    assert_eq!(bench.applied(), [4]);
}

#[test]
fn a_reconnect_pulls_what_is_known_to_lack_and_the_first_connect_when_asked() {
    for sync_on_connect in [false, true] {
        let mut bench = Bench::new(|config| config.sync_on_connect = sync_on_connect);
        bench.phone.connect(bench.now_ms);
        bench.connect();
        assert_eq!(bench.phone.stats().pulls, u32::from(sync_on_connect));
        bench.cut(Ended::Reset);
        bench.wait_for_connect();
        bench.connect();
        assert_eq!(bench.phone.stats().pulls, u32::from(sync_on_connect), "it knows of nothing");
    }
    let mut bench = Bench::synced(2);
    bench.notify(at(3), None);
    bench.take_pull();
    bench.cut(Ended::Reset);
    bench.wait_for_connect();
    bench.connect();
    let sent = bench.take_sent();
    assert!(
        matches!(&sent[..], [Sent::Hello(_), Sent::Call { .. }]),
        "it was cut off before the answer: {sent:?}"
    );
    // A session without a user has no log.
    let mut bench = Bench::new(|config| config.sync_on_connect = true);
    bench.phone.connect(bench.now_ms);
    bench.settle();
    bench.phone.handle_connected(bench.now_ms);
    bench.say(kind::WELCOME, &pb::Welcome { user: 0, ..welcome() });
    assert_eq!(bench.phone.stats().pulls, 0);
}

#[test]
fn a_failed_pull_is_repeated_unless_that_is_useless() {
    let mut bench = Bench::synced(2);
    bench.notify(at(3), None);
    let (id, _) = bench.take_pull();
    bench.reply(id, Code::Unavailable, Some(400), b"no backend");
    assert!(matches!(
        bench.take_events()[..],
        [PhoneEvent::SyncFailed { status: Code::Unavailable, retries: true, .. }]
    ));
    bench.run_until(1_399, true);
    assert_eq!(bench.take_sent(), []);
    bench.run_until(1_400, true);
    let (id, _) = bench.take_pull();
    // This one is never answered.
    bench.run_until(1_400 + 10_000, true);
    assert!(matches!(
        bench.take_events()[..],
        [PhoneEvent::SyncFailed { status: Code::Deadline, retries: true, .. }]
    ));
    bench.reply(id, Code::Ok, None, b"");
    assert_eq!(bench.phone.stats().replies_late, 1);
    bench.sent.clear();
    bench.run_until(bench.now_ms + 5_000, true);
    let (id, _) = bench.take_pull();
    bench.reply(id, Code::Denied, None, b"");
    assert!(matches!(bench.take_events()[..], [PhoneEvent::SyncFailed { retries: false, .. }]));
    bench.run_until(bench.now_ms + 30_000, true);
    assert_eq!(bench.take_sent(), []);
    bench.notify(at(4), None);
    bench.take_pull();
}

fn encoded(page: &pb::Page) -> Bytes {
    page.encode_to_vec().into()
}

#[test]
fn what_comes_with_the_answer_of_a_write_is_applied_and_said_by_the_next_frame() {
    let mut bench = Bench::synced(4);
    let id = bench.write();
    bench.written(id, at(6), encoded(&page(4, &[5, 6], false)));
    assert!(matches!(bench.events[0].1, PhoneEvent::Reply { status: Code::Ok, .. }));
    assert_eq!((bench.applied(), bench.phone.cursor()), (vec![5, 6], at(6)));
    assert_eq!(bench.take_sent(), [], "the server gave it: no frame for that alone");
    bench.phone.call(services::messages::SEND.id, Bytes::new(), 0, true, bench.now_ms);
    bench.settle();
    let (id, _, _, applied, _) = bench.take_call();
    assert_eq!(applied, Some(at(6)));
    bench.written(id, at(7), encoded(&page(6, &[7], false)));
    // A beat asks what is untold, so it comes behind the word.
    bench.run_until(bench.now_ms + 60_000, true);
    assert_eq!(bench.take_sent(), [Sent::Beat(Some(at(7))), Sent::Beat(None)]);
    bench.run_until(bench.now_ms + 60_000, true);
    assert_eq!(bench.take_sent(), [Sent::Beat(None)], "once is enough");
    assert_eq!((bench.phone.stats().pulls, bench.phone.stats().gaps), (0, 0));
}

#[test]
fn a_notify_behind_the_answer_of_a_write_is_answered_for_both() {
    let mut bench = Bench::synced(4);
    let id = bench.write();
    bench.written(id, at(5), encoded(&page(4, &[5], false)));
    bench.notify(at(6), Some(page(5, &[6], false)));
    assert_eq!((bench.applied(), bench.take_sent()), (vec![5, 6], vec![Sent::Beat(Some(at(6)))]));
    let id = bench.write();
    bench.written(id, at(7), encoded(&page(6, &[7], false)));
    bench.take_sent();
    bench.notify(at(7), None);
    assert_eq!(bench.take_sent(), [Sent::Beat(Some(at(7)))], "the server does not know, so it is said");
}

#[test]
fn an_answer_that_gives_what_is_not_here_leads_to_a_pull() {
    let cases: [(&str, Bytes, u32); 4] = [
        ("it begins beyond the cursor", encoded(&page(6, &[7], false)), 1),
        ("it ends elsewhere than the answer says", encoded(&page(4, &[5], false)), 1),
        ("it is no page", Bytes::from_static(b"\xff\xff"), 0),
        ("it has none", Bytes::new(), 0),
    ];
    for (what, bytes, gaps) in cases {
        let mut bench = Bench::synced(4);
        let id = bench.write();
        bench.written(id, at(7), bytes);
        assert_eq!(bench.applied(), [], "{what}");
        assert_eq!(bench.phone.stats().gaps, gaps, "{what}");
        let (pull, request) = bench.take_pull();
        assert_eq!(request.cursor.map(|cursor| cursor.number), Some(4), "{what}");
        bench.answer(pull, &page(4, &[5, 6, 7], false));
        assert_eq!((bench.applied(), bench.take_sent()), (vec![5, 6, 7], vec![Sent::Beat(Some(at(7)))]));
    }
}

#[test]
fn an_answer_that_comes_too_late_still_tells_what_it_gave() {
    let mut bench = Bench::synced(4);
    let id = bench.write();
    bench.run_until(bench.now_ms + 10_000, true);
    assert_eq!(bench.phone.stats().replies_late, 0);
    bench.take_sent();
    bench.written(id, at(5), encoded(&page(4, &[5], false)));
    assert_eq!((bench.phone.stats().replies_late, bench.applied()), (1, vec![]));
    let (pull, _) = bench.take_pull();
    bench.answer(pull, &page(4, &[5], false));
    assert_eq!(bench.applied(), [5]);
}
