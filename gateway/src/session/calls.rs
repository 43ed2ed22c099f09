//! Calls of a phone: checked, forwarded, answered. Their bodies are opaque.

use proto_wire::close::Reason;
use proto_wire::frame::{Call, Reply};
use proto_wire::names::Cursor;
use proto_wire::rpc::method::{Access, Method};
use proto_wire::services;
use proto_wire::status::Code;

use super::{Event, Owner, Refusal, Session, State, flag};
use crate::limits;

/// A reply as it came from a backend.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    pub code: Code,
    pub given: Option<Cursor>,
    pub retry_after_ms: Option<u32>,
    pub body: &'a [u8],
}

impl<'a> Answer<'a> {
    /// A failure whose sentence is made here.
    pub fn failure(code: Code, text: &'a str) -> Self {
        Self { code, given: None, retry_after_ms: None, body: text.as_bytes() }
    }
}

impl Session {
    pub(super) fn handle_call(&mut self, call: &Call<'_>, owner: &mut impl Owner) -> Result<(), Refusal> {
        owner.counted(Event::Call);
        let advanced = call.applied.is_some_and(|applied| self.take_applied(applied));
        let method = match self.admit(call, owner) {
            Ok(method) => method,
            Err((code, text)) => {
                if advanced {
                    owner.applied(self);
                }
                if code == Code::TooMany {
                    self.strike()?;
                }
                self.refuse(call.id, code, text, owner);
                return Ok(());
            }
        };
        // The call takes along what the phone said, now or before: so no report is needed for it. If the call does
        // not get there, the backend tells the phone again, which is answered with a report.
        let applied = (self.state == State::Live).then(|| self.applied_cursor());
        match owner.call(self, &Call { applied, ..*call }, method) {
            Ok(()) => {
                self.calls += 1;
                self.strikes = 0;
                if method.id == services::sync::PULL.id {
                    self.flags |= flag::SYNC_IN_FLIGHT;
                }
            }
            Err(code) => {
                if advanced {
                    owner.applied(self);
                }
                self.refuse(call.id, code, "no backend can take the call now", owner);
            }
        }
        // Like a beat that says it: what came while a notify was outstanding is told now.
        if advanced {
            self.notify_at_beat(true, owner);
        }
        Ok(())
    }

    /// A forwarded call ended.
    pub fn handle_reply(
        &mut self,
        call_id: u32,
        was_sync: bool,
        answer: &Answer<'_>,
        owner: &mut impl Owner,
    ) {
        self.calls = self.calls.saturating_sub(1);
        if self.state == State::Closing {
            return;
        }
        put_reply(call_id, answer, owner);
        if was_sync {
            self.flags &= !flag::SYNC_IN_FLIGHT;
            self.take_sync_end(answer.given, owner);
        } else if let Some(given) = answer.given {
            self.take_written(given, owner);
        }
    }

    fn admit(&self, call: &Call<'_>, owner: &impl Owner) -> Result<&'static Method, (Code, &'static str)> {
        let method = services::method(call.method).ok_or((Code::UnknownMethod, "there is no such method"))?;
        if method.access == Access::Internal {
            return Err((Code::Denied, "this method is not for phones"));
        }
        if self.state == State::Anonymous && method.access != Access::Anonymous {
            return Err((Code::Denied, "this method needs a session with a token"));
        }
        if self.calls >= owner.limits().calls_in_flight {
            return Err((Code::TooMany, "too many calls of this connection are in flight"));
        }
        Ok(method)
    }

    fn strike(&mut self) -> Result<(), Refusal> {
        self.strikes = self.strikes.saturating_add(1);
        if self.strikes < limits::STRIKES_MAX {
            return Ok(());
        }
        Err(Refusal::new(Reason::Abuse, "calls beyond the limit came again and again"))
    }

    fn refuse(&self, call_id: u32, code: Code, text: &str, owner: &mut impl Owner) {
        owner.counted(Event::CallRefused(code));
        put_reply(call_id, &Answer::failure(code, text), owner);
    }
}

fn put_reply(call_id: u32, answer: &Answer<'_>, owner: &mut impl Owner) {
    let reply = Reply {
        id: call_id,
        status: answer.code,
        given: answer.given,
        retry_after_ms: answer.retry_after_ms,
        body: answer.body,
    };
    reply.put(owner.out());
}
