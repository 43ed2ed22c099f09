//! Many stacks in one mapping, handed out and taken back.

use std::cell::{Cell, RefCell};
use std::io;
use std::num::NonZeroUsize;
use std::rc::Rc;

use corosensei::stack::StackPointer;
use thiserror::Error;

use crate::fault::{self, Listed};
use crate::limits::{ARENA_MAX_BYTES, ARENAS_MAX, GUARD_BYTES, PAGE_BYTES, STACK_MAX_BYTES, STACK_MIN_BYTES};
use crate::mapping::{Guard, Mapping};
use crate::{Label, limits};

/// What an arena holds.
#[derive(Debug, Clone)]
pub struct ArenaConfig {
    /// Of each stack, its guard page included; rounded up to whole pages.
    pub stack_bytes: usize,
    /// Stacks at once.
    pub stacks: usize,
    /// What stacks that nobody uses may keep, counted as if each had been used to its end. Beyond it a stack's memory
    /// goes back to the kernel when its coroutine ends.
    pub keep_bytes: usize,
    /// `None`: what the kernel can do.
    pub guard: Option<Guard>,
}

impl Default for ArenaConfig {
    fn default() -> Self {
        Self { stack_bytes: 64 * 1024, stacks: 16 * 1024, keep_bytes: 64 * 1024 * 1024, guard: None }
    }
}

/// Why there is no arena.
#[derive(Debug, Error)]
pub enum ArenaError {
    /// The size of a stack is out of bounds.
    #[error("a stack of {0} bytes is outside {STACK_MIN_BYTES} to {STACK_MAX_BYTES}")]
    StackBytes(usize),
    /// No stack at all, or more than can be named.
    #[error("{0} stacks of {1} bytes are none, or over {ARENA_MAX_BYTES} bytes of address space")]
    Stacks(usize, usize),
    /// The kernel refused the address space.
    #[error(
        "no address space for {bytes} bytes of stacks: {error}; check `ulimit -v` and vm.overcommit_memory"
    )]
    Map {
        /// How much it was.
        bytes: usize,
        /// What the kernel said.
        error: io::Error,
    },
    /// The machine's pages are of another size.
    #[error("pages here are not of {PAGE_BYTES} bytes")]
    Page,
    /// There are many arenas.
    #[error("there are {ARENAS_MAX} arenas already")]
    TooMany,
    /// Overflows could not be told.
    #[error("the handler of faults cannot be set: {0}")]
    Handler(io::Error),
}

/// Stacks of one size for the coroutines of one thread.
#[derive(Debug)]
pub struct Arena {
    // Before the mapping: what is not mapped any more must not be listed.
    _listed: Listed,
    mapping: Mapping,
    stack_bytes: usize,
    stacks: usize,
    keep: usize,
    guard: Guard,
    /// Stacks that were used and hold memory, the one used last on top.
    warm: RefCell<Vec<u32>>,
    /// Stacks that were used and gave their memory back.
    cold: RefCell<Vec<u32>>,
    /// Stacks from here on were never used, and have no guard page yet.
    fresh: Cell<u32>,
}

impl Arena {
    /// Takes address space for all stacks, and no memory.
    pub fn new(config: &ArenaConfig) -> Result<Rc<Self>, ArenaError> {
        // SAFETY: asks for a constant.
        if unsafe { libc::sysconf(libc::_SC_PAGESIZE) } != PAGE_BYTES as i64 {
            return Err(ArenaError::Page);
        }
        let stack_bytes = config.stack_bytes.next_multiple_of(PAGE_BYTES);
        if !(STACK_MIN_BYTES..=STACK_MAX_BYTES).contains(&stack_bytes) {
            return Err(ArenaError::StackBytes(config.stack_bytes));
        }
        let bytes = stack_bytes
            .checked_mul(config.stacks)
            .filter(|bytes| (1..=ARENA_MAX_BYTES).contains(bytes))
            .ok_or(ArenaError::Stacks(config.stacks, stack_bytes))?;
        let mapping = Mapping::new(bytes).map_err(|error| ArenaError::Map { bytes, error })?;
        fault::prepare_thread().map_err(ArenaError::Handler)?;
        let listed = Listed::new(mapping.base(), bytes, stack_bytes).ok_or(ArenaError::TooMany)?;
        let guard = config.guard.unwrap_or_else(|| mapping.probe(0));
        Ok(Rc::new(Self {
            _listed: listed,
            mapping,
            stack_bytes,
            stacks: config.stacks,
            keep: config.keep_bytes / stack_bytes,
            guard,
            warm: RefCell::default(),
            cold: RefCell::default(),
            fresh: Cell::new(0),
        }))
    }

    /// A stack that nobody uses; none: all are in use, or the kernel gives no further guard page.
    pub fn take(self: &Rc<Self>, label: Label) -> Option<Stack> {
        let slot = match self.warm.borrow_mut().pop() {
            Some(slot) => slot,
            None => match self.cold.borrow_mut().pop() {
                Some(slot) => slot,
                None => self.open()?,
            },
        };
        let stack = Stack { arena: self.clone(), slot };
        // SAFETY: the place is `LABEL_BYTES` at the top of a stack that nobody else uses, aligned for it, and below what
        // `base` gives to the coroutine.
        unsafe { (self.label_at(slot) as *mut Label).write(label) };
        Some(stack)
    }

    /// Stacks in use.
    pub fn taken(&self) -> usize {
        self.fresh.get() as usize - self.warm.borrow().len() - self.cold.borrow().len()
    }

    /// Stacks at once.
    pub fn stacks(&self) -> usize {
        self.stacks
    }

    /// Of each stack, its guard page included.
    pub fn stack_bytes(&self) -> usize {
        self.stack_bytes
    }

    /// How the guard pages are made.
    pub fn guard(&self) -> Guard {
        self.guard
    }

    /// Stacks that are not in use and keep their memory.
    pub fn warm(&self) -> usize {
        self.warm.borrow().len()
    }

    fn open(&self) -> Option<u32> {
        let slot = self.fresh.get();
        if slot as usize >= self.stacks {
            return None;
        }
        self.mapping.guard(slot as usize * self.stack_bytes, self.guard).ok()?;
        self.fresh.set(slot + 1);
        Some(slot)
    }

    fn label_at(&self, slot: u32) -> usize {
        self.mapping.base() + (slot as usize + 1) * self.stack_bytes - LABEL_BYTES
    }

    fn put_back(&self, slot: u32) {
        if self.warm.borrow().len() < self.keep {
            self.warm.borrow_mut().push(slot);
            return;
        }
        let at = slot as usize * self.stack_bytes;
        self.mapping.give_back(at + GUARD_BYTES, self.stack_bytes - GUARD_BYTES);
        self.cold.borrow_mut().push(slot);
    }
}

/// At the top of each stack stands whose it is, where the handler of faults finds it. In the first page, which is
/// resident anyway.
pub(crate) const LABEL_BYTES: usize = size_of::<Label>().next_multiple_of(corosensei::stack::STACK_ALIGNMENT);

const _: () = assert!(LABEL_BYTES <= 64 && limits::GUARD_BYTES.is_multiple_of(PAGE_BYTES));

/// One stack, given back when it is dropped.
#[derive(Debug)]
pub struct Stack {
    arena: Rc<Arena>,
    slot: u32,
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.arena.put_back(self.slot);
    }
}

// SAFETY: the range from `limit` to `base` is mapped readable and writable as long as the arena lives, which `self`
// holds; it belongs to `self` alone; both ends are aligned; below `limit` lies a guard page.
unsafe impl corosensei::stack::Stack for Stack {
    fn base(&self) -> StackPointer {
        nonzero(self.arena.label_at(self.slot))
    }

    fn limit(&self) -> StackPointer {
        nonzero(self.arena.mapping.base() + self.slot as usize * self.arena.stack_bytes + GUARD_BYTES)
    }
}

fn nonzero(address: usize) -> NonZeroUsize {
    // The mapping's base is not null, and both addresses lie above it.
    NonZeroUsize::new(address).unwrap_or(NonZeroUsize::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: Label = Label { service: "Test", method: "stack" };

    fn arena(stacks: usize, keep: usize) -> Rc<Arena> {
        let stack_bytes = 32 * 1024;
        let config = ArenaConfig { stack_bytes, stacks, keep_bytes: keep * stack_bytes, guard: None };
        Arena::new(&config).expect("an arena")
    }

    #[test]
    fn stacks_are_apart_bounded_and_used_again() {
        let arena = arena(3, 3);
        let mut stacks: Vec<Stack> = std::iter::from_fn(|| arena.take(NOBODY)).collect();
        assert_eq!((stacks.len(), arena.taken()), (3, 3));
        use corosensei::stack::Stack as _;
        for pair in stacks.windows(2) {
            assert!(pair[0].base().get() + GUARD_BYTES <= pair[1].limit().get());
        }
        let last = stacks.pop().expect("three");
        let base = last.base();
        drop(last);
        assert_eq!(arena.take(NOBODY).expect("one is free").base(), base);
    }

    #[test]
    fn memory_beyond_the_bound_is_given_back() {
        let arena = arena(4, 1);
        let stacks: Vec<Stack> = std::iter::from_fn(|| arena.take(NOBODY)).collect();
        drop(stacks);
        assert_eq!((arena.taken(), arena.warm(), arena.cold.borrow().len()), (0, 1, 3));
    }

    #[test]
    fn sizes_out_of_bounds_are_refused() {
        let refused = |stack_bytes, stacks| {
            Arena::new(&ArenaConfig { stack_bytes, stacks, ..ArenaConfig::default() }).expect_err("refused")
        };
        assert!(matches!(refused(4096, 1), ArenaError::StackBytes(4096)));
        assert!(matches!(refused(64 << 20, 1), ArenaError::StackBytes(_)));
        assert!(matches!(refused(64 * 1024, 0), ArenaError::Stacks(0, _)));
        assert!(matches!(refused(64 * 1024, usize::MAX / 2), ArenaError::Stacks(_, _)));
    }
}
