//! What the verifier says: proven, violated with a packet that shows it, or not decided.

use std::fmt;

use catena_model::forwarding::{Change, Direction};
use catena_model::name::{ChainName, NodeName, SiteName};
use serde::{Deserialize, Serialize};

use crate::{Entry, Walk};

/// What a chain promises. The names are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Property {
    /// Every function, in the chain's order, once.
    Order,
    /// No packet that the chain claims gets out of the network without the functions.
    NoBypass,
    /// Replies pass the same instances, in reverse order.
    SameWayBack,
    /// No packet of another site enters the chain, no forged one, and the site's pass no other customer's place.
    Isolation,
    NoLoop,
    /// What would be delivered without the chain is delivered with it.
    NoBlackHole,
    /// Only functions that are known to change packets change them, and each is spoken to in its own way.
    Unmodified,
    /// What no chain claims goes the way that it went before.
    UnclaimedUntouched,
    /// The same with an instance, a function or an agent gone: what remains does as `onFailure` says.
    Degraded,
}

impl Property {
    pub const ALL: [Property; 9] = [
        Property::Order,
        Property::NoBypass,
        Property::SameWayBack,
        Property::Isolation,
        Property::NoLoop,
        Property::NoBlackHole,
        Property::Unmodified,
        Property::UnclaimedUntouched,
        Property::Degraded,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Property::Order => "order",
            Property::NoBypass => "no-bypass",
            Property::SameWayBack => "same-way-back",
            Property::Isolation => "isolation",
            Property::NoLoop => "no-loop",
            Property::NoBlackHole => "no-black-hole",
            Property::Unmodified => "unmodified",
            Property::UnclaimedUntouched => "unclaimed-untouched",
            Property::Degraded => "degraded",
        }
    }
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What was found about all chains that were looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub verdict: Verdict,
    pub coverage: Coverage,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub violations: Vec<Violation>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub undecided: Vec<Undecided>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    Proven,
    Violated,
    /// Nothing is known to be violated, but something is not understood.
    Undecided,
}

/// What the verdict is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Coverage {
    pub chains: usize,
    /// Sites with a chain.
    pub sites: usize,
    /// Places where packets come in.
    pub entries: usize,
    /// Packets of one class go one way. Every packet that can come in at the entries is in one, or meets no object of ours.
    pub classes: usize,
    /// What the verdict is not about, and what it takes for granted: each in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
}

impl Coverage {
    /// What no verdict is about.
    pub(crate) const EXCEPT: [&str; 11] = [
        "packets to multicast, link-local and loopback addresses, which nobody routes",
        "ICMP errors about packets to a site that come from elsewhere than its own addresses",
        "ICMP errors from addresses of a site about packets that were not for it",
        "forged packets that come by what is not understood before they come to where sources are asked for",
        "by which routes the outer packets of tunnels go, and what packet filters do to them",
        "what owners' packet filters drop, and what filters at ports (tc, XDP) and IPsec policies do",
        "what owners' packet filters write into our bits of the packet mark: whoever sets them leads packets elsewhere",
        "what other sites and the provider's hosts send to a site: it passes the chains of who sends it, if any",
        "how replies get to where owners' packet filters translate addresses back, and their sources from there on",
        "whether elements forward at all (net.ipv4.ip_forward), and what their neighbour entries say",
        "whether an element that steers also forwards by itself, which its driver refuses",
    ];
    /// Where customers' own routers are not driven.
    pub(crate) const EXCEPT_ROUTERS: &str =
        "what customers' own routers send another way than into their tunnels";
}

/// A property that does not hold, and a packet that shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Violation {
    pub property: Property,
    pub chain: ChainName,
    pub site: SiteName,
    pub direction: Direction,
    /// What happens, in words.
    pub what: String,
    /// What must be gone for it to happen; `None`: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub without: Option<String>,
    /// The same, as what becomes of the state.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub losses: Vec<Loss>,
    pub entry: Entry,
    /// One packet, hop by hop, as the walk of single packets finds it too.
    pub walk: Walk,
}

/// Something of an element's that is gone, or is down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Loss {
    pub element: NodeName,
    pub change: Change,
}

/// Something that is not understood, and what hangs on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Undecided {
    /// What may be violated: the walk of all packets says so, and no single packet was found that shows it. `None`: something
    /// is not understood.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub property: Option<Property>,
    pub chain: ChainName,
    pub site: SiteName,
    pub direction: Direction,
    pub what: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<Entry>,
    /// A packet that meets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub walk: Option<Walk>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Verdict::Proven => "proven",
            Verdict::Violated => "violated",
            Verdict::Undecided => "undecided",
        })
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted = |count: usize, one: &str, many: &str| match count {
            1 => format!("1 {one}"),
            _ => format!("{count} {many}"),
        };
        write!(
            f,
            "{} of {}, both directions, {} from {}",
            counted(self.chains, "chain", "chains"),
            counted(self.sites, "site", "sites"),
            counted(self.classes, "class of packets", "classes of packets"),
            counted(self.entries, "entry", "entries"),
        )
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { property, chain, site, direction, what, without, .. } = self;
        write!(f, "{property}: chain {chain}, site {site}, {direction}: {what}")?;
        without.as_ref().map_or(Ok(()), |without| write!(f, " without {without}"))
    }
}

impl fmt::Display for Undecided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { property, chain, site, direction, what, .. } = self;
        property.map_or(Ok(()), |property| write!(f, "{property}: "))?;
        write!(f, "chain {chain}, site {site}, {direction}: {what}")
    }
}
