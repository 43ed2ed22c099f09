//! How fast does a notice for everybody reach everybody, again and again, and do heartbeats suffer?
//!
//! Method: N phones of N users stand and beat. R notices are asked for at fixed intervals: one request to the logic tier,
//! from there one call a gateway, to each phone an EVENT frame. Latency counts from when a notice was to be asked for
//! until a phone has it, so a notice that waits for the one before it is late, not fast. Nobody may miss one or get it
//! twice, and no beat may be lost meanwhile. CPU a phone is all that the gateway used from the request until the last
//! phone had it, its beats included, by the phones.

mod report;

use std::time::Duration;

use crate::fleet::Totals;
use crate::limits;
use crate::measure::{Phase, Tape};
use crate::session::{Place, RunError};
use crate::standing::{self, Broadcast, NOTICE, Stand};

pub use report::{BroadcastReport, GatewayMemory, Round};

#[derive(Debug, Clone)]
pub struct BroadcastOptions {
    pub connections: u32,
    pub rounds: u32,
    pub interval: Duration,
    /// None: half of the time of all rounds, so that every phone beats.
    pub heartbeat_s: Option<u32>,
    pub place: Place,
}

impl BroadcastOptions {
    fn interval_us(&self) -> u64 {
        self.interval.as_micros() as u64
    }
}

pub fn run(options: &BroadcastOptions) -> Result<BroadcastReport, RunError> {
    let in_all_s = (options.interval * options.rounds).as_secs();
    let heartbeat_s = standing::heartbeat_s(options.heartbeat_s, in_all_s);
    let title = "moorgate-bench broadcast";
    let mut stand = Stand::open(title, &options.place, options.connections, limits::ROOMS, heartbeat_s)?;
    let connected = stand.connect()?;
    let told = tell_rounds(&mut stand, options, heartbeat_s);
    let (connections, threads) = (stand.connections(), stand.fleet.threads());
    let heartbeats = stand.heartbeats(&connected.totals, &told.totals, told.phase);
    stand.progress.end();
    let Stand { session, fleet, recorded, .. } = stand;
    fleet.stop()?;
    let run = Run { heartbeat_s, connected, told, connections, heartbeats, threads };
    Ok(BroadcastReport::of(options, run, &session, recorded))
}

/// All that a run gave.
struct Run {
    heartbeat_s: u32,
    connected: standing::Connected,
    told: Told,
    connections: standing::Connections,
    heartbeats: standing::Heartbeats,
    threads: usize,
}

/// The rounds, and the time in which they were.
struct Told {
    phase: Phase,
    rounds: Vec<(Round, Broadcast)>,
    seconds: f64,
    ended_early: bool,
    rss_bytes_before: Option<u64>,
    totals: Totals,
}

fn tell_rounds(stand: &mut Stand, options: &BroadcastOptions, heartbeat_s: u32) -> Told {
    stand.session.watch_gateway();
    let phase = stand.begin_phase("rounds");
    let rss_bytes_before = stand.session.usage()[0].map(|usage| usage.rss_bytes);
    stand.session.watch_others();
    let (clock, began_us) = (stand.session.clock, stand.session.clock.now_us());
    let began_ms = began_us / 1_000;
    let mut rounds = Vec::new();
    for number in 1..=options.rounds {
        let intended_us = began_us + u64::from(number) * options.interval_us();
        let for_ms = (intended_us - began_us) / 1_000;
        let what = format!("round {number} of {}", options.rounds);
        stand.stand_for(&what, began_ms, for_ms, for_ms);
        if stand.fleet.has_failed() || crate::signals::interrupted() {
            break;
        }
        rounds.push(tell_round(stand, intended_us, began_us));
    }
    // Every phone beats once, also where all rounds were over before an interval was.
    let for_ms = clock.now_ms() - began_ms;
    let longest_ms = for_ms.max(u64::from(heartbeat_s) * 1_000 + limits::BEAT_LATE_MS);
    stand.stand_for("the last beats", began_ms, for_ms, longest_ms);
    let ended_early = crate::signals::take();
    stand.end_phase();
    stand.session.note_others();
    stand.session.note_gateway();
    let (seconds, totals) = ((clock.now_us() - began_us) as f64 / 1e6, stand.fleet.totals());
    Told { phase, rounds, seconds, ended_early, rss_bytes_before, totals }
}

fn tell_round(stand: &mut Stand, intended_us: u64, began_us: u64) -> (Round, Broadcast) {
    let now_us = stand.session.clock.now_us();
    // What is handed over here counts in the phase; the tape may not outlive the round, or whoever gathers waits for it.
    let mut tape = Tape::new(&stand.recorded.recorder);
    tape.tick(now_us);
    tape.starts(NOTICE, intended_us, now_us, stand.fleet.totals().up);
    drop(tape);
    let told = stand.tell_everybody(intended_us);
    let late_ms = now_us.saturating_sub(intended_us) as f64 / 1e3;
    let round = Round::of((intended_us - began_us) as f64 / 1e6, late_ms, &told);
    let seconds = round.seconds;
    stand.progress.say(&format!(
        "{} of {} phones had it after {seconds:.3} s{}",
        told.delivered,
        told.asked,
        if round.is_late() { format!("; it was asked for {late_ms:.0} ms late") } else { String::new() }
    ));
    (round, told)
}
