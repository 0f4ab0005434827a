//! What the controller says of itself and of the network: the answers to every question that it can be asked.
//!
//! These are also the JSON of the API, so fields are only ever added to them.

mod counters;
mod explanation;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use catena_model::base::BaseRouting;
use catena_model::forwarding::{Change, Direction, ForwardingState, Kind, PathId, VlanId};
use catena_model::name::{ChainName, FunctionName, InstanceName, NodeName, SiteName, TenantName};
use catena_model::resource::{ResourceKind, Role};
use catena_plan::Phase;
use catena_verify::{Property, Undecided, Verdict, Violation};
use serde::{Deserialize, Serialize};

pub use counters::*;
pub use explanation::*;

/// A moment; in JSON as RFC 3339 writes it.
pub type Timestamp = jiff::Timestamp;

/// What was done, or with `dry_run` would be done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApplyReport {
    pub dry_run: bool,
    /// The store's revision once it was done.
    pub revision: u64,
    pub resources: Vec<ResourceChange>,
    pub plan: PlanReport,
    /// Paths that stay until their flows have ended.
    pub draining: Vec<DrainReport>,
    /// The elements that are not as they must be, whatever the reason.
    #[serde(default)]
    pub not_installed: Vec<NotInstalled>,
    /// What holds of the chains once it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<catena_verify::Report>,
    /// Of what does not hold, that which somebody has given up.
    #[serde(default)]
    pub given_up: Vec<GivenUp>,
}

/// Something that a chain promises of one site's packets in one direction.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Promise {
    pub property: Property,
    pub chain: ChainName,
    pub site: SiteName,
    pub direction: Direction,
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { property, chain, site, direction } = self;
        write!(f, "{property} of chain {chain} for site {site}, {direction}")
    }
}

/// A promise that is broken with somebody's leave, for as long as it is broken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GivenUp {
    #[serde(flatten)]
    pub promise: Promise,
    pub by: String,
    pub at: Timestamp,
}

/// An element that does not do all that it must.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NotInstalled {
    pub element: NodeName,
    pub state: ElementState,
    pub why: String,
    pub since: Timestamp,
    /// How many objects it must have.
    pub objects: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceChange {
    pub kind: ResourceKind,
    pub name: String,
    pub outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    Created,
    Changed,
    Unchanged,
    Deleted,
    /// To be deleted, but not there.
    Absent,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Outcome::Created => "created",
            Outcome::Changed => "changed",
            Outcome::Unchanged => "unchanged",
            Outcome::Deleted => "deleted",
            Outcome::Absent => "absent",
        })
    }
}

/// The steps in their order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PlanReport(pub Vec<StepReport>);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepReport {
    pub phase: Phase,
    pub element: NodeName,
    pub changes: Vec<ChangeReport>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChangeReport {
    /// One line for an engineer. Begins with `+` (new), `~` (another in its place) or `-` (goes).
    pub words: String,
    pub change: Change,
}

/// A path without new flows that is kept for the old ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DrainReport {
    pub element: NodeName,
    pub path: PathId,
    pub chain: ChainName,
    pub site: SiteName,
    pub generation: u32,
    /// `None`: not counted yet, or the element cannot be asked.
    pub flows: Option<u64>,
    /// It goes then, whatever flows are left.
    pub deadline: Timestamp,
}

/// A resource as it was applied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceReport {
    pub kind: ResourceKind,
    pub name: String,
    /// The store's revision when it was last changed.
    pub revision: u64,
    /// The file that it came from, and the line there at which it begins.
    pub source: String,
    pub line: usize,
    /// The YAML document as its author wrote it.
    pub text: String,
    /// The same, read: `apiVersion`, `kind`, `metadata`, `spec`.
    pub document: serde_json::Value,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusReport {
    pub revision: u64,
    /// Whether everything is installed as asked for: all elements in sync, nothing left of an interrupted change.
    pub converged: bool,
    /// Whether somebody keeps it so.
    pub controller: ControllerState,
    pub elements: Vec<ElementStatus>,
    pub chains: Vec<ChainStatus>,
    pub draining: Vec<DrainReport>,
    /// What chains promise and what was asked for breaks, with somebody's leave.
    #[serde(default)]
    pub given_up: Vec<GivenUp>,
    /// There if nothing is installed, repaired or taken away until somebody decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
}

/// This version of the controller would install something that its predecessor did not, and that would break a promise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    pub since: Timestamp,
    pub why: String,
    /// The ways out.
    pub help: String,
    /// What would not hold, each with a packet that shows it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub violations: Vec<Violation>,
    /// What may not hold, though no packet was found that shows it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub undecided: Vec<Undecided>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ControllerState {
    /// What differs from what was asked for is repaired.
    Running,
    /// Nobody repairs anything: this was looked up without a controller.
    #[default]
    None,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ElementStatus {
    pub name: NodeName,
    pub role: Role,
    pub state: ElementState,
    /// Since when it has been in this state.
    pub since: Timestamp,
    /// What it has been told: how many objects.
    pub objects: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    pub drivers: Vec<DriverStatus>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ElementState {
    /// It does what it must do; this has been read back.
    InSync,
    /// It differs from what it must do, and is being repaired.
    OutOfSync,
    /// It cannot be read: its namespace is gone, say. It is tried again.
    Unreachable,
}

impl fmt::Display for ElementState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            ElementState::InSync => "in sync",
            ElementState::OutOfSync => "out of sync",
            ElementState::Unreachable => "unreachable",
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DriverStatus {
    /// What it installs.
    pub kinds: BTreeSet<Kind>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChainStatus {
    pub name: ChainName,
    pub tenant: Option<TenantName>,
    pub functions: Vec<FunctionName>,
    pub state: ChainState,
    /// Why it is not [`ChainState::Installed`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What was found out from what is really installed. `None`: nothing yet of what the chain is now, or not for long, or no
    /// controller runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<ChainVerdict>,
    pub sites: Vec<ChainSite>,
}

/// Whether a chain holds what it promises, as the elements and their owners' routing were last seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChainVerdict {
    pub verdict: Verdict,
    /// Since when it has been so; at the earliest since the controller started.
    pub since: Timestamp,
    /// The store's revision of which it is: later changes to other chains do not count.
    #[serde(default)]
    pub revision: u64,
    /// When what it follows from was read.
    #[serde(default)]
    pub as_of: Timestamp,
    /// What is broken and a packet that shows it, or what is not understood.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// How many promises are broken besides.
    #[serde(default)]
    pub more: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ChainState {
    /// On all its elements, as read back.
    Installed,
    /// An interrupted change is still being carried to its end.
    Pending,
    /// Some of its elements are out of sync or unreachable.
    Degraded,
}

impl fmt::Display for ChainState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            ChainState::Installed => "installed",
            ChainState::Pending => "pending",
            ChainState::Degraded => "degraded",
        })
    }
}

/// A chain for one of its sites.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChainSite {
    pub site: SiteName,
    pub path: PathId,
    pub generation: u32,
    /// Of its frames on the way through functions of `insertion: vlan`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<VlanId>,
    pub hops: Vec<ChainHop>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChainHop {
    pub function: FunctionName,
    pub instances: Vec<InstanceName>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventReport {
    /// Higher than every earlier event's, also than those before a restart: one more than the last, but for restarts.
    pub id: u64,
    pub time: Timestamp,
    pub kind: EventKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub element: Option<NodeName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<ChainName>,
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EventKind {
    Started,
    /// What this version would install breaks a promise: everything is left as it is.
    Held,
    /// Resources were applied or deleted, and what follows from that is installed.
    Applied,
    ApplyFailed,
    RolledBack,
    /// An element did something else than what it was told.
    Drift,
    Repaired,
    RepairFailed,
    Unreachable,
    Reachable,
    /// A path has no new flows any more, and stays for the old ones.
    Draining,
    /// It has gone.
    Drained,
    /// A chain's promise is broken, with somebody's leave.
    GivenUp,
    /// It holds again.
    HoldsAgain,
    /// What is installed was found to hold what a chain promises, after another verdict.
    Proven,
    /// It does not.
    Violated,
    /// It cannot be told.
    Undecided,
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            EventKind::Started => "started",
            EventKind::Held => "held",
            EventKind::Applied => "applied",
            EventKind::ApplyFailed => "applyFailed",
            EventKind::RolledBack => "rolledBack",
            EventKind::Drift => "drift",
            EventKind::Repaired => "repaired",
            EventKind::RepairFailed => "repairFailed",
            EventKind::Unreachable => "unreachable",
            EventKind::Reachable => "reachable",
            EventKind::Draining => "draining",
            EventKind::Drained => "drained",
            EventKind::GivenUp => "givenUp",
            EventKind::HoldsAgain => "holdsAgain",
            EventKind::Proven => "proven",
            EventKind::Violated => "violated",
            EventKind::Undecided => "undecided",
        })
    }
}

/// What was verified, and all that it follows from: enough to build the same network somewhere else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifiedNetwork {
    pub report: catena_verify::Report,
    pub resources: Vec<ResourceReport>,
    /// What the elements do.
    pub state: ForwardingState,
    /// Their owners' routing.
    pub base: BTreeMap<NodeName, BaseRouting>,
}
