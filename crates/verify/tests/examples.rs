//! What comes with the project is proven, as far as anybody can.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod world;

use catena_verify::Verdict;
use world::{World, assert_proven, in_words};

#[test]
fn the_papers_chains_are_proven() {
    let report = World::paper().verify();
    assert_proven(&report);
    assert_eq!((report.coverage.chains, report.coverage.sites), (2, 2));
    assert!(report.coverage.classes > 50, "{}", report.coverage);
    assert!(!report.coverage.except.is_empty());
}

/// Where replies come to that a function gave other addresses is not known, and that is said.
#[test]
fn replies_to_changed_addresses_are_not_decided() {
    let report = World::insertion().verify();
    assert_eq!(report.verdict, Verdict::Undecided, "{}", in_words(&report));
    for undecided in &report.undecided {
        assert_eq!(undecided.chain.as_str(), "mail");
        assert!(undecided.what.contains("changes addresses"), "{undecided}");
    }
}

#[test]
fn the_worlds_of_the_tests_are_proven() {
    for world in [World::insertion_without_nat(), World::one_armed_and_guarded(), World::provider(3)] {
        assert_proven(&world.verify());
    }
}
