//! From node to node.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use catena_model::base::{BaseRouting, TranslationHook};
use catena_model::forwarding::{
    Direction, Insertion, Instance, InstanceId, Key, Object, PathId, Side, SiteId, Tunnel,
};
use catena_model::name::{NodeName, PortName, SiteName};
use catena_model::numbering::PathOwner;
use catena_model::packet::Packet;
use catena_model::resource::{Engine, FunctionInstance, PortRef};
use catena_model::topology::{Cable, external_ports};
use serde::{Deserialize, Serialize};

use crate::decision::{Decision, End};
use crate::kind::{Kind, Probe};
use crate::lookup::{Arrival, Outcome, engine_of, of_inventory, route};
use crate::steering::{Pick, Verdict, classify, hides_direction, is_of_a_site};
use crate::{Network, Visit, Walk};

/// Where a packet is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    node: NodeName,
    in_port: Option<PortName>,
}

/// Where packets come into the network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    pub node: NodeName,
    pub port: PortName,
    /// Out of the tunnel of this site, whose other end is not driven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<SiteName>,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tunnel {
            None => write!(f, "{} of {}", self.port, self.node),
            Some(site) => write!(f, "the tunnel of {site} at {}", self.node),
        }
    }
}

/// What happens next.
enum Next {
    Go(Place),
    End(End),
}

/// From the node that sends `packet`, as far as the inventory knows which one that is.
pub fn walk(network: &Network, packet: Packet) -> Walk {
    let mut walker = Walker { network, packet, probe: packet.into(), visits: Vec::new() };
    let end = match walker.start() {
        Ok(place) => walker.go(place),
        Err(why) => End::NoStart { why },
    };
    Walk { packet, kind: Kind::Whole, visits: walker.visits, end }
}

/// From where a packet comes in.
pub fn walk_from(network: &Network, entry: &Entry, probe: impl Into<Probe>) -> Walk {
    let probe @ Probe { packet, kind } = probe.into();
    let mut walker = Walker { network, packet, probe, visits: Vec::new() };
    let end = match walker.enter(entry) {
        Ok(place) => walker.go(place),
        Err(end) => end,
    };
    Walk { packet, kind, visits: walker.visits, end }
}

struct Walker<'a> {
    network: &'a Network<'a>,
    packet: Packet,
    probe: Probe,
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

    fn enter(&self, Entry { node, port, tunnel }: &Entry) -> Result<Place, End> {
        if let Some(site) = tunnel {
            let of_site = |tunnel: &&Tunnel| self.site(tunnel.site).as_ref() == Some(site);
            let dropped = |why| Err(End::Dropped { node: node.clone(), why });
            let Some(tunnel) = self.tunnels(node).find(of_site) else {
                return dropped(format!("no end of the tunnel of {site} is here"));
            };
            match self.stops_outer(node, tunnel) {
                Some(why) => return dropped(why),
                None if !allows(tunnel, self.probe.sender()) => {
                    let source = self.probe.sender();
                    return dropped(format!("{source} is not at the far end of the tunnel of {site}"));
                }
                None => {}
            }
        }
        if let Some(why) = self.down(node, port) {
            return Err(End::Dropped { node: node.clone(), why });
        }
        Ok(Place { node: node.clone(), in_port: Some(port.clone()) })
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
            match classify(state, in_port, &self.probe) {
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
                    return self.leave(node, side);
                }
                Verdict::Steered { site, by, path, direction, hops, exits } => {
                    let chain = self.network.numbering.owner(path).and_then(|owner| match owner {
                        PathOwner::Chain(chain, _) => Some(chain.clone()),
                        _ => None,
                    });
                    let (site, by) = (self.site(site), by.clone());
                    decisions.push(Decision::Steered { site, chain, path, by, direction });
                    if let Err(next) = self.functions(node, (path, direction), &hops, decisions) {
                        return next;
                    }
                    let side = exits.of(direction);
                    let via = side.next_hops.of(self.packet.family());
                    decisions.push(Decision::Exit { port: side.port.clone(), via });
                    return self.leave(node, side);
                }
            }
        }
        self.route(place, released, decisions)
    }

    /// Through the functions of a path, each by the instance that the flow is given. An error says what happens to a packet
    /// that does not come through.
    fn functions(
        &self,
        switch: &NodeName,
        (path, direction): (PathId, Direction),
        hops: &[(u8, Pick)],
        decisions: &mut Vec<Decision>,
    ) -> Result<(), Next> {
        let dropped = |why| Next::End(End::Dropped { node: switch.clone(), why });
        for (nth, (position, pick)) in hops.iter().enumerate() {
            let instance = match pick {
                Pick::Instance(instance) => instance,
                Pick::LeftOut => {
                    decisions.push(Decision::Skipped { position: *position });
                    continue;
                }
                Pick::Nobody => {
                    let why = format!("path {path} has a function none of whose instances is up");
                    return Err(dropped(why));
                }
            };
            let (known, name) = self.instance(switch, direction, *instance).map_err(dropped)?;
            let state = self.network.state.element(switch);
            if direction == Direction::Down
                && hides_direction(known)
                && is_of_a_site(state, self.packet.source)
            {
                let source = self.packet.source;
                return Err(dropped(format!(
                    "{name} has one port, and what it gets with a source of a site, {source}, would seem to go up"
                )));
            }
            let (position, instance) = (*position, name.clone());
            let (_, back) = in_turn(known, direction);
            if let Some(why) = self.down(switch, &back.port).filter(|_| known.insertion.returns()) {
                decisions.push(Decision::Kept { position, instance });
                return Err(dropped(why));
            }
            let undecided = |why| Err(Next::End(End::Undecided { node: switch.clone(), why }));
            if known.rewrites && matches!(self.probe.kind, Kind::Error { .. }) {
                return undecided(format!(
                    "{name} changes addresses: what it does with ICMP errors is not known"
                ));
            }
            if known.rewrites && direction == Direction::Down {
                return undecided(format!(
                    "{name} changes addresses: replies come to the address that it gave the request, not to {}",
                    self.packet.destination
                ));
            }
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

    /// An instance that can be handed packets, and the name of what the switch reaches as such: by the port, not by the number.
    fn instance(
        &self,
        switch: &NodeName,
        direction: Direction,
        instance: InstanceId,
    ) -> Result<(&Instance, String), String> {
        let known = self.network.state.element(switch).get(&Key::Instance(instance));
        let Some(Object::Instance(known)) = known else {
            return Err(format!("instance {} is not installed", self.instance_name(instance)));
        };
        let (side, _) = in_turn(known, direction);
        if known.insertion == Insertion::L3 {
            self.neighbour(switch, side)?;
        }
        // Packets do not wait for copies of them.
        if let Some(why) = self.down(switch, &side.port).filter(|_| known.insertion.returns()) {
            return Err(why);
        }
        let place = PortRef { element: switch.clone(), port: side.port.clone() };
        let here = |there: &&FunctionInstance| match direction {
            Direction::Up => there.inside == place,
            Direction::Down => there.outside == place,
        };
        let mut all = self.network.model.functions.values().flat_map(|function| &function.instances);
        match all.find(here) {
            Some(there) => Ok((known, there.name.to_string())),
            None => Err(format!(
                "port {} of instance {} leads to no function's side for what goes {direction}",
                side.port,
                self.instance_name(instance)
            )),
        }
    }

    fn instance_name(&self, instance: InstanceId) -> String {
        match self.network.numbering.instance_name(instance) {
            Some(name) => name.to_string(),
            None => format!("number {instance}"),
        }
    }

    /// Whether somebody at the port has the address that packets are handed to.
    fn neighbour(&self, switch: &NodeName, side: &Side) -> Result<(), String> {
        let Some(cable) = self.network.topology.cable(switch, &side.port) else {
            return Err(format!("no link of the inventory is at {}", side.port));
        };
        let family = self.packet.family();
        match side.next_hops.of(family) {
            None => Err(format!("no {family} next hop at {}", side.port)),
            Some(via) if cable.far.addresses.iter().any(|address| address.addr() == via) => Ok(()),
            Some(via) => Err(format!("nobody at {} has {via}", side.port)),
        }
    }

    /// Out of a switch, to the neighbour that its policy names.
    fn leave(&self, switch: &NodeName, side: &Side) -> Next {
        match self.neighbour(switch, side).and_then(|()| self.down(switch, &side.port).map_or(Ok(()), Err)) {
            Ok(()) => self.along(switch, &side.port),
            Err(why) => Next::End(End::Dropped { node: switch.clone(), why }),
        }
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
        if let Some(why) = self.translated(node, base, TranslationHook::Arriving, in_port.as_ref()) {
            return Next::End(End::Undecided { node: node.clone(), why });
        }
        let arrival = Arrival { probe: &self.probe, in_port: in_port.as_ref(), released };
        let stays = in_port.is_some() && model.hosts.get(node).is_some_and(|host| !host.forwarding);
        match route(engine_of(model, node), base, state.element(node), &arrival) {
            Outcome::Local => Next::End(End::Delivered { node: node.clone() }),
            _ if stays => {
                Next::End(End::Dropped { node: node.clone(), why: format!("{node} does not forward") })
            }
            Outcome::Drop { why } => Next::End(End::Dropped { node: node.clone(), why }),
            Outcome::Undecided { why } => Next::End(End::Undecided { node: node.clone(), why }),
            Outcome::Forward { port, via, decision } => {
                decisions.push(decision);
                if let Some(why) = self.translated(node, base, TranslationHook::Leaving, Some(&port)) {
                    return Next::End(End::Undecided { node: node.clone(), why });
                }
                if let Some(why) = self.down(node, &port) {
                    return Next::End(End::Dropped { node: node.clone(), why });
                }
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
        let has = |taker| cable.far.addresses.iter().any(|address| address.addr() == taker);
        let driven = self.network.model.elements.contains_key(&cable.far.node);
        let end = |end| Next::End(end);
        match via {
            _ if cable.near.external && !driven && !has(self.packet.destination) => {
                end(End::Internet { node: node.clone(), port: port.clone() })
            }
            Some(via) if has(via) => self.along(node, port),
            None if has(self.packet.destination) => self.along(node, port),
            None if !driven => end(End::Link { node: node.clone(), port: port.clone() }),
            _ => {
                let taker = via.unwrap_or(self.packet.destination);
                end(End::Dropped { node: node.clone(), why: format!("nobody at {port} has {taker}") })
            }
        }
    }

    /// Says that the owner's packet filter may give the packet other addresses, as it comes in or leaves by a port.
    fn translated(
        &self,
        node: &NodeName,
        base: &BaseRouting,
        hook: TranslationHook,
        port: Option<&PortName>,
    ) -> Option<String> {
        if hook == TranslationHook::Leaving && self.returns_translated(node, port?) {
            return None;
        }
        let (source, destination) = (self.probe.sender(), self.packet.destination);
        let mut all = base.translations.iter().filter(|translation| translation.hook == hook);
        let found = all.find(|translation| translation.may_be_for(port, source, destination))?;
        Some(format!("the owner's packet filter may give it other addresses: {}", found.rule))
    }

    /// Whether replies to what leaves by a port with another source come back as if it had left with its own: the old address
    /// stands in them again before any rule is asked, but not before the routing engine.
    fn returns_translated(&self, node: &NodeName, port: &PortName) -> bool {
        let Network { model, topology, .. } = self.network;
        let is_outside = |cable: &Cable| cable.near.external && !model.elements.contains_key(&cable.far.node);
        engine_of(model, node) != Engine::Steer && topology.cable(node, port).is_some_and(is_outside)
    }

    /// Says that an end of a port's cable is down, if one is.
    fn down(&self, node: &NodeName, port: &PortName) -> Option<String> {
        let is_down = |node: &NodeName, port: &PortName| {
            self.network.base.get(node).is_some_and(|base| base.down.contains(port))
        };
        if is_down(node, port) {
            return Some(format!("port {port} is down"));
        }
        let far = &self.network.topology.cable(node, port)?.far;
        is_down(&far.node, &far.port)
            .then(|| format!("port {} of {}, at the other end of {port}, is down", far.port, far.node))
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
        let (source, destination) = (self.probe.sender(), self.packet.destination);
        let longest = |tunnel: &&Tunnel| {
            let fitting = tunnel.allowed.iter().filter(|prefix| prefix.contains(destination));
            fitting.map(|prefix| prefix.length()).max()
        };
        let fitting = self.tunnels(node).filter(|tunnel| allows(tunnel, destination));
        let Some(entry) = fitting.max_by_key(longest) else {
            return dropped(node, format!("{destination} is at the far end of no tunnel"));
        };
        let (local, remote, key) = (entry.local, entry.remote, entry.key);
        if let Some(why) = self.stops_outer(node, entry) {
            return dropped(node, why);
        }
        decisions.push(Decision::Encapsulated { site: self.site(entry.site), local, remote, key });
        let ends_here =
            |tunnel: &&Tunnel| tunnel.local == remote && tunnel.remote == local && tunnel.key == key;
        let elements = self.network.model.elements.keys();
        let mut ends = elements.flat_map(|far| self.tunnels(far).map(move |tunnel| (far, tunnel)));
        let end = ends.find(|(_, tunnel)| ends_here(tunnel));
        if let Some((far, why)) = end.and_then(|(far, exit)| Some((far, self.stops_outer(far, exit)?))) {
            return dropped(far, why);
        }
        match end {
            None => match self.driven_with(remote) {
                Some(far) => dropped(far, format!("no tunnel from {local} with this key ends here")),
                None => Next::End(End::Site { node: node.clone(), site: self.site(entry.site) }),
            },
            Some((far, exit)) if !allows(exit, source) => {
                dropped(far, format!("{source} is not at the far end of the tunnel that it came through"))
            }
            Some((far, _)) => Next::Go(Place { node: far.clone(), in_port: Some(PortName::tunnel()) }),
        }
    }

    /// The element that has an address.
    fn driven_with(&self, address: IpAddr) -> Option<&NodeName> {
        let has = |cable: &Cable| cable.near.addresses.iter().any(|near| near.addr() == address);
        let Network { model, topology, .. } = self.network;
        model.elements.keys().find(|node| topology.cables(node).any(has))
    }

    /// Why a tunnel's outer packets neither leave nor come by the port that it names, or what was in them gets no further.
    fn stops_outer(&self, node: &NodeName, tunnel: &Tunnel) -> Option<String> {
        let cable = self.network.topology.cable(node, &tunnel.underlay);
        let has_address =
            cable.is_some_and(|cable| cable.near.addresses.iter().any(|near| near.addr() == tunnel.local));
        if !has_address {
            return Some(format!("{} is no address of {}", tunnel.local, tunnel.underlay));
        }
        self.down(node, &PortName::tunnel()).or_else(|| self.down(node, &tunnel.underlay))
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

/// The side of an instance that gets packets, and the one that gives them back.
fn in_turn(instance: &Instance, direction: Direction) -> (&Side, &Side) {
    match direction {
        Direction::Up => (&instance.inside, &instance.outside),
        Direction::Down => (&instance.outside, &instance.inside),
    }
}

fn allows(tunnel: &Tunnel, address: IpAddr) -> bool {
    tunnel.allowed.iter().any(|prefix| prefix.contains(address))
}
