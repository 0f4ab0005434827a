//! Who must be ready before whom: how far each element is from the end of the ways that it is on.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use catena_model::address::Prefix;
use catena_model::forwarding::{ForwardingState, Key, Kind, Object, PathId, Policy, PolicyRule, Rule};
use catena_model::name::{NodeName, PortName};
use catena_model::topology::Topology;

/// Lower ranks receive from higher ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank(u32);

impl Rank {
    /// What claims less than before, before all else: what it no longer claims must not find a switch that has already
    /// been told so, and passes it on without functions. Requests come first, so that no reply comes back beside the
    /// functions that its request has passed.
    const FEWER_REQUESTS: Rank = Rank(0);
    const FEWER_REPLIES: Rank = Rank(1);
    /// Receives what all others send: a policy that steers.
    const SINK: Rank = Rank(2);
    /// The end of a tunnel by which packets come in: a customer may send at any time, so the way behind it comes first.
    const TUNNELS: Rank = Rank(u32::MAX - 2);
    /// What claims replies: before the requests, so that no reply comes back beside the functions that its request has
    /// passed.
    const REPLIES: Rank = Rank(u32::MAX - 1);
    /// Sends to all others: what claims requests.
    const REQUESTS: Rank = Rank(u32::MAX);

    /// A rule on the way, with so many elements after it.
    fn on_the_way(depth: u32) -> Rank {
        Rank(Self::SINK.0 + 1 + depth)
    }

    /// The rank in the opposite order: for taking away what was put in this one.
    pub fn reversed(self) -> Rank {
        Rank(u32::MAX - self.0)
    }
}

/// The ranks within one forwarding state.
pub struct Ranks<'a> {
    state: &'a ForwardingState,
    /// For each path and each element that has a table for it: how many more elements have one after it.
    depth: HashMap<(PathId, &'a NodeName), u32>,
    elements: HashMap<&'a NodeName, Rank>,
    /// Where requests enter, and of which sites: sources of rules that take what is not released.
    requests: HashSet<(&'a NodeName, Prefix)>,
    /// The elements that lead on what comes out of their tunnels.
    tunnel_exits: HashSet<&'a NodeName>,
    /// Those of them that have no tunnel yet, and so no port for what is led into it.
    new_exits: HashSet<&'a NodeName>,
}

impl<'a> Ranks<'a> {
    pub fn new(state: &'a ForwardingState, installed: &ForwardingState, topology: &'a Topology) -> Self {
        let has_tunnel =
            |name: &NodeName| installed.element(name).iter().any(|object| object.kind() == Kind::Tunnel);
        let mut ranks = Self {
            state,
            depth: depths(state, topology),
            elements: HashMap::new(),
            requests: HashSet::new(),
            tunnel_exits: HashSet::new(),
            new_exits: HashSet::new(),
        };
        for (name, Rule { selector, .. }) in rules(state) {
            if selector.unless_released {
                ranks.requests.extend(selector.from.map(|prefix| (name, prefix)));
            }
            if selector.in_port == Some(PortName::tunnel()) {
                ranks.tunnel_exits.insert(name);
                ranks.new_exits.extend((!has_tunnel(name)).then_some(name));
            }
        }
        for (name, element) in &state.elements {
            let lowest = element.iter().filter_map(|object| ranks.of_use(name, object)).min();
            ranks.elements.insert(name, lowest.unwrap_or(Rank::SINK));
        }
        ranks
    }

    /// When `new` may begin to let packets through, in the place of `old`; `None` if it is only there to be used.
    pub fn of_put(&self, element: &NodeName, new: &Object, old: Option<&Object>) -> Option<Rank> {
        let fewer =
            matches!((new, old), (Object::Policy(new), Some(Object::Policy(old))) if claims_less(new, old));
        match self.of_use(element, new) {
            Some(Rank::REQUESTS) if fewer => Some(Rank::FEWER_REQUESTS),
            Some(Rank::REPLIES) if fewer => Some(Rank::FEWER_REPLIES),
            usual => usual,
        }
    }

    /// When `old` must cease to let packets through; `None` if it is only there to be used.
    pub fn of_delete(&self, element: &NodeName, old: &Object) -> Option<Rank> {
        self.of_use(element, old).map(Rank::reversed)
    }

    fn of_use(&self, element: &NodeName, object: &Object) -> Option<Rank> {
        let new_exit = self.new_exits.contains(element);
        match object {
            Object::Rule(Rule { selector, .. }) if selector.unless_released => {
                Some(self.of_entry(element, selector.from.as_ref()))
            }
            Object::Policy(policy) if policy.exits.is_none() => {
                Some(self.of_entry(element, &policy.prefixes))
            }
            Object::Policy(_) => Some(Rank::SINK),
            Object::Tunnel(_) if self.tunnel_exits.contains(element) => Some(Rank::TUNNELS),
            Object::Table(table) if new_exit && table.port == PortName::tunnel() => Some(Rank::TUNNELS),
            Object::Rule(rule) if new_exit && self.leads_into_tunnel(element, rule) => Some(Rank::TUNNELS),
            Object::Rule(rule) => {
                let depth = self.depth.get(&(rule.table, element)).copied().unwrap_or_default();
                Some(Rank::on_the_way(depth))
            }
            Object::Table(_)
            | Object::Ingress(_)
            | Object::Instance(_)
            | Object::Path(_)
            | Object::Tunnel(_) => None,
        }
    }

    /// The lowest rank of what lets packets through on an element.
    pub fn of_element(&self, element: &NodeName) -> Rank {
        self.elements.get(element).copied().unwrap_or(Rank::SINK)
    }

    fn of_entry<'p>(&self, element: &NodeName, prefixes: impl IntoIterator<Item = &'p Prefix>) -> Rank {
        let mut prefixes = prefixes.into_iter();
        match prefixes.any(|prefix| self.requests.contains(&(element, *prefix))) {
            true => Rank::REQUESTS,
            false => Rank::REPLIES,
        }
    }

    fn leads_into_tunnel(&self, element: &NodeName, rule: &Rule) -> bool {
        let table = self.state.element(element).get(&Key::Table(rule.table, rule.selector.family));
        matches!(table, Some(Object::Table(table)) if table.port == PortName::tunnel())
    }
}

/// Whether all that `new` claims was claimed by `old`, of the same prefixes or more.
fn claims_less(new: &Policy, old: &Policy) -> bool {
    let covered = |rule: &PolicyRule| {
        let mut before = old.rules.iter();
        before.any(|former| rule.matches.intersection(&former.matches).as_ref() == Some(&rule.matches))
    };
    new.prefixes.is_superset(&old.prefixes) && new.rules.iter().all(covered)
}

fn rules(state: &ForwardingState) -> impl Iterator<Item = (&NodeName, &Rule)> {
    state.elements.iter().flat_map(|(name, element)| {
        element.iter().filter_map(move |object| match object {
            Object::Rule(rule) => Some((name, rule)),
            _ => None,
        })
    })
}

/// For each path and each element that has a table for it: how many more elements have one after it.
fn depths<'a>(state: &'a ForwardingState, topology: &'a Topology) -> HashMap<(PathId, &'a NodeName), u32> {
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
    depth
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
