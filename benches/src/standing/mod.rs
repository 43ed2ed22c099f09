//! Phones that only stand: they beat, hear notices for everybody, and come back when they are cut. What `hold` and
//! `broadcast` are made of.

mod notice;
mod phones;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, SystemTime};

use proto_wire::phone::PhoneConfig;
use serde::Serialize;

use crate::fleet::{Fleet, FleetConfig, Receive, Totals, wait_until};
use crate::identity::Identities;
use crate::latency::Percentiles;
use crate::limits;
use crate::measure::{Live, Phase, Recorder, Watch};
use crate::report::{Progress, Recorded};
use crate::session::{Place, RunError, Session};

pub use notice::Broadcast;
pub use phones::{BEAT, NOTICE, OPERATIONS, Shared, Standing};

/// The phones, connected or not, and what they stand on.
pub struct Stand {
    pub session: Session,
    pub fleet: Fleet<Standing>,
    pub shared: Arc<Shared>,
    pub progress: Progress,
    pub watch: Watch,
    pub recorded: Recorded,
    pub asked: u32,
    place: Place,
    config: PhoneConfig,
}

#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Connections {
    pub asked: u32,
    /// Welcomed and standing at the end.
    pub held: u64,
    /// Ends after WELCOME, whether the phone came back or not.
    pub lost: u64,
    /// Attempts that ended before WELCOME, and were made again.
    pub failed_attempts: u64,
    /// What ended the first that ended.
    pub trouble: Option<String>,
}

#[derive(Debug, Clone, Copy, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Setup {
    pub per_second: f64,
    pub seconds: f64,
}

#[derive(Debug, Clone, Copy, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Heartbeats {
    /// After the last connect.
    pub answered: u64,
    /// Phones of which none was answered after the last connect: 0 in a good run.
    pub phones_without: u64,
    /// Beats that were due and whose connection ended before their answer.
    pub lost: u64,
    /// From when a beat was due until its answer. A phone's next beat is due an interval after it last spoke.
    pub latency_ms: Percentiles,
}

/// The phones as they stood when the last had come.
pub struct Connected {
    pub totals: Totals,
    pub setup: Setup,
}

/// The interval of phones that shall beat in a time: half of it, so that every phone does, and at most what the gateway
/// asks for.
pub fn heartbeat_s(given: Option<u32>, seconds: u64) -> u32 {
    given.unwrap_or((seconds / 2).clamp(1, 240) as u32).max(1)
}

impl Stand {
    /// `rooms`: connections that the gateway must have room for beyond `asked`. Rings and machines are there, and
    /// nothing connects yet.
    pub fn open(
        title: &str,
        place: &Place,
        asked: u32,
        rooms: u32,
        heartbeat_s: u32,
    ) -> Result<Self, RunError> {
        let config = PhoneConfig {
            heartbeat_override_ms: Some(heartbeat_s * 1_000),
            sync_on_connect: false,
            ..PhoneConfig::default()
        };
        let session = Session::open(place, asked, rooms, config.clone())?;
        let progress = Progress::view(title, place.no_tui);
        let recorder = Arc::new(Recorder::new(&OPERATIONS));
        let recorded = Recorded { recorder: recorder.clone(), began: SystemTime::now() };
        let watch = Watch::new(&recorder);
        recorder.begin_phase("warm-up", session.clock.now_us());
        let shared = Arc::new(Shared::new(recorder));
        let start = |range| Standing::new(&session.who, &shared, range);
        let fleet = Fleet::start(&fleet_config(&session, place, asked), start)?;
        let place = place.clone();
        Ok(Self { session, fleet, shared, progress, watch, recorded, asked, place, config })
    }

    /// Other phones, of users of their own, who do the same and leave no trace in what is recorded.
    pub fn others(&self, count: u32) -> Result<Fleet<Standing>, RunError> {
        let issuer = self.session.servers.issuer.clone();
        let who = Identities::new(issuer, Identities::fresh_run(), 1, self.config.clone());
        let recorder = Arc::new(Recorder::new(&OPERATIONS));
        recorder.begin_phase("warm-up", 0);
        let shared = Arc::new(Shared::new(recorder));
        let start = |range| Standing::new(&who, &shared, range);
        Ok(Fleet::start(&fleet_config(&self.session, &self.place, count), start)?)
    }

    pub fn begin_phase(&self, name: &str) -> Phase {
        self.recorded.recorder.begin_phase(name, self.session.clock.now_us())
    }

    pub fn end_phase(&self) {
        self.recorded.recorder.end_phase(self.session.clock.now_us());
    }

    /// Connects all, as fast as they are welcomed. From here on beats count.
    pub fn connect(&mut self) -> Result<Connected, RunError> {
        let (asked, began_us) = (u64::from(self.asked), self.session.clock.now_us());
        self.begin_phase("connect");
        self.fleet.connect(self.asked);
        let (fleet, session, watch, progress) =
            (&self.fleet, &mut self.session, &mut self.watch, &mut self.progress);
        wait_until(fleet, limits::SETUP_WITHIN_MS + asked / 2, || {
            let totals = fleet.totals();
            if watch.look(session, totals).is_some() {
                let (welcomed, failed) = (totals.welcomed, totals.failed);
                progress
                    .line(&format!("connecting: {welcomed} of {asked} welcomed, {failed} failed attempts"));
            }
            totals.welcomed >= asked
        });
        let totals = self.fleet.totals();
        if totals.welcomed == 0 || self.fleet.has_failed() {
            return Err(self.fail("no phone was welcomed"));
        }
        self.shared.all_here.store(true, Ordering::Relaxed);
        let took_us = totals.last_welcome_us.saturating_sub(began_us).max(1) as f64;
        let setup = Setup { per_second: totals.welcomed as f64 * 1e6 / took_us, seconds: took_us / 1e6 };
        Ok(Connected { totals, setup })
    }

    /// Stands until `for_ms` after `began_ms` and until every phone has beaten; a phone that cannot is waited for until
    /// `longest_ms`. Ends early when a thread fails or Ctrl-C comes.
    pub fn stand_for(&mut self, what: &str, began_ms: u64, for_ms: u64, longest_ms: u64) {
        let asked = u64::from(self.asked);
        loop {
            let elapsed_ms = self.session.clock.now_ms() - began_ms;
            self.tell(what, elapsed_ms, for_ms);
            let all_beat = self.shared.beaten.load(Ordering::Relaxed) >= asked;
            let is_over = elapsed_ms >= for_ms && (all_beat || elapsed_ms >= longest_ms);
            if is_over || self.fleet.has_failed() || crate::signals::interrupted() {
                return;
            }
            let left_ms = if elapsed_ms < for_ms { for_ms - elapsed_ms } else { limits::LOOK_MS };
            thread::sleep(Duration::from_millis(left_ms.min(limits::LOOK_MS)));
        }
    }

    /// One notice for everybody, and what became of it. Latencies count from `intended_us`.
    pub fn tell_everybody(&mut self, intended_us: u64) -> Broadcast {
        let (fleet, watch) = (&self.fleet, &mut self.watch);
        notice::to_all(fleet, &mut self.session, &self.shared.heard, intended_us, &mut |session| {
            watch.look(session, fleet.totals());
        })
    }

    /// Looks at what both sides use, and tells of every whole second. `what` is told with the beats so far.
    fn tell(&mut self, what: &str, elapsed_ms: u64, of_ms: u64) {
        let totals = self.fleet.totals();
        let Some(point) = self.watch.look(&mut self.session, totals) else { return };
        let beaten = self.shared.beaten.load(Ordering::Relaxed);
        let what = format!("{what}, {beaten} have beaten, {} beats answered", totals.beats_answered);
        let (elapsed_s, of_s) = (elapsed_ms / 1_000, of_ms.div_ceil(1_000));
        self.progress.second(&Live { what, elapsed_s, of_s, asked: u64::from(self.asked), point });
    }

    pub fn connections(&self) -> Connections {
        let totals = self.fleet.totals();
        Connections {
            asked: self.asked,
            held: totals.up,
            lost: totals.lost,
            failed_attempts: totals.failed,
            trouble: self.fleet.trouble(),
        }
    }

    /// What was beaten between two readings, whose latencies are those of a phase. Waits until all threads have handed over.
    pub fn heartbeats(&self, from: &Totals, to: &Totals, phase: Phase) -> Heartbeats {
        let (asked, beaten) = (u64::from(self.asked), self.shared.beaten.load(Ordering::Relaxed));
        let recorder = &self.recorded.recorder;
        recorder.gather();
        Heartbeats {
            answered: to.beats_answered - from.beats_answered,
            phones_without: asked - beaten.min(asked),
            lost: recorder.counts(BEAT, phase).errors,
            latency_ms: recorder.latency(BEAT, phase).percentiles(),
        }
    }

    pub fn fail(&mut self, what: &str) -> RunError {
        let trouble = self.fleet.trouble();
        self.progress.end();
        self.session.explain(what, trouble)
    }
}

fn fleet_config(session: &Session, place: &Place, phones: u32) -> FleetConfig {
    FleetConfig {
        target: session.servers.target,
        phones,
        receive: Receive::Poll,
        cores: session.cores.bench.clone(),
        threads: 1,
        niceness: 0,
        clock: session.clock,
        gather_us: 1_000,
        sources: place.sources.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phones_beat_twice_in_the_time_unless_told_otherwise() {
        assert_eq!([1, 30, 600, 9_999].map(|seconds| heartbeat_s(None, seconds)), [1, 15, 240, 240]);
        assert_eq!((heartbeat_s(Some(7), 600), heartbeat_s(Some(0), 600)), (7, 1));
    }
}
