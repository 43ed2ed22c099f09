//! Raw TCP: what is sent comes back. The target is an echo, or a proxy before one.

use std::collections::VecDeque;

use super::limits;
use super::wire::{Ask, Heard, Who, Wire, WireError};

const NAME: &str = "a TCP echo";
const PING: [u8; 2] = [0x03, 0x00];

/// One connection.
#[derive(Debug)]
pub struct Tcp {
    /// What is out: the bytes of each, and whether it was a ping.
    out: VecDeque<(usize, bool)>,
}

impl Wire for Tcp {
    const NAME: &'static str = NAME;

    fn new(_who: Who) -> Self {
        Self { out: VecDeque::new() }
    }

    fn greet(&mut self, _out: &mut Vec<u8>) -> bool {
        true
    }

    fn take(&mut self, input: &[u8], _out: &mut Vec<u8>) -> Result<Option<(usize, Heard)>, WireError> {
        let Some(&(bytes, is_ping)) = self.out.front() else {
            return Err(WireError::not_spoken(NAME, input));
        };
        if input.len() < bytes {
            return Ok(None);
        }
        self.out.pop_front();
        if is_ping {
            let came = input[..bytes] == PING;
            return came
                .then_some(Some((bytes, Heard::Pong)))
                .ok_or_else(|| WireError::not_spoken(NAME, input));
        }
        Ok(Some((bytes, Heard::Message(0..bytes))))
    }

    fn ask(&mut self, ask: &Ask<'_>, out: &mut Vec<u8>) -> bool {
        let (payload, is_ping) = match ask {
            Ask::Ping => (&PING[..], true),
            Ask::Echo { payload } if !payload.is_empty() => (*payload, false),
            Ask::Echo { .. } | Ask::Publish { .. } => return false,
        };
        if self.out.len() >= limits::ECHOES_OUT_MAX || payload.len() > limits::MESSAGE_BYTES_MAX {
            return false;
        }
        self.out.push_back((payload.len(), is_ping));
        out.extend_from_slice(payload);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::Machine;
    use crate::peers::client::PeerEvent;
    use crate::peers::client::testing::{connected, end, events, sent};

    #[test]
    fn echoes_are_told_apart_whatever_the_cuts() {
        let (mut client, first) = connected::<Tcp>(Who::default());
        assert_eq!((events(&mut client), first), (vec![PeerEvent::Up], vec![]));
        let payload = [7, 0, 0, 0, 0, 0, 0, 0, 9];
        assert!(client.ask(&Ask::Echo { payload: &payload }) && client.ask(&Ask::Ping));
        assert!(!client.ask(&Ask::Publish { topic: "a", payload: b"x", acknowledged: false }));
        let out = sent(&mut client);
        assert_eq!(out, [&payload[..], &PING].concat());
        out.iter().for_each(|byte| client.handle_bytes(&[*byte], 3));
        let told = events(&mut client);
        assert_eq!(told, [PeerEvent::Message { stamp: Some(7), bytes: 9 }, PeerEvent::Pong]);
    }

    #[test]
    fn a_server_that_speaks_first_is_no_echo() {
        let why = end::<Tcp>(&Who::default(), b"S");
        assert!(why.contains("TCP echo") && why.contains("\"S\""), "{why}");
    }
}
