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
    /// Ports by which packets neither leave nor come: set down, or without a carrier.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub down: BTreeSet<PortName>,
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
