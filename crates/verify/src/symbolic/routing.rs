//! What a router does: by which rule packets go, ours or its owner's, by which route, out by which port, and into which tunnel.

use catena_model::address::Family;
use catena_model::base::TranslationHook;
use catena_model::forwarding::{PathId, SiteId, Tunnel};
use catena_model::resource::Engine;

use super::ends::{Around, Ends, family_of, hull_of};
use super::{Branches, Hiding, Lead, Next, Translating, Walker, join};
use crate::class::{Class, Kinds, Span, take};
use crate::fabric::{
    Fabric, ForeignAction, NextHop, Node, NodeId, OurRule, Place, PortId, Route, RouteAction, Translates,
};
use crate::lookup::LOCAL_TABLE;
use crate::way::{By, Cause, End, Unknown};

impl Walker<'_> {
    /// By the rules of the node, ours and its owner's, in the order of their priorities.
    pub(super) fn route(
        &self,
        place: Place,
        mut classes: Vec<Class>,
        released: bool,
        branches: &mut Branches,
    ) {
        self.take_translated(place, TranslationHook::Arriving, &mut classes, branches);
        let Some(around) = Around::of(&classes) else { return };
        let family = around.family;
        let node = self.fabric.node(place.node);
        let mut lines: Vec<(u32, Ends, Line)> = Vec::with_capacity(8);
        for rule in &node.base_rules {
            let ends = Ends { from: rule.from, to: rule.to };
            if rule.family == family && rule.port.is_none_or(|port| port == place.port) && around.meets(ends)
            {
                lines.push((rule.priority, ends, Line::Foreign(rule.action)));
            }
        }
        if self.with_us {
            for OurRule { priority, from, to, unless_released, table } in
                node.rules(family, place.port, around.sources, around.destinations)
            {
                let ends = Ends { from, to };
                if !(unless_released && released) && around.meets(ends) {
                    lines.push((priority, ends, Line::Ours(table)));
                }
            }
        }
        // Of equal priority the foreign ones come first, as they stand first here.
        lines.sort_by_key(|(priority, ..)| *priority);
        if node.engine != Engine::Rules && disagrees(node, family, &lines) {
            self.by_hops(place, &lines, &mut classes, branches);
        } else {
            self.by_lines(place, &lines, None, &mut classes, branches);
        }
        branches.add_all(classes, Lead::end(End::Dropped(Cause::NoRoute)));
    }

    /// By lines in their order, foreign ones by no other port than `guard`; leaves what none is for.
    fn by_lines(
        &self,
        place: Place,
        lines: &[(u32, Ends, Line)],
        guard: Option<PortId>,
        classes: &mut Vec<Class>,
        branches: &mut Branches,
    ) {
        for (nth, (_, ends, line)) in lines.iter().enumerate() {
            if classes.is_empty() {
                break;
            }
            take_disputed(&lines[nth..], classes, branches);
            let mut taken = ends.take_out(classes);
            match *line {
                Line::Ours(path) => self.by_our_rule(place.node, path, taken, branches),
                Line::Foreign(ForeignAction::Drop) => {
                    branches.add_all(taken, Lead::end(End::Dropped(Cause::ForeignRule)));
                }
                Line::Foreign(ForeignAction::Opaque) => {
                    branches.add_all(taken, Lead::end(End::Undecided(Unknown::ForeignRule)));
                }
                Line::Foreign(ForeignAction::Lookup(table)) => {
                    self.by_base_table(place, table, guard, &mut taken, branches);
                    join(classes, taken);
                }
            }
        }
    }

    /// By an engine that chooses hops before the kernel's lines are asked: what has a hop meets the foreign lines before ours,
    /// if the engine does not send it on itself. What it is to be sent on by nft leaves by its hop's port, or not at all.
    fn by_hops(
        &self,
        place: Place,
        lines: &[(u32, Ends, Line)],
        classes: &mut Vec<Class>,
        branches: &mut Branches,
    ) {
        let node = self.fabric.node(place.node);
        let (ours, foreign): (Vec<_>, Vec<_>) =
            lines.iter().copied().partition(|(.., line)| matches!(line, Line::Ours(_)));
        for (nth, (_, ends, line)) in ours.iter().enumerate() {
            take_disputed(&ours[nth..], classes, branches);
            let mut chosen = ends.take_out(classes);
            let (Line::Ours(path), Some(family)) = (*line, family_of(&chosen)) else { continue };
            let Some(hop) = node.tables.get(&(path, family)) else {
                branches.add_all(chosen, Lead::end(End::Dropped(Cause::NoTable)));
                continue;
            };
            let mut kernel = match node.engine {
                Engine::Steer => take_left_to_kernel(node, &mut chosen),
                Engine::Nft | Engine::Rules => std::mem::take(&mut chosen),
            };
            self.by_our_rule(place.node, path, chosen, branches);
            let before = foreign.iter().filter(|(priority, ..)| *priority <= node.our_priority).copied();
            let lines: Vec<_> = before.chain([(node.our_priority, *ends, *line)]).collect();
            let guard = (node.engine == Engine::Nft).then_some(hop.port);
            self.by_lines(place, &lines, guard, &mut kernel, branches);
        }
        self.by_lines(place, &foreign, None, classes, branches);
    }

    fn by_our_rule(&self, id: NodeId, path: PathId, classes: Vec<Class>, branches: &mut Branches) {
        let Some(family) = family_of(&classes) else { return };
        match self.fabric.node(id).tables.get(&(path, family)) {
            None => branches.add_all(classes, Lead::end(End::Dropped(Cause::NoTable))),
            Some(next_hop) => self.forward(id, *next_hop, By::Rule(path), classes, branches),
        }
    }

    /// By the longest prefix, then the lowest metric, and by no other port than `guard`; leaves what no route is for.
    fn by_base_table(
        &self,
        place: Place,
        table: u32,
        guard: Option<PortId>,
        classes: &mut Vec<Class>,
        branches: &mut Branches,
    ) {
        let Some((family, destinations)) = hull_of(classes, |class| class.destination) else { return };
        let node = self.fabric.node(place.node);
        let Some(table) = node.base_tables.get(&table) else { return };
        let mut routes: Vec<(u8, Span<u128>, Route)> = table
            .overlapping(family, destinations)
            .map(|found| (found.length, found.span, *found.thing))
            .collect();
        routes.sort_by_key(|(length, _, route)| (std::cmp::Reverse(*length), route.metric));
        for (nth, (length, span, route)) in routes.iter().enumerate() {
            if classes.is_empty() {
                break;
            }
            let equal = |(other_length, other_span, other): &&(u8, Span<u128>, Route)| {
                (other_length, other_span, other.metric) == (length, span, route.metric)
            };
            let several =
                routes[nth + 1..].iter().take_while(equal).any(|(_, _, other)| other.action != route.action);
            let taken = Ends::to(*span).take_out(classes);
            let end = match route.action {
                _ if several => End::Undecided(Unknown::EqualRoutes),
                RouteAction::Local => End::Delivered,
                _ if !node.forwards => End::Dropped(Cause::Host),
                RouteAction::Drop => End::Dropped(Cause::Route),
                RouteAction::Forward(next_hop) if guard.is_some_and(|port| port != next_hop.port) => {
                    End::Dropped(Cause::OtherPort)
                }
                RouteAction::Forward(next_hop) => {
                    self.forward(place.node, next_hop, By::Base, taken, branches);
                    continue;
                }
            };
            branches.add_all(taken, Lead::end(end));
        }
    }

    /// Out by a port: to the other end of the cable, if somebody there takes the packets.
    fn forward(
        &self,
        id: NodeId,
        next_hop: NextHop,
        by: By,
        mut classes: Vec<Class>,
        branches: &mut Branches,
    ) {
        let NextHop { port, via } = next_hop;
        let node = self.fabric.node(id);
        if !node.returns_translated(port) {
            let leaving = Place { node: id, port };
            self.take_translated(leaving, TranslationHook::Leaving, &mut classes, branches);
        }
        let Some(family) = family_of(&classes) else { return };
        if let Some(end) = self.fabric.cut(Place { node: id, port }) {
            let lost = Next::End(End::Dropped(Cause::PortDown(end)));
            return branches.add_all(classes, Lead::new(by, lost));
        }
        if port == Node::TUNNEL {
            return self.tunnel(id, by, classes, branches);
        }
        let Some(far) = node.cable(port) else {
            return branches.add_all(classes, Lead::new(by, Next::End(End::Undecided(Unknown::NoLink))));
        };
        let go = Next::Go(far.place);
        if via.is_none() || (far.external && !far.driven) {
            for address in far.addresses.iter().filter(|address| Family::of(**address) == family) {
                let asks = Ends::to(Span::host(*address));
                asks.take(&mut classes, |class| branches.add(class, Lead::new(by, go)));
            }
        }
        let next = match via {
            _ if far.external && !far.driven => Next::End(End::Internet),
            Some(via) if far.addresses.contains(&via) => go,
            None if !far.driven => Next::End(End::Link(port)),
            _ => Next::End(End::Dropped(Cause::NoNeighbour)),
        };
        branches.add_all(classes, Lead::new(by, next));
    }

    /// Takes what the owner's packet filter may give other addresses as it comes in here, or leaves.
    fn take_translated(
        &self,
        place: Place,
        hook: TranslationHook,
        classes: &mut Vec<Class>,
        branches: &mut Branches,
    ) {
        let Some(family) = classes.first().map(|class| class.family) else { return };
        let node = self.fabric.node(place.node);
        let met = node.translations.iter().filter(|translates| translates.is_at(hook, family, place.port));
        for Translates { from, to, .. } in met {
            match self.translating {
                Translating::Ignored => {}
                Translating::Noted(hidden)
                    if hook == TranslationHook::Leaving && node.engine != Engine::Steer =>
                {
                    let asked = to.unwrap_or(Span::all(family));
                    let met = classes.iter().filter_map(|class| class.destination.intersection(&asked));
                    hidden.borrow_mut().extend(met.map(|to| Hiding { place, from: *from, to }));
                }
                Translating::Unknown | Translating::Noted(_) => {
                    let unknown = Lead::end(End::Undecided(Unknown::Translated));
                    Ends { from: *from, to: *to }.take(classes, |class| branches.add(class, unknown));
                }
            }
        }
    }

    /// Into the tunnel that has the destination at its far end, and out of it there.
    fn tunnel(&self, id: NodeId, by: By, mut classes: Vec<Class>, branches: &mut Branches) {
        let Some((family, destinations)) = hull_of(&classes, |class| class.destination) else { return };
        let node = self.fabric.node(id);
        let lost_for = |cause| Lead::new(by, Next::End(End::Dropped(cause)));
        let lost = lost_for(Cause::NoTunnel);
        let found = node.tunnels_by_prefix.overlapping(family, destinations);
        let mut found: Vec<(u8, SiteId, Span<u128>)> =
            found.map(|found| (found.length, *found.thing, found.span)).collect();
        found.sort_unstable_by_key(|(length, site, _)| std::cmp::Reverse((*length, *site)));
        for (_, site, span) in found {
            let Some(entry) = node.tunnels.get(&site) else { continue };
            let mut taken = Ends::to(span).take_out(&mut classes);
            let other_end = self.fabric.other_end(entry);
            let stopped = |(id, tunnel)| stops_outer(self.fabric, id, tunnel);
            let end = match (stopped((id, entry)).or_else(|| other_end.and_then(stopped)), other_end) {
                (Some(cause), _) => lost_for(cause),
                (None, None) if self.fabric.is_driven(entry.remote) => lost,
                (None, None) => Lead::new(by, Next::End(End::Site(site))),
                (None, Some((far, exit))) => {
                    let let_in = self.decapsulated(far, exit.site, &mut taken);
                    let go = Next::Go(Place { node: far, port: Node::TUNNEL });
                    branches.add_all(let_in, Lead::new(by, go));
                    lost
                }
            };
            branches.add_all(taken, end);
        }
        branches.add_all(classes, lost);
    }

    /// Takes what may come out of the tunnel of a site, by its sources, and leaves the rest.
    pub fn decapsulated(&self, id: NodeId, site: SiteId, classes: &mut Vec<Class>) -> Vec<Class> {
        let mut let_in = Vec::new();
        let Some((family, sources)) = hull_of(classes, Class::header_sources) else { return let_in };
        let node = self.fabric.node(id);
        let found = node.tunnels_by_prefix.overlapping(family, sources);
        for found in found.filter(|found| *found.thing == site) {
            join(&mut let_in, Ends::from(found.span).take_out(classes));
        }
        let_in
    }
}

/// What a rule of routing does.
#[derive(Clone, Copy, PartialEq)]
enum Line {
    Foreign(ForeignAction),
    Ours(PathId),
}

/// Takes what the first line and one of equal priority would lead elsewhere: of two equal ones the older comes first, which
/// nobody tells us.
fn take_disputed(lines: &[(u32, Ends, Line)], classes: &mut Vec<Class>, branches: &mut Branches) {
    let Some(((priority, ends, line), others)) = lines.split_first() else { return };
    for (_, other_ends, other) in others.iter().take_while(|(other, ..)| other == priority) {
        if line != other
            && matches!((line, other), (Line::Ours(_), _) | (_, Line::Ours(_)))
            && let Some(both) = ends.intersection(*other_ends)
        {
            let unknown = Lead::end(End::Undecided(Unknown::EqualRules));
            both.take(classes, |class| branches.add(class, unknown));
        }
    }
}

/// Whether an engine that chooses hops does not do what the lines say one after the other. The table of the node's own
/// addresses, which comes first, takes nothing from the routing engine.
fn disagrees(node: &Node, family: Family, lines: &[(u32, Ends, Line)]) -> bool {
    let has_ours = lines.iter().any(|(.., line)| matches!(line, Line::Ours(_)));
    has_ours
        && lines.iter().any(|(priority, _, line)| match line {
            Line::Ours(path) => !node.tables.contains_key(&(*path, family)),
            Line::Foreign(ForeignAction::Lookup(LOCAL_TABLE)) => false,
            Line::Foreign(_) => *priority <= node.our_priority,
        })
}

/// Takes what the routing engine does not send on itself (`drivers/steer/bpf/route.bpf.c`): options, odd addresses, what may be
/// for the node.
fn take_left_to_kernel(node: &Node, classes: &mut Vec<Class>) -> Vec<Class> {
    let Some((family, destinations)) = hull_of(classes, |class| class.destination) else { return Vec::new() };
    if node.has_own_networks {
        return std::mem::take(classes);
    }
    let mut left = Vec::new();
    let options = Class { kinds: Kinds::OPTIONS, ..Class::all(family) };
    take(classes, &options, |class| left.push(class));
    for odd in odd_spans(family) {
        Ends::from(*odd).take(classes, |class| left.push(class));
        Ends::to(*odd).take(classes, |class| left.push(class));
    }
    let own = node.base_tables.get(&LOCAL_TABLE).into_iter();
    for found in own.flat_map(|table| table.overlapping(family, destinations)) {
        if found.length == family.bits() {
            Ends::to(found.span).take(classes, |class| left.push(class));
        }
    }
    left
}

/// Addresses of which the kernel knows what is to be done with them: of the own host, of multicast, for later.
fn odd_spans(family: Family) -> &'static [Span<u128>] {
    match family {
        Family::V4 => &[
            Span { first: 0, last: 0x00ff_ffff },
            Span { first: 0x7f00_0000, last: 0x7fff_ffff },
            Span { first: 0xe000_0000, last: 0xffff_ffff },
        ],
        Family::V6 => {
            &[Span { first: 0, last: (1 << 120) - 1 }, Span { first: 0xfe << 120, last: u128::MAX }]
        }
    }
}

/// Why a tunnel's outer packets neither leave nor come by the port that it names, or what was in them gets no further; `None`
/// if they do.
pub fn stops_outer(fabric: &Fabric, id: NodeId, tunnel: &Tunnel) -> Option<Cause> {
    let node = fabric.node(id);
    let underlay = node.port_id(&tunnel.underlay);
    let has_address = |port| node.cable(port).is_some_and(|far| far.own_addresses.contains(&tunnel.local));
    let Some(underlay) = underlay.filter(|port| has_address(*port)) else { return Some(Cause::NoTunnel) };
    let cut = |port| fabric.cut(Place { node: id, port });
    cut(Node::TUNNEL).or_else(|| cut(underlay)).map(Cause::PortDown)
}
