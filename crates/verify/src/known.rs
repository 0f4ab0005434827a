//! What is known about single sites, and what it comes to.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, Hash};

use catena_model::forwarding::{Direction, SiteId};
use catena_model::name::{ChainName, SiteName};

use crate::Network;
use crate::broken::Broken;
use crate::class::Class;
use crate::example::{Examples, Found};
use crate::fabric::{Fabric, Node, NodeId, Place};
use crate::intent::ServedSite;
use crate::outside::{Outside, Stray};
use crate::quick_hash::QuickMap;
use crate::tails::Tails;
use crate::verdict::{Coverage, Report, Verdict};
use crate::verify::{SiteFindings, site};
use crate::way::{Cause, End, Way};

/// Something on the ways of a site that is not found by the site's own addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Spot {
    /// Packets in this direction come by here.
    At(Place, Direction),
    /// Packets go into tunnels here, or come out of them.
    Tunnels(NodeId),
    /// The tunnel is found by the far end's address.
    FarTunnels(NodeId),
    /// Packets leave by the exits of this site, which is another.
    Exits(NodeId, SiteId),
}

/// The spots that ways pass, each once.
#[derive(Clone, Debug, Default)]
pub struct Spots(Vec<Spot>);

impl Spots {
    pub fn pass(&mut self, way: &Way, direction: Direction) {
        let mut before: Option<NodeId> = None;
        for hop in &way.hops {
            self.insert(Spot::At(hop.place, direction));
            if let (Node::TUNNEL, Some(before)) = (hop.place.port, before) {
                self.tunnel(before, direction == Direction::Up);
                self.tunnel(hop.place.node, direction == Direction::Down);
            }
            before = Some(hop.place.node);
        }
        for pass in way.passes.iter().filter(|pass| pass.owner != pass.site) {
            self.insert(Spot::Exits(pass.switch, pass.owner));
        }
        if let (End::Site(_) | End::Dropped(Cause::NoTunnel), Some(last)) = (way.end, before) {
            self.tunnel(last, direction == Direction::Up);
        }
    }

    fn tunnel(&mut self, node: NodeId, by_far_end: bool) {
        self.insert(if by_far_end { Spot::FarTunnels(node) } else { Spot::Tunnels(node) });
    }

    fn insert(&mut self, spot: Spot) {
        // There are few.
        if !self.0.contains(&spot) {
            self.0.push(spot);
        }
    }
}

/// What is known about a site with a chain.
#[derive(Debug)]
pub struct Known {
    chains: Vec<ChainName>,
    /// Where its own packets come in.
    entries: Vec<(Place, Option<SiteId>)>,
    classes: usize,
    found: Found,
    spots: Vec<Spot>,
}

impl Known {
    /// Looks at a site.
    pub fn new(
        network: &Network,
        fabric: &Fabric,
        tails: &Tails,
        outside: &Outside,
        served: &ServedSite,
        strays: &[(Stray, Vec<Class>)],
    ) -> Self {
        let SiteFindings { mut findings, classes, mut spots } = site(fabric, tails, outside, served, strays);
        let mut found = Found::default();
        if !findings.is_empty() {
            let mut examples = Examples::new(network, fabric);
            examples.sort(&mut findings);
            for finding in findings {
                examples.add(served, finding);
            }
            found = examples.finish();
        }
        spots.0.sort_unstable();
        Self {
            chains: served.chains.iter().map(|served| served.chain.name.clone()).collect(),
            entries: served.gates.iter().map(|gate| (gate.place, gate.tunnel)).collect(),
            classes,
            found,
            spots: spots.0,
        }
    }

    fn is_by_own_router(&self) -> bool {
        self.entries.iter().any(|(_, tunnel)| tunnel.is_some())
    }

    pub fn spots(&self) -> &[Spot] {
        &self.spots
    }
}

/// What is known about all sites, counted.
#[derive(Debug, Default)]
pub struct Summary {
    /// Where packets come in by a cable, also of the Internet and of sites without chains.
    others: HashSet<(Place, Option<SiteId>)>,
    sites: usize,
    /// Sites whose packets come out of tunnels that nobody knows the other end of.
    by_own_router: usize,
    classes: usize,
    /// How many sites have each.
    chains: HashMap<ChainName, usize>,
    entries: QuickMap<(Place, Option<SiteId>), usize>,
    found: BTreeMap<SiteName, Found>,
}

impl Summary {
    pub fn new(outside: &Outside) -> Self {
        let by_cable = outside.entries().iter().filter(|gate| gate.entry.tunnel.is_none());
        let others = by_cable.map(|gate| (gate.place, gate.tunnel)).collect();
        Self { others, ..Self::default() }
    }

    pub fn add(&mut self, name: &SiteName, known: &Known) {
        self.sites += 1;
        self.by_own_router += usize::from(known.is_by_own_router());
        self.classes += known.classes;
        for chain in &known.chains {
            *self.chains.entry(chain.clone()).or_default() += 1;
        }
        for entry in &known.entries {
            *self.entries.entry(*entry).or_default() += 1;
        }
        match known.found.is_empty() {
            true => drop(self.found.remove(name)),
            false => drop(self.found.insert(name.clone(), known.found.clone())),
        }
    }

    /// Takes away what was known of a site of which more is known now.
    pub fn replaced(&mut self, known: &Known) {
        self.sites -= 1;
        self.by_own_router -= usize::from(known.is_by_own_router());
        self.classes -= known.classes;
        for chain in &known.chains {
            less(&mut self.chains, chain);
        }
        for entry in &known.entries {
            less(&mut self.entries, entry);
        }
    }

    pub fn remove(&mut self, name: &SiteName, known: &Known) {
        self.replaced(known);
        self.found.remove(name);
    }

    /// Of all sites, in their order.
    pub fn broken(&self) -> impl Iterator<Item = &Broken> {
        self.found.values().flat_map(|found| &found.broken)
    }

    fn except(&self) -> Vec<String> {
        if self.sites == 0 {
            return Vec::new();
        }
        let routers = (self.by_own_router > 0).then_some(Coverage::EXCEPT_ROUTERS);
        Coverage::EXCEPT.into_iter().chain(routers).map(str::to_owned).collect()
    }

    pub fn report(&self) -> Report {
        let others = self.others.iter().filter(|entry| !self.entries.contains_key(entry)).count();
        let coverage = Coverage {
            chains: self.chains.len(),
            sites: self.sites,
            entries: if self.sites == 0 { 0 } else { self.entries.len() + others },
            classes: self.classes,
            except: self.except(),
        };
        let mut all = Found::default();
        for found in self.found.values() {
            all.violations.extend_from_slice(&found.violations);
            all.undecided.extend_from_slice(&found.undecided);
        }
        let Found { mut violations, undecided, .. } = all;
        violations.sort_by_key(|found| (found.chain.clone(), found.site.clone(), found.property));
        let verdict = match (violations.is_empty(), undecided.is_empty()) {
            (false, _) => Verdict::Violated,
            (true, false) => Verdict::Undecided,
            (true, true) => Verdict::Proven,
        };
        Report { verdict, coverage, violations, undecided }
    }
}

fn less<K: Eq + Hash>(counts: &mut HashMap<K, usize, impl BuildHasher>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
