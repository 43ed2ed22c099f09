//! Empty: only the features in `Cargo.toml` count, and there it says why.
#![forbid(unsafe_code)]
