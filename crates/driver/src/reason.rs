//! Why packets are dropped, each reason in one word and in a sentence: the one table of them.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! reasons {
    ($($name:ident $word:literal $meaning:literal;)*) => {
        /// Why a packet was dropped. Each is counted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum DropReason {
            $(#[doc = $meaning] #[serde(rename = $word)] $name,)*
        }

        impl DropReason {
            pub const ALL: &[DropReason] = &[$(DropReason::$name),*];

            /// As it stands in JSON and in metrics.
            pub fn word(self) -> &'static str {
                match self {
                    $(DropReason::$name => $word,)*
                }
            }

            /// A sentence for people.
            pub fn meaning(self) -> &'static str {
                match self {
                    $(DropReason::$name => $meaning,)*
                }
            }
        }
    };
}

reasons! {
    NoInstance "no-instance"
        "No instance of the function takes flows: all are down or draining.";
    Unexpected "unexpected"
        "It came out of a function that it had not been given to.";
    Missing "missing"
        "The path, instance or port that it needs is not installed.";
    Fragment "fragment"
        "A later fragment whose first fragment was not seen; or a fragment of an outer packet that came to a tunnel's end.";
    Malformed "malformed"
        "Too short, or with lengths that contradict each other.";
    TooBig "too-big"
        "Larger than the port that it must leave by can carry.";
    ForgedSource "forged-source"
        "Came through a tunnel from a source that is not at its far end; or on its way to a site from an address of a site, into a function \
         with one port, which would hide which of the two it is.";
    UnknownTunnel "unknown-tunnel"
        "Came to a tunnel's end with an outer source or key of no tunnel.";
    NoTunnel "no-tunnel"
        "To be encapsulated, but to a destination that is at no tunnel's far end.";
    Kernel "kernel"
        "The kernel refused to change or to send it.";
    ServiceIndex "service-index"
        "Its service index was not the one that the function had to leave (RFC 8300 section 2.2).";
    Limit "limit"
        "It would have opened a flow, and its site opens flows too fast.";
    Congestion "congestion"
        "It met congestion and cannot say so (RFC 6040 section 4.2).";
    Unreachable "unreachable"
        "No rule's next hop is installed for it, though a rule claims it.";
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}
