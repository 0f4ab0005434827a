//! Ten thousand tenants are usual: what is proven about one must not cost what all cost.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod world;

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use world::{World, assert_proven};

/// What a verification takes of the processor, whatever else the machine does meanwhile.
fn cost(tenants: u32) -> Duration {
    let spent = || Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap());
    let world = World::provider(tenants);
    let best = (0..3).map(|_| {
        let before = spent();
        let report = world.verify();
        let elapsed = spent() - before;
        assert_proven(&report);
        elapsed
    });
    let best = best.min().unwrap();
    println!("{tenants} tenants: {best:?}");
    best
}

/// Ten times as many tenants must not cost much more than ten times as much; comparing each with each would cost a
/// hundred times as much.
#[test]
fn the_cost_grows_with_the_number_of_tenants() {
    let (few, many) = (cost(20), cost(200));
    assert!(many < 30 * few, "{few:?} for 20 tenants, {many:?} for 200");
}

#[test]
#[ignore = "renders ten thousand tenants"]
fn ten_thousand_tenants() {
    let (few, many) = (cost(1_000), cost(10_000));
    println!("{:.1} times", many.as_secs_f64() / few.as_secs_f64());
}
