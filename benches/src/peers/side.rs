//! One side of a comparison: a server, the clients that stand on it, and rounds of work whose cost is read from the
//! server's process.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use serde::Serialize;

use super::limits;
use super::load::{Cast, Load, Order, Orders, Work};
use super::server::Server;
use super::standin::{Standin, Telling, TellingOrder};
use super::wire::Wire;
use crate::clock::Clock;
use crate::fleet::{Fleet, FleetConfig, FleetError, Receive, Totals, wait_until};
use crate::measure::Arrival;

/// The work of a round, as this side does it.
#[derive(Debug, Clone, Copy)]
pub enum Deed {
    /// The clients ask.
    Clients(Work),
    /// The logic tier tells; the clients listen.
    Logic(Telling),
}

/// What a round was.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Round {
    pub seconds: f64,
    /// Things done: answers, deliveries, pieces fetched.
    pub done: u64,
    /// Done of those that the schedule wanted.
    pub done_share: f64,
    /// None: nothing was done.
    #[cfg_attr(test, schemars(with = "Option<f64>"))]
    pub cpu_us_per_unit: f64,
    /// The share of its core that the server used.
    pub server_busy: f64,
    /// The same of the bench's thread.
    pub bench_busy: f64,
}

#[derive(Debug, thiserror::Error)]
pub enum SideError {
    #[error(transparent)]
    Fleet(#[from] FleetError),
    #[error("{name}: only {up} of {asked} clients were let in: {trouble}")]
    NotUp { name: &'static str, up: u64, asked: u32, trouble: String },
    #[error("{}", crate::signals::NOTHING_RAN)]
    Interrupted,
}

/// A side, whatever it speaks.
pub trait Side {
    fn name(&self) -> &'static str;
    fn clients(&self) -> u32;
    /// `units_per_start`: what one start of the schedule leads to.
    fn round(
        &mut self,
        deed: Deed,
        rate: f64,
        units_per_start: f64,
        round_ms: u64,
    ) -> Result<Round, SideError>;
    /// Connects up to so many in all and waits until all are in.
    fn connect(&mut self, count: u32) -> Result<(), SideError>;
    fn rss_bytes(&self) -> u64;
}

/// The side of one protocol.
pub struct Spoken<W: Wire> {
    server: Server,
    fleet: Option<Fleet<Load<W>>>,
    orders: Arc<Orders>,
    clock: Clock,
    clients: u32,
    /// Ours: what plays the logic tier.
    logic: Option<Arc<Standin>>,
}

impl<W: Wire> Spoken<W> {
    /// Makes the clients; nothing connects yet.
    pub fn new(
        server: Server,
        cast: Cast,
        bench_core: usize,
        clock: Clock,
        logic: Option<Arc<Standin>>,
    ) -> Result<Self, SideError> {
        let (orders, clients) = (Orders::new(), cast.clients);
        let config = FleetConfig {
            target: server.address,
            phones: clients,
            receive: Receive::Armed,
            cores: vec![bench_core],
            threads: 1,
            niceness: 0,
            clock,
            gather_us: limits::GATHER_US,
            sources: Default::default(),
        };
        let cast = Arc::new(cast);
        let fleet = Fleet::start(&config, |range| Load::<W>::new(&orders, &cast, range))?;
        Ok(Self { server, fleet: Some(fleet), orders, clock, clients, logic })
    }

    fn totals(&self) -> Totals {
        self.fleet.as_ref().map_or_else(Totals::default, Fleet::totals)
    }

    /// What counts as done under this deed.
    fn done(&self, deed: Deed) -> u64 {
        match deed {
            Deed::Logic(Telling::Pieces { .. }) => self.orders.pieces.load(Ordering::Relaxed),
            Deed::Clients(_) | Deed::Logic(Telling::ToAll { .. }) => self.orders.done.load(Ordering::Relaxed),
        }
    }

    fn order(&self, deed: Deed, rate: f64, from_us: u64, until_us: u64) {
        let work = match deed {
            Deed::Clients(work) => work,
            Deed::Logic(telling) => {
                if let Some(logic) = &self.logic {
                    logic.give(TellingOrder { telling, rate, from_us, until_us });
                }
                Work::Listen
            }
        };
        self.orders.give(Order { work, rate, arrival: Arrival::Constant, from_us, until_us });
    }

    fn read(&self, deed: Deed) -> Reading {
        let totals = self.totals();
        Reading {
            at_us: self.clock.now_us(),
            cpu_us: self.server.cpu_us(),
            done: self.done(deed),
            bench_us: totals.cpu_us,
            lived_us: totals.lived_us,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    at_us: u64,
    cpu_us: u64,
    done: u64,
    bench_us: u64,
    lived_us: u64,
}

impl<W: Wire> Side for Spoken<W> {
    fn name(&self) -> &'static str {
        self.server.name
    }

    fn clients(&self) -> u32 {
        self.clients
    }

    fn round(
        &mut self,
        deed: Deed,
        rate: f64,
        units_per_start: f64,
        round_ms: u64,
    ) -> Result<Round, SideError> {
        let from_us = self.clock.now_us() + limits::ROUND_AHEAD_MS * 1_000;
        let until_us = from_us + (limits::ROUND_SETTLE_MS + round_ms) * 1_000;
        self.order(deed, rate, from_us, until_us);
        thread::sleep(Duration::from_millis(limits::ROUND_AHEAD_MS + limits::ROUND_SETTLE_MS));
        let before = self.read(deed);
        thread::sleep(Duration::from_millis(round_ms));
        let after = self.read(deed);
        // What is still on its way shall not burden the other side's round.
        thread::sleep(Duration::from_millis(limits::ROUND_DRAIN_MS));
        if crate::signals::interrupted() {
            return Err(SideError::Interrupted);
        }
        let seconds = (after.at_us - before.at_us) as f64 / 1e6;
        let (done, cpu_us) = (after.done - before.done, (after.cpu_us - before.cpu_us) as f64);
        let lived_us = after.lived_us.saturating_sub(before.lived_us).max(1) as f64;
        Ok(Round {
            seconds,
            done,
            done_share: done as f64 / (rate * units_per_start * seconds).max(1.0),
            cpu_us_per_unit: if done > 0 { cpu_us / done as f64 } else { f64::NAN },
            server_busy: cpu_us / 1e6 / seconds,
            bench_busy: after.bench_us.saturating_sub(before.bench_us) as f64 / lived_us,
        })
    }

    fn connect(&mut self, count: u32) -> Result<(), SideError> {
        let Some(fleet) = &self.fleet else { return Ok(()) };
        let asked = count.min(self.clients);
        fleet.connect(asked);
        let within_ms = limits::CONNECT_ALL_WITHIN_MS;
        let all_up = || {
            let totals = fleet.totals();
            totals.up >= u64::from(asked) || totals.failed + totals.lost > 0
        };
        wait_until(fleet, within_ms, all_up);
        let up = fleet.totals().up;
        if up < u64::from(asked) {
            if crate::signals::interrupted() {
                return Err(SideError::Interrupted);
            }
            let trouble = fleet.trouble().unwrap_or_else(|| "it took too long".to_owned());
            let trouble = format!("{trouble}\n{}", self.server.log_tail());
            return Err(SideError::NotUp { name: self.server.name, up, asked, trouble });
        }
        Ok(())
    }

    fn rss_bytes(&self) -> u64 {
        self.server.rss_bytes()
    }
}

impl<W: Wire> Drop for Spoken<W> {
    fn drop(&mut self) {
        if let Some(fleet) = self.fleet.take() {
            // Why a thread ended was told by what it did not do.
            let _ = fleet.stop();
        }
    }
}
