//! The messages of `proto/moorgate/*.proto`, generated. Fields of type `bytes` are `Bytes`: they share the
//! buffer that they were decoded from.

#![allow(missing_docs, clippy::all)]

include!(concat!(env!("OUT_DIR"), "/moorgate.rs"));
