//! Namespaces, cables between them, a place for pins, and drivers.

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use catena_driver::netns::NetNs;
use catena_driver::{Counted, Driver, Epoch};
use catena_driver_steer::{Config, Hook, Settings, SteerDriver, Times};
use catena_model::forwarding::{Change, Object};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;

pub const MARK: u32 = 0x0400_0000;

/// A BPF file system of a test's own, gone with it.
pub struct Pins(TempDir);

impl Pins {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        mount(Some("bpf"), folder.path(), Some("bpf"), MsFlags::empty(), None::<&str>).unwrap();
        Self(folder)
    }

    pub fn root(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    /// Whether we have anything pinned, if only a folder. (The kernel itself puts two files there.)
    pub fn are_none(&self) -> bool {
        !self.0.path().join("catena").exists()
    }

    pub fn of(&self, element: &str) -> PathBuf {
        self.0.path().join("catena").join(element)
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let _ = umount2(self.0.path(), MntFlags::MNT_DETACH);
    }
}

pub fn driver(element: &str, netns: &NetNs, pins: &Pins, hook: Option<Hook>) -> SteerDriver {
    SteerDriver::new(config(element, netns, pins, hook)).unwrap()
}

pub fn config(element: &str, netns: &NetNs, pins: &Pins, hook: Option<Hook>) -> Config {
    Config {
        element: element.parse().unwrap(),
        netns: netns.clone(),
        pins: pins.of(element),
        mark: MARK,
        hook,
        settings: Settings::default(),
        times: Times::default(),
    }
}

pub async fn put(driver: &SteerDriver, objects: &[Object]) {
    let changes: Vec<_> =
        objects.iter().map(|object| Change::Put { new: object.clone(), old: None }).collect();
    driver.check(&changes).await.unwrap();
    driver.apply(Epoch(1), &changes).await.unwrap();
}

pub async fn delete(driver: &SteerDriver, objects: &[Object]) {
    let changes: Vec<_> = objects.iter().rev().map(|object| Change::Delete { old: object.clone() }).collect();
    driver.apply(Epoch(1), &changes).await.unwrap();
}

/// How many packets were counted as one of these.
pub async fn counted(driver: &SteerDriver, of: impl Fn(&Counted) -> bool) -> u64 {
    let counters = driver.counters().await.unwrap();
    counters.iter().filter(|counter| of(&counter.of)).map(|counter| counter.packets).sum()
}

/// A namespace in which nothing changes unless somebody changes it.
pub fn quiet_namespace(forwards: bool) -> NetNs {
    let netns = NetNs::create().unwrap();
    ip(&netns, "link set lo up");
    for scope in ["all", "default"] {
        set(&netns, &format!("ipv4/conf/{scope}/forwarding"), forwards.into());
        set(&netns, &format!("ipv4/conf/{scope}/rp_filter"), 0);
        set(&netns, &format!("ipv6/conf/{scope}/forwarding"), forwards.into());
        set(&netns, &format!("ipv6/conf/{scope}/accept_dad"), 0);
        set(&netns, &format!("ipv6/conf/{scope}/accept_ra"), 0);
        // No addresses of the kernel's own making, which come a second or two later.
        set(&netns, &format!("ipv6/conf/{scope}/addr_gen_mode"), 1);
    }
    netns
}

/// One end of a cable: the namespace, the port, its addresses.
pub type End<'a> = (&'a NetNs, &'a str, &'a [&'a str]);

/// A cable between two namespaces, plugged in when this returns.
pub fn cable(a: End<'_>, b: End<'_>) {
    let there = format!("/proc/{}/fd/{}", std::process::id(), b.0.as_fd().as_raw_fd());
    ip(a.0, &format!("link add name {} type veth peer name {} netns {there}", a.1, b.1));
    for ((netns, port, addresses), link_local) in [a, b].into_iter().zip(["fe80::1/64", "fe80::2/64"]) {
        // IPv6 neighbours are asked for from a link-local address.
        for address in addresses.iter().chain((!addresses.is_empty()).then_some(&link_local)) {
            ip(netns, &format!("address add {address} dev {port}"));
        }
        ip(netns, &format!("link set dev {port} up"));
    }
    for (netns, port, _) in [a, b] {
        until(&format!("{port} is up"), || ip(netns, &format!("link show dev {port}")).contains("state UP"));
    }
}

/// Says why something cannot be tested here: past the capture of test output, where `cargo xtask test` counts it.
pub fn skipped(why: &str) {
    let _ = writeln!(std::io::stdout(), "SKIPPED: {why}");
}

#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(10), "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs `ip` in a namespace. It must succeed.
#[track_caller]
pub fn ip(netns: &NetNs, arguments: &str) -> String {
    run(netns, &format!("ip {arguments}"))
}

#[track_caller]
pub fn run(netns: &NetNs, command: &str) -> String {
    let output = attempt(netns, command);
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub fn attempt(netns: &NetNs, command: &str) -> std::process::Output {
    netns.run(|| Command::new("sh").args(["-c", command]).output()).unwrap()
}

/// Sets a setting below `/proc/sys/net`.
pub fn set(netns: &NetNs, setting: &str, value: u32) {
    netns.run(|| std::fs::write(format!("/proc/sys/net/{setting}"), value.to_string())).unwrap();
}

/// How many packets a port has received.
pub fn received(netns: &NetNs, port: &str) -> u64 {
    let table = netns.run(|| std::fs::read_to_string("/proc/thread-self/net/dev")).unwrap();
    let line = table.lines().find_map(|line| line.trim().strip_prefix(&format!("{port}:"))).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
