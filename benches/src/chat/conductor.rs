//! The course of a chat: connect, make groups, find the rate, load with kills, drain, judge.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use proto_wire::phone::PhoneConfig;

use super::report::{ChatReport, Kill, Latencies, PartCost, ServerCosts, Trial};
use super::search::Searched;
use super::talkers::{ACK, DELIVER, Load, OPERATIONS, Shared, Talkers};
use crate::check::Outstanding;
use crate::fleet::{Fleet, FleetConfig, FleetError, Receive, Totals, wait_until};
use crate::limits;
use crate::measure::{Arrival, Live, Phase, Recorder, Watch};
use crate::mixed::{self, MixOptions};
use crate::report::{Generator, Progress, Recorded, SCHEMA, share};
use crate::servers::{Part, Usage};
use crate::session::{Place, RunError, Session};
use crate::workload::Population;

#[derive(Debug, Clone)]
pub struct ChatOptions {
    pub clients: u32,
    pub seconds: u64,
    /// None: 70 % of the highest that holds, or 2 000 with a kill.
    pub rate: Option<f64>,
    pub arrival: Arrival,
    pub kill_backend_at_s: Option<f64>,
    pub kill_gateway_at_s: Option<f64>,
    pub text_bytes: usize,
    /// Of all kinds, in place of messages only.
    pub mix: Option<MixOptions>,
    pub place: Place,
}

/// How long a turn of the phones gathers.
pub(crate) const GATHER_US: u64 = 300;

const RATE_WITH_A_KILL: f64 = 2_000.0;

pub struct ChatBench<'a> {
    pub(super) options: &'a ChatOptions,
    session: Session,
    pub(super) fleet: Fleet<Talkers>,
    pub(super) shared: Arc<Shared>,
    pub(super) recorder: Arc<Recorder>,
    recorded: Recorded,
    watch: Watch,
    pub(super) progress: Progress,
    kills: Vec<Kill>,
}

/// The measured load.
pub(super) struct Measured {
    pub phase: Phase,
    pub seconds: f64,
    pub ended_early: bool,
    pub counts_at_end: (u64, u64),
    before: ([Option<Usage>; 2], Totals),
    after: ([Option<Usage>; 2], Totals),
    pub drained_after_ms: Option<u64>,
}

/// A stretch of load.
pub(super) struct Stretch<'a> {
    pub rate: f64,
    pub for_ms: u64,
    pub phase: &'a str,
    /// What is told meanwhile.
    pub what: &'a str,
    pub with_kills: bool,
    /// How long what was sent may take to arrive after its end.
    pub drain_ms: u64,
}

pub fn run(options: &ChatOptions) -> Result<ChatReport, RunError> {
    if let Some(mix) = &options.mix {
        return mixed::run(options, mix);
    }
    let mut chat = ChatBench::open_ready(options)?;
    let has_kill = options.kill_backend_at_s.or(options.kill_gateway_at_s).is_some();
    let (rate, search) = match options.rate {
        Some(rate) => (rate, Vec::new()),
        None if has_kill => (RATE_WITH_A_KILL, Vec::new()),
        None => match chat.search()? {
            Searched::Found(rate, trials) => (rate, trials),
            // The trial that was ended is what ran last.
            Searched::Ended(rate, trials, measured) => return chat.finish(rate, trials, *measured),
        },
    };
    let measured = chat.measure(rate)?;
    chat.finish(rate, search, measured)
}

impl<'a> ChatBench<'a> {
    /// Connected, and its groups made: for who puts loads of its own on it.
    pub(crate) fn open_ready(options: &'a ChatOptions) -> Result<Self, RunError> {
        let mut chat = Self::open(options)?;
        chat.connect()?;
        chat.make_groups()?;
        Ok(chat)
    }

    pub(crate) fn say(&mut self, text: &str) {
        self.progress.say(text);
    }

    /// Ends all connections; the session's servers still run.
    pub(crate) fn close(mut self) -> Result<(Session, Recorded), RunError> {
        self.progress.end();
        drop(self.fleet.stop()?);
        Ok((self.session, self.recorded))
    }

    fn open(options: &'a ChatOptions) -> Result<Self, RunError> {
        let config = PhoneConfig { sync_on_connect: false, ..PhoneConfig::default() };
        let session = Session::open(&options.place, options.clients, limits::ROOMS, config)?;
        let population = Arc::new(Population::new(options.clients, options.place.seed));
        let recorder = Arc::new(Recorder::new(&OPERATIONS));
        recorder.begin_phase("set-up", session.clock.now_us());
        let shared = Arc::new(Shared::new(population, recorder.clone(), session.who.run, options.text_bytes));
        let config = FleetConfig {
            target: session.servers.target,
            phones: options.clients,
            receive: Receive::Armed,
            cores: session.cores.bench.clone(),
            threads: session.cores.bench.len().max(1),
            niceness: 0,
            clock: session.clock,
            gather_us: GATHER_US,
            sources: options.place.sources.clone(),
        };
        let fleet = Fleet::start(&config, |range| Talkers::new(&session.who, &shared, range, GATHER_US))?;
        let progress = Progress::view("moorgate-bench chat", options.place.no_tui);
        let watch = Watch::new(&recorder);
        let recorded = Recorded { recorder: recorder.clone(), began: SystemTime::now() };
        Ok(Self { options, session, fleet, shared, recorder, recorded, watch, progress, kills: Vec::new() })
    }

    fn measure(&mut self, rate: f64) -> Result<Measured, RunError> {
        // What a failed trial left behind is no part of this.
        if self.drain(3 * limits::DELIVERED_WITHIN_MS).is_none() {
            self.progress.say("what came before is not all delivered; the load begins all the same");
        }
        let measured = self.put(&Stretch {
            rate,
            for_ms: self.options.seconds * 1_000,
            phase: "load",
            what: "chatting",
            with_kills: true,
            drain_ms: limits::DELIVERED_WITHIN_MS,
        })?;
        // What comes twice comes late.
        wait_until(&self.fleet, limits::QUIET_MS, || false);
        self.recorder.gather();
        Ok(measured)
    }

    /// Puts a load on the phones, and waits until what was sent has arrived. Ctrl-C ends it in order.
    pub(super) fn put(&mut self, stretch: &Stretch<'_>) -> Result<Measured, RunError> {
        self.session.watch_gateway();
        let before = (self.session.usage(), self.fleet.totals());
        self.session.watch_others();
        let from_us = self.session.clock.now_us();
        let phase = self.begin(stretch.rate, stretch.for_ms, stretch.phase);
        let ended_early = self.run_for(stretch.for_ms, stretch.what, stretch.with_kills)?;
        if ended_early {
            self.shared.end();
        }
        let ended_us = self.session.clock.now_us();
        self.recorder.end_phase(ended_us);
        let totals = self.fleet.totals();
        self.session.note_others();
        let counts_at_end = {
            let checker = self.shared.checker();
            (checker.phase().acknowledged, checker.phase().delivered)
        };
        let drained_after_ms = self.drain(stretch.drain_ms);
        let after = (self.session.usage(), totals);
        self.session.note_gateway();
        let seconds = (ended_us - from_us).max(1) as f64 / 1e6;
        Ok(Measured { phase, seconds, ended_early, counts_at_end, before, after, drained_after_ms })
    }

    fn begin(&self, rate: f64, for_ms: u64, phase: &str) -> Phase {
        let from_us = self.session.clock.now_us();
        let until_us = from_us + for_ms * 1_000;
        let seed = self.options.place.seed.wrapping_add(from_us);
        let phase = self.recorder.begin_phase(phase, from_us);
        let arrival = self.options.arrival;
        self.shared.begin(Load { number: 0, rate, from_us, until_us, arrival, seed });
        phase
    }

    /// Lets the load run, tells of it every second, and kills when it is time. True: it was ended early.
    fn run_for(&mut self, for_ms: u64, what: &str, with_kills: bool) -> Result<bool, RunError> {
        let began_ms = self.session.clock.now_ms();
        let mut due = if with_kills { planned_kills(self.options) } else { Vec::new() };
        loop {
            let elapsed_ms = self.session.clock.now_ms() - began_ms;
            if elapsed_ms >= for_ms {
                return Ok(false);
            }
            if let Some(&(at_ms, part)) = due.first()
                && elapsed_ms >= at_ms
            {
                due.remove(0);
                self.kill(part, elapsed_ms)?;
            }
            self.tell(what, elapsed_ms, for_ms);
            let next_ms = due.first().map_or(for_ms, |kill| kill.0.min(for_ms));
            let sleep_ms = next_ms.saturating_sub(elapsed_ms).clamp(1, 20);
            std::thread::sleep(std::time::Duration::from_millis(sleep_ms));
            if crate::signals::take() {
                return Ok(true);
            }
            if self.fleet.has_failed() || self.session.servers.ended().is_some() {
                return Err(self.fail("a part of the run ended"));
            }
        }
    }

    fn kill(&mut self, part: Part, elapsed_ms: u64) -> Result<(), RunError> {
        let in_flight = self.outstanding().acknowledgements;
        let began_ms = self.session.clock.now_ms();
        self.session.servers.kill_and_restart(part)?;
        let ready_after_ms = self.session.clock.now_ms() - began_ms;
        self.progress.say(&format!(
            "killed {} with {in_flight} messages in flight; ready again after {ready_after_ms} ms",
            part.name()
        ));
        let at_s = elapsed_ms as f64 / 1e3;
        self.kills.push(Kill { part: part.name(), at_s, in_flight, ready_after_ms });
        Ok(())
    }

    /// Waits until all that was sent is acknowledged and all that was acknowledged is delivered. None: not in time.
    pub(super) fn drain(&mut self, within_ms: u64) -> Option<u64> {
        let began_ms = self.session.clock.now_ms();
        let mut second = Second::new();
        let (fleet, shared, progress) = (&self.fleet, &self.shared, &mut self.progress);
        let done = wait_until(fleet, within_ms, || {
            let left = left(shared);
            if left > 0 && second.is_over() {
                progress.line(&format!("waiting for the rest: {left}"));
            }
            left == 0
        });
        done.then(|| self.session.clock.now_ms() - began_ms)
    }

    fn outstanding(&self) -> Outstanding {
        self.shared.checker().outstanding()
    }

    pub(super) fn left(&self) -> u64 {
        left(&self.shared)
    }

    fn tell(&mut self, what: &str, elapsed_ms: u64, for_ms: u64) {
        let Some(point) = self.watch.look(&mut self.session, self.fleet.totals()) else { return };
        let (elapsed_s, of_s) = ((elapsed_ms + 500) / 1_000, for_ms.div_ceil(1_000));
        let asked = u64::from(self.options.clients);
        self.progress.second(&Live { what: what.to_owned(), elapsed_s, of_s, asked, point });
    }

    pub(super) fn fail(&mut self, what: &str) -> RunError {
        let trouble = self.fleet.trouble();
        self.progress.end();
        self.session.explain(what, trouble)
    }

    fn finish(mut self, rate: f64, search: Vec<Trial>, measured: Measured) -> Result<ChatReport, RunError> {
        self.progress.end();
        let (threads, lost) = (self.fleet.threads(), self.fleet.totals().lost);
        // The threads' ends give what they have counted.
        drop(self.fleet.stop()?);
        let shared = Arc::into_inner(self.shared).ok_or(FleetError::Panicked)?;
        let phase = *shared.checker().phase();
        let population = shared.population;
        let checker = shared.checker.into_inner().map_err(|_| FleetError::Panicked)?;
        let tally = shared.tally.into_inner().map_err(|_| FleetError::Panicked)?;
        let verdict = checker.finish();
        let wrong = verdict.counts;
        let counts = self.recorder.counts(ACK, measured.phase);
        let percentiles = |op| self.recorder.latency(op, measured.phase).percentiles();
        let part = |at: usize| {
            let cpu_us = measured.before.0[at]
                .and_then(|from| Some(measured.after.0[at]?.cpu_us.saturating_sub(from.cpu_us)));
            PartCost {
                cpu_us_per_message: share(cpu_us, phase.acknowledged),
                rss_bytes: measured.after.0[at].map(|usage| usage.rss_bytes),
                cores_used: cpu_us.map(|us| us as f64 / 1e6 / measured.seconds),
            }
        };
        let mut groups = BTreeMap::new();
        for group in population.groups() {
            *groups.entry(format!("of {}", group.members.len())).or_default() += 1;
        }
        let highest = search.iter().filter(|trial| trial.held).map(|trial| trial.rate).reduce(f64::max);
        Ok(ChatReport {
            schema: SCHEMA,
            command: "chat",
            clients: self.options.clients,
            seconds: measured.seconds,
            ended_early: measured.ended_early,
            arrival: self.options.arrival,
            dropped_starts: counts.dropped,
            sent: phase.sent,
            acknowledged: phase.acknowledged,
            delivered: phase.delivered,
            duplicates: wrong.duplicates,
            gaps: tally.gaps,
            missing: verdict.missing,
            out_of_order: wrong.out_of_order,
            disagreements: wrong.disagreements,
            misdelivered: wrong.misdelivered,
            own_missing: verdict.own_missing,
            unacknowledged: verdict.unacknowledged,
            repeats: tally.repeats,
            bad_pages: tally.bad_pages,
            snapshots: tally.snapshots,
            syncs_failed: tally.syncs_failed,
            statuses: tally.statuses,
            refused: shared.refused.into_inner(),
            rate,
            acknowledged_per_second: measured.counts_at_end.0 as f64 / measured.seconds,
            deliveries_per_second: measured.counts_at_end.1 as f64 / measured.seconds,
            latency_ms: Latencies { ack: percentiles(ACK), deliver: percentiles(DELIVER) },
            drained_after_ms: measured.drained_after_ms,
            server: ServerCosts { gateway: part(0), backend: part(1) },
            gateway: self.session.told.clone(),
            kills: self.kills,
            highest_rate: highest,
            search,
            connections_lost: lost,
            generator: Generator::judge(
                threads,
                &measured.before.1,
                &measured.after.1,
                counts.starts + counts.dropped,
                counts.late + counts.dropped,
            ),
            complaints: verdict.complaints,
            first_bad: tally.first_bad,
            seed: self.options.place.seed,
            groups,
            host: self.session.host.clone(),
            kinds: None,
            state: None,
            measured: Some(self.recorder.measured()),
            recorded: Some(self.recorded),
        })
    }
}

/// When which part is killed, from the start of the load.
pub(crate) fn planned_kills(options: &ChatOptions) -> Vec<(u64, Part)> {
    let at = |s: Option<f64>, part| s.map(|s| ((s * 1_000.0) as u64, part));
    let both = [at(options.kill_backend_at_s, Part::Backend), at(options.kill_gateway_at_s, Part::Gateway)];
    let mut kills: Vec<_> = both.into_iter().flatten().collect();
    kills.sort_by_key(|kill| kill.0);
    kills
}

/// What is yet to come, but for what was refused.
fn left(shared: &Shared) -> u64 {
    let outstanding = shared.checker().outstanding();
    let refused = shared.refused.load(Ordering::Relaxed);
    outstanding.acknowledgements.saturating_sub(refused) + outstanding.deliveries + outstanding.own
}

/// Says once a second that one is over.
pub(crate) struct Second(std::time::Instant);

impl Second {
    pub fn new() -> Self {
        Self(std::time::Instant::now())
    }

    pub fn is_over(&mut self) -> bool {
        let over = self.0.elapsed().as_millis() >= 1_000;
        if over {
            self.0 = std::time::Instant::now();
        }
        over
    }
}
