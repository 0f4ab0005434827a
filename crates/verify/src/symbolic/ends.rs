//! What rules of routing ask of addresses.

use catena_model::address::Family;

use crate::class::{Class, Kinds, Span, take};

/// What rules of routing ask for.
#[derive(Clone, Copy)]
pub(super) struct Ends {
    pub(super) from: Option<Span<u128>>,
    pub(super) to: Option<Span<u128>>,
}

impl Ends {
    pub(super) fn from(span: Span<u128>) -> Self {
        Self { from: Some(span), to: None }
    }

    pub(super) fn to(span: Span<u128>) -> Self {
        Self { from: None, to: Some(span) }
    }

    pub(super) fn intersection(self, other: Self) -> Option<Self> {
        let both = |one: Option<Span<u128>>, other: Option<Span<u128>>| match (one, other) {
            (Some(one), Some(other)) => one.intersection(&other).map(Some),
            (one, other) => Some(one.or(other)),
        };
        Some(Self { from: both(self.from, other.from)?, to: both(self.to, other.to)? })
    }

    /// What classes of one family have of them; leaves the rest. Of ICMP errors it is the senders that are asked for.
    pub(super) fn take_out(self, classes: &mut Vec<Class>) -> Vec<Class> {
        if classes.iter().all(|class| self.cover(class)) {
            return std::mem::take(classes);
        }
        let mut taken = Vec::new();
        self.take(classes, |class| taken.push(class));
        taken
    }

    /// Does `then` with each of that.
    pub(super) fn take(self, classes: &mut Vec<Class>, mut then: impl FnMut(Class)) {
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
pub(super) struct Around {
    pub(super) family: Family,
    pub(super) sources: Span<u128>,
    pub(super) destinations: Span<u128>,
}

impl Around {
    /// `None`: there is no class.
    pub(super) fn of(classes: &[Class]) -> Option<Self> {
        let (family, sources) = hull_of(classes, Class::header_sources)?;
        let (_, destinations) = hull_of(classes, |class| class.destination)?;
        Some(Self { family, sources, destinations })
    }

    pub(super) fn meets(&self, ends: Ends) -> bool {
        ends.from.is_none_or(|from| from.meets(&self.sources))
            && ends.to.is_none_or(|to| to.meets(&self.destinations))
    }
}

/// The family of some classes, which is the same, and the least span that these addresses of theirs are in; `None`: there is
/// no class.
pub(super) fn hull_of(
    classes: &[Class],
    addresses: impl Fn(&Class) -> Span<u128>,
) -> Option<(Family, Span<u128>)> {
    let (first, others) = classes.split_first()?;
    let hull = others.iter().fold(addresses(first), |hull, class| hull.hull(&addresses(class)));
    Some((first.family, hull))
}

pub(super) fn family_of(classes: &[Class]) -> Option<Family> {
    classes.first().map(|class| class.family)
}
