//! What kinds of packets there are, for those who ask for ports or for a source (whole ones, fragments, ICMP errors) and for
//! those who leave some to the kernel.

use std::fmt;
use std::net::IpAddr;

use catena_model::packet::Packet;
use serde::{Deserialize, Serialize};

/// A kind of packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    #[default]
    Whole,
    /// A whole one with IPv4 options, or hop-by-hop options of IPv6. It stands for all that `engine: steer` leaves to the
    /// kernel, whose own rules come first; elsewhere it goes as any other.
    Options,
    /// A first fragment, or a later one whose first one has been seen: its ports are known, and prove nothing of the others'.
    Fragment,
    /// A later fragment whose first one has not been seen: it has no ports.
    Headless,
    /// An ICMP error. It belongs to the flow of what it is about, which went the other way, and has another source.
    Error { sender: IpAddr },
}

impl Kind {
    pub fn is_whole(&self) -> bool {
        *self == Kind::Whole
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Whole => f.write_str("packet"),
            Kind::Options => f.write_str("packet with options"),
            Kind::Fragment => f.write_str("fragment"),
            Kind::Headless => f.write_str("later fragment without its first"),
            Kind::Error { sender } => write!(f, "ICMP error from {sender} that belongs to"),
        }
    }
}

/// A packet of some kind. Of an ICMP error the packet is one of the flow that the error belongs to, in the direction in which
/// the error goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    pub packet: Packet,
    pub kind: Kind,
}

impl Probe {
    /// What stands in the header as the source.
    pub fn sender(&self) -> IpAddr {
        match self.kind {
            Kind::Error { sender } => sender,
            _ => self.packet.source,
        }
    }
}

impl From<Packet> for Probe {
    fn from(packet: Packet) -> Self {
        Self { packet, kind: Kind::Whole }
    }
}
