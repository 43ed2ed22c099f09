//! Hello, calls, timers: what is allowed when.

use proto_wire::services;

use super::*;

#[test]
fn hello_is_answered_with_welcome_and_announced() {
    let (mut notes, mut session) = (Notes::new(), Session::new(1, 0));
    give(&mut session, &mut notes, frame::kind::HELLO, &hello("5", Cursor::new(1, 9)), 0).expect("welcome");
    assert_eq!(notes.sent()[0].0, frame::kind::WELCOME);
    assert_eq!((session.state(), session.user, notes.online), (State::Live, 5, 1));
    assert!(session.is_announced());
    assert_eq!(session.applied_cursor(), Cursor::new(1, 9));
}

#[test]
fn what_may_not_come_is_named() {
    let mut notes = Notes::new();
    let reason = |session: &mut Session, notes: &mut Notes, kind, body: &[u8]| {
        give(session, notes, kind, body, 0).expect_err("refused").reason
    };
    let fresh = || Session::new(1, 0);
    let at_start = Cursor::default();
    assert_eq!(reason(&mut fresh(), &mut notes, frame::kind::BEAT, &[]), Reason::OutOfPlace);
    assert_eq!(reason(&mut fresh(), &mut notes, frame::kind::EVENT, &[]), Reason::OutOfPlace);
    let bad = hello("nobody", at_start);
    assert_eq!(reason(&mut fresh(), &mut notes, frame::kind::HELLO, &bad), Reason::BadToken);
    let expired = hello("expired", at_start);
    assert_eq!(reason(&mut fresh(), &mut notes, frame::kind::HELLO, &expired), Reason::ExpiredToken);
    assert_eq!(reason(&mut fresh(), &mut notes, frame::kind::HELLO, &[0xff]), Reason::BadFrame);
    let mut session = live(&mut notes, at_start);
    let again = hello("5", at_start);
    assert_eq!(reason(&mut session, &mut notes, frame::kind::HELLO, &again), Reason::OutOfPlace);
    assert_eq!(reason(&mut session, &mut notes, frame::kind::WELCOME, &[]), Reason::OutOfPlace);
    assert_eq!(reason(&mut session, &mut notes, frame::kind::CALL, &[1]), Reason::BadFrame);
    assert_eq!(notes.online, 1, "nobody else came online");
}

#[test]
fn a_foreign_major_version_is_refused() {
    use prost::Message;
    let (mut notes, mut session) = (Notes::new(), Session::new(1, 0));
    let hello = pb::Hello { version_major: 2, ..Default::default() }.encode_to_vec();
    let refusal = give(&mut session, &mut notes, frame::kind::HELLO, &hello, 0).expect_err("refused");
    assert_eq!(refusal.reason, Reason::Version);
}

#[test]
fn a_frame_that_may_be_skipped_is_skipped() {
    let mut notes = Notes::new();
    let mut session = live(&mut notes, Cursor::default());
    give(&mut session, &mut notes, frame::kind::TRACE, b"anything", 1).expect("skipped");
    assert!(notes.events.contains(&Event::Skipped));
}

#[test]
fn a_session_without_a_token_may_only_sign_up() {
    let (mut notes, mut session) = (Notes::new(), Session::new(1, 0));
    give(&mut session, &mut notes, frame::kind::HELLO, &hello("", Cursor::default()), 0).expect("welcome");
    notes.sent();
    assert_eq!((session.state(), notes.online), (State::Anonymous, 0));
    call(&mut session, &mut notes, 1, services::messages::SEND.id).expect("answered");
    assert_eq!(replies(&mut notes), [(1, Code::Denied)]);
    call(&mut session, &mut notes, 2, services::account::SIGN_UP.id).expect("forwarded");
    assert_eq!(notes.calls, [(2, services::account::SIGN_UP.id)]);
    let Timer::Close(refusal) = session.handle_timer(30_000, &mut notes) else { panic!("its time is up") };
    assert_eq!(refusal.reason, Reason::AnonymousTimeout);
}

#[test]
fn internal_and_unknown_methods_are_no_phones_business() {
    let mut notes = Notes::new();
    let mut session = live(&mut notes, Cursor::default());
    call(&mut session, &mut notes, 1, services::presence::REPORT.id).expect("answered");
    call(&mut session, &mut notes, 2, 0xffff).expect("answered");
    assert_eq!(replies(&mut notes), [(1, Code::Denied), (2, Code::UnknownMethod)]);
    assert!(notes.calls.is_empty());
}

#[test]
fn calls_are_bounded_and_whoever_never_stops_is_closed() {
    let mut notes = Notes::new();
    let mut session = live(&mut notes, Cursor::default());
    let method = services::echo::SAY.id;
    for id in 0..16 {
        call(&mut session, &mut notes, id, method).expect("forwarded");
    }
    call(&mut session, &mut notes, 16, method).expect("answered");
    assert_eq!(replies(&mut notes), [(16, Code::TooMany)]);
    session.handle_reply(3, false, &Answer::failure(Code::Lost, "x"), &mut notes);
    call(&mut session, &mut notes, 17, method).expect("there is room again");
    assert_eq!(replies(&mut notes), [(3, Code::Lost)]);
    let refusal = (0..200).find_map(|id| call(&mut session, &mut notes, id, method).err()).expect("closed");
    assert_eq!(refusal.reason, Reason::Abuse);
}

#[test]
fn a_call_that_no_backend_takes_is_answered() {
    let mut notes = Notes::new();
    let mut session = live(&mut notes, Cursor::default());
    notes.refuses_calls = Some(Code::Unavailable);
    call(&mut session, &mut notes, 1, services::echo::SAY.id).expect("answered");
    assert_eq!(replies(&mut notes), [(1, Code::Unavailable)]);
}

#[test]
fn silence_ends_a_session_and_any_frame_keeps_it() {
    let (mut notes, mut fresh) = (Notes::new(), Session::new(1, 0));
    let Timer::Close(refusal) = fresh.handle_timer(8_000, &mut notes) else { panic!("HELLO is late") };
    assert_eq!(refusal.reason, Reason::HelloTimeout);
    let mut session = live(&mut notes, Cursor::default());
    let idle_ms = notes.limits.idle_ms(240);
    assert_eq!(session.handle_timer(8_000, &mut notes), Timer::At(idle_ms));
    beat(&mut session, &mut notes, None, 100_000);
    assert_eq!(session.handle_timer(idle_ms, &mut notes), Timer::At(100_000 + idle_ms));
    let Timer::Close(refusal) = session.handle_timer(100_000 + idle_ms, &mut notes) else { panic!("silent") };
    assert_eq!(refusal.reason, Reason::Idle);
}

#[test]
fn a_beat_is_answered_with_a_beat() {
    let mut notes = Notes::new();
    let mut session = live(&mut notes, Cursor::default());
    beat(&mut session, &mut notes, None, 5);
    assert_eq!((notes.beats, notes.out.len()), (1, 0));
}

/// A HELLO of device 7 with a ticket and perhaps a token.
fn returning(ticket: &str, token: &str) -> Vec<u8> {
    use prost::Message;
    let (ticket, token) = (ticket.to_owned().into_bytes().into(), token.to_owned().into_bytes().into());
    pb::Hello { version_major: 1, device: 7, ticket, token, ..Default::default() }.encode_to_vec()
}

#[test]
fn a_ticket_stands_for_the_token() {
    use prost::Message;
    let (mut notes, mut session) = (Notes::new(), Session::new(1, 0));
    give(&mut session, &mut notes, frame::kind::HELLO, &returning("ticket7", ""), 0).expect("welcome");
    let (_, body) = notes.sent().remove(0);
    let welcome = pb::Welcome::decode(&body[..]).expect("a WELCOME");
    assert_eq!((welcome.user, &welcome.ticket[..2], welcome.ticket_good_s), (5, &[5, 7][..], 99));
    assert_eq!((session.state(), notes.online), (State::Live, 1));
    assert!(notes.events.contains(&Event::Resumed));
}

#[test]
fn a_ticket_that_is_not_good_asks_for_the_token() {
    let mut notes = Notes::new();
    for ticket in ["forged", "ticket8"] {
        let mut session = Session::new(1, 0);
        let hello = returning(ticket, "");
        let refusal = give(&mut session, &mut notes, frame::kind::HELLO, &hello, 0).expect_err("refused");
        assert_eq!(refusal.reason, Reason::Ticket, "{ticket}");
        assert!(!Reason::Ticket.is_terminal() && notes.online == 0 && notes.sent().is_empty());
    }
    let mut session = Session::new(1, 0);
    give(&mut session, &mut notes, frame::kind::HELLO, &returning("ticket8", "6"), 0).expect("by its token");
    assert_eq!((session.user, notes.events.contains(&Event::Resumed)), (6, false));
    let mut session = Session::new(1, 0);
    let hello = returning("ticket8", "nobody");
    let refusal = give(&mut session, &mut notes, frame::kind::HELLO, &hello, 0).expect_err("neither");
    assert_eq!(refusal.reason, Reason::BadToken);
}
