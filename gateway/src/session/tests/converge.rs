//! A real phone and its session, with bytes in flight between them and a backend that tells and answers as the logic
//! tier does: whatever comes in whatever order, the phone ends up with all there is.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;
use proto_wire::frame::Class;
use proto_wire::phone::{Device, Phone, PhoneConfig, PhoneEvent};
use proto_wire::services::{messages, sync};

use super::*;

#[derive(Debug, Clone, Copy)]
enum Step {
    /// A row of somebody else, and the news of it.
    News,
    /// The same, but the news is lost on its way to the gateway.
    LostNews,
    /// The phone writes.
    Write,
    /// The oldest call at the backend is answered.
    Answer,
    /// It is carried out, and its answer is lost.
    LostAnswer,
    /// What the backend sent arrives; or what it sent behind that, first.
    FromBackend,
    Overtaken,
    /// The oldest bytes in flight to the server, or to the phone, arrive.
    Up,
    Down,
    /// The backend tells again what it was not told that the phone has.
    Sweep,
    Pass,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => Just(Step::News),
        1 => Just(Step::LostNews),
        3 => Just(Step::Write),
        4 => Just(Step::Answer),
        1 => Just(Step::LostAnswer),
        6 => Just(Step::FromBackend),
        1 => Just(Step::Overtaken),
        6 => Just(Step::Up),
        6 => Just(Step::Down),
        1 => Just(Step::Sweep),
        1 => Just(Step::Pass),
    ];
    proptest::collection::vec(step, 1..120)
}

/// What the backend sends to the session.
enum Sent {
    News { newest: u64, prev: u64, page: Vec<u8> },
    Reply { id: u32, is_sync: bool, given: Option<u64>, body: Vec<u8> },
    Failure { id: u32, is_sync: bool },
}

struct Pair {
    phone: Phone,
    session: Session,
    notes: Notes,
    now_ms: u64,
    up: VecDeque<Vec<u8>>,
    down: VecDeque<Vec<u8>>,
    sent: VecDeque<Sent>,
    /// Of a version that knows no pages in answers: it drops them.
    is_old: bool,
    newest: u64,
    /// What the backend counts as told and as applied.
    told: u64,
    applied: u64,
    /// Uploads that were applied.
    uploads: Vec<Bytes>,
    /// Calls that are no pulls.
    writes: Vec<u32>,
}

impl Pair {
    fn new(is_old: bool) -> Self {
        let device = Device { id: 7, token: Box::from(&b"5"[..]), ..Device::default() };
        let mut pair = Self {
            phone: Phone::new(Arc::new(PhoneConfig::default()), device, 1),
            session: Session::new(1, 0),
            notes: Notes::new(),
            now_ms: 0,
            up: VecDeque::new(),
            down: VecDeque::new(),
            sent: VecDeque::new(),
            is_old,
            newest: 0,
            told: 0,
            applied: 0,
            uploads: Vec::new(),
            writes: Vec::new(),
        };
        pair.phone.connect(0);
        pair.take();
        pair.phone.handle_connected(0);
        pair.settle();
        assert!(pair.phone.is_up());
        pair
    }

    /// Both sides say what they have to.
    fn take(&mut self) {
        while let Some(event) = self.phone.poll_event() {
            assert!(!matches!(event, PhoneEvent::Closed { .. }), "{event:?}");
        }
        let mut out = Vec::new();
        if self.phone.poll_transmit(&mut out) {
            self.up.push_back(out);
        }
        let mut out = std::mem::take(&mut self.notes.out);
        for _ in 0..std::mem::take(&mut self.notes.beats) {
            out.extend_from_slice(&Beat::EMPTY);
        }
        if !out.is_empty() {
            self.down.push_back(out);
        }
        for applied in self.notes.applied.drain(..).chain(self.notes.carried.drain(..)) {
            self.applied = self.applied.max(applied.number);
        }
    }

    fn page(&self, after: u64) -> Vec<u8> {
        let change = |number| pb::Change { number, version: 1, ..pb::Change::default() };
        let changes = (after + 1..=self.newest).map(change).collect();
        pb::Page { log_epoch: 1, after, upto: self.newest, changes, ..pb::Page::default() }.encode_to_vec()
    }

    fn tell(&mut self) {
        let prev = self.told.max(self.applied);
        self.told = self.newest;
        self.sent.push_back(Sent::News { newest: self.newest, prev, page: self.page(prev) });
    }

    fn tell_again(&mut self) {
        self.told = self.applied;
        if self.applied < self.newest {
            self.tell();
        }
    }

    fn answer(&mut self, is_lost: bool) {
        if self.notes.calls.is_empty() {
            return;
        }
        let (id, method) = self.notes.calls.remove(0);
        let body = self.notes.bodies.remove(0);
        let is_sync = method == sync::PULL.id;
        let (body, given) = if is_sync {
            let request = pb::PullRequest::decode(&body[..]).expect("a pull");
            let after = request.cursor.unwrap_or_default().number;
            (self.page(after), Some(self.newest))
        } else {
            assert_eq!(method, messages::SEND.id);
            self.writes.push(id);
            self.send(pb::SendRequest::decode(&body[..]).expect("a send").id)
        };
        self.sent.push_back(if is_lost {
            Sent::Failure { id, is_sync }
        } else {
            Sent::Reply { id, is_sync, given, body }
        });
    }

    fn arrive_from_backend(&mut self, at: usize) {
        match self.sent.remove(at) {
            Some(Sent::News { newest, prev, page }) => {
                let news = News { class: Class::Now, newest: Cursor::new(1, newest), prev, page: &page };
                self.session.handle_news(&news, self.now_ms, &mut self.notes);
            }
            Some(Sent::Reply { id, is_sync, given, body }) => {
                let given = given.map(|number| Cursor::new(1, number));
                let answer = Answer { code: Code::Ok, given, retry_after_ms: None, body: &body };
                self.session.handle_reply(id, is_sync, &answer, &mut self.notes);
            }
            Some(Sent::Failure { id, is_sync }) => {
                let answer = Answer::failure(Code::Lost, "");
                self.session.handle_reply(id, is_sync, &answer, &mut self.notes);
            }
            None => {}
        }
    }

    /// The first time the change goes along; a repeat means that it may not have arrived.
    fn send(&mut self, id: Bytes) -> (Vec<u8>, Option<u64>) {
        if self.uploads.contains(&id) {
            self.tell_again();
            return (pb::SendReply { repeated: true, ..pb::SendReply::default() }.encode_to_vec(), None);
        }
        self.uploads.push(id);
        self.newest += 1;
        self.told = self.newest;
        let page = self.page(self.applied).into();
        (pb::SendReply { page, ..pb::SendReply::default() }.encode_to_vec(), Some(self.newest))
    }

    fn arrive_up(&mut self) {
        let Some(bytes) = self.up.pop_front() else { return };
        let mut input = &bytes[..];
        while let Some(frame) = next_frame(&mut input, 1 << 16).expect("well formed") {
            self.session.handle_frame(frame, self.now_ms, &mut self.notes).expect("a phone errs never");
        }
    }

    fn arrive_down(&mut self) {
        let Some(bytes) = self.down.pop_front() else { return };
        let bytes = if self.is_old { without_given(&bytes, &self.writes) } else { bytes };
        self.phone.handle_bytes(&bytes, self.now_ms);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::News => {
                self.newest += 1;
                self.tell();
            }
            Step::LostNews => self.newest += 1,
            Step::Write => {
                if let Some(id) = self.phone.upload_id(self.now_ms) {
                    let id = Bytes::copy_from_slice(&id.0);
                    let request = pb::SendRequest { id, wants_page: true, ..pb::SendRequest::default() };
                    self.phone.call_method(&messages::SEND, &request, self.now_ms);
                }
            }
            Step::Answer => self.answer(false),
            Step::LostAnswer => self.answer(true),
            Step::FromBackend => self.arrive_from_backend(0),
            Step::Overtaken => self.arrive_from_backend(1),
            Step::Up => self.arrive_up(),
            Step::Down => self.arrive_down(),
            Step::Sweep => self.tell_again(),
            Step::Pass => self.pass(1_000),
        }
        self.take();
    }

    fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        self.phone.handle_timeout(self.now_ms);
    }

    /// Until nothing is in flight.
    fn settle(&mut self) {
        for _ in 0..1_000 {
            self.take();
            let is_quiet = self.up.is_empty() && self.down.is_empty() && self.sent.is_empty();
            if is_quiet && self.notes.calls.is_empty() {
                return;
            }
            self.arrive_up();
            self.arrive_down();
            self.answer(false);
            self.arrive_from_backend(0);
        }
        panic!("phone and session talk without end");
    }
}

/// The same frames as an old phone reads them.
fn without_given(bytes: &[u8], writes: &[u32]) -> Vec<u8> {
    let (mut input, mut out) = (bytes, Vec::new());
    while let Some(frame) = next_frame(&mut input, 1 << 16).expect("well formed") {
        match (frame.kind, Reply::parse(frame.body)) {
            (frame::kind::REPLY, Ok(reply)) if writes.contains(&reply.id) => {
                Reply { given: None, body: b"", ..reply }.put(&mut out);
            }
            _ => {
                frame::put_header(&mut out, frame.kind, frame.body.len());
                out.extend_from_slice(frame.body);
            }
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn phone_and_session_agree_in_the_end(steps in steps(), is_old: bool) {
        let mut pair = Pair::new(is_old);
        for step in steps {
            pair.step(step);
        }
        // Long enough for what is sent again after a failure, too short for a beat.
        for _ in 0..3 {
            pair.settle();
            pair.pass(6_000);
        }
        // News that was lost on the way is told again by the backend.
        pair.tell_again();
        pair.settle();
        if !is_old {
            let stats = pair.phone.stats();
            prop_assert!(stats.gaps == 0 || stats.replies_late > 0, "what comes unasked fits");
            prop_assert_eq!(pair.phone.cursor().number, pair.newest, "without a beat");
            pair.step(Step::News);
            pair.settle();
            prop_assert_eq!(pair.phone.cursor().number, pair.newest, "news comes at once");
        }
        // An old phone drops what the answers of its writes give, and hears of it at its next beat.
        pair.pass(700_000);
        pair.settle();
        prop_assert_eq!(pair.phone.cursor().number, pair.newest);
        pair.pass(700_000);
        pair.settle();
        prop_assert_eq!(pair.session.applied, pair.newest, "the phone has said it");
        prop_assert_eq!(pair.applied, pair.newest, "the backend has heard it");
    }
}
