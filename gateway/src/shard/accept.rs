//! New connections, and whether their addresses may have them.

use gateway_ring::{Completion, Returned, Slot, Token};
use proto_wire::close::Reason;

use super::addresses::is_failed_hello;
use super::{Shard, io, op};
use crate::limits;
use crate::session::{Refusal, State};

impl Shard {
    /// Arms the accept when it is wanted and is not.
    pub(super) fn arm_accept(&mut self) {
        let has_slots =
            self.table.slab.len() < self.max_connections as usize + limits::RESERVE_SLOTS as usize;
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
        // Before the poll, in one submission: the answer is there before anything of the peer's is read, and nothing waits for it.
        self.ask_address(op::CAME, slot, generation);
        self.arm_poll(slot, generation);
        if self.table.slab.len() > self.max_connections as usize || !self.accepting {
            self.table.desk.counters.refused_full.add(1);
            let text = "this gateway is full";
            self.refuse(slot, generation, Refusal::new(Reason::Overloaded, text), Vec::new());
        }
    }

    /// A connection that was not welcomed ends. Its address is asked for once more, so that no session has to keep it.
    pub(super) fn note_end(&mut self, slot: u32, generation: u32, reason: Reason) {
        let awaits_hello =
            self.table.slab.current(slot, generation).is_some_and(|session| session.state() == State::Hello);
        if awaits_hello && is_failed_hello(reason) {
            self.ask_address(op::FAILED_HELLO, slot, generation);
        }
    }

    /// Asks for a peer's address, where addresses are limited.
    fn ask_address(&mut self, op: u8, slot: u32, generation: u32) {
        if self.addresses.is_none() {
            return;
        }
        let (family, token) = (self.family, Token::new(op, generation, slot));
        let is_asked = self.names_in_flight < limits::NAMES_IN_FLIGHT_MAX
            && self.queue(|ring| ring.peer_name(Slot(slot), family, token));
        if is_asked {
            self.names_in_flight += 1;
        } else {
            self.table.desk.counters.addresses_unasked.add(1);
        }
    }

    pub(super) fn handle_address(&mut self, completion: &Completion) {
        self.names_in_flight -= 1;
        let Some(addresses) = &mut self.addresses else { return };
        // A peer that has reset the connection by now has no address, and its end is on the way.
        let Returned::Peer(Some(peer)) = completion.returned else { return };
        let desk = &self.table.desk;
        let result = match completion.token.op() {
            op::CAME => addresses.connect(peer.ip(), desk.now_ms),
            _ => {
                desk.counters.failed_hellos.add(addresses.fail_hello(peer.ip(), desk.now_ms).into());
                Ok(())
            }
        };
        desk.counters.addresses_forgotten.set(addresses.forgotten());
        if let Err(excess) = result {
            self.tell_off(completion.token.slot(), completion.token.generation(), peer, &excess);
        }
    }
}
