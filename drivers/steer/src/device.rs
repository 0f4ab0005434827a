//! The veth pair that stands for all tunnels of an element.
//!
//! The visible end is [`TUNNEL_PORT`]: the kernel routes into it, and receives from it. Whatever is sent into it comes
//! out of the hidden end, where the encapsulating program takes it; nothing is ever sent into the hidden end. The stack
//! must do nothing there, but where tunnels cut outer packets: those that are to be cut are received there as if a
//! neighbour had sent them, and forwarded.

use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use catena_driver::DriverError;
use catena_model::forwarding::TUNNEL_PORT;

use crate::netlink::{Connection, Link};

/// The hidden end.
pub(crate) const HIDDEN_PORT: &str = "catena-gre-x";
/// The most that a veth takes: what is too long for a tunnel is told at the visible end.
const HIDDEN_MTU: u32 = 65_535;
/// The most that fits into one outer packet before it is cut: IPv4's longest (RFC 791), less its header and that of GRE.
pub(crate) const CUT_MTU: u16 = 65_535 - 20 - 8;
/// The hidden end's address, where there has to be one: the dummy that stands for none (RFC 7600 section 4.8), of the scope
/// of the host, so that nothing is sent from it.
const DUMMY: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);
/// The kernel's link watch may be this late, and some more: once a second it sees to what is not urgent.
const RUNNING_WITHIN: Duration = Duration::from_secs(2);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) visible: Link,
    pub(crate) hidden: Link,
}

impl Device {
    /// What there is, in this thread's namespace.
    pub(crate) fn find() -> Result<Option<Self>, DriverError> {
        let mut connection = Connection::open().map_err(failed)?;
        find(&mut connection).map_err(failed)
    }

    /// Makes it where it is not, and sets what is set otherwise. `mtu` is the largest packet that all tunnels carry;
    /// `cuts`, whether any of them cuts outer packets.
    pub(crate) fn ensure(mtu: u32, cuts: bool) -> Result<Self, DriverError> {
        let mut connection = Connection::open().map_err(failed)?;
        let device = match find(&mut connection).map_err(failed)? {
            Some(device) => device,
            None => make(&mut connection)?,
        };
        configure(cuts).map_err(failed)?;
        if cuts {
            connection.add_address(device.hidden.ifindex, DUMMY).map_err(failed)?;
        }
        if device.hidden.mtu != HIDDEN_MTU || !device.hidden.up {
            connection.set_up(device.hidden.ifindex, HIDDEN_MTU).map_err(failed)?;
        }
        if device.visible.mtu != mtu || !device.visible.up {
            connection.set_up(device.visible.ifindex, mtu).map_err(failed)?;
        }
        wait_until_running(&mut connection)?;
        Ok(device)
    }

    pub(crate) fn remove() -> Result<(), DriverError> {
        let mut connection = Connection::open().map_err(failed)?;
        match find(&mut connection).map_err(failed)? {
            Some(device) => connection.remove_link(device.visible.ifindex).map_err(failed),
            None => Ok(()),
        }
    }
}

fn find(connection: &mut Connection) -> io::Result<Option<Device>> {
    let visible = connection.link(TUNNEL_PORT)?;
    let hidden = connection.link(HIDDEN_PORT)?;
    Ok(visible.zip(hidden).map(|(visible, hidden)| Device { visible, hidden }))
}

fn make(connection: &mut Connection) -> Result<Device, DriverError> {
    match connection.add_veth(TUNNEL_PORT, HIDDEN_PORT) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(DriverError::Conflict {
            what: format!("an interface called {TUNNEL_PORT} or {HIDDEN_PORT}, but not both,"),
            help: "rename or remove it: tunnels need both names".to_owned(),
        }),
        Err(error) => Err(failed(error)),
        Ok(()) => {
            find(connection).map_err(failed)?.ok_or_else(|| failed(io::Error::other("it is gone at once")))
        }
    }
}

/// Until then, the visible end drops what is sent into it.
fn wait_until_running(connection: &mut Connection) -> Result<(), DriverError> {
    let begin = Instant::now();
    while begin.elapsed() < RUNNING_WITHIN {
        match find(connection).map_err(failed)? {
            Some(device) if device.visible.running && device.hidden.running => return Ok(()),
            _ => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    Err(failed(io::Error::new(ErrorKind::TimedOut, format!("it does not run within {RUNNING_WITHIN:?}"))))
}

/// Before the first packet: the ends are still down, or have been configured before.
fn configure(cuts: bool) -> io::Result<()> {
    // What arrives here comes from where base routing would not send it. Of this setting the greater one of "all" and
    // the port's counts (Linux, ip-sysctl), so against a strict "all" the loose 2 is the least that helps.
    let strict = read("ipv4/conf/all/rp_filter")?.as_deref() == Some("1");
    write(&format!("ipv4/conf/{TUNNEL_PORT}/rp_filter"), if strict { "2" } else { "0" })?;
    // What is forwarded from the hidden end bears the element's own address as its source.
    for setting in ["forwarding", "accept_local"] {
        write(&format!("ipv4/conf/{HIDDEN_PORT}/{setting}"), if cuts { "1" } else { "0" })?;
    }
    // The loose 2 whatever "all" says, or will say: then it takes all that has a way, as long as the port has an address.
    write(&format!("ipv4/conf/{HIDDEN_PORT}/rp_filter"), if cuts { "2" } else { "0" })?;
    write(&format!("ipv6/conf/{HIDDEN_PORT}/disable_ipv6"), "1")?;
    // No link-local address, so no neighbour discovery and no multicast reports into the tunnels.
    write(&format!("ipv6/conf/{TUNNEL_PORT}/addr_gen_mode"), "1")
}

/// A setting below `/proc/sys/net` of this thread's namespace; `None` without that protocol.
pub(crate) fn read(setting: &str) -> io::Result<Option<String>> {
    match std::fs::read_to_string(format!("/proc/sys/net/{setting}")) {
        Ok(value) => Ok(Some(value.trim().to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn write(setting: &str, value: &str) -> io::Result<()> {
    match read(setting)? {
        Some(there) if there != value => std::fs::write(format!("/proc/sys/net/{setting}"), value),
        _ => Ok(()),
    }
}

fn failed(error: io::Error) -> DriverError {
    DriverError::failed(format!("cannot set up the interface {TUNNEL_PORT}"), error)
}
