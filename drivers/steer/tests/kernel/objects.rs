//! Objects, in few words.

use catena_model::address::Protocol;
use catena_model::forwarding::{
    Action, Delivery, Direction, Exits, FlowMatch, Hop, Ingress, Insertion, Instance, InstanceId,
    InstanceState, NextHops, Object, Oversize, Path, PathId, Policy, PolicyRule, Purpose, Side, SiteId,
    Tunnel,
};

pub fn side(port: &str, v4: Option<&str>, v6: Option<&str>) -> Side {
    let next_hops = NextHops { v4: v4.map(|v4| v4.parse().unwrap()), v6: v6.map(|v6| v6.parse().unwrap()) };
    Side { port: port.parse().unwrap(), next_hops }
}

pub fn l2(id: u32, inside: &str, outside: &str) -> Object {
    Object::Instance(Instance {
        id: InstanceId(id),
        insertion: Insertion::L2,
        inside: side(inside, None, None),
        outside: side(outside, None, None),
        state: InstanceState::Up,
        rewrites: false,
        delivery: Delivery::Direct,
    })
}

pub fn l3(id: u32, inside: Side, outside: Side) -> Object {
    Object::Instance(Instance {
        id: InstanceId(id),
        insertion: Insertion::L3,
        inside,
        outside,
        state: InstanceState::Up,
        rewrites: false,
        delivery: Delivery::Direct,
    })
}

pub fn path(id: u32, site: u32, hops: &[&[u32]]) -> Object {
    let hop = |instances: &&[u32]| Hop::of(instances.iter().copied().map(InstanceId));
    Object::Path(Path {
        id: PathId(id),
        site: SiteId(site),
        hops: hops.iter().map(hop).collect(),
        vlan: None,
    })
}

pub fn ingress(port: &str, purpose: Purpose, directions: &[Direction]) -> Object {
    let directions = directions.iter().copied().collect();
    Object::Ingress(Ingress { port: port.parse().unwrap(), directions, purpose, site: None })
}

pub fn policy(site: u32, prefixes: &[&str], rules: Vec<PolicyRule>, exits: Option<Exits>) -> Object {
    let prefixes = prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect();
    Object::Policy(Policy { site: SiteId(site), prefixes, rules, exits })
}

pub fn tcp(port: u16, action: Action) -> PolicyRule {
    let matches =
        FlowMatch { protocol: Some(Protocol::TCP), ports: Some(port.into()), ..FlowMatch::default() };
    PolicyRule { matches, action }
}

pub fn everything(action: Action) -> PolicyRule {
    PolicyRule { matches: FlowMatch::default(), action }
}

pub fn tunnel(site: u32, local: &str, remote: &str, key: Option<u32>, allowed: &[&str]) -> Tunnel {
    Tunnel {
        site: SiteId(site),
        underlay: "wan".parse().unwrap(),
        local: local.parse().unwrap(),
        remote: remote.parse().unwrap(),
        key,
        mtu: 1472,
        oversize: Oversize::TellSender,
        allowed: allowed.iter().map(|prefix| prefix.parse().unwrap()).collect(),
    }
}
