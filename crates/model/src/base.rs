//! Base routing: what an element does with packets apart from what we told it. Read, never written.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::address::{Family, Prefix};
use crate::name::PortName;

/// The routing of an element as its owner set it up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseRouting {
    pub addresses: Vec<(PortName, IpNet)>,
    /// Rules that are not ours, in ascending priority.
    pub rules: Vec<BaseRule>,
    pub routes: Vec<BaseRoute>,
    /// The priority of our rule of order 0. Ours fill twice [`Rule::ORDERS`](crate::forwarding::Rule::ORDERS) from here:
    /// the rules, and behind all of them the guards, which drop what a rule has matched and its table let through.
    pub our_priority: u32,
    /// Ports by which packets neither leave nor come: set down, without a carrier, or, where our rules ask for them, not there or
    /// part of a bridge.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub down: BTreeSet<PortName>,
    /// What gives packets other addresses, apart from our own tables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub translations: Vec<Translation>,
}

/// A foreign policy-routing rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseRule {
    pub priority: u32,
    pub family: Family,
    pub from: Option<Prefix>,
    pub to: Option<Prefix>,
    pub in_port: Option<PortName>,
    /// Parts of the rule that we cannot evaluate (a mark, a port range, …), in the words of `ip rule`. A rule with any
    /// is shown as undecidable, never skipped in silence.
    pub opaque: Vec<String>,
    pub action: BaseRuleAction,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BaseRuleAction {
    Lookup(u32),
    /// `unreachable`, `prohibit` or `blackhole`.
    Drop,
    Other(String),
}

/// A route, of whatever table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseRoute {
    pub table: u32,
    pub prefix: Prefix,
    pub metric: u32,
    pub action: BaseRouteAction,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BaseRouteAction {
    Forward { port: PortName, via: Option<IpAddr> },
    Local,
    Drop,
}

/// A rule of the owner's packet filter that gives packets other addresses (NAT, RFC 3022), and the packets that it can be for: at
/// least those that it is for, and more where it asks for what we do not evaluate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Translation {
    pub hook: TranslationHook,
    /// `None`: both.
    pub family: Option<Family>,
    /// By which they come in, or leave: see [`TranslationHook`].
    pub port: Option<PortName>,
    pub from: Option<Prefix>,
    pub to: Option<Prefix>,
    #[serde(default)]
    pub into: NewAddress,
    /// Where it stands, and what it says: for people.
    pub rule: String,
}

/// What packets have in the place of an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NewAddress {
    /// Nobody knows.
    #[default]
    Any,
    /// An address of the element itself (`masquerade`, `redirect`), or the one that they had.
    Own,
    Within(Prefix),
}

/// When packets are translated, as netfilter has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TranslationHook {
    /// As they come in, before they are routed (prerouting): other destinations.
    Arriving,
    /// As they leave (postrouting): other sources.
    Leaving,
}

impl Translation {
    /// Whether it can be for a packet that comes in, or leaves, by `port`.
    pub fn may_be_for(&self, port: Option<&PortName>, source: IpAddr, destination: IpAddr) -> bool {
        let has = |prefix: Option<Prefix>, address| prefix.is_none_or(|prefix| prefix.contains(address));
        self.family.is_none_or(|family| family == Family::of(destination))
            && self.port.as_ref().is_none_or(|own| Some(own) == port)
            && has(self.from, source)
            && has(self.to, destination)
    }

    /// Whether it may give packets an address of this prefix, of others than the element.
    pub fn may_give(&self, prefix: Prefix) -> bool {
        self.family.is_none_or(|family| family == prefix.family())
            && match self.into {
                NewAddress::Any => true,
                NewAddress::Own => false,
                NewAddress::Within(addresses) => addresses.overlaps(prefix),
            }
    }
}
