//! UDP frames, prebuilt.

use std::net::Ipv4Addr;

/// 64 bytes on the wire (RFC 2544 section 9.1): the frame check sequence is not ours to send.
pub const SHORT: usize = 60;
const ETHERNET: usize = 14;
const IP: usize = 20;
const UDP: usize = 8;
/// Where the ports are.
const PORTS: usize = ETHERNET + IP;

pub type Mac = [u8; 6];

/// Where a UDP packet comes from and goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tuple {
    pub source: Ipv4Addr,
    pub source_port: u16,
    pub destination: Ipv4Addr,
    pub destination_port: u16,
}

/// From whom to whom, on the cable.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    pub source: Mac,
    pub destination: Mac,
}

/// Many short frames, one after the other in memory.
#[derive(Clone)]
pub struct Frames(Vec<[u8; SHORT]>);

impl Frames {
    pub fn new(link: Link, tuples: impl IntoIterator<Item = Tuple>) -> Self {
        const PAYLOAD: usize = SHORT - ETHERNET - IP - UDP;
        let short = |tuple| {
            let mut bytes = [0; SHORT];
            bytes.copy_from_slice(&frame(link, tuple, &[0xca; PAYLOAD]));
            bytes
        };
        Self(tuples.into_iter().map(short).collect())
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn get_mut(&mut self, at: usize) -> Option<&mut [u8; SHORT]> {
        self.0.get_mut(at)
    }
}

/// Other ports for a frame. Its UDP checksum becomes "none" (RFC 768).
pub fn set_ports(frame: &mut [u8; SHORT], source: u16, destination: u16) {
    frame[PORTS..PORTS + 2].copy_from_slice(&source.to_be_bytes());
    frame[PORTS + 2..PORTS + 4].copy_from_slice(&destination.to_be_bytes());
    frame[PORTS + 6..PORTS + 8].fill(0);
}

/// One frame, with both checksums.
pub fn frame(link: Link, tuple: Tuple, payload: &[u8]) -> Vec<u8> {
    let udp_length = (UDP + payload.len()) as u16;
    let mut frame = Vec::with_capacity(ETHERNET + IP + UDP + payload.len());
    frame.extend(link.destination);
    frame.extend(link.source);
    frame.extend([0x08, 0x00]);
    let mut ip = [0; IP];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&(IP as u16 + udp_length).to_be_bytes());
    // Don't fragment; TTL 64.
    ip[6] = 0x40;
    ip[8] = 64;
    ip[9] = 17;
    ip[12..16].copy_from_slice(&tuple.source.octets());
    ip[16..20].copy_from_slice(&tuple.destination.octets());
    let sum = checksum(&ip, 0);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend(ip);
    let udp_at = frame.len();
    frame.extend(tuple.source_port.to_be_bytes());
    frame.extend(tuple.destination_port.to_be_bytes());
    frame.extend(udp_length.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(payload);
    let pseudo_header = word_sum(&ip[12..20]) + 17 + u32::from(udp_length);
    // Zero would say "none".
    let sum = match checksum(&frame[udp_at..], pseudo_header) {
        0 => 0xffff,
        sum => sum,
    };
    frame[udp_at + 6..udp_at + 8].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// The Internet checksum (RFC 1071), begun with `sum`.
fn checksum(bytes: &[u8], sum: u32) -> u16 {
    let mut sum = sum + word_sum(bytes);
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn word_sum(bytes: &[u8]) -> u32 {
    bytes
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(word.get(1).copied().unwrap_or_default()))
        .sum()
}
