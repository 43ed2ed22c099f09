//! What `chat`, `hold` and `call` begin with: the check of the host, the servers, and who the phones are.

use std::net::SocketAddr;
use std::path::PathBuf;

use proto_wire::phone::PhoneConfig;

use crate::clock::Clock;
use crate::fleet::FleetError;
use crate::identity::Identities;
use crate::preflight;
use crate::report::{HostFacts, WriteError};
use crate::servers::{Cores, Part, Servers, ServersError, SpawnOptions, Usage};

/// Where the servers are, as the command line tells it.
#[derive(Debug, Clone)]
pub struct Place {
    pub target: SocketAddr,
    pub issuer_key: PathBuf,
    /// Where `/status` of gateway and backend is asked for their processes.
    pub admin: SocketAddr,
    pub backend_admin: SocketAddr,
    pub spawn: bool,
    pub cores: Option<Cores>,
    pub seed: u64,
}

/// Why a run could not be made. What it measured is no error, however bad.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("{0}")]
    Host(String),
    #[error(transparent)]
    Servers(#[from] ServersError),
    #[error(transparent)]
    Fleet(#[from] FleetError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("{0}")]
    Setup(String),
    #[error("interrupted")]
    Interrupted,
}

/// The ground of a run.
pub struct Session {
    pub clock: Clock,
    pub servers: Servers,
    pub who: Identities,
    pub host: HostFacts,
    pub cores: Cores,
}

impl Session {
    /// `rooms`: connections that the gateway must have room for beyond `phones`.
    pub fn open(place: &Place, phones: u32, rooms: u32, config: PhoneConfig) -> Result<Self, RunError> {
        let findings = preflight::check(phones, place.spawn).map_err(RunError::Host)?;
        let available = gateway_ring::available_cores();
        let cores = match &place.cores {
            Some(cores) => cores.clone(),
            None if place.spawn => Cores::plan(&available),
            None => Cores::default(),
        };
        let servers = if place.spawn {
            // What comes and goes at once needs room beside what stays.
            let max_connections = phones + rooms;
            Servers::spawn(&SpawnOptions { max_connections, cores: cores.clone() })?
        } else {
            Servers::find(place.target, &place.issuer_key, [Some(place.admin), Some(place.backend_admin)])?
        };
        let host = HostFacts::read(place.spawn, servers.in_one_process, cores.clone(), findings);
        let who = Identities::new(servers.issuer.clone(), Identities::fresh_run(), place.seed, config);
        Ok(Self { clock: Clock::start(), servers, who, host, cores })
    }

    pub fn usage(&mut self) -> [Option<Usage>; 2] {
        [
            self.servers.meters[Part::Gateway as usize].read(),
            self.servers.meters[Part::Backend as usize].read(),
        ]
    }

    /// What the servers say of a failure, beside the bench's own word.
    pub fn explain(&mut self, what: &str, trouble: Option<String>) -> RunError {
        if crate::signals::interrupted() {
            return RunError::Interrupted;
        }
        let mut text = what.to_owned();
        for more in [trouble, self.servers.ended()].into_iter().flatten() {
            text.push_str(&format!("\n{more}"));
        }
        for part in [Part::Gateway, Part::Backend] {
            if let Some(log) = self.servers.log_tail(part).filter(|log| !log.is_empty()) {
                text.push_str(&format!("\n--- the end of {}'s log ---\n{}", part.name(), log.trim_end()));
            }
        }
        RunError::Setup(text)
    }
}
