//! Our objects in the words of iproute2, for logs and errors: what a network engineer would type.

use std::fmt;

use catena_model::address::Family;
use catena_model::forwarding::{Rule, Table};
use catena_model::name::NodeName;
use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};

use crate::numbers::{Numbers, Part};
use crate::rule::part;
use crate::table::{address_of, metric_of, table_of};

/// Where something happens.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) element: NodeName,
    pub(crate) netns: Option<String>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.netns {
            Some(netns) => write!(f, "element {} (netns {netns})", self.element),
            None => write!(f, "element {}", self.element),
        }
    }
}

impl Place {
    /// The beginning of an `ip` command that works here.
    pub(crate) fn ip(&self, family: Family) -> String {
        let netns = self.netns.as_ref().map(|netns| format!(" -n {netns}")).unwrap_or_default();
        format!("{}{netns}", ip(family))
    }

    /// A command to be run here.
    pub(crate) fn command(&self, command: &str) -> String {
        match &self.netns {
            Some(netns) => format!("ip netns exec {netns} {command}"),
            None => command.to_owned(),
        }
    }
}

/// The command for a family: IPv6 has to be said.
pub(crate) fn ip(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip -6",
    }
}

/// What `ip rule add` takes.
pub(crate) fn rule(rule: &Rule, numbers: &Numbers) -> String {
    let selector = &rule.selector;
    let priority = numbers.priority(part(rule), rule.order);
    let mut text = priority.map(|priority| format!("pref {priority}")).unwrap_or_default();
    if let Some(prefix) = selector.from {
        text += &format!(" from {prefix}");
    }
    if let Some(prefix) = selector.to {
        text += &format!(" to {prefix}");
    }
    if let Some(port) = &selector.in_port {
        text += &format!(" iif {port}");
    }
    if selector.unless_released {
        text += &format!(" fwmark 0/{:#x}", numbers.mark);
    }
    let action = match part(rule) {
        Part::Lookup => format!("lookup {}", u64::from(numbers.table_base) + u64::from(rule.table.0)),
        Part::Guard => "unreachable".to_owned(),
    };
    text + &format!(" {action} proto {}", u8::from(numbers.protocol))
}

/// What `ip route replace` takes.
pub(crate) fn default_route(table: &Table, numbers: &Numbers) -> String {
    let via = match table.via {
        Some(address) => format!(" via {address} dev {}", table.port),
        None => format!(" dev {} scope link", table.port),
    };
    format!("default{via} {}", in_table(table, numbers))
}

/// `table 10001 proto 202`.
pub(crate) fn in_table(table: &Table, numbers: &Numbers) -> String {
    let number = u64::from(numbers.table_base) + u64::from(table.path.0);
    format!("table {number} proto {}", u8::from(numbers.protocol))
}

/// A rule that the kernel told of, as far as it takes to find it, in the order of `ip rule`.
pub(crate) fn foreign_rule(rule: &RuleMessage) -> String {
    let mut parts = vec![(0, format!("pref {}", crate::rule::priority(rule)))];
    let drops = rule.header.action == RuleAction::Unreachable;
    parts.extend(drops.then(|| (4, "unreachable".to_owned())));
    parts.extend(rule.attributes.iter().filter_map(|attribute| match attribute {
        RuleAttribute::Source(address) => Some((1, format!("from {address}/{}", rule.header.src_len))),
        RuleAttribute::Destination(address) => Some((2, format!("to {address}/{}", rule.header.dst_len))),
        RuleAttribute::Iifname(port) => Some((3, format!("iif {port}"))),
        RuleAttribute::Table(number) if *number != 0 => Some((4, format!("lookup {number}"))),
        RuleAttribute::Protocol(protocol) => Some((5, format!("proto {}", u8::from(*protocol)))),
        _ => None,
    }));
    parts.sort();
    parts.into_iter().map(|(_, words)| words).collect::<Vec<_>>().join(" ")
}

/// A route that the kernel told of, as far as it takes to find it.
pub(crate) fn route(route: &RouteMessage) -> String {
    let destination = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(address) => address_of(address),
        _ => None,
    });
    let destination = match destination {
        Some(address) => format!("{address}/{}", route.header.destination_prefix_length),
        None => "default".to_owned(),
    };
    let metric = match metric_of(route) {
        0 => String::new(),
        metric => format!(" metric {metric}"),
    };
    format!("{destination} table {} proto {}{metric}", table_of(route), u8::from(route.header.protocol))
}
