//! Any server: whatever it sends and whenever it goes, the phone ends each call once, applies numbers in
//! order, and never spins.
#![no_main]

use std::sync::Arc;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use proto_wire::frame::{self, kind};
use proto_wire::pb;
use proto_wire::phone::{Device, Ended, Phone, PhoneConfig, PhoneEvent};

/// A phone and what its owner has seen.
struct World {
    phone: Phone,
    now_ms: u64,
    made: Vec<u32>,
    ended: Vec<u32>,
    last: (u32, u64),
}

fuzz_target!(|bytes: &[u8]| {
    let device = Device { id: 1, token: Box::from(&b"token"[..]), ..Device::default() };
    let phone = Phone::new(Arc::new(PhoneConfig::default()), device, 1);
    let mut world = World { phone, now_ms: 0, made: vec![], ended: vec![], last: (0, 0) };
    world.phone.connect(0);
    let mut rest = bytes;
    while let [step, tail @ ..] = rest {
        rest = world.step(*step, tail);
        world.settle();
    }
    world.run_until(world.now_ms + 200_000);
    world.ended.sort();
    assert_eq!(world.made, world.ended);
});

impl World {
    fn step<'a>(&mut self, step: u8, tail: &'a [u8]) -> &'a [u8] {
        let (phone, now_ms) = (&mut self.phone, self.now_ms);
        match step % 8 {
            // The next bytes, as they are or as a frame of their own.
            0 | 1 => {
                let (bytes, tail) = tail.split_at(tail.len().min(usize::from(step / 8)));
                phone.handle_bytes(bytes, now_ms);
                return tail;
            }
            2 | 3 => {
                let (bytes, tail) = tail.split_at(tail.len().min(usize::from(step / 8) + 1));
                let Some((&frame_kind, body)) = bytes.split_first() else { return tail };
                let mut out = Vec::new();
                frame::put_header(&mut out, frame_kind % 9, body.len());
                out.extend_from_slice(body);
                phone.handle_bytes(&out, now_ms);
                return tail;
            }
            4 => {
                phone.handle_connected(now_ms);
                let mut out = Vec::new();
                let welcome = pb::Welcome { version_major: 1, user: 7, ..pb::Welcome::default() };
                frame::put_message(&mut out, kind::WELCOME, &welcome);
                phone.handle_bytes(&out, now_ms);
            }
            5 => phone.handle_closed(now_ms, if step & 8 == 0 { Ended::Eof } else { Ended::ConnectFailed }),
            6 => {
                let body = Bytes::from_static(b"body");
                self.made.push(phone.call(0x0201, body, 5_000, step & 8 == 0, now_ms).0);
                if step & 0xf0 == 0xf0 {
                    phone.close();
                } else if step & 0xf0 == 0xe0 {
                    phone.connect(now_ms);
                }
            }
            _ => self.run_until(now_ms + (1 << (step / 16))),
        }
        tail
    }

    fn settle(&mut self) {
        while let Some(event) = self.phone.poll_event() {
            match event {
                PhoneEvent::Reply { handle, .. } => self.ended.push(handle.0),
                PhoneEvent::Page { page } => {
                    for change in &page.changes {
                        let place = (page.log_epoch, change.number);
                        assert!(place > self.last, "{place:?} after {:?}", self.last);
                        self.last = place;
                    }
                    assert!((page.log_epoch, page.upto) >= self.last);
                    self.last = (page.log_epoch, page.upto);
                }
                PhoneEvent::Snapshot { page, last: true, .. } => self.last = (page.log_epoch, page.upto),
                _ => {}
            }
        }
        let mut out = Vec::new();
        self.phone.poll_transmit(&mut out);
        assert!(!self.phone.poll_transmit(&mut out));
    }

    fn run_until(&mut self, end_ms: u64) {
        self.settle();
        while let Some(due_ms) = self.phone.poll_timeout().filter(|&due_ms| due_ms <= end_ms) {
            self.now_ms = self.now_ms.max(due_ms);
            self.phone.handle_timeout(self.now_ms);
            self.settle();
            assert_ne!(self.phone.poll_timeout(), Some(due_ms), "a timer that is due twice spins");
        }
        self.now_ms = end_ms;
    }
}
