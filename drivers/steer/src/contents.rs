//! What the maps say that the element does, in our words.

use std::collections::{BTreeMap, BTreeSet};

use catena_driver::DriverError;
use catena_model::address::Prefix;
use catena_model::forwarding::{Direction, ElementState, Ingress, Object, Purpose, SiteId, Tunnel};
use catena_model::name::PortName;

use crate::layout::{self, ROLE_CLAIM, ROLE_STEER};
use crate::maps::{Map, Maps};
use crate::words::{self, prefix_v4, prefix_v6};

/// A port that the maps speak of, under the number that it had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KnownPort {
    pub(crate) name: PortName,
    pub(crate) entry: layout::Port,
}

/// All objects in the maps, whether they work or not, and the ports by their numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Contents {
    pub(crate) objects: ElementState,
    pub(crate) ports: BTreeMap<u32, KnownPort>,
    /// [`layout::Element::changes`] when they were read.
    pub(crate) changes: u64,
}

impl Contents {
    /// What cannot be read is left out: nobody can have meant it.
    pub(crate) fn read(maps: &Maps) -> Result<Self, DriverError> {
        let mut contents = Self { changes: maps.element()?.changes, ..Self::default() };
        for (ifindex, entry) in maps.ports.entries()? {
            if let Some(name) = words::read_port_name(&entry.name) {
                contents.objects.extend(read_ingress(&name, &entry).map(Object::Ingress));
                contents.ports.insert(ifindex, KnownPort { name, entry });
            }
        }
        let instances = maps.instances.entries()?;
        let instances = instances.iter().filter_map(|(id, instance)| words::read_instance(*id, instance));
        contents.objects.extend(instances.map(Object::Instance));
        let paths = maps.paths.entries()?;
        let paths = paths.iter().filter_map(|(id, path)| words::read_path(*id, path));
        contents.objects.extend(paths.map(Object::Path));

        let mut prefixes = prefixes(&maps.sites4, &maps.sites6)?;
        for (site, policy) in maps.policies.entries()? {
            if let Some(mut policy) = words::read_policy(&policy) {
                policy.prefixes = prefixes.remove(&site).unwrap_or_default();
                contents.objects.insert(Object::Policy(policy));
            }
        }
        let mut allowed = self::prefixes(&maps.allowed4, &maps.allowed6)?;
        for (site, tunnel) in maps.tunnels.entries()? {
            if let Some(underlay) = words::read_port_name(&tunnel.name) {
                contents.objects.insert(Object::Tunnel(Tunnel {
                    site: SiteId(site),
                    underlay,
                    local: std::net::IpAddr::from(tunnel.local),
                    remote: std::net::IpAddr::from(tunnel.remote),
                    oversize: Default::default(),
                    key: (tunnel.has_key != 0).then_some(tunnel.key),
                    mtu: u16::try_from(tunnel.mtu).unwrap_or(u16::MAX),
                    allowed: allowed.remove(&site).unwrap_or_default(),
                }));
            }
        }
        Ok(contents)
    }
}

fn read_ingress(name: &PortName, entry: &layout::Port) -> Option<Ingress> {
    let purpose = match entry.roles & (ROLE_CLAIM | ROLE_STEER) {
        ROLE_CLAIM => Purpose::Claim,
        ROLE_STEER => Purpose::Steer,
        _ => return None,
    };
    let directions = Direction::BOTH.into_iter().filter(|direction| entry.directions & bit(*direction) != 0);
    Some(Ingress { port: name.clone(), directions: directions.collect(), purpose, site: None })
}

/// The direction in a set of them.
pub(crate) fn bit(direction: Direction) -> u32 {
    1 << direction as u32
}

/// The prefixes of each site.
fn prefixes(
    v4: &Map<layout::Lpm4, u32>,
    v6: &Map<layout::Lpm6, u32>,
) -> Result<BTreeMap<u32, BTreeSet<Prefix>>, DriverError> {
    let v4 = v4.entries()?.into_iter().map(|(key, site)| (prefix_v4(&key), site));
    let v6 = v6.entries()?.into_iter().map(|(key, site)| (prefix_v6(&key), site));
    let mut prefixes = BTreeMap::<_, BTreeSet<_>>::new();
    for (prefix, site) in v4.chain(v6) {
        prefixes.entry(site).or_default().extend(prefix);
    }
    Ok(prefixes)
}
