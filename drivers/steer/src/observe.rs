//! Reading back: what the maps say, less what does not work.
//!
//! An object whose port is not the one that it was installed for, or whose port does not run our program, is left out:
//! so the next plan puts it again, and putting repairs it. A program of another version of the engine counts as not
//! ours, and is replaced by the same way.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use catena_driver::DriverError;
use catena_model::forwarding::{ElementState, InstanceId, Object, Side, SiteId};
use catena_model::name::PortName;

use crate::Config;
use crate::contents::Contents;
use crate::device::Device;
use crate::hook;
use crate::index::exits;
use crate::layout;
use crate::maps::Maps;
use crate::pins::Pins;
use crate::ports::{self, Finder};
use crate::program::{Program, Programs};
use crate::words;

/// What is wrong with something of ours, in words.
pub(crate) type Damage = String;

/// What is observed, and why the rest is not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    pub(crate) state: ElementState,
    pub(crate) damage: BTreeSet<Damage>,
}

/// What the next two functions look with. In the element's namespace, with the pins locked.
pub(crate) struct Look<'a> {
    pub(crate) pins: &'a Pins,
    pub(crate) config: &'a Config,
    pub(crate) programs: &'a Programs,
}

impl Look<'_> {
    /// What is installed by whomever: the maps are opened by their pins, not those that this process holds.
    pub(crate) fn observe(&self) -> Result<Observed, DriverError> {
        if !self.pins.exists() {
            return Ok(Observed::default());
        }
        let Some(maps) = Maps::pinned(self.pins.folder())? else {
            // Nobody can tell any more what the programs do.
            let damage = format!("pins are missing in {}", self.pins.folder().display());
            return Ok(Observed { damage: BTreeSet::from([damage]), ..Observed::default() });
        };
        let contents = Contents::read(&maps)?;
        let mut observed = Observed::default();
        let damaged = self.damaged_ports(&maps, &contents)?;
        let tunnels = self.tunnels_damage(&maps)?;
        let recorded = Recorded::read(&maps)?;
        let mut finder = Finder::open()?;
        for object in contents.objects.iter() {
            let of_ports =
                ports::ports(object).into_iter().find_map(|port| damaged.get(port).cloned().flatten());
            let damage = match (of_ports, object) {
                (Some(damage), _) => Some(damage),
                (None, Object::Tunnel(_)) if tunnels.is_some() => tunnels.clone(),
                (None, Object::Tunnel(tunnel)) => match recorded.damage(object, &mut finder)? {
                    None => finder.misrouted(tunnel)?,
                    damage => damage,
                },
                (None, object) => recorded.damage(object, &mut finder)?,
            };
            match damage {
                None => drop(observed.state.insert(object.clone())),
                Some(damage) => drop(observed.damage.insert(damage)),
            }
        }
        Ok(observed)
    }

    /// Only what is wrong with the attachments, for looking often: what the maps hold is not read.
    pub(crate) fn damage(&self, contents: &Contents) -> Result<BTreeSet<Damage>, DriverError> {
        if !self.pins.exists() {
            let damage = format!("the folder {} is gone", self.pins.folder().display());
            let is_damage = !contents.objects.is_empty();
            return Ok(is_damage.then_some(damage).into_iter().collect());
        }
        let Some(maps) = Maps::pinned(self.pins.folder())? else {
            return Ok(BTreeSet::from([format!("pins are missing in {}", self.pins.folder().display())]));
        };
        let mut damage: BTreeSet<_> = self.damaged_ports(&maps, contents)?.into_values().flatten().collect();
        if contents.index.tunnels_mtu().is_some() {
            damage.extend(self.tunnels_damage(&maps)?);
        }
        Ok(damage)
    }

    /// Which tunnels that cut outer packets would have them sent by another port.
    pub(crate) fn misrouted(&self, contents: &Contents) -> Result<BTreeSet<Damage>, DriverError> {
        let mut finder = Finder::open()?;
        contents.index.cutting().filter_map(|tunnel| finder.misrouted(tunnel).transpose()).collect()
    }

    /// For each port that is to run our program, what is wrong with it, if anything.
    fn damaged_ports(
        &self,
        maps: &Maps,
        contents: &Contents,
    ) -> Result<BTreeMap<PortName, Option<Damage>>, DriverError> {
        let mut finder = Finder::open()?;
        let element = maps.element()?;
        if self.config.element_entry(element) != element {
            let damage = "the limits and times in force are others than those that are set";
            return Ok(contents.index.ports().map(|name| (name.clone(), Some(damage.to_owned()))).collect());
        }
        contents
            .index
            .ports()
            .map(|name| Ok((name.clone(), self.damaged_port(maps, contents, name, &mut finder)?)))
            .collect()
    }

    fn damaged_port(
        &self,
        maps: &Maps,
        contents: &Contents,
        name: &PortName,
        finder: &mut Finder,
    ) -> Result<Option<Damage>, DriverError> {
        let Some(port) = finder.look(name)? else { return Ok(Some(format!("port {name} is gone"))) };
        let ifindex = port.ifindex;
        let Some(entry) = maps.port(ifindex)? else {
            return Ok(Some(format!("port {name} is another than it was")));
        };
        let wanted = ports::purpose(contents, name, self.config.mark)?;
        if wanted != Some(layout::Port { clsact: 0, ..entry }) {
            return Ok(Some(format!("port {name} is for other things than its objects say")));
        }
        Ok(self.unattached(ifindex, &self.programs.steer, name.as_str()))
    }

    fn unattached(&self, ifindex: u32, program: &Program, name: &str) -> Option<Damage> {
        (!hook::is_attached(self.config.hook, self.pins, ifindex, program))
            .then(|| format!("the steering program is off port {name}"))
    }

    /// What is wrong with the interface of all tunnels.
    fn tunnels_damage(&self, maps: &Maps) -> Result<Option<Damage>, DriverError> {
        let element = maps.element()?;
        if element.tunnels == 0 {
            return Ok(None);
        }
        let Some(device) = Device::find()? else {
            return Ok(Some("the interface of tunnels is gone".to_owned()));
        };
        let same = device.visible.ifindex == element.tunnels
            && device.hidden.ifindex == element.hidden
            && device.visible.mac == element.tunnels_mac;
        if !same {
            return Ok(Some("the interface of tunnels is another than it was".to_owned()));
        }
        if !device.visible.up || !device.hidden.up {
            return Ok(Some("the interface of tunnels is down".to_owned()));
        }
        Ok(self.unattached(element.hidden, &self.programs.encap, &device.hidden.name))
    }
}

/// The ports that objects send by, under the numbers that they had.
#[derive(Debug, Default)]
struct Recorded {
    /// Of each instance, inside and outside.
    instances: HashMap<InstanceId, [u32; 2]>,
    exits: HashMap<Side, u32>,
    underlays: HashMap<SiteId, u32>,
}

impl Recorded {
    fn read(maps: &Maps) -> Result<Self, DriverError> {
        let instances = maps.instances.entries()?.into_iter().filter(|(_, entry)| entry.handle != 0);
        let exits = maps.exits.entries()?.into_iter();
        let underlays = maps.tunnels.entries()?.into_iter();
        Ok(Self {
            instances: instances
                .map(|(_, entry)| (InstanceId(entry.id), [entry.inside.ifindex, entry.outside.ifindex]))
                .collect(),
            exits: exits.filter_map(|(_, side)| Some((words::read_side(&side)?, side.ifindex))).collect(),
            underlays: underlays.map(|(site, entry)| (SiteId(site), entry.underlay)).collect(),
        })
    }

    fn ports<'a>(&self, object: &'a Object) -> Vec<(&'a PortName, u32)> {
        match object {
            Object::Instance(instance) => {
                let [inside, outside] = self.instances.get(&instance.id).copied().unwrap_or_default();
                vec![(&instance.inside.port, inside), (&instance.outside.port, outside)]
            }
            Object::Policy(policy) => exits(policy)
                .map(|side| (&side.port, self.exits.get(side).copied().unwrap_or_default()))
                .collect(),
            Object::Tunnel(tunnel) => {
                let underlay = self.underlays.get(&tunnel.site).copied();
                vec![(&tunnel.underlay, underlay.unwrap_or_default())]
            }
            Object::Ingress(_) | Object::Path(_) | Object::Table(_) | Object::Rule(_) => Vec::new(),
        }
    }

    /// What is wrong with the ports that an object sends by.
    fn damage(&self, object: &Object, finder: &mut Finder) -> Result<Option<Damage>, DriverError> {
        for (name, ifindex) in self.ports(object) {
            match finder.look(name)? {
                None => return Ok(Some(format!("port {name} is gone"))),
                Some(port) if port.ifindex != ifindex => {
                    return Ok(Some(format!("port {name} is another than it was")));
                }
                Some(_) => {}
            }
        }
        Ok(None)
    }
}
