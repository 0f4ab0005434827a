//! Damaged forwarding state, of every kind that a careless hand makes of it.

use std::collections::BTreeSet;

use catena_model::address::{Family, Prefix, Protocol};
use catena_model::base::{BaseRuleAction, NewAddress, Translation, TranslationHook};
use catena_model::forwarding::{Action, Direction, Insertion, Object, OnFailure, PathId, Purpose};
use catena_model::name::{NodeName, PortName};
use catena_model::resource::Engine;

use super::World;
use super::exchange::Exchange;
use super::hunt::addresses;

/// A generator of numbers that are the same in every run (SplitMix64, public domain, Sebastiano Vigna).
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((word ^ (word >> 31)) % sides.max(1) as u64) as usize
    }

    pub fn one<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        if of.is_empty() { None } else { of.get(self.roll(of.len())) }
    }
}

/// One damage, and what it is called.
pub fn damage(world: &World, dice: &mut Dice) -> Option<(String, World)> {
    let mut mutant = world.clone();
    let elements: Vec<NodeName> = world.state.elements.keys().cloned().collect();
    let element = dice.one(&elements)?.clone();
    let engine = *dice.one(&[Engine::Rules, Engine::Nft, Engine::Steer])?;
    mutant.engine(element.as_str(), engine);
    if dice.roll(8) == 0 {
        let what = foreign(&mut mutant, &element, dice);
        return Some((format!("{element} with {engine:?}: {what}"), mutant));
    }
    if dice.roll(8) == 0 {
        return exchanging(mutant, &element, dice);
    }
    if dice.roll(16) == 0 {
        let ports: Vec<PortName> =
            world.topology.cables(&element).map(|cable| cable.near.port.clone()).collect();
        let port = dice.one(&ports)?.clone();
        mutant.base(element.as_str()).down.insert(port.clone());
        return Some((format!("{element}: {port} is down"), mutant));
    }
    let objects: Vec<Object> = world.state.element(&element).iter().cloned().collect();
    let old = dice.one(&objects)?.clone();
    let state = mutant.state.elements.get_mut(&element)?;
    state.remove(&old.key());
    if dice.roll(4) == 0 {
        return Some((format!("{element} with {engine:?}: without {old:?}"), mutant));
    }
    let new = changed(world, &element, &old, &objects, dice)?;
    if new == old {
        return None;
    }
    state.insert(new.clone());
    Some((format!("{element} with {engine:?}: {new:?} in the place of {old:?}"), mutant))
}

fn foreign(mutant: &mut World, element: &NodeName, dice: &mut Dice) -> String {
    let prefixes = [
        "172.16.0.0/16",
        "172.16.1.0/24",
        "172.16.1.8/29",
        "198.51.100.0/24",
        "9.0.0.0/8",
        "10.0.0.0/24",
        "10.0.1.0/24",
        "2001:db8:a1::/64",
        "2001:db8:ffff::/48",
        "2001:db8:a::/48",
        "::/0",
    ];
    let of = dice.one(&prefixes).map(|prefix| prefix.parse::<Prefix>().unwrap());
    let end = dice.roll(3);
    let ports: Vec<PortName> = mutant.topology.cables(element).map(|cable| cable.near.port.clone()).collect();
    let in_port = dice.one(&ports).filter(|_| end == 2).cloned();
    let action = match dice.roll(4) {
        0 => BaseRuleAction::Drop,
        1 => BaseRuleAction::Other("goto 5000".to_owned()),
        _ => BaseRuleAction::Lookup(254),
    };
    let opaque = if dice.roll(6) == 0 { vec!["ipproto tcp".to_owned()] } else { Vec::new() };
    let ours = mutant.base(element.as_str()).our_priority;
    let priority = if dice.roll(4) == 0 { ours + [0, 1, 140, 300][dice.roll(4)] } else { 100 };
    let mut what = String::new();
    mutant.foreign_rule(element.as_str(), |rule| {
        rule.priority = priority;
        rule.family = of.map_or(Family::V4, Prefix::family);
        rule.from = of.filter(|_| end == 0);
        rule.to = of.filter(|_| end == 1);
        rule.in_port = in_port;
        rule.action = action;
        rule.opaque = opaque;
        what = format!("{rule:?}");
    });
    what
}

/// An owner who gives packets other addresses, somewhere.
pub fn exchange(world: &World, dice: &mut Dice) -> Option<(String, World)> {
    let mut mutant = world.clone();
    let elements: Vec<NodeName> = world.state.elements.keys().cloned().collect();
    let element = dice.one(&elements)?;
    mutant.engine(element.as_str(), *dice.one(&[Engine::Rules, Engine::Nft, Engine::Steer])?);
    exchanging(mutant, element, dice)
}

fn exchanging(mut mutant: World, element: &NodeName, dice: &mut Dice) -> Option<(String, World)> {
    let exchange = any_exchange(&mutant, element, dice)?;
    let Exchange { translation, address, .. } = &exchange;
    let what = format!(
        "{element} with {:?}: {translation:?} gives {address:?}",
        mutant.model.elements[element].driver
    );
    mutant.base(element.as_str()).translations.push(translation.clone());
    mutant.exchange = Some(exchange);
    Some((what, mutant))
}

/// A masquerade, snat or dnat at a port of the element's.
fn any_exchange(world: &World, element: &NodeName, dice: &mut Dice) -> Option<Exchange> {
    let cables: Vec<_> = world.topology.cables(element).collect();
    let near = &dice.one(&cables)?.near;
    let family = *dice.one(&Family::BOTH)?;
    let own = near.addresses.iter().map(|own| own.addr()).find(|own| Family::of(*own) == family);
    let sites = world.model.sites.values().flat_map(|site| &site.prefixes);
    let sites: Vec<Prefix> = sites.copied().filter(|prefix| prefix.family() == family).collect();
    let others = match family {
        Family::V4 => ["203.0.113.99", "198.51.100.0/24"],
        Family::V6 => ["2001:db8:2::99", "2001:db8:ffff::/48"],
    };
    let address = match dice.roll(3) {
        0 => None,
        1 => Some(others[0].parse().unwrap()),
        _ => Some(addresses(*dice.one(&sites)?)[1]),
    };
    let hook = match address {
        Some(_) if dice.roll(2) == 0 => TranslationHook::Arriving,
        _ => TranslationHook::Leaving,
    };
    let into = match address {
        None => NewAddress::Own,
        Some(_) if dice.roll(4) == 0 => NewAddress::Any,
        Some(address) => NewAddress::Within(Prefix::host(address)),
    };
    let from = match dice.roll(4) {
        0 => Some(*dice.one(&sites)?),
        1 => Some(others[1].parse().unwrap()),
        _ => None,
    };
    // A port of the element's is forwarded; or all that comes in is.
    let to = own.map(Prefix::host).filter(|_| hook == TranslationHook::Arriving && dice.roll(4) > 0);
    let (port, rule) = (Some(near.port.clone()), "a rule of the owner's".to_owned());
    let translation = Translation { hook, family: Some(family), port, from, to, into, rule };
    Some(Exchange { element: element.clone(), translation, address, base: world.base.clone() })
}

/// What a careless hand makes of an object.
fn changed(
    world: &World,
    element: &NodeName,
    old: &Object,
    objects: &[Object],
    dice: &mut Dice,
) -> Option<Object> {
    let ports: Vec<PortName> = world
        .topology
        .cables(element)
        .map(|cable| cable.near.port.clone())
        .chain([PortName::tunnel()])
        .collect();
    let paths: Vec<PathId> = (0..12).map(PathId).collect();
    let mut new = old.clone();
    match &mut new {
        Object::Rule(rule) => match dice.roll(6) {
            0 => rule.order = [0, 1, rule.order.saturating_sub(1), rule.order + 1, 255][dice.roll(5)],
            1 => rule.selector.in_port = if dice.roll(2) == 0 { None } else { dice.one(&ports).cloned() },
            2 => rule.selector.unless_released = !rule.selector.unless_released,
            3 => rule.table = *dice.one(&paths)?,
            4 => rule.selector.from = rule.selector.from.and_then(|prefix| other_prefix(prefix, dice)),
            _ => rule.selector.to = rule.selector.to.and_then(|prefix| other_prefix(prefix, dice)),
        },
        Object::Table(table) => match dice.roll(3) {
            0 => table.path = *dice.one(&paths)?,
            1 => table.port = dice.one(&ports)?.clone(),
            _ => {
                let cables: Vec<_> = world.topology.cables(element).collect();
                let cable = dice.one(&cables)?;
                table.port = cable.near.port.clone();
                table.via = cable.far.next_hops().of(table.family);
            }
        },
        Object::Tunnel(tunnel) => match dice.roll(6) {
            0 => tunnel.key = Some(4242),
            1 => tunnel.underlay = dice.one(&ports)?.clone(),
            2 => std::mem::swap(&mut tunnel.local, &mut tunnel.remote),
            3 => tunnel.allowed = other_prefixes(&tunnel.allowed, dice)?,
            4 => tunnel.remote = "203.0.113.77".parse().unwrap(),
            _ => tunnel.allowed = BTreeSet::new(),
        },
        Object::Ingress(ingress) => match dice.roll(3) {
            0 => ingress.port = dice.one(&ports)?.clone(),
            1 => {
                ingress.directions = Direction::BOTH
                    .into_iter()
                    .filter(|direction| !ingress.directions.contains(direction))
                    .collect();
            }
            _ => {
                ingress.purpose = match ingress.purpose {
                    Purpose::Claim => Purpose::Steer,
                    Purpose::Steer => Purpose::Claim,
                }
            }
        },
        Object::Instance(instance) => match dice.roll(5) {
            0 => std::mem::swap(&mut instance.inside, &mut instance.outside),
            1 => instance.inside.port = dice.one(&ports)?.clone(),
            2 => instance.outside.port = dice.one(&ports)?.clone(),
            3 => instance.rewrites = !instance.rewrites,
            _ => match dice.one(objects)? {
                Object::Instance(other) => {
                    instance.inside = other.inside.clone();
                    instance.outside = other.outside.clone();
                    instance.insertion = if dice.roll(2) == 0 { Insertion::L2 } else { other.insertion };
                }
                _ => instance.inside.next_hops = Default::default(),
            },
        },
        Object::Path(path) => match dice.roll(6) {
            0 => path.hops.reverse(),
            1 => drop(path.hops.pop()),
            2 => path.hops.extend(path.hops.first().cloned()),
            3 => {
                let nth = dice.roll(path.hops.len());
                let hop = path.hops.get_mut(nth)?;
                hop.on_failure = match hop.on_failure {
                    OnFailure::Closed => OnFailure::Skip,
                    OnFailure::Skip => OnFailure::Closed,
                };
            }
            4 => {
                let (nth, other) = (dice.roll(path.hops.len()), dice.roll(path.hops.len()));
                let instances = path.hops.get(other)?.instances.clone();
                path.hops.get_mut(nth)?.instances.extend(instances);
            }
            _ => path.id = *dice.one(&paths)?,
        },
        Object::Policy(policy) => match dice.roll(8) {
            0 => drop(policy.rules.pop()),
            1 => drop(policy.rules.drain(..)),
            2 => policy.prefixes = other_prefixes(&policy.prefixes, dice)?,
            3 => {
                let nth = dice.roll(policy.rules.len());
                let rule = policy.rules.get_mut(nth)?;
                rule.matches.protocol = Some(Protocol::UDP);
            }
            4 => {
                let nth = dice.roll(policy.rules.len());
                let rule = policy.rules.get_mut(nth)?;
                rule.action =
                    if dice.roll(2) == 0 { Action::Claim } else { Action::Path(*dice.one(&paths)?) };
            }
            5 => {
                let nth = dice.roll(policy.rules.len());
                let rule = policy.rules.get_mut(nth)?;
                rule.matches.ports = None;
            }
            6 => {
                let exits = policy.exits.as_mut()?;
                std::mem::swap(&mut exits.up, &mut exits.down);
            }
            _ => {
                let exits = policy.exits.as_mut()?;
                let side = if dice.roll(2) == 0 { &mut exits.up } else { &mut exits.down };
                side.port = dice.one(&ports)?.clone();
            }
        },
    }
    Some(new)
}

fn other_prefix(prefix: Prefix, dice: &mut Dice) -> Option<Prefix> {
    let by = 1 + dice.roll(6) as u8;
    let length = match dice.roll(2) {
        0 => prefix.length().checked_sub(by)?,
        _ => prefix.length() + by,
    };
    Some(Prefix::of(ipnet::IpNet::new(prefix.address(), length).ok()?))
}

fn other_prefixes(prefixes: &BTreeSet<Prefix>, dice: &mut Dice) -> Option<BTreeSet<Prefix>> {
    let all: Vec<Prefix> = prefixes.iter().copied().collect();
    let old = *dice.one(&all)?;
    let mut new = prefixes.clone();
    new.remove(&old);
    new.extend(other_prefix(old, dice));
    Some(new)
}
