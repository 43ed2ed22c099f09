//! The fault that a feature of this crate plants in the backend: in the simulator's, and in the processes that tests start.

#[cfg(feature = "planted")]
use backend_stub::plant::{Fault, VARIABLE};

#[cfg(feature = "planted")]
const FAULTS: [(bool, Fault); 8] = [
    (cfg!(feature = "plant-commit-unsynced"), Fault::CommitUnsynced),
    (cfg!(feature = "plant-acknowledged-early"), Fault::AckBeforeCommit),
    (cfg!(feature = "plant-duty-dropped"), Fault::DropDuty),
    (cfg!(feature = "plant-index-behind"), Fault::IndexBehind),
    (cfg!(feature = "plant-number-twice"), Fault::NumberTwice),
    (cfg!(feature = "plant-origin-forgotten"), Fault::NoOriginMemory),
    (cfg!(feature = "plant-upload-forgotten"), Fault::ExpireEarly),
    (cfg!(feature = "plant-visible-early"), Fault::VisibleEarly),
];

#[cfg(feature = "planted")]
fn fault() -> Option<Fault> {
    FAULTS.into_iter().find_map(|(is_planted, fault)| is_planted.then_some(fault))
}

/// Plants it in this process.
pub fn plant() {
    #[cfg(feature = "planted")]
    fault().into_iter().for_each(backend_stub::plant::plant);
}

/// What a process is told to have it too.
pub fn environment() -> Option<(&'static str, String)> {
    #[cfg(feature = "planted")]
    return fault().map(|fault| (VARIABLE, format!("{fault:?}")));
    #[cfg(not(feature = "planted"))]
    None
}
