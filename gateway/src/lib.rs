//! The access gateway: an event loop a core holds phones' connections and carries their calls to backends.
//!
//! [`shard`] moves bytes and decides nothing; [`session`] decides and moves nothing; [`upstream`] talks to
//! backends with the machines of `proto-wire`; `control` runs what is not the data path.

#![forbid(unsafe_code)]

pub mod budget;
pub mod cli;
pub mod config;
pub mod control;
pub mod limits;
pub mod session;
pub mod shard;
#[cfg(feature = "embedded-backend")]
pub mod up;
pub mod upstream;
