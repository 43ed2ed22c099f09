//! Faults that tests plant in the backend, each against one promise, to see that what proves the promise fails. They
//! exist in the unit tests' own build and with the feature `planted`, which only features of the crate `tests` turn on;
//! in a program `planted` is the constant false. `logic/tests/plants.rs` says which unit test finds which fault,
//! `tests/run --plants` what of the whole system does.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A commit does not wait for fdatasync.
    CommitUnsynced,
    /// An upload is answered before its commit.
    AckBeforeCommit,
    /// A receiver does not remember what came from an origin.
    NoOriginMemory,
    /// A row is readable before its commit.
    VisibleEarly,
    /// The duty to deliver is not in the commit.
    DropDuty,
    /// The number of a failed row is given again.
    NumberTwice,
    /// The index of newest versions is not written with its row.
    IndexBehind,
    /// Ids of uploads are forgotten while they can be repeated.
    ExpireEarly,
}

#[cfg(not(any(test, feature = "planted")))]
pub(crate) const fn planted(_: Fault) -> bool {
    false
}

#[cfg(feature = "planted")]
pub use switch::plant;
#[cfg(any(test, feature = "planted"))]
pub use switch::{VARIABLE, planted};

#[cfg(any(test, feature = "planted"))]
mod switch {
    use std::sync::OnceLock;

    use super::Fault;

    /// Names the fault of this process and of those that it starts.
    pub const VARIABLE: &str = "MOORGATE_PLANTED_FAULT";

    static PLANTED: OnceLock<String> = OnceLock::new();

    #[cfg(feature = "planted")]
    /// Plants a fault in this process, once and before its first commit.
    pub fn plant(fault: Fault) {
        PLANTED.get_or_init(|| format!("{fault:?}"));
    }

    pub fn planted(fault: Fault) -> bool {
        let name = PLANTED.get_or_init(|| std::env::var(VARIABLE).unwrap_or_default());
        !name.is_empty() && *name == format!("{fault:?}")
    }
}
