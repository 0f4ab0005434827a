//! Values that are written as one word: names, addresses, prefixes, protocols, ports.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::address::{Dscp, PortRange, PortRangeError, Prefix, PrefixError, Protocol};
use crate::name::{
    ChainName, FunctionName, InstanceName, LinkName, NameError, NodeName, PortName, SiteName, TenantName,
};

/// A type whose values are written as one word.
pub(super) trait Word: Sized {
    /// With its article, for "… is not …".
    const WHAT: &'static str;

    fn read(text: &str) -> Result<Self, Refusal>;
}

/// Why a word is not accepted, and what would be.
pub(super) struct Refusal {
    pub reason: String,
    pub way_out: String,
}

impl Refusal {
    fn new(reason: impl Into<String>, way_out: impl Into<String>) -> Self {
        Self { reason: reason.into(), way_out: way_out.into() }
    }
}

macro_rules! names {
    ($($name:ident: $what:literal;)*) => {$(
        impl Word for $name {
            const WHAT: &'static str = concat!("a name for ", $what);

            fn read(text: &str) -> Result<Self, Refusal> {
                Self::new(text).map_err(|error| refused_name(text, &error, |text| Self::new(text).is_ok()))
            }
        }
    )*};
}

names! {
    NodeName: "an element or host";
    LinkName: "a link";
    TenantName: "a tenant";
    SiteName: "a site";
    ChainName: "a chain";
    FunctionName: "a service function";
    InstanceName: "an instance";
    PortName: "a port";
}

/// Proposes a name that is like `text` but has the form of one.
fn refused_name(text: &str, error: &NameError, is_name: impl Fn(&str) -> bool) -> Refusal {
    let lower = text.trim().to_ascii_lowercase();
    let label: String = lower.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let proposal = label.trim_matches('-');
    let way_out = match is_name(proposal) {
        true => format!("write `{proposal}`, for instance"),
        false => "write another name".to_owned(),
    };
    Refusal::new(error.to_string(), way_out)
}

impl Word for Prefix {
    const WHAT: &'static str = "a prefix";

    fn read(text: &str) -> Result<Self, Refusal> {
        text.parse().map_err(|error| match error {
            PrefixError::HostBits(net) => {
                let reason = format!("bits are set beyond the first {}", net.prefix_len());
                Refusal::new(reason, format!("write {}", net.trunc()))
            }
            PrefixError::Form => Refusal::new("", missing_length(text, "172.16.1.0/24 or 2001:db8::/32")),
        })
    }
}

impl Word for IpNet {
    const WHAT: &'static str = "an address with the length of its network";

    fn read(text: &str) -> Result<Self, Refusal> {
        text.parse().map_err(|_| Refusal::new("", missing_length(text, "10.21.0.1/24 or 2001:db8::1/64")))
    }
}

fn missing_length(text: &str, examples: &str) -> String {
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => format!("write the length too, such as {address}/24"),
        Ok(IpAddr::V6(address)) => format!("write the length too, such as {address}/64"),
        Err(_) => format!("write an address and a length, such as {examples}"),
    }
}

impl Word for IpAddr {
    const WHAT: &'static str = "an IP address";

    fn read(text: &str) -> Result<Self, Refusal> {
        text.parse().map_err(|_| Refusal::new("", plain_address(text, "10.21.0.1 or 2001:db8::1")))
    }
}

fn plain_address(text: &str, examples: &str) -> String {
    match text.parse::<IpNet>() {
        Ok(net) => format!("leave the length out: {}", net.addr()),
        Err(_) => format!("write an address such as {examples}"),
    }
}

impl Word for Protocol {
    const WHAT: &'static str = "a protocol";

    fn read(text: &str) -> Result<Self, Refusal> {
        text.parse().map_err(|_| {
            Refusal::new("", "write tcp, udp, sctp, icmp, icmpv6, gre or a number from 0 to 255")
        })
    }
}

impl Word for Dscp {
    const WHAT: &'static str = "a DSCP";

    fn read(text: &str) -> Result<Self, Refusal> {
        text.parse()
            .map_err(|_| Refusal::new("", "write a name such as ef, af41 or cs1, or a number from 0 to 63"))
    }
}

impl Word for PortRange {
    const WHAT: &'static str = "a port or a range of ports";

    fn read(text: &str) -> Result<Self, Refusal> {
        text.parse().map_err(|error| match error {
            PortRangeError::Form => {
                Refusal::new("", "write a port from 0 to 65535 such as 80, or two such as 8000-8080")
            }
            PortRangeError::Backwards { first, last } => {
                Refusal::new("it goes downwards", format!("write {last}-{first}"))
            }
        })
    }
}
