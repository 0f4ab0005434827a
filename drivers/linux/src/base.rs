//! The routing of the element apart from ours: what its owner, the kernel and other programs set up.

use std::collections::BTreeMap;
use std::net::IpAddr;

use catena_driver::DriverError;
use catena_model::address::{Family, Prefix};
use catena_model::base::{BaseRoute, BaseRouteAction, BaseRouting, BaseRule, BaseRuleAction};
use catena_model::name::PortName;
use ipnet::IpNet;
use netlink_packet_core::Nla;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteNextHop, RouteNextHopFlags, RouteProtocol,
    RouteType, RouteVia,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};

use crate::kernel::{Kernel, Ports};
use crate::rule::{self, OurRule};
use crate::table::{address_of, metric_of, table_of};
use crate::words;

pub(crate) fn base(kernel: &mut Kernel<'_>) -> Result<BaseRouting, DriverError> {
    let our_priority = kernel.numbers.rule_priority;
    let Ports { down, routed } = kernel.ports()?;
    let mut base = BaseRouting { our_priority, down, ..BaseRouting::default() };
    for address in kernel.addresses()? {
        let Some(net) = net_of(&address) else { continue };
        if let Some(port) = kernel.port_name(address.header.index)? {
            base.addresses.push((port, net));
        }
    }
    for family in Family::BOTH {
        let undecidable = read_routes(kernel, family, &mut base.routes)?;
        for message in kernel.rules(family)? {
            if OurRule::read(message.clone(), &kernel.numbers).is_none() {
                base.rules.push(read_rule(&message, family, &undecidable));
                continue;
            }
            // Nothing comes in by a port that has another name now, or belongs to a bridge: it comes by that one.
            base.down.extend(in_port(&message).filter(|port| !routed.contains(port)));
        }
    }
    base.rules.sort_by_key(|rule| rule.priority);
    Ok(base)
}

/// Tables with routes that cannot be told in our words, and such a route in the words of `ip route`. Ours are among them:
/// what they do for a foreign rule is for no owner's table to say.
type Undecidable = BTreeMap<u32, String>;

fn read_routes(
    kernel: &mut Kernel<'_>,
    family: Family,
    routes: &mut Vec<BaseRoute>,
) -> Result<Undecidable, DriverError> {
    let mut undecidable = Undecidable::new();
    for route in kernel.routes(family, RouteProtocol::Unspec)? {
        let table = table_of(&route);
        let ours = route.header.protocol == kernel.numbers.protocol && kernel.numbers.path(table).is_some();
        if route.header.flags.contains(RouteFlags::Cloned) {
            continue;
        }
        let read = if ours { None } else { read_route(kernel, family, &route)? };
        match read {
            Some(read) => routes.extend(read),
            None => {
                undecidable.insert(table, words::route(&route));
            }
        }
    }
    Ok(undecidable)
}

/// One for each next hop; `None` if the route does what we have no words for.
fn read_route(
    kernel: &mut Kernel<'_>,
    family: Family,
    route: &RouteMessage,
) -> Result<Option<Vec<BaseRoute>>, DriverError> {
    let header = &route.header;
    let Some(prefix) =
        destination(route, family).filter(|_| header.tos == 0 && header.source_prefix_length == 0)
    else {
        return Ok(None);
    };
    let actions = match header.kind {
        RouteType::Unicast => forward(kernel, route)?,
        RouteType::Local | RouteType::Broadcast | RouteType::Anycast | RouteType::Multicast => {
            Some(vec![BaseRouteAction::Local])
        }
        RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit => {
            Some(vec![BaseRouteAction::Drop])
        }
        _ => None,
    };
    let (table, metric) = (table_of(route), metric_of(route));
    let told = |action| BaseRoute { table, prefix, metric, action };
    Ok(actions.map(|actions| actions.into_iter().map(told).collect()))
}

/// By which port, and by way of whom. The hops that the kernel passes over are not among them; `None` if a hop does not
/// name its port (one that stands in a nexthop object, say), or does more to a packet than send it on.
fn forward(
    kernel: &mut Kernel<'_>,
    route: &RouteMessage,
) -> Result<Option<Vec<BaseRouteAction>>, DriverError> {
    let several = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::MultiPath(several) => Some(several),
        _ => None,
    });
    let Some(several) = several else {
        if route.header.flags.contains(RouteFlags::Dead) {
            return Ok(Some(Vec::new()));
        }
        let port = route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        });
        let Some(port) = port else { return Ok(None) };
        return Ok(hop(kernel, port, &route.attributes)?.map(|hop| vec![hop]));
    };
    let alive = |hop: &&RouteNextHop| !hop.flags.contains(RouteNextHopFlags::Dead);
    let mut hops = Vec::new();
    for next in several.iter().filter(alive) {
        let Some(hop) = hop(kernel, next.interface_index, &next.attributes)? else { return Ok(None) };
        hops.push(hop);
    }
    Ok(Some(hops))
}

fn hop(
    kernel: &mut Kernel<'_>,
    port: u32,
    attributes: &[RouteAttribute],
) -> Result<Option<BaseRouteAction>, DriverError> {
    use RouteAttribute::{Encap, EncapType, NewDestination};
    let does_more =
        |attribute: &RouteAttribute| matches!(attribute, Encap(_) | EncapType(_) | NewDestination(_));
    if attributes.iter().any(does_more) {
        return Ok(None);
    }
    let via = via(attributes);
    Ok(kernel.port_name(port)?.map(|port| BaseRouteAction::Forward { port, via }))
}

fn via(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(address) => address_of(address),
        // An IPv4 route by way of an IPv6 neighbour (RFC 5549).
        RouteAttribute::Via(RouteVia::Inet6(address)) => Some(IpAddr::V6(*address)),
        RouteAttribute::Via(RouteVia::Inet(address)) => Some(IpAddr::V4(*address)),
        _ => None,
    })
}

fn destination(route: &RouteMessage, family: Family) -> Option<Prefix> {
    let address = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(address) => Some(address),
        _ => None,
    });
    match address.map(|address: &RouteAddress| address_of(address)) {
        None => Some(Prefix::all(family)),
        Some(address) => Some(Prefix::of(IpNet::new(address?, route.header.destination_prefix_length).ok()?)),
    }
}

fn in_port(rule: &RuleMessage) -> Option<PortName> {
    rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Iifname(name) => PortName::new(name).ok(),
        _ => None,
    })
}

fn net_of(address: &AddressMessage) -> Option<IpNet> {
    let find = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| address.attributes.iter().find_map(wanted);
    // Of a point-to-point address, the other attribute is the far end's.
    let local = find(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let own = local.or_else(|| {
        find(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    });
    IpNet::new(own?, address.header.prefix_len).ok()
}

fn read_rule(message: &RuleMessage, family: Family, undecidable: &Undecidable) -> BaseRule {
    let header = &message.header;
    let mut rule = BaseRule {
        priority: rule::priority(message),
        family,
        from: None,
        to: None,
        in_port: None,
        opaque: Vec::new(),
        action: BaseRuleAction::Other(format!("{:?}", header.action).to_lowercase()),
    };
    if header.flags.contains(RuleFlags::Invert) {
        rule.opaque.push("not".to_owned());
    }
    if header.tos != 0 {
        rule.opaque.push(format!("tos {:#x}", header.tos));
    }
    let mut lookup = u32::from(header.table);
    let mut goto = None;
    let (mut mark, mut mask) = (0, 0);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Table(number) => lookup = *number,
            RuleAttribute::Goto(priority) => goto = Some(*priority),
            RuleAttribute::Source(address) => rule.from = prefix(*address, header.src_len),
            RuleAttribute::Destination(address) => rule.to = prefix(*address, header.dst_len),
            RuleAttribute::Iifname(name) => match PortName::new(name) {
                Ok(port) => rule.in_port = Some(port),
                Err(_) => rule.opaque.push(format!("iif {name:?}")),
            },
            RuleAttribute::FwMark(value) => mark = *value,
            RuleAttribute::FwMask(value) => mask = *value,
            attribute => rule.opaque.extend(condition(attribute)),
        }
    }
    if (mark, mask) != (0, 0) {
        rule.opaque.push(format!("fwmark {mark:#x}/{mask:#x}"));
    }
    match header.action {
        RuleAction::ToTable => {
            rule.action = BaseRuleAction::Lookup(lookup);
            rule.opaque.extend(undecidable.get(&lookup).map(|route| format!("with route {route}")));
        }
        RuleAction::Blackhole | RuleAction::Unreachable | RuleAction::Prohibit => {
            rule.action = BaseRuleAction::Drop;
        }
        RuleAction::Goto => {
            let target = goto.map(|priority| format!(" {priority}")).unwrap_or_default();
            rule.action = BaseRuleAction::Other(format!("goto{target}"));
        }
        _ => {}
    }
    rule
}

/// A part of a rule that we cannot evaluate, in the words of `ip rule`; `None` if it says nothing of which packets.
fn condition(attribute: &RuleAttribute) -> Option<String> {
    const UNSET: u32 = u32::MAX;
    Some(match attribute {
        RuleAttribute::Priority(_) | RuleAttribute::Protocol(_) => return None,
        RuleAttribute::SuppressPrefixLen(UNSET) | RuleAttribute::SuppressIfGroup(UNSET) => return None,
        RuleAttribute::L3MDev(false) => return None,
        RuleAttribute::SuppressPrefixLen(length) => format!("suppress_prefixlength {length}"),
        RuleAttribute::SuppressIfGroup(group) => format!("suppress_ifgroup {group}"),
        RuleAttribute::L3MDev(true) => "l3mdev".to_owned(),
        RuleAttribute::Oifname(name) => format!("oif {name}"),
        RuleAttribute::TunId(id) => format!("tun_id {id}"),
        RuleAttribute::UidRange(range) => format!("uidrange {}-{}", range.start, range.end),
        RuleAttribute::IpProtocol(protocol) => format!("ipproto {}", u8::from(*protocol)),
        RuleAttribute::SourcePortRange(range) => format!("sport {}-{}", range.start, range.end),
        RuleAttribute::DestinationPortRange(range) => format!("dport {}-{}", range.start, range.end),
        // All bits of a port: FRA_SPORT_MASK and FRA_DPORT_MASK of linux/fib_rules.h (Linux 6.15), which `ip rule` does not say.
        RuleAttribute::Other(mask) if matches!(mask.kind(), 28 | 29) && is_whole(mask) => return None,
        RuleAttribute::Realm(realm) => format!("realms {realm:?}"),
        other => format!("{other:?}"),
    })
}

fn is_whole(mask: &impl Nla) -> bool {
    let mut bytes = vec![0; mask.value_len()];
    mask.emit_value(&mut bytes);
    bytes == [0xff, 0xff]
}

fn prefix(address: IpAddr, length: u8) -> Option<Prefix> {
    IpNet::new(address, length).ok().map(Prefix::of)
}
