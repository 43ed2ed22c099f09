//! Nothing that a server sends makes a phone panic, spin or grow.

use super::*;
use proptest::prelude::*;

/// One step of a world that knows no rules.
#[derive(Debug, Clone)]
enum Step {
    Bytes(Vec<u8>),
    Frame(u8, Vec<u8>),
    Connected,
    Closed,
    Call(bool),
    Connect,
    Close,
    Time(u16),
}

fn steps() -> impl Strategy<Value = Step> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..40);
    prop_oneof![
        2 => bytes().prop_map(Step::Bytes),
        8 => (prop_oneof![1u8..=8, Just(0x83u8)], bytes()).prop_map(|(kind, body)| Step::Frame(kind, body)),
        4 => Just(Step::Connected),
        1 => Just(Step::Closed),
        3 => any::<bool>().prop_map(Step::Call),
        2 => Just(Step::Connect),
        1 => Just(Step::Close),
        4 => any::<u16>().prop_map(Step::Time),
    ]
}

proptest! {
    #[test]
    fn any_bytes_are_answered(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..100), 0..10)) {
        let mut bench = Bench::up(|_| {});
        for chunk in chunks {
            bench.feed(&chunk);
        }
    }

    #[test]
    fn every_call_ends_once_and_every_wait_ends(steps in proptest::collection::vec(steps(), 0..80)) {
        let mut bench = Bench::new(|config| config.sync_on_connect = true);
        let (mut made, mut ended) = (vec![], vec![]);
        for step in steps {
            match step {
                Step::Bytes(bytes) => bench.feed(&bytes),
                Step::Frame(kind, body) => {
                    let mut out = Vec::new();
                    frame::put_header(&mut out, kind, body.len());
                    out.extend_from_slice(&body);
                    bench.feed(&out);
                }
                Step::Connected => {
                    bench.phone.handle_connected(bench.now_ms);
                    bench.settle();
                    bench.say(kind::WELCOME, &welcome());
                }
                Step::Closed => bench.cut(Ended::Reset),
                Step::Call(idempotent) => {
                    made.push(bench.phone.call(0x0201, Bytes::from_static(b"x"), 5_000, idempotent, bench.now_ms));
                }
                Step::Connect => bench.phone.connect(bench.now_ms),
                Step::Close => bench.phone.close(),
                Step::Time(ms) => bench.run_until(bench.now_ms + u64::from(ms), false),
            }
            bench.settle();
        }
        bench.run_until(bench.now_ms + 100_000, false);
        for event in bench.take_events() {
            if let PhoneEvent::Reply { handle, .. } = event {
                ended.push(handle);
            }
        }
        ended.sort();
        prop_assert_eq!(made, ended);
    }

    #[test]
    fn pages_in_any_order_are_applied_once_and_in_order(
        notifies in proptest::collection::vec((0u64..12, 1u64..5, any::<bool>()), 1..30)
    ) {
        let mut bench = Bench::up(|_| {});
        for (after, count, inline) in notifies {
            let changes = (after + 1..=after + count).map(|number| pb::Change { number, ..pb::Change::default() });
            let page = pb::Page { log_epoch: 1, after, upto: after + count, changes: changes.collect(), ..pb::Page::default() };
            bench.notify(Cursor::new(1, page.upto), inline.then_some(page));
        }
        let mut last = 0;
        for event in bench.take_events() {
            if let PhoneEvent::Page { page } = event {
                for change in page.changes {
                    prop_assert_eq!(change.number, last + 1);
                    last += 1;
                }
            }
        }
        prop_assert_eq!(bench.phone.cursor().number, last);
    }
}
