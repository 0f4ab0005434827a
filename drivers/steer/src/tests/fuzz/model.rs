//! What the engine must do with a frame, said from the objects alone and as plainly as possible: it is slow, and right.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;

use catena_driver::{Counted, DropReason};
use catena_model::forwarding::{
    Action, Direction, Ingress, Insertion, Instance, InstanceId, InstanceState, Member, OnFailure, PathId,
    Purpose, Side, SiteId, TUNNEL_PORT, Tunnel,
};
use catena_model::name::PortName;
use catena_model::packet::{Packet, pick};

use super::bench::hex;
use super::objects::World;
use super::outer::{Outer, mark_congestion, tunnel_mac};
use super::places::{NSH, Place, nsh, tags};
use super::sight::{ETHERNET, Firsts, Frame, IPV4, IPV6, Scope, Seen, Sight, array, word};

/// Of all ports in these tests but the one of the tunnels.
const MTU: usize = 1500;
pub(super) const TUNNELS_MTU: usize = 1400;

/// What must become of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// On to the stack. What is claimed is not marked; what is released is.
    Passes { released: bool },
    /// For any of these reasons, where a frame is wrong in more than one way.
    Dropped { path: Option<PathId>, reasons: Vec<DropReason> },
    /// To some port, see what is counted.
    Sent,
    /// Received by the same port once more.
    Again,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) fate: Fate,
    /// As which the frame leaves. Of a dropped one there is nothing to say.
    pub(super) bytes: Vec<u8>,
    /// But for the reason of a drop.
    pub(super) counted: Vec<Counted>,
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, counted {:?}, as {}", self.fate, self.counted, hex(&self.bytes))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    Nobody,
    Skipped,
    Is(InstanceId),
}

/// What is remembered of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flow {
    /// NOWHERE: it passes no function.
    pub(super) path: PathId,
    pub(super) site: SiteId,
    pub(super) choices: Vec<Choice>,
    pub(super) seen: BTreeSet<Direction>,
    pub(super) finished: BTreeSet<Direction>,
    pub(super) was_reset: bool,
    pub(super) is_half_open: bool,
}

impl Flow {
    fn new(path: PathId, site: SiteId, choices: Vec<Choice>) -> Self {
        Self {
            path,
            site,
            choices,
            seen: BTreeSet::new(),
            finished: BTreeSet::new(),
            was_reset: false,
            is_half_open: true,
        }
    }

    fn is_closed(&self) -> bool {
        self.was_reset || self.finished.len() == 2
    }
}

/// The site's end first. The site is given where two could have the same addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FlowKey {
    pub(super) realm: Option<SiteId>,
    pub(super) from_site: Packet,
}

pub(super) fn flow_key(realm: Option<SiteId>, packet: &Packet, direction: Direction) -> FlowKey {
    let from_site = Packet { dscp: Default::default(), ..packet.seen_from_site(direction) };
    FlowKey { realm, from_site }
}

/// What a policy says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Unclaimed,
    /// The same, but not if the packet were marked otherwise.
    Unmarked,
    Claimed,
    Steered(PathId),
    /// Some rule could mean it; what is not known of it says why nobody can tell.
    Undecided(DropReason),
}

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    pub(super) world: World,
    pub(super) flows: HashMap<FlowKey, Flow>,
    pub(super) firsts: Firsts,
}

/// A flow as it is followed: from memory, or only for this packet.
pub(super) struct Followed {
    pub(super) entry: Option<FlowKey>,
    pub(super) flow: Flow,
}

/// Of a closed connection whose ports are used again.
fn is_over(flow: &Flow, seen: &Seen) -> bool {
    flow.is_closed() && seen.flags & (SYN | ACK) == SYN
}

/// A frame on its way through the engine.
pub(super) struct Way {
    pub(super) frame: Frame,
    pub(super) counted: Vec<Counted>,
}

impl Way {
    pub(super) fn end(self, fate: Fate) -> Expected {
        Expected { fate, bytes: self.frame.bytes, counted: self.counted }
    }

    pub(super) fn passes(self) -> Expected {
        self.end(Fate::Passes { released: false })
    }

    pub(super) fn dropped(self, path: Option<PathId>, reason: DropReason) -> Expected {
        let path = path.filter(|path| *path != PathId::NOWHERE);
        self.end(Fate::Dropped { path, reasons: vec![reason] })
    }

    fn sent(mut self, counted: Counted) -> Expected {
        self.counted.push(counted);
        self.end(Fate::Sent)
    }

    fn is_too_big_for(&self, port: &PortName) -> bool {
        let mtu = if port.as_str() == TUNNEL_PORT { TUNNELS_MTU } else { MTU };
        self.frame.bytes.len() > ETHERNET + mtu
    }
}

impl Model {
    pub(super) fn new(world: World) -> Self {
        Self { world, ..Self::default() }
    }

    /// What becomes of a frame that comes in at `port`.
    pub(super) fn expect(&mut self, port: &PortName, frame: Frame) -> Expected {
        let way = Way { frame, counted: Vec::new() };
        match self.world.function_at(port).cloned() {
            Some(function) => self.out_of_function(way, port, &function),
            None => self.at_port(way, port),
        }
    }

    pub(super) fn is_for_us(&self, port: &PortName, frame: &Frame) -> bool {
        frame.destination() == self.world.macs[port]
    }

    fn at_port(&mut self, way: Way, port: &PortName) -> Expected {
        if !self.is_for_us(port, &way.frame) {
            return way.passes();
        }
        let way = if self.world.tunnels.values().any(|tunnel| tunnel.underlay == *port) {
            match self.decapsulate(way) {
                Ok(expected) => return expected,
                Err(way) => way,
            }
        } else {
            way
        };
        let Some(ingress) = self.world.ingresses.get(port).cloned() else { return way.passes() };
        let seen = match self.firsts.see(&self.world, &way.frame, &Scope::Port(port.clone())) {
            Sight::Other => return way.passes(),
            Sight::Broken => return way.dropped(None, DropReason::Malformed),
            Sight::Is(seen) => seen,
        };
        match ingress.purpose {
            Purpose::Claim => self.claim(way, &ingress, &seen),
            Purpose::Steer if seen.is_discovery => way.passes(),
            Purpose::Steer => self.at_edge(way, &ingress, &seen),
        }
    }

    pub(super) fn claim(&self, mut way: Way, ingress: &Ingress, seen: &Seen) -> Expected {
        for direction in Direction::BOTH {
            if !ingress.directions.contains(&direction) {
                continue;
            }
            if let Some(site) = self.site_of(seen, direction) {
                let released =
                    matches!(self.decide(site, seen, direction), Decision::Unclaimed | Decision::Unmarked);
                if !released {
                    way.counted.push(Counted::Claimed { site, direction });
                }
                return way.end(Fate::Passes { released });
            }
        }
        way.passes()
    }

    /// Whose packet it is by its addresses.
    pub(super) fn site_of(&self, seen: &Seen, direction: Direction) -> Option<SiteId> {
        self.world.site_of(seen.packet.seen_from_site(direction).source)
    }

    /// Whether it goes down, and its source is a site's.
    pub(super) fn is_from_site(&self, seen: &Seen, direction: Direction) -> bool {
        direction == Direction::Down && self.world.site_of(seen.packet.source).is_some()
    }

    /// The first rule that matches decides. Of what is not known, it is thought that it could match.
    pub(super) fn decide(&self, site: SiteId, seen: &Seen, direction: Direction) -> Decision {
        let packet = seen.packet.seen_from_site(direction);
        let Some(policy) = self.world.policies.get(&site) else {
            return Decision::Undecided(DropReason::Missing);
        };
        let mut possible = Decision::Unclaimed;
        for rule in &policy.rules {
            let matches = &rule.matches;
            let addresses = matches.local.is_none_or(|prefix| prefix.contains(packet.source))
                && matches.remote.is_none_or(|prefix| prefix.contains(packet.destination));
            let protocol_is_hidden = seen.unknown.is_some() && packet.source.is_ipv6();
            let protocol =
                matches.protocol.is_none_or(|protocol| protocol == packet.protocol || protocol_is_hidden);
            if !addresses || !protocol {
                continue;
            }
            if let Some(reason) = seen.unknown {
                return Decision::Undecided(reason);
            }
            let decision = match rule.action {
                Action::Claim => Decision::Claimed,
                Action::Path(path) => Decision::Steered(path),
            };
            let port = packet.destination_port;
            if matches.ports.is_none_or(|ports| packet.protocol.has_ports() && ports.contains(port)) {
                let marked_by_site = direction == Direction::Up && !seen.is_error;
                if !marked_by_site || matches.dscp.is_none_or(|dscp| dscp == packet.dscp) {
                    return decision;
                }
                if possible == Decision::Unclaimed {
                    possible = Decision::Unmarked;
                }
                continue;
            }
            // The ports of a fragment prove nothing of the others.
            if seen.is_fragment && matches!(possible, Decision::Unclaimed | Decision::Unmarked) {
                possible = decision;
            }
        }
        possible
    }

    fn at_edge(&mut self, mut way: Way, ingress: &Ingress, seen: &Seen) -> Expected {
        for direction in Direction::BOTH {
            if !ingress.directions.contains(&direction) {
                continue;
            }
            match self.at_edge_in(way, ingress.site, seen, direction) {
                Ok(expected) => return expected,
                Err(back) => way = back,
            }
        }
        way.passes()
    }

    /// The frame back if it is of no site.
    fn at_edge_in(
        &mut self,
        way: Way,
        told: Option<SiteId>,
        seen: &Seen,
        direction: Direction,
    ) -> Result<Expected, Way> {
        let key = flow_key(told, &seen.packet, direction);
        if seen.unknown.is_none() && self.holds(&key, seen, direction) {
            self.touch(&key, seen, direction);
            let flow = self.flows[&key].clone();
            if flow.path == PathId::NOWHERE {
                let site = told.or_else(|| self.site_of(seen, direction)).unwrap();
                return Ok(self.leave(way, seen, site, None, direction));
            }
            return Ok(self.enter_path(way, seen, Followed { entry: Some(key), flow }, direction));
        }
        let Some(site) = told.or_else(|| self.site_of(seen, direction)) else { return Err(way) };
        if self.world.policies.get(&site).is_none_or(|policy| policy.exits.is_none()) {
            return Err(way);
        }
        match self.decide(site, seen, direction) {
            Decision::Undecided(reason) => Ok(way.dropped(None, reason)),
            Decision::Unclaimed => Ok(self.leave(way, seen, site, None, direction)),
            Decision::Unmarked => {
                // Its replies need not be marked as it is.
                let known = self.flows.get(&key);
                if known.is_some_and(|flow| flow.path == PathId::NOWHERE && !is_over(flow, seen)) {
                    self.touch(&key, seen, direction);
                } else if !seen.is_error {
                    let mut flow = Flow::new(PathId::NOWHERE, site, Vec::new());
                    note(&mut flow, seen, direction);
                    self.flows.insert(key, flow);
                }
                Ok(self.leave(way, seen, site, None, direction))
            }
            Decision::Claimed => Ok(way.dropped(None, DropReason::Missing)),
            Decision::Steered(path) if !self.world.paths.contains_key(&path) => {
                Ok(way.dropped(Some(path), DropReason::Missing))
            }
            Decision::Steered(path) => {
                let flow = self.begin(path, seen, direction);
                let entry = if seen.is_error { None } else { Some(key) };
                if let Some(key) = entry {
                    self.flows.insert(key, flow.clone());
                }
                Ok(self.enter_path(way, seen, Followed { entry, flow }, direction))
            }
        }
    }

    /// Whether what is remembered is of this packet's flow: a closed connection's ports may be used again.
    /// What passes no function is remembered for replies alone: the site marks each packet by itself.
    pub(super) fn holds(&self, key: &FlowKey, seen: &Seen, direction: Direction) -> bool {
        self.flows.get(key).is_some_and(|flow| {
            let stands = match flow.path {
                PathId::NOWHERE => direction == Direction::Down || seen.is_error,
                path => self.world.paths.contains_key(&path),
            };
            stands && !is_over(flow, seen)
        })
    }

    pub(super) fn begin(&self, path: PathId, seen: &Seen, direction: Direction) -> Flow {
        let found = &self.world.paths[&path];
        let choices = 0..found.hops.len();
        let choices = choices.map(|position| self.choose(path, position, &seen.packet)).collect();
        let mut flow = Flow::new(path, found.site, choices);
        note(&mut flow, seen, direction);
        flow
    }

    pub(super) fn touch(&mut self, key: &FlowKey, seen: &Seen, direction: Direction) {
        if seen.is_error {
            return;
        }
        let flow = self.flows.get_mut(key).unwrap();
        note(flow, seen, direction);
        // Open when both ends were heard; of TCP from the packet after the handshake on.
        if flow.seen.len() == 2 && seen.flags & SYN == 0 {
            flow.is_half_open = false;
        }
    }

    fn choose(&self, path: PathId, position: usize, packet: &Packet) -> Choice {
        let hop = self.world.hop_of(path, position);
        let is_up = |member: &&Member| {
            self.world.instances.get(&member.id).is_some_and(|it| it.state == InstanceState::Up)
        };
        let up = hop.instances.iter().filter(is_up).copied();
        match (pick(packet.flow_hash(hop.stickiness), up), hop.on_failure) {
            (Some(id), _) => Choice::Is(id),
            (None, OnFailure::Skip) => Choice::Skipped,
            (None, OnFailure::Closed) => Choice::Nobody,
        }
    }

    fn enter_path(&mut self, way: Way, seen: &Seen, followed: Followed, direction: Direction) -> Expected {
        let last = followed.flow.choices.len().checked_sub(1);
        let first = match direction {
            Direction::Up => last.map(|_| 0),
            Direction::Down => last,
        };
        self.forward(way, seen, followed, first, direction)
    }

    /// Into the function at `position`, or past the end of the path.
    pub(super) fn forward(
        &mut self,
        mut way: Way,
        seen: &Seen,
        mut followed: Followed,
        mut position: Option<usize>,
        direction: Direction,
    ) -> Expected {
        let path = followed.flow.path;
        while let Some(at) = position.filter(|at| *at < followed.flow.choices.len()) {
            let mut choice = followed.flow.choices[at];
            let is_alive = |id: &InstanceId| {
                self.world.instances.get(id).is_some_and(|it| it.state != InstanceState::Down)
            };
            if choice != Choice::Skipped && !matches!(&choice, Choice::Is(id) if is_alive(id)) {
                choice = self.choose(path, at, &seen.packet);
                followed.flow.choices[at] = choice;
                if let Some(key) = &followed.entry {
                    self.flows.get_mut(key).unwrap().choices[at] = choice;
                }
            }
            match choice {
                Choice::Nobody => return way.dropped(Some(path), DropReason::NoInstance),
                Choice::Skipped => {}
                Choice::Is(id) => {
                    let instance = self.world.instances[&id].clone();
                    let place = Place { path, position: at, direction };
                    if instance.insertion.returns() {
                        return self.hand_to(way, seen, &place, &instance);
                    }
                    way.counted.push(if way.is_too_big_for(&instance.inside.port) {
                        Counted::Dropped { path: Some(path), reason: DropReason::TooBig }
                    } else {
                        hop(&place, id)
                    });
                }
            }
            position = next(at, direction);
        }
        let site = self.world.paths[&path].site;
        self.leave(way, seen, site, Some(path), direction)
    }

    /// Into a function.
    fn hand_to(&self, mut way: Way, seen: &Seen, place: &Place, instance: &Instance) -> Expected {
        let side = match place.direction {
            Direction::Up => &instance.inside,
            Direction::Down => &instance.outside,
        };
        match instance.insertion {
            // It would come back as if it came from that site.
            Insertion::L3 if self.is_from_site(seen, place.direction) && instance.is_one_armed() => {
                return way.dropped(Some(place.path), DropReason::ForgedSource);
            }
            Insertion::L3 => return send_routed(way, seen, Some(place.path), side, hop(place, instance.id)),
            Insertion::L2 | Insertion::Vlan if way.is_too_big_for(&side.port) => {
                return way.dropped(Some(place.path), DropReason::TooBig);
            }
            Insertion::L2 | Insertion::Vlan => way.frame.bytes[..12].copy_from_slice(&tags(place)),
            Insertion::Nsh(metadata) => {
                let header = nsh(place, metadata, seen.packet.source.is_ipv4());
                if way.frame.bytes.len() + header.len() > ETHERNET + MTU {
                    return way.dropped(Some(place.path), DropReason::TooBig);
                }
                way.frame.bytes.splice(ETHERNET..ETHERNET, header);
                way.frame.bytes[..12].copy_from_slice(&tags(place));
                way.frame.bytes[12..14].copy_from_slice(&NSH.to_be_bytes());
            }
            Insertion::Tap => panic!("a tap gets copies"),
        }
        way.sent(hop(place, instance.id))
    }

    /// Out by the exit of the site.
    fn leave(
        &self,
        mut way: Way,
        seen: &Seen,
        site: SiteId,
        path: Option<PathId>,
        direction: Direction,
    ) -> Expected {
        let exits = self.world.policies.get(&site).and_then(|policy| policy.exits.as_ref());
        let Some(side) = exits.map(|exits| exits.of(direction)) else {
            return way.dropped(path, DropReason::Missing);
        };
        let counted = match path {
            Some(path) => Counted::Exit { path, direction },
            None => Counted::Transit { site, direction },
        };
        if side.port.as_str() != TUNNEL_PORT {
            return send_routed(way, seen, path, side, counted);
        }
        if way.is_too_big_for(&side.port) {
            return way.dropped(path, DropReason::TooBig);
        }
        way.frame.bytes[..6].copy_from_slice(&tunnel_mac(site));
        way.sent(counted)
    }

    /// The frame back if it came through no tunnel. RFC 2784, RFC 2890, RFC 7676.
    fn decapsulate(&self, mut way: Way) -> Result<Expected, Way> {
        let Some(outer) = Outer::read(&way.frame) else { return Err(way) };
        let is_end = |tunnel: &&Tunnel| {
            (tunnel.local, tunnel.remote, tunnel.key) == (outer.local, outer.remote, outer.key)
        };
        let is_ours = self.world.tunnels.values().any(|tunnel| tunnel.local == outer.local);
        if outer.is_fragment {
            return if is_ours { Ok(way.dropped(None, DropReason::Fragment)) } else { Err(way) };
        }
        let Some(tunnel) = self.world.tunnels.values().find(is_end) else {
            if is_ours {
                return Ok(way.dropped(None, DropReason::UnknownTunnel));
            }
            return Err(way);
        };
        let inner = &way.frame.bytes[outer.end.min(way.frame.bytes.len())..];
        let (source, traffic_class) = match (outer.protocol, inner) {
            (IPV4, inner) if inner.len() >= 20 && inner[0] >> 4 == 4 => {
                (IpAddr::from(array::<4>(inner, 12)), inner[1])
            }
            (IPV6, inner) if inner.len() >= 40 && inner[0] >> 4 == 6 => {
                (IpAddr::from(array::<16>(inner, 8)), (word(inner, 0) >> 4) as u8)
            }
            _ => return Ok(way.dropped(None, DropReason::Malformed)),
        };
        if self.world.tunnel_to(source) != Some(tunnel.site) {
            return Ok(way.dropped(None, DropReason::ForgedSource));
        }
        // RFC 6040 section 4.2.
        let congested = outer.traffic_class & 3 == 3;
        if congested && traffic_class & 3 == 0 {
            return Ok(way.dropped(None, DropReason::Congestion));
        }
        let mut bytes = self.world.macs[&PortName::tunnel()].to_vec();
        bytes.extend(tunnel_mac(tunnel.site));
        bytes.extend(outer.protocol.to_be_bytes());
        bytes.extend(inner);
        // The kernel leaves no less.
        if outer.local.is_ipv6() && bytes.len() < ETHERNET + 40 {
            bytes.resize(ETHERNET + 40, 0);
        }
        if congested {
            mark_congestion(&mut bytes[ETHERNET..]);
        }
        way.frame.bytes = bytes;
        let site = tunnel.site;
        Ok(way.sent(Counted::Decapsulated { site }))
    }
}

fn note(flow: &mut Flow, seen: &Seen, direction: Direction) {
    flow.seen.insert(direction);
    if seen.flags & FIN != 0 {
        flow.finished.insert(direction);
    }
    flow.was_reset |= seen.flags & RST != 0;
}

pub(super) fn next(position: usize, direction: Direction) -> Option<usize> {
    match direction {
        Direction::Up => Some(position + 1),
        Direction::Down => position.checked_sub(1),
    }
}

pub(super) fn position_of(flow: &Flow, instance: InstanceId) -> Option<usize> {
    flow.choices.iter().position(|choice| *choice == Choice::Is(instance))
}

fn hop(place: &Place, instance: InstanceId) -> Counted {
    Counted::Hop { path: place.path, position: place.position as u8, instance, direction: place.direction }
}

/// By way of a neighbour: nothing of the packet is changed here.
fn send_routed(way: Way, seen: &Seen, path: Option<PathId>, side: &Side, counted: Counted) -> Expected {
    let family = seen.packet.family();
    if way.is_too_big_for(&side.port) {
        return way.dropped(path, DropReason::TooBig);
    }
    match side.next_hops.of(family) {
        Some(_) => way.sent(counted),
        None => way.dropped(path, DropReason::Missing),
    }
}
