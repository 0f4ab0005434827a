//! Packets through the paper's network, as rendered.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use catena_model::address::{Dscp, Protocol};
use catena_model::base::BaseRouting;
use catena_model::forwarding::{ForwardingState, Key, Object};
use catena_model::name::NodeName;
use catena_model::numbering::Numbering;
use catena_model::packet::Packet;
use catena_model::resource::{Model, Source, load};
use catena_model::topology::Topology;
use catena_render::render;
use catena_verify::{Decision, End, Network, Trace, trace};

struct World {
    model: Model,
    topology: Topology,
    state: ForwardingState,
    base: BTreeMap<NodeName, BaseRouting>,
    numbering: Numbering,
}

impl World {
    /// The example, with its chain or without.
    fn new(files: &[&str]) -> Self {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/paper/");
        let source =
            |name: &&str| Source::new(*name, std::fs::read_to_string(format!("{folder}{name}")).unwrap());
        let sources: Vec<Source> = files.iter().map(source).collect();
        let model = load(&sources).unwrap_or_else(|problems| panic!("{problems:#?}"));
        let topology = Topology::of(&model);
        let mut numbering = Numbering::default();
        let state = render(&model, &mut numbering).unwrap();
        Self { model, topology, state, base: BTreeMap::new(), numbering }
    }

    fn chained() -> Self {
        Self::new(&["network.yaml", "functions.yaml", "tenants.yaml", "chain.yaml"])
    }

    fn trace(&self, packet: Packet) -> Trace {
        let Self { model, topology, state, base, numbering } = self;
        trace(&Network { model, topology, state, base, numbering }, packet)
    }
}

fn packet(from: &str, to: &str, protocol: Protocol, port: u16) -> Packet {
    Packet {
        source: from.parse().unwrap(),
        destination: to.parse().unwrap(),
        protocol,
        source_port: if port == 0 { 0 } else { 40_000 },
        destination_port: port,
        dscp: Dscp::default(),
    }
}

const FAMILIES: [(&str, &str); 2] =
    [("172.16.1.10", "198.51.100.10"), ("2001:db8:a1::10", "2001:db8:ffff::10")];

fn delivered(node: &str) -> End {
    End::Delivered { node: node.parse().unwrap() }
}

fn in_words(trace: &Trace) -> String {
    let walks = [("request", &trace.request), ("reply", &trace.reply)];
    let lines = walks.into_iter().flat_map(|(name, walk)| {
        let visits = walk.visits.iter().flat_map(|visit| {
            let port = visit.in_port.as_ref().map(|port| format!(" ({port})")).unwrap_or_default();
            let decisions = visit.decisions.iter().map(|decision| format!("    {decision}"));
            std::iter::once(format!("  {}{port}", visit.node)).chain(decisions)
        });
        std::iter::once(name.to_owned()).chain(visits).chain([format!("  {}", walk.end)])
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn claimed_traffic_passes_the_functions_and_comes_back_through_the_same_ones() {
    let world = World::chained();
    for (from, to) in FAMILIES {
        for source_port in 40_000..40_064 {
            let found = world.trace(Packet { source_port, ..packet(from, to, Protocol::TCP, 80) });
            assert_eq!(found.request.end, delivered("internet"), "{}", in_words(&found));
            assert_eq!(found.reply.end, delivered("alice"), "{}", in_words(&found));
            let mut back = found.reply.functions();
            back.reverse();
            assert_eq!(found.request.functions(), back);
            assert_eq!(back.len(), 3);
        }
    }
}

#[test]
fn the_way_in_words() {
    let (from, to) = FAMILIES[0];
    insta::assert_snapshot!(in_words(&World::chained().trace(packet(from, to, Protocol::TCP, 80))));
}

#[test]
fn what_the_chain_does_not_claim_goes_as_if_there_were_none() {
    let (chained, bare) = (World::chained(), World::new(&["network.yaml", "functions.yaml", "tenants.yaml"]));
    for (from, to) in FAMILIES {
        for (protocol, port) in [(Protocol::ICMP, 0), (Protocol::TCP, 22), (Protocol::UDP, 80)] {
            let packet = packet(from, to, protocol, port);
            assert_eq!(in_words(&chained.trace(packet)), in_words(&bare.trace(packet)));
        }
    }
}

#[test]
fn the_other_tenant_is_untouched() {
    let (chained, bare) = (World::chained(), World::new(&["network.yaml", "functions.yaml", "tenants.yaml"]));
    let packet = packet("172.16.2.10", "198.51.100.10", Protocol::TCP, 80);
    assert_eq!(in_words(&chained.trace(packet)), in_words(&bare.trace(packet)));
}

/// Who takes a claiming port's program away sends more into the chain, never less.
#[test]
fn without_its_claims_all_of_a_site_goes_into_the_chain() {
    let mut world = World::chained();
    for (element, port) in [("access-a", "lan"), ("core", "inet")] {
        let ingress = Key::Ingress(port.parse().unwrap());
        assert!(world.state.elements.get_mut(element).unwrap().remove(&ingress).is_some());
    }
    for (from, to) in FAMILIES {
        let web = world.trace(packet(from, to, Protocol::TCP, 80));
        assert_eq!(
            (web.request.functions().len(), web.reply.functions().len()),
            (3, 3),
            "{}",
            in_words(&web)
        );
        assert_eq!((&web.request.end, &web.reply.end), (&delivered("internet"), &delivered("alice")));

        let ping = world.trace(packet(from, to, Protocol::ICMP, 0));
        for (walk, end) in [(&ping.request, "internet"), (&ping.reply, "alice")] {
            let passed: Vec<&str> = walk.visits.iter().map(|visit| visit.node.as_str()).collect();
            assert!(passed.contains(&"br-int") && walk.functions().is_empty(), "{}", in_words(&ping));
            assert_eq!(walk.end, delivered(end));
        }
    }
}

#[test]
fn a_table_that_is_gone_drops_and_does_not_leak() {
    let mut world = World::chained();
    let router = world.state.elements.get_mut("qrouter-1234").unwrap();
    let tables: Vec<Key> = router.iter().filter(|o| matches!(o, Object::Table(_))).map(Object::key).collect();
    tables.iter().for_each(|table| {
        router.remove(table);
    });
    let (from, to) = FAMILIES[0];
    let found = world.trace(packet(from, to, Protocol::TCP, 80));
    assert!(
        matches!(&found.request.end, End::Dropped { node, .. } if node.as_str() == "qrouter-1234"),
        "{found:#?}"
    );
}

/// What observing finds when somebody deletes Figure 2's rule: the packet goes round the functions, and the walk says so.
#[test]
fn a_rule_that_is_gone_is_seen_to_lead_round_the_functions() {
    let mut world = World::chained();
    let router = world.state.elements.get_mut("qrouter-1234").unwrap();
    let rules: Vec<Key> = router.iter().filter(|o| matches!(o, Object::Rule(_))).map(Object::key).collect();
    rules.iter().for_each(|rule| {
        router.remove(rule);
    });
    let (from, to) = FAMILIES[0];
    let found = world.trace(packet(from, to, Protocol::TCP, 80));
    assert_eq!(found.request.end, delivered("internet"), "{}", in_words(&found));
    assert_eq!(found.request.functions(), Vec::<&str>::new());
    let by_base = |decision: &Decision| matches!(decision, Decision::Base { .. });
    let router = found.request.visits.iter().find(|visit| visit.node.as_str() == "qrouter-1234").unwrap();
    assert!(router.decisions.iter().all(by_base));
}
