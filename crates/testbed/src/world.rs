//! The namespaces, and the cables between them.

use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::time::Duration;

use catena_driver::netns::NetNs;

/// The addresses of the port towards the switch. IPv6 neighbours are asked for from a link-local one.
pub const QR_ABC: [&str; 3] = ["10.21.0.1/24", "2001:db8:21::1/64", "fe80::1/64"];

/// `qr-abc` leads to the switch, `qg-ext` to the site, by way of the physical network, and `qg-def` to the gateway: a
/// namespace each, in which the cable's other end has the port's name with an `x` before it. All go when the test ends.
pub struct World {
    pub router: NetNs,
    pub site: NetNs,
    pub switch: NetNs,
    pub gateway: NetNs,
}

impl Default for World {
    fn default() -> Self {
        let [router, site, switch, gateway] = [(); 4].map(|()| quiet_namespace());
        let world = Self { router, site, switch, gateway };
        world.cable("qr-abc", &QR_ABC);
        world.cable("qg-ext", &["10.20.0.2/24", "2001:db8:20::2/64", "fe80::1/64"]);
        world.cable("qg-def", &["10.23.0.1/30", "2001:db8:23::1/64", "fe80::1/64"]);
        world
    }
}

impl World {
    /// Makes a port of the router with these addresses, and the cable at it.
    pub fn cable(&self, port: &str, addresses: &[&str]) {
        let beyond = self.beyond(port);
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

    /// Where a port leads.
    pub fn beyond(&self, port: &str) -> &NetNs {
        match port {
            "qg-ext" => &self.site,
            "qr-abc" => &self.switch,
            _ => &self.gateway,
        }
    }

    pub fn ip(&self, arguments: &str) -> String {
        ip(&self.router, arguments)
    }

    /// What `ip` says of both families, for each of `what`.
    pub fn shown(&self, what: &[&str]) -> String {
        let families = ["", "-6 "].iter();
        families.flat_map(|family| what.iter().map(move |what| self.ip(&format!("{family}{what}")))).collect()
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

pub fn set(netns: &NetNs, setting: &str, value: u32) {
    netns.run(|| std::fs::write(format!("/proc/sys/{setting}"), value.to_string())).unwrap();
}
