//! Our end of a tunnel, and at the other the kernel's own GRE (`ip_gre`): each understands what the other sends.
//!
//! Where the kernel has no `ip_gre` this is skipped; `cargo xtask test --vm` boots one that has. The kernel is told to send
//! checksums and sequence numbers (`ocsum`, `oseq`), but not to insist on ours (`icsum`, `iseq`): we send none.

use catena_driver::Counted;
use catena_driver::netns::NetNs;
use catena_driver_steer::SteerDriver;
use catena_model::forwarding::{Object, Oversize, SiteId, Tunnel};

use crate::objects::tunnel;
use crate::traffic::{Echo, fetch};
use crate::world::{Pins, attempt, cable, counted, driver, ip, put, quiet_namespace, run, skipped};

const SITE: SiteId = SiteId(1);
const UNDERLAY_MTU: u16 = 1500;

/// What lies between the ends of the tunnel.
#[derive(Clone, Copy)]
struct Underlay {
    /// The kernel's name of such a tunnel.
    kind: &'static str,
    ours: &'static str,
    kernels: &'static str,
    /// Of the IP header that both ends write.
    header: u16,
}

const OVER_IPV4: Underlay = Underlay { kind: "gre", ours: "203.0.113.1", kernels: "203.0.113.2", header: 20 };
const OVER_IPV6: Underlay =
    Underlay { kind: "ip6gre", ours: "2001:db8:c::1", kernels: "2001:db8:c::2", header: 40 };

/// What the kernel's end sends: how `ip link` is told, and what it adds to each packet.
struct Variant {
    underlay: Underlay,
    key: Option<u32>,
    /// What our end does with what is too long.
    oversize: Oversize,
    options: &'static str,
    /// Outer header, GRE header and its fields, in bytes (RFC 2784 section 2.1, RFC 2890 section 2).
    overhead: u16,
}

const BARE: Variant =
    Variant { underlay: OVER_IPV4, key: None, oversize: Oversize::TellSender, options: "", overhead: 24 };

/// One of the addresses at either end of the world.
struct Family {
    client: &'static str,
    kernel: &'static str,
    /// Of the IP header.
    header: u16,
}

const FAMILIES: [Family; 2] = [
    Family { client: "172.16.1.10", kernel: "198.51.100.10", header: 20 },
    Family { client: "2001:db8:a1::10", kernel: "2001:db8:ffff::10", header: 40 },
];

/// A client behind our end, and the kernel's end, which is a server too.
struct Ends {
    client: NetNs,
    ours: NetNs,
    kernel: NetNs,
    driver: SteerDriver,
    /// The largest packet that our end sends, and the kernel's.
    mtus: [u16; 2],
    _pins: Pins,
}

impl Ends {
    /// `None` if the kernel has no GRE, which is told.
    async fn connected(key: Option<u32>, variant: &Variant) -> Option<Self> {
        let [client, kernel] = [(); 2].map(|()| quiet_namespace(false));
        if !has_gre(&kernel) {
            return None;
        }
        let ours = quiet_namespace(true);
        cable(
            (&client, "eth0", &["172.16.1.10/24", "2001:db8:a1::10/64"]),
            (&ours, "lan", &["172.16.1.1/24", "2001:db8:a1::1/64"]),
        );
        cable(
            (&ours, "wan", &["203.0.113.1/30", "2001:db8:c::1/64"]),
            (&kernel, "wan", &["203.0.113.2/30", "2001:db8:c::2/64"]),
        );
        for via in ["172.16.1.1", "2001:db8:a1::1"] {
            ip(&client, &format!("route add default via {via}"));
        }

        let ours_mtu = UNDERLAY_MTU - variant.underlay.header - if key.is_some() { 8 } else { 4 };
        let pins = Pins::new();
        let driver = driver("edge", &ours, &pins, None);
        let allowed = ["198.51.100.0/24", "2001:db8:ffff::/64"];
        let Underlay { ours: local, kernels: remote, .. } = variant.underlay;
        let end = tunnel(SITE.0, local, remote, key, &allowed);
        put(&driver, &[Object::Tunnel(Tunnel { mtu: ours_mtu, oversize: variant.oversize, ..end })]).await;
        for prefix in allowed {
            ip(&ours, &format!("route add {prefix} dev catena-gre"));
        }

        let kernel_mtu = UNDERLAY_MTU - variant.overhead;
        let key = variant.key.map(|key| format!("key {key}")).unwrap_or_default();
        let ends = format!("local {remote} remote {local} ttl 64");
        ip(
            &kernel,
            &format!("link add gre1 type {} {ends} {key} {}", variant.underlay.kind, variant.options),
        );
        // As much as the kernel itself finds that its headers leave room for.
        let found = ip(&kernel, "link set gre1 up; ip link show dev gre1");
        assert!(found.contains(&format!("mtu {kernel_mtu} ")), "{found}");
        for address in ["198.51.100.10/32", "2001:db8:ffff::10/128"] {
            ip(&kernel, &format!("address add {address} dev gre1"));
        }
        for prefix in ["172.16.1.0/24", "2001:db8:a1::/64"] {
            ip(&kernel, &format!("route add {prefix} dev gre1"));
        }
        Some(Self { client, ours, kernel, driver, mtus: [ours_mtu, kernel_mtu], _pins: pins })
    }

    /// A ping with a packet of `size` bytes, from a namespace. Whether it was answered, and what was said.
    fn ping(netns: &NetNs, family: &Family, to: &str, size: u16, options: &str) -> (bool, String) {
        let payload = size - family.header - 8;
        let output = attempt(netns, &format!("ping -n -c 1 -W 5 -s {payload} {options} {to}"));
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), said)
    }

    /// Pings with sizes around what the sending end's tunnel carries in one piece.
    fn pings_around_the_mtu(&self, family: &Family) {
        let ways = [(&self.client, family.kernel, self.mtus[0]), (&self.kernel, family.client, self.mtus[1])];
        for (netns, to, mtu) in ways {
            for size in [100, mtu - 1, mtu] {
                let (answered, said) = Self::ping(netns, family, to, size, "-M do");
                assert!(answered, "{size} bytes to {to}: {said}");
            }
            let (answered, said) = Self::ping(netns, family, to, mtu + 1, "-M do");
            assert!(!answered && said.contains("mtu"), "{} bytes to {to}: {said}", mtu + 1);
        }
        for (netns, to, mtu) in ways {
            // In fragments. In IPv6 the sender makes them, once it has been told how long they can be.
            for size in [mtu + 1, 4000] {
                let ping = || Self::ping(netns, family, to, size, "-M dont");
                let mut tried = ping();
                for _ in 0..2 {
                    if !tried.0 {
                        tried = ping();
                    }
                }
                assert!(tried.0, "{size} bytes in fragments to {to}: {}", tried.1);
            }
        }
    }

    /// Connections in which both ends send as much, with segments around the largest, and with many of them.
    fn connections(&self, family: &Family) {
        let [client, kernel] = [family.client, family.kernel].map(|address| match family.header {
            20 => format!("{address}:80"),
            _ => format!("[{address}]:80"),
        });
        for (from, at, to, mtu) in [
            (&self.client, &self.kernel, kernel, self.mtus[0]),
            (&self.kernel, &self.client, client, self.mtus[1]),
        ] {
            let _echo = Echo::serve(at, &to);
            // TCP's header with timestamps (RFC 7323).
            let segment = usize::from(mtu - family.header - 32);
            for count in [1, segment - 1, segment, segment + 1, 500_000] {
                fetch(from, &to, count).unwrap_or_else(|error| panic!("{count} bytes to {to}: {error}"));
            }
        }
    }

    /// Nothing was dropped, and all of it went through the tunnel.
    async fn nothing_went_wrong(&self) {
        let driver = &self.driver;
        assert_eq!(counted(driver, |of| matches!(of, Counted::Dropped { .. })).await, 0);
        for of in [Counted::Encapsulated { site: SITE }, Counted::Decapsulated { site: SITE }] {
            assert!(counted(driver, |counted| *counted == of).await > 20, "{of:?}");
        }
        let statistics = ip(&self.kernel, "-s -s link show dev gre1");
        assert_eq!(errors(&self.kernel), 0, "{statistics}");
    }
}

/// Whether the kernel has GRE. Where it has not, says so.
fn has_gre(netns: &NetNs) -> bool {
    let probe = attempt(netns, "ip link add probe type gre local 192.0.2.1 remote 192.0.2.2");
    if probe.status.success() {
        ip(netns, "link del probe");
        return true;
    }
    let said = String::from_utf8_lossy(&probe.stderr);
    let lacks = ["Unknown device type", "not supported"].iter().any(|reason| said.contains(reason));
    assert!(lacks, "{said}");
    skipped("this kernel has no ip_gre; our GRE is not tested against it");
    false
}

/// How many packets the kernel's end could not take or send.
fn errors(kernel: &NetNs) -> u64 {
    let table = kernel.run(|| std::fs::read_to_string("/proc/thread-self/net/dev")).unwrap();
    let line = table.lines().find_map(|line| line.trim().strip_prefix("gre1:")).unwrap();
    let numbers: Vec<u64> = line.split_whitespace().map(|number| number.parse().unwrap()).collect();
    // Received, then sent: bytes, packets, errors, and five others (proc(5)).
    numbers[2] + numbers[8 + 2]
}

async fn understand_each_other(variant: Variant) {
    let Some(ends) = Ends::connected(variant.key, &variant).await else { return };
    for family in &FAMILIES {
        ends.pings_around_the_mtu(family);
        ends.connections(family);
    }
    ends.nothing_went_wrong().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bare_header() {
    understand_each_other(BARE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key() {
    understand_each_other(Variant { key: Some(1001), options: "", overhead: 28, ..BARE }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kernels_checksums() {
    understand_each_other(Variant { key: None, options: "ocsum", overhead: 28, ..BARE }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kernels_sequence_numbers() {
    understand_each_other(Variant { key: None, options: "oseq", overhead: 28, ..BARE }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_fields_at_once() {
    understand_each_other(Variant { key: Some(u32::MAX), options: "ocsum oseq", overhead: 36, ..BARE }).await;
}

/// What the kernel leaves to its underlay to be segmented comes out of our end as one long packet, which is no tunnel's any
/// more: a port that cannot send it is left to cut it up as TCP.
#[tokio::test(flavor = "multi_thread")]
async fn long_packets_from_the_kernel_are_segmented_behind_our_end() {
    for options in ["", "ocsum"] {
        let overhead = if options.is_empty() { 28 } else { 32 };
        let variant = Variant { key: Some(1001), options, overhead, ..BARE };
        let Some(ends) = Ends::connected(variant.key, &variant).await else { return };
        run(&ends.ours, "ethtool -K lan tso off gso off tx off");
        for family in &FAMILIES {
            ends.connections(family);
        }
        ends.nothing_went_wrong().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_key_is_another_tunnel() {
    for (ours, kernels) in [(Some(1001), Some(1002)), (None, Some(1001)), (Some(1001), None)] {
        let overhead = if kernels.is_some() { 28 } else { 24 };
        let variant = Variant { key: kernels, options: "", overhead, ..BARE };
        let Some(ends) = Ends::connected(ours, &variant).await else { return };
        for family in &FAMILIES {
            for (netns, to) in [(&ends.client, family.kernel), (&ends.kernel, family.client)] {
                let ping = attempt(netns, &format!("ping -n -c 1 -W 1 {to}"));
                assert!(!ping.status.success(), "{ours:?} and {kernels:?} to {to}");
            }
        }
        assert_eq!(counted(&ends.driver, |of| *of == Counted::Decapsulated { site: SITE }).await, 0);
        assert!(counted(&ends.driver, |of| matches!(of, Counted::Dropped { .. })).await >= 2);
        assert!(counted(&ends.driver, |of| *of == Counted::Encapsulated { site: SITE }).await >= 2);
    }
}

/// The kernel writes destination options before GRE unless it is told not to (RFC 2473 section 5.1).
#[tokio::test(flavor = "multi_thread")]
async fn over_ipv6_with_and_without_an_encapsulation_limit() {
    for (options, overhead) in [("", 52), ("encaplimit none", 44)] {
        understand_each_other(Variant { underlay: OVER_IPV6, options, overhead, ..BARE }).await;
    }
}

/// The kernel puts together what our end has cut. It sends no such packets itself: those we could not take.
#[tokio::test(flavor = "multi_thread")]
async fn what_our_end_cuts_arrives_whole() {
    for (key, overhead) in [(None, 24), (Some(1001), 28)] {
        let variant = Variant { key, overhead, oversize: Oversize::FragmentOuter, ..BARE };
        let Some(ends) = Ends::connected(key, &variant).await else { return };
        let [v4, _] = &FAMILIES;
        for size in [ends.mtus[0], ends.mtus[0] + 1, 1499, 1500] {
            let (answered, said) = Ends::ping(&ends.client, v4, v4.kernel, size, "-M do");
            assert!(answered, "{size} bytes: {said}");
        }
        // Segments from the client are as long as its link carries; the kernel's are as long as its tunnel does.
        ip(&ends.kernel, "route change 172.16.1.0/24 dev gre1 advmss 1460");
        let to = format!("{}:80", v4.kernel);
        let _echo = Echo::serve(&ends.kernel, &to);
        for count in [1, 1447, 1448, 1449, 500_000] {
            fetch(&ends.client, &to, count).unwrap_or_else(|error| panic!("{count} bytes: {error}"));
        }
        let reassembled = ends.kernel.run(|| std::fs::read_to_string("/proc/thread-self/net/snmp")).unwrap();
        let reassembled: Vec<&str> = reassembled.lines().filter(|line| line.starts_with("Ip:")).collect();
        let at = reassembled[0].split_whitespace().position(|name| name == "ReasmOKs").unwrap();
        let count: u64 = reassembled[1].split_whitespace().nth(at).unwrap().parse().unwrap();
        assert!(count > 100, "{count} packets were put together");
        ends.nothing_went_wrong().await;
    }
}
