//! Which port leads where: the links of a [`Model`], indexed by node.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use crate::name::{NodeName, PortName};
use crate::resource::{Element, LinkEnd, Model, PortRef};

/// The cables between the nodes of a network.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    cables: HashMap<NodeName, BTreeMap<PortName, Cable>>,
}

/// A link, as seen from one of its ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cable {
    pub near: LinkEnd,
    pub far: LinkEnd,
    /// The largest IP packet that it carries, in bytes.
    pub mtu: u16,
}

impl Topology {
    pub fn of(model: &Model) -> Self {
        let mut cables: HashMap<NodeName, BTreeMap<PortName, Cable>> = HashMap::new();
        for link in model.links.values() {
            let [a, b] = &link.ends;
            for (near, far) in [(a, b), (b, a)] {
                let cable = Cable { near: near.clone(), far: far.clone(), mtu: link.mtu };
                cables.entry(near.node.clone()).or_default().insert(near.port.clone(), cable);
            }
        }
        Self { cables }
    }

    /// The cables of a node, in the order of its ports' names.
    pub fn cables(&self, node: &NodeName) -> impl Iterator<Item = &Cable> {
        self.cables.get(node).into_iter().flat_map(BTreeMap::values)
    }

    pub fn cable(&self, node: &NodeName, port: &PortName) -> Option<&Cable> {
        self.cables.get(node)?.get(port)
    }

    /// The cable at a port that somebody named.
    pub fn cable_at(&self, port: &PortRef) -> Option<&Cable> {
        self.cable(&port.element, &port.port)
    }

    /// The same cable, seen from its other end.
    pub fn turned(&self, cable: &Cable) -> Option<&Cable> {
        self.cable(&cable.far.node, &cable.far.port)
    }

    /// The shortest way from one node to the first that `goal` accepts, as the cables to follow. Between the ends it
    /// passes only nodes that `through` accepts. Of equally short ways the one whose ports come first by name.
    pub fn way(
        &self,
        from: &NodeName,
        goal: impl Fn(&NodeName) -> bool,
        through: impl Fn(&NodeName) -> bool,
    ) -> Option<Vec<&Cable>> {
        let mut reached_by: HashMap<&NodeName, &Cable> = HashMap::new();
        let mut seen = BTreeSet::from([from]);
        let mut queue = VecDeque::from([from]);
        while let Some(node) = queue.pop_front() {
            if goal(node) {
                return Some(walk_back(&reached_by, node));
            }
            if node != from && !through(node) {
                continue;
            }
            for cable in self.cables(node) {
                if seen.insert(&cable.far.node) {
                    reached_by.insert(&cable.far.node, cable);
                    queue.push_back(&cable.far.node);
                }
            }
        }
        None
    }
}

fn walk_back<'a>(reached_by: &HashMap<&NodeName, &'a Cable>, goal: &NodeName) -> Vec<&'a Cable> {
    let mut way: Vec<&Cable> = std::iter::successors(reached_by.get(goal).copied(), |cable| {
        reached_by.get(&cable.near.node).copied()
    })
    .collect();
    way.reverse();
    way
}

/// All ports of driven elements beyond which the Internet is, in the order of the elements' names.
pub fn external_ports<'a>(
    model: &'a Model,
    topology: &'a Topology,
) -> impl Iterator<Item = (&'a Element, &'a Cable)> {
    model.elements.values().flat_map(|element| {
        topology.cables(&element.name).filter(|cable| cable.near.external).map(move |cable| (element, cable))
    })
}
