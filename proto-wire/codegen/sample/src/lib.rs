//! Generated code in a package of its own, for tests: all kinds of fields, and services whose handlers do what tests ask.

#![forbid(unsafe_code)]
#![deny(warnings, missing_docs, unreachable_pub)]

include!(concat!(env!("OUT_DIR"), "/generated.rs"));
