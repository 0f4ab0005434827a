//! Real packets: where they go, and above all where they do not.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use catena_driver::netns::NetNs;
use catena_driver::{Driver, Epoch};
use catena_model::forwarding::{Change, Object, PathId, Rule, Selector, Table};
use nix::sys::socket::{setsockopt, sockopt};

use crate::objects::{delete, port, put, rule, selector, state, table};
use crate::world::{QR_ABC, World, add_address, ip, run};

/// Addresses and base routing of one family: the site's and the Internet's host, the next hops at each end.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub site: &'static str,
    pub internet: &'static str,
    pub router: &'static str,
    pub edge: &'static str,
    switch: [&'static str; 2],
    gateway: &'static str,
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

/// What the routed packets of one family meet: the site sends them; at the switch they are on the chain's way, at the
/// gateway they have gone round it.
pub struct Traffic<D> {
    pub sender: UdpSocket,
    to: SocketAddr,
    pub chain: UdpSocket,
    pub leak: UdpSocket,
    pub driver: D,
    /// The tables of paths 1 and 2, and a rule to the first.
    pub objects: Vec<Object>,
}

/// Of 20 packets, those that come along the chain's way and those that come round it.
pub const ALONG: (usize, usize) = (20, 0);
pub const ROUND: (usize, usize) = (0, 20);
pub const DROPPED: (usize, usize) = (0, 0);

/// The room for packets that nobody has read yet: no packet of a test is lost there.
const ROOM: usize = 8 << 20;

impl Plan {
    pub fn build<D>(&self, world: &World, driver: D) -> Traffic<D> {
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

        let to = SocketAddr::new(internet, 9000);
        let [chain, leak] = [&world.switch, &world.gateway].map(|netns| bind(netns, to));
        let inbound = Selector { in_port: Some(port("qg-ext")), ..selector(self.prefix) };
        let [first, second] = self.switch.map(|hop| address(hop).to_string());
        Traffic {
            sender: bind(&world.site, SocketAddr::new(site, 0)),
            to,
            chain,
            leak,
            driver,
            objects: vec![table(1, "qr-abc", &first), table(2, "qr-abc", &second), rule(0, inbound, 1)],
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

/// Without its prefix length.
fn address(text: &str) -> IpAddr {
    text.split('/').next().unwrap().parse().unwrap()
}

fn bind(netns: &NetNs, at: SocketAddr) -> UdpSocket {
    let socket = netns.run(|| UdpSocket::bind(at)).unwrap();
    setsockopt(&socket, sockopt::RcvBufForce, &ROOM).unwrap();
    socket
}

impl<D: Driver> Traffic<D> {
    /// Sends 20 packets, and counts those that come along the chain's way and those that come round it.
    pub fn send(&self) -> (usize, usize) {
        for _ in 0..20 {
            // Before the route is there, or after it is gone, the router answers that it is; that is no failure here.
            let _ = self.sender.send_to(b"packet", self.to);
        }
        self.arrived()
    }

    /// What has come since anybody last looked.
    pub fn arrived(&self) -> (usize, usize) {
        (count(&self.chain), count(&self.leak))
    }

    /// What is installed leads along the chain's way, and is removed without a trace; once more than that does no harm.
    pub async fn goes_where_it_should(&self) {
        assert_eq!(self.send(), ROUND, "before anything is installed");
        put(&self.driver, &self.objects).await.unwrap();
        assert_eq!(self.send(), ALONG);
        let gone: Vec<_> = self.objects.iter().rev().cloned().collect();
        for _ in 0..2 {
            delete(&self.driver, &gone).await.unwrap();
        }
        assert_eq!(self.send(), ROUND, "after all is removed");
    }

    /// The port to the switch goes, and comes back.
    pub async fn does_not_leak_without_its_port(&self, plan: &Plan, world: &World) {
        put(&self.driver, &self.objects).await.unwrap();
        world.ip("link set qr-abc down");
        assert_eq!(self.send(), DROPPED, "the port is down");
        world.ip("link del qr-abc");
        assert_eq!(self.send(), DROPPED, "the port is gone");

        world.cable("qr-abc", &QR_ABC);
        plan.address_switch(world);
        assert_eq!(self.send(), DROPPED, "the port is back, but nobody has healed its table yet");
        put(&self.driver, &self.objects).await.unwrap();
        assert_eq!(self.send(), ALONG, "the table is healed");
    }

    /// What somebody does in one stroke (a shell command in the router), and where packets go until it is healed.
    pub async fn is_meddled_with(&self, world: &World, commands: &[(&str, (usize, usize))]) {
        put(&self.driver, &self.objects).await.unwrap();
        for (command, meanwhile) in commands {
            run(&world.router, command);
            assert_eq!(self.send(), *meanwhile, "after {command}");
            assert_ne!(self.driver.observe().await.unwrap(), state(&self.objects), "after {command}");
            put(&self.driver, &self.objects).await.unwrap();
            assert_eq!(self.send(), ALONG, "healed after {command}");
            assert_eq!(self.driver.observe().await.unwrap(), state(&self.objects), "after {command}");
        }
    }

    /// While rules and tables are replaced again and again, every packet goes along the chain's way.
    pub async fn loses_nothing_while_objects_are_replaced(self, plan: &Plan, world: &World, rounds: usize) {
        let Self { sender, to, chain, leak, driver, objects } = self;
        put(&driver, &objects).await.unwrap();
        // The neighbours are known before it begins.
        for hop in plan.switch {
            run(&world.router, &format!("ping -c1 -W5 {}", address(hop)));
        }
        let stream = Stream::start(sender, to, chain);
        let [Object::Table(first), Object::Table(second), Object::Rule(old_rule)] = &objects[..] else {
            panic!("{objects:?}")
        };
        let new_rule = Object::Rule(Rule { table: PathId(2), ..old_rule.clone() });
        let new_table = Object::Table(Table { via: second.via, ..first.clone() });
        for (old, new) in [(&objects[2], new_rule), (&objects[0], new_table)] {
            let there = Change::Put { new, old: Some(old.clone()) };
            let back = there.inverse();
            for _ in 0..rounds {
                driver.apply(Epoch(1), std::slice::from_ref(&there)).await.unwrap();
                driver.apply(Epoch(1), std::slice::from_ref(&back)).await.unwrap();
            }
        }
        // A next hop comes and goes with its path.
        let third = Object::Table(Table { path: PathId(3), ..second.clone() });
        let moved = Object::Rule(Rule { table: PathId(3), ..old_rule.clone() });
        delete(&driver, &objects[1..2]).await.unwrap();
        for _ in 0..rounds {
            put(&driver, &[third.clone(), moved.clone()]).await.unwrap();
            put(&driver, &objects[2..]).await.unwrap();
            delete(&driver, std::slice::from_ref(&third)).await.unwrap();
        }
        let (sent, received) = stream.stop();
        assert!(sent > 100, "only {sent} packets were sent meanwhile");
        let dropped = [("router", &world.router), ("switch", &world.switch)].map(|(who, netns)| {
            format!(
                "{who}: {}",
                run(netns, "nstat -as | grep -Ei 'err|drop|discard|noroute|fail' | grep -v ' 0 ' || true")
            )
        });
        assert_eq!((received, count(&leak)), (sent, 0), "{}\n{}", plan.site, dropped.join("\n"));
    }
}

/// Packets, one after the other, until somebody has seen enough.
struct Stream {
    stop: Arc<AtomicBool>,
    sending: JoinHandle<usize>,
    receiving: JoinHandle<usize>,
}

impl Stream {
    fn start(sender: UdpSocket, to: SocketAddr, receiver: UdpSocket) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let sending = std::thread::spawn({
            let stop = Arc::clone(&stop);
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
        let receiving = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let mut received = 0;
                while !stop.load(Ordering::Relaxed) {
                    received += count(&receiver);
                }
                received + count(&receiver)
            }
        });
        Self { stop, sending, receiving }
    }

    /// How many were sent, and how many came.
    fn stop(self) -> (usize, usize) {
        self.stop.store(true, Ordering::Relaxed);
        (self.sending.join().unwrap(), self.receiving.join().unwrap())
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
