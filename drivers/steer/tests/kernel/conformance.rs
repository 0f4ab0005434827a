//! The promises of every driver, by both ways of attaching.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use async_trait::async_trait;
use catena_driver::Driver;
use catena_driver::conformance::{Fixture, Replacement, Sample};
use catena_driver::netns::NetNs;
use catena_driver_steer::Hook;
use catena_model::forwarding::{Action, Direction, Exits, Object, PathId, Purpose};
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use nix::net::if_::if_nametoindex;

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
/// Of one path, one site, one tunnel: the maps whose contents say what the element does.
const MAPS: [&str; 11] = [
    "ports",
    "sites4",
    "sites6",
    "policies",
    "paths",
    "instances",
    "tunnels",
    "tunnel_ends",
    "tunnel_locals",
    "allowed4",
    "allowed6",
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
                        let value = map.lookup(&key, MapFlags::ANY).unwrap();
                        (key, value)
                    })
                    .collect();
                snapshot += &format!("{name}: {entries:?}\n");
            }
        }
        snapshot
    }

    async fn install_foreign(&self) {
        *self.foreign.lock().unwrap() = Some(Foreign::attach(&self.netns, &FOREIGN_PORTS));
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
            if !foreign
                .as_ref()
                .is_some_and(|foreign| programs(&self.netns, port).contains(&foreign.program_id()))
            {
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

/// Somebody else's program, by tcx, at some ports.
pub struct Foreign {
    program: OwnedFd,
    _links: Vec<OwnedFd>,
    /// While it is open, the kernel counts how often programs run.
    _statistics: OwnedFd,
}

impl Foreign {
    /// A program that lets everything pass on.
    pub fn attach(netns: &NetNs, ports: &[&str]) -> Self {
        // mov r0, -1 (TCX_NEXT); exit
        let instructions = [[0xb7_u8, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], [0x95, 0, 0, 0, 0, 0, 0, 0]];
        // SAFETY: the instructions and strings live until the call returns; the descriptor is ours.
        let program = unsafe {
            let fd = libbpf_sys::bpf_prog_load(
                libbpf_sys::BPF_PROG_TYPE_SCHED_CLS,
                c"foreign".as_ptr(),
                c"GPL".as_ptr(),
                instructions.as_ptr().cast(),
                instructions.len() as u64,
                std::ptr::null_mut(),
            );
            assert!(fd >= 0, "{}", std::io::Error::from_raw_os_error(-fd));
            OwnedFd::from_raw_fd(fd)
        };
        let attach = |port: &&str| {
            let ifindex = if_nametoindex(*port)?;
            // SAFETY: null stands for no options; the descriptor is ours.
            let fd = unsafe {
                libbpf_sys::bpf_link_create(
                    program.as_raw_fd(),
                    ifindex as i32,
                    libbpf_sys::BPF_TCX_INGRESS,
                    std::ptr::null(),
                )
            };
            assert!(fd >= 0, "{}", std::io::Error::from_raw_os_error(-fd));
            Ok(unsafe { OwnedFd::from_raw_fd(fd) })
        };
        let links = netns.run(|| ports.iter().map(attach).collect::<std::io::Result<_>>()).unwrap();
        // SAFETY: takes a number; the descriptor is ours.
        let statistics = unsafe {
            let fd = libbpf_sys::bpf_enable_stats(libbpf_sys::BPF_STATS_RUN_TIME);
            assert!(fd >= 0, "{}", std::io::Error::from_raw_os_error(-fd));
            OwnedFd::from_raw_fd(fd)
        };
        Self { program, _links: links, _statistics: statistics }
    }

    pub fn program_id(&self) -> u32 {
        self.info().id
    }

    /// How often it has run.
    pub fn runs(&self) -> u64 {
        self.info().run_cnt
    }

    fn info(&self) -> libbpf_sys::bpf_prog_info {
        let mut info = libbpf_sys::bpf_prog_info::default();
        let mut length = size_of_val(&info) as u32;
        // SAFETY: the structure lives until the call returns, and is as long as said.
        let outcome =
            unsafe { libbpf_sys::bpf_prog_get_info_by_fd(self.program.as_raw_fd(), &mut info, &mut length) };
        assert_eq!(outcome, 0);
        info
    }
}

/// The programs at tcx ingress of a port.
pub fn programs(netns: &NetNs, port: &str) -> Vec<u32> {
    netns
        .run(|| {
            let mut ids = [0; 16];
            let mut options = libbpf_sys::bpf_prog_query_opts {
                sz: size_of::<libbpf_sys::bpf_prog_query_opts>() as u64,
                prog_ids: ids.as_mut_ptr(),
                ..Default::default()
            };
            options.__bindgen_anon_1.prog_cnt = ids.len() as u32;
            let ifindex = if_nametoindex(port)? as i32;
            // SAFETY: the options and what they point to live until the call returns.
            let outcome = unsafe {
                libbpf_sys::bpf_prog_query_opts(ifindex, libbpf_sys::BPF_TCX_INGRESS, &mut options)
            };
            assert_eq!(outcome, 0);
            // SAFETY: the kernel has set it.
            let count = unsafe { options.__bindgen_anon_1.prog_cnt };
            Ok(ids[..count as usize].to_vec())
        })
        .unwrap()
}
