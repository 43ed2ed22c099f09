//! The simulator: it finds nothing in the system as it is, and everything that is planted.

use tests::sim::{Options, Outcome, Plant, run};

/// Seeds that are run at every test run. `tests/run` runs others, and `--long` many.
const SEEDS: u64 = 30;

fn complaint(outcome: &Outcome) -> String {
    let replay = format!("cargo run --release -p tests --bin sim -- --seed {} --trace", outcome.seed);
    format!("seed {}: {:#?}\n{}\nreplay: {replay}", outcome.seed, outcome.complaints, outcome.last.join("\n"))
}

#[test]
fn the_same_seed_is_the_same_run() {
    let outcomes: Vec<Outcome> = [7, 7, 8].into_iter().map(|seed| run(seed, &Options::default())).collect();
    assert_eq!(outcomes[0], outcomes[1]);
    assert_ne!(outcomes[0].hash, outcomes[2].hash);
    assert!(outcomes[0].acknowledged > 0, "a run without a message proves nothing");
}

#[test]
fn nothing_is_lost_doubled_or_out_of_order_and_nobody_waits_for_ever() {
    let (mut acknowledged, mut faults) = (0, 0);
    for seed in 1..=SEEDS {
        let outcome = run(seed, &Options::default());
        assert!(outcome.is_good(), "{}", complaint(&outcome));
        acknowledged += outcome.acknowledged;
        faults += outcome.counts.get("faults").unwrap_or(&0);
    }
    assert!(acknowledged > 100 * SEEDS && faults > 10 * SEEDS, "{acknowledged} messages, {faults} faults");
}

/// A planted fault is found within so many seeds, and the same seed is good without it.
fn is_found_within(plant: Plant, seeds: u64) {
    let options = Options { plant: Some(plant), ..Options::default() };
    let found = (1..=seeds).map(|seed| run(seed, &options)).find(|outcome| !outcome.is_good());
    let found = found.unwrap_or_else(|| panic!("{plant:?} was not found within {seeds} seeds"));
    let without = run(found.seed, &Options::default());
    assert!(without.is_good(), "{}", complaint(&without));
}

#[test]
fn a_commit_that_is_told_before_it_is_on_the_disk_is_found() {
    is_found_within(Plant::ToldBeforeCommit, 60);
}

#[test]
fn a_duty_forgotten_at_a_crash_is_found() {
    is_found_within(Plant::DutyForgotten, 60);
}

#[test]
fn an_upload_applied_twice_is_found() {
    is_found_within(Plant::UploadTwice, 30);
}

#[test]
fn a_number_given_twice_is_found() {
    is_found_within(Plant::NumberTwice, 30);
}

#[test]
fn a_receivers_memory_that_is_not_written_is_found() {
    is_found_within(Plant::OriginForgotten, 120);
}

#[test]
fn a_notify_dropped_after_a_sync_gave_less_than_there_is_is_found() {
    is_found_within(Plant::NotifyDropped, 30);
}
