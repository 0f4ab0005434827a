//! Next hops: the few ways out of an element that all its tenants share, for drivers that choose one by other means than
//! the kernel's rules.
//!
//! A next hop has a number. Whoever chooses it writes the number into the packet's mark; a line of `ip rule` leads that
//! mark to a routing table that holds nothing but the next hop ([`Kernel`]).

mod kernel;

use std::fmt;
use std::net::IpAddr;

use catena_model::address::Family;
use catena_model::forwarding::{Rule, Table};
use catena_model::name::{NodeName, PortName};
use catena_model::resource::LinuxSpec;
use netlink_packet_route::route::RouteProtocol;

pub use kernel::{Guards, Kernel, Rules, priority, table_of};

/// The bits of the packet mark that are ours: the highest says that a hop was chosen, the others which.
pub const FIELD: u32 = LinuxSpec::HOP_MARKS;
/// All hops have this bit, so one rule guards them all.
pub const GUARD: u32 = 1 << (31 - FIELD.leading_zeros());
/// Of a packet that was looked at and has no hop; its owner's routing is next. No hop has it.
pub const PASSED: u32 = 1 << SHIFT;
const SHIFT: u32 = FIELD.trailing_zeros();

/// The element that something happens on, for messages.
#[derive(Clone, Debug)]
pub struct Place {
    pub element: NodeName,
    pub netns: Option<String>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.netns {
            Some(netns) => write!(f, "element {} (netns {netns})", self.element),
            None => write!(f, "element {}", self.element),
        }
    }
}

/// Where packets are sent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NextHop {
    pub family: Family,
    pub port: PortName,
    /// `None` for a port with a single other end.
    pub via: Option<IpAddr>,
}

impl NextHop {
    pub fn of(table: &Table) -> Self {
        Self { family: table.family, port: table.port.clone(), via: table.via }
    }
}

/// As `ip route` takes it.
impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(via) = self.via {
            write!(f, "via {via} ")?;
        }
        write!(f, "dev {}", self.port)
    }
}

/// A next hop's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HopId(u32);

impl HopId {
    const MAX: u32 = (GUARD >> SHIFT) - 1;

    pub fn new(number: u32) -> Option<Self> {
        (1..=Self::MAX).contains(&number).then_some(HopId(number))
    }

    pub fn all() -> impl Iterator<Item = HopId> {
        (1..=Self::MAX).map(HopId)
    }

    pub fn number(self) -> u32 {
        self.0
    }

    /// What a packet's mark is in our bits, when it has this hop.
    pub fn mark(self) -> u32 {
        GUARD | self.0 << SHIFT
    }

    /// The hop of a mark; `None` if none has it.
    pub fn of_mark(mark: u32) -> Option<Self> {
        Self::new((mark & !GUARD) >> SHIFT).filter(|hop| hop.mark() == mark)
    }
}

impl fmt::Display for HopId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which numbers of an element are ours: what bears them is ours, all else is not.
#[derive(Clone, Copy, Debug)]
pub struct Numbers {
    pub protocol: RouteProtocol,
    /// The bit of a packet that a policy has released.
    pub released: u32,
    rule_priority: u32,
    table_base: u32,
}

impl Numbers {
    pub fn of(spec: &LinuxSpec) -> Self {
        Self {
            protocol: spec.protocol.into(),
            released: spec.mark,
            rule_priority: spec.rule_priority,
            table_base: spec.table_base,
        }
    }

    /// Of the rules that look up hops' tables.
    pub fn lookup_priority(&self) -> u32 {
        self.rule_priority
    }

    /// Of the rule that drops what has a hop, but was not sent there.
    pub fn guard_priority(&self) -> u32 {
        self.rule_priority.saturating_add(Rule::ORDERS.into())
    }

    /// Of the rules that drop what came in by a port and was not looked at.
    pub fn unseen_priority(&self) -> u32 {
        self.guard_priority().saturating_add(1)
    }

    /// Whether a rule of ours could have this priority, whatever the engine.
    pub fn is_our_priority(&self, priority: u32) -> bool {
        priority.checked_sub(self.rule_priority).is_some_and(|offset| offset < 2 * u32::from(Rule::ORDERS))
    }

    pub fn table(&self, hop: HopId) -> u32 {
        self.table_base.saturating_add(hop.0)
    }

    /// The hop of a routing table; `None` if no hop of ours has it.
    pub fn hop(&self, table: u32) -> Option<HopId> {
        table.checked_sub(self.table_base).and_then(HopId::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_ours_alone_and_tell_the_hop() {
        assert_eq!(PASSED & !FIELD, 0);
        assert_eq!(HopId::of_mark(PASSED), None);
        for hop in HopId::all() {
            assert_eq!(hop.mark() & !FIELD, 0);
            assert_eq!(hop.mark() & LinuxSpec::MARK, 0);
            assert_eq!(HopId::of_mark(hop.mark()), Some(hop));
        }
        assert_eq!(HopId::all().count(), 511);
        for mark in [0, GUARD, LinuxSpec::MARK, 0x0001_0000, GUARD | 1, u32::MAX] {
            assert_eq!(HopId::of_mark(mark), None);
        }
    }

    #[test]
    fn numbers_beside_ours_are_not_ours() {
        let numbers = Numbers::of(&LinuxSpec::default());
        for hop in HopId::all() {
            assert_eq!(numbers.hop(numbers.table(hop)), Some(hop));
        }
        assert_eq!([254, 10_000, 10_512, u32::MAX].map(|table| numbers.hop(table)), [None; 4]);
        assert_eq!(
            [9_999, 10_000, 10_511, 10_512].map(|p| numbers.is_our_priority(p)),
            [false, true, true, false]
        );
    }
}
