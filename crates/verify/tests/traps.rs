//! Mistakes that networks like this one are known for. Each is found, by its name, with a packet that shows it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod world;

use catena_model::address::{Dscp, Family, Prefix, Protocol};
use catena_model::base::{BaseRoute, BaseRouteAction, BaseRuleAction};
use catena_model::forwarding::{Action, Direction, FlowMatch, Object, OnFailure};
use catena_model::numbering::PathOwner;
use catena_model::packet::Packet;
use catena_model::resource::Engine;
use catena_verify::{Decision, End, Kind, Probe, Property, Report, Undecided, Verdict, Violation};
use world::{World, assert_proven, in_words, properties, way};

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

/// Later fragments have no ports, and ICMP errors are between other addresses: neither parts from its flow.
#[test]
fn fragments_and_icmp_errors() {
    let world = World::paper();
    let web = web();
    let other = Packet { destination_port: 81, ..web };
    let router = Kind::Error { sender: "192.0.2.33".parse().unwrap() };
    let up = |packet, kind| world.walk(&"access-a lan".entry(), Probe { packet, kind });
    let down =
        |packet: Packet, kind| world.walk(&"core inet".entry(), Probe { packet: packet.reply(), kind });
    let there = up(web, Kind::Whole);
    let functions = there.functions();
    assert_eq!(functions.len(), 3);
    assert_eq!(up(web, Kind::Fragment).functions(), functions);
    // A first fragment proves nothing of later ones, which go the same way.
    assert_eq!(up(other, Kind::Whole).functions(), Vec::<&str>::new());
    assert_eq!(up(other, Kind::Fragment).functions().len(), 3);
    for late in [up(other, Kind::Headless), down(web, Kind::Headless)] {
        assert_eq!(late.functions(), Vec::<&str>::new());
        assert!(
            matches!(&late.end, End::Dropped { node, .. } if node.as_str() == "br-int"),
            "{}",
            way(&late)
        );
    }
    let error = down(web, router);
    let mut back = error.functions();
    back.reverse();
    assert_eq!(back, functions);
    assert_eq!(down(other, router).functions(), Vec::<&str>::new());
    insta::assert_snapshot!(way(&error));
}

/// Who asks where a packet comes from parts ICMP errors from their flows: routers have other addresses than who is talked to.
#[test]
fn a_rule_that_takes_icmp_errors_of_routers_round_the_functions() {
    let mut world = World::paper();
    world.foreign_rule("core", |rule| rule.from = Some("192.0.2.32/28".parse().unwrap()));
    let report = world.verify();
    assert_eq!(properties(&report), [Property::NoBypass], "{}", in_words(&report));
    let error = Kind::Error { sender: "192.0.2.33".parse().unwrap() };
    let error = world.walk(&"core inet".entry(), Probe { packet: web().reply(), kind: error });
    let reply = world.walk(&"core inet".entry(), web().reply());
    assert_eq!((error.functions().len(), reply.functions().len()), (0, 3), "{}", way(&error));
}

/// Of what others' rules do that ask for ports nothing is proven.
#[test]
fn a_foreign_rule_that_asks_for_ports() {
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

/// To the Internet; and some to the link between, where nobody has their address.
const LED_OFF: [Property; 2] = [Property::NoBypass, Property::NoBlackHole];

/// The owner's rule for the site comes before ours in `ip rule`, and leads by another port.
fn a_rule_in_front(engine: Engine) -> World {
    let mut world = World::paper();
    world.engine("access-a", engine);
    world.foreign_rule("access-a", |rule| rule.from = Some("172.16.1.0/24".parse().unwrap()));
    world
}

#[test]
fn a_foreign_rule_in_front_of_lines_of_ip_rule() {
    let report = a_rule_in_front(Engine::Rules).verify();
    assert_eq!(properties(&report), LED_OFF, "{}", in_words(&report));
    assert_eq!(the(&report, Property::NoBypass).walk.kind, Kind::Whole);
}

/// What has a hop does not leave by another port.
#[test]
fn a_foreign_rule_in_front_of_nft() {
    let report = a_rule_in_front(Engine::Nft).verify();
    assert_eq!(properties(&report), [Property::NoBlackHole], "{}", in_words(&report));
    let violation = the(&report, Property::NoBlackHole);
    assert!(matches!(&violation.walk.end, End::Dropped { node, .. } if node.as_str() == "access-a"));
    insta::assert_snapshot!(in_words(&report));
}

/// The routing engine does not ask for plain packets; to what it leaves to the kernel the rule comes first.
#[test]
fn a_foreign_rule_in_front_of_the_routing_engine() {
    let world = a_rule_in_front(Engine::Steer);
    let lan = "access-a lan".entry();
    for (kind, passed) in
        [(Kind::Whole, 3), (Kind::Fragment, 3), (Kind::Error { sender: web().source }, 3), (Kind::Options, 0)]
    {
        let walk = world.walk(&lan, Probe { packet: web(), kind });
        assert_eq!(walk.functions().len(), passed, "{}", way(&walk));
    }
    // Of an address that is kept for later the kernel has to know what it is.
    let odd = world.walk(&lan, Packet { destination: "240.0.0.1".parse().unwrap(), ..web() });
    assert_eq!(odd.functions(), Vec::<&str>::new());
    let own = world.walk(&lan, Packet { destination: "203.0.113.2".parse().unwrap(), ..web() });
    assert_eq!(own.end, End::Delivered { node: "access-a".parse().unwrap() });
    let report = world.verify();
    assert_eq!(properties(&report), LED_OFF, "{}", in_words(&report));
    assert_eq!(the(&report, Property::NoBypass).walk.kind, Kind::Options, "{}", in_words(&report));
    insta::assert_snapshot!(in_words(&report));
}

/// Every packet could be for the element: all are the kernel's, and a rule before ours gets them. The plain one is shown.
#[test]
fn a_foreign_rule_in_front_of_a_routing_engine_whose_own_addresses_are_networks() {
    let mut world = a_rule_in_front(Engine::Steer);
    let (prefix, action) = ("10.99.0.0/16".parse().unwrap(), BaseRouteAction::Local);
    world.base("access-a").routes.push(BaseRoute { table: 255, prefix, metric: 0, action });
    let report = world.verify();
    assert_eq!(properties(&report), LED_OFF, "{}", in_words(&report));
    assert_eq!(the(&report, Property::NoBypass).walk.kind, Kind::Whole);
}

/// Packets with options are treated as all others where nothing is asked before our rules, or what is asked agrees with them.
#[test]
fn a_foreign_rule_that_leads_by_the_port_of_our_hop() {
    for engine in [Engine::Rules, Engine::Nft, Engine::Steer] {
        let mut world = World::paper();
        world.engine("qrouter-1234", engine);
        let to_switch = world.objects(
            "qrouter-1234",
            |object| matches!(object, Object::Table(table) if table.family == Family::V4),
        );
        let Some(Object::Table(table)) = to_switch.first() else { panic!("no table") };
        let action = BaseRouteAction::Forward { port: table.port.clone(), via: table.via };
        let base = world.base("qrouter-1234");
        base.routes.push(BaseRoute { table: 100, prefix: Prefix::ALL_V4, metric: 0, action });
        world.foreign_rule("qrouter-1234", |rule| {
            rule.from = Some("172.16.1.0/24".parse().unwrap());
            rule.in_port = Some("qg-ext".parse().unwrap());
            rule.action = BaseRuleAction::Lookup(100);
        });
        let walk = world.walk(&"access-a lan".entry(), Probe { packet: web(), kind: Kind::Options });
        assert_eq!(walk.functions().len(), 3, "{}", way(&walk));
        assert_proven(&world.verify());
    }
}

/// Where lines of `ip rule` would meet a rule among them, or behind some of them, an engine that chooses hops has chosen.
#[test]
fn a_foreign_rule_within_our_priorities() {
    for (engine, verdict) in
        [(Engine::Rules, Verdict::Violated), (Engine::Nft, Verdict::Proven), (Engine::Steer, Verdict::Proven)]
    {
        let mut world = a_rule_in_front(engine);
        let base = world.base("access-a");
        base.rules[0].priority = base.our_priority + 1;
        let report = world.verify();
        assert_eq!(report.verdict, verdict, "{engine:?}: {}", in_words(&report));
    }
}

/// What the engine has no hop for is dropped before anybody asks whose address it is for.
#[test]
fn a_table_that_is_not_there_in_front_of_the_elements_own_addresses() {
    let own = Packet { destination: "203.0.113.2".parse().unwrap(), ..web() };
    for (engine, is_delivered) in [(Engine::Rules, true), (Engine::Nft, false), (Engine::Steer, false)] {
        let mut world = World::paper();
        world.engine("access-a", engine);
        world.remove("access-a", |object| matches!(object, Object::Table(_)));
        let walk = world.walk(&"access-a lan".entry(), own);
        assert_eq!(matches!(walk.end, End::Delivered { .. }), is_delivered, "{engine:?}: {}", way(&walk));
        let report = world.verify();
        assert!(properties(&report).contains(&Property::NoBlackHole), "{engine:?}: {}", in_words(&report));
        assert!(report.undecided.is_empty(), "{engine:?}: {}", in_words(&report));
    }
}

/// Not damaged at all: who may send to the switch itself, on the one leg of a router, sends in circles.
#[test]
fn packets_for_a_one_armed_switch_itself() {
    let report = World::one_armed().verify();
    let violation = the(&report, Property::NoLoop);
    assert_eq!(violation.walk.packet.destination.to_string(), "10.21.0.5");
}

/// Not damaged either: with one leg the switch takes whoever forges a customer's source for the customer.
#[test]
fn forged_packets_on_the_one_leg_of_a_switch() {
    let report = World::one_armed().verify();
    let violation = the(&report, Property::Isolation);
    assert_eq!(violation.entry, "gateway inet".entry());
    assert_eq!(violation.direction, Direction::Down, "{}", in_words(&report));
}

/// An address of the site as a packet's source proves nothing: who comes from the Internet is not of the site.
#[test]
fn a_packet_from_the_internet_with_the_sites_own_source() {
    let mut world = World::acme("");
    world.foreign_rule("core", |rule| rule.from = Some("172.16.1.0/24".parse().unwrap()));
    let report = world.verify();
    let violation = the(&report, Property::NoBypass);
    assert_eq!((&violation.entry, violation.direction), (&"core inet".entry(), Direction::Down));
    assert!(violation.walk.packet.source.to_string().starts_with("172.16.1."), "{}", in_words(&report));
    assert_eq!(violation.walk.functions(), Vec::<&str>::new());
}

/// A chain leads packets down to the router, which looks at their forged source first.
#[test]
fn a_forged_packet_that_the_way_down_brings_to_a_source_rule() {
    let mut world = World::paper();
    let down_to_acme = |object: &Object| matches!(object, Object::Rule(rule) if rule.selector.to == Some("172.16.1.0/24".parse().unwrap()));
    world.remove("qrouter-1234", down_to_acme);
    let report = world.verify();
    let violation = the(&report, Property::Isolation);
    assert_eq!(violation.entry, "core inet".entry());
    assert!(violation.walk.packet.source.to_string().starts_with("172.16.2."), "{}", in_words(&report));
}

/// Packets to the world's translated IPv4 addresses (RFC 6052) are claimed like any others, and so are those to addresses
/// that IPv4 keeps for later.
#[test]
fn a_way_round_for_unusual_addresses() {
    for (prefix, family) in [("64:ff9b::/96", Family::V6), ("240.0.0.0/4", Family::V4)] {
        let mut world = World::paper();
        world.foreign_rule("access-a", |rule| {
            rule.family = family;
            rule.to = Some(prefix.parse().unwrap());
        });
        let report = world.verify();
        assert_eq!(report.verdict, Verdict::Violated, "{prefix}");
        let shown = report.violations[0].walk.packet.destination;
        assert!(prefix.parse::<Prefix>().unwrap().contains(shown), "{}", in_words(&report));
    }
}

/// Nothing is promised of packets that nobody routes, and they do not stand for others that a rule is for, too.
#[test]
fn a_way_round_for_multicast() {
    for (prefix, family, verdict) in [
        ("224.0.0.0/4", Family::V4, Verdict::Proven),
        ("ff00::/8", Family::V6, Verdict::Proven),
        ("192.0.0.0/2", Family::V4, Verdict::Violated),
        ("c000::/2", Family::V6, Verdict::Violated),
    ] {
        let mut world = World::paper();
        world.foreign_rule("access-a", |rule| {
            rule.family = family;
            rule.to = Some(prefix.parse().unwrap());
        });
        let report = world.verify();
        assert_eq!(report.verdict, verdict, "{prefix}: {}", in_words(&report));
        assert!(report.violations.iter().all(|violation| !violation.walk.packet.destination.is_multicast()));
    }
}

/// Two customers on one element: of one it is checked what sources it uses, of the other it is not.
#[test]
fn a_guard_against_forged_sources_at_one_of_two_ports() {
    let text = include_str!("world/aggregation.yaml");
    let guarded = |ports: &[&str]| {
        let mut world = World::acme(text);
        for port in ports {
            world.foreign_rule("agg", |rule| {
                rule.from = Some("172.16.1.0/24".parse().unwrap());
                rule.in_port = Some(port.parse().unwrap());
                rule.action = BaseRuleAction::Drop;
            });
        }
        world.verify()
    };
    for (ports, entry) in
        [(&[][..], "agg lan-bad"), (&["lan-bad"], "agg lan-cad"), (&["lan-cad"], "agg lan-bad")]
    {
        let report = guarded(ports);
        assert_eq!(properties(&report), [Property::Isolation], "{}", in_words(&report));
        assert_eq!(report.violations[0].entry, entry.entry());
    }
    assert_proven(&guarded(&["lan-bad", "lan-cad"]));
}

/// The router knows acme by its sources, whoever uses them, and hosts of the provider's can.
#[test]
fn a_host_of_the_providers_that_forges_sources() {
    let text = include_str!("world/host.yaml");
    let mut world = World::acme(text);
    let report = world.verify();
    assert_eq!(properties(&report), [Property::Isolation], "{}", in_words(&report));
    assert_eq!(report.violations[0].entry, "qrouter-1234 dns".entry());
    world.foreign_rule("qrouter-1234", |rule| {
        rule.in_port = Some("dns".parse().unwrap());
        rule.from = Some("172.16.0.0/16".parse().unwrap());
        rule.action = BaseRuleAction::Drop;
    });
    world.foreign_rule("qrouter-1234", |rule| {
        rule.family = Family::V6;
        rule.in_port = Some("dns".parse().unwrap());
        rule.action = BaseRuleAction::Drop;
    });
    assert_proven(&world.verify());
}

/// A rule that may or may not stop them: nobody knows whether forged packets enter the chain.
#[test]
fn a_guard_against_forged_sources_that_asks_for_ports() {
    let mut world = World::acme(include_str!("world/host.yaml"));
    for family in Family::BOTH {
        world.foreign_rule("qrouter-1234", |rule| {
            rule.family = family;
            rule.in_port = Some("dns".parse().unwrap());
            rule.action = BaseRuleAction::Drop;
            rule.opaque = vec!["ipproto tcp".to_owned()];
        });
    }
    let report = world.verify();
    assert_eq!(report.verdict, Verdict::Undecided, "{}", in_words(&report));
    assert_undecided_at(&report, "qrouter-1234 dns", "ipproto tcp");
}

/// Two rules of equal priority, the one of ours for what is not the site's: nobody knows which comes first.
#[test]
fn a_rule_for_others_packets_as_good_as_a_foreign_one() {
    let mut world = World::paper();
    let others: Prefix = "192.0.2.128/25".parse().unwrap();
    let down = |object: &Object| matches!(object, Object::Rule(rule) if rule.selector.to == Some("172.16.1.0/24".parse().unwrap()));
    let Object::Rule(mut rule) = world.objects("core", down)[0].clone() else { panic!("no rule") };
    rule.selector.to = Some(others);
    let priority = world.base("core").our_priority + u32::from(rule.order);
    world.element("core").insert(Object::Rule(rule));
    assert_eq!(properties(&world.verify()), [Property::UnclaimedUntouched]);
    world.foreign_rule("core", |rule| (rule.priority, rule.to) = (priority, Some(others)));
    assert_undecided_at(&world.verify(), "core inet", "priority");
}

#[track_caller]
fn assert_undecided_at(report: &Report, entry: &str, what: &str) {
    let is_told = |undecided: &Undecided| {
        undecided.entry.as_ref() == Some(&entry.entry()) && undecided.what.contains(what)
    };
    assert!(report.undecided.iter().any(is_told), "{}", in_words(report));
}

/// A path leaves by the exits of the site that it is rendered for.
#[test]
fn a_policy_that_names_another_sites_path() {
    let mut world = World::provider(2);
    let path = |site: u32| {
        let names = (format!("chain-{site}").parse().unwrap(), format!("site-{site}").parse().unwrap());
        world.numbering.revision(&PathOwner::Chain(names.0, names.1)).unwrap().id
    };
    let (own, others) = (path(0), path(1));
    let names_own = |object: &Object| matches!(object, Object::Policy(policy) if policy.rules.iter().any(|rule| rule.action == Action::Path(own)));
    world.change("br-int", names_own, |object| {
        if let Object::Policy(policy) = object {
            policy.rules.iter_mut().for_each(|rule| rule.action = Action::Path(others));
        }
    });
    let report = world.verify();
    assert_eq!(properties(&report), [Property::Isolation], "{}", in_words(&report));
    assert_eq!(report.violations[0].site.as_str(), "site-0");
}

/// Two instances that get one flow in a hundred have each the other's outside.
#[test]
fn instances_turned_round_that_few_flows_are_given() {
    let side = |name: &'static str| move |object: &Object| matches!(object, Object::Instance(instance) if instance.inside.port.as_str() == name);
    let (before, after) = (
        "  onFailure: skip\n  instances:\n",
        "  onFailure: skip\n  stickiness: 2-tuple\n  instances:\n    - name: ips-3\n      weight: 255\n      inside: {element: br-int, port: ips3-in}\n      outside: {element: br-int, port: ips3-out}\n",
    );
    let text = World::provider_text(1).replacen(before, after, 1);
    let mut world = World::of(&[&text, include_str!("world/third-ips.yaml")]);
    assert_proven(&world.verify());
    let outside = |world: &World, name| match world.objects("br-int", side(name)).as_slice() {
        [Object::Instance(instance)] => instance.outside.clone(),
        found => panic!("{found:?}"),
    };
    for (name, outside) in [("ips1-in", outside(&world, "ips2-in")), ("ips2-in", outside(&world, "ips1-in"))]
    {
        world.change("br-int", side(name), |object| {
            if let Object::Instance(instance) = object {
                instance.outside = outside.clone();
            }
        });
    }
    let report = world.verify();
    let violation = the(&report, Property::SameWayBack);
    assert!(!violation.walk.functions().contains(&"ips-3"), "{}", in_words(&report));
}

/// A name server of the provider's is somebody, too: who asks it without a chain is not to be led to where nobody answers.
#[test]
fn packets_for_a_host_within_the_network_that_are_dropped() {
    let mut world = World::acme(&include_str!("world/host.yaml").replace("qrouter-1234", "core"));
    // What else it can do is not looked at here.
    world.foreign_rule("core", |rule| {
        rule.in_port = Some("dns".parse().unwrap());
        rule.action = BaseRuleAction::Drop;
    });
    world.foreign_rule("core", |rule| {
        rule.family = Family::V6;
        rule.in_port = Some("dns".parse().unwrap());
        rule.action = BaseRuleAction::Drop;
    });
    assert_proven(&world.verify());
    let host: Prefix = "10.77.0.53/32".parse().unwrap();
    world.change(
        "access-a",
        |object| matches!(object, Object::Policy(_)),
        |object| {
            if let Object::Policy(policy) = object {
                policy.rules[0].matches = FlowMatch { remote: Some(host), ..FlowMatch::default() };
            }
        },
    );
    let base = world.base("gateway");
    base.routes.push(BaseRoute { table: 254, prefix: host, metric: 0, action: BaseRouteAction::Drop });
    let report = world.verify();
    let violation = the(&report, Property::UnclaimedUntouched);
    assert_eq!(violation.walk.packet.destination.to_string(), "10.77.0.53", "{}", in_words(&report));
}

/// From acme, and claimed.
fn web() -> Packet {
    Packet {
        source: "172.16.1.10".parse().unwrap(),
        destination: "198.51.100.10".parse().unwrap(),
        protocol: Protocol::TCP,
        source_port: 40_000,
        destination_port: 80,
        dscp: Dscp::default(),
    }
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
