//! Damaged forwarding state: whenever packets are treated otherwise than they should be, the verifier says so.
//!
//! Who says how packets are treated is the walk of single packets, which knows nothing of the verifier's classes. A mutant
//! counts if a packet that a chain claims passes other functions or comes to another end, or if one that no chain claims is
//! treated otherwise than without us.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod world;

use std::collections::BTreeSet;
use std::net::IpAddr;

use catena_model::address::{Dscp, Family, Prefix, Protocol};
use catena_model::base::BaseRuleAction;
use catena_model::forwarding::{
    Action, Direction, ForwardingState, Insertion, Object, OnFailure, PathId, Purpose,
};
use catena_model::name::{NodeName, PortName};
use catena_model::packet::Packet;
use catena_model::resource::Traffic;
use catena_verify::{Decision, End, Entry, Verdict, Walk};
use world::{World, assert_proven, in_words, way};

/// A generator of numbers that are the same in every run (SplitMix64, public domain, Sebastiano Vigna).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((word ^ (word >> 31)) % sides.max(1) as u64) as usize
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        if of.is_empty() { None } else { of.get(self.roll(of.len())) }
    }
}

/// A node, a port, and the site out of whose tunnel packets come.
type Door<'a> = (&'a str, &'a str, Option<&'a str>);

/// A world, and packets that show how it treats them.
struct Arena {
    name: &'static str,
    world: World,
    samples: Vec<Sample>,
}

struct Sample {
    entry: Entry,
    packet: Packet,
    claimed: bool,
    /// As it is treated when all is well.
    treated: Treated,
}

/// What counts of a walk: which functions are passed, and where it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Treated {
    functions: Vec<String>,
    end: End,
}

impl Arena {
    fn new(name: &'static str, world: World, sites: &[(&str, &[Door])], external: (&str, &str)) -> Self {
        assert_proven(&world.verify());
        let entry = |(node, port, tunnel): &Door| Entry {
            node: node.parse().unwrap(),
            port: port.parse().unwrap(),
            tunnel: tunnel.map(|site| site.parse().unwrap()),
        };
        let mut arena = Self { name, world, samples: Vec::new() };
        let outside = entry(&(external.0, external.1, None));
        let inner: Vec<Entry> = sites.iter().flat_map(|(_, entries)| entries.iter().map(entry)).collect();
        for (site, entries) in sites {
            let site =
                &arena.world.model.sites[&site.parse::<catena_model::name::SiteName>().unwrap()].clone();
            for prefix in &site.prefixes {
                for local in addresses(*prefix) {
                    for remote in remotes(prefix.family()) {
                        for up in packets(local, remote) {
                            let claimed = arena.claims(&site.name, &up);
                            for own in entries.iter().map(entry) {
                                arena.add(own, up, claimed);
                            }
                            arena.add(outside.clone(), up.reply(), claimed);
                            // Forged: not at one of the site's own entries.
                            let own: Vec<Entry> = entries.iter().map(entry).collect();
                            for other in inner.iter().chain([&outside]).filter(|other| !own.contains(other)) {
                                arena.add(other.clone(), up, false);
                            }
                        }
                    }
                }
            }
        }
        arena
    }

    fn claims(&self, site: &catena_model::name::SiteName, up: &Packet) -> bool {
        let chains = self.world.model.chains.values().filter(|chain| chain.sites.contains(site));
        let mut flows = chains.flat_map(|chain| chain.matches.iter().flat_map(Traffic::flow_matches));
        flows.any(|flow| flow.matches(up))
    }

    fn add(&mut self, entry: Entry, packet: Packet, claimed: bool) {
        let treated = treated(&self.world, &self.world.walk(&entry, packet));
        if matches!(treated.end, End::Loop { .. }) {
            // A customer's router sends back what it does not know.
            return;
        }
        self.samples.push(Sample { entry, packet, claimed, treated });
    }

    /// A packet that the mutant treats otherwise than it should.
    fn shown(&self, mutant: &World) -> Option<(&Sample, Walk)> {
        let without_us = World { state: ForwardingState::default(), ..mutant.clone() };
        self.samples.iter().find_map(|sample| {
            let walk = mutant.walk(&sample.entry, sample.packet);
            let now = treated(mutant, &walk);
            let before = || treated_plainly(&without_us, &sample.entry, sample.packet);
            // What its owner's routing drops anyway need not be led anywhere.
            let wrong = now != sample.treated
                && !is_dropped_anyway(&now, before().as_ref())
                && (sample.claimed || Some(&now) != before().as_ref());
            wrong.then_some((sample, walk))
        })
    }
}

fn is_dropped_anyway(now: &Treated, before: Option<&Treated>) -> bool {
    let dropped = |treated: &Treated| matches!(treated.end, End::Dropped { .. });
    dropped(now) && before.is_some_and(dropped)
}

fn treated(world: &World, walk: &Walk) -> Treated {
    let decisions = walk.visits.iter().flat_map(|visit| &visit.decisions);
    let functions = decisions.filter_map(|decision| match decision {
        Decision::Function { instance, .. } | Decision::Copied { instance, .. } => {
            let all = world.model.functions.values();
            let of = |function: &&catena_model::resource::ServiceFunction| {
                function.instances.iter().any(|there| there.name.as_str() == instance)
            };
            Some(all.clone().find(of).map_or_else(|| instance.clone(), |function| function.name.to_string()))
        }
        _ => None,
    });
    let end = match &walk.end {
        End::Dropped { node, .. } => End::Dropped { node: node.clone(), why: String::new() },
        End::Undecided { node, .. } => End::Undecided { node: node.clone(), why: String::new() },
        other => other.clone(),
    };
    // Where it is dropped is all one.
    let end = match end {
        End::Dropped { .. } => End::Dropped { node: "nowhere".parse().unwrap(), why: String::new() },
        other => other,
    };
    Treated { functions: functions.collect(), end }
}

/// Without us nothing comes out of a tunnel; what would come out of it then is looked at as if it had come by a cable.
fn treated_plainly(without_us: &World, entry: &Entry, packet: Packet) -> Option<Treated> {
    let entry = Entry { tunnel: None, ..entry.clone() };
    Some(treated(without_us, &without_us.walk(&entry, packet)))
}

fn addresses(prefix: Prefix) -> Vec<IpAddr> {
    let net = prefix.net();
    let tenth = match net.addr() {
        IpAddr::V4(address) => IpAddr::V4((u32::from(address) + 10).into()),
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) + 16).into()),
    };
    vec![net.addr(), tenth, net.broadcast()]
}

/// On the Internet, near and far.
fn remotes(family: Family) -> Vec<IpAddr> {
    let texts = match family {
        Family::V4 => ["198.51.100.10", "198.51.100.77", "9.9.9.9"],
        Family::V6 => ["2001:db8:ffff::10", "2001:db8:ffff::77", "2620:fe::9"],
    };
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn packets(source: IpAddr, destination: IpAddr) -> impl Iterator<Item = Packet> {
    let flows = [
        (Protocol::TCP, 80, 40_000),
        (Protocol::TCP, 80, 40_001),
        (Protocol::TCP, 443, 40_000),
        (Protocol::TCP, 81, 40_000),
        (Protocol::UDP, 80, 40_000),
        (Protocol::ICMP, 0, 0),
    ];
    flows.into_iter().map(move |(protocol, destination_port, source_port)| Packet {
        source,
        destination,
        protocol,
        source_port,
        destination_port,
        dscp: Dscp::default(),
    })
}

fn arenas() -> Vec<Arena> {
    vec![
        Arena::new(
            "paper",
            World::paper(),
            &[("acme-hq", &[("access-a", "lan", None)]), ("globex-hq", &[("access-b", "lan", None)])],
            ("core", "inet"),
        ),
        Arena::new(
            "insertion",
            World::insertion_without_nat(),
            &[("acme-hq", &[("vr", "metro", None)])],
            ("gateway", "inet"),
        ),
        Arena::new(
            "one-armed",
            World::one_armed_and_guarded(),
            &[("acme-hq", &[("access", "lan", None)])],
            ("gateway", "inet"),
        ),
        Arena::new(
            "provider",
            World::provider(3),
            &[
                ("site-0", &[("edge", "catena-gre", Some("site-0"))]),
                ("site-1", &[("edge", "catena-gre", Some("site-1"))]),
            ],
            ("core", "inet"),
        ),
    ]
}

/// One damage, and what it is called.
fn damage(world: &World, dice: &mut Dice) -> Option<(String, World)> {
    let mut mutant = world.clone();
    let elements: Vec<NodeName> = world.state.elements.keys().cloned().collect();
    let element = dice.one(&elements)?.clone();
    if dice.roll(8) == 0 {
        let what = foreign(&mut mutant, &element, dice);
        return Some((format!("{element}: {what}"), mutant));
    }
    let objects: Vec<Object> = world.state.element(&element).iter().cloned().collect();
    let old = dice.one(&objects)?.clone();
    let state = mutant.state.elements.get_mut(&element)?;
    state.remove(&old.key());
    if dice.roll(4) == 0 {
        return Some((format!("{element}: without {old:?}"), mutant));
    }
    let new = changed(world, &element, &old, &objects, dice)?;
    if new == old {
        return None;
    }
    state.insert(new.clone());
    Some((format!("{element}: {new:?} in the place of {old:?}"), mutant))
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
    let mut what = String::new();
    mutant.foreign_rule(element.as_str(), |rule| {
        rule.from = of.filter(|_| end == 0);
        rule.to = of.filter(|_| end == 1);
        rule.in_port = in_port;
        rule.action = action;
        rule.opaque = opaque;
        what = format!("{rule:?}");
    });
    what
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

/// What became of mutants.
#[derive(Debug, Default)]
struct Bag {
    mutants: usize,
    /// Not proven.
    found: usize,
    /// Treat packets otherwise than they should.
    shown: usize,
}

/// Verifies `count` mutants of each world; none that is proven may treat a packet otherwise than it should. With
/// `count_shown` it is also asked of those that are not proven, which takes longer.
fn hunt(seed: u64, count: usize, count_shown: bool) -> Bag {
    let mut bag = Bag::default();
    let mut missed = Vec::new();
    for arena in arenas() {
        let mut dice = Dice(seed);
        let mut done = 0;
        while done < count {
            let Some((what, mutant)) = damage(&arena.world, &mut dice) else { continue };
            done += 1;
            let report = mutant.verify();
            assert!(
                !report.undecided.iter().any(|undecided| undecided.what.contains("no packet was found")),
                "{}: {what}\n{}",
                arena.name,
                in_words(&report)
            );
            let is_found = report.verdict != Verdict::Proven;
            bag.found += usize::from(is_found);
            if is_found && !count_shown {
                continue;
            }
            let Some((sample, walk)) = arena.shown(&mutant) else { continue };
            bag.shown += 1;
            if !is_found {
                let healthy = &sample.treated;
                let way = way(&walk);
                missed.push(format!(
                    "{}: {what}\n  from {}, healthy: {healthy:?}\n{way}",
                    arena.name, sample.entry
                ));
            }
        }
        bag.mutants += done;
    }
    let some = missed[..missed.len().min(12)].join("\n");
    assert!(missed.is_empty(), "{} missed of {bag:?}:\n{some}", missed.len());
    println!("{bag:?}");
    bag
}

#[test]
fn mutants_are_found() {
    let bag = hunt(1, 250, false);
    assert!(bag.found > bag.mutants / 2, "{bag:?}");
}

/// More than ten thousand that treat packets otherwise than they should.
#[test]
#[ignore = "takes minutes"]
fn many_mutants_are_found() {
    let shown: usize = (2..14).map(|seed| hunt(seed, 500, true).shown).sum();
    assert!(shown >= 10_000, "only {shown} mutants changed anything");
}
