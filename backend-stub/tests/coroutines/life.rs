//! A hundred thousand handlers that wait at once, on one thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backend_stub::clock::Clock;
use backend_stub::co::PoolConfig;
use backend_stub::rpc::client::Client;
use backend_stub::rt;
use codegen_sample::pb::order::What;
use codegen_sample::services::trial;
use proto_wire::rpc::method::CallOptions;
use proto_wire::status::Code;

use crate::fixture::{Kind, Served, call, on_loop, order};

/// A caller has at most 1 024 calls out over a connection before it has had an answer there.
const CONNECTIONS: u64 = 100;
const EACH: u64 = 1_000;

#[test]
fn a_hundred_thousand_waiting_handlers_are_unwound_at_a_stop() {
    let config = PoolConfig { stacks: 110_000, ..PoolConfig::default() };
    let served = Served::with(Kind::Sync, config, None);
    let (addr, told) = (served.addr, served.told.clone());
    let ends = Arc::new(AtomicU64::new(0));
    let counted = ends.clone();
    let callers = std::thread::spawn(move || {
        on_loop(move || async move {
            for _ in 0..CONNECTIONS {
                let client = trial::Client(Client::new(addr, Clock::start()));
                for at in 0..EACH {
                    let (client, ends) = (client.clone(), counted.clone());
                    rt::spawn(async move {
                        let options = CallOptions { deadline_ms: 60_000, ..CallOptions::default() };
                        let ended = client.r#do(options, &order(What::Wait, 0)).await;
                        let status = ended.expect_err("nobody answers it");
                        assert!(matches!(status.code, Code::Lost | Code::Unavailable), "{status:?}");
                        ends.fetch_add(1, Ordering::AcqRel);
                    });
                    if at % 500 == 0 {
                        rt::yield_now().await;
                    }
                }
            }
            while counted.load(Ordering::Acquire) < CONNECTIONS * EACH {
                rt::sleep_ms(10).await;
            }
        });
    });
    told.until(|told| &told.begun, CONNECTIONS * EACH);
    // All wait, and one more is served.
    let outcome = call(addr, order(What::Echo, 0), 10_000).expect("there is a stack left");
    assert_eq!(outcome.number, 1);
    assert_eq!(told.unwound.load(Ordering::Acquire), 0);
    let report = served.stop();
    assert_eq!((report.in_use, report.panics), (0, 0));
    assert_eq!(told.unwound.load(Ordering::Acquire), CONNECTIONS * EACH);
    callers.join().expect("every call has ended");
}
