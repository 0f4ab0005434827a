//! The verifier: walks all packets that chains are about, and holds their ways against what the chains promise.

use std::collections::{BTreeMap, BTreeSet};

use catena_model::address::{Family, Prefix};
use catena_model::base::{Translation, TranslationHook};
use catena_model::forwarding::{Direction, Ingress, Purpose};
use catena_model::name::TenantName;

use crate::Network;
use crate::class::{Class, Span, both, take};
use crate::fabric::{Fabric, Place, Translates};
use crate::intent::{Claim, ClaimedBy, Gate, Intent, ServedSite};
use crate::known::{Known, Spots, Summary};
use crate::outside::{Outside, Stray, Suspects};
use crate::property::{self, Fault, Gone, Seen};
use crate::quick_hash::QuickMap;
use crate::symbolic::{Hiding, Translating, Walker, stops_forged, stops_outer};
use crate::tails::Tails;
use crate::verdict::{Property, Report};
use crate::way::{By, Cause, End, Pass, Unknown, Way};

/// Verifies the chains of a tenant, or of all.
pub fn verify(network: &Network, tenant: Option<&TenantName>) -> Report {
    let fabric = Fabric::new(network);
    let intent = Intent::new(network, &fabric);
    let outside = Outside::new(network, &fabric, &intent);
    let tails = Tails::default();
    let strays = outside.strays(&intent);
    let mut summary = Summary::new(&outside);
    let wanted = |served: &&ServedSite| tenant.is_none_or(|tenant| served.site.tenant == *tenant);
    for served in intent.sites.values().filter(wanted) {
        let name = &served.site.name;
        let strays = strays.get(name).map(Vec::as_slice).unwrap_or_default();
        summary.add(name, &Known::new(network, &fabric, &tails, &outside, served, strays));
    }
    summary.report()
}

/// Something wrong, and the packets that show it.
#[derive(Clone, Debug)]
pub struct Finding {
    pub fault: Fault,
    /// The chain's place among the site's.
    pub chain: usize,
    pub direction: Direction,
    pub gate: Option<Gate>,
    /// Packets that show it.
    pub classes: Vec<Class>,
    /// The way that they go, unless any will do.
    pub way: Option<Way>,
}

impl Finding {
    /// Leaves packets out that cannot be routed, and says whether there were others, or none at all.
    fn is_about_routed_packets(&mut self) -> bool {
        if self.classes.is_empty() {
            return true;
        }
        self.classes = routed(&self.classes, self.direction);
        !self.classes.is_empty()
    }
}

/// Those of the packets that can be routed.
fn routed(classes: &[Class], direction: Direction) -> Vec<Class> {
    classes.iter().flat_map(|class| class.routed_part(direction)).collect()
}

pub struct SiteFindings {
    pub findings: Vec<Finding>,
    pub classes: usize,
    pub spots: Spots,
}

/// All that is to be found about one site's chains.
pub fn site(
    fabric: &Fabric,
    tails: &Tails,
    outside: &Outside,
    served: &ServedSite,
    strays: &[(Stray, Vec<Class>)],
) -> SiteFindings {
    let mut visitor = Visitor {
        fabric,
        served,
        tails,
        findings: Vec::new(),
        classes: 0,
        passes: Vec::new(),
        spots: Spots::default(),
    };
    if served.gates.is_empty() || outside.external().is_empty() {
        visitor.undecided(Direction::Up, "the inventory does not say where packets come in");
    }
    for prefix in &served.site.prefixes {
        let claims = served.claims(*prefix);
        let mut entered = visitor.enter_all(outside, *prefix, &claims);
        for (nth, claim) in claims.iter().enumerate() {
            for entered in &mut entered {
                // What is claimed is not released anyway.
                if entered.back != Back::Unseen || !matches!(claim.by, ClaimedBy::Chain(_)) {
                    visitor.ways(*prefix, entered, nth, claim);
                }
            }
        }
    }
    visitor.paths();
    visitor.forged(outside);
    visitor.disguised(outside);
    visitor.strays(outside, strays);
    let mut findings = visitor.findings;
    findings.retain_mut(Finding::is_about_routed_packets);
    SiteFindings { findings, classes: visitor.classes, spots: visitor.spots }
}

/// Packets that came in by a gate in a direction, and their ways.
struct Entered<'g> {
    gate: &'g Gate,
    direction: Direction,
    ways: Vec<Divided>,
    back: Back,
}

/// Whether packets were translated back where they came in: then nobody can tell claimed ones from others before the switch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Back {
    AsSent,
    Translated,
    /// A program was there that saw the other address, and released nothing.
    Unseen,
}

/// A way, and what each claim has of its packets, in the order of the claims.
struct Divided {
    way: Way,
    shares: Vec<Vec<Class>>,
}

impl Divided {
    /// `asked`: what is claimed, and by which claim; no packet is claimed twice.
    fn new(way: Way, asked: &[(usize, Class)], claims: usize) -> Self {
        let mut shares = vec![Vec::new(); claims];
        for class in &way.classes {
            for (nth, asks) in asked {
                let Some(common) = class.intersection(asks) else { continue };
                let share: &mut Vec<Class> = &mut shares[*nth];
                if share.is_empty() {
                    // Most ways are one claim's.
                    share.reserve(way.classes.len());
                }
                share.push(common);
                if common == *class {
                    break;
                }
            }
        }
        Self { way, shares }
    }

    /// Of packets in a direction.
    fn all(ways: Vec<Way>, claims: &[Claim], direction: Direction) -> Vec<Self> {
        let mut asked = Vec::new();
        for (nth, claim) in claims.iter().enumerate() {
            asked.extend(claim.classes.iter().map(|class| (nth, class.seen_from_site(direction))));
        }
        ways.into_iter().map(|way| Self::new(way, &asked, claims.len())).collect()
    }
}

/// Goes through the packets of one site.
struct Visitor<'v> {
    fabric: &'v Fabric,
    tails: &'v Tails,
    served: &'v ServedSite<'v>,
    findings: Vec<Finding>,
    classes: usize,
    /// The paths that claimed packets took: of which chain, in which direction, by which packets.
    passes: Vec<Taken<'v>>,
    spots: Spots,
}

struct Taken<'v> {
    chain: usize,
    pass: Pass,
    classes: Vec<Class>,
    gate: &'v Gate,
}

impl<'v> Visitor<'v> {
    fn undecided(&mut self, direction: Direction, what: impl Into<String>) {
        let fault = Fault::undecided(what);
        self.findings.push(Finding {
            fault,
            chain: 0,
            direction,
            gate: None,
            classes: Vec::new(),
            way: None,
        });
    }

    /// The ways of all packets from a prefix of the site, and of all to it, whoever claims them.
    fn enter_all(&mut self, outside: &'v Outside, prefix: Prefix, claims: &[Claim]) -> Vec<Entered<'v>> {
        let up = self.served.gates.iter().map(|gate| (gate, Direction::Up));
        let down = outside.external().iter().map(|gate| (gate, Direction::Down));
        let mut entered = Vec::new();
        for (gate, direction) in up.chain(down) {
            let tails = (direction == Direction::Up).then_some((self.tails, gate.place));
            let walker = Walker { tails, ..Walker::new(self.fabric) };
            let classes = self.served.packets(prefix, direction);
            let mut ways = self.entered(walker, gate, classes, direction);
            // What else is wrong with those that trespass comes of that.
            ways.retain(|way| !self.trespass(outside, gate, direction, way));
            let ways = Divided::all(ways, claims, direction);
            entered.push(Entered { gate, direction, ways, back: Back::AsSent });
        }
        let mut hiding = self.hiding(outside, prefix, &entered);
        let unseen = outside.external().iter().filter(|gate| self.is_unseen(gate.place, prefix));
        hiding.extend(unseen.map(|gate| (gate, vec![Class::all(prefix.family())])));
        for (gate, answering) in hiding {
            // Programs have seen the replies before they were translated back.
            let walker = Walker { unclaiming: Some(gate.place.node), ..Walker::new(self.fabric) };
            let (mut all, mut replies) = (self.served.packets(prefix, Direction::Down), Vec::new());
            answering.iter().for_each(|answers| take(&mut all, answers, |class| replies.push(class)));
            let mut ways = self.entered(walker, gate, replies, Direction::Down);
            // Whoever is answered is no site: that such sources come from elsewhere is asked where they come in.
            ways.retain(|way| self.intrusion(outside, gate, way).is_none());
            let ways = Divided::all(ways, claims, Direction::Down);
            let back = if self.is_unseen(gate.place, prefix) { Back::Unseen } else { Back::Translated };
            entered.push(Entered { gate, direction: Direction::Down, ways, back });
        }
        entered
    }

    fn entered(
        &mut self,
        walker: Walker,
        gate: &Gate,
        classes: Vec<Class>,
        direction: Direction,
    ) -> Vec<Way> {
        let walker = Walker { home: self.served.stop(direction), ..walker };
        let mut ways = enter(walker, gate, classes);
        ways.iter().for_each(|way| self.spots.pass(way, direction));
        ways.retain(|way| !self.is_stopped(way));
        ways
    }

    /// Where the sources of packets that went up are hidden behind the functions, and what comes from whom they were sent to: what
    /// elements, or other customers, answer passes no functions anyway.
    fn hiding(
        &self,
        outside: &'v Outside,
        prefix: Prefix,
        entered: &[Entered<'v>],
    ) -> Vec<(&'v Gate, Vec<Class>)> {
        let family = prefix.family();
        let ways = entered.iter().flat_map(|entered| &entered.ways);
        let left = ways.filter_map(|Divided { way, .. }| match way.end {
            End::Beyond(place) => Some(place),
            _ => None,
        });
        let mut answering: BTreeMap<Place, Vec<Class>> = BTreeMap::new();
        for left in left.collect::<BTreeSet<Place>>() {
            for Hiding { place, to, .. } in self.tails.hide(left, prefix) {
                let is_inside = self.fabric.is_inner(family, to) || self.fabric.is_of_customers(family, to);
                let answers = Class { source: to, ..Class::all(family) };
                let known = answering.entry(place).or_default();
                if !is_inside && !known.contains(&answers) {
                    known.push(answers);
                }
            }
        }
        let gates = answering.into_iter();
        gates.filter_map(|(place, answering)| Some((outside.hiding(place)?, answering))).collect()
    }

    /// Whether a program that claims sees replies to the prefix before they are translated back, where the Internet's packets come in.
    fn is_unseen(&self, place: Place, prefix: Prefix) -> bool {
        let node = self.fabric.node(place.node);
        let hides = |known: &Translates| {
            known.is_at(TranslationHook::Leaving, prefix.family(), place.port)
                && known.from.is_none_or(|from| from.intersection(&Span::of(prefix)).is_some())
        };
        let claims = |ingress: &Ingress| ingress.purpose == Purpose::Claim;
        node.translations.iter().any(hides)
            && node.returns_translated(place.port)
            && node.ingresses.get(&place.port).is_some_and(claims)
    }

    /// Looks at what of these ways is one claim's.
    fn ways(&mut self, prefix: Prefix, entered: &mut Entered<'v>, nth: usize, claim: &Claim) {
        let Entered { gate, direction, ways, back } = entered;
        let direction = *direction;
        let by = match (claim.by, *back) {
            (ClaimedBy::Nothing, Back::Translated | Back::Unseen) => ClaimedBy::NothingAtTheSwitch,
            (by, _) => by,
        };
        let known = self.findings.len();
        let mut claimed = true;
        for Divided { way, shares } in ways {
            let classes = std::mem::take(&mut shares[nth]);
            if classes.is_empty() {
                continue;
            }
            self.classes += classes.len();
            claimed &= way.hops.iter().all(|hop| {
                // Where there is a claim, it did not release the packets: without it they would not be, either.
                hop.place.node != gate.place.node
                    || matches!(hop.by, By::Rule(_))
                    || !self.is_classified(hop.place)
            });
            let classes: Vec<Class> =
                classes.into_iter().filter_map(|class| self.what_matters(direction, class)).collect();
            if !classes.is_empty() {
                self.look(gate, direction, way, classes, by);
            }
        }
        // A single packet that shows it has another destination when it comes in.
        let found = self.findings[known..].iter_mut().filter(|_| *back == Back::Unseen);
        found.for_each(|finding| finding.fault.is_doubtful = true);
        if let (ClaimedBy::Chain(chain), false) = (claim.by, claimed) {
            let claimed: Vec<Class> =
                claim.classes.iter().map(|class| class.seen_from_site(direction)).collect();
            let packets = both(&self.served.packets(prefix, direction), &claimed);
            self.without_claims(gate, direction, packets, chain);
        }
    }

    fn is_classified(&self, place: Place) -> bool {
        self.fabric.node(place.node).ingresses.contains_key(&place.port)
    }

    /// What of a class is to be looked at. What a site says to itself is no business of the cloud; elsewhere it is not the site
    /// that says so, and of errors about it nothing is promised.
    fn what_matters(&self, direction: Direction, class: Class) -> Option<Class> {
        let far_end = match direction {
            Direction::Up => class.destination,
            Direction::Down => class.source,
        };
        match direction {
            _ if !class.has_routed_part(direction) => None,
            _ if !self.served.has(class.family, far_end) => Some(class),
            Direction::Up => None,
            Direction::Down => class.without_errors(),
        }
    }

    fn look(&mut self, gate: &'v Gate, direction: Direction, way: &Way, classes: Vec<Class>, by: ClaimedBy) {
        if !self.faults(gate, direction, way, &classes, by).is_empty() {
            self.look_closely(gate, direction, way, &classes, by);
        }
        let ClaimedBy::Chain(chain) = by else { return };
        let mut own = way.passes.iter().filter(|pass| Some(pass.site) == self.served.id);
        let Some(first) = own.next() else { return };
        for pass in own {
            self.passes.push(Taken { chain, pass: *pass, classes: classes.clone(), gate });
        }
        self.passes.push(Taken { chain, pass: *first, classes, gate });
    }

    fn look_closely(
        &mut self,
        gate: &Gate,
        direction: Direction,
        way: &Way,
        classes: &[Class],
        by: ClaimedBy,
    ) {
        // Packets among them that cannot be routed may be all that is wrong.
        let classes = routed(classes, direction);
        let is_forged = direction == Direction::Down
            && classes.iter().all(|class| self.served.has(class.family, class.source));
        let chain = if let ClaimedBy::Chain(nth) = by { nth } else { 0 };
        for fault in self.faults(gate, direction, way, &classes, by) {
            let is_loss =
                matches!(fault.property, Some(Property::NoBlackHole | Property::UnclaimedUntouched));
            // Nobody misses what claims to come from where it goes.
            if !(is_forged && is_loss && matches!(way.end, End::Dropped(_))) {
                self.found(fault, chain, direction, gate, way, &classes);
            }
        }
    }

    fn faults(
        &self,
        gate: &Gate,
        direction: Direction,
        way: &Way,
        classes: &[Class],
        by: ClaimedBy,
    ) -> Vec<Fault> {
        let seen = Seen::new(self.fabric, self.served, direction, gate.place, way, classes);
        match by {
            ClaimedBy::Chain(nth) => property::of_claimed(&seen, &self.served.chains[nth]),
            ClaimedBy::Nothing | ClaimedBy::NothingAtTheSwitch => property::of_unclaimed(&seen, by),
        }
    }

    /// Notes what is wrong with a way, or with some of its packets.
    fn found(
        &mut self,
        mut fault: Fault,
        chain: usize,
        direction: Direction,
        gate: &Gate,
        way: &Way,
        all: &[Class],
    ) {
        let mut classes = std::mem::take(&mut fault.packets);
        if classes.is_empty() {
            classes = all.to_vec();
        }
        let (gate, way) = (Some(gate.clone()), Some(way.clone()));
        self.findings.push(Finding { fault, chain, direction, gate, classes, way });
    }

    /// The same for claimed packets when the programs that claim are gone from where they come in: they must still pass.
    fn without_claims(&mut self, gate: &Gate, direction: Direction, classes: Vec<Class>, chain: usize) {
        if !self.is_classified(gate.place) {
            return;
        }
        let classes = self.not_bypassing(gate, direction, classes, chain);
        let (unclaiming, home) = (Some(gate.place.node), self.served.stop(direction));
        let walker = Walker { unclaiming, home, ..Walker::new(self.fabric) };
        for way in enter(walker, gate, classes) {
            self.spots.pass(&way, direction);
            let classes: Vec<Class> =
                way.classes.iter().filter_map(|class| self.what_matters(direction, *class)).collect();
            if classes.is_empty() {
                continue;
            }
            let seen = Seen::new(self.fabric, self.served, direction, gate.place, &way, &classes);
            let bypass = property::of_claimed(&seen, &self.served.chains[chain])
                .into_iter()
                .find(|fault| matches!(fault.property, Some(Property::NoBypass | Property::Order)));
            if let Some(fault) = bypass {
                let without = Some(Gone::Claims(gate.place.node));
                let fault = Fault { property: Some(Property::Degraded), without, ..fault };
                self.found(fault, chain, direction, gate, &way, &classes);
            }
        }
    }

    /// Those of the packets of which nothing is known yet that is wrong with their way through the functions.
    fn not_bypassing(
        &self,
        gate: &Gate,
        direction: Direction,
        mut classes: Vec<Class>,
        chain: usize,
    ) -> Vec<Class> {
        let known = self.findings.iter().filter(|finding| {
            (finding.chain, finding.direction) == (chain, direction)
                && finding.gate.as_ref().is_some_and(|known| known.entry == gate.entry)
                && matches!(finding.fault.property, Some(Property::NoBypass | Property::Order))
        });
        for class in known.flat_map(|finding| &finding.classes) {
            take(&mut classes, class, |_| {});
        }
        classes
    }

    /// What the paths that were taken promise.
    fn paths(&mut self) {
        let passes = std::mem::take(&mut self.passes);
        let mut known: QuickMap<_, Vec<Fault>> = QuickMap::default();
        for taken in &passes {
            let Taken { chain, pass, .. } = taken;
            let faults = known.entry((*chain, pass.switch, pass.path, pass.direction)).or_insert_with(|| {
                let chain = &self.served.chains[*chain];
                let unmodified = property::unmodified(self.fabric, chain, pass);
                unmodified.into_iter().chain(property::degraded(self.fabric, chain, pass)).collect()
            });
            for fault in faults {
                self.findings.push(taken.finding(fault.clone(), taken.classes.clone()));
            }
        }
        let (up, down): (Vec<&Taken>, Vec<&Taken>) =
            passes.iter().partition(|taken| taken.pass.direction == Direction::Up);
        for back in &down {
            let is_answered = |there: &&&Taken| (there.chain, there.family()) == (back.chain, back.family());
            let is_other = |there: &&&Taken| property::can_differ(self.fabric, &there.pass, &back.pass);
            for there in up.iter().filter(is_answered).filter(is_other) {
                let of_flows =
                    |taken: &Taken| taken.classes.iter().map(Class::of_same_flows).collect::<Vec<_>>();
                let replies_to: Vec<Class> = of_flows(back).iter().map(Class::reply).collect();
                let flows = routed(&both(&of_flows(there), &replies_to), Direction::Up);
                if !flows.is_empty() {
                    self.same_way_back(there, back, &flows);
                }
            }
        }
    }

    fn same_way_back(&mut self, there: &Taken, back: &Taken, flows: &[Class]) {
        let replies = || flows.iter().map(Class::reply).collect();
        match property::same_way_back(self.fabric, (&there.pass, &back.pass), flows) {
            None => {}
            Some(Ok(probe)) => {
                let what = "replies pass other instances than what they answer";
                let exactly = vec![Class::of_probe(&probe).reply()];
                let fault = Fault::new(Property::SameWayBack, what).among(replies());
                self.findings.push(back.finding(fault, exactly));
            }
            Some(Err(what)) => {
                self.findings.push(back.finding(Fault::feared(Property::SameWayBack, what), replies()));
            }
        }
    }

    /// Packets with sources of the site that come in elsewhere do not get into its chains, nor do others that objects for
    /// the site ask for.
    fn forged(&mut self, outside: &Outside) {
        for prefix in &self.served.site.prefixes {
            for suspects in outside.forged(*prefix, self.served) {
                self.suspects(outside, suspects, Direction::Up);
            }
            for suspects in outside.addressed(*prefix) {
                self.suspects(outside, suspects, Direction::Down);
            }
            for gate in outside.tunnels_that_let_in(self.fabric, *prefix, self.served) {
                let walker = Walker { translating: Translating::Ignored, ..Walker::new(self.fabric) };
                for way in enter(walker, &gate, ServedSite::forged_packets(*prefix)) {
                    self.classes += way.classes.len();
                    self.spots.pass(&way, Direction::Up);
                    self.trespass_or_unknown(outside, &gate, Direction::Up, &way);
                }
            }
        }
        for suspects in outside.at_ports_of(self.served) {
            self.suspects(outside, suspects, Direction::Up);
        }
    }

    /// Others' packets are not given an address of the site's on their way: from then on nobody knows who is who.
    fn disguised(&mut self, outside: &Outside) {
        for (node, Translation { hook, rule, .. }) in outside.disguising(self.served.site) {
            let direction = match hook {
                TranslationHook::Arriving => Direction::Down,
                TranslationHook::Leaving => Direction::Up,
            };
            let what = "the owner's packet filter may give others' packets an address of the site";
            self.undecided(direction, format!("{node}: {what}: {rule}"));
        }
        for (node, Translation { rule, .. }) in outside.confusing(self.served.site) {
            let what = "the owner's packet filter may have replies to the site taken for another one's";
            self.undecided(Direction::Down, format!("{node}: {what}: {rule}"));
        }
    }

    /// Looks first at what may become of packets at a place, wherever they came in. If that is bad, it is asked of each
    /// entry: something before may stop them.
    fn suspects(&mut self, outside: &Outside, suspects: Suspects, direction: Direction) {
        let Suspects { place, classes, entries } = suspects;
        self.classes += classes.len();
        let home = self.served.stop(Direction::Down);
        let walker = Walker { home, translating: Translating::Ignored, ..Walker::new(self.fabric) };
        let ways = walker.walk(classes.clone(), place);
        ways.iter().for_each(|way| self.spots.pass(way, direction));
        let goes_up = |way: &Way| way.passes.iter().any(|pass| pass.direction == Direction::Up);
        if !ways.iter().any(|way| goes_up(way) || not_understood(way).is_some()) {
            return;
        }
        for gate in entries {
            for way in enter(walker, gate, classes.clone()) {
                self.spots.pass(&way, direction);
                match way.hops.iter().any(|hop| hop.place == place) {
                    true => self.trespass_or_unknown(outside, gate, direction, &way),
                    false => drop(self.trespass(outside, gate, direction, &way)),
                }
            }
        }
    }

    /// The same of packets that come to something which asks for them: there it may be undecided whether they enter a chain.
    fn trespass_or_unknown(&mut self, outside: &Outside, gate: &Gate, direction: Direction, way: &Way) {
        let is_trespass = self.trespass(outside, gate, direction, way);
        if let (false, Some(unknown)) = (is_trespass, not_understood(way)) {
            let seen = Seen::new(self.fabric, self.served, direction, gate.place, way, &way.classes);
            self.found(property::not_understood(&seen, unknown), 0, direction, gate, way, &way.classes);
        }
    }

    /// Whether packets that were led down come back as another site's, or upwards, and so have a source of a site: then they
    /// were dropped before a function with one port.
    fn is_stopped(&self, way: &Way) -> bool {
        way.passes.iter().enumerate().any(|(nth, pass)| {
            let node = self.fabric.node(pass.switch);
            let stops = || node.paths.get(&pass.path).is_some_and(|path| stops_forged(node, path));
            let mut later = way.passes[nth + 1..].iter();
            let mut comes_up = || {
                later.any(|later| later.switch == pass.switch && later.direction == Direction::Up)
                    || self.is_anothers_transit_after(way, pass)
            };
            pass.direction == Direction::Down && comes_up() && stops()
        })
    }

    fn is_anothers_transit_after(&self, way: &Way, pass: &Pass) -> bool {
        let at_switch = way.hops.iter().filter(|hop| hop.place.node == pass.switch);
        let mut after = at_switch.skip_while(|hop| hop.by != By::Path(pass.path)).skip(1);
        after.any(|hop| matches!(hop.by, By::Transit(site) if site != pass.site))
    }

    fn intrusion<'w>(&self, outside: &Outside, gate: &Gate, way: &'w Way) -> Option<&'w Pass> {
        let mut up = way.passes.iter().filter(|pass| pass.direction == Direction::Up);
        let intruded = up.find(|pass| !outside.is_owner(gate, pass.site));
        intruded.filter(|_| !self.is_stopped(way))
    }

    /// Notes it if packets enter a chain as if its site had sent them, which it has not: they came in elsewhere.
    fn trespass(&mut self, outside: &Outside, gate: &Gate, direction: Direction, way: &Way) -> bool {
        let Some(pass) = self.intrusion(outside, gate, way) else { return false };
        let classes = routed(&way.classes, direction);
        if classes.is_empty() {
            return false;
        }
        let what = match outside.name(pass.site).filter(|_| Some(pass.site) != self.served.id) {
            None => format!("packets with a source of the site enter its chain from {}", gate.entry),
            Some(other) => {
                format!("packets enter the chain of {other}, as if it had sent them, from {}", gate.entry)
            }
        };
        // Of errors about packets to a site that others send nothing is promised.
        let classes: Vec<Class> = way.classes.iter().filter_map(Class::without_errors).collect();
        if !classes.is_empty() {
            let fault = Fault::new(Property::Isolation, what);
            self.found(fault, 0, direction, gate, way, &classes);
        }
        true
    }

    /// Objects for the site match nothing but the site's packets, or what else they match is not led astray.
    fn strays(&mut self, outside: &Outside, strays: &[(Stray, Vec<Class>)]) {
        for (stray, classes) in strays {
            for class in classes {
                for gate in outside.entries() {
                    for way in enter(Walker::new(self.fabric), gate, vec![*class]) {
                        self.classes += way.classes.len();
                        self.stray(gate, stray, way);
                    }
                }
            }
        }
    }

    fn stray(&mut self, gate: &Gate, stray: &Stray, way: Way) {
        if gate.tunnel.is_some() && gate.tunnel == self.served.id && way.end != End::Dropped(Cause::NoTunnel)
        {
            let what = "the site's tunnel lets in packets whose sources are not the site's";
            self.findings.push(strayed(stray, Property::Isolation, what, gate, way));
            return;
        }
        let seen = Seen::new(self.fabric, self.served, stray.direction, gate.place, &way, &way.classes);
        let by_us = way.hops.iter().any(|hop| matches!(hop.by, By::Rule(_) | By::Path(_) | By::Transit(_)));
        let is_diverted = match way.end {
            _ if !way.passes.is_empty() && by_us => true,
            End::Dropped(Cause::NoTable | Cause::OtherPort) => true,
            End::Undecided(unknown) => {
                let fault = property::not_understood(&seen, unknown);
                return self.found(fault, 0, stray.direction, gate, &way, &way.classes);
            }
            _ => by_us && !property::of_unclaimed(&seen, ClaimedBy::Nothing).is_empty(),
        };
        if is_diverted {
            let what = "packets that are not the site's are led the way of its chain";
            self.findings.push(strayed(stray, Property::UnclaimedUntouched, what, gate, way));
        }
    }
}

impl Taken<'_> {
    fn family(&self) -> Option<Family> {
        self.classes.first().map(|class| class.family)
    }

    fn finding(&self, fault: Fault, classes: Vec<Class>) -> Finding {
        let (gate, direction) = (Some(self.gate.clone()), self.pass.direction);
        Finding { fault, chain: self.chain, direction, gate, classes, way: None }
    }
}

/// The ways of packets of one family that come in by a gate.
pub fn enter(walker: Walker, gate: &Gate, mut classes: Vec<Class>) -> Vec<Way> {
    let Some(site) = gate.tunnel else { return walker.walk(classes, gate.place) };
    let node = walker.fabric.node(gate.place.node);
    let stopped = match node.tunnels.get(&site) {
        Some(tunnel) => stops_outer(walker.fabric, gate.place.node, tunnel),
        None => Some(Cause::NoTunnel),
    };
    if let Some(cause) = stopped {
        return vec![Way::lost(classes, cause)];
    }
    let let_in = walker.decapsulated(gate.place.node, site, &mut classes);
    let mut ways = walker.walk(let_in, gate.place);
    if !classes.is_empty() {
        ways.push(Way::lost(classes, Cause::NoTunnel));
    }
    ways
}

/// Why it is not known whether packets that have come into no chain will come into one.
fn not_understood(way: &Way) -> Option<Unknown> {
    match way.end {
        End::Undecided(unknown) if way.passes.is_empty() => Some(unknown),
        _ => None,
    }
}

fn strayed(stray: &Stray, property: Property, what: &str, gate: &Gate, way: Way) -> Finding {
    Finding {
        fault: Fault::new(property, what),
        chain: 0,
        direction: stray.direction,
        gate: Some(gate.clone()),
        classes: way.classes.clone(),
        way: Some(way),
    }
}
