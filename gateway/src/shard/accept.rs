//! New connections.

use gateway_ring::{Completion, Token};
use proto_wire::close::Reason;

use super::{Shard, io, op};
use crate::session::Refusal;

impl Shard {
    /// Arms the accept when it is wanted and is not.
    pub(super) fn arm_accept(&mut self) {
        let has_slots =
            self.table.slab.len() < self.max_connections as usize + crate::limits::RESERVE_SLOTS as usize;
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
        let generation = self.table.accept(slot);
        if let Some(session) = self.table.slab.current(slot, generation) {
            session.io = io::ARMED;
        }
        self.arm_poll(slot, generation);
        if self.table.slab.len() > self.max_connections as usize || !self.accepting {
            self.table.desk.counters.refused_full.add(1);
            let text = "this gateway is full";
            self.refuse(slot, generation, Refusal::new(Reason::Overloaded, text), Vec::new());
        }
    }
}
