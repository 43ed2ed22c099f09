//! Sockets of phones: connect, receive, send, close. A slot holds one socket after another; completions of an
//! earlier one carry its generation and are dropped.

use std::net::SocketAddr;

use gateway_ring::{
    Cancel, ClientOptions, Completion, Errno, Family, Full, PollEvents, Returned, Ring, SendBuf, Slot,
    StreamOptions, Token, client_socket,
};

use super::engine::Engine;
use super::line::Socket;
use super::machine::{Ended, Machine};
use super::meter::Meter;
use super::{App, FleetError, Now, Receive};
use crate::limits;

const CONNECT: u8 = 1;
const POLL: u8 = 2;
const RECEIVE: u8 = 3;
const SEND: u8 = 4;
const CLOSE: u8 = 5;

impl<A: App> Engine<'_, A> {
    /// The machine wants a connection: it gets in line.
    pub fn ask_connect(&mut self, at: u32) {
        let line = &mut self.lines[at as usize];
        match line.socket {
            Socket::None => {
                line.socket = Socket::Queued;
                self.waiting.push_back(at);
            }
            Socket::Closing => line.reconnect = true,
            Socket::Queued | Socket::Connecting(_) | Socket::Open => {}
        }
    }

    pub fn connect(&mut self, at: u32, now: Now) -> Result<(), FleetError> {
        let target = self.config.target;
        let line = &mut self.lines[at as usize];
        if !line.has_token {
            line.phone.set_token(self.app.token(self.first + at));
            line.has_token = true;
        }
        let stream = StreamOptions { nodelay: true, ..StreamOptions::default() };
        let options = ClientOptions { source: self.config.sources.of(target, self.first + at), stream };
        let socket = client_socket(Family::of(&target), &options)?;
        self.ring.install(Slot(at), socket)?;
        line.generation = line.generation.wrapping_add(1) & Token::GENERATION_MAX;
        let token = Token::new(CONNECT, line.generation, at);
        let in_flight = queue(&mut self.ring, |ring| ring.connect(Slot(at), target, token))?;
        line.socket = Socket::Connecting(in_flight);
        line.pacing = true;
        self.connecting += 1;
        let _ = now;
        Ok(())
    }

    pub fn send(&mut self, at: u32, buf: SendBuf) -> Result<(), FleetError> {
        let line = &mut self.lines[at as usize];
        let token = Token::new(SEND, line.generation, at);
        Meter::add(&self.meter.bytes_out, buf.len() as u64);
        let mut buf = Some(buf);
        let in_flight = queue(&mut self.ring, |ring| {
            // It is given back with each refusal.
            let Some(bytes) = buf.take() else { return Err(Full::InFlight) };
            ring.send(Slot(at), bytes, token).map_err(|refused| {
                buf = Some(refused.buf);
                refused.full
            })
        })?;
        line.sending = Some(in_flight);
        Ok(())
    }

    /// Closes the socket, with all that is armed on it.
    pub fn close(&mut self, at: u32) -> Result<(), FleetError> {
        self.end_pacing(at);
        let line = &mut self.lines[at as usize];
        let (generation, mut cancels) = (line.generation, Vec::with_capacity(3));
        match line.socket {
            Socket::None | Socket::Closing => return Ok(()),
            Socket::Queued => {
                line.socket = Socket::None;
                return Ok(());
            }
            Socket::Connecting(in_flight) => cancels.push(Cancel::InFlight(in_flight)),
            Socket::Open => {
                if self.config.receive == Receive::Poll {
                    cancels.push(Cancel::Token(Token::new(POLL, generation, at)));
                }
                if line.receiving {
                    cancels.push(Cancel::Token(Token::new(RECEIVE, generation, at)));
                }
                cancels.extend(line.sending.map(Cancel::InFlight));
            }
        }
        line.socket = Socket::Closing;
        line.sending = None;
        (line.receiving, line.receive_again) = (false, false);
        let token = Token::new(CLOSE, generation, at);
        queue(&mut self.ring, |ring| ring.close(Slot(at), &cancels, token))
    }

    pub fn complete(&mut self, completion: Completion, now: Now) -> Result<(), FleetError> {
        let (token, at) = (completion.token, completion.token.slot());
        let is_current = self.lines[at as usize].generation == token.generation();
        match token.op() {
            CONNECT if is_current => self.connected(at, completion.result, now),
            POLL if is_current => self.polled(at, completion.more),
            RECEIVE => self.received(at, is_current, completion, now),
            SEND => self.sent(at, is_current, completion, now),
            CLOSE if is_current => {
                let line = &mut self.lines[at as usize];
                line.socket = Socket::None;
                if std::mem::take(&mut line.reconnect) {
                    self.ask_connect(at);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn connected(&mut self, at: u32, result: Result<u32, Errno>, now: Now) -> Result<(), FleetError> {
        let line = &mut self.lines[at as usize];
        if !matches!(line.socket, Socket::Connecting(_)) {
            return Ok(());
        }
        match result {
            Ok(_) => {
                line.socket = Socket::Open;
                line.phone.handle_connected(now.ms());
                match self.config.receive {
                    Receive::Poll => self.arm_poll(at)?,
                    Receive::Armed => self.receive(at)?,
                }
            }
            Err(errno) => {
                let target: SocketAddr = self.config.target;
                self.meter.note_trouble(|| format!("cannot connect to {target}: {errno}"));
                line.phone.handle_closed(now.ms(), Ended::ConnectFailed);
                self.close(at)?;
            }
        }
        self.touch(at);
        Ok(())
    }

    fn arm_poll(&mut self, at: u32) -> Result<(), FleetError> {
        let token = Token::new(POLL, self.lines[at as usize].generation, at);
        let events = PollEvents::IN | PollEvents::RDHUP;
        queue(&mut self.ring, |ring| ring.poll_multi(Slot(at), events, token))
    }

    fn receive(&mut self, at: u32) -> Result<(), FleetError> {
        let line = &mut self.lines[at as usize];
        line.receiving = true;
        let token = Token::new(RECEIVE, line.generation, at);
        let (group, armed) = (self.buffers.group(), self.config.receive == Receive::Armed);
        queue(&mut self.ring, |ring| {
            if armed { ring.recv_multi(Slot(at), group, token) } else { ring.recv(Slot(at), group, token) }
        })
    }

    fn polled(&mut self, at: u32, more: bool) -> Result<(), FleetError> {
        let line = &mut self.lines[at as usize];
        if !matches!(line.socket, Socket::Open) {
            return Ok(());
        }
        if line.receiving {
            line.receive_again = true;
        } else {
            self.receive(at)?;
        }
        if more { Ok(()) } else { self.arm_poll(at) }
    }

    fn received(
        &mut self,
        at: u32,
        is_current: bool,
        completion: Completion,
        now: Now,
    ) -> Result<(), FleetError> {
        let line = &mut self.lines[at as usize];
        let is_open = is_current && matches!(line.socket, Socket::Open);
        if let Some(id) = completion.buffer {
            if is_open {
                let bytes = self.buffers.bytes(&id);
                Meter::add(&self.meter.bytes_in, bytes.len() as u64);
                line.phone.handle_bytes(bytes, now.ms());
            }
            self.buffers.recycle(id);
        }
        if !is_open {
            return Ok(());
        }
        if !completion.more {
            line.receiving = false;
        }
        match completion.result {
            Ok(0) => self.ended(at, Ended::Eof, now)?,
            Ok(_) => {
                self.heard(at, now);
                self.touch(at);
                let line = &mut self.lines[at as usize];
                let armed = self.config.receive == Receive::Armed;
                let again = std::mem::take(&mut line.receive_again);
                if !line.receiving && (armed || again || completion.sock_nonempty) {
                    self.receive(at)?;
                }
            }
            Err(Errno::NO_BUFFERS) => self.starved.push((at, line.generation)),
            Err(Errno::AGAIN) => {
                if std::mem::take(&mut line.receive_again) {
                    self.receive(at)?;
                }
            }
            Err(Errno::CANCELED) => {}
            Err(_) => self.ended(at, Ended::Reset, now)?,
        }
        Ok(())
    }

    /// Receives that found no buffer begin again, in a later turn than the one that gave its buffers back.
    pub fn receive_starved(&mut self) -> Result<(), FleetError> {
        for (at, generation) in std::mem::take(&mut self.starved) {
            let line = &self.lines[at as usize];
            if line.generation == generation && matches!(line.socket, Socket::Open) && !line.receiving {
                self.receive(at)?;
            }
        }
        Ok(())
    }

    fn sent(
        &mut self,
        at: u32,
        is_current: bool,
        completion: Completion,
        now: Now,
    ) -> Result<(), FleetError> {
        if let Returned::Sent(buf) = completion.returned {
            self.pool.put_sent(buf);
        }
        let line = &mut self.lines[at as usize];
        if !is_current || !matches!(line.socket, Socket::Open) {
            return Ok(());
        }
        line.sending = None;
        if completion.result.is_err() {
            return self.ended(at, Ended::Reset, now);
        }
        self.touch(at);
        Ok(())
    }

    fn ended(&mut self, at: u32, how: Ended, now: Now) -> Result<(), FleetError> {
        self.lines[at as usize].phone.handle_closed(now.ms(), how);
        self.close(at)?;
        self.touch(at);
        Ok(())
    }
}

/// Queues a request, submitting when the queue is full.
fn queue<T>(ring: &mut Ring, mut request: impl FnMut(&mut Ring) -> Result<T, Full>) -> Result<T, FleetError> {
    for _ in 0..limits::SUBMIT_TRIES_MAX {
        match request(ring) {
            Ok(queued) => return Ok(queued),
            Err(Full::Submissions) => ring.submit()?,
            Err(Full::InFlight) => return Err(FleetError::Stuck),
        };
    }
    Err(FleetError::Stuck)
}
