//! The eBPF engines and their loader: a [`Driver`] for tunnels, ingresses, instances, paths and policies ([`SteerDriver`]), and
//! one for rules and tables ([`RouteDriver`]).
//!
//! The engine is a few programs at tc ingress of the element's ports (`bpf/`, start at `bpf/steer.bpf.c`) and the maps
//! that tell them what to do. This crate loads them, writes the maps from our words (`words`) and reads them back.
//! Maps are pinned and programs are attached for good, so forwarding goes on without us, and the next driver adopts what
//! it finds.
//!
//! What must not be known here: why something is wanted, other drivers.
//!
//! Start reading at [`SteerDriver`], then `apply` and `observe`; for routing, at the module `route`.
//!
//! Limits: fragments of *outer* packets of tunnels that come in are dropped. A packet that was taken out of a tunnel cannot be put into another one on the same
//! machine: the kernel refuses to encapsulate an skb twice, and the packet is counted as dropped by the kernel.

mod apply;
mod bpf;
mod check;
mod contents;
mod counters;
mod device;
mod engine;
mod events;
mod flows;
mod hook;
mod index;
mod layout;
mod maps;
mod neighbours;
mod netlink;
mod numbers;
mod observe;
mod owner;
mod pins;
mod plan;
mod ports;
mod program;
mod route;
mod settings;
mod surroundings;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc as sync_mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use catena_driver::netns::NetNs;
use catena_driver::{Counter, Driver, DriverError, Epoch, Event};
use catena_model::forwarding::{Change, ElementState, Kind, PathId};
use catena_model::name::NodeName;
use tokio::sync::mpsc;

use crate::contents::Wanted;
use crate::engine::Engine;
use crate::events::Watched;
use crate::flows::{Sweep, sweep};
pub use crate::hook::Hook;
use crate::maps::Maps;
use crate::observe::{Damage, Look, Observed};
use crate::owner::Owner;
use crate::pins::Pins;
pub use crate::route::{RouteConfig, RouteDriver};
pub use crate::settings::{Settings, Times};

/// Which element to drive, and how.
#[derive(Clone, Debug)]
pub struct Config {
    pub element: NodeName,
    pub netns: NetNs,
    /// The folder for our pins alone, in a BPF file system; such as `/sys/fs/bpf/catena/<element>`.
    pub pins: PathBuf,
    /// The bit of the packet mark that says "released": claimed by no chain.
    pub mark: u32,
    /// How to attach; `None` for what suits the port, see [`Hook`].
    pub hook: Option<Hook>,
    pub settings: Settings,
    pub times: Times,
}

impl Config {
    /// The entry of the map of elements, with what is set here.
    pub(crate) fn element_entry(&self, entry: layout::Element) -> layout::Element {
        settings::write(&self.settings, &self.times, entry)
    }
}

/// The steering engine of one element. Dropping it ends nothing but our care: packets go on.
#[derive(Debug)]
pub struct SteerDriver {
    inner: Arc<Inner>,
    /// Closed by being dropped, which ends the sweeper.
    _sweeper: sync_mpsc::Sender<()>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: Arc<Config>,
    pub(crate) pins: Pins,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    newest: Option<Epoch>,
    /// Loaded ahead of its first use, because the kernel takes a while to verify it.
    engine: Option<Engine>,
    /// From the first change on, for as long as there is any object.
    owner: Option<Arc<Owner>>,
}

impl SteerDriver {
    /// Loads the engine into the kernel, on what is pinned if there is something, but changes nothing yet. Takes some
    /// tens of milliseconds.
    pub fn new(config: Config) -> Result<Self, DriverError> {
        let pins = Pins::new(config.pins.clone());
        pins.check()?;
        let inner = Arc::new(Inner { config: Arc::new(config), pins, state: Mutex::default() });
        inner.in_netns(|| inner.with_current_engine(|_| Ok(())))?;
        let (sweeper, ended) = sync_mpsc::channel();
        let driver = Arc::downgrade(&inner);
        let interval = inner.config.times.sweep;
        std::thread::Builder::new()
            .name("steer-sweep".to_owned())
            .spawn(move || sweep_until(&ended, &driver, interval))
            .map_err(|error| DriverError::failed("cannot start the sweeper of flows", error))?;
        Ok(Self { inner, _sweeper: sweeper })
    }

    /// Runs `work`, which waits for the kernel, where waiting disturbs nobody, and in the element's namespace.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Inner>) -> Result<T, DriverError> + Send + 'static,
    ) -> Result<T, DriverError> {
        let inner = Arc::clone(&self.inner);
        match tokio::task::spawn_blocking(move || inner.in_netns(|| work(&inner))).await {
            Ok(outcome) => outcome,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(error) => Err(DriverError::failed("the program ends", error)),
            },
        }
    }
}

#[async_trait]
impl Driver for SteerDriver {
    fn capabilities(&self) -> BTreeSet<Kind> {
        [Kind::Tunnel, Kind::Ingress, Kind::Instance, Kind::Path, Kind::Policy].into()
    }

    async fn check(&self, changes: &[Change]) -> Result<(), DriverError> {
        let wanted = Wanted::of(changes);
        self.blocking(move |inner| {
            inner.pins.check()?;
            inner.check(wanted)
        })
        .await
    }

    async fn observe(&self) -> Result<ElementState, DriverError> {
        let observed = self.blocking(|inner| inner.observe()).await?;
        for damage in &observed.damage {
            tracing::debug!(element = %self.inner.config.element, damage, "left out of what is observed");
        }
        Ok(observed.state)
    }

    async fn apply(&self, epoch: Epoch, changes: &[Change]) -> Result<(), DriverError> {
        let wanted = Wanted::of(changes);
        self.blocking(move |inner| inner.apply(epoch, wanted)).await
    }

    fn events(&self) -> mpsc::Receiver<Event> {
        events::watch(&self.inner)
    }

    async fn counters(&self) -> Result<Vec<Counter>, DriverError> {
        self.blocking(|inner| inner.counters()).await
    }

    async fn live_flows(&self, path: PathId) -> Result<u64, DriverError> {
        self.blocking(move |inner| inner.sweep(Sweep::Count(path))).await
    }
}

impl Inner {
    fn apply(self: &Arc<Self>, epoch: Epoch, wanted: Wanted) -> Result<(), DriverError> {
        let mut state = self.state();
        match state.newest {
            Some(newest) if epoch < newest => return Err(DriverError::Stale { given: epoch, newest }),
            _ => state.newest = Some(epoch),
        }
        let is_empty = !self.pins.exists() && !self.has_lost_pins(&state)?;
        if wanted.is_empty() || (!wanted.puts() && is_empty) {
            return Ok(());
        }
        if state.owner.is_none() {
            state.owner = Some(Owner::claim(self.pins.folder())?);
        }
        let _lock = self.pins.take()?;
        let engine = self.current_engine(&mut state)?;
        engine.refresh()?;
        engine.pin()?;
        let outcome = engine.apply(wanted);
        if engine.contents.objects.is_empty() {
            state.engine = None;
            state.owner = None;
            self.load_ahead();
        }
        outcome
    }

    fn check(&self, wanted: Wanted) -> Result<(), DriverError> {
        check::check_kinds(&wanted)?;
        self.with_current_engine(|engine| {
            engine.refresh()?;
            let contents = &mut engine.contents;
            let edit = contents.begin(wanted)?;
            let outcome = check::check_machine(contents, &edit).and_then(|()| check::check(contents, &edit));
            contents.revert(edit);
            contents.index.numbers.purge();
            outcome
        })
    }

    /// How many flows were meant; none where nothing is installed.
    fn sweep(&self, task: Sweep) -> Result<u64, DriverError> {
        if !self.pins.exists() {
            return Ok(0);
        }
        let program = self.with_current_engine(|engine| Ok(Arc::clone(&engine.programs.sweep)))?;
        sweep(&program, task)
    }

    fn counters(&self) -> Result<Vec<Counter>, DriverError> {
        self.sweep(Sweep::Tallies)?;
        let _lock = self.pins.share()?;
        self.with_pinned(counters::read)
    }

    /// Forgets flows that are over, and says how many; brings up to date what others decide. In the element's namespace.
    pub(crate) fn tidy(&self) -> Result<u64, DriverError> {
        if !self.pins.exists() {
            return Ok(0);
        }
        let strangers = self.with_current_engine(|engine| {
            if let Err(error) = surroundings::refresh(&engine.programs.maps) {
                tracing::debug!(element = %self.config.element, %error, "cannot bring ports up to date");
            }
            Ok(std::mem::take(&mut engine.strangers))
        })?;
        let strangers = if strangers { self.sweep(Sweep::Strangers(None))? } else { 0 };
        Ok(strangers + self.sweep(Sweep::Idle)?)
    }

    fn observe(&self) -> Result<Observed, DriverError> {
        self.with_current_engine(|engine| self.look(engine).observe())
    }

    fn look<'a>(&'a self, engine: &'a Engine) -> Look<'a> {
        Look { pins: &self.pins, config: &self.config, programs: &engine.programs }
    }

    /// Whether our programs run, and only the pins were taken away.
    fn has_lost_pins(&self, state: &State) -> Result<bool, DriverError> {
        match &state.engine {
            Some(engine) => Ok(!engine.contents.objects.is_empty() && engine.is_current()?),
            None => Ok(false),
        }
    }

    /// With the engine that holds what is pinned now, for looking. No other driver changes anything meanwhile.
    fn with_current_engine<T>(
        &self,
        work: impl FnOnce(&mut Engine) -> Result<T, DriverError>,
    ) -> Result<T, DriverError> {
        let mut state = self.state();
        let _lock = self.pins.share()?;
        work(self.current_engine(&mut state)?)
    }

    /// The engine that holds what is pinned now, whoever pinned it.
    fn current_engine<'a>(&self, state: &'a mut State) -> Result<&'a mut Engine, DriverError> {
        let current = match &state.engine {
            Some(engine) => engine.is_current()?,
            None => false,
        };
        match state.engine.take().filter(|_| current) {
            Some(engine) => Ok(state.engine.insert(engine)),
            None => Ok(state.engine.insert(self.load()?)),
        }
    }

    /// With the maps that are pinned; nothing where there are none.
    fn with_pinned<T: Default>(
        &self,
        work: impl FnOnce(&Maps) -> Result<T, DriverError>,
    ) -> Result<T, DriverError> {
        match Maps::pinned(self.pins.folder())? {
            Some(maps) => work(&maps),
            None => Ok(T::default()),
        }
    }

    fn load(&self) -> Result<Engine, DriverError> {
        Engine::load(self.pins.clone(), Arc::clone(&self.config))
    }

    /// Loads the next engine while nobody waits for it.
    fn load_ahead(self: &Arc<Self>) {
        let inner = Arc::clone(self);
        std::thread::spawn(move || {
            // If it cannot be loaded now, whoever needs it will be told why.
            let _ = inner.in_netns(|| inner.with_current_engine(|_| Ok(())));
        });
    }

    fn in_netns<T: Send>(
        &self,
        work: impl FnOnce() -> Result<T, DriverError> + Send,
    ) -> Result<T, DriverError> {
        self.config.netns.run(|| Ok(work())).map_err(|error| namespace_failed(&self.config, error))?
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whatever a panic left half done is found by looking at the maps.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched for Inner {
    fn netns(&self) -> &NetNs {
        &self.config.netns
    }

    fn pins(&self) -> &Pins {
        &self.pins
    }

    fn look_every(&self) -> Duration {
        self.config.times.look
    }

    fn groups(&self) -> &[u32] {
        &[
            libc::RTNLGRP_LINK,
            libc::RTNLGRP_TC,
            libc::RTNLGRP_NEIGH,
            libc::RTNLGRP_IPV4_ROUTE,
            libc::RTNLGRP_IPV4_RULE,
        ]
    }

    fn refresh(&self) -> Result<(), DriverError> {
        if !self.pins.exists() {
            return Ok(());
        }
        self.in_netns(|| self.with_current_engine(|engine| surroundings::refresh(&engine.programs.maps)))
    }

    fn misrouted(&self) -> Result<BTreeSet<Damage>, DriverError> {
        self.in_netns(|| self.with_current_engine(|engine| self.look(engine).misrouted(&engine.contents)))
    }

    /// What is wrong with the attachments.
    fn damage(&self) -> Result<BTreeSet<Damage>, DriverError> {
        self.in_netns(|| {
            self.with_current_engine(|engine| {
                engine.refresh()?;
                self.look(engine).damage(&engine.contents)
            })
        })
    }
}

fn sweep_until(ended: &sync_mpsc::Receiver<()>, driver: &Weak<Inner>, interval: Duration) {
    while ended.recv_timeout(interval) == Err(sync_mpsc::RecvTimeoutError::Timeout) {
        let Some(inner) = driver.upgrade() else { return };
        match inner.in_netns(|| inner.tidy()) {
            Ok(0) => {}
            Ok(count) => tracing::trace!(element = %inner.config.element, count, "idle flows are forgotten"),
            Err(error) => tracing::debug!(element = %inner.config.element, %error, "cannot sweep flows"),
        }
    }
}

fn namespace_failed(config: &Config, error: io::Error) -> DriverError {
    DriverError::failed(format!("cannot enter the network namespace of {}", config.element), error)
}
