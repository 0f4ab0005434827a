//! Mutants: damaged forwarding state, and who says whether it treats packets otherwise than it should.
//!
//! Who says so is the walk of single packets, which knows nothing of the verifier's classes. A mutant counts if a packet
//! that a chain claims passes other functions or comes to another end, or if one that no chain claims is treated neither as
//! in health nor as without us.

use std::net::IpAddr;

use catena_model::address::{Dscp, Family, Prefix, Protocol};
use catena_model::forwarding::ForwardingState;
use catena_model::packet::Packet;
use catena_model::resource::Traffic;
use catena_verify::{Decision, End, Entry, Verdict, Walk};

use super::damage::{Dice, damage};
use super::{World, assert_proven, in_words, way};

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

/// What became of mutants.
#[derive(Debug, Default)]
pub struct Bag {
    pub mutants: usize,
    /// Not proven.
    pub found: usize,
    /// Treat packets otherwise than they should.
    pub shown: usize,
    /// Treat packets otherwise than they should, and are proven: each in words.
    pub missed: Vec<String>,
}

/// Verifies `count` mutants of each world. None that is proven should treat a packet otherwise than it should: those are
/// missed. With `count_shown` it is also asked of those that are not proven, which takes longer.
pub fn hunt(seed: u64, count: usize, count_shown: bool) -> Bag {
    let mut bag = Bag::default();
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
                bag.missed.push(format!(
                    "{}: {what}\n  from {}, healthy: {healthy:?}\n{way}",
                    arena.name, sample.entry
                ));
            }
        }
        bag.mutants += done;
    }
    bag
}
