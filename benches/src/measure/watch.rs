//! Looks once a second at what both sides use, for the timeline and for who watches.

use std::sync::Arc;
use std::time::Instant;

use super::recorder::Recorder;
use super::timeline::{Gauges, PartGauge, Point};
use crate::fleet::Totals;
use crate::servers::Usage;
use crate::session::Session;

/// What the last whole second was, for the terminal.
#[derive(Debug, Clone)]
pub struct Live {
    /// "calling", "chatting".
    pub what: String,
    pub elapsed_s: u64,
    pub of_s: u64,
    /// Connections that there should be.
    pub asked: u64,
    pub point: Point,
}

#[derive(Debug)]
pub struct Watch {
    recorder: Arc<Recorder>,
    /// The second that runs.
    second: u64,
    last: Option<Reading>,
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    at: Instant,
    servers: [Option<Usage>; 2],
    bench: Option<Usage>,
}

impl Watch {
    pub fn new(recorder: &Arc<Recorder>) -> Self {
        Self { recorder: recorder.clone(), second: 0, last: None }
    }

    /// To be called often. When a second is over, notes what stood in it, and gives what was done in it as far as the
    /// threads have handed it over: they do within a turn.
    pub fn look(&mut self, session: &mut Session, totals: Totals) -> Option<Point> {
        // Late by what a turn takes, so that the threads have seen the new second first.
        let second = session.clock.now_ms().saturating_sub(60) / 1_000;
        if second == self.second && self.last.is_some() {
            return None;
        }
        let over = std::mem::replace(&mut self.second, second);
        let now = Reading { at: Instant::now(), servers: session.usage(), bench: own_usage() };
        let before = self.last.replace(now)?;
        self.recorder.gauge(over, gauges(&before, &now, totals));
        self.recorder.second(over)
    }
}

fn gauges(before: &Reading, now: &Reading, totals: Totals) -> Gauges {
    let seconds = now.at.duration_since(before.at).as_secs_f64().max(1e-3);
    let part = |before: Option<Usage>, now: Option<Usage>| PartGauge {
        cores: before.zip(now).map(|(from, to)| to.cpu_us.saturating_sub(from.cpu_us) as f64 / 1e6 / seconds),
        rss_bytes: now.map(|usage| usage.rss_bytes),
    };
    Gauges {
        up: totals.up,
        lost: totals.lost,
        gateway: part(before.servers[0], now.servers[0]),
        backend: part(before.servers[1], now.servers[1]),
        bench: part(before.bench, now.bench),
        kernel_bytes: tuning::machine_memory().ok().map(|memory| memory.kernel),
    }
}

fn own_usage() -> Option<Usage> {
    let own = std::process::id();
    Some(Usage { cpu_us: tuning::proc_cpu_us(own).ok()?, rss_bytes: tuning::proc_memory(own).ok()? })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn cores_are_the_growth_of_cpu_time_in_the_time_that_passed() {
        let at = Instant::now();
        let usage = |cpu_us| Some(Usage { cpu_us, rss_bytes: 9 });
        let before = Reading { at, servers: [usage(1_000_000), None], bench: usage(0) };
        let later = at + Duration::from_secs(2);
        let now = Reading { at: later, servers: [usage(2_000_000), usage(5)], bench: usage(3_000_000) };
        let told = gauges(&before, &now, Totals { up: 7, lost: 1, ..Totals::default() });
        assert_eq!((told.up, told.lost, told.gateway.cores, told.bench.cores), (7, 1, Some(0.5), Some(1.5)));
        assert_eq!((told.backend.cores, told.backend.rss_bytes), (None, Some(9)), "its start was not seen");
        assert!(own_usage().is_some_and(|own| own.rss_bytes > 0));
    }
}
