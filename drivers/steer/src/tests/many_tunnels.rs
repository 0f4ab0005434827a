//! Ten thousand tunnels at one node.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use catena_driver::{Counted, DropReason};
use catena_model::address::{Prefix, Protocol};
use catena_model::forwarding::{
    Action, Direction, Exits, FlowMatch, Hop, Object, Oversize, Path, PathId, Policy, PolicyRule, Purpose,
    Side, SiteId, TUNNEL_PORT, Tunnel,
};
use catena_model::packet::Packet;

use super::packets::{FAR_V4, FAR_V6, frame, ip};
use super::rig::{Case, Expect, FIREWALL, PROXY, REDIRECT, Rig, ingress, instances, side};
use super::tunnels::{KEY, LOCAL, gre, outer};
use crate::{Settings, Times};

const TUNNELS: u32 = 10_000;

/// One that is tried, after how many others.
const STRIDE: usize = 397;

/// A site at the far end of a tunnel, with a chain of its own through functions that all share.
#[derive(Clone, Copy, Debug)]
struct Tenant(u32);

impl Tenant {
    fn site(self) -> SiteId {
        SiteId(self.0)
    }

    fn path(self) -> PathId {
        PathId(0x01_00_00 + self.0)
    }

    fn remote(self) -> Ipv4Addr {
        (u32::from(Ipv4Addr::new(100, 64, 0, 0)) + self.0).into()
    }

    /// Far apart, so that none is another's by a bit or two.
    fn key(self) -> u32 {
        self.0.wrapping_mul(0x9e37_79b1)
    }

    fn v4(self, host: u8) -> Ipv4Addr {
        let [_, _, high, low] = self.0.to_be_bytes();
        Ipv4Addr::new(10, high, low, host)
    }

    fn v6(self, host: u16) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 0xa000, self.0 as u16, 0, 0, 0, host)
    }

    fn prefixes(self) -> [Prefix; 2] {
        [format!("{}/24", self.v4(0)), format!("{}/64", self.v6(0))].map(|prefix| prefix.parse().unwrap())
    }

    fn objects(self) -> [Object; 3] {
        let everything = PolicyRule { matches: FlowMatch::default(), action: Action::Path(self.path()) };
        let down = Side { port: TUNNEL_PORT.parse().unwrap(), ..side("gw", None) };
        [
            Object::Tunnel(Tunnel {
                site: self.site(),
                underlay: "wan".parse().unwrap(),
                local: LOCAL.parse().unwrap(),
                remote: self.remote().into(),
                key: Some(self.key()),
                mtu: 1472,
                oversize: Oversize::TellSender,
                allowed: self.prefixes().into(),
            }),
            Object::Path(Path {
                id: self.path(),
                site: self.site(),
                hops: vec![Hop::of([FIREWALL]), Hop::of([PROXY])],
                vlan: None,
            }),
            Object::Policy(Policy {
                site: self.site(),
                prefixes: self.prefixes().into(),
                rules: vec![everything],
                exits: Some(Exits { up: side("gw", Some(1)), down }),
            }),
        ]
    }

    /// From its hosts to the Internet.
    fn packets(self) -> [Packet; 2] {
        let ends: [(IpAddr, &str); 2] = [(self.v4(10).into(), FAR_V4), (self.v6(0x10).into(), FAR_V6)];
        ends.map(|(source, destination)| Packet {
            source,
            destination: destination.parse().unwrap(),
            protocol: Protocol::TCP,
            source_port: 40_000,
            destination_port: 80,
            dscp: Default::default(),
        })
    }

    /// As it comes through a tunnel from `remote` with `key`.
    fn tunnelled(packet: &Packet, remote: Ipv4Addr, key: u32) -> Vec<u8> {
        outer(&remote.to_string(), &gre(KEY, &[key], ip(&frame(packet))))
    }
}

/// All tunnels, and how long it took to install them and all that belongs to their sites.
fn node() -> (Rig, Duration) {
    let mut objects = instances();
    objects.push(ingress(TUNNEL_PORT, Purpose::Steer, [Direction::Up]));
    objects.push(ingress("gw", Purpose::Steer, [Direction::Down]));
    objects.extend((1..=TUNNELS).flat_map(|number| Tenant(number).objects()));
    // Counters are read after each packet: few entries are to be looked through.
    let rig =
        Rig::with(Settings { tenants: TUNNELS, flows: 1_024, ..Settings::default() }, Times::default(), &[]);
    let begin = Instant::now();
    rig.put(&objects);
    let took = begin.elapsed();
    assert_eq!(rig.observe(), objects.into_iter().collect());
    (rig, took)
}

#[test]
fn each_of_ten_thousand_tunnels_is_its_own_sites_alone() {
    let (rig, took) = node();
    // A second or two; what looks at all others for each one takes minutes.
    assert!(took < Duration::from_secs(20), "{took:?} for {TUNNELS} tunnels");
    for tenant in (1..=TUNNELS).step_by(STRIDE).chain([TUNNELS]).map(Tenant) {
        for up in tenant.packets() {
            lets_in_its_site(&rig, tenant, up);
            leads_both_ways(&rig, tenant, up);
        }
    }
}

fn case(name: &'static str, because: &'static str, at: &'static str, frame: Vec<u8>, expect: Expect) -> Case {
    Case { name, because, at, frame, expect }
}

#[track_caller]
fn lets_in_its_site(rig: &Rig, tenant: Tenant, up: Packet) {
    let other = Tenant(TUNNELS + 1 - tenant.0);
    let theirs = Packet { source: other.packets()[usize::from(up.source.is_ipv6())].source, ..up };
    let through = |packet, remote, key| Tenant::tunnelled(packet, remote, key);
    let (remote, key) = (tenant.remote(), tenant.key());
    let taken = Expect::Goes(Counted::Decapsulated { site: tenant.site() });
    let unknown = Expect::Dropped(DropReason::UnknownTunnel);
    let forged = Expect::Dropped(DropReason::ForgedSource);
    rig.expect(&[
        case("its own", "all as agreed", "wan", through(&up, remote, key), taken),
        case("another's key", "of no tunnel", "wan", through(&up, remote, other.key()), unknown.clone()),
        case("another's outer source", "of no tunnel", "wan", through(&up, other.remote(), key), unknown),
        case("another's inner source", "forged", "wan", through(&theirs, remote, key), forged.clone()),
        case("another's tunnel", "forged", "wan", through(&up, other.remote(), other.key()), forged),
    ]);
}

/// In by the site's path, and back by the same into the same tunnel.
#[track_caller]
fn leads_both_ways(rig: &Rig, tenant: Tenant, up: Packet) {
    let taken = rig.send("wan", &Tenant::tunnelled(&up, tenant.remote(), tenant.key()));
    assert_eq!((taken.verdict, ip(&taken.frame)), (REDIRECT, ip(&frame(&up))), "{tenant:?}");
    let hop = |position, instance, direction| {
        Expect::Goes(Counted::Hop { path: tenant.path(), position, instance, direction })
    };
    let exit = Expect::Goes(Counted::Exit { path: tenant.path(), direction: Direction::Down });
    let back = frame(&up.reply());
    rig.expect(&[
        case("in", "by its site's path", TUNNEL_PORT, taken.frame, hop(0, FIREWALL, Direction::Up)),
        case("reply", "by the same path", "gw", back.clone(), hop(1, PROXY, Direction::Down)),
        case("out", "to the tunnels", "fw-in", back.clone(), exit),
    ]);
    let returned = rig.encapsulate(&back, 0);
    let outer = ip(&returned.frame);
    assert_eq!((returned.verdict, &outer[16..20]), (REDIRECT, &tenant.remote().octets()[..]), "{tenant:?}");
    assert_eq!(outer[20..], gre(KEY, &[tenant.key()], ip(&back)), "{tenant:?}");
}
