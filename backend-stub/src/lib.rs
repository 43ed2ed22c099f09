//! The reference backend, and the library that a backend team builds on.

#![forbid(unsafe_code)]

pub mod logic;
pub mod storage;
