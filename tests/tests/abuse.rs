//! What a bad client gets: a clear reason, a counter, a line in the log, and nobody else notices.

use std::io::Write;
use std::net::Ipv4Addr;
use std::time::Duration;

use prost::Message;
use proto_wire::close::Reason;
use proto_wire::frame::{self, kind};
use proto_wire::pb;
use proto_wire::services::echo;
use proto_wire::status::Code;
use proto_wire_token::{Claims, IssuerKey};
use tests::wire::{self, Heard, Wire};
use tests::{System, fleet, limits};

const ALICE: u64 = 11;

/// A client's bytes, and what is said of them.
struct Bad {
    what: &'static str,
    /// Sent after a good HELLO and its WELCOME.
    greets: bool,
    bytes: Vec<u8>,
    reason: Reason,
}

fn bad(what: &'static str, greets: bool, bytes: impl Into<Vec<u8>>, reason: Reason) -> Bad {
    Bad { what, greets, bytes: bytes.into(), reason }
}

fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::put_header(&mut out, kind, body.len());
    out.extend_from_slice(body);
    out
}

fn claims(user: u64, issued_s: u64, expires_s: u64) -> Claims {
    Claims { user, home: 0, device: None, issued_s, expires_s }
}

fn bads(issuer: &IssuerKey) -> Vec<Bad> {
    let good = wire::hello(&fleet::token(issuer, ALICE), 1, 1);
    let hello = |token: &str| wire::hello(token, 1, 1);
    let foreign = fleet::token(&IssuerKey::generate(), ALICE);
    let mut forged = fleet::token(issuer, ALICE).into_bytes();
    let at = forged.len() - 20;
    forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).expect("base64");
    let bound = issuer.mint(&Claims { device: Some(77), ..claims(ALICE, 1_700_000_000, 4_000_000_000) });
    let mut version = Vec::new();
    let other = pb::Hello { version_major: 9, token: "x".into(), ..pb::Hello::default() };
    frame::put_message(&mut version, kind::HELLO, &other);
    vec![
        bad("random bytes", false, [0xf3, 0x91, 0x00, 0x5c, 0xee, 0x42], Reason::BadFrame),
        bad("an HTTP request", false, *b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", Reason::BadFrame),
        bad("a TLS greeting", false, [0x16, 0x03, 0x01, 0x02, 0x00, 0x01], Reason::BadFrame),
        bad("zeros", false, [0; 64], Reason::BadFrame),
        bad("an overlong length", false, [kind::HELLO, 0x80, 0x00], Reason::BadFrame),
        bad("a length without an end", false, [kind::HELLO, 0xff, 0xff, 0xff, 0xff], Reason::BadFrame),
        bad("a HELLO that is too large", false, [kind::HELLO, 0xff, 0xff, 0x03], Reason::FrameTooLarge),
        bad("a HELLO that is no protobuf", false, framed(kind::HELLO, b"\xff\xff\xff"), Reason::BadFrame),
        bad("a call before HELLO", false, wire::call(1, echo::SAY.id, 0, b""), Reason::OutOfPlace),
        bad("a beat before HELLO", false, frame::Beat::EMPTY, Reason::OutOfPlace),
        bad("another version", false, version, Reason::Version),
        bad("no token", false, hello("nonsense"), Reason::BadToken),
        bad("a foreign token", false, hello(&foreign), Reason::BadToken),
        bad("a forged token", false, hello(&forged), Reason::BadToken),
        bad("a token of another device", false, hello(&bound), Reason::BadToken),
        bad(
            "an expired token",
            false,
            hello(&issuer.mint(&claims(ALICE, 1_000, 2_000))),
            Reason::ExpiredToken,
        ),
        bad("a second HELLO", true, good, Reason::OutOfPlace),
        bad("a frame of the server", true, framed(kind::WELCOME, b""), Reason::OutOfPlace),
        bad("an unknown frame", true, framed(0x33, b"abc"), Reason::BadFrame),
        bad("a frame that is too large", true, [kind::CALL, 0xff, 0xff, 0x7f], Reason::FrameTooLarge),
        bad("a call that is too short", true, framed(kind::CALL, b"abc"), Reason::BadFrame),
        bad("a beat of three bytes", true, framed(kind::BEAT, b"abc"), Reason::BadFrame),
        bad("a large frame to be skipped", true, framed(0x90, &[0; 5_000]), Reason::FrameTooLarge),
    ]
}

#[test]
fn every_bad_input_is_closed_with_its_reason_counted_and_logged() {
    let mut system = System::start("bad").expect("a system");
    let issuer = system.issuer().expect("a key");
    let gateway = system.gateway().address();
    let mut bystander = Wire::greet(gateway, &fleet::token(&issuer, 12), 12).expect("welcomed");
    let mut failures = Vec::new();
    for Bad { what, greets, bytes, reason } in bads(&issuer) {
        let metric = format!("moorgate_closed_total{{reason=\"{}\"}}", reason.name());
        let before = system.gateway().metric(&metric).expect("a metric");
        let log_before = system.gateway().running().log().len();
        let mut client = match greets {
            true => Wire::greet(gateway, &fleet::token(&issuer, ALICE), 1).expect("welcomed"),
            false => Wire::connect(gateway).expect("connected"),
        };
        let peer = client.stream.local_addr().expect("an address").to_string();
        client.send(&bytes).expect("sent");
        let told = client.close_reason().expect("an end");
        if told != Some(reason) {
            failures.push(format!("{what}: closed with {told:?}, not {reason:?}"));
            continue;
        }
        system.gateway().wait_for_metric(&metric, |count| count > before).expect("counted");
        let line = system.gateway().running().wait_until("refusal's line", limits::SOON_MS, |process| {
            let log = process.log();
            log[log_before..].lines().find(|line| line.contains(&peer)).map(str::to_owned)
        });
        let line = line.expect("a line");
        // The first bytes that were refused, as hex.
        let first: String = bytes.iter().take(2).map(|byte| format!("{byte:02x}")).collect();
        if !line.contains(reason.name()) || !line.contains(&first) {
            failures.push(format!("{what}: {line}"));
        }
        // A shard writes 10 lines a second.
        std::thread::sleep(Duration::from_millis(110));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    bystander.call(1, echo::SAY.id, 0, b"").expect("sent");
    assert_eq!(bystander.reply(1).expect("a reply").0, Code::Ok);
}

/// A gateway of one shard that limits addresses of this host.
fn limited(name: &str, limits: &str) -> System {
    let mut system = System::new(name).expect("a system");
    let toml = format!("[limits.addresses]\nlimit_loopback = true\n{limits}\n");
    system.configure_gateway(&toml).expect("configured");
    for arg in ["--cores", "0", "--max-connections", "1000"] {
        system.gateway().add_arg(arg);
    }
    system
}

/// Rates are so low that this many connections come before they give as many more.
const MANY: u64 = 200;

/// 127.0.0.`last`
fn from(system: &mut System, last: u8) -> Wire {
    let source = Ipv4Addr::new(127, 0, 0, last).into();
    Wire::connect_from(system.gateway().address(), source).expect("connected")
}

/// What a client that says `first` gets at once: none is a WELCOME.
fn answer(client: &mut Wire, first: &[u8]) -> Option<Reason> {
    // The gateway may have closed before.
    let _ = client.send(first);
    let heard = client.hear().expect("an answer").expect("a frame");
    let close = (heard.kind == kind::CLOSE).then(|| pb::Close::decode(&heard.body[..]).expect("a close"));
    close.map(|close| Reason::from_u16(close.code as u16).expect("a reason"))
}

#[test]
fn an_address_that_opens_too_many_connections_is_refused_and_others_go_on() {
    let mut system = limited("connects", "connects_per_s = 1\nconnect_burst = 10");
    system.start_all().expect("started");
    let issuer = system.issuer().expect("a key");
    let hello = |user| wire::hello(&fleet::token(&issuer, user), user, 1);
    let (mut welcomed, mut refused) = (Vec::new(), 0);
    for user in 1..=MANY {
        let mut client = from(&mut system, 2);
        match answer(&mut client, &hello(user)) {
            None => welcomed.push(client),
            Some(reason) => {
                assert_eq!(reason, Reason::AddressLimit);
                refused += 1;
            }
        }
    }
    assert!(refused > 0 && welcomed.len() >= 10, "{refused} refused");
    for metric in ["moorgate_closed_total{reason=\"address_limit\"}", "moorgate_refused_connects_total"] {
        assert_eq!(system.gateway().metric(metric), Some(refused), "{metric}");
    }
    let line = system.gateway().running().wait_until("refusal's line", limits::SOON_MS, |process| {
        process.log().lines().find(|line| line.contains("address_limit")).map(str::to_owned)
    });
    let line = line.expect("a line");
    assert!(line.contains("127.0.0.2:") && line.contains("too many new connections"), "{line}");
    // Who is there stays, and the next address is another's.
    let mut other = from(&mut system, 3);
    assert_eq!(answer(&mut other, &hello(MANY + 1)), None);
    for phone in welcomed.iter_mut().chain([&mut other]) {
        phone.call(1, echo::SAY.id, 0, b"").expect("sent");
        assert_eq!(phone.reply(1).expect("a reply").0, Code::Ok);
    }
}

#[test]
fn an_address_whose_hellos_fail_is_refused_and_others_go_on() {
    let mut system = limited("failed-hellos", "failed_hellos_per_min = 10");
    system.start_all().expect("started");
    let good = wire::hello(&fleet::token(&system.issuer().expect("a key"), ALICE), 1, 1);
    let forged = wire::hello(&fleet::token(&IssuerKey::generate(), ALICE), 1, 1);
    let attempts = [forged, b"GET / HTTP/1.1\r\n\r\n".to_vec(), good.clone()];
    let ends: Vec<_> = (0..MANY as usize)
        .map(|at| answer(&mut from(&mut system, 2), &attempts[at % attempts.len()]))
        .collect();
    let count = |end| ends.iter().filter(|&&other| other == end).count() as u64;
    let failed = count(Some(Reason::BadToken)) + count(Some(Reason::BadFrame));
    let refused = count(Some(Reason::AddressLimit));
    assert!(failed >= 10 && count(None) > 0 && refused + failed + count(None) == MANY, "{ends:?}");
    let is_refused_too = ends.iter().skip(2).step_by(3).any(|&end| end == Some(Reason::AddressLimit));
    assert!(is_refused_too, "whatever it says");
    assert_eq!(system.gateway().metric("moorgate_failed_hellos_total"), Some(failed));
    assert_eq!(system.gateway().metric("moorgate_refused_failed_hellos_total"), Some(refused));
    assert_eq!(answer(&mut from(&mut system, 3), &good), None, "another address is welcomed");
}

#[test]
fn with_no_address_limits_nobody_is_refused_by_address() {
    let mut system = limited("lifted", "connects_per_s = 1\nconnect_burst = 1\nfailed_hellos_per_min = 1");
    system.gateway().add_arg("--no-address-limits");
    system.start_all().expect("started");
    let issuer = system.issuer().expect("a key");
    for user in 1..=50 {
        let bad = answer(&mut from(&mut system, 2), &frame::Beat::EMPTY);
        let good = answer(&mut from(&mut system, 2), &wire::hello(&fleet::token(&issuer, user), user, 1));
        assert_eq!((bad, good), (Some(Reason::OutOfPlace), None));
    }
    assert_eq!(system.gateway().metric("moorgate_closed_total{reason=\"address_limit\"}"), Some(0));
}

#[test]
fn frames_of_a_later_version_are_skipped() {
    let mut system = System::start("skipped").expect("a system");
    let token = fleet::token(&system.issuer().expect("a key"), ALICE);
    let mut phone = Wire::greet(system.gateway().address(), &token, 1).expect("welcomed");
    phone.send(&framed(0x80, b"")).expect("sent");
    phone.send(&framed(0xbf, &[7; 4_096])).expect("sent");
    phone.call(1, echo::SAY.id, 0, b"").expect("sent");
    assert_eq!(phone.reply(1).expect("a reply").0, Code::Ok);
    assert_eq!(system.gateway().metric("moorgate_skipped_total"), Some(2));
}

#[test]
fn a_method_that_phones_may_not_call_is_refused_and_the_connection_stays() {
    let mut system = System::start("methods").expect("a system");
    let token = fleet::token(&system.issuer().expect("a key"), ALICE);
    let mut phone = Wire::greet(system.gateway().address(), &token, 1).expect("welcomed");
    for (id, method) in [(1, 0x0401), (2, 0x0501), (3, 0xffff), (4, 0)] {
        phone.call(id, method, 0, b"").expect("sent");
        let (status, text) = phone.reply(id).expect("a reply");
        assert!(
            [Code::Denied, Code::UnknownMethod].contains(&status) && !text.is_empty(),
            "{method:#x}: {status:?} {:?}",
            String::from_utf8_lossy(&text)
        );
    }
    // Without a token: only what is marked for that.
    let mut anonymous = Wire::greet(system.gateway().address(), "", 2).expect("welcomed");
    anonymous.call(1, proto_wire::services::messages::SEND.id, 0, b"").expect("sent");
    assert_eq!(anonymous.reply(1).expect("a reply").0, Code::Denied);
    anonymous.call(2, echo::SAY.id, 0, b"").expect("sent");
    assert_eq!(anonymous.reply(2).expect("a reply").0, Code::Ok);
}

#[test]
fn more_calls_in_flight_than_allowed_are_refused_by_status() {
    let mut system = System::start("in-flight").expect("a system");
    let token = fleet::token(&system.issuer().expect("a key"), ALICE);
    let mut phone = Wire::greet(system.gateway().address(), &token, 1).expect("welcomed");
    system.backend.running().pause().expect("stopped");
    for id in 1..=40 {
        phone.call(id, echo::SAY.id, 400, b"").expect("sent");
    }
    let mut refused = 0;
    for _ in 1..=40 {
        let Some(Heard { kind: kind::REPLY, body }) = phone.hear().expect("a frame") else {
            panic!("a reply")
        };
        let reply = frame::Reply::parse(&body).expect("a reply");
        refused += usize::from(reply.status == Code::TooMany);
        assert_ne!(reply.status, Code::Ok);
    }
    assert_eq!(refused, 40 - proto_wire::limits::MAX_PHONE_CALLS_IN_FLIGHT);
}

#[test]
fn a_hello_that_never_ends_is_closed_by_its_time_out() {
    let mut system = System::new("drip").expect("a system");
    system.configure_gateway("[limits]\nhello_timeout_ms = 1000\n").expect("configured");
    system.start_all().expect("started");
    let hello = wire::hello(&fleet::token(&system.issuer().expect("a key"), ALICE), 1, 1);
    let mut silent = Wire::connect(system.gateway().address()).expect("connected");
    let mut drip = Wire::connect(system.gateway().address()).expect("connected");
    // The last byte of HELLO never comes; those before come long after the time-out.
    for byte in &hello[..hello.len() - 1] {
        if drip.send(&[*byte]).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
        if system.gateway().metric("moorgate_connections") == Some(0) {
            break;
        }
    }
    assert_eq!(silent.close_reason().expect("an end"), Some(Reason::HelloTimeout));
    let told = drip.close_reason();
    assert!(told.is_err() || told.is_ok_and(|reason| reason != Some(Reason::Internal)), "no end");
    let closed = "moorgate_closed_total{reason=\"hello_timeout\"}";
    system.gateway().wait_for_metric(closed, |count| count == 2).expect("counted");
    system.gateway().wait_for_metric("moorgate_partial_bytes", |bytes| bytes == 0).expect("let go");
}

#[test]
fn a_phone_that_sends_byte_by_byte_is_served() {
    let mut system = System::start("bytes").expect("a system");
    let token = fleet::token(&system.issuer().expect("a key"), ALICE);
    let mut phone = Wire::connect(system.gateway().address()).expect("connected");
    let payload = pb::EchoRequest { payload: vec![9; 100].into() }.encode_to_vec();
    let mut bytes = wire::hello(&token, 1, 1);
    bytes.extend(wire::call(1, echo::SAY.id, 0, &payload));
    for byte in bytes {
        phone.send(&[byte]).expect("sent");
        std::thread::sleep(Duration::from_millis(2));
    }
    let (status, body) = phone.reply(1).expect("a reply");
    assert_eq!(status, Code::Ok);
    assert_eq!(pb::EchoReply::decode(&body[..]).expect("a reply").payload, vec![9; 100]);
}

#[test]
fn a_client_that_reads_nothing_is_closed_and_costs_little() {
    let mut system = System::start("reads-nothing").expect("a system");
    let token = fleet::token(&system.issuer().expect("a key"), ALICE);
    let gateway = system.gateway().address();
    let before = system.gateway().running().memory().expect("memory");
    let mut most = before;
    let mut phone = Wire::greet(gateway, &token, 1).expect("welcomed");
    let request = pb::EchoRequest { payload: vec![5; 60_000].into() }.encode_to_vec();
    // The kernel's buffers hold some megabytes; what the gateway holds itself is bounded by its out-queue.
    let closed = "moorgate_closed_total{reason=\"slow_reader\"}";
    for id in 1..2_000 {
        if phone.stream.write_all(&wire::call(id, echo::SAY.id, 0, &request)).is_err() {
            break;
        }
        if id % 16 == 0 {
            most = most.max(system.gateway().running().memory().expect("memory"));
            if system.gateway().metric(closed) == Some(1) {
                break;
            }
        }
    }
    system.gateway().wait_for_metric(closed, |count| count == 1).expect("closed");
    system.gateway().wait_for_metric("moorgate_connections", |open| open == 0).expect("gone");
    system.gateway().wait_for_metric("moorgate_queued_bytes", |bytes| bytes == 0).expect("let go");
    assert!(most < before + (4 << 20), "{before} bytes before, {most} at most");
}

#[test]
fn memory_comes_back_after_5000_connections() {
    const WARM_UP: u64 = 500;
    const MANY: u64 = 5_000;
    let mut system = System::start("memory").expect("a system");
    let issuer = system.issuer().expect("a key");
    let hold = |system: &mut System, count: u64| {
        let gateway = system.gateway().address();
        let wires: Vec<Wire> = (1..=count)
            .map(|user| Wire::greet(gateway, &fleet::token(&issuer, user), user).expect("welcomed"))
            .collect();
        system.gateway().wait_for_metric("moorgate_live", |live| live == count).expect("all live");
        drop(wires);
        system.gateway().wait_for_metric("moorgate_connections", |open| open == 0).expect("all gone");
        system.gateway().running().memory().expect("memory")
    };
    let warm = hold(&mut system, WARM_UP);
    let after = hold(&mut system, MANY);
    let allowed = (warm + warm / 10).max(warm + (2 << 20));
    assert!(after <= allowed, "{warm} bytes after {WARM_UP} connections, {after} after {MANY}");
}
