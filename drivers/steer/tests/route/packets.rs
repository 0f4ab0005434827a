//! Real packets: where they go, and above all where they do not.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use catena_driver::netns::NetNs;
use catena_driver::{Driver, Epoch};
use catena_driver_steer::RouteDriver;
use catena_model::forwarding::{Change, Object, PathId, Rule, Selector, Table};

use crate::world::{QR_ABC, World, add_address, delete, ip, port, put, rule, run, selector, state, table};

/// What the routed packets of one family meet: the site sends them; at the switch they are on the chain's way, at the
/// gateway they have gone round it.
pub struct Traffic {
    sender: UdpSocket,
    to: SocketAddr,
    chain: UdpSocket,
    leak: UdpSocket,
    pub driver: RouteDriver,
    pub objects: Vec<Object>,
}

/// Addresses and base routing of one family: the site's and the Internet's host, the next hops at each end.
#[derive(Clone, Copy)]
pub struct Plan {
    pub site: &'static str,
    pub internet: &'static str,
    pub router: &'static str,
    pub edge: &'static str,
    pub switch: [&'static str; 2],
    pub gateway: &'static str,
    pub prefix: &'static str,
}

pub const V4: Plan = Plan {
    site: "172.16.1.10/32",
    internet: "198.51.100.10/32",
    router: "10.20.0.2",
    edge: "10.20.0.1/24",
    switch: ["10.21.0.5/24", "10.21.0.6/24"],
    gateway: "10.23.0.2/30",
    prefix: "172.16.1.0/24",
};

pub const V6: Plan = Plan {
    site: "2001:db8:a1::10/128",
    internet: "2001:db8:ffff::10/128",
    router: "2001:db8:20::2",
    edge: "2001:db8:20::1/64",
    switch: ["2001:db8:21::5/64", "2001:db8:21::6/64"],
    gateway: "2001:db8:23::2/64",
    prefix: "2001:db8:a1::/64",
};

impl Plan {
    pub fn build(&self, world: &World) -> Traffic {
        let address = |text: &str| -> IpAddr { text.split('/').next().unwrap().parse().unwrap() };
        let [site, internet] = [self.site, self.internet].map(address);
        add_address(&world.site, self.site, "lo");
        add_address(&world.site, self.edge, "xqg-ext");
        ip(&world.site, &format!("route add {} via {}", self.internet, self.router));
        for netns in [&world.switch, &world.gateway] {
            add_address(netns, self.internet, "lo");
        }
        self.address_switch(world);
        add_address(&world.gateway, self.gateway, "xqg-def");
        world.ip(&format!("route add {} via {}", self.internet, address(self.gateway)));

        let bind = |netns: &NetNs, at: SocketAddr| netns.run(|| UdpSocket::bind(at)).unwrap();
        let to = SocketAddr::new(internet, 9000);
        let [chain, leak] = [&world.switch, &world.gateway].map(|netns| bind(netns, to));
        Traffic {
            sender: bind(&world.site, SocketAddr::new(site, 0)),
            to,
            chain,
            leak,
            driver: world.driver(),
            objects: vec![
                table(1, "qr-abc", &address(self.switch[0]).to_string()),
                table(2, "qr-abc", &address(self.switch[1]).to_string()),
                rule(0, Selector { in_port: Some(port("qg-ext")), ..selector(self.prefix) }, 1),
            ],
        }
    }

    fn address_switch(&self, world: &World) {
        for address in self.switch {
            add_address(&world.switch, address, "xqr-abc");
        }
    }

    /// For `ip`.
    pub fn flag(&self) -> &'static str {
        if self.site.contains(':') { "-6" } else { "-4" }
    }
}

impl Traffic {
    /// Sends packets, and counts those that come along the chain's way and those that come round it.
    pub fn send(&self) -> (usize, usize) {
        for _ in 0..20 {
            // Before the route is there, or after it is gone, the router answers that it is; that is no failure here.
            let _ = self.sender.send_to(b"packet", self.to);
        }
        (count(&self.chain), count(&self.leak))
    }
}

/// How many packets have come, and will have come in a moment.
fn count(socket: &UdpSocket) -> usize {
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut packets = 0;
    loop {
        match socket.recv(&mut [0; 64]) {
            Ok(_) => packets += 1,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return packets,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("{error}"),
        }
    }
}

pub const ALONG: (usize, usize) = (20, 0);
pub const ROUND: (usize, usize) = (0, 20);
pub const DROPPED: (usize, usize) = (0, 0);

#[tokio::test(flavor = "multi_thread")]
async fn packets_go_where_they_should() {
    for plan in [V4, V6] {
        let world = World::new();
        let traffic = plan.build(&world);
        assert_eq!(traffic.send(), ROUND, "before anything is installed");
        put(&traffic.driver, &traffic.objects).await.unwrap();
        assert_eq!(traffic.send(), ALONG);
        let gone: Vec<_> = traffic.objects.iter().rev().cloned().collect();
        delete(&traffic.driver, &gone).await.unwrap();
        assert_eq!(traffic.send(), ROUND, "after all is removed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_are_dropped_and_do_not_leak_when_the_route_goes() {
    for plan in [V4, V6] {
        let world = World::new();
        let traffic = plan.build(&world);
        put(&traffic.driver, &traffic.objects).await.unwrap();

        world.ip("link set qr-abc down");
        assert_eq!(traffic.send(), DROPPED, "the port is down");
        world.ip("link del qr-abc");
        assert_eq!(traffic.send(), DROPPED, "the port is gone");

        world.cable("qr-abc", &QR_ABC);
        plan.address_switch(&world);
        assert_eq!(traffic.send(), DROPPED, "the port is back, but nobody has healed its table yet");
        put(&traffic.driver, &traffic.objects).await.unwrap();
        assert_eq!(traffic.send(), ALONG, "the table is healed");
    }
}

/// What somebody does in one stroke to the rule, its table or what leads there, and where packets go until it is healed.
#[tokio::test(flavor = "multi_thread")]
async fn meddling_opens_no_way_round() {
    for plan in [V4, V6] {
        let world = World::new();
        let traffic = plan.build(&world);
        put(&traffic.driver, &traffic.objects).await.unwrap();
        let flag = plan.flag();
        for (command, meanwhile) in [
            ("tc filter del dev qg-ext ingress".to_owned(), DROPPED),
            ("tc qdisc del dev qg-ext clsact".to_owned(), DROPPED),
            (format!("ip {flag} route flush table 10001"), ALONG),
            (format!("ip {flag} rule del pref 10000 lookup 10001"), ALONG),
            (format!("ip {flag} rule del pref 10256"), ALONG),
            (format!("ip {flag} rule del pref 10257"), ALONG),
            (format!("ip {flag} rule flush; ip {flag} rule add pref 32766 lookup main"), ALONG),
        ] {
            run(&world.router, &command);
            assert_eq!(traffic.send(), meanwhile, "after {command}");
            assert_ne!(traffic.driver.observe().await.unwrap(), state(&traffic.objects), "after {command}");
            put(&traffic.driver, &traffic.objects).await.unwrap();
            assert_eq!(traffic.send(), ALONG, "healed after {command}");
            assert_eq!(traffic.driver.observe().await.unwrap(), state(&traffic.objects), "after {command}");
        }
    }
}

/// While rules and tables are replaced again and again, every packet goes along the chain's way.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_while_objects_are_replaced() {
    const ROUNDS: usize = 30;
    for plan in [V4, V6] {
        let world = World::new();
        let Traffic { sender, to, chain, leak, driver, objects } = plan.build(&world);
        put(&driver, &objects).await.unwrap();
        // The neighbours are known before it begins.
        for address in plan.switch {
            run(&world.router, &format!("ping -c1 -W5 {}", address.split('/').next().unwrap()));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let sending = std::thread::spawn({
            let stop = stop.clone();
            move || {
                let mut sent = 0;
                while !stop.load(Ordering::Relaxed) {
                    sender.send_to(b"packet", to).unwrap();
                    sent += 1;
                    std::thread::sleep(Duration::from_micros(200));
                }
                sent
            }
        });
        let received = std::thread::spawn({
            let stop = stop.clone();
            move || {
                let mut received = 0;
                while !stop.load(Ordering::Relaxed) {
                    received += count(&chain);
                }
                received + count(&chain)
            }
        });
        let Object::Rule(old_rule) = &objects[2] else { panic!("{objects:?}") };
        let new_rule = Object::Rule(Rule { table: PathId(2), ..old_rule.clone() });
        let [Object::Table(first), Object::Table(second)] = &objects[..2] else { panic!("{objects:?}") };
        let new_table = Object::Table(Table { via: second.via, ..first.clone() });
        for (old, new) in [(&objects[2], new_rule), (&objects[0], new_table)] {
            let there = Change::Put { new, old: Some(old.clone()) };
            let back = there.inverse();
            for _ in 0..ROUNDS {
                driver.apply(Epoch(1), std::slice::from_ref(&there)).await.unwrap();
                driver.apply(Epoch(1), std::slice::from_ref(&back)).await.unwrap();
            }
        }
        // One hop comes and goes with its path.
        let [third, _] = [&objects[0], &objects[1]].map(|object| match object {
            Object::Table(table) => {
                Object::Table(Table { path: PathId(3), via: second.via, ..table.clone() })
            }
            other => panic!("{other:?}"),
        });
        delete(&driver, &objects[1..2]).await.unwrap();
        let moved = Object::Rule(Rule { table: PathId(3), ..old_rule.clone() });
        for _ in 0..ROUNDS {
            put(&driver, &[third.clone(), moved.clone()]).await.unwrap();
            put(&driver, &objects[2..]).await.unwrap();
            delete(&driver, std::slice::from_ref(&third)).await.unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        let (sent, received) = (sending.join().unwrap(), received.join().unwrap());
        assert!(sent > 100, "only {sent} packets were sent meanwhile");
        assert_eq!((received, count(&leak)), (sent, 0), "{}", plan.site);
    }
}
