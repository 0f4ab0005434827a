//! Resources as people write them: each value well-formed and with its place, defaults filled in, but names not looked
//! up yet. Serialised, they are the file format again.

use std::borrow::Borrow;
use std::net::IpAddr;
use std::num::NonZeroU8;

use ipnet::IpNet;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::source::Located;
use super::{DriverSpec, ResourceKind, Role};
use crate::address::{Dscp, PortRange, Prefix, Protocol};
use crate::forwarding::{Delivery, Insertion, NshMetadata, OnFailure, Oversize, Stickiness};
use crate::name::{
    ChainName, FunctionName, InstanceName, LinkName, NodeName, PortName, SiteName, TenantName,
};

/// One resource, of whatever kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    Element(Element),
    Host(Host),
    Link(Link),
    ServiceFunction(ServiceFunction),
    Tenant(Tenant),
    Site(Site),
    Chain(Chain),
}

impl Resource {
    pub fn kind(&self) -> ResourceKind {
        match self {
            Resource::Element(_) => ResourceKind::Element,
            Resource::Host(_) => ResourceKind::Host,
            Resource::Link(_) => ResourceKind::Link,
            Resource::ServiceFunction(_) => ResourceKind::ServiceFunction,
            Resource::Tenant(_) => ResourceKind::Tenant,
            Resource::Site(_) => ResourceKind::Site,
            Resource::Chain(_) => ResourceKind::Chain,
        }
    }

    pub fn name(&self) -> Located<&str> {
        fn text<N: Borrow<str>>(name: &Located<N>) -> Located<&str> {
            Located { value: name.value.borrow(), span: name.span }
        }
        match self {
            Resource::Element(element) => text(&element.name),
            Resource::Host(host) => text(&host.name),
            Resource::Link(link) => text(&link.name),
            Resource::ServiceFunction(function) => text(&function.name),
            Resource::Tenant(tenant) => text(&tenant.name),
            Resource::Site(site) => text(&site.name),
            Resource::Chain(chain) => text(&chain.name),
        }
    }
}

/// The value of `spec`.
impl Serialize for Resource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Resource::Element(element) => element.serialize(serializer),
            Resource::Host(host) => host.serialize(serializer),
            Resource::Link(link) => link.serialize(serializer),
            Resource::ServiceFunction(function) => function.serialize(serializer),
            Resource::Tenant(tenant) => tenant.serialize(serializer),
            Resource::Site(site) => site.serialize(serializer),
            Resource::Chain(chain) => chain.serialize(serializer),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Element {
    #[serde(skip)]
    pub name: Located<NodeName>,
    pub role: Located<Role>,
    pub driver: Located<DriverSpec>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Host {
    #[serde(skip)]
    pub name: Located<NodeName>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    #[serde(skip_serializing_if = "is_default")]
    pub forwarding: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub setup: Vec<Located<String>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Located<String>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Route {
    pub to: Located<Prefix>,
    pub via: Located<IpAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Link {
    #[serde(skip)]
    pub name: Located<LinkName>,
    #[serde(skip_serializing_if = "is_usual_mtu")]
    pub mtu: Located<u16>,
    pub ends: [LinkEnd; 2],
}

impl Link {
    pub const USUAL_MTU: u16 = 1500;
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LinkEnd {
    pub node: Located<NodeName>,
    pub port: Located<PortName>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Located<IpNet>>,
    #[serde(skip_serializing_if = "is_default")]
    pub external: Located<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceFunction {
    #[serde(skip)]
    pub name: Located<FunctionName>,
    /// `insertion` and `nsh`.
    #[serde(flatten, serialize_with = "insertion")]
    pub insertion: Located<Insertion>,
    #[serde(skip_serializing_if = "is_default")]
    pub changes_addresses: Located<bool>,
    #[serde(skip_serializing_if = "is_default")]
    pub delivery: Delivery,
    #[serde(skip_serializing_if = "is_default")]
    pub stickiness: Stickiness,
    /// `None`: what is usual with this insertion.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,
    pub instances: Located<Vec<Instance>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Instance {
    pub name: Located<InstanceName>,
    #[serde(flatten)]
    pub ports: InstancePorts,
    #[serde(skip_serializing_if = "is_one")]
    pub weight: NonZeroU8,
    #[serde(skip_serializing_if = "is_default")]
    pub drain: bool,
}

/// By which ports of a switch an instance is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum InstancePorts {
    Two {
        inside: PortRef,
        outside: PortRef,
    },
    /// In and out by one port, or a tap's.
    One {
        port: PortRef,
    },
}

impl InstancePorts {
    /// Towards the site, and towards the Internet.
    pub fn sides(&self) -> [&PortRef; 2] {
        match self {
            Self::Two { inside, outside } => [inside, outside],
            Self::One { port } => [port, port],
        }
    }

    pub fn inside(&self) -> &PortRef {
        self.sides()[0]
    }

    /// Each once.
    pub fn all(&self) -> impl Iterator<Item = &PortRef> {
        let [inside, outside] = self.sides();
        let second = matches!(self, Self::Two { .. }).then_some(outside);
        [inside].into_iter().chain(second)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PortRef {
    pub element: Located<NodeName>,
    pub port: Located<PortName>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tenant {
    #[serde(skip)]
    pub name: Located<TenantName>,
    pub prefixes: Vec<Located<Prefix>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Site {
    #[serde(skip)]
    pub name: Located<SiteName>,
    pub tenant: Located<TenantName>,
    /// `None`: those of the tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefixes: Option<Vec<Located<Prefix>>>,
    pub attachment: Attachment,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Attachment {
    Gre(Gre),
    L2 { link: Located<LinkName> },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gre {
    pub customer: CustomerEnd,
    pub cloud: CloudEnd,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Located<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oversize: Option<Located<Oversize>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CustomerEnd {
    /// `None`: a device that the controller does not drive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub element: Option<Located<NodeName>>,
    pub address: Located<IpAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CloudEnd {
    pub element: Located<NodeName>,
    pub address: Located<IpAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Chain {
    #[serde(skip)]
    pub name: Located<ChainName>,
    #[serde(flatten)]
    pub scope: Scope,
    /// `None`: all traffic.
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    pub matches: Option<Vec<Located<Traffic>>>,
    pub functions: Located<Vec<Located<FunctionName>>>,
    #[serde(skip_serializing_if = "is_default")]
    pub priority: Located<i32>,
}

/// Whose traffic a chain is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Scope {
    /// All sites of this tenant.
    Tenant(Located<TenantName>),
    Sites(Vec<Located<SiteName>>),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Traffic {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Located<Protocol>>,
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "numbers_where_possible")]
    pub ports: Vec<Located<PortRange>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Located<Prefix>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Located<Prefix>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dscp: Option<Located<Dscp>>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn is_one(weight: &NonZeroU8) -> bool {
    *weight == NonZeroU8::MIN
}

/// `insertion`, and `nsh` where it says more.
fn insertion<S: Serializer>(insertion: &Insertion, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Nsh {
        md_type: u8,
    }
    let mut fields = serializer.serialize_map(None)?;
    let word = match insertion {
        Insertion::L3 => "l3",
        Insertion::L2 => "l2",
        Insertion::Tap => "tap",
        Insertion::Vlan => "vlan",
        Insertion::Nsh(_) => "nsh",
    };
    fields.serialize_entry("insertion", word)?;
    if *insertion == Insertion::Nsh(NshMetadata::Variable) {
        fields.serialize_entry("nsh", &Nsh { md_type: 2 })?;
    }
    fields.end()
}

fn is_usual_mtu(mtu: &Located<u16>) -> bool {
    **mtu == Link::USUAL_MTU
}

/// `80` rather than `"80"`.
fn numbers_where_possible<S: Serializer>(
    ports: &[Located<PortRange>],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Written {
        Number(u16),
        Range(PortRange),
    }
    serializer.collect_seq(ports.iter().map(|ports| match ports.first() == ports.last() {
        true => Written::Number(ports.first()),
        false => Written::Range(ports.value),
    }))
}
