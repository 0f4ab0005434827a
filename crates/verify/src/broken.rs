//! For which packets a promise is broken: all of them, so that two breaks can be compared.

use catena_model::forwarding::Direction;
use catena_model::name::{ChainName, SiteName};
use catena_model::packet::Packet;
use serde::{Deserialize, Serialize};

use crate::class::{Class, take};
use crate::verdict::Property;
use crate::walk::{Entry, walk_from};
use crate::{Network, Walk};

/// A promise that is broken, or may be, for packets that come in somewhere. The [`Report`](crate::Report) tells each promise
/// once, with one packet; here are all packets that show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Broken {
    pub property: Property,
    /// One of the site's; which one follows from the packets.
    pub chain: ChainName,
    pub site: SiteName,
    pub direction: Direction,
    /// What happens, in words.
    pub what: String,
    /// What must be gone for it to happen; `None`: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub without: Option<String>,
    pub entry: Entry,
    packets: Vec<Class>,
}

impl Broken {
    /// Broken for no packet yet.
    pub(crate) fn new(
        property: Property,
        (chain, site, direction): (ChainName, SiteName, Direction),
        (what, without): (String, Option<String>),
        entry: Entry,
    ) -> Self {
        Self { property, chain, site, direction, what, without, entry, packets: Vec::new() }
    }

    /// Adds this one and its packets to `all`.
    pub(crate) fn add_to(mut self, all: &mut Vec<Self>, packets: &[Class]) {
        let same = |other: &&mut Self| {
            self.is_like(other) && (&self.chain, &self.what) == (&other.chain, &other.what)
        };
        match all.iter_mut().find(same) {
            Some(same) => same.insert(packets),
            None => {
                self.insert(packets);
                all.push(self);
            }
        }
    }

    fn insert(&mut self, packets: &[Class]) {
        for class in packets {
            if !self.packets.contains(class) {
                self.packets.push(*class);
            }
        }
    }

    /// The same for those packets alone for which none of `others` says so; `None` if there are none. Which chain it is told of,
    /// and in which words, does not matter.
    pub fn beyond<'o>(&self, others: impl IntoIterator<Item = &'o Self>) -> Option<Self> {
        let mut packets = self.packets.clone();
        for other in others.into_iter().filter(|other| self.is_like(other)) {
            for class in &other.packets {
                take(&mut packets, class, |_| {});
            }
        }
        (!packets.is_empty()).then(|| Self { packets, ..self.clone() })
    }

    /// The same for those packets alone for which one of `others` says so, too; `None` if there are none.
    pub fn within<'o>(&self, others: impl IntoIterator<Item = &'o Self>) -> Option<Self> {
        let mut packets = Vec::new();
        let mut left = self.packets.clone();
        for other in others.into_iter().filter(|other| self.is_like(other)) {
            for class in &other.packets {
                take(&mut left, class, |common| packets.push(common));
            }
        }
        (!packets.is_empty()).then(|| Self { packets, ..self.clone() })
    }

    /// Whether it is so for a packet that comes in at `entry`.
    pub fn has(&self, entry: &Entry, packet: &Packet) -> bool {
        self.entry == *entry && self.packets.iter().any(|class| class.contains(&(*packet).into()))
    }

    /// The way of one of the packets; of a whole one, if there is one.
    pub fn example(&self, network: &Network) -> Option<Walk> {
        let probes = self.packets.iter().filter_map(|class| class.examples(&[]).next());
        let probe = probes.min_by_key(|probe| !probe.kind.is_whole())?;
        Some(walk_from(network, &self.entry, probe))
    }

    /// Whether the two say the same, each of its packets.
    fn is_like(&self, other: &Self) -> bool {
        let Self { property, site, direction, without, entry, .. } = other;
        (self.property, &self.site, self.direction, &self.without, &self.entry)
            == (*property, site, *direction, without, entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(packets: &[&str]) -> Broken {
        let entry = Entry { node: "core".parse().unwrap(), port: "inet".parse().unwrap(), tunnel: None };
        let whose = ("web".parse().unwrap(), "hq".parse().unwrap(), Direction::Up);
        let class = |to: &&str| Class::of_end(to.parse().unwrap(), Direction::Down);
        let mut all = Vec::new();
        let packets: Vec<Class> = packets.iter().map(class).collect();
        Broken::new(Property::NoBypass, whose, ("led off".to_owned(), None), entry)
            .add_to(&mut all, &packets);
        all.remove(0)
    }

    #[test]
    fn a_smaller_break_covers_no_larger_one() {
        let (small, large) = (broken(&["198.51.100.64/26"]), broken(&["198.51.100.0/24"]));
        assert_eq!(small.beyond([&large]), None);
        let left = large.beyond([&small]).unwrap();
        assert_eq!(left.within([&small]), None);
        assert_eq!(large.within([&small]), Some(small.clone()));
        let halves = broken(&["198.51.100.0/25", "198.51.100.128/25"]);
        assert_eq!((large.beyond([&halves]), halves.beyond([&large])), (None, None));
    }

    #[test]
    fn breaks_of_other_things_cover_nothing() {
        let one = broken(&["198.51.100.0/24"]);
        for other in [
            Broken { property: Property::NoLoop, ..one.clone() },
            Broken { site: "branch".parse().unwrap(), ..one.clone() },
            Broken { direction: Direction::Down, ..one.clone() },
            Broken { without: Some("an instance of fw".to_owned()), ..one.clone() },
            Broken { entry: Entry { port: "lan".parse().unwrap(), ..one.entry.clone() }, ..one.clone() },
        ] {
            assert_eq!(one.beyond([&other]).as_ref(), Some(&one));
            assert_eq!(one.within([&other]), None);
        }
        let told_otherwise =
            Broken { chain: "dns".parse().unwrap(), what: "led off at edge".to_owned(), ..one.clone() };
        assert_eq!(one.beyond([&told_otherwise]), None);
    }

    #[test]
    fn what_is_stored_is_what_is_read() {
        let one = broken(&["198.51.100.0/24", "2001:db8::/32"]);
        let text = serde_json::to_vec(&one).unwrap();
        assert_eq!(serde_json::from_slice::<Broken>(&text).unwrap(), one);
    }
}
