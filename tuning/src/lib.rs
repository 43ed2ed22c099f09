//! What will not fit on this host, in words, with the command that mends it.
//!
//! [`Host::read`] gathers the facts, [`check`] compares them with what is asked of the host and is a pure
//! function: no file is read there, so every finding has a test with made-up facts. Gateway and bench print the
//! findings at start.
//!
//! [`process`] and [`machine`] read what a process and the kernel hold, by one method for gateway, bench and
//! tests, so that their figures can be compared.

#![forbid(unsafe_code)]

mod check;
mod established;
mod finding;
mod host;
pub mod limits;
pub mod machine;
mod need;
pub mod process;
pub mod ranges;

pub use check::{check, shards_for, source_addresses_for};
pub use established::established;
pub use finding::{Finding, Severity};
pub use host::{Cap, Conntrack, Host, PortRange, TcpPages};
pub use machine::{MachineMemory, machine_memory, machine_memory_available};
pub use need::{Need, Role};
pub use process::{proc_cpu_us, proc_memory, raise_descriptor_limit};

/// A figure of `/proc` that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("cannot read {path}: {cause}")]
    Unreadable { path: String, cause: std::io::Error },
    #[error("{path} has no {field}: the process has ended, or this kernel does not tell")]
    NoSuchField { path: String, field: &'static str },
}
