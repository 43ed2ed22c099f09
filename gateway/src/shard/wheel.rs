//! Timers: one a session, its links in the session. Setting one costs no allocation and no search.
//!
//! One level of buckets: the longest time fits the wheel, so no timer moves but when it runs. A beat does
//! not touch it: a timer that runs too early asks its session and is set anew.

/// The grain of the wheel in ms.
pub const TICK_MS: u64 = 250;
/// Ticks around the wheel: 1024 s, more than one and a half of the longest interval.
pub const BUCKETS: usize = 4096;

const NONE: u32 = u32::MAX;

/// The links of a session's timer. `bucket == NONE`: not set.
#[derive(Debug, Clone, Copy)]
pub struct Links {
    next: u32,
    prev: u32,
    bucket: u32,
}

impl Default for Links {
    fn default() -> Self {
        Self { next: NONE, prev: NONE, bucket: NONE }
    }
}

impl Links {
    pub fn is_set(&self) -> bool {
        self.bucket != NONE
    }
}

/// Where the links of a slot are.
pub trait LinksOf {
    fn links(&mut self, slot: u32) -> &mut Links;
}

/// The wheel.
#[derive(Debug)]
pub struct Wheel {
    heads: Box<[u32]>,
    /// The next tick to run.
    tick: u64,
    set: usize,
}

impl Wheel {
    pub fn new(now_ms: u64) -> Self {
        Self { heads: vec![NONE; BUCKETS].into_boxed_slice(), tick: now_ms / TICK_MS, set: 0 }
    }

    /// Sets the timer of `slot` to `at_ms`, rounded up to a tick; beyond the wheel it runs early.
    pub fn set(&mut self, slot: u32, at_ms: u64, store: &mut impl LinksOf) {
        self.clear(slot, store);
        let tick = at_ms.div_ceil(TICK_MS).clamp(self.tick, self.tick + BUCKETS as u64 - 1);
        let bucket = (tick % BUCKETS as u64) as u32;
        let head = self.heads[bucket as usize];
        *store.links(slot) = Links { next: head, prev: NONE, bucket };
        if head != NONE {
            store.links(head).prev = slot;
        }
        self.heads[bucket as usize] = slot;
        self.set += 1;
    }

    pub fn clear(&mut self, slot: u32, store: &mut impl LinksOf) {
        let Links { next, prev, bucket } = *store.links(slot);
        if bucket == NONE {
            return;
        }
        *store.links(slot) = Links::default();
        if prev == NONE {
            self.heads[bucket as usize] = next;
        } else {
            store.links(prev).next = next;
        }
        if next != NONE {
            store.links(next).prev = prev;
        }
        self.set -= 1;
    }

    /// Takes one slot whose time has come. The caller bounds its loop.
    pub fn pop(&mut self, now_ms: u64, store: &mut impl LinksOf) -> Option<u32> {
        let due = now_ms / TICK_MS;
        if self.set == 0 {
            self.tick = self.tick.max(due);
            return None;
        }
        while self.tick <= due {
            let slot = self.heads[(self.tick % BUCKETS as u64) as usize];
            if slot != NONE {
                self.clear(slot, store);
                return Some(slot);
            }
            if self.tick == due {
                return None;
            }
            self.tick += 1;
        }
        None
    }

    /// Time until the next tick that may have work, when anything is set.
    pub fn next_ms(&self, now_ms: u64) -> Option<u64> {
        (self.set > 0).then(|| ((now_ms / TICK_MS + 1) * TICK_MS).saturating_sub(now_ms))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    struct Store(Vec<Links>);

    impl LinksOf for Store {
        fn links(&mut self, slot: u32) -> &mut Links {
            &mut self.0[slot as usize]
        }
    }

    proptest! {
        /// Against a sorted map: whatever is set and cleared, each slot comes out once its tick is there, none
        /// early, none twice.
        #[test]
        fn slots_come_out_when_their_time_has_come(
            steps in proptest::collection::vec((0u32..20, 0u64..900_000, 0u64..3_000, any::<bool>()), 1..200)
        ) {
            let (mut wheel, mut store) = (Wheel::new(0), Store(vec![Links::default(); 20]));
            let (mut model, mut now_ms) = (BTreeMap::new(), 0);
            for (slot, after_ms, pass_ms, clear) in steps {
                if clear {
                    wheel.clear(slot, &mut store);
                    model.remove(&slot);
                } else {
                    wheel.set(slot, now_ms + after_ms, &mut store);
                    model.insert(slot, (now_ms + after_ms).div_ceil(TICK_MS));
                }
                now_ms += pass_ms;
                let mut due: Vec<u32> =
                    model.iter().filter(|(_, tick)| **tick <= now_ms / TICK_MS).map(|(slot, _)| *slot).collect();
                let mut got = Vec::new();
                while let Some(slot) = wheel.pop(now_ms, &mut store) {
                    model.remove(&slot);
                    got.push(slot);
                }
                due.sort_unstable();
                got.sort_unstable();
                prop_assert_eq!(got, due);
            }
        }
    }
}
