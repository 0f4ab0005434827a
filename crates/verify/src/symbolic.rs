//! The walk of whole classes of packets: what [`walk`](mod@crate::walk) does with one packet, for all of them at once. A
//! class is split where a rule tells its packets apart, and classes that go on together are walked together: so what comes
//! out are ways, each with all the packets that go it.
//!
//! Which instance a flow is given is a hash of the packet: here it may be any that is up.
//!
//! What comes down with the source of one of the switch's sites is dropped before a routed function with one port
//! ([`hides_direction`]). Here that is done with sources of the same site; those of others are taken along with the rest, so
//! that classes do not fall apart by the prefixes of all sites, and who looks at a way has to leave out what was stopped
//! ([`stops_forged`]).

use std::cell::RefCell;

use catena_model::address::Family;
use catena_model::base::TranslationHook;
use catena_model::forwarding::{
    Action, Direction, Insertion, InstanceId, InstanceState, OnFailure, Path, PathId, Policy, Purpose,
    SiteId, Tunnel,
};
use catena_model::resource::Engine;

use crate::class::{Class, Kinds, Span, take, take_out};
use crate::fabric::{
    Fabric, ForeignAction, NextHop, Node, NodeId, OurRule, Place, PortId, Route, RouteAction, Translates,
};
use crate::lookup::LOCAL_TABLE;
use crate::steering::hides_direction;
use crate::tails::Tails;

/// Where some packets go.
#[derive(Clone, Debug)]
pub struct Way {
    /// The packets: disjoint, of one family, at least one class.
    pub classes: Vec<Class>,
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
    /// Whose path it is: by the exits of this site packets leave.
    pub owner: SiteId,
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
    /// Out of the functions, and on from here by a way that is known to be well for all packets.
    Beyond(Place),
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
    /// The owner's packet filter may have changed them.
    Translated,
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
    /// A rule of the owner's leads by another port than one of ours has chosen (`engine: nft`).
    OtherPort,
    NoNeighbour,
    NoTunnel,
    NoPath,
    /// A function that may not be left out has no instance that is up.
    Closed,
    /// The instance that the flow is given cannot be reached.
    Unreachable,
    /// A host that does not forward.
    Host,
    /// With a source of the site that they are for, before a function with one port.
    Forged,
    /// A later fragment whose first one has not been seen.
    Headless,
    /// An end of the cable that they would go by.
    PortDown(Place),
}

impl Way {
    /// Of packets that do not come in.
    pub fn lost(classes: Vec<Class>, cause: Cause) -> Self {
        Self { classes, hops: Vec::new(), passes: Vec::new(), fault: None, end: End::Dropped(cause) }
    }

    pub fn family(&self) -> Family {
        self.classes.first().map_or(Family::V4, |class| class.family)
    }

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
    pub translating: Translating<'f>,
}

/// What it comes to that an owner's packet filter may give packets other addresses.
#[derive(Clone, Copy, Default)]
pub enum Translating<'f> {
    /// Nobody knows what becomes of them.
    #[default]
    Unknown,
    /// Which sources they have from then on does not matter, but it is noted where they are exchanged.
    Noted(&'f Hidden),
    /// They are looked at as if they kept their addresses.
    Ignored,
}

/// Where packets to these destinations leave with other sources than they came with, and of which sources that is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hiding {
    pub place: Place,
    pub from: Option<Span<u128>>,
    pub to: Span<u128>,
}

pub type Hidden = RefCell<Vec<Hiding>>;

/// What becomes of packets at a place.
#[derive(Clone, Copy, PartialEq)]
struct Lead {
    by: By,
    pass: Option<Pass>,
    fault: Option<InstanceId>,
    next: Next,
}

#[derive(Clone, Copy, PartialEq)]
enum Next {
    Go(Place),
    End(End),
}

impl Lead {
    fn new(by: By, next: Next) -> Self {
        Self { by, pass: None, fault: None, next }
    }

    fn end(end: End) -> Self {
        Self::new(By::None, Next::End(end))
    }
}

/// What becomes of all packets at a place: those together that go on together.
#[derive(Default)]
struct Branches(Vec<(Lead, Vec<Class>)>);

impl Branches {
    fn add(&mut self, class: Class, lead: Lead) {
        self.of(lead).push(class);
    }

    fn add_all(&mut self, classes: Vec<Class>, lead: Lead) {
        join(self.of(lead), classes);
    }

    /// Those that are led on so. It may stay empty.
    fn of(&mut self, lead: Lead) -> &mut Vec<Class> {
        list_of(&mut self.0, lead)
    }
}

/// The list of a key, of which there are few; a new one if there is none.
fn list_of<K: PartialEq>(lists: &mut Vec<(K, Vec<Class>)>, key: K) -> &mut Vec<Class> {
    let known = lists.iter().position(|(other, _)| *other == key);
    let nth = known.unwrap_or_else(|| {
        lists.push((key, Vec::new()));
        lists.len() - 1
    });
    &mut lists[nth].1
}

/// Adds classes to others, of which most often there are none.
fn join(list: &mut Vec<Class>, mut classes: Vec<Class>) {
    match list.is_empty() {
        true => *list = classes,
        false => list.append(&mut classes),
    }
}

impl<'f> Walker<'f> {
    pub fn new(fabric: &'f Fabric) -> Self {
        Self {
            fabric,
            with_us: true,
            unclaiming: None,
            home: None,
            tails: None,
            translating: Translating::Unknown,
        }
    }

    pub fn without_us(fabric: &'f Fabric) -> Self {
        Self { with_us: false, ..Self::new(fabric) }
    }

    /// The ways of packets of one family that come to `place`.
    pub fn walk(&self, classes: Vec<Class>, place: Place) -> Vec<Way> {
        if classes.is_empty() {
            return Vec::new();
        }
        if let Some(end) = self.fabric.cut(place) {
            return vec![Way::lost(classes, Cause::PortDown(end))];
        }
        let begun =
            Way { classes, hops: Vec::with_capacity(8), passes: Vec::new(), fault: None, end: End::Loop };
        let mut pending = vec![(begun, place)];
        let mut ways = Vec::new();
        let mut branches = Branches::default();
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
            self.at(place, std::mem::take(&mut way.classes), &mut branches);
            branches.0.retain(|(_, classes)| !classes.is_empty());
            let last = branches.0.pop();
            for (lead, classes) in branches.0.drain(..) {
                self.follow(way.clone(), classes, lead, &mut pending, &mut ways);
            }
            if let Some((lead, classes)) = last {
                self.follow(way, classes, lead, &mut pending, &mut ways);
            }
        }
        ways
    }

    fn follow(
        &self,
        mut way: Way,
        classes: Vec<Class>,
        lead: Lead,
        pending: &mut Vec<(Way, Place)>,
        ways: &mut Vec<Way>,
    ) {
        way.classes = classes;
        way.passes.extend(lead.pass);
        way.fault = lead.fault;
        if let Some(hop) = way.hops.last_mut() {
            hop.by = lead.by;
        }
        match self.shortened(&way, lead) {
            Next::Go(place) => pending.push((way, place)),
            Next::End(end) => {
                way.end = end;
                ways.push(way);
            }
        }
    }

    /// Ends a way where it leaves the functions, if all is known to be well from there on.
    fn shortened(&self, way: &Way, lead: Lead) -> Next {
        match (self.tails, lead.by, lead.next) {
            (Some((tails, entry)), By::Path(_) | By::Transit(_), Next::Go(place))
                if tails.are_well(self.fabric, place, entry, way.family()) =>
            {
                Next::End(End::Beyond(place))
            }
            (_, _, next) => next,
        }
    }

    fn at(&self, place: Place, mut classes: Vec<Class>, branches: &mut Branches) {
        let node = self.fabric.node(place.node);
        let ingress = node.ingresses.get(&place.port).filter(|ingress| {
            self.with_us && !(ingress.purpose == Purpose::Claim && self.unclaiming == Some(place.node))
        });
        let Some(ingress) = ingress else { return self.route(place, classes, false, branches) };
        if let Some(site) = ingress.site {
            if let (Some(policy), Some(direction)) =
                (node.policies.get(&site), ingress.directions.first().copied())
            {
                return self.classify(place, policy, direction, ingress.purpose, classes, branches);
            }
        } else {
            for direction in &ingress.directions {
                self.by_address(place, *direction, ingress.purpose, &mut classes, branches);
            }
        }
        self.route(place, classes, false, branches);
    }

    /// To the policies whose prefixes the site's end is in, the longest first; leaves what is of no site.
    fn by_address(
        &self,
        place: Place,
        direction: Direction,
        purpose: Purpose,
        classes: &mut Vec<Class>,
        branches: &mut Branches,
    ) {
        let Some((family, ends)) = hull_of(classes, |class| class.site_end(direction)) else { return };
        let node = self.fabric.node(place.node);
        let found = node.policies_by_prefix.overlapping(family, ends);
        let mut found: Vec<(u8, SiteId, Span<u128>)> =
            found.map(|found| (found.length, *found.thing, found.span)).collect();
        found.sort_unstable_by_key(|(length, site, _)| std::cmp::Reverse((*length, *site)));
        for (_, site, span) in found {
            let mut asks = Class::all(family);
            *asks.site_end_mut(direction) = span;
            let Some(policy) = node.policies.get(&site) else { continue };
            let of_site = take_out(classes, &asks);
            if !of_site.is_empty() {
                self.classify(place, policy, direction, purpose, of_site, branches);
            }
        }
    }

    /// By the rules of one policy: the first that matches decides.
    fn classify(
        &self,
        place: Place,
        policy: &Policy,
        direction: Direction,
        purpose: Purpose,
        mut classes: Vec<Class>,
        branches: &mut Branches,
    ) {
        let Some(family) = family_of(&classes) else { return };
        // Claimed, or of no use here: not released.
        let mut claimed = Vec::new();
        let mut steered: Vec<(PathId, Vec<Class>)> = Vec::new();
        let rules = policy.rules.iter().map(|rule| (&rule.matches, rule.action));
        for (asks, action) in Class::in_turn(rules, family) {
            let taken = match (purpose, action, &policy.exits) {
                // Whose they are nobody can say.
                (Purpose::Steer, _, Some(_)) if asks.kinds == Kinds::HEADLESS => {
                    branches.of(Lead::end(End::Dropped(Cause::Headless)))
                }
                (Purpose::Steer, Action::Path(path), Some(_)) => list_of(&mut steered, path),
                _ => &mut claimed,
            };
            take(&mut classes, &asks.seen_from_site(direction), |class| taken.push(class));
        }
        for (path, classes) in steered {
            let owner = self.fabric.node(place.node).paths.get(&path).map_or(policy.site, |path| path.site);
            let pass = Pass { switch: place.node, site: policy.site, path, owner, direction };
            self.steer(classes, family, pass, branches);
        }
        match (purpose, &policy.exits) {
            (Purpose::Claim, _) => self.route(place, classes, true, branches),
            (Purpose::Steer, Some(_)) => {
                let next = self.leave(place.node, policy.site, direction, family);
                branches.add_all(classes, Lead::new(By::Transit(policy.site), next));
            }
            (Purpose::Steer, None) => claimed.append(&mut classes),
        }
        self.route(place, claimed, false, branches);
    }

    fn steer(&self, mut classes: Vec<Class>, family: Family, pass: Pass, branches: &mut Branches) {
        let node = self.fabric.node(pass.switch);
        let Some(path) = node.paths.get(&pass.path) else {
            return branches.add_all(classes, Lead::end(End::Dropped(Cause::NoPath)));
        };
        self.set_apart(path, pass, family, &mut classes, branches);
        if classes.is_empty() {
            return;
        }
        if is_closed(node, path) {
            let dropped = Lead { pass: Some(pass), ..Lead::end(End::Dropped(Cause::Closed)) };
            return branches.add_all(classes, dropped);
        }
        for (nth, (_, members)) in in_order(path, pass.direction).enumerate() {
            let mut up = members.filter(|id| is_up(node, *id)).peekable();
            let mut some_good = up.peek().is_none();
            for id in up {
                match self.fault(&pass, id, family, nth + 1 == path.hops.len()) {
                    Some(end) => {
                        let ended = Lead { pass: Some(pass), fault: Some(id), ..Lead::end(end) };
                        branches.of(ended).extend_from_slice(&classes);
                    }
                    None => some_good = true,
                }
            }
            if !some_good {
                return;
            }
        }
        let next = self.leave(pass.switch, pass.owner, pass.direction, family);
        branches.add_all(classes, Lead { pass: Some(pass), ..Lead::new(By::Path(pass.path), next) });
    }

    /// Takes what functions do not get, or what nobody knows how they treat.
    fn set_apart(
        &self,
        path: &Path,
        pass: Pass,
        family: Family,
        classes: &mut Vec<Class>,
        branches: &mut Branches,
    ) {
        let node = self.fabric.node(pass.switch);
        if pass.direction == Direction::Down && stops_forged(node, path) {
            let own = node.policies.get(&pass.site).into_iter().flat_map(|policy| &policy.prefixes);
            for prefix in own.filter(|prefix| prefix.family() == family) {
                let forged = Class { source: Span::of(*prefix), ..Class::all(family) };
                let dropped = Lead::end(End::Dropped(Cause::Forged));
                take(classes, &forged, |class| branches.add(class, dropped));
            }
        }
        if pass.direction == Direction::Up && rewrites(node, path) {
            let unknown = Lead { pass: Some(pass), ..Lead::end(End::Undecided(Unknown::Rewritten)) };
            let errors = Class { kinds: Kinds::ERRORS, ..Class::all(family) };
            take(classes, &errors, |class| branches.add(class, unknown));
        }
    }

    /// How a way ends that leads to this instance, if it ends there.
    fn fault(&self, pass: &Pass, id: InstanceId, family: Family, is_last: bool) -> Option<End> {
        let node = self.fabric.node(pass.switch);
        let placed = node.instances.get(&id)?;
        let (instance, side) = (&placed.instance, placed.first(pass.direction));
        let reached = instance.insertion != Insertion::L3 || side.taker.of(family).is_some();
        let known = self.fabric.function(pass.switch, side.port, pass.direction);
        let down = placed.ports().find_map(|port| self.fabric.cut(Place { node: pass.switch, port }));
        // Packets do not wait for copies of them.
        if let Some(down) = down.filter(|_| instance.insertion.returns()) {
            return Some(End::Dropped(Cause::PortDown(down)));
        }
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
        let Some(taker) = taker else { return Next::End(End::Dropped(Cause::NoNeighbour)) };
        match self.fabric.cut(taker) {
            Some(end) => Next::End(End::Dropped(Cause::PortDown(end))),
            None => Next::Go(taker),
        }
    }

    /// By the rules of the node, ours and its owner's, in the order of their priorities.
    fn route(&self, place: Place, mut classes: Vec<Class>, released: bool, branches: &mut Branches) {
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

/// What rules of routing ask for.
#[derive(Clone, Copy)]
struct Ends {
    from: Option<Span<u128>>,
    to: Option<Span<u128>>,
}

impl Ends {
    fn from(span: Span<u128>) -> Self {
        Self { from: Some(span), to: None }
    }

    fn to(span: Span<u128>) -> Self {
        Self { from: None, to: Some(span) }
    }

    fn intersection(self, other: Self) -> Option<Self> {
        let both = |one: Option<Span<u128>>, other: Option<Span<u128>>| match (one, other) {
            (Some(one), Some(other)) => one.intersection(&other).map(Some),
            (one, other) => Some(one.or(other)),
        };
        Some(Self { from: both(self.from, other.from)?, to: both(self.to, other.to)? })
    }

    /// What classes of one family have of them; leaves the rest. Of ICMP errors it is the senders that are asked for.
    fn take_out(self, classes: &mut Vec<Class>) -> Vec<Class> {
        if classes.iter().all(|class| self.cover(class)) {
            return std::mem::take(classes);
        }
        let mut taken = Vec::new();
        self.take(classes, |class| taken.push(class));
        taken
    }

    /// Does `then` with each of that.
    fn take(self, classes: &mut Vec<Class>, mut then: impl FnMut(Class)) {
        let (count, mut left) = (classes.len(), 0);
        for nth in 0..count {
            let class = classes[nth];
            let sources = class.header_sources();
            let meets =
                |asks: Option<Span<u128>>, span: Span<u128>| asks.is_none_or(|asks| asks.meets(&span));
            if !meets(self.from, sources) || !meets(self.to, class.destination) {
                if left < nth {
                    classes[left] = class;
                }
                left += 1;
            } else if self.cover(&class) {
                then(class);
            } else {
                self.take_parts(&class, classes, &mut then);
            }
        }
        classes.drain(left..count);
    }

    fn cover(self, class: &Class) -> bool {
        self.from.is_none_or(|from| from.covers(&class.header_sources()))
            && self.to.is_none_or(|to| to.covers(&class.destination))
    }

    fn take_parts(self, class: &Class, rest: &mut Vec<Class>, then: &mut impl FnMut(Class)) {
        let mut asks = Class::all(class.family);
        asks.destination = self.to.unwrap_or(asks.destination);
        let Some(from) = self.from else {
            class.split(&asks, rest).into_iter().for_each(then);
            return;
        };
        let mut parts = vec![*class];
        take(&mut parts, &Class { kinds: Kinds::OF_FLOWS, source: from, ..asks }, &mut *then);
        take(&mut parts, &Class { kinds: Kinds::ERRORS, senders: from, ..asks }, then);
        rest.append(&mut parts);
    }
}

/// The least that the headers' addresses of some classes of one family are in: by these rules are looked up.
struct Around {
    family: Family,
    sources: Span<u128>,
    destinations: Span<u128>,
}

impl Around {
    /// `None`: there is no class.
    fn of(classes: &[Class]) -> Option<Self> {
        let (family, sources) = hull_of(classes, Class::header_sources)?;
        let (_, destinations) = hull_of(classes, |class| class.destination)?;
        Some(Self { family, sources, destinations })
    }

    fn meets(&self, ends: Ends) -> bool {
        ends.from.is_none_or(|from| from.meets(&self.sources))
            && ends.to.is_none_or(|to| to.meets(&self.destinations))
    }
}

/// The family of some classes, which is the same, and the least span that these addresses of theirs are in; `None`: there is
/// no class.
fn hull_of(classes: &[Class], addresses: impl Fn(&Class) -> Span<u128>) -> Option<(Family, Span<u128>)> {
    let (first, others) = classes.split_first()?;
    let hull = others.iter().fold(addresses(first), |hull, class| hull.hull(&addresses(class)));
    Some((first.family, hull))
}

fn family_of(classes: &[Class]) -> Option<Family> {
    classes.first().map(|class| class.family)
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

pub fn is_up(node: &Node, id: InstanceId) -> bool {
    node.instances.get(&id).is_some_and(|placed| placed.instance.state == InstanceState::Up)
}

/// Whether packets with a source of one of the switch's sites do not come down a path, whichever instances they are given.
pub fn stops_forged(node: &Node, path: &Path) -> bool {
    let stops = |id| node.instances.get(&id).is_some_and(|placed| hides_direction(&placed.instance));
    path.hops.iter().any(|hop| {
        let mut up = hop.ids().filter(|id| is_up(node, *id)).peekable();
        up.peek().is_some() && up.all(stops)
    })
}

/// Whether a function changes addresses.
fn rewrites(node: &Node, path: &Path) -> bool {
    let instances = path.hops.iter().flat_map(|hop| hop.ids()).filter_map(|id| node.instances.get(&id));
    instances.map(|placed| &placed.instance).any(|instance| instance.rewrites)
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
