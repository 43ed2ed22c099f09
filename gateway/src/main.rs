//! `moorgate`: the access gateway.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    gateway::cli::run()
}
