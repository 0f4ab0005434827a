//! One packet, as far as steering looks at it, and the choice of an instance for its flow.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::address::{Dscp, Family, Protocol};
use crate::forwarding::{Direction, InstanceId, Member, Stickiness};

/// The header fields that steering looks at. Ports are 0 for protocols without ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Packet {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: Protocol,
    #[serde(default)]
    pub source_port: u16,
    #[serde(default)]
    pub destination_port: u16,
    /// Of the packet, and so of its flow. The reply is taken for one of this flow, whatever it is marked with.
    #[serde(default)]
    pub dscp: Dscp,
}

impl Packet {
    pub fn family(&self) -> Family {
        Family::of(self.source)
    }

    /// The packet that answers this one.
    pub fn reply(&self) -> Packet {
        Packet {
            source: self.destination,
            destination: self.source,
            protocol: self.protocol,
            source_port: self.destination_port,
            destination_port: self.source_port,
            dscp: self.dscp,
        }
    }

    /// The packet as the site would have sent it: itself on the way up, its reply on the way down.
    pub fn seen_from_site(&self, direction: Direction) -> Packet {
        match direction {
            Direction::Up => *self,
            Direction::Down => self.reply(),
        }
    }

    /// A hash of what `stickiness` looks at, the same for both directions.
    ///
    /// The steering engine computes the same in `bpf/flow.h` (`flow_hash`); a test compares the two.
    pub fn flow_hash(&self, stickiness: Stickiness) -> u32 {
        let ports = stickiness == Stickiness::FiveTuple;
        let protocol = if stickiness == Stickiness::TwoTuple { 0 } else { self.protocol.0 };
        let end = |address, port| endpoint(address, if ports { port } else { 0 });
        let this = end(self.source, self.source_port);
        let other = end(self.destination, self.destination_port);
        let (low, high) = if this <= other { (this, other) } else { (other, this) };
        low.into_iter().chain(high).chain([u32::from(protocol)]).fold(HASH_KEY, |hash, word| mix(hash ^ word))
    }
}

/// Start value of [`Packet::flow_hash`].
pub const HASH_KEY: u32 = 0x0ca7_e7a1;

/// Weighted rendezvous hashing: each instance draws a number for the flow, and the lowest cost (the logarithm of what was
/// drawn, by weight) takes it. So losing one moves its flows alone, each to its second choice, which is what `pick` says
/// of the rest. The lower id wins among equals.
pub fn pick(flow_hash: u32, instances: impl IntoIterator<Item = Member>) -> Option<InstanceId> {
    let mut best: Option<(u64, Member)> = None;
    for member in instances {
        let cost = cost(mix(flow_hash ^ mix(member.id.0)));
        let wins = best.is_none_or(|(lowest, other)| {
            let (mine, theirs) =
                (cost * u64::from(other.weight.get()), lowest * u64::from(member.weight.get()));
            mine < theirs || (mine == theirs && member.id < other.id)
        });
        if wins {
            best = Some((cost, member));
        }
    }
    best.map(|(_, member)| member.id)
}

/// −log₂(drawn / 2³²), in units of 2⁻²⁴; the mantissa's logarithm by a quadratic that is off by less than 0.008.
/// Exponentially distributed if `drawn` is uniform: the minimum of such draws, each divided by a weight, falls on each
/// in proportion to its weight.
fn cost(drawn: u32) -> u64 {
    let drawn = drawn.max(1);
    let zeros = drawn.leading_zeros();
    // The mantissa's fraction, 0 to 1 in units of 2⁻²⁴.
    let fraction = u64::from((drawn << zeros) << 1 >> 8);
    // log₂(1 + f) ≈ f + 0.3438 f (1 − f)
    let curve = (fraction * ((1 << 24) - fraction)) >> 24;
    ((u64::from(zeros) + 1) << 24) - (fraction + ((curve * 88) >> 8))
}

/// An address as four big-endian words (IPv4 as v4-mapped IPv6, RFC 4291 section 2.5.5.2), then the port.
fn endpoint(address: IpAddr, port: u16) -> [u32; 5] {
    let octets = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    };
    let word = |at: usize| u32::from_be_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]]);
    [word(0), word(4), word(8), word(12), u32::from(port)]
}

/// The finaliser of MurmurHash3 (public domain, Austin Appleby): every input bit flips each output bit half the time.
fn mix(mut word: u32) -> u32 {
    word ^= word >> 16;
    word = word.wrapping_mul(0x85eb_ca6b);
    word ^= word >> 13;
    word = word.wrapping_mul(0xc2b2_ae35);
    word ^ (word >> 16)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU8;

    use super::*;

    fn packet(source_port: u16) -> Packet {
        Packet {
            dscp: Dscp::default(),
            source: "172.16.1.10".parse().unwrap(),
            destination: "198.51.100.10".parse().unwrap(),
            protocol: Protocol::TCP,
            source_port,
            destination_port: 80,
        }
    }

    const ALL: [Stickiness; 3] = [Stickiness::FiveTuple, Stickiness::ThreeTuple, Stickiness::TwoTuple];

    #[test]
    fn both_directions_pick_the_same_instance() {
        for port in 1024..2048 {
            for stickiness in ALL {
                assert_eq!(packet(port).flow_hash(stickiness), packet(port).reply().flow_hash(stickiness));
            }
        }
    }

    #[test]
    fn ports_and_protocol_count_only_for_those_who_look_at_them() {
        let udp = Packet { protocol: Protocol::UDP, ..packet(1024) };
        let hashes =
            |stickiness| [packet(1024), packet(1025), udp].map(|packet| packet.flow_hash(stickiness));
        let [one, other_port, other_protocol] = hashes(Stickiness::FiveTuple);
        assert!(one != other_port && one != other_protocol);
        let [one, other_port, other_protocol] = hashes(Stickiness::ThreeTuple);
        assert!(one == other_port && one != other_protocol);
        let [one, other_port, other_protocol] = hashes(Stickiness::TwoTuple);
        assert!(one == other_port && one == other_protocol);
    }

    #[test]
    fn flows_spread_by_weight_and_losing_one_instance_moves_its_flows_alone() {
        let weights = [1, 2, 5];
        let all = [1, 2, 3].map(|id: u8| Member {
            id: InstanceId(id.into()),
            weight: NonZeroU8::new(weights[usize::from(id) - 1]).unwrap(),
        });
        let mut count = [0_u32; 3];
        for port in 1..=40_000 {
            let hash = packet(port).flow_hash(Stickiness::FiveTuple);
            let chosen = pick(hash, all).unwrap();
            count[chosen.0 as usize - 1] += 1;
            let without_third = pick(hash, all[..2].to_vec()).unwrap();
            assert!(chosen == InstanceId(3) || chosen == without_third);
        }
        for (count, weight) in count.into_iter().zip(weights) {
            let expected = 40_000 * u32::from(weight) / 8;
            assert!(count.abs_diff(expected) < expected / 25, "{count} of {expected}");
        }
    }

    #[test]
    fn nothing_to_pick_from() {
        assert_eq!(pick(0, []), None);
    }
}
