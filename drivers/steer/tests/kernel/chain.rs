//! Packets through a routed and a transparent function, there and back.

use std::io;

use catena_driver::netns::NetNs;
use catena_driver::{Counted, Driver, DropReason};
use catena_driver_steer::{Hook, SteerDriver};
use catena_model::forwarding::{Action, Direction, Exits, Object, PathId, Purpose};

use crate::foreign::has_tcx;
use crate::objects::{everything, ingress, l2, l3, path, policy, side, tcp};
use crate::traffic::{Echo, connect, datagram, exchange, fetch};
use crate::world::{Pins, cable, counted, delete, driver, ip, put, quiet_namespace, received, run};

const FIREWALL: u32 = 11;
const INSPECTOR: u32 = 12;
const PATH: u32 = 7;
const SITE: u32 = 1;
const PREFIXES: [&str; 2] = ["172.16.1.0/24", "2001:db8:a1::/64"];
const SERVER_V4: &str = "198.51.100.10:80";
const SERVER_V6: &str = "[2001:db8:ffff::10]:80";

/// A client and a server at one switch, with a routed firewall and a bridge as functions.
struct Chain {
    client: NetNs,
    server: NetNs,
    switch: NetNs,
    firewall: NetNs,
    inspector: NetNs,
    pins: Pins,
}

impl Chain {
    fn new() -> Self {
        let [client, server, switch, inspector] = [(); 4].map(|()| quiet_namespace(false));
        let firewall = quiet_namespace(true);
        cable(
            (&client, "eth0", &["172.16.1.10/24", "2001:db8:a1::10/64"]),
            (&switch, "vr", &["172.16.1.1/24", "2001:db8:a1::1/64"]),
        );
        cable(
            (&server, "eth0", &["198.51.100.10/24", "2001:db8:ffff::10/64"]),
            (&switch, "gw", &["198.51.100.1/24", "2001:db8:ffff::1/64"]),
        );
        cable(
            (&firewall, "in", &["10.22.1.2/24", "2001:db8:2201::2/64"]),
            (&switch, "fw-in", &["10.22.1.1/24", "2001:db8:2201::1/64"]),
        );
        cable(
            (&firewall, "out", &["10.22.2.2/24", "2001:db8:2202::2/64"]),
            (&switch, "fw-out", &["10.22.2.1/24", "2001:db8:2202::1/64"]),
        );
        cable((&inspector, "in", &[]), (&switch, "ips-in", &[]));
        cable((&inspector, "out", &[]), (&switch, "ips-out", &[]));
        ip(&inspector, "link add br0 type bridge");
        for port in ["in", "out"] {
            ip(&inspector, &format!("link set {port} master br0"));
        }
        ip(&inspector, "link set br0 up");
        ip(&client, "route add default via 172.16.1.1");
        ip(&client, "route add default via 2001:db8:a1::1");
        ip(&server, "route add default via 198.51.100.1");
        ip(&server, "route add default via 2001:db8:ffff::1");
        ip(&firewall, "route add 172.16.1.0/24 via 10.22.1.1");
        ip(&firewall, "route add default via 10.22.2.1");
        ip(&firewall, "route add 2001:db8:a1::/64 via 2001:db8:2201::1");
        ip(&firewall, "route add default via 2001:db8:2202::1");
        Self { client, server, switch, firewall, inspector, pins: Pins::new() }
    }

    fn driver(&self, hook: Option<Hook>) -> SteerDriver {
        driver("br-int", &self.switch, &self.pins, hook)
    }

    /// How many packets each function has received, at either side.
    fn seen(&self) -> [u64; 2] {
        let both = |netns: &NetNs| received(netns, "in") + received(netns, "out");
        [both(&self.firewall), both(&self.inspector)]
    }
}

/// Web traffic through the firewall, then the inspector.
fn objects() -> Vec<Object> {
    let rules = vec![tcp(80, Action::Path(PathId(PATH)))];
    let mut objects = functions();
    objects.extend([
        path(PATH, SITE, &[&[FIREWALL], &[INSPECTOR]]),
        policy(SITE, &PREFIXES, rules, Some(exits())),
        ingress("vr", Purpose::Steer, &[Direction::Up]),
        ingress("gw", Purpose::Steer, &[Direction::Down]),
    ]);
    objects
}

fn functions() -> Vec<Object> {
    vec![
        l3(
            FIREWALL,
            side("fw-in", Some("10.22.1.2"), Some("2001:db8:2201::2")),
            side("fw-out", Some("10.22.2.2"), Some("2001:db8:2202::2")),
        ),
        l2(INSPECTOR, "ips-in", "ips-out"),
    ]
}

fn exits() -> Exits {
    Exits {
        up: side("gw", Some("198.51.100.10"), Some("2001:db8:ffff::10")),
        down: side("vr", Some("172.16.1.10"), Some("2001:db8:a1::10")),
    }
}

async fn hops(driver: &SteerDriver, direction: Direction) -> Vec<u64> {
    let mut hops = Vec::new();
    for at in 0..2 {
        hops.push(
            counted(driver, |of| {
                matches!(of, Counted::Hop { path: PathId(PATH), position, direction: of, .. } if *position == at && *of == direction)
            })
            .await,
        );
    }
    hops
}

async fn web_passes_the_functions_and_all_else_goes_round(hook: Hook) {
    let chain = Chain::new();
    let driver = chain.driver(Some(hook));
    assert!(fetch(&chain.client, SERVER_V4, 1).is_err(), "a switch does not forward by itself");
    put(&driver, &objects()).await;
    for server in [SERVER_V4, SERVER_V6] {
        let _echo = Echo::serve(&chain.server, server);
        let _other = Echo::serve(&chain.server, &server.replace(":80", ":81").replace("]:80", "]:81"));
        let before = chain.seen();
        fetch(&chain.client, server, 100_000).unwrap();
        let after = chain.seen();
        assert!(after[0] > before[0] + 10 && after[1] > before[1] + 10, "{before:?} {after:?}");
        let quiet = chain.seen();
        fetch(&chain.client, &server.replace("]:80", "]:81").replace("10:80", "10:81"), 100_000).unwrap();
        let after = chain.seen();
        assert!(after[0] < quiet[0] + 10 && after[1] < quiet[1] + 10, "unclaimed: {quiet:?} {after:?}");
    }
    for direction in Direction::BOTH {
        let hops = hops(&driver, direction).await;
        assert_eq!(hops[0], hops[1], "what entered one function entered the other, {direction}");
        let left = counted(&driver, |of| *of == Counted::Exit { path: PathId(PATH), direction }).await;
        assert_eq!(left, hops[0], "and left, {direction}");
    }
    assert_eq!(counted(&driver, |of| matches!(of, Counted::Dropped { .. })).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn web_passes_the_functions_by_tcx() {
    if !has_tcx() {
        return;
    }
    web_passes_the_functions_and_all_else_goes_round(Hook::Tcx).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn web_passes_the_functions_by_clsact() {
    web_passes_the_functions_and_all_else_goes_round(Hook::Clsact).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn datagrams_of_all_sizes_arrive_unchanged() {
    let chain = Chain::new();
    let driver = chain.driver(None);
    let mut objects = objects();
    objects[3] = policy(SITE, &PREFIXES, vec![everything(Action::Path(PathId(PATH)))], Some(exits()));
    put(&driver, &objects).await;
    for (address, largest) in [("198.51.100.10:9", 1472), ("[2001:db8:ffff::10]:9", 1452)] {
        // The largest one fills the MTU; what is larger comes in fragments, which must all go the same way.
        for size in [1, 18, 64, 511, 1024, largest, largest + 1, 4000, 20_000] {
            let payload: Vec<u8> = (0..size).map(|at| (at % 253) as u8).collect();
            let arrived = datagram(&chain.client, &chain.server, address, &payload);
            assert_eq!(arrived.unwrap_or_else(|error| panic!("{size}: {error}")), payload, "{size}");
        }
    }
    assert_eq!(counted(&driver, |of| matches!(of, Counted::Dropped { .. })).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_is_down_is_not_gone_round() {
    let chain = Chain::new();
    let driver = chain.driver(None);
    put(&driver, &objects()).await;
    let _echo = Echo::serve(&chain.server, SERVER_V4);
    fetch(&chain.client, SERVER_V4, 1).unwrap();
    for port in ["in", "out"] {
        ip(&chain.inspector, &format!("link set {port} nomaster"));
    }
    assert!(fetch(&chain.client, SERVER_V4, 1).is_err());
    for port in ["in", "out"] {
        ip(&chain.inspector, &format!("link set {port} master br0"));
    }
    fetch(&chain.client, SERVER_V4, 1).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_survives_the_driver_and_an_edit() {
    let chain = Chain::new();
    let first = chain.driver(None);
    put(&first, &objects()).await;
    let _echo = Echo::serve(&chain.server, SERVER_V4);
    let mut connection = connect(&chain.client, SERVER_V4).unwrap();
    exchange(&mut connection, 10_000).unwrap();
    drop(first);
    exchange(&mut connection, 10_000).unwrap();

    let second = chain.driver(None);
    assert_eq!(second.observe().await.unwrap(), objects().into_iter().collect());
    assert_eq!(second.live_flows(PathId(PATH)).await.unwrap(), 1);
    let new = path(8, SITE, &[&[INSPECTOR], &[FIREWALL]]);
    let rules = vec![tcp(80, Action::Path(PathId(8)))];
    put(&second, &[new, policy(SITE, &PREFIXES, rules, Some(exits()))]).await;
    let before = hops(&second, Direction::Up).await;
    exchange(&mut connection, 10_000).unwrap();
    assert!(hops(&second, Direction::Up).await > before, "it stays on its path");
    fetch(&chain.client, SERVER_V4, 10_000).unwrap();
    assert_eq!(second.live_flows(PathId(8)).await.unwrap(), 1, "a new one takes the new path");

    drop(connection);
    let begin = std::time::Instant::now();
    while second.live_flows(PathId(PATH)).await.unwrap() > 0 {
        assert!(begin.elapsed().as_secs() < 10, "the closed connection is still alive");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_refuses_is_heard() {
    let chain = Chain::new();
    let driver = chain.driver(None);
    put(&driver, &objects()).await;
    let _echo = Echo::serve(&chain.server, SERVER_V4);
    // The firewall answers for the server, with a TCP reset, then with an ICMP error.
    for (answer, expected) in [
        ("tcp reset", io::ErrorKind::ConnectionRefused),
        ("icmp host-prohibited", io::ErrorKind::HostUnreachable),
    ] {
        run(
            &chain.firewall,
            &format!(
                "nft 'flush ruleset; table ip t {{ chain c {{ type filter hook forward priority 0; tcp flags syn reject with {answer}; }}; }}'"
            ),
        );
        let error = fetch(&chain.client, SERVER_V4, 1).unwrap_err();
        assert_eq!(error.kind(), expected, "{answer}: {error}");
    }
    assert_eq!(
        counted(&driver, |of| matches!(of, Counted::Dropped { reason: DropReason::Unexpected, .. })).await,
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn all_is_as_before_once_it_is_deleted() {
    let chain = Chain::new();
    let driver = chain.driver(None);
    let links = || ip(&chain.switch, "-o link show");
    let before = links();
    put(&driver, &objects()).await;
    assert!(chain.pins.of("br-int").exists());
    let _echo = Echo::serve(&chain.server, SERVER_V4);
    fetch(&chain.client, SERVER_V4, 1).unwrap();
    delete(&driver, &objects()).await;
    assert!(chain.pins.are_none());
    assert_eq!(links(), before);
    assert!(fetch(&chain.client, SERVER_V4, 1).is_err(), "no program is left");
    put(&driver, &objects()).await;
    assert_eq!(counted(&driver, |_| true).await, 0, "nothing is left of what was counted");
    fetch(&chain.client, SERVER_V4, 1).unwrap();
}
