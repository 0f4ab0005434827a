//! What a chain promises, as functions over the ways that its packets go. Each looks at one way, or at one path that was
//! taken, and says what is wrong with it.

use std::cell::OnceCell;

use catena_model::forwarding::{Direction, Hop, InstanceId, Member, OnFailure, Path};
use catena_model::packet::{Packet, pick};
use catena_model::resource::{Role, ServiceFunction};

use crate::class::Class;
use crate::fabric::{Fabric, FunctionSide, NodeId, Place};
use crate::intent::{ClaimedBy, ServedChain, ServedSite};
use crate::kind::Probe;
use crate::symbolic::{Translating, Walker, in_order, is_up};
use crate::verdict::Property;
use crate::way::{By, Cause, End, Pass, Unknown, Way};

/// Something that is wrong.
#[derive(Clone, Debug)]
pub struct Fault {
    /// `None`: it is not known whether something is wrong.
    pub property: Option<Property>,
    pub what: String,
    pub without: Option<Gone>,
    /// The packets that it is about; empty: all that go the way.
    pub packets: Vec<Class>,
    /// Where only some of a box show it, as hashes have it: the whole boxes. Empty: those that it is about do.
    pub among: Vec<Class>,
    /// Whether it is only feared that the property is broken.
    pub is_doubtful: bool,
}

/// What is gone when it happens.
#[derive(Clone, Debug)]
pub enum Gone {
    /// These instances, all that a function has.
    Function { instances: Vec<InstanceId>, name: String },
    /// The programs of an element that tell what is claimed.
    Claims(NodeId),
}

impl Fault {
    pub fn new(property: Property, what: impl Into<String>) -> Self {
        Self { property: Some(property), ..Self::undecided(what) }
    }

    /// What could be so, and nothing shows that it cannot.
    pub fn feared(property: Property, what: impl Into<String>) -> Self {
        Self { is_doubtful: true, ..Self::new(property, what) }
    }

    pub fn undecided(what: impl Into<String>) -> Self {
        let (packets, among) = (Vec::new(), Vec::new());
        Self { property: None, what: what.into(), without: None, packets, among, is_doubtful: false }
    }

    pub fn among(self, among: Vec<Class>) -> Self {
        Self { among, ..self }
    }

    fn of(self, packets: Vec<Class>) -> Self {
        Self { packets, ..self }
    }
}

/// A way that some of a site's packets go.
pub struct Seen<'v> {
    pub fabric: &'v Fabric,
    pub served: &'v ServedSite<'v>,
    pub direction: Direction,
    pub entry: Place,
    pub way: &'v Way,
    /// Those of the way's packets that are looked at.
    pub classes: &'v [Class],
    before: OnceCell<Vec<Way>>,
}

impl<'v> Seen<'v> {
    pub fn new(
        fabric: &'v Fabric,
        served: &'v ServedSite<'v>,
        direction: Direction,
        entry: Place,
        way: &'v Way,
        classes: &'v [Class],
    ) -> Self {
        Self { fabric, served, direction, entry, way, classes, before: OnceCell::new() }
    }

    /// The ways of the same packets without us.
    fn before(&self) -> &[Way] {
        let (home, translating) = (self.served.stop(self.direction), Translating::Ignored);
        let walker = Walker { home, translating, ..Walker::without_us(self.fabric) };
        self.before.get_or_init(|| walker.walk(self.classes.to_vec(), self.entry))
    }

    /// The packets that would get to somebody without us.
    fn would_get_out(&self) -> Vec<Class> {
        self.before().iter().flat_map(|way| that_get_to_somebody(self.fabric, way)).collect()
    }

    /// The paths of this site that were taken.
    fn passes(&self) -> impl Iterator<Item = &Pass> {
        self.way.passes.iter().filter(|pass| Some(pass.site) == self.served.id)
    }

    fn name(&self, node: NodeId) -> &str {
        self.fabric.node(node).name.as_str()
    }

    fn end_name(&self) -> &str {
        self.name(self.way.last().unwrap_or(self.entry).node)
    }
}

/// All that is wrong with a way of packets that a chain claims.
pub fn of_claimed(seen: &Seen, chain: &ServedChain) -> Vec<Fault> {
    if let End::Undecided(unknown) = seen.way.end {
        return vec![not_understood(seen, unknown)];
    }
    [no_bypass(seen), order(seen, chain), no_loop(seen), no_black_hole(seen, chain), isolation(seen)]
        .into_iter()
        .flatten()
        .collect()
}

/// Claimed packets that get out of the network have taken a path of the chain.
///
/// What is addressed to an element on the way to the functions may be delivered there: it reaches neither the gateway nor
/// another site. It may not have been led off that way.
fn no_bypass(seen: &Seen) -> Option<Fault> {
    if seen.passes().next().is_some() {
        return None;
    }
    let led_off = seen.way.hops.iter().any(|hop| matches!(hop.by, By::Base | By::Transit(_)));
    let out = match seen.way.end {
        End::Delivered => led_off || !is_on_the_way(seen),
        _ => gets_out(seen.fabric, seen.way),
    };
    out.then(|| {
        let off = seen.way.hops.iter().find(|hop| matches!(hop.by, By::Base | By::Transit(_)));
        let at = off.map_or(seen.end_name(), |hop| seen.name(hop.place.node));
        Fault::new(Property::NoBypass, format!("claimed packets go round the functions at {at}"))
    })
}

/// Whether a way ends at an element that packets pass before the functions.
fn is_on_the_way(seen: &Seen) -> bool {
    let Some(last) = seen.way.last() else { return false };
    match seen.fabric.node(last.node).role {
        Some(Role::Physical | Role::Router | Role::Switch) => true,
        Some(Role::Access) => seen.direction == Direction::Up && Some(last.node) == seen.served.home,
        Some(Role::Gateway) | None => false,
    }
}

/// The paths taken are one, in the packets' direction, and its hops are the chain's functions in order. A function may be
/// missing if none of its instances is up and it may be skipped.
fn order(seen: &Seen, chain: &ServedChain) -> Option<Fault> {
    let violated = |what: String| Some(Fault::new(Property::Order, what));
    let passes: Vec<&Pass> = seen.passes().collect();
    let pass = match passes.as_slice() {
        [] => return None,
        [pass] => *pass,
        [_, ..] => {
            return violated(format!("the functions are passed {} times", passes.len()));
        }
    };
    if pass.direction != seen.direction {
        return violated(format!("the functions are passed in the order of the way {}", pass.direction));
    }
    let path = seen.fabric.node(pass.switch).paths.get(&pass.path)?;
    if path.hops.len() != chain.functions.len() {
        return violated(format!(
            "path {} has {} functions, the chain {}",
            path.id,
            path.hops.len(),
            chain.functions.len()
        ));
    }
    for (position, members) in in_order(path, pass.direction) {
        let wanted = chain.functions[position];
        let node = seen.fabric.node(pass.switch);
        let mut up = members.filter(|id| is_up(node, *id)).peekable();
        if up.peek().is_none()
            && path.hops[position].on_failure == OnFailure::Skip
            && wanted.on_failure == OnFailure::Closed
        {
            return Some(Fault::new(
                Property::NoBypass,
                format!(
                    "function {} is left out: none of its instances is up, and it may not be skipped",
                    wanted.name
                ),
            ));
        }
        if up.peek().is_none() && !path.hops[position].ids().any(|id| node.instances.contains_key(&id)) {
            return violated(format!(
                "function {} is left out: none of its instances is installed",
                wanted.name
            ));
        }
        for id in up {
            match reached(seen.fabric, pass, id) {
                Some(there) if there.function != wanted.name => {
                    return violated(format!(
                        "{} is passed in the place of function {}",
                        there.instance, wanted.name
                    ));
                }
                _ => {}
            }
        }
    }
    None
}

/// No packet comes twice to a place, unless the owners' routing, or the customer's, has it go in circles anyway: once it has
/// left what is ours.
fn no_loop(seen: &Seen) -> Option<Fault> {
    if seen.way.end != End::Loop {
        return None;
    }
    let left = match seen.direction {
        Direction::Up => seen.passes().next().is_some(),
        Direction::Down => seen.way.hops.iter().any(|hop| Some(hop.place.node) == seen.served.home),
    };
    let excused = left && seen.before().iter().all(|way| way.end == End::Loop);
    (!excused).then(|| Fault::new(Property::NoLoop, format!("packets go in circles by {}", seen.end_name())))
}

/// Claimed packets are dropped only where their owner's routing drops them with or without us, or where a function that
/// may not be left out is gone.
fn no_black_hole(seen: &Seen, chain: &ServedChain) -> Option<Fault> {
    let violated = |what: String| Some(Fault::new(Property::NoBlackHole, what));
    let way = seen.way;
    let passed = seen.passes().next();
    let at = seen.end_name();
    let cause = match way.end {
        End::Dropped(cause) => cause,
        End::Internet if passed.is_none() => return None,
        End::Internet if seen.direction == Direction::Down => {
            return violated(format!("packets for the site leave towards the Internet at {at}"));
        }
        _ => return None,
    };
    match cause {
        Cause::Closed => return closed(seen, chain),
        Cause::Forged => return None,
        // Whose it is cannot be told.
        Cause::Headless => return None,
        Cause::NoTable | Cause::OtherPort | Cause::NoTunnel | Cause::NoPath | Cause::Unreachable => {
            return violated(format!("packets are dropped at {at}: {}", in_words(seen.fabric, cause)));
        }
        Cause::NoRoute
        | Cause::Route
        | Cause::ForeignRule
        | Cause::NoNeighbour
        | Cause::Host
        | Cause::PortDown(_) => {}
    }
    let by_us = matches!(cause, Cause::NoNeighbour | Cause::PortDown(_)) && !ends_by_base(way);
    let home = way.last().is_some_and(|last| {
        Some(last.node) == seen.served.home
            || seen.fabric.node(last.node).role.is_none_or(|role| role == Role::Access)
    });
    // Beyond the functions and the way home, the owners' routing decides, and decides as it would.
    let on_our_way = match (passed, seen.direction) {
        (None, _) => !matches!(cause, Cause::Route | Cause::ForeignRule),
        (Some(_), Direction::Up) => false,
        (Some(_), Direction::Down) => !home,
    };
    let dropped = violated(format!("packets are dropped at {at}: {}", in_words(seen.fabric, cause)));
    if by_us || on_our_way {
        return dropped;
    }
    let would = seen.would_get_out();
    dropped.filter(|_| !would.is_empty()).map(|fault| fault.of(would))
}

/// A way that ends at a function without instances: that is right if the function may not be left out.
fn closed(seen: &Seen, chain: &ServedChain) -> Option<Fault> {
    let pass = seen.way.passes.last()?;
    let node = seen.fabric.node(pass.switch);
    let path = node.paths.get(&pass.path)?;
    let gone = path.hops.iter().zip(&chain.functions).find(|(hop, wanted)| {
        let closed = hop.on_failure == OnFailure::Closed && !hop.ids().any(|id| is_up(node, id));
        let known = hop.ids().any(|id| node.instances.contains_key(&id));
        closed && (wanted.on_failure == OnFailure::Skip || !known)
    });
    gone.map(|(_, wanted)| match wanted.on_failure {
        OnFailure::Skip => Fault::new(
            Property::NoBlackHole,
            format!("packets are dropped for want of function {}, which may be skipped", wanted.name),
        ),
        OnFailure::Closed => Fault::new(
            Property::NoBlackHole,
            format!("packets are dropped: no instance of function {} is installed", wanted.name),
        ),
    })
}

/// The site's packets pass no other customer's place on the way to their own functions, nor on the way home, and take no
/// path of another site.
fn isolation(seen: &Seen) -> Option<Fault> {
    if let Some(pass) = seen.passes().find(|pass| pass.owner != pass.site) {
        let what = format!("packets of the site take path {}, which is another site's", pass.path);
        return Some(Fault::new(Property::Isolation, what));
    }
    let until = match seen.direction {
        Direction::Up => seen.way.hops.iter().position(|hop| matches!(hop.by, By::Path(_)))?,
        Direction::Down => seen.way.hops.len(),
    };
    if let (Direction::Down, End::Site(site)) = (seen.direction, seen.way.end)
        && Some(site) != seen.served.id
    {
        return Some(Fault::new(Property::Isolation, "packets for the site go into another site's tunnel"));
    }
    let foreign = seen.way.hops[..until].iter().skip(1).find(|hop| {
        seen.fabric.node(hop.place.node).role == Some(Role::Access)
            && Some(hop.place.node) != seen.served.home
    });
    foreign.map(|hop| {
        let at = seen.name(hop.place.node);
        Fault::new(
            Property::Isolation,
            format!("packets of the site pass {at}, the place of another customer"),
        )
    })
}

/// What no chain claims goes where it went before, by the same way. Where only the switch can tell that it is not claimed
/// it may go by there, without functions.
pub fn of_unclaimed(seen: &Seen, by: ClaimedBy) -> Vec<Fault> {
    let way = seen.way;
    let violated = |what: String| Fault::new(Property::UnclaimedUntouched, what);
    if seen.passes().next().is_some() {
        return vec![violated("packets that no chain claims pass its functions".to_owned())];
    }
    // By the owners' routing alone: so it would be without us.
    let plain = way.hops.iter().all(|hop| matches!(hop.by, By::Base | By::None));
    let unknown = matches!(way.end, End::Undecided(Unknown::EqualRules));
    let ours = matches!(way.end, End::Dropped(cause) if is_ours(cause) && cause != Cause::NoNeighbour);
    if plain && !unknown && !ours {
        return Vec::new();
    }
    let may_differ = by == ClaimedBy::NothingAtTheSwitch
        || (seen.direction == Direction::Up && !seen.served.claims_at_gates());
    if matches!(way.end, End::Beyond(_)) && may_differ {
        return Vec::new();
    }
    let mut faults = Vec::new();
    for before in seen.before() {
        let same_way = before.hops.iter().map(|hop| hop.place).eq(way.hops.iter().map(|hop| hop.place));
        if same_way && same_end(before.end, way.end) {
            continue;
        }
        let at = seen.end_name();
        let would = that_get_to_somebody(seen.fabric, before);
        let fault = match way.end {
            End::Undecided(unknown) => not_understood(seen, unknown).of(before.classes.clone()),
            End::Loop if before.end != End::Loop => {
                let what = format!("packets that no chain claims go in circles by {at}");
                Fault::new(Property::NoLoop, what).of(before.classes.clone())
            }
            _ if !would.is_empty() && !gets_out(seen.fabric, way) => {
                violated(format!("packets that no chain claims are dropped at {at}")).of(would)
            }
            // Where nothing would get on without us, the way by the switch has to lead on as far as it is ours.
            End::Dropped(cause) if is_ours(cause) && may_differ && !ends_by_base(way) => {
                let what = format!("packets that no chain claims are dropped at {at}");
                violated(what).of(before.classes.clone())
            }
            _ if !would.is_empty() && !may_differ => {
                violated(format!("packets that no chain claims are led another way, to {at}")).of(would)
            }
            _ => continue,
        };
        faults.push(fault);
    }
    faults
}

/// Each function of a path is spoken to in its own way, changes packets only if it is known to, and paths that are told
/// apart by VLAN have different ones.
pub fn unmodified(fabric: &Fabric, chain: &ServedChain, pass: &Pass) -> Option<Fault> {
    let violated = |what: String| Some(Fault::new(Property::Unmodified, what));
    let node = fabric.node(pass.switch);
    let path = node.paths.get(&pass.path)?;
    for (hop, wanted) in path.hops.iter().zip(&chain.functions) {
        for instance in hop.ids().filter_map(|id| node.instances.get(&id)).map(|placed| &placed.instance) {
            if instance.rewrites != wanted.changes_addresses {
                let known =
                    if wanted.changes_addresses { "changes addresses" } else { "changes no addresses" };
                return violated(format!("function {} {known}, and is not treated so", wanted.name));
            }
            if instance.insertion != wanted.insertion {
                return violated(format!(
                    "function {} is spoken to in another way than it understands",
                    wanted.name
                ));
            }
        }
    }
    let needs_vlan =
        chain.functions.iter().any(|wanted| wanted.insertion == catena_model::forwarding::Insertion::Vlan);
    match path.vlan {
        None if needs_vlan => {
            violated(format!("path {} has no VLAN, by which its functions tell it", path.id))
        }
        Some(vlan) if needs_vlan && node.paths_of_vlan(vlan) > 1 => {
            violated(format!("path {} has VLAN {} together with another path", path.id, vlan.get()))
        }
        _ => None,
    }
}

/// Losing instances has the effects that `onFailure` says: a path can choose from all instances of each function, and
/// treats a function that is gone as the model says.
pub fn degraded(fabric: &Fabric, chain: &ServedChain, pass: &Pass) -> Option<Fault> {
    let node = fabric.node(pass.switch);
    let path = node.paths.get(&pass.path)?;
    for ((position, hop), wanted) in path.hops.iter().enumerate().zip(&chain.functions) {
        let gone = || Gone::Function { instances: hop.ids().collect(), name: wanted.name.to_string() };
        let violated =
            |what: String| Some(Fault { without: Some(gone()), ..Fault::new(Property::Degraded, what) });
        match (wanted.on_failure, hop.on_failure) {
            (OnFailure::Closed, OnFailure::Skip) => {
                return violated(format!(
                    "packets go round function {}, which may not be skipped,",
                    wanted.name
                ));
            }
            (OnFailure::Skip, OnFailure::Closed) => {
                return violated(format!(
                    "packets are dropped for want of function {}, which may be skipped,",
                    wanted.name
                ));
            }
            _ => {}
        }
        if let Some(missing) = unused(fabric, chain.functions[position], pass, path, position) {
            return violated(format!("packets are not given to {missing},"));
        }
    }
    None
}

/// An instance of a function that a path does not choose from.
fn unused(
    fabric: &Fabric,
    wanted: &ServiceFunction,
    pass: &Pass,
    path: &Path,
    position: usize,
) -> Option<String> {
    let reached: Vec<&FunctionSide> =
        path.hops[position].ids().filter_map(|id| self::reached(fabric, pass, id)).collect();
    let missing =
        wanted.instances.iter().find(|instance| !reached.iter().any(|there| there.instance == instance.name));
    missing.map(|instance| instance.name.to_string())
}

/// Whether some flow that takes the one path could have replies that pass other instances on the other.
pub fn can_differ(fabric: &Fabric, up: &Pass, down: &Pass) -> bool {
    (up.switch, up.path) != (down.switch, down.path) || {
        let node = fabric.node(up.switch);
        let mut ids =
            node.paths.get(&up.path).into_iter().flat_map(|path| path.hops.iter().flat_map(Hop::ids));
        ids.any(|id| is_up(node, id) && is_turned(fabric, up, down, id))
    }
}

/// Whether the two sides of an instance are those of different ones.
fn is_turned(fabric: &Fabric, up: &Pass, down: &Pass, id: InstanceId) -> bool {
    let [inside, outside] = [up, down].map(|pass| reached(fabric, pass, id).map(|there| &there.instance));
    inside != outside
}

/// Whether a flow's replies pass other instances than the flow: `None` if that cannot be, else the packets of `flows` are
/// asked, and the first that shows it is given back; an error says why it is feared though none was found.
pub fn same_way_back(
    fabric: &Fabric,
    (up, down): (&Pass, &Pass),
    flows: &[Class],
) -> Option<Result<Probe, String>> {
    if (up.switch, up.path) == (down.switch, down.path) {
        return turned(fabric, up, down, flows);
    }
    let hops = |pass: &Pass| {
        let node = fabric.node(pass.switch);
        let path = node.paths.get(&pass.path)?;
        let hop = |hop: &Hop| {
            let members: Vec<_> =
                hop.instances.iter().copied().filter(|member| is_up(node, member.id)).collect();
            (hop.stickiness, members)
        };
        Some(path.hops.iter().map(hop).collect::<Vec<_>>())
    };
    let (there, back) = (hops(up)?, hops(down)?);
    if up.switch == down.switch && there == back {
        return None;
    }
    let chosen = |hops: &[(_, Vec<_>)], packet: &Packet| -> Vec<Option<InstanceId>> {
        hops.iter()
            .map(|(stickiness, members)| pick(packet.flow_hash(*stickiness), members.iter().copied()))
            .collect()
    };
    let differs = |probe: &Probe| {
        up.switch != down.switch || chosen(&there, &probe.packet) != chosen(&back, &probe.packet)
    };
    if let Some(probe) = some_flows(flows).find(differs) {
        return Some(Ok(probe));
    }
    let alone = |hops: &[(_, Vec<_>)]| hops.iter().all(|(_, members)| members.len() <= 1);
    if alone(&there) && alone(&back) {
        return None;
    }
    Some(Err(format!(
        "requests take path {}, replies path {}, which choose instances differently",
        up.path, down.path
    )))
}

/// Flows of these classes: the readable ones, then many with other addresses and ports, so that each kind of hash takes
/// many values.
fn some_flows(flows: &[Class]) -> impl Iterator<Item = Probe> {
    flows.iter().flat_map(|flows| flows.examples(&[])).chain(flows.iter().flat_map(Class::flows))
}

/// A flow that is given an instance whose two sides are those of different ones. That none is found proves nothing.
fn turned(fabric: &Fabric, up: &Pass, down: &Pass, flows: &[Class]) -> Option<Result<Probe, String>> {
    let node = fabric.node(up.switch);
    let path = node.paths.get(&up.path)?;
    let up_members = |hop: &Hop| -> Vec<Member> {
        hop.instances.iter().copied().filter(|member| is_up(node, member.id)).collect()
    };
    let is_given_one = |probe: &Probe| {
        path.hops.iter().any(|hop| {
            pick(probe.packet.flow_hash(hop.stickiness), up_members(hop))
                .is_some_and(|id| is_turned(fabric, up, down, id))
        })
    };
    let unknown = || format!("path {} has an instance with the sides of two different ones", path.id);
    Some(some_flows(flows).find(is_given_one).ok_or_else(unknown))
}

/// Whether packets get out of what we drive: to a site, to a host, to the Internet.
pub fn gets_out(fabric: &Fabric, way: &Way) -> bool {
    match way.end {
        End::Internet | End::Link(_) | End::Site(_) | End::Home | End::Beyond(_) => true,
        End::Delivered => way.last().is_some_and(|last| {
            // The gateway is out, and so is a customer's own router.
            !matches!(fabric.node(last.node).role, Some(Role::Physical | Role::Router | Role::Switch))
        }),
        End::Dropped(_) | End::Loop | End::Undecided(_) => false,
    }
}

fn that_get_to_somebody(fabric: &Fabric, way: &Way) -> Vec<Class> {
    way.classes.iter().filter(|class| gets_to_somebody(fabric, way, class)).copied().collect()
}

/// Whether packets that go a way get to the Internet, to a customer or to a host. What is addressed to the elements
/// themselves, to functions or to customers' routers is nobody's traffic.
pub fn gets_to_somebody(fabric: &Fabric, way: &Way, class: &Class) -> bool {
    if way.end == End::Delivered && way.last().is_some_and(|last| fabric.is_host(last.node)) {
        return true;
    }
    let Class { family, destination, .. } = *class;
    let to_customer = fabric.is_of_customers(family, destination);
    if !to_customer && fabric.is_inner(family, destination) {
        return false;
    }
    match way.end {
        End::Internet | End::Site(_) | End::Home | End::Beyond(_) => true,
        End::Delivered | End::Link(_) => {
            to_customer || way.last().is_some_and(|last| fabric.is_outside(last))
        }
        End::Dropped(_) | End::Loop | End::Undecided(_) => false,
    }
}

/// What an instance of a path really is: by the port, not by the number.
pub fn reached<'f>(fabric: &'f Fabric, pass: &Pass, id: InstanceId) -> Option<&'f FunctionSide> {
    let node = fabric.node(pass.switch);
    let side = node.instances.get(&id)?.first(pass.direction);
    fabric.function(pass.switch, side.port, pass.direction)
}

/// Whether it is the owner's routing that a way ends with.
fn ends_by_base(way: &Way) -> bool {
    way.hops.last().is_some_and(|hop| hop.by == By::Base)
}

fn same_end(a: End, b: End) -> bool {
    a == b || matches!((a, b), (End::Dropped(_), End::Dropped(_)))
}

fn is_ours(cause: Cause) -> bool {
    matches!(
        cause,
        Cause::NoTable
            | Cause::OtherPort
            | Cause::NoTunnel
            | Cause::NoPath
            | Cause::NoNeighbour
            | Cause::Unreachable
    )
}

/// That it is not known what becomes of packets.
pub fn not_understood(seen: &Seen, unknown: Unknown) -> Fault {
    let why = match unknown {
        Unknown::ForeignRule => "a foreign rule decides that is not understood",
        Unknown::EqualRules => "two rules of equal priority lead to different places",
        Unknown::EqualRoutes => "several equally good routes lead to different places",
        Unknown::NoLink => "packets leave by a port that has no link in the inventory",
        Unknown::Rewritten => "a function has changed addresses, and it is not known how",
        Unknown::Translated => "the owner's packet filter may give packets other addresses",
    };
    Fault::undecided(format!("{}: {why}", seen.end_name()))
}

fn in_words(fabric: &Fabric, cause: Cause) -> String {
    let said = match cause {
        Cause::PortDown(Place { node, port }) => {
            let node = fabric.node(node);
            return format!("port {} of {} is down", node.port_of(port).name, node.name);
        }
        Cause::NoRoute => "no route leads on",
        Cause::Route => "a route of the element drops them",
        Cause::ForeignRule => "a foreign rule drops them",
        Cause::NoTable => "the table that a rule leads to is not there",
        Cause::OtherPort => "a foreign rule leads them to another port than their next hop's",
        Cause::NoNeighbour => "nobody has the address that they are handed to",
        Cause::NoTunnel => "no tunnel takes them",
        Cause::NoPath => "the path that a policy names is not installed",
        Cause::Closed => "a function has no instance that is up",
        Cause::Unreachable => "an instance cannot be reached",
        Cause::Host => "a host does not forward them",
        Cause::Forged => "their source is the site that they are for",
        Cause::Headless => "the ports are not known that their first fragments had",
    };
    said.to_owned()
}
