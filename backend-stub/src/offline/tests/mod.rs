//! The tools on stores that the real core has written, over the real engine.

mod world;

mod backup;
mod check;
mod erase;
mod store;
mod user;
