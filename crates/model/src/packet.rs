//! One packet, as far as steering looks at it, and the choice of an instance for its flow.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::address::{Family, Protocol};
use crate::forwarding::{Direction, InstanceId};

/// The header fields that steering looks at. Ports are 0 for protocols without ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Packet {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: Protocol,
    #[serde(default)]
    pub source_port: u16,
    #[serde(default)]
    pub destination_port: u16,
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
        }
    }

    /// The packet as the site would have sent it: itself on the way up, its reply on the way down.
    pub fn seen_from_site(&self, direction: Direction) -> Packet {
        match direction {
            Direction::Up => *self,
            Direction::Down => self.reply(),
        }
    }

    /// A hash that is the same for both directions of a flow.
    ///
    /// The steering engine computes the same in `bpf/steer.bpf.c` (`flow_hash`); a test compares the two.
    pub fn flow_hash(&self) -> u32 {
        let this = endpoint(self.source, self.source_port);
        let other = endpoint(self.destination, self.destination_port);
        let (low, high) = if this <= other { (this, other) } else { (other, this) };
        low.into_iter()
            .chain(high)
            .chain([u32::from(self.protocol.0)])
            .fold(HASH_KEY, |hash, word| mix(hash ^ word))
    }
}

/// Start value of [`Packet::flow_hash`].
pub const HASH_KEY: u32 = 0x0ca7_e7a1;

/// Rendezvous hashing: the instance with the highest score takes the flow, so that losing one moves its flows alone.
/// The lower id wins among equals.
pub fn pick(flow_hash: u32, instances: &[InstanceId]) -> Option<InstanceId> {
    instances.iter().copied().max_by_key(|id| (mix(flow_hash ^ mix(id.0)), std::cmp::Reverse(*id)))
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
    use super::*;

    fn packet(source_port: u16) -> Packet {
        Packet {
            source: "172.16.1.10".parse().unwrap(),
            destination: "198.51.100.10".parse().unwrap(),
            protocol: Protocol::TCP,
            source_port,
            destination_port: 80,
        }
    }

    #[test]
    fn both_directions_pick_the_same_instance() {
        for port in 1024..2048 {
            assert_eq!(packet(port).flow_hash(), packet(port).reply().flow_hash());
        }
    }

    #[test]
    fn flows_spread_and_losing_one_instance_moves_its_flows_alone() {
        let all = [1, 2, 3].map(InstanceId);
        let mut count = [0; 3];
        for port in 1024..4096 {
            let hash = packet(port).flow_hash();
            let chosen = pick(hash, &all).unwrap();
            count[chosen.0 as usize - 1] += 1;
            let without_third = pick(hash, &all[..2]).unwrap();
            assert!(chosen == InstanceId(3) || chosen == without_third);
        }
        assert!(count.iter().all(|&n| n > 850), "{count:?}");
    }

    #[test]
    fn nothing_to_pick_from() {
        assert_eq!(pick(0, &[]), None);
    }
}
