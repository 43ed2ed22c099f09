//! The process that is measured: handlers that wait for another service.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::{env, process};

use backend_stub::clock::Clock;
use backend_stub::co::{Here, Pool, PoolConfig};
use backend_stub::rpc::client::Client;
use backend_stub::rpc::{Call, Host, Server};
use backend_stub::rt::{Executor, Inbox, Listener, Waker};
use backend_stub::stats::Stats;
use codegen_sample::pb::{Order, Outcome};
use codegen_sample::services::{METHODS, trial};
use proto_wire::rpc::method::{CallOptions, Dispatch};
use proto_wire::status::Status;

pub const COMMAND: &str = "serve-for-figures";

/// Connections from the callers, and to the service behind: over each some 1 000 calls may be out before an answer has come.
pub const CONNECTIONS: usize = 128;

struct Relay {
    behind: Vec<trial::SyncClient<Client, Here>>,
    next: Cell<usize>,
}

impl Relay {
    fn next(&self) -> usize {
        self.next.replace((self.next.get() + 1) % self.behind.len())
    }
}

fn options() -> CallOptions {
    CallOptions { deadline_ms: 60_000, ..CallOptions::default() }
}

impl trial::SyncServer<Call> for Relay {
    fn r#do(&self, _: &Call, order: Order) -> Result<Outcome, Status> {
        self.behind[self.next()].r#do(options(), &order)
    }
}

/// The same for async handlers.
struct AsyncRelay {
    behind: Vec<trial::Client<Client>>,
    next: Cell<usize>,
}

impl trial::Server<Call> for AsyncRelay {
    async fn r#do(&self, _: &Call, order: Order) -> Result<Outcome, Status> {
        let next = self.next.replace((self.next.get() + 1) % self.behind.len());
        self.behind[next].r#do(options(), &order).await
    }
}

/// Serves until its standard input ends, and says where.
pub fn serve(kind: &str, behind: &str) {
    let Ok(behind) = behind.parse::<SocketAddr>() else { process::exit(2) };
    let kind = kind.to_owned();
    let mut listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
    let (addr, accepted) = (listener.addr(), listener.start().expect("a thread"));
    let stop = Waker::default();
    let until = stop.clone();
    let executor = Executor::start("figures", None, move || async move {
        let clock = Clock::start();
        let clients = (0..CONNECTIONS).map(|_| Client::new(behind, clock));
        if kind == "async" {
            let relay = AsyncRelay { behind: clients.map(trial::Client).collect(), next: Cell::new(0) };
            run(trial::AsyncService(relay), clock, accepted, &until).await;
        } else {
            let pool = Pool::new(&PoolConfig { stacks: 1 << 20, ..PoolConfig::default() }).expect("a pool");
            let clients = clients.map(|client| trial::SyncClient::new(client, Here));
            let relay = Relay { behind: clients.collect(), next: Cell::new(0) };
            run(trial::SyncService::new(relay, pool), clock, accepted, &until).await;
        }
    })
    .expect("an executor");
    println!("{addr}");
    std::io::stdout().flush().expect("somebody reads it");
    std::io::stdin().read_to_end(&mut Vec::new()).expect("it can be read");
    listener.close();
    stop.raise();
    executor.join().expect("no panic");
}

async fn run<D: Dispatch<Call> + 'static>(
    service: D,
    clock: Clock,
    accepted: Inbox<std::net::TcpStream>,
    until: &Waker,
) {
    let server = Server::new(Host(service), Arc::new(Stats::of(METHODS)), clock);
    server.serve(accepted, until).await;
}

/// This program, to be started as the server.
pub fn command(kind: &str, behind: SocketAddr) -> process::Command {
    let mut command = process::Command::new(env::current_exe().expect("it runs"));
    command.args([COMMAND, kind, &behind.to_string()]);
    command
}
