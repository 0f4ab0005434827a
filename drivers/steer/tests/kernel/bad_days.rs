//! A function, or a tenant, that does what it should not: nobody else is to feel it.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};

use catena_driver::netns::NetNs;
use catena_driver::{Counted, Driver, DropReason};
use catena_driver_steer::{Settings, SteerDriver};
use catena_model::forwarding::{Action, Direction, Exits, Object, PathId, Purpose};
use etherparse::PacketBuilder;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};

use crate::objects::{everything, ingress, l2, l3, path, policy, side};
use crate::traffic::{Echo, connect, exchange, fetch};
use crate::world::{Pins, cable, config, counted, ip, put, quiet_namespace, received, run};

const SERVER: &str = "198.51.100.10:80";
/// What each tenant's chain is called.
const PATHS: [u32; 2] = [7, 8];
const FIREWALL: u32 = 11;
const BRIDGES: [u32; 2] = [12, 13];

/// Two tenants at one switch. The first one's chain is a routed firewall and a bridge, the second one's is a bridge.
struct Tenants {
    clients: [NetNs; 2],
    server: NetNs,
    switch: NetNs,
    firewall: NetNs,
    bridges: [NetNs; 2],
    pins: Pins,
}

impl Tenants {
    fn new() -> Self {
        let [one, two, server, switch] = [(); 4].map(|()| quiet_namespace(false));
        let firewall = quiet_namespace(true);
        let (clients, bridges) = ([one, two], [(); 2].map(|()| quiet_namespace(false)));
        for (number, client) in (1..).zip(&clients) {
            let [here, there] = [10, 1].map(|host| format!("172.16.{number}.{host}/24"));
            cable((client, "eth0", &[&here]), (&switch, &format!("vr{number}"), &[&there]));
            ip(client, &format!("route add default via 172.16.{number}.1"));
        }
        cable((&server, "eth0", &["198.51.100.10/24"]), (&switch, "gw", &["198.51.100.1/24"]));
        ip(&server, "route add default via 198.51.100.1");
        cable((&firewall, "in", &["10.22.1.2/24"]), (&switch, "fw-in", &["10.22.1.1/24"]));
        cable((&firewall, "out", &["10.22.2.2/24"]), (&switch, "fw-out", &["10.22.2.1/24"]));
        ip(&firewall, "route add 172.16.0.0/16 via 10.22.1.1");
        ip(&firewall, "route add default via 10.22.2.1");
        for (number, bridge) in (1..).zip(&bridges) {
            ip(bridge, "link add br0 type bridge");
            for port in ["in", "out"] {
                cable((bridge, port, &[]), (&switch, &format!("b{number}-{port}"), &[]));
                ip(bridge, &format!("link set {port} master br0"));
            }
            ip(bridge, "link set br0 up");
        }
        Self { clients, server, switch, firewall, bridges, pins: Pins::new() }
    }

    async fn start(&self, settings: Settings) -> SteerDriver {
        let config =
            catena_driver_steer::Config { settings, ..config("br-int", &self.switch, &self.pins, None) };
        let driver = SteerDriver::new(config).unwrap();
        put(&driver, &objects()).await;
        driver
    }
}

fn objects() -> Vec<Object> {
    let routed = side("fw-in", Some("10.22.1.2"), None);
    let mut objects = vec![
        l3(FIREWALL, routed, side("fw-out", Some("10.22.2.2"), None)),
        l2(BRIDGES[0], "b1-in", "b1-out"),
        l2(BRIDGES[1], "b2-in", "b2-out"),
        path(PATHS[0], 1, &[&[FIREWALL], &[BRIDGES[0]]]),
        path(PATHS[1], 2, &[&[BRIDGES[1]]]),
        ingress("gw", Purpose::Steer, &[Direction::Down]),
    ];
    for (number, id) in (1..).zip(PATHS) {
        let down = side(&format!("vr{number}"), Some(&format!("172.16.{number}.10")), None);
        let exits = Exits { up: side("gw", Some("198.51.100.10"), None), down };
        let prefix = format!("172.16.{number}.0/24");
        let rules = vec![everything(Action::Path(PathId(id)))];
        objects.push(policy(number, &[&prefix], rules, Some(exits)));
        objects.push(ingress(&format!("vr{number}"), Purpose::Steer, &[Direction::Up]));
    }
    objects
}

async fn unexpected(driver: &SteerDriver) -> u64 {
    counted(driver, |of| matches!(of, Counted::Dropped { reason: DropReason::Unexpected, .. })).await
}

/// What a tenant's functions were handed, in both directions.
async fn handed(driver: &SteerDriver, path: u32) -> u64 {
    counted(driver, |of| matches!(of, Counted::Hop { path: of, .. } if *of == PathId(path))).await
}

/// Fewer packets are no flood, however slow the machine is.
const FLOOD: usize = 5000;

/// Sends SYNs from ever other ports of an address, as fast as one socket can, until told to stop.
fn flood(from: &NetNs, source: Ipv4Addr, stop: &AtomicBool) {
    let to: SocketAddrV4 = SERVER.parse().unwrap();
    let raw = || Ok(socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), SockProtocol::Raw)?);
    let raw = from.run(raw).unwrap();
    let mut count = 0;
    while count < FLOOD || !stop.load(Ordering::Relaxed) {
        let port = 1024 + (count % 60_000) as u16;
        let mut packet = Vec::new();
        PacketBuilder::ipv4(source.octets(), to.ip().octets(), 64)
            .tcp(port, to.port(), count as u32, 64_000)
            .syn()
            .write(&mut packet, &[])
            .unwrap();
        // A queue that is full drops, as floods want it.
        let _ = sendto(raw.as_raw_fd(), &packet, &SockaddrIn::from(to), MsgFlags::empty());
        count += 1;
    }
}

/// Runs `work` while somebody floods.
async fn during_a_flood<T>(from: &NetNs, source: &str, work: impl AsyncFnOnce() -> T) -> T {
    let source = source.parse().unwrap();
    let (from, stop) = (from.clone(), std::sync::Arc::new(AtomicBool::new(false)));
    let flooding = std::thread::spawn({
        let stop = std::sync::Arc::clone(&stop);
        move || flood(&from, source, &stop)
    });
    let outcome = work().await;
    stop.store(true, Ordering::Relaxed);
    flooding.join().unwrap();
    outcome
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_sends_packets_back_into_its_ingress_gets_each_once() {
    let tenants = Tenants::new();
    let driver = tenants.start(Settings::default()).await;
    let _echo = Echo::serve(&tenants.server, SERVER);
    tenants.clients.iter().for_each(|client| fetch(client, SERVER, 1000).unwrap());
    assert_eq!(unexpected(&driver).await, 0);
    // The bridge has no other port any more, and sends frames back by the one where they came in.
    ip(&tenants.bridges[0], "link set out nomaster");
    ip(&tenants.bridges[0], "link set in type bridge_slave hairpin on");
    let before = received(&tenants.bridges[0], "in");
    fetch(&tenants.clients[0], SERVER, 1).unwrap_err();
    let turned = received(&tenants.bridges[0], "in") - before;
    assert!((1..20).contains(&turned), "{turned} frames of a few SYNs");
    let dropped = unexpected(&driver).await;
    assert!(dropped > 0, "a packet goes up, and not up again");
    // The firewall routes back to where packets come from.
    ip(&tenants.firewall, "route replace default via 10.22.1.1");
    let before = received(&tenants.firewall, "in");
    fetch(&tenants.clients[0], SERVER, 1).unwrap_err();
    let turned = received(&tenants.firewall, "in") - before;
    assert!((1..20).contains(&turned), "{turned} packets of a few SYNs");
    assert!(unexpected(&driver).await > dropped);
    fetch(&tenants.clients[1], SERVER, 100_000).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_floods_in_anothers_name_is_heard_by_nobody() {
    let tenants = Tenants::new();
    let driver = tenants.start(Settings::default()).await;
    let _echo = Echo::serve(&tenants.server, SERVER);
    let client = &tenants.clients[1];
    let mut open = connect(client, SERVER).unwrap();
    exchange(&mut open, 1000).unwrap();
    let (flows, at_server) =
        (driver.live_flows(PathId(PATHS[1])).await.unwrap(), received(&tenants.server, "eth0"));
    let before = handed(&driver, PATHS[1]).await;
    during_a_flood(&tenants.firewall, "172.16.2.10", async || {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    })
    .await;
    assert!(unexpected(&driver).await > 1000, "it is no tenant's");
    assert_eq!(handed(&driver, PATHS[1]).await, before, "the other tenant's functions see none of it");
    assert!(received(&tenants.server, "eth0") - at_server < 20, "nor does the server");
    assert_eq!(driver.live_flows(PathId(PATHS[1])).await.unwrap(), flows);
    during_a_flood(&tenants.firewall, "172.16.2.10", async || {
        exchange(&mut open, 100_000).unwrap();
        fetch(client, SERVER, 100_000).unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_floods_takes_no_flow_of_another() {
    let tenants = Tenants::new();
    let settings = Settings { flows: 4096, tenant_flows: 2048, tenant_half_open: 512, ..Settings::default() };
    let driver = tenants.start(settings).await;
    let _echo = Echo::serve(&tenants.server, SERVER);
    let [flooder, client] = &tenants.clients;
    let live = async |at: usize| driver.live_flows(PathId(PATHS[at])).await.unwrap();
    let mut open: Vec<_> = (0..10).map(|_| connect(client, SERVER).unwrap()).collect();
    open.iter_mut().for_each(|stream| exchange(stream, 100).unwrap());
    assert_eq!(live(1).await, 10);
    // Nobody answers it: all of its flows are half open.
    run(
        &tenants.server,
        "nft 'table ip t { chain c { type filter hook input priority 0; ip saddr 172.16.1.0/24 drop; }; }'",
    );
    let new = during_a_flood(flooder, "172.16.1.10", async || {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        open.iter_mut().for_each(|stream| exchange(stream, 10_000).unwrap());
        (0..10).map(|_| connect(client, SERVER).unwrap()).collect::<Vec<_>>()
    })
    .await;
    assert_eq!(live(0).await, 512, "as many as one tenant may have half open");
    assert_eq!(live(1).await, 20, "all that were there, and all that came");
    open.iter_mut().for_each(|stream| exchange(stream, 100).unwrap());
    drop(new);
}
