//! The walk of whole classes of packets: what [`walk`](mod@crate::walk) does with one packet, for all of them at once. A
//! class is split where a rule tells its packets apart, and classes that go on together are walked together: so what comes
//! out are ways, each with all the packets that go it.
//!
//! Which instance a flow is given is a hash of the packet: here it may be any that is up.
//!
//! What comes down with the source of one of the switch's sites is dropped before a routed function with one port
//! ([`hides_direction`](crate::steering::hides_direction)). Here that is done with sources of the same site; those of others are taken along with the rest, so
//! that classes do not fall apart by the prefixes of all sites, and who looks at a way has to leave out what was stopped
//! ([`stops_forged`]).

mod ends;
mod routing;
mod switch;

use std::cell::RefCell;

use catena_model::forwarding::{InstanceId, Purpose};

pub use self::routing::stops_outer;
pub use self::switch::{in_order, is_up, stops_forged};
use crate::class::{Class, Span};
use crate::fabric::{Fabric, NodeId, Place};
use crate::tails::Tails;
use crate::way::{By, Cause, End, Hop, Pass, Way};

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
}
