//! Callees that are processes, and are killed; and a caller without descriptors.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, thread};

use backend_stub::rpc::client::ClientConfig;
use backend_stub::rt;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use proto_wire::rpc::method::Method;
use proto_wire::status::Code;

use crate::fixture::*;

/// A process is this binary again, with the test that starts it. This tells it to be a callee: its port, its Unix socket
/// and its log.
const AS_CALLEE: &str = "MOORGATE_TEST_CALLEE";
const AS_POOR: &str = "MOORGATE_TEST_POOR";

/// A callee in a process of its own.
struct Process {
    /// The name of the test, as the binary knows it.
    test: &'static str,
    child: Child,
    addr: SocketAddr,
    files: Arc<Files>,
}

/// Outlive the process, and are gone with the test.
struct Files {
    unix: PathBuf,
    log: PathBuf,
}

impl Drop for Files {
    fn drop(&mut self) {
        // A callee that ended in an orderly way has taken its socket along.
        let _ = fs::remove_file(&self.unix);
        let _ = fs::remove_file(&self.log);
    }
}

impl Process {
    fn start(test: &'static str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let base = env::temp_dir().join(format!("moorgate-killed-{}-{number}", std::process::id()));
        let files = Files { unix: base.with_extension("sock"), log: base.with_extension("log") };
        Self::on(test, 0, Arc::new(files))
    }

    fn on(test: &'static str, port: u16, files: Arc<Files>) -> Self {
        let mut child = this_binary(test)
            .env(AS_CALLEE, format!("{port} {} {}", files.unix.display(), files.log.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this binary runs");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let addr = loop {
            let line = lines.next().expect("it says where it listens").expect("text");
            if let Some((_, addr)) = line.split_once("callee at ") {
                break addr.parse().expect("an address");
            }
        };
        // What it says later goes nowhere, but must find room.
        thread::spawn(move || lines.for_each(drop));
        Self { test, child, addr, files }
    }

    fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// Calls that it ran, also before it was killed.
    fn runs(&self, method: &Method) -> usize {
        let log = fs::read_to_string(&self.files.log).unwrap_or_default();
        log.lines().filter(|line| *line == format!("{:x}", method.id)).count()
    }

    fn restart(&mut self) {
        let addr = self.addr;
        *self = Self::on(self.test, addr.port(), self.files.clone());
    }

    fn config(&self, way: Way) -> ClientConfig {
        way.to(self.addr, &self.files.unix)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn this_binary(test: &str) -> Command {
    let mut command = Command::new(env::current_exe().expect("a test has a binary"));
    command.args([&format!("processes::{test}"), "--exact", "--nocapture"]);
    command
}

/// Whether this process is a callee; if so it was one, until whoever started it was gone.
fn was_a_callee() -> bool {
    let Ok(plan) = env::var(AS_CALLEE) else { return false };
    let parts: Vec<&str> = plan.split(' ').collect();
    let plan = Plan {
        port: parts[0].parse().expect("a port"),
        unix: Some(Path::new(parts[1]).to_owned()),
        log: Some(Path::new(parts[2]).to_owned()),
        behind: None,
    };
    let callee = Callee::with(plan);
    println!("callee at {}", callee.addr);
    let _ = std::io::stdin().read(&mut [0]);
    true
}

#[test]
fn a_call_whose_callee_is_killed_is_lost_and_never_made_again() {
    if was_a_callee() {
        return;
    }
    for way in WAYS {
        let mut callee = Process::start("a_call_whose_callee_is_killed_is_lost_and_never_made_again");
        let (config, log) = (callee.config(way), callee.files.log.clone());
        let (begun, is_begun) = std::sync::mpsc::channel();
        let ended = thread::spawn(move || {
            with_client(config, move |client| async move {
                let watched = client.clone();
                rt::spawn(async move {
                    while fs::read_to_string(&log).unwrap_or_default().is_empty() {
                        rt::sleep_ms(1).await;
                    }
                    begun.send(()).expect("the test waits");
                    drop(watched);
                });
                call_within(&client, &WAIT_ONCE, b"", 2000).await
            })
        });
        is_begun.recv().expect("it runs there");
        callee.kill();
        let status = ended.join().expect("no panic").expect_err("it cannot be answered");
        // Over UDP nobody tells: one datagram went, and none came.
        let expected = if way == Way::Udp { Code::Deadline } else { Code::Lost };
        assert_eq!(status.code, expected, "{way:?}: {status}");
        assert_eq!(callee.runs(&WAIT_ONCE), 1, "{way:?}");
    }
}

#[test]
fn what_may_run_twice_is_made_again_elsewhere() {
    if was_a_callee() {
        return;
    }
    for way in [Way::Long, Way::Short, Way::Udp] {
        let mut killed = Process::start("what_may_run_twice_is_made_again_elsewhere");
        let other = Process::start("what_may_run_twice_is_made_again_elsewhere");
        let mut config = killed.config(way);
        config.endpoints.push(other.addr.to_string());
        config.balance = backend_stub::rpc::client::Balance::RoundRobin;
        let logs = [killed.files.log.clone(), other.files.log.clone()];
        let waits = thread::spawn(move || {
            // The first in turn is the one that is killed.
            with_client(config, |client| async move { code(&call_within(&client, &WAIT, b"", 1500).await) })
        });
        until(|| fs::read_to_string(&logs[0]).is_ok_and(|log| !log.is_empty()));
        killed.kill();
        until(|| fs::read_to_string(&logs[1]).is_ok_and(|log| !log.is_empty()));
        assert_eq!(waits.join().expect("no panic"), Code::Deadline, "nobody answers it there either");
        assert_eq!((killed.runs(&WAIT), other.runs(&WAIT)), (1, 1), "{way:?}");
    }
}

#[test]
fn a_callee_that_is_there_again_is_called_again() {
    if was_a_callee() {
        return;
    }
    for way in WAYS {
        let mut callee = Process::start("a_callee_that_is_there_again_is_called_again");
        let (config, (to_test, from_loop)) = (callee.config(way), std::sync::mpsc::channel());
        let (to_loop, from_test) = std::sync::mpsc::channel();
        let calls = thread::spawn(move || {
            with_client(config, move |client| async move {
                assert!(call(&client, &ONCE, b"one").await.is_ok(), "{way:?}");
                to_test.send(()).expect("the test waits");
                while from_test.try_recv().is_err() {
                    rt::sleep_ms(1).await;
                }
                // UDP and short connections may have been told meanwhile that nobody was there; this client was not.
                let again = call_within(&client, &ONCE, b"two", 5000).await;
                assert_eq!(again.expect("it is answered"), "two", "{way:?}");
            });
        });
        from_loop.recv().expect("the first call ends");
        callee.kill();
        callee.restart();
        to_loop.send(()).expect("the loop waits");
        calls.join().expect("no panic");
        assert_eq!(callee.runs(&ONCE), 2, "{way:?}");
    }
}

#[test]
fn without_descriptors_calls_fail_with_the_reason_and_later_ones_do_not() {
    if let Ok(addr) = env::var(AS_POOR) {
        return be_poor(&addr);
    }
    let callee = Callee::start();
    let output = this_binary("without_descriptors_calls_fail_with_the_reason_and_later_ones_do_not")
        .env(AS_POOR, callee.addr.to_string())
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.contains("poor caller: [unavailable(9), ok(0)]"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A process whose limit of open files is too low.
fn be_poor(addr: &str) {
    let addr: SocketAddr = addr.parse().expect("an address");
    let mut hoard = Vec::new();
    let codes = with_client(Way::Short.to(addr, "".as_ref()), move |client| async move {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
        setrlimit(Resource::RLIMIT_NOFILE, 64, hard).expect("a lower limit");
        while let Ok(file) = fs::File::open("/dev/null") {
            hoard.push(file);
        }
        let poor = call_within(&client, &ECHO, b"", 200).await.expect_err("no descriptor is left");
        assert!(poor.text.contains("Too many open files"), "{poor}");
        drop(hoard);
        [poor.code, code(&call(&client, &ECHO, b"").await)]
    });
    println!("poor caller: {codes:?}");
}
