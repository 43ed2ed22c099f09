//! A whole backend on threads of its own, inside any process: what `moorgate-backend serve` runs and what
//! `moorgate up` starts beside the gateway.

use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::{io, net};

use proto_wire::services::FILE_DESCRIPTOR_SET;
use proto_wire_token::IssuerKey;
use thiserror::Error;

use crate::admin::{Admin, AdminError, Announce, Shown};
use crate::clock::Clock;
use crate::config::{BackendConfig, ConfigError};
use crate::driver::Driver;
use crate::keys::{self, KeysError};
use crate::logic::services::{Accounts, AccountsConfig, Passwords, Services};
use crate::logic::{Core, CoreConfig};
use crate::offline::restore::UNFINISHED;
use crate::rpc::Server;
use crate::rpc::standing::{Facts, Standing};
use crate::rpc::udp::UdpServer;
use crate::rpc::unix::Unix;
use crate::rt::{self, Executor, Inbox, Listener, RuntimeError, Waker};
use crate::stats::Stats;
use crate::storage::embedded::{Embedded as Store, OpenError, Options};
use crate::storage::{ChangeLog as _, Wake};

/// Why a backend does not start. The text says what to do.
#[derive(Debug, Error)]
pub enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Store(#[from] OpenError),
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error("cannot listen on {addr}: {cause}; {}", what_to_do(cause, addr))]
    Listen { addr: SocketAddr, cause: io::Error },
    #[error(
        "cannot take calls there: {0}; the path must be free and its directory writable, the port free for UDP too"
    )]
    Door(io::Error),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error("the kernel gives no random bytes: {0}")]
    Random(getrandom::Error),
    #[error(
        "{} is there: a restore into this data directory was killed or still runs; do it again before the backend starts", .0.display()
    )]
    Unrestored(PathBuf),
    #[error("a thread does not start: {0}; check `ulimit -u`")]
    Thread(#[from] io::Error),
    #[error("the event loop ended while it started; what it said before tells why")]
    Ended,
}

fn what_to_do(error: &io::Error, addr: &SocketAddr) -> String {
    let port = addr.port();
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!(
                "`ss -ltnp 'sport = :{port}'` shows who has the port; stop that, or give another --listen"
            )
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need a privilege; give another --listen".to_owned()
        }
        _ => "give an address of this machine (`ip addr` lists them)".to_owned(),
    }
}

/// What is served here, by full name.
const SERVED: [&str; 7] = [
    "moorgate.Account",
    "moorgate.Messages",
    "moorgate.Sync",
    "moorgate.Presence",
    "moorgate.Echo",
    "moorgate.Contacts",
    "moorgate.Moments",
];

type Backend = Rc<Standing<Services>>;

/// A running backend.
pub struct Embedded {
    /// Where gateways connect.
    pub listen: SocketAddr,
    pub admin: Option<SocketAddr>,
    stop: Waker,
    executor: Executor<()>,
    admin_thread: Option<Admin>,
}

/// What the loop's thread is given.
struct Parts {
    config: BackendConfig,
    core: CoreConfig,
    store: Store,
    store_wake: Waker,
    issuer: IssuerKey,
    accepted: Inbox<net::TcpStream>,
    announced: Inbox<Announce>,
    listener: Listener,
    stats: Arc<Stats>,
    clock: Clock,
    stop: Waker,
}

/// Starts a backend. It accepts, and all that it had accepted before it was last ended is under way again,
/// when this returns.
pub fn start(config: BackendConfig) -> Result<Embedded, StartError> {
    config.check()?;
    let unfinished = config.data.join(UNFINISHED);
    if unfinished.exists() {
        return Err(StartError::Unrestored(unfinished));
    }
    let stats = Arc::new(Stats::default());
    let mut listener = bind(config.listen)?;
    let store_wake = Waker::default();
    let (store, opened) = Store::open(
        &Options {
            partitions: config.store.partitions,
            memtable_bytes: config.store.memtable_bytes,
            cache_bytes: config.store.cache_bytes,
            reserve_bytes: config.store.reserve_bytes,
            ..Options::new(config.data.join("store"))
        },
        |_| wake(&store_wake),
    )?;
    let offset_ms = config.clock_offset_s.saturating_mul(1000);
    let (clock, behind) = Clock::start_after(opened.written_unix_ms, offset_ms);
    for line in opened.cut.into_iter().chain(behind) {
        tracing::warn!("{line}");
    }
    let issuer = keys::open(&config.data.join("keys"))?;
    let core = CoreConfig {
        hot_bytes: config.hot_bytes,
        max_users: config.max_users,
        log_epoch: opened.log_epoch,
        owner_epoch: opened.owner_epoch,
        horizon_rows: config.retention.rows,
        horizon_age_ms: config.retention.age_ms(),
        keep_ms: config.retention.keep_ms(),
        ..CoreConfig::new(random()?, random()?, store.partitions())
    };
    let shown = Shown { stats: stats.clone(), clock, listen: listener.addr(), backend: core.backend };
    let (announce, announced) = rt::inbox();
    let mut admin_thread = config.admin.map(|addr| Admin::start(addr, shown, announce)).transpose()?;
    let (listen, admin) = (listener.addr(), admin_thread.as_ref().map(Admin::addr));
    let stop = Waker::default();
    let accepted = listener.start()?;
    let (ready, is_ready) = channel();
    let core_index = config.cores.first().copied();
    let parts = Parts {
        config,
        core,
        store,
        store_wake,
        issuer,
        accepted,
        announced,
        listener,
        stats,
        clock,
        stop: stop.clone(),
    };
    let executor = Executor::start("logic", core_index, move || run(parts, ready))?;
    match is_ready.recv() {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            executor.join()?;
            return Err(error);
        }
        // The loop did not even begin: its end says why.
        Err(_) => {
            executor.join()?;
            return Err(StartError::Ended);
        }
    }
    if let Some(admin) = &mut admin_thread {
        admin.set_ready();
    }
    Ok(Embedded { listen, admin, stop, executor, admin_thread })
}

impl Embedded {
    /// Asks callers to go, finishes what is in flight, commits, and ends all threads.
    pub fn stop(self) -> Result<(), RuntimeError> {
        self.stop.raise();
        let ended = self.executor.join();
        if let Some(admin) = self.admin_thread {
            admin.stop();
        }
        ended
    }
}

fn bind(addr: SocketAddr) -> Result<Listener, StartError> {
    Listener::bind(addr).map_err(|cause| StartError::Listen { addr, cause })
}

fn wake(waker: &Waker) -> Wake {
    let waker = waker.clone();
    Box::new(move || waker.raise())
}

fn random() -> Result<u64, StartError> {
    getrandom::u64().map(|random| random.max(1)).map_err(StartError::Random)
}

/// The life of the loop's thread.
async fn run(parts: Parts, ready: Sender<Result<(), StartError>>) {
    let Parts { config, core, store, store_wake, issuer, accepted, announced, listener, stats, clock, stop } =
        parts;
    let passwords = match Passwords::start(config.password_workers, clock, stats.clone()) {
        Ok(passwords) => passwords,
        Err(error) => {
            listener.close();
            // The receiver waits for exactly this.
            let _ = ready.send(Err(error.into()));
            return;
        }
    };
    let driver = Driver::new(Core::new(core), Box::new(store), store_wake, clock, stats.clone());
    rt::spawn(driver.clone().run());
    while !driver.is_ready() {
        driver.handle_timeout();
        rt::sleep_ms(1).await;
    }
    let accounts = Accounts::new(AccountsConfig { issuer, token_ttl_s: config.token_ttl_s }, passwords);
    let facts = Facts::new(clock);
    let services = Services::new(driver.clone(), accounts);
    let standing = Rc::new(Standing::new(services, &SERVED, FILE_DESCRIPTOR_SET, facts.clone()));
    let server = Server::new(standing.clone(), stats.clone(), clock);
    let doors = match Doors::open(&config, listener.addr(), standing, &server, &facts, stats, clock) {
        Ok(doors) => doors,
        Err(error) => {
            listener.close();
            driver.close();
            // The receiver waits for exactly this.
            let _ = ready.send(Err(StartError::Door(error)));
            return;
        }
    };
    rt::spawn(adopt(server.clone(), accepted));
    rt::spawn(announce(driver.clone(), announced));
    // The receiver is gone only when its thread has panicked.
    let _ = ready.send(Ok(()));

    serve(&driver, &server, &stop).await;
    listener.close();
    doors.close();
    facts.end_soon();
    drain(&driver, &server, clock, config.grace_ms).await;
    driver.close();
    // Lets the tasks see that it is over, so that they let go of what they hold.
    rt::sleep_ms(1).await;
}

/// Where callers come in beside TCP.
struct Doors {
    unix: Option<Unix>,
    udp: Option<Rc<UdpServer<Standing<Services>>>>,
}

impl Doors {
    fn open(
        config: &BackendConfig,
        listen: SocketAddr,
        service: Backend,
        server: &Rc<Server<Backend>>,
        facts: &Facts,
        stats: Arc<Stats>,
        clock: Clock,
    ) -> io::Result<Self> {
        let told =
            |what: String| move |error: io::Error| io::Error::new(error.kind(), format!("{what}: {error}"));
        let mut unix = None;
        if let Some(path) = &config.unix {
            let mut socket = Unix::bind(path).map_err(told(format!("--unix {}", path.display())))?;
            rt::spawn(adopt_unix(server.clone(), socket.start()?));
            unix = Some(socket);
        }
        let udp =
            config.udp.then(|| UdpServer::bind(listen, service, facts.clone(), stats, clock)).transpose();
        let udp = udp.map_err(told(format!("--udp on {listen}")))?;
        Ok(Self { unix, udp })
    }

    fn close(self) {
        self.unix.into_iter().for_each(Unix::close);
        self.udp.iter().for_each(|udp| udp.close());
    }
}

async fn adopt_unix(server: Rc<Server<Backend>>, mut accepted: Inbox<UnixStream>) {
    while let Some(streams) = accepted.take().await {
        streams.into_iter().for_each(|stream| server.adopt_unix(stream));
    }
}

async fn adopt(server: Rc<Server<Backend>>, mut accepted: Inbox<net::TcpStream>) {
    while let Some(streams) = accepted.take().await {
        streams.into_iter().for_each(|stream| server.adopt(stream));
    }
}

/// Sends out what the admin port was given for all phones.
async fn announce(driver: Rc<Driver>, mut announced: Inbox<Announce>) {
    while let Some(notices) = announced.take().await {
        for Announce { notice, gateways } in notices {
            // Whoever asked may have gone.
            let _ = gateways.send(driver.broadcast(&notice));
        }
    }
}

/// Runs the timers until a stop is asked for.
async fn serve(driver: &Rc<Driver>, server: &Rc<Server<Backend>>, stop: &Waker) {
    loop {
        let timeout = async {
            server.timeout(driver.poll_timeout()).await;
            false
        };
        let stopped = async {
            stop.wait().await;
            true
        };
        if futures_lite::future::or(stopped, timeout).await {
            return;
        }
        driver.handle_timeout();
        server.handle_timeout();
    }
}

/// Lets callers go and finishes what is in flight, for `grace_ms` at most.
async fn drain(driver: &Rc<Driver>, server: &Rc<Server<Backend>>, clock: Clock, grace_ms: u64) {
    let until_ms = clock.now_ms() + grace_ms;
    server.go_away();
    rt::sleep_ms(5).await;
    while clock.now_ms() < until_ms && !server.is_idle() {
        driver.handle_timeout();
        server.handle_timeout();
        rt::sleep_ms(5).await;
    }
    server.close_all();
    while clock.now_ms() < until_ms && server.connections() > 0 {
        rt::sleep_ms(1).await;
    }
}
