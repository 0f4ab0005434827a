//! Which rules are looked up together: those of one order that look at the same bits of a packet. A packet is looked up in
//! one class after the other, in the order of the rules, so the first hit is the rule that the kernel's own policy routing
//! would find; within a class, a packet has one key.

use catena_driver::DriverError;
use catena_driver::hops::Place;
use catena_model::address::{Family, Prefix};
use catena_model::forwarding::{Rule, Selector};
use catena_model::name::PortName;
use ipnet::IpNet;

use crate::route::layout;
use crate::words;

/// Classes are sorted as they are asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Class {
    pub(crate) order: u16,
    pub(crate) family: Family,
    /// Rules look at the destination; else at the source.
    pub(crate) destination: bool,
    pub(crate) length: u8,
    pub(crate) unless_released: bool,
    pub(crate) port: Option<PortName>,
}

impl Class {
    /// Of a rule, with what tells it from others of its class.
    pub(crate) fn of(place: &Place, rule: &Rule) -> Result<(Self, Prefix), DriverError> {
        let unsupported = |what: String, help: &str| {
            Err(DriverError::Unsupported { what: format!("{place}: {what}"), help: help.to_owned() })
        };
        let Selector { family, from, to, in_port, unless_released } = &rule.selector;
        let (prefix, destination) = match (from, to) {
            (Some(prefix), None) => (*prefix, false),
            (None, Some(prefix)) => (*prefix, true),
            (None, None) => {
                return unsupported(
                    "a rule without a prefix".to_owned(),
                    "give a source or destination prefix",
                );
            }
            (Some(from), Some(to)) => {
                return unsupported(
                    format!("a rule from {from} to {to}"),
                    "leave out one of the prefixes, or the driver's engine",
                );
            }
        };
        if prefix.family() != *family {
            return unsupported(
                format!("an {family} rule with the prefix {prefix}"),
                "give a prefix of the same family",
            );
        }
        if prefix.length() == 0 {
            return unsupported(format!("a rule for {prefix}"), "leave out a prefix that is everything");
        }
        if rule.order >= Rule::ORDERS {
            return unsupported(format!("a rule of order {}", rule.order), "give one below 256");
        }
        let class = Self {
            order: rule.order,
            family: *family,
            destination,
            length: prefix.length(),
            unless_released: *unless_released,
            port: in_port.clone(),
        };
        Ok((class, prefix))
    }

    pub(crate) fn selector(&self, prefix: Prefix) -> Selector {
        let (from, to) = if self.destination { (None, Some(prefix)) } else { (Some(prefix), None) };
        Selector {
            family: self.family,
            from,
            to,
            in_port: self.port.clone(),
            unless_released: self.unless_released,
        }
    }

    /// Whether packets that come in by this port are asked.
    pub(crate) fn is_asked_at(&self, port: &PortName) -> bool {
        self.port.as_ref().is_none_or(|only| only == port)
    }

    pub(crate) fn probe(&self, number: u32) -> layout::Probe {
        let mut probe = layout::Probe {
            class: number,
            destination: self.destination.into(),
            unless_released: self.unless_released.into(),
            ..Default::default()
        };
        for (at, byte) in probe.mask.iter_mut().enumerate() {
            let bits = self.length.saturating_sub(8 * at as u8).min(8);
            *byte = !(0xff_u8.checked_shr(bits.into()).unwrap_or_default());
        }
        probe
    }

    pub(crate) fn entry(&self) -> Result<layout::Class, DriverError> {
        Ok(layout::Class {
            order: self.order,
            family: words::family(self.family),
            destination: self.destination.into(),
            length: self.length,
            unless_released: self.unless_released.into(),
            pad: [0; 2],
            port: self.port.as_ref().map(words::port_name).transpose()?.unwrap_or_default(),
        })
    }

    /// `None` for what no class looks like, which only someone else can have written.
    pub(crate) fn read(entry: &layout::Class) -> Option<Self> {
        let port = match entry.port[0] {
            0 => None,
            _ => Some(words::read_port_name(&entry.port)?),
        };
        Some(Self {
            order: entry.order,
            family: read_family(entry.family.into())?,
            destination: entry.destination != 0,
            length: entry.length,
            unless_released: entry.unless_released != 0,
            port,
        })
    }

    /// The prefix of a rule of this class, by the address in its key.
    pub(crate) fn prefix(&self, address: std::net::IpAddr) -> Option<Prefix> {
        Prefix::new(IpNet::new(address, self.length).ok()?).ok()
    }
}

pub(crate) fn read_family(family: u32) -> Option<Family> {
    match family {
        4 => Some(Family::V4),
        6 => Some(Family::V6),
        _ => None,
    }
}
