//! Starting, stopping, and what stands in the way.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::{fs, thread};

use backend_stub::embedded::{self, StartError};
use proto_wire::pb;
use proto_wire::services::account::SIGN_UP;
use proto_wire::status::Code;

use crate::client::Client;
use crate::fixture::{Backend, Dir, config};

#[test]
fn a_port_in_use_is_told_with_what_to_do() {
    let holder = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let dir = Dir::new();
    let mut config = config(&dir);
    config.listen = holder.local_addr().expect("bound");
    let error = embedded::start(config.clone()).err().expect("the port is taken");
    assert!(matches!(error, StartError::Listen { .. }));
    let text = error.to_string();
    assert!(text.contains("ss -ltnp") && text.contains(&config.listen.to_string()), "{text}");

    (config.admin, config.listen) = (Some(config.listen), SocketAddr::from(([127, 0, 0, 1], 0)));
    let text = embedded::start(config).err().expect("the port is taken").to_string();
    assert!(text.contains("--admin"), "{text}");
}

#[test]
fn two_backends_do_not_share_a_port_or_a_directory() {
    let backend = Backend::start();
    let other = Dir::new();
    let mut same_port = config(&other);
    same_port.listen = backend.addr();
    assert!(matches!(embedded::start(same_port).err(), Some(StartError::Listen { .. })));
    let text = embedded::start(config(&backend.dir)).err().expect("in use").to_string();
    assert!(text.contains("in use by another process"), "{text}");
}

#[test]
fn a_directory_of_a_newer_version_is_refused() {
    let mut backend = Backend::start();
    backend.stop();
    let version = backend.dir.0.join("store/VERSION");
    let text = fs::read_to_string(&version).expect("written at start");
    let newer = text.replacen(|c: char| c.is_ascii_digit(), "9", 1);
    assert_ne!(text, newer);
    fs::write(&version, newer).expect("writable");
    let text = embedded::start(config(&backend.dir)).err().expect("newer").to_string();
    assert!(text.contains("newer version"), "{text}");
}

#[test]
fn an_address_that_others_reach_is_refused() {
    let dir = Dir::new();
    let mut config = config(&dir);
    config.listen = SocketAddr::from(([0, 0, 0, 0], 0));
    let text = embedded::start(config).err().expect("open to all").to_string();
    assert!(text.contains("--insecure-listen"), "{text}");
}

#[test]
fn keys_are_made_at_the_first_start_and_kept() {
    let mut backend = Backend::start();
    let issuer = backend.dir.0.join("keys/issuer.pem");
    let before = fs::read_to_string(&issuer).expect("made");
    assert_eq!(fs::metadata(&issuer).expect("there").permissions().mode() & 0o777, 0o600);
    backend.restart();
    assert_eq!(fs::read_to_string(&issuer).expect("kept"), before);
}

#[test]
fn a_stop_finishes_what_is_in_flight_and_says_so_to_callers() {
    let mut backend = Backend::start();
    let mut client = Client::connect(backend.addr());
    let request = pb::SignUpRequest { name: "alice".into(), password: "correct horse".into() };
    let call = client.begin(&SIGN_UP, None, &request);
    // A second call over the same connection: once it is answered, the first one is in the backend.
    let echo = client.begin(&proto_wire::services::echo::SAY, None, &pb::EchoRequest::default());
    assert_eq!(client.wait(echo).code, Code::Ok);
    let stopping = thread::spawn(move || {
        backend.stop();
        backend
    });
    assert_eq!(client.wait(call).code, Code::Ok);
    while client.turn() {}
    assert!(client.is_told_to_go);
    let mut backend = stopping.join().expect("no panic");
    backend.running = Some(embedded::start(config(&backend.dir)).expect("it starts again"));
    let mut client = Client::connect(backend.addr());
    assert_eq!(client.call(&SIGN_UP, None, &request).code, Code::Ok);
}
