//! NATS: CONNECT, SUB, PUB, PING and PONG, in lines of text.

use std::ops::Range;

use super::limits;
use super::wire::{Ask, Heard, Who, Wire, WireError};

const NAME: &str = "NATS";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// INFO has not come.
    New,
    /// The answer to the PING behind CONNECT and SUB has not come.
    Greeting,
    Up,
}

/// One connection.
#[derive(Debug)]
pub struct Nats {
    who: Who,
    state: State,
}

impl Wire for Nats {
    const NAME: &'static str = NAME;

    fn new(who: Who) -> Self {
        Self { who, state: State::New }
    }

    fn greet(&mut self, _out: &mut Vec<u8>) -> bool {
        // The server speaks first.
        false
    }

    fn take(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Option<(usize, Heard)>, WireError> {
        const INFO: &[u8] = b"INFO ";
        if self.state == State::New && !INFO.starts_with(&input[..input.len().min(INFO.len())]) {
            return Err(WireError::not_spoken(NAME, input));
        }
        let window = &input[..input.len().min(limits::LINE_BYTES_MAX)];
        let Some(line_bytes) = window.windows(2).position(|two| two == b"\r\n") else {
            if input.len() >= limits::LINE_BYTES_MAX {
                return Err(malformed("a line without an end"));
            }
            return Ok(None);
        };
        let (line, start) = (&input[..line_bytes], line_bytes + 2);
        let verb = line.split(u8::is_ascii_whitespace).next().unwrap_or_default();
        match verb {
            b"MSG" => {
                Ok(take_message(line, input, start)?.map(|range| (range.end + 2, Heard::Message(range))))
            }
            b"PING" => {
                out.extend_from_slice(b"PONG\r\n");
                Ok(Some((start, Heard::Nothing)))
            }
            b"PONG" if self.state == State::Greeting => {
                self.state = State::Up;
                Ok(Some((start, Heard::Up)))
            }
            b"PONG" => Ok(Some((start, Heard::Pong))),
            b"+OK" => Ok(Some((start, Heard::Nothing))),
            b"INFO" => {
                self.take_info(out);
                Ok(Some((start, Heard::Nothing)))
            }
            b"-ERR" => {
                let why = line[4..].trim_ascii().escape_ascii().to_string();
                Err(WireError::Refused { protocol: NAME, why })
            }
            _ => Err(malformed("a line that a server does not send")),
        }
    }

    fn ask(&mut self, ask: &Ask<'_>, out: &mut Vec<u8>) -> bool {
        match *ask {
            Ask::Ping => out.extend_from_slice(b"PING\r\n"),
            Ask::Publish { topic, payload, acknowledged: false } => {
                out.extend_from_slice(format!("PUB {topic} {}\r\n", payload.len()).as_bytes());
                out.extend_from_slice(payload);
                out.extend_from_slice(b"\r\n");
            }
            Ask::Publish { .. } | Ask::Echo { .. } => return false,
        }
        true
    }
}

impl Nats {
    /// A second INFO (of a cluster that changed) is no matter.
    fn take_info(&mut self, out: &mut Vec<u8>) {
        if self.state != State::New {
            return;
        }
        self.state = State::Greeting;
        let connect = r#"CONNECT {"verbose":false,"pedantic":false,"lang":"rust","name":"moorgate-bench","protocol":1}"#;
        out.extend_from_slice(connect.as_bytes());
        out.extend_from_slice(b"\r\n");
        for (at, topic) in self.who.topics.iter().enumerate() {
            out.extend_from_slice(format!("SUB {topic} {}\r\n", at + 1).as_bytes());
        }
        out.extend_from_slice(b"PING\r\n");
    }
}

/// Where the payload lies: MSG subject sid [reply] bytes. None: it has not come whole.
fn take_message(line: &[u8], input: &[u8], start: usize) -> Result<Option<Range<usize>>, WireError> {
    let bytes = line.rsplit(u8::is_ascii_whitespace).next().unwrap_or_default();
    let bytes: usize = std::str::from_utf8(bytes)
        .ok()
        .and_then(|bytes| bytes.parse().ok())
        .ok_or(malformed("a MSG without a length"))?;
    if bytes > limits::MESSAGE_BYTES_MAX {
        return Err(WireError::TooLarge { protocol: NAME, bytes });
    }
    let end = start + bytes;
    match input.get(end..end + 2) {
        None => Ok(None),
        Some(b"\r\n") => Ok(Some(start..end)),
        Some(_) => Err(malformed("a message that does not end where it said")),
    }
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

    const INFO: &[u8] = b"INFO {\"server_id\":\"x\",\"max_payload\":1048576}\r\n";

    fn subscriber() -> Who {
        Who { topics: vec!["all".to_owned()], ..Who::default() }
    }

    #[test]
    fn it_connects_subscribes_and_asks() {
        let (mut client, first) = connected::<Nats>(subscriber());
        assert!(first.is_empty(), "the server speaks first");
        client.handle_bytes(INFO, 1);
        let told = String::from_utf8(sent(&mut client)).expect("text");
        assert!(told.starts_with("CONNECT {") && told.ends_with("}\r\nSUB all 1\r\nPING\r\n"), "{told}");
        client.handle_bytes(b"PONG\r\n", 1);
        assert_eq!(events(&mut client), [PeerEvent::Up]);
        assert!(client.ask(&Ask::Publish { topic: "all", payload: b"hello", acknowledged: false }));
        assert!(!client.ask(&Ask::Publish { topic: "all", payload: b"hello", acknowledged: true }));
        assert!(client.ask(&Ask::Ping));
        assert_eq!(sent(&mut client), b"PUB all 5\r\nhello\r\nPING\r\n");
    }

    #[test]
    fn every_cut_hears_the_same() {
        let rest = b"PONG\r\nPING\r\nMSG all 1 8\r\n\x07\0\0\0\0\0\0\0\r\n+OK\r\nMSG all 1 re.ply 2\r\n\r\n\r\nPONG\r\n";
        let (told, out) = heard::<Nats>(&subscriber(), &[INFO, rest].concat());
        let message = |stamp, bytes| PeerEvent::Message { stamp, bytes };
        assert_eq!(told, [PeerEvent::Up, message(Some(7), 8), message(None, 2), PeerEvent::Pong]);
        assert!(out.ends_with(b"PING\r\nPONG\r\n"));
    }

    #[test]
    fn what_is_no_nats_is_told() {
        let who = subscriber();
        assert!(end::<Nats>(&who, b"\x20").contains("does not speak NATS"));
        let greeted = |rest: &[u8]| [INFO, rest].concat();
        assert!(end::<Nats>(&who, &greeted(b"-ERR 'Authorization Violation'\r\n")).contains("Authorization"));
        assert!(end::<Nats>(&who, &greeted(b"MSG all 1 9999999\r\n")).contains("beyond"));
        assert!(end::<Nats>(&who, &greeted(b"MSG all 1 -1\r\n")).contains("without a length"));
        assert!(end::<Nats>(&who, &greeted(b"MSG all 1 1\r\nxyz")).contains("where it said"));
        assert!(end::<Nats>(&who, &greeted(&[b'x'; limits::LINE_BYTES_MAX])).contains("without an end"));
        assert!(end::<Nats>(&who, &greeted(b"HELLO\r\n")).contains("does not send"));
    }
}
