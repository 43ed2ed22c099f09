//! The phones of one thread that only stand, and what all threads count of them.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use proto_wire::phone::{Phone, PhoneEvent};

use super::notice::Heard;
use crate::fleet::{App, Now, Phones};
use crate::identity::Identities;
use crate::limits;
use crate::measure::{Op, Recorder, Tape};

/// A heartbeat, from when it was due until its answer.
pub const BEAT: Op = 0;
/// A notice for everybody, from when it was to be asked for until a phone has it.
pub const NOTICE: Op = 1;
pub const OPERATIONS: [&str; 2] = ["beat", "notice"];

/// What all threads of the phones share.
#[derive(Debug)]
pub struct Shared {
    recorder: Arc<Recorder>,
    /// All have connected: from now on beats count.
    pub all_here: AtomicBool,
    /// Phones of which a beat was answered since.
    pub beaten: AtomicU64,
    /// Notices for everybody.
    pub heard: Heard,
}

impl Shared {
    pub fn new(recorder: Arc<Recorder>) -> Self {
        Self {
            recorder,
            all_here: AtomicBool::default(),
            beaten: AtomicU64::default(),
            heard: Heard::default(),
        }
    }
}

/// Nine bytes a phone: a million of them stand beside what is measured.
pub struct Standing {
    who: Identities,
    shared: Arc<Shared>,
    first: u32,
    /// Beats answered before all had connected; [`BEATEN`] once one was answered since.
    answered_before: Vec<u32>,
    /// When the beat that is out was due, in ms of the run; [`NONE_OUT`].
    due_ms: Vec<u32>,
    /// The low byte of the last notice's number.
    notice: Vec<u8>,
    tape: Tape,
}

const BEATEN: u32 = u32::MAX;
const NONE_OUT: u32 = u32::MAX;

impl Standing {
    pub fn new(who: &Identities, shared: &Arc<Shared>, range: Range<u32>) -> Self {
        Self {
            who: who.clone(),
            shared: shared.clone(),
            first: range.start,
            answered_before: vec![0; range.len()],
            due_ms: vec![NONE_OUT; range.len()],
            notice: vec![0; range.len()],
            tape: Tape::new(&shared.recorder),
        }
    }

    fn take_out(&mut self, at: usize) -> Option<u64> {
        let due_ms = std::mem::replace(&mut self.due_ms[at], NONE_OUT);
        (due_ms != NONE_OUT).then_some(u64::from(due_ms) * 1_000)
    }
}

impl App for Standing {
    type Machine = Phone;

    fn phone(&mut self, phone: u32) -> Phone {
        self.who.machine(phone)
    }

    fn token(&mut self, phone: u32) -> Box<[u8]> {
        self.who.token(phone)
    }

    /// What falls due at a phone that is up, and says nothing else, is a beat; or the end of the wait for its answer.
    fn due(&mut self, phone: u32, machine: &Phone, due_ms: u64, now: Now) {
        if !machine.is_up() {
            return;
        }
        let out = &mut self.due_ms[(phone - self.first) as usize];
        if *out == NONE_OUT {
            self.tape.start(BEAT, due_ms * 1_000, now.us);
        }
        *out = due_ms as u32;
    }

    fn event(&mut self, phone: u32, _machine: &mut Phone, event: PhoneEvent, now: Now) {
        let at = (phone - self.first) as usize;
        match event {
            PhoneEvent::Closed { .. } => {
                if let Some(due_us) = self.take_out(at) {
                    self.tape.error(BEAT, due_us);
                }
            }
            PhoneEvent::Notice { notice } => {
                if let Some(intended_us) = self.shared.heard.note(&notice, &mut self.notice[at], now) {
                    self.tape.done(NOTICE, intended_us, now.us);
                }
            }
            _ => {}
        }
    }

    fn heard(&mut self, phone: u32, machine: &Phone, new_beats: u32, now: Now) {
        let at = (phone - self.first) as usize;
        if new_beats > 0
            && let Some(due_us) = self.take_out(at)
        {
            self.tape.done(BEAT, due_us, now.us);
        }
        let before = &mut self.answered_before[at];
        let answered = machine.stats().beats_answered;
        if !self.shared.all_here.load(Ordering::Relaxed) {
            *before = answered;
        } else if *before != BEATEN && answered > *before {
            *before = BEATEN;
            self.shared.beaten.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn turn(&mut self, _phones: &mut Phones<'_>, now: Now) -> u64 {
        self.tape.tick(now.us);
        now.us + limits::TURN_MS * 1_000
    }
}
