//! The element's own addresses, as the program knows them: each is a bit, and several may share one. A packet to an address
//! that has its bit goes by the kernel, whose rule for its own addresses comes before ours; so a bit too many costs no more
//! than time. `bpf/route.bpf.c` finds the bit in the same way.

use std::net::IpAddr;

use catena_driver::DriverError;
use catena_driver::netlink::Connection;
use catena_model::address::Family;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::route::layout::{OWN_BITS, Own};

/// The kernel's table of what is its own (`RT_TABLE_LOCAL`).
const LOCAL: u32 = 255;

/// What is local now.
pub(crate) fn read(connection: &mut Connection) -> Result<Own, DriverError> {
    let mut own = Own::default();
    for family in Family::BOTH {
        let mut request = RouteMessage::default();
        request.header.address_family = match family {
            Family::V4 => AddressFamily::Inet,
            Family::V6 => AddressFamily::Inet6,
        };
        request.attributes.push(RouteAttribute::Table(LOCAL));
        let found = connection
            .dump(&RouteNetlinkMessage::GetRoute(request))
            .map_err(|error| DriverError::failed("ip route show table local", error))?;
        for message in found {
            if let RouteNetlinkMessage::NewRoute(route) = message {
                add(&mut own, &route, family);
            }
        }
    }
    Ok(own)
}

fn add(own: &mut Own, route: &RouteMessage, family: Family) {
    let address = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    });
    match address {
        // The program leaves these to the kernel by themselves, with all their kind.
        Some(address) if address.is_multicast() || address.is_loopback() => {}
        _ if route.header.kind == RouteType::Multicast => {}
        Some(address) if route.header.destination_prefix_length == family.bits() => {
            let bit = bit(address);
            own.bits[(bit / 64) as usize] |= 1 << (bit % 64);
        }
        _ => own.all = 1,
    }
}

/// The bit of an address, of all [`OWN_BITS`].
fn bit(address: IpAddr) -> u32 {
    let word = match address {
        IpAddr::V4(address) => u32::from_ne_bytes(address.octets()),
        IpAddr::V6(address) => {
            let words = address.octets();
            words
                .chunks_exact(4)
                .fold(0, |all, word| all ^ u32::from_ne_bytes([word[0], word[1], word[2], word[3]]))
        }
    };
    const SHIFT: u32 = 32 - OWN_BITS.trailing_zeros();
    word.wrapping_mul(0x9e37_79b1) >> SHIFT
}
