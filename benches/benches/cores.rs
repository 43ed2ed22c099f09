//! The works that the micro-benchmarks time and the instruction counts count: sans-I/O cores only, no system calls.

use std::hint::black_box;

use gateway::config::Limits;
use gateway::session::{Event, Owner, Session};
use gateway::shard::slab::Slab;
use gateway::shard::wheel::{Links, LinksOf, Wheel};
use proto_wire::frame::{self, Beat, Call, Class, Frame, Notify, kind, next_frame};
use proto_wire::names::Cursor;
use proto_wire::pb;
use proto_wire::rpc::header::{Header, next_header};
use proto_wire::rpc::method::Method;
use proto_wire::status::Code;
use proto_wire_token::{Claims, TICKET_BYTES, TokenError};

/// A shard that does nothing: what is left is the session's own work.
pub struct Nobody {
    limits: Limits,
    out: Vec<u8>,
    pub beats: u64,
}

impl Nobody {
    pub fn new() -> Self {
        Self { limits: Limits::default(), out: Vec::with_capacity(4096), beats: 0 }
    }
}

impl Owner for Nobody {
    fn limits(&self) -> &Limits {
        &self.limits
    }
    fn unix_ms(&self) -> u64 {
        1_800_000_000_000
    }
    fn verify(&self, _token: &[u8]) -> Result<Claims, TokenError> {
        Ok(Claims { user: 5, home: 0, device: None, issued_s: 0, expires_s: u64::MAX })
    }
    fn resume(&self, _ticket: &[u8]) -> Result<Claims, TokenError> {
        Err(TokenError::Malformed)
    }
    fn ticket(&self, _claims: &Claims, _device: u64) -> Option<([u8; TICKET_BYTES], u64)> {
        None
    }
    fn out(&mut self) -> &mut Vec<u8> {
        self.out.clear();
        &mut self.out
    }
    fn beat(&mut self) {
        self.beats += 1;
    }
    fn call(&mut self, _: &Session, _: &Call<'_>, _: &'static Method) -> Result<(), Code> {
        Ok(())
    }
    fn online(&mut self, _: &Session) {}
    fn applied(&mut self, _: &mut Session) {}
    fn wake_at(&mut self, _: u64) {}
    fn counted(&mut self, event: Event) {
        black_box(event);
    }
}

/// A session whose phone was welcomed.
pub fn live(generation: u32, owner: &mut Nobody) -> Session {
    use prost::Message;
    let mut session = Session::new(generation, 0);
    let token = bytes::Bytes::from_static(b"t");
    let hello = pb::Hello { version_major: 1, token, device: 7, counter: 1, ..pb::Hello::default() };
    let body = hello.encode_to_vec();
    let frame = Frame { kind: kind::HELLO, body: &body };
    assert!(session.handle_frame(frame, 0, owner).is_ok(), "a good HELLO");
    session
}

/// Sessions as a shard holds them: by slot, in chunks.
pub struct Beaters {
    pub slab: Slab,
    pub owner: Nobody,
    pub sessions: u32,
    now_ms: u64,
}

impl Beaters {
    pub fn new(sessions: u32) -> Self {
        let (mut slab, mut owner) = (Slab::default(), Nobody::new());
        for slot in 0..sessions {
            let session = live(slab.next_generation(), &mut owner);
            slab.insert(slot, session);
        }
        Self { slab, owner, sessions, now_ms: 1 }
    }

    /// A thousand beats of a thousand sessions, spread over all: parse, find, handle.
    pub fn turn_of_1000_beats(&mut self) {
        self.now_ms += 10;
        let stride = (self.sessions / 1_000).max(1);
        for beat in 0..1_000 {
            let mut input = black_box(&Beat::EMPTY[..]);
            let Ok(Some(frame)) = next_frame(&mut input, 1 << 16) else { return };
            let slot = beat * stride % self.sessions;
            let Some(session) = self.slab.get_mut(slot) else { return };
            let _ = black_box(session.handle_frame(frame, self.now_ms, &mut self.owner));
        }
    }
}

/// One NOTIFY without a page.
pub fn encode_notify(out: &mut Vec<u8>, number: u64) {
    out.clear();
    Notify { class: Class::Now, newest: Cursor::new(1, number), inline: None }.put(out);
    black_box(&out);
}

/// A call's header and body, put and read again.
pub fn rpc_round(out: &mut Vec<u8>, call_id: u64) {
    out.clear();
    Header { call_id, method: 0x0601, deadline_ms: 5_000, ..Header::default() }.put(&[b'.'; 64], out);
    let _ = black_box(next_header(black_box(out)));
}

/// A frame of a call, put and parsed.
pub fn call_round(out: &mut Vec<u8>, id: u32) {
    out.clear();
    Call { id, method: 0x0601, attempt: 0, deadline_ms: 0, applied: None, body: &[b'.'; 64] }.put(out);
    let mut input = black_box(&out[..]);
    if let Ok(Some(frame)) = next_frame(&mut input, frame_limit()) {
        let _ = black_box(Call::parse(frame.body));
    }
}

fn frame_limit() -> usize {
    black_box(frame::kind::CALL as usize) << 12
}

/// Timers of a shard.
pub struct Timers {
    wheel: Wheel,
    links: Vec<Links>,
    now_ms: u64,
}

struct LinkTable<'a>(&'a mut [Links]);

impl LinksOf for LinkTable<'_> {
    fn links(&mut self, slot: u32) -> &mut Links {
        &mut self.0[slot as usize]
    }
}

impl Timers {
    pub fn new(sessions: u32) -> Self {
        let mut timers =
            Self { wheel: Wheel::new(0), links: vec![Links::default(); sessions as usize], now_ms: 0 };
        (0..sessions).for_each(|slot| timers.rearm(slot));
        timers
    }

    /// Sets a timer that is set already.
    pub fn rearm(&mut self, slot: u32) {
        self.now_ms += 1;
        let at_ms = self.now_ms + 240_000 + u64::from(slot) * 7 % 120_000;
        self.wheel.set(slot % self.links.len() as u32, at_ms, &mut LinkTable(&mut self.links));
    }
}

/// One session comes where another has gone.
pub fn churn(slab: &mut Slab, slot: u32) {
    black_box(slab.remove(slot));
    let generation = slab.next_generation();
    slab.insert(slot, Session::new(generation, 0));
}
