//! Faults planted in the simulator's own parts - in the disk, and on the way from a session to its phone - each against
//! one promise, to see that the checks find it. The system under test is the one that ships.

/// A fault that the checks must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Plant {
    /// A commit is told before it is on the disk: a crash takes back what was acknowledged.
    ToldBeforeCommit,
    /// A crash loses duties to deliver.
    DutyForgotten,
    /// The id of an upload is not in its commit: a repeat is applied again.
    UploadTwice,
    /// A crash loses the last row of a log: its number is given again.
    NumberTwice,
    /// A receiver's memory of its origins is not in the commit: a duty is carried out again.
    OriginForgotten,
    /// A sync gave less than there is, and the notify that must follow does not leave.
    NotifyDropped,
}
