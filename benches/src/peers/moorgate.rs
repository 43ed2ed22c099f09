//! Moorgate's own protocol, as the comparison speaks it: the same schedule as for the peers, so no timers of its own.
//! A phone for everything else is `proto_wire::phone`. This one greets with a token, beats when told, calls the echo,
//! and fetches what it was told of.

use std::ops::Range;

use bytes::Bytes;
use prost::Message;
use proto_wire::frame::{self, Beat, Call, Frame, FrameError, Notify, Reply, kind, next_frame};
use proto_wire::limits::MAX_FRAME_BODY_BYTES;
use proto_wire::names::Cursor;
use proto_wire::pb;
use proto_wire::services::{echo, sync};
use proto_wire::status::Code;

use super::wire::{Ask, Heard, Who, Wire, WireError};

const NAME: &str = "Moorgate";

/// The calls to the echo and to the sync are told apart by their ids.
const SYNC_BIT: u32 = 1 << 31;

/// One connection.
#[derive(Debug)]
pub struct Moorgate {
    who: Who,
    token: Box<[u8]>,
    is_welcomed: bool,
    next_call: u32,
    /// What it has been given; said with the next call.
    applied: Cursor,
    is_syncing: bool,
}

impl Wire for Moorgate {
    const NAME: &'static str = NAME;

    fn new(who: Who) -> Self {
        Self {
            who,
            token: Box::default(),
            is_welcomed: false,
            next_call: 0,
            applied: Cursor::default(),
            is_syncing: false,
        }
    }

    fn set_token(&mut self, token: Box<[u8]>) {
        self.token = token;
    }

    fn greet(&mut self, out: &mut Vec<u8>) -> bool {
        let hello = pb::Hello {
            version_major: frame::VERSION_MAJOR,
            version_minor: frame::VERSION_MINOR,
            token: Bytes::copy_from_slice(&self.token),
            device: u64::from(self.who.number) + 1,
            counter: 1,
            client: "moorgate-bench".to_owned(),
            ..pb::Hello::default()
        };
        frame::put_message(out, kind::HELLO, &hello);
        false
    }

    fn take(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Option<(usize, Heard)>, WireError> {
        if !self.is_welcomed && !matches!(input[0], kind::WELCOME | kind::CLOSE) {
            return Err(WireError::not_spoken(NAME, input));
        }
        let mut rest = input;
        let Some(Frame { kind, body }) = next_frame(&mut rest, MAX_FRAME_BODY_BYTES).map_err(malformed)?
        else {
            return Ok(None);
        };
        let end = input.len() - rest.len();
        let heard = match kind {
            kind::WELCOME => {
                self.is_welcomed = true;
                Heard::Up
            }
            kind::BEAT => Heard::Pong,
            kind::REPLY => self.take_reply(&Reply::parse(body).map_err(malformed)?, end)?,
            kind::NOTIFY => self.take_notify(&Notify::parse(body).map_err(malformed)?, out),
            kind::EVENT => Heard::Message(end - body.len()..end),
            kind::CLOSE => {
                let why = pb::Close::decode(body).map_or_else(
                    |_| "it closed".to_owned(),
                    |close| format!("it closed with {} {}", close.code, close.text),
                );
                return Err(WireError::Refused { protocol: NAME, why });
            }
            _ => Heard::Nothing,
        };
        Ok(Some((end, heard)))
    }

    fn ask(&mut self, ask: &Ask<'_>, out: &mut Vec<u8>) -> bool {
        match *ask {
            Ask::Ping => out.extend_from_slice(&Beat::EMPTY),
            Ask::Echo { payload } => {
                let body = pb::EchoRequest { payload: Bytes::copy_from_slice(payload) }.encode_to_vec();
                self.call(echo::SAY.id, 0, None, &body, out);
            }
            // What reaches others comes from the logic tier.
            Ask::Publish { .. } => return false,
        }
        true
    }
}

impl Moorgate {
    fn call(&mut self, method: u16, bit: u32, applied: Option<Cursor>, body: &[u8], out: &mut Vec<u8>) {
        self.next_call = (self.next_call + 1) & !SYNC_BIT;
        Call { id: self.next_call | bit, method, attempt: 0, deadline_ms: 0, applied, body }.put(out);
    }

    fn take_notify(&mut self, notify: &Notify<'_>, out: &mut Vec<u8>) -> Heard {
        if notify.newest <= self.applied || self.is_syncing {
            return Heard::Nothing;
        }
        self.is_syncing = true;
        let Cursor { log_epoch, number } = self.applied;
        let cursor = Some(pb::Cursor { log_epoch, number });
        let body = pb::PullRequest { cursor, ..pb::PullRequest::default() }.encode_to_vec();
        self.call(sync::PULL.id, SYNC_BIT, Some(self.applied), &body, out);
        Heard::Nothing
    }

    fn take_reply(&mut self, reply: &Reply<'_>, end: usize) -> Result<Heard, WireError> {
        let is_sync = reply.id & SYNC_BIT != 0;
        if is_sync {
            self.is_syncing = false;
        }
        if reply.status != Code::Ok {
            return Ok(Heard::Refused);
        }
        if !is_sync {
            let payload = echo_payload(reply.body)
                .ok_or(WireError::Malformed { protocol: NAME, what: "an echo's reply cannot be read" })?;
            let start = end - reply.body.len();
            return Ok(Heard::Message(start + payload.start..start + payload.end));
        }
        let page = pb::Page::decode(reply.body)
            .map_err(|_| WireError::Malformed { protocol: NAME, what: "a page cannot be read" })?;
        let upto = Cursor::new(page.log_epoch, page.upto);
        let pieces = if upto > self.applied { page.changes.len() as u64 } else { 0 };
        self.applied = self.applied.max(upto);
        Ok(Heard::News(pieces))
    }
}

/// Where the payload of an EchoReply lies: field 1, bytes. None: it is none.
fn echo_payload(body: &[u8]) -> Option<Range<usize>> {
    let (&tag, rest) = body.split_first()?;
    let (bytes, taken) = proto_wire::varint::read(rest, proto_wire::limits::MAX_LENGTH_BYTES).ok()??;
    let start = 1 + taken;
    (tag == 0x0a && body.len() == start + bytes as usize).then_some(start..body.len())
}

fn malformed(error: FrameError) -> WireError {
    let what = match error {
        FrameError::UnknownType(_) => "a frame of an unknown type",
        FrameError::Length(_) | FrameError::TooLarge { .. } => "a frame's length is over its bound",
        FrameError::Malformed { what, .. } => what,
    };
    WireError::Malformed { protocol: NAME, what }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::Machine;
    use crate::peers::client::PeerEvent;
    use crate::peers::client::testing::{connected, end, events, heard, sent};
    use proto_wire::frame::Class;

    fn welcome() -> Vec<u8> {
        let mut out = Vec::new();
        frame::put_message(
            &mut out,
            kind::WELCOME,
            &pb::Welcome { version_major: 1, ..pb::Welcome::default() },
        );
        out
    }

    fn notify(number: u64) -> Vec<u8> {
        let mut out = Vec::new();
        Notify { class: Class::Now, newest: Cursor::new(1, number), inline: None }.put(&mut out);
        out
    }

    fn reply(id: u32, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        Reply { id, status: Code::Ok, given: None, retry_after_ms: None, body }.put(&mut out);
        out
    }

    #[test]
    fn news_are_fetched_once_and_what_was_given_is_said() {
        let (mut client, first) = connected::<Moorgate>(Who::default());
        assert_eq!(first[0], kind::HELLO);
        client.handle_bytes(&[welcome(), notify(2), notify(8)].concat(), 1);
        assert_eq!(events(&mut client), [PeerEvent::Up]);
        let out = sent(&mut client);
        let call = Call::parse(&out[2..]).expect("one call");
        assert_eq!((call.method, call.applied), (sync::PULL.id, Some(Cursor::default())));
        let changes = vec![pb::Change::default(); 8];
        let page = pb::Page { log_epoch: 1, upto: 8, changes, ..pb::Page::default() }.encode_to_vec();
        client.handle_bytes(&reply(call.id, &page), 1);
        assert_eq!(events(&mut client), [PeerEvent::News(8)]);
        client.handle_bytes(&notify(8), 1);
        assert!(sent(&mut client).is_empty(), "it has that");
        client.handle_bytes(&notify(9), 1);
        let out = sent(&mut client);
        assert_eq!(Call::parse(&out[2..]).expect("a call").applied, Some(Cursor::new(1, 8)));
    }

    #[test]
    fn every_cut_hears_the_same() {
        let echo =
            pb::EchoReply { payload: Bytes::from_static(&[5, 0, 0, 0, 0, 0, 0, 0, 9]) }.encode_to_vec();
        let mut input = [&welcome()[..], &Beat::EMPTY, &reply(1, &echo)].concat();
        frame::put_header(&mut input, kind::EVENT, 3);
        input.extend_from_slice(b"abc");
        let (told, _) = heard::<Moorgate>(&Who::default(), &input);
        let message = |stamp, bytes| PeerEvent::Message { stamp, bytes };
        assert_eq!(told, [PeerEvent::Up, PeerEvent::Pong, message(Some(5), 9), message(None, 3)]);
    }

    #[test]
    fn what_is_no_gateway_is_told() {
        let who = Who::default();
        assert!(end::<Moorgate>(&who, b"\x20").contains("does not speak Moorgate"));
        let mut close = Vec::new();
        let body = pb::Close { code: 101, text: "bad token".to_owned(), ..pb::Close::default() };
        frame::put_message(&mut close, kind::CLOSE, &body);
        assert!(end::<Moorgate>(&who, &close).contains("101 bad token"));
        let bad = [&welcome()[..], &[0x7f]].concat();
        assert!(end::<Moorgate>(&who, &bad).contains("unknown type"));
    }
}
