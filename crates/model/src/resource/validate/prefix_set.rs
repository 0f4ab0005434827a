//! Many prefixes, asked whether any covers another.

use std::collections::BTreeSet;

use ipnet::IpNet;

use crate::address::{Family, Prefix};

#[derive(Default)]
pub(super) struct PrefixSet {
    prefixes: BTreeSet<Prefix>,
    /// The lengths that occur, so that the others need not be tried.
    lengths: BTreeSet<u8>,
}

impl PrefixSet {
    pub const EMPTY: PrefixSet = PrefixSet { prefixes: BTreeSet::new(), lengths: BTreeSet::new() };

    /// Whether any of these covers `prefix`. The cost grows with the number of different lengths alone.
    pub fn covers(&self, prefix: Prefix) -> bool {
        self.lengths.range(..=prefix.length()).any(|length| {
            let shorter = IpNet::new(prefix.address(), *length).map(Prefix::of);
            shorter.is_ok_and(|shorter| self.prefixes.contains(&shorter))
        })
    }

    pub fn of(&self, family: Family) -> impl Iterator<Item = Prefix> {
        self.prefixes.iter().copied().filter(move |prefix| prefix.family() == family)
    }
}

impl Extend<Prefix> for PrefixSet {
    fn extend<I: IntoIterator<Item = Prefix>>(&mut self, prefixes: I) {
        for prefix in prefixes {
            self.prefixes.insert(prefix);
            self.lengths.insert(prefix.length());
        }
    }
}

impl FromIterator<Prefix> for PrefixSet {
    fn from_iter<I: IntoIterator<Item = Prefix>>(prefixes: I) -> Self {
        let mut set = Self::default();
        set.extend(prefixes);
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covers_what_lies_within() {
        let set: PrefixSet =
            ["10.0.0.0/8", "2001:db8::/32"].map(|text| text.parse().unwrap()).into_iter().collect();
        for (prefix, covered) in [
            ("10.0.0.0/8", true),
            ("10.1.2.3/32", true),
            ("0.0.0.0/0", false),
            ("11.0.0.0/8", false),
            ("2001:db8:1::/48", true),
            ("2001:db9::/48", false),
        ] {
            assert_eq!(set.covers(prefix.parse().unwrap()), covered, "{prefix}");
        }
    }
}
