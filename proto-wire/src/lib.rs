//! The bytes of Moorgate and the machines that read and write them.
//!
//! Nothing here opens a socket or reads a clock: bytes, events and `now_ms` come in, bytes and actions go
//! out. Gateway, backend, bench and phones all use this crate, and know each other through it alone.

#![forbid(unsafe_code)]

pub mod close;
pub mod frame;
pub mod limits;
pub mod names;
pub mod pb;
pub mod phone;
pub mod random;
pub mod rpc;
pub mod services;
pub mod status;
pub mod varint;

// Generated code names these here, so that a package that has it need not depend on them.
pub use bytes;
pub use prost;
