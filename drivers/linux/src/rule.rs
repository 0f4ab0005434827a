//! Rules as the kernel keeps them: one list for each family, ordered by priority, the newest last among equals.

use catena_model::address::{Family, Prefix};
use catena_model::forwarding::{Rule, Selector};
use catena_model::name::PortName;
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};

use crate::numbers::Numbers;

/// The kernel's word for "not set" in the two suppressors, which it always tells.
const UNSUPPRESSED: u32 = u32::MAX;

/// A rule that bears our marks.
#[derive(Clone, Debug)]
pub(crate) struct OurRule {
    /// What it is, if it is one that we could have made. `None`: someone has changed it, or our settings were others.
    pub(crate) rule: Option<Rule>,
    /// Whether its port is there. Without, the rule matches nothing, until a port of that name comes.
    pub(crate) attached: bool,
    /// The request that makes such a rule.
    pub(crate) request: RuleMessage,
}

impl OurRule {
    /// Reads a rule; `None` if it is not ours.
    pub(crate) fn read(message: RuleMessage, numbers: &Numbers) -> Option<Self> {
        let attributes = &message.attributes;
        let order = numbers.order(priority(&message))?;
        if !attributes.contains(&RuleAttribute::Protocol(numbers.protocol)) {
            return None;
        }
        let attached = !message.header.flags.contains(RuleFlags::IifDetached);
        let request = as_request(message);
        Some(Self { rule: read_rule(&request, order, numbers), attached, request })
    }

    pub(crate) fn is(&self, rule: &Rule) -> bool {
        self.rule.as_ref() == Some(rule)
    }

    /// Whether it stands where `rule` does, but leads elsewhere.
    pub(crate) fn rivals(&self, rule: &Rule) -> bool {
        self.rule.as_ref().is_some_and(|other| other.place() == rule.place() && other.table != rule.table)
    }
}

/// The request that makes `rule`; `None` if it needs a number that is not ours.
pub(crate) fn request(rule: &Rule, numbers: &Numbers) -> Option<RuleMessage> {
    let Selector { family, from, to, in_port, claimed } = &rule.selector;
    let mut message = RuleMessage::default();
    message.header.family = address_family(*family);
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![
        RuleAttribute::Priority(numbers.priority(rule.order)?),
        RuleAttribute::Table(numbers.table(rule.table)?),
        RuleAttribute::Protocol(numbers.protocol),
    ];
    if let Some(prefix) = from {
        message.header.src_len = prefix.length();
        message.attributes.push(RuleAttribute::Source(prefix.address()));
    }
    if let Some(prefix) = to {
        message.header.dst_len = prefix.length();
        message.attributes.push(RuleAttribute::Destination(prefix.address()));
    }
    if let Some(port) = in_port {
        message.attributes.push(RuleAttribute::Iifname(port.to_string()));
    }
    if *claimed {
        message.attributes.push(RuleAttribute::FwMark(numbers.mark));
        message.attributes.push(RuleAttribute::FwMask(numbers.mark));
    }
    Some(message)
}

/// Our rules in the kernel's order, and what removes one of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct OurRules(pub(crate) Vec<OurRule>);

/// One request to the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Add(RuleMessage),
    Delete(RuleMessage),
}

impl OurRules {
    pub(crate) fn position(&self, wanted: impl Fn(&OurRule) -> bool) -> Option<usize> {
        self.0.iter().position(wanted)
    }

    /// Notes that the kernel has a new rule: behind all of its priority.
    pub(crate) fn added(&mut self, rule: OurRule) {
        let before = |other: &OurRule| {
            other.request.header.family == rule.request.header.family
                && priority(&other.request) <= priority(&rule.request)
        };
        let behind = self.0.iter().rposition(before);
        self.0.insert(behind.map_or(0, |last| last + 1), rule);
    }

    /// The requests that remove the rule at `position` and no other.
    ///
    /// The kernel deletes the first rule that has everything that the request names (`rule_find` in net/core/fib_rules.c),
    /// so a request meant for `from P lookup T` deletes `from P iif X lookup T` if that comes first. Such a rule is put
    /// once more, behind, before its first copy is sacrificed: at no time is it missing.
    pub(crate) fn removal(&mut self, position: usize) -> Vec<Request> {
        let mut requests = Vec::new();
        let request = self.0[position].request.clone();
        let mut position = position;
        while let Some(first) = self.position(|rule| names(&request, &rule.request)) {
            let hit = self.0.remove(first);
            if first == position {
                requests.push(Request::Delete(request));
                break;
            }
            requests.push(Request::Add(hit.request.clone()));
            requests.push(Request::Delete(request.clone()));
            position -= 1;
            self.added(hit);
        }
        requests
    }
}

/// Whether `request`, as one to delete, means `rule`.
fn names(request: &RuleMessage, rule: &RuleMessage) -> bool {
    request.header.family == rule.header.family
        && request.attributes.iter().all(|attribute| match attribute {
            RuleAttribute::Source(_) => {
                request.header.src_len == rule.header.src_len && rule.attributes.contains(attribute)
            }
            RuleAttribute::Destination(_) => {
                request.header.dst_len == rule.header.dst_len && rule.attributes.contains(attribute)
            }
            attribute => rule.attributes.contains(attribute),
        })
}

/// What the kernel told of a rule as what we would have asked for to get it.
fn as_request(mut message: RuleMessage) -> RuleMessage {
    // It tells the table in an attribute; a second one in the header has room for 255 only.
    message.header.table = 0;
    message.header.flags &= RuleFlags::Invert;
    if priority(&message) == 0 {
        message.attributes.push(RuleAttribute::Priority(0));
    }
    message.attributes.retain(|attribute| {
        !matches!(
            attribute,
            RuleAttribute::SuppressPrefixLen(UNSUPPRESSED) | RuleAttribute::SuppressIfGroup(UNSUPPRESSED)
        )
    });
    message
}

fn read_rule(message: &RuleMessage, order: u16, numbers: &Numbers) -> Option<Rule> {
    let header = &message.header;
    if header.action != RuleAction::ToTable || header.tos != 0 || header.flags != RuleFlags::empty() {
        return None;
    }
    let family = family(header.family)?;
    let mut selector = Selector { family, from: None, to: None, in_port: None, claimed: false };
    let mut table = None;
    let (mut mark, mut mask) = (0, 0);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(_) | RuleAttribute::Protocol(_) => {}
            RuleAttribute::Table(number) => table = numbers.path(*number),
            RuleAttribute::Source(address) => selector.from = Some(prefix(*address, header.src_len)?),
            RuleAttribute::Destination(address) => selector.to = Some(prefix(*address, header.dst_len)?),
            RuleAttribute::Iifname(name) => selector.in_port = Some(PortName::new(name).ok()?),
            RuleAttribute::FwMark(value) => mark = *value,
            RuleAttribute::FwMask(value) => mask = *value,
            _ => return None,
        }
    }
    selector.claimed = match (mark, mask) {
        (0, 0) => false,
        both if both == (numbers.mark, numbers.mark) => true,
        _ => return None,
    };
    Some(Rule { order, selector, table: table? })
}

/// The kernel does not mention a priority of 0.
pub(crate) fn priority(message: &RuleMessage) -> u32 {
    let told = message.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Priority(priority) => Some(*priority),
        _ => None,
    });
    told.unwrap_or(0)
}

fn prefix(address: std::net::IpAddr, length: u8) -> Option<Prefix> {
    Prefix::new(IpNet::new(address, length).ok()?).ok()
}

pub(crate) fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

pub(crate) fn family(family: AddressFamily) -> Option<Family> {
    match family {
        AddressFamily::Inet => Some(Family::V4),
        AddressFamily::Inet6 => Some(Family::V6),
        _ => None,
    }
}
