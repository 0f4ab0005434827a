//! What must change on one element.

use std::collections::{BTreeMap, BTreeSet};

use catena_model::forwarding::{Change, ElementState, Kind, Object, Rule, Selector};

/// The changes that turn `installed` into `desired`. What is put comes in the order in which things refer to each other,
/// what is deleted in the reverse one.
pub fn changes(installed: &ElementState, desired: &ElementState) -> Vec<Change> {
    let mut replaced = BTreeSet::new();
    let mut changes: Vec<Change> = Vec::new();
    let standing = superfluous_rules(installed, desired);
    for new in desired.iter().filter(|new| !installed.contains(new)) {
        let former = match new {
            Object::Rule(rule) => standing.get(&rule.place()).copied().cloned().map(Object::Rule),
            _ => installed.get(&new.key()).cloned(),
        };
        replaced.extend(former.iter().map(Object::key));
        changes.push(Change::Put { new: new.clone(), old: former });
    }
    let gone = |old: &&Object| desired.get(&old.key()).is_none() && !replaced.contains(&old.key());
    let deletes = installed.iter().filter(gone).map(|old| Change::Delete { old: old.clone() });
    changes.extend(deletes);
    changes.sort_by_key(|change| match change {
        Change::Put { new, .. } => (0, layer(new.kind())),
        Change::Delete { old } => (1, u8::MAX - layer(old.kind())),
    });
    changes
}

/// Installed rules that are not wanted, by the place in which a wanted one may follow them.
fn superfluous_rules<'a>(
    installed: &'a ElementState,
    desired: &ElementState,
) -> BTreeMap<(u16, &'a Selector), &'a Rule> {
    let rules = installed.iter().filter_map(|object| match object {
        Object::Rule(rule) if desired.get(&object.key()).is_none() => Some(rule),
        _ => None,
    });
    rules.map(|rule| (rule.place(), rule)).collect()
}

/// A kind refers only to kinds of lower layers.
fn layer(kind: Kind) -> u8 {
    match kind {
        Kind::Instance => 0,
        Kind::Path => 1,
        // The first tunnel brings the port that tables lead into.
        Kind::Tunnel => 2,
        Kind::Table => 3,
        Kind::Ingress => 4,
        Kind::Policy => 5,
        Kind::Rule => 6,
    }
}

#[cfg(test)]
mod tests {
    use catena_model::address::Family;
    use catena_model::forwarding::{PathId, Table};

    use super::*;

    fn table(path: u32) -> Object {
        let (path, family) = (PathId(path), Family::V4);
        Object::Table(Table { path, family, port: "eth0".parse().unwrap(), via: None })
    }

    fn rule(order: u16, table: u32) -> Object {
        let selector = Selector {
            family: Family::V4,
            from: Some("172.16.1.0/24".parse().unwrap()),
            to: None,
            in_port: None,
            unless_released: false,
        };
        Object::Rule(Rule { order, selector, table: PathId(table) })
    }

    fn state<const N: usize>(objects: [Object; N]) -> ElementState {
        objects.into_iter().collect()
    }

    #[test]
    fn the_same_needs_nothing() {
        assert_eq!(changes(&state([table(1), rule(0, 1)]), &state([table(1), rule(0, 1)])), []);
    }

    #[test]
    fn a_rule_takes_the_place_of_the_one_with_the_same_selector() {
        let found = changes(&state([table(1), rule(0, 1)]), &state([table(2), rule(0, 2)]));
        assert_eq!(
            found,
            [
                Change::Put { new: table(2), old: None },
                Change::Put { new: rule(0, 2), old: Some(rule(0, 1)) },
                Change::Delete { old: table(1) },
            ]
        );
    }

    #[test]
    fn of_two_rules_in_one_place_the_unwanted_one_goes() {
        let both = state([table(1), table(2), rule(0, 1), rule(0, 2)]);
        let found = changes(&both, &state([table(2), rule(0, 2)]));
        assert_eq!(found, [Change::Delete { old: rule(0, 1) }, Change::Delete { old: table(1) }]);
    }

    #[test]
    fn another_order_is_another_place() {
        let found = changes(&state([table(1), rule(0, 1)]), &state([table(1), rule(1, 1)]));
        assert_eq!(found, [Change::Put { new: rule(1, 1), old: None }, Change::Delete { old: rule(0, 1) }]);
    }
}
