//! What the maps hold: the structures of `bpf/route_layout.h`, byte for byte. A test compares the two by BTF.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::layout::{PORT_NAME, layout};

/// How many classes of rules of one family can be asked of packets that come in by one port.
pub(crate) const MAX_PROBES: usize = 32;
/// How many slots there are for next hops, 0 among them, which is nobody's.
pub(crate) const HOP_SLOTS: u32 = 512;
/// How many bits the element's own addresses share.
pub(crate) const OWN_BITS: u32 = 65_536;
const OWN_WORDS: usize = OWN_BITS as usize / 64;

layout! {
    struct Probe {
        mask: [u8; 16],
        class: u32,
        destination: u8,
        unless_released: u8,
        pad: [u8; 2],
    }

    struct Entrance {
        generation: u32,
        released: u32,
        clsact: u32,
        ethernet: u32,
        count4: u32,
        count6: u32,
        name: [u8; PORT_NAME],
        probes4: [Probe; MAX_PROBES],
        probes6: [Probe; MAX_PROBES],
    }

    struct Class {
        order: u16,
        family: u8,
        destination: u8,
        length: u8,
        unless_released: u8,
        pad: [u8; 2],
        port: [u8; PORT_NAME],
    }

    struct RuleKey4 {
        class: u32,
        address: [u8; 4],
    }

    struct RuleKey6 {
        class: u32,
        address: [u8; 16],
    }

    struct Lead {
        path: u32,
        hop: u32,
    }

    struct TableKey {
        path: u32,
        family: u32,
    }

    struct Own {
        bits: [u64; OWN_WORDS],
        all: u64,
    }

    struct Router {
        generation: u32,
        pad: u32,
    }
}
