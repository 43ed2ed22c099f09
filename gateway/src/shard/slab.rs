//! Sessions by slot, in chunks: growing never copies, and a chunk that emptied goes back to the system.

use super::wheel::{Links, LinksOf};
use crate::session::Session;

/// Sessions of a chunk: 192 KiB, so that the allocator maps it by itself and gives it back.
pub const CHUNK: usize = 2048;
const _: () = assert!(CHUNK * size_of::<Session>() > crate::limits::MAPPED_APART_BYTES as usize);

struct Chunk {
    sessions: Box<[Session]>,
    /// Sessions that are there: bits, one a session.
    used: Box<[u64; CHUNK / 64]>,
    count: usize,
}

/// Sessions of one class (all are plain for now, class 0 in the top 3 bits of a slot).
#[derive(Default)]
pub struct Slab {
    chunks: Vec<Option<Chunk>>,
    len: usize,
    /// Given to each session in turn, 24 bits: a stale route or completion is told by it.
    generation: u32,
}

impl Slab {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// One past the highest slot that may be in use.
    pub fn end(&self) -> u32 {
        (self.chunks.len() * CHUNK) as u32
    }

    /// The generation of the next session.
    pub fn next_generation(&mut self) -> u32 {
        self.generation = (self.generation + 1) & 0xff_ffff;
        self.generation
    }

    /// Puts a session in a slot, in place of what was there.
    pub fn insert(&mut self, slot: u32, session: Session) {
        let (at, within) = split(slot);
        if self.chunks.len() <= at {
            self.chunks.resize_with(at + 1, || None);
        }
        let chunk = self.chunks[at].get_or_insert_with(Chunk::new);
        if !chunk.bit(within) {
            chunk.used[within / 64] |= 1 << (within % 64);
            chunk.count += 1;
            self.len += 1;
        }
        chunk.sessions[within] = session;
    }

    pub fn remove(&mut self, slot: u32) -> Option<Session> {
        let (at, within) = split(slot);
        let chunk = self.chunks.get_mut(at)?.as_mut()?;
        if !chunk.bit(within) {
            return None;
        }
        chunk.used[within / 64] &= !(1 << (within % 64));
        chunk.count -= 1;
        self.len -= 1;
        let session = std::mem::take(&mut chunk.sessions[within]);
        if chunk.count == 0 {
            self.chunks[at] = None;
        }
        Some(session)
    }

    #[inline]
    pub fn get_mut(&mut self, slot: u32) -> Option<&mut Session> {
        let (at, within) = split(slot);
        let chunk = self.chunks.get_mut(at)?.as_mut()?;
        if chunk.bit(within) { Some(&mut chunk.sessions[within]) } else { None }
    }

    /// The session of a slot if it is still the one of that generation.
    #[inline]
    pub fn current(&mut self, slot: u32, generation: u32) -> Option<&mut Session> {
        self.get_mut(slot).filter(|session| session.generation == generation)
    }
}

impl LinksOf for Slab {
    /// # Panics
    /// If the slot is empty: the wheel holds only slots in use, a session's timer is cleared before it leaves.
    fn links(&mut self, slot: u32) -> &mut Links {
        &mut self.get_mut(slot).expect("a timer is cleared before its session leaves").timer
    }
}

impl Chunk {
    fn new() -> Self {
        Self {
            sessions: (0..CHUNK).map(|_| Session::default()).collect(),
            used: Box::new([0; CHUNK / 64]),
            count: 0,
        }
    }

    fn bit(&self, within: usize) -> bool {
        self.used[within / 64] & 1 << (within % 64) != 0
    }
}

fn split(slot: u32) -> (usize, usize) {
    (slot as usize / CHUNK, slot as usize % CHUNK)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_holds_what_a_map_holds(steps in proptest::collection::vec((0u32..9000, any::<bool>()), 1..300)) {
            let (mut slab, mut model) = (Slab::default(), BTreeMap::new());
            for (slot, insert) in steps {
                if insert {
                    let generation = slab.next_generation();
                    slab.insert(slot, Session::new(generation, 0));
                    model.insert(slot, generation);
                } else {
                    prop_assert_eq!(slab.remove(slot).map(|s| s.generation), model.remove(&slot));
                }
                prop_assert_eq!(slab.len(), model.len());
                for (&slot, &generation) in &model {
                    prop_assert!(slab.current(slot, generation).is_some());
                    prop_assert!(slab.current(slot, generation + 1).is_none());
                }
            }
        }
    }

    #[test]
    fn an_empty_chunk_goes_back() {
        let mut slab = Slab::default();
        for slot in 0..5000 {
            slab.insert(slot, Session::new(1, 0));
        }
        for slot in 0..5000 {
            slab.remove(slot);
        }
        assert!(slab.is_empty() && slab.chunks.iter().all(Option::is_none));
    }
}
