//! A gateway process: the shards' own tables and links, moved by simulated connections instead of a ring. It does what
//! a shard's turn does, in the same order.

use std::collections::BTreeMap;
use std::sync::Arc;

use gateway::config::Limits;
use gateway::session::{Refusal, State};
use gateway::shard::counters::Counters;
use gateway::shard::sessions::{BEAT_FRAME, Desk};
use gateway::shard::table::{Ending, Output, Ran, Table};
use gateway::upstream::Link;
use proto_wire::close::Reason;
use proto_wire::frame::{self, Notify, Reply, next_frame};
use proto_wire::pb;
use proto_wire::rpc::caller::Action;
use proto_wire_token::{Claims, TokenError, Verify};

use super::limits;
use super::net::{Address, ConnId, Input, Node, Side};
use super::plant::Plant;
use super::queue::Event;
use super::shared::Shared;

/// A process with its shards. It is gone between a crash and the next start.
pub struct Gate {
    index: usize,
    pub shards: Vec<Shard>,
    /// Counts its starts: what was queued for an earlier one is void.
    pub life: u32,
}

/// One loop of a gateway.
pub struct Shard {
    gate: usize,
    index: usize,
    life: u32,
    table: Table,
    /// The connection of each slot.
    conns: BTreeMap<u32, ConnId>,
    free: Vec<u32>,
    next_slot: u32,
    link: LinkConn,
    happened: Vec<Happened>,
    /// The next turn is queued for then.
    turn_us: Option<u64>,
}

/// The connection under a link.
#[derive(Debug, Default)]
struct LinkConn {
    conn: Option<ConnId>,
    is_up: bool,
    connect_wanted: bool,
}

/// What a turn finds.
pub enum Happened {
    Accepted(ConnId),
    Phone {
        slot: u32,
        generation: u32,
        input: Input,
    },
    Sent {
        slot: u32,
        generation: u32,
    },
    LinkAnswered {
        conn: ConnId,
        accepted: bool,
    },
    Link {
        conn: ConnId,
        input: Input,
    },
    /// Every phone is to go elsewhere.
    Drain,
}

/// A token is the user's number: what a signature proves is tested elsewhere.
struct Trusting;

impl Verify for Trusting {
    fn verify(&self, token: &[u8], _: u64) -> Result<Claims, TokenError> {
        let user = u64::from_le_bytes(token.try_into().map_err(|_| TokenError::Malformed)?);
        Ok(Claims { user, home: 0, device: None, issued_s: 0, expires_s: u64::MAX })
    }
}

impl Gate {
    pub fn new(index: usize) -> Self {
        Self { index, shards: Vec::new(), life: 0 }
    }

    pub fn is_up(&self) -> bool {
        !self.shards.is_empty()
    }

    pub fn start(&mut self, shared: &mut Shared) {
        self.life += 1;
        let id = shared.random.next();
        shared.note("gateway {a} starts as process {b}", [self.index as u64, id, 0]);
        for index in 0..shared.plan.shards {
            let shard = Shard::new(self.index, index, self.life, id, shared);
            self.shards.push(shard);
            self.shards[index].want_turn(shared, 0);
        }
    }

    /// What the process has counted, before it goes.
    pub fn count(&self, shared: &mut Shared) {
        for shard in &self.shards {
            let counters = &shard.table.desk.counters;
            for (at, reason) in Reason::ALL.iter().enumerate() {
                shared.count(&format!("sessions closed: {}", reason.name()), counters.closed[at].value());
            }
            for (what, count) in [
                ("notifies", &counters.notified),
                ("notifies with changes", &counters.notified_inline),
                ("notifies repeated at a beat", &counters.notified_again),
                ("news that were coalesced", &counters.coalesced),
                ("calls refused by gateways", &counters.calls_refused),
            ] {
                shared.count(what, count.value());
            }
            let link = shard.table.desk.links[0].as_deref();
            shared.count("replies too late for gateways", link.map_or(0, |link| link.caller.late_replies()));
        }
    }

    /// What is held though nobody wants it any more.
    pub fn left_over(&self) -> Vec<String> {
        let mut left = Vec::new();
        for shard in &self.shards {
            let counters = &shard.table.desk.counters;
            let held = shard.table.desk.extras.len() - shard.table.desk.free_extras.len();
            let link = shard.table.desk.links[0].as_deref();
            for (what, is, should) in [
                ("calls in flight", counters.calls_in_flight.value(), 0),
                // A report may be out.
                ("calls of the link", link.map_or(0, |link| link.caller.calls().saturating_sub(1)) as u64, 0),
                ("bytes that wait", counters.queued_bytes.value(), 0),
                ("bytes of frames half received", counters.partial_bytes.value(), 0),
                ("extras held", held as u64, 0),
                ("extras counted", counters.with_extra.value(), 0),
                ("connections counted", counters.connections.value(), shard.conns.len() as u64),
            ] {
                if is != should {
                    left.push(format!("gateway {}: {what}: {is}, not {should}", self.index));
                }
            }
        }
        left
    }

    /// SIGKILL: all its connections end, and their peers learn of it or not.
    pub fn crash(&mut self, shared: &mut Shared) {
        shared.note("gateway {a} dies", [self.index as u64, 0, 0]);
        self.count(shared);
        for shard in std::mem::take(&mut self.shards) {
            for conn in shard.conns.into_values() {
                let learns = !shared.random.chance(shared.plan.untold_permille);
                shared.kill(conn, Side::Acceptor, learns);
            }
            if let Some(conn) = shard.link.conn {
                let learns = !shared.random.chance(shared.plan.untold_permille);
                shared.kill(conn, Side::Opener, learns);
            }
        }
    }
}

impl Shard {
    fn new(gate: usize, index: usize, life: u32, id: u64, shared: &mut Shared) -> Self {
        let limits = Limits { heartbeat_ms: shared.plan.heartbeat_ms, ..Limits::default() };
        let shard = index as u16;
        let mut link = Link::new(id, shard, shared.random.next());
        link.caller.start(shared.now_ms());
        let links = vec![Some(Box::new(link))];
        let desk =
            Desk::new(id, shard, Arc::new(limits), Arc::new(Trusting), Arc::new(Counters::default()), links);
        Self {
            gate,
            index,
            life,
            table: Table::new(desk),
            conns: BTreeMap::new(),
            free: Vec::new(),
            next_slot: 0,
            link: LinkConn::default(),
            happened: Vec::new(),
            turn_us: None,
        }
    }

    /// Something came; the turn that takes it comes soon.
    pub fn happen(&mut self, what: Happened, shared: &mut Shared) {
        self.happened.push(what);
        let within_us = shared.random.below(shared.plan.turn_us);
        self.want_turn(shared, within_us);
    }

    /// The connection to the backend, when it stands.
    pub fn link(&self) -> Option<ConnId> {
        self.link.conn.filter(|_| self.link.is_up)
    }

    pub fn want_turn(&mut self, shared: &mut Shared, after_us: u64) {
        let at_us = shared.now_us + after_us;
        if self.turn_us.is_none_or(|queued_us| at_us < queued_us) {
            self.turn_us = Some(at_us);
            let (gate, shard, life) = (self.gate, self.index, self.life);
            shared.queue.push(at_us, Event::GateTurn { gate, shard, life });
        }
    }

    pub fn turn(&mut self, shared: &mut Shared) {
        if self.turn_us != Some(shared.now_us) {
            // An earlier turn was asked for since, and took what this one was for.
            return;
        }
        self.turn_us = None;
        self.table.desk.now_ms = shared.now_ms();
        self.table.desk.unix_ms = shared.unix_ms();
        for what in std::mem::take(&mut self.happened) {
            self.handle(what, shared);
        }
        self.run_timers(shared);
        self.run_link(shared);
        self.flush(shared);
        let now_ms = shared.now_ms();
        let link_ms = self.table.desk.link(0).poll_timeout().map(|at_ms| at_ms.saturating_sub(now_ms));
        let due_ms = [self.table.wheel.next_ms(now_ms), link_ms].into_iter().flatten().min();
        if let Some(wait_ms) = due_ms {
            self.want_turn(shared, wait_ms.max(1) * 1000);
        }
    }

    fn handle(&mut self, what: Happened, shared: &mut Shared) {
        match what {
            Happened::Accepted(conn) => self.accept(conn, shared),
            Happened::Phone { slot, generation, input } => match input {
                Input::Bytes(bytes) => {
                    if let Err((refusal, _)) = self.table.feed(slot, generation, &bytes) {
                        self.refuse(slot, generation, &refusal, shared);
                    }
                }
                Input::Eof => self.end(slot, generation, Reason::PeerClosed, "the phone closed", shared),
                Input::Reset => self.end(slot, generation, Reason::Reset, "the connection broke", shared),
            },
            Happened::Sent { slot, generation } => self.handle_sent(slot, generation, shared),
            Happened::LinkAnswered { conn, accepted } => self.link_answered(conn, accepted, shared),
            Happened::Link { conn, input } => self.link_input(conn, input, shared),
            Happened::Drain => self.drain(),
        }
    }

    fn accept(&mut self, conn: ConnId, shared: &mut Shared) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.next_slot += 1;
            self.next_slot - 1
        });
        if slot >= limits::SLOTS {
            return shared.complain("a shard has lost its slots".to_owned());
        }
        let generation = self.table.accept(slot);
        self.conns.insert(slot, conn);
        shared.answer(conn, Some(Node::Session { gate: self.gate, shard: self.index, slot, generation }));
    }

    fn refuse(&mut self, slot: u32, generation: u32, refusal: &Refusal, shared: &mut Shared) {
        if refusal.reason != Reason::PeerClosed {
            shared.complain(format!("a gateway refused a phone: {refusal:?}"));
        }
        self.end(slot, generation, refusal.reason, &refusal.text, shared);
    }

    fn end(&mut self, slot: u32, generation: u32, reason: Reason, text: &str, shared: &mut Shared) {
        if self.table.end(slot, generation, reason, text) == Ending::Drop {
            self.drop_connection(slot, generation, shared);
        }
    }

    fn drop_connection(&mut self, slot: u32, generation: u32, shared: &mut Shared) {
        if self.table.remove(slot, generation).is_none() {
            return;
        }
        if let Some(conn) = self.conns.remove(&slot) {
            shared.close(conn, Side::Acceptor);
        }
        self.free.push(slot);
    }

    fn run_timers(&mut self, shared: &mut Shared) {
        loop {
            match self.table.run_timer() {
                Ran::Nothing => return,
                Ran::Done => {}
                Ran::Close { slot, generation, refusal } => {
                    self.end(slot, generation, refusal.reason, &refusal.text, shared);
                }
            }
        }
    }

    fn run_link(&mut self, shared: &mut Shared) {
        self.table.with_link(0, |link, now_ms, down| link.handle_timeout(now_ms, down));
        self.table.with_book(0, |link, now_ms, book| link.report(now_ms, book));
        match self.table.desk.link(0).poll_action() {
            Some(Action::Connect) => self.link.connect_wanted = true,
            Some(Action::Disconnect(_)) => self.close_link(shared),
            None => {}
        }
        if self.link.connect_wanted && self.link.conn.is_none() {
            self.link.connect_wanted = false;
            let node = Node::Link { gate: self.gate, shard: self.index, at: 0 };
            self.link.conn = Some(shared.open(node, Address::Backend));
        }
        let out = std::mem::take(&mut self.table.desk.link(0).out);
        match self.link.conn {
            Some(conn) if self.link.is_up => shared.send(conn, Side::Opener, out),
            _ => self.table.desk.link(0).out = out,
        }
        for ended in self.table.take_ended() {
            self.end(ended.slot, ended.generation, ended.reason, ended.text(), shared);
        }
    }

    fn link_answered(&mut self, conn: ConnId, accepted: bool, shared: &mut Shared) {
        if self.link.conn != Some(conn) {
            return;
        }
        if !accepted {
            return self.close_link(shared);
        }
        self.link.is_up = true;
        self.table.with_book(0, |link, now_ms, book| link.handle_connected(now_ms, book));
    }

    fn link_input(&mut self, conn: ConnId, input: Input, shared: &mut Shared) {
        if self.link.conn != Some(conn) {
            return;
        }
        let result = match input {
            Input::Bytes(bytes) => self.table.feed_link(0, &bytes),
            Input::Eof | Input::Reset => return self.close_link(shared),
        };
        if let Err(why) = result {
            shared.complain(format!("a gateway says that the backend broke the protocol: {why}"));
            self.close_link(shared);
        }
    }

    fn close_link(&mut self, shared: &mut Shared) {
        let Some(conn) = self.link.conn.take() else { return };
        self.link.is_up = false;
        shared.close(conn, Side::Opener);
        self.table.with_link(0, |link, now_ms, down| link.handle_disconnected(now_ms, down));
    }

    fn flush(&mut self, shared: &mut Shared) {
        let dirty = self.table.take_dirty();
        for &(slot, generation) in &dirty {
            if self.table.clear_dirty(slot, generation) {
                self.send_waiting(slot, generation, shared);
            }
        }
        self.table.keep_dirty(dirty);
    }

    fn send_waiting(&mut self, slot: u32, generation: u32, shared: &mut Shared) {
        let mut bytes = match self.table.take_output(slot, generation) {
            Output::Nothing => return,
            Output::TooMuch => {
                return self.end(slot, generation, Reason::SlowReader, "the phone does not read", shared);
            }
            Output::Beat => BEAT_FRAME.to_vec(),
            Output::Bytes(bytes) => bytes,
        };
        if shared.is_planted(Plant::NotifyDropped) {
            bytes = without_notify(&bytes);
        }
        if let Some(&conn) = self.conns.get(&slot) {
            shared.send(conn, Side::Acceptor, bytes);
        }
        let at_us = shared.now_us + shared.random.below(1_000);
        let (gate, shard, life) = (self.gate, self.index, self.life);
        shared.queue.push(at_us, Event::Sent { gate, shard, life, slot, generation });
    }

    fn handle_sent(&mut self, slot: u32, generation: u32, shared: &mut Shared) {
        let Some(session) = self.table.slab.current(slot, generation) else { return };
        session.io &= !gateway::shard::io::SENDING;
        let state = session.state();
        self.send_waiting(slot, generation, shared);
        let is_done = |shard: &mut Self| {
            let session = shard.table.slab.current(slot, generation);
            session.is_some_and(|session| session.io & gateway::shard::io::SENDING == 0)
        };
        if state == State::Closing && is_done(self) {
            self.drop_connection(slot, generation, shared);
        }
    }

    /// As a shard that drains tells each phone; where a phone comes back to is the network's matter.
    fn drain(&mut self) {
        let slots: Vec<u32> = self.conns.keys().copied().collect();
        for slot in slots {
            let Some(session) = self.table.slab.get_mut(slot) else { continue };
            let generation = session.generation;
            if matches!(session.state(), State::Closing | State::Hello) {
                continue;
            }
            let goaway = pb::GoAway { reconnect_after_ms: 1 + slot % 500, to: String::new() };
            self.table.with(slot, generation, |_, desk| {
                frame::put_message(gateway::session::Owner::out(desk), frame::kind::GOAWAY, &goaway);
            });
        }
    }
}

/// A planted fault: the notify behind the reply of a sync that gave less than there is.
fn without_notify(bytes: &[u8]) -> Vec<u8> {
    let (mut rest, mut kept, mut given) = (bytes, Vec::new(), None);
    loop {
        let before = rest;
        let Ok(Some(frame)) = next_frame(&mut rest, usize::MAX) else { break };
        let is_lost = frame.kind == frame::kind::NOTIFY
            && given.is_some_and(|given| Notify::parse(frame.body).is_ok_and(|told| told.newest > given));
        given = match frame.kind {
            frame::kind::REPLY => Reply::parse(frame.body).ok().and_then(|reply| reply.given),
            _ => None,
        };
        if !is_lost {
            kept.extend_from_slice(&before[..before.len() - rest.len()]);
        }
    }
    kept
}
