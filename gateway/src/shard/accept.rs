//! New connections.

use gateway_ring::{Completion, Token};
use proto_wire::close::Reason;

use super::{Shard, io, op};
use crate::session::{Refusal, Session};

impl Shard {
    /// Arms the accept when it is wanted and is not.
    pub(super) fn arm_accept(&mut self) {
        let has_slots =
            self.slab.len() < self.max_connections as usize + crate::limits::RESERVE_SLOTS as usize;
        if self.accept_armed || !self.accepting || !has_slots {
            return;
        }
        let Self { ring, listener, accept_armed, .. } = self;
        let token = Token::new(op::ACCEPT, 0, 0);
        // A full queue leaves it for the next turn.
        *accept_armed = ring.accept_multi(std::os::fd::AsFd::as_fd(listener), token).is_ok();
    }

    pub(super) fn handle_accept(&mut self, completion: &Completion) {
        if !completion.more {
            self.accept_armed = false;
        }
        // An error ends the multishot (a full table loses that connection); it is armed again once there is room.
        let Ok(slot) = completion.result else { return };
        let now_ms = self.desk.now_ms;
        let generation = self.slab.next_generation();
        let mut session = Session::new(generation, now_ms);
        session.io = io::ARMED;
        self.slab.insert(slot, session);
        let counters = &self.desk.counters;
        counters.accepted.add(1);
        counters.connections.set(self.slab.len() as u64);
        let hello_ms = self.desk.limits.hello_timeout_ms;
        self.wheel.set(slot, now_ms + hello_ms, &mut self.slab);
        self.arm_poll(slot, generation);
        if self.slab.len() > self.max_connections as usize || !self.accepting {
            self.desk.counters.refused_full.add(1);
            let text = "this gateway is full";
            self.refuse(slot, generation, Refusal::new(Reason::Overloaded, text), Vec::new());
        }
    }
}
