//! Ways that all sites' packets share once they have left the functions: walked once, for all of them.

use std::cell::RefCell;
use std::collections::HashMap;

use catena_model::address::Family;

use crate::class::Class;
use crate::fabric::{Fabric, Place};
use crate::intent::routed;
use crate::property::{gets_out, gets_to_somebody};
use crate::symbolic::{End, Walker, Way};

/// Whether what leaves the functions is well off from there on, by where it leaves and where it had come in.
pub struct Tails<'f> {
    fabric: &'f Fabric,
    known: RefCell<HashMap<(Place, Place, Family), bool>>,
}

impl<'f> Tails<'f> {
    pub fn new(fabric: &'f Fabric) -> Self {
        Self { fabric, known: RefCell::new(HashMap::new()) }
    }

    /// Whether all packets that come to `place`, whatever they are, go on without meeting functions again, and none of them
    /// fares worse than it would from `entry` without us. Then nothing has to be looked at there for single sites.
    pub fn are_well(&self, place: Place, entry: Place, family: Family) -> bool {
        if let Some(known) = self.known.borrow().get(&(place, entry, family)) {
            return *known;
        }
        let well = self.look(place, entry, family);
        self.known.borrow_mut().insert((place, entry, family), well);
        well
    }

    fn look(&self, place: Place, entry: Place, family: Family) -> bool {
        let all = Class { destination: routed(family), ..Class::all(family) };
        let after = Walker::new(self.fabric).walk(all, place);
        if after.iter().any(|way| !way.passes.is_empty() || !told_by_destination(way, &all)) {
            return false;
        }
        let mut worse = after.iter().filter(|way| !gets_out(self.fabric, way)).peekable();
        if worse.peek().is_none() {
            return true;
        }
        let before = Walker::without_us(self.fabric).walk(all, entry);
        worse.all(|way| {
            matches!(way.end, End::Dropped(_) | End::Delivered)
                && !before.iter().any(|other| match other.class.intersection(&way.class) {
                    Some(class) => gets_to_somebody(self.fabric, &Way { class, ..other.clone() }),
                    None => false,
                })
        })
    }
}

fn told_by_destination(way: &Way, all: &Class) -> bool {
    Class { destination: all.destination, ..way.class } == *all
}
