//! Forwarding state: what one network element does with a packet, in our own words.
//!
//! This is the one vocabulary between `render`, `verify`, `plan` and the drivers. An element's state is a set of
//! [`Object`]s. Objects say *what*, completely: there is no choice left to the driver that installs them, and a driver
//! that reads an element back answers in the same words.
//!
//! Some objects are only there to be used (a [`Table`], a [`Path`], an [`Instance`], a [`Tunnel`], an [`Ingress`]);
//! others decide which packets use them (a [`Rule`], a [`Policy`]): the *classifiers*. An edit installs the first kind
//! under new numbers beside the old ones, then flips the second, then takes the old ones away.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::{NonZeroU8, NonZeroU16};

use serde::{Deserialize, Serialize};

use crate::address::{Dscp, Family, PortRange, Prefix, Protocol};
use crate::name::{NodeName, PortName};
use crate::packet::Packet;

/// The way a packet goes: from the site to the Internet, or back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    Up,
    Down,
}

impl Direction {
    pub const BOTH: [Direction; 2] = [Direction::Up, Direction::Down];
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Direction::Up => "up",
            Direction::Down => "down",
        })
    }
}

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u32);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    )*};
}

numbers! {
    /// One revision of one path. Objects of two revisions have different numbers, so both can be installed at once.
    /// At most [`PathId::MAX`]: it travels in three bytes of a source MAC address.
    PathId;
    /// A site, on every element that knows it.
    SiteId;
    /// An instance of a service function, on the element that steers to it.
    InstanceId;
}

impl PathId {
    pub const MAX: PathId = PathId(0x00ff_ffff);
    /// No path has this number. A [`Rule`] for it has no [`Table`], and drops what it matches: what a driver reads where
    /// a rule is damaged.
    pub const NOWHERE: PathId = PathId(0);
}

/// The most functions that one chain can have: the position travels in the low four bits of a source MAC address, and
/// the engine's flow entries hold one instance for each.
pub const MAX_HOPS: usize = 8;
/// The most instances of one function that a path can choose from.
pub const MAX_INSTANCES: usize = 16;
/// The most rules in one site's [`Policy`].
pub const MAX_POLICY_RULES: usize = 32;
/// The interface of an element that stands for all its tunnels. What is routed into it is encapsulated; what arrives
/// through a tunnel comes in by it.
pub const TUNNEL_PORT: &str = "catena-gre";

/// What every element must do, or does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardingState {
    pub elements: BTreeMap<NodeName, ElementState>,
}

impl ForwardingState {
    pub fn insert(&mut self, element: &NodeName, object: Object) {
        self.elements.entry(element.clone()).or_default().insert(object);
    }

    /// The state of one element; an element without objects has an empty one.
    pub fn element(&self, element: &NodeName) -> &ElementState {
        const NOTHING: &ElementState = &ElementState { objects: BTreeMap::new() };
        self.elements.get(element).unwrap_or(NOTHING)
    }
}

/// What one element does: objects by their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ElementState {
    objects: BTreeMap<Key, Object>,
}

impl ElementState {
    /// Puts `object` in the place of the one with its key, and gives that one back.
    pub fn insert(&mut self, object: Object) -> Option<Object> {
        self.objects.insert(object.key(), object)
    }

    pub fn remove(&mut self, key: &Key) -> Option<Object> {
        self.objects.remove(key)
    }

    pub fn get(&self, key: &Key) -> Option<&Object> {
        self.objects.get(key)
    }

    pub fn contains(&self, object: &Object) -> bool {
        self.get(&object.key()) == Some(object)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Object> {
        self.objects.values()
    }

    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// What the element is after `change`.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Put { new, .. } => {
                if let Object::Rule(rule) = new {
                    self.vacate(rule);
                }
                self.insert(new.clone());
            }
            Change::Delete { old } => {
                self.remove(&old.key());
            }
        }
    }

    /// Removes the rules in the place of `rule`: keys of one place follow each other.
    fn vacate(&mut self, rule: &Rule) {
        let key = |table| Key::Rule(rule.order, rule.selector.clone(), table);
        let there: Vec<Key> =
            self.objects.range(key(PathId(0))..=key(PathId(u32::MAX))).map(|(key, _)| key.clone()).collect();
        for key in there {
            self.remove(&key);
        }
    }
}

impl FromIterator<Object> for ElementState {
    fn from_iter<I: IntoIterator<Item = Object>>(objects: I) -> Self {
        Self { objects: objects.into_iter().map(|object| (object.key(), object)).collect() }
    }
}

impl Extend<Object> for ElementState {
    fn extend<I: IntoIterator<Item = Object>>(&mut self, objects: I) {
        self.objects.extend(objects.into_iter().map(|object| (object.key(), object)));
    }
}

impl Serialize for ElementState {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for ElementState {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Vec::<Object>::deserialize(deserializer)?.into_iter().collect())
    }
}

/// One thing that an element has been told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Object {
    Table(Table),
    Tunnel(Tunnel),
    Ingress(Ingress),
    Instance(Instance),
    Path(Path),
    Rule(Rule),
    Policy(Policy),
}

/// What tells two objects of one element apart. Putting an object replaces the one with the same key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Key {
    Table(PathId, Family),
    Tunnel(SiteId),
    Ingress(PortName),
    Instance(InstanceId),
    Path(PathId),
    /// Two rules in one place may stand at once, while one takes the other's place: the table tells them apart.
    Rule(u16, Selector, PathId),
    Policy(SiteId),
}

impl Object {
    pub fn key(&self) -> Key {
        match self {
            Object::Table(table) => Key::Table(table.path, table.family),
            Object::Tunnel(tunnel) => Key::Tunnel(tunnel.site),
            Object::Ingress(ingress) => Key::Ingress(ingress.port.clone()),
            Object::Instance(instance) => Key::Instance(instance.id),
            Object::Path(path) => Key::Path(path.id),
            Object::Rule(rule) => Key::Rule(rule.order, rule.selector.clone(), rule.table),
            Object::Policy(policy) => Key::Policy(policy.site),
        }
    }

    pub fn kind(&self) -> Kind {
        match self {
            Object::Table(_) => Kind::Table,
            Object::Tunnel(_) => Kind::Tunnel,
            Object::Ingress(_) => Kind::Ingress,
            Object::Instance(_) => Kind::Instance,
            Object::Path(_) => Kind::Path,
            Object::Rule(_) => Kind::Rule,
            Object::Policy(_) => Kind::Policy,
        }
    }

    /// Whether the object decides which packets use the others.
    pub fn is_classifier(&self) -> bool {
        matches!(self, Object::Rule(_) | Object::Policy(_))
    }
}

/// The kinds of [`Object`]; a driver's capabilities are a set of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    Table,
    Tunnel,
    Ingress,
    Instance,
    Path,
    Rule,
    Policy,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Table => "table",
            Kind::Tunnel => "tunnel",
            Kind::Ingress => "ingress",
            Kind::Instance => "instance",
            Kind::Path => "path",
            Kind::Rule => "rule",
            Kind::Policy => "policy",
        })
    }
}

/// The next hop of one family for one path: a routing table that holds a default route and nothing else. Whatever is
/// looked up in it and cannot go there is dropped as unreachable; it never falls through to another table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Table {
    pub path: PathId,
    pub family: Family,
    pub port: PortName,
    /// The neighbour's address; `None` for a port with a single other end, such as a tunnel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<IpAddr>,
}

/// Policy-based routing: packets that `selector` matches are looked up in the [`Table`] of path `table`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Rule {
    /// Among the rules of one element the lowest order that matches wins. Below [`Rule::ORDERS`].
    pub order: u16,
    pub selector: Selector,
    pub table: PathId,
}

impl Rule {
    /// Orders are 0 up to here.
    pub const ORDERS: u16 = 256;

    /// Rules with the same place match the same packets: one replaces the other.
    pub fn place(&self) -> (u16, &Selector) {
        (self.order, &self.selector)
    }
}

/// Which packets a [`Rule`] means: all fields that are given must match. `from` and `to` are of `family`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    pub family: Family,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Prefix>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Prefix>,
    /// The port by which the packet came in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_port: Option<PortName>,
    /// All but the packets that a [`Policy`] on this element has released ([`Purpose::Claim`]). Who is not asked
    /// releases nothing, so a rule with this claims too much rather than too little.
    #[serde(default)]
    pub unless_released: bool,
}

/// The far end of a site's GRE tunnel (RFC 2784, RFC 2890), reached by way of [`TUNNEL_PORT`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tunnel {
    pub site: SiteId,
    /// The port that the encapsulated packets leave and enter by.
    pub underlay: PortName,
    /// Both ends are of one family: GRE over IPv4, or over IPv6 (RFC 7676).
    pub local: IpAddr,
    pub remote: IpAddr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<u32>,
    /// The largest inner packet that the underlay carries in one piece, in bytes.
    pub mtu: u16,
    #[serde(default, skip_serializing_if = "Oversize::is_default")]
    pub oversize: Oversize,
    /// What lies at the far end: only packets *to* these go in, only packets *from* these are taken out.
    pub allowed: BTreeSet<Prefix>,
}

/// What becomes of an inner packet that does not fit the underlay with its outer headers: one above [`Tunnel::mtu`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Oversize {
    /// Its sender is told (ICMP "fragmentation needed", ICMPv6 "packet too big"), and sends smaller ones.
    #[default]
    TellSender,
    /// The outer packet is cut into fragments, which the far end puts together (RFC 7588 section 3.3.2): the user's
    /// network keeps its whole MTU.
    FragmentOuter,
}

impl Oversize {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether packets that come in by a port are classified, in which directions, and what for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ingress {
    pub port: PortName,
    /// A port that sees both directions tells them apart by which end of the packet is a site's.
    pub directions: BTreeSet<Direction>,
    pub purpose: Purpose,
    /// Everything that comes in by this port is of this site, whatever its addresses; `None`: the addresses tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<SiteId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// Release what no policy claims for sure, by a mark that a [`Rule`] passes over, and let the element route it.
    /// Without this ingress, or in doubt, nothing is released.
    Claim,
    /// Send it through a [`Path`].
    Steer,
}

/// One running copy of a service function, and how to reach its two sides.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Instance {
    pub id: InstanceId,
    pub insertion: Insertion,
    /// The side towards the site.
    pub inside: Side,
    /// The side towards the Internet. The same port as `inside` for a one-armed function.
    pub outside: Side,
    #[serde(default, skip_serializing_if = "InstanceState::is_default")]
    pub state: InstanceState,
    /// It sends packets with other addresses or ports than it got (NAT, proxy). Then nothing but its ports tells whose
    /// packets it sends: it serves a single path, or stands last in all that it serves.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rewrites: bool,
    #[serde(default, skip_serializing_if = "Delivery::is_default")]
    pub delivery: Delivery,
}

impl Instance {
    /// In and out by one port.
    pub fn is_one_armed(&self) -> bool {
        self.inside.port == self.outside.port
    }
}

/// How a function takes part in forwarding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Insertion {
    /// It routes: it has addresses, decrements the TTL, sends frames of its own.
    L3,
    /// A bump in the wire: what enters one side leaves the other, the Ethernet addresses unchanged.
    L2,
    /// It gets a copy of each packet, at its inside port, and sends nothing back. It never delays the original.
    Tap,
    /// A bump in the wire that leaves VLAN tags alone (IEEE 802.1Q): each path has a VLAN of its own ([`Path::vlan`]).
    Vlan,
    /// It understands the Network Service Header (RFC 8300) on Ethernet, and decrements the service index.
    Nsh(NshMetadata),
}

impl Insertion {
    /// Whether packets are expected back.
    pub fn returns(self) -> bool {
        self != Insertion::Tap
    }
}

/// Which metadata an NSH-aware function is sent, and may send back (RFC 8300 sections 2.4 and 2.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NshMetadata {
    /// MD type 1: 16 bytes; all zero from us, whatever from the function.
    #[default]
    Fixed,
    /// MD type 2: none from us, any length from the function.
    Variable,
}

/// Whether an instance is given flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InstanceState {
    #[default]
    Up,
    /// Keeps the flows that it has, and is given no others.
    Draining,
    /// Is given nothing: its flows go to another instance, each to its own second choice.
    Down,
}

impl InstanceState {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How a frame is handed to a function. What leaves by an [exit](Exits) is always delivered directly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Delivery {
    /// In the fastest way that its port has: straight into the function's end of a veth pair where it is one.
    #[default]
    Direct,
    /// By way of the port's queue: for functions that take frames off it by XDP or AF_XDP, which direct delivery goes
    /// round.
    Queue,
}

impl Delivery {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// One side of an [`Instance`]: the steering element's port that leads to it, and for [`Insertion::L3`] its addresses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Side {
    pub port: PortName,
    #[serde(default, skip_serializing_if = "NextHops::is_empty")]
    pub next_hops: NextHops,
}

/// A neighbour's addresses, as far as it has one of each family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NextHops {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v4: Option<Ipv4Addr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v6: Option<Ipv6Addr>,
}

impl NextHops {
    pub fn is_empty(&self) -> bool {
        self.v4.is_none() && self.v6.is_none()
    }

    pub fn of(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.v4.map(IpAddr::V4),
            Family::V6 => self.v6.map(IpAddr::V6),
        }
    }
}

/// The functions that a site's packets pass, in the order of the way up. Immutable: an edit makes a new one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Path {
    pub id: PathId,
    pub site: SiteId,
    pub hops: Vec<Hop>,
    /// What its frames are tagged with on the way through functions of [`Insertion::Vlan`]: no other path on the element
    /// has the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<VlanId>,
}

/// A VLAN identifier: 1 to 4094 (IEEE 802.1Q).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct VlanId(NonZeroU16);

impl VlanId {
    pub const MAX: u16 = 4094;

    pub fn new(id: u16) -> Option<Self> {
        NonZeroU16::new(id).filter(|id| id.get() <= Self::MAX).map(Self)
    }

    pub fn get(self) -> u16 {
        self.0.get()
    }
}

impl TryFrom<u16> for VlanId {
    type Error = String;

    fn try_from(id: u16) -> Result<Self, String> {
        Self::new(id).ok_or_else(|| format!("{id} is no VLAN: those are 1 to {}", Self::MAX))
    }
}

impl From<VlanId> for u16 {
    fn from(id: VlanId) -> u16 {
        id.get()
    }
}

/// One function of a path.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hop {
    /// The instances that a flow can be given, in ascending order.
    pub instances: Vec<Member>,
    #[serde(default, skip_serializing_if = "Stickiness::is_default")]
    pub stickiness: Stickiness,
    #[serde(default, skip_serializing_if = "OnFailure::is_default")]
    pub on_failure: OnFailure,
}

impl Hop {
    /// Instances of equal weight.
    pub fn of(instances: impl IntoIterator<Item = InstanceId>) -> Self {
        let instances = instances.into_iter().map(Member::new).collect();
        Self { instances, ..Self::default() }
    }

    pub fn ids(&self) -> impl Iterator<Item = InstanceId> {
        self.instances.iter().map(|member| member.id)
    }
}

/// An instance, and its share of a hop's flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Member {
    pub id: InstanceId,
    /// In proportion to those of the other instances.
    pub weight: NonZeroU8,
}

impl Member {
    /// Of weight 1.
    pub fn new(id: InstanceId) -> Self {
        Self { id, weight: NonZeroU8::MIN }
    }
}

/// Which packets have to pass the same instance: those with the same…
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Stickiness {
    /// …addresses, protocol and ports.
    #[default]
    #[serde(rename = "5-tuple")]
    FiveTuple,
    /// …addresses and protocol.
    #[serde(rename = "3-tuple")]
    ThreeTuple,
    /// …addresses.
    #[serde(rename = "2-tuple")]
    TwoTuple,
}

impl Stickiness {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What becomes of packets at a function none of whose instances is up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// They are dropped.
    #[default]
    Closed,
    /// They go on to the next function: this one alone is left out.
    Skip,
}

impl OnFailure {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What is done with one site's packets. The classifier of an element that claims or steers: replaced as a whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Policy {
    pub site: SiteId,
    /// The addresses that tell the site's packets: sources on the way up, destinations on the way down.
    pub prefixes: BTreeSet<Prefix>,
    /// The first that matches decides.
    pub rules: Vec<PolicyRule>,
    /// Where packets go after the last function, and those that no rule matches. `None` on an element that only claims:
    /// there, what no rule matches is released, and routed as if we were not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exits: Option<Exits>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PolicyRule {
    pub matches: FlowMatch,
    pub action: Action,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// Do not release the packet ([`Purpose::Claim`]): a [`Rule`] takes it.
    Claim,
    /// Send it through this path.
    Path(PathId),
}

/// Where a steering element hands packets on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Exits {
    /// To the Internet.
    pub up: Side,
    /// To the site.
    pub down: Side,
}

impl Exits {
    pub fn of(&self, direction: Direction) -> &Side {
        match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        }
    }
}

/// Which flows, as seen from the site: `local` is the site's end, `remote` the other one. What is not given matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FlowMatch {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// The far end's ports. Only with a protocol that has ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<PortRange>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<Prefix>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<Prefix>,
    /// What the site's packets are marked with. Replies may be marked otherwise: they follow the flow that they answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dscp: Option<Dscp>,
}

impl FlowMatch {
    /// Whether this matches `packet`, a packet as the site sends it ([`Packet::seen_from_site`]).
    pub fn matches(&self, packet: &Packet) -> bool {
        self.protocol.is_none_or(|protocol| protocol == packet.protocol)
            && self
                .ports
                .is_none_or(|ports| packet.protocol.has_ports() && ports.contains(packet.destination_port))
            && self.local.is_none_or(|prefix| prefix.contains(packet.source))
            && self.remote.is_none_or(|prefix| prefix.contains(packet.destination))
            && self.dscp.is_none_or(|dscp| dscp == packet.dscp)
    }

    /// Whether some packet is matched by both.
    pub fn overlaps(&self, other: &FlowMatch) -> bool {
        self.intersection(other).is_some()
    }

    /// What matches exactly the packets that both match, if there are any.
    pub fn intersection(&self, other: &FlowMatch) -> Option<FlowMatch> {
        /// `None`: nothing is in both. `Some(None)`: neither says anything.
        fn both<T: Copy>(a: Option<T>, b: Option<T>, meet: impl Fn(T, T) -> Option<T>) -> Option<Option<T>> {
            match (a, b) {
                (Some(a), Some(b)) => meet(a, b).map(Some),
                (one, other) => Some(one.or(other)),
            }
        }
        let both = FlowMatch {
            protocol: both(self.protocol, other.protocol, |a, b| (a == b).then_some(a))?,
            ports: both(self.ports, other.ports, PortRange::intersection)?,
            local: both(self.local, other.local, Prefix::intersection)?,
            remote: both(self.remote, other.remote, Prefix::intersection)?,
            dscp: both(self.dscp, other.dscp, |a, b| (a == b).then_some(a))?,
        };
        let one_family =
            both.local.zip(both.remote).is_none_or(|(local, remote)| local.family() == remote.family());
        let ports_of_something =
            both.ports.is_none() || both.protocol.is_none_or(|protocol| protocol.has_ports());
        (one_family && ports_of_something).then_some(both)
    }
}

/// One change of one element's state. It carries what it replaces, so that it can be undone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Change {
    /// Install `new`; it takes the place of `old` without a moment at which neither holds.
    Put {
        new: Object,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        old: Option<Object>,
    },
    Delete {
        old: Object,
    },
}

impl Change {
    /// The change that undoes this one.
    pub fn inverse(&self) -> Change {
        match self.clone() {
            Change::Put { new, old: Some(old) } => Change::Put { new: old, old: Some(new) },
            Change::Put { new, old: None } => Change::Delete { old: new },
            Change::Delete { old } => Change::Put { new: old, old: None },
        }
    }

    /// The object that the change is about: the new one where there is one.
    pub fn object(&self) -> &Object {
        match self {
            Change::Put { new, .. } => new,
            Change::Delete { old } => old,
        }
    }
}
