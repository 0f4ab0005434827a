//! Which object has to do with which others: kept in step with the objects, so that no change has to look at all of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use catena_driver::DriverError;
use catena_model::address::{Family, Prefix};
use catena_model::forwarding::{
    Direction, Exits, Hop, Ingress, Instance, InstanceId, Kind, Object, Oversize, Path, PathId, Policy,
    SiteId, Tunnel, VlanId,
};
use catena_model::name::PortName;

use crate::device::CUT_MTU;
use crate::layout::{MAX_LENGTHS, TunnelEnd};
use crate::numbers::Numbers;
use crate::words;

/// What a port is named by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PortUse {
    pub(crate) is_ingress: bool,
    /// The instances that have a side here. One, if the objects passed our checks.
    pub(crate) functions: BTreeSet<InstanceId>,
    /// Of how many tunnels it is the underlay.
    pub(crate) tunnels: usize,
}

/// The prefixes of one space: whose they are, and how long they are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Space {
    owners: HashMap<Prefix, SiteId>,
    lengths: [Vec<u8>; 2],
}

impl Space {
    pub(crate) fn owner(&self, prefix: Prefix) -> Option<SiteId> {
        self.owners.get(&prefix).copied()
    }

    /// As in `prefix_key`: those of prefixes that are there or were.
    pub(crate) fn lengths(&self, family: Family) -> &[u8] {
        &self.lengths[family as usize]
    }

    /// What the map says; none of it goes before all does.
    pub(crate) fn adopt_lengths(&mut self, family: Family, lengths: &[u8]) {
        self.lengths[family as usize] = lengths.to_vec();
    }

    fn accepts(&self, kind: Kind, site: SiteId, prefixes: &BTreeSet<Prefix>) -> Result<(), DriverError> {
        let owner = |prefix: &Prefix| self.owner(*prefix).map(|other| (*prefix, other));
        if let Some((prefix, other)) = prefixes.iter().find_map(owner) {
            return Err(DriverError::Unsupported {
                what: format!("{prefix} is of the {kind} of two sites, {other} and {site}"),
                help: "give each site prefixes of its own".to_owned(),
            });
        }
        for family in [Family::V4, Family::V6] {
            let used = self.lengths(family);
            let lengths = prefixes
                .iter()
                .filter(|prefix| prefix.family() == family)
                .map(|prefix| words::mapped_length(*prefix));
            let new: BTreeSet<_> = lengths.filter(|length| !used.contains(length)).collect();
            let count = used.len() + new.len();
            if count > MAX_LENGTHS {
                return Err(DriverError::Unsupported {
                    what: format!(
                        "with the {kind} of site {site} there are prefixes of {count} different lengths"
                    ),
                    help: format!(
                        "use at most {MAX_LENGTHS} for each IP version; those that no site has any more count until all \
                         chains of the element are deleted"
                    ),
                });
            }
        }
        Ok(())
    }

    fn insert(&mut self, site: SiteId, prefix: Prefix) {
        self.owners.insert(prefix, site);
        let lengths = &mut self.lengths[prefix.family() as usize];
        let length = words::mapped_length(prefix);
        if !lengths.contains(&length) {
            lengths.push(length);
        }
    }

    fn remove(&mut self, site: SiteId, prefix: Prefix) {
        if self.owner(prefix) == Some(site) {
            self.owners.remove(&prefix);
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    ports: BTreeMap<PortName, PortUse>,
    /// The ingresses by which sites are told.
    told_by_port: BTreeMap<SiteId, BTreeSet<PortName>>,
    paths: HashMap<SiteId, BTreeSet<PathId>>,
    users: HashMap<InstanceId, BTreeMap<PathId, SiteId>>,
    rewriting: BTreeSet<InstanceId>,
    vlans: BTreeMap<VlanId, PathId>,
    pub(crate) sites: Space,
    pub(crate) allowed: Space,
    ends: HashMap<TunnelEnd, SiteId>,
    locals: HashMap<[u8; 16], u32>,
    mtus: BTreeMap<u16, usize>,
    /// The tunnels that cut outer packets.
    cutting: BTreeMap<SiteId, Tunnel>,
    pub(crate) numbers: Numbers,
}

impl Index {
    /// Whether `object` fits beside all that is here. What it takes the place of has been removed.
    pub(crate) fn accepts(&self, object: &Object) -> Result<(), DriverError> {
        match object {
            Object::Policy(policy) if !self.is_told_by_port(policy.site) => {
                self.sites.accepts(Kind::Policy, policy.site, &policy.prefixes)
            }
            Object::Tunnel(tunnel) => self.accepts_tunnel(tunnel),
            Object::Path(path) => match path.vlan.and_then(|vlan| Some((vlan, self.vlans.get(&vlan)?))) {
                Some((vlan, other)) => Err(DriverError::Unsupported {
                    what: format!("VLAN {} would be of two paths, {other} and {}", vlan.get(), path.id),
                    help: "give each path a VLAN of its own".to_owned(),
                }),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn accepts_tunnel(&self, tunnel: &Tunnel) -> Result<(), DriverError> {
        if let Some(other) = self.ends.get(&words::tunnel_end(tunnel)) {
            return Err(DriverError::Unsupported {
                what: format!("the tunnels of sites {other} and {} have the same ends and key", tunnel.site),
                help: "give each tunnel a key of its own".to_owned(),
            });
        }
        self.allowed.accepts(Kind::Tunnel, tunnel.site, &tunnel.allowed)
    }

    pub(crate) fn insert(&mut self, object: &Object) {
        match object {
            Object::Ingress(ingress) => self.insert_ingress(ingress),
            Object::Instance(instance) => self.insert_instance(instance),
            Object::Path(path) => self.insert_path(path),
            Object::Policy(policy) => self.insert_policy(policy),
            Object::Tunnel(tunnel) => self.insert_tunnel(tunnel),
            Object::Table(_) | Object::Rule(_) => {}
        }
    }

    pub(crate) fn remove(&mut self, object: &Object) {
        match object {
            Object::Ingress(ingress) => self.remove_ingress(ingress),
            Object::Instance(instance) => self.remove_instance(instance),
            Object::Path(path) => self.remove_path(path),
            Object::Policy(policy) => self.remove_policy(policy),
            Object::Tunnel(tunnel) => self.remove_tunnel(tunnel),
            Object::Table(_) | Object::Rule(_) => {}
        }
    }

    fn insert_ingress(&mut self, ingress: &Ingress) {
        self.ports.entry(ingress.port.clone()).or_default().is_ingress = true;
        if let Some(site) = ingress.site {
            self.told_by_port.entry(site).or_default().insert(ingress.port.clone());
        }
    }

    fn remove_ingress(&mut self, ingress: &Ingress) {
        self.leave_port(&ingress.port, |named| named.is_ingress = false);
        if let Some(ports) = ingress.site.and_then(|site| self.told_by_port.get_mut(&site)) {
            ports.remove(&ingress.port);
        }
        self.told_by_port.retain(|_, ports| !ports.is_empty());
    }

    fn insert_instance(&mut self, instance: &Instance) {
        for side in [&instance.inside, &instance.outside] {
            self.ports.entry(side.port.clone()).or_default().functions.insert(instance.id);
        }
        if instance.rewrites {
            self.rewriting.insert(instance.id);
        }
        self.numbers.instances.retain(&instance.id);
    }

    fn remove_instance(&mut self, instance: &Instance) {
        for side in [&instance.inside, &instance.outside] {
            self.leave_port(&side.port, |named| {
                named.functions.remove(&instance.id);
            });
        }
        self.rewriting.remove(&instance.id);
        self.numbers.instances.release(&instance.id);
    }

    fn insert_path(&mut self, path: &Path) {
        self.paths.entry(path.site).or_default().insert(path.id);
        self.vlans.extend(path.vlan.map(|vlan| (vlan, path.id)));
        for hop in &path.hops {
            self.numbers.groups.retain(hop);
        }
        for id in members(path) {
            self.users.entry(id).or_default().insert(path.id, path.site);
            self.numbers.instances.retain(&id);
        }
    }

    fn remove_path(&mut self, path: &Path) {
        if let Some(paths) = self.paths.get_mut(&path.site) {
            paths.remove(&path.id);
            if paths.is_empty() {
                self.paths.remove(&path.site);
            }
        }
        if let Some(vlan) = path.vlan
            && self.vlans.get(&vlan) == Some(&path.id)
        {
            self.vlans.remove(&vlan);
        }
        for hop in &path.hops {
            self.numbers.groups.release(hop);
        }
        for id in members(path) {
            if let Some(users) = self.users.get_mut(&id) {
                users.remove(&path.id);
                if users.is_empty() {
                    self.users.remove(&id);
                }
            }
            self.numbers.instances.release(&id);
        }
    }

    fn insert_policy(&mut self, policy: &Policy) {
        if self.is_told_by_port(policy.site) {
            self.numbers.realms.retain(&policy.site);
        } else {
            policy.prefixes.iter().for_each(|prefix| self.sites.insert(policy.site, *prefix));
        }
        exits(policy).for_each(|side| self.numbers.exits.retain(side));
    }

    fn remove_policy(&mut self, policy: &Policy) {
        if self.is_told_by_port(policy.site) {
            self.numbers.realms.release(&policy.site);
        } else {
            policy.prefixes.iter().for_each(|prefix| self.sites.remove(policy.site, *prefix));
        }
        exits(policy).for_each(|side| self.numbers.exits.release(side));
    }

    fn insert_tunnel(&mut self, tunnel: &Tunnel) {
        self.ports.entry(tunnel.underlay.clone()).or_default().tunnels += 1;
        tunnel.allowed.iter().for_each(|prefix| self.allowed.insert(tunnel.site, *prefix));
        self.ends.insert(words::tunnel_end(tunnel), tunnel.site);
        *self.locals.entry(words::mapped(tunnel.local)).or_default() += 1;
        *self.mtus.entry(tunnel.mtu).or_default() += 1;
        if tunnel.oversize == Oversize::FragmentOuter {
            self.cutting.insert(tunnel.site, tunnel.clone());
        }
    }

    fn remove_tunnel(&mut self, tunnel: &Tunnel) {
        self.leave_port(&tunnel.underlay, |named| named.tunnels = named.tunnels.saturating_sub(1));
        tunnel.allowed.iter().for_each(|prefix| self.allowed.remove(tunnel.site, *prefix));
        let end = words::tunnel_end(tunnel);
        if self.ends.get(&end) == Some(&tunnel.site) {
            self.ends.remove(&end);
        }
        let local = words::mapped(tunnel.local);
        match self.locals.get_mut(&local) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.locals.remove(&local)),
        }
        match self.mtus.get_mut(&tunnel.mtu) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.mtus.remove(&tunnel.mtu)),
        }
        self.cutting.remove(&tunnel.site);
    }

    fn leave_port(&mut self, port: &PortName, leave: impl FnOnce(&mut PortUse)) {
        if let Some(named) = self.ports.get_mut(port) {
            leave(named);
            if *named == PortUse::default() {
                self.ports.remove(port);
            }
        }
    }

    /// The ports that need our program.
    pub(crate) fn ports(&self) -> impl Iterator<Item = &PortName> {
        self.ports.keys()
    }

    pub(crate) fn port(&self, name: &PortName) -> Option<&PortUse> {
        self.ports.get(name)
    }

    /// Whether the site's packets are told by the port that they come in by, and not by their addresses.
    pub(crate) fn is_told_by_port(&self, site: SiteId) -> bool {
        self.told_by_port.contains_key(&site)
    }

    /// The ports by which the site is told.
    pub(crate) fn ports_telling(&self, site: SiteId) -> usize {
        self.told_by_port.get(&site).map_or(0, BTreeSet::len)
    }

    pub(crate) fn paths_of(&self, site: SiteId) -> impl Iterator<Item = PathId> {
        self.paths.get(&site).into_iter().flatten().copied()
    }

    /// The paths that can pass the instance, with their sites.
    pub(crate) fn users(&self, id: InstanceId) -> impl DoubleEndedIterator<Item = (PathId, SiteId)> {
        self.users.get(&id).into_iter().flatten().map(|(path, site)| (*path, *site))
    }

    pub(crate) fn any_rewrites(&self) -> bool {
        !self.rewriting.is_empty()
    }

    pub(crate) fn rewrites(&self, id: InstanceId) -> bool {
        self.rewriting.contains(&id)
    }

    pub(crate) fn path_of(&self, vlan: VlanId) -> Option<PathId> {
        self.vlans.get(&vlan).copied()
    }

    pub(crate) fn tunnel_at(&self, end: &TunnelEnd) -> Option<SiteId> {
        self.ends.get(end).copied()
    }

    /// How many tunnels have this local address.
    pub(crate) fn tunnels_from(&self, local: &[u8; 16]) -> u32 {
        self.locals.get(local).copied().unwrap_or_default()
    }

    /// The largest packet that all tunnels carry, in parts if need be; `None` without tunnels.
    pub(crate) fn tunnels_mtu(&self) -> Option<u16> {
        let whole = self.mtus.keys().next().copied()?;
        Some(if self.cutting.is_empty() { whole } else { CUT_MTU })
    }

    /// The tunnels that cut outer packets.
    pub(crate) fn cutting(&self) -> impl Iterator<Item = &Tunnel> {
        self.cutting.values()
    }

    /// Whether some tunnels cut what others must tell the sender of. They share one interface, and its MTU says which.
    pub(crate) fn cuts_some_only(&self) -> bool {
        !self.cutting.is_empty() && self.cutting.len() != self.mtus.values().sum::<usize>()
    }
}

/// Whether the index is the same with one of them as with the other, while their site is told in the same way: so it is not
/// touched where policies get other rules, which is what changes most.
pub(crate) fn indexed_alike(one: &Object, other: &Object) -> bool {
    match (one, other) {
        (Object::Policy(one), Object::Policy(other)) => {
            (one.site, &one.prefixes, &one.exits) == (other.site, &other.prefixes, &other.exits)
        }
        _ => false,
    }
}

/// The instances that the path can pass, each once.
pub(crate) fn members(path: &Path) -> BTreeSet<InstanceId> {
    path.hops.iter().flat_map(Hop::ids).collect()
}

pub(crate) fn exits(policy: &Policy) -> impl Iterator<Item = &catena_model::forwarding::Side> {
    let exits: Option<&Exits> = policy.exits.as_ref();
    exits.into_iter().flat_map(|exits| Direction::BOTH.map(|direction| exits.of(direction)))
}
