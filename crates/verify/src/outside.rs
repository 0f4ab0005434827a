//! What there is besides the packets of sites with chains: what others send, and what objects match that is not their
//! site's.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use catena_model::address::{Family, Prefix};
use catena_model::base::{NewAddress, Translation, TranslationHook};
use catena_model::forwarding::{Direction, Object, Selector, SiteId};
use catena_model::name::{NodeName, PortName, SiteName};
use catena_model::resource::{Engine, Site};

use crate::Network;
use crate::class::{Class, Kinds, Span};
use crate::fabric::{Fabric, Node, NodeId, Place, PortId};
use crate::intent::{Gate, Intent, ServedSite, external_gates, gates};
use crate::prefix_index::PrefixIndex;
use crate::quick_hash::QuickMap;
use crate::symbolic::{Translating, Walker};

/// Where others' packets come in, how far they get, and which objects are for more than their sites.
pub struct Outside {
    /// All places where packets come in: the Internet's first; then those of sites, and of the provider's own hosts.
    entries: Vec<Gate>,
    external: usize,
    /// Where packets may leave with other sources, and replies are for the old ones again from there on; but for the way out.
    hiding: Vec<Gate>,
    /// What may give packets other addresses than the element's own.
    disguising: Vec<(NodeName, Translation)>,
    /// What may hide packets behind a site's address where programs see replies before they are translated back.
    confusing: Vec<(NodeName, Translation)>,
    /// The sites whose packets come in at an entry.
    owners: QuickMap<(Place, Option<SiteId>), Vec<SiteId>>,
    /// The tunnels that sites' packets come out of, and where they end.
    tunnels: QuickMap<SiteId, Gate>,
    tunnel_ends: BTreeSet<NodeId>,
    /// What comes to a place by the owners' routing alone.
    arrivals: QuickMap<Place, Vec<Arrivals>>,
    /// The places where something asks for sources, by these sources; a place as often as something asks there.
    asking_sources: PrefixIndex<Place>,
    /// The same by destinations, where not only the Internet's packets come.
    asking_destinations: PrefixIndex<Place>,
    /// The ports that are said to be a site's, whatever comes in by them.
    ports_of_sites: QuickMap<SiteId, Vec<Place>>,
    strays: BTreeMap<SiteName, Vec<Stray>>,
    /// Whose number is whose.
    names: QuickMap<SiteId, SiteName>,
}

/// Packets, but no ICMP errors, that come to a place from some entries: with all these sources, and at most these destinations.
struct Arrivals {
    family: Family,
    source: Span<u128>,
    /// Disjoint, in order.
    destinations: Vec<Span<u128>>,
    /// Where they came in, by number.
    entries: Vec<usize>,
}

/// Packets at a place that are to be looked at, and the entries that they may have come in by.
pub struct Suspects<'o> {
    pub place: Place,
    pub classes: Vec<Class>,
    pub entries: Vec<&'o Gate>,
}

/// What an object for a site matches besides the site's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stray {
    /// Sources on the way up, destinations on the way down.
    pub direction: Direction,
    family: Family,
    addresses: Span<u128>,
}

/// The addresses that an object is for.
pub struct Claimed {
    /// Whose object it is.
    pub owner: Option<SiteName>,
    pub direction: Direction,
    pub prefix: Prefix,
}

impl Outside {
    pub fn new(network: &Network, fabric: &Fabric, intent: &Intent) -> Self {
        let external = external_gates(network, fabric);
        let mut outside = Self {
            external: external.len(),
            entries: external,
            hiding: hiding_places(fabric).map(|place| Gate::at(fabric, place)).collect(),
            disguising: translations(network, fabric, disguises),
            confusing: translations(network, fabric, |node, port, translation| {
                confuses(node, port, translation)
                    && network.model.sites.values().any(|site| may_give(translation, site))
            }),
            owners: QuickMap::default(),
            tunnels: QuickMap::default(),
            tunnel_ends: BTreeSet::new(),
            arrivals: QuickMap::default(),
            asking_sources: PrefixIndex::default(),
            asking_destinations: PrefixIndex::default(),
            ports_of_sites: QuickMap::default(),
            strays: BTreeMap::new(),
            names: network.numbering.sites().map(|(name, id)| (id, name.clone())).collect(),
        };
        for site in network.model.sites.values() {
            match intent.sites.get(&site.name) {
                Some(served) => outside.entries.extend(served.gates.iter().cloned()),
                // Nothing comes out of a tunnel that nobody asked for.
                None => outside.entries.extend(
                    gates(network, fabric, site, None).into_iter().filter(|gate| gate.entry.tunnel.is_none()),
                ),
            }
        }
        let known: HashSet<Place> = outside.entries.iter().map(|gate| gate.place).collect();
        let hosts = fabric.places_of_hosts().filter(|place| !known.contains(place));
        outside.entries.extend(hosts.map(|place| Gate::at(fabric, place)));
        for served in intent.sites.values() {
            outside.serve(served);
        }
        outside.spread(fabric);
        outside.look(network, fabric, intent);
        outside
    }

    /// Where the Internet's packets come in.
    pub fn external(&self) -> &[Gate] {
        &self.entries[..self.external]
    }

    /// The place as one where replies come in that were translated back there.
    pub fn hiding(&self, place: Place) -> Option<&Gate> {
        self.hiding.iter().find(|gate| gate.place == place)
    }

    /// Who may give others' packets an address of the site's on their way, and by which rule.
    pub fn disguising<'o>(&'o self, site: &'o Site) -> impl Iterator<Item = &'o (NodeName, Translation)> {
        self.disguising.iter().filter(move |(_, translation)| may_give(translation, site))
    }

    /// Who may have replies to the site taken for another one's, and by which rule.
    pub fn confusing<'o>(&'o self, site: &'o Site) -> impl Iterator<Item = &'o (NodeName, Translation)> {
        let is_for = |Translation { family, from, .. }: &Translation, own: &Prefix| {
            family.is_none_or(|family| family == own.family()) && from.is_none_or(|from| from.overlaps(*own))
        };
        let hides = move |translation: &Translation| site.prefixes.iter().any(|own| is_for(translation, own));
        self.confusing.iter().filter(move |(_, translation)| hides(translation))
    }

    /// Where any packets come in: of sites without chains by cables alone.
    pub fn entries(&self) -> &[Gate] {
        &self.entries
    }

    /// How far packets get by the owners' routing alone; of ICMP errors it is not asked.
    fn spread(&mut self, fabric: &Fabric) {
        type Spread = (Vec<Span<u128>>, Vec<usize>);
        let walker = Walker { translating: Translating::Ignored, ..Walker::without_us(fabric) };
        let mut seen: HashSet<Place> = HashSet::new();
        let mut spread: BTreeMap<(Place, Family, Span<u128>), Spread> = BTreeMap::new();
        for (nth, gate) in self.entries.iter().enumerate() {
            if gate.entry.tunnel.is_some() || !seen.insert(gate.place) {
                continue;
            }
            for family in Family::BOTH {
                let classes = Class::routed(family).iter().filter_map(Class::without_errors).collect();
                for way in walker.walk(classes, gate.place) {
                    for place in way.hops.iter().map(|hop| hop.place) {
                        for class in &way.classes {
                            let (destinations, entries) =
                                spread.entry((place, family, class.source)).or_default();
                            destinations.push(class.destination);
                            if entries.last() != Some(&nth) {
                                entries.push(nth);
                            }
                        }
                    }
                }
            }
        }
        for ((place, family, source), (destinations, entries)) in spread {
            let destinations = joined(destinations);
            self.arrivals.entry(place).or_default().push(Arrivals { family, source, destinations, entries });
        }
    }

    /// Goes through all objects: which addresses are asked for where, and which objects are for more than their sites.
    fn look(&mut self, network: &Network, fabric: &Fabric, intent: &Intent) {
        for (id, node) in fabric.nodes() {
            for (port, ingress) in &node.ingresses {
                if let Some(site) = ingress.site {
                    self.ports_of_sites.entry(site).or_default().push(Place { node: id, port: *port });
                }
            }
            for object in network.state.element(&node.name).iter() {
                self.note(fabric, id, object);
                for claimed in self.claimed_by(network, object) {
                    let served = claimed.owner.as_ref().and_then(|owner| intent.sites.get(owner));
                    let open =
                        served.is_some_and(|served| served.gates.iter().any(|gate| gate.tunnel.is_some()));
                    // Of tunnels whose other end is driven it is known who sends into them.
                    let is_looked_at = open || !matches!(object, Object::Tunnel(_));
                    if is_looked_at && !served.is_some_and(|served| claimed.is_within(served.site)) {
                        self.stray(intent, &claimed);
                    }
                }
            }
        }
    }

    /// All addresses that an object is for. Of a tunnel it is those that it lets in.
    pub fn claimed_by(&self, network: &Network, object: &Object) -> Vec<Claimed> {
        let name = |id: SiteId| match self.names.get(&id) {
            Some(name) => Some(name.clone()),
            None => network.numbering.site_name(id).cloned(),
        };
        match object {
            Object::Rule(rule) => {
                let owner = network.numbering.owner(rule.table).map(|owner| owner.site().clone());
                let (direction, prefix) = asked_by(&rule.selector);
                vec![Claimed { owner, direction, prefix }]
            }
            Object::Policy(policy) => {
                let owner = name(policy.site);
                let both = policy.prefixes.iter().flat_map(|prefix| {
                    Direction::BOTH.map(|direction| Claimed {
                        owner: owner.clone(),
                        direction,
                        prefix: *prefix,
                    })
                });
                both.collect()
            }
            Object::Tunnel(tunnel) => {
                let owner = name(tunnel.site);
                let all = tunnel.allowed.iter();
                all.map(|prefix| Claimed { owner: owner.clone(), direction: Direction::Up, prefix: *prefix })
                    .collect()
            }
            _ => Vec::new(),
        }
    }

    fn stray(&mut self, intent: &Intent, claimed: &Claimed) {
        // What belongs to nobody is told with the first chain there is.
        let served = claimed.owner.as_ref().filter(|owner| intent.sites.contains_key(*owner));
        let Some(name) = served.or_else(|| intent.sites.keys().next()) else { return };
        let stray = Stray {
            direction: claimed.direction,
            family: claimed.prefix.family(),
            addresses: Span::of(claimed.prefix),
        };
        let strays = self.strays.entry(name.clone()).or_default();
        if !strays.contains(&stray) {
            strays.push(stray);
        }
    }

    /// Whether objects are for more than their sites.
    pub fn has_strays(&self) -> bool {
        !self.strays.is_empty()
    }

    /// What objects match that is not their site's, by the site that it is told with, and these packets: but those of sites
    /// with chains, whose ways are looked at anyway.
    pub fn strays(&self, intent: &Intent) -> BTreeMap<SiteName, Vec<(Stray, Vec<Class>)>> {
        let classes =
            |strays: &Vec<Stray>| strays.iter().map(|stray| (*stray, stray.classes(intent))).collect();
        self.strays.iter().map(|(name, strays)| (name.clone(), classes(strays))).collect()
    }

    /// A site with a chain may get packets out of its tunnel.
    pub fn serve(&mut self, served: &ServedSite) {
        for gate in &served.gates {
            if let Some(site) = gate.tunnel {
                self.tunnels.insert(site, gate.clone());
                self.tunnel_ends.insert(gate.place.node);
            }
        }
        if let Some(id) = served.id {
            for gate in &served.gates {
                let owners = self.owners.entry((gate.place, gate.tunnel)).or_default();
                if !owners.contains(&id) {
                    owners.push(id);
                }
            }
            self.names.insert(id, served.site.name.clone());
        }
    }

    /// The site with this number, if it is known.
    pub fn name(&self, id: SiteId) -> Option<&SiteName> {
        self.names.get(&id)
    }

    pub fn serve_no_longer(&mut self, site: SiteId) {
        self.tunnels.remove(&site);
    }

    /// Notes which addresses an object asks for.
    pub fn note(&mut self, fabric: &Fabric, node: NodeId, object: &Object) {
        self.asks(fabric, node, object, |asking, prefix, place| asking.insert(prefix, place));
    }

    /// Takes back what was noted.
    pub fn unnote(&mut self, fabric: &Fabric, node: NodeId, object: &Object) {
        self.asks(fabric, node, object, |asking, prefix, place| {
            asking.remove(prefix, &place);
        });
    }

    fn asks(
        &mut self,
        fabric: &Fabric,
        id: NodeId,
        object: &Object,
        then: impl Fn(&mut PrefixIndex<Place>, Prefix, Place),
    ) {
        let node = fabric.node(id);
        let asked: Vec<(Option<&PortName>, Direction, Prefix)> = match object {
            Object::Rule(rule) => {
                let (direction, prefix) = asked_by(&rule.selector);
                vec![(rule.selector.in_port.as_ref(), direction, prefix)]
            }
            Object::Policy(policy) => {
                let ports = node.ingresses.values().flat_map(|ingress| {
                    ingress.directions.iter().map(move |direction| (&ingress.port, *direction))
                });
                let prefixes = |(port, direction)| {
                    policy.prefixes.iter().map(move |prefix| (Some(port), direction, *prefix))
                };
                ports.flat_map(prefixes).collect()
            }
            _ => Vec::new(),
        };
        for (port, direction, prefix) in asked {
            for place in fabric.places(id, port) {
                let Some(arrivals) = self.arrivals.get(&place) else { continue };
                match direction {
                    Direction::Up => then(&mut self.asking_sources, prefix, place),
                    Direction::Down if arrivals.iter().any(|there| !self.is_of_the_internet(there)) => {
                        then(&mut self.asking_destinations, prefix, place);
                    }
                    Direction::Down => {}
                }
            }
        }
    }

    /// Whether packets came in where the Internet's do, and nowhere else.
    fn is_of_the_internet(&self, arrivals: &Arrivals) -> bool {
        arrivals.entries.iter().all(|entry| *entry < self.external)
    }

    /// Packets with sources of the prefix that come to something which asks for them, and may not be the site's own.
    pub fn forged(&self, prefix: Prefix, served: &ServedSite) -> Vec<Suspects<'_>> {
        let own = Class::of_end(prefix, Direction::Up);
        let places: BTreeSet<Place> = places_of(&self.asking_sources, prefix);
        let others = places.into_iter().map(|place| {
            self.suspects(place, own, |entry| !served.gates.iter().any(|gate| gate.place == entry.place))
        });
        others.flatten().collect()
    }

    /// Packets to destinations of the prefix that come, not from the Internet, to something which asks for them.
    pub fn addressed(&self, prefix: Prefix) -> Vec<Suspects<'_>> {
        let to_site = Class::of_end(prefix, Direction::Down);
        let external: HashSet<Place> = self.external().iter().map(|gate| gate.place).collect();
        let places: BTreeSet<Place> = places_of(&self.asking_destinations, prefix);
        let others = places
            .into_iter()
            .map(|place| self.suspects(place, to_site, |entry| !external.contains(&entry.place)));
        others.flatten().collect()
    }

    /// Packets of others that come in by ports which are said to be the site's.
    pub fn at_ports_of(&self, served: &ServedSite) -> Vec<Suspects<'_>> {
        let places = served.id.and_then(|id| self.ports_of_sites.get(&id)).into_iter().flatten();
        let at = places.flat_map(|place| Family::BOTH.map(|family| (*place, Class::all(family))));
        let others = at.map(|(place, class)| {
            self.suspects(place, class, |entry| !served.gates.iter().any(|gate| gate.place == entry.place))
        });
        others.flatten().collect()
    }

    /// Whether ports are said to be sites': then it is not by addresses that it is told what changes are about.
    pub fn has_ports_of_sites(&self) -> bool {
        !self.ports_of_sites.is_empty()
    }

    /// Those of `class` that come to a place, from some entry that `is_meant`.
    fn suspects(&self, place: Place, class: Class, is_meant: impl Fn(&Gate) -> bool) -> Option<Suspects<'_>> {
        let mut suspects = Suspects { place, classes: Vec::new(), entries: Vec::new() };
        for arrivals in self.arrivals.get(&place)? {
            let come = arrivals.classes().filter_map(|there| there.intersection(&class));
            let before = suspects.classes.len();
            suspects.classes.extend(come);
            let entries =
                arrivals.entries.iter().map(|nth| &self.entries[*nth]).filter(|entry| is_meant(entry));
            let known = suspects.entries.len();
            if suspects.classes.len() > before {
                suspects.entries.extend(entries);
            }
            if suspects.entries.len() == known {
                suspects.classes.truncate(before);
            }
        }
        (!suspects.classes.is_empty()).then_some(suspects)
    }

    /// Whether packets that come in here are a site's.
    pub fn is_owner(&self, gate: &Gate, site: SiteId) -> bool {
        self.owners.get(&(gate.place, gate.tunnel)).is_some_and(|owners| owners.contains(&site))
    }

    /// Other sites' tunnels that let sources of this prefix in.
    pub fn tunnels_that_let_in(&self, fabric: &Fabric, prefix: Prefix, served: &ServedSite) -> Vec<Gate> {
        let mut gates = Vec::new();
        for end in &self.tunnel_ends {
            let found = fabric.node(*end).tunnels_by_prefix.overlapping(prefix.family(), Span::of(prefix));
            for site in found.map(|found| *found.thing).filter(|site| Some(*site) != served.id) {
                gates.extend(self.tunnels.get(&site).filter(|gate| gate.place.node == *end).cloned());
            }
        }
        gates
    }
}

impl Arrivals {
    fn classes(&self) -> impl Iterator<Item = Class> {
        let Self { family, source, .. } = *self;
        self.destinations.iter().map(move |destination| Class {
            kinds: Kinds::OF_FLOWS,
            source,
            destination: *destination,
            ..Class::all(family)
        })
    }
}

fn hiding_places(fabric: &Fabric) -> impl Iterator<Item = Place> {
    let routed = fabric.nodes().filter(|(_, node)| node.engine != Engine::Steer);
    routed.flat_map(|(id, node)| {
        let hides = |port| {
            let any = |family| {
                node.translations.iter().any(|known| known.is_at(TranslationHook::Leaving, family, port))
            };
            Family::BOTH.into_iter().any(any) && !node.returns_translated(port)
        };
        let ports = node.ports().map(|(port, _)| port).filter(move |port| hides(*port));
        ports.map(move |port| Place { node: id, port })
    })
}

/// What owners do to packets at some port by which they come in or leave.
fn translations(
    network: &Network,
    fabric: &Fabric,
    is_meant: impl Fn(&Node, PortId, &Translation) -> bool,
) -> Vec<(NodeName, Translation)> {
    let mut found = Vec::new();
    for (name, base) in network.base {
        let Some(node) = fabric.id(name).map(|id| fabric.node(id)) else { continue };
        let is_met = |translation: &&Translation| {
            node.ports().any(|(id, port)| {
                (id == Node::TUNNEL || port.cable.is_some())
                    && translation.port.as_ref().is_none_or(|own| *own == port.name)
                    && is_meant(node, id, translation)
            })
        };
        found.extend(base.translations.iter().filter(is_met).map(|known| (name.clone(), known.clone())));
    }
    found
}

/// Whether packets are given others' addresses. Who leaves towards the Internet, and gets its answers back as before, is taken for
/// nobody else in here.
fn disguises(node: &Node, port: PortId, translation: &Translation) -> bool {
    let leaves = translation.hook == TranslationHook::Leaving && node.returns_translated(port);
    translation.into != NewAddress::Own && !leaves
}

/// Whether a program sees whom replies are addressed to in the place of whom they are for: what it releases for the one stays released
/// for the other.
fn confuses(node: &Node, port: PortId, translation: &Translation) -> bool {
    let leaves = translation.hook == TranslationHook::Leaving && node.returns_translated(port);
    translation.into != NewAddress::Own && leaves && node.ingresses.contains_key(&port)
}

fn may_give(translation: &Translation, site: &Site) -> bool {
    site.prefixes.iter().any(|own| translation.may_give(*own))
}

fn places_of(asking: &PrefixIndex<Place>, prefix: Prefix) -> BTreeSet<Place> {
    asking.overlapping(prefix.family(), Span::of(prefix)).map(|found| *found.thing).collect()
}

/// The same addresses by as few spans as can be.
fn joined(mut spans: Vec<Span<u128>>) -> Vec<Span<u128>> {
    spans.sort_unstable();
    let mut joined: Vec<Span<u128>> = Vec::new();
    for span in spans {
        match joined.last_mut() {
            Some(last) if span.first <= last.last.saturating_add(1) => last.last = last.last.max(span.last),
            _ => joined.push(span),
        }
    }
    joined
}

/// Which end of packets a rule asks for, and which addresses there.
fn asked_by(selector: &Selector) -> (Direction, Prefix) {
    match (selector.from, selector.to) {
        (None, Some(to)) => (Direction::Down, to),
        (from, _) => (Direction::Up, from.unwrap_or(Prefix::all(selector.family))),
    }
}

impl Claimed {
    /// Whether all these addresses are the site's.
    pub fn is_within(&self, site: &Site) -> bool {
        site.prefixes.iter().any(|own| own.covers(self.prefix))
    }
}

impl Stray {
    /// What is matched besides the packets of sites with chains.
    fn classes(&self, intent: &Intent) -> Vec<Class> {
        let routed = Class::routed(self.family).into_iter().map(|class| class.seen_from_site(self.direction));
        let of_stray = |class: Class| {
            let mut class = Class { kinds: Kinds::OF_FLOWS, ..class };
            *class.site_end_mut(self.direction) = self.addresses;
            class
        };
        let mut classes: Vec<Class> = routed.map(of_stray).collect();
        for served in intent.sites.values() {
            for prefix in served.site.prefixes.iter().filter(|prefix| prefix.family() == self.family) {
                let own = Class::of_end(*prefix, self.direction);
                if classes.iter().any(|class| class.intersection(&own).is_some()) {
                    let mut left = Vec::new();
                    for class in &classes {
                        class.split(&own, &mut left);
                    }
                    classes = left;
                }
            }
        }
        classes
    }
}
