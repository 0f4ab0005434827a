//! What there is besides the packets of sites with chains: what others send, and what objects match that is not their
//! site's.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use catena_model::address::{Family, Prefix};
use catena_model::forwarding::{Direction, Object, SiteId};
use catena_model::name::{PortName, SiteName};
use catena_model::resource::Site;

use crate::Network;
use crate::class::{Class, Span};
use crate::fabric::{Fabric, NodeId, Place};
use crate::intent::{Gate, Intent, ServedSite, external_gates, gates, routed};
use crate::prefix_index::PrefixIndex;
use crate::symbolic::Walker;

/// Where others' packets come in, how far they get, and which objects are for more than their sites.
pub struct Outside {
    /// Where the Internet's packets come in.
    pub external: Vec<Gate>,
    /// Where packets of sites come in that are not of the Internet; of sites without chains by cables alone.
    pub gates: Vec<Gate>,
    /// Those of them that are tunnels.
    tunnels: HashMap<SiteId, Gate>,
    /// The places that packets come to by the owners' routing alone, with their destinations and where they came in: two
    /// gates of different sites, where there are two.
    arrivals: HashMap<Place, Arrivals>,
    /// The places where something asks for sources, by these sources; a place as often as something asks there.
    looking: PrefixIndex<Place>,
    strays: BTreeMap<SiteName, Vec<Stray>>,
    /// Whose number is whose.
    names: HashMap<SiteId, SiteName>,
}

/// By destination, the gates that packets came in by.
type Arrivals = BTreeMap<(Family, Span<u128>), Vec<Gate>>;

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
        let mut outside = Self {
            external: external_gates(network, fabric),
            gates: Vec::new(),
            tunnels: HashMap::new(),
            arrivals: HashMap::new(),
            looking: PrefixIndex::default(),
            strays: BTreeMap::new(),
            names: network.numbering.sites().map(|(name, id)| (id, name.clone())).collect(),
        };
        for site in network.model.sites.values() {
            match intent.sites.get(&site.name) {
                Some(served) => outside.gates.extend(served.gates.iter().cloned()),
                // Nothing comes out of a tunnel that nobody asked for.
                None => outside.gates.extend(
                    gates(network, fabric, site, None).into_iter().filter(|gate| gate.entry.tunnel.is_none()),
                ),
            }
        }
        for served in intent.sites.values() {
            outside.serve(served);
        }
        outside.spread(fabric);
        outside.look(network, fabric, intent);
        outside
    }

    /// How far packets get by the owners' routing alone.
    fn spread(&mut self, fabric: &Fabric) {
        let walker = Walker::without_us(fabric);
        let mut seen: HashSet<Place> = HashSet::new();
        for gate in self.gates.iter().chain(&self.external).filter(|gate| gate.entry.tunnel.is_none()) {
            let twice = !seen.insert(gate.place);
            for family in Family::BOTH.into_iter().filter(|_| !twice) {
                let class = Class { destination: routed(family), ..Class::all(family) };
                for way in walker.walk(vec![class], gate.place) {
                    for (hop, class) in
                        way.hops.iter().flat_map(|hop| way.classes.iter().map(move |class| (hop, class)))
                    {
                        let known = self.arrivals.entry(hop.place).or_default();
                        let gates = known.entry((family, class.destination)).or_default();
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
        for (id, node) in fabric.nodes() {
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
                let selector = &rule.selector;
                let (direction, prefix) = match (selector.from, selector.to) {
                    (None, Some(to)) => (Direction::Down, to),
                    (from, _) => (Direction::Up, from.unwrap_or(Prefix::all(selector.family))),
                };
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
            }
        }
        if let Some(id) = served.id {
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

    /// Notes which sources an object asks for.
    pub fn note(&mut self, fabric: &Fabric, node: NodeId, object: &Object) {
        self.asks(fabric, node, object, |looking, prefix, place| looking.insert(prefix, place));
    }

    /// Takes back what was noted.
    pub fn unnote(&mut self, fabric: &Fabric, node: NodeId, object: &Object) {
        self.asks(fabric, node, object, |looking, prefix, place| {
            looking.remove(prefix, &place);
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
        let asked: Vec<(Option<&PortName>, Prefix)> = match object {
            Object::Rule(rule) => match (rule.selector.from, rule.selector.to) {
                (None, Some(_)) => Vec::new(),
                (from, _) => {
                    vec![(rule.selector.in_port.as_ref(), from.unwrap_or(Prefix::all(rule.selector.family)))]
                }
            },
            Object::Policy(policy) => {
                let up = |ingress: &&catena_model::forwarding::Ingress| {
                    ingress.directions.contains(&Direction::Up)
                };
                let ports = node.ingresses.values().filter(up).map(|ingress| &ingress.port);
                ports
                    .flat_map(|port| policy.prefixes.iter().map(move |prefix| (Some(port), *prefix)))
                    .collect()
            }
            _ => Vec::new(),
        };
        for (port, prefix) in asked {
            for place in fabric.places(id, port) {
                if self.arrivals.contains_key(&place) {
                    then(&mut self.looking, prefix, place);
                }
            }
        }
    }

    /// Where packets that are not the site's may come to something that asks for its sources.
    pub fn places_that_look_at(&self, prefix: Prefix) -> BTreeSet<Place> {
        self.looking.overlapping(prefix.family(), Span::of(prefix)).map(|found| *found.thing).collect()
    }

    /// The destinations of what comes to a place, each with where it came in, if that is not the site itself.
    pub fn arrivals(
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
    pub fn tunnels_that_let_in(&self, fabric: &Fabric, prefix: Prefix, served: &ServedSite) -> Vec<Gate> {
        let mut gates = Vec::new();
        let ends: BTreeSet<_> =
            served.gates.iter().filter(|gate| gate.tunnel.is_some()).map(|gate| gate.place.node).collect();
        for end in ends {
            let found = fabric.node(end).tunnels_by_prefix.overlapping(prefix.family(), Span::of(prefix));
            for site in found.map(|found| *found.thing).filter(|site| Some(*site) != served.id) {
                gates.extend(self.tunnels.get(&site).cloned());
            }
        }
        gates
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
                    let mut left = Vec::new();
                    classes.iter().for_each(|class| class.minus(&own, &mut left));
                    classes = left;
                }
            }
        }
        classes
    }
}
