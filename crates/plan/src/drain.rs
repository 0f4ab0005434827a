//! What flows may still be on after an edit.

use catena_model::forwarding::{ForwardingState, Hop, Key, Object, Policy};

/// The objects of `installed` that are not in `desired` but that flows started on: paths of sites that keep being
/// steered, and the instances on them. They stay until no flow is left, or a deadline has passed; flows that are then
/// left are taken on by the new path. A site that is no longer steered has no flows to wait for: nothing is sent here.
pub fn draining(installed: &ForwardingState, desired: &ForwardingState) -> ForwardingState {
    let mut kept = ForwardingState::default();
    for (name, element) in &installed.elements {
        let desired = desired.element(name);
        for object in element.iter() {
            let Object::Path(path) = object else { continue };
            let steered = |object: &Object| matches!(object, Object::Policy(Policy { exits: Some(_), .. }));
            if desired.get(&object.key()).is_none()
                && desired.get(&Key::Policy(path.site)).is_some_and(steered)
            {
                kept.insert(name, object.clone());
                let instances = path.hops.iter().flat_map(Hop::ids).map(Key::Instance);
                let unwanted = instances.filter(|key| desired.get(key).is_none());
                for instance in unwanted.filter_map(|key| element.get(&key)) {
                    kept.insert(name, instance.clone());
                }
            }
        }
    }
    kept
}
