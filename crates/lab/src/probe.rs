//! Real packets of which each can be told from all others, and where they come in: what a lab shows of a network, held
//! against what somebody says of it.
//!
//! A [`Probe`] is one packet with its number in it; a [`Station`] is a host's port that sends it, and a [`Watch`] notes each
//! port where it arrives. Only arrivals are seen: what leaves is not, since packets may go into a cable past its near end
//! (`bpf_redirect_peer`).

use std::collections::BTreeMap;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

use catena_driver::netns::NetNs;
use catena_model::address::{Dscp, Protocol};
use catena_model::name::{NodeName, PortName};
use catena_model::packet::Packet;
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nameindex;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType,
    TimestampingFlag, recvmsg, sendto, setsockopt, socket, sockopt,
};

/// In front of the number in each probe.
const MAGIC: [u8; 4] = *b"ctna";
const TTL: u8 = 64;
/// Room for what waits to be read at one node, in bytes.
const BACKLOG: usize = 8 << 20;
/// `sll_pkttype` of what the node itself sent (linux/if_packet.h).
const OUTGOING: u8 = 4;

/// How long the kernel may take to begin telling when packets come in.
const TIMESTAMPS_WITHIN: Duration = Duration::from_secs(5);

const ETHERNET: usize = 14;
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
const VLAN: [u8; 2] = [0x81, 0x00];
const NSH: [u8; 2] = [0x89, 0x4f];

const HOP_BY_HOP: u8 = 0;

/// One packet, and the number by which it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Probe {
    pub number: u32,
    pub packet: Packet,
    /// With options that say nothing: four bytes "no operation" in IPv4 (RFC 791 section 3.1), a hop-by-hop header of padding in
    /// IPv6 (RFC 8200 section 4.3).
    pub options: bool,
}

/// Where a probe came in, and when (since the epoch).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    pub at: Duration,
    pub node: NodeName,
    pub port: PortName,
    pub probe: Probe,
    /// Within a network service header (RFC 8300).
    pub in_nsh: bool,
}

impl Probe {
    /// An Ethernet frame with the packet in it, whole and with all checksums: echo requests for ICMP, a first segment for
    /// TCP, for what has no header here the number alone.
    pub fn frame(&self, from: [u8; 6], to: [u8; 6]) -> Vec<u8> {
        let (kind, packet) = self.ip_packet();
        [&to[..], &from, &kind, &packet].concat()
    }

    /// The same within a tunnel's outer packet (RFC 2784 section 2, RFC 2890 section 2).
    pub fn frame_in(&self, envelope: &Envelope, from: [u8; 6], to: [u8; 6]) -> Vec<u8> {
        let Envelope { source, destination, key } = *envelope;
        let (inner_kind, inner) = self.ip_packet();
        let has_key = if key.is_some() { 0x20 } else { 0 };
        let mut gre = vec![has_key, 0];
        gre.extend(inner_kind);
        gre.extend(key.map(u32::to_be_bytes).into_iter().flatten());
        gre.extend(inner);
        let carrier = Packet {
            source,
            destination,
            protocol: Protocol::GRE,
            source_port: 0,
            destination_port: 0,
            dscp: Dscp::default(),
        };
        let (kind, outer) = ip_packet(&carrier, false, &gre);
        [&to[..], &from, &kind, &outer].concat()
    }

    fn ip_packet(&self) -> ([u8; 2], Vec<u8>) {
        ip_packet(&self.packet, self.options, &self.body())
    }

    /// What the IP packet carries.
    fn body(&self) -> Vec<u8> {
        let [[sh, sl], [dh, dl]] =
            [self.packet.source_port, self.packet.destination_port].map(u16::to_be_bytes);
        let payload: Vec<u8> = MAGIC.into_iter().chain(self.number.to_be_bytes()).collect();
        let (mut header, checksum_at) = match self.packet.protocol {
            // SYN; a window of 64240.
            Protocol::TCP => {
                let mut header = vec![sh, sl, dh, dl];
                header.extend(self.number.to_be_bytes());
                header.extend([0, 0, 0, 0, 0x50, 0x02, 0xfa, 0xf0, 0, 0, 0, 0]);
                (header, Some(16))
            }
            Protocol::UDP => {
                let [high, low] = length(8 + payload.len());
                (vec![sh, sl, dh, dl, high, low, 0, 0], Some(6))
            }
            Protocol::SCTP => (vec![sh, sl, dh, dl, 0, 0, 0, 0, 0, 0, 0, 0], None),
            Protocol::ICMP => (vec![8, 0, 0, 0, 0, 1, 0, 1], Some(2)),
            Protocol::ICMPV6 => (vec![128, 0, 0, 0, 0, 1, 0, 1], Some(2)),
            _ => (Vec::new(), None),
        };
        header.extend(payload);
        if let Some(at) = checksum_at {
            let mut summed = match self.packet.protocol {
                Protocol::ICMP => Vec::new(),
                _ => self.pseudo_header(header.len()),
            };
            summed.extend(&header);
            header[at..at + 2].copy_from_slice(&checksum(&summed).to_be_bytes());
        }
        header
    }

    /// RFC 9293 section 3.1, RFC 8200 section 8.1.
    fn pseudo_header(&self, carried: usize) -> Vec<u8> {
        let [high, low] = length(carried);
        let mut header = octets(self.packet.source);
        header.extend(octets(self.packet.destination));
        header.extend([0, self.packet.protocol.0, high, low]);
        header
    }

    /// The probe in a frame, and whether it is in an NSH; `None` for whatever else passes: other packets, and probes inside a
    /// tunnel's outer packets or quoted by ICMP errors.
    fn read(frame: &[u8]) -> Option<(Self, bool)> {
        let (mut kind, mut rest) = (frame.get(12..ETHERNET)?, frame.get(ETHERNET..)?);
        if kind == VLAN {
            (kind, rest) = (rest.get(2..4)?, rest.get(4..)?);
        }
        let in_nsh = kind == NSH;
        if in_nsh {
            // Length in words of four bytes, next protocol (RFC 8300 section 2.2): 1 is IPv4, 2 IPv6.
            let words = usize::from(rest.get(1)? & 0x3f);
            kind = if *rest.get(3)? == 1 { &IPV4 } else { &IPV6 };
            rest = rest.get(words * 4..)?;
        }
        let (mut protocol, class, source, destination, mut body): (u8, u8, IpAddr, IpAddr, &[u8]);
        let options;
        if kind == IPV4 {
            let header = usize::from(rest.first()? & 15) * 4;
            let address = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(rest.get(at..at + 4)?).ok()?));
            (protocol, class, source, destination) =
                (*rest.get(9)?, *rest.get(1)?, address(12)?, address(16)?);
            body = rest.get(header..)?;
            options = header > 20;
        } else if kind == IPV6 {
            let address = |at: usize| Some(IpAddr::from(<[u8; 16]>::try_from(rest.get(at..at + 16)?).ok()?));
            class = rest.first()? << 4 | rest.get(1)? >> 4;
            (protocol, source, destination) = (*rest.get(6)?, address(8)?, address(24)?);
            body = rest.get(40..)?;
            options = protocol == HOP_BY_HOP;
            if options {
                let length = (usize::from(*body.get(1)?) + 1) * 8;
                (protocol, body) = (*body.first()?, body.get(length..)?);
            }
        } else {
            return None;
        }
        let protocol = Protocol(protocol);
        let (header, has_ports) = match protocol {
            Protocol::TCP => (20, true),
            Protocol::UDP => (8, true),
            Protocol::SCTP => (12, true),
            Protocol::ICMP if *body.first()? == 8 => (8, false),
            Protocol::ICMPV6 if *body.first()? == 128 => (8, false),
            Protocol::ICMP | Protocol::ICMPV6 => return None,
            _ => (0, false),
        };
        let number = body.get(header..)?.strip_prefix(&MAGIC)?;
        let number = u32::from_be_bytes(number.get(..4)?.try_into().ok()?);
        let port = |at: usize| Some(u16::from_be_bytes(body.get(at..at + 2)?.try_into().ok()?));
        let (source_port, destination_port) = if has_ports { (port(0)?, port(2)?) } else { (0, 0) };
        let dscp = Dscp::new(class >> 2)?;
        let packet = Packet { source, destination, protocol, source_port, destination_port, dscp };
        Some((Self { number, packet, options }, in_nsh))
    }
}

/// What carries a packet from one end of a GRE tunnel to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub key: Option<u32>,
}

/// A port that sends probes, and the port at the other end of its cable.
#[derive(Debug)]
pub struct Station {
    socket: OwnedFd,
    port: LinkAddr,
    from: [u8; 6],
    to: [u8; 6],
    envelope: Option<Envelope>,
}

impl Station {
    pub fn new(near: (&NetNs, &PortName), far: (&NetNs, &PortName)) -> io::Result<Self> {
        let (port, from) = hardware_address(near.0, near.1)?;
        let (_, to) = hardware_address(far.0, far.1)?;
        let socket = near.0.run(packet_socket)?;
        Ok(Self { socket, port, from, to, envelope: None })
    }

    /// The same, as the far end of a tunnel.
    pub fn in_envelope(self, envelope: Envelope) -> Self {
        Self { envelope: Some(envelope), ..self }
    }

    /// Also into a port that is down at its other end: what is lost at once never arrives.
    pub fn send(&self, probe: &Probe) -> io::Result<()> {
        let frame = match &self.envelope {
            Some(envelope) => probe.frame_in(envelope, self.from, self.to),
            None => probe.frame(self.from, self.to),
        };
        match sendto(self.socket.as_raw_fd(), &frame, &self.port, MsgFlags::empty()) {
            // The other end of a veth pair did not take it (NET_XMIT_DROP).
            Ok(_) | Err(Errno::ENOBUFS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn hardware_address(netns: &NetNs, port: &PortName) -> io::Result<(LinkAddr, [u8; 6])> {
    netns.run(|| {
        let mut ports = getifaddrs()?.filter(|found| found.interface_name == port.as_str());
        let link = ports.find_map(|found| found.address?.as_link_addr().copied());
        let address = link.and_then(|link| Some((link, link.addr()?)));
        address.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("there is no port {port}")))
    })
}

/// Notes all that comes in at all ports of nodes, from when it is made.
#[derive(Debug)]
pub struct Watch {
    nodes: Vec<WatchedNode>,
}

#[derive(Debug)]
struct WatchedNode {
    name: NodeName,
    netns: NetNs,
    socket: OwnedFd,
    ports: BTreeMap<usize, PortName>,
}

impl Watch {
    pub fn start<'a>(nodes: impl IntoIterator<Item = (&'a NodeName, &'a NetNs)>) -> io::Result<Self> {
        let watched = |(name, netns): (&NodeName, &NetNs)| {
            let socket = netns.run(|| {
                let socket = packet_socket()?;
                setsockopt(&socket, sockopt::RcvBufForce, &BACKLOG)?;
                setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
                Ok(socket)
            })?;
            Ok(WatchedNode { name: name.clone(), netns: netns.clone(), socket, ports: BTreeMap::new() })
        };
        let nodes: Vec<WatchedNode> = nodes.into_iter().map(watched).collect::<io::Result<_>>()?;
        // Nobody's firewall is there.
        NetNs::create()?.run(await_timestamps)?;
        Ok(Self { nodes })
    }

    /// What has arrived since this was asked last, in the order of time: waits until `enough` says so, but no longer than
    /// nothing more has come for `quiet`.
    pub fn arrivals(
        &mut self,
        quiet: Duration,
        mut enough: impl FnMut(&[Arrival]) -> bool,
    ) -> io::Result<Vec<Arrival>> {
        let mut found = Vec::new();
        let mut last = Instant::now();
        while !enough(&found) && last.elapsed() < quiet {
            let left = quiet.saturating_sub(last.elapsed()).max(Duration::from_millis(1));
            let mut sockets: Vec<PollFd> =
                self.nodes.iter().map(|node| PollFd::new(node.socket.as_fd(), PollFlags::POLLIN)).collect();
            poll(&mut sockets, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX))?;
            let ready: Vec<bool> = sockets.iter().map(|socket| socket.any().unwrap_or(true)).collect();
            let before = found.len();
            for (node, _) in self.nodes.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
                node.read(&mut found)?;
            }
            if found.len() > before {
                last = Instant::now();
            }
        }
        found.sort_by_key(|arrival| arrival.at);
        Ok(found)
    }
}

impl WatchedNode {
    /// All that is there.
    fn read(&mut self, found: &mut Vec<Arrival>) -> io::Result<()> {
        let mut buffer = vec![0; 2048];
        let mut control = nix::cmsg_space!(nix::sys::time::TimeSpec);
        loop {
            let mut parts = [IoSliceMut::new(&mut buffer)];
            let received = recvmsg::<LinkAddr>(
                self.socket.as_raw_fd(),
                &mut parts,
                Some(&mut control),
                MsgFlags::MSG_DONTWAIT,
            );
            let (link, at, length) = match received {
                Err(Errno::EAGAIN) => return Ok(()),
                // A port of the node went down or away.
                Err(Errno::ENETDOWN) => continue,
                Err(error) => return Err(error.into()),
                Ok(message) => {
                    let at = message.cmsgs()?.find_map(|part| match part {
                        ControlMessageOwned::ScmTimestampns(at) => Some(Duration::from(at)),
                        _ => None,
                    });
                    (message.address, at, message.bytes)
                }
            };
            let (Some(link), Some(at)) = (link, at) else { continue };
            if link.pkttype() == OUTGOING {
                continue;
            }
            let Some((probe, in_nsh)) = buffer.get(..length).and_then(Probe::read) else { continue };
            let Some(port) = self.port(link.ifindex())? else { continue };
            found.push(Arrival { at, node: self.name.clone(), port, probe, in_nsh });
        }
    }

    fn port(&mut self, index: usize) -> io::Result<Option<PortName>> {
        if !self.ports.contains_key(&index) {
            self.ports = self.netns.run(|| {
                let all = if_nameindex()?;
                let named = all.iter().filter_map(|port| {
                    Some((port.index() as usize, PortName::new(port.name().to_str().ok()?).ok()?))
                });
                Ok(named.collect())
            })?;
        }
        Ok(self.ports.get(&index).cloned())
    }
}

/// Waits until packets are given the time at which they come in. The kernel begins with that some time after the first socket
/// that asks for it (`net_enable_timestamp`, for all namespaces), and until then says when a packet was read.
fn await_timestamps() -> io::Result<()> {
    let loopback = Command::new("ip").args(["link", "set", "dev", "lo", "up"]).status()?;
    if !loopback.success() {
        return Err(io::Error::other("`ip` cannot set a loopback interface up"));
    }
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(TIMESTAMPS_WITHIN))?;
    socket.connect(socket.local_addr()?)?;
    // Unlike SO_TIMESTAMPNS this says nothing of a packet that has no time of its own.
    let software =
        TimestampingFlag::SOF_TIMESTAMPING_SOFTWARE | TimestampingFlag::SOF_TIMESTAMPING_RX_SOFTWARE;
    setsockopt(&socket, sockopt::Timestamping, &software)?;
    let begin = Instant::now();
    while begin.elapsed() < TIMESTAMPS_WITHIN {
        socket.send(&MAGIC)?;
        let mut buffer = [0; MAGIC.len()];
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let mut control = nix::cmsg_space!([nix::sys::time::TimeSpec; 3]);
        let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty())?;
        if message.cmsgs()?.any(|part| matches!(part, ControlMessageOwned::ScmTimestampsns(_))) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "the kernel does not say when packets come in"))
}

/// Sees every frame of its namespace, with its Ethernet header (packet(7)).
fn packet_socket() -> io::Result<OwnedFd> {
    Ok(socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)?)
}

/// An IP packet and its EtherType. Both addresses are of one family.
fn ip_packet(packet: &Packet, options: bool, body: &[u8]) -> ([u8; 2], Vec<u8>) {
    let Packet { source, destination, protocol, dscp, .. } = *packet;
    let (kind, mut packet) = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            const NO_OPERATION: u8 = 1;
            let options: &[u8] = if options { &[NO_OPERATION; 4] } else { &[] };
            let [high, low] = length(20 + options.len() + body.len());
            let words = 5 + options.len() as u8 / 4;
            let tos = dscp.get() << 2;
            let mut header = vec![0x40 | words, tos, high, low, 0, 0, 0x40, 0, TTL, protocol.0, 0, 0];
            header.extend(source.octets().into_iter().chain(destination.octets()));
            header.extend(options);
            let sum = checksum(&header).to_be_bytes();
            header[10..12].copy_from_slice(&sum);
            (IPV4, header)
        }
        (source, destination) => {
            // What follows; eight bytes, of which the option has six: PadN, four bytes of padding.
            let options: &[u8] = if options { &[protocol.0, 0, 1, 4, 0, 0, 0, 0] } else { &[] };
            let next = if options.is_empty() { protocol.0 } else { HOP_BY_HOP };
            let [high, low] = length(options.len() + body.len());
            let class = dscp.get() << 2;
            let mut header = vec![0x60 | class >> 4, class << 4, 0, 0, high, low, next, TTL];
            header.extend(octets(source).into_iter().chain(octets(destination)));
            header.extend(options);
            (IPV6, header)
        }
    };
    packet.extend(body);
    (kind, packet)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Probes are short.
fn length(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes()
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words =
        bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | word.get(1).copied().map_or(0, u32::from));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(protocol: Protocol, source: &str, destination: &str) -> Probe {
        let has_ports = matches!(protocol, Protocol::TCP | Protocol::UDP | Protocol::SCTP);
        let (source_port, destination_port) = if has_ports { (4711, 80) } else { (0, 0) };
        let dscp = "ef".parse().unwrap();
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        let packet = Packet { source, destination, protocol, source_port, destination_port, dscp };
        Probe { number: 0x0102_0304, packet, options: false }
    }

    #[test]
    fn what_is_sent_is_read() {
        for protocol in [Protocol::TCP, Protocol::UDP, Protocol::SCTP, Protocol::GRE, Protocol(89)] {
            for (source, destination) in [("10.0.0.1", "192.0.2.7"), ("2001:db8::1", "2001:db8::2")] {
                let probe = probe(protocol, source, destination);
                for probe in [probe, Probe { options: true, ..probe }] {
                    assert_eq!(Probe::read(&probe.frame([2; 6], [4; 6])), Some((probe, false)));
                }
            }
        }
        let echo = probe(Protocol::ICMPV6, "2001:db8::1", "2001:db8::2");
        assert_eq!(Probe::read(&echo.frame([2; 6], [4; 6])), Some((echo, false)));
    }

    #[test]
    fn checksums_are_right() {
        let probe = probe(Protocol::UDP, "10.0.0.1", "192.0.2.7");
        let frame = probe.frame([2; 6], [4; 6]);
        let (header, body) = frame[ETHERNET..].split_at(20);
        let with_options = Probe { options: true, ..probe }.frame([2; 6], [4; 6]);
        assert_eq!(checksum(header), 0);
        assert_eq!(checksum(&with_options[ETHERNET..ETHERNET + 24]), 0);
        assert_eq!(checksum(&[probe.pseudo_header(body.len()), body.to_vec()].concat()), 0);
    }

    #[test]
    fn what_is_in_a_vlan_or_an_nsh_is_read() {
        let probe = probe(Protocol::TCP, "10.0.0.1", "192.0.2.7");
        let frame = probe.frame([2; 6], [4; 6]);
        let tagged = [&frame[..12], &VLAN, &[0, 7], &frame[12..]].concat();
        assert_eq!(Probe::read(&tagged), Some((probe, false)));
        // Metadata of type 2, none: two words.
        let header = [0x0f, 0xc2, 2, 1, 0, 0, 1, 255];
        let wrapped = [&frame[..12], &NSH, &header, &frame[ETHERNET..]].concat();
        assert_eq!(Probe::read(&wrapped), Some((probe, true)));
    }

    #[test]
    fn what_is_in_a_tunnel_is_the_whole_packet_and_no_probe_yet() {
        let probe = probe(Protocol::TCP, "10.0.0.1", "192.0.2.7");
        let [source, destination] = ["203.0.113.2", "203.0.113.10"].map(|text| text.parse().unwrap());
        let frame = probe.frame_in(&Envelope { source, destination, key: Some(1001) }, [2; 6], [4; 6]);
        assert_eq!(Probe::read(&frame), None);
        let (outer, inner) = frame[ETHERNET..].split_at(20 + 8);
        assert_eq!(outer[9], Protocol::GRE.0);
        assert_eq!(outer[20..], [0x20, 0, 0x08, 0x00, 0, 0, 0x03, 0xe9]);
        assert_eq!(inner, &probe.frame([2; 6], [4; 6])[ETHERNET..]);
    }

    #[test]
    fn other_packets_are_no_probes() {
        let echo = probe(Protocol::ICMP, "10.0.0.1", "192.0.2.7");
        let mut frame = echo.frame([2; 6], [4; 6]);
        // An echo reply.
        frame[ETHERNET + 20] = 0;
        assert_eq!(Probe::read(&frame), None);
        assert_eq!(Probe::read(&[0; 60]), None);
        assert_eq!(Probe::read(&[]), None);
    }
}
