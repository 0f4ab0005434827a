//! The headers of tunnels.

use std::net::IpAddr;

use catena_model::forwarding::SiteId;

use super::sight::{ETHERNET, Frame, IPV4, IPV6, array, word};

/// The headers of a tunnel.
pub(super) struct Outer {
    pub(super) local: IpAddr,
    pub(super) remote: IpAddr,
    pub(super) key: Option<u32>,
    pub(super) protocol: u16,
    pub(super) traffic_class: u8,
    /// Then nothing else is read.
    pub(super) is_fragment: bool,
    /// Where the inner packet begins, from the beginning of the frame.
    pub(super) end: usize,
}

impl Outer {
    pub(super) fn read(frame: &Frame) -> Option<Self> {
        const GRE: u8 = 47;
        const FRAGMENT: u8 = 44;
        const OPTIONS: u8 = 60;
        let bytes = &frame.bytes;
        if frame.tag.is_some() {
            return None;
        }
        let (remote, local, traffic_class, is_fragment, at): (IpAddr, IpAddr, u8, bool, usize) =
            match frame.ether_type() {
                IPV4 => {
                    let header = bytes.get(ETHERNET..ETHERNET + 20)?;
                    let words = usize::from(header[0] & 0x0f);
                    if header[0] >> 4 != 4 || words < 5 || header[9] != GRE {
                        return None;
                    }
                    (
                        array::<4>(header, 12).into(),
                        array::<4>(header, 16).into(),
                        header[1],
                        word(header, 6) & 0x3fff != 0,
                        ETHERNET + 4 * words,
                    )
                }
                IPV6 => {
                    let header = bytes.get(ETHERNET..ETHERNET + 40)?;
                    let behind = ETHERNET + 40;
                    let (next, at) = match header[6] {
                        OPTIONS => skippable_options(bytes, behind)?,
                        next => (next, behind),
                    };
                    let is_fragment = header[6] == FRAGMENT && [GRE, OPTIONS].contains(bytes.get(behind)?);
                    if header[0] >> 4 != 6 || !(next == GRE || is_fragment) {
                        return None;
                    }
                    let traffic_class = (word(header, 0) >> 4) as u8;
                    (
                        array::<16>(header, 8).into(),
                        array::<16>(header, 24).into(),
                        traffic_class,
                        is_fragment,
                        at,
                    )
                }
                _ => return None,
            };
        if is_fragment {
            return Some(Self { local, remote, key: None, protocol: 0, traffic_class, is_fragment, end: at });
        }
        let gre = bytes.get(at..at + 4)?;
        let flags = word(gre, 0);
        let protocol = word(gre, 2);
        if flags & 0x4fff != 0 || (protocol != IPV4 && protocol != IPV6) {
            return None;
        }
        // Checksum and offset, key, sequence number: in this order (RFC 2890 section 2).
        let mut end = at + 4;
        if flags & 0x8000 != 0 {
            end += 4;
        }
        let mut key = None;
        if flags & 0x2000 != 0 {
            key = Some(u32::from_be_bytes(bytes.get(end..end + 4)?.try_into().ok()?));
            end += 4;
        }
        if flags & 0x1000 != 0 {
            end += 4;
        }
        Some(Self { local, remote, key, protocol, traffic_class, is_fragment, end })
    }
}

/// What follows destination options, and where, if each can be skipped (RFC 8200 section 4.2) and they are eight at most.
fn skippable_options(bytes: &[u8], begin: usize) -> Option<(u8, usize)> {
    let header = bytes.get(begin..begin + 2)?;
    let end = begin + 8 * (usize::from(header[1]) + 1);
    let mut at = begin + 2;
    for _ in 0..8 {
        if at < end {
            let option = bytes.get(at..at + 2)?;
            if option[0] >> 6 != 0 {
                return None;
            }
            at += if option[0] == 0 { 1 } else { 2 + usize::from(option[1]) };
        }
    }
    (at == end).then_some((header[0], end))
}

/// Between both ends of the pair of tunnels: which tunnel.
pub(super) fn tunnel_mac(site: SiteId) -> [u8; 6] {
    let [a, b, c, d] = site.0.to_ne_bytes();
    [0x02, 0xc5, a, b, c, d]
}

/// RFC 3168: both bits of ECN, and in IPv4 the header's checksum with them.
pub(super) fn mark_congestion(packet: &mut [u8]) {
    if packet[0] >> 4 == 6 {
        packet[1] |= 0x30;
        return;
    }
    let (old, check) = (word(packet, 0), word(packet, 10));
    packet[1] |= 3;
    let new = word(packet, 0);
    // RFC 1624: HC' = ~(~HC + ~m + m').
    let mut sum = u32::from(!check) + u32::from(!old) + u32::from(new);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    packet[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}
