use std::collections::BTreeMap;
use std::sync::Arc;

use catena_model::name::{ChainName, TenantName};
use catena_model::packet::Packet;
use catena_model::resource::ResourceKind;
use catena_store::Store;
use catena_verify::Trace;
use tokio::sync::{mpsc, oneshot, watch};

use crate::core::{Core, Message};
use crate::drivers::Drivers;
use crate::error::{ApplyError, StartError, UnknownTenant};
use crate::events::{EventLog, Follower};
use crate::intent::{Request, ResourceId, Terms};
use crate::records::Records;
use crate::report::{
    ApplyReport, CountersReport, EventKind, EventReport, Explanation, FunctionsReport, ResourceReport,
    StatusReport, VerifiedNetwork,
};
use crate::settings::{Mode, Settings};
use crate::view::View;
use crate::watching::{Verdicts, Watcher};

/// A running controller. Clones are the same one; it ends, leaving everything installed, when the last is dropped.
#[derive(Clone, Debug)]
pub struct Controller {
    post: mpsc::Sender<Message>,
    view: watch::Receiver<Arc<View>>,
    verdicts: watch::Receiver<Arc<Verdicts>>,
    events: EventLog,
}

impl Controller {
    /// Takes up what is in the store, heals what a crash left half, and returns when everything that can be reached is as
    /// it must be, or could not be repaired at once. With [`Mode::Look`], returns when everything has been looked at.
    pub async fn start(
        store: Arc<dyn Store>,
        drivers: Arc<dyn Drivers>,
        settings: Settings,
    ) -> Result<Self, StartError> {
        let memory = match settings.mode {
            Mode::Control => Records::open(store).await?,
            Mode::Look => Records::look(store).await?,
        };
        let (mode, good_for, pause) = (settings.mode, settings.verdict_good_for(), settings.retry_most);
        let events = EventLog::new(settings.events, memory.0.starts);
        let (post, inbox) = mpsc::channel(settings.queue);
        let arrivals = drivers.arrivals();
        let mut core = Core::new(drivers, settings, memory, events.clone(), (post.downgrade(), inbox));
        core.begin().await;
        let view = core.view();
        if let Some(arrivals) = arrivals {
            tokio::spawn(pass_on(arrivals, post.downgrade()));
        }
        let (tell, known) = watch::channel(Arc::default());
        if mode == Mode::Control {
            let (view, is_calm, events, verdicts) = (view.clone(), core.is_calm(), events.clone(), tell);
            let post = post.downgrade();
            let watcher = Watcher { view, is_calm, events, verdicts, post, good_for, pause };
            tokio::spawn(watcher.keep_watching());
        }
        tokio::spawn(core.run());
        Ok(Self { post, view, verdicts: known, events })
    }

    /// Does what is asked, or with `dry_run` of `terms` says what would be done. Returns when it is installed and read back. Once
    /// begun, it is carried to its end, also when the caller stops waiting.
    pub async fn request(&self, request: Request, terms: Terms) -> Result<ApplyReport, ApplyError> {
        let (answer, result) = oneshot::channel();
        let message = Message::Request { request, terms, answer };
        self.post.send(message).await.map_err(|_| ApplyError::Stopped)?;
        result.await.map_err(|_| ApplyError::Stopped)?
    }

    pub fn resources(&self, kind: Option<ResourceKind>) -> Vec<ResourceReport> {
        self.now().resources(kind)
    }

    pub fn resource(&self, id: &ResourceId) -> Option<ResourceReport> {
        self.now().resource(id)
    }

    pub fn status(&self) -> StatusReport {
        self.now().status(&self.verdicts.borrow())
    }

    /// What a chain does and what is known of it; `None` if there is no such chain.
    pub fn explain(&self, chain: &ChainName) -> Option<Explanation> {
        self.now().explain(chain, &self.verdicts.borrow())
    }

    /// Waits until everything is installed as asked for.
    pub async fn converged(&self) {
        let mut view = self.view.clone();
        // If the loop has ended, nothing will change any more.
        let _ = view.wait_for(|view| view.is_converged()).await;
    }

    pub async fn counters(&self) -> CountersReport {
        self.now().counters().await
    }

    /// The functions, and whether what goes into them comes out. Takes a moment, as it looks twice.
    pub async fn functions(&self) -> FunctionsReport {
        self.now().functions().await
    }

    /// Where a packet goes that a node of the network sends now, and where the answer to it goes.
    pub async fn trace(&self, packet: Packet) -> Trace {
        self.now().trace(packet).await
    }

    /// What holds of the chains of a tenant, or of all: as asked for, or with `observed` as installed.
    pub async fn verify(
        &self,
        tenant: Option<TenantName>,
        observed: bool,
    ) -> Result<catena_verify::Report, UnknownTenant> {
        self.now().verify(tenant, observed).await
    }

    /// The same, with the network of which it holds.
    pub async fn verified(
        &self,
        tenant: Option<TenantName>,
        observed: bool,
    ) -> Result<VerifiedNetwork, UnknownTenant> {
        self.now().verified(tenant, observed).await
    }

    /// The latest events, the oldest first.
    pub fn events(&self) -> Vec<EventReport> {
        self.events.all()
    }

    /// How many events of each kind there have been since the controller started.
    pub fn event_counts(&self) -> BTreeMap<EventKind, u64> {
        self.events.counts()
    }

    /// Follows the events from the one after `id` on; from the oldest remembered with 0.
    pub fn follow(&self, id: u64) -> Follower {
        self.events.follow(id)
    }

    fn now(&self) -> Arc<View> {
        Arc::clone(&self.view.borrow())
    }
}

async fn pass_on(mut arrivals: mpsc::Receiver<()>, post: mpsc::WeakSender<Message>) {
    while arrivals.recv().await.is_some() {
        let Some(post) = post.upgrade() else { return };
        if post.send(Message::Arrivals).await.is_err() {
            return;
        }
    }
}
