//! Backends and servers to test, each gone with its value.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;

use backend_stub::clock::Clock;
use backend_stub::config::BackendConfig;
use backend_stub::embedded::{self, Embedded};
use backend_stub::rpc::{Call, Connection, Server, Service};
use backend_stub::rt::{self, Executor, Listener, Signal, Waker};
use backend_stub::stats::Stats;
use bytes::Bytes;
use proto_wire::status::{Code, Status};

/// A directory that is removed at the end.
pub struct Dir(pub PathBuf);

impl Dir {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("moorgate-backend-{}-{number}", std::process::id()));
        // Left behind by a test that was killed, under a process id that came again.
        let _ = std::fs::remove_dir_all(&dir);
        Self(dir)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A configuration on free ports.
pub fn config(dir: &Dir) -> BackendConfig {
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    BackendConfig { listen: free, admin: Some(free), data: dir.0.clone(), ..BackendConfig::default() }
}

/// A running backend with its own data.
pub struct Backend {
    pub running: Option<Embedded>,
    pub dir: Dir,
}

impl Backend {
    pub fn start() -> Self {
        Self::start_with(|_| {})
    }

    pub fn start_with(change: impl FnOnce(&mut BackendConfig)) -> Self {
        let dir = Dir::new();
        let mut config = config(&dir);
        change(&mut config);
        Self { running: Some(embedded::start(config).expect("it starts")), dir }
    }

    pub fn addr(&self) -> SocketAddr {
        self.running.as_ref().expect("it runs").listen
    }

    pub fn admin(&self) -> SocketAddr {
        self.running.as_ref().expect("it runs").admin.expect("an admin port")
    }

    pub fn stop(&mut self) {
        self.running.take().expect("it runs").stop().expect("a clean end");
    }

    pub fn restart(&mut self) {
        self.stop();
        self.running = Some(embedded::start(config(&self.dir)).expect("it starts again"));
    }

    /// Waits until a metric has this value: a peer may see its end before it is counted.
    pub fn reaches(&self, name: &str, value: u64) {
        let seen: Vec<u64> = (0..1000).map(|_| self.metric(name)).take_while(|&now| now != value).collect();
        assert!(seen.len() < 1000, "{name} is not {value}: {}", http(self.admin(), "/metrics").1);
    }

    /// The value of a line of /metrics that begins with `name`.
    pub fn metric(&self, name: &str) -> u64 {
        let (_, text) = http(self.admin(), "/metrics");
        let line =
            text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        let line = line.unwrap_or_else(|| panic!("no {name} in {text}"));
        line.rsplit_once(' ').and_then(|(_, value)| value.parse().ok()).expect("a number")
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            let _ = running.stop();
        }
    }
}

/// Status line and body of a page.
pub fn http(addr: SocketAddr, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(addr).expect("the admin port listens");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("it reads");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("a page");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    (head.lines().next().expect("a status").to_owned(), body.to_owned())
}

/// Methods of the service below: one gives back what it got, one answers when it is let go, one lets all
/// those go.
pub const ECHO: u16 = 0x0601;
pub const PARK: u16 = 0x0602;
pub const RELEASE: u16 = 0x0603;

#[derive(Default)]
struct Parking {
    parked: Cell<u64>,
    signals: std::cell::RefCell<Vec<Signal>>,
}

impl Service for Parking {
    async fn serve(&self, _: &Rc<Call>, method: u16, body: Bytes) -> Result<Bytes, Status> {
        match method {
            ECHO => Ok(body),
            PARK => {
                let signal = Signal::default();
                self.signals.borrow_mut().push(signal.clone());
                self.parked.set(self.parked.get() + 1);
                signal.wait().await;
                Ok(Bytes::from_static(b"let go"))
            }
            RELEASE => {
                self.signals.borrow_mut().drain(..).for_each(|signal| signal.raise());
                Ok(Bytes::copy_from_slice(&self.parked.take().to_le_bytes()))
            }
            _ => Err(Status::new(Code::UnknownMethod, "no such method")),
        }
    }

    fn ended(&self, _: u64, _: Result<Bytes, Status>) {}

    fn closed(&self, _: &Rc<Connection>) {}
}

/// The RPC server alone, with a service whose calls take as long as a test wants.
pub struct Bare {
    pub addr: SocketAddr,
    stop: Waker,
    executor: Option<Executor<()>>,
}

impl Bare {
    pub fn start() -> Self {
        let mut listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let mut accepted = listener.start().expect("a thread");
        let (addr, stop) = (listener.addr(), Waker::default());
        let stopped = stop.clone();
        let (ready, is_ready) = channel();
        let executor = Executor::start("bare", None, move || async move {
            let server = Server::new(Parking::default(), Arc::new(Stats::default()), Clock::start());
            let (adopting, ticking) = (server.clone(), server.clone());
            rt::spawn(async move {
                while let Some(streams) = accepted.take().await {
                    streams.into_iter().for_each(|stream| adopting.adopt(stream));
                }
            });
            rt::spawn(async move {
                loop {
                    ticking.timeout(u64::MAX).await;
                    ticking.handle_timeout();
                }
            });
            ready.send(()).expect("the test waits");
            stopped.wait().await;
            listener.close();
            server.close_all();
            rt::sleep_ms(1).await;
        })
        .expect("an executor");
        is_ready.recv().expect("it starts");
        Self { addr, stop, executor: Some(executor) }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.stop.raise();
        if let Some(executor) = self.executor.take() {
            let _ = executor.join();
        }
    }
}
