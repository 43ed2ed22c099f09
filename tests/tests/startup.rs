//! What is said when something cannot start, and what a start finds again.

use std::fs;
use std::net::TcpListener;

use proto_wire_token::IssuerKey;
use tests::fleet::{self, Fleet};
use tests::{Launch, Port, Process, System, WorkDir, http_get, limits};

/// Waits for an end that is a failure, and gives what was said.
fn failure(mut process: Process) -> String {
    let status = process.wait_for_end(limits::SOON_MS).expect("an end");
    assert_eq!(status.code(), Some(1), "{}", process.log());
    let log = process.log();
    assert!(!log.contains("ready listen=") && !log.contains("panicked"), "{log}");
    assert!(log.matches("(os error").count() <= 1, "a cause is told twice: {log}");
    log
}

fn assert_says(log: &str, parts: &[&str]) {
    for part in parts {
        assert!(log.contains(part), "no {part:?} in: {log}");
    }
}

#[test]
fn a_second_backend_on_one_data_directory_is_refused_and_the_first_goes_on() {
    let mut system = System::start("second").expect("a system");
    let ports = [Port::free().expect("a port"), Port::free().expect("a port")];
    let second = Launch::of("moorgate-backend", &system.dir)
        .expect("built")
        .log_as("second")
        .args(["serve", "--data", "data", "--listen", &ports[0].address().to_string()])
        .args(["--admin", &ports[1].address().to_string()]);
    let said = failure(second.start().expect("started"));
    assert_says(&said, &["data", "in use", "process"]);
    let mut fleet = system.fleet(1).expect("phones");
    let alice = fleet.add_up(11).expect("up");
    fleet.send_and_wait(alice, 12).expect("acknowledged by the first");
    assert!(system.backend.running().is_running());
}

#[test]
fn a_data_directory_of_a_newer_version_is_refused_and_left_as_it_is() {
    let mut system = System::start("newer").expect("a system");
    assert!(system.backend.running().stop().expect("stopped").success());
    let version = system.dir.join("data/store/VERSION");
    let text = fs::read_to_string(&version).expect("a version");
    let newer = text.replace("moorgate-store 1", "moorgate-store 2");
    assert_ne!(text, newer);
    fs::write(&version, &newer).expect("written");
    let said = failure(system.backend.launch().start().expect("started"));
    assert_says(&said, &["newer version", "2"]);
    assert_eq!(fs::read_to_string(&version).expect("a version"), newer);
    fs::write(&version, &text).expect("written");
    system.backend.start().expect("the right version starts");
}

#[test]
fn a_port_in_use_is_told_with_who_to_ask() {
    let mut system = System::start("port").expect("a system");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let free = Port::free().expect("a port").address().to_string();
    let dir = WorkDir::new("port-in-use").expect("a directory");
    for (listen, admin) in [(&address, &free), (&free, &address)] {
        let backend = Launch::of("moorgate-backend", &dir)
            .expect("built")
            .args(["serve", "--data", "other", "--listen", listen, "--admin", admin]);
        assert_says(&failure(backend.start().expect("started")), &[&address, "ss -ltnp"]);
        let key = system.dir.join("data/keys/verify.pem");
        let gateway = Launch::of("moorgate", &dir)
            .expect("built")
            .args(["serve", "--backend", "127.0.0.1:9", "--listen", listen, "--admin", admin])
            .arg("--verify-key")
            .arg(key);
        assert_says(&failure(gateway.start().expect("started")), &[&address, "ss -ltnp"]);
    }
    // The port of a running gateway, which listens with SO_REUSEPORT.
    let running = system.gateway().address().to_string();
    let gateway = Launch::of("moorgate", &dir)
        .expect("built")
        .args(["serve", "--backend", "127.0.0.1:9", "--listen", &running, "--admin", &free])
        .arg("--verify-key")
        .arg(system.dir.join("data/keys/verify.pem"));
    assert_says(&failure(gateway.start().expect("started")), &[&running]);
}

#[test]
fn a_misspelt_key_of_a_configuration_is_told_with_its_line() {
    let dir = WorkDir::new("misspelt").expect("a directory");
    fs::write(dir.join("gateway.toml"), "max_connections = 5\n\n[limits]\nheartbeet_ms = 1000\n")
        .expect("written");
    fs::write(dir.join("backend.toml"), "grace_ms = 5\n\n[store]\npartition = 2\n").expect("written");
    fs::write(dir.join("good.toml"), "grace_ms = 5\n").expect("written");
    for binary in ["moorgate", "moorgate-backend"] {
        let launch = Launch::of(binary, &dir).expect("built").args(["serve", "--config", "no-such.toml"]);
        assert_says(&failure(launch.start().expect("started")), &["no-such.toml", "No such file"]);
    }
    for (binary, file, key) in
        [("moorgate", "gateway.toml", "heartbeet_ms"), ("moorgate-backend", "backend.toml", "partition")]
    {
        for args in [&["serve", "--config", file][..], &["check-config", file]] {
            let launch = Launch::of(binary, &dir).expect("built").args(args.iter().copied());
            assert_says(&failure(launch.start().expect("started")), &[file, "line 4", key, "unknown field"]);
        }
        let mut good = Launch::of(binary, &dir)
            .expect("built")
            .log_as("good")
            .args(["check-config", "good.toml"])
            .start()
            .expect("started");
        assert!(good.wait_for_end(limits::SOON_MS).expect("an end").success());
        assert_says(&good.log(), &["good.toml", "fine"]);
    }
}

/// A kernel, or a container's filter, that refuses io_uring_setup: strace answers in its place.
#[test]
fn strace_without_io_uring_the_gateway_says_why_and_what_mends_it() {
    let system = System::start("no-io-uring").expect("a system");
    let switch = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    for errno in ["EPERM", "ENOSYS"] {
        // The cause is that of this kernel: switched off, filtered, or not there.
        let mends = match (switch.trim(), errno) {
            ("1" | "2", "EPERM") => "sysctl -w kernel.io_uring_disabled=0",
            ("", "ENOSYS") => "CONFIG_IO_URING",
            _ => "--security-opt seccomp=unconfined",
        };
        let backend = system.backend.address().to_string();
        let gateway = ["--backend", &backend, "--verify-key", "data/keys/verify.pem"];
        assert_says(&refused(&system.dir, errno, "moorgate", &gateway), &["io_uring", mends]);
    }
    // Those who have it are not disturbed.
    let mut fleet = system.fleet(1).expect("phones");
    let alice = fleet.add_up(11).expect("up");
    fleet.send_and_wait(alice, 12).expect("acknowledged");
}

/// What a server says that gets no ring.
fn refused(dir: &WorkDir, errno: &str, server: &str, args: &[&str]) -> String {
    let [listen, admin] = [(); 2].map(|()| Port::free().expect("a port"));
    let syscalls = format!("{server}.{errno}.syscalls");
    let launch = Launch::program(&format!("{server}.{errno}"), "strace", dir)
        .args(["-f", "-qq", "-o", &syscalls, "-e", "trace=io_uring_setup"])
        .args(["-e", &format!("inject=io_uring_setup:error={errno}")])
        .arg(tests::binary(server).expect("built"))
        .args(["serve", "--listen", &listen.address().to_string(), "--admin", &admin.address().to_string()])
        .args(args.iter().copied());
    let said = failure(launch.start().expect("strace"));
    let calls = fs::read_to_string(dir.join(syscalls)).expect("strace's log");
    assert!(calls.contains("(INJECTED)"), "{calls}");
    said
}

#[test]
fn a_missing_key_says_which_file_and_how_to_name_it() {
    let dir = WorkDir::new("no-key").expect("a directory");
    let ports = [Port::free().expect("a port"), Port::free().expect("a port")];
    let gateway = Launch::of("moorgate", &dir)
        .expect("built")
        .args(["serve", "--backend", "127.0.0.1:9", "--verify-key", "no-such.pem"])
        .args(["--listen", &ports[0].address().to_string(), "--admin", &ports[1].address().to_string()]);
    assert_says(&failure(gateway.start().expect("started")), &["no-such.pem", "--verify-key"]);
}

#[test]
fn both_stop_cleanly_and_a_second_start_finds_everything_again() {
    let mut system = System::start("again").expect("a system");
    let mut fleet = system.fleet(1).expect("phones");
    let alice = fleet.add_up(11).expect("up");
    for _ in 0..10 {
        fleet.send_and_wait(alice, 12).expect("acknowledged");
    }
    fleet.cut(alice);
    assert!(system.gateway().running().stop().expect("stopped").success());
    assert!(system.backend.running().stop().expect("stopped").success());
    system.start_all().expect("started again");
    let bob = fleet.add(12);
    fleet.connect(bob);
    fleet.run_until("delivery", limits::SOON_MS, |fleet| fleet.seen(bob).changes == 10).expect("told");
    let other = fleet.add_device(11, 99, 0);
    fleet.connect(other);
    fleet.connect(alice);
    fleet.settle(limits::SOON_MS).expect("delivered");
    fleet.assert_good();
}

/// `moorgate up` in a directory, on ports of its own.
struct Up {
    listen: Port,
    admin: Port,
    launch: Launch,
}

impl Up {
    fn new(dir: &WorkDir, name: &str) -> Up {
        let [listen, admin, backend, backend_admin] = [(); 4].map(|()| Port::free().expect("a port"));
        let launch = Launch::of("moorgate", dir)
            .expect("built")
            .log_as(name)
            .args(["up", "--listen", &listen.address().to_string(), "--admin", &admin.address().to_string()])
            .args(["--backend-listen", &backend.address().to_string()])
            .args(["--backend-admin-port", &backend_admin.number().to_string()]);
        Up { listen, admin, launch }
    }

    fn start(&self) -> Process {
        let mut process = self.launch.start().expect("started");
        process.wait_for_line("ready ").expect("ready");
        process.wait_for_ok(self.admin.address(), "/readyz").expect("ready");
        process
    }
}

#[test]
fn up_starts_everything_tells_where_and_finds_it_again() {
    let dir = WorkDir::new("up").expect("a directory");
    let up = Up::new(&dir, "up");
    let mut process = up.start();
    process.wait_for_line("Try next").expect("what to try next");
    assert_says(&process.log(), &[&up.listen.address().to_string(), "moorgate-data"]);
    let pem = fs::read_to_string(dir.join("moorgate-data/keys/issuer.pem")).expect("a key");
    let issuer = IssuerKey::from_pem(&pem).expect("a key");
    let mut fleet = Fleet::new(up.listen.address(), issuer, fleet::config(), 1);
    let (alice, bob) = (fleet.add_up(11).expect("up"), fleet.add_up(12).expect("up"));
    fleet.send_and_wait(alice, 12).expect("acknowledged");
    fleet.settle(limits::SOON_MS).expect("delivered");
    process.signal(nix::sys::signal::Signal::SIGINT).expect("Ctrl-C");
    assert!(process.wait_for_end(limits::STOP_WITHIN_MS).expect("an end").success(), "{}", process.log());
    let _again = up.start();
    let all_up = |fleet: &Fleet| fleet.is_up(alice) && fleet.is_up(bob);
    fleet.run_until("WELCOME", limits::SOON_MS, all_up).expect("back, with the tokens they had");
    let other = fleet.add_device(12, 99, 0);
    fleet.connect(other);
    fleet.settle(limits::SOON_MS).expect("found again");
    fleet.assert_good();
}

#[test]
fn up_twice_on_one_directory_is_refused_and_the_first_goes_on() {
    let dir = WorkDir::new("up-twice").expect("a directory");
    let first = Up::new(&dir, "first");
    let _first = first.start();
    let second = Up::new(&dir, "second");
    assert_says(&failure(second.launch.start().expect("started")), &["moorgate-data", "in use"]);
    assert_eq!(http_get(first.admin.address(), "/healthz").expect("an answer").0, 200);
}
