//! Packets through functions of every kind of insertion, as rendered.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};

use catena_model::address::{Dscp, Protocol};
use catena_model::forwarding::{ForwardingState, InstanceState, Object};
use catena_model::name::FunctionName;
use catena_model::numbering::Numbering;
use catena_model::packet::Packet;
use catena_model::resource::{Model, Source, load};
use catena_model::topology::Topology;
use catena_render::render;
use catena_verify::{Decision, End, Network, Trace, Walk, trace};

struct World {
    model: Model,
    topology: Topology,
    state: ForwardingState,
    numbering: Numbering,
}

impl World {
    /// The example with `to` in the place of each `from`.
    fn with(edits: &[(&str, &str)]) -> Self {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/insertion/");
        let read = |name: &str| std::fs::read_to_string(format!("{folder}{name}")).unwrap();
        let mut text =
            ["network.yaml", "functions.yaml", "tenants.yaml", "chains.yaml"].map(read).join("\n---\n");
        for (from, to) in edits {
            assert_eq!(text.matches(from).count(), 1, "`{from}` must stand once in the example");
            text = text.replace(from, to);
        }
        let model = load(&[Source::new("example", text)]).unwrap_or_else(|problems| panic!("{problems:#?}"));
        let topology = Topology::of(&model);
        let mut numbering = Numbering::default();
        let state = render(&model, &mut numbering).unwrap();
        Self { model, topology, state, numbering }
    }

    /// After all instances of a function have gone.
    fn without(mut self, function: &str) -> Self {
        let instances = &self.model.functions[&function.parse::<FunctionName>().unwrap()].instances;
        let gone: BTreeSet<_> =
            instances.iter().map(|instance| self.numbering.instance(&instance.name)).collect();
        let switch = "br".parse().unwrap();
        for object in self.state.element(&switch).clone().iter() {
            if let Object::Instance(instance) = object
                && gone.contains(&instance.id)
            {
                let down = Object::Instance(catena_model::forwarding::Instance {
                    state: InstanceState::Down,
                    ..instance.clone()
                });
                self.state.insert(&switch, down);
            }
        }
        self
    }

    fn trace(&self, packet: Packet) -> Trace {
        let Self { model, topology, state, numbering } = self;
        trace(&Network { model, topology, state, base: &BTreeMap::new(), numbering }, packet)
    }

    /// By which instances of ips packets to port 80 of many hosts go.
    fn shares(&self) -> BTreeMap<String, u32> {
        let mut shares = BTreeMap::new();
        for host in 1..=250 {
            let to = format!("198.51.100.{host}").parse().unwrap();
            let trace = self.trace(Packet { destination: to, ..web() });
            let functions = trace.request.functions();
            *shares.entry(functions[2].to_owned()).or_default() += 1;
        }
        shares
    }
}

fn tcp(port: u16) -> Packet {
    Packet {
        source: "172.16.1.10".parse().unwrap(),
        destination: "198.51.100.10".parse().unwrap(),
        protocol: Protocol::TCP,
        source_port: 40_000,
        destination_port: port,
        dscp: Dscp::default(),
    }
}

fn web() -> Packet {
    tcp(80)
}

fn mail() -> Packet {
    tcp(25)
}

/// By position, as people count.
fn copies(walk: &Walk) -> Vec<(u8, &str)> {
    let all = walk.visits.iter().flat_map(|visit| &visit.decisions);
    all.filter_map(|decision| match decision {
        Decision::Copied { position, instance } => Some((position + 1, instance.as_str())),
        _ => None,
    })
    .collect()
}

#[test]
fn every_kind_is_passed_in_order_and_back() {
    for (source, destination) in [("172.16.1.10", "198.51.100.10"), ("2001:db8:a1::10", "2001:db8:ffff::10")]
    {
        let ends = (source.parse().unwrap(), destination.parse().unwrap());
        let Trace { request, reply } =
            World::with(&[]).trace(Packet { source: ends.0, destination: ends.1, ..web() });
        let there = request.functions();
        assert_eq!(
            (there[0], there[1], there[3], there[4], there.len()),
            ("fw-1", "cache-1", "dpi-1", "nsh-1", 5)
        );
        assert!(there[2].starts_with("ips-"));
        let mut back = reply.functions();
        back.reverse();
        assert_eq!(there, back);
        // The tap is the sixth of the chain, and nothing passes it.
        assert_eq!((copies(&request), copies(&reply)), (vec![(6, "ids-1")], vec![(6, "ids-1")]));
        assert_eq!(request.end, End::Delivered { node: "internet".parse().unwrap() });
        assert_eq!(reply.end, End::Delivered { node: "user".parse().unwrap() });
    }
}

#[test]
fn weights_are_shares() {
    let shares = World::with(&[]).shares();
    let [one, three] = [shares["ips-1"], shares["ips-2"]];
    assert!((40..=85).contains(&one) && one + three == 250, "{shares:?}");
}

#[test]
fn two_hosts_stick_to_an_instance() {
    let world = World::with(&[]);
    let instance =
        |source_port| world.trace(Packet { source_port, ..web() }).request.functions()[2].to_owned();
    let all: BTreeSet<String> = (1..200).map(instance).collect();
    assert_eq!(all.len(), 1);
    let by_ports = World::with(&[("  stickiness: 2-tuple ", "  stickiness: 5-tuple ")]);
    let instance =
        |source_port| by_ports.trace(Packet { source_port, ..web() }).request.functions()[2].to_owned();
    let all: BTreeSet<String> = (1..200).map(instance).collect();
    assert_eq!(all.len(), 2);
}

#[test]
fn who_drains_is_given_no_flows() {
    let world = World::with(&[("    - name: ips-2\n", "    - name: ips-2\n      drain: true\n")]);
    assert_eq!(world.shares(), BTreeMap::from([("ips-1".to_owned(), 250)]));
}

#[test]
fn a_function_without_instances_is_left_out_if_it_may_be() {
    let Trace { request, reply } = World::with(&[]).without("ips").trace(web());
    assert_eq!(request.functions(), ["fw-1", "cache-1", "dpi-1", "nsh-1"]);
    assert_eq!(reply.functions(), ["nsh-1", "dpi-1", "cache-1", "fw-1"]);
    let skipped = Decision::Skipped { position: 2 };
    assert!(request.visits.iter().any(|visit| visit.decisions.contains(&skipped)));
    assert_eq!(request.end, End::Delivered { node: "internet".parse().unwrap() });
}

#[test]
fn a_function_without_instances_closes_the_way_if_it_must() {
    let Trace { request, reply } = World::with(&[]).without("fw").trace(web());
    for walk in [request, reply] {
        assert!(matches!(&walk.end, End::Dropped { node, .. } if node.as_str() == "br"), "{:?}", walk.end);
    }
}

#[test]
fn a_tap_that_is_gone_changes_nothing() {
    let Trace { request, .. } = World::with(&[]).without("ids").trace(web());
    assert_eq!((request.functions().len(), copies(&request)), (5, vec![]));
    assert_eq!(request.end, End::Delivered { node: "internet".parse().unwrap() });
}

#[test]
fn the_dscp_of_the_flow_decides() {
    let world = World::with(&[]);
    let voice = |dscp: &str| {
        let udp = Packet { protocol: Protocol::UDP, destination_port: 5060, ..web() };
        world.trace(Packet { dscp: dscp.parse().unwrap(), ..udp })
    };
    let Trace { request, reply } = voice("ef");
    assert_eq!((request.functions().len(), reply.functions().len()), (1, 1));
    let Trace { request, reply } = voice("af41");
    for walk in [request, reply] {
        assert!(walk.functions().is_empty());
        assert!(matches!(walk.end, End::Delivered { .. }), "{:?}", walk.end);
    }
}

/// After the last function nobody asks for addresses. The answer comes to ones that are not known here.
#[test]
fn changed_addresses_at_the_end_of_a_chain() {
    let Trace { request, reply } = World::with(&[]).trace(mail());
    assert_eq!((request.functions(), copies(&request)), (vec!["nat-1"], vec![(1, "ids-1")]));
    assert_eq!(request.end, End::Delivered { node: "internet".parse().unwrap() });
    assert!(
        matches!(&reply.end, End::Undecided { why, .. } if why.contains("changes addresses")),
        "{:?}",
        reply.end
    );
}

#[test]
fn changed_addresses_amid_a_chain() {
    let world = World::with(&[("functions: [ids, nat]", "functions: [nat, ids]")]);
    let end = world.trace(mail()).request.end;
    assert!(matches!(&end, End::Undecided { why, .. } if why.contains("changes addresses")), "{end:?}");
}
