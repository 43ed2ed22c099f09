//! The simulator: it finds nothing in the system as it is, and everything that is planted.

use std::collections::BTreeMap;

use tests::sim::{Options, Outcome, Plant, run};

/// Seeds that are run at every test run. `tests/run` runs others, and `--long` many.
const SEEDS: u64 = 30;

fn complaint(outcome: &Outcome) -> String {
    let replay = format!("cargo run --release -p tests --bin sim -- --seed {} --trace", outcome.seed);
    format!("seed {}: {:#?}\n{}\nreplay: {replay}", outcome.seed, outcome.complaints, outcome.last.join("\n"))
}

#[test]
fn the_same_seed_is_the_same_run() {
    // Messages alone, and all services.
    let mut hashes = Vec::new();
    for (seed, services) in [(7, None), (1, Some(&1))] {
        let outcomes = [(); 2].map(|()| run(seed, &Options::default()));
        assert_eq!(outcomes[0], outcomes[1]);
        assert!(outcomes[0].acknowledged > 0, "a run without a message proves nothing");
        assert_eq!(outcomes[0].counts.get("runs of all services"), services);
        hashes.push(outcomes[0].hash);
    }
    assert_ne!(hashes[0], hashes[1]);
}

#[test]
fn nothing_is_lost_doubled_or_out_of_order_and_nobody_waits_for_ever() {
    let (mut acknowledged, mut counts) = (0, BTreeMap::<String, u64>::new());
    for seed in 1..=SEEDS {
        let outcome = run(seed, &Options::default());
        assert!(outcome.is_good(), "{}", complaint(&outcome));
        acknowledged += outcome.acknowledged;
        outcome.counts.into_iter().for_each(|(what, times)| *counts.entry(what).or_default() += times);
    }
    assert!(acknowledged > 100 * SEEDS, "{acknowledged} messages");
    // What is not reached proves nothing either.
    for (what, least) in [
        ("faults", 10 * SEEDS),
        ("runs of all services", SEEDS / 4),
        ("pages of snapshots", SEEDS),
        ("devices logged out", 1),
        ("deeds: accept", 2),
        ("deeds: group_change", SEEDS / 2),
        ("deeds: withdraw", 1),
        ("deeds: mark", SEEDS),
        ("deeds: unsay", 1),
    ] {
        assert!(counts.get(what).is_some_and(|&times| times >= least), "{what}: {counts:?}");
    }
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
