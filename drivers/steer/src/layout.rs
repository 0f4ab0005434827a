//! What the maps hold: the structures of `bpf/layout.h`, byte for byte. A test compares the two by BTF.

use zerocopy::{FromBytes, Immutable, IntoBytes};

pub(crate) const MAX_HOPS: usize = catena_model::forwarding::MAX_HOPS;
pub(crate) const MAX_INSTANCES: usize = catena_model::forwarding::MAX_INSTANCES;
pub(crate) const MAX_RULES: usize = catena_model::forwarding::MAX_POLICY_RULES;
/// The kernel's `IFNAMSIZ`.
pub(crate) const PORT_NAME: usize = 16;

/// Generates the structures with what a map's key or value needs.
macro_rules! layout {
    ($($(#[$meta:meta])* struct $name:ident { $($field:ident: $type:ty,)* })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
        #[repr(C)]
        pub(crate) struct $name { $(pub(crate) $field: $type,)* }

        impl Default for $name {
            fn default() -> Self {
                zerocopy::FromZeros::new_zeroed()
            }
        }

        #[cfg(test)]
        impl $crate::layout::Described for $name {
            const NAME: &str = stringify!($name);
            const SIZE: usize = size_of::<$name>();
            const FIELDS: &[(&str, usize)] = &[$((stringify!($field), std::mem::offset_of!($name, $field)),)*];
        }
    )*};
}

pub(crate) use layout;

/// A structure's shape, to be compared.
#[cfg(test)]
pub(crate) trait Described {
    const NAME: &str;
    const SIZE: usize;
    const FIELDS: &[(&str, usize)];
}

/// One more than hops: the last is outside.
pub(crate) const PLACES: usize = MAX_HOPS + 1;
pub(crate) const RULES_PER_BLOCK: usize = 4;
pub(crate) const MAX_LENGTHS: usize = 32;
/// How many slots there are, 0 among them, which is nobody's.
pub(crate) const INSTANCE_SLOTS: u32 = 2048;
pub(crate) const EXIT_SLOTS: u32 = 1024;

/// Ports with lower numbers are in an array.
pub(crate) const NEAR_PORTS: u32 = 4096;

pub(crate) const ROLE_CLAIM: u32 = 1 << 0;
pub(crate) const ROLE_STEER: u32 = 1 << 1;
pub(crate) const ROLE_INSIDE: u32 = 1 << 2;
pub(crate) const ROLE_OUTSIDE: u32 = 1 << 3;
pub(crate) const ROLE_UNDERLAY: u32 = 1 << 4;
pub(crate) const ROLE_SITE: u32 = 1 << 5;
pub(crate) const ROLE_TUNNELS: u32 = 1 << 6;

pub(crate) const RULE_V4: u8 = 1 << 0;
pub(crate) const RULE_V6: u8 = 1 << 1;
pub(crate) const RULE_LOCAL: u8 = 1 << 2;
pub(crate) const RULE_REMOTE: u8 = 1 << 3;
pub(crate) const RULE_PROTOCOL: u8 = 1 << 4;
pub(crate) const RULE_PORTS: u8 = 1 << 5;
pub(crate) const RULE_DSCP: u8 = 1 << 6;
pub(crate) const RULE_CLAIM: u8 = 1 << 7;

pub(crate) const SPACE_SITES: u16 = 0;
pub(crate) const SPACE_ALLOWED: u16 = 1;
/// Here stand the prefixes of sites that are told by port, for us to read again: no program looks beyond `SPACES`. Each of
/// these sites has a space of its own, since two may have the same prefixes.
pub(crate) const SPACES_UNUSED: u16 = 0x8000;

/// In a MAC address of 64 bits: there is one.
pub(crate) const HEARD: u64 = 1 << 48;
/// The kernel was told it: no frame changes it.
pub(crate) const PERMANENT: u64 = 1 << 49;

pub(crate) const SWEEP_IDLE: u32 = 0;
pub(crate) const SWEEP_COUNT: u32 = 1;
pub(crate) const SWEEP_STRANGERS: u32 = 2;
pub(crate) const SWEEP_PATH: u32 = 3;
pub(crate) const SWEEP_TALLIES: u32 = 4;

layout! {
    struct Port {
        roles: u32,
        directions: u32,
        mark: u32,
        clsact: u32,
        site: u32,
        insertion: u32,
        instance: u32,
        path: u32,
        name: [u8; PORT_NAME],
    }

    struct Side {
        ifindex: u32,
        has_v4: u8,
        has_v6: u8,
        direct: u8,
        tunnel: u8,
        name: [u8; PORT_NAME],
        v4: [u8; 4],
        v6: [u8; 16],
        family: u32,
        own_mac: u64,
        looked: u64,
        v4_mac: u64,
        v6_mac: u64,
    }

    struct Instance {
        handle: u32,
        id: u32,
        insertion: u32,
        state: u32,
        rewrites: u32,
        delivery: u32,
        inside: Side,
        outside: Side,
    }

    struct Member {
        handle: u32,
        id: u32,
        weight: u32,
    }

    struct Group {
        id: u32,
        count: u32,
        stickiness: u32,
        skip: u32,
        members: [Member; MAX_INSTANCES],
    }

    struct Path {
        id: u32,
        site: u32,
        realm: u32,
        count: u32,
        vlan: u32,
        groups: [u32; MAX_HOPS],
    }

    struct Policy {
        generation: u32,
        site: u32,
        realm: u32,
        count: u32,
        exits: [u32; 2],
        since: u64,
    }

    struct Rule {
        local: [u8; 16],
        remote: [u8; 16],
        first_port: u16,
        last_port: u16,
        local_length: u8,
        remote_length: u8,
        flags: u8,
        protocol: u8,
        path: u32,
        dscp: u8,
        pad: [u8; 3],
    }

    struct RulesKey {
        generation: u32,
        block: u32,
    }

    struct Rules {
        rules: [Rule; RULES_PER_BLOCK],
    }

    struct PrefixKey {
        address: [u8; 16],
        space: u16,
        length: u8,
        family: u8,
    }

    struct Lengths {
        count: u32,
        lengths: [u8; MAX_LENGTHS],
    }

    struct Tuple {
        source: [u8; 16],
        destination: [u8; 16],
        source_port: u16,
        destination_port: u16,
        protocol: u8,
        pad: [u8; 3],
    }

    struct FlowKey4 {
        realm: u32,
        local: [u8; 4],
        remote: [u8; 4],
        local_port: u16,
        remote_port: u16,
        protocol: u8,
        pad: [u8; 3],
    }

    struct FlowKey6 {
        realm: u32,
        local: [u8; 16],
        remote: [u8; 16],
        local_port: u16,
        remote_port: u16,
        protocol: u8,
        pad: [u8; 3],
    }

    struct Flow {
        seen: u64,
        path: u32,
        site: u32,
        state: u32,
        count: u32,
        instances: [u32; MAX_HOPS],
        exits: u64,
    }

    struct Entry {
        flow: Flow,
        passed: [u32; 2 * PLACES],
    }

    struct Load {
        flows: u32,
        half_open: u32,
        next: u64,
    }

    struct FragmentKey {
        source: [u8; 16],
        destination: [u8; 16],
        id: u32,
        scope: u32,
        protocol: u8,
        pad: [u8; 3],
    }

    struct Tunnel {
        underlay: u32,
        local: [u8; 16],
        remote: [u8; 16],
        key: u32,
        has_key: u8,
        family: u8,
        oversize: u8,
        pad: u8,
        mtu: u32,
        mark: u32,
        name: [u8; PORT_NAME],
    }

    #[derive(Hash)]
    struct TunnelEnd {
        local: [u8; 16],
        remote: [u8; 16],
        key: u32,
        has_key: u32,
    }

    #[derive(Hash)]
    struct NeighbourKey {
        ifindex: u32,
        address: [u8; 16],
    }

    struct Element {
        changes: u64,
        tunnels: u32,
        hidden: u32,
        tunnels_mac: [u8; 6],
        tells_too_big: u8,
        pad: u8,
        flows: u32,
        half_open: u32,
        interval: u64,
        burst: u64,
        closed: u64,
        unanswered: u64,
        connection: u64,
        conversation: u64,
        other: u64,
        alive: u64,
    }

    struct CounterKey {
        counted: u8,
        direction: u8,
        position: u8,
        pad: u8,
        of: u32,
        instance: u32,
    }

    struct Counter {
        packets: u64,
        bytes: u64,
    }

    struct SweepRequest {
        task: u32,
        of: u32,
    }
}
