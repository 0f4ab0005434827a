//! The loop: one task that owns everything the controller knows and changes. Others send it messages and read the
//! [`View`] that it publishes; they never wait for it to finish something else.
//!
//! What it does is in modules of their own: [`apply`](crate::apply) (requests), [`converge`](crate::converge) (drift,
//! failures, restarts), [`drain`](crate::drain) (old paths).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use catena_driver::{DriverError, Epoch, Event};
use catena_model::forwarding::PathId;
use catena_model::name::NodeName;
use catena_model::numbering::Numbering;
use catena_model::resource::Element;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::drivers::{Connection, ConnectionId, Drivers};
use crate::error::{ApplyError, chain_of};
use crate::events::EventLog;
use crate::execute::Connections;
use crate::gate::Waiver;
use crate::intent::{Intent, Request, Terms};
use crate::prover::Prover;
use crate::records::{Journal, Records};
use crate::report::{ApplyReport, ControllerState, EventKind, Hold};
use crate::settings::{Mode, Settings};
use crate::tracked::Tracked;
use crate::view::View;
use crate::words::{Names, counted};

/// What others tell the core.
#[derive(Debug)]
pub enum Message {
    Request {
        request: Request,
        terms: Terms,
        answer: oneshot::Sender<Result<ApplyReport, ApplyError>>,
    },
    /// Something may have changed on an element.
    Stirred {
        element: NodeName,
        connection: ConnectionId,
        stir: Stir,
    },
    /// Elements may have come or gone, or have been replaced.
    Arrivals,
    /// Of what was given up at this revision of the store, no more than this is needed, as seen when so much had been stirred.
    HoldsAgain {
        revision: u64,
        stirs: u64,
        still_needed: Vec<Waiver>,
    },
}

/// What the events of one element come to, in a short while.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stir {
    pub what: BTreeSet<String>,
    /// A port came up: what failed for want of it may succeed now.
    pub port_up: bool,
    /// The owner's routing may be another one.
    pub routing: bool,
    /// The driver tells nothing any more.
    pub ended: bool,
}

pub struct Core {
    pub(crate) drivers: Arc<dyn Drivers>,
    pub(crate) settings: Settings,
    pub(crate) records: Records,
    pub(crate) intent: Arc<Intent>,
    /// The names of all numbers in `intent`.
    pub(crate) names: Arc<Names>,
    pub(crate) journal: Journal,
    pub(crate) elements: BTreeMap<NodeName, Tracked>,
    /// How many flows there were on each retained path when they were last counted.
    pub(crate) flows: BTreeMap<(NodeName, PathId), u64>,
    pub(crate) events: EventLog,
    /// Nobody else has it. A verifier can be sent and not be shared, and whoever waits shares all of the core.
    pub(crate) gate: Mutex<Prover>,
    /// Why nothing is installed.
    pub(crate) hold: Option<Hold>,
    /// Whether some numbers may be borne by nothing any more.
    pub(crate) numbers_to_release: bool,
    view: watch::Sender<Arc<View>>,
    is_calm: watch::Sender<bool>,
    /// How often something was changed, or may have been.
    pub(crate) stirs: u64,
    inbox: mpsc::Receiver<Message>,
    /// For the tasks that listen; weak, so that the inbox ends when nobody else can ask anything.
    post: mpsc::WeakSender<Message>,
    attempts: u64,
    connections: u64,
    next_resync: Instant,
    pub(crate) next_drain: Instant,
}

impl Core {
    pub fn new(
        drivers: Arc<dyn Drivers>,
        settings: Settings,
        (records, intent, journal): (Records, Intent, Journal),
        events: EventLog,
        (post, inbox): (mpsc::WeakSender<Message>, mpsc::Receiver<Message>),
    ) -> Self {
        let elements = intent.elements().map(|element| (element.name.clone(), Tracked::new(element.clone())));
        let elements = elements.collect();
        let intent = Arc::new(intent);
        let now = Instant::now();
        Self {
            names: Arc::new(names_of(&intent)),
            view: watch::Sender::new(Arc::new(View::default())),
            is_calm: watch::Sender::new(false),
            stirs: 0,
            next_resync: now + settings.resync,
            next_drain: now + settings.drain_poll,
            flows: BTreeMap::new(),
            numbers_to_release: true,
            gate: Mutex::default(),
            hold: None,
            attempts: 0,
            connections: 0,
            drivers,
            settings,
            records,
            intent,
            journal,
            elements,
            events,
            inbox,
            post,
        }
    }

    /// What this core shows of itself, now and later.
    pub fn view(&self) -> watch::Receiver<Arc<View>> {
        self.view.subscribe()
    }

    /// Whether this core is between two turns.
    pub fn is_calm(&self) -> watch::Receiver<bool> {
        self.is_calm.subscribe()
    }

    /// Brings everything that can be reached to where it must be, for the first time, if that breaks nothing; or looks at it.
    pub async fn begin(&mut self) {
        self.judge_at_start().await;
        self.converge(self.elements.keys().cloned().collect()).await;
        if self.settings.mode == Mode::Control {
            self.tell_started();
        }
        self.end_turn();
    }

    fn tell_started(&self) {
        let elements = self.elements.len();
        let chains = self.intent.model.chains.len();
        let message = format!("controlling {}, {}", counted(elements, "element"), counted(chains, "chain"));
        self.events.record(EventKind::Started, crate::events::About::default(), message);
    }

    /// Works until nobody can ask anything any more.
    pub async fn run(mut self) {
        loop {
            let deadline = self.next_deadline();
            let message = tokio::select! {
                message = self.inbox.recv() => match message {
                    Some(message) => Some(message),
                    None => return,
                },
                () = tokio::time::sleep_until(deadline) => None,
            };
            self.is_calm.send_replace(false);
            match message {
                Some(message) => self.handle(message).await,
                None => self.on_time().await,
            }
            self.end_turn();
        }
    }

    fn end_turn(&self) {
        self.publish();
        self.is_calm.send_replace(true);
    }

    async fn handle(&mut self, message: Message) {
        match message {
            Message::Request { request, terms, answer } => {
                let result = self.request(request, terms).await;
                // Who has the answer finds it in the view too.
                self.publish();
                // Who asked may have left; what was done is done.
                let _ = answer.send(result);
            }
            Message::Stirred { element, connection, stir } => self.stirred(element, connection, stir).await,
            Message::Arrivals => self.converge(self.replaced_or_lost()).await,
            Message::HoldsAgain { revision, stirs, still_needed } => {
                // What was found out of something older counts for nothing; the next look says more.
                if (revision, stirs) == (self.records.revision.0, self.stirs) {
                    self.take_back_leave(still_needed).await;
                }
            }
        }
    }

    /// Forgets what was given up and holds again. If that cannot be stored, the next look says it once more.
    async fn take_back_leave(&mut self, still_needed: Vec<Waiver>) {
        if self.only_looks() {
            return;
        }
        let mut intent = Intent { waivers: still_needed, ..(*self.intent).clone() };
        if let Err(error) = self.records.replace(&self.intent, &mut intent, &self.journal).await {
            tracing::warn!(error = chain_of(&error), "cannot remember that what was given up holds again");
            return;
        }
        self.tell_given_up(&intent);
        self.adopt(intent);
    }

    async fn stirred(&mut self, name: NodeName, connection: ConnectionId, stir: Stir) {
        let Some(tracked) = self.elements.get_mut(&name) else { return };
        if tracked.connection.as_ref().is_none_or(|current| current.id != connection) {
            return;
        }
        tracing::debug!(element = %name, ?stir, "stirred");
        self.stirs += 1;
        if stir.ended {
            let error = "its driver has stopped telling of changes".to_owned();
            self.lost(&name, error);
        } else if stir.is_owners_alone() {
            // It is for those who verify.
        } else if tracked.retry_at.is_some() {
            // It is waiting for its next try, and what was told may be the echo of the last one.
            if stir.port_up {
                tracked.hasten(&self.settings);
            }
        } else {
            self.converge(BTreeSet::from([name])).await;
        }
    }

    fn next_deadline(&self) -> Instant {
        let retries = self.elements.values().filter_map(|tracked| tracked.retry_at);
        let drain = (!self.intent.retained.is_empty()).then_some(self.next_drain);
        retries.chain(drain).min().map_or(self.next_resync, |next| next.min(self.next_resync))
    }

    async fn on_time(&mut self) {
        let now = Instant::now();
        if now >= self.next_resync {
            self.next_resync = now + self.settings.resync;
            self.converge(self.elements.keys().cloned().collect()).await;
        } else {
            let due = |tracked: &&Tracked| tracked.retry_at.is_some_and(|at| at <= now);
            let due: BTreeSet<_> =
                self.elements.values().filter(due).map(|tracked| tracked.name().clone()).collect();
            if !due.is_empty() {
                self.converge(due).await;
            }
        }
        if now >= self.next_drain {
            self.next_drain = now + self.settings.drain_poll;
            self.drain().await;
        }
    }

    /// Elements without a connection, and those whose name means another thing now.
    fn replaced_or_lost(&self) -> BTreeSet<NodeName> {
        let stale = |tracked: &&Tracked| match &tracked.connection {
            None => true,
            Some(connection) => connection.identity != self.drivers.identity(&tracked.element),
        };
        self.elements.values().filter(stale).map(|tracked| tracked.name().clone()).collect()
    }

    /// The present intent becomes `intent`.
    pub(crate) fn adopt(&mut self, intent: Intent) {
        self.names = Arc::new(names_of(&intent));
        self.intent = Arc::new(intent);
        self.numbers_to_release = true;
    }

    /// An epoch newer than all before it, in this process and in those before it on the same store.
    pub(crate) fn next_epoch(&mut self) -> Epoch {
        self.attempts += 1;
        Epoch((self.records.starts << 32) + self.attempts)
    }

    /// Makes drivers for an element and listens to them.
    pub(crate) async fn connect(&mut self, element: &Element) -> Result<Arc<Connection>, DriverError> {
        self.connections += 1;
        let id = ConnectionId(self.connections);
        let factory = Arc::clone(&self.drivers);
        let wanted = element.clone();
        // Before the drivers: should it be replaced meanwhile, it will be found to have been.
        let identity = self.drivers.identity(element);
        let drivers = tokio::task::spawn_blocking(move || factory.for_element(&wanted))
            .await
            .map_err(|error| DriverError::failed("making its drivers did not come to an end", error))??;
        let listen = |events| self.listen(element.name.clone(), id, events);
        Ok(Arc::new(Connection::new(id, identity, drivers, self.settings.driver_timeout, listen)))
    }

    pub(crate) fn connected(&self) -> Connections {
        let connection = |tracked: &Tracked| Some((tracked.name().clone(), tracked.connection.clone()?));
        self.elements.values().filter_map(connection).collect()
    }

    fn listen(
        &self,
        element: NodeName,
        connection: ConnectionId,
        events: mpsc::Receiver<Event>,
    ) -> AbortHandle {
        let (post, settings) = (self.post.clone(), self.settings.clone());
        tokio::spawn(listen(element, connection, events, post, settings)).abort_handle()
    }

    pub(crate) fn publish(&self) {
        self.view.send_replace(Arc::new(View {
            revision: self.records.revision.0,
            controller: match self.settings.mode {
                Mode::Control => ControllerState::Running,
                Mode::Look => ControllerState::None,
            },
            intent: Arc::clone(&self.intent),
            names: Arc::clone(&self.names),
            unfinished: self.journal.clone(),
            elements: self.elements.clone(),
            flows: self.flows.clone(),
            stirs: self.stirs,
            hold: self.hold.clone(),
        }));
    }
}

fn names_of(intent: &Intent) -> Names {
    let mut names = Names::of(&intent.numbering);
    for (_, path, retiree) in intent.retained.iter() {
        names.add_generation(path, retiree.generation);
    }
    names
}

/// Which generation of its owner's path this is; `None` if it is a former one.
pub(crate) fn generation_of(numbering: &Numbering, path: PathId) -> Option<u32> {
    let revision = numbering.revision(numbering.owner(path)?)?;
    (revision.id == path).then_some(revision.generation)
}

/// Tells the core what a driver tells, each burst once.
async fn listen(
    element: NodeName,
    connection: ConnectionId,
    mut events: mpsc::Receiver<Event>,
    post: mpsc::WeakSender<Message>,
    settings: Settings,
) {
    loop {
        let mut stir = Stir::default();
        match events.recv().await {
            Some(event) => stir.add(event),
            None => stir.ended = true,
        }
        if stir.is_owners_alone() {
            stir.add_until(Instant::now() + settings.routing_debounce, &mut events).await;
        }
        if !stir.ended {
            tokio::time::sleep(settings.debounce).await;
            while let Ok(event) = events.try_recv() {
                stir.add(event);
            }
        }
        let ended = stir.ended;
        let Some(post) = post.upgrade() else { return };
        if post.send(Message::Stirred { element: element.clone(), connection, stir }).await.is_err() || ended
        {
            return;
        }
    }
}

impl Stir {
    fn add(&mut self, event: Event) {
        match event {
            Event::Drift { what } => {
                self.what.insert(what);
            }
            Event::Port { port, up } => {
                self.what.insert(format!("port {port} {}", if up { "came up" } else { "went down" }));
                self.port_up |= up;
            }
            Event::Routing => self.routing = true,
        }
    }

    /// Nothing of ours is concerned.
    fn is_owners_alone(&self) -> bool {
        self.routing && self.what.is_empty() && !self.ended
    }

    /// Adds what comes until then, or until something of ours is concerned.
    async fn add_until(&mut self, then: Instant, events: &mut mpsc::Receiver<Event>) {
        while self.is_owners_alone() {
            match tokio::time::timeout_at(then, events.recv()).await {
                Ok(Some(event)) => self.add(event),
                Ok(None) => self.ended = true,
                Err(_) => return,
            }
        }
    }
}
