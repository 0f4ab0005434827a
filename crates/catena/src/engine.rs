//! Rules and tables by another means than the kernel's own policy routing, on an element that is a Linux router all the
//! same: what that needs is still asked of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use catena_driver::{Counter, Driver, DriverError, Epoch, Event};
use catena_driver_linux::LinuxDriver;
use catena_model::base::BaseRouting;
use catena_model::forwarding::{Change, ElementState, Kind, PathId};
use tokio::sync::mpsc;

/// What a receiver has not read yet.
const BACKLOG: usize = 64;

/// The engine installs; the Linux driver says whether the machine is fit for a router, tells of its ports, and knows its
/// owner's routing.
#[derive(Debug)]
pub struct Routing {
    engine: Arc<dyn Driver>,
    linux: LinuxDriver,
}

impl Routing {
    pub fn new(engine: Arc<dyn Driver>, linux: LinuxDriver) -> Self {
        Self { engine, linux }
    }
}

#[async_trait]
impl Driver for Routing {
    fn capabilities(&self) -> BTreeSet<Kind> {
        self.engine.capabilities()
    }

    async fn check(&self, changes: &[Change]) -> Result<(), DriverError> {
        let routes = |change: &&Change| matches!(change.object().kind(), Kind::Rule | Kind::Table);
        let routing: Vec<_> = changes.iter().filter(routes).cloned().collect();
        self.linux.check(&routing).await?;
        self.engine.check(changes).await
    }

    async fn observe(&self) -> Result<ElementState, DriverError> {
        self.engine.observe().await
    }

    async fn apply(&self, epoch: Epoch, changes: &[Change]) -> Result<(), DriverError> {
        self.engine.apply(epoch, changes).await
    }

    fn events(&self) -> mpsc::Receiver<Event> {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        tokio::spawn(tell_both(self.engine.events(), self.linux.events(), sender));
        receiver
    }

    async fn counters(&self) -> Result<Vec<Counter>, DriverError> {
        self.engine.counters().await
    }

    async fn live_flows(&self, path: PathId) -> Result<u64, DriverError> {
        self.engine.live_flows(path).await
    }

    async fn base(&self) -> Result<Option<BaseRouting>, DriverError> {
        self.linux.base().await
    }
}

/// Ends when either of the two tells no more, as nobody could tell that from silence.
async fn tell_both(
    mut one: mpsc::Receiver<Event>,
    mut other: mpsc::Receiver<Event>,
    to: mpsc::Sender<Event>,
) {
    loop {
        let event = tokio::select! {
            event = one.recv() => event,
            event = other.recv() => event,
            () = to.closed() => return,
        };
        let Some(event) = event else { return };
        if to.send(event).await.is_err() {
            return;
        }
    }
}
