//! Damaged forwarding state: whenever packets are treated otherwise than they should be, the verifier says so.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod world;

use world::damage::{damage, exchange};
use world::hunt::{Bag, hunt};

fn none_missed(bag: Bag) -> Bag {
    let some = bag.missed[..bag.missed.len().min(12)].join("\n");
    assert!(bag.missed.is_empty(), "{} missed of {}:\n{some}", bag.missed.len(), bag.mutants);
    println!("{bag:?}");
    bag
}

#[test]
fn mutants_are_found() {
    let bag = none_missed(hunt(damage, 1, 250, false));
    assert!(bag.found > bag.mutants / 2, "{bag:?}");
}

/// What owners do to addresses is no matter, or it is not proven that it is none.
#[test]
fn addresses_that_are_exchanged() {
    let bag = none_missed(hunt(exchange, 1, 60, true));
    let proven = bag.mutants - bag.found - bag.undecided;
    assert!(bag.shown > 20 && proven > 20 && bag.undecided > 20, "{bag:?}");
}

/// More than ten thousand that treat packets otherwise than they should.
#[test]
#[ignore = "takes minutes"]
fn many_mutants_are_found() {
    let shown: usize = (2..14).map(|seed| none_missed(hunt(damage, seed, 500, true)).shown).sum();
    assert!(shown >= 10_000, "only {shown} mutants changed anything");
}
