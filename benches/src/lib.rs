//! The load bench.
#![forbid(unsafe_code)]
pub mod check;
pub mod clock;
pub mod latency;
pub mod limits;
pub mod workload;
pub mod fleet;
pub mod signals;
