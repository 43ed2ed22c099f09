//! Callees that count what they run, and callers on a loop of their own.

use std::fs::{File, OpenOptions};
use std::future::Future;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use backend_stub::clock::Clock;
use backend_stub::rpc::client::{Client, ClientConfig, Transport};
use backend_stub::rpc::standing::{Facts, Standing};
use backend_stub::rpc::udp::UdpServer;
use backend_stub::rpc::unix::Unix;
use backend_stub::rpc::{Call, Server, Service};
use backend_stub::rt::{self, Executor, Listener, Waker};
use backend_stub::stats::Stats;
use bytes::Bytes;
use proto_wire::pb;
use proto_wire::rpc::method::{self, Access, Answer, CallOptions, Channel as _, Method};
use proto_wire::services::{self, echo};
use proto_wire::status::{Code, Status};

const fn made(id: u16, name: &'static str, idempotent: bool) -> Method {
    let access = Access::Internal;
    Method {
        id,
        service: "Trial",
        name,
        deadline_ms: 10_000,
        priority: 3,
        idempotent,
        access,
        one_way: false,
    }
}

/// Give back what they got.
pub const ECHO: Method = made(0x0701, "Echo", true);
pub const ONCE: Method = made(0x0702, "Once", false);
/// Wait until nobody wants the answer.
pub const WAIT: Method = made(0x0703, "Wait", true);
pub const WAIT_ONCE: Method = made(0x0704, "WaitOnce", false);
/// Ends with a status.
pub const FAIL: Method = made(0x0705, "Fail", false);
/// Replies with as many bytes as the request says.
pub const LARGE: Method = made(0x0706, "Large", false);
/// No reply.
pub const TELL: Method = Method { one_way: true, ..made(0x0707, "Tell", false) };
/// Sheds every call.
pub const SHED: Method = made(0x0708, "Shed", false);
/// What is left of the call's time, in ms; asked of the callee behind, when there is one.
pub const LEFT: Method = made(0x0709, "Left", true);
/// What nobody serves.
pub const NOBODY: Method = made(0x07ff, "Nobody", true);

/// What a callee counts.
#[derive(Debug, Default)]
pub struct Told {
    /// Calls by the low byte of their method.
    runs: [AtomicU64; 16],
    /// Handlers that were ended while they waited.
    pub unwound: AtomicU64,
    pub udp_repeated: AtomicU64,
}

impl Told {
    pub fn runs(&self, method: &Method) -> u64 {
        self.runs[usize::from(method.id & 0xf)].load(Ordering::Acquire)
    }
}

/// Waits until something is so; a test that waits for ever is ended by its runner.
pub fn until(mut so: impl FnMut() -> bool) {
    while !so() {
        thread::sleep(Duration::from_millis(1));
    }
}

struct Trial {
    told: Arc<Told>,
    clock: Clock,
    behind: Option<Client>,
    /// A line for each call, which outlives a process that is killed.
    log: Option<File>,
}

impl Service for Trial {
    async fn serve(&self, call: &Rc<Call>, method: u16, body: Bytes) -> Result<Bytes, Status> {
        if method == echo::SAY.id {
            let request: pb::EchoRequest = method::decode_request(&echo::SAY, body)?;
            return Ok(method::encode(&pb::EchoReply { payload: request.payload }));
        }
        self.told.runs[usize::from(method & 0xf)].fetch_add(1, Ordering::AcqRel);
        if let Some(mut log) = self.log.as_ref() {
            log.write_all(format!("{method:x}\n").as_bytes()).expect("a file");
        }
        match method {
            _ if method == ECHO.id || method == ONCE.id || method == TELL.id => Ok(body),
            _ if method == WAIT.id || method == WAIT_ONCE.id => {
                if call.while_wanted(std::future::pending::<()>()).await.is_none() {
                    self.told.unwound.fetch_add(1, Ordering::AcqRel);
                }
                Err(Status::new(Code::Cancelled, "nobody waits"))
            }
            _ if method == FAIL.id => {
                Err(Status { retry_after_ms: 250, ..Status::new(Code::Conflict, "as asked") })
            }
            _ if method == LARGE.id => {
                let bytes = u32::from_le_bytes(body[..].try_into().expect("four bytes"));
                Ok(vec![b'x'; bytes as usize].into())
            }
            _ if method == SHED.id => Err(Status::new(Code::Overloaded, "shed")),
            _ if method == LEFT.id => match &self.behind {
                Some(behind) => {
                    rt::sleep_ms(50).await;
                    let asked = behind.within(call).call(&LEFT, CallOptions::default(), Bytes::new()).await?;
                    Ok(asked.body)
                }
                None => {
                    let left_ms = call.deadline_at_ms.saturating_sub(self.clock.now_ms());
                    Ok(Bytes::copy_from_slice(&left_ms.to_le_bytes()))
                }
            },
            _ => Err(method::unknown("Trial", method)),
        }
    }
}

/// Where a callee listens and what it is made of.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// 0 takes a free one.
    pub port: u16,
    pub unix: Option<PathBuf>,
    pub log: Option<PathBuf>,
    pub behind: Option<SocketAddr>,
}

/// A callee on a thread of its own: TCP, UDP on the same port, and a Unix socket.
pub struct Callee {
    pub addr: SocketAddr,
    pub unix: PathBuf,
    pub told: Arc<Told>,
    stop: Waker,
    executor: Option<Executor<()>>,
}

impl Callee {
    pub fn start() -> Self {
        Self::with(Plan::default())
    }

    pub fn with(plan: Plan) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("moorgate-calls-{}-{number}.sock", std::process::id()));
        let path = plan.unix.clone().unwrap_or(path);
        let (told, stop) = (Arc::new(Told::default()), Waker::default());
        let (sender, receiver) = channel();
        let theirs = (told.clone(), stop.clone(), path.clone());
        let executor = Executor::start("callee", None, move || async move {
            let (told, stop, path) = theirs;
            let clock = Clock::start();
            let facts = Facts::new(clock);
            let log =
                plan.log.map(|path| OpenOptions::new().append(true).create(true).open(path).expect("a file"));
            let behind = plan.behind.map(|addr| Client::new(addr, clock));
            let trial = Trial { told: told.clone(), clock, behind, log };
            let standing =
                Standing::new(trial, &["moorgate.Echo"], services::FILE_DESCRIPTOR_SET, facts.clone());
            let (service, stats) = (Rc::new(standing), Arc::new(Stats::default()));
            let (mut listener, udp) = loop {
                let listener =
                    Listener::bind(SocketAddr::from(([127, 0, 0, 1], plan.port))).expect("a free port");
                let addr = listener.addr();
                match UdpServer::bind(addr, service.clone(), facts.clone(), stats.clone(), clock) {
                    Ok(udp) => break (listener, udp),
                    Err(error) => assert!(plan.port == 0, "{error}"),
                }
            };
            let server = Server::new(service, stats, clock);
            let (accepted, mut unix) =
                (listener.start().expect("a thread"), Unix::bind(&path).expect("a path"));
            let (mut from_unix, adopting) = (unix.start().expect("a thread"), server.clone());
            rt::spawn(async move {
                while let Some(streams) = from_unix.take().await {
                    streams.into_iter().for_each(|stream| adopting.adopt_unix(stream));
                }
            });
            sender.send(listener.addr()).expect("the test waits");
            server.serve(accepted, &stop).await;
            told.udp_repeated.store(udp.repeated(), Ordering::Release);
            udp.close();
            unix.close();
            listener.close();
            server.close(1000).await;
        })
        .expect("an executor");
        let addr = receiver.recv().expect("it starts");
        Self { addr, unix: path, told, stop, executor: Some(executor) }
    }

    pub fn stop(&mut self) {
        self.stop.raise();
        if let Some(executor) = self.executor.take() {
            let _ = executor.join();
        }
    }
}

impl Drop for Callee {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A way to a callee.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Long,
    Short,
    Unix,
    UnixShort,
    Udp,
}

pub const WAYS: [Way; 5] = [Way::Long, Way::Short, Way::Unix, Way::UnixShort, Way::Udp];

impl Way {
    pub fn to(self, addr: SocketAddr, unix: &std::path::Path) -> ClientConfig {
        let endpoint = match self {
            Way::Unix | Way::UnixShort => format!("unix:{}", unix.display()),
            Way::Long | Way::Short | Way::Udp => addr.to_string(),
        };
        let transport = match self {
            Way::Long | Way::Unix => Transport::Long,
            Way::Short | Way::UnixShort => Transport::Short,
            Way::Udp => Transport::Udp,
        };
        ClientConfig { endpoints: vec![endpoint], transport, ..ClientConfig::default() }
    }

    pub fn to_callee(self, callee: &Callee) -> ClientConfig {
        self.to(callee.addr, &callee.unix)
    }
}

/// Runs what needs a loop on one of its own.
pub fn on_loop<T: Send + 'static, F: Future<Output = T> + 'static>(
    body: impl FnOnce(Clock) -> F + Send + 'static,
) -> T {
    let run = || async move { body(Clock::start()).await };
    Executor::start("caller", None, run).expect("an executor").join().expect("no panic")
}

/// Runs `body` with a client.
pub fn with_client<T: Send + 'static, F: Future<Output = T> + 'static>(
    config: ClientConfig,
    body: impl FnOnce(Client) -> F + Send + 'static,
) -> T {
    on_loop(move |clock| {
        let client = Client::with(config, clock).expect("a configuration");
        async move { body(client).await }
    })
}

pub async fn call(client: &Client, method: &'static Method, body: &[u8]) -> Result<Bytes, Status> {
    call_within(client, method, body, 0).await
}

pub async fn call_within(
    client: &Client,
    method: &'static Method,
    body: &[u8],
    deadline_ms: u32,
) -> Result<Bytes, Status> {
    let options = CallOptions { deadline_ms, ..CallOptions::default() };
    client.call(method, options, Bytes::copy_from_slice(body)).await.map(|Answer { body, .. }| body)
}

pub fn code(result: &Result<Bytes, Status>) -> Code {
    result.as_ref().map_or_else(|status| status.code, |_| Code::Ok)
}

/// Many calls at once; their ends in order.
pub async fn all<F: Future + 'static>(calls: Vec<F>) -> Vec<F::Output>
where
    F::Output: 'static,
{
    let ends = Rc::new(std::cell::RefCell::new(calls.iter().map(|_| None).collect::<Vec<_>>()));
    for (at, call) in calls.into_iter().enumerate() {
        let ends = ends.clone();
        rt::spawn(async move {
            let end = call.await;
            ends.borrow_mut()[at] = Some(end);
        });
    }
    while ends.borrow().iter().any(Option::is_none) {
        rt::sleep_ms(1).await;
    }
    ends.take().into_iter().flatten().collect()
}
