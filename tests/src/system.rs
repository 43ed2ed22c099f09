//! A gateway and a backend as processes, on ports that they keep across restarts.

use std::net::SocketAddr;
use std::path::PathBuf;

use proto_wire::phone::PhoneConfig;
use proto_wire_token::IssuerKey;

use crate::disk::{Disk, NoDisk};
use crate::fleet::{self, Fleet};
use crate::{Launch, NoPort, Port, Process, ProcessError, WorkDir, http_get, limits};

/// Why a system is not there.
#[derive(Debug, thiserror::Error)]
pub enum SystemError {
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error(transparent)]
    Port(#[from] NoPort),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Disk(#[from] NoDisk),
    #[error("{path}: {text}")]
    Key { path: PathBuf, text: String },
}

/// A server of one kind: how it is started, and the process while it runs.
pub struct Server {
    listen: Port,
    admin: Port,
    launch: Launch,
    pub process: Option<Process>,
}

/// One backend and its gateways over one data directory.
pub struct System {
    // Dropped in this order: processes before the directory they write to.
    pub gateways: Vec<Server>,
    pub backend: Server,
    /// Under the backend's data directory, where a test asked for it.
    pub disk: Option<Disk>,
    pub dir: WorkDir,
}

impl Server {
    fn new(name: &str, log: &str, dir: &WorkDir) -> Result<Self, SystemError> {
        let (listen, admin) = (Port::free()?, Port::free()?);
        let launch = Launch::of(name, dir)?
            .log_as(log)
            .arg("serve")
            .args(["--listen".to_owned(), listen.address().to_string()])
            .args(["--admin".to_owned(), admin.address().to_string()]);
        Ok(Self { listen, admin, launch, process: None })
    }

    pub fn address(&self) -> SocketAddr {
        self.listen.address()
    }

    pub fn admin(&self) -> SocketAddr {
        self.admin.address()
    }

    /// How it is started.
    pub fn launch(&self) -> &Launch {
        &self.launch
    }

    /// Another argument, for the starts that follow.
    pub fn add_arg(&mut self, arg: impl Into<std::ffi::OsString>) {
        self.launch = self.launch.clone().arg(arg);
    }

    /// A variable of its environment, for the starts that follow; the last value counts.
    pub fn set_env(&mut self, key: &str, value: impl Into<std::ffi::OsString>) {
        self.launch = self.launch.clone().env(key, value);
    }

    /// Starts it and waits until it accepts.
    pub fn start(&mut self) -> Result<(), ProcessError> {
        let mut process = self.launch.start()?;
        process.wait_for_line("ready ")?;
        self.process = Some(process);
        Ok(())
    }

    /// Waits until `/readyz` says yes.
    pub fn wait_until_ready(&mut self) -> Result<(), ProcessError> {
        let admin = self.admin();
        self.running().wait_for_ok(admin, "/readyz")
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> Result<(), ProcessError> {
        self.process.take().map_or(Ok(()), |mut process| process.kill())
    }

    /// The process; one that is asked for must have been started.
    pub fn running(&mut self) -> &mut Process {
        self.process.as_mut().expect("it was started")
    }

    /// The sum over all shards of what `/metrics` says of `name`, with those labels that are in `name`.
    pub fn metric(&self, name: &str) -> Option<u64> {
        let (_, text) = http_get(self.admin(), "/metrics").ok()?;
        let values = text.lines().filter_map(|line| {
            let (key, value) = line.rsplit_once(' ')?;
            let is_it = key == name || key.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'));
            is_it.then(|| value.parse::<f64>().ok()).flatten()
        });
        values.map(|value| value as u64).reduce(|sum, value| sum + value)
    }

    /// Waits until a metric is what it should be.
    pub fn wait_for_metric(&mut self, name: &str, is_it: impl Fn(u64) -> bool) -> Result<u64, ProcessError> {
        let mut process = self.process.take().expect("it was started");
        let found =
            process.wait_until(name, limits::SOON_MS, |_| self.metric(name).filter(|value| is_it(*value)));
        self.process = Some(process);
        found
    }
}

impl System {
    /// Everything made and nothing started.
    pub fn new(name: &str) -> Result<Self, SystemError> {
        let dir = WorkDir::new(name)?;
        let mut backend = Server::new("moorgate-backend", "backend", &dir)?;
        backend.add_arg("--data");
        backend.add_arg(dir.join("data"));
        let mut system = Self { gateways: Vec::new(), backend, disk: None, dir };
        system.add_gateway()?;
        Ok(system)
    }

    /// Everything made and nothing started; the backend's data lies on a disk of our own.
    pub fn on_disk(name: &str) -> Result<Self, SystemError> {
        let mut system = Self::new(name)?;
        let data = system.dir.join("data");
        std::fs::create_dir(&data)?;
        system.disk = Some(Disk::mount(&data)?);
        Ok(system)
    }

    /// The disk of a system that was made with one.
    pub fn disk(&self) -> &Disk {
        self.disk.as_ref().expect("it was made with a disk")
    }

    /// A backend, then a gateway that is connected to it.
    pub fn start(name: &str) -> Result<Self, SystemError> {
        let mut system = Self::new(name)?;
        system.start_all()?;
        Ok(system)
    }

    pub fn start_all(&mut self) -> Result<(), SystemError> {
        self.backend.start()?;
        for gateway in &mut self.gateways {
            gateway.start()?;
        }
        for gateway in &mut self.gateways {
            gateway.wait_until_ready()?;
        }
        Ok(())
    }

    /// One more gateway, not started.
    pub fn add_gateway(&mut self) -> Result<&mut Server, SystemError> {
        let log = format!("gateway-{}", self.gateways.len());
        let mut gateway = Server::new("moorgate", &log, &self.dir)?;
        gateway.add_arg("--backend");
        gateway.add_arg(self.backend.address().to_string());
        gateway.add_arg("--verify-key");
        gateway.add_arg(self.dir.join("data/keys/verify.pem"));
        self.gateways.push(gateway);
        // Just pushed.
        Ok(self.gateways.last_mut().expect("a gateway"))
    }

    /// The first gateway.
    pub fn gateway(&mut self) -> &mut Server {
        &mut self.gateways[0]
    }

    /// Writes a configuration for the backend, used from its next start on.
    pub fn configure_backend(&mut self, toml: &str) -> Result<(), SystemError> {
        let path = self.dir.join("backend.toml");
        std::fs::write(&path, toml)?;
        self.backend.add_arg("--config");
        self.backend.add_arg(path);
        Ok(())
    }

    /// Writes a configuration for the first gateway, used from its next start on.
    pub fn configure_gateway(&mut self, toml: &str) -> Result<(), SystemError> {
        let path = self.dir.join("gateway.toml");
        std::fs::write(&path, toml)?;
        self.gateway().add_arg("--config");
        self.gateway().add_arg(path);
        Ok(())
    }

    /// The key that the backend signs with.
    pub fn issuer(&self) -> Result<IssuerKey, SystemError> {
        let path = self.dir.join("data/keys/issuer.pem");
        let pem = std::fs::read_to_string(&path)?;
        IssuerKey::from_pem(&pem).map_err(|error| SystemError::Key { path, text: error.to_string() })
    }

    /// Phones for the gateways of this system.
    pub fn fleet(&self, seed: u64) -> Result<Fleet, SystemError> {
        self.fleet_with(fleet::config(), seed)
    }

    pub fn fleet_with(&self, config: PhoneConfig, seed: u64) -> Result<Fleet, SystemError> {
        let mut fleet = Fleet::new(self.gateways[0].address(), self.issuer()?, config, seed);
        self.gateways[1..].iter().for_each(|gateway| fleet.add_gateway(gateway.address()));
        Ok(fleet)
    }
}
