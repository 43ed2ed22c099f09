//! The loop of one thread: timers, the app, connects, what is to leave, then wait and take what came.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use gateway_ring::{BufferRing, Ring, RingConfig, SendPool, Wait, pin_current_thread};
use rustix::process::setpriority_process;

use super::cpu::CpuTime;
use super::line::{Line, Phones, Socket};
use super::machine::{Machine, Signal};
use super::meter::Meter;
use super::timers::{NEVER, Timers};
use super::{App, Control, FleetConfig, FleetError, Now};
use crate::limits;

pub(super) struct Engine<'a, A: App> {
    pub config: FleetConfig,
    /// The number of the first phone.
    pub first: u32,
    pub ring: Ring,
    pub buffers: BufferRing,
    pub pool: SendPool,
    pub lines: Vec<Line<A::Machine>>,
    pub app: A,
    pub meter: &'a Meter,
    /// Lines to be flushed in this turn.
    pub dirty: Vec<u32>,
    /// Lines that wait for a place to connect.
    pub waiting: VecDeque<u32>,
    /// Connects whose WELCOME has not come.
    pub connecting: usize,
    /// The next phone that has never connected.
    next_new: u32,
    /// Receives that found no buffer: (line, generation).
    pub starved: Vec<(u32, u32)>,
    timers: Timers,
    scratch: Vec<u8>,
    cpu: CpuTime,
}

/// Runs until told to stop, and gives the app back.
pub(super) fn run<A: App>(
    config: FleetConfig,
    range: Range<u32>,
    core: Option<usize>,
    mut app: A,
    control: &Control,
    meter: &Meter,
    ready: &SyncSender<()>,
) -> Result<A, FleetError> {
    if let Some(core) = core {
        // A core that is not there is slower, not wrong.
        let _ = pin_current_thread(core);
    }
    if config.niceness > 0 {
        // Without a number it is the calling thread that is meant. One that keeps its niceness is in the way, not wrong.
        let _ = setpriority_process(None, config.niceness.into());
    }
    let count = range.len() as u32;
    let mut ring = Ring::new(RingConfig {
        sq_entries: limits::SUBMISSIONS,
        cq_entries: limits::COMPLETIONS,
        direct_slots: count,
        // A send and a connect of each phone.
        in_flight_max: 2 * count + 1024,
        ..RingConfig::default()
    })?;
    let buffers = ring.buffer_ring(limits::RECEIVE_BUFFERS, limits::RECEIVE_BUFFER_BYTES)?;
    let lines = range.clone().map(|phone| Line::new(app.phone(phone))).collect();
    let mut engine = Engine {
        config,
        first: range.start,
        ring,
        buffers,
        pool: SendPool::new(1024),
        lines,
        app,
        meter,
        dirty: Vec::new(),
        waiting: VecDeque::new(),
        connecting: 0,
        next_new: 0,
        starved: Vec::new(),
        timers: Timers::default(),
        scratch: Vec::new(),
        cpu: CpuTime::new(),
    };
    let _ = ready.send(());
    while !control.stop.load(Ordering::Relaxed) {
        engine.turn(control.connect.load(Ordering::Relaxed))?;
    }
    Ok(engine.app)
}

impl<A: App> Engine<'_, A> {
    fn turn(&mut self, connect: u32) -> Result<(), FleetError> {
        let now = self.now();
        self.run_timers(now);
        let mut phones = Phones { lines: &mut self.lines, dirty: &mut self.dirty, first: self.first };
        let wanted_us = self.app.turn(&mut phones, now);
        self.flush_dirty(now)?;
        self.connect_some(connect, now)?;
        self.receive_starved()?;
        let next_us = wanted_us.min(self.timers.next_ms().saturating_mul(1_000));
        self.wait(next_us)?;
        let now = self.now();
        for _ in 0..limits::COMPLETIONS_OF_A_TURN_MAX {
            let Some(completion) = self.ring.next_completion() else { break };
            self.complete(completion, now)?;
        }
        self.flush_dirty(now)?;
        self.cpu.meter(self.meter, now);
        Meter::add(&self.meter.turns, 1);
        Ok(())
    }

    fn now(&self) -> Now {
        Now { us: self.config.clock.now_us() }
    }

    fn wait(&mut self, next_us: u64) -> Result<(), FleetError> {
        let before = self.now();
        let most_us = if self.dirty.is_empty() { limits::TURN_MS * 1_000 } else { 0 };
        let wait_us = next_us.saturating_sub(before.us).min(most_us);
        if wait_us == 0 {
            self.ring.submit()?;
        } else {
            self.ring.wait(Wait {
                min_complete: 64,
                timeout: Some(Duration::from_micros(wait_us)),
                min_wait: Some(Duration::from_micros(self.config.gather_us.clamp(1, wait_us))),
            })?;
        }
        Ok(())
    }

    fn run_timers(&mut self, now: Now) {
        for _ in 0..limits::TIMERS_OF_A_TURN_MAX {
            let Some((due_ms, at)) = self.timers.pop(now.ms()) else { break };
            let line = &mut self.lines[at as usize];
            if line.armed_ms != due_ms {
                continue;
            }
            line.armed_ms = NEVER;
            match line.phone.poll_timeout() {
                Some(due_ms) if due_ms <= now.ms() => {
                    self.app.due(self.first + at, &line.phone, due_ms, now);
                    line.phone.handle_timeout(now.ms());
                    self.touch(at);
                }
                Some(due_ms) => self.timers.arm(at, due_ms, &mut line.armed_ms),
                None => {}
            }
        }
    }

    pub fn touch(&mut self, at: u32) {
        let line = &mut self.lines[at as usize];
        if !line.dirty {
            line.dirty = true;
            self.dirty.push(at);
        }
    }

    pub fn flush_dirty(&mut self, now: Now) -> Result<(), FleetError> {
        while let Some(at) = self.dirty.pop() {
            self.lines[at as usize].dirty = false;
            self.flush(at, now)?;
        }
        Ok(())
    }

    /// Events first, then what is to be sent, then the timer.
    fn flush(&mut self, at: u32, now: Now) -> Result<(), FleetError> {
        while let Some(event) = self.lines[at as usize].phone.poll_event() {
            match A::Machine::signal(&event) {
                Signal::Connect => self.ask_connect(at),
                Signal::Disconnect => self.close(at)?,
                signal => self.tell(at, signal, event, now),
            }
        }
        let line = &mut self.lines[at as usize];
        if line.sending.is_none() && matches!(line.socket, Socket::Open) {
            self.scratch.clear();
            if line.phone.poll_transmit(&mut self.scratch) {
                let mut buf = self.pool.take(self.scratch.len());
                buf.extend_from_slice(&self.scratch);
                self.send(at, buf.into())?;
            }
        }
        let line = &mut self.lines[at as usize];
        if let Some(due_ms) = line.phone.poll_timeout() {
            self.timers.arm(at, due_ms, &mut line.armed_ms);
        }
        Ok(())
    }

    /// Meters an event and hands it on.
    fn tell(&mut self, at: u32, signal: Signal, event: <A::Machine as Machine>::Event, now: Now) {
        let meter = self.meter;
        match signal {
            Signal::Up => {
                Meter::add(&meter.up, 1);
                if !std::mem::replace(&mut self.lines[at as usize].was_welcomed, true) {
                    meter.note_first_welcome(now);
                }
                self.end_pacing(at);
            }
            Signal::Closed { was_up, by_owner } => {
                if was_up {
                    Meter::add(&meter.up, u64::MAX);
                }
                if !by_owner {
                    Meter::add(if was_up { &meter.lost } else { &meter.failed }, 1);
                    let phone = self.first + at;
                    let why = || A::Machine::why(&event);
                    meter.note_trouble(|| format!("phone {phone}'s connection ended: {}", why()));
                }
                self.end_pacing(at);
            }
            _ => {}
        }
        let line = &mut self.lines[at as usize];
        self.app.event(self.first + at, &mut line.phone, event, now);
    }

    /// After bytes were fed.
    pub fn heard(&mut self, at: u32, now: Now) {
        let line = &mut self.lines[at as usize];
        let answered = line.phone.beats_answered();
        let new = answered.wrapping_sub(line.beats_answered);
        if new > 0 {
            line.beats_answered = answered;
            Meter::add(&self.meter.beats_answered, u64::from(new));
        }
        self.app.heard(self.first + at, &line.phone, new, now);
    }

    /// Starts connects while there are places: first those that come back, then new ones.
    fn connect_some(&mut self, connect: u32, now: Now) -> Result<(), FleetError> {
        while self.connecting < limits::CONNECTS_OPEN_MAX {
            if let Some(at) = self.waiting.pop_front() {
                if matches!(self.lines[at as usize].socket, Socket::Queued) {
                    self.connect(at, now)?;
                }
            } else if (self.next_new as usize) < self.lines.len() && self.first + self.next_new < connect {
                let at = self.next_new;
                self.next_new += 1;
                self.lines[at as usize].phone.connect(now.ms());
                self.flush(at, now)?;
            } else {
                break;
            }
        }
        Ok(())
    }

    pub fn end_pacing(&mut self, at: u32) {
        if std::mem::take(&mut self.lines[at as usize].pacing) {
            self.connecting -= 1;
        }
    }
}
