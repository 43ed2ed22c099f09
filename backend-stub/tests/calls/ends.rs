//! How calls end, over every transport.

use std::sync::atomic::Ordering;

use backend_stub::rpc::client::{Client, ClientConfig};
use backend_stub::rt;
use proto_wire::pb;
use proto_wire::rpc::method::{CallOptions, Channel as _};
use proto_wire::services::{echo, standing};
use proto_wire::status::{Code, Status};

use crate::fixture::*;

#[test]
fn a_call_is_answered_whatever_its_size() {
    let callee = Callee::start();
    for way in WAYS {
        with_client(way.to_callee(&callee), |client| async move {
            for bytes in [0, 1, 1000, 1336, 1337, 60_000, 1_000_000] {
                let body = vec![7; bytes];
                let back = call(&client, &ECHO, &body).await.expect("it is answered");
                assert_eq!(back.len(), bytes);
                assert!(back == body);
            }
            assert_eq!(client.counts().in_flight, 0);
        });
    }
    assert_eq!(callee.told.runs(&ECHO), 7 * WAYS.len() as u64);
}

#[test]
fn generated_clients_work_on_it() {
    let callee = Callee::start();
    for way in WAYS {
        with_client(way.to_callee(&callee), |client| async move {
            let echo = echo::Client(client.clone());
            let request = pb::EchoRequest { payload: vec![1, 2, 3].into() };
            let reply = echo.say(CallOptions::default(), &request).await.expect("it is answered");
            assert_eq!(reply.payload, request.payload);
            let health = standing::Client(client).health(CallOptions::default(), &pb::HealthRequest {}).await;
            assert!(health.expect("it is answered").takes_calls);
        });
    }
}

#[test]
fn a_status_comes_as_it_was_given_and_what_is_wrong_with_a_call_is_told() {
    let callee = Callee::start();
    for way in WAYS {
        with_client(way.to_callee(&callee), move |client| async move {
            let status = call(&client, &FAIL, b"").await.expect_err("it fails");
            assert_eq!(status, Status { retry_after_ms: 250, ..Status::new(Code::Conflict, "as asked") });
            let status = call(&client, &NOBODY, b"").await.expect_err("nobody serves it");
            assert_eq!(
                (status.code, status.text.as_str()),
                (Code::UnknownMethod, "Trial has no method 0x07ff")
            );
            let status = call(&client, &echo::SAY, b"\xff\xff").await.expect_err("it is no message");
            assert_eq!(status.code, Code::Invalid, "{way:?}: {status}");
            assert!(status.text.starts_with("the body of Echo.Say is malformed"), "{status}");
        });
    }
    assert_eq!(callee.told.runs(&FAIL), WAYS.len() as u64, "none was made again");
}

#[test]
fn when_its_time_runs_out_a_call_ends_here_and_its_handler_there() {
    let callee = Callee::start();
    for (done, way) in (1..).zip(WAYS) {
        with_client(way.to_callee(&callee), move |client| async move {
            let status = call_within(&client, &WAIT_ONCE, b"", 300).await.expect_err("nobody answers");
            assert_eq!(status.code, Code::Deadline, "{way:?}: {status}");
            assert!(call(&client, &ECHO, b"after").await.is_ok());
        });
        until(|| callee.told.unwound.load(Ordering::Acquire) == done);
    }
    assert_eq!(callee.told.runs(&WAIT_ONCE), WAYS.len() as u64);
}

#[test]
fn a_call_that_is_dropped_is_given_up_there_too() {
    let callee = Callee::start();
    for (done, way) in (1..).zip(WAYS) {
        let (told, config) = (callee.told.clone(), way.to_callee(&callee));
        with_client(config, move |client| async move {
            let given_up = async {
                while told.runs(&WAIT_ONCE) < done {
                    rt::sleep_ms(1).await;
                }
                None
            };
            let waits = async { Some(call(&client, &WAIT_ONCE, b"").await) };
            assert!(futures_lite::future::or(waits, given_up).await.is_none(), "{way:?}");
            assert_eq!(client.counts().in_flight, 0);
            // Over the same way: what was given up is told there before, or with the end of its connection.
            assert!(call(&client, &ECHO, b"after").await.is_ok());
        });
        until(|| callee.told.unwound.load(Ordering::Acquire) == done);
    }
}

#[test]
fn a_request_over_the_limit_is_refused_here_and_the_connection_goes_on() {
    let callee = Callee::start();
    for way in WAYS {
        with_client(way.to_callee(&callee), |client| async move {
            let body = vec![7; proto_wire::limits::MAX_RPC_BODY_BYTES + 1];
            let status = call(&client, &ECHO, &body).await.expect_err("it is too long");
            assert_eq!(status.code, Code::Limit, "{status}");
            assert!(call(&client, &ECHO, &body[1..]).await.is_ok());
        });
    }
}

#[test]
fn a_reply_over_the_limit_is_the_callee_s_fault_and_the_connection_goes_on() {
    let callee = Callee::start();
    for way in WAYS {
        with_client(way.to_callee(&callee), move |client| async move {
            let most = proto_wire::limits::MAX_RPC_BODY_BYTES as u32;
            let status = call(&client, &LARGE, &(most + 1).to_le_bytes()).await.expect_err("it is too long");
            assert_eq!(status.code, Code::Internal, "{way:?}: {status}");
            let body = call(&client, &LARGE, &(most - 100).to_le_bytes()).await.expect("it is answered");
            assert_eq!(body.len() as u32, most - 100);
        });
    }
}

#[test]
fn a_one_way_call_ends_when_it_has_left_and_is_run_once() {
    let callee = Callee::start();
    // A short connection is closed once its call has ended, and a one-way call ends before it is read: whether it is run
    // hangs on the kernel. So it is for long connections and datagrams.
    for (done, way) in (1..).zip([Way::Long, Way::Unix, Way::Udp]) {
        let told = callee.told.clone();
        with_client(way.to_callee(&callee), move |client| async move {
            assert_eq!(call(&client, &TELL, b"news").await.expect("it leaves"), "");
            while told.runs(&TELL) < done {
                rt::sleep_ms(1).await;
            }
        });
    }
}

#[test]
fn many_calls_share_their_connections() {
    let callee = Callee::start();
    for way in WAYS {
        let config = ClientConfig { connections: 4, ..way.to_callee(&callee) };
        with_client(config, move |client| async move {
            let calls = (0..500u32).map(|n| {
                let client = client.clone();
                async move { (n, call(&client, &ONCE, &n.to_le_bytes()).await) }
            });
            for (n, back) in all(calls.collect()).await {
                assert_eq!(back.expect("it is answered"), n.to_le_bytes()[..], "{way:?}");
            }
        });
    }
    assert_eq!(callee.told.runs(&ONCE), 500 * WAYS.len() as u64);
}

#[test]
fn the_time_that_is_left_shrinks_from_callee_to_callee() {
    let behind = Callee::start();
    let front = Callee::with(Plan { behind: Some(behind.addr), ..Plan::default() });
    for way in WAYS {
        with_client(way.to_callee(&front), move |client| async move {
            let left = call_within(&client, &LEFT, b"", 700).await.expect("it is answered");
            let left_ms = u64::from_le_bytes(left[..].try_into().expect("eight bytes"));
            // The one in front has slept for 50 of the 700.
            assert!((1..=650).contains(&left_ms), "{way:?}: {left_ms} ms were left");
            let status = call_within(&client, &LEFT, b"", 20).await.expect_err("no time is left");
            assert_eq!(status.code, Code::Deadline, "{way:?}");
        });
    }
    // Behind, nobody was called without time.
    until(|| behind.told.runs(&LEFT) == WAYS.len() as u64);
}

#[test]
fn the_connections_end_with_the_last_clone_of_the_client() {
    let callee = Callee::start();
    let config = Way::Long.to_callee(&callee);
    on_loop(move |clock| async move {
        let client = Client::with(config, clock).expect("a configuration");
        let other = client.clone();
        drop(client);
        let waits = other.call(&WAIT, CallOptions::default(), bytes::Bytes::new());
        let ended = futures_lite::future::or(async { Some(waits.await) }, async {
            rt::sleep_ms(20).await;
            None
        });
        assert!(ended.await.is_none(), "the other clone goes on");
        drop(other);
        rt::sleep_ms(5).await;
    });
    until(|| callee.told.unwound.load(Ordering::Acquire) == 1);
}
