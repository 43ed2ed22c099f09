//! Other servers of the field under the same schedule, histogram and reports: adapters for MQTT 3.1.1, NATS, WebSocket
//! and raw TCP, a bare floor to compare with, and the comparison itself.
//!
//! A [`wire::Wire`] is a protocol without a socket; [`client::Client`] makes a machine of it that a fleet drives;
//! [`load`] says what they do and when; [`side`] is a server with the clients on it; [`compare`] lets two sides take
//! turns.

pub mod cli;
pub mod client;
pub mod compare;
pub mod floor;
pub mod limits;
pub mod load;
pub mod moorgate;
pub mod mqtt;
pub mod nats;
pub mod report;
pub mod run;
pub mod server;
pub mod side;
pub mod standin;
pub mod stats;
pub mod tcp;
pub mod wire;
pub mod ws;
