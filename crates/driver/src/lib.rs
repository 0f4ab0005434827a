//! What a driver is: the [`Driver`] trait, the conformance suite that every driver passes, and the simulated driver.
//!
//! A driver installs forwarding state on one element and reads it back. It never decides: objects say completely what is
//! to be, and there is no choice left at execution time. It knows `model` and this crate, never another driver, never why
//! something is wanted.

pub mod conformance;
pub mod hops;
pub mod netlink;
pub mod netns;
pub mod packets;
mod reason;
pub mod simulated;

use std::collections::BTreeSet;
use std::fmt;

use async_trait::async_trait;
use catena_model::base::BaseRouting;
use catena_model::forwarding::{Change, Direction, ElementState, InstanceId, Kind, PathId, SiteId};
use catena_model::name::PortName;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

pub use reason::DropReason;

/// Which attempt at changing the world a change belongs to. Drivers refuse a change of an epoch older than the newest
/// they have seen: it comes from a controller that has been replaced, or from a plan that has been overtaken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

/// One means of driving one element. An element may have several, each for other kinds of objects.
#[async_trait]
pub trait Driver: Send + Sync + fmt::Debug {
    /// The kinds of objects that this driver installs. It is asked for these alone.
    fn capabilities(&self) -> BTreeSet<Kind>;

    /// Says why these changes could not be applied here, if so, without touching anything: a port that does not exist,
    /// a kernel that lacks something, a setting of the machine that would let packets go round the chain.
    async fn check(&self, changes: &[Change]) -> Result<(), DriverError>;

    /// What is installed: our objects alone, all of them, also such as no plan of ours would make (two rules in one
    /// place, after a crash between two calls). An object that is damaged is left out or read as what it does.
    async fn observe(&self) -> Result<ElementState, DriverError>;

    /// Applies the changes in order. Idempotent: putting what is there, or deleting what is not, succeeds and does
    /// nothing. When it fails, some of the changes may have been applied, each whole or not at all.
    async fn apply(&self, epoch: Epoch, changes: &[Change]) -> Result<(), DriverError>;

    /// Tells of what may have changed what [`observe`](Driver::observe) or [`base`](Driver::base) says, for as long as the receiver lives. Bursts
    /// may be told once.
    fn events(&self) -> mpsc::Receiver<Event>;

    async fn counters(&self) -> Result<Vec<Counter>, DriverError> {
        Ok(Vec::new())
    }

    /// How many flows are alive on `path`: while there are any, it is not removed after an edit.
    async fn live_flows(&self, _path: PathId) -> Result<u64, DriverError> {
        Ok(0)
    }

    /// The routing of the element apart from ours; `None` if this driver does not know of routing.
    async fn base(&self) -> Result<Option<BaseRouting>, DriverError> {
        Ok(None)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Something that is ours, or that ours depends on, may have changed.
    Drift { what: String },
    /// A port came, went, or changed its state.
    Port { port: PortName, up: bool },
    /// What [`base`](Driver::base) says may have changed, and nothing that is ours: there is nothing to repair.
    Routing,
}

/// Why a driver did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// Nothing was touched, and trying again will not help: something here must be changed first.
    #[error("{what}; {help}")]
    Unsupported { what: String, help: String },
    #[error("there is no port {0}")]
    NoPort(PortName),
    #[error("a newer plan (epoch {}) has been here; this one (epoch {}) is too old", newest.0, given.0)]
    Stale { given: Epoch, newest: Epoch },
    /// Something that is not ours stands where ours should go.
    #[error("{what} is in the way and is not ours; {help}")]
    Conflict { what: String, help: String },
    /// The world failed us: trying again may help.
    #[error("{context}")]
    Failed {
        context: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl DriverError {
    pub fn failed(
        context: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Failed { context: context.into(), source: source.into() }
    }

    /// Whether the same call can succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Failed { .. } | Self::NoPort(_))
    }
}

/// Something counted since it was installed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    pub of: Counted,
    /// As they go over a wire: a super-frame counts as the segments that it becomes.
    pub packets: u64,
    /// Bytes of IP packets; of Ethernet frames less their header.
    pub bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Counted {
    /// Handed to the instance at this position of a path (0 is the first on the way up). What was handed to it on paths
    /// that are gone is summed up at position 0 of [`PathId::NOWHERE`], so that nothing is missing beside
    /// [`Returned`](Counted::Returned).
    Hop { path: PathId, position: u8, instance: InstanceId, direction: Direction },
    /// Came back from an instance, as it was expected to: of any path. In an idle moment as many as were handed to it,
    /// less those that it dropped, more those that it made itself.
    Returned { instance: InstanceId, direction: Direction },
    /// Came out of the far end of a path.
    Exit { path: PathId, direction: Direction },
    /// Of a steered site, but claimed by no chain: passed on without functions.
    Transit { site: SiteId, direction: Direction },
    /// Claimed: not released, so that a rule picks it up.
    Claimed { site: SiteId, direction: Direction },
    /// Put into a site's tunnel.
    Encapsulated { site: SiteId },
    /// Taken out of a site's tunnel.
    Decapsulated { site: SiteId },
    /// Dropped, and why; on a path, or before one was found.
    Dropped {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path: Option<PathId>,
        reason: DropReason,
    },
}
