//! The kernel's part of a next hop: a line of `ip rule` that leads its mark to a routing table with one default route,
//! and guards behind all of them: one for what has a hop, and, where somebody must have looked at all that comes in by a
//! port, one for what has no mark.
//!
//! ```text
//! # ip rule
//! 10000:  from all fwmark 0x2010000/0x3ff0000 lookup 10001 proto 202
//! 10256:  from all fwmark 0x2000000/0x2000000 unreachable proto 202
//! 10257:  from all fwmark 0/0x3ff0000 iif qg-ext unreachable proto 202
//! # ip route show table 10001
//! default via 10.21.0.5 dev qr-abc proto 202
//! unreachable default proto 202 metric 4278198272
//! ```

use std::collections::BTreeSet;
use std::net::IpAddr;

use catena_model::address::Family;
use catena_model::name::PortName;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;

use crate::DriverError;
use crate::hops::{FIELD, GUARD, HopId, NextHop, Numbers, Place};
use crate::netlink::{Connection, NetlinkError};

/// The metric of the unreachable route: worse than any that a routing daemon gives, and what people know for this
/// purpose from VRFs (Documentation/networking/vrf.rst in Linux).
const LAST_METRIC: u32 = 4_278_198_272;
/// The kernel's word for "not set" in the two suppressors of a rule, which it always tells.
const UNSUPPRESSED: u32 = u32::MAX;
/// What it tells as the table of a rule that looks none up.
const NO_TABLE: u32 = 0;

/// What one call of a driver asks of the kernel.
pub struct Kernel<'a> {
    place: &'a Place,
    numbers: Numbers,
    connection: &'a mut Connection,
    /// Whether the connection can be used no more.
    pub lost: bool,
}

/// Our rules of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    lookups: BTreeSet<HopId>,
    guard: bool,
    /// Ports at which what was not looked at is dropped.
    unseen: BTreeSet<PortName>,
    /// With our marks, but nothing that we make: left by another engine, or changed by hand.
    odd: Vec<RuleMessage>,
}

/// What is in the routing table of one hop.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Routes {
    closed: Option<RouteMessage>,
    /// Of our making.
    others: Vec<RouteMessage>,
    foreign: bool,
}

/// A line of `ip rule`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Lookup(HopId),
    Guard,
    Unseen(PortName),
}

/// The guards that an element is to keep.
#[derive(Clone, Copy, Debug)]
pub struct Guards<'a> {
    /// Whether any packet can have a hop.
    pub hops: bool,
    /// Where what was not looked at is dropped.
    pub unseen: &'a BTreeSet<PortName>,
}

impl Rules {
    pub fn lookups(&self) -> impl Iterator<Item = HopId> {
        self.lookups.iter().copied()
    }

    /// The ports at which what was not looked at is dropped.
    pub fn unseen(&self) -> &BTreeSet<PortName> {
        &self.unseen
    }

    /// Whether there is anything of ours.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl<'a> Kernel<'a> {
    pub fn new(place: &'a Place, numbers: Numbers, connection: &'a mut Connection) -> Self {
        Self { place, numbers, connection, lost: false }
    }

    pub fn rules(&mut self, family: Family) -> Result<Rules, DriverError> {
        let mut request = RuleMessage::default();
        request.header.family = address_family(family);
        let found = self.connection.dump(&RouteNetlinkMessage::GetRule(request));
        let mut rules = Rules::default();
        for message in self.explained(found, "ip rule show")? {
            let RouteNetlinkMessage::NewRule(message) = message else { continue };
            if !self.is_ours(&message) {
                continue;
            }
            let message = as_request(message);
            let part =
                self.part_of(&message).filter(|part| as_set(&message) == as_set(&self.rule(family, part)));
            match part {
                Some(Part::Lookup(hop)) if rules.lookups.insert(hop) => {}
                Some(Part::Guard) if !rules.guard => rules.guard = true,
                Some(Part::Unseen(port)) if rules.unseen.insert(port.clone()) => {}
                _ => rules.odd.push(message),
            }
        }
        Ok(rules)
    }

    /// Whether packets with this hop get there, and nowhere else.
    pub fn is_whole(&mut self, hop: HopId, next: &NextHop, rules: &Rules) -> Result<bool, DriverError> {
        if !rules.guard || !rules.lookups.contains(&hop) {
            return Ok(false);
        }
        let Some(port) = self.port(&next.port)? else { return Ok(false) };
        let Routes { closed, others, foreign } = self.routes(hop, next.family)?;
        let whole = matches!(&others[..], [only] if leads_to(only, port, next.via));
        Ok(closed.is_some() && whole && !foreign)
    }

    /// Whether a hop of this number would have its routing table for itself.
    pub fn is_free(&mut self, hop: HopId, family: Family) -> Result<bool, DriverError> {
        Ok(!self.routes(hop, family)?.foreign)
    }

    /// Makes what the kernel must have for a hop, as far as it is not there. Whatever is missing meanwhile, packets that
    /// have the hop already are dropped.
    pub fn make(&mut self, hop: HopId, next: &NextHop, rules: &mut Rules) -> Result<(), DriverError> {
        let port = self.port(&next.port)?.ok_or_else(|| DriverError::NoPort(next.port.clone()))?;
        let Routes { closed, others, .. } = self.routes(hop, next.family)?;
        if closed.is_none() {
            self.add_route(self.unreachable(hop, next.family), "unreachable default")?;
        }
        if !matches!(&others[..], [only] if leads_to(only, port, next.via)) {
            others.into_iter().try_for_each(|route| self.delete_route(route))?;
            self.add_route(self.default(hop, next, port), &format!("default {next}"))?;
        }
        for part in [Part::Guard, Part::Lookup(hop)] {
            self.add_rule(next.family, &part, rules)?;
        }
        Ok(())
    }

    /// From now on, what comes in by the port has to be looked at: marked with a hop, or as [`PASSED`](crate::hops::PASSED).
    pub fn close(&mut self, port: &PortName, family: Family, rules: &mut Rules) -> Result<(), DriverError> {
        self.add_rule(family, &Part::Unseen(port.clone()), rules)
    }

    /// Takes away what the kernel has for a hop.
    pub fn remove(&mut self, hop: HopId, family: Family, rules: &mut Rules) -> Result<(), DriverError> {
        if rules.lookups.remove(&hop) {
            self.delete_rule(self.rule(family, &Part::Lookup(hop)))?;
        }
        let Routes { closed, others, .. } = self.routes(hop, family)?;
        others.into_iter().chain(closed).try_for_each(|route| self.delete_route(route))
    }

    /// Takes away rules with our marks that ours cannot be, and guards that are not kept.
    pub fn sweep(&mut self, family: Family, mut rules: Rules, keep: Guards<'_>) -> Result<(), DriverError> {
        if rules.guard && !keep.hops {
            rules.odd.push(self.rule(family, &Part::Guard));
        }
        for port in rules.unseen.difference(keep.unseen) {
            rules.odd.push(self.rule(family, &Part::Unseen(port.clone())));
        }
        rules.odd.into_iter().try_for_each(|rule| self.delete_rule(rule))
    }

    pub fn expect_port(&mut self, port: &PortName) -> Result<(), DriverError> {
        self.port(port)?.map(|_| ()).ok_or_else(|| DriverError::NoPort(port.clone()))
    }

    /// The hops whose tables have routes of ours.
    pub fn hops(&mut self, family: Family) -> Result<BTreeSet<HopId>, DriverError> {
        let request = RouteNetlinkMessage::GetRoute(filter(family, None, self.numbers.protocol));
        let found = self.connection.dump(&request);
        let routes = self.explained(found, "ip route show table all")?;
        let hop = |message: &RouteNetlinkMessage| match message {
            RouteNetlinkMessage::NewRoute(route) if route.header.protocol == self.numbers.protocol => {
                self.numbers.hop(table_of(route))
            }
            _ => None,
        };
        Ok(routes.iter().filter_map(hop).collect())
    }

    fn routes(&mut self, hop: HopId, family: Family) -> Result<Routes, DriverError> {
        let number = self.numbers.table(hop);
        let request = RouteNetlinkMessage::GetRoute(filter(family, Some(number), RouteProtocol::Unspec));
        // A table that never had a route does not exist (ENOENT).
        let found = match self.connection.dump(&request) {
            Err(error) if error.errno() == Some(Errno::ENOENT) => Vec::new(),
            other => self.explained(other, &format!("ip route show table {number}"))?,
        };
        let mut routes = Routes::default();
        for message in found {
            let RouteNetlinkMessage::NewRoute(route) = message else { continue };
            if table_of(&route) != number {
                continue;
            }
            if route.header.protocol != self.numbers.protocol {
                routes.foreign = true;
            } else if is_unreachable(&route) && routes.closed.is_none() {
                routes.closed = Some(route);
            } else {
                routes.others.push(route);
            }
        }
        Ok(routes)
    }

    /// The index of a port, if it is there.
    fn port(&mut self, port: &PortName) -> Result<Option<u32>, DriverError> {
        let mut request = LinkMessage::default();
        request.attributes.push(LinkAttribute::IfName(port.to_string()));
        match self.connection.get(RouteNetlinkMessage::GetLink(request)) {
            Err(error) if error.errno() == Some(Errno::ENODEV) => Ok(None),
            other => match self.explained(other, &format!("ip link show dev {port}"))? {
                Some(RouteNetlinkMessage::NewLink(link)) => Ok(Some(link.header.index)),
                _ => Ok(None),
            },
        }
    }

    fn add_rule(&mut self, family: Family, part: &Part, rules: &mut Rules) -> Result<(), DriverError> {
        let new = match part {
            Part::Lookup(hop) => rules.lookups.insert(*hop),
            Part::Guard => !std::mem::replace(&mut rules.guard, true),
            Part::Unseen(port) => rules.unseen.insert(port.clone()),
        };
        if !new {
            return Ok(());
        }
        let request = RouteNetlinkMessage::NewRule(self.rule(family, part));
        let done = self.connection.change(request, NLM_F_CREATE | NLM_F_EXCL);
        let doing = match part {
            Part::Lookup(hop) => format!(
                "ip rule add pref {} fwmark {:#x}/{FIELD:#x} lookup {}",
                self.numbers.lookup_priority(),
                hop.mark(),
                self.numbers.table(*hop),
            ),
            Part::Guard => {
                format!(
                    "ip rule add pref {} fwmark {GUARD:#x}/{GUARD:#x} unreachable",
                    self.numbers.guard_priority()
                )
            }
            Part::Unseen(port) => format!(
                "ip rule add pref {} iif {port} fwmark 0/{FIELD:#x} unreachable",
                self.numbers.unseen_priority()
            ),
        };
        self.explained(unless(done, Errno::EEXIST), &doing)
    }

    /// A rule that is not there (ENOENT) was deleted by someone else.
    fn delete_rule(&mut self, rule: RuleMessage) -> Result<(), DriverError> {
        let done = self.connection.change(RouteNetlinkMessage::DelRule(rule), 0);
        self.explained(unless(done, Errno::ENOENT), "ip rule del")
    }

    fn add_route(&mut self, route: RouteMessage, what: &str) -> Result<(), DriverError> {
        let doing = format!("ip route add {what} table {}", table_of(&route));
        let done = self.connection.change(RouteNetlinkMessage::NewRoute(route), NLM_F_CREATE | NLM_F_EXCL);
        self.explained(unless(done, Errno::EEXIST), &doing)
    }

    /// A route that is not there (ESRCH) was deleted by someone else, or went with its port.
    fn delete_route(&mut self, route: RouteMessage) -> Result<(), DriverError> {
        let doing = format!("ip route del table {}", table_of(&route));
        let done = self.connection.change(RouteNetlinkMessage::DelRoute(deletion(route)), 0);
        self.explained(unless(done, Errno::ESRCH), &doing)
    }

    fn is_ours(&self, rule: &RuleMessage) -> bool {
        rule.attributes.contains(&RuleAttribute::Protocol(self.numbers.protocol))
            && self.numbers.is_our_priority(priority(rule))
    }

    /// What a rule of ours must be, if it is one that we make.
    fn part_of(&self, rule: &RuleMessage) -> Option<Part> {
        rule.attributes.iter().find_map(|attribute| match attribute {
            RuleAttribute::Iifname(port) => PortName::new(port).ok().map(Part::Unseen),
            RuleAttribute::FwMark(GUARD) => Some(Part::Guard),
            RuleAttribute::FwMark(mark) => HopId::of_mark(*mark).map(Part::Lookup),
            _ => None,
        })
    }

    /// The request that makes a rule.
    fn rule(&self, family: Family, part: &Part) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header.family = address_family(family);
        let (priority, mark, mask) = match part {
            Part::Lookup(hop) => (self.numbers.lookup_priority(), Some(hop.mark()), FIELD),
            Part::Guard => (self.numbers.guard_priority(), Some(GUARD), GUARD),
            // The kernel takes a mark of 0 as none given, and tells none; a mask it keeps (`fib_nl2rule` in
            // net/core/fib_rules.c).
            Part::Unseen(_) => (self.numbers.unseen_priority(), None, FIELD),
        };
        message.attributes = vec![
            RuleAttribute::Priority(priority),
            RuleAttribute::Protocol(self.numbers.protocol),
            RuleAttribute::FwMask(mask),
        ];
        message.attributes.extend(mark.map(RuleAttribute::FwMark));
        message.header.action = RuleAction::Unreachable;
        match part {
            Part::Lookup(hop) => {
                message.header.action = RuleAction::ToTable;
                message.attributes.push(RuleAttribute::Table(self.numbers.table(*hop)));
            }
            Part::Guard => {}
            Part::Unseen(port) => message.attributes.push(RuleAttribute::Iifname(port.to_string())),
        }
        message
    }

    fn unreachable(&self, hop: HopId, family: Family) -> RouteMessage {
        let mut message = self.route(hop, family);
        message.header.kind = RouteType::Unreachable;
        message.attributes.push(RouteAttribute::Priority(LAST_METRIC));
        message
    }

    fn default(&self, hop: HopId, next: &NextHop, port: u32) -> RouteMessage {
        let mut message = self.route(hop, next.family);
        message.header.kind = RouteType::Unicast;
        message.attributes.push(RouteAttribute::Oif(port));
        match next.via {
            Some(address) => message.attributes.push(RouteAttribute::Gateway(address.into())),
            // "scope link" in the words of `ip route`; IPv6 knows no scopes, and ignores it.
            None => message.header.scope = RouteScope::Link,
        }
        message
    }

    fn route(&self, hop: HopId, family: Family) -> RouteMessage {
        filter(family, Some(self.numbers.table(hop)), self.numbers.protocol)
    }

    fn explained<T>(&mut self, outcome: Result<T, NetlinkError>, doing: &str) -> Result<T, DriverError> {
        outcome.map_err(|error| {
            self.lost |= matches!(error, NetlinkError::Broken(_));
            DriverError::failed(format!("{}: {doing}", self.place), error)
        })
    }
}

/// The number of the table that a route is in.
pub fn table_of(route: &RouteMessage) -> u32 {
    let told = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(number) => Some(*number),
        _ => None,
    });
    told.unwrap_or(route.header.table.into())
}

/// The kernel does not mention a priority of 0.
pub fn priority(rule: &RuleMessage) -> u32 {
    let told = rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Priority(priority) => Some(*priority),
        _ => None,
    });
    told.unwrap_or(0)
}

/// What the kernel told of a rule as what we would have asked for to get it.
fn as_request(mut message: RuleMessage) -> RuleMessage {
    // It tells the table in an attribute; a second one in the header has room for 255 only.
    message.header.table = 0;
    message.header.flags &= RuleFlags::Invert;
    message.attributes.retain(|attribute| {
        !matches!(
            attribute,
            RuleAttribute::SuppressPrefixLen(UNSUPPRESSED)
                | RuleAttribute::SuppressIfGroup(UNSUPPRESSED)
                | RuleAttribute::Table(NO_TABLE)
        )
    });
    message
}

/// Attributes come in any order.
fn as_set(message: &RuleMessage) -> (String, BTreeSet<String>) {
    let attributes = message.attributes.iter().map(|attribute| format!("{attribute:?}"));
    (format!("{:?}", message.header), attributes.collect())
}

fn is_unreachable(route: &RouteMessage) -> bool {
    route.header.kind == RouteType::Unreachable
        && is_plain_default(route)
        && route.attributes.contains(&RouteAttribute::Priority(LAST_METRIC))
}

fn leads_to(route: &RouteMessage, port: u32, via: Option<IpAddr>) -> bool {
    let gateway = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::Gateway(RouteAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    });
    route.header.kind == RouteType::Unicast
        && is_plain_default(route)
        && route.attributes.contains(&RouteAttribute::Oif(port))
        && gateway == via
}

fn is_plain_default(route: &RouteMessage) -> bool {
    let header = &route.header;
    header.destination_prefix_length == 0 && header.source_prefix_length == 0 && header.tos == 0
}

/// The request that deletes a route that the kernel told of.
fn deletion(mut route: RouteMessage) -> RouteMessage {
    route.header.flags = Default::default();
    route.attributes.retain(|attribute| {
        !matches!(attribute, RouteAttribute::CacheInfo(_) | RouteAttribute::Preference(_))
    });
    route
}

fn filter(family: Family, table: Option<u32>, protocol: RouteProtocol) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = address_family(family);
    message.header.protocol = protocol;
    message.attributes.extend(table.map(RouteAttribute::Table));
    message
}

fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

/// `errno` says that what was asked for is so already.
fn unless(outcome: Result<(), NetlinkError>, errno: Errno) -> Result<(), NetlinkError> {
    match outcome {
        Err(error) if error.errno() == Some(errno) => Ok(()),
        other => other,
    }
}
