//! The promises of every driver, by both ways of attaching.

use std::collections::BTreeMap;

use async_trait::async_trait;
use catena_driver::Driver;
use catena_driver::conformance::{Fixture, Replacement, Sample};
use catena_driver::netns::NetNs;
use catena_driver_steer::Hook;
use catena_model::forwarding::{Action, Direction, Exits, Object, PathId, Purpose};
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use nix::net::if_::if_nametoindex;

use crate::foreign::{Foreign, has_tcx, programs};
use crate::objects::{everything, ingress, l2, l3, path, policy, side, tcp, tunnel};
use crate::world::{Pins, cable, driver, quiet_namespace, run};

mod tcx {
    catena_driver::conformance_tests!(super::Element::new(catena_driver_steer::Hook::Tcx));
}

mod clsact {
    catena_driver::conformance_tests!(super::Element::new(catena_driver_steer::Hook::Clsact));
}

const PORTS: [&str; 7] = ["vr", "gw", "fw-in", "fw-out", "ips-in", "ips-out", "wan"];
const FOREIGN_PORTS: [&str; 3] = ["vr", "fw-in", "wan"];
/// Whose contents say what the element does. (That of lengths, and those of the programs, are gone with all the others.)
const MAPS: [&str; 12] = [
    "ports",
    "prefixes",
    "policies",
    "rules",
    "paths",
    "groups",
    "vlans",
    "instances",
    "exits",
    "tunnels",
    "tunnel_ends",
    "tunnel_locals",
];

/// An element that has everything: edges, functions, tunnels.
pub struct Element {
    netns: NetNs,
    _beyond: NetNs,
    pins: Pins,
    hook: Hook,
    foreign: std::sync::Mutex<Option<Foreign>>,
}

impl Element {
    fn new(hook: Hook) -> Self {
        let hook = if has_tcx() { hook } else { Hook::Clsact };
        let [netns, beyond] = [(); 2].map(|()| quiet_namespace(false));
        for port in PORTS {
            cable((&netns, port, &[]), (&beyond, port, &[]));
        }
        Self { netns, _beyond: beyond, pins: Pins::new(), hook, foreign: Default::default() }
    }
}

#[async_trait]
impl Fixture for Element {
    async fn driver(&self) -> Box<dyn Driver> {
        Box::new(driver("br-int", &self.netns, &self.pins, Some(self.hook)))
    }

    fn sample(&self) -> Sample {
        let prefixes = ["172.16.1.0/24", "2001:db8:a1::/64"];
        let exits = || {
            Some(Exits {
                up: side("gw", Some("10.22.0.1"), Some("2001:db8:22::1")),
                down: side("vr", Some("10.21.0.1"), None),
            })
        };
        let firewall = l3(
            11,
            side("fw-in", Some("10.22.1.2"), Some("2001:db8:2201::2")),
            side("fw-out", Some("10.22.2.2"), None),
        );
        let old_policy =
            policy(1, &prefixes, vec![tcp(80, Action::Path(PathId(7))), everything(Action::Claim)], exits());
        let new_policy = policy(1, &prefixes[1..], vec![tcp(443, Action::Path(PathId(8)))], exits());
        let old_tunnel = tunnel(1, "203.0.113.10", "203.0.113.2", Some(1001), &prefixes);
        let mut new_tunnel = tunnel(1, "203.0.113.10", "203.0.113.3", None, &prefixes[..1]);
        new_tunnel.mtu = 1400;
        let up = ingress("vr", Purpose::Steer, &[Direction::Up]);
        Sample {
            objects: vec![
                Object::Tunnel(old_tunnel.clone()),
                Object::Tunnel(tunnel(2, "203.0.113.10", "203.0.113.6", None, &["172.16.2.0/24"])),
                firewall,
                l2(12, "ips-in", "ips-out"),
                path(7, 1, &[&[11], &[12]]),
                path(8, 1, &[&[12]]),
                old_policy.clone(),
                policy(2, &["172.16.2.0/24"], vec![everything(Action::Claim)], None),
                up.clone(),
                ingress("gw", Purpose::Steer, &[Direction::Down]),
                ingress("wan", Purpose::Claim, &Direction::BOTH),
            ],
            replacements: vec![
                Replacement { old: old_policy, new: new_policy },
                Replacement { old: Object::Tunnel(old_tunnel), new: Object::Tunnel(new_tunnel) },
                Replacement { old: up, new: ingress("vr", Purpose::Claim, &[Direction::Down]) },
            ],
            nowhere: l2(13, "nowhere-in", "nowhere-out"),
        }
    }

    async fn snapshot(&self) -> String {
        let mut snapshot = run(&self.netns, "ip -o link show; ip address show; tc qdisc show");
        for port in PORTS {
            snapshot += &run(&self.netns, &format!("tc filter show dev {port} ingress"));
            snapshot += &format!("{port}: {:?}\n", programs(&self.netns, port));
        }
        let folder = self.pins.of("br-int");
        let pins = std::fs::read_dir(self.pins.root())
            .unwrap()
            .chain(std::fs::read_dir(&folder).into_iter().flatten());
        let mut pins: Vec<_> = pins.map(|pin| pin.unwrap().path()).collect();
        pins.sort();
        snapshot += &format!("{pins:?}\n");
        for name in MAPS {
            if let Ok(map) = MapHandle::from_pinned_path(folder.join(name)) {
                let entries: BTreeMap<_, _> = map
                    .keys()
                    .map(|key| {
                        let value = map.lookup(&key, MapFlags::ANY).unwrap().unwrap();
                        (key, value)
                    })
                    // Places in arrays that nobody has taken.
                    .filter(|(_, value)| value.iter().any(|byte| *byte != 0))
                    .collect();
                snapshot += &format!("{name}: {entries:?}\n");
            }
        }
        snapshot
    }

    async fn install_foreign(&self) {
        *self.foreign.lock().unwrap() = has_tcx().then(|| Foreign::attach(&self.netns, &FOREIGN_PORTS));
        for port in FOREIGN_PORTS {
            run(&self.netns, &format!("tc qdisc add dev {port} clsact"));
            // Beside ours: another handle at our priority, and another priority.
            for place in ["pref 202 handle 1", "pref 7"] {
                run(
                    &self.netns,
                    &format!(
                        "tc filter add dev {port} ingress protocol all {place} bpf bytecode '1,6 0 0 0,'"
                    ),
                );
            }
        }
        std::fs::create_dir_all(self.pins.root().join("catena").join("another-element")).unwrap();
    }

    async fn lost_foreign(&self) -> Vec<String> {
        let mut lost = Vec::new();
        let foreign = self.foreign.lock().unwrap();
        for port in FOREIGN_PORTS {
            let filters = run(&self.netns, &format!("tc filter show dev {port} ingress"));
            for filter in ["pref 202 bpf chain 0 handle 0x1 ", "pref 7 bpf chain 0 handle 0x1 "] {
                if !filters.contains(filter) {
                    lost.push(format!("{filter} at {port}, among {filters}"));
                }
            }
            let there = programs(&self.netns, port);
            if foreign.as_ref().is_some_and(|foreign| !there.contains(&foreign.program_id())) {
                lost.push(format!("tcx program at {port}"));
            }
        }
        lost
    }

    async fn damage(&self) {
        match self.hook {
            Hook::Clsact => drop(run(&self.netns, "tc filter del dev fw-in ingress pref 202")),
            Hook::Tcx => {
                let ifindex = self.netns.run(|| Ok(if_nametoindex("fw-in")?)).unwrap();
                let link = self.pins.of("br-int").join(format!("link-{ifindex}"));
                libbpf_rs::Link::open(link).unwrap().detach().unwrap();
            }
        }
    }
}
