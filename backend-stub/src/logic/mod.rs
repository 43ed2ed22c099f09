//! What the backend decides: logs and their numbers, uploads applied once, duties to others, groups,
//! presence and news. `Core` is sans-I/O; the services wait for its answers.

mod api;
mod append;
mod aside;
mod checks;
mod contacts;
mod core;
pub(crate) mod duty;
mod expiry;
mod groups;
mod horizon;
mod hot;
pub(crate) mod keys;
mod kv;
pub mod limits;
mod me;
mod moments;
mod news;
mod outbox;
mod page;
mod presence;
mod recall;
mod recovery;
pub mod services;
mod states;
mod sync;
mod uploads;
mod users;
pub(crate) mod values;
mod verbs;

pub use api::{Action, Answer, At, CoreConfig, Counters, KvKey, PageAnswer};
pub use core::Core;
pub use verbs::{Upload, Verb, upload_hash};

#[cfg(test)]
mod tests;
