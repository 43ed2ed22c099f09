//! The reference backend, and the library that a backend team builds on.

#![forbid(unsafe_code)]

pub mod admin;
pub mod call;
pub mod cli;
pub mod clock;
pub mod co;
pub mod config;
pub mod driver;
pub mod embedded;
pub mod keys;
pub mod logic;
pub mod offline;
#[cfg(feature = "planted")]
pub mod plant;
#[cfg(not(feature = "planted"))]
mod plant;
pub mod rpc;
pub mod rt;
pub mod stats;
pub mod storage;
pub mod turn;
