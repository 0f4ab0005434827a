//! From what the kernel answers to what a network engineer can act on.

use std::fmt;

use catena_driver::DriverError;
use catena_driver::netlink::NetlinkError;
use nix::errno::Errno;

use crate::words::Place;

/// Where we were, and what we were doing, as an `ip` command.
pub(crate) struct Context<'a> {
    pub(crate) place: &'a Place,
    pub(crate) doing: &'a str,
}

impl fmt::Display for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.doing)
    }
}

pub(crate) fn explain(context: Context<'_>, error: NetlinkError) -> DriverError {
    let help = match error.errno() {
        Some(Errno::EPERM) => "give the controller CAP_NET_ADMIN in this namespace, or run it as root",
        Some(Errno::EACCES) => "enable IPv6 on the port: sysctl -w net.ipv6.conf.PORT.disable_ipv6=0",
        Some(Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP) => {
            "use a kernel with policy routing for this family \
             (CONFIG_IP_MULTIPLE_TABLES, CONFIG_IPV6_MULTIPLE_TABLES)"
        }
        _ => return DriverError::failed(context.to_string(), error),
    };
    DriverError::Unsupported { what: format!("{context}: {error}"), help: help.to_owned() }
}
