//! The way to the functions and back: claims at both ends, policy routing between them, tunnels under it.
//!
//! Every element on the way looks at the site's address alone: the source on the way up, the destination on the way
//! down. Only where packets enter, ports and protocols are looked at too, by a policy that follows fragments.

use std::collections::BTreeSet;
use std::net::IpAddr;

use catena_model::address::{Family, Prefix};
use catena_model::forwarding::{
    Action, Direction, FlowMatch, Ingress, Object, PathId, Policy, PolicyRule, Purpose, Rule, Selector,
    Table, Tunnel,
};
use catena_model::name::{NodeName, PortName, SiteName};
use catena_model::numbering::PathOwner;
use catena_model::resource::{Chain, Gre, LinkEnd, Traffic};
use catena_model::topology::Cable;

use crate::error::RenderError;
use crate::route::{Access, AttachKind, Entry, Route};
use crate::{Canvas, Served};

pub fn render(served: &Served, route: &Route, canvas: &mut Canvas) -> Result<(), RenderError> {
    for way in [Way::up(served, route), Way::down(served, route), Way::home(served, route)] {
        install(served, &way, canvas)?;
        claim(served, &way, canvas);
    }
    tunnels(served, route, canvas)
}

/// What a chain claims where packets enter: all that could be of its flows. A reply may be marked with another DSCP than
/// the packet that it answers, and no element but the switch sees both: there the DSCP decides, and what no chain claims
/// passes without functions.
fn claimed(chain: &Chain) -> impl Iterator<Item = FlowMatch> {
    flow_matches(chain).map(|flows| FlowMatch { dscp: None, ..flows })
}

/// The alternatives that a chain claims, each with one port range.
pub fn flow_matches(chain: &Chain) -> impl Iterator<Item = FlowMatch> {
    chain.matches.iter().flat_map(Traffic::flow_matches)
}

/// A part of a site's route, on which packets go in one direction.
struct Way<'a> {
    owner: PathOwner,
    direction: Direction,
    hops: Vec<Hop<'a>>,
}

/// One element on a way.
struct Hop<'a> {
    element: &'a NodeName,
    arrival: Arrival,
    next: Next<'a>,
}

/// By which of an element's ports the packets of a way come in.
enum Arrival {
    /// By this one, where they enter: those too that no chain claims, which are not ours to lead.
    Entry(PortName),
    /// By this one; what is of the site and comes in by another port is not of this way.
    Port(PortName),
    Any,
}

/// Where an element hands packets on.
#[derive(Clone, Copy)]
enum Next<'a> {
    /// Into the site's tunnel.
    Tunnel,
    /// To the far end of a link of `port`.
    Neighbour { port: &'a PortName, far: &'a LinkEnd },
    /// Onto the link of the site's attachment.
    Site { port: &'a PortName, far: &'a LinkEnd },
}

impl<'a> Way<'a> {
    /// From the site to the switch.
    fn up(served: &Served, route: &Route<'a>) -> Self {
        let (from_attachment, into_attachment) = match &route.attach.kind {
            AttachKind::Gre { .. } => (PortName::tunnel(), Next::Tunnel),
            AttachKind::L2(cable) => (cable.far.port.clone(), Next::along(cable)),
        };
        let mut hops = Vec::new();
        if let Some(Access { element, lan }) = &route.attach.access {
            let entries = lan.iter().map(|cable| Arrival::Entry(cable.near.port.clone()));
            hops.extend(entries.map(|arrival| Hop { element, arrival, next: into_attachment }));
        }
        let mut arrival = Arrival::Port(from_attachment);
        for cable in &route.up {
            hops.push(Hop { element: &cable.near.node, arrival, next: Next::along(cable) });
            // The next element is told by source alone, as long as the functions' packets do not come back to it.
            arrival = match route.comes_back_to(&cable.far.node) {
                true => Arrival::Port(cable.far.port.clone()),
                false => Arrival::Any,
            };
        }
        Self { owner: PathOwner::Up(served.site.name.clone()), direction: Direction::Up, hops }
    }

    /// From the Internet to the switch.
    fn down(served: &Served, route: &Route<'a>) -> Self {
        let mut hops = Vec::new();
        // Ways from several entries join.
        let mut joined = BTreeSet::new();
        for Entry { port, way } in &route.entries {
            let mut arrival = Arrival::Entry(port.near.port.clone());
            for cable in way {
                let element = &cable.near.node;
                if joined.insert((element, arrival.port().cloned())) {
                    hops.push(Hop { element, arrival, next: Next::along(cable) });
                }
                arrival = Arrival::Port(cable.far.port.clone());
            }
        }
        Self { owner: PathOwner::Down(served.site.name.clone()), direction: Direction::Down, hops }
    }

    /// From the switch to the site: the way up, backwards.
    fn home(served: &Served, route: &Route<'a>) -> Self {
        let mut next = match &route.attach.kind {
            AttachKind::Gre { .. } => Next::Tunnel,
            AttachKind::L2(link) => Next::Site { port: &link.far.port, far: &link.near },
        };
        let mut hops = Vec::new();
        for cable in &route.up {
            let arrival = Arrival::Port(cable.near.port.clone());
            hops.push(Hop { element: &cable.near.node, arrival, next });
            next = Next::Neighbour { port: &cable.far.port, far: &cable.near };
        }
        Self { owner: PathOwner::Home(served.site.name.clone()), direction: Direction::Down, hops }
    }
}

impl Arrival {
    fn port(&self) -> Option<&PortName> {
        match self {
            Arrival::Entry(port) | Arrival::Port(port) => Some(port),
            Arrival::Any => None,
        }
    }
}

impl<'a> Next<'a> {
    fn along(cable: &'a Cable) -> Self {
        Next::Neighbour { port: &cable.near.port, far: &cable.far }
    }

    fn port(self) -> PortName {
        match self {
            Next::Tunnel => PortName::tunnel(),
            Next::Neighbour { port, .. } | Next::Site { port, .. } => port.clone(),
        }
    }

    /// The neighbour that packets to or from `prefix` are handed to.
    fn via(self, served: &Served, prefix: Prefix) -> Result<Option<IpAddr>, RenderError> {
        match self {
            Next::Tunnel => Ok(None),
            Next::Neighbour { far, .. } => address(served, far, prefix.family()).map(Some),
            // Each host by itself, where the site's own network begins at the link.
            Next::Site { far, .. } if far.addresses.iter().any(|own| prefix.contains(own.addr())) => Ok(None),
            Next::Site { far, .. } => address(served, far, prefix.family()).map(Some),
        }
    }
}

impl Hop<'_> {
    /// The packets of a site's prefix that this element sends this way.
    fn selector(&self, prefix: Prefix, direction: Direction) -> Selector {
        let (from, to) = match direction {
            Direction::Up => (Some(prefix), None),
            Direction::Down => (None, Some(prefix)),
        };
        Selector {
            family: prefix.family(),
            from,
            to,
            in_port: self.arrival.port().cloned(),
            unless_released: matches!(self.arrival, Arrival::Entry(_)),
        }
    }
}

/// Rules that name the ingress port come before those that do not, longer prefixes before shorter ones.
fn order(prefix: Prefix, with_port: bool) -> u16 {
    const HALF: u16 = Rule::ORDERS / 2;
    let shortness = u16::from(prefix.family().bits() - prefix.length()).min(HALF - 1);
    if with_port { shortness } else { HALF + shortness }
}

/// One rule on one element and the next hop it leads to, still without a number.
#[derive(Hash)]
struct Leg<'a> {
    element: &'a NodeName,
    order: u16,
    selector: Selector,
    port: PortName,
    via: Option<IpAddr>,
}

fn install(served: &Served, way: &Way, canvas: &mut Canvas) -> Result<(), RenderError> {
    let mut legs = Vec::new();
    for prefix in &served.site.prefixes {
        for hop in &way.hops {
            legs.push(Leg {
                element: hop.element,
                order: order(*prefix, hop.arrival.port().is_some()),
                selector: hop.selector(*prefix, way.direction),
                port: hop.next.port(),
                via: hop.next.via(served, *prefix)?,
            });
        }
    }
    let path = number(served, &way.owner, &legs, canvas)?;
    for Leg { element, order, selector, port, via } in legs {
        let table = Object::Table(Table { path, family: selector.family, port, via });
        let other = canvas.state.element(element).get(&table.key());
        if other.is_some_and(|other| *other != table) {
            return Err(RenderError::Crossing {
                site: served.site.name.clone(),
                node: element.clone(),
                owner: way.owner.clone(),
            });
        }
        canvas.state.insert(element, table);
        canvas.state.insert(element, Object::Rule(Rule { order, selector, table: path }));
    }
    Ok(())
}

/// The number of a path with this content.
pub fn number(
    served: &Served,
    owner: &PathOwner,
    content: &impl std::hash::Hash,
    canvas: &mut Canvas,
) -> Result<PathId, RenderError> {
    canvas.owners.insert(owner.clone());
    let numbered = canvas.numbering.path(owner, content);
    numbered.map_err(|source| RenderError::Exhausted { site: served.site.name.clone(), source })
}

/// Policies that claim, where packets enter: from the site, and from the Internet.
fn claim(served: &Served, way: &Way, canvas: &mut Canvas) {
    let mut matches: Vec<FlowMatch> = served.chains.iter().flat_map(|chain| claimed(chain)).collect();
    matches.dedup();
    let rules = matches.into_iter().map(|matches| PolicyRule { matches, action: Action::Claim });
    let policy = Policy {
        site: served.id,
        prefixes: served.site.prefixes.clone(),
        rules: rules.collect(),
        exits: None,
    };
    for Hop { element, arrival, .. } in &way.hops {
        let Arrival::Entry(port) = arrival else { continue };
        let directions = BTreeSet::from([way.direction]);
        let ingress = Ingress { port: port.clone(), directions, purpose: Purpose::Claim, site: None };
        canvas.state.insert(element, Object::Ingress(ingress));
        canvas.state.insert(element, Object::Policy(policy.clone()));
    }
}

fn tunnels(served: &Served, route: &Route, canvas: &mut Canvas) -> Result<(), RenderError> {
    let AttachKind::Gre { gre, customer_underlay, cloud_underlay } = &route.attach.kind else {
        return Ok(());
    };
    let underlay_mtu = customer_underlay.iter().map(|cable| cable.mtu).fold(cloud_underlay.mtu, u16::min);
    let overhead = Gre::overhead(gre.cloud.address, gre.key);
    let tunnel = |underlay: &Cable, local: IpAddr, remote: IpAddr, allowed| Tunnel {
        site: served.id,
        underlay: underlay.near.port.clone(),
        local,
        remote,
        key: gre.key,
        mtu: underlay_mtu.saturating_sub(overhead),
        oversize: gre.oversize,
        allowed,
    };
    let (customer, cloud) = (gre.customer.address, gre.cloud.address);
    let at_cloud = tunnel(cloud_underlay, cloud, customer, served.site.prefixes.clone());
    canvas.state.insert(route.attach.cloud, Object::Tunnel(at_cloud));
    if let (Some(access), Some(underlay)) = (&route.attach.access, customer_underlay) {
        let everything = BTreeSet::from([Prefix::ALL_V4, Prefix::ALL_V6]);
        let at_customer = tunnel(underlay, customer, cloud, everything);
        if let Some(other) = tunnelled_site(access.element, canvas) {
            return Err(RenderError::SharedAccess {
                site: served.site.name.clone(),
                node: access.element.clone(),
                other: other.clone(),
            });
        }
        canvas.state.insert(access.element, Object::Tunnel(at_customer));
    }
    Ok(())
}

/// The site whose tunnel this element ends, if any.
fn tunnelled_site<'a>(element: &NodeName, canvas: &'a Canvas) -> Option<&'a SiteName> {
    canvas.state.element(element).iter().find_map(|object| match object {
        Object::Tunnel(tunnel) => canvas.numbering.site_name(tunnel.site),
        _ => None,
    })
}

/// The address of a link's far end in a family that the site uses.
pub fn address(served: &Served, end: &LinkEnd, family: Family) -> Result<IpAddr, RenderError> {
    end.next_hops().of(family).ok_or_else(|| RenderError::NoAddress {
        site: served.site.name.clone(),
        node: end.node.clone(),
        port: end.port.clone(),
        family,
    })
}
