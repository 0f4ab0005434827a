//! Which numbers of an element are ours: what bears them is ours, all else is not.

use catena_model::forwarding::{PathId, Rule};
use catena_model::resource::LinuxSpec;
use netlink_packet_route::route::RouteProtocol;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbers {
    pub(crate) protocol: RouteProtocol,
    pub(crate) mark: u32,
    pub(crate) rule_priority: u32,
    pub(crate) table_base: u32,
}

impl Numbers {
    pub(crate) fn of(spec: &LinuxSpec) -> Self {
        Self {
            protocol: spec.protocol.into(),
            mark: spec.mark,
            rule_priority: spec.rule_priority,
            table_base: spec.table_base,
        }
    }

    /// The priority of our rules of this order, if there is one.
    pub(crate) fn priority(&self, order: u16) -> Option<u32> {
        if order < Rule::ORDERS { self.rule_priority.checked_add(order.into()) } else { None }
    }

    /// The order of our rules of this priority; `None` if no rule of ours has it.
    pub(crate) fn order(&self, priority: u32) -> Option<u16> {
        let order = priority.checked_sub(self.rule_priority)?;
        u16::try_from(order).ok().filter(|order| *order < Rule::ORDERS)
    }

    /// The routing table of this path, if there is one.
    pub(crate) fn table(&self, path: PathId) -> Option<u32> {
        if path <= PathId::MAX { self.table_base.checked_add(path.0) } else { None }
    }

    /// The path of this routing table; `None` if no path of ours has it.
    pub(crate) fn path(&self, table: u32) -> Option<PathId> {
        table.checked_sub(self.table_base).map(PathId).filter(|path| *path <= PathId::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_they_are_written() {
        let numbers = Numbers::of(&LinuxSpec::in_netns("x"));
        assert_eq!(numbers.priority(3), Some(10_003));
        assert_eq!(numbers.order(10_003), Some(3));
        assert_eq!(numbers.table(PathId(7)), Some(10_007));
        assert_eq!(numbers.path(10_007), Some(PathId(7)));
    }

    #[test]
    fn numbers_beside_ours_are_not_ours() {
        let numbers = Numbers::of(&LinuxSpec::in_netns("x"));
        assert_eq!((numbers.order(9_999), numbers.order(10_256), numbers.order(32_766)), (None, None, None));
        assert_eq!(numbers.priority(Rule::ORDERS), None);
        assert_eq!((numbers.path(254), numbers.path(9_999), numbers.path(u32::MAX)), (None, None, None));
    }
}
