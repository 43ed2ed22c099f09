//! The load bench.
#![forbid(unsafe_code)]
pub mod call;
pub mod chat;
pub mod check;
pub mod cli;
pub mod clock;
pub mod fleet;
pub mod hold;
pub mod identity;
pub mod latency;
pub mod limits;
pub mod phone;
pub mod preflight;
pub mod report;
pub mod servers;
pub mod session;
pub mod signals;
pub mod workload;
