//! Mistakes that networks like this one are known for. Each is found, by its name, with a packet that shows it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod world;

use catena_model::base::{BaseRoute, BaseRouteAction, BaseRuleAction};
use catena_model::forwarding::{Direction, Object, OnFailure};
use catena_verify::{Decision, End, Property, Report, Verdict, Violation};
use world::{World, in_words, properties};

fn the(report: &Report, property: Property) -> &Violation {
    let found = report.violations.iter().find(|violation| violation.property == property);
    found.unwrap_or_else(|| panic!("no {property} in {}", in_words(report)))
}

/// After the functions the packets come back to the router, whose rule knows them by their source alone.
#[test]
fn a_source_rule_without_its_ingress_interface() {
    let mut world = World::one_armed_and_guarded();
    let up = |object: &Object| matches!(object, Object::Rule(rule) if rule.selector.from.is_some());
    world.change("router", up, |object| {
        if let Object::Rule(rule) = object {
            rule.selector.in_port = None;
            rule.order += 128;
        }
    });
    let report = world.verify();
    let violation = the(&report, Property::NoLoop);
    assert_eq!(violation.walk.end, End::Loop { node: "switch".parse().unwrap() });
    insta::assert_snapshot!(in_words(&report));
}

/// Who lives in the larger prefix of another has no chain, and must not be led through the other's.
#[test]
fn a_second_tenant_inside_the_first_ones_prefix() {
    let files = ["network.yaml", "functions.yaml", "tenants.yaml", "chain.yaml"];
    let mut world = World::example("paper", &files);
    let down = |object: &Object| matches!(object, Object::Rule(rule) if rule.selector.to == Some("172.16.1.0/24".parse().unwrap()));
    world.change("core", down, |object| {
        if let Object::Rule(rule) = object {
            rule.selector.to = Some("172.16.0.0/16".parse().unwrap());
            rule.order += 8;
        }
    });
    let report = world.verify();
    let violation = the(&report, Property::UnclaimedUntouched);
    assert_eq!((violation.chain.as_str(), violation.direction), ("acme-web", Direction::Down));
    // Found for the addresses that are not acme's.
    assert!(!violation.walk.packet.destination.to_string().starts_with("172.16.1."), "{}", in_words(&report));
}

/// Requests go into one instance, their replies into the other.
#[test]
fn a_return_through_another_instance() {
    let mut world = World::paper();
    let ports = |name: &'static str| move |object: &Object| matches!(object, Object::Instance(instance) if instance.inside.port.as_str() == name);
    let other = world.objects("br-int", ports("ips2-in"));
    let [Object::Instance(other)] = other.as_slice() else { panic!("{other:?}") };
    let outside = other.outside.clone();
    world.change("br-int", ports("ips1-in"), |object| {
        if let Object::Instance(instance) = object {
            instance.outside = outside.clone();
        }
    });
    let report = world.verify();
    let violation = the(&report, Property::SameWayBack);
    let back = violation.walk.functions();
    let there = world.walk(&"access-a lan".entry(), violation.walk.packet.reply());
    if violation.chain.as_str() == "acme-web" {
        let mut there = there.functions();
        there.reverse();
        assert_ne!(there, back);
    }
    assert!(back.contains(&"ips-2"), "{}", in_words(&report));
}

/// A function that gives packets other addresses: where their replies come is not known, and nobody says that it is.
#[test]
fn source_nat_that_makes_replies_miss_their_chain() {
    let mut world = World::insertion();
    assert_eq!(world.verify().verdict, Verdict::Undecided);
    // Nor is it forgotten that it changes them.
    let nat = |object: &Object| matches!(object, Object::Instance(instance) if instance.rewrites);
    world.change("br", nat, |object| {
        if let Object::Instance(instance) = object {
            instance.rewrites = false;
        }
    });
    let report = world.verify();
    assert_eq!(the(&report, Property::Unmodified).chain.as_str(), "mail");
}

/// The right to be left out is the intrusion prevention's, and went to the firewall.
#[test]
fn a_skip_that_lets_traffic_round_a_closed_function() {
    let mut world = World::provider(1);
    world.change(
        "br-int",
        |object| matches!(object, Object::Path(_)),
        |object| {
            if let Object::Path(path) = object {
                path.hops[0].on_failure = OnFailure::Skip;
            }
        },
    );
    let report = world.verify();
    let violation = the(&report, Property::Degraded);
    assert_eq!(violation.without.as_deref(), Some("an instance of fw"));
    let skipped = Decision::Skipped { position: 0 };
    assert!(
        violation.walk.visits.iter().any(|visit| visit.decisions.contains(&skipped)),
        "{}",
        in_words(&report)
    );
    assert_eq!(properties(&report), [Property::Degraded]);
}

/// Later fragments have no ports, and ICMP errors have other ones: a rule that asks for ports parts them from their flow.
/// Ours ask for none; of others' it is not said what they do.
#[test]
fn a_rule_that_asks_for_ports_which_fragments_and_icmp_errors_have_not() {
    let mut world = World::paper();
    world.foreign_rule("qrouter-1234", |rule| {
        rule.opaque = vec!["ipproto tcp".to_owned(), "dport 80-80".to_owned()];
    });
    let report = world.verify();
    assert_eq!(report.verdict, Verdict::Undecided, "{}", in_words(&report));
    assert!(
        report.undecided.iter().all(|undecided| undecided.what.contains("dport 80-80")),
        "{}",
        in_words(&report)
    );
}

/// A rule in front of ours leads to a table that knows but one part of the Internet.
#[test]
fn a_more_specific_route_that_wins_over_policy_routing() {
    let mut world = World::paper();
    world.foreign_rule("access-a", |rule| rule.action = BaseRuleAction::Lookup(100));
    let via = Some("203.0.113.1".parse().unwrap());
    let action = BaseRouteAction::Forward { port: "wan".parse().unwrap(), via };
    let prefix = "198.51.100.64/26".parse().unwrap();
    world.base("access-a").routes.push(BaseRoute { table: 100, prefix, metric: 0, action });
    let report = world.verify();
    assert_eq!(properties(&report), [Property::NoBypass], "{}", in_words(&report));
    let violation = the(&report, Property::NoBypass);
    assert!(prefix.contains(violation.walk.packet.destination));
    assert_eq!(violation.walk.functions(), Vec::<&str>::new());
    insta::assert_snapshot!(in_words(&report));
}

/// Not damaged at all: who may send to the switch itself, on the one leg of a router, sends in circles.
#[test]
fn packets_for_a_one_armed_switch_itself() {
    let report = World::one_armed().verify();
    let violation = the(&report, Property::NoLoop);
    assert_eq!(violation.walk.packet.destination.to_string(), "10.21.0.5");
}

trait AsEntry {
    fn entry(&self) -> catena_verify::Entry;
}

impl AsEntry for str {
    /// A node and a port.
    fn entry(&self) -> catena_verify::Entry {
        let (node, port) = self.split_once(' ').unwrap();
        catena_verify::Entry { node: node.parse().unwrap(), port: port.parse().unwrap(), tunnel: None }
    }
}
