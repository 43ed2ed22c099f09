//! What the phones of `chat` say, to whom and when: a pure function of a seed.

mod population;
mod schedule;

pub use population::{Group, Population};
pub use schedule::{Mix, Schedule, Start};

/// To whom a message goes. Both are indices of the run, not ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    Phone(u32),
    Group(u32),
}
