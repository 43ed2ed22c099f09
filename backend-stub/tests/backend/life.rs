//! Starting, stopping, and what stands in the way.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::{fs, thread};

use backend_stub::embedded::{self, StartError};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
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
    let request =
        pb::SignUpRequest { name: "alice".into(), password: "correct horse".into(), ..Default::default() };
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

/// The binary on free ports; its first line.
fn serve(dir: &Dir, more: &[&str]) -> (Child, String) {
    let mut process = Command::new(env!("CARGO_BIN_EXE_moorgate-backend"))
        .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"])
        .arg(&dir.0)
        .args(more)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary is built");
    let mut line = String::new();
    BufReader::new(process.stdout.take().expect("piped")).read_line(&mut line).expect("text");
    (process, line)
}

#[test]
fn the_binary_says_when_it_is_ready_and_a_signal_ends_it_well() {
    let dir = Dir::new();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (mut process, line) = serve(&dir, &["--cores", "0"]);
        let addr = line.strip_prefix("ready listen=").and_then(|rest| rest.split(' ').next()).expect("ready");
        assert!(line.contains(" admin=127.0.0.1:"), "{line}");
        let mut client = Client::connect(addr.parse().expect("an address"));
        let request = pb::SignUpRequest {
            name: "alice".into(),
            password: "correct horse".into(),
            ..Default::default()
        };
        assert_eq!(client.call(&SIGN_UP, None, &request).code, Code::Ok);
        kill(Pid::from_raw(process.id() as i32), signal).expect("it runs");
        while client.turn() {}
        assert!(client.is_told_to_go);
        assert_eq!(process.wait().expect("it ends").code(), Some(0), "{signal}");
    }
}

#[test]
fn the_binary_names_what_is_wrong_and_fails() {
    let dir = Dir::new();
    fs::create_dir_all(&dir.0).expect("writable");
    let (misspelt, open) = (dir.0.join("misspelt.toml"), dir.0.join("open.toml"));
    fs::write(&misspelt, "listen = \"127.0.0.1:0\"\ngrace = 5\n").expect("writable");
    fs::write(&open, "listen = \"0.0.0.0:0\"\n").expect("writable");
    let words = |path: &std::path::Path| vec!["--config".to_owned(), path.display().to_string()];
    for (more, expected) in [
        (words(&misspelt), "line 2"),
        (words(&open), "--insecure-listen"),
        (vec!["--cores".to_owned(), "1000".to_owned()], "--cores"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_moorgate-backend"))
            .args(["serve", "--data"])
            .arg(dir.0.join("data"))
            .args(more)
            .output()
            .expect("the binary is built");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(expected), "{text}");
    }
}
