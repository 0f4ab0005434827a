//! Hosts and cables: network namespaces without names, and veth pairs.

use std::io::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context as _, Result, bail};
use catena_driver::netns::NetNs;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, unshare};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::frames::Mac;

/// The core that sends, and so does all work of softirqs: a veth hands a packet on to the core that it came from.
pub const SENDING_CORE: usize = 0;
/// The core for everything else: receivers, loaders, whatever wants a thread.
pub const OTHER_CORE: usize = 1;

/// Keeps this thread, and those that it starts, to one core.
pub fn pin_to(core: usize) -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &cores).with_context(|| format!("cannot run on core {core} alone"))
}

/// What is mounted from here on is gone with this process, however it ends.
pub fn keep_mounts_to_ourselves() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("cannot make a mount namespace: this needs root")?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .context("cannot make mounts private")
}

/// A BPF file system of its own.
pub struct Pins(TempDir);

impl Pins {
    pub fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        mount(Some("bpf"), folder.path(), Some("bpf"), MsFlags::empty(), None::<&str>)
            .context("cannot mount a BPF file system")?;
        Ok(Self(folder))
    }

    pub fn folder(&self) -> PathBuf {
        self.0.path().join("bench")
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let _ = umount2(self.0.path(), MntFlags::MNT_DETACH);
    }
}

/// One network namespace.
#[derive(Clone, Debug)]
pub struct Host {
    pub netns: NetNs,
}

/// One end of a cable.
#[derive(Clone, Debug)]
pub struct Port {
    pub host: Host,
    pub name: String,
    pub ifindex: u32,
    pub mac: Mac,
}

impl Host {
    /// One that sends and receives, and nothing else.
    pub fn new() -> Result<Self> {
        let host =
            Self { netns: NetNs::create().context("cannot make a network namespace: this needs root")? };
        host.ip("link set lo up")?;
        for scope in ["all", "default"] {
            host.set(&format!("ipv4/conf/{scope}/rp_filter"), "0")?;
            // Nothing but what is measured shall be on the cables.
            host.set(&format!("ipv6/conf/{scope}/disable_ipv6"), "1")?;
        }
        // Slices of one TCP connection are moments of one transfer: its window shall outlast the others' slices.
        host.set("ipv4/tcp_slow_start_after_idle", "0")?;
        Ok(host)
    }

    /// One that routes, too.
    pub fn routing() -> Result<Self> {
        let host = Self::new()?;
        host.set("ipv4/ip_forward", "1")?;
        Ok(host)
    }

    /// Sets a setting below `/proc/sys/net`.
    pub fn set(&self, setting: &str, value: &str) -> Result<()> {
        self.netns
            .run(|| std::fs::write(Path::new("/proc/sys/net").join(setting), value))
            .with_context(|| format!("cannot set net/{setting} to {value}"))
    }

    /// Reads a file of this namespace's below `/proc/net`.
    pub fn proc_net(&self, name: &str) -> Result<String> {
        self.netns
            .run(|| std::fs::read_to_string(Path::new("/proc/thread-self/net").join(name)))
            .with_context(|| format!("cannot read net/{name}"))
    }

    /// Runs the lines of `batch` by `ip`.
    pub fn ip(&self, batch: &str) -> Result<()> {
        self.feed(Command::new("ip").args(["-batch", "-"]), batch)
    }

    /// Runs a command in this namespace, with `input` to read. What it says is in the error if it fails.
    pub fn feed(&self, command: &mut Command, input: &str) -> Result<()> {
        let output = self
            .netns
            .run(|| {
                let mut child =
                    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
                if let Some(mut stdin) = child.stdin.take() {
                    stdin.write_all(input.as_bytes())?;
                }
                child.wait_with_output()
            })
            .with_context(|| format!("cannot run {command:?}"))?;
        if !output.status.success() {
            bail!("{command:?} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    fn port(&self, name: &str, mac: Mac) -> Result<Port> {
        let ifindex = self.netns.run(|| Ok(nix::net::if_::if_nametoindex(name)?))?;
        Ok(Port { host: self.clone(), name: name.to_owned(), ifindex, mac })
    }
}

impl Port {
    /// Says once and for all who has `address` out there: no ARP is ever sent.
    pub fn neighbour(&self, address: &str, mac: Mac) -> Result<()> {
        self.host.ip(&format!(
            "neigh replace {address} lladdr {} dev {} nud permanent",
            shown(mac),
            self.name
        ))
    }
}

/// A cable between ports of two hosts, plugged in when this returns.
pub fn cable(a: (&Host, &str), b: (&Host, &str)) -> Result<(Port, Port)> {
    let (mac_a, mac_b) = (new_mac(), new_mac());
    let there = format!("/proc/{}/fd/{}", std::process::id(), b.0.netns.as_fd().as_raw_fd());
    a.0.ip(&format!(
        "link add name {} address {} type veth peer name {} address {} netns {there}\nlink set {} up",
        a.1,
        shown(mac_a),
        b.1,
        shown(mac_b),
        a.1
    ))?;
    b.0.ip(&format!("link set {} up", b.1))?;
    Ok((a.0.port(a.1, mac_a)?, b.0.port(b.1, mac_b)?))
}

/// Unicast, and locally administered.
fn new_mac() -> Mac {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let [high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    [0x06, 0, 0, 0, high, low]
}

pub fn shown(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
