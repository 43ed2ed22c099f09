//! Phones whose network is gone without a word: no FIN, no reset. They leave by their missed heartbeats, or sooner, when
//! something is sent to them that nobody acknowledges. In a network namespace of their own whose link is cut.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;
use tests::fleet::token;
use tests::wire::Wire;
use tests::{Launch, Port, Process, System, http_get, http_post, limits};

/// Phones in each test.
const PHONES: u64 = 20;

/// Two ends of a cable; the far one in a namespace that lives as long as its thread.
struct Far {
    /// Of the near end.
    address: Ipv4Addr,
    orders: Sender<Order>,
    done: Receiver<()>,
    thread: JoinHandle<()>,
}

enum Order {
    Greet { gateway: SocketAddr, tokens: Vec<String> },
    Cut,
}

impl Far {
    /// `number` makes names and addresses of their own.
    fn new(number: u8) -> Self {
        let name = format!("mg{number}-{}", std::process::id() % 10_000);
        let (near, far) = (format!("{name}a"), format!("{name}b"));
        let subnet = (std::process::id() % 250) as u8;
        let [address, peer] = [1, 2].map(|host| Ipv4Addr::new(10, 213, subnet, number * 4 + host));
        let (told, tid) = channel();
        let (orders, next) = channel();
        let (does, done) = channel();
        let link = far.clone();
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a namespace");
            told.send(gettid()).expect("awaited");
            // The far end has come.
            let Ok(()) = run_far(&link, peer, &next, &does) else { return };
        });
        let tid = tid.recv().expect("a thread");
        ip(&["link", "add", &near, "type", "veth", "peer", "name", &far]);
        ip(&["link", "set", &far, "netns", &tid.to_string()]);
        ip(&["addr", "add", &format!("{address}/30"), "dev", &near]);
        ip(&["link", "set", &near, "up"]);
        let far = Self { address, orders, done, thread };
        far.done.recv().expect("the far end is up");
        far
    }

    fn order(&self, order: Order) {
        self.orders.send(order).expect("the far end listens");
        self.done.recv().expect("the far end did it");
    }

    fn end(self) {
        drop(self.orders);
        self.thread.join().expect("the far end");
    }
}

/// The life of the far end, on its own thread: sockets made here belong to its namespace.
fn run_far(
    link: &str,
    peer: Ipv4Addr,
    next: &Receiver<Order>,
    does: &Sender<()>,
) -> Result<(), std::sync::mpsc::SendError<()>> {
    let mut held = Vec::new();
    wait_for_link(link);
    ip(&["addr", "add", &format!("{peer}/30"), "dev", link]);
    ip(&["link", "set", link, "up"]);
    does.send(())?;
    for order in next {
        match order {
            Order::Greet { gateway, tokens } => {
                for (at, token) in tokens.iter().enumerate() {
                    held.push(Wire::greet(gateway, token, at as u64 + 1).expect("welcomed"));
                }
            }
            Order::Cut => ip(&["link", "set", link, "down"]),
        }
        does.send(())?;
    }
    Ok(())
}

fn wait_for_link(link: &str) {
    for _ in 0..500 {
        if Command::new("ip").args(["link", "show", link]).output().is_ok_and(|out| out.status.success()) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("{link} did not come");
}

fn ip(args: &[&str]) {
    let out = Command::new("ip").args(args).output().expect("ip runs");
    assert!(out.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// A gateway on the near end, with the phones of the far one.
struct Stage {
    _system: System,
    gateway: Process,
    backend_admin: SocketAddr,
    admin: SocketAddr,
    _port: Port,
    far: Far,
}

impl Stage {
    fn new(name: &str, number: u8, limits: &str) -> Self {
        let mut system = System::new(name).expect("a system");
        system.backend.start().expect("a backend");
        let far = Far::new(number);
        let config = system.dir.join("near.toml");
        std::fs::write(&config, format!("[limits]\n{limits}\n")).expect("written");
        let admin_port = Port::free().expect("a port");
        let admin = admin_port.address();
        let mut gateway = Launch::of("moorgate", &system.dir)
            .expect("built")
            .log_as("near")
            .arg("serve")
            .args(["--listen".to_owned(), format!("{}:0", far.address)])
            .args(["--admin".to_owned(), admin.to_string()])
            .args(["--backend".to_owned(), system.backend.address().to_string()])
            .arg("--verify-key")
            .arg(system.dir.join("data/keys/verify.pem"))
            .arg("--config")
            .arg(config)
            .start()
            .expect("started");
        let line = gateway.wait_for_line("ready ").expect("ready");
        let listen =
            line.split("listen=").nth(1).and_then(|rest| rest.split(' ').next()).expect("an address");
        let issuer = system.issuer().expect("a key");
        let tokens = (1..=PHONES).map(|user| token(&issuer, user)).collect();
        gateway.wait_for_ok(admin, "/readyz").expect("ready");
        far.order(Order::Greet { gateway: listen.parse().expect("an address"), tokens });
        let backend_admin = system.backend.admin();
        Self { _system: system, gateway, backend_admin, admin, _port: admin_port, far }
    }

    fn status(&self, key: &str) -> i64 {
        let (_, text) = http_get(self.admin, "/status").expect("a status");
        let status: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        status[key].as_i64().unwrap_or(i64::MIN)
    }

    fn wait_until_all_left(&mut self, within_ms: u64) {
        let admin = self.admin;
        let left = self.gateway.wait_until("all connections to end", within_ms, |_| {
            let (_, text) = http_get(admin, "/status").ok()?;
            let status: serde_json::Value = serde_json::from_str(&text).ok()?;
            (status["connections"] == 0).then_some(())
        });
        left.expect("all left");
    }

    fn closed(&self, reason: &str) -> u64 {
        let (_, text) = http_get(self.admin, "/metrics").expect("metrics");
        let line = format!("moorgate_closed_total{{reason=\"{reason}\"}} ");
        let value = text.lines().find_map(|at| at.strip_prefix(line.as_str())).expect("a counter");
        value.parse().expect("a number")
    }
}

#[test]
fn netns_phones_whose_link_is_cut_leave_by_their_missed_heartbeats() {
    let mut stage = Stage::new("half-open", 0, "heartbeat_ms = 1000\nheartbeat_margin_ms = 500");
    assert_eq!(stage.status("connections"), PHONES as i64);
    assert_eq!(stage.status("established_minus_sessions"), 0);
    stage.far.order(Order::Cut);
    stage.wait_until_all_left(limits::SOON_MS);
    assert_eq!((stage.closed("idle"), stage.closed("reset"), stage.closed("peer_closed")), (PHONES, 0, 0));
    stage.far.end();
}

#[test]
fn netns_phones_that_acknowledge_nothing_leave_long_before_their_heartbeat() {
    let mut stage = Stage::new("unacked", 1, "heartbeat_ms = 600000\nuser_timeout_ms = 2000");
    stage.far.order(Order::Cut);
    // Something has to be on its way for the kernel to notice.
    let asked = http_post(stage.backend_admin, "/broadcast", "is anybody there?").expect("an answer");
    assert!(asked.0 == 200 && asked.1.contains("\"gateways\":1"), "{asked:?}");
    stage.wait_until_all_left(limits::SOON_MS);
    assert_eq!((stage.closed("idle"), stage.closed("reset")), (0, PHONES));
    stage.far.end();
}
