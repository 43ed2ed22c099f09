//! The requests in flight that own memory, and the memory that they own.
//!
//! The kernel is given the number and generation of an entry here as user data, under the reserved op; the
//! caller's token waits in the entry. So an entry is found without a search, and no token that a caller can
//! make, or send to another ring, can end a request that owns memory.

use crate::addr::RawAddr;
use crate::limits;
use crate::send::SendBuf;
use crate::token::Token;

/// A request that owns memory (a send, a connect, a socket option), as long as it is in flight.
/// For [`Cancel::InFlight`](crate::Cancel::InFlight); stale after the completion, and then harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InFlight {
    index: u32,
    generation: u32,
}

/// What the kernel may read or write until the completion. Every address given to the kernel is that of a
/// heap allocation behind these, so entries may move.
#[derive(Debug)]
pub(crate) enum Owned {
    Send(SendBuf),
    #[expect(dead_code, reason = "only the kernel reads it")]
    Connect(Box<RawAddr>),
    PeerName(Box<RawAddr>),
    #[expect(dead_code, reason = "only the kernel reads it")]
    OptionValue(Box<[i32; 2]>),
}

#[derive(Debug)]
pub(crate) struct InFlightTable {
    entries: Vec<Entry>,
    /// The first free entry, [`NONE`] when there is none.
    free: u32,
    used: u32,
    capacity: u32,
    /// Of the next entry; one for all entries, so that no recent handle is ever made again.
    generation: u32,
}

#[derive(Debug)]
struct Entry {
    generation: u32,
    state: State,
}

#[derive(Debug)]
enum State {
    Free { next: u32 },
    Used { token: Token, owned: Owned },
}

const NONE: u32 = u32::MAX;
/// Reserved tokens keep their kind in the top 4 of the 24 generation bits, an entry's generation below.
const GENERATION_BITS: u32 = 20;
const GENERATION_MASK: u32 = (1 << GENERATION_BITS) - 1;
const KIND_IN_FLIGHT: u32 = 1 << GENERATION_BITS;
/// Entries above this are freed when the table runs empty, so that a storm's memory goes back.
const KEEP_ENTRIES: usize = 1024;

/// The token of a request whose completion nobody awaits.
pub(crate) const SILENT: Token = Token::reserved(0, 0);
/// The token of the cancel-everything of a drop.
pub(crate) const DROPPING: Token = Token::reserved(0, 1);

impl InFlight {
    pub(crate) fn token(self) -> Token {
        Token::reserved(KIND_IN_FLIGHT | self.generation, self.index)
    }

    fn from_token(token: Token) -> Option<Self> {
        let kind = token.generation() & !GENERATION_MASK;
        (token.op() == Token::RESERVED_OP && kind == KIND_IN_FLIGHT)
            .then(|| Self { index: token.slot(), generation: token.generation() & GENERATION_MASK })
    }
}

impl InFlightTable {
    pub fn new(capacity: u32) -> Self {
        Self {
            entries: Vec::new(),
            free: NONE,
            used: 0,
            capacity: capacity.min(limits::IN_FLIGHT_MAX),
            generation: 0,
        }
    }

    pub fn used(&self) -> u32 {
        self.used
    }

    pub fn is_full(&self) -> bool {
        self.used >= self.capacity
    }

    /// The caller has seen that the table is not full.
    pub fn insert(&mut self, token: Token, owned: Owned) -> InFlight {
        debug_assert!(!self.is_full());
        self.used += 1;
        let (generation, state) = (self.generation, State::Used { token, owned });
        self.generation = (generation + 1) & GENERATION_MASK;
        if self.free == NONE {
            self.entries.push(Entry { generation, state });
            return InFlight { index: self.entries.len() as u32 - 1, generation };
        }
        let index = self.free;
        let entry = &mut self.entries[index as usize];
        match std::mem::replace(&mut entry.state, state) {
            State::Free { next } => self.free = next,
            State::Used { .. } => unreachable!("the free list holds free entries only"),
        }
        entry.generation = generation;
        InFlight { index, generation }
    }

    /// Ends the request that a completion's user data names: its caller's token and its memory.
    pub fn finish(&mut self, user_data: Token) -> Option<(Token, Owned)> {
        let at = InFlight::from_token(user_data)?;
        let entry = self.entries.get_mut(at.index as usize)?;
        if entry.generation != at.generation || matches!(entry.state, State::Free { .. }) {
            return None;
        }
        let state = std::mem::replace(&mut entry.state, State::Free { next: self.free });
        self.free = at.index;
        self.used -= 1;
        if self.used == 0 && self.entries.len() > KEEP_ENTRIES {
            self.shrink();
        }
        match state {
            State::Used { token, owned } => Some((token, owned)),
            State::Free { .. } => None,
        }
    }

    /// Nothing is in flight, so no user data in the kernel names an entry: numbering may begin anew.
    fn shrink(&mut self) {
        self.entries = Vec::new();
        self.free = NONE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(byte: u8) -> Owned {
        Owned::Send(SendBuf::from(vec![byte]))
    }

    #[test]
    fn an_entry_ends_once_and_only_by_its_own_generation() {
        let mut table = InFlightTable::new(8);
        let first = table.insert(Token::new(1, 2, 3), owned(1));
        let (token, _) = table.finish(first.token()).unwrap();
        assert_eq!(token, Token::new(1, 2, 3));
        let second = table.insert(Token::new(4, 5, 6), owned(2));
        assert_ne!(first, second);
        assert!(table.finish(first.token()).is_none());
        assert!(table.finish(Token::new(1, 0, 0)).is_none() && table.finish(SILENT).is_none());
        assert_eq!(table.used(), 1);
    }

    #[test]
    fn the_table_gives_memory_back_when_a_storm_is_over() {
        let mut table = InFlightTable::new(1 << 16);
        let all: Vec<_> = (0..2000).map(|n| table.insert(Token::new(0, 0, n), owned(0))).collect();
        for at in &all {
            assert!(table.finish(at.token()).is_some());
        }
        assert_eq!((table.used(), table.entries.capacity()), (0, 0));
    }

    #[test]
    fn a_full_table_says_so() {
        let mut table = InFlightTable::new(1);
        table.insert(Token::new(0, 0, 0), owned(0));
        assert!(table.is_full());
    }
}
