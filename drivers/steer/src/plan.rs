//! What an edit means for the maps: all entries to write and to remove, before any is.

use std::collections::BTreeSet;

use catena_driver::DriverError;
use catena_model::address::{Family, Prefix};
use catena_model::forwarding::{
    Delivery, Direction, Instance, InstanceId, Key, Object, Path, Policy, SiteId, Tunnel,
};
use nix::time::{ClockId, clock_gettime};

use crate::contents::{Contents, Delta, Edit, Version, lengths_at, lengths_of};
use crate::counters::Gone;
use crate::index::members;
use crate::layout::{self, PrefixKey, RulesKey, SPACE_ALLOWED, SPACE_SITES, SPACES_UNUSED};
use crate::maps::Maps;
use crate::numbers::slot_of;
use crate::ports::{Finder, Touched, ports};
use crate::words;

/// The entries of one map.
#[derive(Debug)]
pub(crate) struct Entries<K, V> {
    pub(crate) keys: Vec<K>,
    pub(crate) values: Vec<V>,
    pub(crate) removed: Vec<K>,
}

impl<K, V> Default for Entries<K, V> {
    fn default() -> Self {
        Self { keys: Vec::new(), values: Vec::new(), removed: Vec::new() }
    }
}

impl<K, V> Entries<K, V> {
    fn put(&mut self, key: K, value: V) {
        self.keys.push(key);
        self.values.push(value);
    }
}

/// What has to be done in the kernel for an edit.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) lengths: Entries<u32, layout::Lengths>,
    /// Nothing is removed from arrays: what goes is put as free, later.
    pub(crate) instances: Entries<u32, layout::Instance>,
    pub(crate) freed_instances: Entries<u32, layout::Instance>,
    pub(crate) exits: Entries<u32, layout::Side>,
    pub(crate) groups: Entries<u32, layout::Group>,
    pub(crate) rules: Entries<RulesKey, layout::Rules>,
    pub(crate) paths: Entries<u32, layout::Path>,
    pub(crate) vlans: Entries<u32, u32>,
    pub(crate) policies: Entries<u32, layout::Policy>,
    pub(crate) tunnels: Entries<u32, layout::Tunnel>,
    pub(crate) tunnel_ends: Entries<layout::TunnelEnd, u32>,
    pub(crate) tunnel_locals: Entries<[u8; 16], u32>,
    pub(crate) prefixes: Entries<PrefixKey, u32>,
    pub(crate) ports: Touched,
    pub(crate) gone: Gone,
    /// Sites that some prefix was taken from.
    pub(crate) smaller_sites: Vec<SiteId>,
    exits_written: BTreeSet<u32>,
    groups_written: BTreeSet<u32>,
    instances_touched: BTreeSet<InstanceId>,
    locals_touched: BTreeSet<[u8; 16]>,
    spaces_touched: BTreeSet<u16>,
}

/// `contents` are as after the edit. Fails if a port is not there, or if there is no number for something.
pub(crate) fn plan(
    contents: &mut Contents,
    edit: &Edit,
    maps: &Maps,
    mark: u32,
    finder: &mut Finder,
) -> Result<Plan, DriverError> {
    let mut planner = Planner { contents, maps, mark, finder, plan: Plan::default() };
    for delta in &edit.deltas {
        planner.touch_ports(delta);
        if let Some(after) = &delta.after {
            planner.put(after, delta.before.as_ref())?;
        }
        if let Some(before) = &delta.before {
            planner.remove(before, delta.after.as_ref())?;
        }
    }
    planner.finish();
    Ok(planner.plan)
}

struct Planner<'a> {
    contents: &'a mut Contents,
    maps: &'a Maps,
    mark: u32,
    finder: &'a mut Finder,
    plan: Plan,
}

impl Planner<'_> {
    fn put(&mut self, version: &Version, before: Option<&Version>) -> Result<(), DriverError> {
        match &version.object {
            Object::Instance(instance) => self.put_instance(instance),
            Object::Path(path) => self.put_path(path, version.told_by_port),
            Object::Policy(policy) => self.put_policy(policy, version, before),
            Object::Tunnel(tunnel) => self.put_tunnel(tunnel),
            // An ingress is nothing but the role of its port.
            Object::Ingress(ingress) => self.finder.find(&ingress.port).map(drop),
            Object::Table(_) | Object::Rule(_) => Ok(()),
        }
    }

    fn remove(&mut self, before: &Version, after: Option<&Version>) -> Result<(), DriverError> {
        match (&before.object, after.map(|after| &after.object)) {
            (Object::Instance(instance), None) => self.free_instance(instance.id),
            (Object::Path(path), None) => {
                self.plan.paths.removed.push(path.id.0);
                self.leave_vlan(path, None);
                self.plan.gone.paths.push(path.clone());
            }
            (Object::Path(path), Some(Object::Path(new))) => self.leave_vlan(path, Some(new)),
            (Object::Policy(policy), _) => self.remove_policy(policy, before, after)?,
            (Object::Tunnel(tunnel), after) => self.remove_tunnel(tunnel, after),
            _ => {}
        }
        Ok(())
    }

    /// What was collected from several objects.
    fn finish(&mut self) {
        let Self { plan, contents, .. } = self;
        let index = &contents.index;
        for (space, prefixes) in [(SPACE_SITES, &index.sites), (SPACE_ALLOWED, &index.allowed)] {
            for family in [Family::V4, Family::V6] {
                if plan.spaces_touched.contains(&space) {
                    plan.lengths.put(lengths_at(space, family), lengths_of(prefixes, family));
                }
            }
        }
        for local in &plan.locals_touched {
            match index.tunnels_from(local) {
                0 => plan.tunnel_locals.removed.push(*local),
                count => plan.tunnel_locals.put(*local, count),
            }
        }
        for id in &plan.instances_touched {
            if let Some(Object::Instance(instance)) = contents.objects.get(&Key::Instance(*id)) {
                let sides = [&instance.inside.port, &instance.outside.port];
                plan.ports.others.extend(sides.into_iter().cloned());
            }
        }
    }

    fn touch_ports(&mut self, delta: &Delta) {
        let versions = [&delta.before, &delta.after];
        let objects = || versions.into_iter().flatten().map(|version| &version.object);
        if !is_change_of_state(delta) {
            self.plan.ports.named.extend(objects().flat_map(ports).cloned());
        }
        for object in objects() {
            match object {
                Object::Path(path) => self.plan.instances_touched.extend(members(path)),
                Object::Policy(policy) if self.contents.index.any_rewrites() => {
                    let paths = self.contents.index.paths_of(policy.site);
                    let paths = paths.filter_map(|path| self.contents.objects.get(&Key::Path(path)));
                    let members = paths.flat_map(|path| match path {
                        Object::Path(path) => members(path),
                        _ => BTreeSet::new(),
                    });
                    let rewriting = members.filter(|id| self.contents.index.rewrites(*id));
                    self.plan.instances_touched.extend(rewriting);
                }
                _ => {}
            }
        }
    }

    fn put_instance(&mut self, instance: &Instance) -> Result<(), DriverError> {
        let handle = self.contents.index.numbers.handle(instance.id)?;
        let slot = slot_of(handle);
        let former = self.maps.instances.get(&slot)?.unwrap_or_default();
        let inside = self.finder.find(&instance.inside.port)?;
        let outside = self.finder.find(&instance.outside.port)?;
        self.plan.instances.put(slot, words::instance(instance, handle, [&inside, &outside], &former)?);
        Ok(())
    }

    /// Nobody is there. The slot goes on bearing its handle's serial number.
    fn free_instance(&mut self, id: InstanceId) {
        if let Some(handle) = self.contents.index.numbers.instances.get(&id) {
            self.plan.freed_instances.put(slot_of(handle), free_slot(handle));
        }
    }

    fn put_path(&mut self, path: &Path, told_by_port: bool) -> Result<(), DriverError> {
        words::check_path(path)?;
        let mut entry = layout::Path {
            id: path.id.0,
            site: path.site.0,
            realm: realm(path.site, told_by_port),
            count: path.hops.len() as u32,
            vlan: path.vlan.map(|vlan| vlan.get().into()).unwrap_or_default(),
            ..Default::default()
        };
        let numbers = &mut self.contents.index.numbers;
        for (hop, written) in path.hops.iter().zip(&mut entry.groups) {
            *written = numbers.group(hop);
            if self.plan.groups_written.insert(*written) {
                let handles = hop.ids().map(|id| numbers.handle(id)).collect::<Result<Vec<_>, _>>()?;
                let mut handles = handles.into_iter();
                let group = words::group(*written, hop, |_| handles.next().unwrap_or_default());
                self.plan.groups.put(*written, group);
            }
        }
        self.plan.paths.put(path.id.0, entry);
        if let Some(vlan) = path.vlan {
            self.plan.vlans.put(vlan.get().into(), path.id.0);
        }
        Ok(())
    }

    fn leave_vlan(&mut self, old: &Path, new: Option<&Path>) {
        if let Some(vlan) = old.vlan.filter(|vlan| new.and_then(|new| new.vlan) != Some(*vlan))
            && self.contents.index.path_of(vlan).is_none()
        {
            self.plan.vlans.removed.push(vlan.get().into());
        }
    }

    fn put_policy(
        &mut self,
        policy: &Policy,
        version: &Version,
        before: Option<&Version>,
    ) -> Result<(), DriverError> {
        words::check_policy(policy)?;
        let generation = version.generation.unwrap_or_default();
        let mut entry = layout::Policy {
            generation,
            site: policy.site.0,
            realm: realm(policy.site, version.told_by_port),
            count: policy.rules.len() as u32,
            exits: [0; 2],
            since: self.rules_since(policy.site, generation, before)?,
        };
        if let Some(exits) = &policy.exits {
            for direction in Direction::BOTH {
                entry.exits[direction as usize] = self.put_exit(exits.of(direction))?;
            }
        }
        for (block, rules) in words::rules(&policy.rules).enumerate() {
            self.plan.rules.put(RulesKey { generation, block: block as u32 }, rules);
        }
        self.plan.policies.put(policy.site.0, entry);
        let space = self.space(policy.site, version.told_by_port, !policy.prefixes.is_empty())?;
        self.put_prefixes(space, policy.site, &policy.prefixes);
        Ok(())
    }

    /// When the rules took the place of others; 0 for the first.
    fn rules_since(
        &self,
        site: SiteId,
        generation: u32,
        before: Option<&Version>,
    ) -> Result<u64, DriverError> {
        match before.map(|before| before.generation) {
            None => Ok(0),
            Some(same) if same == Some(generation) => {
                Ok(self.maps.policies.get(&site.0)?.map_or(0, |entry| entry.since))
            }
            Some(_) => now(),
        }
    }

    fn put_exit(&mut self, side: &catena_model::forwarding::Side) -> Result<u32, DriverError> {
        let slot = self.contents.index.numbers.exit(side)?;
        if self.plan.exits_written.insert(slot) {
            let former = self.maps.exits.get(&slot)?.unwrap_or_default();
            let port = self.finder.find(&side.port)?;
            self.plan.exits.put(slot, words::side(side, &port, Delivery::Direct, &former)?);
        }
        Ok(slot)
    }

    fn remove_policy(
        &mut self,
        policy: &Policy,
        before: &Version,
        after: Option<&Version>,
    ) -> Result<(), DriverError> {
        let stays = match after {
            Some(Version { object: Object::Policy(stays), .. }) => Some(stays),
            _ => None,
        };
        if let Some(generation) = before.generation
            && after.and_then(|after| after.generation) != Some(generation)
        {
            let blocks = 0..words::blocks(policy.rules.len());
            self.plan.rules.removed.extend(blocks.map(|block| RulesKey { generation, block }));
        }
        let space = self.space(policy.site, before.told_by_port, !policy.prefixes.is_empty())?;
        let same_space = after.is_some_and(|after| after.told_by_port == before.told_by_port);
        let is_kept =
            |prefix: &Prefix| same_space && stays.is_some_and(|stays| stays.prefixes.contains(prefix));
        for prefix in policy.prefixes.iter().filter(|prefix| !is_kept(prefix)) {
            // Another site's by now: then it is written anew, not removed.
            if space != SPACE_SITES || self.contents.index.sites.owner(*prefix).is_none() {
                self.plan.prefixes.removed.push(words::prefix_key(space, *prefix));
            }
        }
        match stays {
            None => {
                self.plan.policies.removed.push(policy.site.0);
                self.plan.gone.sites.push(policy.site);
            }
            // Told by port from now on, it has none of them.
            Some(_) if !before.told_by_port && !policy.prefixes.iter().all(is_kept) => {
                self.plan.smaller_sites.push(policy.site);
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// Where the prefixes of a site stand.
    fn space(&mut self, site: SiteId, told_by_port: bool, has_prefixes: bool) -> Result<u16, DriverError> {
        if !told_by_port || !has_prefixes {
            return Ok(SPACE_SITES);
        }
        Ok(SPACES_UNUSED + self.contents.index.numbers.realm(site)? as u16)
    }

    fn put_prefixes<'a>(&mut self, space: u16, site: SiteId, prefixes: impl IntoIterator<Item = &'a Prefix>) {
        self.plan.spaces_touched.insert(space);
        for prefix in prefixes {
            self.plan.prefixes.put(words::prefix_key(space, *prefix), site.0);
        }
    }

    fn put_tunnel(&mut self, tunnel: &Tunnel) -> Result<(), DriverError> {
        let underlay = self.finder.find(&tunnel.underlay)?.ifindex;
        self.plan.tunnels.put(tunnel.site.0, words::tunnel(tunnel, underlay, self.mark)?);
        self.plan.tunnel_ends.put(words::tunnel_end(tunnel), tunnel.site.0);
        self.plan.locals_touched.insert(words::mapped(tunnel.local));
        self.put_prefixes(SPACE_ALLOWED, tunnel.site, &tunnel.allowed);
        Ok(())
    }

    fn remove_tunnel(&mut self, tunnel: &Tunnel, after: Option<&Object>) {
        let end = words::tunnel_end(tunnel);
        if self.contents.index.tunnel_at(&end).is_none() {
            self.plan.tunnel_ends.removed.push(end);
        }
        self.plan.locals_touched.insert(words::mapped(tunnel.local));
        for prefix in &tunnel.allowed {
            if self.contents.index.allowed.owner(*prefix).is_none() {
                self.plan.prefixes.removed.push(words::prefix_key(SPACE_ALLOWED, *prefix));
            }
        }
        if after.is_none() {
            self.plan.tunnels.removed.push(tunnel.site.0);
            self.plan.gone.tunnels.push(tunnel.site);
        }
    }
}

/// On the clock that the programs read (`bpf_ktime_get_coarse_ns`), in nanoseconds. The exact one runs up to a tick ahead of
/// it, and what is in the programs' future is taken for long ago.
pub(crate) fn now() -> Result<u64, DriverError> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE)
        .map_err(|error| DriverError::failed("cannot read the clock", error))?;
    Ok(now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
}

/// Of a slot where nobody is.
pub(crate) fn free_slot(handle: u32) -> layout::Instance {
    layout::Instance { id: handle, ..Default::default() }
}

fn realm(site: SiteId, told_by_port: bool) -> u32 {
    if told_by_port { site.0 } else { 0 }
}

/// Then its ports stay as they are: a function that fails is to be left at once.
fn is_change_of_state(delta: &Delta) -> bool {
    match (&delta.before, &delta.after) {
        (
            Some(Version { object: Object::Instance(before), .. }),
            Some(Version { object: Object::Instance(after), .. }),
        ) => before.state != after.state && Instance { state: after.state, ..before.clone() } == *after,
        _ => false,
    }
}
