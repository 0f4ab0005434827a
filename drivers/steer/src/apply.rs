//! Changing what the engine does.
//!
//! A change is whole or not at all: what can fail is done first, and what was written is put back if a later part of
//! it fails. Within a change maps are written so that no packet finds a half: what is referred to before what refers
//! to it, and the other way round when something goes.

use std::collections::BTreeSet;

use catena_driver::DriverError;
use catena_model::address::Prefix;
use catena_model::forwarding::{
    Change, Direction, ElementState, Insertion, Instance, Key, Object, Path, Policy, Purpose, SiteId, Tunnel,
};
use catena_model::name::PortName;
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;

use crate::contents::{KnownPort, bit};
use crate::counters;
use crate::device::Device;
use crate::engine::Engine;
use crate::flows;
use crate::layout::{
    self, Lpm4, Lpm6, ROLE_CLAIM, ROLE_INSIDE, ROLE_L2, ROLE_OUTSIDE, ROLE_STEER, ROLE_UNDERLAY,
};
use crate::maps::{Map, Maps};
use crate::words::{self, Lpm};

impl Engine {
    /// In the element's namespace, with the pins taken.
    pub(crate) fn apply(&mut self, changes: &[Change]) -> Result<(), DriverError> {
        let outcome = changes.iter().try_for_each(|change| match change {
            Change::Put { new, .. } => self.put(new),
            Change::Delete { old } => self.delete(&old.key()),
        });
        // Even after a failure: what has been applied until then is to be known, and a folder for nothing goes.
        if self.contents.objects.is_empty() { self.tear_down() } else { self.changed() }.and(outcome)
    }

    fn put(&mut self, new: &Object) -> Result<(), DriverError> {
        let old = self.contents.objects.get(&new.key()).cloned();
        self.write(new, old.as_ref())
            .and_then(|()| {
                self.contents.objects.insert(new.clone());
                self.settle_ports(ports(new).into_iter().chain(old.iter().flat_map(ports)))
            })
            .inspect_err(|error| {
                tracing::debug!(%error, "a change of the steering engine is put back");
                // The first error is what is told; what cannot be put back now is seen as damage by the next look.
                let _ = match &old {
                    Some(old) => self.write(old, Some(new)),
                    None => self.erase(new),
                };
                self.contents.objects.remove(&new.key());
                self.contents.objects.extend(old.clone());
                let _ = self.settle_ports(ports(new).into_iter().chain(old.iter().flat_map(ports)));
            })
    }

    fn delete(&mut self, key: &Key) -> Result<(), DriverError> {
        let Some(old) = self.contents.objects.remove(key) else { return Ok(()) };
        self.settle_ports(ports(&old))?;
        self.erase(&old)
    }

    /// Everything goes: the element is as it was before the first object.
    fn tear_down(&mut self) -> Result<(), DriverError> {
        for (ifindex, port) in std::mem::take(&mut self.contents.ports) {
            let clsact = port.entry.clsact != 0;
            self.attachments.detach(&self.pins, ifindex, &self.programs.steer, clsact)?;
        }
        for ifindex in self.pins.links()? {
            self.attachments.detach(&self.pins, ifindex, &self.programs.encap, false)?;
        }
        if self.programs.maps.element()?.tunnels != 0 {
            Device::remove()?;
        }
        self.pins.remove_all()
    }

    /// Writes an object that takes the place of `old`.
    fn write(&mut self, new: &Object, old: Option<&Object>) -> Result<(), DriverError> {
        let maps = &self.programs.maps;
        match (new, old) {
            (Object::Instance(instance), _) => write_instance(maps, instance),
            (Object::Path(path), _) => maps.paths.put(&path.id.0, &words::path(path)?),
            (Object::Policy(policy), Some(Object::Policy(old))) => write_policy(maps, policy, Some(old)),
            (Object::Policy(policy), _) => write_policy(maps, policy, None),
            (Object::Tunnel(tunnel), Some(Object::Tunnel(old))) => self.write_tunnel(tunnel, Some(old)),
            (Object::Tunnel(tunnel), _) => self.write_tunnel(tunnel, None),
            // An ingress is nothing but the role of its port.
            (Object::Ingress(ingress), _) => find_port(&ingress.port).map(drop),
            (Object::Table(_) | Object::Rule(_), _) => Err(not_ours(new)),
        }
    }

    fn erase(&mut self, old: &Object) -> Result<(), DriverError> {
        let maps = &self.programs.maps;
        match old {
            Object::Instance(instance) => maps.instances.remove(&instance.id.0),
            Object::Path(path) => erase_path(maps, path),
            Object::Policy(policy) => erase_policy(maps, policy),
            Object::Tunnel(tunnel) => self.erase_tunnel(tunnel),
            Object::Ingress(_) | Object::Table(_) | Object::Rule(_) => Ok(()),
        }
    }

    /// Gives the ports the roles that the objects want them to have, and takes the program off those without any.
    fn settle_ports(&mut self, ports: impl IntoIterator<Item = PortName>) -> Result<(), DriverError> {
        ports.into_iter().collect::<BTreeSet<_>>().iter().try_for_each(|port| self.settle_port(port))
    }

    fn settle_port(&mut self, name: &PortName) -> Result<(), DriverError> {
        let wanted = roles(&self.contents.objects, name);
        let current = match find_port(name) {
            Ok(ifindex) => wanted.map(|_| ifindex),
            Err(DriverError::NoPort(_)) => None,
            Err(error) => return Err(error),
        };
        let ports = self.contents.ports.iter();
        let stale = ports.filter(|(ifindex, port)| port.name == *name && Some(**ifindex) != current);
        for ifindex in stale.map(|(ifindex, _)| *ifindex).collect::<Vec<_>>() {
            let clsact = self.contents.ports.get(&ifindex).is_some_and(|port| port.entry.clsact != 0);
            self.attachments.detach(&self.pins, ifindex, &self.programs.steer, clsact)?;
            self.programs.maps.ports.remove(&ifindex)?;
            self.contents.ports.remove(&ifindex);
        }
        let Some((ifindex, (roles, directions))) = current.zip(wanted) else { return Ok(()) };

        let clsact = self.contents.ports.get(&ifindex).map(|port| port.entry.clsact).unwrap_or_default();
        let mut entry =
            layout::Port { roles, directions, mark: self.mark, clsact, name: words::port_name(name)? };
        // The role before the program: from its first packet on it knows what to do.
        self.programs.maps.ports.put(&ifindex, &entry)?;
        self.contents.ports.insert(ifindex, KnownPort { name: name.clone(), entry });
        if self.attachments.attach(&self.pins, ifindex, &self.programs.steer)? {
            entry.clsact = 1;
            self.programs.maps.ports.put(&ifindex, &entry)?;
            self.contents.ports.insert(ifindex, KnownPort { name: name.clone(), entry });
        }
        Ok(())
    }

    fn write_tunnel(&mut self, tunnel: &Tunnel, old: Option<&Tunnel>) -> Result<(), DriverError> {
        let underlay = find_port(&tunnel.underlay)?;
        let others = self.tunnels().filter(|other| other.site != tunnel.site).map(|other| other.mtu);
        let mtu = others.chain([tunnel.mtu]).min().unwrap_or(tunnel.mtu);
        self.set_up_device(mtu.into())?;

        let maps = &self.programs.maps;
        let entry = layout::Tunnel {
            underlay,
            local: words::v4(tunnel.local)?,
            remote: words::v4(tunnel.remote)?,
            key: tunnel.key.unwrap_or_default(),
            has_key: tunnel.key.is_some().into(),
            mtu: tunnel.mtu.into(),
            mark: self.mark,
            name: words::port_name(&tunnel.underlay)?,
        };
        maps.tunnels.put(&tunnel.site.0, &entry)?;
        maps.tunnel_ends.put(&end(tunnel)?, &tunnel.site.0)?;
        let locals = self.tunnels().filter(|other| other.site != tunnel.site && other.local == tunnel.local);
        maps.tunnel_locals.put(&words::v4(tunnel.local)?, &(locals.count() as u32 + 1))?;
        let tries = (&maps.allowed4, &maps.allowed6);
        add_prefixes(tries, tunnel.site, &tunnel.allowed)?;
        let Some(old) = old else { return Ok(()) };
        remove_prefixes(tries, tunnel.site, old.allowed.difference(&tunnel.allowed))?;
        if end(old)? != end(tunnel)? {
            self.erase_end(old)?;
        }
        Ok(())
    }

    fn erase_tunnel(&mut self, tunnel: &Tunnel) -> Result<(), DriverError> {
        self.erase_end(tunnel)?;
        let maps = &self.programs.maps;
        remove_prefixes((&maps.allowed4, &maps.allowed6), tunnel.site, &tunnel.allowed)?;
        maps.tunnels.remove(&tunnel.site.0)?;
        counters::forget_tunnel(maps, tunnel.site)?;
        match self.tunnels().map(|tunnel| tunnel.mtu).min() {
            Some(mtu) => self.set_up_device(mtu.into()),
            None => self.remove_device(),
        }
    }

    /// What comes to this end from outside is no longer of a tunnel.
    fn erase_end(&self, tunnel: &Tunnel) -> Result<(), DriverError> {
        let maps = &self.programs.maps;
        if maps.tunnel_ends.get(&end(tunnel)?)? == Some(tunnel.site.0) {
            maps.tunnel_ends.remove(&end(tunnel)?)?;
        }
        let others = self.tunnels().filter(|other| other.site != tunnel.site && other.local == tunnel.local);
        match others.count() as u32 {
            0 => maps.tunnel_locals.remove(&words::v4(tunnel.local)?),
            count => maps.tunnel_locals.put(&words::v4(tunnel.local)?, &count),
        }
    }

    fn set_up_device(&mut self, mtu: u32) -> Result<(), DriverError> {
        let device = Device::ensure(mtu)?;
        let mut element = self.programs.maps.element()?;
        if element.hidden != device.hidden.ifindex && element.hidden != 0 {
            self.attachments.detach(&self.pins, element.hidden, &self.programs.encap, false)?;
        }
        element.tunnels = device.visible.ifindex;
        element.hidden = device.hidden.ifindex;
        element.tunnels_mac = device.visible.mac;
        self.programs.maps.elements.put(&0, &element)?;
        self.attachments.attach(&self.pins, device.hidden.ifindex, &self.programs.encap)?;
        Ok(())
    }

    fn remove_device(&mut self) -> Result<(), DriverError> {
        let mut element = self.programs.maps.element()?;
        self.attachments.detach(&self.pins, element.hidden, &self.programs.encap, false)?;
        Device::remove()?;
        (element.tunnels, element.hidden) = (0, 0);
        self.programs.maps.elements.put(&0, &element)
    }

    fn tunnels(&self) -> impl Iterator<Item = &Tunnel> {
        self.contents.objects.iter().filter_map(|object| match object {
            Object::Tunnel(tunnel) => Some(tunnel),
            _ => None,
        })
    }
}

/// The number of a port of this thread's namespace.
pub(crate) fn find_port(name: &PortName) -> Result<u32, DriverError> {
    match if_nametoindex(name.as_str()) {
        Ok(ifindex) => Ok(ifindex),
        Err(Errno::ENODEV | Errno::ENXIO) => Err(DriverError::NoPort(name.clone())),
        Err(error) => Err(DriverError::failed(format!("cannot look for port {name}"), error)),
    }
}

/// The ports that need our program for this object.
pub(crate) fn ports(object: &Object) -> Vec<PortName> {
    match object {
        Object::Ingress(ingress) => vec![ingress.port.clone()],
        Object::Instance(instance) => vec![instance.inside.port.clone(), instance.outside.port.clone()],
        Object::Tunnel(tunnel) => vec![tunnel.underlay.clone()],
        Object::Path(_) | Object::Policy(_) | Object::Table(_) | Object::Rule(_) => Vec::new(),
    }
}

/// The roles, and the directions to classify in, that all objects together give a port; `None` for no role.
pub(crate) fn roles(objects: &ElementState, port: &PortName) -> Option<(u32, u32)> {
    let mut roles = 0;
    let mut directions = 0;
    for object in objects.iter() {
        match object {
            Object::Ingress(ingress) if ingress.port == *port => {
                roles |= match ingress.purpose {
                    Purpose::Claim => ROLE_CLAIM,
                    Purpose::Steer => ROLE_STEER,
                };
                directions |= ingress.directions.iter().fold(0, |all, direction| all | bit(*direction));
            }
            Object::Instance(instance) => roles |= function_roles(instance, port),
            Object::Tunnel(tunnel) if tunnel.underlay == *port => roles |= ROLE_UNDERLAY,
            _ => {}
        }
    }
    (roles != 0).then_some((roles, directions))
}

fn function_roles(instance: &Instance, port: &PortName) -> u32 {
    let mut roles = 0;
    if instance.inside.port == *port {
        roles |= ROLE_INSIDE;
    }
    if instance.outside.port == *port {
        roles |= ROLE_OUTSIDE;
    }
    if roles != 0 && instance.insertion == Insertion::L2 {
        roles |= ROLE_L2;
    }
    roles
}

fn write_instance(maps: &Maps, instance: &Instance) -> Result<(), DriverError> {
    let (inside, outside) = (find_port(&instance.inside.port)?, find_port(&instance.outside.port)?);
    maps.instances.put(&instance.id.0, &words::instance(instance, inside, outside)?)
}

fn erase_path(maps: &Maps, path: &Path) -> Result<(), DriverError> {
    maps.paths.remove(&path.id.0)?;
    counters::forget_path(maps, path)
}

fn write_policy(maps: &Maps, policy: &Policy, old: Option<&Policy>) -> Result<(), DriverError> {
    let exits = match &policy.exits {
        Some(exits) => {
            let [up, down] = Direction::BOTH.map(|direction| find_port(&exits.of(direction).port));
            Some([up?, down?])
        }
        None => None,
    };
    let there = maps.policies.get(&policy.site.0)?;
    let mut entry = words::policy(policy, exits, there.map(|there| there.serial).unwrap_or_default())?;
    if there != Some(entry) {
        entry.serial = flows::now()?.as_nanos() as u64;
        maps.policies.put(&policy.site.0, &entry)?;
    }
    // A new prefix leads to a policy that is there already.
    let tries = (&maps.sites4, &maps.sites6);
    add_prefixes(tries, policy.site, &policy.prefixes)?;
    match old {
        Some(old) => remove_prefixes(tries, policy.site, old.prefixes.difference(&policy.prefixes)),
        None => Ok(()),
    }
}

fn erase_policy(maps: &Maps, policy: &Policy) -> Result<(), DriverError> {
    remove_prefixes((&maps.sites4, &maps.sites6), policy.site, &policy.prefixes)?;
    maps.policies.remove(&policy.site.0)?;
    counters::forget_site(maps, policy.site)
}

type Tries<'a> = (&'a Map<Lpm4, u32>, &'a Map<Lpm6, u32>);

fn add_prefixes<'a>(
    (v4, v6): Tries<'_>,
    site: SiteId,
    prefixes: impl IntoIterator<Item = &'a Prefix>,
) -> Result<(), DriverError> {
    prefixes.into_iter().try_for_each(|prefix| match Lpm::from(*prefix) {
        Lpm::V4(key) => v4.put(&key, &site.0),
        Lpm::V6(key) => v6.put(&key, &site.0),
    })
}

/// Those that have not meanwhile become another site's.
fn remove_prefixes<'a>(
    (v4, v6): Tries<'_>,
    site: SiteId,
    prefixes: impl IntoIterator<Item = &'a Prefix>,
) -> Result<(), DriverError> {
    prefixes.into_iter().try_for_each(|prefix| match Lpm::from(*prefix) {
        Lpm::V4(key) if v4.get(&key)? == Some(site.0) => v4.remove(&key),
        Lpm::V6(key) if v6.get(&key)? == Some(site.0) => v6.remove(&key),
        _ => Ok(()),
    })
}

fn end(tunnel: &Tunnel) -> Result<layout::TunnelEnd, DriverError> {
    Ok(layout::TunnelEnd {
        local: words::v4(tunnel.local)?,
        remote: words::v4(tunnel.remote)?,
        key: tunnel.key.unwrap_or_default(),
        has_key: tunnel.key.is_some().into(),
    })
}

fn not_ours(object: &Object) -> DriverError {
    DriverError::Unsupported {
        what: format!("the steering engine has no {}s", object.kind()),
        help: "give it to the driver of the element that has them".to_owned(),
    }
}
