//! What the build, the tests and the demo need from Debian 12 or Ubuntu 24.04, and how it gets there.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::command;

/// Something that must be on the machine.
struct Need {
    found_by: FoundBy,
    /// The Debian and Ubuntu package that brings it.
    package: &'static str,
    why: &'static str,
}

enum FoundBy {
    Program(&'static str),
    /// One of these exists.
    File(&'static [&'static str]),
}

use FoundBy::{File, Program};

const NEEDS: &[Need] = &[
    program("cc", "build-essential", "links Rust programs, builds libbpf"),
    program("make", "build-essential", "links Rust programs, builds libbpf"),
    program("clang", "clang", "compiles the eBPF steering engine"),
    program("pkg-config", "pkg-config", "finds the libraries that libbpf uses"),
    file(&["/usr/include/gelf.h"], "libelf-dev", "libbpf reads ELF objects"),
    file(&["/usr/include/zlib.h"], "zlib1g-dev", "libbpf reads compressed sections"),
    program("ip", "iproute2", "labs are built by it; tests look at rules, routes and tc"),
    program("tc", "iproute2", "labs are built by it; tests look at rules, routes and tc"),
    program("ethtool", "ethtool", "labs and the demo switch offloads off"),
    program("nft", "nftables", "the demo's firewall"),
    program("iptables", "iptables", "the demo's inspectors and web filter"),
    // Where bridges can filter already, nothing has to be loaded.
    file(&["/proc/sys/net/bridge", "/usr/sbin/modprobe", "/sbin/modprobe"], "kmod", "loads br_netfilter"),
    program("python3", "python3", "the demo's web server"),
    program("curl", "curl", "the demo's web client"),
    program("ping", "iputils-ping", "the demo's pings"),
    program("tcpdump", "tcpdump", "the demo's captures"),
    program("kill", "procps", "the demo ends captures and the daemon by it"),
    program("taskset", "util-linux", "a benchmark keeps to one core by it"),
];

/// What `cargo xtask test --vm` needs besides.
const VM_NEEDS: &[Need] = &[
    program("qemu-system-x86_64", "qemu-system-x86", "emulates the machine that runs the tests"),
    program("apt-cache", "apt", "knows the distribution's newest kernel"),
    program("dpkg-deb", "dpkg", "unpacks the kernel"),
    program("zstd", "zstd", "unpacks the kernel's modules"),
    program("xz", "xz-utils", "unpacks the kernel's modules"),
];

const fn program(name: &'static str, package: &'static str, why: &'static str) -> Need {
    Need { found_by: Program(name), package, why }
}

const fn file(one_of: &'static [&'static str], package: &'static str, why: &'static str) -> Need {
    Need { found_by: File(one_of), package, why }
}

/// Installs what is missing; says first what and why.
pub fn install() -> Result<()> {
    install_missing(NEEDS)
}

/// Likewise, what the virtual machine needs besides.
pub fn install_for_vm() -> Result<()> {
    install_missing(VM_NEEDS)
}

/// Asks apt something that it answers from its package lists.
pub fn with_package_lists<T>(ask: impl Fn() -> Result<T>) -> Result<T> {
    match ask() {
        // They may be missing, or older than what the mirrors still have.
        Err(_) if is_root() => {
            update()?;
            ask()
        }
        answer => answer,
    }
}

/// Fetches packages into a folder and installs nothing.
pub fn download(packages: &[String], folder: &Path) -> Result<()> {
    with_package_lists(|| {
        let mut download = apt_get();
        download.current_dir(folder).arg("download").args(packages);
        command::read("apt-get download", &mut download).map(drop)
    })
}

fn install_missing(needs: &[Need]) -> Result<()> {
    let missing: Vec<&Need> = needs.iter().filter(|need| !need.is_met()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages = packages(&missing);
    println!("missing on this machine:");
    for package in &packages {
        let whys = missing.iter().filter(|need| need.package == *package).map(|need| need.why);
        println!("  {package:<16} {}", whys.take(1).collect::<String>());
    }
    if !command::is_there("apt-get") || !is_root() {
        bail!(
            "install these first (they have Debian's names here), or run this as root on Debian or Ubuntu:\n  \
             apt-get install {}",
            packages.join(" ")
        );
    }
    println!("installing them with apt-get …");
    if !has_package_lists() {
        update()?;
    }
    with_package_lists(|| install_packages(&packages))?;
    match needs.iter().find(|need| !need.is_met()) {
        None => Ok(()),
        Some(need) => bail!("{} was installed, but {} is not there", need.package, need.found_by.shown()),
    }
}

/// Labs and most tests make network namespaces and load eBPF programs.
pub fn need_root() -> Result<()> {
    if !is_root() {
        bail!(
            "this needs root, for network namespaces and eBPF: run it again as root, such as by `sudo -E env PATH=\"$PATH\" cargo xtask …`"
        );
    }
    Ok(())
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().nth(1));
    effective == Some("0")
}

impl Need {
    fn is_met(&self) -> bool {
        match self.found_by {
            Program(name) => command::is_there(name),
            File(paths) => paths.iter().any(|path| Path::new(path).exists()),
        }
    }
}

impl FoundBy {
    fn shown(&self) -> String {
        match self {
            Program(name) => format!("the program {name}"),
            File(paths) => paths.join(" or "),
        }
    }
}

/// Each package once, in the order of the table.
fn packages(needs: &[&Need]) -> Vec<&'static str> {
    let mut packages = Vec::new();
    for need in needs {
        if !packages.contains(&need.package) {
            packages.push(need.package);
        }
    }
    packages
}

fn has_package_lists() -> bool {
    let lists = std::fs::read_dir("/var/lib/apt/lists").into_iter().flatten().flatten();
    lists.map(|entry| entry.file_name()).any(|name| name.to_string_lossy().contains("_Packages"))
}

fn update() -> Result<()> {
    command::read("apt-get update", apt_get().arg("update")).map(drop)
}

fn install_packages(packages: &[&str]) -> Result<()> {
    let mut install = apt_get();
    install.args(["install", "--yes", "--no-install-recommends"]).args(packages);
    command::read("apt-get install", &mut install).map(drop)
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    // Another apt-get, such as unattended-upgrades, may be at work: wait for it.
    command.env("DEBIAN_FRONTEND", "noninteractive").args(["--quiet", "-o", "DPkg::Lock::Timeout=120"]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_asked_for_once() {
        let all: Vec<&Need> = NEEDS.iter().chain(VM_NEEDS).collect();
        let packages = packages(&all);
        let mut once = packages.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(packages.len(), once.len());
        assert_eq!(packages.first(), Some(&"build-essential"));
    }

    #[test]
    fn what_is_not_there_is_missed() {
        assert!(!program("no-such-program", "none", "").is_met());
        assert!(!file(&["/no/such/file"], "none", "").is_met());
        assert!(program("sh", "dash", "").is_met());
        assert!(file(&["/no/such/file", "/etc/passwd"], "base-files", "").is_met());
    }
}
