//! What one node's routing does with a packet: our rules and its owner's, in the order of their priorities, each table by
//! longest prefix.

use std::net::IpAddr;

use catena_model::address::{Family, Prefix};
use catena_model::base::{BaseRoute, BaseRouteAction, BaseRouting, BaseRule, BaseRuleAction};
use catena_model::forwarding::{ElementState, Key, Object, Rule, Selector};
use catena_model::name::{NodeName, PortName};
use catena_model::packet::Packet;
use catena_model::resource::{LinuxSpec, Model, Route};
use catena_model::topology::Topology;

use crate::decision::Decision;
use crate::kind::Probe;

/// The numbers that Linux gives to its three tables and to the rules that lead to them (ip-rule(8)).
const LOCAL_TABLE: u32 = 255;
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

pub fn route(base: &BaseRouting, ours: &ElementState, arrival: &Arrival) -> Outcome {
    enum Line<'a> {
        Foreign(&'a BaseRule),
        Ours(&'a Rule),
    }
    let foreign = base.rules.iter().map(|rule| (rule.priority, Line::Foreign(rule)));
    let ours_too = ours.iter().filter_map(|object| match object {
        Object::Rule(rule) => Some((base.our_priority + u32::from(rule.order), Line::Ours(rule))),
        _ => None,
    });
    let mut lines: Vec<(u32, Line)> = foreign.chain(ours_too).collect();
    // Of equal priority the foreign one comes first: what it does with our packets has to be looked at.
    lines.sort_by_key(|(priority, _)| *priority);
    lines
        .into_iter()
        .find_map(|(_, line)| match line {
            Line::Foreign(rule) => foreign_rule(base, rule, arrival),
            Line::Ours(rule) => our_rule(ours, rule, arrival),
        })
        .unwrap_or_else(|| Outcome::Drop { why: format!("no route to {}", arrival.probe.packet.destination) })
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
