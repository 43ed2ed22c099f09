//! The course of a chat: connect, make groups, find the rate, load with kills, drain, judge.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use proto_wire::phone::PhoneConfig;

use super::report::{ChatReport, Kill, Latencies, PartCost, ServerCosts, Trial};
use super::talkers::{Judge, Load, Shared, Talkers};
use crate::check::Outstanding;
use crate::fleet::{Fleet, FleetConfig, FleetError, Receive, Totals, wait_until};
use crate::latency::Percentiles;
use crate::limits;
use crate::mixed::{self, MixOptions};
use crate::report::{Generator, Progress, SCHEMA, share};
use crate::servers::{Part, Usage};
use crate::session::{Place, RunError, Session};
use crate::workload::Population;

#[derive(Debug, Clone)]
pub struct ChatOptions {
    pub clients: u32,
    pub seconds: u64,
    /// None: 70 % of the highest that holds, or 2 000 with a kill.
    pub rate: Option<f64>,
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

/// The share of the highest rate that the measured load has.
const SHARE_OF_HIGHEST: f64 = 0.7;

struct Chat<'a> {
    options: &'a ChatOptions,
    session: Session,
    fleet: Fleet<Talkers>,
    shared: Arc<Shared>,
    progress: Progress,
    kills: Vec<Kill>,
}

/// The measured load.
struct Measured {
    seconds: f64,
    counts_at_end: (u64, u64),
    before: ([Option<Usage>; 2], Totals),
    after: ([Option<Usage>; 2], Totals),
    drained_after_ms: Option<u64>,
    ack: Percentiles,
    deliver: Percentiles,
}

pub fn run(options: &ChatOptions) -> Result<ChatReport, RunError> {
    if let Some(mix) = &options.mix {
        return mixed::run(options, mix);
    }
    let mut chat = Chat::open(options)?;
    chat.connect()?;
    chat.make_groups()?;
    let has_kill = options.kill_backend_at_s.or(options.kill_gateway_at_s).is_some();
    let (rate, search) = match options.rate {
        Some(rate) => (rate, Vec::new()),
        None if has_kill => (RATE_WITH_A_KILL, Vec::new()),
        None => chat.search()?,
    };
    let measured = chat.measure(rate)?;
    chat.finish(rate, search, measured)
}

impl<'a> Chat<'a> {
    fn open(options: &'a ChatOptions) -> Result<Self, RunError> {
        let config = PhoneConfig { sync_on_connect: false, ..PhoneConfig::default() };
        let session = Session::open(&options.place, options.clients, 64, config)?;
        let population = Arc::new(Population::new(options.clients, options.place.seed));
        let shared = Arc::new(Shared::new(population, session.who.run, options.text_bytes));
        let config = FleetConfig {
            target: session.servers.target,
            phones: options.clients,
            receive: Receive::Armed,
            cores: session.cores.bench.clone(),
            threads: session.cores.bench.len().max(1),
            clock: session.clock,
            gather_us: GATHER_US,
        };
        let fleet = Fleet::start(&config, |range| Talkers::new(&session.who, &shared, range, GATHER_US))?;
        Ok(Self { options, session, fleet, shared, progress: Progress::new(), kills: Vec::new() })
    }

    fn connect(&mut self) -> Result<(), RunError> {
        let asked = u64::from(self.options.clients);
        self.fleet.connect(self.options.clients);
        let within_ms = limits::SETUP_WITHIN_MS + asked / 2;
        let (fleet, progress) = (&self.fleet, &mut self.progress);
        let mut second = Second::new();
        let done = wait_until(fleet, within_ms, || {
            let totals = fleet.totals();
            if second.is_over() {
                progress.line(&format!("connecting: {} of {asked} welcomed", totals.welcomed));
            }
            totals.up >= asked
        });
        if done { Ok(()) } else { Err(self.fail("not all phones were welcomed")) }
    }

    /// Makes all groups, and waits until every member knows of its own.
    fn make_groups(&mut self) -> Result<(), RunError> {
        let groups = self.shared.population.groups();
        let members: u64 = groups.iter().map(|group| group.members.len() as u64).sum();
        self.shared.make_groups.store(true, Ordering::Relaxed);
        let (fleet, shared, progress) = (&self.fleet, &self.shared, &mut self.progress);
        let mut second = Second::new();
        let count = groups.len();
        let made = wait_until(fleet, limits::GROUPS_WITHIN_MS, || {
            let made = shared.group_ids.iter().filter(|id| id.load(Ordering::Relaxed) != 0).count();
            if second.is_over() {
                progress.line(&format!("making groups: {made} of {count}"));
            }
            made == count
        });
        if !made {
            return Err(self.fail("not all groups were made"));
        }
        let ids = shared.group_ids.iter().enumerate();
        let by_id = ids.map(|(index, id)| (id.load(Ordering::Relaxed), index as u32)).collect();
        let _ = shared.group_of_id.set(by_id);
        let told = wait_until(fleet, limits::GROUPS_WITHIN_MS, || {
            let told = shared.group_states.load(Ordering::Relaxed);
            if second.is_over() {
                progress.line(&format!("telling members: {told} of {members}"));
            }
            told >= members
        });
        if told {
            return Ok(());
        }
        let told = self.shared.group_states.load(Ordering::Relaxed);
        Err(self.fail(&format!("only {told} of {members} members were told of their groups")))
    }

    /// Doubles the rate until it does not hold, then halves the distance.
    fn search(&mut self) -> Result<(f64, Vec<Trial>), RunError> {
        let mut trials = Vec::new();
        let (mut held, mut failed) = (None, None);
        let mut rate = limits::SEARCH_FROM;
        while failed.is_none() && rate < limits::SEARCH_TO {
            let trial = self.trial(rate)?;
            if trial.held {
                held = Some(rate);
                rate *= 2.0;
            } else {
                failed = Some(rate);
            }
            trials.push(trial);
        }
        if let (Some(mut low), Some(mut high)) = (held, failed) {
            for _ in 0..limits::SEARCH_STEPS {
                let middle = (low + high) / 2.0;
                let trial = self.trial(middle)?;
                if trial.held {
                    low = middle
                } else {
                    high = middle
                }
                trials.push(trial);
            }
            held = Some(low);
        }
        let rate = held.unwrap_or(limits::SEARCH_FROM) * SHARE_OF_HIGHEST;
        Ok((rate, trials))
    }

    fn trial(&mut self, rate: f64) -> Result<Trial, RunError> {
        self.begin(rate, limits::TRIAL_MS);
        self.run_for(limits::TRIAL_MS, &format!("trying {rate:.0} a second"), false)?;
        let acknowledged = self.shared.judge().checker.phase().acknowledged;
        let in_time = self.drain(limits::TRIAL_DRAIN_MS);
        let left = in_time.map_or_else(|| self.left(), |_| 0);
        let Judge { ack, deliver, .. } = &*self.shared.judge();
        let (ack_p99_ms, deliver_p99_ms) = (ack.p99_ms(), deliver.p99_ms());
        let late_starts = self.shared.late_starts.load(Ordering::Relaxed);
        let slow = ack_p99_ms.max(deliver_p99_ms) > limits::TRIAL_P99_MS as f64;
        let trial = Trial {
            rate,
            // A late start is in the latency already.
            held: left == 0 && !slow,
            acknowledged_per_second: acknowledged as f64 * 1e3 / limits::TRIAL_MS as f64,
            ack_p99_ms,
            deliver_p99_ms,
            left,
            late_starts,
        };
        let told = if trial.held { "holds" } else { "does not hold" };
        self.progress.say(&format!(
            "{rate:.0} a second {told}: p99 {ack_p99_ms:.0} ms to the acknowledgement, {deliver_p99_ms:.0} ms to the \
             delivery, {left} left after 1 s, {late_starts} late starts"
        ));
        Ok(trial)
    }

    fn measure(&mut self, rate: f64) -> Result<Measured, RunError> {
        // What a failed trial left behind is no part of this.
        if self.drain(3 * limits::DELIVERED_WITHIN_MS).is_none() {
            self.progress.say("what came before is not all delivered; the load begins all the same");
        }
        let before = (self.session.usage(), self.fleet.totals());
        self.session.watch_others();
        let from_us = self.begin(rate, self.options.seconds * 1_000);
        self.run_for(self.options.seconds * 1_000, "chatting", true)?;
        let seconds = (self.session.clock.now_us() - from_us) as f64 / 1e6;
        let totals = self.fleet.totals();
        self.session.note_others();
        let counts_at_end = {
            let judge = self.shared.judge();
            (judge.checker.phase().acknowledged, judge.checker.phase().delivered)
        };
        let drained_after_ms = self.drain(limits::DELIVERED_WITHIN_MS);
        let after = (self.session.usage(), totals);
        // What comes twice comes late.
        wait_until(&self.fleet, limits::QUIET_MS, || false);
        if crate::signals::interrupted() {
            return Err(RunError::Interrupted);
        }
        let judge = self.shared.judge();
        let (ack, deliver) = (judge.ack.percentiles(), judge.deliver.percentiles());
        Ok(Measured { seconds, counts_at_end, before, after, drained_after_ms, ack, deliver })
    }

    fn begin(&self, rate: f64, for_ms: u64) -> u64 {
        let from_us = self.session.clock.now_us();
        let until_us = from_us + for_ms * 1_000;
        let seed = self.options.place.seed.wrapping_add(from_us);
        self.shared.begin(Load { number: 0, rate, from_us, until_us, seed });
        from_us
    }

    /// Lets the load run, tells of it every second, and kills when it is time.
    fn run_for(&mut self, for_ms: u64, what: &str, with_kills: bool) -> Result<(), RunError> {
        let began_ms = self.session.clock.now_ms();
        let mut due = if with_kills { planned_kills(self.options) } else { Vec::new() };
        let mut second = Second::new();
        let mut last = (0, 0);
        loop {
            let elapsed_ms = self.session.clock.now_ms() - began_ms;
            if elapsed_ms >= for_ms {
                return Ok(());
            }
            if let Some(&(at_ms, part)) = due.first()
                && elapsed_ms >= at_ms
            {
                due.remove(0);
                self.kill(part, elapsed_ms)?;
            }
            if second.is_over() {
                last = self.tell(what, elapsed_ms, last);
            }
            let next_ms = due.first().map_or(for_ms, |kill| kill.0.min(for_ms));
            let sleep_ms = next_ms.saturating_sub(elapsed_ms).clamp(1, 20);
            std::thread::sleep(std::time::Duration::from_millis(sleep_ms));
            if crate::signals::interrupted() {
                return Err(RunError::Interrupted);
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
    fn drain(&mut self, within_ms: u64) -> Option<u64> {
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
        self.shared.judge().checker.outstanding()
    }

    fn left(&self) -> u64 {
        left(&self.shared)
    }

    fn tell(&mut self, what: &str, elapsed_ms: u64, last: (u64, u64)) -> (u64, u64) {
        let (counts, outstanding, ack, deliver) = {
            let judge = self.shared.judge();
            let checker = &judge.checker;
            (*checker.phase(), checker.outstanding(), judge.ack.p99_ms(), judge.deliver.p99_ms())
        };
        let now = (counts.acknowledged, counts.delivered);
        let up = self.fleet.totals().up;
        self.progress.line(&format!(
            "{what}: {} s, {up} up, {}/s acknowledged, {}/s delivered, {} unanswered, {} on their way, p99 {ack:.0} ms \
             and {deliver:.0} ms",
            elapsed_ms / 1_000,
            now.0.saturating_sub(last.0),
            now.1.saturating_sub(last.1),
            outstanding.acknowledgements,
            outstanding.deliveries,
        ));
        now
    }

    fn fail(&mut self, what: &str) -> RunError {
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
        let phase = *shared.judge().checker.phase();
        let population = shared.population;
        let judge = shared.judge.into_inner().map_err(|_| FleetError::Panicked)?;
        let tally = shared.tally.into_inner().map_err(|_| FleetError::Panicked)?;
        let verdict = judge.checker.finish();
        let wrong = verdict.counts;
        let (starts, late) = (shared.starts.into_inner(), shared.late_starts.into_inner());
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
            latency_ms: Latencies { ack: measured.ack, deliver: measured.deliver },
            drained_after_ms: measured.drained_after_ms,
            server: ServerCosts { gateway: part(0), backend: part(1) },
            kills: self.kills,
            highest_rate: highest,
            search,
            connections_lost: lost,
            generator: Generator::judge(threads, &measured.before.1, &measured.after.1, starts, late),
            complaints: verdict.complaints,
            first_bad: tally.first_bad,
            seed: self.options.place.seed,
            groups,
            host: self.session.host.clone(),
            kinds: None,
            state: None,
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
    let outstanding = shared.judge().checker.outstanding();
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
