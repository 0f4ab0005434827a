//! The network as the symbolic walk sees it: names are numbers, and rules, policies, routes and tunnels are found by the
//! addresses that they are about.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashSet};
use std::hash::Hash;
use std::net::IpAddr;

use catena_model::address::{Family, Prefix};
use catena_model::base::{
    BaseRouteAction, BaseRouting, BaseRule, BaseRuleAction, Translation, TranslationHook,
};
use catena_model::forwarding::{
    Action, Direction, Ingress, Instance, InstanceId, Key, Object, Path, PathId, Policy, Rule, Selector,
    Side, SiteId, Table, Tunnel, VlanId,
};
use catena_model::name::{FunctionName, InstanceName, NodeName, PortName};
use catena_model::resource::{Engine, LinkEnd, Role};

use crate::Network;
use crate::class::Span;
use crate::intent::home;
use crate::lookup::{engine_of, has_own_networks, of_inventory};
use crate::prefix_index::PrefixIndex;
use crate::quick_hash::QuickMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u32);

/// A port of a node; only together with the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(u32);

/// Where packets are: at a node, having come in by a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub node: NodeId,
    pub port: PortId,
}

pub struct Fabric {
    nodes: Vec<Node>,
    by_name: QuickMap<NodeName, NodeId>,
    tunnel_ends: QuickMap<TunnelIdentity, BTreeSet<(NodeId, SiteId)>>,
    /// The addresses of driven elements.
    driven: HashSet<IpAddr>,
    /// The addresses of all sites.
    customers: PrefixIndex<()>,
    /// The addresses of the links between the network's own nodes.
    inner: PrefixIndex<()>,
    /// What a switch reaches by a port, for packets that go in a direction.
    functions: QuickMap<(NodeId, PortId, Direction), FunctionSide>,
    /// The hosts that are functions, or customers' routers.
    busy_hosts: HashSet<NodeId>,
}

/// What an end of a tunnel is told by: its own address, the other end's, the key.
type TunnelIdentity = (IpAddr, IpAddr, Option<u32>);

/// A side of an instance, as the inventory has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionSide {
    pub function: FunctionName,
    pub instance: InstanceName,
}

pub struct Node {
    pub name: NodeName,
    down: BTreeSet<PortName>,
    /// `None`: a host, which is not driven.
    pub role: Option<Role>,
    pub forwards: bool,
    ports: Vec<Port>,
    port_ids: QuickMap<PortName, PortId>,
    /// By what means our rules are installed.
    pub engine: Engine,
    pub base_rules: Vec<ForeignRule>,
    pub translations: Vec<Translates>,
    pub our_priority: u32,
    /// Whether more than single addresses are the node's own: see [`has_own_networks`].
    pub has_own_networks: bool,
    pub base_tables: QuickMap<u32, PrefixIndex<Route>>,
    rules: QuickMap<Option<PortId>, Rules>,
    pub tables: QuickMap<(PathId, Family), NextHop>,
    pub ingresses: QuickMap<PortId, Ingress>,
    pub policies: QuickMap<SiteId, Policy>,
    pub policies_by_prefix: PrefixIndex<SiteId>,
    pub paths: QuickMap<PathId, Path>,
    vlans: QuickMap<VlanId, BTreeSet<PathId>>,
    /// The rules that lead to each path's table, and the policies that lead to its functions.
    rules_of: QuickMap<PathId, BTreeSet<(u16, Selector)>>,
    policies_of: QuickMap<PathId, BTreeSet<SiteId>>,
    pub instances: QuickMap<InstanceId, Placed>,
    /// Who gets what leaves by the exits of each site's policy, on the way up and on the way down.
    pub exits: QuickMap<SiteId, (Taker, Taker)>,
    pub tunnels: QuickMap<SiteId, Tunnel>,
    pub tunnels_by_prefix: PrefixIndex<SiteId>,
}

/// An instance, and what its sides are.
pub struct Placed {
    pub instance: Instance,
    inside: Reached,
    outside: Reached,
}

impl Placed {
    /// The side that gets packets first that go in a direction.
    pub fn first(&self, direction: Direction) -> &Reached {
        match direction {
            Direction::Up => &self.inside,
            Direction::Down => &self.outside,
        }
    }

    pub fn ports(&self) -> impl Iterator<Item = PortId> {
        [self.inside.port, self.outside.port].into_iter()
    }
}

/// What is reached by a side.
#[derive(Clone, Copy)]
pub struct Reached {
    pub port: PortId,
    pub taker: Taker,
}

/// Where packets get that are handed to a side's next hops, if somebody there has the address.
#[derive(Clone, Copy)]
pub struct Taker {
    v4: Option<Place>,
    v6: Option<Place>,
}

impl Taker {
    pub fn of(self, family: Family) -> Option<Place> {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }
}

pub struct Port {
    pub name: PortName,
    pub cable: Option<Far>,
    is_down: bool,
}

/// The other end of a cable.
pub struct Far {
    pub place: Place,
    pub addresses: Vec<IpAddr>,
    pub driven: bool,
    /// Whether the Internet is beyond the cable.
    pub external: bool,
    /// The near end's.
    pub own_addresses: Vec<IpAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NextHop {
    pub port: PortId,
    pub via: Option<IpAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OurRule {
    pub priority: u32,
    pub from: Option<Span<u128>>,
    pub to: Option<Span<u128>>,
    pub unless_released: bool,
    pub table: PathId,
}

/// The rules of one node for one port, found by what they ask for.
#[derive(Default)]
struct Rules {
    by_source: PrefixIndex<OurRule>,
    by_destination: PrefixIndex<OurRule>,
}

pub struct ForeignRule {
    /// Among ours: see [`Node::turn`].
    pub priority: u32,
    pub family: Family,
    pub from: Option<Span<u128>>,
    pub to: Option<Span<u128>>,
    pub port: Option<PortId>,
    pub action: ForeignAction,
}

/// What a [`Translation`] can be for.
pub struct Translates {
    pub hook: TranslationHook,
    pub family: Option<Family>,
    pub port: Option<PortId>,
    pub from: Option<Span<u128>>,
    pub to: Option<Span<u128>>,
}

impl Translates {
    /// Whether it can be for packets of a family that come in, or leave, by a port.
    pub fn is_at(&self, hook: TranslationHook, family: Family, port: PortId) -> bool {
        self.hook == hook
            && self.family.is_none_or(|own| own == family)
            && self.port.is_none_or(|own| own == port)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignAction {
    Lookup(u32),
    Drop,
    /// Not understood.
    Opaque,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    pub metric: u32,
    pub action: RouteAction,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteAction {
    Forward(NextHop),
    Local,
    Drop,
}

impl Fabric {
    pub fn new(network: &Network) -> Self {
        let Network { model, state, .. } = network;
        let mut fabric = Self {
            nodes: Vec::new(),
            by_name: QuickMap::default(),
            tunnel_ends: QuickMap::default(),
            driven: HashSet::new(),
            customers: PrefixIndex::default(),
            inner: PrefixIndex::default(),
            functions: QuickMap::default(),
            busy_hosts: HashSet::new(),
        };
        for element in model.elements.values() {
            fabric.add_node(&element.name, Some(element.role), true);
        }
        for host in model.hosts.values() {
            fabric.add_node(&host.name, None, host.forwarding);
        }
        for prefix in model.sites.values().flat_map(|site| &site.prefixes) {
            fabric.customers.insert(*prefix, ());
        }
        let homes: Vec<NodeId> =
            model.sites.values().filter_map(|site| fabric.id(home(model, site)?)).collect();
        fabric.busy_hosts.extend(homes);
        fabric.add_cables(network);
        fabric.add_functions(network);
        let names: Vec<NodeName> = model.elements.keys().chain(model.hosts.keys()).cloned().collect();
        for name in names {
            fabric.add_base(network, &name);
            if let Some(id) = fabric.id(&name) {
                for object in state.element(&name).iter() {
                    fabric.put(id, object);
                }
            }
        }
        fabric
    }

    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    pub fn id(&self, name: &NodeName) -> Option<NodeId> {
        self.by_name.get(name).copied()
    }

    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        (0..).map(NodeId).zip(&self.nodes)
    }

    pub fn place(&self, node: &NodeName, port: &PortName) -> Option<Place> {
        let id = self.id(node)?;
        Some(Place { node: id, port: self.node(id).port_id(port)? })
    }

    /// The places at a node where packets come by this port, or by any.
    pub fn places(&self, node: NodeId, port: Option<&PortName>) -> impl Iterator<Item = Place> {
        let wanted = port.map(|port| self.node(node).port_id(port));
        let ports = self.node(node).ports().map(|(port, _)| port);
        ports
            .filter(move |port| wanted.is_none_or(|wanted| wanted == Some(*port)))
            .map(move |port| Place { node, port })
    }

    /// Whether packets are for a node when they are for its address: it is a host, and neither a function nor a customer's
    /// router, who are there for others.
    pub fn is_host(&self, node: NodeId) -> bool {
        self.node(node).role.is_none() && !self.busy_hosts.contains(&node)
    }

    /// Where elements get packets from hosts, which may send what they like: but for functions, who give back what they got.
    pub fn places_of_hosts(&self) -> impl Iterator<Item = Place> {
        let elements = self.nodes().filter(|(_, node)| node.role.is_some());
        let places = elements
            .flat_map(|(id, node)| node.ports().map(move |(port, at)| (Place { node: id, port }, at)));
        let is_function = |place: &Place| {
            Direction::BOTH
                .iter()
                .any(|direction| self.function(place.node, place.port, *direction).is_some())
        };
        let of_hosts = places.filter(|(_, at)| at.cable.as_ref().is_some_and(|far| !far.driven));
        of_hosts.map(|(place, _)| place).filter(move |place| !is_function(place))
    }

    pub fn function(&self, node: NodeId, port: PortId, direction: Direction) -> Option<&FunctionSide> {
        self.functions.get(&(node, port, direction))
    }

    /// The other end of a tunnel, where it is driven.
    pub fn other_end(&self, tunnel: &Tunnel) -> Option<(NodeId, &Tunnel)> {
        let ends = self.tunnel_ends.get(&(tunnel.remote, tunnel.local, tunnel.key))?;
        let (node, site) = ends.first()?;
        Some((*node, self.node(*node).tunnels.get(site)?))
    }

    /// All tunnels that could be the other end of this one.
    pub fn other_ends(&self, tunnel: &Tunnel) -> impl Iterator<Item = (NodeId, &Tunnel)> {
        let ends = self.tunnel_ends.get(&(tunnel.remote, tunnel.local, tunnel.key)).into_iter().flatten();
        ends.filter_map(|(node, site)| Some((*node, self.node(*node).tunnels.get(site)?)))
    }

    /// What is there by a key.
    pub fn object(&self, id: NodeId, key: &Key) -> Option<Object> {
        let node = self.node(id);
        match key {
            Key::Table(path, family) => {
                let NextHop { port, via } = *node.tables.get(&(*path, *family))?;
                let port = node.port_of(port).name.clone();
                Some(Object::Table(Table { path: *path, family: *family, port, via }))
            }
            Key::Rule(order, selector, table) => {
                let known = node.rules_of.get(table)?.contains(&(*order, selector.clone()));
                let rule = Rule { order: *order, selector: selector.clone(), table: *table };
                known.then_some(Object::Rule(rule))
            }
            Key::Ingress(port) => node.ingresses.get(&node.port_id(port)?).cloned().map(Object::Ingress),
            Key::Instance(id) => {
                node.instances.get(id).map(|placed| Object::Instance(placed.instance.clone()))
            }
            Key::Path(id) => node.paths.get(id).cloned().map(Object::Path),
            Key::Policy(site) => node.policies.get(site).cloned().map(Object::Policy),
            Key::Tunnel(site) => node.tunnels.get(site).cloned().map(Object::Tunnel),
        }
    }

    /// Whether all these addresses are a site's.
    pub fn is_of_customers(&self, family: Family, addresses: Span<u128>) -> bool {
        self.customers.covers(family, addresses)
    }

    /// Whether all these addresses are on one link within the network.
    pub fn is_inner(&self, family: Family, addresses: Span<u128>) -> bool {
        self.inner.covers(family, addresses)
    }

    /// Whether a place is where the Internet is.
    pub fn is_outside(&self, place: Place) -> bool {
        let port = self.node(place.node).cable(place.port);
        port.and_then(|far| self.node(far.place.node).cable(far.place.port)).is_some_and(|back| back.external)
    }

    /// The end of a port's cable that is down, so that nothing gets through.
    pub fn cut(&self, place: Place) -> Option<Place> {
        let near = self.node(place.node).port_of(place.port);
        if near.is_down {
            return Some(place);
        }
        let far = near.cable.as_ref()?.place;
        self.node(far.node).port_of(far.port).is_down.then_some(far)
    }

    pub fn is_driven(&self, address: IpAddr) -> bool {
        self.driven.contains(&address)
    }

    /// Has `object` in the place of what was there by its key. Objects are put anew after they were [taken](Self::take).
    pub fn put(&mut self, id: NodeId, object: &Object) {
        let node = &mut self.nodes[id.0 as usize];
        match object {
            Object::Table(table) => {
                let next_hop = NextHop { port: node.port(&table.port), via: table.via };
                node.tables.insert((table.path, table.family), next_hop);
            }
            Object::Rule(rule) => node.put_rule(rule),
            Object::Ingress(ingress) => {
                let port = node.port(&ingress.port);
                node.ingresses.insert(port, ingress.clone());
            }
            Object::Instance(instance) => {
                let [inside, outside] = [&instance.inside, &instance.outside].map(|side| node.reach(side));
                node.instances.insert(instance.id, Placed { instance: instance.clone(), inside, outside });
            }
            Object::Path(path) => {
                if let Some(vlan) = path.vlan {
                    node.vlans.entry(vlan).or_default().insert(path.id);
                }
                node.paths.insert(path.id, path.clone());
            }
            Object::Policy(policy) => {
                for prefix in &policy.prefixes {
                    node.policies_by_prefix.insert(*prefix, policy.site);
                }
                node.put_policy(policy);
            }
            Object::Tunnel(tunnel) => {
                node.port(&tunnel.underlay);
                for prefix in &tunnel.allowed {
                    node.tunnels_by_prefix.insert(*prefix, tunnel.site);
                }
                node.tunnels.insert(tunnel.site, tunnel.clone());
                let ends = self.tunnel_ends.entry((tunnel.local, tunnel.remote, tunnel.key)).or_default();
                ends.insert((id, tunnel.site));
            }
        }
    }

    /// Takes what is there by this key away.
    pub fn take(&mut self, id: NodeId, key: &Key) {
        let node = &mut self.nodes[id.0 as usize];
        match key {
            Key::Table(path, family) => drop(node.tables.remove(&(*path, *family))),
            Key::Rule(order, selector, table) => {
                let rule = Rule { order: *order, selector: selector.clone(), table: *table };
                node.take_rule(&rule);
            }
            Key::Ingress(port) => {
                if let Some(port) = node.port_id(port) {
                    node.ingresses.remove(&port);
                }
            }
            Key::Instance(instance) => drop(node.instances.remove(instance)),
            Key::Path(path) => {
                if let Some(vlan) = node.paths.remove(path).and_then(|path| path.vlan) {
                    forget(&mut node.vlans, vlan, path);
                }
            }
            Key::Policy(site) => {
                let Some(policy) = node.take_policy(*site) else { return };
                for prefix in &policy.prefixes {
                    node.policies_by_prefix.remove(*prefix, site);
                }
            }
            Key::Tunnel(site) => {
                let Some(tunnel) = node.tunnels.remove(site) else { return };
                for prefix in &tunnel.allowed {
                    node.tunnels_by_prefix.remove(*prefix, site);
                }
                let identity = (tunnel.local, tunnel.remote, tunnel.key);
                forget(&mut self.tunnel_ends, identity, &(id, *site));
            }
        }
    }

    /// Has `object` in the place of one that is [for the same packets](are_for_the_same): it is found as that one was.
    pub fn replace(&mut self, id: NodeId, object: &Object) {
        let node = &mut self.nodes[id.0 as usize];
        match object {
            Object::Policy(policy) => {
                node.take_policy(policy.site);
                node.put_policy(policy);
            }
            _ => self.put(id, object),
        }
    }

    fn add_node(&mut self, name: &NodeName, role: Option<Role>, forwards: bool) {
        self.by_name.insert(name.clone(), NodeId(self.nodes.len() as u32));
        self.nodes.push(Node::new(name.clone(), role, forwards));
    }

    fn add_cables(&mut self, network: &Network) {
        for link in network.model.links.values() {
            let [a, b] = &link.ends;
            let (Some(place_a), Some(place_b)) = (self.end(a), self.end(b)) else { continue };
            if !a.external && !b.external {
                for address in a.addresses.iter().chain(&b.addresses) {
                    self.inner.insert(Prefix::of(*address), ());
                }
            }
            for (near, far, here, there) in [(a, b, place_a, place_b), (b, a, place_b, place_a)] {
                let addresses = |end: &LinkEnd| end.addresses.iter().map(|address| address.addr()).collect();
                let driven = self.node(there.node).role.is_some();
                let own_addresses: Vec<IpAddr> = addresses(near);
                if self.node(here.node).role.is_some() {
                    self.driven.extend(&own_addresses);
                }
                let (addresses, external) = (addresses(far), near.external);
                let far = Far { place: there, addresses, driven, external, own_addresses };
                let node = &mut self.nodes[here.node.0 as usize];
                node.ports[here.port.0 as usize].cable = Some(far);
            }
        }
    }

    fn end(&mut self, end: &LinkEnd) -> Option<Place> {
        let node = self.id(&end.node)?;
        Some(Place { node, port: self.nodes[node.0 as usize].port(&end.port) })
    }

    fn add_functions(&mut self, network: &Network) {
        for function in network.model.functions.values() {
            for instance in &function.instances {
                let sides = [(&instance.inside, Direction::Up), (&instance.outside, Direction::Down)];
                for (side, direction) in sides {
                    let Some(node) = self.id(&side.element) else { continue };
                    let port = self.nodes[node.0 as usize].port(&side.port);
                    let (function, instance) = (function.name.clone(), instance.name.clone());
                    let known = FunctionSide { function, instance };
                    self.functions.entry((node, port, direction)).or_insert(known);
                    let host = self.node(node).cable(port).map(|far| far.place.node);
                    self.busy_hosts.extend(host);
                }
            }
        }
    }

    fn add_base(&mut self, network: &Network, name: &NodeName) {
        let Some(id) = self.id(name) else { return };
        let node = &mut self.nodes[id.0 as usize];
        node.engine = engine_of(network.model, name);
        match network.base.get(name) {
            Some(base) => node.set_base(base),
            None => node.set_base(&of_inventory(network.model, network.topology, name)),
        }
    }
}

/// Whether two objects of one key are for the same packets, wherever they lead them.
pub fn are_for_the_same(old: &Object, new: &Object) -> bool {
    match (old, new) {
        (Object::Table(_), Object::Table(_)) => true,
        (Object::Path(old), Object::Path(new)) => old.vlan == new.vlan,
        (Object::Policy(old), Object::Policy(new)) => old.prefixes == new.prefixes,
        _ => false,
    }
}

fn paths_of(policy: &Policy) -> impl Iterator<Item = PathId> {
    policy.rules.iter().filter_map(|rule| match rule.action {
        Action::Path(path) => Some(path),
        Action::Claim => None,
    })
}

/// Takes `value` out of the set of `key`.
fn forget<K: Eq + Hash, V: Ord>(sets: &mut QuickMap<K, BTreeSet<V>>, key: K, value: &V) {
    if let Entry::Occupied(mut set) = sets.entry(key) {
        set.get_mut().remove(value);
        if set.get().is_empty() {
            set.remove();
        }
    }
}

impl Node {
    fn new(name: NodeName, role: Option<Role>, forwards: bool) -> Self {
        let mut node = Self {
            name,
            down: BTreeSet::new(),
            role,
            forwards,
            ports: Vec::new(),
            port_ids: QuickMap::default(),
            engine: Engine::default(),
            base_rules: Vec::new(),
            translations: Vec::new(),
            our_priority: 0,
            has_own_networks: false,
            base_tables: QuickMap::default(),
            rules: QuickMap::default(),
            tables: QuickMap::default(),
            ingresses: QuickMap::default(),
            policies: QuickMap::default(),
            policies_by_prefix: PrefixIndex::default(),
            paths: QuickMap::default(),
            vlans: QuickMap::default(),
            rules_of: QuickMap::default(),
            policies_of: QuickMap::default(),
            instances: QuickMap::default(),
            exits: QuickMap::default(),
            tunnels: QuickMap::default(),
            tunnels_by_prefix: PrefixIndex::default(),
        };
        node.port(&PortName::tunnel());
        node
    }

    /// The port by which all tunnels are entered and left.
    pub const TUNNEL: PortId = PortId(0);

    pub fn port_of(&self, id: PortId) -> &Port {
        &self.ports[id.0 as usize]
    }

    pub fn port_id(&self, name: &PortName) -> Option<PortId> {
        self.port_ids.get(name).copied()
    }

    pub fn cable(&self, port: PortId) -> Option<&Far> {
        self.port_of(port).cable.as_ref()
    }

    /// Whether packets may leave by a port with another source: replies are given the old one as their destination again before
    /// any rule is asked. The routing engine is asked before that, and inside the network nobody else knows the new one.
    pub fn returns_translated(&self, port: PortId) -> bool {
        self.engine != Engine::Steer && self.cable(port).is_some_and(|far| far.external && !far.driven)
    }

    pub fn ports(&self) -> impl Iterator<Item = (PortId, &Port)> {
        (0..).map(PortId).zip(&self.ports)
    }

    /// Our rules for packets that come in by a port which could match some of the class's addresses.
    pub fn rules(
        &self,
        family: Family,
        port: PortId,
        source: Span<u128>,
        destination: Span<u128>,
    ) -> impl Iterator<Item = OurRule> {
        let groups = [Some(port), None].into_iter().filter_map(|port| self.rules.get(&port));
        groups.flat_map(move |rules| {
            let by_source = rules.by_source.overlapping(family, source);
            by_source.chain(rules.by_destination.overlapping(family, destination)).map(|found| *found.thing)
        })
    }

    /// How many paths have this VLAN.
    pub fn paths_of_vlan(&self, vlan: VlanId) -> usize {
        self.vlans.get(&vlan).map_or(0, BTreeSet::len)
    }

    /// The paths that have this path's VLAN, this one among them.
    pub fn of_same_vlan(&self, path: PathId) -> impl Iterator<Item = PathId> {
        let vlan = self.paths.get(&path).and_then(|path| path.vlan);
        vlan.and_then(|vlan| self.vlans.get(&vlan)).into_iter().flatten().copied()
    }

    /// What the rules ask for that lead to a path's table.
    pub fn rules_of(&self, path: PathId) -> impl Iterator<Item = &Selector> {
        self.rules_of.get(&path).into_iter().flatten().map(|(_, selector)| selector)
    }

    /// The policies that lead to a path's functions.
    pub fn policies_of(&self, path: PathId) -> impl Iterator<Item = &Policy> {
        self.policies_of.get(&path).into_iter().flatten().filter_map(|site| self.policies.get(site))
    }

    fn reach(&mut self, side: &Side) -> Reached {
        let port = self.port(&side.port);
        let far = self.cable(port);
        let taker = |family| {
            let via = side.next_hops.of(family)?;
            far.filter(|far| far.addresses.contains(&via)).map(|far| far.place)
        };
        Reached { port, taker: Taker { v4: taker(Family::V4), v6: taker(Family::V6) } }
    }

    /// The number of a port, new if it has none.
    fn port(&mut self, name: &PortName) -> PortId {
        if let Some(id) = self.port_ids.get(name) {
            return *id;
        }
        let id = PortId(self.ports.len() as u32);
        self.ports.push(Port { name: name.clone(), cable: None, is_down: self.down.contains(name) });
        self.port_ids.insert(name.clone(), id);
        id
    }

    /// But for the prefixes by which it is found.
    fn put_policy(&mut self, policy: &Policy) {
        if let Some(exits) = &policy.exits {
            let [up, down] = [&exits.up, &exits.down].map(|side| self.reach(side).taker);
            self.exits.insert(policy.site, (up, down));
        }
        for path in paths_of(policy) {
            self.policies_of.entry(path).or_default().insert(policy.site);
        }
        self.policies.insert(policy.site, policy.clone());
    }

    fn take_policy(&mut self, site: SiteId) -> Option<Policy> {
        let policy = self.policies.remove(&site)?;
        self.exits.remove(&site);
        for path in paths_of(&policy) {
            forget(&mut self.policies_of, path, &site);
        }
        Some(policy)
    }

    fn put_rule(&mut self, rule: &Rule) {
        let port = rule.selector.in_port.as_ref().map(|port| self.port(port));
        let ours = self.ours(rule);
        let (index, prefix) = self.index_of(rule, port);
        index.insert(prefix, ours);
        self.rules_of.entry(rule.table).or_default().insert((rule.order, rule.selector.clone()));
    }

    fn take_rule(&mut self, rule: &Rule) {
        let port = rule.selector.in_port.as_ref().map(|port| self.port(port));
        let ours = self.ours(rule);
        let (index, prefix) = self.index_of(rule, port);
        if index.remove(prefix, &ours) {
            forget(&mut self.rules_of, rule.table, &(rule.order, rule.selector.clone()));
        }
    }

    fn ours(&self, rule: &Rule) -> OurRule {
        let selector = &rule.selector;
        OurRule {
            priority: self.our_priority + u32::from(rule.order),
            from: selector.from.map(Span::of),
            to: selector.to.map(Span::of),
            unless_released: selector.unless_released,
            table: rule.table,
        }
    }

    /// Where a rule is found: by its source, or else by its destination.
    fn index_of(&mut self, rule: &Rule, port: Option<PortId>) -> (&mut PrefixIndex<OurRule>, Prefix) {
        let rules = self.rules.entry(port).or_default();
        let selector = &rule.selector;
        match (selector.from, selector.to) {
            (None, Some(to)) => (&mut rules.by_destination, to),
            (from, _) => (&mut rules.by_source, from.unwrap_or(Prefix::all(selector.family))),
        }
    }

    fn set_base(&mut self, base: &BaseRouting) {
        self.our_priority = base.our_priority;
        self.has_own_networks = has_own_networks(base);
        self.down.clone_from(&base.down);
        for port in &mut self.ports {
            port.is_down = self.down.contains(&port.name);
        }
        for route in &base.routes {
            let action = match &route.action {
                BaseRouteAction::Forward { port, via } => {
                    RouteAction::Forward(NextHop { port: self.port(port), via: *via })
                }
                BaseRouteAction::Local => RouteAction::Local,
                BaseRouteAction::Drop => RouteAction::Drop,
            };
            let route_of = Route { metric: route.metric, action };
            self.base_tables.entry(route.table).or_default().insert(route.prefix, route_of);
        }
        for rule in &base.rules {
            let rule = self.foreign(rule);
            self.base_rules.push(rule);
        }
        self.base_rules.sort_by_key(|rule| rule.priority);
        for Translation { hook, family, port, from, to, .. } in &base.translations {
            let port = port.as_ref().map(|port| self.port(port));
            let (from, to) = (from.map(Span::of), to.map(Span::of));
            self.translations.push(Translates { hook: *hook, family: *family, port, from, to });
        }
    }

    /// In which turn a foreign rule is asked, among ours of [`our_priority`](Self::our_priority) and the following. An engine
    /// that chooses hops has one line for all of ours, at the first of these priorities.
    fn turn(&self, priority: u32) -> u32 {
        match self.engine {
            Engine::Nft | Engine::Steer if priority > self.our_priority => {
                priority.saturating_add(Rule::ORDERS.into())
            }
            _ => priority,
        }
    }

    fn foreign(&mut self, rule: &BaseRule) -> ForeignRule {
        let action = match &rule.action {
            _ if !rule.opaque.is_empty() => ForeignAction::Opaque,
            BaseRuleAction::Lookup(table) => ForeignAction::Lookup(*table),
            BaseRuleAction::Drop => ForeignAction::Drop,
            BaseRuleAction::Other(_) => ForeignAction::Opaque,
        };
        ForeignRule {
            priority: self.turn(rule.priority),
            family: rule.family,
            from: rule.from.map(Span::of),
            to: rule.to.map(Span::of),
            port: rule.in_port.as_ref().map(|port| self.port(port)),
            action,
        }
    }
}
