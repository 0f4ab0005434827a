//! The walk of whole classes of packets: what [`walk`](mod@crate::walk) does with one packet, for all of them at once. A
//! class is split where a rule tells its packets apart, so what comes out are classes all of whose packets go one way.
//!
//! Which instance a flow is given is a hash of the packet: here it may be any that is up.

use catena_model::address::Family;
use catena_model::forwarding::{
    Action, Direction, Insertion, InstanceId, InstanceState, OnFailure, Path, PathId, Policy, Purpose, SiteId,
};

use crate::class::{Class, Span};
use crate::fabric::{
    Fabric, ForeignAction, NextHop, Node, NodeId, OurRule, Place, PortId, Route, RouteAction,
};
use crate::tails::Tails;

/// Where the packets of one class go.
#[derive(Clone, Debug)]
pub struct Way {
    pub class: Class,
    pub hops: Vec<Hop>,
    pub passes: Vec<Pass>,
    /// It is this instance that the end comes of: flows that are given another one go another way.
    pub fault: Option<InstanceId>,
    pub end: End,
}

/// A node on a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    pub place: Place,
    pub by: By,
}

/// What led the packets on from a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Nothing: the way ends there.
    None,
    /// The node's own routing.
    Base,
    /// One of our rules.
    Rule(PathId),
    /// The functions of a path.
    Path(PathId),
    /// A policy, without functions.
    Transit(SiteId),
}

/// A path that was taken on a switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    pub switch: NodeId,
    pub site: SiteId,
    pub path: PathId,
    pub direction: Direction,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Delivered,
    Internet,
    /// Onto a link where the inventory knows nobody with the address.
    Link(PortId),
    Site(SiteId),
    /// With the customer, at the place where the walker was told to stop.
    Home,
    /// Out of the functions, and on by a way that is known to be well for all packets.
    Beyond,
    Dropped(Cause),
    Loop,
    Undecided(Unknown),
}

/// Why it is not known what happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// A foreign rule asks for something that we cannot evaluate.
    ForeignRule,
    /// Rules of equal priority lead to different places: which comes first was decided by when they were made.
    EqualRules,
    /// Several routes of the owner's are equally good.
    EqualRoutes,
    /// No link of the inventory is at the port.
    NoLink,
    /// A function has changed the addresses.
    Rewritten,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    NoRoute,
    /// A route of the owner's says so.
    Route,
    /// A rule of the owner's says so.
    ForeignRule,
    /// A rule of ours leads into a table that is not there.
    NoTable,
    NoNeighbour,
    NoTunnel,
    NoPath,
    /// A function that may not be left out has no instance that is up.
    Closed,
    /// The instance that the flow is given cannot be reached.
    Unreachable,
    /// A host that does not forward.
    Host,
}

impl Way {
    pub fn last(&self) -> Option<Place> {
        self.hops.last().map(|hop| hop.place)
    }
}

/// A network in one of the states in which it is looked at.
#[derive(Clone, Copy)]
pub struct Walker<'f> {
    pub fabric: &'f Fabric,
    /// Without us there is base routing alone.
    pub with_us: bool,
    /// The programs that claim are gone from this element.
    pub unclaiming: Option<NodeId>,
    /// A customer's own router: what it does with what it gets is not ours.
    pub home: Option<NodeId>,
    /// Ways out of the functions that need not be walked again, for what came in here.
    pub tails: Option<(&'f Tails, Place)>,
}

struct Branch {
    class: Class,
    by: By,
    pass: Option<Pass>,
    fault: Option<InstanceId>,
    next: Next,
}

#[derive(Clone, Copy)]
enum Next {
    Go(Place),
    End(End),
}

impl Branch {
    fn new(class: Class, by: By, next: Next) -> Self {
        Self { class, by, pass: None, fault: None, next }
    }

    fn end(class: Class, end: End) -> Self {
        Self::new(class, By::None, Next::End(end))
    }
}

impl<'f> Walker<'f> {
    pub fn new(fabric: &'f Fabric) -> Self {
        Self { fabric, with_us: true, unclaiming: None, home: None, tails: None }
    }

    pub fn without_us(fabric: &'f Fabric) -> Self {
        Self { with_us: false, ..Self::new(fabric) }
    }

    /// The ways of all packets of `class` that come to `place`.
    pub fn walk(&self, class: Class, place: Place) -> Vec<Way> {
        let begun =
            Way { class, hops: Vec::with_capacity(8), passes: Vec::new(), fault: None, end: End::Loop };
        let mut pending = vec![(begun, place)];
        let mut ways = Vec::new();
        let mut branches = Vec::new();
        while let Some((mut way, place)) = pending.pop() {
            if way.hops.iter().any(|hop| hop.place == place) {
                ways.push(way);
                continue;
            }
            way.hops.push(Hop { place, by: By::None });
            if self.home == Some(place.node) {
                way.end = End::Home;
                ways.push(way);
                continue;
            }
            self.at(place, way.class, &mut branches);
            let last = branches.pop();
            for branch in branches.drain(..) {
                follow(way.clone(), self.shortened(branch), &mut pending, &mut ways);
            }
            if let Some(branch) = last {
                follow(way, self.shortened(branch), &mut pending, &mut ways);
            }
        }
        ways
    }

    /// Ends a way where it leaves the functions, if all is known to be well from there on.
    fn shortened(&self, branch: Branch) -> Branch {
        match (self.tails, branch.by, branch.next) {
            (Some((tails, entry)), By::Path(_) | By::Transit(_), Next::Go(place))
                if tails.are_well(self.fabric, place, entry, branch.class.family) =>
            {
                Branch { next: Next::End(End::Beyond), ..branch }
            }
            _ => branch,
        }
    }

    fn at(&self, place: Place, class: Class, branches: &mut Vec<Branch>) {
        let node = self.fabric.node(place.node);
        let ingress = node.ingresses.get(&place.port).filter(|ingress| {
            self.with_us && !(ingress.purpose == Purpose::Claim && self.unclaiming == Some(place.node))
        });
        let Some(ingress) = ingress else { return self.route(place, class, false, branches) };
        let mut rest = vec![class];
        if let Some(site) = ingress.site {
            if let (Some(policy), Some(direction)) =
                (node.policies.get(&site), ingress.directions.first().copied())
            {
                self.classify(place, policy, direction, ingress.purpose, class, branches);
                rest.clear();
            }
        } else {
            for direction in &ingress.directions {
                rest = rest
                    .into_iter()
                    .flat_map(|class| self.by_address(place, *direction, ingress.purpose, class, branches))
                    .collect();
            }
        }
        for class in rest {
            self.route(place, class, false, branches);
        }
    }

    /// To the policies whose prefixes the site's end is in, the longest first; gives back what is of no site.
    fn by_address(
        &self,
        place: Place,
        direction: Direction,
        purpose: Purpose,
        class: Class,
        branches: &mut Vec<Branch>,
    ) -> Vec<Class> {
        let node = self.fabric.node(place.node);
        let found = node.policies_by_prefix.overlapping(class.family, *class.site_end(direction));
        let mut found: Vec<(u8, SiteId, Span<u128>)> =
            found.map(|found| (found.length, *found.thing, found.span)).collect();
        found.sort_unstable_by_key(|(length, site, _)| std::cmp::Reverse((*length, *site)));
        let mut rest = vec![class];
        for (_, site, span) in found {
            let mut asks = Class::all(class.family);
            *asks.site_end_mut(direction) = span;
            let Some(policy) = node.policies.get(&site) else { continue };
            rest = take(rest, &asks, |class| {
                self.classify(place, policy, direction, purpose, class, branches);
            });
        }
        rest
    }

    /// By the rules of one policy: the first that matches decides.
    fn classify(
        &self,
        place: Place,
        policy: &Policy,
        direction: Direction,
        purpose: Purpose,
        class: Class,
        branches: &mut Vec<Branch>,
    ) {
        let mut rest = vec![class];
        for rule in &policy.rules {
            let Some(asks) = Class::of_flow(&rule.matches, class.family) else { continue };
            rest = take(rest, &asks.seen_from_site(direction), |class| {
                match (purpose, rule.action, &policy.exits) {
                    (Purpose::Steer, Action::Path(path), Some(_)) => {
                        let pass = Pass { switch: place.node, site: policy.site, path, direction };
                        self.steer(class, pass, branches);
                    }
                    // Claimed, or of no use here: not released.
                    _ => self.route(place, class, false, branches),
                }
            });
        }
        for class in rest {
            match (purpose, &policy.exits) {
                (Purpose::Claim, _) => self.route(place, class, true, branches),
                (Purpose::Steer, Some(_)) => {
                    let next = self.leave(place.node, policy.site, direction, class.family);
                    branches.push(Branch::new(class, By::Transit(policy.site), next));
                }
                (Purpose::Steer, None) => self.route(place, class, false, branches),
            }
        }
    }

    fn steer(&self, class: Class, pass: Pass, branches: &mut Vec<Branch>) {
        let node = self.fabric.node(pass.switch);
        let Some(path) = node.paths.get(&pass.path) else {
            branches.push(Branch::end(class, End::Dropped(Cause::NoPath)));
            return;
        };
        let mut end = |end, pass, fault| {
            branches.push(Branch { pass, fault, ..Branch::end(class, end) });
        };
        if is_closed(node, path) {
            end(End::Dropped(Cause::Closed), Some(pass), None);
            return;
        }
        for (nth, (_, members)) in in_order(path, pass.direction).enumerate() {
            let mut up = members.filter(|id| is_up(node, *id)).peekable();
            let mut some_good = up.peek().is_none();
            for id in up {
                match self.fault(&pass, id, class.family, nth + 1 == path.hops.len()) {
                    Some(fault) => end(fault, Some(pass), Some(id)),
                    None => some_good = true,
                }
            }
            if !some_good {
                return;
            }
        }
        let next = self.leave(pass.switch, pass.site, pass.direction, class.family);
        branches.push(Branch { pass: Some(pass), ..Branch::new(class, By::Path(pass.path), next) });
    }

    /// How a way ends that leads to this instance, if it ends there.
    fn fault(&self, pass: &Pass, id: InstanceId, family: Family, is_last: bool) -> Option<End> {
        let node = self.fabric.node(pass.switch);
        let placed = node.instances.get(&id)?;
        let (instance, side) = (&placed.instance, placed.first(pass.direction));
        let reached = instance.insertion != Insertion::L3 || side.taker.of(family).is_some();
        let known = self.fabric.function(pass.switch, side.port, pass.direction);
        match () {
            () if !reached || known.is_none() => Some(End::Dropped(Cause::Unreachable)),
            () if instance.rewrites && (pass.direction == Direction::Down || !is_last) => {
                Some(End::Undecided(Unknown::Rewritten))
            }
            () => None,
        }
    }

    fn leave(&self, switch: NodeId, site: SiteId, direction: Direction, family: Family) -> Next {
        let taker = self.fabric.node(switch).exits.get(&site).and_then(|(up, down)| match direction {
            Direction::Up => up.of(family),
            Direction::Down => down.of(family),
        });
        taker.map_or(Next::End(End::Dropped(Cause::NoNeighbour)), Next::Go)
    }

    /// By the rules of the node, ours and its owner's, in the order of their priorities.
    fn route(&self, place: Place, class: Class, released: bool, branches: &mut Vec<Branch>) {
        #[derive(Clone, Copy, PartialEq)]
        enum Line {
            Foreign(ForeignAction),
            Ours(PathId),
        }
        let node = self.fabric.node(place.node);
        let mut lines: Vec<(u32, Class, Line)> = Vec::new();
        for rule in &node.base_rules {
            if rule.family == class.family
                && rule.port.is_none_or(|port| port == place.port)
                && let Some(asks) = both_ends(class.family, rule.from, rule.to).intersection(&class)
            {
                lines.push((rule.priority, asks, Line::Foreign(rule.action)));
            }
        }
        if self.with_us {
            for OurRule { priority, from, to, unless_released, table } in
                node.rules(class.family, place.port, class.source, class.destination)
            {
                if !(unless_released && released)
                    && let Some(asks) = both_ends(class.family, from, to).intersection(&class)
                {
                    lines.push((priority, asks, Line::Ours(table)));
                }
            }
        }
        // Of equal priority the foreign ones come first, as they stand first here.
        lines.sort_by_key(|(priority, ..)| *priority);
        let mut rest = vec![class];
        for (nth, (priority, asks, line)) in lines.iter().enumerate() {
            if rest.is_empty() {
                break;
            }
            // Of two equal ones the older comes first, which nobody tells us.
            let equal = lines[nth + 1..].iter().take_while(|(other, ..)| other == priority);
            for (_, also_asks, other) in equal {
                if line != other
                    && matches!((line, other), (Line::Ours(_), _) | (_, Line::Ours(_)))
                    && let Some(both) = asks.intersection(also_asks)
                {
                    rest = take(rest, &both, |class| {
                        branches.push(Branch::end(class, End::Undecided(Unknown::EqualRules)));
                    });
                }
            }
            let mut passed_on = Vec::new();
            rest = take(rest, asks, |class| match *line {
                Line::Ours(path) => self.by_our_rule(place.node, path, class, branches),
                Line::Foreign(ForeignAction::Drop) => {
                    branches.push(Branch::end(class, End::Dropped(Cause::ForeignRule)));
                }
                Line::Foreign(ForeignAction::Opaque) => {
                    branches.push(Branch::end(class, End::Undecided(Unknown::ForeignRule)));
                }
                Line::Foreign(ForeignAction::Lookup(table)) => {
                    passed_on.extend(self.by_base_table(place, table, class, branches));
                }
            });
            rest.append(&mut passed_on);
        }
        branches.extend(rest.into_iter().map(|class| Branch::end(class, End::Dropped(Cause::NoRoute))));
    }

    fn by_our_rule(&self, id: NodeId, path: PathId, class: Class, branches: &mut Vec<Branch>) {
        match self.fabric.node(id).tables.get(&(path, class.family)) {
            None => branches.push(Branch::end(class, End::Dropped(Cause::NoTable))),
            Some(next_hop) => self.forward(id, *next_hop, By::Rule(path), class, branches),
        }
    }

    /// By the longest prefix, then the lowest metric; gives back what no route is for.
    fn by_base_table(
        &self,
        place: Place,
        table: u32,
        class: Class,
        branches: &mut Vec<Branch>,
    ) -> Vec<Class> {
        let node = self.fabric.node(place.node);
        let Some(table) = node.base_tables.get(&table) else { return vec![class] };
        let mut routes: Vec<(u8, Span<u128>, Route)> = table
            .overlapping(class.family, class.destination)
            .map(|found| (found.length, found.span, *found.thing))
            .collect();
        routes.sort_by_key(|(length, _, route)| (std::cmp::Reverse(*length), route.metric));
        let mut rest = vec![class];
        for (nth, (length, span, route)) in routes.iter().enumerate() {
            if rest.is_empty() {
                break;
            }
            let equal = |(other_length, other_span, other): &&(u8, Span<u128>, Route)| {
                (other_length, other_span, other.metric) == (length, span, route.metric)
            };
            let several =
                routes[nth + 1..].iter().take_while(equal).any(|(_, _, other)| other.action != route.action);
            let asks = both_ends(class.family, None, Some(*span));
            rest = take(rest, &asks, |class| match route.action {
                _ if several => branches.push(Branch::end(class, End::Undecided(Unknown::EqualRoutes))),
                RouteAction::Local => branches.push(Branch::end(class, End::Delivered)),
                _ if !node.forwards => {
                    branches.push(Branch::end(class, End::Dropped(Cause::Host)));
                }
                RouteAction::Drop => branches.push(Branch::end(class, End::Dropped(Cause::Route))),
                RouteAction::Forward(next_hop) => {
                    self.forward(place.node, next_hop, By::Base, class, branches)
                }
            });
        }
        rest
    }

    /// Out by a port: to the other end of the cable, if somebody there takes the packets.
    fn forward(&self, id: NodeId, next_hop: NextHop, by: By, class: Class, branches: &mut Vec<Branch>) {
        let NextHop { port, via } = next_hop;
        if port == Node::TUNNEL {
            return self.tunnel(id, by, class, branches);
        }
        let Some(far) = self.fabric.node(id).cable(port) else {
            branches.push(Branch::new(class, by, Next::End(End::Undecided(Unknown::NoLink))));
            return;
        };
        let go = Next::Go(far.place);
        let mut rest = vec![class];
        if via.is_none() || (far.external && !far.driven) {
            for address in far.addresses.iter().filter(|address| Family::of(**address) == class.family) {
                let asks = both_ends(class.family, None, Some(Span::host(*address)));
                rest = take(rest, &asks, |class| branches.push(Branch::new(class, by, go)));
            }
        }
        let next = match via {
            _ if far.external && !far.driven => Next::End(End::Internet),
            Some(via) if far.addresses.contains(&via) => go,
            None if !far.driven => Next::End(End::Link(port)),
            _ => Next::End(End::Dropped(Cause::NoNeighbour)),
        };
        branches.extend(rest.into_iter().map(|class| Branch::new(class, by, next)));
    }

    /// Into the tunnel that has the destination at its far end, and out of it there.
    fn tunnel(&self, id: NodeId, by: By, class: Class, branches: &mut Vec<Branch>) {
        let node = self.fabric.node(id);
        let lost = |class| Branch::new(class, by, Next::End(End::Dropped(Cause::NoTunnel)));
        let found = node.tunnels_by_prefix.overlapping(class.family, class.destination);
        let mut found: Vec<(u8, SiteId, Span<u128>)> =
            found.map(|found| (found.length, *found.thing, found.span)).collect();
        found.sort_unstable_by_key(|(length, site, _)| std::cmp::Reverse((*length, *site)));
        let mut rest = vec![class];
        for (_, site, span) in found {
            let Some(entry) = node.tunnels.get(&site) else { continue };
            let asks = both_ends(class.family, None, Some(span));
            rest = take(rest, &asks, |class| {
                if !has_underlay(node, entry) {
                    branches.push(lost(class));
                    return;
                }
                match self.fabric.other_end(entry) {
                    None if self.fabric.is_driven(entry.remote) => branches.push(lost(class)),
                    None => branches.push(Branch::new(class, by, Next::End(End::Site(site)))),
                    Some((far, exit)) => {
                        let refused = match has_underlay(self.fabric.node(far), exit) {
                            true => self.decapsulated(far, exit.site, class, |class| {
                                let go = Next::Go(Place { node: far, port: Node::TUNNEL });
                                branches.push(Branch::new(class, by, go));
                            }),
                            false => vec![class],
                        };
                        branches.extend(refused.into_iter().map(lost));
                    }
                }
            });
        }
        branches.extend(rest.into_iter().map(lost));
    }

    /// Does `then` with what may come out of the tunnel of a site, by its sources, and gives back the rest.
    pub fn decapsulated(
        &self,
        id: NodeId,
        site: SiteId,
        class: Class,
        mut then: impl FnMut(Class),
    ) -> Vec<Class> {
        let node = self.fabric.node(id);
        let found = node.tunnels_by_prefix.overlapping(class.family, class.source);
        let mut rest = vec![class];
        for found in found.filter(|found| *found.thing == site) {
            rest = take(rest, &both_ends(class.family, Some(found.span), None), &mut then);
        }
        rest
    }
}

fn follow(mut way: Way, branch: Branch, pending: &mut Vec<(Way, Place)>, ways: &mut Vec<Way>) {
    way.class = branch.class;
    way.passes.extend(branch.pass);
    way.fault = branch.fault;
    if let Some(hop) = way.hops.last_mut() {
        hop.by = branch.by;
    }
    match branch.next {
        Next::Go(place) => pending.push((way, place)),
        Next::End(end) => {
            way.end = end;
            ways.push(way);
        }
    }
}

/// Does `then` with what the classes have of `asks`, and gives back the rest.
fn take(classes: Vec<Class>, asks: &Class, mut then: impl FnMut(Class)) -> Vec<Class> {
    let mut rest = Vec::new();
    for class in classes {
        match class.intersection(asks) {
            None => rest.push(class),
            Some(common) => {
                then(common);
                if common != class {
                    rest.extend(class.minus(asks));
                }
            }
        }
    }
    rest
}

fn both_ends(family: Family, source: Option<Span<u128>>, destination: Option<Span<u128>>) -> Class {
    let mut class = Class::all(family);
    class.source = source.unwrap_or(class.source);
    class.destination = destination.unwrap_or(class.destination);
    class
}

/// Whether a tunnel's outer packets leave and come by the port that it names.
pub fn has_underlay(node: &Node, tunnel: &catena_model::forwarding::Tunnel) -> bool {
    node.cable_at(&tunnel.underlay).is_some_and(|far| far.own_addresses.contains(&tunnel.local))
}

pub fn is_up(node: &Node, id: InstanceId) -> bool {
    node.instances.get(&id).is_some_and(|placed| placed.instance.state == InstanceState::Up)
}

/// Whether a function that may not be left out has no instance that is up.
fn is_closed(node: &Node, path: &Path) -> bool {
    path.hops.iter().any(|hop| hop.on_failure == OnFailure::Closed && !hop.ids().any(|id| is_up(node, id)))
}

/// The instances of each hop of a path, in the order in which packets pass them, with the hops' positions.
pub fn in_order(
    path: &Path,
    direction: Direction,
) -> impl Iterator<Item = (usize, impl Iterator<Item = InstanceId>)> {
    let count = path.hops.len();
    (0..count).map(move |nth| {
        let position = if direction == Direction::Up { nth } else { count - 1 - nth };
        (position, path.hops[position].ids())
    })
}
