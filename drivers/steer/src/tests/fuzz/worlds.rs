//! Elements to try frames on: between them they have every kind of function, site, rule and port.

use std::num::NonZeroU8;

use catena_model::address::{Dscp, PortRange, Prefix, Protocol};
use catena_model::forwarding::{
    Action, Delivery, Direction, Exits, FlowMatch, Hop, Ingress, Insertion, Instance, InstanceId,
    InstanceState, Member, NextHops, NshMetadata, Object, OnFailure, Oversize, Path, PathId, Policy,
    PolicyRule, Purpose, Side, SiteId, Stickiness, TUNNEL_PORT, Tunnel, VlanId,
};

use super::generate::Addresses;

pub(super) struct Element {
    pub(super) name: &'static str,
    pub(super) objects: Vec<Object>,
    /// IPv4, IPv6.
    pub(super) addresses: [Addresses; 2],
}

pub(super) fn elements() -> Vec<Element> {
    vec![routed(), transparent(), twins(), claiming(), tunnelled(), translated()]
}

fn up_and_down(port: &str) -> Object {
    ingress(port, Purpose::Steer, &Direction::BOTH, None)
}

fn ingress(port: &str, purpose: Purpose, directions: &[Direction], site: Option<u32>) -> Object {
    Object::Ingress(Ingress {
        port: port.parse().unwrap(),
        directions: directions.iter().copied().collect(),
        purpose,
        site: site.map(SiteId),
    })
}

fn steer(port: &str, direction: Direction) -> Object {
    ingress(port, Purpose::Steer, &[direction], None)
}

fn routed_side(port: &str) -> Side {
    let next_hops = NextHops { v4: Some([10, 20, 0, 9].into()), v6: Some("2001:db8:20::9".parse().unwrap()) };
    Side { port: port.parse().unwrap(), next_hops }
}

fn plain_side(port: &str) -> Side {
    Side { port: port.parse().unwrap(), next_hops: NextHops::default() }
}

fn instance(id: u32, insertion: Insertion, inside: &str, outside: &str) -> Instance {
    let side = if insertion == Insertion::L3 { routed_side } else { plain_side };
    Instance {
        id: InstanceId(id),
        insertion,
        inside: side(inside),
        outside: side(outside),
        state: InstanceState::Up,
        rewrites: false,
        delivery: Delivery::Direct,
    }
}

fn in_state(state: InstanceState, instance: Instance) -> Instance {
    Instance { state, ..instance }
}

fn weighted(members: &[(u32, u8)], stickiness: Stickiness) -> Hop {
    let instances = members
        .iter()
        .map(|(id, weight)| Member { id: InstanceId(*id), weight: NonZeroU8::new(*weight).unwrap() })
        .collect();
    Hop { instances, stickiness, ..Hop::default() }
}

fn one(id: u32) -> Hop {
    Hop::of([InstanceId(id)])
}

fn or_skip(id: u32) -> Hop {
    Hop { on_failure: OnFailure::Skip, ..one(id) }
}

fn path(id: u32, site: u32, hops: Vec<Hop>, vlan: Option<u16>) -> Object {
    Object::Path(Path { id: PathId(id), site: SiteId(site), hops, vlan: vlan.and_then(VlanId::new) })
}

fn exits() -> Option<Exits> {
    Some(Exits { up: routed_side("gw"), down: routed_side("vr") })
}

fn policy(site: u32, prefixes: &[&str], rules: Vec<PolicyRule>, exits: Option<Exits>) -> Object {
    let prefixes = prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect();
    Object::Policy(Policy { site: SiteId(site), prefixes, rules, exits })
}

fn through(path: u32, matches: FlowMatch) -> PolicyRule {
    PolicyRule { matches, action: Action::Path(PathId(path)) }
}

fn claim(matches: FlowMatch) -> PolicyRule {
    PolicyRule { matches, action: Action::Claim }
}

fn all() -> FlowMatch {
    FlowMatch::default()
}

fn of(protocol: Protocol) -> FlowMatch {
    FlowMatch { protocol: Some(protocol), ..all() }
}

fn ports(protocol: Protocol, first: u16, last: u16) -> FlowMatch {
    FlowMatch { ports: Some(PortRange::new(first, last).unwrap()), ..of(protocol) }
}

fn to(remote: &str) -> FlowMatch {
    FlowMatch { remote: Some(remote.parse::<Prefix>().unwrap()), ..all() }
}

fn from(local: &str) -> FlowMatch {
    FlowMatch { local: Some(local.parse::<Prefix>().unwrap()), ..all() }
}

fn marked(dscp: u8) -> FlowMatch {
    FlowMatch { dscp: Dscp::new(dscp), ..all() }
}

fn addresses(of_sites: [&[&str]; 2]) -> [Addresses; 2] {
    let far = [
        ["198.51.100.10", "198.51.100.200", "203.0.113.1", "203.0.113.201"],
        ["2001:db8:ffff::10", "2001:db8:fffe::10", "2001:db8:cc:1::1", "2001:db8:cc:c8::1"],
    ];
    [0, 1].map(|family| Addresses {
        of_sites: of_sites[family].iter().map(|address| address.parse().unwrap()).collect(),
        far: far[family].iter().map(|address| address.parse().unwrap()).collect(),
    })
}

/// Sites told by nested prefixes; routed and transparent functions, copies of different weight, rules of every kind.
fn routed() -> Element {
    const FULL: u32 = 0x01_02_03;
    const SHORT: u32 = 0x01_02_04;
    const OTHER: u32 = 0x80_00_01;
    let functions = [
        instance(11, Insertion::L3, "fw-in", "fw-out"),
        instance(12, Insertion::L2, "a-in", "a-out"),
        instance(13, Insertion::L2, "b-in", "b-out"),
        instance(14, Insertion::L3, "web-in", "web-out"),
        instance(15, Insertion::L3, "arm", "arm"),
    ];
    let mut objects: Vec<_> = functions.map(Object::Instance).into();
    objects.extend([
        path(FULL, 1, vec![one(11), weighted(&[(12, 1), (13, 3)], Stickiness::FiveTuple), one(14)], None),
        path(SHORT, 1, vec![weighted(&[(12, 2), (13, 1)], Stickiness::TwoTuple), one(15)], None),
        path(OTHER, 2, vec![weighted(&[(12, 1), (13, 1)], Stickiness::ThreeTuple), one(15), one(11)], None),
        policy(
            1,
            &["172.16.0.0/16", "2001:db8:a1::/48"],
            vec![
                through(SHORT, FlowMatch { protocol: Some(Protocol::TCP), ..marked(46) }),
                through(FULL, ports(Protocol::TCP, 80, 81)),
                through(FULL, ports(Protocol::UDP, 1000, 2000)),
                through(SHORT, FlowMatch { protocol: Some(Protocol::UDP), ..to("198.51.100.128/25") }),
                through(SHORT, to("2001:db8:fffe::/48")),
                through(FULL, ports(Protocol::TCP, 443, 443)),
                through(FULL, of(Protocol::ICMP)),
            ],
            exits(),
        ),
        policy(
            2,
            &[
                "172.16.1.0/24",
                "172.16.2.128/25",
                "172.16.3.1/32",
                "2001:db8:a1:1::/64",
                "2001:db8:a1:2::2/128",
            ],
            vec![through(OTHER, all())],
            exits(),
        ),
        policy(3, &["172.16.1.64/26", "2001:db8:a1:1:8000::/65"], vec![], exits()),
        steer("vr", Direction::Up),
        steer("gw", Direction::Down),
        up_and_down("lan"),
    ]);
    let v4 = ["172.16.0.1", "172.16.9.9", "172.16.1.10", "172.16.1.70", "172.16.2.200", "172.16.3.1"];
    let v6 = [
        "2001:db8:a1::1",
        "2001:db8:a1:9::9",
        "2001:db8:a1:1::10",
        "2001:db8:a1:1:8000::1",
        "2001:db8:a1:2::2",
        "2001:db8:a1:2::3",
    ];
    Element { name: "routed", objects, addresses: addresses([&v4, &v6]) }
}

/// Every other way to insert a function, and functions that are missing, down, or about to go.
fn transparent() -> Element {
    const ALL_KINDS: u32 = 0x0a_00_01;
    const TWICE: u32 = 0x0a_00_02;
    const FAILING: u32 = 0x0a_00_03;
    const OPEN: u32 = 0x0a_00_04;
    const NOBODY: u32 = 0x0a_00_05;
    let functions = [
        instance(21, Insertion::Vlan, "v-in", "v-out"),
        instance(22, Insertion::Vlan, "varm", "varm"),
        instance(23, Insertion::Nsh(NshMetadata::Fixed), "n-in", "n-out"),
        instance(24, Insertion::Nsh(NshMetadata::Variable), "narm", "narm"),
        instance(25, Insertion::L2, "larm", "larm"),
        instance(26, Insertion::Tap, "tap", "tap"),
        instance(27, Insertion::L2, "l-in", "l-out"),
        in_state(InstanceState::Draining, instance(28, Insertion::L2, "d-in", "d-out")),
        in_state(InstanceState::Down, instance(29, Insertion::L2, "x-in", "x-out")),
        instance(30, Insertion::L3, "arm", "arm"),
    ];
    let mut objects: Vec<_> = functions.map(Object::Instance).into();
    objects.extend([
        path(
            ALL_KINDS,
            1,
            vec![one(26), one(21), one(23), one(22), one(24), one(25), one(30), one(26)],
            Some(100),
        ),
        // One function at two places.
        path(TWICE, 1, vec![one(27), one(25), one(27), one(24), one(23), one(24)], None),
        path(FAILING, 1, vec![one(27), Hop::of([28, 29].map(InstanceId)), one(25)], None),
        path(
            OPEN,
            1,
            vec![or_skip(29), weighted(&[(27, 1), (28, 1), (29, 1)], Stickiness::FiveTuple), or_skip(99)],
            None,
        ),
        path(NOBODY, 1, vec![one(26), or_skip(29)], None),
        policy(
            1,
            &["172.16.0.0/16", "2001:db8:a1::/48"],
            vec![
                through(ALL_KINDS, ports(Protocol::TCP, 80, 81)),
                through(TWICE, ports(Protocol::UDP, 1000, 2000)),
                through(FAILING, ports(Protocol::TCP, 443, 443)),
                through(OPEN, ports(Protocol::SCTP, 0, 65_535)),
                through(NOBODY, ports(Protocol::TCP, 2000, 2001)),
                // Not installed.
                through(0x0a_00_99, ports(Protocol::TCP, 22, 22)),
                through(ALL_KINDS, FlowMatch { local: from("172.16.9.0/24").local, ..all() }),
            ],
            exits(),
        ),
        steer("vr", Direction::Up),
        steer("gw", Direction::Down),
    ]);
    let v4 = ["172.16.0.1", "172.16.9.9", "172.16.1.10"];
    let v6 = ["2001:db8:a1::1", "2001:db8:a1:9::9", "2001:db8:a1:1::10"];
    Element { name: "transparent", objects, addresses: addresses([&v4, &v6]) }
}

/// Two sites with the same addresses, told by port, that share what can tell them apart.
fn twins() -> Element {
    let functions = [
        instance(31, Insertion::L2, "l-in", "l-out"),
        instance(32, Insertion::Vlan, "v-in", "v-out"),
        instance(33, Insertion::Nsh(NshMetadata::Variable), "n-in", "n-out"),
        instance(34, Insertion::L3, "fw1-in", "fw1-out"),
        instance(35, Insertion::L3, "fw2-in", "fw2-out"),
    ];
    let mut objects: Vec<_> = functions.map(Object::Instance).into();
    for (site, own) in [(1, 34), (2, 35)] {
        let number = 0x0b_00_00 + site;
        objects.push(path(
            number,
            site,
            vec![one(31), one(32), one(own), one(33), one(31)],
            Some(100 * site as u16),
        ));
        objects.push(policy(
            site,
            &["172.16.0.0/16", "2001:db8:a1::/48"],
            vec![
                through(number, ports(Protocol::TCP, 80, 443)),
                through(number, ports(Protocol::UDP, 53, 53)),
            ],
            Some(Exits { up: routed_side(&format!("up{site}")), down: routed_side(&format!("site{site}")) }),
        ));
        objects.push(ingress(&format!("site{site}"), Purpose::Steer, &[Direction::Up], Some(site)));
        objects.push(ingress(&format!("up{site}"), Purpose::Steer, &[Direction::Down], Some(site)));
    }
    let v4 = ["172.16.0.1", "172.16.1.10"];
    let v6 = ["2001:db8:a1::1", "2001:db8:a1:1::10"];
    Element { name: "twins", objects, addresses: addresses([&v4, &v6]) }
}

/// An element that only claims.
fn claiming() -> Element {
    let objects = vec![
        policy(
            1,
            &["172.16.0.0/16", "2001:db8:a1::/48"],
            vec![
                claim(ports(Protocol::TCP, 80, 81)),
                claim(FlowMatch { ports: None, protocol: Some(Protocol::UDP), ..marked(46) }),
                claim(FlowMatch { ports: ports(Protocol::UDP, 53, 53).ports, ..of(Protocol::UDP) }),
                claim(to("198.51.100.128/25")),
                claim(FlowMatch { protocol: Some(Protocol::SCTP), ..to("2001:db8:fffe::/48") }),
            ],
            None,
        ),
        policy(2, &["172.16.1.0/24", "2001:db8:a1:1::/64"], vec![claim(all())], None),
        policy(3, &["172.16.1.64/26", "2001:db8:a1:1:8000::/65"], vec![], None),
        ingress("vr", Purpose::Claim, &[Direction::Up], None),
        ingress("gw", Purpose::Claim, &[Direction::Down], None),
        ingress("lan", Purpose::Claim, &Direction::BOTH, None),
    ];
    let v4 = ["172.16.0.1", "172.16.1.10", "172.16.1.70"];
    let v6 = ["2001:db8:a1::1", "2001:db8:a1:1::10", "2001:db8:a1:1:8000::1"];
    Element { name: "claiming", objects, addresses: addresses([&v4, &v6]) }
}

/// Sites at the far end of GRE tunnels, over IPv4 and over IPv6.
fn tunnelled() -> Element {
    let tunnel = |site: u32, local: &str, remote: &str, key, allowed: &[&str]| {
        Object::Tunnel(Tunnel {
            site: SiteId(site),
            underlay: "wan".parse().unwrap(),
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            key,
            mtu: super::model::TUNNELS_MTU as u16,
            oversize: Oversize::TellSender,
            allowed: allowed.iter().map(|prefix| prefix.parse().unwrap()).collect(),
        })
    };
    let leaving = Some(Exits { up: routed_side("gw"), down: plain_side(TUNNEL_PORT) });
    let objects = vec![
        Object::Instance(instance(41, Insertion::L2, "l-in", "l-out")),
        Object::Instance(instance(42, Insertion::L3, "fw-in", "fw-out")),
        path(0x0c_00_01, 1, vec![one(41), one(42)], None),
        path(0x0c_00_02, 2, vec![one(42)], None),
        policy(
            1,
            &["172.16.1.0/24", "2001:db8:a1:1::/64"],
            vec![through(0x0c_00_01, ports(Protocol::TCP, 80, 443))],
            leaving.clone(),
        ),
        policy(2, &["172.16.2.0/24", "2001:db8:a1:2::/64"], vec![through(0x0c_00_02, all())], leaving),
        tunnel(1, "192.0.2.1", "192.0.2.101", Some(7), &["172.16.1.0/24", "2001:db8:a1:1::/64"]),
        tunnel(2, "2001:db8:c::1", "2001:db8:c::102", None, &["172.16.2.0/24", "2001:db8:a1:2::/64"]),
        tunnel(3, "192.0.2.1", "192.0.2.101", Some(8), &["172.16.1.128/25"]),
        steer(TUNNEL_PORT, Direction::Up),
        steer("gw", Direction::Down),
    ];
    let v4 = ["172.16.1.10", "172.16.1.200", "172.16.2.10", "172.16.3.1"];
    let v6 = ["2001:db8:a1:1::10", "2001:db8:a1:2::10", "2001:db8:a1:3::1"];
    Element { name: "tunnelled", objects, addresses: addresses([&v4, &v6]) }
}

/// Functions that change addresses: in the middle of a chain, and one of them with one port.
fn translated() -> Element {
    let rewriting = |instance| Instance { rewrites: true, ..instance };
    let functions = [
        instance(51, Insertion::L2, "l-in", "l-out"),
        rewriting(instance(52, Insertion::L3, "nat-in", "nat-out")),
        instance(53, Insertion::L3, "ips-in", "ips-out"),
        rewriting(instance(54, Insertion::L3, "nat2-in", "nat2-out")),
    ];
    let mut objects: Vec<_> = functions.map(Object::Instance).into();
    objects.extend([
        path(0x0d_00_01, 1, vec![one(51), one(52), one(53)], None),
        path(0x0d_00_02, 2, vec![one(51), one(54)], None),
        policy(1, &["172.16.1.0/24", "2001:db8:a1:1::/64"], vec![through(0x0d_00_01, all())], exits()),
        policy(
            2,
            &["172.16.2.0/24", "2001:db8:a1:2::/64"],
            vec![through(0x0d_00_02, of(Protocol::TCP)), through(0x0d_00_02, of(Protocol::UDP))],
            exits(),
        ),
        steer("vr", Direction::Up),
        steer("gw", Direction::Down),
    ]);
    let v4 = ["172.16.1.10", "172.16.1.200", "172.16.2.10"];
    let v6 = ["2001:db8:a1:1::10", "2001:db8:a1:2::10"];
    Element { name: "translated", objects, addresses: addresses([&v4, &v6]) }
}
