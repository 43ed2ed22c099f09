//! What the backend decides: logs and their numbers, uploads applied once, duties to others, groups,
//! presence and news. `Core` is sans-I/O; the services wait for its answers.

mod api;
mod append;
mod core;
mod expiry;
mod groups;
mod hot;
mod keys;
mod kv;
pub mod limits;
mod news;
mod outbox;
mod page;
mod plant;
mod presence;
mod recovery;
pub mod services;
mod sync;
mod uploads;
mod users;
mod values;

pub use api::{Action, Answer, At, CoreConfig, Counters, KvKey, PageAnswer};
pub use core::Core;

#[cfg(test)]
mod tests;
