//! The machine, step by step, with an owner that only notes what it is asked.

mod converge;
mod life;
mod notify;

use proto_wire::frame::{self, Beat, Call, Frame, Notify, Reply, next_frame};
use proto_wire::names::Cursor;
use proto_wire::pb;
use proto_wire::rpc::method::Method;
use proto_wire::status::Code;
use proto_wire_token::{Claims, TICKET_BYTES, TokenError};

use super::*;

/// Notes what a session asks for.
struct Notes {
    limits: Limits,
    out: Vec<u8>,
    beats: usize,
    calls: Vec<(u32, u16)>,
    /// The requests of these calls.
    bodies: Vec<Vec<u8>>,
    online: usize,
    applied: Vec<Cursor>,
    /// What calls took along.
    carried: Vec<Cursor>,
    wake_ms: Option<u64>,
    events: Vec<Event>,
    refuses_calls: Option<Code>,
}

impl Notes {
    fn new() -> Self {
        Self {
            limits: Limits::default(),
            out: Vec::new(),
            beats: 0,
            calls: Vec::new(),
            bodies: Vec::new(),
            online: 0,
            applied: Vec::new(),
            carried: Vec::new(),
            wake_ms: None,
            events: Vec::new(),
            refuses_calls: None,
        }
    }

    /// The frames that were sent since the last look.
    fn sent(&mut self) -> Vec<(u8, Vec<u8>)> {
        let out = std::mem::take(&mut self.out);
        let mut input = &out[..];
        let mut frames = Vec::new();
        while let Some(frame) = next_frame(&mut input, 1 << 16).expect("well formed") {
            frames.push((frame.kind, frame.body.to_vec()));
        }
        frames
    }

    /// The notifies that were sent since the last look: the number, and whether changes came along.
    fn notified(&mut self) -> Vec<(u64, bool)> {
        let notifies = self.sent().into_iter().filter(|(kind, _)| *kind == frame::kind::NOTIFY);
        notifies
            .map(|(_, body)| {
                let notify = Notify::parse(&body).expect("a notify");
                (notify.newest.number, notify.inline.is_some())
            })
            .collect()
    }
}

impl Owner for Notes {
    fn limits(&self) -> &Limits {
        &self.limits
    }
    fn unix_ms(&self) -> u64 {
        1_800_000_000_000
    }
    /// The token's text is the user, `expired` has expired, anything else is none.
    fn verify(&self, token: &[u8]) -> Result<Claims, TokenError> {
        match std::str::from_utf8(token).ok().map(|text| (text, text.parse())) {
            Some((_, Ok(user))) => {
                Ok(Claims { user, home: 0, device: Some(7), issued_s: 0, expires_s: u64::MAX })
            }
            Some(("expired", _)) => Err(TokenError::Expired),
            _ => Err(TokenError::Malformed),
        }
    }
    /// `ticket` and a digit is the ticket of that device, for user 5.
    fn resume(&self, ticket: &[u8]) -> Result<Claims, TokenError> {
        let text = std::str::from_utf8(ticket).unwrap_or_default();
        let device = text.strip_prefix("ticket").and_then(|device| device.parse().ok());
        let device = device.ok_or(TokenError::Signature)?;
        Ok(Claims { user: 5, home: 0, device: Some(device), issued_s: 0, expires_s: u64::MAX })
    }
    fn ticket(&self, claims: &Claims, device: u64) -> Option<([u8; TICKET_BYTES], u64)> {
        let mut ticket = [0; TICKET_BYTES];
        ticket[..2].copy_from_slice(&[claims.user as u8, device as u8]);
        Some((ticket, 99))
    }
    fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }
    fn beat(&mut self) {
        self.beats += 1;
    }
    fn call(&mut self, _: &Session, call: &Call<'_>, _: &'static Method) -> Result<(), Code> {
        self.calls.push((call.id, call.method));
        self.bodies.push(call.body.to_vec());
        self.refuses_calls.map_or(Ok(()), Err)?;
        self.carried.extend(call.applied);
        Ok(())
    }
    fn online(&mut self, _: &Session) {
        self.online += 1;
    }
    fn applied(&mut self, session: &mut Session) {
        self.applied.push(session.applied_cursor());
    }
    fn wake_at(&mut self, now_ms: u64) {
        self.wake_ms = Some(now_ms);
    }
    fn counted(&mut self, event: Event) {
        self.events.push(event);
    }
}

fn hello(token: &str, applied: Cursor) -> Vec<u8> {
    use prost::Message;
    pb::Hello {
        version_major: 1,
        token: token.to_owned().into(),
        device: 7,
        counter: 3,
        applied: Some(pb::Cursor { log_epoch: applied.log_epoch, number: applied.number }),
        ..Default::default()
    }
    .encode_to_vec()
}

/// A session that has said HELLO with a token at time 0.
fn live(notes: &mut Notes, applied: Cursor) -> Session {
    let mut session = Session::new(1, 0);
    give(&mut session, notes, frame::kind::HELLO, &hello("5", applied), 0).expect("welcome");
    notes.sent();
    session
}

fn give(session: &mut Session, notes: &mut Notes, kind: u8, body: &[u8], now_ms: u64) -> Result<(), Refusal> {
    session.handle_frame(Frame { kind, body }, now_ms, notes)
}

fn beat(session: &mut Session, notes: &mut Notes, applied: Option<Cursor>, now_ms: u64) {
    let mut out = Vec::new();
    Beat { applied }.put(&mut out);
    give(session, notes, frame::kind::BEAT, &out[2..], now_ms).expect("a beat is fine");
}

fn call(session: &mut Session, notes: &mut Notes, id: u32, method: u16) -> Result<(), Refusal> {
    let mut out = Vec::new();
    Call { id, method, attempt: 0, deadline_ms: 0, applied: None, body: b"" }.put(&mut out);
    give(session, notes, frame::kind::CALL, &out[2..], 0)
}

fn replies(notes: &mut Notes) -> Vec<(u32, Code)> {
    let replies = notes.sent().into_iter().filter(|(kind, _)| *kind == frame::kind::REPLY);
    replies
        .map(|(_, body)| {
            let reply = Reply::parse(&body).expect("a reply");
            (reply.id, reply.status)
        })
        .collect()
}
