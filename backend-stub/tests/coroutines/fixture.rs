//! A server of the sample service `Trial`, with handlers of either kind, and what calls it.

use std::cell::Cell;
use std::future::Future;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use backend_stub::clock::Clock;
use backend_stub::co::{self, Blocked, Here, Pool, PoolConfig};
use backend_stub::rpc::client::Client;
use backend_stub::rpc::{Call, Host, Server};
use backend_stub::rt::{self, Executor, Inbox, Listener, Waker};
use backend_stub::stats::Stats;
use codegen_sample::pb::order::What;
use codegen_sample::pb::{Order, Outcome};
use codegen_sample::services::{METHODS, trial};
use proto_wire::rpc::method::{CallOptions, Dispatch};
use proto_wire::status::{Code, Status};

/// How a server's handlers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Async,
    Sync,
}

pub const BOTH: [Kind; 2] = [Kind::Async, Kind::Sync];

/// What handlers tell of themselves.
#[derive(Debug, Default)]
pub struct Told {
    pub begun: AtomicU64,
    /// Handlers that were ended where they waited.
    pub unwound: AtomicU64,
    pub ended: AtomicU64,
}

impl Told {
    /// Waits until a count is there. The runner ends a test that waits for ever.
    pub fn until(&self, count: impl Fn(&Self) -> &AtomicU64, wanted: u64) {
        while count(self).load(Ordering::Acquire) < wanted {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Counts an end that was none.
struct Running(Arc<Told>, Cell<bool>);

impl Running {
    fn begin(told: &Arc<Told>) -> Self {
        told.begun.fetch_add(1, Ordering::AcqRel);
        Self(told.clone(), Cell::new(false))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let count = if self.1.get() { &self.0.ended } else { &self.0.unwound };
        count.fetch_add(1, Ordering::AcqRel);
    }
}

/// The handlers.
struct Does {
    told: Arc<Told>,
    behind: Option<Client>,
}

impl Does {
    fn behind(&self) -> Result<&Client, Status> {
        self.behind.as_ref().ok_or_else(|| Status::invalid("nobody is behind"))
    }
}

fn echo(order: &Order) -> Outcome {
    Outcome { payload: order.payload.clone(), number: 1 }
}

fn onward(order: &Order) -> Order {
    Order { what: What::Echo.into(), ..order.clone() }
}

fn sum(answers: Vec<Result<Outcome, Status>>) -> Result<Outcome, Status> {
    let mut sum = Outcome::default();
    for answer in answers {
        sum.number += answer?.number;
    }
    Ok(sum)
}

fn failed() -> Status {
    Status { retry_after_ms: 250, ..Status::new(Code::Conflict, "as asked") }
}

impl trial::SyncServer<Call> for Does {
    fn r#do(&self, call: &Call, order: Order) -> Result<Outcome, Status> {
        let running = Running::begin(&self.told);
        let outcome = match order.what() {
            What::Echo => echo(&order),
            What::Fail => return Err(failed()),
            What::Sleep => {
                co::sleep(Duration::from_millis(order.number.into()));
                echo(&order)
            }
            What::Panic => panic!("as asked, {} times", order.number),
            What::Dig => Outcome { number: dig(order.number), ..echo(&order) },
            What::Block => {
                thread::sleep(Duration::from_millis(order.number.into()));
                echo(&order)
            }
            What::Relay => {
                let behind = trial::SyncClient::new(self.behind()?.within(call), Here);
                behind.r#do(CallOptions::default(), &onward(&order))?
            }
            What::FanOut => {
                let behind = trial::Client(self.behind()?.within(call));
                let order_to = onward(&order);
                let calls = (0..order.number).map(|_| behind.r#do(CallOptions::default(), &order_to));
                sum(co::wait_all(calls))?
            }
            What::Wait => {
                co::wait(std::future::pending::<()>());
                echo(&order)
            }
        };
        running.1.set(true);
        Ok(outcome)
    }
}

impl trial::Server<Call> for Does {
    async fn r#do(&self, call: &Call, order: Order) -> Result<Outcome, Status> {
        let running = Running::begin(&self.told);
        let outcome = match order.what() {
            What::Echo => echo(&order),
            What::Fail => return Err(failed()),
            What::Sleep => {
                rt::sleep_ms(order.number.into()).await;
                echo(&order)
            }
            What::Relay => {
                let behind = trial::Client(self.behind()?.within(call));
                behind.r#do(CallOptions::default(), &onward(&order)).await?
            }
            What::FanOut => {
                let behind = trial::Client(self.behind()?.within(call));
                let order_to = onward(&order);
                let calls = (0..order.number).map(|_| behind.r#do(CallOptions::default(), &order_to));
                sum(co::all(calls).await)?
            }
            What::Wait => std::future::pending().await,
            what => return Err(Status::invalid(format!("{what:?} is for coroutines"))),
        };
        running.1.set(true);
        Ok(outcome)
    }
}

/// Takes some 200 bytes of stack for each step.
#[inline(never)]
fn dig(depth: u32) -> u32 {
    let frame = std::hint::black_box([depth; 32]);
    if depth == 0 { 0 } else { dig(depth - 1) + u32::from(std::hint::black_box(frame)[7] > 0) }
}

/// What a server counted until its end.
#[derive(Debug, Default)]
pub struct Report {
    pub blocked: Vec<Blocked>,
    pub panics: u64,
    pub refused: u64,
    /// Coroutines that had not ended.
    pub in_use: usize,
}

/// A server on a thread of its own.
pub struct Served {
    pub addr: SocketAddr,
    pub told: Arc<Told>,
    stop: Waker,
    listener: Listener,
    thread: Executor<Report>,
}

const GRACE_MS: u64 = 5_000;

impl Served {
    pub fn start(kind: Kind) -> Self {
        Self::with(kind, PoolConfig::default(), None)
    }

    pub fn with(kind: Kind, config: PoolConfig, behind: Option<SocketAddr>) -> Self {
        let (told, stats) = (Arc::new(Told::default()), Arc::new(Stats::of(METHODS)));
        let mut listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
        let (addr, accepted) = (listener.addr(), listener.start().expect("a thread"));
        let (stop, theirs) = (Waker::default(), (told.clone(), stats));
        let until = stop.clone();
        let thread = Executor::start("server", None, move || async move {
            let (told, stats) = theirs;
            let (clock, pool) = (Clock::start(), Pool::new(&config).expect("a pool"));
            let does = Does { told, behind: behind.map(|addr| Client::new(addr, clock)) };
            match kind {
                Kind::Async => serve(trial::AsyncService(does), stats, clock, accepted, until).await,
                Kind::Sync => {
                    let service = trial::SyncService::new(does, pool.clone());
                    serve(service, stats, clock, accepted, until).await;
                }
            }
            // What was told that its call is over has its turn to end.
            while pool.in_use() > 0 {
                rt::sleep_ms(1).await;
            }
            Report {
                blocked: pool.blocked(),
                panics: pool.panics(),
                refused: pool.refused(),
                in_use: pool.in_use(),
            }
        });
        Self { addr, told, stop, listener, thread: thread.expect("an executor") }
    }

    /// Stops it in an orderly way.
    pub fn stop(self) -> Report {
        self.listener.close();
        self.stop.raise();
        self.thread.join().expect("no panic in the server")
    }
}

async fn serve<D: Dispatch<Call> + 'static>(
    service: D,
    stats: Arc<Stats>,
    clock: Clock,
    accepted: Inbox<TcpStream>,
    until: Waker,
) {
    let server = Server::new(Host(service), stats, clock);
    server.serve(accepted, &until).await;
    server.close(GRACE_MS).await;
}

/// Runs what needs a loop on one of its own.
pub fn on_loop<T: Send + 'static, F: Future<Output = T> + 'static>(
    body: impl FnOnce() -> F + Send + 'static,
) -> T {
    Executor::start("caller", None, body).expect("an executor").join().expect("no panic")
}

/// Runs what is written for a coroutine on one.
pub fn on_coroutine<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    on_loop(|| async move {
        let pool = Pool::new(&PoolConfig::default()).expect("a pool");
        pool.spawn(body).expect("a stack").await.expect("no panic")
    })
}

pub fn order(what: What, number: u32) -> Order {
    Order { what: what.into(), number, payload: "payload".into() }
}

/// One call over a connection of its own.
pub fn call(addr: SocketAddr, order: Order, deadline_ms: u32) -> Result<Outcome, Status> {
    on_loop(move || async move {
        let client = trial::Client(Client::new(addr, Clock::start()));
        client.r#do(CallOptions { deadline_ms, ..CallOptions::default() }, &order).await
    })
}
