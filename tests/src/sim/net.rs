//! Simulated connections: streams of bytes with delay, cut anywhere, that may end without one side knowing.
//!
//! Within a connection bytes keep their order. Between connections nothing has one. A side that is *cut* is not
//! reached by anything any more: what is sent to it is lost, and it learns of no end.

use super::queue::Event;
use super::shared::Shared;

/// Connections are numbered from the beginning of a run; no number is used twice.
pub type ConnId = usize;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Opener = 0,
    Acceptor = 1,
}

impl Side {
    pub fn other(self) -> Self {
        match self {
            Side::Opener => Side::Acceptor,
            Side::Acceptor => Side::Opener,
        }
    }
}

/// Who reads one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    Phone(usize),
    /// A phone's connection at a shard.
    Session {
        gate: usize,
        shard: usize,
        slot: u32,
        generation: u32,
    },
    /// A shard's connection to the backend.
    Link {
        gate: usize,
        shard: usize,
        at: usize,
    },
    /// A connection at the backend.
    Peer(u64),
}

/// Where a connection goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    Gate(usize),
    Backend,
}

/// What a reader gets.
#[derive(Debug)]
pub enum Input {
    Bytes(Vec<u8>),
    Eof,
    Reset,
}

#[derive(Debug)]
pub struct Conn {
    to: Address,
    ends: [End; 2],
    delay_us: (u64, u64),
}

#[derive(Debug, Default)]
struct End {
    node: Option<Node>,
    /// Bytes that came and were not read.
    inbox: Vec<u8>,
    is_reading: bool,
    /// What follows the inbox: an end, or a reset.
    over: Option<bool>,
    /// Nothing reaches this side any more.
    is_cut: bool,
    /// The last thing on its way here arrives then.
    last_us: u64,
}

impl Shared {
    /// Opens a connection. Who is to accept it is asked when it has got there.
    pub fn open(&mut self, opener: Node, to: Address) -> ConnId {
        let conn = self.conns.len();
        let delay_us = match to {
            Address::Gate(_) => self.plan.phone_delay_us,
            Address::Backend => self.plan.link_delay_us,
        };
        let ends = [End { node: Some(opener), ..End::default() }, End::default()];
        self.conns.push(Conn { to, ends, delay_us });
        let at_us = self.arrival(conn, Side::Acceptor);
        self.queue.push(at_us, Event::Opened(conn));
        conn
    }

    /// The acceptor's answer.
    pub fn answer(&mut self, conn: ConnId, acceptor: Option<Node>) {
        self.conns[conn].ends[1].node = acceptor;
        if !self.conns[conn].ends[0].is_cut {
            let at_us = self.arrival(conn, Side::Opener);
            self.queue.push(at_us, Event::Answered { conn, accepted: acceptor.is_some() });
        }
    }

    pub fn to(&self, conn: ConnId) -> Address {
        self.conns[conn].to
    }

    pub fn node(&self, conn: ConnId, side: Side) -> Option<Node> {
        self.conns[conn].ends[side as usize].node
    }

    pub fn send(&mut self, conn: ConnId, from: Side, bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        self.trace.mix(&bytes);
        if self.conns[conn].ends[from.other() as usize].is_cut {
            // The kernel sends it again and again, and gives up in the end.
            let at_us = self.now_us + self.plan.unacknowledged_us;
            if !self.conns[conn].ends[from as usize].is_cut {
                self.queue.push(at_us, Event::Over { conn, side: from, reset: true });
            }
            return;
        }
        let mut rest = &bytes[..];
        // A stream has no messages: what is sent at once may come in parts.
        while !rest.is_empty() {
            let whole = !self.random.chance(self.plan.split_permille);
            let length = if whole { rest.len() } else { self.random.between(1, rest.len() as u64) as usize };
            let (now, later) = rest.split_at(length);
            let at_us = self.arrival(conn, from.other());
            self.queue.push(at_us, Event::Arrive { conn, side: from.other(), bytes: now.to_vec() });
            rest = later;
        }
    }

    /// One side closes; the other learns of it behind all that was sent.
    pub fn close(&mut self, conn: ConnId, side: Side) {
        let end = &mut self.conns[conn].ends[side as usize];
        if end.node.take().is_none() {
            return;
        }
        end.inbox = Vec::new();
        if !self.conns[conn].ends[side.other() as usize].is_cut {
            let at_us = self.arrival(conn, side.other());
            self.queue.push(at_us, Event::Over { conn, side: side.other(), reset: false });
        }
    }

    /// The path is gone. Each side learns of it or does not.
    pub fn cut(&mut self, conn: ConnId, opener_learns: bool, acceptor_learns: bool) {
        for (side, learns) in [(Side::Opener, opener_learns), (Side::Acceptor, acceptor_learns)] {
            self.conns[conn].ends[side as usize].is_cut = true;
            if learns {
                let at_us = self.now_us + self.random.below(50_000);
                self.queue.push(at_us, Event::Over { conn, side, reset: true });
            }
        }
    }

    /// Whatever is sent from here on waits for a while, in both directions.
    pub fn hold_up(&mut self, conn: ConnId, lag_us: u64) {
        for end in &mut self.conns[conn].ends {
            end.last_us = end.last_us.max(self.now_us) + lag_us;
        }
    }

    /// A process died: its side is gone. The other learns of it, or not.
    pub fn kill(&mut self, conn: ConnId, side: Side, other_learns: bool) {
        self.conns[conn].ends[side as usize].node = None;
        self.conns[conn].ends[side as usize].inbox = Vec::new();
        let [opener, acceptor] = [Side::Opener, Side::Acceptor].map(|s| s != side && other_learns);
        self.cut(conn, opener, acceptor);
    }

    /// One side forgets the connection; the other goes on believing in it.
    pub fn forget(&mut self, conn: ConnId, side: Side) {
        self.conns[conn].ends[side as usize].node = None;
        self.conns[conn].ends[side as usize].inbox = Vec::new();
    }

    /// At the end: whoever still believes in half a connection learns the truth.
    pub fn tell_cut(&mut self) {
        for conn in 0..self.conns.len() {
            for side in [Side::Opener, Side::Acceptor] {
                let [own, other] = [side, side.other()].map(|side| &self.conns[conn].ends[side as usize]);
                if own.node.is_some() && (own.is_cut || other.is_cut) {
                    self.queue.push(self.now_us, Event::Over { conn, side, reset: true });
                }
            }
        }
    }

    pub fn arrived(&mut self, conn: ConnId, side: Side, bytes: &[u8]) {
        let end = &mut self.conns[conn].ends[side as usize];
        if end.is_cut || end.over.is_some() {
            return;
        }
        if end.node.is_none() {
            // Its process is not there: the kernel answers with a reset.
            let other = &self.conns[conn].ends[side.other() as usize];
            if !other.is_cut && other.node.is_some() {
                let at_us = self.arrival(conn, side.other());
                self.queue.push(at_us, Event::Over { conn, side: side.other(), reset: true });
            }
            return;
        }
        end.inbox.extend_from_slice(bytes);
        self.want_read(conn, side);
    }

    pub fn ended(&mut self, conn: ConnId, side: Side, reset: bool) {
        let end = &mut self.conns[conn].ends[side as usize];
        if end.node.is_none() || end.over == Some(true) {
            return;
        }
        end.over = Some(reset);
        if reset {
            // What was not read is lost with it.
            end.inbox = Vec::new();
        }
        self.want_read(conn, side);
    }

    /// Reads some of what is there.
    pub fn read(&mut self, conn: ConnId, side: Side) -> Option<(Node, Input)> {
        let split = self.random.chance(self.plan.split_permille);
        let some = self.random.next();
        let end = &mut self.conns[conn].ends[side as usize];
        end.is_reading = false;
        let node = end.node?;
        if end.inbox.is_empty() {
            let reset = end.over?;
            end.node = None;
            return Some((node, if reset { Input::Reset } else { Input::Eof }));
        }
        let all = end.inbox.len();
        let taken = if split { 1 + (some % all as u64) as usize } else { all };
        let rest = end.inbox.split_off(taken);
        let bytes = std::mem::replace(&mut end.inbox, rest);
        if !end.inbox.is_empty() || end.over.is_some() {
            self.want_read(conn, side);
        }
        Some((node, Input::Bytes(bytes)))
    }

    fn want_read(&mut self, conn: ConnId, side: Side) {
        let end = &mut self.conns[conn].ends[side as usize];
        if !std::mem::replace(&mut end.is_reading, true) {
            let at_us = self.now_us + self.random.below(self.plan.read_delay_us);
            self.queue.push(at_us, Event::Read { conn, side });
        }
    }

    /// When what is sent to a side now gets there.
    fn arrival(&mut self, conn: ConnId, to: Side) -> u64 {
        let (from_us, to_us) = self.conns[conn].delay_us;
        let delay_us = self.random.between(from_us, to_us);
        let end = &mut self.conns[conn].ends[to as usize];
        end.last_us = end.last_us.max(self.now_us + delay_us);
        end.last_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::plan::Plan;

    /// Runs all that is queued; gives what each side has read.
    fn run(shared: &mut Shared) -> ([Vec<u8>; 2], [Option<bool>; 2]) {
        let (mut read, mut over) = ([Vec::new(), Vec::new()], [None; 2]);
        while let Some((at_us, event)) = shared.queue.pop() {
            shared.now_us = at_us;
            match event {
                Event::Opened(conn) => shared.answer(conn, Some(Node::Peer(1))),
                Event::Arrive { conn, side, bytes } => shared.arrived(conn, side, &bytes),
                Event::Over { conn, side, reset } => shared.ended(conn, side, reset),
                Event::Read { conn, side } => match shared.read(conn, side) {
                    Some((_, Input::Bytes(bytes))) => read[side as usize].extend_from_slice(&bytes),
                    Some((_, Input::Eof)) => over[side as usize] = Some(false),
                    Some((_, Input::Reset)) => over[side as usize] = Some(true),
                    None => {}
                },
                _ => {}
            }
        }
        (read, over)
    }

    #[test]
    fn bytes_keep_their_order_whatever_the_cuts_and_an_end_comes_behind_them() {
        for seed in 0..50 {
            let mut shared = Shared::new(seed, Plan::of(seed), false);
            let conn = shared.open(Node::Phone(0), Address::Gate(0));
            run(&mut shared);
            let sent: Vec<u8> = (0..=255).collect();
            sent.chunks(17).for_each(|part| shared.send(conn, Side::Opener, part.to_vec()));
            shared.close(conn, Side::Opener);
            let (read, over) = run(&mut shared);
            assert_eq!(read[1], sent);
            assert_eq!(over, [None, Some(false)]);
        }
    }

    #[test]
    fn a_side_that_is_cut_and_not_told_learns_nothing_until_it_has_sent() {
        let mut shared = Shared::new(1, Plan::of(1), false);
        let conn = shared.open(Node::Phone(0), Address::Gate(0));
        run(&mut shared);
        shared.cut(conn, false, true);
        let (_, over) = run(&mut shared);
        assert_eq!(over, [None, Some(true)]);
        shared.tell_cut();
        assert_eq!(run(&mut shared).1, [Some(true), None]);
    }
}
