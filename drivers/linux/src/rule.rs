//! One rule as the kernel tells of it, and as it is asked for.
//!
//! For a [`Rule`] the kernel gets two, with one selector: the lookup, and behind the lookups of all orders the guard, which
//! drops. A packet meets a guard only if its lookup is gone, or found a table that is empty. Here the guard is a `Rule` of
//! its own, for [`PathId::NOWHERE`].

use catena_model::address::{Family, Prefix};
use catena_model::forwarding::{PathId, Rule, Selector};
use catena_model::name::PortName;
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};

use crate::numbers::{Numbers, Part};

/// The kernel's word for "not set" in the two suppressors, which it always tells.
const UNSUPPRESSED: u32 = u32::MAX;
/// What it tells as the table of a rule that looks none up.
const NO_TABLE: u32 = 0;

/// A rule that bears our marks.
#[derive(Clone, Debug)]
pub(crate) struct OurRule {
    /// What it is, a lookup or a guard, if it is one that we could have made. `None`: someone has changed it, or our settings were others.
    pub(crate) rule: Option<Rule>,
    /// The request that makes such a rule.
    pub(crate) request: RuleMessage,
}

impl OurRule {
    /// Reads a rule; `None` if it is not ours.
    pub(crate) fn read(message: RuleMessage, numbers: &Numbers) -> Option<Self> {
        let attributes = &message.attributes;
        let (part, order) = numbers.part(priority(&message))?;
        if !attributes.contains(&RuleAttribute::Protocol(numbers.protocol)) {
            return None;
        }
        let request = as_request(message);
        Some(Self { rule: read_rule(&request, part, order, numbers), request })
    }
}

/// The guard of the place in which `rule` stands. Rules that stand there at once share it.
pub(crate) fn guard(rule: &Rule) -> Rule {
    Rule { table: PathId::NOWHERE, ..rule.clone() }
}

/// The part of a [`Rule`] that `rule` is here.
pub(crate) fn part(rule: &Rule) -> Part {
    if rule.table == PathId::NOWHERE { Part::Guard } else { Part::Lookup }
}

/// The request that makes `rule`, a lookup or a guard; `None` if it needs a number that is not ours.
pub(crate) fn request(rule: &Rule, numbers: &Numbers) -> Option<RuleMessage> {
    let Selector { family, from, to, in_port, unless_released } = &rule.selector;
    let mut message = RuleMessage::default();
    message.header.family = address_family(*family);
    message.attributes = vec![
        RuleAttribute::Priority(numbers.priority(part(rule), rule.order)?),
        RuleAttribute::Protocol(numbers.protocol),
    ];
    match part(rule) {
        Part::Lookup => {
            message.header.action = RuleAction::ToTable;
            message.attributes.push(RuleAttribute::Table(numbers.table(rule.table)?));
        }
        Part::Guard => message.header.action = RuleAction::Unreachable,
    }
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
    if *unless_released {
        // The kernel takes a mark of 0 as none given, and tells none; a mask it keeps (`fib_nl2rule` in
        // net/core/fib_rules.c).
        message.attributes.push(RuleAttribute::FwMask(numbers.mark));
    }
    Some(message)
}

/// What the kernel told of a rule as what we would have asked for to get it. That its port is not there (`[detached]`)
/// is left out: such a rule is in place, and works again by itself as soon as a port of that name comes.
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
            RuleAttribute::SuppressPrefixLen(UNSUPPRESSED)
                | RuleAttribute::SuppressIfGroup(UNSUPPRESSED)
                | RuleAttribute::Table(NO_TABLE)
        )
    });
    message
}

fn read_rule(message: &RuleMessage, part: Part, order: u16, numbers: &Numbers) -> Option<Rule> {
    let header = &message.header;
    let action = match part {
        Part::Lookup => RuleAction::ToTable,
        Part::Guard => RuleAction::Unreachable,
    };
    if header.action != action || header.tos != 0 || header.flags != RuleFlags::empty() {
        return None;
    }
    let family = family(header.family)?;
    let mut selector = Selector { family, from: None, to: None, in_port: None, unless_released: false };
    let mut table = None;
    let (mut mark, mut mask) = (0, 0);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(_) | RuleAttribute::Protocol(_) => {}
            RuleAttribute::Table(number) => table = Some(numbers.path(*number)?),
            RuleAttribute::Source(address) => selector.from = Some(prefix(*address, header.src_len)?),
            RuleAttribute::Destination(address) => selector.to = Some(prefix(*address, header.dst_len)?),
            RuleAttribute::Iifname(name) => selector.in_port = Some(PortName::new(name).ok()?),
            RuleAttribute::FwMark(value) => mark = *value,
            RuleAttribute::FwMask(value) => mask = *value,
            _ => return None,
        }
    }
    selector.unless_released = match (mark, mask) {
        (0, 0) => false,
        (0, mask) if mask == numbers.mark => true,
        _ => return None,
    };
    let table = match part {
        Part::Lookup => table?,
        // The kernel keeps a table that someone gave to it, without looking it up.
        Part::Guard if table.is_some() => return None,
        Part::Guard => PathId::NOWHERE,
    };
    Some(Rule { order, selector, table })
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

#[cfg(test)]
mod tests {
    use super::*;
    use catena_model::resource::LinuxSpec;

    fn numbers() -> Numbers {
        Numbers::of(&LinuxSpec::in_netns("x"))
    }

    fn rule(from: &str, in_port: Option<&str>, unless_released: bool) -> Rule {
        let from: Prefix = from.parse().unwrap();
        let in_port = in_port.map(|port| port.parse().unwrap());
        let selector =
            Selector { family: from.family(), from: Some(from), to: None, in_port, unless_released };
        Rule { order: 255, selector, table: PathId(1) }
    }

    #[test]
    fn a_rule_is_read_as_it_was_written() {
        for rule in [rule("172.16.1.0/24", None, false), rule("2001:db8::/32", Some("qr-abc"), true)] {
            let message = request(&rule, &numbers()).unwrap();
            assert_eq!(OurRule::read(message, &numbers()).unwrap().rule.as_ref(), Some(&rule));
            let message = request(&guard(&rule), &numbers()).unwrap();
            assert_eq!(priority(&message), 10_511);
            assert_eq!(OurRule::read(message, &numbers()).unwrap().rule, Some(guard(&rule)));
        }
    }

    /// A lookup where guards are, and a guard where lookups are: ours by their marks, but nothing that we make.
    #[test]
    fn the_wrong_part_for_its_priority_is_odd() {
        let lookup = rule("172.16.1.0/24", None, false);
        for (wrong, priority) in [(guard(&lookup), 10_000), (lookup, 10_256)] {
            let mut message = request(&wrong, &numbers()).unwrap();
            message.attributes[0] = RuleAttribute::Priority(priority);
            assert_eq!(OurRule::read(message, &numbers()).unwrap().rule, None);
        }
    }

    #[test]
    fn another_mark_or_mask_is_odd() {
        let lookup = rule("172.16.1.0/24", Some("lan"), true);
        let mark = numbers().mark;
        let whole = request(&lookup, &numbers()).unwrap();
        for odd in [vec![RuleAttribute::FwMark(mark)], vec![RuleAttribute::FwMask(mark << 1)]] {
            let mut message = whole.clone();
            message.attributes.retain(|attribute| {
                !odd.iter().any(|odd| std::mem::discriminant(odd) == std::mem::discriminant(attribute))
            });
            message.attributes.extend(odd);
            assert_eq!(OurRule::read(message, &numbers()).unwrap().rule, None);
        }
    }

    #[test]
    fn what_lacks_one_of_our_marks_is_not_ours() {
        let message = request(&rule("172.16.1.0/24", None, false), &numbers()).unwrap();
        let other_protocol = Numbers { protocol: 4.into(), ..numbers() };
        let other_band = Numbers { rule_priority: 20_000, ..numbers() };
        assert!(OurRule::read(message.clone(), &other_protocol).is_none());
        assert!(OurRule::read(message, &other_band).is_none());
    }
}
