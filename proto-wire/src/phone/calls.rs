//! The calls of a phone: ids, deadlines, places in flight, what is sent again and what is given up.

use bytes::Bytes;

use super::Events;
use super::config::PhoneConfig;
use super::event::{CallHandle, PhoneEvent, PhoneStats};
use super::link::NEVER;
use crate::frame;
use crate::limits;
use crate::names::Cursor;
use crate::random::Random;
use crate::services;
use crate::status::Code;

/// The deadline of a method that this version does not know.
const UNKNOWN_METHOD_DEADLINE_MS: u32 = 10_000;

#[derive(Debug)]
struct Call {
    id: u32,
    method: u16,
    /// How often it was sent before.
    attempt: u8,
    /// How often its status led to another attempt.
    retries: u8,
    /// May be sent again when its answer was lost.
    idempotent: bool,
    /// It is out at the server.
    sent: bool,
    /// It has ended here, but the server may still hold it: it keeps its place until it is answered, or until its
    /// deadline, which is that of the place then.
    given_up: bool,
    /// Not to be sent before.
    not_before_ms: u64,
    deadline_at_ms: u64,
    body: Bytes,
}

impl Call {
    fn reply(&self, status: Code, given: Option<Cursor>, body: Bytes) -> PhoneEvent {
        PhoneEvent::Reply { handle: CallHandle(self.id), status, given, body }
    }

    fn fail(&self, status: Code, text: &'static str) -> PhoneEvent {
        self.reply(status, None, Bytes::from_static(text.as_bytes()))
    }

    fn too_large(&self) -> PhoneEvent {
        self.fail(Code::Limit, "the body of this call is larger than a frame may be")
    }
}

/// A list, in the order in which the calls were made: a phone has few, and mostly none.
#[derive(Debug)]
pub(super) struct Calls {
    list: Vec<Call>,
    last_id: u32,
    /// The largest body of a frame that the server takes.
    max_body_bytes: u32,
}

impl Calls {
    pub fn new() -> Self {
        Self { list: Vec::new(), last_id: 0, max_body_bytes: limits::MAX_FRAME_BODY_BYTES as u32 }
    }

    /// WELCOME says how large a frame may be; 0: it does not say.
    pub fn limit_body(&mut self, max_body_bytes: u32, events: &mut Events) {
        let most = limits::MAX_FRAME_BODY_BYTES as u32;
        self.max_body_bytes = if max_body_bytes == 0 { most } else { most.min(max_body_bytes) };
        self.list.retain(|call| {
            let fits = call.body.len() + frame::Call::MAX_HEAD_BYTES <= self.max_body_bytes as usize;
            if !fits {
                events.push(call.too_large());
            }
            fits
        });
        self.shrink();
    }

    /// The next id. Ids rise, so a late answer can be told from one to a call that never was.
    pub fn next_id(&mut self) -> u32 {
        self.last_id = self.last_id.wrapping_add(1);
        self.last_id
    }

    /// Takes a call in; one that cannot be taken ends at once.
    pub fn add(
        &mut self,
        method: u16,
        body: Bytes,
        deadline_ms: u32,
        idempotent: bool,
        now_ms: u64,
        events: &mut Events,
    ) -> CallHandle {
        let own = || services::method(method).map_or(UNKNOWN_METHOD_DEADLINE_MS, |method| method.deadline_ms);
        let deadline_ms = if deadline_ms == 0 { own() } else { deadline_ms };
        let deadline_at_ms = now_ms + u64::from(deadline_ms);
        let id = self.next_id();
        let call = Call {
            id,
            method,
            attempt: 0,
            retries: 0,
            idempotent,
            sent: false,
            given_up: false,
            not_before_ms: 0,
            deadline_at_ms,
            body,
        };
        let waiting = self.list.iter().filter(|call| !call.sent).count();
        if call.body.len() + frame::Call::MAX_HEAD_BYTES > self.max_body_bytes as usize {
            events.push(call.too_large());
        } else if waiting >= limits::MAX_PHONE_CALLS_WAITING {
            events.push(call.fail(Code::TooMany, "too many calls wait on this phone"));
        } else {
            self.list.push(call);
        }
        CallHandle(id)
    }

    /// Calls that are out at the server.
    pub fn in_flight(&self) -> usize {
        self.list.iter().filter(|call| call.sent && !call.given_up).count()
    }

    /// Calls that have ended here and that the server may still hold.
    pub fn held(&self, now_ms: u64) -> usize {
        self.list.iter().filter(|call| call.given_up && call.deadline_at_ms > now_ms).count()
    }

    /// A call that is not in this list was given up while it was out.
    pub fn hold(&mut self, id: u32, method: u16, now_ms: u64) {
        self.list.push(Call {
            id,
            method,
            attempt: 0,
            retries: 0,
            idempotent: false,
            sent: true,
            given_up: true,
            not_before_ms: 0,
            deadline_at_ms: now_ms + limits::CALL_HELD_MS,
            body: Bytes::new(),
        });
    }

    /// No call waits for its end.
    pub fn is_empty(&self) -> bool {
        self.list.iter().all(|call| call.given_up)
    }

    /// Appends what may leave now. The first frame carries `applied`, which is taken then.
    pub fn put(&mut self, out: &mut Vec<u8>, mut places: usize, applied: &mut Option<Cursor>, now_ms: u64) {
        for call in self.list.iter_mut().filter(|call| !call.sent && call.not_before_ms <= now_ms) {
            if places == 0 {
                break;
            }
            places -= 1;
            call.sent = true;
            let left_ms = call.deadline_at_ms.saturating_sub(now_ms).max(1);
            frame::Call {
                id: call.id,
                method: call.method,
                attempt: call.attempt,
                deadline_ms: u32::try_from(left_ms).unwrap_or(u32::MAX),
                applied: applied.take(),
                body: &call.body,
            }
            .put(out);
        }
    }

    /// Ends the call that is answered, or lets it wait for its next attempt. Gives the method of the one that ended.
    pub fn handle_reply(
        &mut self,
        reply: &frame::Reply<'_>,
        now_ms: u64,
        config: &PhoneConfig,
        random: &mut Random,
        stats: &mut PhoneStats,
        events: &mut Events,
    ) -> Option<u16> {
        let Some(at) = self.list.iter().position(|call| call.id == reply.id && call.sent && !call.given_up)
        else {
            self.list.retain(|call| call.id != reply.id || !call.given_up);
            self.shrink();
            let late = (1..=self.last_id).contains(&reply.id);
            *if late { &mut stats.replies_late } else { &mut stats.replies_unasked } += 1;
            return None;
        };
        let call = &mut self.list[at];
        let again = reply.status.is_safe_to_retry() || (reply.status == Code::Lost && call.idempotent);
        if again && call.retries < config.max_retries {
            let wait_ms = match reply.retry_after_ms {
                Some(ms) => u64::from(ms),
                None => config.retry.wait_ms(u32::from(call.retries) + 1, random),
            };
            if now_ms + wait_ms < call.deadline_at_ms {
                call.retries += 1;
                call.attempt = call.attempt.saturating_add(1);
                call.sent = false;
                call.not_before_ms = now_ms + wait_ms;
                stats.retried += 1;
                return None;
            }
        }
        let call = self.list.remove(at);
        events.push(call.reply(reply.status, reply.given, Bytes::copy_from_slice(reply.body)));
        self.shrink();
        Some(call.method)
    }

    /// The connection is gone: what may be repeated waits for the next one, the rest is lost.
    pub fn handle_disconnected(&mut self, stats: &mut PhoneStats, events: &mut Events) {
        self.list.retain_mut(|call| {
            if call.given_up {
                return false;
            }
            if call.sent && !call.idempotent {
                events.push(call.fail(Code::Lost, "the connection ended before the answer came"));
                return false;
            }
            if call.sent {
                call.sent = false;
                call.attempt = call.attempt.saturating_add(1);
                stats.resent += 1;
            }
            true
        });
        self.shrink();
    }

    /// Ends the calls whose time is over.
    pub fn handle_timeout(&mut self, now_ms: u64, events: &mut Events) {
        self.list.retain_mut(|call| {
            if call.deadline_at_ms > now_ms {
                return true;
            }
            if call.given_up {
                return false;
            }
            events.push(call.fail(Code::Deadline, "no answer came in time"));
            if call.sent {
                call.given_up = true;
                call.deadline_at_ms = now_ms + limits::CALL_HELD_MS;
                call.body = Bytes::new();
            }
            call.sent
        });
        self.shrink();
    }

    /// Ends all calls: nobody will send them.
    pub fn fail_all(&mut self, status: Code, text: &'static str, events: &mut Events) {
        for call in self.list.drain(..).filter(|call| !call.given_up) {
            // One that was sent before may have been applied.
            let status = if call.attempt > 0 && status == Code::Unavailable { Code::Lost } else { status };
            events.push(call.fail(status, text));
        }
        self.shrink();
    }

    /// When the next deadline or, if calls may leave, the next attempt is.
    pub fn next_due_ms(&self, may_send: bool, now_ms: u64) -> u64 {
        let due = |call: &Call| {
            let waits = may_send && !call.sent && call.not_before_ms > now_ms;
            if waits { call.deadline_at_ms.min(call.not_before_ms) } else { call.deadline_at_ms }
        };
        self.list.iter().filter(|call| !call.given_up).map(due).min().unwrap_or(NEVER)
    }

    /// An idle phone holds no list.
    fn shrink(&mut self) {
        if self.list.is_empty() {
            self.list = Vec::new();
        }
    }
}
