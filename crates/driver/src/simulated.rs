//! A driver of nothing real, that fails on demand: for tests of what uses drivers, and for planning without a network.
//!
//! A [`SimulatedElement`] is the piece of world, which outlives its drivers; a [`SimulatedDriver`] drives it. Tests hold
//! on to the element, and tell it what is to go wrong.

mod element;

use std::collections::BTreeSet;

use async_trait::async_trait;
use catena_model::base::BaseRouting;
use catena_model::forwarding::{Change, ElementState, Kind, PathId};
use tokio::sync::mpsc;

pub use element::{Applied, Fault, SimulatedElement};

use crate::{Counter, Driver, DriverError, Epoch, Event};

/// All kinds of objects.
const ALL: [Kind; 7] =
    [Kind::Table, Kind::Tunnel, Kind::Ingress, Kind::Instance, Kind::Path, Kind::Rule, Kind::Policy];

#[derive(Clone, Debug)]
pub struct SimulatedDriver {
    element: SimulatedElement,
    kinds: BTreeSet<Kind>,
}

impl SimulatedDriver {
    /// Drives all kinds of objects of `element`.
    pub fn new(element: &SimulatedElement) -> Self {
        Self::of_kinds(element, ALL)
    }

    /// Drives these kinds alone, as one of several drivers of `element`.
    pub fn of_kinds(element: &SimulatedElement, kinds: impl IntoIterator<Item = Kind>) -> Self {
        Self { element: element.clone(), kinds: kinds.into_iter().collect() }
    }

    fn expect_capable(&self, changes: &[Change]) -> Result<(), DriverError> {
        match changes.iter().map(|change| change.object().kind()).find(|kind| !self.kinds.contains(kind)) {
            Some(kind) => Err(DriverError::Unsupported {
                what: format!("this simulated driver installs no {kind}"),
                help: "give the change to the driver that has the capability".to_owned(),
            }),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Driver for SimulatedDriver {
    fn capabilities(&self) -> BTreeSet<Kind> {
        self.kinds.clone()
    }

    async fn check(&self, changes: &[Change]) -> Result<(), DriverError> {
        self.expect_capable(changes)?;
        self.element.check(changes)
    }

    async fn observe(&self) -> Result<ElementState, DriverError> {
        let installed = self.element.observe()?;
        Ok(installed.iter().filter(|object| self.kinds.contains(&object.kind())).cloned().collect())
    }

    async fn apply(&self, epoch: Epoch, changes: &[Change]) -> Result<(), DriverError> {
        self.expect_capable(changes)?;
        self.element.begin(epoch)?;
        for change in changes {
            if let Some(delay) = self.element.delay() {
                tokio::time::sleep(delay).await;
            }
            match self.element.take_fault() {
                None => self.element.apply(epoch, change)?,
                Some(Fault::Refuse) => return Err(refused("refused", change)),
                Some(Fault::LoseAnswer) => {
                    self.element.apply(epoch, change)?;
                    return Err(refused("applied, but its answer lost", change));
                }
                Some(Fault::Hang) => std::future::pending().await,
            }
        }
        Ok(())
    }

    fn events(&self) -> mpsc::Receiver<Event> {
        self.element.listen()
    }

    /// Of several drivers of an element, the one that steers packets counts them.
    async fn counters(&self) -> Result<Vec<Counter>, DriverError> {
        let counters = self.element.counters()?;
        Ok(if self.kinds.contains(&Kind::Path) { counters } else { Vec::new() })
    }

    async fn live_flows(&self, path: PathId) -> Result<u64, DriverError> {
        self.element.live_flows(path)
    }

    async fn base(&self) -> Result<Option<BaseRouting>, DriverError> {
        if let Some(delay) = self.element.read_delay() {
            tokio::time::sleep(delay).await;
        }
        self.element.base()
    }
}

fn refused(how: &str, change: &Change) -> DriverError {
    DriverError::failed(format!("a simulated fault: {how}: {:?}", change.object().key()), "as it was told to")
}

#[cfg(test)]
pub(crate) mod tests;
