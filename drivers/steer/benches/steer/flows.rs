//! Which packets are sent.

use std::net::Ipv4Addr;

use crate::chain::SOURCE;
use crate::frames::Tuple;
use crate::sink;

/// Numbers without a pattern that a cache or a trie could like; the same ones each time (the finaliser of MurmurHash3).
fn mixed(number: u32) -> u32 {
    let mut word = number.wrapping_add(0x9e37_79b9);
    word = (word ^ (word >> 16)).wrapping_mul(0x85eb_ca6b);
    word = (word ^ (word >> 13)).wrapping_mul(0xc2b2_ae35);
    word ^ (word >> 16)
}

fn tuple(source: Ipv4Addr, number: u32) -> Tuple {
    // Each number another port, so that no two are the same flow by chance.
    let source_port = 1024 + (number % 60_000) as u16;
    Tuple { source, source_port, destination: sink::ADDRESS, destination_port: sink::DISCARD }
}

/// So many flows from random hosts of the source's /16.
pub fn of_one_network(count: usize) -> impl Iterator<Item = Tuple> {
    let network = u32::from(SOURCE) & 0xffff_0000;
    (0..count as u32).map(move |number| tuple((network | mixed(number) & 0xffff).into(), number))
}

/// The addresses of a tenant: 16 of the shared address space (RFC 6598), and a network of unique local ones (RFC 4193).
pub fn prefixes_of(tenant: u32) -> Vec<String> {
    let v6 = (0xfd00_0000_0000_0000_u64 | u64::from(tenant)) as u128;
    vec![format!("{}/28", network_of(tenant)), format!("{}/64", std::net::Ipv6Addr::from(v6 << 64))]
}

/// The prefixes of all tenants together.
pub fn prefixes_of_all() -> Vec<String> {
    vec!["100.64.0.0/10".to_owned(), "fd00::/16".to_owned()]
}

fn network_of(tenant: u32) -> Ipv4Addr {
    (u32::from(Ipv4Addr::new(100, 64, 0, 0)) + tenant * 16).into()
}

/// So many flows from random hosts of random ones of so many tenants.
pub fn of_tenants(count: usize, tenants: u32) -> impl Iterator<Item = Tuple> {
    (0..count as u32).map(move |number| {
        let random = mixed(number);
        let network = u32::from(network_of(((u64::from(random) * u64::from(tenants)) >> 32) as u32));
        // Neither the first nor the last address of the network.
        tuple((network + 1 + mixed(random) % 14).into(), number)
    })
}
