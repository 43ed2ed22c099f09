//! No phone waits for ever.

use proptest::prelude::*;
use proto_wire::services;

use super::*;

fn news(number: u64, class: Class) -> News<'static> {
    News { class, newest: Cursor::new(1, number), prev: number - 1, page: b"page" }
}

use proto_wire::frame::Class;

#[test]
fn a_phone_whose_cursor_fits_gets_the_changes_with_the_notify() {
    let mut notes = Notes::new();
    let mut session = live(&mut notes, Cursor::new(1, 4));
    session.handle_news(&news(5, Class::Now), 10, &mut notes);
    assert_eq!(notes.notified(), [(5, true)]);
    session.handle_news(&news(7, Class::Now), 11, &mut notes);
    assert_eq!(notes.notified(), [], "one is outstanding");
    beat(&mut session, &mut notes, Some(Cursor::new(1, 5)), 12);
    assert_eq!(notes.notified(), [(7, false)], "what came meanwhile is told at once");
    assert_eq!(notes.applied, [Cursor::new(1, 5)]);
}

#[test]
fn a_phone_whose_cursor_does_not_fit_gets_the_number_only() {
    let mut notes = Notes::new();
    let mut session = live(&mut notes, Cursor::new(1, 2));
    session.handle_news(&news(5, Class::Now), 10, &mut notes);
    assert_eq!(notes.notified(), [(5, false)]);
}

#[test]
fn a_sync_that_gave_less_than_the_newest_is_followed_by_a_notify() {
    let mut notes = Notes::new();
    let mut session = live(&mut notes, Cursor::new(1, 0));
    session.handle_news(&News { page: &[], ..news(5, Class::Now) }, 10, &mut notes);
    call(&mut session, &mut notes, 1, services::sync::PULL.id).expect("forwarded");
    session.handle_news(&news(6, Class::Now), 11, &mut notes);
    assert_eq!(notes.notified(), [(5, false)]);
    let given = |number| Answer {
        code: Code::Ok,
        given: Some(Cursor::new(1, number)),
        retry_after_ms: None,
        body: b"",
    };
    session.handle_reply(1, true, &given(5), &mut notes);
    assert_eq!(notes.notified(), [(6, false)]);
    call(&mut session, &mut notes, 2, services::sync::PULL.id).expect("forwarded");
    session.handle_reply(2, true, &given(6), &mut notes);
    assert_eq!(notes.notified(), []);
    session.handle_news(&news(7, Class::Now), 12, &mut notes);
    assert_eq!(notes.notified(), [(7, true)], "a sync gave what was told, so nothing is outstanding");
}

/// The reply of a write, with the changes up to `number`.
fn written(session: &mut Session, notes: &mut Notes, number: u64) {
    let given = Some(Cursor::new(1, number));
    call(session, notes, 9, services::messages::SEND.id).expect("forwarded");
    let answer = Answer { code: Code::Ok, given, retry_after_ms: None, body: b"" };
    session.handle_reply(9, false, &answer, notes);
}

#[test]
fn what_a_reply_gave_needs_no_notify_and_is_where_the_next_changes_fit() {
    let mut notes = Notes::new();
    let mut session = live(&mut notes, Cursor::new(1, 4));
    written(&mut session, &mut notes, 5);
    session.handle_news(&news(5, Class::Now), 10, &mut notes);
    assert_eq!(notes.notified(), [], "the reply gave it");
    session.handle_news(&news(6, Class::Now), 11, &mut notes);
    assert_eq!(notes.notified(), [(6, true)]);
    written(&mut session, &mut notes, 7);
    // The answer to the notify crosses the reply.
    beat(&mut session, &mut notes, Some(Cursor::new(1, 6)), 12);
    assert_eq!(notes.notified(), []);
    session.handle_news(&news(8, Class::Now), 13, &mut notes);
    assert_eq!(notes.notified(), [(8, true)]);
}

#[test]
fn what_a_reply_gave_is_told_at_a_beat_that_says_nothing_of_it() {
    let mut notes = Notes::new();
    let mut session = live(&mut notes, Cursor::new(1, 4));
    written(&mut session, &mut notes, 5);
    beat(&mut session, &mut notes, None, 10);
    assert_eq!(notes.notified(), [(5, false)], "given is not applied");
    beat(&mut session, &mut notes, Some(Cursor::new(1, 5)), 11);
    beat(&mut session, &mut notes, None, 12);
    assert_eq!(notes.notified(), []);
}

#[test]
fn a_reply_that_gave_less_than_the_newest_is_followed_by_a_notify() {
    let mut notes = Notes::new();
    let mut session = live(&mut notes, Cursor::new(1, 4));
    session.handle_news(&news(5, Class::Now), 10, &mut notes);
    session.handle_news(&news(7, Class::Now), 11, &mut notes);
    written(&mut session, &mut notes, 6);
    assert_eq!(notes.notified(), [(5, true), (7, false)], "7 was not told, and 6 was given");
    written(&mut session, &mut notes, 8);
    call(&mut session, &mut notes, 1, services::sync::PULL.id).expect("forwarded");
    session.handle_news(&news(10, Class::Now), 12, &mut notes);
    assert_eq!(notes.notified(), [(10, false)], "the reply gave what was outstanding");
    written(&mut session, &mut notes, 9);
    assert_eq!(notes.notified(), [], "the sync's end looks at it");
    let given = Some(Cursor::new(1, 9));
    let answer = Answer { code: Code::Ok, given, retry_after_ms: None, body: b"" };
    session.handle_reply(1, true, &answer, &mut notes);
    assert_eq!(notes.notified(), [(10, false)]);
}

#[test]
fn a_call_that_says_what_was_applied_is_followed_by_what_came_meanwhile() {
    let mut notes = Notes::new();
    let mut session = live(&mut notes, Cursor::new(1, 4));
    session.handle_news(&news(5, Class::Now), 10, &mut notes);
    session.handle_news(&news(6, Class::Now), 11, &mut notes);
    let mut out = Vec::new();
    let applied = Some(Cursor::new(1, 5));
    Call {
        id: 1,
        method: services::messages::CREATE_GROUP.id,
        attempt: 0,
        deadline_ms: 0,
        applied,
        body: b"",
    }
    .put(&mut out);
    give(&mut session, &mut notes, frame::kind::CALL, &out[2..], 12).expect("forwarded");
    assert_eq!(notes.notified(), [(5, true), (6, false)]);
    assert_eq!(
        (&notes.carried[..], &notes.applied[..]),
        (&[Cursor::new(1, 5)][..], &[][..]),
        "no report besides"
    );
    // Every call takes along where the phone is; one that is refused here cannot.
    call(&mut session, &mut notes, 2, services::messages::CREATE_GROUP.id).expect("forwarded");
    assert_eq!(notes.carried, [Cursor::new(1, 5); 2]);
    notes.refuses_calls = Some(Code::Unavailable);
    let mut out = Vec::new();
    let (method, applied) = (services::messages::CREATE_GROUP.id, Some(Cursor::new(1, 6)));
    Call { id: 3, method, attempt: 0, deadline_ms: 0, applied, body: b"" }.put(&mut out);
    give(&mut session, &mut notes, frame::kind::CALL, &out[2..], 13).expect("answered");
    assert_eq!(notes.applied, [Cursor::new(1, 6)]);
}

#[test]
fn news_that_the_phone_has_are_reported_again() {
    let mut notes = Notes::new();
    let mut session = live(&mut notes, Cursor::new(1, 4));
    session.handle_news(&news(4, Class::Now), 10, &mut notes);
    assert_eq!((notes.notified(), notes.applied), (vec![], vec![Cursor::new(1, 4)]));
}

#[test]
fn a_notify_without_an_answer_is_sent_again_at_the_next_beat() {
    let mut notes = Notes::new();
    let mut session = live(&mut notes, Cursor::new(1, 0));
    session.handle_news(&news(3, Class::Now), 10, &mut notes);
    notes.sent();
    beat(&mut session, &mut notes, None, 20);
    assert_eq!(notes.notified(), [(3, false)]);
    assert!(notes.events.contains(&Event::NotifiedAgain));
}

#[test]
fn lazy_news_rides_on_the_next_beat_and_soon_waits_for_the_radio() {
    let mut notes = Notes::new();
    let mut session = live(&mut notes, Cursor::new(1, 0));
    session.handle_news(&news(1, Class::Lazy), 10, &mut notes);
    assert_eq!(notes.notified(), []);
    beat(&mut session, &mut notes, None, 20);
    assert_eq!(notes.notified(), [(1, false)]);
    beat(&mut session, &mut notes, Some(Cursor::new(1, 1)), 30);
    session.handle_news(&news(2, Class::Soon), 40, &mut notes);
    assert_eq!(notes.notified(), [(2, true)], "the radio is hot");
    beat(&mut session, &mut notes, Some(Cursor::new(1, 2)), 50);
    session.handle_news(&news(3, Class::Soon), 60_000, &mut notes);
    assert_eq!((notes.notified(), notes.wake_ms), (vec![], Some(62_000)));
    session.handle_timer(62_000, &mut notes);
    assert_eq!(notes.notified(), [(3, false)]);
}

#[test]
fn news_of_a_later_log_epoch_starts_over_and_of_an_earlier_one_is_ignored() {
    let mut notes = Notes::new();
    let mut session = live(&mut notes, Cursor::new(1, 50));
    let later = News { newest: Cursor::new(2, 3), ..news(3, Class::Now) };
    session.handle_news(&later, 10, &mut notes);
    assert_eq!(notes.notified(), [(3, false)]);
    session.handle_news(&news(60, Class::Now), 11, &mut notes);
    beat(&mut session, &mut notes, Some(Cursor::new(2, 3)), 12);
    assert_eq!(notes.notified(), []);
}

#[derive(Debug, Clone)]
enum Step {
    News(u64, u8),
    Beat,
    /// The phone says that it has applied part of what it was told.
    Applied(u8),
    Pull,
    /// The reply of the pull gives up to this far behind the newest.
    Given(u64),
    /// The pull ended without a page.
    PullFailed,
    /// The phone wrote, and the reply gives its change.
    Written,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (1u64..4, 0u8..3).prop_map(|(more, class)| Step::News(more, class)),
        Just(Step::Beat),
        (0u8..=100).prop_map(Step::Applied),
        Just(Step::Pull),
        (0u64..3).prop_map(Step::Given),
        Just(Step::PullFailed),
        Just(Step::Written),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    /// Whatever happens: while the phone lacks something that is not lazy, a notify is out, a sync is out, or the
    /// window of `soon` runs. And one plain beat with no sync out always brings the newest number.
    #[test]
    fn whoever_lacks_something_is_told(steps in steps()) {
        let mut notes = Notes::new();
        let mut session = live(&mut notes, Cursor::new(1, 0));
        let (mut newest, mut lazy_from, mut pulls, mut now_ms) = (0u64, u64::MAX, 0u32, 0u64);
        for step in steps {
            now_ms += 4_000;
            match step {
                Step::News(more, class) => {
                    newest += more;
                    let class = Class::from_u8(class).expect("0 to 2");
                    if class == Class::Lazy {
                        lazy_from = lazy_from.min(newest);
                    } else {
                        lazy_from = u64::MAX;
                    }
                    let page = News { class, newest: Cursor::new(1, newest), prev: newest - more, page: b"p" };
                    session.handle_news(&page, now_ms, &mut notes);
                }
                Step::Beat => {
                    let lacks = newest > session.applied && session.flags & flag::SYNC_IN_FLIGHT == 0;
                    notes.sent();
                    beat(&mut session, &mut notes, None, now_ms);
                    let told = notes.notified().last().map(|(number, _)| *number);
                    prop_assert!(!lacks || told == Some(newest), "told {told:?}");
                    lazy_from = u64::MAX;
                }
                Step::Applied(percent) => {
                    let number = session.applied + (newest - session.applied) * u64::from(percent) / 100;
                    beat(&mut session, &mut notes, Some(Cursor::new(1, number)), now_ms);
                    lazy_from = u64::MAX;
                }
                Step::Pull if session.flags & flag::SYNC_IN_FLIGHT == 0 => {
                    pulls += 1;
                    call(&mut session, &mut notes, pulls, services::sync::PULL.id).expect("forwarded");
                }
                Step::Given(behind) if session.flags & flag::SYNC_IN_FLIGHT != 0 => {
                    let given = newest.saturating_sub(behind).max(session.applied);
                    let answer = Answer {
                        code: Code::Ok, given: Some(Cursor::new(1, given)), retry_after_ms: None, body: b"",
                    };
                    session.handle_reply(pulls, true, &answer, &mut notes);
                    // The phone applies the page and says so.
                    beat(&mut session, &mut notes, Some(Cursor::new(1, given)), now_ms);
                    lazy_from = u64::MAX;
                }
                Step::PullFailed if session.flags & flag::SYNC_IN_FLIGHT != 0 => {
                    session.handle_reply(pulls, true, &Answer::failure(Code::Lost, ""), &mut notes);
                }
                Step::Written => {
                    newest += 1;
                    written(&mut session, &mut notes, newest);
                }
                _ => {}
            }
            let lacks = newest > session.applied;
            let will_be_told = session.told.max(session.given) > session.applied
                || session.flags & (flag::SYNC_IN_FLIGHT | flag::SOON) != 0
                || lazy_from <= newest;
            prop_assert!(!lacks || will_be_told, "newest {newest}, {session:?}");
        }
    }
}
