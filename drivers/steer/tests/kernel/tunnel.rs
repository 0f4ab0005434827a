//! Packets through GRE tunnels, between two elements and from strangers.

use catena_driver::netns::NetNs;
use catena_driver::{Counted, DropReason};
use catena_driver_steer::SteerDriver;
use catena_model::forwarding::{Object, SiteId};

use crate::objects::tunnel;
use crate::traffic::{Echo, datagram, fetch};
use crate::world::{Pins, attempt, cable, counted, driver, ip, put, quiet_namespace, run};

const SITE: SiteId = SiteId(1);
const SERVER_V4: &str = "198.51.100.10:80";
const SERVER_V6: &str = "[2001:db8:ffff::10]:80";
const ALLOWED: [&str; 2] = ["172.16.1.0/24", "2001:db8:a1::/64"];
const EVERYWHERE: [&str; 2] = ["0.0.0.0/0", "::/0"];

/// A site behind an access router, a tunnel from there to the edge, and a server behind that.
struct Haul {
    client: NetNs,
    access: NetNs,
    edge: NetNs,
    server: NetNs,
    pins: Pins,
}

impl Haul {
    fn new() -> Self {
        let [client, server] = [(); 2].map(|()| quiet_namespace(false));
        let [access, edge] = [(); 2].map(|()| quiet_namespace(true));
        cable(
            (&client, "eth0", &["172.16.1.10/24", "2001:db8:a1::10/64"]),
            (&access, "lan", &["172.16.1.1/24", "2001:db8:a1::1/64"]),
        );
        cable((&access, "wan", &["203.0.113.2/30"]), (&edge, "wan", &["203.0.113.1/30"]));
        cable(
            (&server, "eth0", &["198.51.100.10/24", "2001:db8:ffff::10/64"]),
            (&edge, "vr", &["198.51.100.1/24", "2001:db8:ffff::1/64"]),
        );
        for (host, v4, v6) in
            [(&client, "172.16.1.1", "2001:db8:a1::1"), (&server, "198.51.100.1", "2001:db8:ffff::1")]
        {
            ip(host, &format!("route add default via {v4}"));
            ip(host, &format!("route add default via {v6}"));
        }
        Self { client, access, edge, server, pins: Pins::new() }
    }

    async fn connected(key: Option<u32>) -> (Self, SteerDriver, SteerDriver) {
        let haul = Self::new();
        let access = driver("access-a", &haul.access, &haul.pins, None);
        let edge = driver("edge", &haul.edge, &haul.pins, None);
        let near = tunnel(SITE.0, "203.0.113.2", "203.0.113.1", key, &EVERYWHERE);
        let far = tunnel(SITE.0, "203.0.113.1", "203.0.113.2", key, &ALLOWED);
        put(&access, &[Object::Tunnel(near)]).await;
        put(&edge, &[Object::Tunnel(far)]).await;
        ip(&haul.access, "route add 198.51.100.0/24 dev catena-gre");
        ip(&haul.access, "route add 2001:db8:ffff::/64 dev catena-gre");
        ip(&haul.edge, "route add 172.16.1.0/24 dev catena-gre");
        ip(&haul.edge, "route add 2001:db8:a1::/64 dev catena-gre");
        (haul, access, edge)
    }
}

async fn no_drops(driver: &SteerDriver) {
    assert_eq!(counted(driver, |of| matches!(of, Counted::Dropped { .. })).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn tcp_with_all_offloads_passes_both_ways() {
    for key in [Some(1001), None] {
        let (haul, access, edge) = Haul::connected(key).await;
        for server in [SERVER_V4, SERVER_V6] {
            let _echo = Echo::serve(&haul.server, server);
            fetch(&haul.client, server, 4_000_000).unwrap();
        }
        for driver in [&access, &edge] {
            no_drops(driver).await;
            for of in [Counted::Encapsulated { site: SITE }, Counted::Decapsulated { site: SITE }] {
                assert!(counted(driver, |counted| *counted == of).await > 20, "{of:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_up_to_the_tunnels_mtu_pass_and_larger_ones_are_told() {
    let (haul, access, edge) = Haul::connected(Some(1001)).await;
    let ping =
        |size: u32, to: &str| attempt(&haul.client, &format!("ping -n -c 1 -W 2 -M do -s {size} {to}"));
    assert!(ping(1472 - 28, "198.51.100.10").status.success());
    assert!(ping(1472 - 48, "2001:db8:ffff::10").status.success());
    no_drops(&access).await;
    let too_big = ping(1472 - 27, "198.51.100.10");
    let said =
        String::from_utf8_lossy(&too_big.stdout).into_owned() + &String::from_utf8_lossy(&too_big.stderr);
    assert!(!too_big.status.success() && said.contains("mtu"), "{said}");
    // Without "don't fragment" the access router fragments before the tunnel. In IPv6 only senders fragment: the first
    // datagram is lost, and says how long the next one's fragments can be.
    ip(&haul.client, "route flush cache");
    let payload = vec![5; 8000];
    let send = |address| datagram(&haul.client, &haul.server, address, &payload);
    assert_eq!(send("198.51.100.10:9").unwrap(), payload);
    assert!(send("[2001:db8:ffff::10]:9").is_err());
    assert_eq!(send("[2001:db8:ffff::10]:9").unwrap(), payload);
    no_drops(&edge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn datagrams_that_the_sender_leaves_to_be_segmented_pass() {
    let (haul, access, edge) = Haul::connected(Some(1001)).await;
    let sender = haul.client.run(|| std::net::UdpSocket::bind("0.0.0.0:0")).unwrap();
    let receiver = haul.server.run(|| std::net::UdpSocket::bind("198.51.100.10:9")).unwrap();
    receiver.set_read_timeout(Some(std::time::Duration::from_secs(2))).unwrap();
    // As QUIC does: many datagrams by one call (UDP_SEGMENT, udp(7)).
    nix::sys::socket::setsockopt(&sender, nix::sys::socket::sockopt::UdpGsoSegment, &1000).unwrap();
    let payload: Vec<u8> = (0..10_000).map(|at| (at / 1000) as u8).collect();
    sender.send_to(&payload, "198.51.100.10:9").unwrap();
    let mut buffer = [0; 2000];
    for segment in 0..10 {
        assert_eq!(receiver.recv(&mut buffer).unwrap(), 1000, "segment {segment}");
        assert!(buffer[..1000].iter().all(|byte| *byte == segment));
    }
    no_drops(&access).await;
    no_drops(&edge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_source_does_not_get_in() {
    let (haul, _access, edge) = Haul::connected(Some(1001)).await;
    ip(&haul.client, "address add 172.16.9.9/32 dev eth0");
    let ping = attempt(&haul.client, "ping -n -c 1 -W 1 -I 172.16.9.9 198.51.100.10");
    assert!(!ping.status.success());
    let forged = Counted::Dropped { path: None, reason: DropReason::ForgedSource };
    assert_eq!(counted(&edge, |of| *of == forged).await, 1);
    run(&haul.client, "ping -n -c 1 -W 2 198.51.100.10");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_no_tunnel_is_dropped() {
    let (haul, access, edge) = Haul::connected(Some(1001)).await;
    // The access router's key is changed: the edge knows no such tunnel.
    let other = tunnel(SITE.0, "203.0.113.2", "203.0.113.1", Some(1002), &EVERYWHERE);
    put(&access, &[Object::Tunnel(other)]).await;
    assert!(!attempt(&haul.client, "ping -n -c 1 -W 1 198.51.100.10").status.success());
    let unknown = Counted::Dropped { path: None, reason: DropReason::UnknownTunnel };
    assert_eq!(counted(&edge, |of| *of == unknown).await, 1);
}
