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

    /// The priority of our rules that do this for this order, if there is one.
    pub(crate) fn priority(&self, part: Part, order: u16) -> Option<u32> {
        if order >= Rule::ORDERS {
            return None;
        }
        let first = match part {
            Part::Lookup => 0,
            Part::Guard => u32::from(Rule::ORDERS),
        };
        self.rule_priority.checked_add(first + u32::from(order))
    }

    /// What our rules of this priority do, and for which order; `None` if no rule of ours has it.
    pub(crate) fn part(&self, priority: u32) -> Option<(Part, u16)> {
        let offset = u16::try_from(priority.checked_sub(self.rule_priority)?).ok()?;
        match (offset / Rule::ORDERS, offset % Rule::ORDERS) {
            (0, order) => Some((Part::Lookup, order)),
            (1, order) => Some((Part::Guard, order)),
            _ => None,
        }
    }

    /// The last of our priorities.
    pub(crate) fn last_priority(&self) -> u32 {
        self.rule_priority.saturating_add(2 * u32::from(Rule::ORDERS) - 1)
    }

    /// The routing table of this path, if there is one.
    pub(crate) fn table(&self, path: PathId) -> Option<u32> {
        if is_number(path) { self.table_base.checked_add(path.0) } else { None }
    }

    /// The path of this routing table; `None` if no path of ours has it.
    pub(crate) fn path(&self, table: u32) -> Option<PathId> {
        table.checked_sub(self.table_base).map(PathId).filter(|path| is_number(*path))
    }
}

/// What one line of `ip rule` does for a rule of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// It looks up the table.
    Lookup,
    /// It drops what the lookup has let through.
    Guard,
}

fn is_number(path: PathId) -> bool {
    PathId::NOWHERE < path && path <= PathId::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_they_are_written() {
        let numbers = Numbers::of(&LinuxSpec::in_netns("x"));
        for (part, order, priority) in [
            (Part::Lookup, 0, 10_000),
            (Part::Lookup, 255, 10_255),
            (Part::Guard, 0, 10_256),
            (Part::Guard, 255, 10_511),
        ] {
            assert_eq!(numbers.priority(part, order), Some(priority));
            assert_eq!(numbers.part(priority), Some((part, order)));
        }
        assert_eq!(numbers.last_priority(), 10_511);
        assert_eq!(numbers.table(PathId(7)), Some(10_007));
        assert_eq!(numbers.path(10_007), Some(PathId(7)));
    }

    #[test]
    fn numbers_beside_ours_are_not_ours() {
        let numbers = Numbers::of(&LinuxSpec::in_netns("x"));
        for priority in [0, 9_999, 10_512, 32_766, u32::MAX] {
            assert_eq!(numbers.part(priority), None);
        }
        assert_eq!(numbers.priority(Part::Lookup, Rule::ORDERS), None);
        for table in [254, 10_000, u32::MAX] {
            assert_eq!(numbers.path(table), None);
        }
        assert_eq!(numbers.table(PathId::NOWHERE), None);
    }
}
