//! WebSocket (RFC 6455), the client's side: upgrade, masked frames, ping and pong, text and binary.

use std::ops::Range;

use aws_lc_rs::digest;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::limits;
use super::wire::{Ask, Heard, Who, Wire, WireError};

const NAME: &str = "WebSocket";

mod opcode {
    pub const CONTINUATION: u8 = 0;
    pub const TEXT: u8 = 1;
    pub const BINARY: u8 = 2;
    pub const CLOSE: u8 = 8;
    pub const PING: u8 = 9;
    pub const PONG: u8 = 10;
}

const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
/// RFC 6455, 1.3.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// One connection.
#[derive(Debug)]
pub struct WebSocket {
    who: Who,
    key: String,
    is_upgraded: bool,
    /// A message of several frames: the bytes that came before.
    fragments: Option<usize>,
    masks: u32,
}

impl Wire for WebSocket {
    const NAME: &'static str = NAME;

    fn new(who: Who) -> Self {
        let nonce: [u8; 16] =
            std::array::from_fn(|at| (who.number >> (8 * (at % 4))) as u8 ^ at as u8 ^ 0x5a);
        let masks = who.number.wrapping_mul(0x9e37_79b9) | 1;
        Self { key: BASE64_STANDARD.encode(nonce), who, is_upgraded: false, fragments: None, masks }
    }

    fn greet(&mut self, out: &mut Vec<u8>) -> bool {
        let Who { host, path, .. } = &self.who;
        let path = if path.is_empty() { "/" } else { path };
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {}\r\nSec-WebSocket-Version: 13\r\n\r\n",
            self.key
        );
        out.extend_from_slice(head.as_bytes());
        false
    }

    fn take(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Option<(usize, Heard)>, WireError> {
        if !self.is_upgraded {
            return self.take_upgrade(input);
        }
        let Some(frame) = read_frame(input)? else { return Ok(None) };
        let payload = &input[frame.payload.clone()];
        let end = frame.payload.end;
        let heard = match frame.opcode {
            opcode::PING => {
                self.put(opcode::PONG, payload, out);
                Heard::Nothing
            }
            opcode::PONG => Heard::Pong,
            opcode::CLOSE => {
                let why = match payload {
                    [high, low, text @ ..] => {
                        let code = u16::from_be_bytes([*high, *low]);
                        format!("it closed with {code} {}", text.escape_ascii())
                    }
                    _ => "it closed".to_owned(),
                };
                return Err(WireError::Refused { protocol: NAME, why });
            }
            opcode::TEXT | opcode::BINARY | opcode::CONTINUATION => self.take_message(&frame)?,
            _ => return Err(malformed("an opcode that nobody defined")),
        };
        Ok(Some((end, heard)))
    }

    fn ask(&mut self, ask: &Ask<'_>, out: &mut Vec<u8>) -> bool {
        match *ask {
            Ask::Ping => self.put(opcode::PING, &[], out),
            Ask::Echo { payload } => {
                // Text where it is text, as a browser would.
                let kind = if std::str::from_utf8(payload).is_ok() { opcode::TEXT } else { opcode::BINARY };
                self.put(kind, payload, out);
            }
            Ask::Publish { .. } => return false,
        }
        true
    }
}

impl WebSocket {
    fn take_upgrade(&mut self, input: &[u8]) -> Result<Option<(usize, Heard)>, WireError> {
        const START: &[u8] = b"HTTP/1.1 ";
        if !START.starts_with(&input[..input.len().min(START.len())]) {
            return Err(WireError::not_spoken(NAME, input));
        }
        let window = &input[..input.len().min(limits::HTTP_HEAD_BYTES_MAX)];
        let Some(end) = window.windows(4).position(|four| four == b"\r\n\r\n") else {
            if input.len() >= limits::HTTP_HEAD_BYTES_MAX {
                return Err(malformed("the head of the answer has no end"));
            }
            return Ok(None);
        };
        let head = String::from_utf8_lossy(&input[..end]);
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap_or_default();
        if status.split(' ').nth(1) != Some("101") {
            let why = format!("it answered the upgrade with \"{status}\"");
            return Err(WireError::Refused { protocol: NAME, why });
        }
        let wanted = accept(&self.key);
        let is_accepted = lines
            .filter_map(|line| line.split_once(':'))
            .any(|(name, value)| name.eq_ignore_ascii_case("sec-websocket-accept") && value.trim() == wanted);
        if !is_accepted {
            return Err(malformed("the upgrade's Sec-WebSocket-Accept is not ours"));
        }
        self.is_upgraded = true;
        Ok(Some((end + 4, Heard::Up)))
    }

    fn take_message(&mut self, frame: &Frame) -> Result<Heard, WireError> {
        let is_first = frame.opcode != opcode::CONTINUATION;
        if is_first == self.fragments.is_some() {
            return Err(malformed("frames of two messages are mixed"));
        }
        let bytes = self.fragments.unwrap_or(0) + frame.payload.len();
        if bytes > limits::MESSAGE_BYTES_MAX {
            return Err(WireError::TooLarge { protocol: NAME, bytes });
        }
        self.fragments = (!frame.is_last).then_some(bytes);
        // Of a message in fragments the last one is told: echoes of ours come whole.
        Ok(if frame.is_last { Heard::Message(frame.payload.clone()) } else { Heard::Nothing })
    }

    fn put(&mut self, opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
        out.push(FIN | opcode);
        match payload.len() {
            bytes @ 0..126 => out.push(MASKED | bytes as u8),
            bytes @ 126..=0xffff => {
                out.push(MASKED | 126);
                out.extend_from_slice(&(bytes as u16).to_be_bytes());
            }
            bytes => {
                out.push(MASKED | 127);
                out.extend_from_slice(&(bytes as u64).to_be_bytes());
            }
        }
        self.masks ^= self.masks << 13;
        self.masks ^= self.masks >> 17;
        self.masks ^= self.masks << 5;
        let mask = self.masks.to_be_bytes();
        out.extend_from_slice(&mask);
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    }
}

#[derive(Debug)]
struct Frame {
    opcode: u8,
    is_last: bool,
    payload: Range<usize>,
}

fn read_frame(input: &[u8]) -> Result<Option<Frame>, WireError> {
    let [first, second, ..] = *input else { return Ok(None) };
    if first & 0x70 != 0 {
        return Err(malformed("bits that stand for extensions are set, and none was agreed on"));
    }
    if second & MASKED != 0 {
        return Err(malformed("a server's frame is masked"));
    }
    let (start, bytes) = match second {
        126 => match input.get(2..4) {
            Some(length) => (4, u64::from(u16::from_be_bytes([length[0], length[1]]))),
            None => return Ok(None),
        },
        127 => match input.get(2..).and_then(|rest| rest.first_chunk()) {
            Some(length) => (10, u64::from_be_bytes(*length)),
            None => return Ok(None),
        },
        bytes => (2, u64::from(bytes)),
    };
    if bytes > limits::MESSAGE_BYTES_MAX as u64 {
        return Err(WireError::TooLarge { protocol: NAME, bytes: bytes.min(usize::MAX as u64) as usize });
    }
    let (opcode, is_last, end) = (first & 0x0f, first & FIN != 0, start + bytes as usize);
    if opcode >= opcode::CLOSE && (bytes > 125 || !is_last) {
        return Err(malformed("a control frame is too long or in fragments"));
    }
    Ok((input.len() >= end).then_some(Frame { opcode, is_last, payload: start..end }))
}

/// What the server must answer to a key.
fn accept(key: &str) -> String {
    let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes());
    BASE64_STANDARD.encode(hash)
}

fn malformed(what: &'static str) -> WireError {
    WireError::Malformed { protocol: NAME, what }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::Machine;
    use crate::peers::client::PeerEvent;
    use crate::peers::client::testing::{connected, end, events, heard, sent};

    fn upgraded(who: &Who, rest: &[u8]) -> Vec<u8> {
        let key = WebSocket::new(who.clone()).key;
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nsec-websocket-accept: {}\r\n\r\n",
            accept(&key)
        );
        [head.as_bytes(), rest].concat()
    }

    #[test]
    fn the_accept_is_the_one_of_the_rfc() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn it_upgrades_and_masks_what_it_says() {
        let who = Who { host: "localhost:80".to_owned(), number: 7, ..Who::default() };
        let (mut client, first) = connected::<WebSocket>(who.clone());
        let first = String::from_utf8(first).expect("text");
        assert!(first.starts_with("GET / HTTP/1.1\r\nHost: localhost:80\r\n") && first.ends_with("\r\n\r\n"));
        client.handle_bytes(&upgraded(&who, b""), 1);
        assert_eq!(events(&mut client), [PeerEvent::Up]);
        for (payload, kind) in [(&b"hello"[..], opcode::TEXT), (&[0xff; 200][..], opcode::BINARY)] {
            assert!(client.ask(&Ask::Echo { payload }));
            let out = sent(&mut client);
            let head = if payload.len() < 126 { 2 } else { 4 };
            assert_eq!((out[0], out[1] & MASKED), (FIN | kind, MASKED));
            let (mask, masked) = (&out[head..head + 4], &out[head + 4..]);
            let unmasked: Vec<u8> = masked.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b).collect();
            assert_eq!(unmasked, payload);
            assert_ne!(masked, payload);
        }
    }

    #[test]
    fn every_cut_hears_the_same() {
        let who = Who::default();
        let mut input = upgraded(&who, b"\x82\x08\x07\0\0\0\0\0\0\0\x89\x02hi\x8a\x00\x01\x01a");
        input.extend_from_slice(b"\x80\x01b\x82\x7e\x00\x7e");
        input.extend_from_slice(&[1; 126]);
        let (told, out) = heard::<WebSocket>(&who, &input);
        let message = |stamp, bytes| PeerEvent::Message { stamp, bytes };
        let long = message(Some(0x0101_0101_0101_0101), 126);
        assert_eq!(told, [PeerEvent::Up, message(Some(7), 8), PeerEvent::Pong, message(None, 1), long]);
        assert_eq!((out[0], out[1]), (FIN | opcode::PONG, MASKED | 2));
    }

    #[test]
    fn what_is_no_websocket_is_told() {
        let who = Who::default();
        assert!(end::<WebSocket>(&who, b"INFO {}").contains("does not speak WebSocket"));
        let told = end::<WebSocket>(&who, b"HTTP/1.1 404 Not Found\r\n\r\n");
        assert!(told.contains("404 Not Found"), "{told}");
        let other = b"HTTP/1.1 101 x\r\nSec-WebSocket-Accept: abc\r\n\r\n";
        assert!(end::<WebSocket>(&who, other).contains("not ours"));
        let after = |rest: &[u8]| end::<WebSocket>(&who, &upgraded(&who, rest));
        assert!(after(&[0x82, 0x81]).contains("masked"));
        assert!(after(&[0xc2, 0]).contains("extensions"));
        assert!(after(&[0x82, 127, 0, 0, 1, 0, 0, 0, 0, 0]).contains("beyond"));
        assert!(after(&[0x80, 0]).contains("mixed"));
        assert!(after(&[0x09, 0]).contains("control frame"));
        assert!(after(b"\x88\x04\x03\xf3no").contains("1011 no"));
        assert!(after(&[0x83, 0]).contains("opcode"));
    }
}
