//! What a client decides: which callee gets a call, whether a call that failed is made again, and when.
//!
//! Sans-I/O, as everything here: an owner moves bytes with a [`super::caller::Caller`] for each connection, and asks
//! [`Policy`] which of them to use. Gateway, backend and bench can share it; it knows no transport.

pub mod address;
mod budget;
mod health;
pub mod limits;
mod policy;

use crate::status::Code;

pub use address::{Address, AddressError};
pub use health::HealthConfig;
pub use policy::{Balance, Changes, Course, Next, Policy, PolicyConfig};

/// How one attempt at a call ended without success, as far as what to do next hangs on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The callee answered with this code.
    Replied(Code),
    /// Nothing of it left this process.
    NotSent(Code),
    /// It left and no answer came: it may have run.
    Unanswered(Code),
}
