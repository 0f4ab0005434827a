//! What an element's policies do with a packet that comes in by one of its classified ports.

use std::net::IpAddr;

use catena_model::address::Family;
use catena_model::forwarding::{
    Action, Direction, ElementState, Exits, FlowMatch, Ingress, Insertion, Instance, InstanceId,
    InstanceState, Key, Member, Object, OnFailure, Path, PathId, Policy, PolicyRule, Purpose, SiteId,
};
use catena_model::name::PortName;
use catena_model::packet::{Packet, pick};

use crate::kind::{Kind, Probe};

pub enum Verdict<'a> {
    /// Not classified: left to the element's routing.
    Pass,
    /// Left to the element's rules.
    Claimed {
        site: SiteId,
        by: &'a FlowMatch,
    },
    /// Left to the element's own routing.
    Released,
    Steered {
        site: SiteId,
        by: &'a FlowMatch,
        path: PathId,
        direction: Direction,
        /// By position.
        hops: Vec<(u8, Pick)>,
        exits: &'a Exits,
    },
    Transit {
        site: SiteId,
        direction: Direction,
        exits: &'a Exits,
    },
    Drop {
        why: String,
    },
}

/// What takes a flow at one hop of its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    Instance(InstanceId),
    /// None is up, and the function may be left out.
    LeftOut,
    /// None is up, and the function may not be left out: packets come as far as here.
    Nobody,
}

pub fn classify<'a>(state: &'a ElementState, in_port: &PortName, probe: &Probe) -> Verdict<'a> {
    let packet = &probe.packet;
    let Some(Object::Ingress(ingress)) = state.get(&Key::Ingress(in_port.clone())) else {
        return Verdict::Pass;
    };
    let Some((policy, direction)) = policy_of(state, ingress, packet) else { return Verdict::Pass };
    let seen = packet.seen_from_site(direction);
    let site = policy.site;
    let rule = match opinion(policy, &seen, probe.kind) {
        Opinion::Nothing => None,
        Opinion::Decided(rule) => Some((rule.action, &rule.matches)),
        Opinion::Unsure(rule) => match (ingress.purpose, &policy.exits) {
            (Purpose::Claim, _) => return Verdict::Claimed { site, by: &rule.matches },
            (Purpose::Steer, Some(_)) => {
                let why = "the ports are not known that its first fragment had".to_owned();
                return Verdict::Drop { why };
            }
            (Purpose::Steer, None) => None,
        },
    };
    match (ingress.purpose, rule, &policy.exits) {
        (Purpose::Claim, Some((Action::Claim, by)), _) => Verdict::Claimed { site, by },
        (Purpose::Claim, None, _) => Verdict::Released,
        (Purpose::Steer, Some((Action::Path(path), by)), Some(exits)) => match state.get(&Key::Path(path)) {
            Some(Object::Path(found)) => match exits_of(state, found, exits, policy) {
                Some(exits) => {
                    let hops = hops(state, found, direction, packet);
                    Verdict::Steered { site, by, path, direction, hops, exits }
                }
                None => Verdict::Drop { why: format!("the site of path {path} has no exits") },
            },
            _ => Verdict::Drop { why: format!("path {path} is not installed") },
        },
        (Purpose::Steer, None, Some(exits)) => Verdict::Transit { site, direction, exits },
        _ => Verdict::Pass,
    }
}

/// Packets leave a path by the exits of the site that it belongs to.
fn exits_of<'a>(state: &'a ElementState, path: &Path, own: &'a Exits, policy: &Policy) -> Option<&'a Exits> {
    if path.site == policy.site {
        return Some(own);
    }
    match state.get(&Key::Policy(path.site)) {
        Some(Object::Policy(other)) => other.exits.as_ref(),
        _ => None,
    }
}

/// What a policy says of a packet.
enum Opinion<'a> {
    Nothing,
    Decided(&'a PolicyRule),
    /// Nobody can say whether this rule is for it.
    Unsure(&'a PolicyRule),
}

/// The first rule that matches decides. Whether one matches a later fragment without its first nobody knows; a fragment that
/// none matches goes by the first rule that would match it with other ports.
fn opinion<'a>(policy: &'a Policy, seen: &Packet, kind: Kind) -> Opinion<'a> {
    let but_for_ports = |rule: &PolicyRule| FlowMatch { ports: None, dscp: None, ..rule.matches.clone() };
    if kind == Kind::Headless {
        let could = |rule: &&PolicyRule| {
            let mut matches = but_for_ports(rule);
            // What the fragment's header names in IPv6 may be an extension header.
            matches.protocol = matches.protocol.filter(|_| seen.family() == Family::V4);
            matches.matches(seen)
        };
        return policy.rules.iter().find(could).map_or(Opinion::Nothing, Opinion::Unsure);
    }
    let mut rules = policy.rules.iter();
    let exact = rules.find(|rule| rule.matches.matches(seen));
    let for_other_ports = |rule: &&PolicyRule| {
        let matches = FlowMatch { dscp: None, ..rule.matches.clone() };
        !matches.matches(seen) && but_for_ports(rule).matches(seen)
    };
    let possible = || policy.rules.iter().filter(|_| kind == Kind::Fragment).find(for_other_ports);
    exact.or_else(possible).map_or(Opinion::Nothing, Opinion::Decided)
}

/// The policy of the site that the packet belongs to: by its source on the way up, by its destination on the way down.
fn policy_of<'a>(
    state: &'a ElementState,
    ingress: &Ingress,
    packet: &Packet,
) -> Option<(&'a Policy, Direction)> {
    if let Some(site) = ingress.site {
        let Some(Object::Policy(policy)) = state.get(&Key::Policy(site)) else { return None };
        return ingress.directions.first().map(|direction| (policy, *direction));
    }
    ingress.directions.iter().find_map(|direction| {
        let site_end: IpAddr = packet.seen_from_site(*direction).source;
        let policies = state.iter().filter_map(|object| match object {
            Object::Policy(policy) => Some(policy),
            _ => None,
        });
        let longest = |policy: &&Policy| {
            policy
                .prefixes
                .iter()
                .filter(|prefix| prefix.contains(site_end))
                .map(|prefix| prefix.length())
                .max()
        };
        let of_site = policies.filter(|policy| longest(policy).is_some()).max_by_key(longest);
        of_site.map(|policy| (policy, *direction))
    })
}

/// Whether nothing but addresses says in which direction packets go that come back from the function.
pub fn hides_direction(instance: &Instance) -> bool {
    instance.insertion == Insertion::L3 && instance.is_one_armed()
}

/// Whether a site of the element that is told by its addresses has this one.
pub fn is_of_a_site(state: &ElementState, address: IpAddr) -> bool {
    let told_by_port = |site| {
        state.iter().any(|object| matches!(object, Object::Ingress(ingress) if ingress.site == Some(site)))
    };
    state.iter().any(|object| match object {
        Object::Policy(policy) => {
            policy.prefixes.iter().any(|prefix| prefix.contains(address)) && !told_by_port(policy.site)
        }
        _ => false,
    })
}

/// The instances that a flow which begins with this packet is given, in the order in which it passes them.
fn hops(state: &ElementState, path: &Path, direction: Direction, packet: &Packet) -> Vec<(u8, Pick)> {
    let is_up = |member: &Member| matches!(state.get(&Key::Instance(member.id)), Some(Object::Instance(instance)) if instance.state == InstanceState::Up);
    let mut picks: Vec<(u8, Pick)> = (0..)
        .zip(&path.hops)
        .map(|(position, hop)| {
            let members = hop.instances.iter().copied().filter(is_up);
            let picked = match (pick(packet.flow_hash(hop.stickiness), members), hop.on_failure) {
                (Some(instance), _) => Pick::Instance(instance),
                (None, OnFailure::Skip) => Pick::LeftOut,
                (None, OnFailure::Closed) => Pick::Nobody,
            };
            (position, picked)
        })
        .collect();
    if direction == Direction::Down {
        picks.reverse();
    }
    picks
}
