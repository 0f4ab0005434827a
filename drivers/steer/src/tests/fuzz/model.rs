//! What the engine must do with a frame, said from the objects alone and as plainly as possible: it is slow, and right.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;

use catena_driver::{Counted, DropReason};
use catena_model::address::Prefix;
use catena_model::forwarding::{
    Action, Direction, Ingress, Insertion, Instance, InstanceId, InstanceState, Member, NshMetadata, Object,
    OnFailure, Path, PathId, Policy, Purpose, Side, SiteId, TUNNEL_PORT, Tunnel,
};
use catena_model::name::PortName;
use catena_model::packet::{Packet, pick};

use super::bench::hex;
use super::sight::{ETHERNET, Firsts, Frame, IPV4, IPV6, Scope, Seen, Sight, array, word};

const NSH: u16 = 0x894f;
/// Of all ports in these tests but the one of the tunnels.
const MTU: usize = 1500;
pub(super) const TUNNELS_MTU: usize = 1400;

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
    fn is_told_by_port(&self, site: SiteId) -> bool {
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
    fn tunnel_to(&self, address: IpAddr) -> Option<SiteId> {
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

    fn paths_through(&self, instance: InstanceId) -> impl Iterator<Item = &Path> {
        self.paths.values().filter(move |path| path.hops.iter().any(|hop| hop.ids().any(|id| id == instance)))
    }

    fn hop_of(&self, path: PathId, position: usize) -> &catena_model::forwarding::Hop {
        &self.paths[&path].hops[position]
    }

    fn is_installed(&self, path: PathId) -> Option<PathId> {
        self.paths.contains_key(&path).then_some(path)
    }
}

fn longest(prefixes: impl Iterator<Item = (Prefix, SiteId)>, address: IpAddr) -> Option<SiteId> {
    let holding = prefixes.filter(|(prefix, _)| prefix.contains(address));
    holding.max_by_key(|(prefix, _)| prefix.length()).map(|(_, site)| site)
}

/// The directions in which a function's frames go that come out at this port.
fn directions_out_of(instance: &Instance, port: &PortName) -> Vec<Direction> {
    let mut directions = Vec::new();
    if instance.outside.port == *port {
        directions.push(Direction::Up);
    }
    if instance.inside.port == *port {
        directions.push(Direction::Down);
    }
    directions
}

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

fn flow_key(realm: Option<SiteId>, packet: &Packet, direction: Direction) -> FlowKey {
    let from_site = Packet { dscp: Default::default(), ..packet.seen_from_site(direction) };
    FlowKey { realm, from_site }
}

/// What a policy says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
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
    firsts: Firsts,
}

/// A flow as it is followed: from memory, or only for this packet.
struct Followed {
    entry: Option<FlowKey>,
    flow: Flow,
}

/// Of a closed connection whose ports are used again.
fn is_over(flow: &Flow, seen: &Seen) -> bool {
    flow.is_closed() && seen.flags & (SYN | ACK) == SYN
}

#[derive(Clone, Copy, Debug)]
struct Place {
    path: PathId,
    position: usize,
    direction: Direction,
}

/// A frame on its way through the engine.
struct Way {
    frame: Frame,
    counted: Vec<Counted>,
}

impl Way {
    fn end(self, fate: Fate) -> Expected {
        Expected { fate, bytes: self.frame.bytes, counted: self.counted }
    }

    fn passes(self) -> Expected {
        self.end(Fate::Passes { released: false })
    }

    fn dropped(self, path: Option<PathId>, reason: DropReason) -> Expected {
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

    fn is_for_us(&self, port: &PortName, frame: &Frame) -> bool {
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

    fn claim(&self, mut way: Way, ingress: &Ingress, seen: &Seen) -> Expected {
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
    fn site_of(&self, seen: &Seen, direction: Direction) -> Option<SiteId> {
        self.world.site_of(seen.packet.seen_from_site(direction).source)
    }

    /// Whether it goes down, and its source is a site's.
    fn is_from_site(&self, seen: &Seen, direction: Direction) -> bool {
        direction == Direction::Down && self.world.site_of(seen.packet.source).is_some()
    }

    /// The first rule that matches decides. Of what is not known, it is thought that it could match.
    fn decide(&self, site: SiteId, seen: &Seen, direction: Direction) -> Decision {
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
    fn holds(&self, key: &FlowKey, seen: &Seen, direction: Direction) -> bool {
        self.flows.get(key).is_some_and(|flow| {
            let stands = match flow.path {
                PathId::NOWHERE => direction == Direction::Down || seen.is_error,
                path => self.world.paths.contains_key(&path),
            };
            stands && !is_over(flow, seen)
        })
    }

    fn begin(&self, path: PathId, seen: &Seen, direction: Direction) -> Flow {
        let found = &self.world.paths[&path];
        let choices = 0..found.hops.len();
        let choices = choices.map(|position| self.choose(path, position, &seen.packet)).collect();
        let mut flow = Flow::new(path, found.site, choices);
        note(&mut flow, seen, direction);
        flow
    }

    fn touch(&mut self, key: &FlowKey, seen: &Seen, direction: Direction) {
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
    fn forward(
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

    fn out_of_function(&mut self, way: Way, port: &PortName, function: &Instance) -> Expected {
        match function.insertion {
            Insertion::L3 if self.is_for_us(port, &way.frame) => self.out_of_routed(way, port, function),
            Insertion::L3 => way.passes(),
            Insertion::Tap => match self.firsts.see(&self.world, &way.frame, &Scope::Port(port.clone())) {
                Sight::Other => way.passes(),
                Sight::Is(seen) if seen.is_discovery => way.passes(),
                Sight::Is(_) => way.dropped(None, DropReason::Unexpected),
                Sight::Broken => way.dropped(None, DropReason::Malformed),
            },
            Insertion::L2 => match read_tag(&way.frame) {
                Some((path, position, direction)) => {
                    let told = Told { path, position: Some(position), direction };
                    self.out_of_telling(way, port, function, Ok(told))
                }
                None => way.passes(),
            },
            Insertion::Vlan => self.out_of_vlan(way, port, function),
            Insertion::Nsh(_) => self.out_of_nsh(way, port, function),
        }
    }

    fn out_of_vlan(&mut self, mut way: Way, port: &PortName, function: &Instance) -> Expected {
        let Some(vlan) = way.frame.vlan() else { return way.passes() };
        let path = self.world.paths.values().find(|path| path.vlan.is_some_and(|id| id.get() == vlan));
        let direction = match (function.is_one_armed(), read_tag(&way.frame)) {
            (false, _) => directions_out_of(function, port).first().copied(),
            (true, tag) => tag.map(|(_, _, direction)| direction),
        };
        let told = match (path, direction) {
            (Some(path), Some(direction)) => Ok(Told { path: path.id, position: None, direction }),
            _ => Err(Lie { path: None, reason: DropReason::Unexpected }),
        };
        if told.is_ok() {
            way.frame.tag = None;
        }
        self.out_of_telling(way, port, function, told)
    }

    fn out_of_nsh(&mut self, mut way: Way, port: &PortName, function: &Instance) -> Expected {
        if way.frame.ether_type() == NSH {
            let next = way.frame.bytes.get(ETHERNET..ETHERNET + 8).map(|header| header[3]);
            let ether_type = match next {
                Some(1) => IPV4,
                Some(2) => IPV6,
                _ => return way.dropped(None, DropReason::Malformed),
            };
            way.frame.bytes[6..12].copy_from_slice(&[0x02, 0xcb, 0, 0, 0, 0]);
            way.frame.bytes[12..14].copy_from_slice(&ether_type.to_be_bytes());
            return way.end(Fate::Again);
        }
        if way.frame.source()[..2] != [0x02, 0xcb] {
            return way.passes();
        }
        let Some(header) = way.frame.bytes.get(ETHERNET..ETHERNET + 8) else {
            return way.dropped(None, DropReason::Unexpected);
        };
        let first = word(header, 0);
        let length = 4 * usize::from(first & 0x3f);
        let [_, a, b, c] = array(header, 3);
        let path = PathId(u32::from_be_bytes([0, a, b, c]));
        let installed = self.world.is_installed(path);
        let fits = match header[2] {
            1 => length == 24,
            2 => length >= 8,
            _ => false,
        };
        let minimum = if way.frame.ether_type() == IPV4 { 20 } else { 40 };
        let is_whole = way.frame.bytes.len() >= ETHERNET + length + minimum;
        let place = nsh_place(header[7]);
        let agrees =
            place.is_none_or(|(_, direction)| directions_out_of(function, port).contains(&direction));
        let is_wrong = first & 0xe000 != 0 || !fits || !is_whole || !agrees;
        let Some((position, direction)) = place else {
            // It may be wrong in both ways.
            let mut reasons = vec![DropReason::ServiceIndex];
            reasons.extend(is_wrong.then_some(DropReason::Unexpected));
            return way.end(Fate::Dropped { path: installed, reasons });
        };
        if is_wrong {
            return way.dropped(installed, DropReason::Unexpected);
        }
        way.frame.bytes.drain(ETHERNET..ETHERNET + length);
        self.out_of_telling(way, port, function, Ok(Told { path, position: Some(position), direction }))
    }

    /// From a function whose frames say where they have been.
    fn out_of_telling(
        &mut self,
        way: Way,
        port: &PortName,
        function: &Instance,
        told: Result<Told, Lie>,
    ) -> Expected {
        let told = match told {
            Ok(told) if !directions_out_of(function, port).contains(&told.direction) => {
                Err(Lie { path: self.world.is_installed(told.path), reason: DropReason::Unexpected })
            }
            other => other,
        };
        let path = match &told {
            Ok(told) => self.world.is_installed(told.path),
            Err(lie) => lie.path,
        };
        let scope = match &told {
            Ok(told) => Scope::Path(told.path),
            Err(_) => Scope::Port(port.clone()),
        };
        let seen = match self.firsts.see(&self.world, &way.frame, &scope) {
            // It was given nothing but IP.
            Sight::Other if told.is_ok() => return way.dropped(path, DropReason::Unexpected),
            Sight::Other => return way.passes(),
            Sight::Broken => return way.dropped(path, DropReason::Malformed),
            Sight::Is(seen) if seen.is_discovery && told.is_err() => return way.passes(),
            Sight::Is(seen) => seen,
        };
        let told = match told {
            Ok(told) => told,
            Err(lie) => return way.dropped(lie.path, lie.reason),
        };
        if path.is_none() {
            return way.dropped(None, DropReason::Missing);
        }
        if let Some(reason) = seen.unknown {
            return way.dropped(path, reason);
        }
        let site = self.world.paths[&told.path].site;
        let realm = Some(site).filter(|site| self.world.is_told_by_port(*site));
        let key = flow_key(realm, &seen.packet, told.direction);
        let remembered = self.holds(&key, &seen, told.direction) && self.flows[&key].path == told.path;
        let followed = if remembered {
            Followed { entry: Some(key), flow: self.flows[&key].clone() }
        } else {
            Followed { entry: None, flow: self.begin(told.path, &seen, told.direction) }
        };
        let position = told.position.or_else(|| position_of(&followed.flow, function.id));
        match position {
            Some(position) if followed.flow.choices.get(position) == Some(&Choice::Is(function.id)) => {
                self.go_on(way, &seen, followed, function, position, told.direction)
            }
            _ => way.dropped(path, DropReason::Unexpected),
        }
    }

    fn go_on(
        &mut self,
        mut way: Way,
        seen: &Seen,
        followed: Followed,
        function: &Instance,
        position: usize,
        direction: Direction,
    ) -> Expected {
        way.counted.push(Counted::Returned { instance: function.id, direction });
        self.forward(way, seen, followed, next(position, direction), direction)
    }

    fn out_of_routed(&mut self, mut way: Way, port: &PortName, function: &Instance) -> Expected {
        let seen = match self.firsts.see(&self.world, &way.frame, &Scope::Port(port.clone())) {
            Sight::Other => return way.passes(),
            Sight::Broken => return way.dropped(None, DropReason::Malformed),
            Sight::Is(seen) if seen.is_discovery => return way.passes(),
            Sight::Is(seen) => seen,
        };
        let users: Vec<_> = self.world.paths_through(function.id).cloned().collect();
        let told = users.first().map(|path| path.site).filter(|site| self.world.is_told_by_port(*site));
        let directions = directions_out_of(function, port);
        if seen.unknown.is_none() {
            for direction in &directions {
                if function.is_one_armed() && self.is_from_site(&seen, *direction) {
                    continue;
                }
                match self.back_from_routed(way, &seen, function, told, *direction) {
                    Ok(expected) => return expected,
                    Err(back) => way = back,
                }
            }
        }
        let ours = function.rewrites
            || told.is_some()
            || [seen.packet.source, seen.packet.destination]
                .into_iter()
                .any(|end| self.world.site_of(end).is_some());
        if let Some(reason) = seen.unknown {
            return if ours { way.dropped(None, reason) } else { way.passes() };
        }
        if function.rewrites
            && let Some(path) = users.last()
        {
            let direction = directions[0];
            return self.rewritten(way, &seen, function, path.id, told, direction);
        }
        if ours { way.dropped(None, DropReason::Unexpected) } else { way.passes() }
    }

    fn back_from_routed(
        &mut self,
        way: Way,
        seen: &Seen,
        function: &Instance,
        told: Option<SiteId>,
        direction: Direction,
    ) -> Result<Expected, Way> {
        let key = flow_key(told, &seen.packet, direction);
        let known = self.holds(&key, seen, direction).then(|| self.flows[&key].clone());
        // One site's to another, turned round by the function?
        if told.is_none()
            && self.is_from_site(seen, direction)
            && !known.as_ref().is_some_and(|flow| flow.seen.contains(&direction))
        {
            return Err(way);
        }
        let followed = if let Some(flow) = known {
            Followed { entry: Some(key), flow }
        } else {
            let Some(site) = told.or_else(|| self.site_of(seen, direction)) else { return Err(way) };
            match self.decide(site, seen, direction) {
                Decision::Steered(path) if self.world.paths.contains_key(&path) => {
                    Followed { entry: None, flow: self.begin(path, seen, direction) }
                }
                _ => return Err(way),
            }
        };
        match position_of(&followed.flow, function.id) {
            Some(position) => {
                if let Some(key) = followed.entry.as_ref().filter(|_| function.rewrites) {
                    self.touch(key, seen, direction);
                }
                Ok(self.go_on(way, seen, followed, function, position, direction))
            }
            None => Ok(way.dropped(Some(followed.flow.path), DropReason::Unexpected)),
        }
    }

    /// What a function that changes addresses made of a packet: a flow of its own, from that function on.
    fn rewritten(
        &mut self,
        way: Way,
        seen: &Seen,
        function: &Instance,
        path: PathId,
        told: Option<SiteId>,
        direction: Direction,
    ) -> Expected {
        if direction == Direction::Down || seen.is_error {
            return way.dropped(Some(path), DropReason::Unexpected);
        }
        let mut flow = self.begin(path, seen, direction);
        let rewrites = |choice: &Choice| match choice {
            Choice::Is(id) => self.world.instances[id].rewrites,
            _ => false,
        };
        let Some(position) = flow.choices.iter().position(rewrites) else {
            return way.dropped(Some(path), DropReason::Unexpected);
        };
        flow.choices[position] = Choice::Is(function.id);
        let key = flow_key(told, &seen.packet, direction);
        self.flows.insert(key, flow.clone());
        self.go_on(way, seen, Followed { entry: Some(key), flow }, function, position, direction)
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

/// Where a frame has been, by itself.
struct Told {
    path: PathId,
    /// Not said where the instance tells it.
    position: Option<usize>,
    direction: Direction,
}

/// What is told contradicts what is installed.
struct Lie {
    path: Option<PathId>,
    reason: DropReason,
}

fn note(flow: &mut Flow, seen: &Seen, direction: Direction) {
    flow.seen.insert(direction);
    if seen.flags & FIN != 0 {
        flow.finished.insert(direction);
    }
    flow.was_reset |= seen.flags & RST != 0;
}

fn next(position: usize, direction: Direction) -> Option<usize> {
    match direction {
        Direction::Up => Some(position + 1),
        Direction::Down => position.checked_sub(1),
    }
}

fn position_of(flow: &Flow, instance: InstanceId) -> Option<usize> {
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

/// Destination and source: what says path, position and direction, and what says the other direction.
fn tags(place: &Place) -> [u8; 12] {
    let [_, a, b, c] = place.path.0.to_be_bytes();
    let at = place.position as u8;
    let (source, destination) = match place.direction {
        Direction::Up => (at, 0x80 | at),
        Direction::Down => (0x80 | at, at),
    };
    [0x02, 0xca, a, b, c, destination, 0x02, 0xca, a, b, c, source]
}

fn read_tag(frame: &Frame) -> Option<(PathId, usize, Direction)> {
    let [0x02, 0xca, a, b, c, at] = frame.source() else { return None };
    let direction = if at & 0x80 == 0 { Direction::Up } else { Direction::Down };
    Some((PathId(u32::from_be_bytes([0, a, b, c])), usize::from(at & 0x0f), direction))
}

/// RFC 8300 section 2.
fn nsh(place: &Place, metadata: NshMetadata, is_v4: bool) -> Vec<u8> {
    let (md_type, length) = match metadata {
        NshMetadata::Fixed => (1, 24),
        NshMetadata::Variable => (2, 8),
    };
    let index = match place.direction {
        Direction::Up => 255 - place.position,
        Direction::Down => 120 + place.position,
    };
    let [_, a, b, c] = place.path.0.to_be_bytes();
    let mut header = vec![0; length];
    header[..2].copy_from_slice(&((63 << 6) | (length as u16 / 4)).to_be_bytes());
    header[2..8].copy_from_slice(&[md_type, if is_v4 { 1 } else { 2 }, a, b, c, index as u8]);
    header
}

/// Which function has set the index to this: each takes one off what it was given.
fn nsh_place(index: u8) -> Option<(usize, Direction)> {
    match index {
        247..=254 => Some((254 - usize::from(index), Direction::Up)),
        119..=126 => Some((usize::from(index) - 119, Direction::Down)),
        _ => None,
    }
}

/// Between both ends of the pair of tunnels: which tunnel.
fn tunnel_mac(site: SiteId) -> [u8; 6] {
    let [a, b, c, d] = site.0.to_ne_bytes();
    [0x02, 0xc5, a, b, c, d]
}

/// RFC 3168: both bits of ECN, and in IPv4 the header's checksum with them.
fn mark_congestion(packet: &mut [u8]) {
    if packet[0] >> 4 == 6 {
        packet[1] |= 0x30;
        return;
    }
    let (old, check) = (word(packet, 0), word(packet, 10));
    packet[1] |= 3;
    let new = word(packet, 0);
    // RFC 1624: HC' = ~(~HC + ~m + m').
    let mut sum = u32::from(!check) + u32::from(!old) + u32::from(new);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    packet[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

/// The headers of a tunnel.
struct Outer {
    local: IpAddr,
    remote: IpAddr,
    key: Option<u32>,
    protocol: u16,
    traffic_class: u8,
    /// Then nothing else is read.
    is_fragment: bool,
    /// Where the inner packet begins, from the beginning of the frame.
    end: usize,
}

impl Outer {
    fn read(frame: &Frame) -> Option<Self> {
        const GRE: u8 = 47;
        const FRAGMENT: u8 = 44;
        const OPTIONS: u8 = 60;
        let bytes = &frame.bytes;
        if frame.tag.is_some() {
            return None;
        }
        let (remote, local, traffic_class, is_fragment, at): (IpAddr, IpAddr, u8, bool, usize) =
            match frame.ether_type() {
                IPV4 => {
                    let header = bytes.get(ETHERNET..ETHERNET + 20)?;
                    let words = usize::from(header[0] & 0x0f);
                    if header[0] >> 4 != 4 || words < 5 || header[9] != GRE {
                        return None;
                    }
                    (
                        array::<4>(header, 12).into(),
                        array::<4>(header, 16).into(),
                        header[1],
                        word(header, 6) & 0x3fff != 0,
                        ETHERNET + 4 * words,
                    )
                }
                IPV6 => {
                    let header = bytes.get(ETHERNET..ETHERNET + 40)?;
                    let behind = ETHERNET + 40;
                    let (next, at) = match header[6] {
                        OPTIONS => skippable_options(bytes, behind)?,
                        next => (next, behind),
                    };
                    let is_fragment = header[6] == FRAGMENT && [GRE, OPTIONS].contains(bytes.get(behind)?);
                    if header[0] >> 4 != 6 || !(next == GRE || is_fragment) {
                        return None;
                    }
                    let traffic_class = (word(header, 0) >> 4) as u8;
                    (
                        array::<16>(header, 8).into(),
                        array::<16>(header, 24).into(),
                        traffic_class,
                        is_fragment,
                        at,
                    )
                }
                _ => return None,
            };
        if is_fragment {
            return Some(Self { local, remote, key: None, protocol: 0, traffic_class, is_fragment, end: at });
        }
        let gre = bytes.get(at..at + 4)?;
        let flags = word(gre, 0);
        let protocol = word(gre, 2);
        if flags & 0x4fff != 0 || (protocol != IPV4 && protocol != IPV6) {
            return None;
        }
        // Checksum and offset, key, sequence number: in this order (RFC 2890 section 2).
        let mut end = at + 4;
        if flags & 0x8000 != 0 {
            end += 4;
        }
        let mut key = None;
        if flags & 0x2000 != 0 {
            key = Some(u32::from_be_bytes(bytes.get(end..end + 4)?.try_into().ok()?));
            end += 4;
        }
        if flags & 0x1000 != 0 {
            end += 4;
        }
        Some(Self { local, remote, key, protocol, traffic_class, is_fragment, end })
    }
}

/// What follows destination options, and where, if each can be skipped (RFC 8200 section 4.2) and they are eight at most.
fn skippable_options(bytes: &[u8], begin: usize) -> Option<(u8, usize)> {
    let header = bytes.get(begin..begin + 2)?;
    let end = begin + 8 * (usize::from(header[1]) + 1);
    let mut at = begin + 2;
    for _ in 0..8 {
        if at < end {
            let option = bytes.get(at..at + 2)?;
            if option[0] >> 6 != 0 {
                return None;
            }
            at += if option[0] == 0 { 1 } else { 2 + usize::from(option[1]) };
        }
    }
    (at == end).then_some((header[0], end))
}
