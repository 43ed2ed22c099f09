//! The callee's side of one RPC connection: which calls run, what they cost, how they are answered.
//!
//! Owns no socket and runs no handler: the owner feeds headers, runs what is admitted, and sends what was
//! appended to `out`.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use thiserror::Error;

use super::header::{Header, Kind, flag};
use crate::names::Cursor;
use crate::status::{Code, Status};

/// The bounds of one connection.
#[derive(Debug, Clone)]
pub struct CalleeConfig {
    /// Calls that are held at once; told to the caller in every reply. Beyond it a call is refused.
    pub credit: u32,
    /// The longest a call may take whatever its caller says, and what it gets when its caller says nothing.
    pub max_deadline_ms: u32,
}

impl Default for CalleeConfig {
    fn default() -> Self {
        Self { credit: 4096, max_deadline_ms: 60_000 }
    }
}

/// A call that was admitted. Held, it is answered with [`Callee::reply`]; else with [`Callee::answer`]; once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admitted {
    pub call_id: u64,
    pub deadline_at_ms: u64,
    pub one_way: bool,
}

/// How a call ended, but for its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    pub code: Code,
    pub cursor: Option<Cursor>,
    pub retry_after_ms: Option<u32>,
}

impl Outcome {
    pub const OK: Outcome = Outcome { code: Code::Ok, cursor: None, retry_after_ms: None };

    pub fn of(status: &Status) -> Self {
        Self {
            code: status.code,
            cursor: None,
            retry_after_ms: Some(status.retry_after_ms).filter(|&ms| ms > 0),
        }
    }
}

/// What a caller may never do. The owner closes the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CallerMisbehaved {
    #[error("call {0:#x} was made while a call of that id is in flight")]
    IdInUse(u64),
    #[error("a frame of kind {0:?} came that a caller never sends")]
    OutOfPlace(Kind),
    #[error("calls go on far beyond the credit of {0}")]
    CreditIgnored(u32),
}

/// The machine.
#[derive(Debug)]
pub struct Callee {
    config: CalleeConfig,
    in_flight: HashMap<u64, (), BuildHasherDefault<IdHasher>>,
    /// Refusals in a row for want of credit. A caller that never stops is closed.
    refused_in_a_row: u32,
    going_away: bool,
}

/// Two callers' worth of calls already on their way when the credit ran out, and then some.
const REFUSALS_IN_A_ROW_MAX: u32 = 16_384;

impl Callee {
    pub fn new(config: CalleeConfig) -> Self {
        Self { config, in_flight: HashMap::default(), refused_in_a_row: 0, going_away: false }
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// A call came, and is held until `reply`. `Ok(None)`: it was refused and its answer stands in `out`.
    pub fn handle_call(
        &mut self,
        header: &Header,
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> Result<Option<Admitted>, CallerMisbehaved> {
        let admitted = self.admit(header, now_ms, out)?;
        if let Some(call) = &admitted {
            self.hold(call);
        }
        Ok(admitted)
    }

    /// As `handle_call`, for an owner that may end the call before it looks at the next frame: it says `answer` then, which
    /// needs no memory of the call, and `hold` if it could not.
    #[inline]
    pub fn admit(
        &mut self,
        header: &Header,
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> Result<Option<Admitted>, CallerMisbehaved> {
        debug_assert_eq!(header.kind, Kind::Call);
        let one_way = header.flags & flag::ONE_WAY != 0;
        if self.in_flight.len() >= self.config.credit as usize {
            self.refused_in_a_row += 1;
            if self.refused_in_a_row > REFUSALS_IN_A_ROW_MAX {
                return Err(CallerMisbehaved::CreditIgnored(self.config.credit));
            }
            let outcome = Outcome { code: Code::TooMany, ..Outcome::OK };
            self.put_reply(header.call_id, one_way, &outcome, b"more calls at once than were granted", out);
            return Ok(None);
        }
        self.refused_in_a_row = 0;
        if !self.in_flight.is_empty() && self.in_flight.contains_key(&header.call_id) {
            return Err(CallerMisbehaved::IdInUse(header.call_id));
        }
        let max_ms = self.config.max_deadline_ms;
        let deadline_ms = if header.deadline_ms == 0 { max_ms } else { header.deadline_ms.min(max_ms) };
        Ok(Some(Admitted {
            call_id: header.call_id,
            deadline_at_ms: now_ms + u64::from(deadline_ms),
            one_way,
        }))
    }

    /// An admitted call runs on: it counts against the credit, and may be cancelled, until `reply`.
    pub fn hold(&mut self, call: &Admitted) {
        self.in_flight.insert(call.call_id, ());
    }

    /// Answers an admitted call that is not held. Nothing is sent when it is one-way.
    #[inline]
    pub fn answer(&mut self, call: &Admitted, outcome: &Outcome, body: &[u8], out: &mut Vec<u8>) {
        debug_assert!(!self.in_flight.contains_key(&call.call_id));
        self.put_reply(call.call_id, call.one_way, outcome, body, out);
    }

    /// A frame that is no call: cancel, ping. Gives the id of a call that its caller gave up, if it runs;
    /// no reply will be sent for it.
    pub fn handle_control(
        &mut self,
        header: &Header,
        out: &mut Vec<u8>,
    ) -> Result<Option<u64>, CallerMisbehaved> {
        match header.kind {
            Kind::Cancel => Ok(self.in_flight.remove(&header.call_id).map(|()| header.call_id)),
            Kind::Ping => {
                Header { kind: Kind::Pong, ..Header::default() }.put(&[], out);
                Ok(None)
            }
            kind => Err(CallerMisbehaved::OutOfPlace(kind)),
        }
    }

    /// Answers a call that is held. Nothing is sent when it was cancelled or is one-way.
    pub fn reply(&mut self, call: &Admitted, outcome: &Outcome, body: &[u8], out: &mut Vec<u8>) {
        if self.in_flight.remove(&call.call_id).is_some() {
            self.put_reply(call.call_id, call.one_way, outcome, body, out);
        }
    }

    /// Says that no new calls are wanted here; those in flight are still answered.
    pub fn go_away(&mut self, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.going_away, true) {
            Header { kind: Kind::GoAway, ..Header::default() }.put(&[], out);
        }
    }

    #[inline]
    fn put_reply(&self, call_id: u64, one_way: bool, outcome: &Outcome, body: &[u8], out: &mut Vec<u8>) {
        if one_way {
            return;
        }
        Header {
            kind: Kind::Reply,
            call_id,
            status: outcome.code.0,
            credit: self.config.credit,
            cursor: outcome.cursor,
            retry_after_ms: outcome.retry_after_ms,
            ..Header::default()
        }
        .put(body, out);
    }
}

/// Ids are small counters: one multiplication spreads them.
#[derive(Debug, Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, id: u64) {
        let mixed = (self.0 ^ id).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::header::next_header;

    fn call(call_id: u64) -> Header {
        Header { call_id, deadline_ms: 100, ..Header::default() }
    }

    fn only_reply(out: &[u8]) -> Header {
        let (header, bytes) = next_header(out).expect("well formed").expect("whole");
        assert_eq!(bytes + header.body_bytes as usize, out.len());
        header
    }

    #[test]
    fn a_call_is_answered_once() {
        let (mut callee, mut out) = (Callee::new(CalleeConfig::default()), Vec::new());
        let admitted = callee.handle_call(&call(3), 50, &mut out).expect("fine").expect("admitted");
        assert_eq!(admitted.deadline_at_ms, 150);
        callee.reply(&admitted, &Outcome::OK, b"x", &mut out);
        callee.reply(&admitted, &Outcome::OK, b"x", &mut out);
        let reply = only_reply(&out);
        assert_eq!((reply.kind, reply.call_id, reply.credit), (Kind::Reply, 3, 4096));
    }

    #[test]
    fn a_call_that_ends_at_once_leaves_no_trace() {
        let (mut callee, mut out) = (Callee::new(CalleeConfig::default()), Vec::new());
        let held = callee.handle_call(&call(3), 50, &mut out).expect("fine").expect("admitted");
        let admitted = callee.admit(&call(4), 50, &mut out).expect("fine").expect("admitted");
        callee.answer(&admitted, &Outcome::OK, b"x", &mut out);
        assert_eq!((only_reply(&out).call_id, callee.in_flight()), (4, 1));
        assert_eq!(callee.admit(&call(3), 50, &mut out), Err(CallerMisbehaved::IdInUse(3)));
        let again = callee.admit(&call(4), 50, &mut out).expect("fine").expect("admitted");
        callee.hold(&again);
        assert_eq!((again, callee.in_flight()), (admitted, 2));
        out.clear();
        callee.reply(&held, &Outcome::OK, b"x", &mut out);
        assert_eq!((only_reply(&out).call_id, callee.in_flight()), (3, 1));
    }

    #[test]
    fn calls_beyond_the_credit_are_refused_and_an_endless_caller_is_closed() {
        let mut callee = Callee::new(CalleeConfig { credit: 1, ..CalleeConfig::default() });
        let mut out = Vec::new();
        callee.handle_call(&call(1), 0, &mut out).expect("fine").expect("admitted");
        assert_eq!(callee.handle_call(&call(2), 0, &mut out), Ok(None));
        assert_eq!(only_reply(&out).code(), Code::TooMany);
        let closed =
            (0..=REFUSALS_IN_A_ROW_MAX).any(|_| callee.handle_call(&call(2), 0, &mut Vec::new()).is_err());
        assert!(closed);
    }

    #[test]
    fn a_cancelled_call_gets_no_reply() {
        let (mut callee, mut out) = (Callee::new(CalleeConfig::default()), Vec::new());
        let admitted = callee.handle_call(&call(3), 0, &mut out).expect("fine").expect("admitted");
        let cancel = Header { kind: Kind::Cancel, call_id: 3, ..Header::default() };
        assert_eq!(callee.handle_control(&cancel, &mut out), Ok(Some(3)));
        assert_eq!(callee.handle_control(&cancel, &mut out), Ok(None));
        callee.reply(&admitted, &Outcome::OK, b"x", &mut out);
        assert!(out.is_empty());
    }

    #[test]
    fn an_id_in_flight_may_not_be_used_again() {
        let (mut callee, mut out) = (Callee::new(CalleeConfig::default()), Vec::new());
        callee.handle_call(&call(3), 0, &mut out).expect("fine").expect("admitted");
        assert_eq!(callee.handle_call(&call(3), 0, &mut out), Err(CallerMisbehaved::IdInUse(3)));
    }

    #[test]
    fn a_one_way_call_gets_no_reply_and_a_ping_its_pong() {
        let (mut callee, mut out) = (Callee::new(CalleeConfig::default()), Vec::new());
        let header = Header { flags: flag::ONE_WAY, ..call(4) };
        let admitted = callee.handle_call(&header, 0, &mut out).expect("fine").expect("admitted");
        callee.reply(&admitted, &Outcome::OK, b"x", &mut out);
        assert!(out.is_empty());
        callee.handle_control(&Header { kind: Kind::Ping, ..Header::default() }, &mut out).expect("fine");
        assert_eq!(only_reply(&out).kind, Kind::Pong);
    }
}
