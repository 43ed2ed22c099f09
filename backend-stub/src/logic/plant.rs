//! Faults that tests plant in the core, each against one promise, to see that the test that proves the
//! promise fails. Only the unit tests' own build knows them; everywhere else `planted` is always false.
//! `tests/plants.rs` says which test finds which fault.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
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

#[cfg(not(test))]
pub(super) const fn planted(_: Fault) -> bool {
    false
}

/// Names the fault of this process.
#[cfg(test)]
pub(super) const VARIABLE: &str = "MOORGATE_PLANTED_FAULT";

#[cfg(test)]
pub(super) fn planted(fault: Fault) -> bool {
    static PLANTED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let planted = PLANTED.get_or_init(|| std::env::var(VARIABLE).ok());
    planted.as_ref().is_some_and(|name| *name == format!("{fault:?}"))
}
