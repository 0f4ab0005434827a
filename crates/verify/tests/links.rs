//! Links that are down: what would go by them is lost, wherever that is, and the port is named.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod world;

use catena_model::forwarding::Direction;
use catena_verify::{End, Property, Report, Verdict, Violation};
use world::{World, assert_proven, in_words};

fn with_down(mut world: World, element: &str, port: &str) -> Report {
    world.base(element).down.insert(port.parse().unwrap());
    world.verify()
}

fn of(report: &Report, chain: &str, direction: Direction) -> Option<Violation> {
    let is_meant =
        |violation: &&Violation| violation.chain.as_str() == chain && violation.direction == direction;
    report.violations.iter().find(is_meant).cloned()
}

/// On the way to the functions, at one of them, behind them, and where packets come in. Beyond both a port is the owner's, who
/// would lose the same without us.
#[test]
fn what_goes_by_a_port_that_is_down_is_lost() {
    let (both, up, down) = (&Direction::BOTH[..], &[Direction::Up][..], &[Direction::Down][..]);
    for (element, port, chain, lost) in [
        ("access-a", "lan", "acme-web", up),
        ("access-a", "wan", "acme-web", both),
        ("core", "inet", "acme-web", down),
        ("br-int", "fw1-in", "acme-web", both),
        ("br-int", "fw1-out", "acme-web", both),
        ("br-int", "gw", "acme-web", both),
        ("gateway", "wan", "acme-web", both),
        ("access-b", "lan", "globex-all", up),
    ] {
        let report = with_down(World::paper(), element, port);
        let named = format!("port {port} of {element} is down");
        for direction in Direction::BOTH {
            let found = of(&report, chain, direction);
            assert_eq!(found.is_some(), lost.contains(&direction), "{direction} {}", in_words(&report));
            let Some(found) = found else { continue };
            assert_eq!(found.property, Property::NoBlackHole, "{}", in_words(&report));
            assert!(found.what.contains(&named), "{named}: {}", in_words(&report));
            let End::Dropped { why, .. } = &found.walk.end else { panic!("{:?}", found.walk) };
            assert!(why.contains(port) && why.contains("is down"), "{why}");
        }
    }
}

/// What a function cannot give back has been given to it.
#[test]
fn a_function_whose_other_port_is_down_gets_packets() {
    let world = World::acme("");
    let report = with_down(world.clone(), "br-int", "fw1-out");
    let last = |direction| {
        let arrivals =
            of(&report, "acme-web", direction).unwrap().walk.arrivals(&world.model, &world.topology);
        arrivals.ports.last().unwrap().node.to_string()
    };
    assert_eq!(last(Direction::Up), "fw-1");
    // The one that it comes by is down.
    assert_eq!(last(Direction::Down), "br-int");
    let up = of(&report, "acme-web", Direction::Up).unwrap().walk;
    assert_eq!(up.functions(), Vec::<&str>::new(), "it has passed none");
}

/// One customer's link is no other's business.
#[test]
fn a_site_that_has_lost_its_link_breaks_its_own_chain_alone() {
    let report = with_down(World::paper(), "access-b", "lan");
    assert!(
        report.violations.iter().all(|found| found.site.as_str() == "globex-hq"),
        "{}",
        in_words(&report)
    );
}

/// Where both ends of a cable are elements, either being down is enough.
#[test]
fn a_cable_is_as_good_as_its_worse_end() {
    let world = World::paper();
    let cable = world.topology.cable(&"access-a".parse().unwrap(), &"wan".parse().unwrap()).unwrap();
    let far = cable.far.clone();
    let report = with_down(world, far.node.as_str(), far.port.as_str());
    let up = of(&report, "acme-web", Direction::Up).unwrap();
    assert!(up.what.contains(&format!("port {} of {} is down", far.port, far.node)), "{}", in_words(&report));
}

#[test]
fn a_port_that_no_chain_needs_may_be_down() {
    assert_proven(&with_down(World::acme(""), "access-b", "lan"));
    assert_proven(&with_down(World::paper(), "br-int", "unused"));
}

/// Packets do not wait for their copies.
#[test]
fn a_tap_whose_port_is_down_holds_nobody_up() {
    assert_proven(&with_down(World::insertion_without_nat(), "br", "ids1"));
    let report = with_down(World::insertion_without_nat(), "br", "fw1-in");
    assert_eq!(report.verdict, Verdict::Violated, "{}", in_words(&report));
}
