//! Each promise is proved by a fault: with it planted, the named test fails.

use std::env;
use std::process::{Command, Stdio};

use crate::plant::{Fault, VARIABLE};

const PROOFS: &[(Fault, &str)] = &[
    (Fault::AckBeforeCommit, "cold::nothing_is_acknowledged_before_its_commit"),
    (Fault::NoOriginMemory, "crashes::nor_with_several_partitions"),
    (Fault::VisibleEarly, "crashes::nothing_is_lost_doubled_or_reordered"),
    (Fault::DropDuty, "crashes::nothing_is_lost_doubled_or_reordered"),
    (Fault::NumberTwice, "cold::what_the_store_failed_is_not_applied_and_its_number_stays_void"),
    (Fault::IndexBehind, "index::a_version_that_a_far_later_row_replaced_is_not_in_the_log"),
    (Fault::ExpireEarly, "cold::ids_of_uploads_are_forgotten_after_their_memory_and_never_before"),
];

#[test]
fn every_planted_fault_is_found_by_its_test() {
    if env::var_os(VARIABLE).is_some() {
        return;
    }
    for (fault, test) in PROOFS {
        let output = Command::new(env::current_exe().expect("a test runs from a file"))
            .args(["--exact", &format!("logic::tests::{test}")])
            .env(VARIABLE, format!("{fault:?}"))
            .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1")
            .env("PROPTEST_MAX_SHRINK_ITERS", "0")
            .env("RUST_BACKTRACE", "0")
            .stderr(Stdio::null())
            .output()
            .expect("a process can be started");
        let out = String::from_utf8_lossy(&output.stdout);
        assert!(out.contains("0 passed; 1 failed"), "{fault:?} is not found by {test}: {out}");
    }
}
