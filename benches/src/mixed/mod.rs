//! A chat of all kinds: users who write, take back, read, make friends and end it, change groups, show moments and say
//! something to them, some of them from several devices.
//!
//! Method: as in [`crate::chat`], an open loop whose changes have their times beforehand, and nobody polls. What is done
//! is drawn from what the phone shows. At the end, when nothing more comes, all devices of a user must show the same,
//! and what the acknowledgements determine: see [`judge`].
//!
//! [`draw`], [`model`], [`owner`] and [`judge`] know no sockets: the simulator in `tests` drives and judges
//! its phones with them too.

mod conductor;
pub mod draw;
pub mod judge;
mod kinds;
mod mixers;
pub mod model;
pub mod owner;
pub mod people;
mod shared;
#[cfg(test)]
mod tests;

pub use conductor::{MixOptions, run};
pub use kinds::{DEFAULT, Kind, Weights};
pub use model::KindCount;
