//! Frames to try. Their destination address is left zero: the rig fills in the port's.

use std::net::IpAddr;

use catena_model::address::Protocol;
use catena_model::packet::Packet;
use etherparse::{EtherType, Ethernet2Header, IpFragOffset, IpNumber, Ipv4Header, Ipv6Header, PacketBuilder};

pub(super) const V4: &str = "172.16.1.10";
pub(super) const FAR_V4: &str = "198.51.100.10";
pub(super) const V6: &str = "2001:db8:a1::10";
pub(super) const FAR_V6: &str = "2001:db8:ffff::10";

pub(super) const SYN: u8 = 0x02;
pub(super) const ACK: u8 = 0x10;
pub(super) const FIN: u8 = 0x01;
pub(super) const RST: u8 = 0x04;

/// Where it stands in an IPv6 packet in an Ethernet frame.
pub(super) const HOP_LIMIT: usize = 14 + 7;

/// A TCP packet of a site, on the way up, in both families.
pub(super) fn web(source_port: u16) -> [Packet; 2] {
    [(V4, FAR_V4), (V6, FAR_V6)].map(|(source, destination)| Packet {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        protocol: Protocol::TCP,
        source_port,
        destination_port: 80,
        dscp: Default::default(),
    })
}

pub(super) fn to_port(packet: Packet, destination_port: u16) -> Packet {
    Packet { destination_port, ..packet }
}

/// A frame from a MAC address that is no tag.
pub(super) fn frame(packet: &Packet) -> Vec<u8> {
    frame_with(packet, ACK, b"payload")
}

pub(super) fn with_flags(packet: &Packet, flags: u8) -> Vec<u8> {
    frame_with(packet, flags, b"")
}

pub(super) fn frame_with(packet: &Packet, flags: u8, payload: &[u8]) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2([0x02, 0, 0, 0, 0, 1], [0; 6]);
    let ip = match (packet.source, packet.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            ethernet.ipv4(source.octets(), destination.octets(), 64)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            ethernet.ipv6(source.octets(), destination.octets(), 64)
        }
        _ => panic!("two families in one packet"),
    };
    let mut frame = Vec::new();
    match packet.protocol {
        Protocol::TCP => {
            let mut tcp = ip.tcp(packet.source_port, packet.destination_port, 1, 1024);
            if flags & SYN != 0 {
                tcp = tcp.syn();
            }
            if flags & ACK != 0 {
                tcp = tcp.ack(1);
            }
            if flags & FIN != 0 {
                tcp = tcp.fin();
            }
            if flags & RST != 0 {
                tcp = tcp.rst();
            }
            tcp.write(&mut frame, payload).unwrap();
        }
        Protocol::UDP => {
            ip.udp(packet.source_port, packet.destination_port).write(&mut frame, payload).unwrap();
        }
        Protocol::ICMP => ip.icmpv4_echo_request(1, 1).write(&mut frame, payload).unwrap(),
        Protocol::ICMPV6 => ip.icmpv6_echo_request(1, 1).write(&mut frame, payload).unwrap(),
        other => panic!("no frames of {other}"),
    }
    frame
}

/// The IP packet of a frame.
pub(super) fn ip(frame: &[u8]) -> &[u8] {
    &frame[14..]
}

/// An ICMP error ("unreachable") from `router` to the sender of the packet in `about`, of which it quotes 64 bytes.
pub(super) fn error(router: &str, about: &[u8]) -> Vec<u8> {
    let quoted = &ip(about)[..ip(about).len().min(64)];
    let router: IpAddr = router.parse().unwrap();
    let mut body = vec![0; 8];
    body.extend_from_slice(quoted);
    match router {
        IpAddr::V4(router) => {
            (body[0], body[1]) = (3, 1);
            let sender = Ipv4Header::from_slice(quoted).unwrap().0.source;
            raw_v4(router.octets(), sender, 1, 0, false, 7, &body)
        }
        IpAddr::V6(router) => {
            (body[0], body[1]) = (1, 3);
            let sender = Ipv6Header::from_slice(quoted).unwrap().0.source;
            raw_v6(router.octets(), sender, 58, &body)
        }
    }
}

/// Any IPv4 packet. `offset` is in units of eight bytes.
pub(super) fn raw_v4(
    source: [u8; 4],
    destination: [u8; 4],
    protocol: u8,
    offset: u16,
    more: bool,
    id: u16,
    body: &[u8],
) -> Vec<u8> {
    let mut header = Ipv4Header::new(body.len() as u16, 64, IpNumber(protocol), source, destination).unwrap();
    header.identification = id;
    header.more_fragments = more;
    header.fragment_offset = IpFragOffset::try_new(offset).unwrap();
    header.header_checksum = header.calc_header_checksum();
    let mut frame = ethernet(EtherType::IPV4);
    header.write_raw(&mut frame).unwrap();
    frame.extend_from_slice(body);
    frame
}

/// Any IPv6 packet; extension headers are part of the body.
pub(super) fn raw_v6(source: [u8; 16], destination: [u8; 16], next: u8, body: &[u8]) -> Vec<u8> {
    let header = Ipv6Header {
        traffic_class: 0,
        flow_label: Default::default(),
        payload_length: body.len() as u16,
        next_header: IpNumber(next),
        hop_limit: 64,
        source,
        destination,
    };
    let mut frame = ethernet(EtherType::IPV6);
    header.write(&mut frame).unwrap();
    frame.extend_from_slice(body);
    frame
}

/// A fragment header, then `body`. `offset` is in units of eight bytes.
pub(super) fn fragment_v6(next: u8, offset: u16, more: bool, id: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![next, 0];
    bytes.extend_from_slice(&(offset << 3 | u16::from(more)).to_be_bytes());
    bytes.extend_from_slice(&id.to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

pub(super) fn v4(text: &str) -> [u8; 4] {
    text.parse::<std::net::Ipv4Addr>().unwrap().octets()
}

pub(super) fn v6(text: &str) -> [u8; 16] {
    text.parse::<std::net::Ipv6Addr>().unwrap().octets()
}

fn ethernet(ether_type: EtherType) -> Vec<u8> {
    let mut frame = Vec::new();
    Ethernet2Header { source: [0x02, 0, 0, 0, 0, 1], destination: [0; 6], ether_type }
        .write(&mut frame)
        .unwrap();
    frame
}
