//! Numbers for what the maps know by number: instances, exits, groups, generations of rules.
//!
//! None of this is kept anywhere but in the maps: who opens them finds out again what has which number.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;

use catena_driver::DriverError;
use catena_model::forwarding::{Hop, InstanceId, Side, SiteId};

use crate::layout::{EXIT_SLOTS, INSTANCE_SLOTS};

/// What is in use, how often, and under which number. A number is given when it is first asked for, and is free again
/// when [`purge`](Self::purge) finds that nobody uses it: until then a change can be undone.
#[derive(Clone, Debug)]
pub(crate) struct Numbered<T> {
    entries: HashMap<T, Entry>,
    /// What may be out of use.
    idle: Vec<T>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    uses: usize,
    number: Option<u32>,
}

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self { entries: HashMap::new(), idle: Vec::new() }
    }
}

impl<T: Clone + Eq + Hash> Numbered<T> {
    /// What the maps say; the first number counts.
    pub(crate) fn adopt(&mut self, thing: T, number: u32) {
        let entry = self.entries.entry(thing.clone()).or_default();
        entry.number.get_or_insert(number);
        self.idle.push(thing);
    }

    pub(crate) fn retain(&mut self, thing: &T) {
        match self.entries.get_mut(thing) {
            Some(entry) => entry.uses += 1,
            None => drop(self.entries.insert(thing.clone(), Entry { uses: 1, number: None })),
        }
    }

    pub(crate) fn release(&mut self, thing: &T) {
        if let Some(entry) = self.entries.get_mut(thing) {
            entry.uses = entry.uses.saturating_sub(1);
            if entry.uses == 0 {
                self.idle.push(thing.clone());
            }
        }
    }

    /// How many different things are, or were just now, in use.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn get(&self, thing: &T) -> Option<u32> {
        self.entries.get(thing)?.number
    }

    /// Forgets what nobody uses, and tells what had a number, and which.
    pub(crate) fn purge(&mut self) -> Vec<(T, u32)> {
        let mut freed = Vec::new();
        for thing in std::mem::take(&mut self.idle) {
            if self.entries.get(&thing).is_some_and(|entry| entry.uses == 0) {
                let number = self.entries.remove(&thing).and_then(|entry| entry.number);
                freed.extend(number.map(|number| (thing, number)));
            }
        }
        freed
    }

    fn number(&mut self, thing: &T, give: impl FnOnce() -> Option<u32>) -> Option<u32> {
        if let Some(entry) = self.entries.get_mut(thing) {
            entry.number = entry.number.or_else(give);
            return entry.number;
        }
        let number = give();
        self.entries.insert(thing.clone(), Entry { uses: 0, number });
        number
    }
}

/// Places in an array; the one that has been free for the longest is given first.
#[derive(Clone, Debug)]
struct Slots(VecDeque<u32>);

impl Slots {
    /// 1 up to below `end`, but for those that are taken.
    fn new(end: u32, taken: &HashSet<u32>) -> Self {
        Self((1..end).filter(|slot| !taken.contains(slot)).collect())
    }

    fn give(&mut self) -> Option<u32> {
        self.0.pop_front()
    }

    fn take_back(&mut self, slot: u32) {
        self.0.push_back(slot);
    }
}

/// Numbers that are not given again before all others were.
#[derive(Clone, Debug, Default)]
struct Series {
    last: u32,
    in_use: HashSet<u32>,
}

impl Series {
    fn new(in_use: HashSet<u32>) -> Self {
        Self { last: in_use.iter().copied().max().unwrap_or_default(), in_use }
    }

    fn give(&mut self) -> u32 {
        loop {
            self.last = self.last.wrapping_add(1).max(1);
            if self.in_use.insert(self.last) {
                return self.last;
            }
        }
    }

    fn take_back(&mut self, number: u32) {
        self.in_use.remove(&number);
    }
}

/// Numbers that are free again, whose entries in the maps can go.
#[derive(Clone, Debug, Default)]
pub(crate) struct Freed {
    /// With their handles.
    pub(crate) instances: Vec<(InstanceId, u32)>,
    pub(crate) exits: Vec<u32>,
    pub(crate) groups: Vec<u32>,
}

/// The numbers of one element.
#[derive(Clone, Debug)]
pub(crate) struct Numbers {
    pub(crate) instances: Numbered<InstanceId>,
    pub(crate) exits: Numbered<Side>,
    pub(crate) groups: Numbered<Hop>,
    /// Sites that are told by port; see [`SPACES_UNUSED`](crate::layout::SPACES_UNUSED).
    pub(crate) realms: Numbered<SiteId>,
    instance_slots: Slots,
    /// The handle that each slot had last.
    last_handles: Vec<u32>,
    exit_slots: Slots,
    group_ids: Series,
    realm_slots: Slots,
    generations: Series,
}

/// What was found in the maps.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The handle that is, or was last, in each slot.
    pub(crate) last_handles: HashMap<u32, u32>,
    pub(crate) groups: HashSet<u32>,
    pub(crate) generations: HashSet<u32>,
    pub(crate) instances: Vec<(InstanceId, u32)>,
    pub(crate) exits: Vec<(Side, u32)>,
    pub(crate) hops: Vec<(Hop, u32)>,
    pub(crate) realms: Vec<(SiteId, u32)>,
}

/// How many sites can be told by port: a port can be of one site, and there are no more ports than this.
pub(crate) const REALMS: u32 = 4096;

impl Default for Numbers {
    fn default() -> Self {
        Self::new(Found::default())
    }
}

impl Numbers {
    pub(crate) fn new(found: Found) -> Self {
        fn adopt<T: Clone + Eq + Hash>(found: Vec<(T, u32)>) -> (Numbered<T>, HashSet<u32>) {
            let mut numbered = Numbered::default();
            let taken = found.iter().map(|(_, number)| *number).collect();
            found.into_iter().for_each(|(thing, number)| numbered.adopt(thing, number));
            (numbered, taken)
        }
        let mut last_handles = vec![0; INSTANCE_SLOTS as usize];
        for (slot, handle) in found.last_handles {
            if let Some(last) = last_handles.get_mut(slot as usize) {
                *last = handle;
            }
        }
        let (instances, handles) = adopt(found.instances);
        for handle in &handles {
            last_handles[slot_of(*handle) as usize] = *handle;
        }
        let (exits, exit_slots) = adopt(found.exits);
        let (groups, _) = adopt(found.hops);
        let (realms, realm_slots) = adopt(found.realms);
        Self {
            instances,
            exits,
            groups,
            realms,
            instance_slots: Slots::new(INSTANCE_SLOTS, &handles.into_iter().map(slot_of).collect()),
            last_handles,
            exit_slots: Slots::new(EXIT_SLOTS, &exit_slots),
            group_ids: Series::new(found.groups),
            realm_slots: Slots::new(REALMS, &realm_slots),
            generations: Series::new(found.generations),
        }
    }

    /// An instance's handle: the slot in its low bits, above it how often the slot was given.
    pub(crate) fn handle(&mut self, id: InstanceId) -> Result<u32, DriverError> {
        let Self { instances, instance_slots, last_handles, .. } = self;
        let give = || {
            let slot = instance_slots.give()?;
            let serial = (last_handles[slot as usize] / INSTANCE_SLOTS + 1) % (u32::MAX / INSTANCE_SLOTS);
            last_handles[slot as usize] = serial.max(1) * INSTANCE_SLOTS + slot;
            Some(last_handles[slot as usize])
        };
        instances.number(&id, give).ok_or_else(|| full("instances of functions", INSTANCE_SLOTS - 1))
    }

    pub(crate) fn exit(&mut self, side: &Side) -> Result<u32, DriverError> {
        let Self { exits, exit_slots, .. } = self;
        exits.number(side, || exit_slots.give()).ok_or_else(|| full("different exits", EXIT_SLOTS - 1))
    }

    pub(crate) fn group(&mut self, hop: &Hop) -> u32 {
        let Self { groups, group_ids, .. } = self;
        groups.number(hop, || Some(group_ids.give())).unwrap_or_default()
    }

    pub(crate) fn realm(&mut self, site: SiteId) -> Result<u32, DriverError> {
        let Self { realms, realm_slots, .. } = self;
        realms.number(&site, || realm_slots.give()).ok_or_else(|| full("sites told by port", REALMS - 1))
    }

    pub(crate) fn generation(&mut self) -> u32 {
        self.generations.give()
    }

    pub(crate) fn end_generation(&mut self, generation: u32) {
        self.generations.take_back(generation);
    }

    /// Whether everything that is in use can have a number.
    pub(crate) fn check(&self) -> Result<(), DriverError> {
        let limits = [
            (self.instances.len(), INSTANCE_SLOTS, "instances of functions"),
            (self.exits.len(), EXIT_SLOTS, "different exits"),
            (self.realms.len(), REALMS, "sites told by port"),
        ];
        match limits.into_iter().find(|(count, slots, _)| *count >= *slots as usize) {
            Some((_, slots, what)) => Err(full(what, slots - 1)),
            None => Ok(()),
        }
    }

    pub(crate) fn purge(&mut self) -> Freed {
        let freed = Freed {
            instances: self.instances.purge(),
            exits: self.exits.purge().into_iter().map(|(_, slot)| slot).collect(),
            groups: self.groups.purge().into_iter().map(|(_, id)| id).collect(),
        };
        freed.instances.iter().for_each(|(_, handle)| self.instance_slots.take_back(slot_of(*handle)));
        freed.exits.iter().for_each(|slot| self.exit_slots.take_back(*slot));
        freed.groups.iter().for_each(|id| self.group_ids.take_back(*id));
        self.realms.purge().into_iter().for_each(|(_, slot)| self.realm_slots.take_back(slot));
        freed
    }
}

pub(crate) fn slot_of(handle: u32) -> u32 {
    handle % INSTANCE_SLOTS
}

fn full(what: &str, most: u32) -> DriverError {
    DriverError::Unsupported {
        what: format!("the element would have more {what} than the steering engine holds"),
        help: format!("use at most {most}"),
    }
}
