//! The adapters against the real servers. Those that need one say so in their names; `tests/run` installs them, and
//! leaves the tests out, with the reason, where it cannot.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use benches::measure::Arrival;
use benches::peers::run::{PeerOptions, PeerReport, PeerWork, Protocol, peer};
use benches::peers::server::{Plan, Server, configuration, find, free_address};
use benches::report::Report;

const BENCH: &str = env!("CARGO_BIN_EXE_moorgate-bench");

/// A directory that goes with the test.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("moorgate-peers-test-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory");
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&path, open).expect("its mode");
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Where `tests/run` installs what comes from PyPI.
fn venv(program: &str) -> PathBuf {
    let own = std::env::current_exe().expect("the test's path");
    let target = own.ancestors().nth(3).expect("the target directory");
    let path = target.join("peers-venv/bin").join(program);
    assert!(path.is_file(), "{} is missing: tests/run installs it", path.display());
    path
}

fn start(
    name: &'static str,
    directory: &Path,
    program: PathBuf,
    args: impl FnOnce(SocketAddr) -> Vec<String>,
) -> Server {
    let address = free_address().expect("a port");
    let core = gateway_ring::available_cores()[0];
    let args = args(address).into_iter().map(Into::into).collect();
    Server::start(Plan { name, program, args, directory, core, address }).expect("it starts")
}

fn load(server: &Server, protocol: Protocol, work: PeerWork, acknowledged: bool) -> PeerReport {
    let options = PeerOptions {
        protocol,
        target: server.address,
        host: server.address.to_string(),
        path: "/".to_owned(),
        connections: 20,
        work,
        rate: 200.0,
        arrival: Arrival::Constant,
        payload_bytes: 64,
        acknowledged,
        seconds: 1,
        pid: None,
        cores: Vec::new(),
    };
    let report = peer(&options).expect("a run");
    println!("{}", report.summary());
    assert!(report.is_good(), "{}", report.summary());
    report
}

/// Nothing that was asked stays without its answer.
fn all_done(report: &PeerReport, answers: u64) {
    assert!(report.asked > 0, "{}", report.summary());
    assert_eq!(report.done, report.asked * answers, "{}", report.summary());
    let recorded: u64 = report.measured.operations["request"].values().map(|phase| phase.done).sum();
    assert_eq!(recorded, report.done, "every answer has its latency");
}

#[test]
fn mqtt_is_spoken_with_mosquitto() {
    let directory = Directory::new("mosquitto");
    let server = start(
        "mosquitto",
        &directory.0,
        find("mosquitto", "apt-get install mosquitto").expect("mosquitto"),
        |at| {
            let text = include_str!("../peers/mosquitto.conf");
            let file = configuration(&directory.0, "m.conf", text, &[("@PORT@", at.port())]).expect("a file");
            vec!["-c".to_owned(), file.display().to_string()]
        },
    );
    all_done(&load(&server, Protocol::Mqtt, PeerWork::Ping, false), 1);
    all_done(&load(&server, Protocol::Mqtt, PeerWork::Publish, false), 1);
    all_done(&load(&server, Protocol::Mqtt, PeerWork::Publish, true), 1);
    all_done(&load(&server, Protocol::Mqtt, PeerWork::Fanout, false), 20);
    assert_eq!(load(&server, Protocol::Mqtt, PeerWork::Idle, false).asked, 0);
}

#[test]
fn nats_is_spoken_with_nats_server() {
    let directory = Directory::new("nats");
    let server = start("nats", &directory.0, venv("nats-server"), |at| {
        let text = include_str!("../peers/nats.conf");
        let file = configuration(&directory.0, "n.conf", text, &[("@PORT@", at.port())]).expect("a file");
        vec!["-c".to_owned(), file.display().to_string()]
    });
    all_done(&load(&server, Protocol::Nats, PeerWork::Ping, false), 1);
    all_done(&load(&server, Protocol::Nats, PeerWork::Publish, false), 1);
    all_done(&load(&server, Protocol::Nats, PeerWork::Fanout, false), 20);
}

const WEBSOCKET_ECHO: &str = "
import asyncio, sys, websockets
async def echo(connection, *rest):
    async for message in connection:
        await connection.send(message)
async def main():
    async with websockets.serve(echo, '127.0.0.1', int(sys.argv[1])):
        await asyncio.Future()
asyncio.run(main())
";

#[test]
fn websocket_is_spoken_with_websockets_of_pypi() {
    let directory = Directory::new("ws");
    let server = start("websockets", &directory.0, venv("python3"), |at| {
        let file = directory.0.join("echo.py");
        fs::write(&file, WEBSOCKET_ECHO).expect("a file");
        vec![file.display().to_string(), at.port().to_string()]
    });
    all_done(&load(&server, Protocol::Ws, PeerWork::Ping, false), 1);
    all_done(&load(&server, Protocol::Ws, PeerWork::Echo, false), 1);
}

#[test]
fn tcp_is_echoed_with_haproxy_between() {
    let directory = Directory::new("haproxy");
    let echo = floor(&directory.0, "epoll");
    let server =
        start("haproxy", &directory.0, find("haproxy", "apt-get install haproxy").expect("haproxy"), |at| {
            let fill = [("@PORT@", at.port()), ("@ECHO@", echo.address.port())];
            let text = include_str!("../peers/haproxy.cfg");
            let file = configuration(&directory.0, "h.cfg", text, &fill).expect("a file");
            vec!["-db".to_owned(), "-f".to_owned(), file.display().to_string()]
        });
    all_done(&load(&server, Protocol::Tcp, PeerWork::Echo, false), 1);
}

fn floor(directory: &Path, how: &str) -> Server {
    start("floor", directory, BENCH.into(), |at| {
        ["floor", "--listen", &at.to_string(), "--how", how].map(str::to_owned).to_vec()
    })
}

#[test]
fn both_floors_echo() {
    for how in ["uring", "epoll"] {
        let directory = Directory::new(how);
        let server = floor(&directory.0, how);
        all_done(&load(&server, Protocol::Tcp, PeerWork::Ping, false), 1);
        all_done(&load(&server, Protocol::Tcp, PeerWork::Echo, false), 1);
    }
}

/// The exit code, and what was said.
fn bench(args: &[&str]) -> (Option<i32>, String) {
    let ran = Command::new(BENCH).args(args).output().expect("it runs");
    let told = [ran.stdout, ran.stderr].concat();
    (ran.status.code(), String::from_utf8_lossy(&told).into_owned())
}

#[test]
fn a_target_that_speaks_something_else_is_told_and_the_exit_code_is_2() {
    let directory = Directory::new("else");
    let server = floor(&directory.0, "epoll");
    let target = server.address.to_string();
    for (protocol, word) in [("mqtt", "does not speak MQTT"), ("ws", "does not speak WebSocket")] {
        let args =
            ["peer", "--protocol", protocol, "--target", &target, "--connections", "3", "--seconds", "1"];
        let (code, told) = bench(&args);
        assert_eq!(code, Some(2), "{told}");
        assert!(told.contains(word) && told.contains(&target), "{told}");
    }
    drop(server);
    let args = ["peer", "--protocol", "nats", "--target", &target, "--connections", "3", "--seconds", "1"];
    let (code, told) = bench(&args);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("connect") && told.contains(&target), "{told}");
    let (code, told) =
        bench(&["peer", "--protocol", "tcp", "--target", &target, "--connections", "3", "--work", "fanout"]);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("has no"), "{told}");
}
