//! Calls the process that is measured, and looks at its memory while its handlers wait.

use std::future::pending;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{fs, thread};

use backend_stub::clock::Clock;
use backend_stub::rpc::client::Client;
use backend_stub::rpc::{Call, Host, Server};
use backend_stub::rt::{self, Executor, Listener, Waker};
use backend_stub::stats::Stats;
use codegen_sample::pb::{Order, Outcome};
use codegen_sample::services::{METHODS, trial};
use proto_wire::rpc::method::CallOptions;
use proto_wire::status::Status;

use crate::serve;

/// Of each handler, but for the mappings.
pub struct Memory {
    pub resident: u64,
    pub page_tables: u64,
    pub maps: usize,
}

/// Calls that are made first, so that buffers are there before memory is looked at.
const WARM_UP: u64 = 64;

/// What a handler was asked with.
const PAYLOAD_BYTES: usize = 20;

/// The service behind: answers nobody.
struct Silent(Arc<AtomicU64>);

impl trial::Server<Call> for Silent {
    async fn r#do(&self, _: &Call, _: Order) -> Result<Outcome, Status> {
        self.0.fetch_add(1, Ordering::AcqRel);
        pending().await
    }
}

pub fn measure(kind: &str, handlers: u64) -> Memory {
    let waiting = Arc::new(AtomicU64::new(0));
    let (behind, stop, executor, listener) = start_behind(waiting.clone());
    let mut child = serve::command(kind, behind)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut line).expect("an address");
    let addr: SocketAddr = line.trim().parse().expect("an address");

    let (more, until) = (Waker::default(), Waker::default());
    let callers = start_callers(addr, handlers, more.clone(), until.clone());
    until_waiting(&waiting, WARM_UP);
    let before = Look::at(child.id());
    more.raise();
    until_waiting(&waiting, handlers + WARM_UP);
    let after = Look::at(child.id());
    until.raise();

    child.kill().expect("it runs");
    child.wait().expect("it ran");
    callers.join().expect("no panic");
    listener.close();
    stop.raise();
    executor.join().expect("no panic");
    Memory {
        resident: (after.resident - before.resident) / handlers,
        page_tables: (after.page_tables - before.page_tables) / handlers,
        maps: after.maps,
    }
}

fn start_behind(waiting: Arc<AtomicU64>) -> (SocketAddr, Waker, Executor<()>, Listener) {
    let mut listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
    let (addr, accepted) = (listener.addr(), listener.start().expect("a thread"));
    let stop = Waker::default();
    let until = stop.clone();
    let executor = Executor::start("behind", None, move || async move {
        let service = Host(trial::AsyncService(Silent(waiting)));
        let server = Server::new(service, Arc::new(Stats::of(METHODS)), Clock::start());
        server.serve(accepted, &until).await;
    });
    (addr, stop, executor.expect("an executor"), listener)
}

/// Calls the server: some at once, the others when `more` is raised.
fn start_callers(addr: SocketAddr, handlers: u64, more: Waker, until: Waker) -> Executor<()> {
    Executor::start("callers", None, move || async move {
        let clients: Vec<_> =
            (0..serve::CONNECTIONS).map(|_| trial::Client(Client::new(addr, Clock::start()))).collect();
        for at in 0..handlers + WARM_UP {
            if at == WARM_UP {
                more.wait().await;
            }
            let client = clients[at as usize % clients.len()].clone();
            rt::spawn(async move {
                let options = CallOptions { deadline_ms: 60_000, ..CallOptions::default() };
                let order = Order { payload: vec![7; PAYLOAD_BYTES].into(), ..Order::default() };
                // It ends with the server.
                let _ = client.r#do(options, &order).await;
            });
            if at % 256 == 0 {
                rt::yield_now().await;
            }
        }
        until.wait().await;
    })
    .expect("an executor")
}

fn until_waiting(waiting: &AtomicU64, wanted: u64) {
    while waiting.load(Ordering::Acquire) < wanted {
        thread::sleep(Duration::from_millis(10));
    }
    // Buffers that empty themselves have their time.
    thread::sleep(Duration::from_millis(500));
}

struct Look {
    resident: u64,
    page_tables: u64,
    maps: usize,
}

impl Look {
    fn at(process: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
        let kib = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel says it");
            let number = line.trim().trim_end_matches("kB").trim().parse::<u64>();
            number.expect("a number")
        };
        let maps = fs::read_to_string(format!("/proc/{process}/maps")).expect("it runs").lines().count();
        Self { resident: kib("VmRSS:") * 1024, page_tables: kib("VmPTE:") * 1024, maps }
    }
}
