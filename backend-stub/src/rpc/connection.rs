//! One connection: a task reads, begins handlers and writes what they said at once; another writes what comes later, or
//! what the kernel did not take.

use std::cell::{Cell, RefCell};
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;
use proto_wire::rpc::callee::Outcome;
use proto_wire::rpc::method::Method;
use proto_wire::status::{Code, Status};

use super::peer::{Bad, Frame, Peer};
use super::{Call, limits};
use crate::rt::{self, Signal, Stream};
use crate::stats::{Close, Stats};

/// A connection that a caller opened.
pub struct Connection {
    pub(super) number: u64,
    stream: Stream,
    state: RefCell<State>,
    /// Something stands in `out`.
    to_write: Signal,
    /// `out` has become shorter.
    has_room: Signal,
    closed: Cell<Option<Close>>,
    /// The reader begins handlers, and will write what they say.
    in_turn: Cell<bool>,
}

struct State {
    peer: Peer,
    /// Bytes that the writer has taken and the kernel has not.
    writing: usize,
}

impl Connection {
    pub(super) fn new(number: u64, stream: Stream, now_ms: u64) -> Self {
        let state = State { peer: Peer::new(number, now_ms), writing: 0 };
        Self {
            number,
            stream,
            state: RefCell::new(state),
            to_write: Signal::default(),
            has_room: Signal::default(),
            closed: Cell::new(None),
            in_turn: Cell::new(false),
        }
    }

    pub fn peer(&self) -> SocketAddr {
        self.stream.peer()
    }

    /// Calls the peer. The end comes to [`super::Service::ended`] with `context`, unless it is refused here.
    pub fn call(&self, method: &Method, body: &[u8], context: u64, now_ms: u64) -> Result<(), Code> {
        if self.closed.get().is_some() {
            return Err(Code::Unavailable);
        }
        self.state.borrow_mut().peer.call(method, body, context, now_ms)?;
        self.has_output();
        Ok(())
    }

    pub(super) fn close(&self, close: Close) {
        if self.closed.get().is_none() {
            self.closed.set(Some(close));
            self.stream.shutdown();
            self.to_write.raise();
            self.has_room.raise();
        }
    }

    pub(super) fn close_reason(&self) -> Option<Close> {
        self.closed.get()
    }

    /// Writes what was appended outside of the reader's turns, once a turn of the loop, until the connection is closed.
    pub(super) async fn write_until_closed(&self, stats: &Stats) {
        let mut bytes = Vec::new();
        while self.closed.get().is_none() {
            self.to_write.wait().await;
            // All that this turn still has to say goes with it.
            rt::yield_now().await;
            {
                let mut state = self.state.borrow_mut();
                mem::swap(&mut state.peer.out, &mut bytes);
                state.writing = bytes.len();
            }
            if !bytes.is_empty() && self.stream.write_all(&bytes).await.is_err() {
                self.close(Close::Peer);
            }
            stats.writes.add(u64::from(!bytes.is_empty()));
            stats.out_bytes.add(bytes.len() as u64);
            bytes.clear();
            bytes.shrink_to(limits::KEEP_BYTES);
            self.state.borrow_mut().writing = 0;
            self.has_room.raise();
        }
    }

    /// Reads behind what `into` holds already. 0: the peer has ended.
    pub(super) async fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        while self.waiting_bytes() > limits::OUT_SOFT_BYTES && self.closed.get().is_none() {
            self.has_room.wait().await;
        }
        self.stream.read(into).await
    }

    /// Takes the frame at the front of `input`; `body` gives the bytes of a range of it. Gives the frame's length
    /// too; 0: it is not whole.
    pub(super) fn handle_frame(
        &self,
        input: &[u8],
        body: impl FnOnce(Range<usize>) -> Bytes,
        now_ms: u64,
    ) -> Result<(Frame, usize), Bad> {
        self.state.borrow_mut().peer.handle_frame(input, body, now_ms)
    }

    /// What is said from here until `end_turn` leaves there, in one write.
    pub(super) fn begin_turn(&self) {
        self.in_turn.set(true);
    }

    pub(super) fn end_turn(&self, stats: &Stats) {
        self.in_turn.set(false);
        if self.closed.get().is_some() {
            return;
        }
        let mut state = self.state.borrow_mut();
        if state.writing == 0 && !state.peer.out.is_empty() {
            match self.stream.write_now(&state.peer.out) {
                Ok(written) => {
                    stats.writes.add(1);
                    stats.out_bytes.add(written as u64);
                    // Mostly all of it. What is left is for the writer.
                    state.peer.out.drain(..written);
                    state.peer.out.shrink_to(limits::KEEP_BYTES);
                }
                Err(_) => {
                    drop(state);
                    return self.close(Close::Peer);
                }
            }
        }
        drop(state);
        self.has_output();
    }

    /// A handler did not end at once.
    pub(super) fn hold(&self, call: &Rc<Call>) {
        let mut state = self.state.borrow_mut();
        state.peer.hold(call.serial, &call.admitted);
        state.peer.tell(&call.admitted, call.clone());
    }

    /// A handler has ended: answers its call, if it is still wanted.
    pub(super) fn finish(&self, call: &Call, outcome: &Outcome, body: &[u8]) {
        self.state.borrow_mut().peer.finish(call.serial, &call.admitted, outcome, body);
        self.has_output();
    }

    /// Runs what is due: the deadlines of both directions, pings. Gives calls of this side that ended.
    pub(super) fn handle_timeout(&self, now_ms: u64, ended: &mut Vec<(u64, Status)>) {
        let alive = self.state.borrow_mut().peer.handle_timeout(now_ms, ended);
        if let Err(bad) = alive {
            self.close(bad.close);
        }
        self.has_output();
    }

    pub(super) fn poll_timeout(&self) -> u64 {
        self.state.borrow().peer.poll_timeout()
    }

    /// Ends all calls that this side made: none will be answered.
    pub(super) fn disconnect(&self, now_ms: u64) -> Vec<u64> {
        self.state.borrow_mut().peer.disconnect(now_ms)
    }

    pub(super) fn go_away(&self) {
        self.state.borrow_mut().peer.go_away();
        self.has_output();
    }

    /// No handler runs and everything is written.
    pub(super) fn is_idle(&self) -> bool {
        self.state.borrow().peer.handlers() == 0 && self.waiting_bytes() == 0
    }

    fn waiting_bytes(&self) -> usize {
        let state = self.state.borrow();
        state.peer.out.len() + state.writing
    }

    /// Wakes the writer if there is something to write, and closes when the peer does not read.
    fn has_output(&self) {
        let waiting = self.waiting_bytes();
        if waiting > limits::OUT_MAX_BYTES {
            self.close(Close::SlowReader);
        } else if waiting > 0 && !self.in_turn.get() {
            self.to_write.raise();
        }
    }
}
