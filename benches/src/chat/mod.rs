//! Do ten thousand phones chat, how fast, and is anything lost when a process is killed?
//!
//! Method: an open loop. Messages have their times before the load begins, and latency counts from there. Nobody polls:
//! phones sync on a notify, on `more`, on a gap and after a reconnect only. All that was acknowledged must have
//! arrived everywhere, once and in order, within 10 s of the load's end: see [`crate::check`].

mod conductor;
mod report;
mod search;
mod setup;
mod talkers;

pub use conductor::{ChatBench, ChatOptions, run};
pub(crate) use conductor::{GATHER_US, Second, planned_kills};
pub use report::{ChatReport, Kill, Latencies, PartCost, ServerCosts, StateReport, Trial};
pub(crate) use talkers::is_final;
