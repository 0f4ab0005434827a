//! Things found by the prefixes that they are about, in time that does not grow with the number of things.

use std::collections::BTreeSet;

use catena_model::address::{Family, Prefix};
use smallvec::SmallVec;

use crate::class::{Span, number};
use crate::quick_hash::QuickMap;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixIndex<T> {
    /// Those of one prefix in order; most often it is one.
    things: QuickMap<Key, SmallVec<[T; 1]>>,
    /// The prefixes that have things: what lies within a span is next to each other here. Most spans lie within one prefix, and
    /// then nothing is looked for here.
    prefixes: BTreeSet<Key>,
    /// The lengths that prefixes of each family have, in ascending order, and how many different prefixes have them.
    lengths: [Vec<(u8, usize)>; 2],
}

/// A prefix: its family, first address and length.
type Key = (Family, u128, u8);

impl<T> Default for PrefixIndex<T> {
    fn default() -> Self {
        Self { things: QuickMap::default(), prefixes: BTreeSet::new(), lengths: Default::default() }
    }
}

impl<T: Ord> PrefixIndex<T> {
    pub fn insert(&mut self, prefix: Prefix, thing: T) {
        let things = self.things.entry(key(prefix)).or_insert_with(|| {
            self.prefixes.insert(key(prefix));
            let lengths = &mut self.lengths[nth(prefix.family())];
            match lengths.binary_search_by_key(&prefix.length(), |(length, _)| *length) {
                Ok(place) => lengths[place].1 += 1,
                Err(place) => lengths.insert(place, (prefix.length(), 1)),
            }
            SmallVec::new()
        });
        // Where things stand does not tell when they came.
        let place = things.partition_point(|other| *other <= thing);
        things.insert(place, thing);
    }

    /// Takes one such thing of the prefix away; `false` if there is none.
    pub fn remove(&mut self, prefix: Prefix, thing: &T) -> bool {
        let Some(things) = self.things.get_mut(&key(prefix)) else { return false };
        let Ok(place) = things.binary_search(thing) else { return false };
        things.remove(place);
        if things.is_empty() {
            self.things.remove(&key(prefix));
            self.prefixes.remove(&key(prefix));
            let lengths = &mut self.lengths[nth(prefix.family())];
            if let Ok(place) = lengths.binary_search_by_key(&prefix.length(), |(length, _)| *length) {
                lengths[place].1 -= 1;
                lengths.retain(|(_, count)| *count > 0);
            }
        }
        true
    }
}

impl<T> PrefixIndex<T> {
    /// Whether there is a prefix that all of the span is in.
    pub fn covers(&self, family: Family, span: Span<u128>) -> bool {
        self.lengths[nth(family)].iter().any(|(length, _)| {
            let first = first_of(family, span.first, *length);
            first == first_of(family, span.last, *length)
                && self.things.contains_key(&(family, first, *length))
        })
    }

    /// The things whose prefix has an address in the span, each with its prefix's addresses and length.
    pub fn overlapping(&self, family: Family, span: Span<u128>) -> impl Iterator<Item = Found<'_, T>> {
        let lengths = &self.lengths[nth(family)];
        // Where no prefix is longer than the span, its first address lies in all of them; else in those that begin before it.
        let longest = lengths.last().map_or(0, |(length, _)| *length);
        let whole = span.last <= span.first | host_bits(family, longest);
        let around = lengths.iter().filter_map(move |(length, _)| {
            let first = first_of(family, span.first, *length);
            (whole || first < span.first).then_some((family, first, *length))
        });
        let range = (family, span.first, 0)..=(family, span.last, u8::MAX);
        let within = (!whole).then(|| self.prefixes.range(range)).into_iter().flatten().copied();
        around.chain(within).flat_map(|key| {
            let (family, first, length) = key;
            let span = Span { first, last: first | host_bits(family, length) };
            let things = self.things.get(&key).map(SmallVec::as_slice).unwrap_or_default();
            things.iter().map(move |thing| Found { span, length, thing })
        })
    }
}

pub struct Found<'a, T> {
    pub span: Span<u128>,
    pub length: u8,
    pub thing: &'a T,
}

fn key(prefix: Prefix) -> Key {
    (prefix.family(), number(prefix.address()), prefix.length())
}

/// Where a family's lengths are.
fn nth(family: Family) -> usize {
    usize::from(family == Family::V6)
}

/// All the bits behind a prefix of this length, set.
fn host_bits(family: Family, length: u8) -> u128 {
    1_u128.checked_shl((family.bits() - length).into()).map_or(u128::MAX, |size| size - 1)
}

/// The first address of the prefix of this length that `address` lies in.
fn first_of(family: Family, address: u128, length: u8) -> u128 {
    address & !host_bits(family, length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prefix() -> impl Strategy<Value = Prefix> {
        (any::<u8>(), 0..=8_u8).prop_map(|(last, length)| {
            let address = crate::class::address(Family::V4, last.into());
            Prefix::of(ipnet::IpNet::new(address, if length == 0 { 0 } else { 24 + length }).unwrap())
        })
    }

    proptest! {
        #[test]
        fn what_was_removed_leaves_no_trace(
            stay in prop::collection::vec((prefix(), 0..3), 0..8),
            go in prop::collection::vec((prefix(), 0..3), 0..8),
        ) {
            let mut untouched = PrefixIndex::default();
            let mut index = PrefixIndex::default();
            for (prefix, thing) in &go {
                index.insert(*prefix, *thing);
            }
            for (prefix, thing) in &stay {
                untouched.insert(*prefix, *thing);
                index.insert(*prefix, *thing);
            }
            for (prefix, thing) in &go {
                prop_assert!(index.remove(*prefix, thing));
            }
            prop_assert_eq!(&index, &untouched);
            prop_assert!(!index.remove(Prefix::all(Family::V6), &0));
        }

        #[test]
        fn finds_what_overlaps(prefixes in prop::collection::vec(prefix(), 0..12), a in any::<u8>(), b in any::<u8>()) {
            let span = Span { first: a.min(b).into(), last: a.max(b).into() };
            let mut index = PrefixIndex::default();
            for (nth, prefix) in prefixes.iter().enumerate() {
                index.insert(*prefix, nth);
            }
            let mut found: Vec<usize> = index.overlapping(Family::V4, span).map(|found| *found.thing).collect();
            found.sort_unstable();
            let overlaps = |prefix: &Prefix| Span::of(*prefix).meets(&span);
            let wanted: Vec<usize> = (0..).zip(&prefixes).filter(|(_, prefix)| overlaps(prefix)).map(|(nth, _)| nth).collect();
            prop_assert_eq!(found, wanted);
        }
    }
}
