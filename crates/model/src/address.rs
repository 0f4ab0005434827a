//! Addresses, prefixes, protocols and ports.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// A network prefix whose host bits are zero: `172.16.1.0/24`, never `172.16.1.7/24`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Prefix(IpNet);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    #[error("not a prefix: write an address and a length, such as 172.16.1.0/24 or 2001:db8::/32")]
    Form,
    #[error("has host bits set; the prefix is {}", .0.trunc())]
    HostBits(IpNet),
}

impl Prefix {
    pub const ALL_V4: Prefix = Prefix(IpNet::V4(match ipnet::Ipv4Net::new(Ipv4Addr::UNSPECIFIED, 0) {
        Ok(net) => net,
        Err(_) => unreachable!(),
    }));
    pub const ALL_V6: Prefix = Prefix(IpNet::V6(match ipnet::Ipv6Net::new(Ipv6Addr::UNSPECIFIED, 0) {
        Ok(net) => net,
        Err(_) => unreachable!(),
    }));

    pub fn new(net: IpNet) -> Result<Self, PrefixError> {
        if net.trunc() == net { Ok(Self(net)) } else { Err(PrefixError::HostBits(net)) }
    }

    /// The prefix that an interface address lies in.
    pub fn of(address: IpNet) -> Self {
        Self(address.trunc())
    }

    /// The prefix that holds one address alone.
    pub fn host(address: IpAddr) -> Self {
        Self(address.into())
    }

    pub fn all(family: Family) -> Self {
        match family {
            Family::V4 => Self::ALL_V4,
            Family::V6 => Self::ALL_V6,
        }
    }

    pub fn net(self) -> IpNet {
        self.0
    }

    pub fn family(self) -> Family {
        Family::of(self.0.addr())
    }

    pub fn address(self) -> IpAddr {
        self.0.addr()
    }

    /// The number of leading bits that count.
    pub fn length(self) -> u8 {
        self.0.prefix_len()
    }

    pub fn contains(self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }

    /// Whether every address of `other` is in `self`.
    pub fn covers(self, other: Prefix) -> bool {
        self.0.contains(&other.0)
    }

    pub fn overlaps(self, other: Prefix) -> bool {
        self.intersection(other).is_some()
    }

    /// The addresses that are in both: of two prefixes that overlap, one lies within the other.
    pub fn intersection(self, other: Prefix) -> Option<Prefix> {
        match () {
            () if self.covers(other) => Some(other),
            () if other.covers(self) => Some(self),
            () => None,
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.to_string())
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl std::str::FromStr for Prefix {
    type Err = PrefixError;
    fn from_str(text: &str) -> Result<Self, PrefixError> {
        Self::new(text.parse().map_err(|_| PrefixError::Form)?)
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(|error| serde::de::Error::custom(format!("{text}: {error}")))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The length of an address, in bits.
    pub fn bits(self) -> u8 {
        match self {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Family::V4 => "ipv4",
            Family::V6 => "ipv6",
        })
    }
}

/// An IP protocol number (IANA "Assigned Internet Protocol Numbers"). Written by name where it has a common one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(pub u8);

impl Protocol {
    pub const ICMP: Protocol = Protocol(1);
    pub const TCP: Protocol = Protocol(6);
    pub const UDP: Protocol = Protocol(17);
    pub const GRE: Protocol = Protocol(47);
    pub const ICMPV6: Protocol = Protocol(58);
    pub const SCTP: Protocol = Protocol(132);

    const NAMES: [(Protocol, &str); 6] = [
        (Self::ICMP, "icmp"),
        (Self::TCP, "tcp"),
        (Self::UDP, "udp"),
        (Self::GRE, "gre"),
        (Self::ICMPV6, "icmpv6"),
        (Self::SCTP, "sctp"),
    ];

    /// Whether packets of this protocol begin with a source and a destination port.
    pub fn has_ports(self) -> bool {
        matches!(self, Self::TCP | Self::UDP | Self::SCTP)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.iter().find(|(protocol, _)| protocol == self) {
            Some((_, name)) => f.pad(name),
            None => f.pad(&self.0.to_string()),
        }
    }
}

impl fmt::Debug for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a protocol: write tcp, udp, sctp, icmp, icmpv6, gre or a number from 0 to 255")]
pub struct ProtocolError;

impl std::str::FromStr for Protocol {
    type Err = ProtocolError;
    fn from_str(text: &str) -> Result<Self, ProtocolError> {
        let named = Self::NAMES.iter().find(|(_, name)| *name == text).map(|(protocol, _)| *protocol);
        named.or_else(|| text.parse().ok().map(Protocol)).ok_or(ProtocolError)
    }
}

impl Serialize for Protocol {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Protocol {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(|error| serde::de::Error::custom(format!("{text}: {error}")))
    }
}

/// A Differentiated Services code point: 0 to 63 (RFC 2474). Written by name where it has one (RFC 2474 section 4.2.2, RFC
/// 2597, RFC 3246, RFC 8622).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dscp(u8);

impl Dscp {
    pub const MAX: u8 = 63;

    const NAMES: [(&str, u8); 22] = [
        ("cs0", 0),
        ("le", 1),
        ("cs1", 8),
        ("af11", 10),
        ("af12", 12),
        ("af13", 14),
        ("cs2", 16),
        ("af21", 18),
        ("af22", 20),
        ("af23", 22),
        ("cs3", 24),
        ("af31", 26),
        ("af32", 28),
        ("af33", 30),
        ("cs4", 32),
        ("af41", 34),
        ("af42", 36),
        ("af43", 38),
        ("cs5", 40),
        ("ef", 46),
        ("cs6", 48),
        ("cs7", 56),
    ];

    pub fn new(code: u8) -> Option<Self> {
        (code <= Self::MAX).then_some(Self(code))
    }

    pub fn get(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Dscp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.iter().find(|(_, code)| *code == self.0) {
            Some((name, _)) => f.pad(name),
            None => f.pad(&self.0.to_string()),
        }
    }
}

impl fmt::Debug for Dscp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a DSCP: write a name such as ef, af41 or cs1, or a number from 0 to 63")]
pub struct DscpError;

impl std::str::FromStr for Dscp {
    type Err = DscpError;
    fn from_str(text: &str) -> Result<Self, DscpError> {
        let named = Self::NAMES.iter().find(|(name, _)| *name == text).map(|(_, code)| *code);
        named.or_else(|| text.parse().ok()).and_then(Self::new).ok_or(DscpError)
    }
}

impl Serialize for Dscp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Dscp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(|error| serde::de::Error::custom(format!("{text}: {error}")))
    }
}

/// An inclusive range of TCP, UDP or SCTP ports. Written `80` or `8000-8080`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortRangeError {
    #[error("not a port range: write a port such as 80, or two such as 8000-8080")]
    Form,
    #[error("a port range goes upwards: {last}-{first}")]
    Backwards { first: u16, last: u16 },
}

impl PortRange {
    pub const ALL: PortRange = PortRange { first: 0, last: u16::MAX };

    pub fn new(first: u16, last: u16) -> Result<Self, PortRangeError> {
        if first <= last { Ok(Self { first, last }) } else { Err(PortRangeError::Backwards { first, last }) }
    }

    pub fn first(self) -> u16 {
        self.first
    }

    pub fn last(self) -> u16 {
        self.last
    }

    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    pub fn overlaps(self, other: PortRange) -> bool {
        self.intersection(other).is_some()
    }

    /// The ports that are in both.
    pub fn intersection(self, other: PortRange) -> Option<PortRange> {
        Self::new(self.first.max(other.first), self.last.min(other.last)).ok()
    }
}

impl From<u16> for PortRange {
    fn from(port: u16) -> Self {
        Self { first: port, last: port }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl fmt::Debug for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl std::str::FromStr for PortRange {
    type Err = PortRangeError;
    fn from_str(text: &str) -> Result<Self, PortRangeError> {
        let number = |part: &str| part.trim().parse().map_err(|_| PortRangeError::Form);
        match text.split_once('-') {
            Some((first, last)) => Self::new(number(first)?, number(last)?),
            None => number(text).map(Self::from),
        }
    }
}

impl Serialize for PortRange {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PortRange {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(|error| serde::de::Error::custom(format!("{text}: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_have_no_host_bits() {
        assert!("172.16.1.0/24".parse::<Prefix>().is_ok());
        assert!("2001:db8::/32".parse::<Prefix>().is_ok());
        let error = "172.16.1.7/24".parse::<Prefix>().unwrap_err();
        assert_eq!(error.to_string(), "has host bits set; the prefix is 172.16.1.0/24");
        assert_eq!("172.16.1.0".parse::<Prefix>(), Err(PrefixError::Form));
    }

    #[test]
    fn covering_and_overlap() {
        let [wide, narrow, other]: [Prefix; 3] =
            ["10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32"].map(|p| p.parse().unwrap());
        assert!(wide.covers(narrow) && !narrow.covers(wide));
        assert!(wide.overlaps(narrow) && narrow.overlaps(wide) && !wide.overlaps(other));
    }

    #[test]
    fn port_ranges_and_protocols_are_read_and_written() {
        for text in ["80", "8000-8080"] {
            assert_eq!(text.parse::<PortRange>().unwrap().to_string(), text);
        }
        assert!("9-1".parse::<PortRange>().is_err() && "x".parse::<PortRange>().is_err());
        for text in ["tcp", "icmpv6", "89"] {
            assert_eq!(text.parse::<Protocol>().unwrap().to_string(), text);
        }
        assert!("tpc".parse::<Protocol>().is_err() && "256".parse::<Protocol>().is_err());
    }
}
