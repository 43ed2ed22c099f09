//! A turn: reap completions, feed sessions, run timers and links, send, receive. Each step is bounded; what a
//! bound leaves over makes the next turn come at once.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gateway_ring::{Completion, EnterError};
use proto_wire::close::Reason;
use proto_wire::frame;
use proto_wire::pb;

use super::table::Ran;
use super::{Command, Shard, op};
use crate::limits;
use crate::session::{Owner, State};

/// Where a shard is in its own life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    Running,
    /// Phones are asked to go, slot by slot; `from` is the next.
    Draining {
        since_ms: u64,
        over_ms: u64,
        from: u32,
    },
    Stopping {
        until_ms: u64,
    },
    Ended,
}

/// The longest wait: clocks and counters stay fresh.
const WAIT_MAX_MS: u64 = 1_000;

impl Shard {
    /// Runs one turn, waiting for work first. False when the shard has ended.
    pub fn turn(&mut self) -> Result<bool, EnterError> {
        let wait = self.wait();
        if self.ring.ready() == 0 || self.ring.queued() > 0 {
            self.ring.wait(self.gather.wait(wait, self.table.slab.len()))?;
        }
        self.read_clocks();
        let started = std::time::Instant::now();
        self.hurry = false;
        let reaped = self.reap();
        self.gather.took(reaped, (started - self.start).as_micros() as u64);
        self.run_timers();
        self.run_life();
        self.run_links();
        self.spread_broadcasts();
        self.run_broadcasts();
        self.flush();
        self.issue_receives();
        self.look_at_streams();
        self.arm_accept();
        self.table.desk.counters.turn(started.elapsed().as_micros() as u64);
        Ok(self.life != Life::Ended)
    }

    pub(super) fn read_clocks(&mut self) {
        self.table.desk.now_ms = self.start.elapsed().as_millis() as u64;
        self.table.desk.unix_ms =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    }

    fn wait(&mut self) -> Duration {
        if self.hurry || !self.table.desk.dirty.is_empty() {
            return Duration::ZERO;
        }
        let now_ms = self.table.desk.now_ms;
        let links_ms = self.links_due_ms().map(|at_ms| at_ms.saturating_sub(now_ms));
        let life_ms = (self.life != Life::Running).then_some(20);
        let wait_ms = [self.table.wheel.next_ms(now_ms), links_ms, life_ms].into_iter().flatten().min();
        Duration::from_millis(wait_ms.unwrap_or(WAIT_MAX_MS).min(WAIT_MAX_MS))
    }

    /// Gives how many completions there were.
    fn reap(&mut self) -> usize {
        for reaped in 0..limits::COMPLETIONS_OF_A_TURN_MAX {
            let Some(completion) = self.ring.next_completion() else { return reaped };
            self.handle(completion);
        }
        self.hurry = true;
        limits::COMPLETIONS_OF_A_TURN_MAX
    }

    fn handle(&mut self, completion: Completion) {
        match completion.token.op() {
            op::ACCEPT => self.handle_accept(&completion),
            op::POLL => self.handle_poll(&completion),
            op::RECEIVE => self.handle_receive(completion),
            op::STREAM => self.handle_streamed(completion),
            op::SEND => self.handle_sent(completion),
            op::PEER => self.handle_peer(&completion),
            op::CAME | op::FAILED_HELLO => self.handle_address(&completion),
            op::DOORBELL => self.handle_doorbell(),
            op::LINK_CONNECT => self.handle_link_connected(&completion),
            op::LINK_RECEIVE => self.handle_link_received(completion),
            op::LINK_SEND => self.handle_link_sent(completion),
            op::LINK_CLOSE => self.handle_link_closed(&completion),
            // A close gave the slot back; the next accept may fill it.
            _ => {}
        }
    }

    fn run_timers(&mut self) {
        for _ in 0..limits::TIMERS_OF_A_TURN_MAX {
            match self.table.run_timer() {
                Ran::Nothing => return,
                Ran::Done => {}
                Ran::Close { slot, generation, refusal } => {
                    self.end(slot, generation, refusal.reason, &refusal.text);
                }
            }
        }
        self.hurry = true;
    }

    fn handle_doorbell(&mut self) {
        self.doorbell.clear();
        for _ in 0..limits::MAILBOX {
            match self.mailbox.try_recv() {
                Ok(Command::Drain { over_ms }) => {
                    self.stop_accepting();
                    self.life = Life::Draining { since_ms: self.table.desk.now_ms, over_ms, from: 0 };
                }
                Ok(Command::Stop { grace_ms }) => self.stop(grace_ms),
                Ok(Command::ReloadKeys(verifier)) => self.table.desk.verifier = verifier,
                Ok(Command::Broadcast(frame)) => self.begin_broadcast(frame),
                Err(_) => return,
            }
        }
    }

    fn run_life(&mut self) {
        match self.life {
            Life::Draining { since_ms, over_ms, from } => self.drain(since_ms, over_ms, from),
            Life::Stopping { until_ms }
                if self.table.slab.is_empty() || self.table.desk.now_ms >= until_ms =>
            {
                self.life = Life::Ended;
            }
            _ => {}
        }
    }

    /// Tells phones to go, evenly over the time given.
    fn drain(&mut self, since_ms: u64, over_ms: u64, from: u32) {
        let end = self.table.slab.end();
        let passed_ms = self.table.desk.now_ms - since_ms;
        let due = match passed_ms >= over_ms {
            true => end,
            false => (u64::from(end) * passed_ms / over_ms.max(1)) as u32,
        };
        let to = due.min(from + limits::GOAWAYS_OF_A_TURN_MAX).max(from);
        for slot in from..to {
            self.send_away(slot);
        }
        self.life = Life::Draining { since_ms, over_ms, from: to };
    }

    fn send_away(&mut self, slot: u32) {
        let Some(session) = self.table.slab.get_mut(slot) else { return };
        let generation = session.generation;
        if matches!(session.state(), State::Closing | State::Hello) {
            return;
        }
        // Jitter: the slot spreads phones that are told in one turn.
        let reconnect_after_ms = slot.wrapping_mul(2_654_435_761) % 2_000;
        let goaway = pb::GoAway { reconnect_after_ms, to: String::new() };
        self.table.with(slot, generation, |_, desk| {
            frame::put_message(desk.out(), frame::kind::GOAWAY, &goaway);
        });
    }

    fn stop(&mut self, grace_ms: u64) {
        self.stop_accepting();
        for slot in 0..self.table.slab.end() {
            if let Some(session) = self.table.slab.get_mut(slot) {
                let generation = session.generation;
                self.end(slot, generation, Reason::GoingAway, "the gateway stops");
            }
        }
        self.life = Life::Stopping { until_ms: self.table.desk.now_ms + grace_ms };
    }

    fn stop_accepting(&mut self) {
        self.accepting = false;
        if self.accept_armed {
            let token = gateway_ring::Token::new(op::ACCEPT, 0, 0);
            self.queue(|ring| ring.cancel(gateway_ring::Cancel::Token(token)));
        }
    }
}
