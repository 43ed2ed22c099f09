//! The two servers of a run: started by the bench, or found where they run; and what they use.

mod http;
mod plan;
mod process;
mod told;
mod usage;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{env, fs, io, thread};

use proto_wire_token::{IssuerKey, TicketKeys};

use crate::limits;
use process::{Launch, Process};

pub use plan::{Cores, StormCores};
pub use process::ProcessError;
pub use told::{GatewayTold, Page, Reading};
pub use usage::{Meters, Usage};

#[derive(Debug, thiserror::Error)]
pub enum ServersError {
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error("cannot make a directory for the servers in {}: {cause}", dir.display())]
    Directory { dir: PathBuf, cause: io::Error },
    #[error("no free port on loopback below the kernel's own range")]
    NoPort,
    #[error(
        "cannot read the issuer's key {}: {cause} (with `moorgate up` it is keys/issuer.pem of the data \
         directory; say --issuer-key FILE)",
        path.display()
    )]
    Key { path: PathBuf, cause: String },
    #[error(
        "{target} cannot be reached: {cause} (start one: cargo run --release -p gateway -- up; or say --spawn)"
    )]
    Unreachable { target: SocketAddr, cause: io::Error },
    #[error("cannot restart {0}: it was not started by the bench (say --spawn)")]
    NotOurs(&'static str),
}

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Gateway,
    Backend,
}

/// The servers of a run.
#[derive(Debug)]
pub struct Servers {
    pub target: SocketAddr,
    pub issuer: Arc<IssuerKey>,
    /// Where `/status` tells the process of a server that the bench did not start.
    admins: [Option<SocketAddr>; 2],
    spawned: Option<Spawned>,
    /// A second gateway of the same backend, where one was asked for.
    pub second: Option<SocketAddr>,
    /// `moorgate up` runs both in one process: what is read of the gateway is of both.
    pub in_one_process: bool,
    pub meters: [Meters; 2],
}

/// Servers that live as long as the run, in a directory of their own.
#[derive(Debug)]
struct Spawned {
    launches: [Launch; 2],
    /// Dropped in this order: the gateways first.
    processes: [Process; 2],
    _second: Option<Process>,
    _directory: Directory,
}

/// What `--spawn` is told.
#[derive(Debug, Clone)]
pub struct SpawnOptions {
    pub max_connections: u32,
    pub cores: Cores,
    /// Cores of a second gateway; none: there is none.
    pub second: Option<Vec<usize>>,
}

impl Servers {
    /// Starts both, from beside this program, and waits until they are ready.
    pub fn spawn(options: &SpawnOptions) -> Result<Servers, ServersError> {
        let directory = Directory::make()?;
        let data = directory.0.join("data");
        let mut ports = FreePorts::new();
        let [listen, admin, rpc, rpc_admin] = [ports.next()?, ports.next()?, ports.next()?, ports.next()?];
        let backend = Launch::beside("moorgate-backend", "backend-stub", &directory.0)?
            .args(["serve", "--listen"])
            .arg(rpc.to_string())
            .arg("--admin")
            .arg(rpc_admin.to_string())
            .arg("--data")
            .arg(&data)
            .cores(&options.cores.backend);
        let ticket_key = directory.0.join("ticket.key");
        let write = fs::write(&ticket_key, TicketKeys::to_text(&rand::random()));
        write.map_err(|cause| ServersError::Directory { dir: directory.0.clone(), cause })?;
        let gateway_at = |log: &str, listen: SocketAddr, admin: SocketAddr, cores: &[usize]| {
            let launch = Launch::beside("moorgate", "gateway", &directory.0)?
                .log_as(log)
                .args(["serve", "--listen"])
                .arg(listen.to_string())
                .arg("--admin")
                .arg(admin.to_string())
                .arg("--backend")
                .arg(rpc.to_string())
                .arg("--verify-key")
                .arg(data.join("keys/verify.pem"))
                .arg("--ticket-key")
                .arg(&ticket_key)
                .arg("--max-connections")
                .arg(options.max_connections.to_string())
                .arg("--no-address-limits")
                .cores(cores);
            Ok::<_, ServersError>(launch)
        };
        let gateway = gateway_at("moorgate", listen, admin, &options.cores.gateway)?;
        let backend_runs = backend.start_ready()?;
        let gateway_runs = gateway.start_ready()?;
        let mut second = None;
        let mut second_runs = None;
        if let Some(cores) = &options.second {
            let (at, admin) = (ports.next()?, ports.next()?);
            second_runs = Some(gateway_at("moorgate-second", at, admin, cores)?.start_ready()?);
            second = Some(at);
        }
        let issuer = read_issuer(&data.join("keys/issuer.pem"))?;
        let meters = [Meters::of(gateway_runs.pid()), Meters::of(backend_runs.pid())];
        let spawned = Spawned {
            launches: [gateway, backend],
            processes: [gateway_runs, backend_runs],
            _second: second_runs,
            _directory: directory,
        };
        Ok(Servers {
            target: listen,
            issuer,
            admins: [Some(admin), Some(rpc_admin)],
            spawned: Some(spawned),
            second,
            in_one_process: false,
            meters,
        })
    }

    /// Finds those that run already.
    pub fn find(
        target: SocketAddr,
        issuer: &Path,
        admins: [Option<SocketAddr>; 2],
    ) -> Result<Servers, ServersError> {
        let within = Duration::from_millis(limits::HTTP_WITHIN_MS);
        std::net::TcpStream::connect_timeout(&target, within)
            .map_err(|cause| ServersError::Unreachable { target, cause })?;
        let issuer = read_issuer(issuer)?;
        let pids = admins.map(|admin| http::status_pid(admin?));
        let in_one_process = pids[0].is_some() && pids[0] == pids[1];
        let backend = pids[1].filter(|_| !in_one_process);
        let meters = [Meters::maybe(pids[0]), Meters::maybe(backend)];
        Ok(Servers { target, issuer, admins, spawned: None, second: None, in_one_process, meters })
    }

    pub fn is_spawned(&self) -> bool {
        self.spawned.is_some()
    }

    /// SIGKILL, and the same again on the same ports.
    pub fn kill_and_restart(&mut self, part: Part) -> Result<(), ServersError> {
        let at = part as usize;
        let spawned = self.spawned.as_mut().ok_or(ServersError::NotOurs(part.name()))?;
        self.meters[at].before_kill();
        spawned.processes[at].kill();
        spawned.processes[at] = spawned.launches[at].start_ready()?;
        self.meters[at].after_restart(spawned.processes[at].pid());
        Ok(())
    }

    /// Connections that the gateway says it has.
    pub fn connections(&self) -> Option<u64> {
        let status = http::get(self.admin(Part::Gateway)?, "/status").ok()?;
        serde_json::from_str::<serde_json::Value>(&status).ok()?["connections"].as_u64()
    }

    /// A metric's sum over all series whose line has `label` in it.
    pub fn metric(&self, part: Part, name: &str, label: &str) -> Option<u64> {
        Some(self.page(part)?.sum(name, label).unwrap_or(0.0) as u64)
    }

    /// What a server says of itself now.
    pub fn page(&self, part: Part) -> Option<Page> {
        http::get(self.admin(part)?, "/metrics").ok().map(Page::new)
    }

    /// CPU time of a server in its present life.
    pub fn cpu_since_restart_us(&mut self, part: Part) -> Option<u64> {
        self.meters[part as usize].of_this_life_us()
    }

    pub(crate) fn post(&self, admin: SocketAddr, path: &str, body: &str) -> io::Result<String> {
        http::post(admin, path, body)
    }

    pub fn admin(&self, part: Part) -> Option<SocketAddr> {
        self.admins[part as usize]
    }

    /// Why a server that the bench started no longer runs.
    pub fn ended(&mut self) -> Option<String> {
        let spawned = self.spawned.as_mut()?;
        spawned.processes.iter_mut().find_map(Process::ended)
    }

    /// The end of what a server of ours has written.
    pub fn log_tail(&self, part: Part) -> Option<String> {
        Some(self.spawned.as_ref()?.processes[part as usize].log_tail())
    }
}

impl Part {
    pub fn name(self) -> &'static str {
        match self {
            Part::Gateway => "the gateway",
            Part::Backend => "the backend",
        }
    }
}

fn read_issuer(path: &Path) -> Result<Arc<IssuerKey>, ServersError> {
    let failed = |cause: String| ServersError::Key { path: path.to_owned(), cause };
    let text = fs::read_to_string(path).map_err(|cause| failed(cause.to_string()))?;
    IssuerKey::from_pem(&text).map(Arc::new).map_err(|cause| failed(cause.to_string()))
}

/// Removed with all in it when dropped.
#[derive(Debug)]
struct Directory(PathBuf);

impl Directory {
    fn make() -> Result<Self, ServersError> {
        let dir = env::temp_dir().join(format!("moorgate-bench-{}", std::process::id()));
        // Left by a process of the same number.
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).map_err(|cause| ServersError::Directory { dir: dir.clone(), cause })?;
        Ok(Self(dir))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if env::var_os("MOORGATE_KEEP").is_some_and(|value| value == "1") {
            eprintln!("kept: {}", self.0.display());
            return;
        }
        for _ in 0..3 {
            match fs::remove_dir_all(&self.0) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    thread::sleep(Duration::from_millis(100));
                }
                _ => return,
            }
        }
    }
}

/// Ports below the kernel's own range: one of that may be an outgoing connection's by the time of a restart.
struct FreePorts {
    next: u16,
    end: u16,
}

impl FreePorts {
    const LOWEST: u16 = 12_000;

    fn new() -> Self {
        let end = tuning::Host::read().local_ports.map_or(32_768, |range| range.low).max(Self::LOWEST + 100);
        let width = u32::from(end - Self::LOWEST);
        // Benches that run at the same time begin apart.
        let offset = std::process::id().wrapping_mul(137) % width;
        Self { next: Self::LOWEST + offset as u16, end }
    }

    fn next(&mut self) -> Result<SocketAddr, ServersError> {
        for _ in 0..2_000 {
            let port = self.next;
            self.next = if port + 1 >= self.end { Self::LOWEST } else { port + 1 };
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            // A gateway listens with SO_REUSEPORT; this does not, so it fails beside one.
            if TcpListener::bind(address).is_ok() {
                return Ok(address);
            }
        }
        Err(ServersError::NoPort)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_differ_and_lie_below_the_kernels_range() {
        let mut ports = FreePorts::new();
        let (one, two) = (ports.next().expect("a port"), ports.next().expect("another"));
        assert_ne!(one, two);
        let range = tuning::Host::read().local_ports;
        assert!(range.is_none_or(|range| !range.contains(one.port())), "{one}");
    }

    #[test]
    fn an_unreachable_target_is_told_with_what_to_do() {
        let free = FreePorts::new().next().expect("a port");
        let told =
            Servers::find(free, Path::new("none"), [None, None]).expect_err("nobody listens").to_string();
        assert!(told.contains("cannot be reached") && told.contains("-- up"), "{told}");
    }

    #[test]
    fn a_missing_key_is_told_with_the_flag() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let target = listener.local_addr().expect("its address");
        let told =
            Servers::find(target, Path::new("no-such.pem"), [None, None]).expect_err("no key").to_string();
        assert!(told.contains("no-such.pem") && told.contains("--issuer-key"), "{told}");
    }

    #[test]
    fn the_directory_goes_with_its_owner() {
        let directory = Directory::make().expect("a directory");
        let path = directory.0.clone();
        fs::write(path.join("file"), "x").expect("a file");
        drop(directory);
        assert!(!path.exists());
    }
}
