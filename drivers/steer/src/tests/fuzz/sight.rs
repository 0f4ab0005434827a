//! Reading frames for the model: slowly, one header after the other, by the RFCs, and by none of the engine's code.

use std::collections::HashMap;
use std::net::IpAddr;

use catena_driver::DropReason;
use catena_model::address::{Dscp, Protocol};
use catena_model::forwarding::PathId;
use catena_model::name::PortName;
use catena_model::packet::Packet;

use super::objects::World;

pub(super) const ETHERNET: usize = 14;
pub(super) const IPV4: u16 = 0x0800;
pub(super) const IPV6: u16 = 0x86dd;

/// The engine looks behind no more extension headers than this (RFC 8200 section 4.1 has a use for five of those it knows).
const MOST_EXTENSION_HEADERS: usize = 5;

/// A frame as a port gets it: the network card or the kernel has taken a VLAN tag off before any program sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) bytes: Vec<u8>,
    /// The tag's control information: priority, and the VLAN identifier in the lower twelve bits.
    pub(super) tag: Option<u16>,
}

impl Frame {
    pub(super) fn ether_type(&self) -> u16 {
        word(&self.bytes, 12)
    }

    pub(super) fn source(&self) -> [u8; 6] {
        array(&self.bytes, 6)
    }

    pub(super) fn destination(&self) -> [u8; 6] {
        array(&self.bytes, 0)
    }

    /// The VLAN; a priority tag (VID 0) is none (IEEE 802.1Q).
    pub(super) fn vlan(&self) -> Option<u16> {
        self.tag.map(|tag| tag & 0xfff).filter(|vlan| *vlan != 0)
    }
}

pub(super) fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(array(bytes, at))
}

pub(super) fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().unwrap()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fragment {
    pub(super) id: u32,
    /// In units of eight bytes.
    pub(super) offset: u16,
    pub(super) more: bool,
}

/// An IP header with all that belongs to it.
#[derive(Clone, Debug)]
pub(super) struct Datagram {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) protocol: u8,
    pub(super) hop_limit: u8,
    pub(super) traffic_class: u8,
    pub(super) fragment: Option<Fragment>,
    /// There were more extension headers than anybody has a use for: what is behind is not looked at.
    pub(super) hidden: bool,
    /// Where the payload begins, from the beginning of the header.
    pub(super) payload: usize,
    /// How long the packet says that it is.
    pub(super) length: usize,
}

impl Datagram {
    /// Reads it from `bytes`, which can be longer, and can end early if it is quoted. `None` if there is no such header.
    pub(super) fn read(bytes: &[u8], ether_type: u16) -> Option<Self> {
        if ether_type == IPV4 { Self::read_v4(bytes) } else { Self::read_v6(bytes) }
    }

    /// RFC 791 section 3.1.
    fn read_v4(bytes: &[u8]) -> Option<Self> {
        let words = usize::from(bytes.first()? & 0x0f);
        if bytes[0] >> 4 != 4 || words < 5 || bytes.len() < 4 * words {
            return None;
        }
        let flags = word(bytes, 6);
        let fragment =
            Fragment { id: word(bytes, 4).into(), offset: flags & 0x1fff, more: flags & 0x2000 != 0 };
        Some(Self {
            source: array::<4>(bytes, 12).into(),
            destination: array::<4>(bytes, 16).into(),
            protocol: bytes[9],
            hop_limit: bytes[8],
            traffic_class: bytes[1],
            fragment: Some(fragment).filter(|fragment| fragment.offset != 0 || fragment.more),
            hidden: false,
            payload: 4 * words,
            length: word(bytes, 2).into(),
        })
    }

    /// RFC 8200 sections 3 and 4.
    fn read_v6(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < 40 || bytes[0] >> 4 != 6 {
            return None;
        }
        let mut datagram = Self {
            source: array::<16>(bytes, 8).into(),
            destination: array::<16>(bytes, 24).into(),
            protocol: bytes[6],
            hop_limit: bytes[7],
            traffic_class: (word(bytes, 0) >> 4) as u8,
            fragment: None,
            hidden: false,
            payload: 40,
            length: 40 + usize::from(word(bytes, 4)),
        };
        let mut passed = 0;
        // Hop-by-hop options, routing, fragment, destination options.
        while [0, 43, 44, 60].contains(&datagram.protocol) {
            let is_later = datagram.fragment.is_some_and(|fragment| fragment.offset != 0);
            if is_later || passed > MOST_EXTENSION_HEADERS {
                datagram.hidden = true;
                break;
            }
            let header = bytes.get(datagram.payload..datagram.payload + 8)?;
            let mut length = 8 * (usize::from(header[1]) + 1);
            if datagram.protocol == 44 {
                length = 8;
                let offset_and_more = word(header, 2);
                let fragment = Fragment {
                    id: u32::from_be_bytes(array(header, 4)),
                    offset: offset_and_more >> 3,
                    more: offset_and_more & 1 != 0,
                };
                // One that is all of its packet (RFC 6946) is no fragment.
                if fragment.offset != 0 || fragment.more {
                    datagram.fragment = Some(fragment);
                } else if let Some(other) = &mut datagram.fragment {
                    other.id = fragment.id;
                }
            }
            datagram.protocol = header[0];
            datagram.payload += length;
            passed += 1;
        }
        datagram.hidden |= passed > MOST_EXTENSION_HEADERS;
        Some(datagram)
    }

    fn is_later_fragment(&self) -> bool {
        self.fragment.is_some_and(|fragment| fragment.offset != 0)
    }

    fn is_icmp(&self) -> bool {
        self.protocol == if self.source.is_ipv4() { 1 } else { 58 }
    }

    fn without_ports(&self) -> Packet {
        Packet {
            source: self.source,
            destination: self.destination,
            protocol: Protocol(self.protocol),
            source_port: 0,
            destination_port: 0,
            dscp: Dscp::new(self.traffic_class >> 2).unwrap(),
        }
    }
}

/// Where a fragment was seen: those of one packet come by one way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Scope {
    Port(PortName),
    Path(PathId),
}

/// RFC 791 section 3.2 has the protocol in it, RFC 8200 section 4.5 has not.
type FragmentKey = (Scope, IpAddr, IpAddr, u32, Option<u8>);

/// First fragments that were seen, with the ports of their packets.
#[derive(Clone, Debug, Default)]
pub(super) struct Firsts(HashMap<FragmentKey, Packet>);

/// What can be told of an IP packet.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// Of the flow: with the ports if they are known, and turned round if this is an error about it.
    pub(super) packet: Packet,
    /// Why its ports are not known, if they are not.
    pub(super) unknown: Option<DropReason>,
    pub(super) is_fragment: bool,
    pub(super) is_error: bool,
    /// A message of neighbour or router discovery.
    pub(super) is_discovery: bool,
    /// TCP's, of a whole packet.
    pub(super) flags: u8,
}

pub(super) enum Sight {
    /// Not IP, or between neighbours.
    Other,
    Broken,
    Is(Seen),
}

/// Multicast, broadcast, and IPv6 link-local: no router forwards it.
fn is_for_neighbours(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_multicast() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_multicast() || address.is_unicast_link_local(),
    }
}

impl Firsts {
    pub(super) fn see(&mut self, world: &World, frame: &Frame, scope: &Scope) -> Sight {
        let ether_type = frame.ether_type();
        if frame.vlan().is_some() || (ether_type != IPV4 && ether_type != IPV6) {
            return Sight::Other;
        }
        let bytes = &frame.bytes[ETHERNET..];
        let Some(whole) = Datagram::read(bytes, ether_type) else { return Sight::Broken };
        if whole.length > bytes.len() || whole.payload > whole.length {
            return Sight::Broken;
        }
        if is_for_neighbours(whole.destination) {
            return Sight::Other;
        }
        // What is behind the end of the packet is padding.
        let bytes = &bytes[..whole.length];
        let mut seen = Seen {
            packet: whole.without_ports(),
            unknown: None,
            is_fragment: whole.fragment.is_some(),
            is_error: false,
            is_discovery: false,
            flags: 0,
        };
        match self.ports(&whole, bytes, scope) {
            Ok(packet) => seen.packet = packet,
            Err(reason) => seen.unknown = Some(reason),
        }
        if seen.unknown.is_none() && !whole.is_later_fragment() {
            if whole.is_icmp() {
                self.see_icmp(world, &whole, bytes, scope, &mut seen);
            }
            if seen.unknown.is_none()
                && let Some(fragment) = whole.fragment
            {
                self.0.insert(key(&whole, fragment, scope), seen.packet);
            }
            if whole.fragment.is_none() && whole.protocol == 6 {
                seen.flags = bytes[whole.payload..].get(13).copied().unwrap_or_default();
            }
        }
        Sight::Is(seen)
    }

    /// The packet with its ports, or why they are not known.
    fn ports(&self, datagram: &Datagram, bytes: &[u8], scope: &Scope) -> Result<Packet, DropReason> {
        let packet = datagram.without_ports();
        if let Some(fragment) = datagram.fragment.filter(|fragment| fragment.offset != 0) {
            let first = self.0.get(&key(datagram, fragment, scope)).ok_or(DropReason::Fragment)?;
            return Ok(Packet { dscp: packet.dscp, ..*first });
        }
        if datagram.hidden {
            return Err(DropReason::Malformed);
        }
        if !packet.protocol.has_ports() {
            return Ok(packet);
        }
        let ports = bytes.get(datagram.payload..datagram.payload + 4).ok_or(DropReason::Malformed)?;
        Ok(Packet { source_port: word(ports, 0), destination_port: word(ports, 2), ..packet })
    }

    /// RFC 792, RFC 4443, RFC 4861.
    fn see_icmp(&self, world: &World, outer: &Datagram, bytes: &[u8], scope: &Scope, seen: &mut Seen) {
        let message = &bytes[outer.payload..];
        if message.len() < 8 {
            seen.unknown = Some(DropReason::Malformed);
            return;
        }
        let is_v4 = outer.source.is_ipv4();
        seen.is_discovery = !is_v4 && outer.hop_limit == 255 && (133..=137).contains(&message[0]);
        let errors: &[u8] = if is_v4 { &[3, 4, 11, 12] } else { &[1, 2, 3, 4] };
        if !errors.contains(&message[0]) {
            return;
        }
        let quoted = &message[8..];
        let ether_type = if is_v4 { IPV4 } else { IPV6 };
        let inner = Datagram::read(quoted, ether_type).filter(|inner| inner.payload <= quoted.len());
        let Some(inner) = inner else {
            seen.unknown = Some(DropReason::Malformed);
            return;
        };
        // RFC 1122 section 3.2.2: an error goes to the source of what it is about.
        if inner.source != outer.destination {
            return;
        }
        // A site sends errors about what it got; and nobody else sends one site errors about what another one got.
        let got = world.site_of(inner.destination);
        let other = match (world.site_of(outer.source), got) {
            (None, None) => None,
            (None, Some(_)) => world.site_of(outer.destination),
            (sender, _) => sender,
        };
        if other.is_some() && other != got {
            return;
        }
        seen.is_error = true;
        let about = match self.ports(&inner, quoted, scope) {
            Ok(packet) => packet,
            Err(reason) => {
                seen.unknown = Some(reason);
                inner.without_ports()
            }
        };
        seen.packet = Packet { dscp: seen.packet.dscp, ..about.reply() };
    }
}

fn key(datagram: &Datagram, fragment: Fragment, scope: &Scope) -> FragmentKey {
    let protocol = datagram.source.is_ipv4().then_some(datagram.protocol);
    (scope.clone(), datagram.source, datagram.destination, fragment.id, protocol)
}
