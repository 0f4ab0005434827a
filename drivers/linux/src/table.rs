//! A [`Table`](catena_model::forwarding::Table) as the kernel keeps it: a default route and, behind it, an unreachable one that catches what would
//! otherwise fall through to the next rule.

use std::net::IpAddr;

use catena_model::address::Family;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};

use crate::numbers::Numbers;
use crate::rule::address_family;

/// The metric of the unreachable route: worse than any that a routing daemon gives, and what people know for this
/// purpose from VRFs (Documentation/networking/vrf.rst in Linux). The kernel's own limit in IPv6 is higher.
pub(crate) const LAST_METRIC: u32 = 4_278_198_272;
/// The kernel's default metric in IPv6 (`IP6_RT_PRIO_USER`); in IPv4 it is 0, and not mentioned.
const METRIC_V6: u32 = 1024;

/// A table of ours that is not whole is read as one that leads to this port, where all packets end. It is no table that
/// anybody wants, so it is put again or deleted. Put as such, it is closed: the unreachable route alone.
pub(crate) const NOWHERE: &str = "lo";

/// Where a default route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    /// The port's interface index.
    pub(crate) port: u32,
    pub(crate) via: Option<IpAddr>,
}

/// What is in one routing table of one family.
#[derive(Clone, Debug, Default)]
pub(crate) struct Routes {
    pub(crate) unreachable: Option<RouteMessage>,
    /// In a whole table, one.
    pub(crate) defaults: Vec<(Way, RouteMessage)>,
    /// Routes with our mark that we would not have made. In a whole table, none.
    pub(crate) odd: Vec<RouteMessage>,
    /// Routes of others. They would take packets away from our default route.
    pub(crate) foreign: Vec<RouteMessage>,
}

impl Routes {
    pub(crate) fn add(&mut self, route: RouteMessage, numbers: &Numbers) {
        if route.header.protocol != numbers.protocol {
            self.foreign.push(route);
        } else if is_unreachable(&route) && self.unreachable.is_none() {
            self.unreachable = Some(route);
        } else if let Some(way) = default_way(&route) {
            self.defaults.push((way, route));
        } else {
            self.odd.push(route);
        }
    }

    pub(crate) fn any_of_ours(&self) -> bool {
        self.unreachable.is_some() || !self.defaults.is_empty() || !self.odd.is_empty()
    }

    /// Where all packets that are looked up here go, if there is one answer.
    pub(crate) fn way(&self) -> Option<Way> {
        match &self.defaults[..] {
            [(way, _)] if self.unreachable.is_some() && self.odd.is_empty() && self.foreign.is_empty() => {
                Some(*way)
            }
            _ => None,
        }
    }
}

/// The number of the table that a route is in.
pub(crate) fn table_of(route: &RouteMessage) -> u32 {
    let told = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(number) => Some(*number),
        _ => None,
    });
    told.unwrap_or(route.header.table.into())
}

pub(crate) fn metric_of(route: &RouteMessage) -> u32 {
    let told = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Priority(metric) => Some(*metric),
        _ => None,
    });
    told.unwrap_or(0)
}

pub(crate) fn address_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

/// What to ask a dump for: the routes of `family`, in one table or with one protocol number.
pub(crate) fn filter(family: Family, table: Option<u32>, protocol: RouteProtocol) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = address_family(family);
    message.header.protocol = protocol;
    message.attributes.extend(table.map(RouteAttribute::Table));
    message
}

/// The request that makes the unreachable route.
pub(crate) fn unreachable(family: Family, table: u32, numbers: &Numbers) -> RouteMessage {
    let mut message = empty(family, table, numbers);
    message.header.kind = RouteType::Unreachable;
    message.attributes.push(RouteAttribute::Priority(LAST_METRIC));
    message
}

/// The request that makes the default route.
pub(crate) fn default(family: Family, table: u32, way: Way, numbers: &Numbers) -> RouteMessage {
    let mut message = empty(family, table, numbers);
    message.header.kind = RouteType::Unicast;
    message.attributes.push(RouteAttribute::Oif(way.port));
    match way.via {
        Some(address) => message.attributes.push(RouteAttribute::Gateway(address.into())),
        // "scope link" in the words of `ip route`; IPv6 knows no scopes, and ignores it.
        None => message.header.scope = RouteScope::Link,
    }
    message
}

/// The request that deletes a route that the kernel told of.
pub(crate) fn deletion(mut route: RouteMessage) -> RouteMessage {
    route.header.flags = Default::default();
    route.attributes.retain(|attribute| {
        !matches!(attribute, RouteAttribute::CacheInfo(_) | RouteAttribute::Preference(_))
    });
    route
}

fn empty(family: Family, table: u32, numbers: &Numbers) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = address_family(family);
    message.header.protocol = numbers.protocol;
    message.attributes.push(RouteAttribute::Table(table));
    message
}

fn is_unreachable(route: &RouteMessage) -> bool {
    route.header.kind == RouteType::Unreachable
        && is_plain_default(&route.header)
        && metric_of(route) == LAST_METRIC
}

fn default_way(route: &RouteMessage) -> Option<Way> {
    let usual_metric = match route.header.address_family {
        netlink_packet_route::AddressFamily::Inet6 => METRIC_V6,
        _ => 0,
    };
    if route.header.kind != RouteType::Unicast
        || !is_plain_default(&route.header)
        || metric_of(route) != usual_metric
    {
        return None;
    }
    let (mut port, mut via) = (None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => port = Some(*index),
            RouteAttribute::Gateway(address) => via = Some(address_of(address)?),
            RouteAttribute::Table(_)
            | RouteAttribute::Priority(_)
            | RouteAttribute::CacheInfo(_)
            | RouteAttribute::Preference(_) => {}
            _ => return None,
        }
    }
    Some(Way { port: port?, via })
}

fn is_plain_default(header: &RouteHeader) -> bool {
    header.destination_prefix_length == 0 && header.source_prefix_length == 0 && header.tos == 0
}
