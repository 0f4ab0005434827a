//! What packets a match means, and what an element is after a change.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::IpAddr;

use catena_model::address::{Dscp, Family, PortRange, Prefix, Protocol};
use catena_model::forwarding::{
    Change, Delivery, Direction, ElementState, FlowMatch, Insertion, Instance, InstanceId, InstanceState,
    Object, PathId, Rule, Selector, Side, Table,
};
use catena_model::packet::Packet;
use proptest::prelude::*;

fn flows(text: [&str; 5]) -> FlowMatch {
    let [protocol, ports, local, remote, dscp] = text;
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    FlowMatch {
        protocol: given(protocol).map(|text| text.parse().unwrap()),
        ports: given(ports).map(|text| text.parse().unwrap()),
        local: given(local).map(|text| text.parse().unwrap()),
        remote: given(remote).map(|text| text.parse().unwrap()),
        dscp: given(dscp).map(|text| text.parse().unwrap()),
    }
}

fn web_request() -> Packet {
    Packet {
        source: "172.16.1.10".parse().unwrap(),
        destination: "198.51.100.10".parse().unwrap(),
        protocol: Protocol::TCP,
        source_port: 40_000,
        destination_port: 80,
        dscp: "ef".parse().unwrap(),
    }
}

#[test]
fn all_that_is_given_must_match() {
    for (given, expected) in [
        (["", "", "", "", ""], true),
        (["tcp", "", "", "", ""], true),
        (["udp", "", "", "", ""], false),
        (["tcp", "80", "", "", ""], true),
        (["tcp", "1-79", "", "", ""], false),
        (["", "80", "", "", ""], true),
        (["", "", "172.16.1.0/24", "", ""], true),
        (["", "", "172.16.2.0/24", "", ""], false),
        (["", "", "", "198.51.100.0/24", ""], true),
        (["", "", "", "2001:db8::/32", ""], false),
        (["", "", "", "", "ef"], true),
        (["", "", "", "", "cs0"], false),
        (["tcp", "80-443", "172.16.1.0/24", "0.0.0.0/0", "46"], true),
    ] {
        assert_eq!(flows(given).matches(&web_request()), expected, "{given:?}");
    }
}

/// A match is about flows as the site sees them, so a reply is turned round before it is looked at.
#[test]
fn replies_belong_to_the_flow() {
    let web = flows(["tcp", "80", "172.16.1.0/24", "", ""]);
    let reply = web_request().reply();
    assert!(!web.matches(&reply));
    assert!(web.matches(&reply.seen_from_site(Direction::Down)));
}

/// The bytes at the place of the ports mean something else in protocols that have none.
#[test]
fn a_packet_without_ports_matches_no_ports() {
    let ping = Packet { protocol: Protocol::ICMP, source_port: 0, destination_port: 0, ..web_request() };
    assert!(!flows(["", "0-65535", "", "", ""]).matches(&ping));
    assert!(flows(["icmp", "", "", "", ""]).matches(&ping));
}

#[test]
fn no_packet_is_of_two_families_or_of_two_protocols() {
    let nothing = [
        (["tcp", "", "", "", ""], ["udp", "", "", "", ""]),
        (["tcp", "80", "", "", ""], ["tcp", "443", "", "", ""]),
        (["", "", "10.0.0.0/8", "", ""], ["", "", "11.0.0.0/8", "", ""]),
        (["", "", "10.0.0.0/8", "", ""], ["", "", "", "2001:db8::/32", ""]),
        (["icmp", "", "", "", ""], ["", "80", "", "", ""]),
        (["", "", "", "", "ef"], ["", "", "", "", "af41"]),
    ];
    for (a, b) in nothing {
        assert_eq!(flows(a).intersection(&flows(b)), None, "{a:?} {b:?}");
    }
    let both = flows(["tcp", "80-443", "", "10.0.0.0/8", ""]).intersection(&flows([
        "",
        "400-500",
        "",
        "10.1.0.0/16",
        "",
    ]));
    assert_eq!(both, Some(flows(["tcp", "400-443", "", "10.1.0.0/16", ""])));
}

/// Few values of each kind, so that two of them often meet.
fn a_prefix() -> impl Strategy<Value = Prefix> {
    prop::sample::select(vec![
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.1.0.0/16",
        "10.2.0.0/16",
        "::/0",
        "2001:db8::/32",
    ])
    .prop_map(|text| text.parse().unwrap())
}

fn a_dscp() -> impl Strategy<Value = Dscp> {
    (0_u8..3).prop_map(|code| Dscp::new(code).unwrap())
}

fn a_protocol() -> impl Strategy<Value = Protocol> {
    prop::sample::select(vec![Protocol::TCP, Protocol::UDP, Protocol::ICMP])
}

prop_compose! {
    fn a_match()(
        protocol in prop::option::of(a_protocol()),
        ports in prop::option::of((1_u16..5, 0_u16..3)),
        local in prop::option::of(a_prefix()),
        remote in prop::option::of(a_prefix()),
        dscp in prop::option::of(a_dscp()),
    ) -> FlowMatch {
        let ports = ports.map(|(first, more)| PortRange::new(first, first + more).unwrap());
        FlowMatch { protocol, ports, local, remote, dscp }
    }
}

prop_compose! {
    fn a_packet()(
        ends in prop::sample::select(vec![
            ("10.1.0.1", "10.2.0.1"), ("10.2.0.1", "11.0.0.1"), ("10.1.0.1", "10.1.0.2"),
            ("2001:db8::1", "2001:db9::1"), ("2001:db9::1", "2001:db8::1"),
        ]),
        protocol in a_protocol(),
        destination_port in 0_u16..8,
        dscp in a_dscp(),
    ) -> Packet {
        let [source, destination]: [IpAddr; 2] = [ends.0, ends.1].map(|end| end.parse().unwrap());
        let destination_port = if protocol.has_ports() { destination_port } else { 0 };
        Packet { source, destination, protocol, source_port: 0, destination_port, dscp }
    }
}

proptest! {
    #[test]
    fn an_intersection_matches_what_both_match(a in a_match(), b in a_match(), packet in a_packet()) {
        let both = a.matches(&packet) && b.matches(&packet);
        let intersection = a.intersection(&b);
        prop_assert_eq!(intersection.as_ref().is_some_and(|flows| flows.matches(&packet)), both);
        prop_assert_eq!(intersection.is_some(), b.intersection(&a).is_some());
        prop_assert_eq!(intersection.is_some(), a.overlaps(&b));
    }
}

fn table(path: u32, port: &str) -> Object {
    Object::Table(Table { path: PathId(path), family: Family::V4, port: port.parse().unwrap(), via: None })
}

fn rule(from: &str, table: u32) -> Object {
    let selector = Selector {
        family: Family::V4,
        from: Some(from.parse().unwrap()),
        to: None,
        in_port: None,
        unless_released: false,
    };
    Object::Rule(Rule { order: 8, selector, table: PathId(table) })
}

fn put(new: Object, old: Option<Object>) -> Change {
    Change::Put { new, old }
}

fn state(objects: impl IntoIterator<Item = Object>) -> ElementState {
    objects.into_iter().collect()
}

#[test]
fn putting_replaces_the_object_with_the_same_key() {
    let mut element = state([table(1, "eth0"), table(2, "eth0")]);
    element.apply(&put(table(1, "eth1"), Some(table(1, "eth0"))));
    assert_eq!(element, state([table(1, "eth1"), table(2, "eth0")]));
}

/// Two rules in one place have two keys, as they stand beside each other for a moment; after the change one is left.
#[test]
fn putting_a_rule_replaces_the_one_in_its_place() {
    let other = rule("172.16.2.0/24", 3);
    let mut element = state([rule("172.16.1.0/24", 1), other.clone()]);
    element.apply(&put(rule("172.16.1.0/24", 2), Some(rule("172.16.1.0/24", 1))));
    assert_eq!(element, state([rule("172.16.1.0/24", 2), other]));
}

#[test]
fn the_inverse_undoes_a_change() {
    let side = |port: &str| Side { port: port.parse().unwrap(), next_hops: Default::default() };
    let instance = Object::Instance(Instance {
        id: InstanceId(7),
        insertion: Insertion::L2,
        inside: side("in"),
        outside: side("out"),
        state: InstanceState::default(),
        rewrites: false,
        delivery: Delivery::default(),
    });
    let before = state([table(1, "eth0"), rule("172.16.1.0/24", 1)]);
    for change in [
        put(instance, None),
        put(table(1, "eth1"), Some(table(1, "eth0"))),
        put(rule("172.16.1.0/24", 2), Some(rule("172.16.1.0/24", 1))),
        Change::Delete { old: table(1, "eth0") },
    ] {
        let mut element = before.clone();
        element.apply(&change);
        assert_ne!(element, before, "{change:?}");
        element.apply(&change.inverse());
        assert_eq!(element, before, "{change:?}");
    }
}

#[test]
fn a_state_survives_being_stored() {
    let element = state([table(1, "eth0"), rule("172.16.1.0/24", 1)]);
    let stored = serde_json::to_string(&element).unwrap();
    assert_eq!(serde_json::from_str::<ElementState>(&stored).unwrap(), element);
}
