//! The works that the micro-benchmarks time and the instruction counts count: sans-I/O cores only, no system calls.

use std::hint::black_box;
use std::sync::Arc;

use gateway::config::Limits;
use gateway::session::Session;
use gateway::shard::io;
use gateway::shard::sessions::Desk;
use gateway::shard::slab::Slab;
use gateway::shard::table::{Output, Table};
use gateway::shard::wheel::{Links, LinksOf, Wheel};
use proto_wire::frame::{Beat, Call, Class, Notify, kind, next_frame, put_message};
use proto_wire::names::Cursor;
use proto_wire::pb;
use proto_wire::rpc::header::{Header, next_header};
use proto_wire_token::{Claims, TokenError, Verify};

/// Takes every token: its signature is not what is measured here.
struct Trusting;

impl Verify for Trusting {
    fn verify(&self, _token: &[u8], _now_s: u64) -> Result<Claims, TokenError> {
        Ok(Claims { user: 5, home: 0, device: None, issued_s: 0, expires_s: u64::MAX })
    }
}

/// A shard without its ring: sessions whose phones were welcomed, by slot.
pub struct Beaters {
    table: Table,
    generations: Vec<u32>,
}

impl Beaters {
    /// A shard of so many phones; room for `room` is made before, so that it is not counted as one's memory.
    pub fn new(sessions: u32, room: u32) -> Self {
        let desk =
            Desk::new(1, 0, Arc::new(Limits::default()), Arc::new(Trusting), Arc::default(), Vec::new());
        let generations = Vec::with_capacity(room as usize);
        let mut beaters = Self { table: Table::new(desk), generations };
        (0..sessions).for_each(|_| beaters.welcome());
        assert_eq!(beaters.live(), u64::from(sessions), "all are there");
        beaters
    }

    /// One phone more: it connects, says HELLO, and has its WELCOME.
    pub fn welcome(&mut self) {
        let slot = self.generations.len() as u32;
        let generation = self.table.accept(slot);
        self.generations.push(generation);
        let token = bytes::Bytes::from_static(b"t");
        let hello = pb::Hello { version_major: 1, token, device: 7, counter: 1, ..pb::Hello::default() };
        let mut frame = Vec::new();
        put_message(&mut frame, kind::HELLO, &hello);
        assert!(self.table.feed(slot, generation, &frame).is_ok(), "a good HELLO");
        assert_eq!(self.send_all(), 0, "a WELCOME is no beat");
    }

    /// Phones that are there and were welcomed.
    pub fn live(&self) -> u64 {
        self.table.desk.counters.live.value()
    }

    /// A thousand beats of a thousand sessions, spread over all: fed as they are received, answered as they are sent.
    /// Gives how many were answered.
    pub fn turn_of_1000_beats(&mut self) -> u32 {
        self.table.desk.now_ms += 10;
        let sessions = self.generations.len();
        let stride = (sessions / 1_000).max(1);
        for beat in 0..1_000 {
            let slot = beat * stride % sessions;
            let bytes = black_box(&Beat::EMPTY[..]);
            if self.table.feed(slot as u32, self.generations[slot], bytes).is_err() {
                return 0;
            }
        }
        self.send_all()
    }

    /// What a shard does at the end of a turn and when its sends are done, without the ring. Gives the beats among them.
    fn send_all(&mut self) -> u32 {
        let (dirty, mut beats) = (self.table.take_dirty(), 0);
        for &(slot, generation) in &dirty {
            self.table.clear_dirty(slot, generation);
            match self.table.take_output(slot, generation) {
                Output::Beat => beats += 1,
                Output::Bytes(out) => self.table.desk.keep_buffer(out),
                Output::Nothing | Output::TooMuch => {}
            }
            if let Some(session) = self.table.slab.current(slot, generation) {
                session.io &= !io::SENDING;
            }
        }
        self.table.keep_dirty(dirty);
        beats
    }
}

/// One NOTIFY without a page.
pub fn encode_notify(out: &mut Vec<u8>, number: u64) {
    out.clear();
    Notify { class: Class::Now, newest: Cursor::new(1, black_box(number)), inline: None }.put(out);
    black_box(out.as_slice());
}

/// A call's header and body, put and read again.
pub fn rpc_round(out: &mut Vec<u8>, call_id: u64) {
    out.clear();
    Header { call_id, method: 0x0601, deadline_ms: 5_000, ..Header::default() }.put(&[b'.'; 64], out);
    let read = black_box(next_header(black_box(out)));
    assert!(matches!(read, Ok(Some(_))), "what was put is read");
}

/// A frame of a call, put and parsed.
pub fn call_round(out: &mut Vec<u8>, id: u32) {
    out.clear();
    Call { id, method: 0x0601, attempt: 0, deadline_ms: 0, applied: None, body: &[b'.'; 64] }.put(out);
    let mut input = black_box(out.as_slice());
    let frame = next_frame(&mut input, BODY_BYTES_MAX);
    let call = frame.ok().flatten().and_then(|frame| Call::parse(black_box(frame.body)).ok());
    assert!(black_box(call).is_some_and(|call| call.id == id), "what was put is read");
}

const BODY_BYTES_MAX: usize = 1 << 16;

/// Timers of a shard.
pub struct Timers {
    wheel: Wheel,
    links: Vec<Links>,
    set: u64,
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
            Self { wheel: Wheel::new(0), links: vec![Links::default(); sessions as usize], set: 0 };
        (0..sessions).for_each(|slot| timers.rearm(slot));
        timers
    }

    /// Sets a timer that is set already, to some time within six minutes from now.
    pub fn rearm(&mut self, slot: u32) {
        self.set = self.set.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let at_ms = (self.set >> 33) % 360_000;
        self.wheel.set(black_box(slot), at_ms, &mut LinkTable(&mut self.links));
    }

    /// Whether every timer is set.
    pub fn are_set(&self) -> bool {
        self.links.iter().all(Links::is_set)
    }
}

/// Records of sessions, in chunks.
pub fn slab_of(sessions: u32) -> Slab {
    let mut slab = Slab::default();
    for slot in 0..sessions {
        let generation = slab.next_generation();
        slab.insert(slot, Session::new(generation, 0));
    }
    slab
}

/// A session goes, and another comes into its slot.
pub fn churn(slab: &mut Slab, slot: u32) {
    let gone = black_box(slab.remove(black_box(slot)));
    assert!(gone.is_some(), "a session was there");
    let generation = slab.next_generation();
    slab.insert(slot, Session::new(generation, 0));
}
