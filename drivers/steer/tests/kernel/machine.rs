//! Functions that are virtual machines: their ports are tap devices, and this process is the machine.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use catena_driver::Counted;
use catena_driver::netns::NetNs;
use catena_model::forwarding::{Action, Direction, Exits, Object, PathId, Purpose};
use etherparse::Ipv4Header;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::objects::{everything, ingress, l2, l3, path, policy, side};
use crate::traffic::{Echo, datagram, fetch};
use crate::world::{Pins, cable, counted, driver, ip, put, quiet_namespace, until};

const MACHINE: u32 = 21;
const PATH: u32 = 7;
const SITE: u32 = 1;
const PREFIXES: [&str; 2] = ["172.16.1.0/24", "2001:db8:a1::/64"];
const SERVERS: [&str; 2] = ["198.51.100.10:80", "[2001:db8:ffff::10]:80"];

/// On the switch, and of the machine's card behind each: MAC and IP addresses, of which the switch has those that end in 1.
const PORTS: [(&str, [u8; 6], [&str; 2]); 2] = [
    ("vm-in", [0x52, 0x54, 0, 0, 0, 1], ["10.22.1.2", "2001:db8:2201::2"]),
    ("vm-out", [0x52, 0x54, 0, 0, 0, 2], ["10.22.2.2", "2001:db8:2202::2"]),
];

/// `struct virtio_net_hdr` (linux/virtio_net.h): flags, type of segmentation, and eight bytes of where and how long.
const OFFLOADS: usize = 10;
const NEEDS_CHECKSUM: u8 = 1;

/// What the machine does with what it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Forwarding {
    Bridge,
    Router,
}

/// A card of the machine's: the end of a tap device that a program holds.
struct Card {
    frames: File,
    mac: [u8; 6],
    /// Of the switch's port.
    far: [u8; 6],
}

impl Card {
    /// The switch's port comes and goes with the card. With offloads the machine is given checksums to finish, and segments to cut.
    fn plug(switch: &NetNs, (port, mac, addresses): (&str, [u8; 6], [&str; 2]), offloads: bool) -> Self {
        let frames = switch.run(|| tap(port, offloads)).unwrap();
        for (address, length) in addresses.iter().zip([24, 64]) {
            let own = format!("{}1/{length}", &address[..address.len() - 1]);
            ip(switch, &format!("address add {own} dev {port}"));
        }
        ip(switch, &format!("link set dev {port} up"));
        let hardware = mac.map(|byte| format!("{byte:02x}")).join(":");
        for address in addresses {
            ip(switch, &format!("neighbour replace {address} lladdr {hardware} dev {port} nud permanent"));
        }
        until(&format!("{port} is up"), || ip(switch, &format!("link show dev {port}")).contains("LOWER_UP"));
        let shown = ip(switch, &format!("-o link show dev {port}"));
        let of_port = shown.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).unwrap();
        let mut bytes = of_port.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap());
        Self { frames, mac, far: std::array::from_fn(|_| bytes.next().unwrap()) }
    }
}

/// Makes a tap device in the namespace of this thread (Documentation/networking/tuntap.rst).
fn tap(name: &str, offloads: bool) -> io::Result<File> {
    let device = File::options().read(true).write(true).open("/dev/net/tun")?;
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | if offloads { libc::IFF_VNET_HDR } else { 0 };
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: the kernel reads and writes one `ifreq`, which outlives the call.
    nix::errno::Errno::result(unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    if offloads {
        let can = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
        // SAFETY: its argument is a number.
        nix::errno::Errno::result(unsafe {
            libc::ioctl(device.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(can))
        })?;
    }
    Ok(device)
}

/// What the machine saw.
#[derive(Debug, Default)]
struct Seen {
    frames: AtomicU64,
    /// Of these, with a checksum that is still to be finished, and with several segments in one.
    unfinished: AtomicU64,
    super_frames: AtomicU64,
}

/// A machine with two cards, until dropped.
struct Machine {
    seen: Arc<Seen>,
    stop: Arc<AtomicBool>,
    running: Option<JoinHandle<()>>,
}

impl Machine {
    fn start(switch: &NetNs, forwarding: Forwarding, offloads: bool) -> Self {
        let cards = PORTS.map(|port| Card::plug(switch, port, offloads));
        let (seen, stop) = (Arc::<Seen>::default(), Arc::<AtomicBool>::default());
        let (watched, told) = (Arc::clone(&seen), Arc::clone(&stop));
        let running = std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 17];
            while !told.load(Ordering::Relaxed) {
                for from in ready(&cards) {
                    let count = (&cards[from].frames).read(&mut buffer).unwrap();
                    let (offloads, frame) = buffer[..count].split_at_mut(if offloads { OFFLOADS } else { 0 });
                    if forwarding == Forwarding::Router && !route(frame, &cards[from], &cards[1 - from]) {
                        continue;
                    }
                    watched.note(offloads);
                    let written = (&cards[1 - from].frames).write(&buffer[..count]).unwrap();
                    assert_eq!(written, count);
                }
            }
        });
        Self { seen, stop, running: Some(running) }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.running.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            ended.into_iter().for_each(|ended| ended.unwrap());
        }
    }
}

impl Seen {
    fn note(&self, offloads: &[u8]) {
        self.frames.fetch_add(1, Ordering::Relaxed);
        if let [flags, segmentation, ..] = offloads {
            self.unfinished.fetch_add(u64::from(flags & NEEDS_CHECKSUM), Ordering::Relaxed);
            self.super_frames.fetch_add(u64::from(*segmentation != 0), Ordering::Relaxed);
        }
    }

    /// All three, so far.
    fn counts(&self) -> [u64; 3] {
        [&self.frames, &self.unfinished, &self.super_frames].map(|count| count.load(Ordering::Relaxed))
    }
}

/// The cards that have a frame, waiting a little for the first.
fn ready(cards: &[Card; 2]) -> Vec<usize> {
    let mut polled = [0, 1].map(|card| PollFd::new(cards[card].frames.as_fd(), PollFlags::POLLIN));
    poll(&mut polled, PollTimeout::from(20_u8)).unwrap();
    [0, 1].into_iter().filter(|card| polled[*card].any().unwrap_or_default()).collect()
}

/// As a router does it. False for what is not for it to route.
fn route(frame: &mut [u8], from: &Card, to: &Card) -> bool {
    if frame[..6] != from.mac {
        return false;
    }
    match u16::from_be_bytes([frame[12], frame[13]]) {
        0x0800 => {
            let mut header = Ipv4Header::from_slice(&frame[14..]).unwrap().0;
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            header.time_to_live -= 1;
            header.header_checksum = header.calc_header_checksum();
            frame[14..34].copy_from_slice(&header.to_bytes());
        }
        0x86dd => frame[14 + 7] -= 1,
        _ => return false,
    }
    frame[..6].copy_from_slice(&to.far);
    frame[6..12].copy_from_slice(&to.mac);
    true
}

/// A client and a server at one switch, and between them all passes the machine.
fn objects(forwarding: Forwarding) -> Vec<Object> {
    let [inside, outside] = PORTS.map(|(port, _, [v4, v6])| side(port, Some(v4), Some(v6)));
    let exits = Exits {
        up: side("gw", Some("198.51.100.10"), Some("2001:db8:ffff::10")),
        down: side("vr", Some("172.16.1.10"), Some("2001:db8:a1::10")),
    };
    vec![
        match forwarding {
            Forwarding::Router => l3(MACHINE, inside, outside),
            Forwarding::Bridge => l2(MACHINE, PORTS[0].0, PORTS[1].0),
        },
        path(PATH, SITE, &[&[MACHINE]]),
        policy(SITE, &PREFIXES, vec![everything(Action::Path(PathId(PATH)))], Some(exits)),
        ingress("vr", Purpose::Steer, &[Direction::Up]),
        ingress("gw", Purpose::Steer, &[Direction::Down]),
    ]
}

async fn all_passes_the_machine(forwarding: Forwarding, offloads: bool) {
    let [client, server, switch] = [(); 3].map(|()| quiet_namespace(false));
    cable(
        (&client, "eth0", &["172.16.1.10/24", "2001:db8:a1::10/64"]),
        (&switch, "vr", &["172.16.1.1/24", "2001:db8:a1::1/64"]),
    );
    cable(
        (&server, "eth0", &["198.51.100.10/24", "2001:db8:ffff::10/64"]),
        (&switch, "gw", &["198.51.100.1/24", "2001:db8:ffff::1/64"]),
    );
    for (host, gateways) in
        [(&client, ["172.16.1.1", "2001:db8:a1::1"]), (&server, ["198.51.100.1", "2001:db8:ffff::1"])]
    {
        gateways.iter().for_each(|gateway| drop(ip(host, &format!("route add default via {gateway}"))));
    }
    let machine = Machine::start(&switch, forwarding, offloads);
    let pins = Pins::new();
    let driver = driver("br-int", &switch, &pins, None);
    put(&driver, &objects(forwarding)).await;

    for address in SERVERS {
        let _echo = Echo::serve(&server, address);
        let before = machine.seen.counts();
        fetch(&client, address, 1_000_000).unwrap();
        let after = machine.seen.counts();
        // Of a connection's packets none is finished before it meets what cannot finish it, and long ones are cut there.
        assert_eq!(after[1] > before[1], offloads, "{address}: {before:?} {after:?}");
        assert_eq!(after[2] > before[2], offloads, "{address}: {before:?} {after:?}");
        assert!(after[0] > before[0] + 20, "{address}: {before:?} {after:?}");
    }
    for (address, largest) in [("198.51.100.10:9", 1472), ("[2001:db8:ffff::10]:9", 1452)] {
        for size in [1, 64, largest, largest + 1, 10_000] {
            let payload: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            let arrived = datagram(&client, &server, address, &payload);
            assert_eq!(arrived.unwrap_or_else(|error| panic!("{size}: {error}")), payload, "{size}");
        }
    }
    for direction in Direction::BOTH {
        let path = PathId(PATH);
        let given =
            counted(&driver, |of| matches!(of, Counted::Hop { direction: of, .. } if *of == direction)).await;
        let left = counted(&driver, |of| *of == Counted::Exit { path, direction }).await;
        assert!(
            given > 100 && left == given,
            "{direction}: {given} went in to the machine, {left} out of the chain"
        );
    }
    assert_eq!(counted(&driver, |of| matches!(of, Counted::Dropped { .. })).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_routes_is_passed() {
    all_passes_the_machine(Forwarding::Router, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_routes_and_offloads_is_passed() {
    all_passes_the_machine(Forwarding::Router, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_bridges_is_passed() {
    all_passes_the_machine(Forwarding::Bridge, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_bridges_and_offloads_is_passed() {
    all_passes_the_machine(Forwarding::Bridge, true).await;
}
