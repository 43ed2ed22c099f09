//! Phones that call, and the loads that are put on them: what `call`, `find-max`, `ramp` and `soak` are made of.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use prost::Message;
use proto_wire::pb;
use proto_wire::phone::PhoneConfig;

use super::callers::{CALL, Callers, GATHER_US, Load, OPERATIONS, Pace, Shared};
use crate::fleet::{Fleet, FleetConfig, Receive, Totals, wait_until};
use crate::latency::Latency;
use crate::limits;
use crate::measure::{Counts, Live, Phase, Recorder, Watch};
use crate::report::{Generator, Progress, Recorded};
use crate::servers::Usage;
use crate::session::{Place, RunError, Session};

#[derive(Debug, Clone)]
pub struct CallSetup {
    pub clients: u32,
    pub payload_bytes: usize,
    pub place: Place,
}

/// One load to be put on the phones.
#[derive(Debug, Clone)]
pub struct CallPlan<'a> {
    /// Its name in the report.
    pub phase: &'a str,
    pub pace: Pace,
    /// The phones that call.
    pub phones: u32,
    pub for_ms: u64,
}

/// What a load gave.
#[derive(Debug)]
pub struct CallOutcome {
    pub phase: Phase,
    /// How long it lasted; less than planned when it was ended early.
    pub seconds: f64,
    pub counts: Counts,
    pub latency: Latency,
    /// Calls that had no answer long after the end.
    pub unanswered: u64,
    pub before: ([Option<Usage>; 2], Totals),
    pub after: ([Option<Usage>; 2], Totals),
    pub ended_early: bool,
}

/// The phones, connected or not.
pub struct CallBench {
    pub session: Session,
    pub progress: Progress,
    pub recorded: Recorded,
    recorder: Arc<Recorder>,
    fleet: Fleet<Callers>,
    shared: Arc<Shared>,
    watch: Watch,
    connected: u32,
    seed: u64,
}

impl CallBench {
    pub fn open(setup: &CallSetup, title: &str) -> Result<Self, RunError> {
        Self::open_beside(setup, title, 0)
    }

    /// `others`: phones that stand beside those that call. The callers go to the second gateway, where there is one, and
    /// their threads to its cores.
    pub fn open_beside(setup: &CallSetup, title: &str, others: u32) -> Result<Self, RunError> {
        let place = &setup.place;
        let config = PhoneConfig { sync_on_connect: false, ..PhoneConfig::default() };
        let session = Session::open(place, setup.clients + others, limits::ROOMS, config)?;
        let cores = place.second_gateway.clone().unwrap_or_else(|| session.cores.bench.clone());
        let recorder = Arc::new(Recorder::new(&OPERATIONS));
        recorder.begin_phase("connect", session.clock.now_us());
        let shared = Arc::new(Shared::new(recorder.clone()));
        let payload = Bytes::from(vec![b'.'; setup.payload_bytes]);
        let body = Bytes::from(pb::EchoRequest { payload }.encode_to_vec());
        let fleet_config = FleetConfig {
            target: session.servers.second.unwrap_or(session.servers.target),
            phones: setup.clients,
            receive: Receive::Armed,
            threads: cores.len().max(1),
            cores,
            niceness: 0,
            clock: session.clock,
            gather_us: GATHER_US,
            sources: place.sources.clone(),
        };
        let fleet = Fleet::start(&fleet_config, |range| Callers::new(&session.who, &shared, &body, range))?;
        let progress = Progress::view(title, place.no_tui);
        let watch = Watch::new(&recorder);
        let recorded = Recorded { recorder: recorder.clone(), began: SystemTime::now() };
        let seed = place.seed;
        Ok(Self { session, progress, recorded, recorder, fleet, shared, watch, connected: 0, seed })
    }

    /// Connects the phones below `count`, and waits until they are welcomed.
    pub fn connect(&mut self, count: u32) -> Result<(), RunError> {
        let asked = u64::from(count);
        self.connected = count;
        self.fleet.connect(count);
        let within_ms = limits::SETUP_WITHIN_MS + asked / 2;
        let (fleet, session, watch, progress) =
            (&self.fleet, &mut self.session, &mut self.watch, &mut self.progress);
        let all = wait_until(fleet, within_ms, || {
            let totals = fleet.totals();
            if watch.look(session, totals).is_some() {
                progress.line(&format!("connecting: {} of {asked} welcomed", totals.welcomed));
            }
            totals.up >= asked
        });
        if all { Ok(()) } else { Err(self.fail("not all phones were welcomed")) }
    }

    /// Puts a load on the phones, and waits until its calls are answered. Ctrl-C ends it in order.
    pub fn run(&mut self, plan: &CallPlan<'_>) -> Result<CallOutcome, RunError> {
        self.run_beside(plan, &mut |_| false)
    }

    /// The same beside something else, which is looked after meanwhile and ends the load with `true`.
    pub fn run_beside(
        &mut self,
        plan: &CallPlan<'_>,
        beside: &mut dyn FnMut(&mut Session) -> bool,
    ) -> Result<CallOutcome, RunError> {
        self.session.watch_gateway();
        let before = (self.session.usage(), self.fleet.totals());
        let from_us = self.session.clock.now_us();
        let until_us = from_us + plan.for_ms * 1_000;
        let phase = self.recorder.begin_phase(plan.phase, from_us);
        let seed = self.seed.wrapping_add(from_us);
        let load = Load { number: 0, pace: plan.pace, phones: plan.phones, from_us, until_us, seed };
        self.shared.begin(load);
        let ended_early = self.wait_for_the_end(plan, from_us, until_us, beside);
        let ended_us = self.session.clock.now_us().min(until_us);
        if ended_early {
            self.shared.end(ended_us);
        }
        self.recorder.end_phase(ended_us);
        let after = (self.session.usage(), self.fleet.totals());
        if self.fleet.has_failed() || self.session.servers.ended().is_some() {
            return Err(self.fail("a part of the run ended"));
        }
        self.session.note_gateway();
        self.drain();
        let (counts, latency) = (self.recorder.counts(CALL, phase), self.recorder.latency(CALL, phase));
        Ok(CallOutcome {
            phase,
            seconds: (ended_us - from_us).max(1) as f64 / 1e6,
            unanswered: counts.starts.saturating_sub(latency.count() + counts.errors),
            counts,
            latency,
            before,
            after,
            ended_early,
        })
    }

    /// Tells of every second meanwhile. True: it was ended early.
    fn wait_for_the_end(
        &mut self,
        plan: &CallPlan<'_>,
        from_us: u64,
        until_us: u64,
        beside: &mut dyn FnMut(&mut Session) -> bool,
    ) -> bool {
        loop {
            let now_us = self.session.clock.now_us();
            if crate::signals::take() || beside(&mut self.session) {
                return true;
            }
            if now_us >= until_us || self.fleet.has_failed() || self.session.servers.ended().is_some() {
                return false;
            }
            if let Some(point) = self.watch.look(&mut self.session, self.fleet.totals()) {
                self.progress.second(&Live {
                    what: plan.phase.to_owned(),
                    elapsed_s: (now_us - from_us + 500_000) / 1_000_000,
                    of_s: plan.for_ms.div_ceil(1_000),
                    asked: u64::from(self.connected),
                    point,
                });
            }
            thread::sleep(Duration::from_micros((until_us - now_us).clamp(1, 20_000)));
        }
    }

    /// Until every call of the load is answered, or that is given up; then all is known.
    fn drain(&mut self) {
        let (fleet, shared) = (&self.fleet, &self.shared);
        let threads = fleet.threads() as u64;
        wait_until(fleet, limits::CALL_DRAIN_MS, || shared.threads_done.load(Ordering::Acquire) >= threads);
        self.recorder.gather();
    }

    /// Whether the bench was the limit between the two readings of an outcome.
    pub fn judge(&self, outcome: &CallOutcome) -> Generator {
        let starts = outcome.counts.starts + outcome.counts.dropped;
        let late = outcome.counts.late + outcome.counts.dropped;
        Generator::judge(self.fleet.threads(), &outcome.before.1, &outcome.after.1, starts, late)
    }

    /// Answers other than `ok` so far, by name.
    pub fn errors(&self) -> std::collections::BTreeMap<String, u64> {
        let errors = self.shared.errors();
        errors
            .iter()
            .map(|(&code, &count)| (proto_wire::status::Code(code).name().to_owned(), count))
            .collect()
    }

    pub fn fail(&mut self, what: &str) -> RunError {
        let trouble = self.fleet.trouble();
        self.progress.end();
        self.session.explain(what, trouble)
    }

    /// Ends all connections; the session's servers still run.
    pub fn close(self) -> Result<(Session, Recorded, Totals), RunError> {
        let mut progress = self.progress;
        progress.end();
        let totals = self.fleet.totals();
        drop(self.fleet.stop()?);
        Ok((self.session, self.recorded, totals))
    }
}
