//! From node to node.

use std::collections::BTreeSet;
use std::net::IpAddr;

use catena_model::forwarding::{Direction, Instance, InstanceId, Key, Object, SiteId, Tunnel};
use catena_model::name::{NodeName, PortName, SiteName};
use catena_model::numbering::PathOwner;
use catena_model::packet::Packet;
use catena_model::topology::{Cable, external_ports};

use crate::decision::{Decision, End};
use crate::lookup::{Arrival, Outcome, of_inventory, route};
use crate::steering::{Verdict, classify};
use crate::{Network, Visit, Walk};

/// Where a packet is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    node: NodeName,
    in_port: Option<PortName>,
}

/// What happens next.
enum Next {
    Go(Place),
    End(End),
}

pub fn walk(network: &Network, packet: Packet) -> Walk {
    let mut walker = Walker { network, packet, visits: Vec::new() };
    let end = match walker.start() {
        Ok(place) => walker.go(place),
        Err(why) => End::NoStart { why },
    };
    Walk { packet, visits: walker.visits, end }
}

struct Walker<'a> {
    network: &'a Network<'a>,
    packet: Packet,
    visits: Vec<Visit>,
}

impl Walker<'_> {
    /// At the node that has the source address; else where the site's packets, or the Internet's, come in.
    fn start(&self) -> Result<Place, String> {
        let Network { model, topology, .. } = self.network;
        let source = self.packet.source;
        let nodes = || model.hosts.keys().chain(model.elements.keys());
        let has_source = |cable: &Cable| cable.near.addresses.iter().any(|address| address.addr() == source);
        if let Some(node) = nodes().find(|node| topology.cables(node).any(has_source)) {
            return Ok(Place { node: node.clone(), in_port: None });
        }
        let on_link = |cable: &Cable| cable.near.addresses.iter().any(|address| address.contains(&source));
        let at =
            |cable: &Cable| Place { node: cable.near.node.clone(), in_port: Some(cable.near.port.clone()) };
        let mut cables = model.elements.keys().flat_map(|node| topology.cables(node));
        if let Some(cable) = cables.find(|cable| on_link(cable)) {
            return Ok(at(cable));
        }
        if model.sites.values().any(|site| site.prefixes.iter().any(|prefix| prefix.contains(source))) {
            return Err(format!(
                "no link of the inventory has {source} on it, so it is not known where it begins"
            ));
        }
        let (_, cable) = external_ports(model, topology)
            .next()
            .ok_or_else(|| format!("nothing in the inventory has {source}, and no port is external"))?;
        Ok(at(cable))
    }

    fn go(&mut self, mut place: Place) -> End {
        let mut been = BTreeSet::new();
        loop {
            if !been.insert(place.clone()) {
                return End::Loop { node: place.node };
            }
            let mut decisions = Vec::new();
            let next = self.at(&place, &mut decisions);
            self.visits.push(Visit { node: place.node.clone(), in_port: place.in_port, decisions });
            match next {
                Next::Go(next) => place = next,
                Next::End(end) => return end,
            }
        }
    }

    fn at(&mut self, place: &Place, decisions: &mut Vec<Decision>) -> Next {
        let Place { node, in_port } = place;
        let state = self.network.state.element(node);
        let mut released = false;
        if let Some(in_port) = in_port {
            match classify(state, in_port, &self.packet) {
                Verdict::Pass => {}
                Verdict::Released => released = true,
                Verdict::Claimed { site, by } => {
                    let site = self.site(site);
                    decisions.push(Decision::Claimed { site, by: by.clone() });
                }
                Verdict::Drop { why } => return Next::End(End::Dropped { node: node.clone(), why }),
                Verdict::Transit { site, direction, exits } => {
                    let side = exits.of(direction);
                    let via = side.next_hops.of(self.packet.family());
                    decisions.push(Decision::Transit { site: self.site(site), port: side.port.clone(), via });
                    return self.along(node, &side.port);
                }
                Verdict::Steered { site, by, path, direction, hops, exits } => {
                    let chain = self.network.numbering.owner(path).and_then(|owner| match owner {
                        PathOwner::Chain(chain, _) => Some(chain.clone()),
                        _ => None,
                    });
                    let (site, by) = (self.site(site), by.clone());
                    decisions.push(Decision::Steered { site, chain, path, by, direction });
                    if let Err(end) = self.functions(node, direction, &hops, decisions) {
                        return Next::End(end);
                    }
                    let side = exits.of(direction);
                    let via = side.next_hops.of(self.packet.family());
                    decisions.push(Decision::Exit { port: side.port.clone(), via });
                    return self.along(node, &side.port);
                }
            }
        }
        self.route(place, released, decisions)
    }

    /// Through the functions of a path, each by the instance that the flow is given.
    fn functions(
        &self,
        switch: &NodeName,
        direction: Direction,
        hops: &[(u8, Option<InstanceId>)],
        decisions: &mut Vec<Decision>,
    ) -> Result<(), End> {
        for (nth, (position, instance)) in hops.iter().enumerate() {
            let Some(instance) = instance else {
                decisions.push(Decision::Skipped { position: *position });
                continue;
            };
            let (known, name) = self
                .instance(switch, direction, *instance)
                .map_err(|why| End::Dropped { node: switch.clone(), why })?;
            let undecided = |why| Err(End::Undecided { node: switch.clone(), why });
            if known.rewrites && direction == Direction::Down {
                return undecided(format!(
                    "{name} changes addresses: replies come to the address that it gave the request, not to {}",
                    self.packet.destination
                ));
            }
            let (position, instance) = (*position, name.clone());
            decisions.push(match known.insertion.returns() {
                true => Decision::Function { position, instance },
                false => Decision::Copied { position, instance },
            });
            if known.rewrites && nth + 1 < hops.len() {
                return undecided(format!(
                    "{name} changes addresses: what the functions after it get is not known"
                ));
            }
        }
        Ok(())
    }

    /// An instance and its name, if the switch knows how to reach it.
    fn instance(
        &self,
        switch: &NodeName,
        direction: Direction,
        instance: InstanceId,
    ) -> Result<(&Instance, String), String> {
        let known = self.network.state.element(switch).get(&Key::Instance(instance));
        let name = match self.network.numbering.instance_name(instance) {
            Some(name) => name.to_string(),
            None => format!("number {instance}"),
        };
        let Some(Object::Instance(known)) = known else {
            return Err(format!("instance {name} is not installed"));
        };
        let side = match direction {
            Direction::Up => &known.inside,
            Direction::Down => &known.outside,
        };
        if self.network.topology.cable(switch, &side.port).is_none() {
            return Err(format!("no link at port {} of instance {name}", side.port));
        }
        Ok((known, name))
    }

    fn route(&self, place: &Place, released: bool, decisions: &mut Vec<Decision>) -> Next {
        let Place { node, in_port } = place;
        let Network { model, topology, state, base, .. } = self.network;
        let inventory;
        let base = match base.get(node) {
            Some(base) => base,
            None => {
                inventory = of_inventory(model, topology, node);
                &inventory
            }
        };
        let arrival = Arrival { packet: &self.packet, in_port: in_port.as_ref(), released };
        match route(base, state.element(node), &arrival) {
            Outcome::Local => Next::End(End::Delivered { node: node.clone() }),
            Outcome::Drop { why } => Next::End(End::Dropped { node: node.clone(), why }),
            Outcome::Undecided { why } => Next::End(End::Undecided { node: node.clone(), why }),
            Outcome::Forward { port, via, decision } => {
                decisions.push(decision);
                if port == PortName::tunnel() {
                    return self.tunnel(node, decisions);
                }
                self.forward(node, &port, via)
            }
        }
    }

    /// Out by a port: to the other end of the cable, if somebody there takes the packet.
    fn forward(&self, node: &NodeName, port: &PortName, via: Option<IpAddr>) -> Next {
        let Some(cable) = self.network.topology.cable(node, port) else {
            return Next::End(End::Undecided {
                node: node.clone(),
                why: format!("no link of the inventory is at {port}"),
            });
        };
        let taker = via.unwrap_or(self.packet.destination);
        let takes = cable.far.addresses.iter().any(|address| address.addr() == taker);
        let driven = self.network.model.elements.contains_key(&cable.far.node);
        match () {
            () if takes => self.along(node, port),
            () if cable.near.external && !driven => {
                Next::End(End::Internet { node: node.clone(), port: port.clone() })
            }
            () => {
                Next::End(End::Dropped { node: node.clone(), why: format!("nobody at {port} has {taker}") })
            }
        }
    }

    fn along(&self, node: &NodeName, port: &PortName) -> Next {
        match self.network.topology.cable(node, port) {
            Some(Cable { far, .. }) => {
                Next::Go(Place { node: far.node.clone(), in_port: Some(far.port.clone()) })
            }
            None => {
                let why = format!("no link of the inventory is at {port}");
                Next::End(End::Undecided { node: node.clone(), why })
            }
        }
    }

    /// Into the tunnel that has the destination at its far end, and out of it there.
    fn tunnel(&self, node: &NodeName, decisions: &mut Vec<Decision>) -> Next {
        let dropped = |node: &NodeName, why: String| Next::End(End::Dropped { node: node.clone(), why });
        let Packet { source, destination, .. } = self.packet;
        let Some(entry) = self.tunnels(node).find(|tunnel| allows(tunnel, destination)) else {
            return dropped(node, format!("{destination} is at the far end of no tunnel"));
        };
        let (local, remote, key) = (entry.local, entry.remote, entry.key);
        decisions.push(Decision::Encapsulated { site: self.site(entry.site), local, remote, key });
        let ends_here =
            |tunnel: &&Tunnel| tunnel.local == remote && tunnel.remote == local && tunnel.key == key;
        let far_ends = self
            .network
            .state
            .elements
            .keys()
            .flat_map(|far| self.tunnels(far).filter(ends_here).map(move |tunnel| (far, tunnel)));
        let mut far_ends = far_ends;
        match far_ends.next() {
            None => Next::End(End::Undecided {
                node: node.clone(),
                why: format!("the far end of the tunnel, {remote}, is not driven by this controller"),
            }),
            Some((far, exit)) if !allows(exit, source) => {
                dropped(far, format!("{source} is not at the far end of the tunnel that it came through"))
            }
            Some((far, _)) => Next::Go(Place { node: far.clone(), in_port: Some(PortName::tunnel()) }),
        }
    }

    fn tunnels(&self, node: &NodeName) -> impl Iterator<Item = &Tunnel> {
        self.network.state.element(node).iter().filter_map(|object| match object {
            Object::Tunnel(tunnel) => Some(tunnel),
            _ => None,
        })
    }

    fn site(&self, site: SiteId) -> Option<SiteName> {
        self.network.numbering.site_name(site).cloned()
    }
}

fn allows(tunnel: &Tunnel, address: IpAddr) -> bool {
    tunnel.allowed.iter().any(|prefix| prefix.contains(address))
}
