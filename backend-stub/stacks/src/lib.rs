//! Stackful coroutines on an arena of stacks: the only unsafe code of the backend.
//!
//! An [`Arena`] is one mapping of many stacks with a guard page below each; a [`Coroutine`] runs a plain closure on one
//! of them. Where the closure calls [`wait`] the coroutine is suspended and its owner polls the future, *on the owner's
//! stack*: a coroutine's stack holds the frames of its own code and nothing of the machinery that it waits for, which is
//! what keeps one that waits at a page or two.
//!
//! What this crate answers for, so that its callers need no `unsafe`:
//!
//! - A future that is waited for lies on the coroutine's stack and is polled only while the coroutine is suspended there.
//! - A coroutine that is dropped before its end is unwound: its destructors run, then its stack goes back. One that is
//!   leaked keeps its stack for ever, and the arena with it.
//! - A stack that overflows touches its guard page; the process then says whose it was and ends.
//! - Arenas and coroutines stay on their thread.
//!
//! A kernel behaviour that is relied on is told where it is relied on, with the kernel version it was seen on and the
//! name of the test in `tests/` that checks it.

#![deny(unsafe_op_in_unsafe_fn, missing_docs, clippy::undocumented_unsafe_blocks)]

mod arena;
mod coroutine;
mod fault;
pub mod limits;
mod mapping;
mod ticks;

pub use arena::{Arena, ArenaConfig, ArenaError, Stack};
pub use coroutine::{Coroutine, NoWait, Panic, is_here, on_parent, wait};
pub use mapping::Guard;
pub use ticks::ticks;

/// Whose stack it is: told when it overflows, and when its coroutine blocks its thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    /// The service, or what else started the coroutine.
    pub service: &'static str,
    /// The method.
    pub method: &'static str,
}
