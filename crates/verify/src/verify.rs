//! The verifier: walks all packets that chains are about, and holds their ways against what the chains promise.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use catena_model::address::{Family, Prefix};
use catena_model::forwarding::{Direction, Object, SiteId};
use catena_model::name::{SiteName, TenantName};
use catena_model::numbering::PathOwner;

use crate::Network;
use crate::class::{Class, Span};
use crate::example::{Examples, Found};
use crate::fabric::{Fabric, Place};
use crate::intent::{ClaimedBy, Gate, Intent, ServedSite, routed};
use crate::property::{self, Fault, Gone, Seen};
use crate::symbolic::{By, Cause, End, Hop, Pass, Walker, Way, has_underlay};
use crate::tails::Tails;
use crate::verdict::{Coverage, Property, Report, Verdict};

/// Verifies the chains of a tenant, or of all.
pub fn verify(network: &Network, tenant: Option<&TenantName>) -> Report {
    let fabric = Fabric::new(network);
    let intent = Intent::new(network, &fabric);
    let outside = Outside::new(network, &fabric, &intent);
    let tails = Tails::new(&fabric);
    let mut examples = Examples::new(network, &fabric);
    let mut coverage = Coverage::default();
    let mut chains = BTreeSet::new();
    let mut entries = HashSet::new();
    let wanted = |served: &&ServedSite| tenant.is_none_or(|tenant| served.site.tenant == *tenant);
    for served in intent.sites.values().filter(wanted) {
        let SiteFindings { findings, classes } = site(&fabric, &tails, &intent, &outside, served);
        coverage.sites += 1;
        coverage.classes += classes;
        chains.extend(served.chains.iter().map(|served| &served.chain.name));
        entries.extend(served.gates.iter().chain(&intent.external).map(|gate| (gate.place, gate.tunnel)));
        for finding in findings {
            examples.add(served, finding);
        }
    }
    coverage.chains = chains.len();
    coverage.entries = entries.len();
    let Found { violations, undecided } = examples.finish();
    let verdict = match (violations.is_empty(), undecided.is_empty()) {
        (false, _) => Verdict::Violated,
        (true, false) => Verdict::Undecided,
        (true, true) => Verdict::Proven,
    };
    Report { verdict, coverage, violations, undecided }
}

/// Something wrong, and the packets that show it.
#[derive(Clone, Debug)]
pub struct Finding {
    pub fault: Fault,
    /// The chain's place among the site's.
    pub chain: usize,
    pub direction: Direction,
    pub gate: Option<Gate>,
    pub class: Option<Class>,
    /// The way that packets of the class go, unless any will do.
    pub way: Option<Way>,
}

pub struct SiteFindings {
    pub findings: Vec<Finding>,
    pub classes: usize,
}

/// All that is to be found about one site's chains.
pub fn site(
    fabric: &Fabric,
    tails: &Tails,
    intent: &Intent,
    outside: &Outside,
    served: &ServedSite,
) -> SiteFindings {
    let mut visitor = Visitor { fabric, served, tails, findings: Vec::new(), classes: 0, passes: Vec::new() };
    if served.gates.is_empty() || intent.external.is_empty() {
        visitor.undecided("the inventory does not say where packets come in");
    }
    for claim in served.claims() {
        for gate in &served.gates {
            visitor.ways(gate, Direction::Up, claim.class, claim.by);
        }
        for gate in &intent.external {
            visitor.ways(gate, Direction::Down, claim.class.reply(), claim.by);
        }
    }
    visitor.paths();
    visitor.forged(outside);
    visitor.strays(intent, outside);
    SiteFindings { findings: visitor.findings, classes: visitor.classes }
}

/// Goes through the packets of one site.
struct Visitor<'v> {
    fabric: &'v Fabric,
    tails: &'v Tails<'v>,
    served: &'v ServedSite<'v>,
    findings: Vec<Finding>,
    classes: usize,
    /// The paths that claimed packets took: of which chain, in which direction, by which packets.
    passes: Vec<Taken>,
}

struct Taken {
    chain: usize,
    pass: Pass,
    class: Class,
    gate: Gate,
}

impl Visitor<'_> {
    fn undecided(&mut self, what: &str) {
        let fault = Fault { property: None, what: what.to_owned(), without: None };
        let direction = Direction::Up;
        self.findings.push(Finding { fault, chain: 0, direction, gate: None, class: None, way: None });
    }

    fn ways(&mut self, gate: &Gate, direction: Direction, class: Class, by: ClaimedBy) {
        let tails = (direction == Direction::Up).then_some((self.tails, gate.place));
        let walker = Walker { home: self.served.stop(direction), tails, ..Walker::new(self.fabric) };
        let mut claimed = true;
        for way in enter(walker, gate, class) {
            self.classes += 1;
            claimed &= way.hops.iter().all(|hop| {
                // Where there is a claim, it did not release the packets: without it they would not be, either.
                hop.place.node != gate.place.node
                    || matches!(hop.by, By::Rule(_))
                    || !self.is_classified(hop.place)
            });
            if !self.is_inner(direction, &way) {
                self.look(gate, direction, &way, by);
            }
        }
        if let (ClaimedBy::Chain(chain), false) = (by, claimed) {
            self.without_claims(gate, direction, class, chain);
        }
    }

    fn is_classified(&self, place: Place) -> bool {
        self.fabric.node(place.node).ingresses.contains_key(&place.port)
    }

    /// What a site says to itself is no business of the cloud.
    fn is_inner(&self, direction: Direction, way: &Way) -> bool {
        let remote = match direction {
            Direction::Up => way.class.destination,
            Direction::Down => way.class.source,
        };
        self.served.has(way.class.family, remote)
    }

    fn look(&mut self, gate: &Gate, direction: Direction, way: &Way, by: ClaimedBy) {
        let seen = Seen::new(self.fabric, self.served, direction, gate.place, way);
        let (faults, chain) = match by {
            ClaimedBy::Chain(nth) => {
                let own = way.passes.iter().filter(|pass| Some(pass.site) == self.served.id);
                for pass in own {
                    self.passes.push(Taken { chain: nth, pass: *pass, class: way.class, gate: gate.clone() });
                }
                (property::of_claimed(&seen, &self.served.chains[nth]), nth)
            }
            ClaimedBy::Nothing | ClaimedBy::NothingForItsDscp => (property::of_unclaimed(&seen, by), 0),
        };
        for fault in faults {
            self.findings.push(Finding {
                fault,
                chain,
                direction,
                gate: Some(gate.clone()),
                class: Some(way.class),
                way: Some(way.clone()),
            });
        }
    }

    /// The same for claimed packets when the programs that claim are gone from where they come in: they must still pass.
    fn without_claims(&mut self, gate: &Gate, direction: Direction, class: Class, chain: usize) {
        let is_known = self.findings.iter().any(|finding| {
            (finding.chain, finding.direction) == (chain, direction)
                && matches!(finding.fault.property, Some(Property::NoBypass | Property::Order))
        });
        if is_known || !self.is_classified(gate.place) {
            return;
        }
        let (unclaiming, home) = (Some(gate.place.node), self.served.stop(direction));
        let walker = Walker { unclaiming, home, ..Walker::new(self.fabric) };
        for way in enter(walker, gate, class) {
            if self.is_inner(direction, &way) {
                continue;
            }
            let seen = Seen::new(self.fabric, self.served, direction, gate.place, &way);
            let bypass = property::of_claimed(&seen, &self.served.chains[chain])
                .into_iter()
                .find(|fault| matches!(fault.property, Some(Property::NoBypass | Property::Order)));
            if let Some(fault) = bypass {
                let without = Some(Gone::Claims(gate.place.node));
                let fault = Fault { property: Some(Property::Degraded), what: fault.what, without };
                let (gate, class, way) = (Some(gate.clone()), Some(way.class), Some(way.clone()));
                self.findings.push(Finding { fault, chain, direction, gate, class, way });
            }
        }
    }

    /// What the paths that were taken promise.
    fn paths(&mut self) {
        let passes = std::mem::take(&mut self.passes);
        let mut done = HashSet::new();
        for taken in &passes {
            let Taken { chain, pass, .. } = taken;
            if !done.insert((*chain, pass.switch, pass.path, pass.direction)) {
                continue;
            }
            let chain = &self.served.chains[*chain];
            let faults = [
                property::unmodified(self.fabric, chain, pass),
                property::degraded(self.fabric, chain, pass),
            ];
            for fault in faults.into_iter().flatten() {
                self.findings.push(taken.finding(fault, None));
            }
        }
        let (up, down): (Vec<&Taken>, Vec<&Taken>) =
            passes.iter().partition(|taken| taken.pass.direction == Direction::Up);
        for back in &down {
            let replies_to = back.class.reply();
            for there in up.iter().filter(|there| there.chain == back.chain) {
                if let Some(flows) = there.class.intersection(&replies_to) {
                    self.same_way_back(there, back, flows);
                }
            }
        }
    }

    fn same_way_back(&mut self, there: &Taken, back: &Taken, flows: Class) {
        let examples = flows.examples(&[]);
        match property::same_way_back(self.fabric, (&there.pass, &back.pass), examples) {
            None => {}
            Some(Ok(packet)) => {
                let what = "replies pass other instances than what they answer";
                let exactly = Class::of_packet(&packet.reply());
                self.findings.push(back.finding(Fault::new(Property::SameWayBack, what), Some(exactly)));
            }
            Some(Err(what)) => {
                let fault = Fault { property: None, what, without: None };
                self.findings.push(back.finding(fault, Some(flows.reply())));
            }
        }
    }

    /// Packets with sources of the site that come in elsewhere do not get into its chains.
    fn forged(&mut self, outside: &Outside) {
        let Some(id) = self.served.id else { return };
        for prefix in &self.served.site.prefixes {
            let family = prefix.family();
            for place in outside.places_that_look_at(*prefix) {
                for (destination, gate) in outside.arrivals(place, family, self.served) {
                    let class = Class { destination: *destination, ..Class::of_end(*prefix, Direction::Up) };
                    self.classes += 1;
                    let walker =
                        Walker { home: self.served.stop(Direction::Down), ..Walker::new(self.fabric) };
                    let suspicious = walker.walk(class, place).iter().any(|way| property::enters_as(way, id));
                    if !suspicious {
                        continue;
                    }
                    // As seen from where they come in: something before may stop them.
                    for way in enter(walker, gate, class) {
                        if property::enters_as(&way, id) && !self.is_inner(Direction::Up, &way) {
                            self.intruding(gate, way);
                        }
                    }
                }
            }
            for gate in outside.tunnels_that_let_in(self.fabric, *prefix, self.served) {
                let class = Class { destination: routed(family), ..Class::of_end(*prefix, Direction::Up) };
                for way in enter(Walker::new(self.fabric), &gate, class) {
                    self.classes += 1;
                    if property::enters_as(&way, id) {
                        self.intruding(&gate, way);
                    }
                }
            }
        }
    }

    fn intruding(&mut self, gate: &Gate, way: Way) {
        let what = format!("packets with a source of the site enter its chain from {}", gate.entry);
        self.findings.push(Finding {
            fault: Fault::new(Property::Isolation, what),
            chain: 0,
            direction: Direction::Up,
            gate: Some(gate.clone()),
            class: Some(way.class),
            way: Some(way),
        });
    }

    /// Objects for the site match nothing but the site's packets, or what else they match is not led astray.
    fn strays(&mut self, intent: &Intent, outside: &Outside) {
        for stray in outside.strays.get(&self.served.site.name).into_iter().flatten() {
            for class in stray.classes(intent) {
                let gates = intent.external.iter().chain(outside.gates.iter());
                for gate in gates {
                    for way in enter(Walker::new(self.fabric), gate, class) {
                        self.classes += 1;
                        self.stray(gate, stray, way);
                    }
                }
            }
        }
    }

    fn stray(&mut self, gate: &Gate, stray: &Stray, way: Way) {
        if gate.tunnel.is_some() && gate.tunnel == self.served.id && way.end != End::Dropped(Cause::NoTunnel)
        {
            let what = "the site's tunnel lets in packets whose sources are not the site's";
            self.findings.push(stray.finding(Property::Isolation, what, gate, way));
            return;
        }
        let seen = Seen::new(self.fabric, self.served, stray.direction, gate.place, &way);
        let by_us = way.hops.iter().any(|hop| matches!(hop.by, By::Rule(_) | By::Path(_) | By::Transit(_)));
        let astray = by_us && !property::of_unclaimed(&seen, ClaimedBy::Nothing).is_empty();
        let diverted =
            astray || (!way.passes.is_empty() && by_us) || matches!(way.end, End::Dropped(Cause::NoTable));
        if diverted {
            let what = "packets that are not the site's are led the way of its chain";
            self.findings.push(stray.finding(Property::UnclaimedUntouched, what, gate, way));
        }
    }
}

impl Taken {
    fn finding(&self, fault: Fault, exactly: Option<Class>) -> Finding {
        let class = Some(exactly.unwrap_or(self.class));
        let (gate, direction) = (Some(self.gate.clone()), self.pass.direction);
        Finding { fault, chain: self.chain, direction, gate, class, way: None }
    }
}

/// The ways of packets that come in by a gate.
pub fn enter(walker: Walker, gate: &Gate, class: Class) -> Vec<Way> {
    let Some(site) = gate.tunnel else { return walker.walk(class, gate.place) };
    let refused = |class| Way {
        class,
        hops: Vec::<Hop>::new(),
        passes: Vec::new(),
        fault: None,
        end: End::Dropped(Cause::NoTunnel),
    };
    let node = walker.fabric.node(gate.place.node);
    if !node.tunnels.get(&site).is_some_and(|tunnel| has_underlay(node, tunnel)) {
        return vec![refused(class)];
    }
    let mut ways = Vec::new();
    let outside = walker
        .decapsulated(gate.place.node, site, class, |class| ways.extend(walker.walk(class, gate.place)));
    ways.extend(outside.into_iter().map(refused));
    ways
}

/// What there is besides the packets of sites with chains: where others come in, how far they get, and which objects are
/// for more than their sites.
pub struct Outside {
    /// Where packets come in that are not of the Internet.
    gates: Vec<Gate>,
    /// The places that packets come to by the owners' routing alone, with their destinations and where they came in: two
    /// gates of different sites, where there are two.
    arrivals: HashMap<Place, Arrivals>,
    /// The places where something asks for sources, by these sources.
    looking: crate::prefix_index::PrefixIndex<Place>,
    strays: BTreeMap<SiteName, Vec<Stray>>,
}

/// By destination, the gates that packets came in by.
type Arrivals = HashMap<(Family, Span<u128>), Vec<Gate>>;

/// What an object for a site matches besides the site's packets.
pub struct Stray {
    /// Sources on the way up, destinations on the way down.
    direction: Direction,
    family: Family,
    addresses: Span<u128>,
}

impl Outside {
    pub fn new(network: &Network, fabric: &Fabric, intent: &Intent) -> Self {
        let mut gates: Vec<Gate> = intent.sites.values().flat_map(|served| &served.gates).cloned().collect();
        for site in network.model.sites.values().filter(|site| !intent.sites.contains_key(&site.name)) {
            gates.extend(crate::intent::gates(network, fabric, site, None).into_iter().filter(|gate| {
                // Nothing comes out of a tunnel that nobody asked for.
                gate.entry.tunnel.is_none()
            }));
        }
        let mut outside = Self {
            arrivals: HashMap::new(),
            looking: crate::prefix_index::PrefixIndex::default(),
            strays: BTreeMap::new(),
            gates,
        };
        outside.spread(fabric, intent);
        outside.look(network, fabric, intent);
        outside
    }

    /// How far packets get by the owners' routing alone.
    fn spread(&mut self, fabric: &Fabric, intent: &Intent) {
        let walker = Walker::without_us(fabric);
        let mut seen: HashSet<Place> = HashSet::new();
        for gate in self.gates.iter().chain(&intent.external).filter(|gate| gate.tunnel.is_none()) {
            let twice = !seen.insert(gate.place);
            for family in Family::BOTH.into_iter().filter(|_| !twice) {
                let class = Class { destination: routed(family), ..Class::all(family) };
                for way in walker.walk(class, gate.place) {
                    for hop in &way.hops {
                        let known = self.arrivals.entry(hop.place).or_default();
                        let gates = known.entry((family, way.class.destination)).or_default();
                        if gates.len() < 2 && gates.iter().all(|other| other.place != gate.place) {
                            gates.push(gate.clone());
                        }
                    }
                }
            }
        }
    }

    /// Goes through all objects: which sources are asked for where, and which objects are for more than their sites.
    fn look(&mut self, network: &Network, fabric: &Fabric, intent: &Intent) {
        let sites: HashMap<_, _> = network.numbering.sites().map(|(name, id)| (id, name)).collect();
        // Tunnels whose other end is not driven: who sends into them is not under control.
        let gates = intent.sites.values().flat_map(|served| &served.gates);
        let open: HashSet<SiteId> = gates.filter_map(|gate| gate.tunnel).collect();
        for (_, node) in fabric.nodes() {
            for object in network.state.element(&node.name).iter() {
                match object {
                    Object::Rule(rule) => {
                        let owner = network.numbering.owner(rule.table).map(PathOwner::site);
                        let (from, to) = (rule.selector.from, rule.selector.to);
                        let (direction, prefix) = match (from, to) {
                            (None, Some(to)) => (Direction::Down, to),
                            (from, _) => (Direction::Up, from.unwrap_or(Prefix::all(rule.selector.family))),
                        };
                        if direction == Direction::Up {
                            self.asks(fabric, &node.name, rule.selector.in_port.as_ref(), prefix);
                        }
                        self.stray(intent, owner, direction, prefix);
                    }
                    Object::Policy(policy) => {
                        let owner = sites.get(&policy.site).copied();
                        for prefix in &policy.prefixes {
                            for ingress in node.ingresses.values() {
                                if ingress.directions.contains(&Direction::Up) {
                                    self.asks(fabric, &node.name, Some(&ingress.port), *prefix);
                                }
                            }
                            for direction in Direction::BOTH {
                                self.stray(intent, owner, direction, *prefix);
                            }
                        }
                    }
                    Object::Tunnel(tunnel) if open.contains(&tunnel.site) => {
                        let owner = sites.get(&tunnel.site).copied();
                        for prefix in &tunnel.allowed {
                            self.stray(intent, owner, Direction::Up, *prefix);
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    /// Notes that sources are asked for at a node, of what comes in by a port or by any.
    fn asks(
        &mut self,
        fabric: &Fabric,
        node: &catena_model::name::NodeName,
        port: Option<&catena_model::name::PortName>,
        prefix: Prefix,
    ) {
        let Some(id) = fabric.id(node) else { return };
        let wanted = port.map(|port| fabric.node(id).port_id(port));
        for (port, _) in fabric.node(id).ports() {
            let place = Place { node: id, port };
            if wanted.is_none_or(|wanted| wanted == Some(port)) && self.arrivals.contains_key(&place) {
                self.looking.insert(prefix, place);
            }
        }
    }

    fn stray(&mut self, intent: &Intent, owner: Option<&SiteName>, direction: Direction, prefix: Prefix) {
        let served = owner.and_then(|owner| intent.sites.get(owner));
        if served.is_some_and(|served| served.site.prefixes.iter().any(|own| own.covers(prefix))) {
            return;
        }
        // What belongs to nobody is told with the first chain there is.
        let Some(name) = served.map(|served| &served.site.name).or_else(|| intent.sites.keys().next()) else {
            return;
        };
        let stray = Stray { direction, family: prefix.family(), addresses: Span::of(prefix) };
        let strays = self.strays.entry(name.clone()).or_default();
        let known = |other: &Stray| {
            (other.direction, other.family, other.addresses)
                == (stray.direction, stray.family, stray.addresses)
        };
        if !strays.iter().any(known) {
            strays.push(stray);
        }
    }

    /// Where packets that are not the site's may come to something that asks for its sources.
    fn places_that_look_at(&self, prefix: Prefix) -> BTreeSet<Place> {
        self.looking.overlapping(prefix.family(), Span::of(prefix)).map(|found| *found.thing).collect()
    }

    /// The destinations of what comes to a place, each with where it came in, if that is not the site itself.
    fn arrivals(
        &self,
        place: Place,
        family: Family,
        served: &ServedSite,
    ) -> impl Iterator<Item = (&Span<u128>, &Gate)> {
        let own: Vec<Place> = served.gates.iter().map(|gate| gate.place).collect();
        let known = self.arrivals.get(&place).into_iter().flatten();
        known.filter(move |((of, _), _)| *of == family).filter_map(move |((_, destination), gates)| {
            Some((destination, gates.iter().find(|gate| !own.contains(&gate.place))?))
        })
    }

    /// Other sites' tunnels that let sources of this prefix in.
    fn tunnels_that_let_in(&self, fabric: &Fabric, prefix: Prefix, served: &ServedSite) -> Vec<Gate> {
        let mut gates = Vec::new();
        let ends: BTreeSet<_> =
            served.gates.iter().filter(|gate| gate.tunnel.is_some()).map(|gate| gate.place.node).collect();
        for end in ends {
            let found = fabric.node(end).tunnels_by_prefix.overlapping(prefix.family(), Span::of(prefix));
            for site in found.map(|found| *found.thing).filter(|site| Some(*site) != served.id) {
                gates.extend(self.gates.iter().find(|gate| gate.tunnel == Some(site)).cloned());
            }
        }
        gates
    }
}

impl Stray {
    /// What is matched besides the packets of sites with chains, whose ways are looked at anyway.
    fn classes(&self, intent: &Intent) -> Vec<Class> {
        let mut class = Class::all(self.family);
        match self.direction {
            Direction::Up => class.destination = routed(self.family),
            Direction::Down => class.source = routed(self.family),
        }
        *class.site_end_mut(self.direction) = self.addresses;
        let mut classes = vec![class];
        for served in intent.sites.values() {
            for prefix in served.site.prefixes.iter().filter(|prefix| prefix.family() == self.family) {
                let own = Class::of_end(*prefix, self.direction);
                if class.intersection(&own).is_some() {
                    classes = classes.into_iter().flat_map(|class| class.minus(&own)).collect();
                }
            }
        }
        classes
    }

    fn finding(&self, property: Property, what: &str, gate: &Gate, way: Way) -> Finding {
        Finding {
            fault: Fault::new(property, what),
            chain: 0,
            direction: self.direction,
            gate: Some(gate.clone()),
            class: Some(way.class),
            way: Some(way),
        }
    }
}
