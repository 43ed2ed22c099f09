//! The RPC: its header, and the machines of both sides. Owners move the bytes; all policy is here.

pub mod callee;
pub mod caller;
pub mod client;
pub mod datagram;
pub mod header;
pub mod method;

pub use header::{Header, HeaderError, Identity, Kind};
