//! What the engine is told, in few words.

use std::net::Ipv4Addr;

use anyhow::Result;
use catena_model::address::{Family, Prefix, Protocol};
use catena_model::forwarding::{
    Action, Delivery, Direction, Exits, FlowMatch, Hop, Ingress, Insertion, Instance, InstanceId,
    InstanceState, NextHops, Object, Path, PathId, Policy, PolicyRule, Purpose, Rule, Selector, Side, SiteId,
    Table,
};

pub fn side(port: &str, next_hop: Ipv4Addr) -> Result<Side> {
    Ok(Side {
        port: port.parse().map_err(anyhow::Error::msg)?,
        next_hops: NextHops { v4: Some(next_hop), v6: None },
    })
}

/// A port at which packets of one direction are steered.
pub fn ingress(port: &str, direction: Direction) -> Result<Object> {
    Ok(Object::Ingress(Ingress {
        port: port.parse().map_err(anyhow::Error::msg)?,
        directions: [direction].into(),
        purpose: Purpose::Steer,
        site: None,
    }))
}

/// A function that routes.
pub fn instance(id: u32, inside: Side, outside: Side) -> Object {
    Object::Instance(Instance {
        id: InstanceId(id),
        insertion: Insertion::L3,
        inside,
        outside,
        state: InstanceState::default(),
        rewrites: false,
        delivery: Delivery::default(),
    })
}

/// The path of a site, through one instance after the other.
pub fn path(site: u32, instances: &[u32]) -> Object {
    let hops = instances.iter().map(|id| Hop::of([InstanceId(*id)])).collect();
    Object::Path(Path { id: PathId(site), site: SiteId(site), hops, vlan: None })
}

/// All packets of a site take its path.
pub fn policy(site: u32, prefixes: &[String], exits: Exits) -> Result<Object> {
    let rule = PolicyRule { matches: FlowMatch::default(), action: Action::Path(PathId(site)) };
    policy_of(site, prefixes, vec![rule], exits)
}

/// Packets from a prefix go to a neighbour.
pub fn route(number: u32, from: &str, in_port: &str, port: &str, via: Ipv4Addr) -> Result<[Object; 2]> {
    let [in_port, port] = [in_port, port].map(|port| port.parse().map_err(anyhow::Error::msg));
    let selector = Selector {
        family: Family::V4,
        from: Some(parse_prefix(from)?),
        to: None,
        in_port: Some(in_port?),
        unless_released: false,
    };
    let path = PathId(number);
    Ok([
        Object::Table(Table { path, family: Family::V4, port: port?, via: Some(via.into()) }),
        Object::Rule(Rule { order: 0, selector, table: path }),
    ])
}

fn policy_of(site: u32, prefixes: &[String], rules: Vec<PolicyRule>, exits: Exits) -> Result<Object> {
    let prefixes = prefixes.iter().map(|prefix| parse_prefix(prefix)).collect::<Result<_>>()?;
    Ok(Object::Policy(Policy { site: SiteId(site), prefixes, rules, exits: Some(exits) }))
}

fn parse_prefix(text: &str) -> Result<Prefix> {
    text.parse().map_err(|error| anyhow::anyhow!("{text}: {error}"))
}

/// To web servers.
pub fn web() -> FlowMatch {
    FlowMatch { protocol: Some(Protocol::TCP), ports: Some(443.into()), ..FlowMatch::default() }
}
