//! Things found by the prefixes that they are about, in time that does not grow with the number of things.

use std::collections::{BTreeMap, BTreeSet};

use catena_model::address::{Family, Prefix};

use crate::class::{Span, number};

#[derive(Clone, Debug)]
pub struct PrefixIndex<T> {
    /// By family, first address and length.
    things: BTreeMap<(Family, u128, u8), Vec<T>>,
    /// The lengths that prefixes of each family have.
    lengths: BTreeSet<(Family, u8)>,
}

impl<T> Default for PrefixIndex<T> {
    fn default() -> Self {
        Self { things: BTreeMap::new(), lengths: BTreeSet::new() }
    }
}

impl<T> PrefixIndex<T> {
    pub fn insert(&mut self, prefix: Prefix, thing: T) {
        self.lengths.insert((prefix.family(), prefix.length()));
        self.things
            .entry((prefix.family(), number(prefix.address()), prefix.length()))
            .or_default()
            .push(thing);
    }

    /// Whether there is a prefix that all of the span is in.
    pub fn covers(&self, family: Family, span: Span<u128>) -> bool {
        let mut lengths = self.lengths.range((family, 0)..=(family, u8::MAX));
        lengths.any(|(_, length)| {
            let first = first_of(family, span.first, *length);
            first == first_of(family, span.last, *length)
                && self.things.contains_key(&(family, first, *length))
        })
    }

    /// The things whose prefix has an address in the span, each with its prefix's addresses and length.
    pub fn overlapping(&self, family: Family, span: Span<u128>) -> impl Iterator<Item = Found<'_, T>> {
        // Prefixes that begin before the span are those that the span's first address lies in.
        let lengths = self.lengths.range((family, 0)..=(family, u8::MAX));
        let around = lengths.filter_map(move |(_, length)| {
            let first = first_of(family, span.first, *length);
            let key = (family, first, *length);
            if first < span.first { self.things.get_key_value(&key) } else { None }
        });
        let within = self.things.range((family, span.first, 0)..=(family, span.last, u8::MAX));
        around.chain(within).flat_map(|((family, first, length), things)| {
            let size = 1_u128.checked_shl((family.bits() - length).into()).map_or(u128::MAX, |size| size - 1);
            let span = Span { first: *first, last: first | size };
            things.iter().map(move |thing| Found { span, length: *length, thing })
        })
    }
}

pub struct Found<'a, T> {
    pub span: Span<u128>,
    pub length: u8,
    pub thing: &'a T,
}

/// The first address of the prefix of this length that `address` lies in.
fn first_of(family: Family, address: u128, length: u8) -> u128 {
    let host_bits = u32::from(family.bits() - length);
    u128::MAX.checked_shl(host_bits).unwrap_or(0) & address
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
        fn finds_what_overlaps(prefixes in prop::collection::vec(prefix(), 0..12), a in any::<u8>(), b in any::<u8>()) {
            let span = Span { first: a.min(b).into(), last: a.max(b).into() };
            let mut index = PrefixIndex::default();
            for (nth, prefix) in prefixes.iter().enumerate() {
                index.insert(*prefix, nth);
            }
            let mut found: Vec<usize> = index.overlapping(Family::V4, span).map(|found| *found.thing).collect();
            found.sort_unstable();
            let overlaps = |prefix: &Prefix| Span::of(*prefix).intersection(&span).is_some();
            let wanted: Vec<usize> = (0..).zip(&prefixes).filter(|(_, prefix)| overlaps(prefix)).map(|(nth, _)| nth).collect();
            prop_assert_eq!(found, wanted);
        }
    }
}
