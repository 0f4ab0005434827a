//! The simulated piece of world: what is installed on it, and what is to go wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use catena_model::base::BaseRouting;
use catena_model::forwarding::{Change, ElementState, Key, Object, PathId};
use catena_model::name::PortName;
use tokio::sync::mpsc;

use crate::{Counter, DriverError, Epoch, Event};

/// A simulated element. Clones are the same element.
#[derive(Clone, Debug)]
pub struct SimulatedElement(Arc<Mutex<World>>);

/// What goes wrong with one change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not applied, and the call fails.
    Refuse,
    /// It is applied, but the call fails: the answer got lost, or whoever gave it died.
    LoseAnswer,
    /// It is not applied, and the call never returns.
    Hang,
}

/// A change that changed something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    pub epoch: Epoch,
    pub change: Change,
}

#[derive(Debug)]
struct World {
    ours: ElementState,
    foreign: ElementState,
    /// All ports that anybody names are there, except these.
    unplugged: BTreeSet<PortName>,
    newest: Epoch,
    log: Vec<Applied>,
    listeners: Vec<mpsc::Sender<Event>>,

    faults: BTreeMap<u64, Fault>,
    /// How many changes have been asked for.
    asked: u64,
    /// Of a hundred changes, so many fail.
    flaky_percent: u64,
    delay: Option<Duration>,
    cut_off: bool,
    random: Random,

    flows: BTreeMap<PathId, u64>,
    counters: Vec<Counter>,
    base: Option<BaseRouting>,
    base_hidden: bool,
    read_delay: Option<Duration>,
}

/// What a test does to an element, and asks of it.
impl SimulatedElement {
    /// An element on which all goes well until it is told otherwise. What happens at random, happens in the same way
    /// for the same `seed`.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(World {
            ours: ElementState::default(),
            foreign: ElementState::default(),
            unplugged: BTreeSet::new(),
            newest: Epoch(0),
            log: Vec::new(),
            listeners: Vec::new(),
            faults: BTreeMap::new(),
            asked: 0,
            flaky_percent: 0,
            delay: None,
            cut_off: false,
            random: Random(seed),
            flows: BTreeMap::new(),
            counters: Vec::new(),
            base: None,
            base_hidden: false,
            read_delay: None,
        })))
    }

    /// What is installed, ours alone.
    pub fn installed(&self) -> ElementState {
        self.world().ours.clone()
    }

    /// All changes that changed something, in their order.
    pub fn log(&self) -> Vec<Applied> {
        self.world().log.clone()
    }

    /// The `nth` change from now meets this fault; 0 is the next one. Those before it in the same call are applied.
    pub fn fail(&self, nth: u64, fault: Fault) {
        let mut world = self.world();
        let at = world.asked + nth;
        world.faults.insert(at, fault);
    }

    /// From now on, `percent` of all changes fail at random, half of them after they were applied.
    pub fn flaky(&self, percent: u64) {
        self.world().flaky_percent = percent;
    }

    /// From now on, every change takes this long.
    pub fn slow(&self, delay: Duration) {
        self.world().delay = Some(delay);
    }

    /// From now on, reading what the owner set up takes this long.
    pub fn slow_to_read(&self, delay: Duration) {
        self.world().read_delay = Some(delay);
    }

    /// From now on, the element cannot be reached; what is installed stays and works.
    pub fn cut_off(&self) {
        self.world().cut_off = true;
    }

    /// Ends all faults, flakiness, slowness and being cut off.
    pub fn mend(&self) {
        let mut world = self.world();
        world.faults.clear();
        world.flaky_percent = 0;
        world.delay = None;
        world.cut_off = false;
    }

    /// Somebody removes one of our objects by hand. Says whether it was there.
    pub fn lose(&self, key: &Key) -> bool {
        let mut world = self.world();
        let lost = world.ours.remove(key).is_some();
        if lost {
            world.tell(Event::Drift { what: format!("{key:?} was removed") });
        }
        lost
    }

    /// Somebody removes one of our objects at random, if there is any: which one it was.
    pub fn lose_any(&self) -> Option<Key> {
        let key = {
            let mut world = self.world();
            let keys: Vec<_> = world.ours.iter().map(Object::key).collect();
            let chosen = world.random.below(keys.len().max(1) as u64);
            keys.get(chosen as usize).cloned()
        }?;
        self.lose(&key).then_some(key)
    }

    /// The port goes, and with it all of our objects at it.
    pub fn unplug(&self, port: &PortName) {
        let mut world = self.world();
        world.unplugged.insert(port.clone());
        let staying = world.ours.iter().filter(|object| !ports(object).contains(&port)).cloned().collect();
        world.ours = staying;
        world.tell(Event::Port { port: port.clone(), up: false });
    }

    /// The port comes back; what was at it does not.
    pub fn plug(&self, port: &PortName) {
        let mut world = self.world();
        world.unplugged.remove(port);
        world.tell(Event::Port { port: port.clone(), up: true });
    }

    /// Another controller, with a newer plan, has been here.
    pub fn supersede(&self, epoch: Epoch) {
        let mut world = self.world();
        world.newest = world.newest.max(epoch);
    }

    /// Another program puts an object of its own. It is in the way of ours with the same key.
    pub fn put_foreign(&self, object: Object) {
        self.world().foreign.insert(object);
    }

    pub fn remove_foreign(&self, key: &Key) {
        self.world().foreign.remove(key);
    }

    pub fn foreign(&self) -> ElementState {
        self.world().foreign.clone()
    }

    pub fn set_live_flows(&self, path: PathId, flows: u64) {
        self.world().flows.insert(path, flows);
    }

    pub fn set_counters(&self, counters: Vec<Counter>) {
        self.world().counters = counters;
    }

    pub fn set_base(&self, base: BaseRouting) {
        self.world().base = Some(base);
    }

    /// The same, and the kernel tells of it.
    pub fn reroute(&self, base: BaseRouting) {
        let mut world = self.world();
        world.base = Some(base);
        world.tell(Event::Routing);
    }

    /// From now on, or until now, the routing cannot be read.
    pub fn hide_base(&self, hidden: bool) {
        self.world().base_hidden = hidden;
    }
}

/// What a driver does to an element.
impl SimulatedElement {
    pub(super) fn check(&self, changes: &[Change]) -> Result<(), DriverError> {
        let world = self.reach()?;
        changes.iter().try_for_each(|change| world.admit(change))
    }

    pub(super) fn observe(&self) -> Result<ElementState, DriverError> {
        Ok(self.reach()?.ours.clone())
    }

    pub(super) fn begin(&self, epoch: Epoch) -> Result<(), DriverError> {
        self.reach()?.advance(epoch)
    }

    pub(super) fn read_delay(&self) -> Option<Duration> {
        self.world().read_delay
    }

    pub(super) fn delay(&self) -> Option<Duration> {
        self.world().delay
    }

    /// What is to go wrong with the change that is asked for now.
    pub(super) fn take_fault(&self) -> Option<Fault> {
        let mut world = self.world();
        let at = world.asked;
        world.asked += 1;
        if let Some(fault) = world.faults.remove(&at) {
            return Some(fault);
        }
        if world.flaky_percent > 0 && world.random.below(100) < world.flaky_percent {
            return Some(if world.random.below(2) == 0 { Fault::Refuse } else { Fault::LoseAnswer });
        }
        None
    }

    pub(super) fn apply(&self, epoch: Epoch, change: &Change) -> Result<(), DriverError> {
        let mut world = self.reach()?;
        // Another controller may have come while this call was slow.
        world.advance(epoch)?;
        world.admit(change)?;
        let mut after = world.ours.clone();
        after.apply(change);
        if after != world.ours {
            world.ours = after;
            world.log.push(Applied { epoch, change: change.clone() });
        }
        Ok(())
    }

    pub(super) fn listen(&self) -> mpsc::Receiver<Event> {
        let (sender, receiver) = mpsc::channel(64);
        self.world().listeners.push(sender);
        receiver
    }

    pub(super) fn counters(&self) -> Result<Vec<Counter>, DriverError> {
        Ok(self.reach()?.counters.clone())
    }

    pub(super) fn live_flows(&self, path: PathId) -> Result<u64, DriverError> {
        Ok(self.reach()?.flows.get(&path).copied().unwrap_or(0))
    }

    pub(super) fn base(&self) -> Result<Option<BaseRouting>, DriverError> {
        let world = self.reach()?;
        if world.base_hidden {
            return Err(DriverError::failed("a simulated fault", "the routing cannot be read"));
        }
        Ok(world.base.clone())
    }

    fn reach(&self) -> Result<MutexGuard<'_, World>, DriverError> {
        let world = self.world();
        if world.cut_off {
            return Err(DriverError::failed("a simulated fault", "the element cannot be reached"));
        }
        Ok(world)
    }

    /// A test that panicked while it held the element does not matter to the others.
    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl World {
    fn advance(&mut self, epoch: Epoch) -> Result<(), DriverError> {
        if epoch < self.newest {
            return Err(DriverError::Stale { given: epoch, newest: self.newest });
        }
        self.newest = epoch;
        Ok(())
    }

    fn admit(&self, change: &Change) -> Result<(), DriverError> {
        let Change::Put { new, .. } = change else { return Ok(()) };
        if let Some(port) = ports(new).into_iter().find(|port| self.unplugged.contains(*port)) {
            return Err(DriverError::NoPort(port.clone()));
        }
        if let Some(foreign) = self.foreign.get(&new.key()) {
            return Err(DriverError::Conflict {
                what: format!("{foreign:?}"),
                help: "remove it, or choose other numbers for ours".to_owned(),
            });
        }
        Ok(())
    }

    /// Listeners that have gone are forgotten; one that has much to read already will look anyway.
    fn tell(&mut self, event: Event) {
        self.listeners.retain(|listener| {
            !matches!(listener.try_send(event.clone()), Err(mpsc::error::TrySendError::Closed(_)))
        });
    }
}

/// The ports that an object is at.
fn ports(object: &Object) -> Vec<&PortName> {
    match object {
        Object::Table(table) => vec![&table.port],
        Object::Tunnel(tunnel) => vec![&tunnel.underlay],
        Object::Ingress(ingress) => vec![&ingress.port],
        Object::Instance(instance) => vec![&instance.inside.port, &instance.outside.port],
        Object::Path(_) => vec![],
        Object::Rule(rule) => rule.selector.in_port.iter().collect(),
        Object::Policy(policy) => {
            policy.exits.iter().flat_map(|exits| [&exits.up.port, &exits.down.port]).collect()
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % limit
    }
}
