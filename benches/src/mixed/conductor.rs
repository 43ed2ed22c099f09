//! The course of a mixed run: connect, make groups and contacts, load with kills, drain, judge.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use proto_wire::phone::PhoneConfig;

use super::judge::{Judge, Verdict};
use super::kinds::{Kind, Weights};
use super::mixers::{Mixers, Tally};
use super::people::People;
use super::shared::{ACK, DELIVER, Load, Shared};
use crate::chat::{
    ChatOptions, ChatReport, GATHER_US, Kill, Latencies, PartCost, Second, ServerCosts, StateReport,
    planned_kills,
};
use crate::fleet::{Fleet, FleetConfig, Receive, Totals, wait_until};
use crate::limits;
use crate::measure::{Arrival, Live, Phase, Watch};
use crate::report::{Generator, Progress, Recorded, SCHEMA, share};
use crate::servers::{Part, Usage};
use crate::session::{RunError, Session};
use crate::workload::Population;

/// What a mixed run has beyond a chat.
#[derive(Debug, Clone)]
pub struct MixOptions {
    pub weights: Weights,
    /// Devices that every tenth user has.
    pub devices: u32,
}

struct Mixed<'a> {
    options: &'a ChatOptions,
    session: Session,
    fleet: Fleet<Mixers>,
    shared: Arc<Shared>,
    progress: Progress,
    watch: Watch,
    recorded: Recorded,
    kills: Vec<Kill>,
}

/// The measured load.
struct Measured {
    phase: Phase,
    ended_early: bool,
    rate: f64,
    seconds: f64,
    before: ([Option<Usage>; 2], Totals),
    after: ([Option<Usage>; 2], Totals),
    acknowledged_at_end: u64,
    delivered_at_end: u64,
    drained_after_ms: Option<u64>,
}

pub fn run(options: &ChatOptions, mix: &MixOptions) -> Result<ChatReport, RunError> {
    let mut mixed = Mixed::open(options, mix)?;
    mixed.connect()?;
    mixed.set_up()?;
    let measured = mixed.measure(options.rate.unwrap_or(limits::MIX_RATE))?;
    mixed.finish(&measured)
}

impl<'a> Mixed<'a> {
    fn open(options: &'a ChatOptions, mix: &MixOptions) -> Result<Self, RunError> {
        let config = PhoneConfig { sync_on_connect: false, ..PhoneConfig::default() };
        let extra = options.clients.div_ceil(limits::USERS_OF_A_SECOND_DEVICE) * (mix.devices - 1);
        let session = Session::open(&options.place, options.clients + extra, 64, config)?;
        let population = Arc::new(Population::new(options.clients, options.place.seed));
        let people = People::new(session.who.clone(), population, mix.devices);
        let lines = people.lines();
        let shared = Arc::new(Shared::new(people, mix.weights.clone(), options.text_bytes));
        let config = FleetConfig {
            target: session.servers.target,
            phones: lines,
            receive: Receive::Armed,
            cores: session.cores.bench.clone(),
            threads: session.cores.bench.len().max(1),
            niceness: 0,
            clock: session.clock,
            gather_us: GATHER_US,
            sources: options.place.sources.clone(),
        };
        let seed = options.place.seed;
        let fleet = Fleet::start(&config, |range| Mixers::new(&shared, range, seed, GATHER_US))?;
        shared.recorder.begin_phase("set-up", session.clock.now_us());
        let progress = Progress::view("moorgate-bench chat --mix", options.place.no_tui);
        let watch = Watch::new(&shared.recorder);
        let recorded = Recorded { recorder: shared.recorder.clone(), began: SystemTime::now() };
        Ok(Self { options, session, fleet, shared, progress, watch, recorded, kills: Vec::new() })
    }

    fn connect(&mut self) -> Result<(), RunError> {
        let asked = u64::from(self.shared.people.lines());
        self.fleet.connect(asked as u32);
        self.wait("not all devices were welcomed", limits::SETUP_WITHIN_MS + asked / 2, |fleet, _| {
            let up = fleet.totals().up;
            (up >= asked, format!("connecting: {up} of {asked} welcomed"))
        })
    }

    /// Makes all groups and contacts, and waits until every first device knows of its own.
    fn set_up(&mut self) -> Result<(), RunError> {
        let people = self.shared.people.clone();
        let members = |index| self.shared.first_members(index).1.len() as u64;
        let memberships: u64 = (0..self.shared.group_ids.len()).map(members).sum();
        let contacts = u64::from(people.users()) * u64::from(people.population.contacts());
        self.shared.sets_up.store(true, Ordering::Relaxed);
        let within_ms = limits::GROUPS_WITHIN_MS + contacts / 2;
        self.wait("not all groups and contacts were made", within_ms, |_, shared| {
            let groups = shared.told_groups.load(Ordering::Relaxed);
            let known = shared.told_contacts.load(Ordering::Relaxed);
            let made = shared.group_ids.iter().all(|id| id.load(Ordering::Relaxed) != 0);
            let told =
                format!("setting up: {groups} of {memberships} memberships, {known} of {contacts} contacts");
            (made && groups >= memberships && known >= contacts, told)
        })?;
        self.shared.note_groups();
        self.wait("devices of a user do not agree after the set-up", within_ms, |_, shared| {
            let apart = shared.users_apart();
            (apart == 0, format!("setting up: {apart} devices are behind"))
        })
    }

    fn wait(
        &mut self,
        what: &str,
        within_ms: u64,
        mut look: impl FnMut(&Fleet<Mixers>, &Shared) -> (bool, String),
    ) -> Result<(), RunError> {
        let (fleet, shared, progress) = (&self.fleet, &self.shared, &mut self.progress);
        let (mut second, mut last) = (Second::new(), String::new());
        let done = wait_until(fleet, within_ms, || {
            let (done, told) = look(fleet, shared);
            if second.is_over() {
                progress.line(&told);
            }
            last = told;
            done
        });
        if done { Ok(()) } else { Err(self.fail(&format!("{what} ({last})"))) }
    }

    fn measure(&mut self, rate: f64) -> Result<Measured, RunError> {
        self.session.watch_gateway();
        let before = (self.session.usage(), self.fleet.totals());
        let delivered_before = self.shared.delivered.load(Ordering::Relaxed);
        self.session.watch_others();
        let from_us = self.session.clock.now_us();
        let for_ms = self.options.seconds * 1_000;
        let _ = self.shared.load.set(Load { rate, from_us, until_us: from_us + for_ms * 1_000 });
        let phase = self.shared.recorder.begin_phase("load", from_us);
        let ended_early = self.run_for(for_ms)?;
        self.shared.is_over.store(ended_early, Ordering::Relaxed);
        self.shared.recorder.end_phase(self.session.clock.now_us());
        let seconds = (self.session.clock.now_us() - from_us) as f64 / 1e6;
        let totals = self.fleet.totals();
        self.session.note_others();
        let acknowledged_at_end = self.shared.model().total().acknowledged;
        let delivered_at_end = self.shared.delivered.load(Ordering::Relaxed) - delivered_before;
        let drained_after_ms = self.drain();
        self.shared.recorder.gather();
        let after = (self.session.usage(), totals);
        self.session.note_gateway();
        Ok(Measured {
            phase,
            ended_early,
            rate,
            seconds,
            before,
            after,
            acknowledged_at_end,
            delivered_at_end,
            drained_after_ms,
        })
    }

    /// Lets the load run, tells of it every second, and kills when it is time. True: it was ended early.
    fn run_for(&mut self, for_ms: u64) -> Result<bool, RunError> {
        let began_ms = self.session.clock.now_ms();
        let mut due = planned_kills(self.options);
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
            if let Some(point) = self.watch.look(&mut self.session, self.fleet.totals()) {
                let (total, out) =
                    (self.shared.model().total(), self.shared.in_flight.load(Ordering::Relaxed));
                let what = format!("mixing, {out} unanswered, {} refused", total.refused);
                let (elapsed_s, of_s) = ((elapsed_ms + 500) / 1_000, for_ms.div_ceil(1_000));
                let asked = u64::from(self.shared.people.lines());
                self.progress.second(&Live { what, elapsed_s, of_s, asked, point });
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
            if crate::signals::take() {
                return Ok(true);
            }
            if self.fleet.has_failed() || self.session.servers.ended().is_some() {
                return Err(self.fail("a part of the run ended"));
            }
        }
    }

    fn kill(&mut self, part: Part, elapsed_ms: u64) -> Result<(), RunError> {
        let in_flight = self.shared.in_flight.load(Ordering::Relaxed);
        let began_ms = self.session.clock.now_ms();
        self.session.servers.kill_and_restart(part)?;
        let ready_after_ms = self.session.clock.now_ms() - began_ms;
        self.progress.say(&format!(
            "killed {} with {in_flight} changes in flight; ready again after {ready_after_ms} ms",
            part.name()
        ));
        let at_s = elapsed_ms as f64 / 1e3;
        self.kills.push(Kill { part: part.name(), at_s, in_flight, ready_after_ms });
        Ok(())
    }

    /// Waits until all is answered, all devices of a user are equally far, and nothing more comes. Nobody is made to
    /// sync. Gives when the last change came; none: not in time.
    fn drain(&mut self) -> Option<u64> {
        let (clock, began_us) = (self.session.clock, self.session.clock.now_us());
        let within_ms = 2 * limits::DELIVERED_WITHIN_MS;
        let done = self.wait("", within_ms, |_, shared| {
            let out = shared.in_flight.load(Ordering::Relaxed);
            let apart = shared.users_apart();
            let last_us = shared.last_page_us.load(Ordering::Relaxed).max(began_us);
            let is_quiet = clock.now_us() > last_us + limits::MIX_QUIET_MS * 1_000;
            let told = format!("waiting for the rest: {out} unanswered, {apart} devices are behind");
            (out == 0 && apart == 0 && is_quiet, told)
        });
        let last_us = self.shared.last_page_us.load(Ordering::Relaxed);
        done.ok().map(|()| last_us.saturating_sub(began_us) / 1_000)
    }

    fn fail(&mut self, what: &str) -> RunError {
        let trouble = self.fleet.trouble();
        self.progress.end();
        self.session.explain(what, trouble)
    }

    fn finish(mut self, measured: &Measured) -> Result<ChatReport, RunError> {
        self.progress.end();
        let (threads, lost) = (self.fleet.threads(), self.fleet.totals().lost);
        let mixers = self.fleet.stop()?;
        let empty = Default::default();
        let statics = self.shared.statics.get().unwrap_or(&empty);
        let changing = self.shared.changing.get().unwrap_or(&empty);
        let model = self.shared.model();
        let owners = mixers.iter().flat_map(|mixers| &mixers.owners);
        let verdict = Judge::new(&self.shared.people, &model, statics, changing, owners).judge();
        let tally = sum(mixers.iter().map(|mixers| &mixers.tally));
        let total = model.total();
        let kinds: BTreeMap<_, _> = Kind::ALL.iter().map(|&kind| (kind.name(), model.count(kind))).collect();
        let part = |at: usize| {
            let cpu_us = measured.before.0[at]
                .and_then(|from| Some(measured.after.0[at]?.cpu_us.saturating_sub(from.cpu_us)));
            PartCost {
                cpu_us_per_message: share(cpu_us, total.acknowledged),
                rss_bytes: measured.after.0[at].map(|usage| usage.rss_bytes),
                cores_used: cpu_us.map(|us| us as f64 / 1e6 / measured.seconds),
            }
        };
        let mut groups = BTreeMap::new();
        for group in self.shared.people.population.groups() {
            *groups.entry(format!("of {}", group.members.len())).or_default() += 1;
        }
        groups.insert("changing".to_owned(), changing.len());
        let state = state_of(&self.shared.people, &verdict, &tally);
        let recorder = &self.shared.recorder;
        let counts = recorder.counts(ACK, measured.phase);
        let percentiles = |op| recorder.latency(op, measured.phase).percentiles();
        let complaints = [&model.complaints, &tally.complaints, &verdict.complaints].into_iter().flatten();
        Ok(ChatReport {
            schema: SCHEMA,
            command: "chat",
            clients: self.options.clients,
            seconds: measured.seconds,
            sent: total.sent,
            acknowledged: total.acknowledged,
            delivered: self.shared.delivered.load(Ordering::Relaxed),
            duplicates: tally.duplicates + verdict.count("duplicates"),
            gaps: tally.gaps,
            missing: verdict.count("missing"),
            out_of_order: tally.out_of_order,
            disagreements: verdict.count("disagreements"),
            misdelivered: tally.strange + verdict.count("misdelivered"),
            own_missing: verdict.count("own_missing"),
            unacknowledged: model.outstanding,
            repeats: tally.repeats,
            bad_pages: tally.bad_pages,
            snapshots: tally.snapshots,
            syncs_failed: tally.syncs_failed,
            refused: model.badly_refused,
            rate: measured.rate,
            acknowledged_per_second: measured.acknowledged_at_end as f64 / measured.seconds,
            deliveries_per_second: measured.delivered_at_end as f64 / measured.seconds,
            latency_ms: Latencies { ack: percentiles(ACK), deliver: percentiles(DELIVER) },
            drained_after_ms: measured.drained_after_ms,
            server: ServerCosts { gateway: part(0), backend: part(1) },
            gateway: self.session.told.clone(),
            kills: self.kills.clone(),
            highest_rate: None,
            search: Vec::new(),
            connections_lost: lost,
            generator: Generator::judge(
                threads,
                &measured.before.1,
                &measured.after.1,
                counts.starts,
                counts.late,
            ),
            complaints: complaints.take(limits::COMPLAINTS_MAX).cloned().collect(),
            statuses: tally.statuses,
            first_bad: tally.first_bad,
            seed: self.options.place.seed,
            groups,
            host: self.session.host.clone(),
            ended_early: measured.ended_early,
            arrival: Arrival::Poisson,
            dropped_starts: 0,
            measured: Some(recorder.measured()),
            recorded: Some(self.recorded),
            kinds: Some(kinds),
            state: Some(state),
        })
    }
}

fn state_of(people: &People, verdict: &Verdict, tally: &Tally) -> StateReport {
    StateReport {
        users: people.users(),
        devices: people.lines(),
        differ: verdict.total(),
        by_check: verdict.wrong.iter().map(|(&check, &count)| (check.to_owned(), count)).collect(),
        typing_seen: tally.typing_seen,
    }
}

fn sum<'a>(all: impl Iterator<Item = &'a Tally>) -> Tally {
    let mut sum = Tally::default();
    for one in all {
        sum.duplicates += one.duplicates;
        sum.out_of_order += one.out_of_order;
        sum.strange += one.strange;
        sum.gaps += one.gaps;
        sum.bad_pages += one.bad_pages;
        sum.repeats += one.repeats;
        sum.snapshots += one.snapshots;
        sum.syncs_failed += one.syncs_failed;
        sum.typing_seen += one.typing_seen;
        sum.complaints.extend_from_slice(&one.complaints);
        sum.first_bad = sum.first_bad.take().or_else(|| one.first_bad.clone());
        for (status, count) in &one.statuses {
            *sum.statuses.entry(status.clone()).or_default() += count;
        }
    }
    sum
}
