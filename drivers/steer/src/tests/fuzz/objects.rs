//! The objects of an element, to look things up.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use catena_model::address::Prefix;
use catena_model::forwarding::{
    Direction, Hop, Ingress, Instance, InstanceId, Object, Path, PathId, Policy, SiteId, Tunnel,
};
use catena_model::name::PortName;

/// The objects of an element, to look things up.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    pub(super) ingresses: BTreeMap<PortName, Ingress>,
    pub(super) instances: BTreeMap<InstanceId, Instance>,
    pub(super) paths: BTreeMap<PathId, Path>,
    pub(super) policies: BTreeMap<SiteId, Policy>,
    pub(super) tunnels: BTreeMap<SiteId, Tunnel>,
    pub(super) macs: HashMap<PortName, [u8; 6]>,
}

impl World {
    pub(super) fn new(objects: &[Object], macs: HashMap<PortName, [u8; 6]>) -> Self {
        let mut world = Self { macs, ..Self::default() };
        for object in objects.iter().cloned() {
            match object {
                Object::Ingress(ingress) => drop(world.ingresses.insert(ingress.port.clone(), ingress)),
                Object::Instance(instance) => drop(world.instances.insert(instance.id, instance)),
                Object::Path(path) => drop(world.paths.insert(path.id, path)),
                Object::Policy(policy) => drop(world.policies.insert(policy.site, policy)),
                Object::Tunnel(tunnel) => drop(world.tunnels.insert(tunnel.site, tunnel)),
                Object::Table(_) | Object::Rule(_) => panic!("not the engine's"),
            }
        }
        world
    }

    /// Whether the site's packets are told by the port that they come in by.
    pub(super) fn is_told_by_port(&self, site: SiteId) -> bool {
        self.ingresses.values().any(|ingress| ingress.site == Some(site))
    }

    /// Whose address it is: the longest prefix of all sites that are told by address.
    pub(super) fn site_of(&self, address: IpAddr) -> Option<SiteId> {
        let policies = self.policies.values().filter(|policy| !self.is_told_by_port(policy.site));
        longest(
            policies.flat_map(|policy| policy.prefixes.iter().map(|prefix| (*prefix, policy.site))),
            address,
        )
    }

    /// What lies at the far end of which tunnel.
    pub(super) fn tunnel_to(&self, address: IpAddr) -> Option<SiteId> {
        let tunnels = self.tunnels.values();
        longest(
            tunnels.flat_map(|tunnel| tunnel.allowed.iter().map(|prefix| (*prefix, tunnel.site))),
            address,
        )
    }

    /// The function that has a side at the port.
    pub(super) fn function_at(&self, port: &PortName) -> Option<&Instance> {
        self.instances.values().find(|it| it.inside.port == *port || it.outside.port == *port)
    }

    pub(super) fn paths_through(&self, instance: InstanceId) -> impl Iterator<Item = &Path> {
        self.paths.values().filter(move |path| path.hops.iter().any(|hop| hop.ids().any(|id| id == instance)))
    }

    pub(super) fn hop_of(&self, path: PathId, position: usize) -> &Hop {
        &self.paths[&path].hops[position]
    }

    pub(super) fn is_installed(&self, path: PathId) -> Option<PathId> {
        self.paths.contains_key(&path).then_some(path)
    }
}

fn longest(prefixes: impl Iterator<Item = (Prefix, SiteId)>, address: IpAddr) -> Option<SiteId> {
    let holding = prefixes.filter(|(prefix, _)| prefix.contains(address));
    holding.max_by_key(|(prefix, _)| prefix.length()).map(|(_, site)| site)
}

/// The directions in which a function's frames go that come out at this port.
pub(super) fn directions_out_of(instance: &Instance, port: &PortName) -> Vec<Direction> {
    let mut directions = Vec::new();
    if instance.outside.port == *port {
        directions.push(Direction::Up);
    }
    if instance.inside.port == *port {
        directions.push(Direction::Down);
    }
    directions
}
