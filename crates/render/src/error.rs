//! Why a model that is valid cannot be rendered: the network lacks something that a chain needs.

use std::fmt;

use catena_model::address::Family;
use catena_model::name::{ChainName, NodeName, PortName, SiteName};
use catena_model::numbering::{Exhausted, PathOwner};

/// What an error is about, so that it can be shown where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    Site(SiteName),
    Chain(ChainName),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    #[error(
        "site {site}: no links lead from {from} to {to} through elements of the roles physical and router; add the \
         missing links"
    )]
    NoWay { site: SiteName, from: NodeName, to: Goal },
    #[error(
        "site {site}: no port of any element is external, so replies from the Internet cannot be brought back; say \
         `external: true` at the link end that faces the Internet"
    )]
    NoExternalPort { site: SiteName },
    #[error(
        "site {site}: chain {chain} has its functions on {other}, but chain {first} has them on {switch}; all chains \
         of a site need their functions on one switch"
    )]
    TwoSwitches { site: SiteName, chain: ChainName, other: NodeName, first: ChainName, switch: NodeName },
    #[error(
        "site {site}: port {port} of {node} has no {family} address, but the site has {family} prefixes; give that \
         link end one"
    )]
    NoAddress { site: SiteName, node: NodeName, port: PortName, family: Family },
    #[error(
        "site {site}: no port of {node} has the outer address of the tunnel; give a link end of {node} that address"
    )]
    NoUnderlay { site: SiteName, node: NodeName },
    #[error(
        "site {site}: {node} already ends the tunnel of site {other}, and could not tell which of the two a packet to \
         the Internet belongs to; use one access element for each site"
    )]
    SharedAccess { site: SiteName, node: NodeName, other: SiteName },
    #[error(
        "site {site}: no link of {node} has an address within the site's prefixes; give the link end that faces the \
         site one"
    )]
    NoLan { site: SiteName, node: NodeName },
    #[error(
        "site {site}: its attachment ends at no element in the cloud; name one that the controller drives"
    )]
    NoCloudEnd { site: SiteName },
    #[error(
        "site {site}: packets of {owner} would pass {node} twice, with different next hops; give the gateway and the \
         switch a link that does not lead through {node}"
    )]
    Crossing { site: SiteName, node: NodeName, owner: PathOwner },
    #[error("site {site}: {source}")]
    Exhausted { site: SiteName, source: Exhausted },
}

impl RenderError {
    pub fn subject(&self) -> Subject {
        match self {
            Self::NoWay { site, .. }
            | Self::NoExternalPort { site }
            | Self::NoCloudEnd { site }
            | Self::NoAddress { site, .. }
            | Self::NoUnderlay { site, .. }
            | Self::SharedAccess { site, .. }
            | Self::NoLan { site, .. }
            | Self::Crossing { site, .. }
            | Self::Exhausted { site, .. } => Subject::Site(site.clone()),
            Self::TwoSwitches { chain, .. } => Subject::Chain(chain.clone()),
        }
    }
}

/// Where a way should have led.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Goal {
    Node(NodeName),
    Gateway,
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Goal::Node(name) => name.fmt(f),
            Goal::Gateway => f.write_str("any element of the role gateway"),
        }
    }
}
