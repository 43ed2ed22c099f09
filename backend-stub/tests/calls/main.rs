//! The client of the RPC over every transport, against servers of ours, scripts that misbehave, and processes that are killed.

mod balance;
mod cli;
mod ends;
mod faults;
mod fixture;
mod processes;
mod script;
mod udp;
