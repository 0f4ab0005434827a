//! Resources: what people write, and the [`Model`] that comes of it once it has been found valid.
//!
//! The inventory (the operator's): [`Element`], [`Host`], [`Link`]. The service (the provider's): [`ServiceFunction`].
//! Tenancy: [`Tenant`], [`Site`], [`Chain`].
//!
//! [`parse`] reads texts into [`Document`]s, [`validate`] makes a [`Model`] of documents, [`load`] does both. What is
//! wrong is told as [`Diagnostic`]s, all of it at once. The modules, in the order of the way: [`source`] (places in
//! texts), `yaml` (a located tree), `fields` and `words` (reading the tree), `parse` (the kinds), [`written`] (what was
//! read), `validate` (what contradicts what).

mod diagnostic;
mod document;
mod fields;
mod kind;
mod nearest;
mod parse;
mod problems;
pub mod source;
mod validate;
mod words;
pub mod written;
mod yaml;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU8;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use self::diagnostic::{Diagnostic, Label};
pub use self::document::{API_VERSION, Document};
pub use self::kind::{ResourceKind, UnknownKind};
use self::parse::Parsed;
pub use self::parse::parse;
pub use self::source::Source;
pub use self::validate::validate;
use crate::address::{Dscp, Family, PortRange, Prefix, Protocol};
use crate::forwarding::{Delivery, FlowMatch, Insertion, NextHops, OnFailure, Oversize, Stickiness};
use crate::name::{
    ChainName, FunctionName, InstanceName, LinkName, NodeName, PortName, SiteName, TenantName,
};

/// Everything that was asked for. All names in it resolve, and all rules of validation hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    pub elements: BTreeMap<NodeName, Element>,
    pub hosts: BTreeMap<NodeName, Host>,
    pub links: BTreeMap<LinkName, Link>,
    pub functions: BTreeMap<FunctionName, ServiceFunction>,
    pub tenants: BTreeMap<TenantName, Tenant>,
    pub sites: BTreeMap<SiteName, Site>,
    pub chains: BTreeMap<ChainName, Chain>,
}

/// Reads and validates: all that is wrong is told at once, but for what depends on documents that cannot be read.
pub fn load(sources: &[Source]) -> Result<Model, Vec<Diagnostic>> {
    let Parsed { documents, mut diagnostics, unread } = parse::read(sources);
    match validate::validate_some(&documents, &unread) {
        Ok(model) if diagnostics.is_empty() => return Ok(model),
        Ok(_) => {}
        Err(found) => diagnostics.extend(found),
    }
    diagnostics.sort_by(|a, b| a.place().cmp(&b.place()));
    Err(diagnostics)
}

/// A network element that the controller drives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Element {
    pub name: NodeName,
    pub role: Role,
    pub driver: DriverSpec,
    /// Base routing, as the element's owner set it up: the lab installs it, the controller only knows of it.
    pub routes: Vec<Route>,
}

/// What an element is for. The way of a packet visits the roles in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The customer's side of an attachment.
    Access,
    /// Switches and routers of the provider's physical network.
    Physical,
    /// A tenant's virtual router, such as Neutron's `qrouter-…`.
    Router,
    /// A virtual switch with service functions on it.
    Switch,
    /// The way out to the Internet.
    Gateway,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Role::Access => "access",
            Role::Physical => "physical",
            Role::Router => "router",
            Role::Switch => "switch",
            Role::Gateway => "gateway",
        })
    }
}

/// By what means an element is driven.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DriverSpec {
    Linux(LinuxSpec),
    /// Nothing real: for tests and for planning.
    Simulated,
}

/// A Linux network namespace on this machine, and which numbers in it are ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinuxSpec {
    /// A name under `/run/netns`; `None` for the namespace that the controller runs in.
    pub netns: Option<String>,
    /// Our policy-routing rules have priorities from here, twice [`Rule::ORDERS`](crate::forwarding::Rule::ORDERS) of
    /// them: each rule has a guard, and all guards come after all rules.
    pub rule_priority: u32,
    /// Path *n* uses routing table `table_base` + *n*.
    pub table_base: u32,
    /// The protocol number (`ip route … proto N`) of our rules, routes and neighbours.
    pub protocol: u8,
    /// The bit of the packet mark that says "released": claimed by no chain.
    pub mark: u32,
    #[serde(default, skip_serializing_if = "Engine::is_default")]
    pub engine: Engine,
    #[serde(default, skip_serializing_if = "SteerSettings::is_default")]
    pub steer: SteerSettings,
}

/// How much the steering engine of an element keeps in mind, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SteerSettings {
    /// As many sites can be told apart here. One costs up to a kilobyte of kernel memory, and only if there is one.
    pub tenants: u32,
    /// As many flows of each IP version can have an entry at once, those of all sites together. One costs some 200 bytes.
    pub flows: u32,
    pub tenant_limits: TenantLimits,
    pub idle: IdleTimes,
    /// Whether senders are told of packets that do not fit a port of the element.
    #[serde(default)]
    pub tell_too_big: bool,
}

/// What one site may take of the flow table, so that a flood of its packets moves, evicts and delays no flow of another.
/// Flows beyond `flows` and `half_open` are forwarded without an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TenantLimits {
    /// Flows at once.
    pub flows: u32,
    /// Those among them that have been seen in one direction only.
    pub half_open: u32,
    /// Flows begun within one second. Packets that would begin more are dropped and counted.
    pub new_per_second: u32,
}

/// After how many seconds without a packet a flow is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IdleTimes {
    /// A TCP connection that is open (RFC 5382 section 5 asks for no less than 2 h 4 min).
    pub tcp: u32,
    /// A TCP connection both of whose ends have closed it, or that was reset.
    pub tcp_closing: u32,
    /// Any flow that has been seen in one direction only.
    pub half_open: u32,
    /// UDP (RFC 4787 section 4.3 recommends 5 min).
    pub udp: u32,
    /// All other protocols.
    pub other: u32,
}

impl SteerSettings {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for SteerSettings {
    fn default() -> Self {
        Self {
            tenants: 32_768,
            flows: 262_144,
            tenant_limits: TenantLimits::default(),
            idle: IdleTimes::default(),
            tell_too_big: false,
        }
    }
}

impl Default for TenantLimits {
    fn default() -> Self {
        Self { flows: 65_536, half_open: 16_384, new_per_second: 20_000 }
    }
}

impl Default for IdleTimes {
    fn default() -> Self {
        Self { tcp: 2 * 3600 + 4 * 60, tcp_closing: 2, half_open: 30, udp: 5 * 60, other: 5 * 60 }
    }
}

/// By what means rules and their tables are installed ([`Rule`](crate::forwarding::Rule),
/// [`Table`](crate::forwarding::Table)). All do the same to a packet; they differ in what a packet costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// One line of `ip rule` and one routing table for each: a packet costs as much as there are rules.
    #[default]
    Rules,
    /// Verdict maps of nftables, and one routing table for each next hop.
    Nft,
    /// The eBPF routing engine, before the kernel's own routing, and one routing table for each next hop.
    Steer,
}

impl Engine {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl LinuxSpec {
    pub const RULE_PRIORITY: u32 = 10_000;
    pub const TABLE_BASE: u32 = 10_000;
    /// Not in iproute2's `rt_protos`, below 254.
    pub const PROTOCOL: u8 = 202;
    /// One high bit; the low ones are those that others use.
    pub const MARK: u32 = 0x0400_0000;
    /// The bits of the packet mark in which `engine: nft` and `engine: steer` number next hops, while the packet is in the
    /// element.
    pub const HOP_MARKS: u32 = 0x03ff_0000;

    pub fn in_netns(netns: &str) -> Self {
        Self { netns: Some(netns.to_owned()), ..Self::default() }
    }
}

/// The controller's own namespace, and the usual numbers.
impl Default for LinuxSpec {
    fn default() -> Self {
        Self {
            netns: None,
            rule_priority: Self::RULE_PRIORITY,
            table_base: Self::TABLE_BASE,
            protocol: Self::PROTOCOL,
            mark: Self::MARK,
            engine: Engine::default(),
            steer: SteerSettings::default(),
        }
    }
}

/// A route of a node's base routing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    pub to: Prefix,
    pub via: IpAddr,
}

/// A machine that the controller does not drive: a user's, a server's, a service function's. The lab builds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Host {
    pub name: NodeName,
    pub routes: Vec<Route>,
    /// Whether it forwards IP packets (`net.ipv4.ip_forward`, `net.ipv6.conf.all.forwarding`).
    pub forwarding: bool,
    /// Shell commands that the lab runs in it once it is connected, each to its end; a failure ends the lab.
    pub setup: Vec<String>,
    /// Shell commands that the lab keeps running in it.
    pub services: Vec<String>,
}

/// A cable between two ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    pub name: LinkName,
    pub ends: [LinkEnd; 2],
    /// The largest IP packet that it carries, in bytes.
    pub mtu: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkEnd {
    pub node: NodeName,
    pub port: PortName,
    pub addresses: Vec<IpNet>,
    /// Whether the Internet is beyond this port: replies enter by it.
    pub external: bool,
}

impl LinkEnd {
    /// The first address of each family.
    pub fn next_hops(&self) -> NextHops {
        let mut found = NextHops::default();
        for address in &self.addresses {
            match address.addr() {
                IpAddr::V4(address) => found.v4 = found.v4.or(Some(address)),
                IpAddr::V6(address) => found.v6 = found.v6.or(Some(address)),
            }
        }
        found
    }
}

/// A network security function: what a chain is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceFunction {
    pub name: FunctionName,
    pub insertion: Insertion,
    /// It sends packets with other addresses or ports than it got. See [`Instance::rewrites`].
    ///
    /// [`Instance::rewrites`]: crate::forwarding::Instance::rewrites
    pub changes_addresses: bool,
    pub delivery: Delivery,
    pub stickiness: Stickiness,
    pub on_failure: OnFailure,
    /// At least one, at most [`MAX_INSTANCES`](crate::forwarding::MAX_INSTANCES).
    pub instances: Vec<FunctionInstance>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionInstance {
    pub name: InstanceName,
    /// The switch's port that leads to the side towards the site.
    pub inside: PortRef,
    /// The switch's port that leads to the side towards the Internet; the same one where there is but one.
    pub outside: PortRef,
    /// Its share of the flows, in proportion to those of the other instances.
    pub weight: NonZeroU8,
    /// It keeps the flows that it has, and is given no others.
    pub drain: bool,
}

/// A port of an element.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortRef {
    pub element: NodeName,
    pub port: PortName,
}

/// A customer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    pub name: TenantName,
    /// The addresses that the customer's sites can have.
    pub prefixes: BTreeSet<Prefix>,
}

/// A place of a customer, and how it is attached to the cloud.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    pub name: SiteName,
    pub tenant: TenantName,
    /// All within the tenant's.
    pub prefixes: BTreeSet<Prefix>,
    pub attachment: Attachment,
}

impl Site {
    pub fn families(&self) -> impl Iterator<Item = Family> {
        Family::BOTH
            .into_iter()
            .filter(|family| self.prefixes.iter().any(|prefix| prefix.family() == *family))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Attachment {
    Gre(Gre),
    /// A link between the customer's side and an element of the physical network.
    L2 {
        link: LinkName,
    },
}

/// A GRE tunnel over whatever lies between the customer's side and the cloud (RFC 2784, RFC 2890; over IPv6 RFC 7676).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gre {
    pub customer: TunnelEnd,
    /// Always with an element: where the tunnel ends in the cloud.
    pub cloud: TunnelEnd,
    pub key: Option<u32>,
    pub oversize: Oversize,
}

impl Gre {
    /// How much smaller than the link under it the tunnel's packets are: the outer IP header, and a GRE header without or
    /// with a key. In bytes.
    pub fn overhead(outer: IpAddr, key: Option<u32>) -> u16 {
        let ip = match outer {
            IpAddr::V4(_) => 20,
            IpAddr::V6(_) => 40,
        };
        ip + if key.is_some() { 8 } else { 4 }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelEnd {
    /// `None`: a device that the controller does not drive, which decides itself what it sends into the tunnel.
    pub element: Option<NodeName>,
    /// The outer address, of the same family at both ends; an address of the element, where there is one.
    pub address: IpAddr,
}

/// Which packets pass which functions, in which order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    pub name: ChainName,
    /// All of one tenant.
    pub sites: BTreeSet<SiteName>,
    /// What is claimed: flows that any of these matches. Never empty; a single one without conditions is all traffic.
    pub matches: Vec<Traffic>,
    /// In the order of the way up. Never empty.
    pub functions: Vec<FunctionName>,
    /// The higher wins where two chains of a site claim one flow.
    pub priority: i32,
}

/// Some of a site's traffic: what is given must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Ports of the far end; empty for all. Only with a protocol that has ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortRange>,
    /// The site's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Prefix>,
    /// The far end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Prefix>,
    /// What the flow's first packet from the site is marked with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dscp: Option<Dscp>,
}

impl Traffic {
    /// The alternatives that it consists of, each with one range of ports.
    pub fn flow_matches(&self) -> impl Iterator<Item = FlowMatch> {
        let Traffic { protocol, ports, from, to, dscp } = self;
        let every_port = ports.is_empty().then_some(None);
        let each_port = ports.iter().copied().map(Some);
        let with = |ports| FlowMatch { protocol: *protocol, ports, local: *from, remote: *to, dscp: *dscp };
        every_port.into_iter().chain(each_port).map(with)
    }
}
