//! Ports: finding them, and what each of them is for.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use catena_driver::DriverError;
use catena_model::forwarding::{
    Action, Insertion, Instance, InstanceId, Key, Object, Oversize, PathId, Purpose, SiteId, TUNNEL_PORT,
    Tunnel,
};
use catena_model::name::PortName;

use crate::contents::{Contents, KnownPort, bit};
use crate::engine::Engine;
use crate::layout::{
    self, ROLE_CLAIM, ROLE_INSIDE, ROLE_OUTSIDE, ROLE_SITE, ROLE_STEER, ROLE_TUNNELS, ROLE_UNDERLAY,
};
use crate::netlink::{Connection, Link};
use crate::words;

/// Finds each port of this thread's namespace once.
pub(crate) struct Finder {
    connection: Connection,
    found: HashMap<PortName, Option<Link>>,
    /// Whether a port that is gone gets the number 0, which no port has, instead of being an error.
    pub(crate) lenient: bool,
}

impl Finder {
    pub(crate) fn open() -> Result<Self, DriverError> {
        let connection =
            Connection::open().map_err(|error| DriverError::failed("cannot ask for ports", error))?;
        Ok(Self { connection, found: HashMap::new(), lenient: false })
    }

    /// `None` where there is no such port.
    pub(crate) fn look(&mut self, name: &PortName) -> Result<Option<&Link>, DriverError> {
        if !self.found.contains_key(name) {
            let link = self
                .connection
                .link(name.as_str())
                .map_err(|error| DriverError::failed(format!("cannot look for port {name}"), error))?;
            self.found.insert(name.clone(), link);
        }
        Ok(self.found.get(name).and_then(Option::as_ref))
    }

    /// What is wrong with the way of what a tunnel has its element's stack cut, in words; `None` for one that has none cut.
    pub(crate) fn misrouted(&mut self, tunnel: &Tunnel) -> Result<Option<String>, DriverError> {
        let (Oversize::FragmentOuter, IpAddr::V4(local), IpAddr::V4(remote)) =
            (tunnel.oversize, tunnel.local, tunnel.remote)
        else {
            return Ok(None);
        };
        let way = self.connection.way(local, remote);
        let way =
            way.map_err(|error| DriverError::failed(format!("cannot ask for the route to {remote}"), error))?;
        let underlay = self.look(&tunnel.underlay)?.map(|link| link.ifindex);
        Ok((way.is_none() || way != underlay).then(|| {
            format!("the element's route from {local} to {remote} does not leave by {}", tunnel.underlay)
        }))
    }

    pub(crate) fn find(&mut self, name: &PortName) -> Result<Link, DriverError> {
        let lenient = self.lenient;
        match self.look(name)? {
            Some(link) => Ok(link.clone()),
            None if lenient => Ok(Link::nowhere()),
            None => Err(DriverError::NoPort(name.clone())),
        }
    }
}

/// The ports that need our program for this object.
pub(crate) fn ports(object: &Object) -> Vec<&PortName> {
    match object {
        Object::Ingress(ingress) => vec![&ingress.port],
        Object::Instance(instance) => vec![&instance.inside.port, &instance.outside.port],
        Object::Tunnel(tunnel) => vec![&tunnel.underlay],
        Object::Path(_) | Object::Policy(_) | Object::Table(_) | Object::Rule(_) => Vec::new(),
    }
}

/// What all objects together make of a port; `None` for nothing. `mark` is the bit that says "claimed".
pub(crate) fn purpose(
    contents: &Contents,
    name: &PortName,
    mark: u32,
) -> Result<Option<layout::Port>, DriverError> {
    let Some(named) = contents.index.port(name) else { return Ok(None) };
    let mut entry = layout::Port { mark, name: words::port_name(name)?, ..Default::default() };
    if let Some(Object::Ingress(ingress)) = contents.objects.get(&Key::Ingress(name.clone())) {
        entry.roles |= match ingress.purpose {
            Purpose::Claim => ROLE_CLAIM,
            Purpose::Steer => ROLE_STEER,
        };
        entry.directions = ingress.directions.iter().fold(0, |all, direction| all | bit(*direction));
        if let Some(site) = ingress.site {
            entry.roles |= ROLE_SITE;
            entry.site = site.0;
        }
        if name.as_str() == TUNNEL_PORT {
            entry.roles |= ROLE_TUNNELS;
        }
    }
    if let Some(Object::Instance(instance)) =
        named.functions.first().and_then(|id| contents.objects.get(&Key::Instance(*id)))
    {
        of_function(contents, instance, name, &mut entry);
    }
    if named.tunnels > 0 {
        entry.roles |= ROLE_UNDERLAY;
    }
    Ok(Some(entry))
}

fn of_function(contents: &Contents, instance: &Instance, port: &PortName, entry: &mut layout::Port) {
    let is_tap = instance.insertion == Insertion::Tap;
    if instance.inside.port == *port || is_tap {
        entry.roles |= ROLE_INSIDE;
    }
    // What comes out of a tap is nobody's: the program drops it rather than leave it to the stack.
    if instance.outside.port == *port || is_tap {
        entry.roles |= ROLE_OUTSIDE;
    }
    entry.insertion = words::insertion(instance.insertion);
    entry.instance = contents.index.numbers.instances.get(&instance.id).unwrap_or_default();
    if instance.rewrites {
        entry.path = path_through(contents, instance.id).map(|path| path.0).unwrap_or_default();
    }
    if instance.insertion == Insertion::L3
        && let Some(site) = site_through(contents, instance.id)
    {
        entry.roles |= ROLE_SITE;
        entry.site = site.0;
    }
}

/// The one path that an instance which rewrites addresses serves. While an edit replaces it there are two: then the one
/// that the policy leads to, or else the newer one.
fn path_through(contents: &Contents, id: InstanceId) -> Option<PathId> {
    let paths: Vec<_> = contents.index.users(id).collect();
    let (newest, site) = *paths.last()?;
    let Some(Object::Policy(policy)) = contents.objects.get(&Key::Policy(site)) else { return Some(newest) };
    let led_to = policy.rules.iter().find_map(|rule| match rule.action {
        Action::Path(path) if paths.contains(&(path, site)) => Some(path),
        _ => None,
    });
    led_to.or(Some(newest))
}

/// The site whose packets alone pass a routed instance, where they are told by port: their addresses say nothing.
fn site_through(contents: &Contents, id: InstanceId) -> Option<SiteId> {
    let (_, site) = contents.index.users(id).next()?;
    contents.index.is_told_by_port(site).then_some(site)
}

/// The changed ports, and which of them were named by a changed object: there the program is looked after too.
#[derive(Clone, Debug, Default)]
pub(crate) struct Touched {
    pub(crate) named: BTreeSet<PortName>,
    pub(crate) others: BTreeSet<PortName>,
}

impl Engine {
    /// Gives ports what `purpose` says, and takes the program off those without any.
    pub(crate) fn settle_port(
        &mut self,
        finder: &mut Finder,
        name: &PortName,
        is_named: bool,
    ) -> Result<(), DriverError> {
        let wanted = purpose(&self.contents, name, self.config.mark)?;
        let current = match wanted {
            Some(_) => finder.look(name)?.map(|link| link.ifindex),
            None => None,
        };
        let ports = self.contents.ports.iter();
        let stale = ports.filter(|(ifindex, port)| port.name == *name && Some(**ifindex) != current);
        for ifindex in stale.map(|(ifindex, _)| *ifindex).collect::<Vec<_>>() {
            self.leave_port(ifindex)?;
        }
        let Some((ifindex, mut entry)) = current.zip(wanted) else { return Ok(()) };

        let known = self.contents.ports.get(&ifindex).map(|port| port.entry);
        entry.clsact = known.map(|known| known.clsact).unwrap_or_default();
        if known == Some(entry) && !is_named {
            return Ok(());
        }
        // The role before the program: from its first packet on it knows what to do.
        self.write_port(ifindex, name, entry)?;
        if self.attachments.attach(&self.pins, ifindex, name.as_str(), &self.programs.steer)? {
            entry.clsact = 1;
            self.write_port(ifindex, name, entry)?;
        }
        Ok(())
    }

    fn write_port(&mut self, ifindex: u32, name: &PortName, entry: layout::Port) -> Result<(), DriverError> {
        self.programs.maps.put_port(ifindex, &entry)?;
        self.contents.ports.insert(ifindex, KnownPort { name: name.clone(), entry });
        Ok(())
    }

    fn leave_port(&mut self, ifindex: u32) -> Result<(), DriverError> {
        let clsact = self.contents.ports.get(&ifindex).is_some_and(|port| port.entry.clsact != 0);
        self.attachments.detach(&self.pins, ifindex, &self.programs.steer, clsact)?;
        self.programs.maps.remove_port(ifindex)?;
        self.contents.ports.remove(&ifindex);
        Ok(())
    }
}
