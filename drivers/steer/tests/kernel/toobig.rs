//! Senders learn how long their packets can be from what does not fit a function's port.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use catena_driver::netns::NetNs;
use catena_driver::{Counted, DropReason};
use catena_driver_steer::{Settings, SteerDriver};
use catena_model::forwarding::{Action, Direction, Exits, PathId, Purpose};

use crate::objects::{everything, ingress, l3, path, policy, side};
use crate::traffic::{Echo, fetch};
use crate::world::{Pins, cable, config, counted, ip, put, quiet_namespace};

const PATH: PathId = PathId(7);
const NARROW: u32 = 1400;

/// A client, a switch with a routed function whose link to the server's side is narrower than all others, and a server.
struct Switched {
    client: NetNs,
    driver: SteerDriver,
    server: NetNs,
    _others: [NetNs; 2],
    _pins: Pins,
}

impl Switched {
    /// `narrow` is the switch's port that carries less.
    async fn with(narrow: &str, tell_too_big: bool) -> Self {
        let [client, server, switch] = [(); 3].map(|()| quiet_namespace(false));
        let function = quiet_namespace(true);
        cable(
            (&client, "eth0", &["172.16.1.10/24", "2001:db8:a1::10/64"]),
            (&switch, "vr", &["172.16.1.1/24", "2001:db8:a1::1/64"]),
        );
        cable(
            (&switch, "in", &["10.1.0.1/24", "2001:db8:10::1/64"]),
            (&function, "inside", &["10.1.0.2/24", "2001:db8:10::2/64"]),
        );
        cable(
            (&switch, "out", &["10.2.0.1/24", "2001:db8:20::1/64"]),
            (&function, "outside", &["10.2.0.2/24", "2001:db8:20::2/64"]),
        );
        cable(
            (&switch, "gw", &["198.51.100.1/24", "2001:db8:ffff::1/64"]),
            (&server, "eth0", &["198.51.100.10/24", "2001:db8:ffff::10/64"]),
        );
        for (netns, routes) in [
            (&client, ["default via 172.16.1.1", "default via 2001:db8:a1::1"]),
            (&server, ["default via 198.51.100.1", "default via 2001:db8:ffff::1"]),
            (&function, ["172.16.1.0/24 via 10.1.0.1", "2001:db8:a1::/64 via 2001:db8:10::1"]),
            (&function, ["default via 10.2.0.1", "default via 2001:db8:20::1"]),
        ] {
            routes.iter().for_each(|route| drop(ip(netns, &format!("route add {route}"))));
        }
        // So that a source that does not belong to a side is dropped there (RFC 3704).
        for port in ["inside", "outside"] {
            crate::world::set(&function, &format!("ipv4/conf/{port}/rp_filter"), 1);
        }
        // Both ends of the link: what a veth's receiver has no room for is lost without a word.
        ip(&switch, &format!("link set {narrow} mtu {NARROW}"));
        match narrow {
            "in" => drop(ip(&function, &format!("link set inside mtu {NARROW}"))),
            "gw" => narrow_host(&server, ["198.51.100.1", "2001:db8:ffff::1"]),
            _ => narrow_host(&client, ["172.16.1.1", "2001:db8:a1::1"]),
        }

        let pins = Pins::new();
        let settings = Settings { tell_too_big, ..Settings::default() };
        let config = catena_driver_steer::Config { settings, ..config("br-int", &switch, &pins, None) };
        let driver = SteerDriver::new(config).unwrap();
        let exits = Exits {
            up: side("gw", Some("198.51.100.10"), Some("2001:db8:ffff::10")),
            down: side("vr", Some("172.16.1.10"), Some("2001:db8:a1::10")),
        };
        put(
            &driver,
            &[
                l3(
                    1,
                    side("in", Some("10.1.0.2"), Some("2001:db8:10::2")),
                    side("out", Some("10.2.0.2"), Some("2001:db8:20::2")),
                ),
                path(PATH.0, 1, &[&[1]]),
                policy(
                    1,
                    &["172.16.1.0/24", "2001:db8:a1::/64"],
                    vec![everything(Action::Path(PATH))],
                    Some(exits),
                ),
                ingress("vr", Purpose::Steer, &[Direction::Up]),
                ingress("gw", Purpose::Steer, &[Direction::Down]),
            ],
        )
        .await;
        Self { client, driver, server, _others: [switch, function], _pins: pins }
    }

    async fn dropped(&self, reason: DropReason) -> u64 {
        counted(&self.driver, |of| *of == Counted::Dropped { path: Some(PATH), reason }).await
    }
}

/// A host with a narrow link that lets its peers in TCP believe that it has none.
fn narrow_host(host: &NetNs, routers: [&str; 2]) {
    ip(host, &format!("link set eth0 mtu {NARROW}"));
    for router in routers {
        ip(host, &format!("route change default via {router} advmss 1440"));
    }
}

const SERVERS: [&str; 2] = ["198.51.100.10", "2001:db8:ffff::10"];

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

/// What the kernel knows of the way to an address.
fn mtu_to(netns: &NetNs, address: &str) -> Option<u32> {
    let route = ip(netns, &format!("route get {address}"));
    let mut words = route.split_whitespace();
    words.find(|word| *word == "mtu").and_then(|_| words.next()).map(|mtu| mtu.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_of_datagrams_learns_the_mtu() {
    // Before the function, where the client is answered at once, and behind it, through it.
    for narrow in ["in", "gw"] {
        let switched = Switched::with(narrow, true).await;
        for server in SERVERS {
            let any = if server.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
            let socket = switched.client.run(|| UdpSocket::bind(any)).unwrap();
            always_df(&socket, server.contains(':'));
            socket.connect(at(server, 9)).unwrap();
            assert_eq!(mtu_to(&switched.client, server), None);
            // Sent, since the sender's own link carries it; and then known to be too long.
            socket.send(&[1; 1440]).unwrap();
            crate::world::until(&format!("{server} by {narrow}"), || {
                mtu_to(&switched.client, server) == Some(NARROW)
            });
            let refused =
                [socket.send(&[1; 1440]), socket.send(&[1; 1440])].into_iter().find_map(Result::err);
            assert_eq!(refused.and_then(|error| error.raw_os_error()), Some(libc::EMSGSIZE));
        }
        assert_eq!(switched.dropped(DropReason::TooBig).await, 2, "by {narrow}");
        assert_eq!(counted(&switched.driver, |of| matches!(of, Counted::Dropped { .. })).await, 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_with_shorter_segments() {
    for narrow in ["in", "gw"] {
        let switched = Switched::with(narrow, true).await;
        for server in SERVERS {
            let to = at(server, 80).to_string();
            let _echo = Echo::serve(&switched.server, &to);
            // With super-frames and unfinished checksums, as they come out of the client's stack.
            fetch(&switched.client, &to, 300_000).unwrap_or_else(|error| panic!("{to} by {narrow}: {error}"));
            assert_eq!(mtu_to(&switched.client, server), Some(NARROW));
        }
        assert!(switched.dropped(DropReason::TooBig).await > 0);
    }
}

/// What the server sends does not fit the way to the client.
#[tokio::test(flavor = "multi_thread")]
async fn the_far_end_learns_too() {
    let switched = Switched::with("vr", true).await;
    for server in SERVERS {
        let to = at(server, 80).to_string();
        let _echo = Echo::serve(&switched.server, &to);
        fetch(&switched.client, &to, 300_000).unwrap_or_else(|error| panic!("{to}: {error}"));
    }
    assert_eq!(mtu_to(&switched.server, "172.16.1.10"), Some(NARROW));
    assert_eq!(mtu_to(&switched.server, "2001:db8:a1::10"), Some(NARROW));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_setting_nobody_learns() {
    let switched = Switched::with("in", false).await;
    let to = at(SERVERS[0], 80).to_string();
    let _echo = Echo::serve(&switched.server, &to);
    assert!(fetch(&switched.client, &to, 300_000).is_err());
    assert_eq!(mtu_to(&switched.client, SERVERS[0]), None);
}

fn always_df(socket: &UdpSocket, is_v6: bool) {
    let (level, option, always) = match is_v6 {
        true => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DO),
        false => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO),
    };
    // SAFETY: the value lives until the call returns, and is as long as said.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const always).cast(),
            size_of_val(&always) as u32,
        )
    };
    assert_eq!(set, 0, "{}", io::Error::last_os_error());
}
