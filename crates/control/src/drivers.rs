//! The controller's side of drivers: who drives an element, and one connection to it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use catena_driver::{Counter, Driver, DriverError, Epoch, Event};
use catena_model::base::BaseRouting;
use catena_model::forwarding::{Change, ElementState, Kind, PathId};
use catena_model::resource::Element;
use futures::future::{join_all, try_join_all};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// Makes the drivers of elements: how the controller comes to know concrete drivers without knowing any.
pub trait Drivers: Send + Sync + fmt::Debug {
    /// The drivers that together drive `element`, each other kinds of objects. May block for a short while. Fails while
    /// the element is not there.
    fn for_element(&self, element: &Element) -> Result<Vec<Arc<dyn Driver>>, DriverError>;

    /// What tells the thing that now bears the element's name from one that bore it before, such as the inode of its
    /// namespace. When it changes, the drivers are made anew.
    fn identity(&self, _element: &Element) -> Option<u64> {
        None
    }

    /// Tells when an element may have come or gone, or may have been replaced by another of its name.
    fn arrivals(&self) -> Option<mpsc::Receiver<()>> {
        None
    }
}

/// Tells one connection to an element from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionId(pub u64);

/// The drivers of one element, while it can be reached.
#[derive(Debug)]
pub struct Connection {
    pub id: ConnectionId,
    pub identity: Option<u64>,
    drivers: Vec<Arc<dyn Driver>>,
    timeout: Duration,
    /// The tasks that listen to the drivers.
    listeners: Vec<AbortHandle>,
}

impl Connection {
    pub fn new(
        id: ConnectionId,
        identity: Option<u64>,
        drivers: Vec<Arc<dyn Driver>>,
        timeout: Duration,
        listen: impl Fn(mpsc::Receiver<Event>) -> AbortHandle,
    ) -> Self {
        let listeners = drivers.iter().map(|driver| listen(driver.events())).collect();
        Self { id, identity, drivers, timeout, listeners }
    }

    /// What each driver installs.
    pub fn capabilities(&self) -> Vec<BTreeSet<Kind>> {
        self.drivers.iter().map(|driver| driver.capabilities()).collect()
    }

    pub fn can(&self, kind: Kind) -> bool {
        self.driver_of(kind).is_some()
    }

    /// What is installed, as all drivers together see it.
    pub async fn observe(&self) -> Result<ElementState, DriverError> {
        let parts = self.drivers.iter().map(|driver| self.within(driver.observe()));
        let mut whole = ElementState::default();
        for part in try_join_all(parts).await? {
            whole.extend(part.iter().cloned());
        }
        Ok(whole)
    }

    /// Asks each driver whether it could apply those of the changes that are its own.
    pub async fn check(&self, changes: &[Change]) -> Result<(), DriverError> {
        let mut by_driver: BTreeMap<usize, Vec<Change>> = BTreeMap::new();
        for change in changes {
            by_driver.entry(self.index(change)?).or_default().push(change.clone());
        }
        for (index, changes) in by_driver {
            self.within(self.drivers[index].check(&changes)).await?;
        }
        Ok(())
    }

    /// Applies the changes in their order.
    pub async fn apply(&self, epoch: Epoch, changes: &[Change]) -> Result<(), DriverError> {
        let mut rest = changes;
        while let [first, ..] = rest {
            let index = self.index(first)?;
            let same = |change: &&Change| self.index(change).is_ok_and(|other| other == index);
            let (run, after) = rest.split_at(rest.iter().take_while(same).count());
            self.within(self.drivers[index].apply(epoch, run)).await?;
            rest = after;
        }
        Ok(())
    }

    pub async fn counters(&self) -> Result<Vec<Counter>, DriverError> {
        let parts = self.drivers.iter().map(|driver| self.within(driver.counters()));
        Ok(try_join_all(parts).await?.concat())
    }

    pub async fn live_flows(&self, path: PathId) -> Result<u64, DriverError> {
        match self.driver_of(Kind::Path) {
            Some(driver) => self.within(driver.live_flows(path)).await,
            None => Ok(0),
        }
    }

    /// The element's own routing, if one of the drivers knows of it.
    pub async fn base(&self) -> Result<Option<BaseRouting>, DriverError> {
        let parts = join_all(self.drivers.iter().map(|driver| self.within(driver.base()))).await;
        parts.into_iter().find_map(Result::transpose).transpose()
    }

    fn driver_of(&self, kind: Kind) -> Option<&Arc<dyn Driver>> {
        self.drivers.iter().find(|driver| driver.capabilities().contains(&kind))
    }

    fn index(&self, change: &Change) -> Result<usize, DriverError> {
        let kind = change.object().kind();
        let found = self.drivers.iter().position(|driver| driver.capabilities().contains(&kind));
        found.ok_or_else(|| DriverError::Unsupported {
            what: format!("no driver of this element installs a {kind}"),
            help: "give the element a driver that does".to_owned(),
        })
    }

    /// A driver that hangs must not hold up everything else for ever.
    async fn within<T>(&self, call: impl Future<Output = Result<T, DriverError>>) -> Result<T, DriverError> {
        tokio::time::timeout(self.timeout, call).await.unwrap_or_else(|elapsed| {
            let context = format!("the driver gave no answer within {:?}", self.timeout);
            Err(DriverError::failed(context, elapsed))
        })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.listeners.iter().for_each(AbortHandle::abort);
    }
}
