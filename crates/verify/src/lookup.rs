//! What one node's routing does with a packet: our rules and its owner's, in the order of their priorities, each table by
//! longest prefix; and what the engine does that installs our rules, before any of them.

use std::net::IpAddr;

use catena_model::address::{Family, Prefix};
use catena_model::base::{BaseRoute, BaseRouteAction, BaseRouting, BaseRule, BaseRuleAction};
use catena_model::forwarding::{ElementState, Key, Object, Rule, Selector};
use catena_model::name::{NodeName, PortName};
use catena_model::packet::Packet;
use catena_model::resource::{DriverSpec, Engine, LinuxSpec, Model, Route};
use catena_model::topology::Topology;

use crate::decision::Decision;
use crate::kind::{Kind, Probe};

/// The numbers that Linux gives to its three tables and to the rules that lead to them (ip-rule(8)).
pub const LOCAL_TABLE: u32 = 255;
const MAIN_TABLE: u32 = 254;
const LOCAL_PRIORITY: u32 = 0;
const MAIN_PRIORITY: u32 = 32_766;

/// A packet at a node that routes it.
pub struct Arrival<'a> {
    pub probe: &'a Probe,
    pub in_port: Option<&'a PortName>,
    /// Marked by a policy, so that our rules for the rest pass it over.
    pub released: bool,
}

pub enum Outcome {
    Forward { port: PortName, via: Option<IpAddr>, decision: Decision },
    Local,
    Drop { why: String },
    Undecided { why: String },
}

/// What an element's engine makes of a packet: see docs/routing.md.
pub fn route(engine: Engine, base: &BaseRouting, ours: &ElementState, arrival: &Arrival) -> Outcome {
    let decided = match engine {
        Engine::Rules => by_priority(base, ours, arrival),
        Engine::Nft | Engine::Steer => by_hop(engine, base, ours, arrival),
    };
    decided
        .unwrap_or_else(|| Outcome::Drop { why: format!("no route to {}", arrival.probe.packet.destination) })
}

/// By `ip rule` alone, where our rules stand among others.
fn by_priority(base: &BaseRouting, ours: &ElementState, arrival: &Arrival) -> Option<Outcome> {
    enum Line<'a> {
        Foreign(&'a BaseRule),
        Ours(&'a Rule),
    }
    let foreign = base.rules.iter().map(|rule| (rule.priority, Line::Foreign(rule)));
    let ours_too = ours
        .iter()
        .filter_map(as_rule)
        .map(|rule| (base.our_priority + u32::from(rule.order), Line::Ours(rule)));
    let mut lines: Vec<(u32, Line)> = foreign.chain(ours_too).collect();
    // Of equal priority the foreign one comes first: what it does with our packets has to be looked at.
    lines.sort_by_key(|(priority, _)| *priority);
    lines.into_iter().find_map(|(_, line)| match line {
        Line::Foreign(rule) => foreign_rule(base, rule, arrival),
        Line::Ours(rule) => our_rule(ours, rule, arrival),
    })
}

/// By an engine that chooses the next hop of what comes in before `ip rule` is asked. What has a hop is led there by a line at
/// `our_priority`, unless a line before that leads it elsewhere.
fn by_hop(engine: Engine, base: &BaseRouting, ours: &ElementState, arrival: &Arrival) -> Option<Outcome> {
    let foreign =
        |priorities| foreign_rules(base, priorities).find_map(|rule| foreign_rule(base, rule, arrival));
    let mut rules: Vec<&Rule> = ours.iter().filter_map(as_rule).collect();
    rules.sort_by_key(|rule| rule.order);
    // What the element sends itself is not looked at.
    let rules = rules.into_iter().filter(|_| arrival.in_port.is_some());
    let Some(chosen) = rules.into_iter().find_map(|rule| our_rule(ours, rule, arrival)) else {
        return foreign(u32::MAX);
    };
    let Outcome::Forward { port: hop, .. } = &chosen else { return Some(chosen) };
    if engine == Engine::Steer && !is_left_to_kernel(base, arrival.probe) {
        return Some(chosen);
    }
    match foreign(base.our_priority) {
        None => Some(chosen),
        Some(Outcome::Forward { port, .. }) if engine == Engine::Nft && port != *hop => Some(Outcome::Drop {
            why: format!("a foreign rule leads it to {port}, and its next hop is at {hop}"),
        }),
        other => other,
    }
}

fn as_rule(object: &Object) -> Option<&Rule> {
    match object {
        Object::Rule(rule) => Some(rule),
        _ => None,
    }
}

/// Those up to a priority, in their order.
fn foreign_rules(base: &BaseRouting, last: u32) -> impl Iterator<Item = &BaseRule> {
    let mut rules: Vec<&BaseRule> = base.rules.iter().filter(|rule| rule.priority <= last).collect();
    rules.sort_by_key(|rule| rule.priority);
    rules.into_iter()
}

/// What the routing engine does not send on itself (`drivers/steer/bpf/route.bpf.c`): options, odd addresses, what may be for
/// the element. Which other addresses share a bit with one of the element's own is not looked at.
fn is_left_to_kernel(base: &BaseRouting, probe: &Probe) -> bool {
    let is_odd = |address: IpAddr| match address {
        IpAddr::V4(address) => matches!(address.octets()[0], 0 | 127 | 224..),
        IpAddr::V6(address) => matches!(address.octets()[0], 0 | 0xfe..),
    };
    let destination = probe.packet.destination;
    probe.kind == Kind::Options
        || is_odd(probe.sender())
        || is_odd(destination)
        || has_own_networks(base)
        || base
            .routes
            .iter()
            .any(|route| route.table == LOCAL_TABLE && route.prefix == Prefix::host(destination))
}

/// Whether more than single addresses are an element's own, beside those that are nobody's: then the routing engine leaves
/// everything to the kernel (`drivers/steer/src/route/own.rs`).
pub fn has_own_networks(base: &BaseRouting) -> bool {
    base.routes.iter().any(|BaseRoute { table, prefix, .. }| {
        let first = prefix.address();
        *table == LOCAL_TABLE
            && prefix.length() < prefix.family().bits()
            && !first.is_loopback()
            && !first.is_multicast()
    })
}

/// By what means a node leads packets on. Who is not driven has no rules of ours.
pub fn engine_of(model: &Model, node: &NodeName) -> Engine {
    match model.elements.get(node).map(|element| &element.driver) {
        Some(DriverSpec::Linux(linux)) => linux.engine,
        Some(DriverSpec::Simulated) | None => Engine::default(),
    }
}

/// The base routing of a node as the inventory has it.
pub fn of_inventory(model: &Model, topology: &Topology, node: &NodeName) -> BaseRouting {
    let mut base = BaseRouting { our_priority: LinuxSpec::RULE_PRIORITY, ..BaseRouting::default() };
    for family in Family::BOTH {
        for (priority, table) in [(LOCAL_PRIORITY, LOCAL_TABLE), (MAIN_PRIORITY, MAIN_TABLE)] {
            let action = BaseRuleAction::Lookup(table);
            let rule = BaseRule {
                priority,
                family,
                from: None,
                to: None,
                in_port: None,
                opaque: Vec::new(),
                action,
            };
            base.rules.push(rule);
        }
    }
    for cable in topology.cables(node) {
        let port = &cable.near.port;
        for address in &cable.near.addresses {
            base.addresses.push((port.clone(), *address));
            let local = BaseRouteAction::Local;
            let connected = BaseRouteAction::Forward { port: port.clone(), via: None };
            for (table, prefix, action) in [
                (LOCAL_TABLE, Prefix::host(address.addr()), local),
                (MAIN_TABLE, Prefix::of(*address), connected),
            ] {
                base.routes.push(BaseRoute { table, prefix, metric: 0, action });
            }
        }
    }
    let routes: &[Route] = match (model.elements.get(node), model.hosts.get(node)) {
        (Some(element), _) => &element.routes,
        (None, Some(host)) => &host.routes,
        (None, None) => &[],
    };
    for Route { to, via } in routes {
        let mut ports =
            base.addresses.iter().filter(|(_, address)| address.contains(via)).map(|(port, _)| port);
        if let Some(port) = ports.next() {
            let action = BaseRouteAction::Forward { port: port.clone(), via: Some(*via) };
            base.routes.push(BaseRoute { table: MAIN_TABLE, prefix: *to, metric: 0, action });
        }
    }
    base
}

fn our_rule(ours: &ElementState, rule: &Rule, arrival: &Arrival) -> Option<Outcome> {
    let Selector { family, from, to, in_port, unless_released } = &rule.selector;
    let Arrival { probe, in_port: arrived_by, released } = arrival;
    let packet = &probe.packet;
    let matches = *family == packet.family()
        && from.is_none_or(|prefix| prefix.contains(probe.sender()))
        && to.is_none_or(|prefix| prefix.contains(packet.destination))
        && in_port.as_ref().is_none_or(|port| Some(port) == *arrived_by)
        && !(*unless_released && *released);
    matches.then(|| match ours.get(&Key::Table(rule.table, *family)) {
        Some(Object::Table(table)) => {
            let (port, via) = (table.port.clone(), table.via);
            let decision = Decision::Routed { rule: rule.clone(), port: port.clone(), via };
            Outcome::Forward { port, via, decision }
        }
        _ => Outcome::Drop { why: format!("the table of path {} is not whole", rule.table) },
    })
}

fn foreign_rule(base: &BaseRouting, rule: &BaseRule, arrival: &Arrival) -> Option<Outcome> {
    let packet = &arrival.probe.packet;
    let matches = rule.family == packet.family()
        && rule.from.is_none_or(|prefix| prefix.contains(arrival.probe.sender()))
        && rule.to.is_none_or(|prefix| prefix.contains(packet.destination))
        && rule.in_port.as_ref().is_none_or(|port| Some(port) == arrival.in_port);
    if !matches {
        return None;
    }
    let undecided = |what: &str| {
        Some(Outcome::Undecided { why: format!("rule {} is not understood: {what}", rule.priority) })
    };
    if !rule.opaque.is_empty() {
        return undecided(&rule.opaque.join(" "));
    }
    match &rule.action {
        BaseRuleAction::Lookup(table) => table_lookup(base, rule.priority, *table, packet),
        BaseRuleAction::Drop => Some(Outcome::Drop { why: format!("rule {}", rule.priority) }),
        BaseRuleAction::Other(what) => undecided(what),
    }
}

/// Longest prefix first, then lowest metric (ip-route(8)). `None` lets the next rule decide.
fn table_lookup(base: &BaseRouting, priority: u32, table: u32, packet: &Packet) -> Option<Outcome> {
    let fitting =
        base.routes.iter().filter(|route| route.table == table && route.prefix.contains(packet.destination));
    let best = fitting.min_by_key(|route| (std::cmp::Reverse(route.prefix.length()), route.metric))?;
    Some(match &best.action {
        BaseRouteAction::Forward { port, via } => {
            let (port, via) = (port.clone(), *via);
            let decision = Decision::Base { priority, table, route: best.prefix, port: port.clone(), via };
            Outcome::Forward { port, via, decision }
        }
        BaseRouteAction::Local => Outcome::Local,
        BaseRouteAction::Drop => Outcome::Drop { why: format!("route {} of table {table}", best.prefix) },
    })
}
