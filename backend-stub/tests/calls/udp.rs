//! UDP through a proxy that loses, repeats and reorders by a seed.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use proto_wire::random::Random;
use proto_wire::rpc::header::Header;
use proto_wire::status::Code;

use crate::fixture::*;

/// What happens to datagrams, in both directions.
#[derive(Debug, Clone, Copy)]
struct Weather {
    seed: u64,
    lost_percent: u64,
    twice_percent: u64,
    delay_max_ms: u64,
}

/// Stands between one client and a callee. The thread ends with the process of the test.
fn proxy(to: SocketAddr, weather: Weather) -> SocketAddr {
    let front = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let back = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    back.connect(to).expect("a callee");
    let addr = front.local_addr().expect("it is bound");
    front.set_nonblocking(true).expect("a socket");
    back.set_nonblocking(true).expect("a socket");
    thread::spawn(move || {
        let mut random = Random::new(weather.seed);
        let (mut client, mut way): (Option<SocketAddr>, Vec<(Instant, bool, Vec<u8>)>) = (None, Vec::new());
        let mut bytes = [0; 2048];
        loop {
            let mut came = Vec::new();
            while let Ok((length, from)) = front.recv_from(&mut bytes) {
                client = Some(from);
                came.push((true, bytes[..length].to_vec()));
            }
            while let Ok(length) = back.recv(&mut bytes) {
                came.push((false, bytes[..length].to_vec()));
            }
            for (up, datagram) in came {
                for _ in 0..1 + u64::from(random.next() % 100 < weather.twice_percent) {
                    if random.next() % 100 >= weather.lost_percent {
                        let delay = Duration::from_millis(random.next() % (weather.delay_max_ms + 1));
                        way.push((Instant::now() + delay, up, datagram.clone()));
                    }
                }
            }
            let now = Instant::now();
            for (_, up, datagram) in way.extract_if(.., |(at, _, _)| *at <= now) {
                let _ = match client {
                    _ if up => back.send(&datagram),
                    Some(client) => front.send_to(&datagram, client),
                    None => Ok(0),
                };
            }
            thread::sleep(Duration::from_micros(200));
        }
    });
    addr
}

#[test]
fn over_a_bad_network_what_may_run_twice_succeeds_and_nothing_runs_twice() {
    for seed in [1, 2, 3] {
        let mut callee = Callee::start();
        let weather = Weather { seed, lost_percent: 10, twice_percent: 20, delay_max_ms: 20 };
        let addr = proxy(callee.addr, weather);
        let (codes, resent) = with_client(Way::Udp.to(addr, "".as_ref()), |client| async move {
            let mut ends = Vec::new();
            // No more at once than go over UDP: behind the proxy there is no TCP.
            for batch in 0..6u32 {
                let calls = (batch * 50..(batch + 1) * 50).map(|n| {
                    let client = client.clone();
                    async move {
                        let (method, deadline_ms) = if n % 3 == 0 { (&ONCE, 300) } else { (&ECHO, 8000) };
                        let back = call_within(&client, method, &n.to_le_bytes(), deadline_ms).await;
                        if let Ok(body) = &back {
                            assert_eq!(*body, n.to_le_bytes()[..], "another's answer");
                        }
                        (n, code(&back))
                    }
                });
                ends.extend(all(calls.collect()).await);
            }
            (ends, client.counts().resent)
        });
        let bad: Vec<_> = codes.iter().filter(|(n, code)| n % 3 != 0 && *code != Code::Ok).collect();
        assert!(bad.is_empty(), "seed {seed}: {bad:?}");
        let once: Vec<Code> = codes.iter().filter(|(n, _)| n % 3 == 0).map(|(_, code)| *code).collect();
        let ended = |wanted: Code| once.iter().filter(|code| **code == wanted).count() as u64;
        // Some 19 of 100 lose one of their two datagrams, and are not sent again.
        assert_eq!(ended(Code::Ok) + ended(Code::Deadline), 100, "seed {seed}: {once:?}");
        assert!(ended(Code::Deadline) > 5 && resent > 15, "seed {seed}: the proxy did nothing");
        let runs = callee.told.runs(&ONCE);
        assert!((ended(Code::Ok)..=100).contains(&runs), "seed {seed}: {runs}");
        // Each of these was answered, so each was run; and copies were answered from memory.
        assert_eq!(callee.told.runs(&ECHO), 200, "seed {seed}");
        callee.stop();
        assert!(callee.told.udp_repeated.load(Ordering::Acquire) > 30, "seed {seed}");
    }
}

#[test]
fn a_reply_that_is_too_large_is_fetched_and_its_call_is_run_once() {
    let callee = Callee::start();
    with_client(Way::Udp.to_callee(&callee), |client| async move {
        for bytes in [0u32, 1336, 1337, 100_000, 3_000_000] {
            let body = call(&client, &LARGE, &bytes.to_le_bytes()).await.expect("it is answered");
            assert!(body.len() == bytes as usize && body.iter().all(|byte| *byte == b'x'), "{bytes}");
        }
    });
    assert_eq!(callee.told.runs(&LARGE), 5);
}

#[test]
fn what_is_no_call_is_dropped_and_hurts_nobody() {
    let callee = Callee::start();
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let mut reply = Vec::new();
    Header { kind: proto_wire::rpc::Kind::Reply, ..Header::default() }.put(b"x", &mut reply);
    let mut hundred_mib = reply.clone();
    hundred_mib[3] = 1;
    hundred_mib[8..12].copy_from_slice(&(100u32 << 20).to_le_bytes());
    let mut version = reply.clone();
    (version[3], version[2]) = (1, 2);
    for datagram in
        [&b""[..], b"M", b"GET / HTTP/1.1\r\n\r\n", &reply, &hundred_mib, &version, &[0; 1400], &[b'M'; 9000]]
    {
        socket.send_to(datagram, callee.addr).expect("it leaves");
    }
    with_client(Way::Udp.to_callee(&callee), |client| async move {
        assert_eq!(call(&client, &ONCE, b"fine").await.expect("it is answered"), "fine");
    });
    socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a socket");
    assert!(socket.recv(&mut [0; 100]).is_err(), "nothing is answered to who sends nonsense");
}
