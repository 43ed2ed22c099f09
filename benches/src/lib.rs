//! The load bench: phones that chat, hold or call, and a phone for a person.
//!
//! [`fleet`] moves the bytes of many phones; [`workload`] says what they do and when; [`check`] knows what must have
//! arrived; [`state`] is what a phone shows; [`servers`] starts, kills and meters gateway and backend. [`chat`], [`hold`], [`call`] and [`phone`] are
//! the four commands. The machines of the phones are `proto_wire::phone`: the bench has no protocol of its own.
#![forbid(unsafe_code)]

pub mod broadcast;
pub mod call;
pub mod chat;
pub mod check;
pub mod cli;
pub mod clock;
pub mod compare;
pub mod find_max;
pub mod fingerprint;
pub mod fleet;
pub mod hold;
pub mod html;
pub mod identity;
#[cfg(test)]
mod keys_test;
pub mod latency;
pub mod leak;
pub mod limits;
pub mod measure;
pub mod mixed;
pub mod output;
pub mod peers;
pub mod phone;
pub mod preflight;
pub mod probe;
pub mod progress;
pub mod ramp;
pub mod report;
pub mod search;
pub mod servers;
pub mod session;
pub mod signals;
pub mod soak;
pub mod storm;
pub mod sources;
pub mod state;
pub mod workload;
