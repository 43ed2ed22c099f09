//! The load bench: phones that chat, stand, call or come back in storms; searches, ramps and comparisons made of those; other
//! protocols under the same engine; and a phone for a person.
//!
//! [`fleet`] moves the bytes of many phones; [`workload`] says what they do; [`measure`] says when, and records what it took;
//! [`check`] knows what must have arrived; [`state`] is what a phone shows; [`servers`] starts, kills and meters gateway and
//! backend. A command makes a report ([`report`]), which [`output`] writes as JSON, [`html`] and histograms, and [`compare`]
//! compares. The machines of the phones are `proto_wire::phone`: of Moorgate's protocol the bench has none of its own.
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
pub mod rpc;
pub mod search;
pub mod servers;
pub mod session;
pub mod signals;
pub mod soak;
pub mod sources;
pub mod standing;
pub mod state;
pub mod storm;
pub mod workers;
pub mod workload;
