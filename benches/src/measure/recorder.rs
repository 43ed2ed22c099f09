//! What all threads have handed over: histograms by operation and phase, and the timeline.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use serde::Serialize;

use super::timeline::{Gauges, OpPoint, Point, Timeline, TimelineReport};
use crate::latency::{Latency, Percentiles};
use crate::limits;

/// An operation's place in the list that the recorder was made with.
pub type Op = usize;

/// A phase's place, in the order of their beginnings.
pub type Phase = usize;

/// What was counted beside latencies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub starts: u64,
    pub late: u64,
    pub dropped: u64,
    pub errors: u64,
}

/// An operation in a phase or a second.
#[derive(Debug, Clone, Default)]
pub(super) struct Cell {
    pub counts: Counts,
    pub latency: Latency,
}

impl Cell {
    pub fn is_empty(&self) -> bool {
        self.counts == Counts::default() && self.latency.count() == 0
    }

    pub fn clear(&mut self) {
        if !self.is_empty() {
            self.counts = Counts::default();
            self.latency.clear();
        }
    }

    fn add(&mut self, other: &Cell) {
        self.counts.starts += other.counts.starts;
        self.counts.late += other.counts.late;
        self.counts.dropped += other.counts.dropped;
        self.counts.errors += other.counts.errors;
        self.latency.add(&other.latency);
    }

    fn point(&self) -> OpPoint {
        let told = self.latency.percentiles();
        OpPoint {
            count: self.latency.count(),
            errors: self.counts.errors,
            late: self.counts.late,
            dropped: self.counts.dropped,
            p50_ms: told.p50,
            p99_ms: told.p99,
            max_ms: told.max,
        }
    }
}

#[derive(Debug)]
struct PhaseBoard {
    name: String,
    from_us: u64,
    until_us: Option<u64>,
    cells: Vec<Cell>,
}

/// A second that threads may still add to.
#[derive(Debug)]
struct OpenSecond {
    second: u64,
    cells: Vec<Cell>,
    gauges: Option<Gauges>,
}

#[derive(Debug, Default)]
struct Board {
    phases: Vec<PhaseBoard>,
    open: VecDeque<OpenSecond>,
    timeline: Timeline,
}

/// Shared by all threads of a run.
#[derive(Debug)]
pub struct Recorder {
    operations: Vec<&'static str>,
    board: Mutex<Board>,
    /// Counts phases, for tapes that look whether there is a new one.
    pub(super) version: AtomicU32,
    /// Tapes that write here.
    pub(super) tapes: AtomicU32,
    /// Counts how often all tapes were asked for what they have, and how many have given it since.
    pub(super) asked: AtomicU32,
    pub(super) given: AtomicU32,
}

/// When a phase was.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PhaseTime {
    pub name: String,
    /// Seconds of the run.
    pub from_s: f64,
    pub until_s: f64,
}

/// An operation in a phase.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OperationPhase {
    pub starts: u64,
    /// Starts later than 10 ms after their time. Their latency counts from the intended time all the same.
    pub late_starts: u64,
    /// Starts that were due and never made.
    pub dropped_starts: u64,
    pub done: u64,
    pub errors: u64,
    pub latency_ms: Percentiles,
    /// (share of all that were done, ms), denser towards the end.
    pub percentiles: Vec<(f64, f64)>,
}

/// What was measured, as every report has it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Measured {
    pub phases: Vec<PhaseTime>,
    /// By operation, then phase; an operation is in the phase of its intended start.
    pub operations: BTreeMap<&'static str, BTreeMap<String, OperationPhase>>,
    pub timeline: TimelineReport,
}

impl Recorder {
    pub fn new(operations: &[&'static str]) -> Self {
        Self {
            operations: operations.to_vec(),
            board: Mutex::default(),
            version: AtomicU32::new(0),
            tapes: AtomicU32::new(0),
            asked: AtomicU32::new(0),
            given: AtomicU32::new(0),
        }
    }

    pub fn operations(&self) -> &[&'static str] {
        &self.operations
    }

    /// From `from_us` on starts belong to this phase. Beyond the bound, phases go on in the last.
    pub fn begin_phase(&self, name: &str, from_us: u64) -> Phase {
        let mut board = self.board();
        if let Some(last) = board.phases.last_mut() {
            last.until_us.get_or_insert(from_us);
        }
        if board.phases.len() < limits::PHASES_MAX {
            let cells = vec![Cell::default(); self.operations.len()];
            board.phases.push(PhaseBoard { name: name.to_owned(), from_us, until_us: None, cells });
            self.version.fetch_add(1, Ordering::Release);
        }
        board.phases.len() - 1
    }

    /// The phase that runs is over; what comes later of it is still its own.
    pub fn end_phase(&self, until_us: u64) {
        if let Some(last) = self.board().phases.last_mut() {
            last.until_us.get_or_insert(until_us);
        }
    }

    /// What stood in a second that is over.
    pub fn gauge(&self, second: u64, gauges: Gauges) {
        let mut board = self.board();
        board.open_second(second, self.operations.len()).gauges = Some(gauges);
        board.close_seconds(&self.operations);
    }

    /// Asks all threads for what they have, and waits for it. They give it in their next turn; one that is stuck is
    /// not waited for.
    pub fn gather(&self) {
        self.given.store(0, Ordering::Relaxed);
        self.asked.fetch_add(1, Ordering::Release);
        for _ in 0..limits::GATHER_LOOKS_MAX {
            if self.given.load(Ordering::Acquire) >= self.tapes.load(Ordering::Acquire) {
                return;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn counts(&self, op: Op, phase: Phase) -> Counts {
        self.board().phases.get(phase).map_or_else(Counts::default, |phase| phase.cells[op].counts)
    }

    pub fn latency(&self, op: Op, phase: Phase) -> Latency {
        self.board().phases.get(phase).map_or_else(Latency::default, |phase| phase.cells[op].latency.clone())
    }

    /// Every operation of every phase that has any.
    pub fn histograms(&self) -> Vec<(&'static str, PhaseTime, Latency)> {
        let board = self.board();
        let mut all = Vec::new();
        for phase in &board.phases {
            for (name, cell) in self.operations.iter().zip(&phase.cells) {
                if cell.latency.count() > 0 {
                    all.push((*name, phase.time(), cell.latency.clone()));
                }
            }
        }
        all
    }

    /// A second as far as it has been handed over.
    pub fn second(&self, second: u64) -> Option<Point> {
        let board = self.board();
        let open = board.open.iter().find(|open| open.second == second);
        open.map(|open| open.point(&self.operations))
    }

    pub fn measured(&self) -> Measured {
        let mut board = self.board();
        while board.close_oldest(&self.operations) {}
        let mut operations: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for phase in &board.phases {
            for (name, cell) in self.operations.iter().zip(&phase.cells) {
                if !cell.is_empty() {
                    operations.entry(*name).or_default().insert(phase.name.clone(), cell.report());
                }
            }
        }
        let phases = board.phases.iter().map(PhaseBoard::time).collect();
        Measured { phases, operations, timeline: board.timeline.report() }
    }

    pub(super) fn phase_starts(&self) -> (u32, Vec<u64>) {
        let board = self.board();
        let version = self.version.load(Ordering::Acquire);
        (version, board.phases.iter().map(|phase| phase.from_us).collect())
    }

    /// From a tape: cells by phase, then operation, of one second.
    pub(super) fn take(&self, second: u64, operations: usize, cells: &[Option<Box<Cell>>]) {
        let mut board = self.board();
        for (at, cell) in cells.iter().enumerate() {
            let Some(cell) = cell.as_deref().filter(|cell| !cell.is_empty()) else { continue };
            if let Some(phase) = board.phases.get_mut(at / operations) {
                phase.cells[at % operations].add(cell);
            }
            board.open_second(second, operations).cells[at % operations].add(cell);
        }
        board.close_seconds(&self.operations);
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        // A thread that panicked while it held it ends the run; the figures are then of no use, but readable.
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Board {
    /// The second, or the oldest that is still open when it is closed already.
    fn open_second(&mut self, second: u64, operations: usize) -> &mut OpenSecond {
        let at = match self.open.iter().position(|open| open.second >= second) {
            Some(at) if self.open[at].second == second || self.is_closed(second) => at,
            found => {
                let at = found.unwrap_or(self.open.len());
                let cells = vec![Cell::default(); operations];
                self.open.insert(at, OpenSecond { second, cells, gauges: None });
                at
            }
        };
        &mut self.open[at]
    }

    fn is_closed(&self, second: u64) -> bool {
        self.timeline.points().last().is_some_and(|last| last.s >= second)
    }

    fn close_seconds(&mut self, operations: &[&'static str]) {
        while self.open.len() > limits::OPEN_SECONDS {
            self.close_oldest(operations);
        }
    }

    fn close_oldest(&mut self, operations: &[&'static str]) -> bool {
        let Some(oldest) = self.open.pop_front() else { return false };
        self.timeline.push(oldest.point(operations));
        true
    }
}

impl OpenSecond {
    fn point(&self, operations: &[&'static str]) -> Point {
        let cells = operations.iter().zip(&self.cells).filter(|(_, cell)| !cell.is_empty());
        let operations = cells.map(|(name, cell)| (*name, cell.point())).collect();
        Point { s: self.second, operations, gauges: self.gauges }
    }
}

impl PhaseBoard {
    fn time(&self) -> PhaseTime {
        let from_s = self.from_us as f64 / 1e6;
        let until_s = self.until_us.map_or(from_s, |until_us| until_us as f64 / 1e6);
        PhaseTime { name: self.name.clone(), from_s, until_s }
    }
}

impl Cell {
    fn report(&self) -> OperationPhase {
        OperationPhase {
            starts: self.counts.starts,
            late_starts: self.counts.late,
            dropped_starts: self.counts.dropped,
            done: self.latency.count(),
            errors: self.counts.errors,
            latency_ms: self.latency.percentiles(),
            percentiles: self.latency.curve(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::measure::Tape;

    #[test]
    fn threads_are_merged_and_phases_are_those_of_the_intended_start() {
        let recorder = Arc::new(Recorder::new(&["ack", "deliver"]));
        recorder.begin_phase("warm-up", 0);
        let mut tapes = [Tape::new(&recorder), Tape::new(&recorder)];
        let load = recorder.begin_phase("load", 2_000_000);
        for (thread, tape) in tapes.iter_mut().enumerate() {
            for at_ms in (0..4_000).step_by(2) {
                let at_us = at_ms * 1_000 + thread as u64 * 500;
                tape.tick(at_us);
                tape.start(0, at_us, at_us);
                // Done a second later: then it counts in the second, and in the phase of its start.
                if at_ms >= 1_000 {
                    tape.done(0, at_us - 1_000_000, at_us);
                }
            }
            tape.start(1, 3_000_000, 3_500_000);
            tape.error(1, 3_000_000);
            tape.dropped(1, 3_900_000, 7);
        }
        drop(tapes);
        recorder.end_phase(4_000_000);
        let measured = recorder.measured();
        let acks = &measured.operations["ack"];
        assert_eq!((acks["warm-up"].starts, acks["warm-up"].done), (2_000, 2_000));
        assert_eq!((acks["load"].starts, acks["load"].done), (2_000, 1_000));
        assert!((999.0..1_002.0).contains(&acks["load"].latency_ms.p50));
        let deliver = &measured.operations["deliver"]["load"];
        assert_eq!(
            (deliver.errors, deliver.late_starts, deliver.dropped_starts, deliver.done),
            (2, 2, 14, 0)
        );
        assert_eq!(recorder.counts(0, load).starts, 2_000);
        let seconds: Vec<u64> = measured.timeline.points.iter().map(|point| point.s).collect();
        assert_eq!(seconds, [0, 1, 2, 3]);
        assert!(!measured.timeline.points[0].operations.contains_key("deliver"));
        let done: Vec<u64> =
            measured.timeline.points.iter().map(|point| point.operations["ack"].count).collect();
        assert_eq!(done, [0, 1_000, 1_000, 1_000]);
        assert_eq!(measured.phases[1].until_s, 4.0);
    }

    #[test]
    fn what_is_handed_over_late_is_not_lost() {
        let recorder = Arc::new(Recorder::new(&["call"]));
        recorder.begin_phase("load", 0);
        let mut slow = Tape::new(&recorder);
        slow.tick(500_000);
        slow.done(0, 400_000, 500_000);
        for second in 0..20 {
            recorder.gauge(second, Gauges { up: second, ..Gauges::default() });
        }
        drop(slow);
        let timeline = recorder.measured().timeline;
        let count: u64 =
            timeline.points.iter().filter_map(|point| point.operations.get("call")).map(|op| op.count).sum();
        assert_eq!(count, 1);
        assert_eq!(timeline.points.len(), 20);
        assert!(timeline.points.iter().all(|point| point.gauges.is_some_and(|gauges| gauges.up == point.s)));
    }

    #[test]
    fn who_asks_gets_what_the_threads_have_without_waiting_for_the_second() {
        let recorder = Arc::new(Recorder::new(&["call"]));
        let load = recorder.begin_phase("load", 0);
        let mut tape = Tape::new(&recorder);
        tape.tick(100);
        tape.done(0, 50, 100);
        assert_eq!(recorder.latency(0, load).count(), 0);
        let over = std::sync::atomic::AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    tape.tick(200);
                }
                drop(tape);
            });
            recorder.gather();
            assert_eq!(recorder.latency(0, load).count(), 1);
            over.store(true, Ordering::Relaxed);
        });
        assert_eq!(recorder.tapes.load(Ordering::Relaxed), 0, "a thread that ended is not waited for");
    }

    #[test]
    fn phases_have_a_bound() {
        let recorder = Arc::new(Recorder::new(&["call"]));
        for at in 0..limits::PHASES_MAX as u64 + 5 {
            recorder.begin_phase(&at.to_string(), at * 1_000);
        }
        let mut tape = Tape::new(&recorder);
        tape.start(0, 10_000_000, 10_000_000);
        drop(tape);
        let measured = recorder.measured();
        assert_eq!(measured.phases.len(), limits::PHASES_MAX);
        assert_eq!(measured.operations["call"][&(limits::PHASES_MAX - 1).to_string()].starts, 1);
    }
}
