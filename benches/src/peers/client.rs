//! A client of any of the protocols as a machine that a fleet drives: connect, greet, ask, hear, end. One that ends
//! does not come back: a comparison wants to know, not to mend.

use std::collections::VecDeque;

use super::limits;
use super::wire::{Ask, Heard, Wire, WireError};
use crate::fleet::{Ended, Machine, Signal};

/// What a client tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerEvent {
    Connect,
    Disconnect,
    Up,
    Closed {
        was_up: bool,
        by_owner: bool,
        why: String,
    },
    Pong,
    Acknowledged,
    /// `stamp` is the number at the front of the payload, where there are eight bytes for one.
    Message {
        stamp: Option<u64>,
        bytes: usize,
    },
    News(u64),
    Refused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Connecting { until_ms: u64 },
    Greeting { until_ms: u64 },
    Up,
    Ended,
}

/// One client.
#[derive(Debug)]
pub struct Client<W> {
    wire: W,
    state: State,
    /// A frame whose rest has not come.
    held: Vec<u8>,
    out: Vec<u8>,
    events: VecDeque<PeerEvent>,
    pongs: u32,
}

impl<W: Wire> Client<W> {
    pub fn new(wire: W) -> Self {
        Self {
            wire,
            state: State::Idle,
            held: Vec::new(),
            out: Vec::new(),
            events: VecDeque::new(),
            pongs: 0,
        }
    }

    pub fn is_up(&self) -> bool {
        self.state == State::Up
    }

    /// Asks, when it is in. False: it is not, or its protocol has no such thing.
    pub fn ask(&mut self, ask: &Ask<'_>) -> bool {
        self.is_up() && self.wire.ask(ask, &mut self.out)
    }

    fn end(&mut self, by_owner: bool, why: String) {
        let was_up = self.is_up();
        self.state = State::Ended;
        self.held = Vec::new();
        self.out.clear();
        self.events.push_back(PeerEvent::Closed { was_up, by_owner, why });
    }

    fn fail(&mut self, why: String) {
        self.events.push_back(PeerEvent::Disconnect);
        self.end(false, why);
    }

    /// Takes whole frames; gives how many bytes they had.
    fn take(&mut self, input: &[u8]) -> Result<usize, WireError> {
        let mut taken = 0;
        while taken < input.len() {
            let Some((bytes, heard)) = self.wire.take(&input[taken..], &mut self.out)? else { break };
            let frame = &input[taken..taken + bytes];
            taken += bytes;
            match heard {
                Heard::Nothing => {}
                Heard::Up => self.come_up(),
                Heard::Pong => {
                    self.pongs = self.pongs.wrapping_add(1);
                    self.events.push_back(PeerEvent::Pong);
                }
                Heard::Acknowledged => self.events.push_back(PeerEvent::Acknowledged),
                Heard::Message(range) => {
                    let payload = &frame[range];
                    let stamp = payload.first_chunk().map(|stamp| u64::from_le_bytes(*stamp));
                    self.events.push_back(PeerEvent::Message { stamp, bytes: payload.len() });
                }
                Heard::News(pieces) => self.events.push_back(PeerEvent::News(pieces)),
                Heard::Refused => self.events.push_back(PeerEvent::Refused),
            }
        }
        Ok(taken)
    }

    fn come_up(&mut self) {
        if matches!(self.state, State::Greeting { .. }) {
            self.state = State::Up;
            self.events.push_back(PeerEvent::Up);
        }
    }
}

impl<W: Wire> Machine for Client<W> {
    type Event = PeerEvent;

    fn connect(&mut self, now_ms: u64) {
        if self.state == State::Idle {
            self.state = State::Connecting { until_ms: now_ms + limits::CONNECT_WITHIN_MS };
            self.events.push_back(PeerEvent::Connect);
        }
    }

    fn set_token(&mut self, token: Box<[u8]>) {
        self.wire.set_token(token);
    }

    fn handle_connected(&mut self, now_ms: u64) {
        if matches!(self.state, State::Connecting { .. }) {
            self.state = State::Greeting { until_ms: now_ms + limits::GREET_WITHIN_MS };
            if self.wire.greet(&mut self.out) {
                self.come_up();
            }
        }
    }

    fn handle_bytes(&mut self, bytes: &[u8], _now_ms: u64) {
        if !matches!(self.state, State::Greeting { .. } | State::Up) {
            return;
        }
        let took = if self.held.is_empty() {
            self.take(bytes).map(|taken| self.held.extend_from_slice(&bytes[taken..]))
        } else {
            let mut held = std::mem::take(&mut self.held);
            held.extend_from_slice(bytes);
            self.take(&held).map(|taken| {
                held.drain(..taken);
                self.held = held;
            })
        };
        if let Err(error) = took {
            self.fail(error.to_string());
        }
    }

    fn handle_closed(&mut self, _now_ms: u64, ended: Ended) {
        let why = match (ended, self.state) {
            (_, State::Idle | State::Ended) => return,
            (Ended::ConnectFailed, _) => "no connection".to_owned(),
            (Ended::Eof, State::Greeting { .. }) => {
                format!("the target closed while it was greeted in {}: does it speak that?", W::NAME)
            }
            (Ended::Eof, _) => "the server closed".to_owned(),
            (Ended::Reset, _) => "the connection broke".to_owned(),
        };
        self.end(false, why);
    }

    fn handle_timeout(&mut self, now_ms: u64) {
        match self.state {
            State::Connecting { until_ms } if now_ms >= until_ms => {
                self.fail("no connection came about in time".to_owned());
            }
            State::Greeting { until_ms } if now_ms >= until_ms => {
                self.fail(format!(
                    "the target did not answer a greeting in {}: does it speak that?",
                    W::NAME
                ));
            }
            _ => {}
        }
    }

    fn poll_timeout(&self) -> Option<u64> {
        match self.state {
            State::Connecting { until_ms } | State::Greeting { until_ms } => Some(until_ms),
            State::Idle | State::Up | State::Ended => None,
        }
    }

    fn poll_transmit(&mut self, out: &mut Vec<u8>) -> bool {
        out.append(&mut self.out);
        !out.is_empty()
    }

    fn poll_event(&mut self) -> Option<PeerEvent> {
        self.events.pop_front()
    }

    #[inline]
    fn signal(event: &PeerEvent) -> Signal {
        match event {
            PeerEvent::Connect => Signal::Connect,
            PeerEvent::Disconnect => Signal::Disconnect,
            PeerEvent::Up => Signal::Up,
            PeerEvent::Closed { was_up, by_owner, .. } => {
                Signal::Closed { was_up: *was_up, by_owner: *by_owner }
            }
            _ => Signal::Other,
        }
    }

    fn why(event: &PeerEvent) -> String {
        match event {
            PeerEvent::Closed { why, .. } => why.clone(),
            _ => String::new(),
        }
    }

    fn beats_answered(&self) -> u32 {
        self.pongs
    }
}

/// What the tests of the wires share.
#[cfg(test)]
pub(super) mod testing {
    use super::*;
    use crate::peers::wire::Who;

    /// A client whose connection is open, and what it sent first.
    pub fn connected<W: Wire>(who: Who) -> (Client<W>, Vec<u8>) {
        let mut client = Client::new(W::new(who));
        client.connect(0);
        assert_eq!(client.poll_event(), Some(PeerEvent::Connect));
        client.handle_connected(1);
        let first = sent(&mut client);
        (client, first)
    }

    pub fn sent<W: Wire>(client: &mut Client<W>) -> Vec<u8> {
        let mut out = Vec::new();
        client.poll_transmit(&mut out);
        out
    }

    pub fn events<W: Wire>(client: &mut Client<W>) -> Vec<PeerEvent> {
        std::iter::from_fn(|| client.poll_event()).collect()
    }

    /// What a client that was told `input` whole tells and sends, and it must be the same byte by byte.
    pub fn heard<W: Wire>(who: &Who, input: &[u8]) -> (Vec<PeerEvent>, Vec<u8>) {
        let (mut whole, _) = connected::<W>(who.clone());
        whole.handle_bytes(input, 2);
        let (mut cut, _) = connected::<W>(who.clone());
        input.iter().for_each(|byte| cut.handle_bytes(&[*byte], 2));
        let told = (events(&mut whole), sent(&mut whole));
        assert_eq!((events(&mut cut), sent(&mut cut)), told, "byte by byte");
        told
    }

    /// Why a client that was told `input` ended. Byte by byte it ends as well, perhaps earlier.
    pub fn end<W: Wire>(who: &Who, input: &[u8]) -> String {
        let (mut whole, _) = connected::<W>(who.clone());
        whole.handle_bytes(input, 2);
        let (mut cut, _) = connected::<W>(who.clone());
        input.iter().for_each(|byte| cut.handle_bytes(&[*byte], 2));
        let [whole, cut] = [events(&mut whole), events(&mut cut)].map(|told| match told.as_slice() {
            [.., PeerEvent::Disconnect, PeerEvent::Closed { why, .. }] => why.clone(),
            other => panic!("it did not end: {other:?}"),
        });
        assert_eq!(cut.split(':').next(), whole.split(':').next(), "the same reason");
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::testing::connected;
    use super::*;
    use crate::peers::nats::Nats;
    use crate::peers::tcp::Tcp;
    use crate::peers::wire::Who;

    #[test]
    fn one_that_is_not_let_in_in_time_ends_with_what_it_spoke() {
        let (mut client, _) = connected::<Nats>(Who::default());
        let due_ms = client.poll_timeout().expect("it waits");
        client.handle_timeout(due_ms - 1);
        assert_eq!(client.poll_event(), None);
        client.handle_timeout(due_ms);
        assert_eq!(client.poll_event(), Some(PeerEvent::Disconnect));
        let Some(PeerEvent::Closed { was_up: false, by_owner: false, why }) = client.poll_event() else {
            panic!("it ends")
        };
        assert!(why.contains("NATS"), "{why}");
        assert!(!client.ask(&Ask::Ping), "it has ended");
    }

    #[test]
    fn an_end_is_told_once() {
        let (mut client, _) = connected::<Tcp>(Who::default());
        assert_eq!(client.poll_event(), Some(PeerEvent::Up));
        client.handle_closed(5, Ended::Eof);
        client.handle_closed(6, Ended::Reset);
        assert!(matches!(client.poll_event(), Some(PeerEvent::Closed { was_up: true, .. })));
        assert_eq!(client.poll_event(), None);
    }
}
