//! What one thread measures, before it hands it over.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::recorder::{Cell, Op, Recorder};
use crate::limits;

/// Of one thread: no lock is taken but once a second.
#[derive(Debug)]
pub struct Tape {
    recorder: Arc<Recorder>,
    second: u64,
    /// When each phase began, as of the version.
    phases: Vec<u64>,
    version: u32,
    /// By phase, then operation; made when first used.
    cells: Vec<Option<Box<Cell>>>,
    operations: usize,
    /// Of the recorder's asking, answered.
    asked: u32,
}

impl Tape {
    pub fn new(recorder: &Arc<Recorder>) -> Self {
        let operations = recorder.operations().len();
        let mut tape = Self {
            recorder: recorder.clone(),
            second: 0,
            phases: Vec::new(),
            version: 0,
            cells: Vec::new(),
            operations,
            asked: recorder.asked.load(Ordering::Acquire),
        };
        recorder.tapes.fetch_add(1, Ordering::Release);
        tape.take_phases();
        tape
    }

    /// Once a turn: hands over when a second is over.
    pub fn tick(&mut self, now_us: u64) {
        if self.version != self.recorder.version.load(Ordering::Acquire) {
            self.take_phases();
        }
        let second = now_us / 1_000_000;
        let asked = self.recorder.asked.load(Ordering::Acquire);
        if second != self.second || asked != self.asked {
            self.hand_over();
            self.second = second;
        }
        if asked != self.asked {
            self.asked = asked;
            self.recorder.given.fetch_add(1, Ordering::Release);
        }
    }

    /// Something that should have started at `intended_us` starts.
    pub fn start(&mut self, op: Op, intended_us: u64, now_us: u64) {
        let cell = self.cell(op, intended_us);
        cell.counts.starts += 1;
        cell.counts.late += u64::from(now_us > intended_us + limits::LATE_START_US);
    }

    /// The same of many at once.
    pub fn starts(&mut self, op: Op, intended_us: u64, now_us: u64, count: u64) {
        let cell = self.cell(op, intended_us);
        cell.counts.starts += count;
        cell.counts.late += if now_us > intended_us + limits::LATE_START_US { count } else { 0 };
    }

    /// Starts that were due and never made.
    pub fn dropped(&mut self, op: Op, intended_us: u64, count: u64) {
        if count > 0 {
            self.cell(op, intended_us).counts.dropped += count;
        }
    }

    /// What should have started at `intended_us` is done.
    pub fn done(&mut self, op: Op, intended_us: u64, now_us: u64) {
        self.cell(op, intended_us).latency.record(intended_us, now_us);
    }

    /// ... has failed. Its latency is no latency of an answer, and is not recorded.
    pub fn error(&mut self, op: Op, intended_us: u64) {
        self.cell(op, intended_us).counts.errors += 1;
    }

    /// Gives all that it has to the recorder.
    fn hand_over(&mut self) {
        let current = self.phases.len().saturating_sub(1) * self.operations;
        if self.cells.iter().flatten().any(|cell| !cell.is_empty()) {
            self.recorder.take(self.second, self.operations, &self.cells);
        }
        for (at, place) in self.cells.iter_mut().enumerate() {
            match place {
                Some(cell) if at >= current => cell.clear(),
                // What is left of an earlier phase is little.
                _ => *place = None,
            }
        }
    }

    fn take_phases(&mut self) {
        (self.version, self.phases) = self.recorder.phase_starts();
        self.cells.resize_with(self.phases.len() * self.operations, || None);
    }

    /// The phase is that of the intended time: what was started in the load and answered in the drain is the load's.
    fn cell(&mut self, op: Op, intended_us: u64) -> &mut Cell {
        let phase = self.phases.iter().rposition(|&from_us| from_us <= intended_us).unwrap_or(0);
        self.cells[phase * self.operations + op].get_or_insert_default()
    }
}

impl Drop for Tape {
    fn drop(&mut self) {
        self.hand_over();
        self.recorder.tapes.fetch_sub(1, Ordering::Release);
    }
}
