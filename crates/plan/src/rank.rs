//! Who must be ready before whom: how far each element is from the end of the ways that it is on.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use catena_model::forwarding::{Direction, ForwardingState, Object, PathId, Purpose};
use catena_model::name::{NodeName, PortName};
use catena_model::topology::Topology;

/// Lower ranks receive from higher ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank(u32);

impl Rank {
    /// Receives what all others send: a policy that steers.
    const SINK: Rank = Rank(0);
    /// Sends to all others: a policy that claims requests.
    const SOURCE: Rank = Rank(u32::MAX);
    /// A policy that claims replies: before the requests, so that no reply comes back beside the functions that its
    /// request has passed.
    const REPLIES: Rank = Rank(u32::MAX - 1);

    /// The rank in the opposite order: for taking away what was put in this one.
    pub fn reversed(self) -> Rank {
        Rank(u32::MAX - self.0)
    }
}

/// The ranks within one forwarding state.
pub struct Ranks<'a> {
    /// For each path and each element that has a table for it: how many more elements have one after it.
    depth: HashMap<(PathId, &'a NodeName), u32>,
    elements: HashMap<&'a NodeName, Rank>,
    /// The elements that packets of sites come in by.
    claims_requests: HashSet<&'a NodeName>,
}

impl<'a> Ranks<'a> {
    pub fn new(state: &'a ForwardingState, topology: &'a Topology) -> Self {
        let mut next: BTreeMap<PathId, HashMap<&NodeName, &NodeName>> = BTreeMap::new();
        let tunnels = TunnelEnds::of(state);
        for (name, element) in &state.elements {
            for object in element.iter() {
                if let Object::Table(table) = object {
                    let receiver = tunnels
                        .far_end(name, &table.port)
                        .or_else(|| topology.cable(name, &table.port).map(|cable| &cable.far.node));
                    // A table without a known receiver ends its way here.
                    next.entry(table.path).or_default().insert(name, receiver.unwrap_or(name));
                }
            }
        }
        let mut depth = HashMap::new();
        for (path, next) in &next {
            for start in next.keys() {
                // A way is no longer than it has elements, even if the state is damaged and it goes round.
                let hops = std::iter::successors(next.get(start), |node| next.get(**node)).take(next.len());
                let last = |node: &&&NodeName| next.contains_key(**node);
                depth.insert((*path, *start), hops.take_while(last).count() as u32);
            }
        }
        let claims_up = |object: &Object| match object {
            Object::Ingress(ingress) => {
                ingress.purpose == Purpose::Claim && ingress.directions.contains(&Direction::Up)
            }
            _ => false,
        };
        let with_claim = state.elements.iter().filter(|(_, element)| element.iter().any(claims_up));
        let claims_requests = with_claim.map(|(name, _)| name).collect();
        let mut ranks = Self { depth, elements: HashMap::new(), claims_requests };
        for (name, element) in &state.elements {
            let lowest =
                element.iter().filter(|object| object.is_classifier()).map(|o| ranks.of_classifier(name, o));
            ranks.elements.insert(name, lowest.min().unwrap_or(Rank::SINK));
        }
        ranks
    }

    /// When a classifier may begin to send packets on.
    pub fn of_classifier(&self, element: &NodeName, classifier: &Object) -> Rank {
        match classifier {
            Object::Rule(rule) => {
                Rank(1 + self.depth.get(&(rule.table, element)).copied().unwrap_or_default())
            }
            Object::Policy(policy) if policy.exits.is_none() => {
                match self.claims_requests.contains(element) {
                    true => Rank::SOURCE,
                    false => Rank::REPLIES,
                }
            }
            _ => Rank::SINK,
        }
    }

    /// The lowest rank of an element's classifiers.
    pub fn of_element(&self, element: &NodeName) -> Rank {
        self.elements.get(element).copied().unwrap_or(Rank::SINK)
    }
}

/// Which elements end the same tunnels.
struct TunnelEnds<'a> {
    by_local: HashMap<IpAddr, &'a NodeName>,
    remotes: HashMap<&'a NodeName, IpAddr>,
}

impl<'a> TunnelEnds<'a> {
    fn of(state: &'a ForwardingState) -> Self {
        let mut ends = Self { by_local: HashMap::new(), remotes: HashMap::new() };
        for (name, element) in &state.elements {
            for object in element.iter() {
                if let Object::Tunnel(tunnel) = object {
                    ends.by_local.insert(tunnel.local, name);
                    ends.remotes.insert(name, tunnel.remote);
                }
            }
        }
        ends
    }

    /// The element at the far end of the tunnels of `element`. An access element has one tunnel; one in the cloud may
    /// have many, but then it is the last element of the ways into them, and any of them will do.
    fn far_end(&self, element: &NodeName, port: &PortName) -> Option<&'a NodeName> {
        if *port != PortName::tunnel() {
            return None;
        }
        self.by_local.get(self.remotes.get(element)?).copied()
    }
}
