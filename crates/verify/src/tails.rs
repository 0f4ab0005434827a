//! Ways that all sites' packets share once they have left the functions: walked once, for all of them.

use std::cell::RefCell;
use std::collections::HashSet;

use catena_model::address::{Family, Prefix};

use crate::class::{Class, Span, both};
use crate::fabric::{Fabric, Place};
use crate::property::{gets_out, gets_to_somebody};
use crate::quick_hash::QuickMap;
use crate::symbolic::{Hidden, Hiding, Translating, Walker};
use crate::way::{End, Way};

/// Whether what leaves the functions is well off from there on, by where it leaves and where it had come in.
#[derive(Debug, Default)]
pub struct Tails {
    known: RefCell<QuickMap<(Place, Place, Family), bool>>,
    /// Where sources are hidden on the way from a place.
    hidden: RefCell<QuickMap<(Place, Family), Vec<Hiding>>>,
    /// Where packets came on all these ways, with their destinations.
    places: RefCell<QuickMap<Place, Destinations>>,
}

type Destinations = HashSet<(Family, Span<u128>)>;

impl Tails {
    /// Whether packets of a family to such destinations came by here: what is known holds only as long as nothing is
    /// different for them.
    pub fn pass(&self, place: Place, family: Family, destinations: Option<Prefix>) -> bool {
        let destinations = destinations.map_or(Span::all(family), Span::of);
        self.places
            .borrow()
            .get(&place)
            .is_some_and(|passed| passed.iter().any(|(of, span)| *of == family && span.meets(&destinations)))
    }

    /// Whether all packets that come to `place`, whatever they are, go on without meeting functions again, and none of them
    /// fares worse than it would from `entry` without us. Then nothing has to be looked at there for single sites.
    pub fn are_well(&self, fabric: &Fabric, place: Place, entry: Place, family: Family) -> bool {
        if let Some(known) = self.known.borrow().get(&(place, entry, family)) {
            return *known;
        }
        let well = self.look(fabric, place, entry, family);
        self.known.borrow_mut().insert((place, entry, family), well);
        well
    }

    /// Where packets with sources of a prefix are given other ones behind `place`, which [`are_well`](Self::are_well) from there on:
    /// there replies to them are given the prefix's addresses back.
    pub fn hide(&self, place: Place, prefix: Prefix) -> Vec<Hiding> {
        let hidden = self.hidden.borrow();
        let all = hidden.get(&(place, prefix.family())).into_iter().flatten();
        let meets = |hiding: &&Hiding| hiding.from.is_none_or(|from| from.meets(&Span::of(prefix)));
        all.filter(meets).copied().collect()
    }

    fn look(&self, fabric: &Fabric, place: Place, entry: Place, family: Family) -> bool {
        let all = Class::routed(family);
        let hidden = Hidden::default();
        let walker = Walker { translating: Translating::Noted(&hidden), ..Walker::new(fabric) };
        let after = walker.walk(all.clone(), place);
        self.hidden.borrow_mut().insert((place, family), hidden.take());
        for way in &after {
            for hop in &way.hops {
                let passed = way.classes.iter().map(|class| (family, class.destination));
                self.places.borrow_mut().entry(hop.place).or_default().extend(passed);
            }
        }
        if after.iter().any(|way| !way.passes.is_empty() || !told_by_destination(way)) {
            return false;
        }
        let mut worse = after.iter().filter(|way| !gets_out(fabric, way)).peekable();
        if worse.peek().is_none() {
            return true;
        }
        let before =
            Walker { translating: Translating::Ignored, ..Walker::without_us(fabric) }.walk(all, entry);
        worse.all(|way| {
            let fared_better = |other: &Way| {
                let both = both(&way.classes, &other.classes);
                both.iter().any(|class| gets_to_somebody(fabric, other, class))
            };
            matches!(way.end, End::Dropped(_) | End::Delivered) && !before.iter().any(fared_better)
        })
    }
}

fn told_by_destination(way: &Way) -> bool {
    way.classes
        .iter()
        .all(|class| Class { destination: class.destination, ..Class::all(class.family) } == *class)
}
