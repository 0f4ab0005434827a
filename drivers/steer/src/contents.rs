//! What the maps say that the element does, in our words, and changing that in memory before it is changed in the maps.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use catena_driver::DriverError;
use catena_model::address::{Family, Prefix};
use catena_model::forwarding::{
    Change, Direction, ElementState, Exits, Hop, Ingress, Key, Object, Path, PathId, Policy, PolicyRule,
    Purpose, SiteId, VlanId,
};
use catena_model::name::PortName;

use crate::index::{Index, Space, indexed_alike};
use crate::layout::{
    self, ROLE_CLAIM, ROLE_SITE, ROLE_STEER, RULES_PER_BLOCK, SPACE_ALLOWED, SPACE_SITES, SPACES_UNUSED,
};
use crate::maps::Maps;
use crate::numbers::{Found, Numbers, slot_of};
use crate::words;

/// A port that the maps speak of, under the number that it had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KnownPort {
    pub(crate) name: PortName,
    pub(crate) entry: layout::Port,
}

/// All objects in the maps, whether they work or not, and the ports by their numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Contents {
    pub(crate) objects: ElementState,
    pub(crate) index: Index,
    /// Of the rules of each site's policy.
    generations: HashMap<SiteId, u32>,
    pub(crate) ports: BTreeMap<u32, KnownPort>,
    /// [`layout::Element::changes`] when they were read.
    pub(crate) changes: u64,
}

/// An object, and what the maps hold for it that it does not say itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) object: Object,
    /// Of a policy: which rules in the map are its own.
    pub(crate) generation: Option<u32>,
    /// Of a policy or path: whether its site is told by port.
    pub(crate) told_by_port: bool,
}

/// What is to become of each object that some changes are about, in the order of keys; `None`: it goes.
#[derive(Debug)]
pub(crate) struct Wanted(Vec<(Key, Option<Object>)>);

impl Wanted {
    /// Of several changes of one object the last counts.
    pub(crate) fn of(changes: &[Change]) -> Self {
        let mut wanted: Vec<_> = changes
            .iter()
            .map(|change| match change {
                Change::Put { new, .. } => (new.key(), Some(new.clone())),
                Change::Delete { old } => (old.key(), None),
            })
            .collect();
        wanted.sort_by(|(one, _), (other, _)| one.cmp(other));
        wanted.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                std::mem::swap(later, earlier);
            }
            same
        });
        Self(wanted)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.0.iter().map(|(key, _)| key)
    }

    /// Whether anything is to be there afterwards.
    pub(crate) fn puts(&self) -> bool {
        self.0.iter().any(|(_, after)| after.is_some())
    }

    fn contains(&self, key: &Key) -> bool {
        self.0.binary_search_by(|(other, _)| other.cmp(key)).is_ok()
    }

    fn add(&mut self, objects: Vec<Object>) {
        self.0.extend(objects.into_iter().map(|object| (object.key(), Some(object))));
        self.0.sort_by(|(one, _), (other, _)| one.cmp(other));
    }
}

/// What becomes of one object.
#[derive(Clone, Debug)]
pub(crate) struct Delta {
    pub(crate) before: Option<Version>,
    pub(crate) after: Option<Version>,
}

impl Delta {
    fn leaves_index(&self) -> bool {
        let versions = self.before.as_ref().zip(self.after.as_ref());
        versions.is_some_and(|(before, after)| {
            before.told_by_port == after.told_by_port && indexed_alike(&before.object, &after.object)
        })
    }
}

/// What changes become of, all together: in memory it has happened. What uses others is behind them, but for what the
/// index holds as before: that comes first.
#[derive(Debug, Default)]
pub(crate) struct Edit {
    pub(crate) deltas: Vec<Delta>,
    /// As before: what no prefix that stays needs is forgotten when the edit is taken back.
    former_lengths: Option<[Vec<u8>; 4]>,
}

impl Contents {
    /// Makes the changes in memory. If they do not fit together, nothing is changed.
    pub(crate) fn begin(&mut self, mut wanted: Wanted) -> Result<Edit, DriverError> {
        let told_otherwise = self.told_otherwise(&wanted);
        for site in &told_otherwise {
            let keys = self.index.paths_of(*site).map(Key::Path).chain([Key::Policy(*site)]);
            let keys = keys.filter(|key| !wanted.contains(key));
            let objects = keys.filter_map(|key| self.objects.get(&key).cloned()).collect();
            wanted.add(objects);
        }
        let replaces = |key: &Key, after: &Object| {
            self.objects.get(key).is_some_and(|before| indexed_alike(before, after))
                && site_of(after).is_none_or(|site| !told_otherwise.contains(&site))
        };
        let (alike, others): (Vec<_>, Vec<_>) =
            wanted.0.into_iter().partition(|(key, after)| after.as_ref().is_some_and(|it| replaces(key, it)));

        let mut edit = Edit {
            deltas: Vec::with_capacity(alike.len() + others.len()),
            former_lengths: Some(self.lengths()),
        };
        edit.deltas.extend(alike.into_iter().filter_map(|(_, after)| Some(self.replace(after?))));
        // Users first, so the last of them is the first to be put again.
        let mut before: Vec<_> = others.iter().rev().map(|(key, _)| self.remove(key)).collect();
        let mut outcome = Ok(());
        for (_, after) in others {
            let before = before.pop().flatten();
            let after = match after.filter(|_| outcome.is_ok()) {
                Some(object) => match self.index.accepts(&object) {
                    Ok(()) => Some(self.insert(object, before.as_ref())),
                    Err(error) => {
                        outcome = Err(error);
                        None
                    }
                },
                None => None,
            };
            if before.is_some() || after.is_some() {
                edit.deltas.push(Delta { before, after });
            }
        }
        match outcome {
            Ok(()) => Ok(edit),
            Err(error) => {
                self.revert(edit);
                Err(error)
            }
        }
    }

    /// Makes undone what an edit did in memory. Gives the edit that does the same in the maps.
    pub(crate) fn revert(&mut self, edit: Edit) -> Edit {
        for delta in edit.deltas.iter().rev().filter(|delta| !delta.leaves_index()) {
            if let Some(version) = &delta.after {
                self.remove(&version.object.key());
            }
        }
        if let Some([sites4, sites6, allowed4, allowed6]) = &edit.former_lengths {
            self.index.sites.adopt_lengths(Family::V4, sites4);
            self.index.sites.adopt_lengths(Family::V6, sites6);
            self.index.allowed.adopt_lengths(Family::V4, allowed4);
            self.index.allowed.adopt_lengths(Family::V6, allowed6);
        }
        let mut deltas = Vec::with_capacity(edit.deltas.len());
        for delta in edit.deltas {
            if let Some(version) = &delta.before {
                if delta.leaves_index() {
                    self.put(version.object.clone(), Some(version));
                } else {
                    self.insert(version.object.clone(), Some(version));
                }
            }
            deltas.push(Delta { before: delta.after, after: delta.before });
        }
        Edit { deltas, former_lengths: None }
    }

    /// Gives each policy whose rules are new a generation of its own.
    pub(crate) fn number_generations(&mut self, edit: &mut Edit) {
        for delta in &mut edit.deltas {
            if let Some(version) = &mut delta.after
                && let Object::Policy(policy) = &version.object
                && version.generation.is_none()
            {
                let generation = self.index.numbers.generation();
                self.generations.insert(policy.site, generation);
                version.generation = Some(generation);
            }
        }
    }

    fn insert(&mut self, object: Object, before: Option<&Version>) -> Version {
        self.index.insert(&object);
        self.put(object, before)
    }

    /// The index knows it already.
    fn put(&mut self, object: Object, before: Option<&Version>) -> Version {
        self.objects.insert(object.clone());
        self.version(object, before)
    }

    fn remove(&mut self, key: &Key) -> Option<Version> {
        let object = self.objects.remove(key)?;
        let version = self.former(object);
        self.index.remove(&version.object);
        Some(version)
    }

    /// Puts `after` in the place of an object that the index holds alike.
    fn replace(&mut self, after: Object) -> Delta {
        let before = self.objects.insert(after.clone()).map(|before| self.former(before));
        let after = Some(self.version(after, before.as_ref()));
        Delta { before, after }
    }

    /// An object that takes the place of `before`.
    fn version(&mut self, object: Object, before: Option<&Version>) -> Version {
        let generation = before.filter(|before| has_rules_of(&object, before)).and_then(|it| it.generation);
        if let (Object::Policy(policy), Some(generation)) = (&object, generation) {
            self.generations.insert(policy.site, generation);
        }
        Version { generation, told_by_port: self.is_told_by_port(&object), object }
    }

    /// An object that was here until now.
    fn former(&mut self, object: Object) -> Version {
        let generation = match &object {
            Object::Policy(policy) => self.generations.remove(&policy.site),
            _ => None,
        };
        Version { generation, told_by_port: self.is_told_by_port(&object), object }
    }

    fn is_told_by_port(&self, object: &Object) -> bool {
        site_of(object).is_some_and(|site| self.index.is_told_by_port(site))
    }
    /// The sites that are told by port from now on and were not before, or the other way round.
    fn told_otherwise(&self, wanted: &Wanted) -> BTreeSet<SiteId> {
        let mut balance: BTreeMap<SiteId, isize> = BTreeMap::new();
        for (key, after) in wanted.0.iter().filter(|(key, _)| matches!(key, Key::Ingress(_))) {
            let site = |object: &Object| match object {
                Object::Ingress(ingress) => ingress.site,
                _ => None,
            };
            if let Some(site) = self.objects.get(key).and_then(site) {
                *balance.entry(site).or_default() -= 1;
            }
            if let Some(site) = after.as_ref().and_then(site) {
                *balance.entry(site).or_default() += 1;
            }
        }
        let turned = |(site, change): (SiteId, isize)| {
            let before = self.index.ports_telling(site) as isize;
            ((before == 0) != (before + change == 0)).then_some(site)
        };
        balance.into_iter().filter_map(turned).collect()
    }

    fn lengths(&self) -> [Vec<u8>; 4] {
        let Index { sites, allowed, .. } = &self.index;
        [(sites, Family::V4), (sites, Family::V6), (allowed, Family::V4), (allowed, Family::V6)]
            .map(|(space, family)| space.lengths(family).to_vec())
    }
}

fn has_rules_of(object: &Object, before: &Version) -> bool {
    match (object, &before.object) {
        (Object::Policy(new), Object::Policy(old)) => new.rules == old.rules,
        _ => false,
    }
}

fn site_of(object: &Object) -> Option<SiteId> {
    match object {
        Object::Policy(policy) => Some(policy.site),
        Object::Path(path) => Some(path.site),
        _ => None,
    }
}

/// Reading. What cannot be read is left out: nobody can have meant it.
impl Contents {
    pub(crate) fn read(maps: &Maps) -> Result<Self, DriverError> {
        let changes = maps.element()?.changes;
        let mut contents = Self { changes, ..Self::default() };
        let mut found = Found::default();
        let mut objects = Vec::new();
        contents.read_ports(maps, &mut objects)?;
        read_instances(maps, &mut found, &mut objects)?;
        read_paths(maps, &mut found, &mut objects)?;

        let prefixes = Prefixes::read(maps)?;
        contents.read_policies(maps, &prefixes, &mut found, &mut objects)?;
        read_tunnels(maps, &prefixes, &mut objects)?;
        found.realms = prefixes.realms.iter().map(|(site, realm)| (*site, *realm)).collect();
        contents.index.numbers = Numbers::new(found);
        for (space, number) in
            [(&mut contents.index.sites, SPACE_SITES), (&mut contents.index.allowed, SPACE_ALLOWED)]
        {
            for family in [Family::V4, Family::V6] {
                space.adopt_lengths(family, prefixes.lengths(number, family));
            }
        }
        // By their keys, since what is said of a site depends on its ingresses.
        contents.objects.extend(objects);
        contents.objects.iter().for_each(|object| contents.index.insert(object));
        Ok(contents)
    }

    fn read_ports(&mut self, maps: &Maps, objects: &mut Vec<Object>) -> Result<(), DriverError> {
        for (ifindex, entry) in maps.all_ports()? {
            if let Some(name) = words::read_port_name(&entry.name) {
                objects.extend(read_ingress(&name, &entry).map(Object::Ingress));
                self.ports.insert(ifindex, KnownPort { name, entry });
            }
        }
        Ok(())
    }

    fn read_policies(
        &mut self,
        maps: &Maps,
        prefixes: &Prefixes,
        found: &mut Found,
        objects: &mut Vec<Object>,
    ) -> Result<(), DriverError> {
        let sides: HashMap<_, _> = maps
            .exits
            .entries()?
            .into_iter()
            .filter_map(|(slot, side)| words::read_side(&side).filter(|_| slot != 0).map(|side| (slot, side)))
            .collect();
        let blocks: HashMap<_, _> = maps
            .rules
            .entries()?
            .into_iter()
            .map(|(key, block)| ((key.generation, key.block), block))
            .collect();
        found.generations = blocks.keys().map(|(generation, _)| *generation).collect();
        found.exits = sides.iter().map(|(slot, side)| (side.clone(), *slot)).collect();
        for (site, entry) in maps.policies.entries()? {
            found.generations.insert(entry.generation);
            let exits = match entry.exits {
                [0, 0] => Some(None),
                [up, down] => sides
                    .get(&up)
                    .zip(sides.get(&down))
                    .map(|(up, down)| Some(Exits { up: up.clone(), down: down.clone() })),
            };
            let Some((exits, rules)) = exits.zip(read_rules(&entry, &blocks)) else { continue };
            let prefixes = if entry.realm == 0 { &prefixes.sites } else { &prefixes.told_by_port };
            self.generations.insert(SiteId(site), entry.generation);
            objects.push(Object::Policy(Policy {
                site: SiteId(site),
                prefixes: prefixes.get(&SiteId(site)).cloned().unwrap_or_default(),
                rules,
                exits,
            }));
        }
        Ok(())
    }
}

fn read_ingress(name: &PortName, entry: &layout::Port) -> Option<Ingress> {
    let purpose = match entry.roles & (ROLE_CLAIM | ROLE_STEER) {
        ROLE_CLAIM => Purpose::Claim,
        ROLE_STEER => Purpose::Steer,
        _ => return None,
    };
    let directions = Direction::BOTH.into_iter().filter(|direction| entry.directions & bit(*direction) != 0);
    Some(Ingress {
        port: name.clone(),
        directions: directions.collect(),
        purpose,
        site: (entry.roles & ROLE_SITE != 0).then_some(SiteId(entry.site)),
    })
}

/// The direction in a set of them.
pub(crate) fn bit(direction: Direction) -> u32 {
    1 << direction as u32
}

fn read_instances(maps: &Maps, found: &mut Found, objects: &mut Vec<Object>) -> Result<(), DriverError> {
    for (slot, entry) in maps.instances.entries()? {
        if entry.handle == 0 {
            // Of a free slot the number is the handle that it had last.
            found.last_handles.insert(slot, entry.id);
        } else if slot_of(entry.handle) == slot
            && let Some(instance) = words::read_instance(&entry)
        {
            found.instances.push((instance.id, entry.handle));
            objects.push(Object::Instance(instance));
        }
    }
    Ok(())
}

fn read_paths(maps: &Maps, found: &mut Found, objects: &mut Vec<Object>) -> Result<(), DriverError> {
    let mut handles: HashMap<_, _> = found.instances.iter().copied().collect();
    let mut hops: HashMap<u32, Hop> = HashMap::new();
    for (id, group) in maps.groups.entries()? {
        found.groups.insert(id);
        let Some(hop) = words::read_group(&group).filter(|_| group.id == id) else { continue };
        // Instances that are not installed have a handle all the same.
        let handles_fit = hop
            .ids()
            .zip(&group.members)
            .all(|(id, member)| *handles.entry(id).or_insert(member.handle) == member.handle);
        if handles_fit {
            hops.insert(id, hop);
        }
    }
    let vlans: HashMap<_, _> = maps.vlans.entries()?.into_iter().collect();
    for (id, entry) in maps.paths.entries()? {
        let Some(groups) = entry.groups.get(..entry.count as usize).filter(|_| entry.id == id) else {
            continue;
        };
        let Some(hops) = groups.iter().map(|group| hops.get(group).cloned()).collect::<Option<Vec<_>>>()
        else {
            continue;
        };
        let vlan = u16::try_from(entry.vlan).ok().and_then(VlanId::new);
        if vlan.is_none_or(|vlan| vlans.get(&vlan.get().into()) == Some(&id)) {
            objects.push(Object::Path(Path { id: PathId(id), site: SiteId(entry.site), hops, vlan }));
        }
    }
    found.instances = handles.into_iter().collect();
    found.hops = hops.into_iter().map(|(id, hop)| (hop, id)).collect();
    Ok(())
}

fn read_rules(
    policy: &layout::Policy,
    blocks: &HashMap<(u32, u32), layout::Rules>,
) -> Option<Vec<PolicyRule>> {
    (0..policy.count as usize)
        .map(|at| {
            let block = blocks.get(&(policy.generation, (at / RULES_PER_BLOCK) as u32))?;
            words::read_rule(&block.rules[at % RULES_PER_BLOCK])
        })
        .collect()
}

fn read_tunnels(maps: &Maps, prefixes: &Prefixes, objects: &mut Vec<Object>) -> Result<(), DriverError> {
    let locals: HashSet<_> = maps.tunnel_locals.entries()?.into_iter().map(|(local, _)| local).collect();
    let ends: HashMap<_, _> = maps.tunnel_ends.entries()?.into_iter().collect();
    for (site, entry) in maps.tunnels.entries()? {
        let Some(mut tunnel) = words::read_tunnel(site, &entry) else { continue };
        if ends.get(&words::tunnel_end(&tunnel)) == Some(&site) && locals.contains(&entry.local) {
            tunnel.allowed = prefixes.allowed.get(&tunnel.site).cloned().unwrap_or_default();
            objects.push(Object::Tunnel(tunnel));
        }
    }
    Ok(())
}

type PrefixesOfSites = HashMap<SiteId, BTreeSet<Prefix>>;

/// The prefixes in the maps that the programs can find.
#[derive(Debug, Default)]
struct Prefixes {
    lengths: HashMap<u32, layout::Lengths>,
    sites: PrefixesOfSites,
    allowed: PrefixesOfSites,
    told_by_port: PrefixesOfSites,
    /// The space of each of those sites.
    realms: HashMap<SiteId, u32>,
}

impl Prefixes {
    fn read(maps: &Maps) -> Result<Self, DriverError> {
        let mut read = Self { lengths: maps.lengths.entries()?.into_iter().collect(), ..Self::default() };
        for (key, site) in maps.prefixes.entries()? {
            let Some(prefix) = words::read_prefix(&key) else { continue };
            let site = SiteId(site);
            let listed = |space| read.lengths(space, prefix.family()).contains(&key.length);
            let found = match key.space {
                SPACE_SITES if listed(SPACE_SITES) => &mut read.sites,
                SPACE_ALLOWED if listed(SPACE_ALLOWED) => &mut read.allowed,
                space if space >= SPACES_UNUSED => {
                    read.realms.insert(site, u32::from(space - SPACES_UNUSED));
                    &mut read.told_by_port
                }
                _ => continue,
            };
            found.entry(site).or_default().insert(prefix);
        }
        Ok(read)
    }

    fn lengths(&self, space: u16, family: Family) -> &[u8] {
        let lengths = self.lengths.get(&lengths_at(space, family));
        lengths.and_then(|used| used.lengths.get(..used.count as usize)).unwrap_or_default()
    }
}

/// Where in the map of lengths those of a space and family stand.
pub(crate) fn lengths_at(space: u16, family: Family) -> u32 {
    2 * u32::from(space) + u32::from(family == Family::V6)
}

/// The lengths of a space as the map has them.
pub(crate) fn lengths_of(space: &Space, family: Family) -> layout::Lengths {
    let mut written = layout::Lengths::default();
    let lengths = space.lengths(family);
    for (length, written) in lengths.iter().zip(&mut written.lengths) {
        *written = *length;
    }
    written.count = lengths.len().min(written.lengths.len()) as u32;
    written
}
