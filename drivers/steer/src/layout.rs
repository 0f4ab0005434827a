//! What the maps hold: the structures of `bpf/layout.h`, byte for byte. A test compares the two by BTF.

use zerocopy::{FromBytes, Immutable, IntoBytes};

pub(crate) const MAX_HOPS: usize = catena_model::forwarding::MAX_HOPS;
pub(crate) const MAX_INSTANCES: usize = catena_model::forwarding::MAX_INSTANCES;
pub(crate) const MAX_RULES: usize = catena_model::forwarding::MAX_POLICY_RULES;
/// The kernel's `IFNAMSIZ`.
pub(crate) const PORT_NAME: usize = 16;

/// Generates the structures with what a map's key or value needs.
macro_rules! layout {
    ($($(#[$doc:meta])* struct $name:ident { $($field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
        #[repr(C)]
        pub(crate) struct $name { $(pub(crate) $field: $type,)* }

        impl Default for $name {
            fn default() -> Self {
                zerocopy::FromZeros::new_zeroed()
            }
        }

        #[cfg(test)]
        impl Described for $name {
            const NAME: &str = stringify!($name);
            const SIZE: usize = size_of::<$name>();
            const FIELDS: &[(&str, usize)] = &[$((stringify!($field), std::mem::offset_of!($name, $field)),)*];
        }
    )*};
}

/// A structure's shape, to be compared.
#[cfg(test)]
pub(crate) trait Described {
    const NAME: &str;
    const SIZE: usize;
    const FIELDS: &[(&str, usize)];
}

pub(crate) const ROLE_CLAIM: u32 = 1 << 0;
pub(crate) const ROLE_STEER: u32 = 1 << 1;
pub(crate) const ROLE_INSIDE: u32 = 1 << 2;
pub(crate) const ROLE_OUTSIDE: u32 = 1 << 3;
pub(crate) const ROLE_L2: u32 = 1 << 4;
pub(crate) const ROLE_UNDERLAY: u32 = 1 << 5;

pub(crate) const ACTION_CLAIM: u8 = 0;
pub(crate) const ACTION_PATH: u8 = 1;

pub(crate) const INSERTION_L3: u32 = 0;
pub(crate) const INSERTION_L2: u32 = 1;

/// A flow was seen in both directions; one that was not is a probe, or a flood.
pub(crate) const SEEN_BOTH: u32 = 3;
pub(crate) const FIN_BOTH: u32 = 12;
pub(crate) const RESET: u32 = 16;

layout! {
    struct Port {
        roles: u32,
        directions: u32,
        mark: u32,
        clsact: u32,
        name: [u8; PORT_NAME],
    }

    struct Side {
        ifindex: u32,
        has_v4: u8,
        has_v6: u8,
        pad: [u8; 2],
        name: [u8; PORT_NAME],
        v4: [u8; 4],
        v6: [u8; 16],
    }

    struct Instance {
        insertion: u32,
        inside: Side,
        outside: Side,
    }

    struct Hop {
        count: u32,
        instances: [u32; MAX_INSTANCES],
    }

    struct Path {
        site: u32,
        count: u32,
        hops: [Hop; MAX_HOPS],
    }

    struct Prefix {
        address: [u8; 16],
        mask: [u8; 16],
        family: u8,
        length: u8,
        pad: [u8; 2],
    }

    struct Rule {
        local: Prefix,
        remote: Prefix,
        first_port: u16,
        last_port: u16,
        has_protocol: u8,
        protocol: u8,
        has_ports: u8,
        action: u8,
        path: u32,
    }

    struct Policy {
        serial: u64,
        site: u32,
        count: u32,
        has_exits: u32,
        exits: [Side; 2],
        rules: [Rule; MAX_RULES],
        pad: u32,
    }

    struct FlowKey {
        site: u32,
        low: [u8; 16],
        high: [u8; 16],
        low_port: u16,
        high_port: u16,
        protocol: u8,
        pad: [u8; 3],
    }

    struct Flow {
        seen: u64,
        path: u32,
        state: u32,
        instances: [u32; MAX_HOPS],
    }

    struct Tunnel {
        underlay: u32,
        local: [u8; 4],
        remote: [u8; 4],
        key: u32,
        has_key: u32,
        mtu: u32,
        mark: u32,
        name: [u8; PORT_NAME],
    }

    struct TunnelEnd {
        local: [u8; 4],
        remote: [u8; 4],
        key: u32,
        has_key: u32,
    }

    struct Lpm4 {
        length: u32,
        address: [u8; 4],
    }

    struct Lpm6 {
        length: u32,
        address: [u8; 16],
    }

    struct Element {
        changes: u64,
        tunnels: u32,
        hidden: u32,
        tunnels_mac: [u8; 6],
        pad: [u8; 2],
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
}
