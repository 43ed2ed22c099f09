//! Callees that misbehave or break: what their callers get, and that the next call is fine.

use std::thread;
use std::time::Duration;

use backend_stub::rpc::client::{Client, ClientConfig};
use proto_wire::pb;
use proto_wire::rpc::header::{Header, Kind};
use proto_wire::rpc::method::CallOptions;
use proto_wire::services::echo;
use proto_wire::status::Code;

use crate::fixture::*;
use crate::script::{Caller, Script, reply};

fn to(script: &Script) -> ClientConfig {
    Way::Long.to(script.addr, "".as_ref())
}

/// The first connection answers its first call with `bytes`, all others are an echo.
fn answers_first_with(bytes: impl Fn(&Header) -> Vec<u8> + Send + Sync + 'static) -> Script {
    Script::start(move |number, caller: &mut Caller| {
        if number > 0 {
            return caller.echo();
        }
        if let Some((call, _)) = caller.call() {
            caller.send(&bytes(&call));
            caller.wait_for_end();
        }
    })
}

/// The first call is lost, once, with `text` in its status; the next one is answered over a new connection.
fn loses_one(script: Script, text: &'static str) {
    with_client(to(&script), move |client| async move {
        let status = call(&client, &ONCE, b"one").await.expect_err("it is lost");
        assert_eq!(status.code, Code::Lost, "{status}");
        assert!(status.text.contains(text), "{status}");
        assert_eq!(call(&client, &ONCE, b"two").await.expect("it is answered"), "two");
    });
    assert_eq!(script.calls(), 2);
}

#[test]
fn a_connection_that_is_cut_in_the_middle_of_a_frame_loses_its_call() {
    for cut in [1, 40, 64, 66] {
        let script = Script::start(move |number, caller| {
            if number > 0 {
                return caller.echo();
            }
            let (call, body) = caller.call().expect("a call");
            caller.send(&reply(&call, &body)[..cut]);
        });
        loses_one(script, "closed it");
    }
}

#[test]
fn an_answer_to_nothing_ends_the_connection() {
    let script = answers_first_with(|call| {
        let never = Header { call_id: call.call_id ^ 0xffff, ..Header::default() };
        reply(&never, b"x")
    });
    loses_one(script, "which was never made");
}

#[test]
fn a_length_of_a_hundred_mib_ends_the_connection() {
    let script = answers_first_with(|call| {
        let mut frame = reply(call, b"");
        frame[8..12].copy_from_slice(&(100u32 << 20).to_le_bytes());
        frame
    });
    loses_one(script, "104857600 bytes is over the limit");
}

#[test]
fn a_wrong_version_ends_the_connection() {
    let script = answers_first_with(|call| {
        let mut frame = reply(call, b"");
        frame[2] = 2;
        frame
    });
    loses_one(script, "version 2 is not spoken here");
}

#[test]
fn a_frame_that_no_callee_sends_ends_the_connection() {
    let script = answers_first_with(|call| {
        let mut frame = Vec::new();
        Header { kind: Kind::Call, call_id: call.call_id, ..Header::default() }.put(b"", &mut frame);
        frame
    });
    loses_one(script, "that a callee never sends");
}

#[test]
fn the_second_answer_to_a_call_is_counted_and_the_connection_goes_on() {
    let script = Script::start(|_, caller| {
        while let Some((call, body)) = caller.call() {
            caller.send(&[reply(&call, &body), reply(&call, b"again")].concat());
        }
    });
    with_client(to(&script), |client| async move {
        for n in 1..=10u64 {
            assert_eq!(call(&client, &ONCE, b"first").await.expect("it is answered"), "first");
            assert!(client.counts().late_replies >= n - 1);
        }
    });
}

#[test]
fn an_answer_after_the_deadline_is_counted_and_given_to_nobody() {
    let script = Script::start(|_, caller| {
        let (late, _) = caller.call().expect("a call");
        let (next, body) = caller.call().expect("a call");
        caller.send(&[reply(&late, b"late"), reply(&next, &body)].concat());
        caller.wait_for_end();
    });
    with_client(to(&script), |client| async move {
        let late = call_within(&client, &ONCE, b"late", 300).await;
        assert_eq!(code(&late), Code::Deadline);
        assert_eq!(call(&client, &ONCE, b"next").await.expect("it is answered"), "next");
        assert_eq!(client.counts().late_replies, 1);
    });
}

#[test]
fn a_reply_that_is_no_message_is_the_callee_s_fault() {
    let script = answers_first_with(|call| reply(call, b"\xff\xff\xff"));
    with_client(to(&script), |client| async move {
        let echo = echo::Client(client);
        let status =
            echo.say(CallOptions::default(), &pb::EchoRequest::default()).await.expect_err("no message");
        assert_eq!(status.code, Code::Internal);
        assert!(status.text.starts_with("the reply of Echo.Say is malformed"), "{status}");
    });
}

#[test]
fn a_callee_that_does_not_read_fills_no_memory() {
    let script = Script::start(|_, caller| {
        let (call, body) = caller.call().expect("a call");
        caller.send(&reply(&call, &body));
        thread::sleep(Duration::from_secs(60));
    });
    with_client(to(&script), |client| async move {
        assert!(call(&client, &ONCE, b"first").await.is_ok());
        let body = vec![1; 1 << 20];
        let calls = (0..64).map(|_| {
            let (client, body) = (client.clone(), body.clone());
            async move { code(&call_within(&client, &ONCE, &body, 300).await) }
        });
        let ends = all(calls.collect()).await;
        let refused = ends.iter().filter(|code| **code == Code::Overloaded).count();
        let over = ends.iter().filter(|code| **code == Code::Deadline).count();
        // 16 MiB wait here, and the kernel takes some.
        assert!(refused >= 30 && over >= 15 && refused + over == 64, "{ends:?}");
    });
}

#[test]
fn a_callee_without_credit_is_sent_no_more_than_it_holds() {
    let with_credit = |call: &Header, body: &[u8]| {
        let mut frame = Vec::new();
        Header { kind: Kind::Reply, call_id: call.call_id, credit: 2, ..Header::default() }
            .put(body, &mut frame);
        frame
    };
    let script = Script::start(move |_, caller| {
        let (call, body) = caller.call().expect("a call");
        caller.send(&with_credit(&call, &body));
        let mut held = Vec::new();
        // Two at a time are answered, once a third has had the time to come.
        while let Some((call, body)) = caller.call() {
            held.push(with_credit(&call, &body));
            if held.len() == 2 {
                thread::sleep(Duration::from_millis(3));
                assert!(!caller.has_more(), "more than the credit came");
                caller.send(&held.concat());
                held.clear();
            }
        }
    });
    with_client(to(&script), |client| async move {
        assert!(call(&client, &ONCE, b"first").await.is_ok());
        let calls = (0..40).map(|_| {
            let client = client.clone();
            async move { code(&call(&client, &ONCE, b"x").await) }
        });
        assert!(all(calls.collect()).await.iter().all(|code| *code == Code::Ok));
    });
}

#[test]
fn what_may_have_run_is_made_again_only_if_it_may_run_twice() {
    // Every connection is closed as soon as a call has been read.
    let script = Script::start(|_, caller| drop(caller.call()));
    let config = to(&script);
    with_client(config.clone(), |client: Client| async move {
        for _ in 0..5 {
            assert_eq!(code(&call(&client, &ONCE, b"").await), Code::Lost);
        }
    });
    assert_eq!(script.calls(), 5, "each was made once");
    with_client(config, |client| async move {
        assert_eq!(code(&call(&client, &ECHO, b"").await), Code::Lost);
        assert_eq!(client.counts().retries, 2);
    });
    assert_eq!(script.calls(), 5 + 3);
}
