//! Several endpoints: who gets the calls, and what becomes of them when one fails.

use std::fs;
use std::net::{SocketAddr, TcpListener};

use backend_stub::rpc::client::{Balance, Client, ClientConfig};
use backend_stub::rt;
use bytes::Bytes;
use proto_wire::rpc::method::{CallOptions, Channel as _};
use proto_wire::status::Code;

use crate::fixture::*;
use crate::script::Script;

fn to_all(way: Way, addrs: &[SocketAddr], balance: Balance) -> ClientConfig {
    let one = way.to(addrs[0], "".as_ref());
    ClientConfig { endpoints: addrs.iter().map(SocketAddr::to_string).collect(), balance, ..one }
}

/// An address where nobody listens, kept from others for as long as the listener lives.
fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound")
}

const BALANCES: [Balance; 3] = [Balance::LeastOfTwo, Balance::RoundRobin, Balance::Key];

#[test]
fn all_endpoints_get_their_share() {
    for balance in BALANCES {
        let callees = [Callee::start(), Callee::start(), Callee::start()];
        let addrs: Vec<SocketAddr> = callees.iter().map(|callee| callee.addr).collect();
        with_client(to_all(Way::Long, &addrs, balance), |client| async move {
            for key in 0..300 {
                let options = CallOptions { key: Some(key), ..CallOptions::default() };
                client.call(&ONCE, options, Bytes::new()).await.expect("it is answered");
            }
        });
        let shares: Vec<u64> = callees.iter().map(|callee| callee.told.runs(&ONCE)).collect();
        assert!(
            shares.iter().sum::<u64>() == 300 && shares.iter().all(|share| *share > 50),
            "{balance:?}: {shares:?}"
        );
    }
}

#[test]
fn calls_with_one_key_go_to_one_callee_until_it_is_gone() {
    let mut callees = [Callee::start(), Callee::start(), Callee::start()];
    let addrs: Vec<SocketAddr> = callees.iter().map(|callee| callee.addr).collect();
    let config = to_all(Way::Long, &addrs, Balance::Key);
    let hundred = |config: ClientConfig| {
        with_client(config, |client| async move {
            for _ in 0..100 {
                let options = CallOptions { key: Some(4711), ..CallOptions::default() };
                client.call(&ONCE, options, Bytes::new()).await.expect("it is answered");
            }
        });
    };
    hundred(config.clone());
    let home = callees.iter().position(|callee| callee.told.runs(&ONCE) == 100).expect("all at one");
    hundred(config.clone());
    assert_eq!(callees[home].told.runs(&ONCE), 200, "another client agrees");
    callees[home].stop();
    hundred(config);
    let mut shares: Vec<u64> = callees.iter().map(|callee| callee.told.runs(&ONCE)).collect();
    shares.sort_unstable();
    assert_eq!(shares, [0, 100, 200]);
}

#[test]
fn what_cannot_leave_goes_elsewhere_without_a_retry() {
    for way in [Way::Long, Way::Short] {
        for balance in BALANCES {
            let callee = Callee::start();
            let config = to_all(way, &[nobody(), callee.addr, nobody()], balance);
            with_client(ClientConfig { retry_percent: 0, ..config }, move |client| async move {
                for n in 0..100 {
                    let options = CallOptions { key: Some(n), ..CallOptions::default() };
                    let end = client.call(&ONCE, options, Bytes::new()).await;
                    end.unwrap_or_else(|status| panic!("{way:?}, {balance:?}, {n}: {status}"));
                }
                assert_eq!(client.counts().retries, 0);
            });
            assert_eq!(callee.told.runs(&ONCE), 100);
        }
    }
}

#[test]
fn nowhere_to_go_is_told_with_the_reason() {
    for way in [Way::Short, Way::Udp] {
        let addr = nobody();
        with_client(way.to(addr, "".as_ref()), move |client| async move {
            let status = call_within(&client, &ECHO, b"", 300).await.expect_err("nobody is there");
            let expected = if way == Way::Short { Code::Unavailable } else { Code::Lost };
            assert_eq!(status.code, expected, "{way:?}: {status}");
            assert!(status.text.contains(&addr.to_string()), "{status}");
        });
    }
    let missing = Way::UnixShort.to(nobody(), "/nowhere/at/all.sock".as_ref());
    with_client(missing, |client| async move {
        let status = call(&client, &ECHO, b"").await.expect_err("nobody is there");
        assert!(status.text.contains("unix:/nowhere/at/all.sock: No such file"), "{status}");
    });
}

#[test]
fn a_long_connection_waits_for_its_only_callee_within_the_deadline() {
    let addr = nobody();
    with_client(Way::Long.to(addr, "".as_ref()), move |client| async move {
        let status = call_within(&client, &ONCE, b"", 100).await.expect_err("nobody is there");
        assert_eq!(status.code, Code::Deadline);
        assert!(status.text.contains("no connection: Connection refused"), "{status}");
        let later = client.clone();
        let waits = all(vec![async move { call(&later, &ONCE, b"x").await }]);
        let comes = async {
            rt::sleep_ms(50).await;
            Callee::with(Plan { port: addr.port(), ..Plan::default() })
        };
        let (ended, callee) = futures_lite::future::zip(waits, comes).await;
        assert_eq!(code(&ended[0]), Code::Ok, "it left once somebody was there");
        assert_eq!(callee.told.runs(&ONCE), 1);
    });
}

#[test]
fn retries_are_a_tenth_of_the_calls() {
    let callee = Callee::start();
    with_client(Way::Long.to_callee(&callee), |client| async move {
        for _ in 0..1000 {
            assert_eq!(code(&call(&client, &SHED, b"").await), Code::Overloaded);
        }
        assert_eq!(client.counts().retries, 10 + 100);
    });
    assert_eq!(callee.told.runs(&SHED), 1000 + 10 + 100);
}

#[test]
fn an_endpoint_that_only_fails_is_left_alone() {
    let bad = Script::start(|_, caller| drop(caller.call()));
    let good = Callee::start();
    let config = to_all(Way::Short, &[bad.addr, good.addr], Balance::RoundRobin);
    with_client(ClientConfig { eject_ms: 60_000, retry_percent: 0, ..config }, |client| async move {
        let ends: Vec<Code> = {
            let mut ends = Vec::new();
            for _ in 0..100 {
                ends.push(code(&call(&client, &ONCE, b"").await));
            }
            ends
        };
        assert_eq!(ends.iter().filter(|code| **code == Code::Lost).count(), 5, "{ends:?}");
        assert_eq!(client.counts().ejections, 1);
    });
    assert_eq!((bad.calls(), good.told.runs(&ONCE)), (5, 95));
}

#[test]
fn a_file_of_endpoints_is_read_again_when_it_changes() {
    let (one, other) = (Callee::start(), Callee::start());
    let path = std::env::temp_dir().join(format!("moorgate-endpoints-{}", std::process::id()));
    let write = |text: String| {
        // As an operator's tool does: a new file over the old one.
        let new = path.with_extension("new");
        fs::write(&new, text).and_then(|()| fs::rename(&new, &path)).expect("a file");
    };
    write(format!("# the first\n{}\n", one.addr));
    let config = ClientConfig { endpoints_file: Some(path.clone()), ..ClientConfig::default() };
    let (first, second) = (one.addr, other.addr);
    let (told_one, told_other) = (one.told.clone(), other.told.clone());
    let file = path.clone();
    with_client(config, move |client: Client| async move {
        while client.counts().endpoints == 0 {
            rt::sleep_ms(1).await;
        }
        assert!(call(&client, &ONCE, b"").await.is_ok());
        assert_eq!(told_one.runs(&ONCE), 1);
        // What is no list changes nothing.
        fs::write(&file, "nonsense\n").expect("a file");
        rt::sleep_ms(700).await;
        assert!(call(&client, &ONCE, b"").await.is_ok());
        fs::write(&file, format!("{second}\n")).expect("a file");
        while told_other.runs(&ONCE) == 0 {
            assert!(call(&client, &ONCE, b"").await.is_ok(), "no call is lost over it");
            rt::sleep_ms(10).await;
        }
        let before = told_one.runs(&ONCE);
        for _ in 0..20 {
            assert!(call(&client, &ONCE, b"").await.is_ok());
        }
        assert_eq!(told_one.runs(&ONCE), before, "{first} has left the list");
    });
    let _ = fs::remove_file(path);
}

#[test]
fn an_orderly_end_of_a_callee_loses_no_call() {
    let (mut ends, stays) = (Callee::start(), Callee::start());
    let config = to_all(Way::Long, &[ends.addr, stays.addr], Balance::RoundRobin);
    let told = ends.told.clone();
    let calls = std::thread::spawn(move || {
        with_client(config, |client| async move {
            let callers = (0..8).map(|_| {
                let client = client.clone();
                async move {
                    for _ in 0..500 {
                        call(&client, &ONCE, b"x").await.expect("no call is lost");
                    }
                }
            });
            all(callers.collect()).await;
            assert_eq!(client.counts().retries, 0);
        });
    });
    until(|| told.runs(&ONCE) > 100);
    ends.stop();
    calls.join().expect("no panic");
    assert_eq!(ends.told.runs(&ONCE) + stays.told.runs(&ONCE), 8 * 500);
}
