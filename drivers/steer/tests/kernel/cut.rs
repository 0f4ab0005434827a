//! Tunnels that cut outer packets: what is too long for the underlay arrives all the same, whole and as it was.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use catena_driver::netns::NetNs;
use catena_driver::{Counted, Driver, DriverError, DropReason, Event};
use catena_driver_steer::SteerDriver;
use catena_model::forwarding::{Change, Object, Oversize, SiteId, Tunnel};

use crate::objects::tunnel;
use crate::world::{Pins, cable, counted, driver, ip, put, quiet_namespace, set};

const SITE: SiteId = SiteId(1);
const CLIENT: &str = "172.16.1.10:4000";
const SERVER: &str = "198.51.100.10:9";
const PATIENCE: Duration = Duration::from_secs(2);

/// A client behind our end of a tunnel; the far end is a host, which puts fragments together before it gives GRE packets
/// to whoever asks for them.
struct Ends {
    client: NetNs,
    ours: NetNs,
    far: NetNs,
    driver: SteerDriver,
    _pins: Pins,
}

fn cutting(remote: &str, key: Option<u32>) -> Tunnel {
    let mtu = if key.is_some() { 1472 } else { 1476 };
    Tunnel {
        mtu,
        oversize: Oversize::FragmentOuter,
        ..tunnel(SITE.0, "203.0.113.1", remote, key, &["198.51.100.0/24"])
    }
}

impl Ends {
    async fn connected(key: Option<u32>, prepare: impl Fn(&NetNs)) -> Self {
        let [client, far] = [(); 2].map(|()| quiet_namespace(false));
        let ours = quiet_namespace(true);
        prepare(&ours);
        cable((&client, "eth0", &["172.16.1.10/24"]), (&ours, "lan", &["172.16.1.1/24"]));
        cable((&ours, "wan", &["203.0.113.1/30"]), (&far, "wan", &["203.0.113.2/30"]));
        ip(&client, "route add default via 172.16.1.1");
        let pins = Pins::new();
        let driver = driver("edge", &ours, &pins, None);
        put(&driver, &[Object::Tunnel(cutting("203.0.113.2", key))]).await;
        ip(&ours, "route add 198.51.100.0/24 dev catena-gre");
        Self { client, ours, far, driver, _pins: pins }
    }

    fn sender(&self) -> UdpSocket {
        let socket = self.client.run(|| UdpSocket::bind(CLIENT)).unwrap();
        let always = libc::IP_PMTUDISC_DO;
        // SAFETY: the value lives until the call returns, and is as long as said.
        let set = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_IP,
                libc::IP_MTU_DISCOVER,
                (&raw const always).cast(),
                size_of_val(&always) as u32,
            )
        };
        assert_eq!(set, 0, "{}", io::Error::last_os_error());
        socket
    }

    async fn dropped(&self) -> u64 {
        counted(&self.driver, |of| matches!(of, Counted::Dropped { .. })).await
    }
}

/// Takes whole GRE packets, from behind their outer IPv4 headers.
struct Receiver(UdpSocket);

impl Receiver {
    fn of(netns: &NetNs) -> Self {
        let raw = netns.run(|| {
            // SAFETY: the arguments are numbers.
            match unsafe {
                libc::socket(libc::AF_INET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::IPPROTO_GRE)
            } {
                -1 => Err(io::Error::last_os_error()),
                // SAFETY: nobody else has it.
                fd => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
            }
        });
        let socket = UdpSocket::from(raw.unwrap());
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    /// The inner packet, and the outer header.
    fn next(&self, key: Option<u32>) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let mut buffer = vec![0; 1 << 16];
        let length = self.0.recv(&mut buffer)?;
        let inner = 20 + if key.is_some() { 8 } else { 4 };
        Ok((buffer[inner..length].to_vec(), buffer[..20].to_vec()))
    }
}

/// No two bytes of it are alike that would stand in each other's place were fragments mixed up.
fn payload(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|at| ((at * 7 + seed * 31) % 251) as u8).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_as_long_as_the_underlay_arrive_whole() {
    for key in [None, Some(1001)] {
        let ends = Ends::connected(key, |_| ()).await;
        let (receiver, sender) = (Receiver::of(&ends.far), ends.sender());
        let mut identifications = Vec::new();
        for (seed, length) in [10, 1444, 1448, 1449, 1472, 1472, 1472].into_iter().enumerate() {
            let sent = payload(length, seed);
            sender.send_to(&sent, SERVER.parse::<SocketAddr>().unwrap()).unwrap();
            let (inner, outer) = receiver.next(key).unwrap_or_else(|error| panic!("{length} bytes: {error}"));
            assert_eq!(inner[28..], sent);
            assert_eq!(inner[6] & 0x40, 0x40, "the inner packet still says DF");
            assert_eq!(outer[8], 64, "the outer one's TTL is the same whether it was cut or not");
            if outer[6] & 0x40 == 0 {
                identifications.push(u16::from_be_bytes([outer[4], outer[5]]));
            }
        }
        assert!(identifications.len() >= 3, "{identifications:?}");
        assert!(
            identifications.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1)),
            "{identifications:?}"
        );
        assert_eq!(ends.dropped().await, 0);
        assert_eq!(counted(&ends.driver, |of| *of == Counted::Encapsulated { site: SITE }).await, 7);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn super_frames_are_segmented_and_each_segment_is_cut() {
    let ends = Ends::connected(Some(1001), |_| ()).await;
    let (receiver, sender) = (Receiver::of(&ends.far), ends.sender());
    // Many datagrams by one call (UDP_SEGMENT, udp(7)), each as long as the underlay carries without outer headers.
    nix::sys::socket::setsockopt(&sender, nix::sys::socket::sockopt::UdpGsoSegment, &1472).unwrap();
    for round in 0..2 {
        let sent = payload(1472 * 10, round);
        sender.send_to(&sent, SERVER.parse::<SocketAddr>().unwrap()).unwrap();
        for segment in sent.chunks(1472) {
            let (inner, _) = receiver.next(Some(1001)).unwrap();
            assert_eq!(inner[28..], *segment);
        }
    }
    assert_eq!(ends.dropped().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_and_loose_filters_of_the_element_do_not_stop_it() {
    for filter in [0, 1, 2] {
        let ends = Ends::connected(None, |ours| set(ours, "ipv4/conf/all/rp_filter", filter)).await;
        let (receiver, sender) = (Receiver::of(&ends.far), ends.sender());
        sender.send_to(&payload(1472, 0), SERVER.parse::<SocketAddr>().unwrap()).unwrap();
        let arrived = receiver.next(None).unwrap_or_else(|error| panic!("rp_filter={filter}: {error}"));
        assert_eq!(arrived.0.len(), 1500);
        // Nor those that come later.
        set(&ends.ours, "ipv4/conf/all/rp_filter", (filter + 1) % 3);
        sender.send_to(&payload(1472, 1), SERVER.parse::<SocketAddr>().unwrap()).unwrap();
        assert_eq!(receiver.next(None).unwrap().0.len(), 1500);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fragments_that_come_in_are_counted_as_dropped() {
    let ends = Ends::connected(None, |_| ()).await;
    ip(&ends.far, "link set wan mtu 1000");
    let raw = Receiver::of(&ends.far).0;
    let mut gre = vec![0, 0, 0x08, 0];
    gre.extend(payload(1400, 0));
    let sent = nix::sys::socket::sendto(
        raw.as_raw_fd(),
        &gre,
        &nix::sys::socket::SockaddrIn::new(203, 0, 113, 1, 0),
        nix::sys::socket::MsgFlags::empty(),
    );
    assert_eq!(sent, Ok(gre.len()));
    let fragment = Counted::Dropped { path: None, reason: DropReason::Fragment };
    assert_eq!(counted(&ends.driver, |of| *of == fragment).await, 2);
}

/// What the driver says of a tunnel that it refuses.
async fn refusal(driver: &SteerDriver, tunnel: Tunnel) -> String {
    let change = Change::Put { new: Object::Tunnel(tunnel), old: None };
    match driver.check(&[change]).await {
        Err(DriverError::Unsupported { what, .. }) => what,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_elements_own_route_has_to_lead_out_of_the_underlay() {
    let ends = Ends::connected(None, |_| ()).await;
    cable((&ends.ours, "other", &["192.0.2.1/30"]), (&ends.far, "other", &["192.0.2.2/30"]));
    for to in ["192.0.2.2", "192.168.77.1"] {
        let said = refusal(&ends.driver, cutting(to, None)).await;
        assert!(
            said.contains(&format!("the element's route from 203.0.113.1 to {to} does not leave by wan")),
            "{said}"
        );
    }

    let tunnel = Object::Tunnel(cutting("203.0.113.2", None));
    let mut events = ends.driver.events();
    assert!(ends.driver.observe().await.unwrap().contains(&tunnel));
    ip(&ends.ours, "route add 203.0.113.2/32 via 192.0.2.2 dev other");
    let told = async {
        loop {
            match events.recv().await {
                Some(Event::Drift { what }) if what.contains("does not leave by wan") => return,
                Some(_) => {}
                None => panic!("watching ended"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(5), told).await.unwrap();
    assert!(!ends.driver.observe().await.unwrap().contains(&tunnel));
    ip(&ends.ours, "route del 203.0.113.2/32");
    assert!(ends.driver.observe().await.unwrap().contains(&tunnel));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_cut_is_refused() {
    let ends = Ends::connected(None, |_| ()).await;
    let telling = Tunnel {
        site: SiteId(2),
        oversize: Oversize::TellSender,
        allowed: ["198.51.99.0/24".parse().unwrap()].into(),
        ..cutting("203.0.113.2", Some(7))
    };
    let said = refusal(&ends.driver, telling).await;
    assert!(
        said.contains("some tunnels of the element cut outer packets and others tell the sender"),
        "{said}"
    );
    let over_ipv6 = Tunnel {
        local: "2001:db8::1".parse().unwrap(),
        remote: "2001:db8::2".parse().unwrap(),
        ..cutting("203.0.113.2", None)
    };
    let said = refusal(&ends.driver, over_ipv6).await;
    assert!(said.contains("IPv6"), "{said}");
}
