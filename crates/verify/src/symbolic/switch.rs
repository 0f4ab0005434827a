//! What a switch does: which policy packets are for, and through which functions they go.

use catena_model::address::Family;
use catena_model::forwarding::{
    Action, Direction, Insertion, InstanceId, InstanceState, OnFailure, Path, PathId, Policy, Purpose, SiteId,
};

use super::ends::{family_of, hull_of};
use super::{Branches, Lead, Next, Walker, list_of};
use crate::class::{Class, Kinds, Span, take, take_out};
use crate::fabric::{Node, NodeId, Place};
use crate::steering::hides_direction;
use crate::way::{By, Cause, End, Pass, Unknown};

impl Walker<'_> {
    /// To the policies whose prefixes the site's end is in, the longest first; leaves what is of no site.
    pub(super) fn by_address(
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
    pub(super) fn classify(
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
