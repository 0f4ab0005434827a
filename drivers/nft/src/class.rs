//! Which rules share a map, and how a packet is looked up in it.
//!
//! Maps of intervals refuse prefixes that overlap, and find any of them where they do not; ours are of one prefix length
//! each, so a packet's masked address is looked up by its hash, and adding a tenant never touches another's element. The
//! longest prefix wins because rules say so by their order, and the maps are asked in that order.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use catena_model::address::{Family, Prefix};
use catena_model::forwarding::{Rule, Selector};
use catena_model::name::PortName;
use ipnet::IpNet;
use nftables::expr::{BinaryOperation, Expression, Meta, MetaKey, NamedExpression, Payload, PayloadField};

/// Rules of one order that look at the same fields of a packet. Classes are sorted as the model sorts their rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Class {
    order: u16,
    family: Family,
    /// The length of the source prefix, if there is one.
    from: Option<u8>,
    to: Option<u8>,
    in_port: bool,
    unless_released: bool,
    /// Of the class's two maps the second. What changes goes from one to the other, so that it is in one of them at any time.
    twin: bool,
}

impl Class {
    /// The class of a rule in one of its maps; `None` for a rule that names no prefix, and would be for everything.
    pub(crate) fn of(order: u16, selector: &Selector, twin: bool) -> Option<Self> {
        let Selector { family, from, to, in_port, unless_released } = selector;
        let length = |prefix: &Option<Prefix>| prefix.map(Prefix::length).filter(|length| *length > 0);
        let (from, to) = (length(from), length(to));
        if order >= Rule::ORDERS || from.or(to).is_none() {
            return None;
        }
        let (in_port, unless_released) = (in_port.is_some(), *unless_released);
        Some(Self { order, family: *family, from, to, in_port, unless_released, twin })
    }

    pub(crate) fn unless_released(self) -> bool {
        self.unless_released
    }

    pub(crate) fn is_twin(self) -> bool {
        self.twin
    }

    /// The types of the fields that a key of the map consists of.
    pub(crate) fn key_type(self) -> Vec<String> {
        let address = match self.family {
            Family::V4 => "ipv4_addr",
            Family::V6 => "ipv6_addr",
        };
        let addresses = [self.from, self.to].into_iter().flatten().map(|_| address);
        addresses.chain(self.in_port.then_some("ifname")).map(str::to_owned).collect()
    }

    /// What of a packet is looked up: `ip saddr & 255.255.255.0 . iifname`.
    pub(crate) fn lookup(self) -> Expression<'static> {
        let field = |name, length: u8| {
            let protocol = match self.family {
                Family::V4 => "ip",
                Family::V6 => "ip6",
            };
            let field = PayloadField { protocol: protocol.into(), field: name };
            let address = Expression::Named(NamedExpression::Payload(Payload::PayloadField(field)));
            match mask(self.family, length) {
                None => address,
                Some(mask) => Expression::BinaryOperation(Box::new(BinaryOperation::AND(
                    address,
                    Expression::String(mask.to_string().into()),
                ))),
            }
        };
        let from = self.from.map(|length| field("saddr".into(), length));
        let to = self.to.map(|length| field("daddr".into(), length));
        let port =
            self.in_port.then_some(Expression::Named(NamedExpression::Meta(Meta { key: MetaKey::Iifname })));
        one_or_concat([from, to, port].into_iter().flatten().collect())
    }

    /// The key of a rule of this class.
    pub(crate) fn key(self, selector: &Selector) -> Vec<String> {
        let address = |prefix: &Prefix| prefix.address().to_string();
        let port = selector.in_port.as_ref().map(PortName::to_string);
        [selector.from.as_ref().map(address), selector.to.as_ref().map(address), port]
            .into_iter()
            .flatten()
            .collect()
    }

    /// The order and selector of the rule that an element with this key is; `None` if none of ours has such a key.
    pub(crate) fn rule(self, key: &[String]) -> Option<(u16, Selector)> {
        let mut parts = key.iter();
        let mut prefix = |length: Option<u8>| match length {
            None => Some(None),
            Some(length) => {
                let address: IpAddr = parts.next()?.parse().ok()?;
                let prefix = Prefix::new(IpNet::new(address, length).ok()?).ok()?;
                (prefix.family() == self.family).then_some(Some(prefix))
            }
        };
        let (from, to) = (prefix(self.from)?, prefix(self.to)?);
        let in_port = match self.in_port {
            true => Some(PortName::new(parts.next()?).ok()?),
            false => None,
        };
        let selector =
            Selector { family: self.family, from, to, in_port, unless_released: self.unless_released };
        parts.next().is_none().then_some((self.order, selector))
    }
}

/// The name of the map: `order136-ip-from24`, `order8-ip6-to64-iif-unreleased`.
impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "order{}-{}", self.order, family_word(self.family))?;
        if let Some(length) = self.from {
            write!(f, "-from{length}")?;
        }
        if let Some(length) = self.to {
            write!(f, "-to{length}")?;
        }
        f.write_str(if self.in_port { "-iif" } else { "" })?;
        f.write_str(if self.unless_released { "-unreleased" } else { "" })?;
        f.write_str(if self.twin { "-twin" } else { "" })
    }
}

impl FromStr for Class {
    type Err = NoClass;

    fn from_str(name: &str) -> Result<Self, NoClass> {
        let mut words = name.split('-');
        let order = words.next().and_then(|word| word.strip_prefix("order")).and_then(|n| n.parse().ok());
        let family = match words.next() {
            Some("ip") => Family::V4,
            Some("ip6") => Family::V6,
            _ => return Err(NoClass),
        };
        let mut class = Class {
            order: order.ok_or(NoClass)?,
            family,
            from: None,
            to: None,
            in_port: false,
            unless_released: false,
            twin: false,
        };
        let length = |text: &str| text.parse().ok().filter(|length| (1..=family.bits()).contains(length));
        for word in words {
            match word {
                "iif" => class.in_port = true,
                "unreleased" => class.unless_released = true,
                "twin" => class.twin = true,
                _ => match (word.strip_prefix("from"), word.strip_prefix("to")) {
                    (Some(text), _) => class.from = Some(length(text).ok_or(NoClass)?),
                    (_, Some(text)) => class.to = Some(length(text).ok_or(NoClass)?),
                    _ => return Err(NoClass),
                },
            }
        }
        // One class has one name.
        if class.to_string() == name { Ok(class) } else { Err(NoClass) }
    }
}

/// A map's name that is no class's.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoClass;

/// As nft(8) calls the families.
pub(crate) fn family_word(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

/// `None` for a mask that lets everything through: nft(8) would leave it out when it lists what we wrote.
fn mask(family: Family, length: u8) -> Option<IpAddr> {
    let everything = IpNet::new(Prefix::all(family).address(), length).ok()?;
    (length < family.bits()).then_some(everything.netmask())
}

fn one_or_concat(mut parts: Vec<Expression<'static>>) -> Expression<'static> {
    match (parts.pop(), parts.is_empty()) {
        (Some(single), true) => single,
        (last, _) => Expression::Named(NamedExpression::Concat(parts.into_iter().chain(last).collect())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selectors() -> Vec<Selector> {
        let mut all = Vec::new();
        for (prefix, family) in [("172.16.1.0/24", Family::V4), ("2001:db8:a1::1/128", Family::V6)] {
            let prefix = prefix.parse().ok();
            for (from, to) in [(prefix, None), (None, prefix), (prefix, prefix)] {
                for in_port in [None, PortName::new("eth0.100").ok()] {
                    let plain = Selector { family, from, to, in_port, unless_released: false };
                    all.extend([plain.clone(), Selector { unless_released: true, ..plain }]);
                }
            }
        }
        all
    }

    #[test]
    fn a_rule_is_read_as_it_was_written() {
        for (selector, twin) in selectors().into_iter().flat_map(|all| [(all.clone(), false), (all, true)]) {
            let class = Class::of(136, &selector, twin).unwrap();
            assert_eq!(class.to_string().parse(), Ok(class));
            assert_eq!(class.rule(&class.key(&selector)), Some((136, selector)));
        }
    }

    #[test]
    fn what_is_not_ours_is_no_class() {
        for name in [
            "",
            "order8",
            "order8-ip-to24-from24",
            "order8-ip-from33",
            "order8-ip-from0",
            "hops",
            "order08-ip-to24",
        ] {
            assert_eq!(name.parse::<Class>(), Err(NoClass), "{name}");
        }
        let class: Class = "order8-ip-from24-iif".parse().unwrap();
        for key in
            [&["172.16.1.0"][..], &["172.16.1.1", "a"], &["2001:db8::", "a"], &["172.16.1.0", "a", "b"]]
        {
            let key: Vec<_> = key.iter().map(|part| (*part).to_owned()).collect();
            assert_eq!(class.rule(&key), None, "{key:?}");
        }
    }

    #[test]
    fn a_rule_for_everything_has_no_class() {
        let everything =
            Selector { family: Family::V4, from: None, to: None, in_port: None, unless_released: false };
        assert_eq!(Class::of(0, &everything, false), None);
        assert_eq!(Class::of(0, &Selector { from: Some(Prefix::ALL_V4), ..everything }, false), None);
    }
}
