//! Policy-based routing in eBPF: a [`Driver`] for rules and tables.
//!
//! A program at tc ingress of the element's ports (`bpf/route.bpf.c`) finds a packet's rule by a look into a hash for each
//! class of rules ([`class`]), at a cost that does not grow with the tenants, and sends the packet to its next hop. The kernel
//! has for each next hop a line of `ip rule` and a routing table ([`catena_driver::hops`]), for packets that a router has to
//! think about, and for each port a line that drops what the program has not looked at. So whatever is taken away, what a
//! rule claims goes to its next hop or nowhere.
//!
//! What is installed stands in the maps alone, which are pinned; [`contents`] reads them and works out what changes make of
//! it, [`settle`] makes the element so, [`observe`] says what of it works.

mod class;
mod contents;
pub(crate) mod layout;
mod maps;
mod observe;
mod own;
mod ports;
pub(crate) mod program;
mod settle;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use catena_driver::hops::{HopId, Kernel, Numbers, Place};
use catena_driver::netlink::Connection;
use catena_driver::netns::NetNs;
use catena_driver::{Counted, Counter, Driver, DriverError, Epoch, Event};
use catena_model::forwarding::{Change, Delivery, ElementState, Kind, TUNNEL_PORT};
use catena_model::name::{NodeName, PortName};
use catena_model::resource::LinuxSpec;
use tokio::sync::mpsc;

use crate::bpf;
use crate::counters;
use crate::events::{self, Watched};
use crate::hook::{Attachments, Hook};
use crate::neighbours;
use crate::observe::Damage;
use crate::owner::Owner;
use crate::pins::Pins;
use crate::ports::Finder;
use crate::route::contents::{Contents, Edit};
use crate::route::maps::Maps;
use crate::route::observe::Look;
use crate::route::program::Programs;
use crate::route::settle::{Needed, Tools};
use crate::surroundings;

/// Which element to route on, and how.
#[derive(Clone, Debug)]
pub struct RouteConfig {
    pub element: NodeName,
    pub netns: NetNs,
    /// The folder of the element's pins, as the steering engine has it ([`Config`](crate::Config)); ours is beside it.
    pub pins: PathBuf,
    /// Which numbers are ours, and for how many tenants there is to be room. Its namespace's name is for messages alone.
    pub spec: LinuxSpec,
    /// How to attach; `None` for what suits the port.
    pub hook: Option<Hook>,
    /// How often attachments are looked at.
    pub look: Duration,
}

/// The routing engine of one element. Dropping it ends nothing but our care: packets go on.
#[derive(Debug)]
pub struct RouteDriver {
    shared: Arc<Shared>,
}

struct Shared {
    config: RouteConfig,
    place: Place,
    numbers: Numbers,
    pins: Pins,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    newest: Option<Epoch>,
    /// Loaded when first needed, and again when other maps are pinned.
    engine: Option<Engine>,
    /// From the first change on, for as long as there is any object.
    owner: Option<Arc<Owner>>,
}

struct Engine {
    programs: Programs,
    attachments: Attachments,
}

impl RouteDriver {
    /// Touches nothing yet.
    pub fn new(config: RouteConfig) -> Result<Self, DriverError> {
        let pins = Pins::of_routes(config.pins.clone());
        pins.check()?;
        let place = Place { element: config.element.clone(), netns: config.spec.netns.clone() };
        let numbers = Numbers::of(&config.spec);
        let shared = Shared { config, place, numbers, pins, state: Mutex::default() };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The program and its maps, to be tried on packets.
    #[cfg(test)]
    pub(crate) fn with_programs<T: Send>(&self, work: impl FnOnce(&Programs) -> T + Send) -> T {
        let shared = &self.shared;
        let outcome = shared.in_netns(|| {
            let mut state = shared.state();
            Ok(work(&shared.current_engine(&mut state)?.programs))
        });
        outcome.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Runs `work`, which waits for the kernel, where waiting disturbs nobody, and in the element's namespace.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, DriverError> + Send + 'static,
    ) -> Result<T, DriverError> {
        let shared = Arc::clone(&self.shared);
        match tokio::task::spawn_blocking(move || shared.in_netns(|| work(&shared))).await {
            Ok(outcome) => outcome,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(error) => Err(DriverError::failed("the program ends", error)),
            },
        }
    }
}

#[async_trait]
impl Driver for RouteDriver {
    fn capabilities(&self) -> BTreeSet<Kind> {
        BTreeSet::from([Kind::Table, Kind::Rule])
    }

    async fn check(&self, changes: &[Change]) -> Result<(), DriverError> {
        let changes = changes.to_vec();
        self.blocking(move |shared| shared.check(&changes)).await
    }

    async fn observe(&self) -> Result<ElementState, DriverError> {
        let (state, damage) = self
            .blocking(|shared| {
                // The tunnels' port comes after the rules for what it brings, and is not to wait for an event.
                shared.keep_up()?;
                shared.observe()
            })
            .await?;
        for damage in &damage {
            tracing::debug!(element = %self.shared.config.element, damage, "observed as leading nowhere");
        }
        Ok(state)
    }

    async fn apply(&self, epoch: Epoch, changes: &[Change]) -> Result<(), DriverError> {
        let changes = changes.to_vec();
        self.blocking(move |shared| shared.apply(epoch, &changes)).await
    }

    fn events(&self) -> mpsc::Receiver<Event> {
        events::watch(&self.shared)
    }

    async fn counters(&self) -> Result<Vec<Counter>, DriverError> {
        self.blocking(|shared| {
            let _lock = shared.pins.share()?;
            let Some(maps) = Maps::pinned(shared.pins.folder())? else { return Ok(Vec::new()) };
            let drops = maps.drops.per_cpu_entries(counters::sum)?.into_iter();
            let drops = drops.filter(|(_, counter)| counter.packets > 0);
            Ok(drops
                .filter_map(|(reason, counter)| {
                    let of = Counted::Dropped { path: None, reason: counters::reason(reason)? };
                    Some(Counter { of, packets: counter.packets, bytes: counter.bytes })
                })
                .collect())
        })
        .await
    }
}

impl Shared {
    fn apply(&self, epoch: Epoch, changes: &[Change]) -> Result<(), DriverError> {
        let mut state = self.state();
        match state.newest {
            Some(newest) if epoch < newest => return Err(DriverError::Stale { given: epoch, newest }),
            _ => state.newest = Some(epoch),
        }
        let puts = changes.iter().any(|change| matches!(change, Change::Put { .. }));
        let is_empty = !self.pins.exists() && !self.has_lost_pins(&state)?;
        if changes.is_empty() || (!puts && is_empty) {
            return Ok(());
        }
        if state.owner.is_none() {
            state.owner = Some(Owner::claim(self.pins.folder())?);
        }
        let _lock = self.pins.take()?;
        let engine = self.current_engine(&mut state)?;
        engine.pin(&self.pins)?;
        let outcome = self.change(engine, changes);
        // Even after a failure: a folder for nothing goes.
        if Contents::read(&engine.programs.maps)?.is_empty() {
            self.pins.remove_all()?;
            state.engine = None;
            state.owner = None;
        }
        outcome
    }

    /// All of the changes, or none.
    fn change(&self, engine: &mut Engine, changes: &[Change]) -> Result<(), DriverError> {
        let mut connection = self.connect()?;
        let look = self.look(engine, settle::look(&mut connection)?);
        let mut kernel = Kernel::new(&self.place, self.numbers, &mut connection);
        let found = Contents::read(&engine.programs.maps)?;
        let damaged = look.damages(&mut kernel, &found)?.rules(&found);
        let ports = look.ports;
        let edit = Edit::of(&self.place, &found, changes, damaged, |hop, family| kernel.is_free(hop, family));
        let edit = edit.and_then(|edit| expect_ports(&ports, &edit).map(|()| edit));
        // What is there is settled all the same: an element without any object is left as it was found.
        let edit = match edit {
            Ok(edit) => edit,
            Err(error) if found.is_empty() => {
                let mut tools = self.tools(engine, ports);
                tools.settle(&mut kernel, &found, &found, &Needed::default())?;
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        let mut tools = self.tools(engine, ports);
        let needed = Needed { hops: edit.put_hops };
        let outcome = tools.settle(&mut kernel, &found, &edit.wanted, &needed);
        if outcome.is_err() {
            let undone = Contents::read(&tools.programs.maps)
                .and_then(|half| tools.settle(&mut kernel, &half, &found, &Needed::default()));
            if let Err(error) = undone {
                tracing::warn!(element = %self.place.element, %error, "a change of routing could not be put back");
            }
        }
        outcome
    }

    fn check(&self, changes: &[Change]) -> Result<(), DriverError> {
        let mut connection = self.connect()?;
        let ports = settle::look(&mut connection)?;
        let mut kernel = Kernel::new(&self.place, self.numbers, &mut connection);
        let _lock = self.pins.share()?;
        let found = match Maps::pinned(self.pins.folder())? {
            Some(maps) => Contents::read(&maps)?,
            None => Contents::default(),
        };
        let damaged = BTreeSet::new();
        let edit =
            Edit::of(&self.place, &found, changes, damaged, |hop, family| kernel.is_free(hop, family))?;
        expect_ports(&ports, &edit)
    }

    fn observe(&self) -> Result<(ElementState, BTreeSet<Damage>), DriverError> {
        let mut state = self.state();
        let _lock = self.pins.share()?;
        if let Some(damage) = self.missing_pins(&state)? {
            return Ok((ElementState::default(), damage));
        }
        let engine = self.current_engine(&mut state)?;
        let mut connection = self.connect()?;
        let look = self.look(engine, settle::look(&mut connection)?);
        let mut kernel = Kernel::new(&self.place, self.numbers, &mut connection);
        let contents = Contents::read(&engine.programs.maps)?;
        look.observe(&mut kernel, &contents)
    }

    /// `None` if all pins are there. If not, nobody else can tell what the program does, if it runs.
    fn missing_pins(&self, state: &State) -> Result<Option<BTreeSet<Damage>>, DriverError> {
        if self.pins.exists() && Maps::pinned(self.pins.folder())?.is_some() {
            return Ok(None);
        }
        let is_damage = self.pins.exists() || self.has_lost_pins(state)?;
        let damage = format!("pins are missing in {}", self.pins.folder().display());
        Ok(Some(is_damage.then_some(damage).into_iter().collect()))
    }

    /// Whether our program runs, and only the pins were taken away.
    fn has_lost_pins(&self, state: &State) -> Result<bool, DriverError> {
        state.engine.as_ref().map_or(Ok(false), |engine| engine.is_current(&self.pins))
    }

    /// What is wrong; after doing what the kernel's own routing would do by itself: what comes in by a new port is looked at,
    /// too, and a new address is the element's own.
    fn keep_up(&self) -> Result<BTreeSet<Damage>, DriverError> {
        let mut state = self.state();
        let shared = self.pins.share()?;
        if let Some(damage) = self.missing_pins(&state)? {
            return Ok(damage);
        }
        let engine = self.current_engine(&mut state)?;
        let mut connection = self.connect()?;
        let contents = Contents::read_frame(&engine.programs.maps)?;
        let look = self.look(engine, settle::look(&mut connection)?);
        let mut kernel = Kernel::new(&self.place, self.numbers, &mut connection);
        let damages = look.damages(&mut kernel, &contents)?;
        let ports = look.ports;
        let mut tools = self.tools(engine, ports);
        drop(shared);
        if !damages.new.is_empty() || tools.has_new_addresses()? {
            let _lock = self.pins.take()?;
            tools.note_own()?;
            tools.enter_new(&mut kernel, &contents, &damages.new)?;
        }
        Ok(damages.all())
    }

    fn look<'a>(&'a self, engine: &'a Engine, ports: ports::Ports) -> Look<'a> {
        Look {
            pins: &self.pins,
            hook: self.config.hook,
            programs: &engine.programs,
            ports,
            released: self.numbers.released,
        }
    }

    fn tools<'a>(&'a self, engine: &'a mut Engine, ports: ports::Ports) -> Tools<'a> {
        Tools {
            pins: &self.pins,
            programs: &engine.programs,
            attachments: &mut engine.attachments,
            ports,
            released: self.numbers.released,
        }
    }

    fn connect(&self) -> Result<Connection, DriverError> {
        Connection::open(&self.config.netns)
            .map_err(|error| DriverError::failed(format!("{}: opening netlink", self.place), error))
    }

    /// The engine that holds what is pinned now, whoever pinned it.
    fn current_engine<'a>(&self, state: &'a mut State) -> Result<&'a mut Engine, DriverError> {
        let current = match &state.engine {
            Some(engine) => engine.is_current(&self.pins)?,
            None => false,
        };
        match state.engine.take().filter(|_| current) {
            Some(engine) => Ok(state.engine.insert(engine)),
            None => {
                let programs = Programs::load(&self.pins, self.config.spec.steer.tenants)?;
                let attachments = Attachments::open(self.config.hook, &self.pins)?;
                Ok(state.engine.insert(Engine { programs, attachments }))
            }
        }
    }

    fn in_netns<T: Send>(
        &self,
        work: impl FnOnce() -> Result<T, DriverError> + Send,
    ) -> Result<T, DriverError> {
        self.config.netns.run(|| Ok(work())).map_err(|error| {
            DriverError::failed(format!("cannot enter the network namespace of {}", self.place), error)
        })?
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whatever a panic left half done is found by looking at the maps.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// Whether it holds the maps that are pinned; or nothing is, since the pins were taken away from under a program that still
    /// runs.
    fn is_current(&self, pins: &Pins) -> Result<bool, DriverError> {
        match Maps::pinned(pins.folder())? {
            Some(pinned) => Ok(pinned.ids()? == self.programs.ids),
            None => {
                let ports = self.programs.maps.entrances.entries()?;
                Ok(self.attachments.any_alive(&self.programs.route, ports.iter().map(|(ifindex, _)| ifindex)))
            }
        }
    }

    /// Pins what is not pinned.
    fn pin(&self, pins: &Pins) -> Result<(), DriverError> {
        use std::os::fd::AsFd;
        for (name, map) in self.programs.maps.fds() {
            let path = pins.map(name);
            if !path.exists() {
                bpf::pin(map.as_fd(), &path)
                    .map_err(|error| DriverError::failed(format!("cannot pin {}", path.display()), error))?;
            }
        }
        self.attachments
            .pin(pins)
            .map_err(|error| DriverError::failed("cannot pin the links of ports", error))
    }
}

impl Watched for Shared {
    fn netns(&self) -> &NetNs {
        &self.config.netns
    }

    fn pins(&self) -> &Pins {
        &self.pins
    }

    fn look_every(&self) -> Duration {
        self.config.look
    }

    fn groups(&self) -> &[u32] {
        &[
            libc::RTNLGRP_LINK,
            libc::RTNLGRP_TC,
            libc::RTNLGRP_NEIGH,
            libc::RTNLGRP_IPV4_ROUTE,
            libc::RTNLGRP_IPV4_RULE,
            libc::RTNLGRP_IPV6_ROUTE,
            libc::RTNLGRP_IPV6_RULE,
        ]
    }

    /// Whether a hop's port leads into another namespace, and who answers for a next hop.
    fn refresh(&self) -> Result<(), DriverError> {
        self.in_netns(|| {
            let mut state = self.state();
            let _lock = self.pins.share()?;
            if self.missing_pins(&state)?.is_some() {
                return Ok(());
            }
            let maps = &self.current_engine(&mut state)?.programs.maps;
            let mut finder = Finder::open()?;
            let mut hops = maps.hops.entries()?;
            hops.retain(|(_, hop)| hop.ifindex != 0 && (hop.has_v4 | hop.has_v6) != 0);
            for (slot, hop) in &mut hops {
                let now = surroundings::lead(hop, Delivery::Direct, &mut finder)?;
                if now != *hop {
                    maps.hops.put(slot, &now)?;
                    *hop = now;
                }
            }
            neighbours::refresh((&maps.neighbours, &maps.attended), hops.iter().map(|(_, hop)| hop))
        })
    }

    fn damage(&self) -> Result<BTreeSet<Damage>, DriverError> {
        self.in_netns(|| self.keep_up())
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteDriver").field("place", &self.place).finish_non_exhaustive()
    }
}

/// Whether the ports that are put are there. Whoever makes the tunnels makes their port, after the rules for what it brings.
fn expect_ports(ports: &ports::Ports, edit: &Edit<'_>) -> Result<(), DriverError> {
    let hop = |hop: &HopId| edit.wanted.hops.get(hop).map(|next| &next.port);
    let named = edit.put_hops.iter().filter_map(hop).chain(&edit.put_ports);
    let missing =
        named.filter(|port: &&PortName| port.as_str() != TUNNEL_PORT).find(|port| ports.find(port).is_none());
    missing.map_or(Ok(()), |port| Err(DriverError::NoPort(port.clone())))
}
