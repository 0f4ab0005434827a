//! The verifier that remembers: after a change it looks again only at the sites that the change can be about.
//!
//! A site's ways are made of what is found by the site's own addresses: rules, policies and tunnels for its prefixes. An
//! object can be about a site only if it is for addresses that overlap the site's, or if it stands where the site's packets
//! come by and asks for the far end's addresses; what a site's ways pass is noted as [`Spot`]s. Everything that could be
//! about all sites is looked at from the beginning: see [`Touched`].

use std::collections::{BTreeMap, BTreeSet, HashMap};

use catena_model::address::{Family, Prefix};
use catena_model::forwarding::{
    Direction, ElementState, Ingress, InstanceId, Key, Object, PathId, Policy, Selector, SiteId, Tunnel,
};
use catena_model::name::{ChainName, InstanceName, NodeName, SiteName};
use catena_model::numbering::{Numbering, PathOwner};
use catena_model::resource::{Chain, Model, Role};

use crate::Network;
use crate::broken::Broken;
use crate::class::Span;
use crate::fabric::{Fabric, Node, NodeId, Place, are_for_the_same};
use crate::intent::{Intent, ServedSite};
use crate::known::{Known, Spot, Summary};
use crate::outside::Outside;
use crate::prefix_index::PrefixIndex;
use crate::quick_hash::QuickMap;
use crate::tails::Tails;
use crate::verdict::Report;

/// What may be different since the last look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Elements, hosts, links, functions, tenants, sites, or the owners' routing: all is looked at from the beginning, as
    /// it is when ports are classified otherwise or an instance changes.
    pub inventory: bool,
    /// Also those of sites that were given a number.
    pub chains: BTreeSet<ChainName>,
    pub objects: BTreeSet<(NodeName, Key)>,
}

impl Touched {
    /// All that two networks differ in.
    pub fn between(old: &Network, new: &Network) -> Self {
        let same = same_inventory(old.model, new.model) && old.base == new.base;
        let mut touched =
            Self { inventory: !same || Renamed::between(old, new).is_used(old, new), ..Self::default() };
        let renumbered: BTreeSet<&SiteName> = new
            .numbering
            .sites()
            .filter(|(name, id)| old.numbering.site_id(name) != Some(*id))
            .map(|(name, _)| name)
            .collect();
        let of_renumbered = |chain: &&Chain| chain.sites.iter().any(|site| renumbered.contains(site));
        let chains = new.model.chains.values().filter(of_renumbered);
        touched.chains.extend(chains.map(|chain| chain.name.clone()));
        for (a, b) in [(old, new), (new, old)] {
            let chains =
                a.model.chains.iter().filter(|(name, chain)| b.model.chains.get(*name) != Some(*chain));
            touched.chains.extend(chains.map(|(name, _)| name.clone()));
            for (name, element) in &a.state.elements {
                let there: &ElementState = b.state.element(name);
                let differ = element.iter().filter(|object| !there.contains(object));
                touched.objects.extend(differ.map(|object| (name.clone(), object.key())));
            }
        }
        touched
    }
}

/// Numbers that are not whose they were.
struct Renamed {
    sites: BTreeSet<SiteId>,
    paths: BTreeSet<PathId>,
    instances: BTreeSet<InstanceId>,
}

impl Renamed {
    fn between(old: &Network, new: &Network) -> Self {
        let [a, b] = [old.numbering, new.numbering];
        let sites = |numbering: &Numbering| numbering.sites().map(|(name, id)| (id, name.clone())).collect();
        let instances =
            |numbering: &Numbering| numbering.instances().map(|(name, id)| (id, name.clone())).collect();
        let paths = |numbering: &Numbering| numbering.paths().map(|(id, of)| (id, of.clone())).collect();
        Self {
            sites: differing::<_, SiteName>(sites(a), sites(b)),
            paths: differing::<_, PathOwner>(paths(a), paths(b)),
            instances: differing::<_, InstanceName>(instances(a), instances(b)),
        }
    }

    /// Whether something that is as it was has such a number: it may be another's now.
    fn is_used(&self, old: &Network, new: &Network) -> bool {
        if self.sites.is_empty() && self.paths.is_empty() && self.instances.is_empty() {
            return false;
        }
        new.state.elements.iter().any(|(name, element)| {
            let before = old.state.element(name);
            element.iter().any(|object| self.has(object) && before.contains(object))
        })
    }

    fn has(&self, object: &Object) -> bool {
        match object {
            Object::Rule(rule) => self.paths.contains(&rule.table),
            Object::Table(table) => self.paths.contains(&table.path),
            Object::Policy(policy) => self.sites.contains(&policy.site),
            Object::Path(path) => self.paths.contains(&path.id) || self.sites.contains(&path.site),
            Object::Tunnel(tunnel) => self.sites.contains(&tunnel.site),
            Object::Ingress(ingress) => ingress.site.is_some_and(|site| self.sites.contains(&site)),
            Object::Instance(instance) => self.instances.contains(&instance.id),
        }
    }
}

/// The keys that are in one of two maps alone, or mean different things.
fn differing<K: Ord + Copy, V: Eq>(a: BTreeMap<K, V>, b: BTreeMap<K, V>) -> BTreeSet<K> {
    let keys = a.keys().chain(b.keys()).copied();
    keys.filter(|key| a.get(key) != b.get(key)).collect()
}

fn same_inventory(a: &Model, b: &Model) -> bool {
    a.elements == b.elements
        && a.hosts == b.hosts
        && a.links == b.links
        && a.functions == b.functions
        && a.tenants == b.tenants
        && a.sites == b.sites
}

/// What holds of all chains, kept up to date change by change. Its report is always the one that [`verify`](crate::verify())
/// would give.
pub struct Verifier {
    fabric: Fabric,
    tails: Tails,
    outside: Outside,
    /// The sites that have a chain.
    sites: HashMap<SiteName, Known>,
    by_prefix: PrefixIndex<SiteName>,
    chains_of: HashMap<SiteName, BTreeSet<ChainName>>,
    sites_of: HashMap<ChainName, BTreeSet<SiteName>>,
    /// Whose ways pass where.
    passing: QuickMap<Spot, BTreeSet<SiteName>>,
    /// For how many addresses of packets each site's objects are.
    owned: HashMap<SiteName, usize>,
    summary: Summary,
    report: Report,
    looked_at: usize,
}

impl Verifier {
    /// Looks at everything.
    pub fn new(network: &Network) -> Self {
        let fabric = Fabric::new(network);
        let intent = Intent::new(network, &fabric);
        let outside = Outside::new(network, &fabric, &intent);
        let summary = Summary::new(&outside);
        let mut verifier = Self {
            fabric,
            tails: Tails::default(),
            outside,
            sites: HashMap::new(),
            by_prefix: PrefixIndex::default(),
            chains_of: HashMap::new(),
            sites_of: HashMap::new(),
            passing: QuickMap::default(),
            owned: HashMap::new(),
            report: summary.report(),
            summary,
            looked_at: intent.sites.len(),
        };
        verifier.count_objects(network);
        for chain in network.model.chains.keys() {
            verifier.know_chain(network, chain);
        }
        let strays = verifier.outside.strays(&intent);
        let mut all = Vec::with_capacity(intent.sites.len());
        for (name, served) in &intent.sites {
            let strays = strays.get(name).map(Vec::as_slice).unwrap_or_default();
            let known =
                Known::new(network, &verifier.fabric, &verifier.tails, &verifier.outside, served, strays);
            all.push((served, known));
        }
        for (served, known) in all {
            verifier.keep(served, known);
        }
        verifier.report = verifier.summary.report();
        verifier
    }

    /// What holds as of the last look.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// All that is broken as of the last look, with all packets for which it is.
    pub fn broken(&self) -> impl Iterator<Item = &Broken> {
        self.summary.broken()
    }

    /// How many sites the last look was at.
    pub fn looked_at(&self) -> usize {
        self.looked_at
    }

    /// Looks again at what may be different: `network` is what there is now, `touched` names at least all that changed.
    pub fn update(&mut self, network: &Network, touched: &Touched) -> &Report {
        match self.follow(network, touched) {
            Some(sites) => {
                for name in &sites {
                    self.look_again(network, name);
                }
                self.report = self.summary.report();
                self.looked_at = sites.len();
            }
            None => *self = Self::new(network),
        }
        &self.report
    }

    /// Brings what is known of the network up to date, and says which sites the change can be about; `None`: all.
    fn follow(&mut self, network: &Network, touched: &Touched) -> Option<BTreeSet<SiteName>> {
        // Without any chain nobody is told what objects are for more than their sites.
        let by_addresses = !self.outside.has_strays() && !self.outside.has_ports_of_sites();
        if touched.inventory || self.sites.is_empty() || !by_addresses {
            return None;
        }
        let mut sites = BTreeSet::new();
        for chain in &touched.chains {
            sites.extend(self.follow_chain(network, chain));
        }
        let intended = sites.clone();
        for name in &intended {
            self.follow_service(network, name, &mut sites)?;
        }
        let objects: Vec<&(NodeName, Key)> = touched.objects.iter().collect();
        for of_element in objects.chunk_by(|(one, _), (other, _)| one == other) {
            self.follow_element(network, of_element, &mut sites)?;
        }
        // What is left of a site without chains is somebody else's from now on.
        let is_over = |name: &SiteName| !self.chains_of.contains_key(name) && self.owns(name);
        (!intended.iter().any(is_over)).then_some(sites)
    }

    /// A site that gets its first chain, or loses its last one, lets packets out of its tunnel or no longer does.
    fn follow_service(
        &mut self,
        network: &Network,
        name: &SiteName,
        sites: &mut BTreeSet<SiteName>,
    ) -> Option<()> {
        let is_served = self.chains_of.contains_key(name) && network.model.sites.contains_key(name);
        if self.sites.contains_key(name) == is_served {
            return Some(());
        }
        match self.served(network, name) {
            // What was there before it was somebody else's.
            Some(_) if self.owns(name) => return None,
            Some(served) => self.outside.serve(&served),
            None => {
                if let Some(id) = network.numbering.site_id(name) {
                    self.outside.serve_no_longer(id);
                }
            }
        }
        for prefix in network.model.sites.get(name).into_iter().flat_map(|site| &site.prefixes) {
            self.overlapping(*prefix, sites);
        }
        Some(())
    }

    /// Objects of one element.
    fn follow_element(
        &mut self,
        network: &Network,
        objects: &[&(NodeName, Key)],
        sites: &mut BTreeSet<SiteName>,
    ) -> Option<()> {
        let Some((element, _)) = objects.first() else { return Some(()) };
        let Some(node) = self.fabric.id(element) else { return Some(()) };
        let state = network.state.element(element);
        for (_, key) in objects {
            let (old, new) = (self.fabric.object(node, key), state.get(key));
            if old.as_ref() != new {
                self.follow_object(network, node, key, (old, new), sites)?;
            }
        }
        Some(())
    }

    fn follow_object(
        &mut self,
        network: &Network,
        node: NodeId,
        key: &Key,
        (old, new): (Option<Object>, Option<&Object>),
        sites: &mut BTreeSet<SiteName>,
    ) -> Option<()> {
        if let (Some(old), Some(new)) = (&old, new)
            && are_for_the_same(old, new)
        {
            self.fabric.replace(node, new);
            return self.about(node, new, sites);
        }
        if let Some(old) = old {
            self.about(node, &old, sites)?;
            self.outside.unnote(&self.fabric, node, &old);
            self.fabric.take(node, key);
            for claimed in self.outside.claimed_by(network, &old) {
                if let Some(count) = claimed.owner.and_then(|owner| self.owned.get_mut(&owner)) {
                    *count = count.saturating_sub(1);
                }
            }
        }
        if let Some(new) = new {
            self.fabric.put(node, new);
            self.about(node, new, sites)?;
            self.outside.note(&self.fabric, node, new);
            for claimed in self.outside.claimed_by(network, new) {
                let site = claimed.owner.as_ref().and_then(|owner| network.model.sites.get(owner))?;
                if !self.chains_of.contains_key(&site.name) || !claimed.is_within(site) {
                    return None;
                }
                *self.owned.entry(site.name.clone()).or_default() += 1;
            }
        }
        Some(())
    }

    /// Adds the sites whose ways this object can be on.
    fn about(&self, node: NodeId, object: &Object, sites: &mut BTreeSet<SiteName>) -> Option<()> {
        let here = self.fabric.node(node);
        match object {
            Object::Rule(rule) => self.about_selector(node, &rule.selector, sites),
            Object::Table(table) => {
                here.rules_of(table.path).try_for_each(|selector| self.about_selector(node, selector, sites))
            }
            Object::Policy(policy) => self.about_policy(node, policy, sites),
            Object::Path(path) => std::iter::once(path.id)
                .chain(here.of_same_vlan(path.id))
                .flat_map(|path| here.policies_of(path))
                .try_for_each(|policy| self.about_policy(node, policy, sites)),
            Object::Tunnel(tunnel) => self.about_tunnel(node, tunnel, sites),
            Object::Ingress(_) | Object::Instance(_) => None,
        }
    }

    fn about_selector(
        &self,
        node: NodeId,
        selector: &Selector,
        sites: &mut BTreeSet<SiteName>,
    ) -> Option<()> {
        let Selector { family, from, to, in_port, .. } = selector;
        for place in self.fabric.places(node, in_port.as_ref()) {
            if self.tails.pass(place, *family, *to) {
                return None;
            }
            for (direction, own) in [(Direction::Up, from), (Direction::Down, to)] {
                if own.is_none() {
                    self.passing(Spot::At(place, direction), sites);
                }
            }
        }
        for own in [from, to].into_iter().flatten() {
            self.overlapping(*own, sites);
        }
        Some(())
    }

    fn about_policy(&self, node: NodeId, policy: &Policy, sites: &mut BTreeSet<SiteName>) -> Option<()> {
        for (port, ingress) in &self.fabric.node(node).ingresses {
            let place = Place { node, port: *port };
            if self.shared_by_policy(place, ingress, policy) {
                return None;
            }
            for direction in Direction::BOTH {
                let other = match direction {
                    Direction::Up => Direction::Down,
                    Direction::Down => Direction::Up,
                };
                let far_end = ingress.site.is_none() && ingress.directions.contains(&other);
                if far_end || ingress.site == Some(policy.site) {
                    self.passing(Spot::At(place, direction), sites);
                }
            }
        }
        for prefix in &policy.prefixes {
            self.overlapping(*prefix, sites);
        }
        self.passing(Spot::Exits(node, policy.site), sites);
        Some(())
    }

    /// Whether a policy can be about what all sites' ways share.
    fn shared_by_policy(&self, place: Place, ingress: &Ingress, policy: &Policy) -> bool {
        let any = |family| self.tails.pass(place, family, None);
        match ingress.site {
            Some(site) => site == policy.site && Family::BOTH.into_iter().any(any),
            None => policy.prefixes.iter().any(|prefix| {
                let up = ingress.directions.contains(&Direction::Up) && any(prefix.family());
                let down = ingress.directions.contains(&Direction::Down);
                up || (down && self.tails.pass(place, prefix.family(), Some(*prefix)))
            }),
        }
    }

    fn about_tunnel(&self, node: NodeId, tunnel: &Tunnel, sites: &mut BTreeSet<SiteName>) -> Option<()> {
        let others = self.fabric.other_ends(tunnel);
        for (node, tunnel) in others.chain([(node, tunnel)]) {
            let is_shared = |prefix: &Prefix| {
                let family = prefix.family();
                let mut places = self.fabric.places(node, None);
                self.tails.pass(Place { node, port: Node::TUNNEL }, family, None)
                    || places.any(|place| self.tails.pass(place, family, Some(*prefix)))
            };
            if tunnel.allowed.iter().any(is_shared) {
                return None;
            }
            self.passing(Spot::FarTunnels(node), sites);
            let at_customer = self.fabric.node(node).role == Some(Role::Access);
            for prefix in &tunnel.allowed {
                match prefix.length() == 0 && at_customer {
                    true => self.passing(Spot::Tunnels(node), sites),
                    false => self.overlapping(*prefix, sites),
                }
            }
            if let Some(owner) =
                self.outside.name(tunnel.site).filter(|owner| self.sites.contains_key(*owner))
            {
                sites.insert(owner.clone());
            }
        }
        Some(())
    }

    fn passing(&self, spot: Spot, sites: &mut BTreeSet<SiteName>) {
        sites.extend(self.passing.get(&spot).into_iter().flatten().cloned());
    }

    fn overlapping(&self, prefix: Prefix, sites: &mut BTreeSet<SiteName>) {
        let found = self.by_prefix.overlapping(prefix.family(), Span::of(prefix));
        sites.extend(found.map(|found| found.thing.clone()));
    }

    fn look_again(&mut self, network: &Network, name: &SiteName) {
        match self.served(network, name) {
            Some(served) => {
                self.outside.serve(&served);
                let known = Known::new(network, &self.fabric, &self.tails, &self.outside, &served, &[]);
                self.keep(&served, known);
            }
            None => self.drop_site(network, name),
        }
    }

    fn served<'n>(&self, network: &Network<'n>, name: &SiteName) -> Option<ServedSite<'n>> {
        let chains = self.chains_of.get(name)?;
        let chains = chains.iter().filter_map(|chain| network.model.chains.get(chain));
        ServedSite::new(network, &self.fabric, name, chains)
    }

    fn keep(&mut self, served: &ServedSite, known: Known) {
        let name = &served.site.name;
        self.summary.add(name, &known);
        let old = self.sites.insert(name.clone(), known);
        let Some(known) = self.sites.get(name) else { return };
        match &old {
            Some(old) => self.summary.replaced(old),
            None => {
                for prefix in &served.site.prefixes {
                    self.by_prefix.insert(*prefix, name.clone());
                }
            }
        }
        let before = old.as_ref().map(Known::spots).unwrap_or_default();
        if before != known.spots() {
            for spot in before {
                if let Some(sites) = self.passing.get_mut(spot) {
                    sites.remove(name);
                }
            }
            for spot in known.spots() {
                self.passing.entry(*spot).or_default().insert(name.clone());
            }
        }
    }

    fn drop_site(&mut self, network: &Network, name: &SiteName) {
        let Some(old) = self.sites.remove(name) else { return };
        self.summary.remove(name, &old);
        for spot in old.spots() {
            if let Some(sites) = self.passing.get_mut(spot) {
                sites.remove(name);
            }
        }
        for prefix in network.model.sites.get(name).into_iter().flat_map(|site| &site.prefixes) {
            self.by_prefix.remove(*prefix, name);
        }
    }

    /// Whose chain this was, and whose it is.
    fn follow_chain(&mut self, network: &Network, chain: &ChainName) -> BTreeSet<SiteName> {
        let now = network.model.chains.get(chain).map(|chain| &chain.sites);
        if let Some(same) = self.sites_of.get(chain).filter(|before| Some(*before) == now) {
            return same.clone();
        }
        let mut sites = self.forget_chain(chain);
        sites.extend(self.know_chain(network, chain));
        sites
    }

    /// Forgets whose chain this is, and gives back whose it was.
    fn forget_chain(&mut self, chain: &ChainName) -> BTreeSet<SiteName> {
        let sites = self.sites_of.remove(chain).unwrap_or_default();
        for site in &sites {
            if let Some(chains) = self.chains_of.get_mut(site) {
                chains.remove(chain);
                if chains.is_empty() {
                    self.chains_of.remove(site);
                }
            }
        }
        sites
    }

    fn know_chain(&mut self, network: &Network, name: &ChainName) -> BTreeSet<SiteName> {
        let Some(chain) = network.model.chains.get(name) else { return BTreeSet::new() };
        for site in &chain.sites {
            self.chains_of.entry(site.clone()).or_default().insert(name.clone());
        }
        self.sites_of.insert(name.clone(), chain.sites.clone());
        chain.sites.clone()
    }

    fn count_objects(&mut self, network: &Network) {
        for element in network.state.elements.values() {
            for object in element.iter() {
                for owner in
                    self.outside.claimed_by(network, object).into_iter().filter_map(|claimed| claimed.owner)
                {
                    *self.owned.entry(owner).or_default() += 1;
                }
            }
        }
    }

    fn owns(&self, name: &SiteName) -> bool {
        self.owned.get(name).is_some_and(|count| *count > 0)
    }
}
