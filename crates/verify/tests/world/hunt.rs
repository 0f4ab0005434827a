//! Mutants: damaged forwarding state, and who says whether it treats packets otherwise than it should.
//!
//! Who says so is the walk of single packets, which knows nothing of the verifier's classes. A mutant counts if a packet
//! that a chain claims passes other functions or comes to another end, if its answer comes back through other instances, if
//! one that no chain claims is treated neither as in health nor as without us, or if one goes up a chain that did not come in
//! at the chain's site. Where an owner gives packets other addresses it is asked what becomes of them (`exchange`).

use std::net::IpAddr;

use catena_model::address::{Dscp, Family, Prefix, Protocol};
use catena_model::forwarding::{Direction, ForwardingState};
use catena_model::name::SiteName;
use catena_model::packet::Packet;
use catena_model::resource::{Site, Traffic};
use catena_verify::{Decision, End, Entry, Kind, Probe, Verdict, Walk};

use super::damage::Dice;
use super::exchange::Exchanged;
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
    probe: Probe,
    claimed: bool,
    /// The site whose packets come in here.
    site: Option<SiteName>,
    asked: Asked,
    /// As it is treated when all is well.
    treated: Treated,
}

/// What is asked about a packet, besides that it goes up no chain but that of the site where it came in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// Which functions it passes, and where it ends.
    All,
    /// Which functions it passes if it is not dropped: from one site to another, whose own may follow, or with a source that
    /// is not where it comes from.
    Functions,
    Nothing,
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
        let doors = sites.iter().flat_map(|(site, entries)| entries.iter().map(move |door| (*site, door)));
        let inner: Vec<(SiteName, Entry)> =
            doors.map(|(site, door)| (site.parse().unwrap(), entry(door))).collect();
        for (site, entries) in sites {
            let site = &arena.world.model.sites[&site.parse::<SiteName>().unwrap()].clone();
            for prefix in &site.prefixes {
                for local in addresses(*prefix) {
                    for remote in remotes(prefix.family()) {
                        for up in packets(local, remote) {
                            for (up_kind, down_kind) in kinds(&up) {
                                let claimed = arena.claims(&site.name, &up, up_kind);
                                for own in entries.iter().map(entry) {
                                    let up = Probe { packet: up, kind: up_kind };
                                    arena.add(own, Some(site), up, claimed, Asked::All);
                                }
                                let down = Probe { packet: up.reply(), kind: down_kind };
                                arena.add(outside.clone(), None, down, claimed, Asked::All);
                            }
                        }
                    }
                }
            }
        }
        arena.add_between(&inner, &outside);
        arena
    }

    /// From everywhere to everywhere: between sites, and with sources that are not where they come from.
    fn add_between(&mut self, inner: &[(SiteName, Entry)], outside: &Entry) {
        let sites: Vec<Site> = self.world.model.sites.values().cloned().collect();
        let all = sites.iter().flat_map(|site| &site.prefixes);
        let mut ends: Vec<IpAddr> = all.map(|prefix| addresses(*prefix)[1]).collect();
        ends.extend(Family::BOTH.map(|family| remotes(family)[0]));
        let of = |address: IpAddr| {
            sites.iter().find(|site| site.prefixes.iter().any(|prefix| prefix.contains(address)))
        };
        let sites_entries = inner.iter().map(|(site, entry)| (Some(site), entry));
        for (site, entry) in sites_entries.chain([(None, outside)]) {
            let site = site.and_then(|name| sites.iter().find(|site| site.name == *name));
            let pairs = ends.iter().flat_map(|source| ends.iter().map(move |to| (*source, *to)));
            for (source, to) in pairs.filter(|(a, b)| a != b && a.is_ipv4() == b.is_ipv4()) {
                for packet in packets(source, to).flat_map(|packet| [packet, packet.reply()]) {
                    let (source, to) = (packet.source, packet.destination);
                    let own = site.is_some_and(|site| of(source).is_some_and(|of| of.name == site.name));
                    let down = of(to).filter(|_| site.is_none());
                    let claimed = match (site, down) {
                        // What a site says to itself is its own business.
                        (Some(site), _) if own && of(to).is_some_and(|to| to.name == site.name) => continue,
                        (Some(site), _) => own && self.claims(&site.name, &packet, Kind::Whole),
                        (None, Some(down)) => self.claims(&down.name, &packet.reply(), Kind::Whole),
                        (None, None) => false,
                    };
                    let asked = match (site, of(source), of(to)) {
                        (Some(_), Some(_), Some(_)) if own => Asked::Functions,
                        (Some(_), Some(_), None) => Asked::All,
                        (Some(_), _, _) => Asked::Nothing,
                        (None, Some(a), Some(b)) if a.name == b.name => Asked::Functions,
                        (None, _, _) => Asked::All,
                    };
                    let probe = Probe::from(packet);
                    let known = |there: &Sample| there.entry == *entry && there.probe == probe;
                    if !self.samples.iter().any(known) {
                        self.add(entry.clone(), site, probe, claimed, asked);
                    }
                }
            }
        }
    }

    /// Of fragments it is enough that one with other ports would be claimed; of those that nobody knows the ports of, one of
    /// another protocol, too, in IPv6.
    fn claims(&self, site: &SiteName, up: &Packet, kind: Kind) -> bool {
        let chains = self.world.model.chains.values().filter(|chain| chain.sites.contains(site));
        let mut flows = chains.flat_map(|chain| chain.matches.iter().flat_map(Traffic::flow_matches));
        flows.any(|mut flow| {
            if matches!(kind, Kind::Fragment | Kind::Headless) {
                flow.ports = None;
            }
            if kind == Kind::Headless && up.family() == Family::V6 {
                flow.protocol = None;
            }
            flow.matches(up)
        })
    }

    fn add(&mut self, entry: Entry, site: Option<&Site>, probe: Probe, claimed: bool, asked: Asked) {
        let treated = treated(&self.world, &self.world.walk(&entry, probe));
        if matches!(treated.end, End::Loop { .. }) {
            // A customer's router sends back what it does not know.
            return;
        }
        let site = site.map(|site| site.name.clone());
        self.samples.push(Sample { entry, probe, claimed, site, asked, treated });
    }

    /// A packet that the mutant treats otherwise than it should.
    fn shown(&self, mutant: &World) -> Option<(&Sample, Walk)> {
        let without_us = World { state: ForwardingState::default(), ..mutant.clone() };
        let shown = self.samples.iter().find_map(|sample| {
            let exchanged = mutant.walk_exchanged(&sample.entry, sample.probe)?;
            let walk = &exchanged.walk;
            let now = treated(mutant, walk);
            let before = || treated_plainly(&without_us, &sample.entry, sample.probe);
            // What its owner's routing drops anyway need not be led anywhere.
            let differs = match sample.asked {
                Asked::All => now != sample.treated,
                Asked::Functions => {
                    !now.functions.starts_with(&sample.treated.functions)
                        && !matches!(now.end, End::Dropped { .. })
                }
                Asked::Nothing => false,
            };
            let otherwise = differs
                && !is_dropped_anyway(&now, before().as_ref())
                && (sample.claimed || Some(&now) != before().as_ref());
            if otherwise || goes_up_elsewhere(sample, walk) {
                return Some((sample, exchanged.walk));
            }
            self.comes_back_otherwise(mutant, sample, &exchanged).map(|back| (sample, back))
        });
        shown.or_else(|| self.comes_to_site_otherwise(mutant))
    }

    /// The way of a packet to an element that is given a site's address, if that passes other functions than the others to it do.
    fn comes_to_site_otherwise(&self, mutant: &World) -> Option<(&Sample, Walk)> {
        let asked = mutant.exchange.as_ref()?.translation.to?.address();
        self.samples.iter().filter(|sample| sample.claimed && sample.site.is_none()).find_map(|sample| {
            let packet = Packet { destination: asked, ..sample.probe.packet };
            if Family::of(asked) != packet.family() {
                return None;
            }
            let Exchanged { walk, sent } =
                mutant.walk_exchanged(&sample.entry, Probe { packet, ..sample.probe })?;
            let gets_there = sent == sample.probe.packet && !matches!(walk.end, End::Dropped { .. });
            (gets_there && treated(mutant, &walk) != sample.treated).then_some((sample, walk))
        })
    }

    /// The way of the answer, if that passes other instances.
    fn comes_back_otherwise(&self, mutant: &World, sample: &Sample, there: &Exchanged) -> Option<Walk> {
        let Probe { packet, kind } = sample.probe;
        let reply = Probe { packet: packet.reply(), kind };
        let is_answer = |other: &&Sample| other.site.is_none() && other.probe == reply;
        let answer =
            self.samples.iter().find(is_answer).filter(|_| sample.claimed && sample.site.is_some())?;
        let back = mutant.walk_answer(&answer.entry, there, answer.probe)?;
        let mut passed = back.functions();
        passed.reverse();
        let gets_through = treated(mutant, &there.walk) == sample.treated;
        let comes_back = treated(mutant, &back) == answer.treated;
        // Without an exchange, the answer is a sample itself.
        let differs = if comes_back { passed != there.walk.functions() } else { there.sent != packet };
        (gets_through && differs).then_some(back)
    }
}

/// Whether a packet goes up the chain of a site that it did not come from.
fn goes_up_elsewhere(sample: &Sample, walk: &Walk) -> bool {
    walk.visits.iter().flat_map(|visit| &visit.decisions).any(|decision| match decision {
        Decision::Steered { site, direction: Direction::Up, .. } => *site != sample.site,
        _ => false,
    })
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
fn treated_plainly(without_us: &World, entry: &Entry, probe: Probe) -> Option<Treated> {
    let entry = Entry { tunnel: None, ..entry.clone() };
    Some(treated(without_us, &without_us.walk_exchanged(&entry, probe)?.walk))
}

/// The kinds of packets that are sent with these addresses and ports, from the site and back: one flow of all, fragments of some.
fn kinds(up: &Packet) -> Vec<(Kind, Kind)> {
    let mut kinds = [Kind::Whole, Kind::Options].map(|kind| (kind, kind)).to_vec();
    if up.source_port == 40_000 && up.destination_port != 443 {
        let router = match up.family() {
            Family::V4 => "192.0.2.33",
            Family::V6 => "2001:db8:2::33",
        };
        let error = |sender| Kind::Error { sender };
        kinds.push((error(up.source), error(router.parse().unwrap())));
        kinds.extend([Kind::Fragment, Kind::Headless].map(|kind| (kind, kind)));
    }
    kinds
}

pub fn addresses(prefix: Prefix) -> Vec<IpAddr> {
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
    /// Violated.
    pub found: usize,
    /// Neither violated nor proven.
    pub undecided: usize,
    /// Treat packets otherwise than they should.
    pub shown: usize,
    /// Treat packets otherwise than they should, and are proven: each in words.
    pub missed: Vec<String>,
}

/// Verifies `count` mutants of each world. None that is proven should treat a packet otherwise than it should: those are
/// missed. With `count_shown` it is also asked of those that are not proven, which takes longer.
pub fn hunt(
    damage: impl Fn(&World, &mut Dice) -> Option<(String, World)>,
    seed: u64,
    count: usize,
    count_shown: bool,
) -> Bag {
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
            bag.found += usize::from(report.verdict == Verdict::Violated);
            bag.undecided += usize::from(report.verdict == Verdict::Undecided);
            let is_found = report.verdict != Verdict::Proven;
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
