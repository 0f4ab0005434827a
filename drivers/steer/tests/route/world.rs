//! A router in a namespace of its own, as Figure 2 of the paper has it, and how to look at it from outside.

use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use catena_driver::netns::NetNs;
use catena_driver::{Driver, DriverError, Epoch};
use catena_driver_steer::{Hook, RouteConfig, RouteDriver};
use catena_model::address::Family;
use catena_model::forwarding::{Change, ElementState, Object, PathId, Rule, Selector, Table};
use catena_model::name::PortName;
use catena_model::resource::LinuxSpec;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;

/// The addresses of the port towards the switch. IPv6 neighbours are asked for from a link-local one.
pub const QR_ABC: [&str; 3] = ["10.21.0.1/24", "2001:db8:21::1/64", "fe80::1/64"];

/// `qr-abc` leads to the switch, `qg-ext` to the site, by way of the physical network, and `qg-def` to the gateway: a
/// namespace each, in which the cable's other end has the port's name with an `x` before it. All go when the test ends.
pub struct World {
    pub router: NetNs,
    pub site: NetNs,
    pub switch: NetNs,
    pub gateway: NetNs,
    pub pins: Pins,
    pub hook: Option<Hook>,
}

/// A folder that is a BPF file system of its own.
pub struct Pins(TempDir);

impl Pins {
    fn mount() -> Self {
        let folder = tempfile::tempdir().unwrap();
        mount(Some("bpf"), folder.path(), Some("bpf"), MsFlags::empty(), None::<&str>).unwrap();
        Self(folder)
    }

    /// As the element's engines are told.
    pub fn element(&self) -> PathBuf {
        self.0.path().join("catena").join("qrouter-1234")
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let _ = umount2(self.0.path(), MntFlags::MNT_DETACH);
    }
}

impl World {
    pub fn new() -> Self {
        Self::with(None)
    }

    pub fn with(hook: Option<Hook>) -> Self {
        let [router, site, switch, gateway] = [(); 4].map(|()| quiet_namespace());
        let world = Self { router, site, switch, gateway, pins: Pins::mount(), hook };
        world.cable("qr-abc", &QR_ABC);
        world.cable("qg-ext", &["10.20.0.2/24", "2001:db8:20::2/64", "fe80::1/64"]);
        world.cable("qg-def", &["10.23.0.1/30", "2001:db8:23::1/64", "fe80::1/64"]);
        world
    }

    /// Makes a port of the router with these addresses, and the cable at it.
    pub fn cable(&self, port: &str, addresses: &[&str]) {
        let beyond = match port {
            "qg-ext" => &self.site,
            "qr-abc" => &self.switch,
            _ => &self.gateway,
        };
        let netns = format!("/proc/{}/fd/{}", std::process::id(), beyond.as_fd().as_raw_fd());
        self.ip(&format!("link add {port} type veth peer name x{port} netns {netns}"));
        ip(beyond, &format!("link set x{port} up"));
        self.ip(&format!("link set {port} up"));
        add_address(beyond, "fe80::2/64", &format!("x{port}"));
        for address in addresses {
            add_address(&self.router, address, port);
        }
        wait_until(&format!("{port} is up"), || {
            let up =
                |netns: &NetNs, port: &str| ip(netns, &format!("link show dev {port}")).contains("state UP");
            let multicast =
                self.ip("-6 route show table local").contains(&format!("multicast ff00::/8 dev {port}"));
            multicast && up(&self.router, port) && up(beyond, &format!("x{port}"))
        });
    }

    pub fn driver(&self) -> RouteDriver {
        let config = RouteConfig {
            element: "qrouter-1234".parse().unwrap(),
            netns: self.router.clone(),
            pins: self.pins.element(),
            spec: LinuxSpec::in_netns("qrouter-1234"),
            hook: self.hook,
            look: Duration::from_millis(100),
        };
        RouteDriver::new(config).unwrap()
    }

    pub fn ip(&self, arguments: &str) -> String {
        ip(&self.router, arguments)
    }

    /// All rules, all routes of all tables, what stands at the ports, and all pins.
    pub fn snapshot(&self) -> String {
        ["", "-6 "]
            .iter()
            .flat_map(|family| {
                ["rule show", "route show table all"].map(|what| self.ip(&format!("{family}{what}")))
            })
            .chain([self.attached(), self.pinned()])
            .collect()
    }

    /// Programs have a number of their own each time that they are loaded.
    pub fn attached(&self) -> String {
        let ports = ["qr-abc", "qg-ext", "qg-def"].iter();
        let shown = ports.filter(|port| self.exists(port)).map(|port| {
            let filters = run(&self.router, &format!("tc filter show dev {port} ingress"));
            let filters = filters.lines().map(|line| line.split(" id ").next().unwrap_or_default());
            let filters: Vec<_> = filters.collect();
            format!(
                "{port}: {}{}",
                run(&self.router, &format!("tc qdisc show dev {port}")),
                filters.join("\n")
            )
        });
        shown.collect()
    }

    fn exists(&self, port: &str) -> bool {
        self.router
            .run(|| Command::new("ip").args(["link", "show", "dev", port]).output())
            .unwrap()
            .status
            .success()
    }

    fn pinned(&self) -> String {
        let listed = Command::new("find").arg(self.pins.0.path()).args(["-mindepth", "1"]).output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        let mut names: Vec<_> = listed.lines().collect();
        names.sort_unstable();
        names.join("\n")
    }
}

/// A namespace that forwards, and in which nothing changes unless somebody changes it.
fn quiet_namespace() -> NetNs {
    let netns = NetNs::create().unwrap();
    ip(&netns, "link set lo up");
    for family in ["ipv4", "ipv6"] {
        set(&netns, &format!("net/{family}/conf/all/forwarding"), 1);
    }
    for scope in ["all", "default"] {
        set(&netns, &format!("net/ipv4/conf/{scope}/rp_filter"), 0);
        // No addresses of the kernel's own making, which come a second or two later.
        set(&netns, &format!("net/ipv6/conf/{scope}/accept_dad"), 0);
        set(&netns, &format!("net/ipv6/conf/{scope}/addr_gen_mode"), 1);
    }
    netns
}

/// Adds an address, and waits until the kernel takes packets to it, which it does a little later in IPv6.
pub fn add_address(netns: &NetNs, address: &str, port: &str) {
    ip(netns, &format!("address add {address} dev {port}"));
    let own = address.split('/').next().unwrap();
    let family = if own.contains(':') { "-6" } else { "-4" };
    wait_until(&format!("{address} is at {port}"), || {
        ip(netns, &format!("{family} route show table local")).contains(&format!("local {own} dev {port}"))
    });
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..500 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("waited too long until {what}");
}

/// Runs `ip` in a namespace. It must succeed.
pub fn ip(netns: &NetNs, arguments: &str) -> String {
    succeed(netns, Command::new("ip").args(arguments.split_whitespace()))
}

/// Runs a shell command in a namespace. It must succeed.
pub fn run(netns: &NetNs, command: &str) -> String {
    succeed(netns, Command::new("sh").args(["-c", command]))
}

fn succeed(netns: &NetNs, command: &mut Command) -> String {
    let output = netns.run(|| command.output()).unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn set(netns: &NetNs, setting: &str, value: u32) {
    netns.run(|| std::fs::write(format!("/proc/sys/{setting}"), value.to_string())).unwrap();
}

pub fn port(name: &str) -> PortName {
    name.parse().unwrap()
}

/// The default route of a path: `via` tells the family.
pub fn table(path: u32, port_name: &str, via: &str) -> Object {
    let via = via.parse().unwrap();
    Object::Table(Table {
        path: PathId(path),
        family: Family::of(via),
        port: port(port_name),
        via: Some(via),
    })
}

/// A rule for all packets of a source.
pub fn from(prefix: &str, path: u32) -> Object {
    rule(0, selector(prefix), path)
}

pub fn selector(prefix: &str) -> Selector {
    let prefix: catena_model::address::Prefix = prefix.parse().unwrap();
    Selector { family: prefix.family(), from: Some(prefix), to: None, in_port: None, unless_released: false }
}

pub fn rule(order: u16, selector: Selector, path: u32) -> Object {
    Object::Rule(Rule { order, selector, table: PathId(path) })
}

pub async fn put(driver: &RouteDriver, objects: &[Object]) -> Result<(), DriverError> {
    let changes: Vec<_> =
        objects.iter().map(|object| Change::Put { new: object.clone(), old: None }).collect();
    driver.apply(Epoch(1), &changes).await
}

pub async fn delete(driver: &RouteDriver, objects: &[Object]) -> Result<(), DriverError> {
    let changes: Vec<_> = objects.iter().map(|object| Change::Delete { old: object.clone() }).collect();
    driver.apply(Epoch(1), &changes).await
}

pub fn state(objects: &[Object]) -> ElementState {
    objects.iter().cloned().collect()
}
