//! Generated code as a package outside of `proto-wire` has it.

mod kinds;
mod messages;
mod python;
mod services;
