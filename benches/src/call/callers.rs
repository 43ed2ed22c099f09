//! The phones of one thread: they call the echo service when the schedule says so, or whenever an answer came.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use proto_wire::phone::{Phone, PhoneEvent};
use proto_wire::services::echo;
use proto_wire::status::Code;

use crate::fleet::{App, Now, Phones};
use crate::identity::Identities;
use crate::limits;
use crate::measure::{Arrival, Arrivals, Op, Recorder, Tape};

/// The one operation.
pub const CALL: Op = 0;
pub const OPERATIONS: [&str; 1] = ["call"];

/// How long a turn gathers completions when nothing else is to be done.
pub const GATHER_US: u64 = 50;

/// What makes a call start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// The answer to the phone's last one: as many as the system gives.
    Closed,
    /// Its time.
    Open { rate: f64, arrival: Arrival },
}

/// A load: every thread makes its part of it.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Counts loads; 0 is none.
    pub number: u64,
    pub pace: Pace,
    /// The phones below this call.
    pub phones: u32,
    pub from_us: u64,
    pub until_us: u64,
    pub seed: u64,
}

/// What all threads share with the conductor.
#[derive(Debug)]
pub struct Shared {
    pub recorder: Arc<Recorder>,
    load: Mutex<Load>,
    number: AtomicU64,
    /// Threads from which nothing of the load is to come.
    pub threads_done: AtomicU64,
    errors: Mutex<BTreeMap<u16, u64>>,
}

impl Shared {
    pub fn new(recorder: Arc<Recorder>) -> Self {
        let none = Load { number: 0, pace: Pace::Closed, phones: 0, from_us: 0, until_us: 0, seed: 0 };
        Self {
            recorder,
            load: Mutex::new(none),
            number: AtomicU64::new(0),
            threads_done: AtomicU64::new(0),
            errors: Mutex::default(),
        }
    }

    pub fn begin(&self, load: Load) {
        let mut current = self.load.lock().unwrap_or_else(PoisonError::into_inner);
        self.threads_done.store(0, Ordering::Relaxed);
        *current = Load { number: current.number + 1, ..load };
        self.number.store(current.number, Ordering::Release);
    }

    /// Ends the load early.
    pub fn end(&self, now_us: u64) {
        let mut current = self.load.lock().unwrap_or_else(PoisonError::into_inner);
        current.until_us = current.until_us.min(now_us);
        current.number += 1;
        self.number.store(current.number, Ordering::Release);
    }

    /// Answers other than `ok`, by status.
    pub fn errors(&self) -> MutexGuard<'_, BTreeMap<u16, u64>> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Calls of one phone that are out: handle and intended time.
type Out = Vec<(u32, u64)>;

pub struct Callers {
    who: Identities,
    shared: Arc<Shared>,
    phones: Range<u32>,
    body: Bytes,
    out: Vec<Out>,
    load: Option<Load>,
    number: u64,
    /// Of an open load.
    arrivals: Option<Arrivals>,
    /// Of a closed load: phones that have not made their first call.
    to_start: u32,
    /// Where the search for a phone with a free place goes on.
    next: u32,
    tape: Tape,
    in_flight: u64,
    is_done: bool,
}

impl Callers {
    pub fn new(who: &Identities, shared: &Arc<Shared>, body: &Bytes, phones: Range<u32>) -> Self {
        Self {
            who: who.clone(),
            shared: shared.clone(),
            out: vec![Out::new(); phones.len()],
            next: 0,
            phones,
            body: body.clone(),
            load: None,
            number: 0,
            arrivals: None,
            to_start: 0,
            tape: Tape::new(&shared.recorder),
            in_flight: 0,
            is_done: true,
        }
    }

    fn take_load(&mut self) {
        if self.shared.number.load(Ordering::Acquire) == self.number {
            return;
        }
        let load = *self.shared.load.lock().unwrap_or_else(PoisonError::into_inner);
        let is_the_same = self.load.is_some_and(|own| own.from_us == load.from_us);
        self.number = load.number;
        self.load = Some(load);
        if is_the_same {
            // It ends early: what has not started is no longer wanted.
            self.arrivals = None;
            self.to_start = 0;
            return;
        }
        self.is_done = false;
        let own = self.own(&load);
        match load.pace {
            Pace::Closed => (self.arrivals, self.to_start) = (None, own),
            Pace::Open { rate, arrival } => {
                let rate = rate * f64::from(own) / f64::from(load.phones.max(1));
                let seed = load.seed ^ u64::from(self.phones.start);
                self.to_start = 0;
                self.arrivals =
                    (own > 0).then(|| Arrivals::new(arrival, rate, load.from_us, load.until_us, seed));
            }
        }
    }

    /// The phones of this thread that call in a load.
    fn own(&self, load: &Load) -> u32 {
        self.phones.end.min(load.phones).saturating_sub(self.phones.start)
    }

    /// Of an open load. False: some wait for a place.
    fn start_due(&mut self, phones: &mut Phones<'_>, now: Now) -> bool {
        let Some(load) = self.load else { return true };
        for _ in 0..limits::STARTS_OF_A_TURN_MAX {
            let is_due = |arrivals: &Arrivals| arrivals.next_us().is_some_and(|due_us| due_us <= now.us);
            if !self.arrivals.as_ref().is_some_and(is_due) {
                break;
            }
            let Some(at) = self.free_phone(&load) else {
                self.give_up(&load, now);
                return false;
            };
            if let Some(intended_us) = self.arrivals.as_mut().and_then(|arrivals| arrivals.pop(now.us)) {
                let phone = self.phones.start + at;
                self.tape.start(CALL, intended_us, now.us);
                self.call(phone, phones.phone(phone), intended_us, now);
            }
        }
        if now.us > load.until_us + limits::LATE_START_US {
            self.give_up(&load, now);
        }
        true
    }

    /// What could not start in the load's time never does, and is counted.
    fn give_up(&mut self, load: &Load, now: Now) {
        if now.us >= load.until_us
            && let Some(mut arrivals) = self.arrivals.take()
        {
            self.tape.dropped(CALL, load.until_us.saturating_sub(1), arrivals.give_up());
        }
    }

    fn free_phone(&mut self, load: &Load) -> Option<u32> {
        let own = self.own(load);
        for _ in 0..limits::PHONES_ASKED_MAX.min(own as usize) {
            self.next = if self.next + 1 < own { self.next + 1 } else { 0 };
            if self.out[self.next as usize].len() < limits::CALLS_OF_A_PHONE_MAX {
                return Some(self.next);
            }
        }
        None
    }

    fn call(&mut self, phone: u32, machine: &mut Phone, intended_us: u64, now: Now) {
        let handle = machine.call(echo::SAY.id, self.body.clone(), 0, true, now.ms());
        self.out[(phone - self.phones.start) as usize].push((handle.0, intended_us));
        self.in_flight += 1;
    }

    /// Of a closed load.
    fn start_first(&mut self, phones: &mut Phones<'_>, now: Now) {
        let Some(load) = self.load.filter(|load| now.us >= load.from_us) else { return };
        for _ in 0..limits::STARTS_OF_A_TURN_MAX.min(self.to_start as usize) {
            self.to_start -= 1;
            let phone = self.phones.start + self.to_start;
            if now.us < load.until_us {
                self.tape.start(CALL, now.us, now.us);
                self.call(phone, phones.phone(phone), now.us, now);
            }
        }
    }

    /// Tells the conductor, once a load, that nothing of it is to come.
    fn note_done(&mut self, now: Now) {
        let is_over = self.load.is_some_and(|load| now.us >= load.until_us);
        if is_over && !self.is_done && self.arrivals.is_none() && self.to_start == 0 && self.in_flight == 0 {
            self.is_done = true;
            self.shared.threads_done.fetch_add(1, Ordering::Release);
        }
    }
}

impl App for Callers {
    type Machine = Phone;

    fn phone(&mut self, phone: u32) -> Phone {
        self.who.machine(phone)
    }

    fn token(&mut self, phone: u32) -> Box<[u8]> {
        self.who.token(phone)
    }

    fn event(&mut self, phone: u32, machine: &mut Phone, event: PhoneEvent, now: Now) {
        let PhoneEvent::Reply { handle, status, body, .. } = event else { return };
        let out = &mut self.out[(phone - self.phones.start) as usize];
        let Some(at) = out.iter().position(|call| call.0 == handle.0) else { return };
        let (_, intended_us) = out.swap_remove(at);
        self.in_flight -= 1;
        if status == Code::Ok && body.len() == self.body.len() {
            self.tape.done(CALL, intended_us, now.us);
        } else {
            self.tape.error(CALL, intended_us);
            *self.shared.errors().entry(status.0).or_default() += 1;
        }
        let goes_on = |load: &Load| load.pace == Pace::Closed && now.us < load.until_us;
        if self.load.as_ref().is_some_and(goes_on) {
            self.tape.start(CALL, now.us, now.us);
            self.call(phone, machine, now.us, now);
        }
    }

    fn turn(&mut self, phones: &mut Phones<'_>, now: Now) -> u64 {
        self.tape.tick(now.us);
        self.take_load();
        self.start_first(phones, now);
        let has_room = self.start_due(phones, now);
        self.note_done(now);
        match &self.arrivals {
            Some(arrivals) if has_room => {
                arrivals.next_us().unwrap_or(0).max(now.us + GATHER_US).min(now.us + limits::TURN_MS * 1_000)
            }
            // An answer makes room, and wakes the thread.
            Some(_) => now.us + 1_000,
            None if self.to_start > 0 => now.us,
            None => now.us + limits::TURN_MS * 1_000,
        }
    }
}
