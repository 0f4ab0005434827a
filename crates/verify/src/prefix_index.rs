//! Things found by the prefixes that they are about, in time that does not grow with the number of things.

use std::collections::BTreeMap;

use catena_model::address::{Family, Prefix};

use crate::class::{Span, number};

#[derive(Clone, Debug)]
pub struct PrefixIndex<T> {
    /// By family, first address and length; those of one prefix in order.
    things: BTreeMap<(Family, u128, u8), Vec<T>>,
    /// The lengths that prefixes of each family have, and how many different prefixes have them.
    lengths: BTreeMap<(Family, u8), usize>,
}

impl<T> Default for PrefixIndex<T> {
    fn default() -> Self {
        Self { things: BTreeMap::new(), lengths: BTreeMap::new() }
    }
}

impl<T: Ord> PrefixIndex<T> {
    pub fn insert(&mut self, prefix: Prefix, thing: T) {
        let things = self.things.entry(key(prefix)).or_insert_with(|| {
            *self.lengths.entry((prefix.family(), prefix.length())).or_default() += 1;
            Vec::new()
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
            let length = (prefix.family(), prefix.length());
            if let Some(count) = self.lengths.get_mut(&length) {
                *count -= 1;
                if *count == 0 {
                    self.lengths.remove(&length);
                }
            }
        }
        true
    }
}

impl<T> PrefixIndex<T> {
    /// Whether there is a prefix that all of the span is in.
    pub fn covers(&self, family: Family, span: Span<u128>) -> bool {
        let mut lengths = self.lengths.range((family, 0)..=(family, u8::MAX));
        lengths.any(|((_, length), _)| {
            let first = first_of(family, span.first, *length);
            first == first_of(family, span.last, *length)
                && self.things.contains_key(&(family, first, *length))
        })
    }

    /// The things whose prefix has an address in the span, each with its prefix's addresses and length.
    pub fn overlapping(&self, family: Family, span: Span<u128>) -> impl Iterator<Item = Found<'_, T>> {
        // Prefixes that begin before the span are those that the span's first address lies in.
        let lengths = self.lengths.range((family, 0)..=(family, u8::MAX));
        let around = lengths.filter_map(move |((_, length), _)| {
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

fn key(prefix: Prefix) -> (Family, u128, u8) {
    (prefix.family(), number(prefix.address()), prefix.length())
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
            prop_assert_eq!(format!("{index:?}"), format!("{untouched:?}"));
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
            let overlaps = |prefix: &Prefix| Span::of(*prefix).intersection(&span).is_some();
            let wanted: Vec<usize> = (0..).zip(&prefixes).filter(|(_, prefix)| overlaps(prefix)).map(|(nth, _)| nth).collect();
            prop_assert_eq!(found, wanted);
        }
    }
}
