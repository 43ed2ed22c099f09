//! MQTT 3.1.1: CONNECT, SUBSCRIBE, PINGREQ, PUBLISH with QoS 0 and 1.

use super::limits;
use super::wire::{Ask, Heard, Who, Wire, WireError};

const NAME: &str = "MQTT 3.1.1";

/// The types of packets, with the flags that are fixed.
mod packet {
    pub const CONNECT: u8 = 0x10;
    pub const CONNACK: u8 = 0x20;
    pub const PUBLISH: u8 = 0x30;
    pub const PUBACK: u8 = 0x40;
    pub const SUBSCRIBE: u8 = 0x82;
    pub const SUBACK: u8 = 0x90;
    pub const PINGREQ: u8 = 0xc0;
    pub const PINGRESP: u8 = 0xd0;
}

/// Seconds of silence that the server bears: longer than any run.
const KEEP_ALIVE_S: u16 = 65_535;

/// One connection.
#[derive(Debug)]
pub struct Mqtt {
    who: Who,
    is_connected: bool,
    next_packet: u16,
}

impl Wire for Mqtt {
    const NAME: &'static str = NAME;

    fn new(who: Who) -> Self {
        Self { who, is_connected: false, next_packet: 0 }
    }

    fn greet(&mut self, out: &mut Vec<u8>) -> bool {
        let client = format!("moorgate-bench-{}-{}", std::process::id(), self.who.number);
        put_header(out, packet::CONNECT, 10 + 2 + client.len());
        put_text(out, "MQTT");
        // Version 3.1.1, and a session that ends with the connection.
        out.extend_from_slice(&[4, 0x02]);
        out.extend_from_slice(&KEEP_ALIVE_S.to_be_bytes());
        put_text(out, &client);
        false
    }

    fn take(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Option<(usize, Heard)>, WireError> {
        if !self.is_connected && input[0] != packet::CONNACK {
            return Err(WireError::not_spoken(NAME, input));
        }
        let Some((start, length)) = lengths(input)? else { return Ok(None) };
        let end = start + length;
        if input.len() < end {
            return Ok(None);
        }
        let body = &input[start..end];
        let heard = match input[0] {
            packet::CONNACK => self.take_connack(body, out)?,
            packet::SUBACK => take_suback(body)?,
            packet::PINGRESP => Heard::Pong,
            packet::PUBACK => Heard::Acknowledged,
            publish if publish & 0xf0 == packet::PUBLISH => {
                let payload = take_publish(publish, body, out)?;
                Heard::Message(start + payload..end)
            }
            _ => return Err(malformed("a packet came that a server does not send")),
        };
        Ok(Some((end, heard)))
    }

    fn ask(&mut self, ask: &Ask<'_>, out: &mut Vec<u8>) -> bool {
        match *ask {
            Ask::Ping => out.extend_from_slice(&[packet::PINGREQ, 0]),
            Ask::Publish { topic, payload, acknowledged } => {
                let id_bytes = if acknowledged { 2 } else { 0 };
                let kind = packet::PUBLISH | if acknowledged { 0x02 } else { 0 };
                put_header(out, kind, 2 + topic.len() + id_bytes + payload.len());
                put_text(out, topic);
                if acknowledged {
                    self.next_packet = self.next_packet.wrapping_add(1).max(1);
                    out.extend_from_slice(&self.next_packet.to_be_bytes());
                }
                out.extend_from_slice(payload);
            }
            Ask::Echo { .. } => return false,
        }
        true
    }
}

impl Mqtt {
    fn take_connack(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<Heard, WireError> {
        let [_, code] = *body else { return Err(malformed("a CONNACK has two bytes")) };
        if code != 0 {
            let why = match code {
                1 => "it does not speak this version",
                2 => "it does not like the client's name",
                3 => "it is not available",
                4 | 5 => "it wants a user and a password (allow anonymous clients)",
                _ => "for a reason that 3.1.1 does not know",
            };
            return Err(WireError::Refused { protocol: NAME, why: why.to_owned() });
        }
        self.is_connected = true;
        if self.who.topics.is_empty() {
            return Ok(Heard::Up);
        }
        // QoS 0 is asked for: what is published with QoS 1 is acknowledged to its publisher all the same.
        let length: usize = self.who.topics.iter().map(|topic| 2 + topic.len() + 1).sum();
        put_header(out, packet::SUBSCRIBE, 2 + length);
        out.extend_from_slice(&1_u16.to_be_bytes());
        for topic in &self.who.topics {
            put_text(out, topic);
            out.push(0);
        }
        Ok(Heard::Nothing)
    }
}

fn take_suback(body: &[u8]) -> Result<Heard, WireError> {
    match body {
        [_, _, codes @ ..] if !codes.is_empty() && codes.iter().all(|&code| code <= 2) => Ok(Heard::Up),
        [_, _, _, ..] => {
            Err(WireError::Refused { protocol: NAME, why: "a subscription was not granted".to_owned() })
        }
        _ => Err(malformed("a SUBACK has three bytes at least")),
    }
}

/// Where the payload begins. One with QoS 1 is acknowledged.
fn take_publish(kind: u8, body: &[u8], out: &mut Vec<u8>) -> Result<usize, WireError> {
    let short = || malformed("a PUBLISH ends before its payload");
    let topic_bytes =
        body.first_chunk().map(|bytes| usize::from(u16::from_be_bytes(*bytes))).ok_or_else(short)?;
    let after_topic = 2 + topic_bytes;
    let payload = match kind >> 1 & 3 {
        0 => after_topic,
        1 => {
            let id = body.get(after_topic..after_topic + 2).ok_or_else(short)?;
            put_header(out, packet::PUBACK, 2);
            out.extend_from_slice(id);
            after_topic + 2
        }
        _ => return Err(malformed("a message with QoS 2, which was not asked for")),
    };
    if payload > body.len() { Err(short()) } else { Ok(payload) }
}

fn malformed(what: &'static str) -> WireError {
    WireError::Malformed { protocol: NAME, what }
}

/// The bytes of the fixed header, and of what follows it.
fn lengths(input: &[u8]) -> Result<Option<(usize, usize)>, WireError> {
    let mut length = 0;
    for (at, &byte) in input.iter().enumerate().skip(1).take(4) {
        length |= usize::from(byte & 0x7f) << (7 * (at - 1));
        if byte & 0x80 == 0 {
            if length > limits::MESSAGE_BYTES_MAX {
                return Err(WireError::TooLarge { protocol: NAME, bytes: length });
            }
            return Ok(Some((at + 1, length)));
        }
    }
    if input.len() >= 5 { Err(malformed("a length has more than four bytes")) } else { Ok(None) }
}

fn put_header(out: &mut Vec<u8>, kind: u8, mut length: usize) {
    out.push(kind);
    loop {
        let more = length >= 0x80;
        out.push(length as u8 & 0x7f | if more { 0x80 } else { 0 });
        length >>= 7;
        if !more {
            return;
        }
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::Machine;
    use crate::peers::client::PeerEvent;
    use crate::peers::client::testing::{connected, end, events, heard, sent};

    fn subscriber() -> Who {
        Who { topics: vec!["a/b".to_owned()], ..Who::default() }
    }

    #[test]
    fn it_connects_subscribes_and_hears() {
        let (mut client, first) = connected::<Mqtt>(subscriber());
        assert_eq!(&first[..10], &[0x10, first.len() as u8 - 2, 0, 4, b'M', b'Q', b'T', b'T', 4, 2]);
        client.handle_bytes(&[0x20, 2, 0, 0], 1);
        assert_eq!(sent(&mut client), [0x82, 8, 0, 1, 0, 3, b'a', b'/', b'b', 0]);
        assert!(!client.is_up());
        client.handle_bytes(&[0x90, 3, 0, 1, 0], 1);
        assert_eq!(events(&mut client), [PeerEvent::Up]);
        assert!(client.ask(&Ask::Ping));
        assert!(client.ask(&Ask::Publish { topic: "a/b", payload: b"x", acknowledged: false }));
        assert!(client.ask(&Ask::Publish { topic: "a/b", payload: b"y", acknowledged: true }));
        assert_eq!(
            sent(&mut client),
            b"\xc0\x00\x30\x06\x00\x03a/bx\x32\x08\x00\x03a/b\x00\x01y",
            "PINGREQ, PUBLISH, PUBLISH with QoS 1 and a packet number"
        );
    }

    #[test]
    fn every_cut_hears_the_same() {
        let input = b"\x20\x02\x00\x00\x90\x03\x00\x01\x00\xd0\x00\x32\x0f\x00\x03a/b\x00\x09\x05\x00\x00\x00\x00\x00\x00\x00\x40\x02\x00\x01";
        let (told, out) = heard::<Mqtt>(&subscriber(), input);
        let message = PeerEvent::Message { stamp: Some(5), bytes: 8 };
        assert_eq!(told, [PeerEvent::Up, PeerEvent::Pong, message, PeerEvent::Acknowledged]);
        assert!(out.ends_with(&[0x40, 2, 0, 9]), "the QoS 1 message was acknowledged");
    }

    #[test]
    fn what_is_no_mqtt_is_told() {
        let who = subscriber();
        assert!(end::<Mqtt>(&who, b"H").contains("does not speak MQTT"));
        assert!(end::<Mqtt>(&who, &[0x20, 2, 0, 5]).contains("anonymous"));
        let connected = |rest: &[u8]| [&[0x20, 2, 0, 0], rest].concat();
        assert!(end::<Mqtt>(&who, &connected(&[0x90, 3, 0, 1, 0x80])).contains("not granted"));
        assert!(end::<Mqtt>(&who, &connected(&[0x30, 0xff, 0xff, 0xff, 0x7f])).contains("beyond"));
        assert!(end::<Mqtt>(&who, &connected(&[0x30, 0xff, 0xff, 0xff, 0xff])).contains("four bytes"));
        assert!(end::<Mqtt>(&who, &connected(&[0x30, 3, 0, 9, b'a'])).contains("before its payload"));
        assert!(end::<Mqtt>(&who, &connected(&[0x10, 0])).contains("does not send"));
    }

    #[test]
    fn long_lengths_are_put_as_they_are_read() {
        for length in [0, 1, 127, 128, 16_383, 16_384, limits::MESSAGE_BYTES_MAX] {
            let mut out = Vec::new();
            put_header(&mut out, packet::PUBLISH, length);
            assert_eq!(lengths(&out), Ok(Some((out.len(), length))));
        }
    }
}
