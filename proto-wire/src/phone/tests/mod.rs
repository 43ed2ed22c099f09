//! A phone stepped through virtual time against a tiny scripted server.

mod calls;
mod garbage;
mod link;
mod sync;

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use super::*;
use crate::frame::{Beat, Call, Notify, Reply, next_frame};
use crate::limits;

/// A frame of the phone, as the server read it.
#[derive(Debug, Clone, PartialEq)]
enum Sent {
    Hello(pb::Hello),
    Beat(Option<Cursor>),
    Call { id: u32, method: u16, attempt: u8, deadline_ms: u32, applied: Option<Cursor>, body: Vec<u8> },
}

/// A phone, its clock, and what both sides saw.
struct Bench {
    phone: Phone,
    now_ms: u64,
    sent: Vec<Sent>,
    /// Each with the time at which it was taken.
    events: Vec<(u64, PhoneEvent)>,
}

impl Bench {
    fn new(change: impl FnOnce(&mut PhoneConfig)) -> Self {
        let mut config = PhoneConfig { sync_on_connect: false, ..PhoneConfig::default() };
        change(&mut config);
        let device = Device { id: 9, token: Box::from(&b"token"[..]), counter: 6, cursor: Cursor::default() };
        Self { phone: Phone::new(Arc::new(config), device, 1), now_ms: 1_000, sent: vec![], events: vec![] }
    }

    /// Welcomed, with nothing left to see.
    fn up(change: impl FnOnce(&mut PhoneConfig)) -> Self {
        let mut bench = Self::new(change);
        bench.phone.connect(bench.now_ms);
        bench.connect();
        bench.sent.clear();
        bench.events.clear();
        bench
    }

    /// Opens the socket that the phone asked for, and welcomes it.
    fn connect(&mut self) {
        self.settle();
        self.phone.handle_connected(self.now_ms);
        self.settle();
        self.say(kind::WELCOME, &welcome());
    }

    /// Takes what the phone has to say.
    fn settle(&mut self) {
        while let Some(event) = self.phone.poll_event() {
            self.events.push((self.now_ms, event));
        }
        let mut out = Vec::new();
        assert_eq!(self.phone.poll_transmit(&mut out), !out.is_empty());
        let mut input = &out[..];
        while let Some(frame) =
            next_frame(&mut input, limits::MAX_FRAME_BODY_BYTES).expect("a phone sends frames")
        {
            self.sent.push(match frame.kind {
                kind::HELLO => Sent::Hello(pb::Hello::decode(frame.body).expect("a HELLO")),
                kind::BEAT => Sent::Beat(Beat::parse(frame.body).expect("a beat").applied),
                kind::CALL => {
                    let Call { id, method, attempt, deadline_ms, applied, body } =
                        Call::parse(frame.body).expect("a call");
                    Sent::Call { id, method, attempt, deadline_ms, applied, body: body.to_vec() }
                }
                other => panic!("a phone never sends {other:#x}"),
            });
        }
        assert!(input.is_empty(), "whole frames only");
        assert!(!self.phone.poll_transmit(&mut out), "everything was sent at once");
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.phone.handle_bytes(bytes, self.now_ms);
        self.settle();
    }

    fn say(&mut self, kind: u8, message: &impl Message) {
        let mut out = Vec::new();
        frame::put_message(&mut out, kind, message);
        self.feed(&out);
    }

    fn reply(&mut self, id: u32, status: Code, retry_after_ms: Option<u32>, body: &[u8]) {
        let mut out = Vec::new();
        Reply { id, status, given: None, retry_after_ms, body }.put(&mut out);
        self.feed(&out);
    }

    fn notify(&mut self, newest: Cursor, inline: Option<pb::Page>) {
        let bytes = inline.as_ref().map(|page| page.encode_to_vec());
        let inline = inline.as_ref().zip(bytes.as_ref());
        let inline = inline.map(|(page, bytes)| frame::Inline { prev: page.after, page: bytes });
        let mut out = Vec::new();
        Notify { class: frame::Class::Now, newest, inline }.put(&mut out);
        self.feed(&out);
    }

    fn cut(&mut self, ended: Ended) {
        self.phone.handle_closed(self.now_ms, ended);
        self.settle();
    }

    /// Lets time pass until `end_ms`, serving every timer when it is due; `answer` beats.
    fn run_until(&mut self, end_ms: u64, answer: bool) {
        while let Some(due_ms) = self.phone.poll_timeout().filter(|&due_ms| due_ms <= end_ms) {
            self.now_ms = self.now_ms.max(due_ms);
            let before = self.sent.len();
            self.phone.handle_timeout(self.now_ms);
            self.settle();
            if answer && self.sent[before..].contains(&Sent::Beat(None)) {
                self.feed(&Beat::EMPTY);
            }
            assert_ne!(self.phone.poll_timeout(), Some(due_ms), "a timer that is due twice spins");
        }
        self.now_ms = self.now_ms.max(end_ms);
    }

    /// Lets time pass until the phone asks for a socket again, and gives how long that took.
    fn wait_for_connect(&mut self) -> u64 {
        let start_ms = self.now_ms;
        let due_ms = self.phone.poll_timeout().expect("it comes back");
        self.run_until(due_ms, false);
        assert!(matches!(self.events.last(), Some((_, PhoneEvent::Connect { .. }))), "{:?}", self.events);
        due_ms - start_ms
    }

    fn take_sent(&mut self) -> Vec<Sent> {
        std::mem::take(&mut self.sent)
    }

    fn take_events(&mut self) -> Vec<PhoneEvent> {
        self.events.drain(..).map(|(_, event)| event).collect()
    }

    /// The only call that was sent since the last look.
    fn take_call(&mut self) -> (u32, u16, u8, Option<Cursor>, Vec<u8>) {
        match &self.take_sent()[..] {
            [Sent::Call { id, method, attempt, applied, body, .. }] => {
                (*id, *method, *attempt, *applied, body.clone())
            }
            other => panic!("one call was expected: {other:?}"),
        }
    }
}

fn welcome() -> pb::Welcome {
    pb::Welcome {
        version_major: 1,
        version_minor: 0,
        interval_ms: 60_000,
        server_time_ms: 1_800_000_000_000,
        max_body_bytes: 65_536,
        max_calls_in_flight: 4,
        ticket: Bytes::from_static(b"ticket"),
        alternates: vec![],
        user: 42,
        ticket_good_s: 3_600,
    }
}

fn beats(sent: &[Sent]) -> usize {
    sent.iter().filter(|sent| **sent == Sent::Beat(None)).count()
}

fn closes(events: &[PhoneEvent]) -> Vec<CloseReason> {
    let reason = |event: &PhoneEvent| match event {
        PhoneEvent::Closed { reason, .. } => Some(*reason),
        _ => None,
    };
    events.iter().filter_map(reason).collect()
}
