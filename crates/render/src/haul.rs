//! The way to the functions and back: claims at both ends, policy routing between them, tunnels under it.
//!
//! Every element on the way looks at the site's address alone: the source on the way up, the destination on the way
//! down. Only where packets enter, ports and protocols are looked at too, by a policy that follows fragments.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use catena_model::address::{Family, Prefix};
use catena_model::forwarding::{
    Action, Direction, FlowMatch, Ingress, Object, Oversize, PathId, Policy, PolicyRule, Purpose, Rule,
    Selector, Table, Tunnel,
};
use catena_model::name::{NodeName, PortName, SiteName};
use catena_model::numbering::PathOwner;
use catena_model::resource::{Chain, LinkEnd, Traffic};
use catena_model::topology::Cable;

use crate::error::RenderError;
use crate::route::{Access, AttachKind, Entry, Route};
use crate::{Canvas, Served};

/// Bytes of an outer IPv4 header and a GRE header without and with a key (RFC 2784, RFC 2890).
const GRE_OVERHEAD: u16 = 24;
const GRE_KEY: u16 = 4;

pub fn render(served: &Served, route: &Route, canvas: &mut Canvas) -> Result<(), RenderError> {
    let site = &served.site.name;
    let up = legs_up(served, route)?;
    let down = legs_down(served, route)?;
    let home = legs_home(served, route)?;
    install(served, PathOwner::Up(site.clone()), up, canvas)?;
    install(served, PathOwner::Down(site.clone()), down, canvas)?;
    install(served, PathOwner::Home(site.clone()), home, canvas)?;
    claim(served, route, canvas);
    tunnels(served, route, canvas)
}

/// The alternatives that a chain claims, each with one port range.
pub fn flow_matches(chain: &Chain) -> impl Iterator<Item = FlowMatch> {
    chain.matches.iter().flat_map(Traffic::flow_matches)
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

fn legs_up<'a>(served: &Served, route: &Route<'a>) -> Result<Vec<Leg<'a>>, RenderError> {
    let tunnel_port = PortName::tunnel();
    let mut legs = Vec::new();
    for prefix in &served.site.prefixes {
        let from = |in_port: Option<&PortName>, claimed| Selector {
            family: prefix.family(),
            from: Some(*prefix),
            to: None,
            in_port: in_port.cloned(),
            claimed,
        };
        let arrival = match &route.attach.kind {
            AttachKind::Gre { .. } => &tunnel_port,
            AttachKind::L2(cable) => &cable.far.port,
        };
        if let Some(access) = &route.attach.access {
            let (port, via) = match &route.attach.kind {
                AttachKind::Gre { .. } => (tunnel_port.clone(), None),
                AttachKind::L2(cable) => {
                    (cable.near.port.clone(), Some(address(served, &cable.far, prefix.family())?))
                }
            };
            legs.push(Leg::new(access.element, *prefix, from(None, true), port, via));
        }
        let mut in_port = Some(arrival);
        for cable in &route.up {
            let element = &cable.near.node;
            let via = address(served, &cable.far, prefix.family())?;
            legs.push(Leg::new(element, *prefix, from(in_port, false), cable.near.port.clone(), Some(via)));
            // The next element is told by source alone, as long as the functions' packets do not come back to it.
            in_port = route.comes_back_to(&cable.far.node).then_some(&cable.far.port);
        }
    }
    Ok(legs)
}

/// From the Internet to the switch.
fn legs_down<'a>(served: &Served, route: &Route<'a>) -> Result<Vec<Leg<'a>>, RenderError> {
    let mut legs = Vec::new();
    for prefix in &served.site.prefixes {
        for entry in &route.entries {
            let mut in_port = &entry.port.near.port;
            for (nth, cable) in entry.way.iter().enumerate() {
                let via = address(served, &cable.far, prefix.family())?;
                // Only where packets enter, some of the site's are not claimed.
                let selector = towards(*prefix, in_port, nth == 0);
                legs.push(Leg::new(&cable.near.node, *prefix, selector, cable.near.port.clone(), Some(via)));
                in_port = &cable.far.port;
            }
        }
    }
    // Ways from several entries join.
    let mut seen = BTreeSet::new();
    legs.retain(|leg| seen.insert((leg.element, leg.order, leg.selector.clone())));
    Ok(legs)
}

/// From the switch to the site: the way up, backwards.
fn legs_home<'a>(served: &Served, route: &Route<'a>) -> Result<Vec<Leg<'a>>, RenderError> {
    let mut legs = Vec::new();
    for prefix in &served.site.prefixes {
        for (nth, cable) in route.up.iter().enumerate().rev() {
            let (port, via) = match (nth.checked_sub(1).map(|before| route.up[before]), &route.attach.kind) {
                (Some(next), _) => {
                    (next.far.port.clone(), Some(address(served, &next.near, prefix.family())?))
                }
                (None, AttachKind::Gre { .. }) => (PortName::tunnel(), None),
                (None, AttachKind::L2(link)) => {
                    (link.far.port.clone(), neighbour(served, &link.near, *prefix)?)
                }
            };
            let selector = towards(*prefix, &cable.near.port, false);
            legs.push(Leg::new(&cable.near.node, *prefix, selector, port, via));
        }
    }
    Ok(legs)
}

/// Packets to a site that come in by this port.
fn towards(prefix: Prefix, in_port: &PortName, claimed: bool) -> Selector {
    let in_port = Some(in_port.clone());
    Selector { family: prefix.family(), from: None, to: Some(prefix), in_port, claimed }
}

impl<'a> Leg<'a> {
    fn new(
        element: &'a NodeName,
        prefix: Prefix,
        selector: Selector,
        port: PortName,
        via: Option<IpAddr>,
    ) -> Self {
        Self { element, order: order(prefix, selector.in_port.is_some()), selector, port, via }
    }
}

/// Rules that name the ingress port come before those that do not, longer prefixes before shorter ones.
fn order(prefix: Prefix, with_port: bool) -> u16 {
    const HALF: u16 = Rule::ORDERS / 2;
    let shortness = u16::from(prefix.family().bits() - prefix.length()).min(HALF - 1);
    if with_port { shortness } else { HALF + shortness }
}

fn install(
    served: &Served,
    owner: PathOwner,
    legs: Vec<Leg>,
    canvas: &mut Canvas,
) -> Result<(), RenderError> {
    let path = number(served, &owner, &legs, canvas)?;
    for Leg { element, order, selector, port, via } in legs {
        let table = Object::Table(Table { path, family: selector.family, port, via });
        let other = canvas.state.element(element).get(&table.key());
        if other.is_some_and(|other| *other != table) {
            return Err(RenderError::Crossing {
                site: served.site.name.clone(),
                node: element.clone(),
                owner,
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
fn claim(served: &Served, route: &Route, canvas: &mut Canvas) {
    let matches = served.chains.iter().flat_map(|chain| flow_matches(chain));
    let policy = Policy {
        site: served.id,
        prefixes: served.site.prefixes.clone(),
        rules: matches.map(|matches| PolicyRule { matches, action: Action::Claim }).collect(),
        exits: None,
    };
    let from_site = route.attach.access.iter().flat_map(|Access { element, lan }| {
        lan.iter().map(move |cable| (*element, &cable.near.port, Direction::Up))
    });
    let from_internet =
        route.entries.iter().map(|Entry { port, .. }| (&port.near.node, &port.near.port, Direction::Down));
    for (element, port, direction) in from_site.chain(from_internet) {
        let directions = BTreeSet::from([direction]);
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
    let overhead = GRE_OVERHEAD + if gre.key.is_some() { GRE_KEY } else { 0 };
    let tunnel = |underlay: &Cable, local: Ipv4Addr, remote: Ipv4Addr, allowed| Tunnel {
        site: served.id,
        underlay: underlay.near.port.clone(),
        local: local.into(),
        remote: remote.into(),
        key: gre.key,
        mtu: underlay_mtu.saturating_sub(overhead),
        oversize: Oversize::default(),
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

/// Whom a site's packets are handed to at the end of a layer 2 attachment: its router, or each host by itself where the
/// site's own network begins at the link.
fn neighbour(served: &Served, end: &LinkEnd, prefix: Prefix) -> Result<Option<IpAddr>, RenderError> {
    let begins_here = end.addresses.iter().any(|address| prefix.contains(address.addr()));
    if begins_here { Ok(None) } else { address(served, end, prefix.family()).map(Some) }
}
