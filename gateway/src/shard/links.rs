//! The connections to backends: each a stream with a multishot receive and one write a turn.

use std::net::SocketAddr;

use gateway_ring::{
    Cancel, ClientOptions, Completion, Errno, Family, Returned, Slot, StreamOptions, Token, client_socket,
};
use proto_wire::rpc::caller::Action;

use super::{Shard, op};
use crate::limits;

/// Where the connection under a link stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Closed,
    Connecting,
    Up,
    /// The close is under way; the slot is not free yet.
    Closing,
}

/// The socket under a link.
pub struct LinkIo {
    addr: SocketAddr,
    slot: u32,
    generation: u32,
    stage: Stage,
    sending: bool,
    /// The receive ended for want of buffers and is armed again when some are back.
    rearm: bool,
    /// Connect as soon as the slot is free.
    connect_wanted: bool,
}

impl LinkIo {
    pub fn new(slot: u32, addr: SocketAddr) -> Self {
        Self {
            addr,
            slot,
            generation: 0,
            stage: Stage::Closed,
            sending: false,
            rearm: false,
            connect_wanted: false,
        }
    }
}

impl Shard {
    /// Asks for all connections.
    pub(super) fn start_links(&mut self) {
        let now_ms = self.table.desk.now_ms;
        for at in 0..self.link_io.len() {
            self.table.desk.link(at).caller.start(now_ms);
        }
    }

    /// Runs timers, reports and actions of all links, then sends what the turn left for each.
    pub(super) fn run_links(&mut self) {
        for at in 0..self.link_io.len() {
            self.table.with_link(at, |link, now_ms, down| link.handle_timeout(now_ms, down));
            self.table.with_book(at, |link, now_ms, book| link.report(now_ms, book));
            match self.table.desk.link(at).poll_action() {
                Some(Action::Connect) => self.link_io[at].connect_wanted = true,
                Some(Action::Disconnect(why)) => self.close_link(at, why),
                None => {}
            }
            if self.link_io[at].connect_wanted && self.link_io[at].stage == Stage::Closed {
                self.connect_link(at);
            }
            self.rearm_link(at);
            self.send_link(at);
        }
        self.close_ended();
        self.count_links();
    }

    /// When the first of the links has something to do.
    pub(super) fn links_due_ms(&self) -> Option<u64> {
        self.table.desk.links.iter().flatten().filter_map(|link| link.poll_timeout()).min()
    }

    pub(super) fn handle_link_connected(&mut self, completion: &Completion) {
        let Some(at) = self.link_at(completion) else { return };
        if completion.result.is_err() {
            self.close_link(at, "the backend cannot be reached");
            return;
        }
        self.link_io[at].stage = Stage::Up;
        self.link_io[at].rearm = true;
        self.rearm_link(at);
        self.table.with_book(at, |link, now_ms, book| link.handle_connected(now_ms, book));
    }

    pub(super) fn handle_link_received(&mut self, completion: Completion) {
        let at = self.link_at(&completion).filter(|&at| self.link_io[at].stage == Stage::Up);
        let Some(at) = at else {
            if let Some(id) = completion.buffer {
                self.link_buffers.recycle(id);
            }
            return;
        };
        if !completion.more {
            self.link_io[at].rearm = true;
        }
        let result = match (completion.result, &completion.buffer) {
            (Ok(0), _) => Err("the backend closed the connection".to_owned()),
            (Ok(_), Some(id)) => self.table.feed_link(at, self.link_buffers.bytes(id)),
            (Ok(_), None) | (Err(Errno::NO_BUFFERS), _) => Ok(()),
            (Err(_), _) => Err("the connection to the backend broke".to_owned()),
        };
        let misbehaved = matches!((&result, completion.result), (Err(_), Ok(1..)));
        if let Some(id) = completion.buffer {
            self.link_buffers.recycle(id);
        }
        if let Err(why) = result {
            if misbehaved {
                self.table.desk.counters.upstream_misbehaved.add(1);
                tracing::warn!(backend = %self.link_io[at].addr, "the backend broke the protocol: {why}");
            }
            self.close_link(at, &why);
        }
    }

    pub(super) fn handle_link_sent(&mut self, completion: Completion) {
        let Some(at) = self.link_at(&completion) else { return };
        self.link_io[at].sending = false;
        let asked = match &completion.returned {
            Returned::Sent(buf) => buf.len(),
            _ => 0,
        };
        if let Returned::Sent(buf) = completion.returned
            && let Some(mut vec) = buf.into_vec()
            && self.table.desk.link(at).out.capacity() == 0
            && vec.capacity() <= limits::LINK_BUFFER_BYTES_MAX
        {
            vec.clear();
            self.table.desk.link(at).out = vec;
        }
        if completion.result != Ok(asked as u32) {
            self.close_link(at, "the connection to the backend broke");
        }
    }

    pub(super) fn handle_link_closed(&mut self, completion: &Completion) {
        if let Some(at) = self.link_at(completion) {
            self.link_io[at].stage = Stage::Closed;
        }
    }

    /// The link that a completion is of, unless it is of an earlier connection.
    fn link_at(&self, completion: &Completion) -> Option<usize> {
        let (slot, generation) = (completion.token.slot(), completion.token.generation());
        self.link_io.iter().position(|io| io.slot == slot && io.generation == generation)
    }

    fn connect_link(&mut self, at: usize) {
        let io = &mut self.link_io[at];
        io.connect_wanted = false;
        io.generation = (io.generation + 1) & 0xff_ffff;
        io.sending = false;
        io.rearm = false;
        let (addr, slot, generation) = (io.addr, io.slot, io.generation);
        let options = ClientOptions {
            stream: StreamOptions { nodelay: true, ..StreamOptions::default() },
            ..ClientOptions::default()
        };
        let installed = client_socket(Family::of(&addr), &options)
            .map_err(|error| error.to_string())
            .and_then(|fd| self.ring.install(Slot(slot), fd).map_err(|error| error.to_string()));
        if let Err(why) = installed {
            tracing::warn!(backend = %addr, "no socket for the backend: {why}");
            self.table.with_link(at, |link, now_ms, down| link.handle_disconnected(now_ms, down));
            return;
        }
        self.link_io[at].stage = Stage::Connecting;
        self.queue(|ring| {
            ring.connect(Slot(slot), addr, Token::new(op::LINK_CONNECT, generation, slot)).map(|_| ())
        });
    }

    fn close_link(&mut self, at: usize, why: &str) {
        let io = &mut self.link_io[at];
        if !matches!(io.stage, Stage::Connecting | Stage::Up) {
            return;
        }
        if io.stage == Stage::Up {
            self.table.desk.counters.upstream_lost.add(1);
            tracing::warn!(backend = %io.addr, "the connection to a backend ended: {why}");
        }
        io.stage = Stage::Closing;
        let (slot, generation) = (io.slot, io.generation);
        self.queue(|ring| {
            let all = [Cancel::AllOn(Slot(slot))];
            ring.close(Slot(slot), &all, Token::new(op::LINK_CLOSE, generation, slot))
        });
        self.table.with_link(at, |link, now_ms, down| link.handle_disconnected(now_ms, down));
    }

    fn rearm_link(&mut self, at: usize) {
        let io = &mut self.link_io[at];
        if !io.rearm || io.stage != Stage::Up || self.link_buffers.available() == 0 {
            return;
        }
        io.rearm = false;
        let (slot, generation, group) = (io.slot, io.generation, self.link_buffers.group());
        self.queue(|ring| ring.recv_multi(Slot(slot), group, Token::new(op::LINK_RECEIVE, generation, slot)));
    }

    fn send_link(&mut self, at: usize) {
        let io = &mut self.link_io[at];
        if io.stage != Stage::Up || io.sending || self.table.desk.link(at).out.is_empty() {
            return;
        }
        let (slot, generation) = (io.slot, io.generation);
        let out = std::mem::take(&mut self.table.desk.link(at).out);
        match self.ring.send(Slot(slot), out, Token::new(op::LINK_SEND, generation, slot)) {
            Ok(_) => self.link_io[at].sending = true,
            // Full queues: the next turn sends it.
            Err(refused) => {
                self.table.desk.link(at).out = refused.buf.into_vec().unwrap_or_default();
                self.hurry = true;
            }
        }
    }

    fn close_ended(&mut self) {
        for ended in self.table.take_ended() {
            self.end(ended.slot, ended.generation, ended.reason, ended.text());
        }
    }

    fn count_links(&self) {
        let up = self.link_io.iter().filter(|io| io.stage == Stage::Up).count();
        let counters = &self.table.desk.counters;
        counters.upstream_up.set(up as u64);
        let links = || self.table.desk.links.iter().flatten();
        counters.upstream_late.set(links().map(|link| link.caller.late_replies()).sum());
        counters.offline_dropped.set(links().map(|link| link.reports.dropped).sum());
    }
}
