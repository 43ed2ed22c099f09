//! What does a connection cost that only beats? N authenticated phones of N users.
//!
//! Method: some warm-up phones (1 000, of users of their own) come, stand, and go; what the gateway holds then is its
//! base. All phones connect, as fast as they are welcomed. From the last WELCOME on they are held for S seconds, and
//! longer when a phone has not beaten by then: every phone has one beat answered after the last connect.
//!
//! - user bytes a connection: (RSS with all held - RSS after the warm-up) / N, of gateway and of backend.
//! - kernel bytes a connection: what the whole machine's kernel holds with all held, minus with the warm-up held, by
//!   the connections between. Both ends are in it when both are on this machine.
//! - CPU a heartbeat: the gateway's from the last WELCOME to the end, by the beats answered in that time.
//! - latency of a heartbeat: from when it was due, by the phone's own timer, until its answer.
//! - then one notice for everybody (see [`crate::broadcast`]).

mod report;

use std::thread;
use std::time::Duration;

use crate::fleet::{Totals, wait_until};
use crate::limits;
use crate::measure::Phase;
use crate::servers::Usage;
use crate::session::{Place, RunError, Session};
use crate::standing::{self, Broadcast, Stand};

pub use report::{BackendCost, HoldReport, ServerCost};

#[derive(Debug, Clone)]
pub struct HoldOptions {
    pub connections: u32,
    pub seconds: u64,
    /// None: half of the time held, so that every phone beats, and at most what the gateway asks for.
    pub heartbeat_s: Option<u32>,
    pub place: Place,
}

pub fn run(options: &HoldOptions) -> Result<HoldReport, RunError> {
    let heartbeat_s = standing::heartbeat_s(options.heartbeat_s, options.seconds);
    let (asked, warm_up) = (options.connections, options.connections.min(limits::WARM_UP_CONNECTIONS));
    // The rings and machines of all are there before the kernel's base is read.
    let mut stand = Stand::open("moorgate-bench hold", &options.place, asked, warm_up, heartbeat_s)?;
    let before = warm_up_and_measure(&mut stand, warm_up)?;
    let connected = stand.connect()?;
    let held = hold(&mut stand, options.seconds * 1_000, heartbeat_s);
    let broadcast = (!held.ended_early).then(|| tell_everybody(&mut stand));
    let (connections, threads) = (stand.connections(), stand.fleet.threads());
    let heartbeats = stand.heartbeats(&connected.totals, &held.totals, held.phase);
    stand.progress.end();
    let Stand { mut session, fleet, recorded, .. } = stand;
    fleet.stop()?;
    let rss_after_all_left = rss_after_all_left(&mut session);
    let run = Run {
        heartbeat_s,
        before,
        connected,
        held,
        broadcast,
        connections,
        heartbeats,
        threads,
        rss_after_all_left,
    };
    Ok(HoldReport::of(run, &session, recorded))
}

/// All that a run gave.
struct Run {
    heartbeat_s: u32,
    before: Before,
    connected: standing::Connected,
    held: Held,
    broadcast: Option<Broadcast>,
    connections: standing::Connections,
    heartbeats: standing::Heartbeats,
    threads: usize,
    rss_after_all_left: Option<u64>,
}

/// What there was before the phones came.
struct Before {
    warm_up: u32,
    rss: [Option<u64>; 2],
    /// With the warm-up held.
    kernel: Option<tuning::MachineMemory>,
}

/// The time in which all stood.
struct Held {
    phase: Phase,
    seconds: f64,
    ended_early: bool,
    totals: Totals,
    cpu_us: Option<u64>,
    usage: [Option<Usage>; 2],
    kernel: Option<tuning::MachineMemory>,
}

fn warm_up_and_measure(stand: &mut Stand, count: u32) -> Result<Before, RunError> {
    stand.progress.line(&format!("warm-up: {count} connections come and go"));
    let fleet = stand.others(count)?;
    fleet.connect(count);
    let all = wait_until(&fleet, limits::SETUP_WITHIN_MS, || fleet.totals().up >= u64::from(count));
    if !all {
        let (trouble, totals) = (fleet.trouble(), fleet.totals());
        fleet.stop()?;
        let what = format!("only {} of {count} phones of the warm-up were welcomed", totals.welcomed);
        return Err(stand.session.explain(&what, trouble));
    }
    thread::sleep(Duration::from_millis(limits::SETTLE_MS));
    let kernel = tuning::machine_memory().ok();
    fleet.stop()?;
    thread::sleep(Duration::from_millis(limits::SETTLE_MS));
    let rss = stand.session.usage().map(|usage| Some(usage?.rss_bytes));
    Ok(Before { warm_up: count, rss, kernel })
}

/// Until the time is up and every phone has beaten; a phone that cannot is waited for one interval more.
fn hold(stand: &mut Stand, for_ms: u64, heartbeat_s: u32) -> Held {
    stand.session.watch_gateway();
    let phase = stand.begin_phase("hold");
    let cpu_from_us = stand.session.usage()[0].map(|usage| usage.cpu_us);
    stand.session.watch_others();
    let (clock, began_ms) = (stand.session.clock, stand.session.clock.now_ms());
    let longest_ms = for_ms.max(u64::from(heartbeat_s) * 1_000 + limits::BEAT_LATE_MS);
    stand.stand_for("holding", began_ms, for_ms, longest_ms);
    let ended_early = crate::signals::take();
    stand.end_phase();
    stand.progress.end();
    let usage = stand.session.usage();
    let cpu_us = cpu_from_us.and_then(|from| Some(usage[0]?.cpu_us.saturating_sub(from)));
    let (seconds, totals) = ((clock.now_ms() - began_ms) as f64 / 1e3, stand.fleet.totals());
    stand.session.note_others();
    stand.session.note_gateway();
    Held { phase, seconds, ended_early, totals, cpu_us, usage, kernel: tuning::machine_memory().ok() }
}

fn tell_everybody(stand: &mut Stand) -> Broadcast {
    stand.progress.line("one notice for everybody");
    stand.begin_phase("broadcast");
    let told = stand.tell_everybody(stand.session.clock.now_us());
    stand.end_phase();
    told
}

/// The gateway's memory once all have left and it no longer falls: a million ends take it a while.
fn rss_after_all_left(session: &mut Session) -> Option<u64> {
    for _ in 0..limits::SETTLE_ROUNDS_MAX {
        if session.servers.connections().is_none_or(|left| left == 0) {
            break;
        }
        thread::sleep(Duration::from_millis(limits::SETTLE_MS));
    }
    let mut before = u64::MAX;
    for _ in 0..limits::SETTLE_ROUNDS_MAX {
        thread::sleep(Duration::from_millis(limits::SETTLE_MS));
        let now = session.usage()[0]?.rss_bytes;
        if now >= before {
            return Some(now);
        }
        before = now;
    }
    Some(before)
}
