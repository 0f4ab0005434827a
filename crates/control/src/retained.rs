//! Paths that new flows no longer take, kept for the old ones.

use std::collections::BTreeMap;

use catena_model::forwarding::{ElementState, ForwardingState, Hop, Key, Object, PathId};
use catena_model::name::NodeName;
use serde::{Deserialize, Serialize};

use crate::report::Timestamp;

/// What is kept, on which element.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Retained(BTreeMap<NodeName, BTreeMap<PathId, Retiree>>);

/// One path on one element, with the instances that only it uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Retiree {
    pub objects: Vec<Object>,
    pub generation: u32,
    /// It goes then, whatever flows are left.
    pub deadline: Timestamp,
}

impl Retained {
    /// What of `draining` is to be kept: paths whose generation is known. `retire` says generation and deadline of one.
    pub fn of(
        draining: &ForwardingState,
        retire: impl Fn(&NodeName, PathId) -> Option<(u32, Timestamp)>,
    ) -> Self {
        let mut retained = Self::default();
        for (element, state) in &draining.elements {
            for object in state.iter() {
                let Object::Path(path) = object else { continue };
                let Some((generation, deadline)) = retire(element, path.id) else { continue };
                let instances = path.hops.iter().flat_map(Hop::ids);
                let instances = instances.filter_map(|id| state.get(&Key::Instance(id)));
                let objects = instances.chain([object]).cloned().collect();
                let retiree = Retiree { objects, generation, deadline };
                retained.0.entry(element.clone()).or_default().insert(path.id, retiree);
            }
        }
        retained
    }

    pub fn iter(&self) -> impl Iterator<Item = (&NodeName, PathId, &Retiree)> {
        self.0
            .iter()
            .flat_map(|(element, paths)| paths.iter().map(move |(id, retiree)| (element, *id, retiree)))
    }

    pub fn get(&self, element: &NodeName, path: PathId) -> Option<&Retiree> {
        self.0.get(element)?.get(&path)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn remove(&mut self, element: &NodeName, path: PathId) {
        if let Some(paths) = self.0.get_mut(element) {
            paths.remove(&path);
            if paths.is_empty() {
                self.0.remove(element);
            }
        }
    }

    /// `desired` with what is kept beside it. Where both have an object of one key, the desired one holds.
    pub fn added_to(&self, desired: &ForwardingState) -> ForwardingState {
        let mut state = desired.clone();
        for (name, _, retiree) in self.iter() {
            let element: &mut ElementState = state.elements.entry(name.clone()).or_default();
            for object in &retiree.objects {
                if element.get(&object.key()).is_none() {
                    element.insert(object.clone());
                }
            }
        }
        state
    }
}
