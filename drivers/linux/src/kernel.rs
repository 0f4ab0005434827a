//! What one call of the driver asks of the kernel, with errors in the words of the person who reads them.

use std::collections::{BTreeMap, BTreeSet};

use catena_driver::DriverError;
use catena_driver::netlink::{Connection, NetlinkError};
use catena_model::address::Family;
use catena_model::name::PortName;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{RouteMessage, RouteProtocol};
use netlink_packet_route::rule::RuleMessage;
use nix::errno::Errno;

use crate::error::{Context, explain};
use crate::numbers::Numbers;
use crate::rule::{OurRule, address_family};
use crate::rules::OurRules;
use crate::table::{Routes, filter, table_of};
use crate::words::Place;

pub(crate) struct Kernel<'a> {
    pub(crate) place: &'a Place,
    pub(crate) numbers: Numbers,
    connection: &'a mut Connection,
    names: BTreeMap<u32, Option<PortName>>,
    /// Whether the connection can be used no more.
    pub(crate) lost: bool,
}

impl<'a> Kernel<'a> {
    pub(crate) fn new(place: &'a Place, numbers: Numbers, connection: &'a mut Connection) -> Self {
        Self { place, numbers, connection, names: BTreeMap::new(), lost: false }
    }

    pub(crate) fn rules(&mut self, family: Family) -> Result<Vec<RuleMessage>, DriverError> {
        let mut request = RuleMessage::default();
        request.header.family = address_family(family);
        let rules = self.dump(RouteNetlinkMessage::GetRule(request), "ip rule show")?;
        Ok(rules
            .into_iter()
            .filter_map(|message| match message {
                RouteNetlinkMessage::NewRule(rule) => Some(rule),
                _ => None,
            })
            .collect())
    }

    /// The rules with our marks, of both families.
    pub(crate) fn our_rules(&mut self) -> Result<OurRules, DriverError> {
        let mut ours = OurRules::default();
        for family in Family::BOTH {
            let rules = self.rules(family)?;
            rules
                .into_iter()
                .filter_map(|rule| OurRule::read(rule, &self.numbers))
                .for_each(|rule| ours.push(rule));
        }
        Ok(ours)
    }

    pub(crate) fn add_rule(&mut self, rule: RuleMessage, doing: &str) -> Result<(), DriverError> {
        // Not NLM_F_EXCL: what is there is known, and removal() means to have a rule twice for a moment.
        let done = self.connection.change(RouteNetlinkMessage::NewRule(rule), NLM_F_CREATE);
        self.explained(done, doing)
    }

    /// A rule that is not there (ENOENT) was deleted by someone else.
    pub(crate) fn delete_rule(&mut self, rule: RuleMessage, doing: &str) -> Result<(), DriverError> {
        let done = self.connection.change(RouteNetlinkMessage::DelRule(rule), 0);
        self.explained(unless(done, Errno::ENOENT), doing)
    }

    /// All routes of a family, or those with one protocol number.
    pub(crate) fn routes(
        &mut self,
        family: Family,
        protocol: RouteProtocol,
    ) -> Result<Vec<RouteMessage>, DriverError> {
        let request = RouteNetlinkMessage::GetRoute(filter(family, None, protocol));
        let routes = self.dump(request, "ip route show table all")?;
        Ok(routes.into_iter().filter_map(route).collect())
    }

    /// The routes of one table.
    pub(crate) fn table(&mut self, family: Family, number: u32) -> Result<Routes, DriverError> {
        let request = RouteNetlinkMessage::GetRoute(filter(family, Some(number), RouteProtocol::Unspec));
        // A table that never had a route does not exist (ENOENT).
        let messages = match self.connection.dump(&request) {
            Err(error) if error.errno() == Some(Errno::ENOENT) => Vec::new(),
            other => self.explained(other, &format!("ip route show table {number}"))?,
        };
        let mut routes = Routes::default();
        for route in messages.into_iter().filter_map(route).filter(|route| table_of(route) == number) {
            routes.add(route, &self.numbers);
        }
        Ok(routes)
    }

    /// Makes a route that is not there yet.
    pub(crate) fn add_route(&mut self, route: RouteMessage, doing: &str) -> Result<(), DriverError> {
        let done = self.connection.change(RouteNetlinkMessage::NewRoute(route), NLM_F_CREATE | NLM_F_EXCL);
        self.explained(unless(done, Errno::EEXIST), doing)
    }

    /// Makes a route, in one step with the end of the one with its destination and metric.
    pub(crate) fn replace_route(&mut self, route: RouteMessage, doing: &str) -> Result<(), DriverError> {
        let done = self.connection.change(RouteNetlinkMessage::NewRoute(route), NLM_F_CREATE | NLM_F_REPLACE);
        self.explained(done, doing)
    }

    /// A route that is not there (ESRCH) was deleted by someone else, or went with its port.
    pub(crate) fn delete_route(&mut self, route: RouteMessage, doing: &str) -> Result<(), DriverError> {
        let done = self.connection.change(RouteNetlinkMessage::DelRoute(route), 0);
        self.explained(unless(done, Errno::ESRCH), doing)
    }

    pub(crate) fn addresses(&mut self) -> Result<Vec<AddressMessage>, DriverError> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let addresses = self.dump(request, "ip address show")?;
        Ok(addresses
            .into_iter()
            .filter_map(|message| match message {
                RouteNetlinkMessage::NewAddress(address) => Some(address),
                _ => None,
            })
            .collect())
    }

    pub(crate) fn ports(&mut self) -> Result<Ports, DriverError> {
        let links = self.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()), "ip link show")?;
        let mut ports = Ports::default();
        for message in links {
            let RouteNetlinkMessage::NewLink(link) = message else { continue };
            let Some(name) = name_of(&link) else { continue };
            if !is_up(&link) {
                ports.down.insert(name);
            } else if !link
                .attributes
                .iter()
                .any(|attribute| matches!(attribute, LinkAttribute::Controller(_)))
            {
                ports.routed.insert(name);
            }
        }
        Ok(ports)
    }

    /// The interface index of a port; an error if it does not exist.
    pub(crate) fn port_index(&mut self, port: &PortName) -> Result<u32, DriverError> {
        let mut request = LinkMessage::default();
        request.attributes.push(LinkAttribute::IfName(port.to_string()));
        let link = self.link(request, &format!("ip link show dev {port}"))?;
        link.map(|link| link.header.index).ok_or_else(|| DriverError::NoPort(port.clone()))
    }

    /// The port of an interface index; `None` if it is gone.
    pub(crate) fn port_name(&mut self, index: u32) -> Result<Option<PortName>, DriverError> {
        if let Some(name) = self.names.get(&index) {
            return Ok(name.clone());
        }
        let mut request = LinkMessage::default();
        request.header.index = index;
        let name = self.link(request, "ip link show")?.and_then(|link| name_of(&link));
        self.names.insert(index, name.clone());
        Ok(name)
    }

    fn link(&mut self, request: LinkMessage, doing: &str) -> Result<Option<LinkMessage>, DriverError> {
        let found = match self.connection.get(RouteNetlinkMessage::GetLink(request)) {
            Err(error) if error.errno() == Some(Errno::ENODEV) => None,
            other => self.explained(other, doing)?,
        };
        Ok(found.and_then(|message| match message {
            RouteNetlinkMessage::NewLink(link) => Some(link),
            _ => None,
        }))
    }

    fn dump(
        &mut self,
        request: RouteNetlinkMessage,
        doing: &str,
    ) -> Result<Vec<RouteNetlinkMessage>, DriverError> {
        let found = self.connection.dump(&request);
        self.explained(found, doing)
    }

    fn explained<T>(&mut self, outcome: Result<T, NetlinkError>, doing: &str) -> Result<T, DriverError> {
        outcome.map_err(|error| {
            self.lost |= matches!(error, NetlinkError::Broken(_));
            explain(Context { place: self.place, doing }, error)
        })
    }
}

pub(crate) fn name_of(link: &LinkMessage) -> Option<PortName> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => PortName::new(name).ok(),
        _ => None,
    })
}

/// Whether packets leave and come by a port: it is set up and has a carrier. That alone decides whether the kernel gives it a
/// queue that sends (`linkwatch_do_dev` in net/core/link_watch.c); an operational state of `unknown` or `dormant` (RFC 2863)
/// stops nothing.
/// The ports of an element.
#[derive(Default)]
pub(crate) struct Ports {
    /// By these packets neither leave nor come.
    pub(crate) down: BTreeSet<PortName>,
    /// What comes in by these is routed as come in by them: not by a bridge, say, that they belong to.
    pub(crate) routed: BTreeSet<PortName>,
}

pub(crate) fn is_up(link: &LinkMessage) -> bool {
    link.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp)
}

fn route(message: RouteNetlinkMessage) -> Option<RouteMessage> {
    match message {
        RouteNetlinkMessage::NewRoute(route) => Some(route),
        _ => None,
    }
}

/// `errno` says that what was asked for is so already.
fn unless(outcome: Result<(), NetlinkError>, errno: Errno) -> Result<(), NetlinkError> {
    match outcome {
        Err(error) if error.errno() == Some(errno) => Ok(()),
        other => other,
    }
}
