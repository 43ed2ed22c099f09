//! What is not the data path: start and stop, signals, keys, admin HTTP, logs. One thread with a small tokio
//! runtime.

mod admin;
pub mod keys;
pub mod log;
mod memory;
mod metrics;
pub mod serve;
