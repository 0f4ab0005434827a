//! What a chain does, and what is known of it.

use std::collections::BTreeSet;

use catena_model::address::Prefix;
use catena_model::forwarding::{Insertion, OnFailure};
use catena_model::name::{ChainName, FunctionName, NodeName, SiteName, TenantName};
use catena_model::resource::{Attachment, FunctionInstance};
use serde::{Deserialize, Serialize};

use super::{ChainState, ChainVerdict, GivenUp};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    pub chain: ChainName,
    pub tenant: Option<TenantName>,
    /// The flows that it claims, in words.
    pub matches: Vec<String>,
    pub claims_everything: bool,
    /// In the order of the way up.
    pub functions: Vec<ExplainedFunction>,
    pub sites: Vec<ExplainedSite>,
    pub state: ChainState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `None`: nothing was verified yet, or no controller runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<ChainVerdict>,
    /// Of its promises.
    pub given_up: Vec<GivenUp>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExplainedFunction {
    pub name: FunctionName,
    pub insertion: Insertion,
    pub on_failure: OnFailure,
    pub changes_addresses: bool,
    pub instances: Vec<FunctionInstance>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExplainedSite {
    pub site: SiteName,
    pub prefixes: BTreeSet<Prefix>,
    pub attachment: Attachment,
    /// The elements from the site to the Internet, as far as they are told what to do …
    pub there: Vec<Stage>,
    /// … and from the Internet to the site.
    pub back: Vec<Stage>,
}

/// An element on the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stage {
    pub element: NodeName,
    /// Packets come here out of the site's tunnel.
    pub by_tunnel: bool,
    /// The functions are here.
    pub steers: bool,
}
