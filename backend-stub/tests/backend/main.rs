//! A whole backend in this process, over loopback, from its callers' side.

mod abuse;
mod accounts;
mod client;
mod fixture;
mod life;
mod messages;
mod rpc;
