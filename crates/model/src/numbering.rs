//! Numbers for names: what travels in packets and stands in kernel tables has no room for names.
//!
//! A number, once given, stays with its name until the name is released, across restarts: the controller keeps the
//! [`Numbering`] in its store. A path gets a new number, and the next generation, whenever its content changes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};

use crate::forwarding::{InstanceId, PathId, SiteId, VlanId};
use crate::name::{ChainName, InstanceName, NodeName, SiteName};

/// What a path is a revision of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PathOwner {
    /// The functions of a chain, for the packets of one site.
    Chain(ChainName, SiteName),
    /// The way of a site's packets to the switch that steers them.
    Up(SiteName),
    /// The way of the replies from where the Internet is to that switch.
    Down(SiteName),
    /// The way of the replies from that switch to the site. Apart from [`Down`](PathOwner::Down), because both may pass
    /// one element, with different next hops.
    Home(SiteName),
}

impl PathOwner {
    pub fn site(&self) -> &SiteName {
        match self {
            PathOwner::Chain(_, site)
            | PathOwner::Up(site)
            | PathOwner::Down(site)
            | PathOwner::Home(site) => site,
        }
    }
}

impl fmt::Display for PathOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PathOwner::Chain(chain, site) => write!(f, "chain/{chain}/{site}"),
            PathOwner::Up(site) => write!(f, "up/{site}"),
            PathOwner::Down(site) => write!(f, "down/{site}"),
            PathOwner::Home(site) => write!(f, "home/{site}"),
        }
    }
}

impl std::str::FromStr for PathOwner {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = |error: &dyn fmt::Display| format!("{text}: not the owner of a path: {error}");
        let site = |name: &str| SiteName::new(name).map_err(|error| bad(&error));
        match *text.split('/').collect::<Vec<_>>() {
            ["chain", chain, name] => {
                Ok(Self::Chain(ChainName::new(chain).map_err(|error| bad(&error))?, site(name)?))
            }
            ["up", name] => Ok(Self::Up(site(name)?)),
            ["down", name] => Ok(Self::Down(site(name)?)),
            ["home", name] => Ok(Self::Home(site(name)?)),
            _ => Err(bad(&"none of chain/CHAIN/SITE, up/SITE, down/SITE, home/SITE")),
        }
    }
}

impl Serialize for PathOwner {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PathOwner {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The current revision of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    pub id: PathId,
    /// 1 for the first content that the owner had, one more for each after it.
    pub generation: u32,
    /// The [`digest`] of the content.
    pub content: u64,
}

/// All numbers that are in use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbering {
    sites: BTreeMap<SiteName, SiteId>,
    instances: BTreeMap<InstanceName, InstanceId>,
    paths: BTreeMap<PathOwner, Revision>,
    /// Whose each path number is: the current revisions, and former ones that may still be installed somewhere.
    owners: BTreeMap<PathId, PathOwner>,
    /// The VLANs of the paths on each element that have one. Freed with the path's number.
    #[serde(default)]
    vlans: BTreeMap<NodeName, BTreeMap<VlanId, PathId>>,
    /// The numbers given last; the next ones are above them.
    last: u32,
    last_path: u32,
}

/// There is no free number left.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Exhausted {
    #[error("all {} path numbers are in use: delete chains, or wait for old revisions to drain", PathId::MAX)]
    Paths,
    #[error(
        "all {} VLANs of {element} are in use, one for each path with a function of `insertion: vlan`: delete chains, wait \
         for old revisions to drain, or put functions on another switch",
        VlanId::MAX
    )]
    Vlans { element: NodeName },
}

impl Numbering {
    pub fn site(&mut self, name: &SiteName) -> SiteId {
        if let Some(id) = self.sites.get(name) {
            return *id;
        }
        self.last += 1;
        *self.sites.entry(name.clone()).or_insert(SiteId(self.last))
    }

    pub fn instance(&mut self, name: &InstanceName) -> InstanceId {
        if let Some(id) = self.instances.get(name) {
            return *id;
        }
        self.last += 1;
        *self.instances.entry(name.clone()).or_insert(InstanceId(self.last))
    }

    /// The number for `owner`'s path with this content: the one it has if the content is the same, else a new one.
    pub fn path(&mut self, owner: &PathOwner, content: &impl Hash) -> Result<PathId, Exhausted> {
        let content = digest(content);
        let former = self.paths.get(owner).copied();
        if let Some(revision) = former.filter(|revision| revision.content == content) {
            return Ok(revision.id);
        }
        let id = self.free_path()?;
        self.owners.insert(id, owner.clone());
        let generation = former.map_or(1, |revision| revision.generation + 1);
        self.paths.insert(owner.clone(), Revision { id, generation, content });
        Ok(id)
    }

    /// The VLAN of a path on an element: the one it has, else the lowest that no other path has there.
    pub fn vlan(&mut self, element: &NodeName, path: PathId) -> Result<VlanId, Exhausted> {
        let taken = self.vlans.entry(element.clone()).or_default();
        if let Some((vlan, _)) = taken.iter().find(|(_, owner)| **owner == path) {
            return Ok(*vlan);
        }
        let free = (1..).zip(taken.keys()).find(|(lowest, vlan)| vlan.get() != *lowest);
        let free = free.map_or(taken.len() as u16 + 1, |(lowest, _)| lowest);
        let vlan = VlanId::new(free).ok_or_else(|| Exhausted::Vlans { element: element.clone() })?;
        taken.insert(vlan, path);
        Ok(vlan)
    }

    /// Forgets the names that are not in these sets; their paths' numbers stay taken until [`Numbering::release`].
    pub fn keep(
        &mut self,
        sites: &BTreeSet<&SiteName>,
        instances: &BTreeSet<&InstanceName>,
        paths: &BTreeSet<PathOwner>,
    ) {
        self.sites.retain(|name, _| sites.contains(name));
        self.instances.retain(|name, _| instances.contains(name));
        self.paths.retain(|owner, _| paths.contains(owner));
    }

    /// Frees the numbers of former revisions that are not in `installed`.
    pub fn release(&mut self, installed: &BTreeSet<PathId>) {
        let paths = &self.paths;
        self.owners.retain(|id, owner| {
            paths.get(owner).is_some_and(|revision| revision.id == *id) || installed.contains(id)
        });
        let owners = &self.owners;
        self.vlans.retain(|_, taken| {
            taken.retain(|_, path| owners.contains_key(path));
            !taken.is_empty()
        });
    }

    pub fn revision(&self, owner: &PathOwner) -> Option<&Revision> {
        self.paths.get(owner)
    }

    /// Whose path this is, or was before it retired.
    pub fn owner(&self, id: PathId) -> Option<&PathOwner> {
        self.owners.get(&id)
    }

    /// The number of a site, if it was ever given one.
    pub fn site_id(&self, name: &SiteName) -> Option<SiteId> {
        self.sites.get(name).copied()
    }

    pub fn site_name(&self, id: SiteId) -> Option<&SiteName> {
        self.sites.iter().find(|(_, number)| **number == id).map(|(name, _)| name)
    }

    pub fn instance_name(&self, id: InstanceId) -> Option<&InstanceName> {
        self.instances.iter().find(|(_, number)| **number == id).map(|(name, _)| name)
    }

    /// The VLAN that a path has on the switch that it leads over.
    pub fn vlan_of(&self, path: PathId) -> Option<VlanId> {
        let all = self.vlans.values().flatten();
        all.filter(|(_, owner)| **owner == path).map(|(vlan, _)| *vlan).next()
    }

    /// All sites that have a number.
    pub fn sites(&self) -> impl Iterator<Item = (&SiteName, SiteId)> {
        self.sites.iter().map(|(name, id)| (name, *id))
    }

    /// All instances that have a number.
    pub fn instances(&self) -> impl Iterator<Item = (&InstanceName, InstanceId)> {
        self.instances.iter().map(|(name, id)| (name, *id))
    }

    /// All path numbers that are taken, with whose they are.
    pub fn paths(&self) -> impl Iterator<Item = (PathId, &PathOwner)> {
        self.owners.iter().map(|(id, owner)| (*id, owner))
    }

    /// Passes over the numbers that `abandoned` has given since it was copied from this: for a while there may still be
    /// packets that carry them.
    pub fn pass_over(&mut self, abandoned: &Numbering) {
        self.last = abandoned.last;
        self.last_path = abandoned.last_path;
    }

    fn free_path(&mut self) -> Result<PathId, Exhausted> {
        // Numbers go up and are reused only after all others, so that a packet in flight with an old number meets no
        // new path.
        for _ in 0..PathId::MAX.0 {
            self.last_path = if self.last_path >= PathId::MAX.0 { 1 } else { self.last_path + 1 };
            let id = PathId(self.last_path);
            if !self.owners.contains_key(&id) {
                return Ok(id);
            }
        }
        Err(Exhausted::Paths)
    }
}

/// A digest that is the same in every build and on every machine (FNV-1a, 64 bits), unlike `std`'s default hasher.
pub fn digest(content: &impl Hash) -> u64 {
    struct Fnv(u64);
    impl Hasher for Fnv {
        fn write(&mut self, bytes: &[u8]) {
            for byte in bytes {
                self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        }
        fn finish(&self) -> u64 {
            self.0
        }
    }
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    content.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> PathOwner {
        "chain/web/hq".parse().unwrap()
    }

    #[test]
    fn a_path_keeps_its_number_while_its_content_stays() {
        let mut numbering = Numbering::default();
        let first = numbering.path(&owner(), &["fw", "ips"]).unwrap();
        assert_eq!(numbering.path(&owner(), &["fw", "ips"]), Ok(first));
        let second = numbering.path(&owner(), &["ips", "fw"]).unwrap();
        assert_ne!(first, second);
        assert_eq!(numbering.revision(&owner()).unwrap().generation, 2);
    }

    #[test]
    fn a_former_number_is_taken_until_released() {
        let mut numbering = Numbering::default();
        let first = numbering.path(&owner(), &1).unwrap();
        let second = numbering.path(&owner(), &2).unwrap();
        assert_eq!(numbering.owner(first), Some(&owner()));
        numbering.release(&BTreeSet::from([first]));
        assert_eq!(numbering.owner(first), Some(&owner()));
        numbering.release(&BTreeSet::new());
        assert_eq!(numbering.owner(first), None);
        assert_eq!(numbering.owner(second), Some(&owner()));
        // After the last number comes the first free one.
        numbering.last_path = PathId::MAX.0;
        assert_eq!(numbering.path(&owner(), &3), Ok(first));
    }

    #[test]
    fn numbers_of_an_abandoned_copy_are_not_given_again() {
        let mut numbering = Numbering::default();
        numbering.path(&owner(), &1).unwrap();
        let mut copy = numbering.clone();
        let abandoned = copy.path(&owner(), &2).unwrap();
        let site = copy.site(&"hq".parse().unwrap());
        numbering.pass_over(&copy);
        assert_ne!(numbering.path(&owner(), &3), Ok(abandoned));
        assert_ne!(numbering.site(&"branch".parse().unwrap()), site);
    }

    #[test]
    fn a_vlan_is_freed_with_its_path() {
        let mut numbering = Numbering::default();
        let element: NodeName = "br-int".parse().unwrap();
        let vlan = VlanId::new;
        let first = numbering.path(&owner(), &1).unwrap();
        assert_eq!(numbering.vlan(&element, first).ok(), vlan(1));
        let second = numbering.path(&owner(), &2).unwrap();
        assert_eq!(numbering.vlan(&element, second).ok(), vlan(2));
        assert_eq!(numbering.vlan(&element, first).ok(), vlan(1));
        assert_eq!(numbering.vlan(&"br-ext".parse().unwrap(), second).ok(), vlan(1));
        numbering.release(&BTreeSet::from([first]));
        let third = numbering.path(&owner(), &3).unwrap();
        assert_eq!(numbering.vlan(&element, third).ok(), vlan(3));
        numbering.release(&BTreeSet::new());
        let fourth = numbering.path(&owner(), &4).unwrap();
        assert_eq!(numbering.vlan(&element, fourth).ok(), vlan(1));
    }

    #[test]
    fn vlans_come_to_an_end() {
        let mut numbering = Numbering::default();
        let element: NodeName = "br-int".parse().unwrap();
        for path in 1..=u32::from(VlanId::MAX) {
            assert!(numbering.vlan(&element, PathId(path)).is_ok());
        }
        assert_eq!(numbering.vlan(&element, PathId(5000)), Err(Exhausted::Vlans { element }));
    }

    #[test]
    fn survives_being_stored() {
        let mut numbering = Numbering::default();
        numbering.site(&"hq".parse().unwrap());
        numbering.instance(&"fw-1".parse().unwrap());
        let path = numbering.path(&owner(), &1).unwrap();
        numbering.vlan(&"br-int".parse().unwrap(), path).unwrap();
        let stored = serde_json::to_string(&numbering).unwrap();
        assert_eq!(serde_json::from_str::<Numbering>(&stored).unwrap(), numbering);
    }

    #[test]
    fn owners_are_read_and_written() {
        for text in ["chain/web/hq", "up/hq", "down/hq", "home/hq"] {
            assert_eq!(text.parse::<PathOwner>().unwrap().to_string(), text);
        }
        assert!("sideways/hq".parse::<PathOwner>().is_err());
    }
}
