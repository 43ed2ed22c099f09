//! A storm: all phones of a gateway are cut at once, since it is killed, and come back as their machines do, with
//! jitter. Is anybody lost, how long does it take, does the logic tier notice, and do phones of another gateway?
//!
//! Method: N phones stand on one gateway; 5 000 others stand on a second gateway of the same backend and call the echo
//! service at a fixed rate, an open loop. After a time of rest the first gateway gets SIGKILL and is started again on
//! its port. Both gateways share a ticket key, so whoever comes back shows its ticket. The storm is over when all are
//! welcomed again.
//!
//! Both kinds of phones live in this process, and what the storm's take of a core must not be told as the latency of the
//! healthy. So the gateway that is killed and the threads of its phones share one core, the other gateway and the
//! threads of the healthy another; on two cores the backend runs on the latter (see [`StormCores`](crate::servers::StormCores)).
//! And the storm's threads are nice: where they meet the healthy's they give way. `healthy.generator` tells, for the
//! storm alone, how many calls of the healthy started late and how long their threads waited for a core: with more than
//! a little of either, their p99 is the bench's own. `generator` is of the threads of the phones that were cut.

use std::thread;
use std::time::Duration;

use proto_wire::phone::{Phone, PhoneConfig, PhoneEvent};
use serde::Serialize;

use crate::call::{CallBench, CallOutcome, CallPlan, CallSetup, Pace};
use crate::fleet::{App, Fleet, FleetConfig, Now, Phones, Receive, Totals, wait_until};
use crate::identity::Identities;
use crate::limits;
use crate::measure::{Arrival, Measured};
use crate::report::{Generator, HostFacts, Recorded, Report, SCHEMA};
use crate::servers::{GatewayTold, Part};
use crate::session::{Place, RunError, Session};
use crate::workers;

#[derive(Debug, Clone)]
pub struct StormOptions {
    pub connections: u32,
    /// Phones of the other gateway.
    pub healthy: u32,
    /// Their calls a second, together.
    pub rate: f64,
    /// With a second gateway.
    pub place: Place,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StormReport {
    pub schema: u32,
    pub command: &'static str,
    pub connections: u32,
    /// Ctrl-C came before all were back.
    pub ended_early: bool,
    pub storm: Storm,
    /// The gateway's own word, of the one that was killed, since it was there again.
    pub gateway: Option<GatewayTold>,
    /// Of the phones that were cut, from the kill until all were back. They share the core of their gateway where cores
    /// are few: then it is the pace of the storm that both limit.
    pub generator: Generator,
    pub host: HostFacts,
    pub measured: Measured,
    #[serde(skip)]
    pub recorded: Option<Recorded>,
}

#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Storm {
    /// Phones that were not back within the time.
    pub lost: u64,
    /// From the kill until 90 of 100, and all, were welcomed again.
    pub seconds_to_90: Option<f64>,
    pub seconds_to_all: Option<f64>,
    /// From the kill until the gateway said that it is ready again.
    pub gateway_ready_after_s: f64,
    /// Connects that were tried, the good ones among them.
    pub attempts: u64,
    /// Of those who came back: how many showed a ticket, so that no signature was checked.
    pub resumed: Option<u64>,
    /// Calls that the backend took in the storm, but for the echoes of the healthy, by phones that came back.
    pub logic_calls_per_reconnect: Option<f64>,
    /// The gateway's CPU from its new start until all were back.
    pub cpu_us_per_reconnect: Option<f64>,
    pub healthy: Healthy,
}

/// The phones of the other gateway.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Healthy {
    pub phones: u32,
    pub lost: u64,
    pub errors: u64,
    pub p99_ms_before: f64,
    pub p99_ms_during: f64,
    pub p99_ratio: f64,
    /// Of the storm alone: late starts, and what their threads waited for a core.
    pub generator: Generator,
    /// Of their gateway and of their threads; none: not pinned.
    pub cores: Vec<usize>,
}

impl Storm {
    /// Nobody is lost, the logic tier sleeps, and the healthy keep their latency.
    fn is_good(&self) -> bool {
        let healthy = &self.healthy;
        let keeps = healthy.p99_ms_during <= (2.0 * healthy.p99_ms_before).max(limits::STORM_P99_MS);
        let quiet = self.logic_calls_per_reconnect.is_none_or(|calls| calls < limits::STORM_LOGIC_CALLS);
        self.lost + healthy.lost + healthy.errors == 0 && keeps && quiet
    }
}

impl Report for StormReport {
    fn is_good(&self) -> bool {
        self.storm.is_good()
    }

    fn summary(&self) -> String {
        let Storm { healthy, .. } = &self.storm;
        let seconds = |value: Option<f64>| value.map_or("never".to_owned(), |s| format!("{s:.1} s"));
        let figure = |value: Option<f64>, unit| crate::report::figure(value, unit);
        format!(
            "{} phones cut at once: {} lost; 90 % back after {}, all after {} (the gateway was ready after {:.1} s), {} attempts\n\
             resumed by ticket: {}; calls of the logic tier a reconnect: {}; {} of the gateway's CPU a reconnect\n\
             {} phones of another gateway: {} lost, {} errors, p99 {:.2} ms before, {:.2} ms in the storm ({:.1} x)\n\
             {} of their {} calls in the storm started late; {}\nthe phones that were cut: {}",
            self.connections,
            self.storm.lost,
            seconds(self.storm.seconds_to_90),
            seconds(self.storm.seconds_to_all),
            self.storm.gateway_ready_after_s,
            self.storm.attempts,
            self.storm.resumed.map_or("not known".to_owned(), |count| count.to_string()),
            self.storm
                .logic_calls_per_reconnect
                .map_or("not known".to_owned(), |calls| format!("{calls:.4}")),
            figure(self.storm.cpu_us_per_reconnect, "us"),
            healthy.phones,
            healthy.lost,
            healthy.errors,
            healthy.p99_ms_before,
            healthy.p99_ms_during,
            healthy.p99_ratio,
            healthy.generator.late_starts,
            healthy.generator.starts,
            healthy.generator.verdict,
            self.generator.verdict,
        )
    }

    crate::report::on_record!();
}

/// Phones that only stand, and come back.
struct Returning(Identities);

impl App for Returning {
    type Machine = Phone;

    fn phone(&mut self, phone: u32) -> Phone {
        self.0.machine(phone)
    }

    fn token(&mut self, phone: u32) -> Box<[u8]> {
        self.0.token(phone)
    }

    fn event(&mut self, _phone: u32, _machine: &mut Phone, _event: PhoneEvent, _now: Now) {}

    fn turn(&mut self, _phones: &mut Phones<'_>, now: Now) -> u64 {
        now.us + limits::TURN_MS * 1_000
    }
}

pub fn run(options: &StormOptions) -> Result<StormReport, RunError> {
    let setup = CallSetup { clients: options.healthy, payload_bytes: 64, place: options.place.clone() };
    let mut bench = CallBench::open_beside(&setup, "moorgate-bench storm", options.connections)?;
    if let Some(finding) = options.place.second_gateway.as_deref().and_then(workers::finding) {
        eprintln!("{finding}");
        bench.session.host.findings.push(finding.to_string());
    }
    bench.connect(options.healthy)?;
    let fleet = stand(&mut bench, options)?;
    let pace = Pace::Open { rate: options.rate, arrival: Arrival::Poisson };
    let mut plan = CallPlan { phase: "rest", pace, phones: options.healthy, for_ms: limits::STORM_REST_MS };
    let before = bench.run(&plan)?;
    if before.ended_early {
        return Err(RunError::Interrupted);
    }
    (plan.phase, plan.for_ms) = ("storm", limits::STORM_WITHIN_MS);
    let mut course = Course::new(options.connections, &fleet, &bench.session);
    let during = bench.run_beside(&plan, &mut |session| course.look(&fleet, session))?;
    let generator = course.generator(&fleet);
    let healthy = healthy(options, &before, &during, bench.judge(&during));
    let (storm, trouble) = (course.judge(&fleet, &mut bench.session, healthy), fleet.trouble());
    drop(fleet.stop()?);
    if storm.lost > 0
        && let Some(trouble) = trouble
    {
        eprintln!("{trouble}");
    }
    let (session, recorded, _) = bench.close()?;
    Ok(StormReport {
        schema: SCHEMA,
        command: "storm",
        connections: options.connections,
        ended_early: during.ended_early && !course.is_over(),
        storm,
        gateway: session.told.clone(),
        generator,
        host: session.host.clone(),
        measured: recorded.recorder.measured(),
        recorded: Some(recorded),
    })
}

/// Connects the phones that the storm will cut.
fn stand(bench: &mut CallBench, options: &StormOptions) -> Result<Fleet<Returning>, RunError> {
    let session = &bench.session;
    let config = PhoneConfig { sync_on_connect: false, ..PhoneConfig::default() };
    let seed = options.place.seed;
    let who = Identities::new(session.servers.issuer.clone(), Identities::fresh_run(), seed, config);
    let fleet_config = FleetConfig {
        target: session.servers.target,
        phones: options.connections,
        receive: Receive::Poll,
        cores: session.cores.bench.clone(),
        threads: 1,
        niceness: limits::STORM_NICENESS,
        clock: session.clock,
        gather_us: 1_000,
        sources: options.place.sources.clone(),
    };
    let fleet = Fleet::start(&fleet_config, |_| Returning(who.clone()))?;
    fleet.connect(options.connections);
    let asked = u64::from(options.connections);
    let mut told_ms = 0;
    let (clock, progress) = (session.clock, &mut bench.progress);
    let all = wait_until(&fleet, limits::SETUP_WITHIN_MS + asked / 2, || {
        let up = fleet.totals().up;
        if clock.now_ms() >= told_ms + 1_000 {
            told_ms = clock.now_ms();
            progress.line(&format!("connecting: {up} of {asked} welcomed"));
        }
        up >= asked
    });
    if all { Ok(fleet) } else { Err(bench.fail("not all phones were welcomed")) }
}

/// What happens from the kill on.
struct Course {
    asked: u64,
    before: Totals,
    logic_calls_before: Option<u64>,
    killed_us: Option<u64>,
    ready_us: u64,
    at_90_us: Option<u64>,
    at_all_us: Option<u64>,
    /// When it was over.
    after: Option<Totals>,
    trouble: Option<String>,
}

impl Course {
    fn new(asked: u32, fleet: &Fleet<Returning>, session: &Session) -> Self {
        Self {
            asked: asked.into(),
            before: fleet.totals(),
            logic_calls_before: logic_calls(session),
            killed_us: None,
            ready_us: 0,
            at_90_us: None,
            at_all_us: None,
            after: None,
            trouble: None,
        }
    }

    /// Kills at the first look; true once the storm is over.
    fn look(&mut self, fleet: &Fleet<Returning>, session: &mut Session) -> bool {
        let now_us = session.clock.now_us();
        if self.killed_us.is_none() {
            self.killed_us = Some(now_us);
            if let Err(error) = session.servers.kill_and_restart(Part::Gateway) {
                self.trouble = Some(error.to_string());
                return true;
            }
            self.ready_us = session.clock.now_us();
            // Its counts begin anew.
            session.watch_gateway();
            return false;
        }
        // Until a phone has noticed that it was cut, it still counts as there.
        let totals = fleet.totals();
        let cut = totals.lost - self.before.lost;
        let back = totals.up.saturating_sub(self.asked.saturating_sub(cut));
        if back * 10 >= self.asked * 9 {
            self.at_90_us.get_or_insert(now_us);
        }
        if cut >= self.asked && totals.up >= self.asked {
            self.at_all_us.get_or_insert(now_us);
            self.after.get_or_insert(totals);
        }
        self.is_over()
    }

    fn is_over(&self) -> bool {
        self.at_all_us.is_some() || self.trouble.is_some()
    }

    /// Whether the threads of the phones that were cut were the limit of their return.
    fn generator(&self, fleet: &Fleet<Returning>) -> Generator {
        let after = self.after.unwrap_or_else(|| fleet.totals());
        Generator::judge(fleet.threads(), &self.before, &after, 0, 0)
    }

    fn judge(&self, fleet: &Fleet<Returning>, session: &mut Session, healthy: Healthy) -> Storm {
        // The last reports go up, and the servers' pages say it.
        thread::sleep(Duration::from_millis(limits::SETTLE_MS));
        let totals = fleet.totals();
        let returned = totals.up;
        let seconds = |at_us: u64| (at_us - self.killed_us.unwrap_or(at_us)) as f64 / 1e6;
        let calls = logic_calls(session).zip(self.logic_calls_before).map(|(now, then)| now - then);
        let a_phone = |count: u64| (returned > 0).then(|| count as f64 / returned as f64);
        Storm {
            lost: self.asked.saturating_sub(returned),
            seconds_to_90: self.at_90_us.map(seconds),
            seconds_to_all: self.at_all_us.map(seconds),
            gateway_ready_after_s: seconds(self.ready_us.max(self.killed_us.unwrap_or(0))),
            attempts: totals.failed - self.before.failed + returned,
            resumed: session.servers.metric(Part::Gateway, "moorgate_resumed_total", ""),
            logic_calls_per_reconnect: calls.and_then(a_phone),
            cpu_us_per_reconnect: session.servers.cpu_since_restart_us(Part::Gateway).and_then(a_phone),
            healthy,
        }
    }
}

/// What the phones of the other gateway noticed.
fn healthy(
    options: &StormOptions,
    before: &CallOutcome,
    during: &CallOutcome,
    generator: Generator,
) -> Healthy {
    let (rest_ms, storm_ms) = (before.latency.p99_ms(), during.latency.p99_ms());
    Healthy {
        phones: before.after.1.up as u32,
        lost: during.after.1.lost - before.before.1.lost,
        errors: during.counts.errors + during.unanswered,
        p99_ms_before: rest_ms,
        p99_ms_during: storm_ms,
        p99_ratio: storm_ms / rest_ms.max(1e-3),
        generator,
        cores: options.place.second_gateway.clone().unwrap_or_default(),
    }
}

/// Calls that the backend took, but for echoes.
fn logic_calls(session: &Session) -> Option<u64> {
    let all = session.servers.metric(Part::Backend, "moorgate_backend_calls_total", "")?;
    let echoes = session.servers.metric(Part::Backend, "moorgate_backend_calls_total", "Echo.Say")?;
    Some(all - echoes)
}
