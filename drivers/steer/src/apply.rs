//! Changing what the engine does.
//!
//! All changes of one call happen together, or not at all. First in memory, where they are checked against each other;
//! then it is worked out what they mean for the maps; then the maps are written, so that no packet finds a half: what is
//! referred to before what refers to it, the other way round when something goes, and whatever comes before whatever
//! goes. If the kernel refuses something on the way, the reverse is done by the same means.

use catena_driver::DriverError;
use catena_model::forwarding::Object;
use catena_model::name::PortName;

use crate::check;
use crate::contents::{Edit, Wanted};
use crate::counters::{self, Gone};
use crate::device::Device;
use crate::engine::Engine;
use crate::flows::{Sweep, sweep};
use crate::layout;
use crate::neighbours;
use crate::numbers::{Freed, slot_of};
use crate::plan::{Plan, free_slot, plan};
use crate::ports::Finder;

/// Of more paths or sites than this the flow table is not gone over for each of them, but once for all that are not there.
const FEW_SWEEPS: usize = 8;

impl Engine {
    /// In the element's namespace, with the pins taken.
    pub(crate) fn apply(&mut self, wanted: Wanted) -> Result<(), DriverError> {
        self.write_settings()?;
        let outcome = self.change(wanted);
        // Even after a failure: a folder for nothing goes.
        if self.contents.objects.is_empty() {
            return self.tear_down().and(outcome);
        }
        let freed = self.contents.index.numbers.purge();
        // First: flows remember exits until something changed.
        let told = self.changed();
        told.and(outcome).and(self.free(&freed))
    }

    fn change(&mut self, wanted: Wanted) -> Result<(), DriverError> {
        check::check_kinds(&wanted)?;
        let mut finder = Finder::open()?;
        let mut edit = self.contents.begin(wanted)?;
        let plan = match self.prepare(&mut edit, &mut finder) {
            Ok(plan) => plan,
            Err(error) => {
                let edit = self.contents.revert(edit);
                self.end_generations(&edit);
                // For tunnels that do not come.
                let _ = self.settle_device();
                return Err(error);
            }
        };
        let written = self.write(&plan, &mut finder);
        if let Err(error) = written {
            self.undo(edit, &mut finder);
            return Err(error);
        }
        self.end_generations(&edit);
        Ok(())
    }

    /// All that can fail without the maps' doing.
    fn prepare(&mut self, edit: &mut Edit, finder: &mut Finder) -> Result<Plan, DriverError> {
        check::check(&self.contents, edit)?;
        let is_tunnel = |version: &crate::contents::Version| matches!(version.object, Object::Tunnel(_));
        let touches_tunnels = edit
            .deltas
            .iter()
            .any(|delta| delta.after.as_ref().or(delta.before.as_ref()).is_some_and(is_tunnel));
        // What stands in a policy as the way into tunnels has to be there.
        if let Some(mtu) = self.contents.index.tunnels_mtu().filter(|_| touches_tunnels) {
            check::check_ports(&self.contents, edit, finder)?;
            self.set_up_device(mtu.into())?;
        }
        self.contents.number_generations(edit);
        plan(&mut self.contents, edit, &self.programs.maps, self.config.mark, finder)
    }

    /// The first error is what is told; what cannot be put back now is seen as damage by the next look.
    fn undo(&mut self, edit: Edit, finder: &mut Finder) {
        let mut edit = self.contents.revert(edit);
        finder.lenient = true;
        let undone = self.prepare(&mut edit, finder).and_then(|plan| self.write(&plan, finder));
        if let Err(error) = undone {
            tracing::warn!(%error, "a change of the steering engine could not be put back");
        }
        self.end_generations(&edit);
    }

    fn write(&mut self, plan: &Plan, finder: &mut Finder) -> Result<(), DriverError> {
        self.write_used(plan)?;
        self.settle_ports(plan, finder, Ports::Functions)?;
        // The programs stand at these ports, and hear who answers.
        let instances = plan.instances.values.iter();
        let sides = instances.flat_map(|instance| [&instance.inside, &instance.outside]);
        neighbours::seed(&self.programs.maps.neighbours, sides);
        self.write_users(plan)?;
        self.settle_ports(plan, finder, Ports::Edges)?;
        neighbours::seed(&self.programs.maps.neighbours, &plan.exits.values);

        self.settle_ports(plan, finder, Ports::Unused)?;
        self.remove(plan)?;
        self.settle_device()
    }

    /// What others refer to, and nobody does yet.
    fn write_used(&self, plan: &Plan) -> Result<(), DriverError> {
        let maps = &self.programs.maps;
        maps.lengths.put_all(&plan.lengths.keys, &plan.lengths.values)?;
        maps.instances.put_all(&plan.instances.keys, &plan.instances.values)?;
        maps.exits.put_all(&plan.exits.keys, &plan.exits.values)?;
        maps.groups.put_all(&plan.groups.keys, &plan.groups.values)?;
        maps.rules.put_all(&plan.rules.keys, &plan.rules.values)
    }

    fn write_users(&self, plan: &Plan) -> Result<(), DriverError> {
        let maps = &self.programs.maps;
        maps.paths.put_all(&plan.paths.keys, &plan.paths.values)?;
        maps.vlans.put_all(&plan.vlans.keys, &plan.vlans.values)?;
        maps.policies.put_all(&plan.policies.keys, &plan.policies.values)?;
        maps.tunnels.put_all(&plan.tunnels.keys, &plan.tunnels.values)?;
        maps.tunnel_locals.put_all(&plan.tunnel_locals.keys, &plan.tunnel_locals.values)?;
        maps.tunnel_ends.put_all(&plan.tunnel_ends.keys, &plan.tunnel_ends.values)?;
        maps.prefixes.put_all(&plan.prefixes.keys, &plan.prefixes.values)
    }

    /// Users first.
    fn remove(&mut self, plan: &Plan) -> Result<(), DriverError> {
        let maps = &self.programs.maps;
        maps.prefixes.remove_all(&plan.prefixes.removed)?;
        maps.tunnel_ends.remove_all(&plan.tunnel_ends.removed)?;
        maps.tunnel_locals.remove_all(&plan.tunnel_locals.removed)?;
        maps.tunnels.remove_all(&plan.tunnels.removed)?;
        maps.policies.remove_all(&plan.policies.removed)?;
        maps.vlans.remove_all(&plan.vlans.removed)?;
        maps.paths.remove_all(&plan.paths.removed)?;
        maps.rules.remove_all(&plan.rules.removed)?;
        // While their instances are known: what flows have counted is added up with them.
        self.forget_flows(plan)?;
        let maps = &self.programs.maps;
        maps.instances.put_all(&plan.freed_instances.keys, &plan.freed_instances.values)?;
        counters::forget(maps, &plan.gone)
    }

    fn settle_ports(&mut self, plan: &Plan, finder: &mut Finder, which: Ports) -> Result<(), DriverError> {
        let touched = plan.ports.named.iter().map(|name| (name, true));
        let touched =
            touched.chain(plan.ports.others.difference(&plan.ports.named).map(|name| (name, false)));
        for (name, is_named) in touched {
            if self.sort_of_port(name) == which {
                self.settle_port(finder, name, is_named)?;
            }
        }
        Ok(())
    }

    fn sort_of_port(&self, name: &PortName) -> Ports {
        match self.contents.index.port(name) {
            None => Ports::Unused,
            Some(named) if named.functions.is_empty() => Ports::Edges,
            Some(_) => Ports::Functions,
        }
    }

    fn end_generations(&mut self, edit: &Edit) {
        for delta in &edit.deltas {
            let generation = |version: &Option<crate::contents::Version>| version.as_ref()?.generation;
            if let Some(ended) =
                generation(&delta.before).filter(|old| generation(&delta.after) != Some(*old))
            {
                self.contents.index.numbers.end_generation(ended);
            }
        }
    }

    /// A flow that goes on must not meet what has taken the place of its path, nor be another site's. Nor is it known any
    /// more how many flows a site has that is gone.
    fn forget_flows(&mut self, plan: &Plan) -> Result<(), DriverError> {
        let Gone { paths, sites: gone, .. } = &plan.gone;
        let sites = gone.iter().chain(&plan.smaller_sites);
        let mut sweeps: Vec<_> = match paths.len() {
            0..=FEW_SWEEPS => paths.iter().map(|path| Sweep::Path(Some(path.id))).collect(),
            _ => vec![Sweep::Path(None)],
        };
        match sites.clone().count() {
            0 => {}
            1..=FEW_SWEEPS => sweeps.extend(sites.map(|site| Sweep::Strangers(Some(*site)))),
            _ => sweeps.push(Sweep::Strangers(None)),
        }
        self.strangers |= sweeps.iter().any(|sweep| matches!(sweep, Sweep::Strangers(_)));
        sweeps.into_iter().try_for_each(|task| sweep(&self.programs.sweep, task).map(drop))?;
        // Else the map fills with those of all sites that ever were.
        let gone: Vec<_> = gone.iter().map(|site| site.0).collect();
        self.programs.maps.loads.remove_all(&gone)
    }

    /// Nobody refers to these any more.
    fn free(&self, freed: &Freed) -> Result<(), DriverError> {
        let maps = &self.programs.maps;
        maps.groups.remove_all(&freed.groups)?;
        maps.exits.put_all(&freed.exits, &vec![layout::Side::default(); freed.exits.len()])?;
        for (id, handle) in &freed.instances {
            maps.instances.put(&slot_of(*handle), &free_slot(*handle))?;
            counters::forget_instance(maps, *id, *handle)?;
        }
        Ok(())
    }

    /// Everything goes: the element is as it was before the first object.
    fn tear_down(&mut self) -> Result<(), DriverError> {
        for (ifindex, port) in std::mem::take(&mut self.contents.ports) {
            let clsact = port.entry.clsact != 0;
            self.attachments.detach(&self.pins, ifindex, &self.programs.steer, clsact)?;
        }
        for ifindex in self.pins.links()? {
            self.attachments.detach(&self.pins, ifindex, &self.programs.encap, false)?;
        }
        if self.programs.maps.element()?.tunnels != 0 {
            Device::remove()?;
        }
        self.pins.remove_all()
    }

    fn set_up_device(&mut self, mtu: u32) -> Result<(), DriverError> {
        let cuts = self.contents.index.cutting().next().is_some();
        let device = Device::ensure(mtu, cuts)?;
        let mut element = self.programs.maps.element()?;
        if element.hidden != device.hidden.ifindex && element.hidden != 0 {
            self.attachments.detach(&self.pins, element.hidden, &self.programs.encap, false)?;
        }
        element.tunnels = device.visible.ifindex;
        element.hidden = device.hidden.ifindex;
        element.tunnels_mac = device.visible.mac;
        self.programs.maps.elements.put(&0, &element)?;
        let Self { attachments, pins, programs, .. } = self;
        attachments.attach(pins, device.hidden.ifindex, &device.hidden.name, &programs.encap)?;
        Ok(())
    }

    /// Takes the interface of tunnels away when there is no tunnel.
    fn settle_device(&mut self) -> Result<(), DriverError> {
        let mut element = self.programs.maps.element()?;
        if element.tunnels == 0 || self.contents.index.tunnels_mtu().is_some() {
            return Ok(());
        }
        self.attachments.detach(&self.pins, element.hidden, &self.programs.encap, false)?;
        Device::remove()?;
        (element.tunnels, element.hidden) = (0, 0);
        self.programs.maps.elements.put(&0, &element)
    }
}

/// When a port's turn is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ports {
    /// Before anything is sent to them.
    Functions,
    /// When all that stands behind them is there.
    Edges,
    /// Before what they lead to goes.
    Unused,
}
