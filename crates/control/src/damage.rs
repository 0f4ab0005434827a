//! What is not installed although no request has to do with it: somebody's broken function must not stop the others.

use std::collections::BTreeMap;

use catena_model::forwarding::{Action, ElementState as Installed, ForwardingState, Hop, Key, Object};
use catena_model::name::NodeName;

/// What had to be installed before a request, has to be after it too, and is not. To repair it is the loop's part, not
/// the request's, unless something that the request brings uses it.
#[derive(Clone, Debug, Default)]
pub struct Damage(BTreeMap<NodeName, Installed>);

impl Damage {
    /// Of the elements that were `found`, when `former` is to become `wanted`.
    pub fn of(
        found: &BTreeMap<NodeName, Installed>,
        former: &ForwardingState,
        wanted: &ForwardingState,
    ) -> Self {
        let of_element = |name: &NodeName, found: &Installed| {
            let (former, wanted) = (former.element(name), wanted.element(name));
            let missing = wanted.iter().filter(|object| former.contains(object) && !found.contains(object));
            let mut damage: Installed = missing.cloned().collect();
            let mut used: Vec<Key> =
                wanted.iter().filter(|object| !former.contains(object)).flat_map(uses).collect();
            while let Some(key) = used.pop() {
                used.extend(damage.remove(&key).iter().flat_map(uses));
            }
            damage
        };
        let damage = found.iter().map(|(name, found)| (name.clone(), of_element(name, found)));
        Self(damage.filter(|(_, damage)| !damage.is_empty()).collect())
    }

    pub fn is_on(&self, name: &NodeName) -> bool {
        self.0.contains_key(name)
    }

    pub fn elements(&self) -> impl Iterator<Item = &NodeName> {
        self.0.keys()
    }

    /// What was found on an element, as it would be without the damage.
    pub fn mended(&self, name: &NodeName, mut found: Installed) -> Installed {
        found.extend(self.0.get(name).into_iter().flat_map(Installed::iter).cloned());
        found
    }
}

/// What must be installed for an object to be.
fn uses(object: &Object) -> Vec<Key> {
    match object {
        Object::Rule(rule) => vec![Key::Table(rule.table, rule.selector.family)],
        Object::Path(path) => path.hops.iter().flat_map(Hop::ids).map(Key::Instance).collect(),
        Object::Policy(policy) => {
            let paths = policy.rules.iter().filter_map(|rule| match rule.action {
                Action::Path(path) => Some(Key::Path(path)),
                Action::Claim => None,
            });
            paths.collect()
        }
        Object::Table(_) | Object::Tunnel(_) | Object::Ingress(_) | Object::Instance(_) => Vec::new(),
    }
}
