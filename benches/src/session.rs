//! What `chat`, `hold` and `call` begin with: the check of the host, the servers, and who the phones are.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Instant;

use proto_wire::phone::PhoneConfig;

use crate::clock::Clock;
use crate::fleet::FleetError;
use crate::identity::Identities;
use crate::preflight;
use crate::probe::{ProbeError, probe};
use crate::report::{HostFacts, WriteError};
use crate::servers::{Cores, GatewayTold, Page, Part, Reading, Servers, ServersError, SpawnOptions, Usage};
use crate::sources::Sources;

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
    /// Where phones connect from.
    pub sources: Sources,
    /// Lines, also on a terminal.
    pub no_tui: bool,
    /// With a second gateway of the same backend, on these cores (none: not pinned).
    pub second_gateway: Option<Vec<usize>>,
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
    Probe(#[from] ProbeError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("{0}")]
    Setup(String),
    #[error("{}", crate::signals::NOTHING_RAN)]
    Interrupted,
}

/// The ground of a run.
pub struct Session {
    pub clock: Clock,
    pub servers: Servers,
    pub who: Identities,
    pub host: HostFacts,
    pub cores: Cores,
    /// The gateway's own word over the time that was watched last.
    pub told: Option<GatewayTold>,
    others: Others,
    watched: Option<Reading>,
}

impl Session {
    /// `rooms`: connections that the gateway must have room for beyond `phones`.
    pub fn open(place: &Place, phones: u32, rooms: u32, config: PhoneConfig) -> Result<Self, RunError> {
        let target = if place.spawn { Ipv4Addr::LOCALHOST.into() } else { place.target.ip() };
        let target = SocketAddr::new(target, place.target.port());
        let findings =
            preflight::check(phones, place.spawn, target, &place.sources).map_err(RunError::Host)?;
        let available = gateway_ring::available_cores();
        let cores = match &place.cores {
            Some(cores) => cores.clone(),
            None if place.spawn => Cores::plan(&available),
            None => Cores::default(),
        };
        let servers = if place.spawn {
            // What comes and goes at once needs room beside what stays.
            let max_connections = phones + rooms;
            let second = place.second_gateway.clone();
            Servers::spawn(&SpawnOptions { max_connections, cores: cores.clone(), second })?
        } else {
            Servers::find(place.target, &place.issuer_key, [Some(place.admin), Some(place.backend_admin)])?
        };
        let host = HostFacts::read(place.spawn, servers.in_one_process, cores.clone(), findings);
        if !place.spawn {
            let one = Identities::fresh_run();
            probe(servers.target, &Identities::new(servers.issuer.clone(), one, place.seed, config.clone()))?;
        }
        let who = Identities::new(servers.issuer.clone(), Identities::fresh_run(), place.seed, config);
        Ok(Self {
            clock: Clock::start(),
            servers,
            who,
            host,
            cores,
            told: None,
            others: Others::default(),
            watched: None,
        })
    }

    /// From here on the CPU time of others is watched.
    pub fn watch_others(&mut self) {
        let own_us = self.own_cpu_us();
        self.others.begin(machine_busy_us(), own_us);
    }

    /// Notes how many cores others used since [`Session::watch_others`].
    pub fn note_others(&mut self) {
        let own_us = self.own_cpu_us();
        self.host.other_cores_used = self.others.end(machine_busy_us(), own_us);
    }

    /// From here on the gateway's own counts are watched. What it says is read before what it used, so that the reading
    /// is in no figure.
    pub fn watch_gateway(&mut self) {
        let page = self.servers.page(Part::Gateway);
        self.watched = page.map(|page| self.reading(page));
    }

    /// Notes what the gateway says of itself since [`Session::watch_gateway`]; to be called after what it used was read.
    pub fn note_gateway(&mut self) {
        let Some(from) = self.watched.take() else { return };
        let page = self.servers.page(Part::Gateway);
        self.told = page.map(|page| GatewayTold::between(&from, &self.reading(page)));
    }

    fn reading(&mut self, page: Page) -> Reading {
        let cpu_us = self.usage()[Part::Gateway as usize].map(|usage| usage.cpu_us);
        Reading { at: Instant::now(), page, cpu_us }
    }

    /// Of the bench and of both servers.
    fn own_cpu_us(&mut self) -> u64 {
        let servers: u64 = self.usage().into_iter().flatten().map(|usage| usage.cpu_us).sum();
        servers + tuning::proc_cpu_us(std::process::id()).unwrap_or(0)
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

/// What other processes of the machine use: a compiler beside a run spoils its figures, and is to be seen in them.
#[derive(Debug, Default)]
struct Others {
    began: Option<(Instant, u64, u64)>,
}

impl Others {
    fn begin(&mut self, machine_us: Option<u64>, own_us: u64) {
        self.began = machine_us.map(|machine_us| (Instant::now(), machine_us, own_us));
    }

    /// In cores. Ticks of 10 ms make it good to some 2 %.
    fn end(&mut self, machine_us: Option<u64>, own_us: u64) -> Option<f64> {
        let (at, machine_from_us, own_from_us) = self.began?;
        let machine_us = machine_us?.saturating_sub(machine_from_us);
        let others_us = machine_us.saturating_sub(own_us.saturating_sub(own_from_us));
        Some(others_us as f64 / at.elapsed().as_micros().max(1) as f64)
    }
}

/// CPU time of all processes and of the kernel itself.
fn machine_busy_us() -> Option<u64> {
    busy_us(&std::fs::read_to_string("/proc/stat").ok()?)
}

fn busy_us(stat: &str) -> Option<u64> {
    let ticks: Vec<u64> = stat
        .lines()
        .next()?
        .strip_prefix("cpu ")?
        .split_ascii_whitespace()
        .map_while(|word| word.parse().ok())
        .collect();
    // user, nice, system, idle, iowait, irq, softirq, steal; guests' time is in user already.
    let [user, nice, system, _idle, _iowait, irq, softirq, ..] = ticks[..] else { return None };
    Some((user + nice + system + irq + softirq) * 10_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_what_is_busy_beside_us() {
        let stat = "cpu  100 5 50 9000 20 3 2 7 0 0\ncpu0 1 1 1 1\n";
        assert_eq!(busy_us(stat), Some(160 * 10_000));
        assert_eq!(busy_us("cpu  1 2 3\n"), None);
        let mut others = Others::default();
        assert_eq!(others.end(Some(5), 5), None, "not begun");
        others.begin(Some(1_000_000), 500_000);
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert_eq!(others.end(Some(1_000_000), 500_000), Some(0.0));
        assert!(others.end(Some(1_030_000), 510_000).is_some_and(|cores| cores > 0.0));
    }
}
