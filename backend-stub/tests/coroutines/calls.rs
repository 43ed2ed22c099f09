//! How calls end, with handlers of both kinds.

use std::sync::atomic::Ordering;
use std::time::Duration;

use backend_stub::clock::Clock;
use backend_stub::co::{Label, PoolConfig};
use backend_stub::rpc::client::Client;
use backend_stub::rt;
use codegen_sample::pb::order::What;
use codegen_sample::services::trial;
use futures_lite::future::or;
use proto_wire::rpc::method::CallOptions;
use proto_wire::status::{Code, Status};

use crate::fixture::{BOTH, Kind, Served, call, on_loop, order};

fn code(result: Result<impl Sized, Status>) -> Code {
    result.map_or_else(|status| status.code, |_| Code::Ok)
}

#[test]
fn a_call_is_answered() {
    for kind in BOTH {
        let served = Served::start(kind);
        let outcome = call(served.addr, order(What::Echo, 0), 0).expect("it is answered");
        assert_eq!(outcome.payload, "payload");
        let slept = call(served.addr, order(What::Sleep, 20), 0).expect("it is answered");
        assert_eq!(slept.payload, "payload");
        served.told.until(|told| &told.ended, 2);
        assert_eq!(served.stop().in_use, 0);
    }
}

#[test]
fn a_status_comes_as_it_was_given() {
    for kind in BOTH {
        let served = Served::start(kind);
        let status = call(served.addr, order(What::Fail, 0), 0).expect_err("it fails");
        assert_eq!(status, Status { retry_after_ms: 250, ..Status::new(Code::Conflict, "as asked") });
        served.stop();
    }
}

#[test]
fn a_handler_calls_another_service_and_many_at_once() {
    let behind = Served::start(Kind::Async);
    for kind in BOTH {
        let served = Served::with(kind, PoolConfig::default(), Some(behind.addr));
        let relayed = call(served.addr, order(What::Relay, 0), 0).expect("it is answered");
        assert_eq!(relayed.payload, "payload");
        let fanned = call(served.addr, order(What::FanOut, 8), 0).expect("it is answered");
        assert_eq!(fanned.number, 8);
        served.stop();
    }
    behind.stop();
}

#[test]
fn when_the_time_of_a_call_is_over_its_handler_is_unwound() {
    for kind in BOTH {
        let served = Served::start(kind);
        assert_eq!(code(call(served.addr, order(What::Wait, 0), 100)), Code::Deadline);
        served.told.until(|told| &told.unwound, 1);
        // The thread goes on, and so does its pool.
        assert_eq!(code(call(served.addr, order(What::Echo, 0), 0)), Code::Ok);
        let report = served.stop();
        assert_eq!((report.in_use, report.panics), (0, 0));
    }
}

#[test]
fn a_handler_whose_call_is_given_up_is_unwound() {
    for kind in BOTH {
        let served = Served::start(kind);
        let (addr, told) = (served.addr, served.told.clone());
        on_loop(move || async move {
            let client = trial::Client(Client::new(addr, Clock::start()));
            let order = order(What::Wait, 0);
            let given_up = async {
                while told.begun.load(Ordering::Acquire) == 0 {
                    rt::sleep_ms(1).await;
                }
            };
            let call = async { drop(client.r#do(CallOptions::default(), &order).await) };
            or(call, given_up).await;
            // The connection stays: it is the cancel that ends the handler.
            while told.unwound.load(Ordering::Acquire) == 0 {
                rt::sleep_ms(1).await;
            }
            let outcome = client.r#do(CallOptions::default(), &crate::fixture::order(What::Echo, 0)).await;
            assert_eq!(code(outcome), Code::Ok);
        });
        served.stop();
    }
}

#[test]
fn handlers_of_a_connection_that_breaks_are_unwound() {
    for kind in BOTH {
        let served = Served::start(kind);
        let (addr, told) = (served.addr, served.told.clone());
        on_loop(move || async move {
            let client = trial::Client(Client::new(addr, Clock::start()));
            rt::spawn(async move {
                let _ = client.r#do(CallOptions::default(), &order(What::Wait, 0)).await;
            });
            while told.begun.load(Ordering::Acquire) == 0 {
                rt::sleep_ms(1).await;
            }
            // The loop ends with its tasks and their sockets.
        });
        served.told.until(|told| &told.unwound, 1);
        served.stop();
    }
}

#[test]
fn a_panic_becomes_a_status_and_its_thread_goes_on() {
    let served = Served::start(Kind::Sync);
    for number in 1..=3 {
        let status = call(served.addr, order(What::Panic, number), 0).expect_err("it panicked");
        let text = format!("Trial.Do panicked: as asked, {number} times");
        assert_eq!((status.code, status.text), (Code::Internal, text));
    }
    assert_eq!(code(call(served.addr, order(What::Echo, 0), 0)), Code::Ok);
    let report = served.stop();
    assert_eq!((report.panics, report.in_use), (3, 0));
}

#[test]
fn without_a_free_stack_a_call_is_refused_and_told_when_to_come_again() {
    let served = Served::with(Kind::Sync, PoolConfig { stacks: 2, ..PoolConfig::default() }, None);
    let (addr, told) = (served.addr, served.told.clone());
    on_loop(move || async move {
        let client = trial::Client(Client::new(addr, Clock::start()));
        for _ in 0..2 {
            let client = client.clone();
            rt::spawn(async move {
                let _ = client.r#do(CallOptions::default(), &order(What::Wait, 0)).await;
            });
        }
        while told.begun.load(Ordering::Acquire) < 2 {
            rt::sleep_ms(1).await;
        }
        let options = CallOptions { deadline_ms: 10_000, ..CallOptions::default() };
        let status = client.r#do(options, &order(What::Echo, 0)).await.expect_err("no stack is free");
        assert_eq!((status.code, &*status.text), (Code::Overloaded, "all 2 coroutines are in use"));
        assert!((20..100).contains(&status.retry_after_ms), "{status:?}");
    });
    // Both were unwound with their connection, and their stacks are free again.
    served.told.until(|told| &told.unwound, 2);
    assert_eq!(code(call(served.addr, order(What::Echo, 0), 0)), Code::Ok);
    assert!(served.stop().refused >= 1);
}

#[test]
fn a_handler_that_blocks_its_thread_is_named() {
    let served = Served::start(Kind::Sync);
    for ms in [0, 30, 50] {
        assert_eq!(code(call(served.addr, order(What::Block, ms), 0)), Code::Ok);
    }
    // One that sleeps as it should is not.
    assert_eq!(code(call(served.addr, order(What::Sleep, 50), 0)), Code::Ok);
    let report = served.stop();
    let named: Vec<_> = report.blocked.iter().map(|blocked| (blocked.label, blocked.times)).collect();
    // A busy machine may take the thread away from one of the others as well, but never from what was not run.
    assert_eq!(named.len(), 1, "{named:?}");
    assert_eq!(named[0].0, Label { service: "Trial", method: "Do" });
    assert!(named[0].1 >= 2 && report.blocked[0].longest_us >= 50_000, "{:?}", report.blocked);
}

#[test]
fn a_deep_handler_has_the_stack_that_its_service_asked_for() {
    let deep = 2_000;
    let served = Served::with(
        Kind::Sync,
        PoolConfig { stack_bytes: 1024 * 1024, stacks: 16, ..PoolConfig::default() },
        None,
    );
    let outcome = call(served.addr, order(What::Dig, deep), 0).expect("it has room");
    assert_eq!(outcome.number, deep);
    served.stop();
}

#[test]
fn a_stop_lets_handlers_end() {
    for kind in BOTH {
        let served = Served::start(kind);
        let (addr, told) = (served.addr, served.told.clone());
        let caller = std::thread::spawn(move || call(addr, order(What::Sleep, 300), 0));
        told.until(|told| &told.begun, 1);
        std::thread::sleep(Duration::from_millis(20));
        served.stop();
        assert_eq!(caller.join().expect("no panic").map(|outcome| outcome.number), Ok(1));
    }
}
