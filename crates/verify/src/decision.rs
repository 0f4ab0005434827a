//! What is decided about a packet, and how its way ends.

use std::fmt;
use std::net::IpAddr;

use catena_model::address::Prefix;
use catena_model::forwarding::{Direction, FlowMatch, PathId, Rule};
use catena_model::name::{ChainName, NodeName, PortName, SiteName};
use serde::{Deserialize, Serialize};

/// One decision of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Decision {
    /// A policy claims the packet for a chain of this site.
    Claimed { site: Option<SiteName>, by: FlowMatch },
    /// One of our rules.
    Routed { rule: Rule, port: PortName, via: Option<IpAddr> },
    /// The node's own routing.
    Base { priority: u32, table: u32, route: Prefix, port: PortName, via: Option<IpAddr> },
    /// Put into a site's tunnel.
    Encapsulated { site: Option<SiteName>, local: IpAddr, remote: IpAddr, key: Option<u32> },
    /// A policy sends the packet through a path.
    Steered {
        site: Option<SiteName>,
        chain: Option<ChainName>,
        path: PathId,
        by: FlowMatch,
        direction: Direction,
    },
    /// Passes an instance of a service function; positions count from 0 on the way up.
    Function { position: u8, instance: String },
    /// Given to an instance that cannot give it back: that port is down.
    Kept { position: u8, instance: String },
    /// An instance gets a copy; the packet itself does not wait for it.
    Copied { position: u8, instance: String },
    /// Passes a function by, none of whose instances is up.
    Skipped { position: u8 },
    /// Leaves the functions.
    Exit { port: PortName, via: Option<IpAddr> },
    /// Of a steered site, but no chain claims it: passes without functions.
    Transit { site: Option<SiteName>, port: PortName, via: Option<IpAddr> },
}

/// How a packet's way ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "end")]
pub enum End {
    /// At a node that has the destination address.
    Delivered {
        node: NodeName,
    },
    /// Out by an external port, towards an address that no node of the inventory has.
    Internet {
        node: NodeName,
        port: PortName,
    },
    /// Out by a port of a node, onto a link where the inventory knows nobody with the destination address.
    Link {
        node: NodeName,
        port: PortName,
    },
    /// Into the tunnel of a site, whose other end is not driven.
    Site {
        node: NodeName,
        site: Option<SiteName>,
    },
    Dropped {
        node: NodeName,
        why: String,
    },
    /// The packet comes where it has been before, in the same way.
    Loop {
        node: NodeName,
    },
    /// Something decides here that is not understood.
    Undecided {
        node: NodeName,
        why: String,
    },
    /// Nothing says where a packet with this source begins.
    NoStart {
        why: String,
    },
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let via = |via: &Option<IpAddr>| via.map(|via| format!(" via {via}")).unwrap_or_default();
        let of =
            |site: &Option<SiteName>| site.as_ref().map(|site| format!(" of {site}")).unwrap_or_default();
        match self {
            Decision::Claimed { site, by } => write!(f, "claimed{}: {}", of(site), by),
            Decision::Routed { rule, port, via: hop } => {
                write!(f, "rule {}: {} → path {}: {port}{}", rule.order, rule.selector, rule.table, via(hop))
            }
            Decision::Base { priority, table, route, port, via: hop } => {
                write!(f, "base rule {priority}, table {}: {route} → {port}{}", TableName(*table), via(hop))
            }
            Decision::Encapsulated { site, local, remote, key } => {
                write!(f, "into the GRE tunnel{}: {local} → {remote}", of(site))?;
                key.map_or(Ok(()), |key| write!(f, " key {key}"))
            }
            Decision::Steered { site, chain, path, by, direction } => {
                let chain = chain.as_ref().map(|chain| format!("chain {chain}, ")).unwrap_or_default();
                write!(f, "steered {direction}{}: {} → {chain}path {path}", of(site), by)
            }
            Decision::Function { position, instance } => write!(f, "function {}: {instance}", position + 1),
            Decision::Kept { position, instance } => {
                write!(f, "function {}: {instance}, which cannot give it back", position + 1)
            }
            Decision::Copied { position, instance } => {
                write!(f, "function {}: a copy to {instance}", position + 1)
            }
            Decision::Skipped { position } => {
                write!(f, "function {}: left out, none of its instances is up", position + 1)
            }
            Decision::Exit { port, via: hop } => write!(f, "leaves the chain: {port}{}", via(hop)),
            Decision::Transit { site, port, via: hop } => {
                write!(f, "claimed by no chain{}: {port}{}", of(site), via(hop))
            }
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Delivered { node } => write!(f, "delivered at {node}"),
            End::Internet { node, port } => write!(f, "to the Internet by {port} of {node}"),
            End::Link { node, port } => {
                write!(f, "out by {port} of {node}, where the inventory knows nobody with this address")
            }
            End::Site { node, site: Some(site) } => write!(f, "into the tunnel to {site} at {node}"),
            End::Site { node, site: None } => write!(f, "into a tunnel at {node}"),
            End::Dropped { node, why } => write!(f, "dropped at {node}: {why}"),
            End::Loop { node } => write!(f, "loops at {node}"),
            End::Undecided { node, why } => write!(f, "undecided at {node}: {why}"),
            End::NoStart { why } => f.write_str(why),
        }
    }
}

/// A routing table as iproute2 names it.
struct TableName(u32);

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            253 => f.write_str("default"),
            254 => f.write_str("main"),
            255 => f.write_str("local"),
            other => other.fmt(f),
        }
    }
}
