//! Reading back: what the maps say, less what does not work.
//!
//! An object whose port is not the one that it was installed for, or whose port does not run our program, is left out:
//! so the next plan puts it again, and putting repairs it. A program of another version of the engine counts as not
//! ours, and is replaced by the same way.

use std::collections::{BTreeMap, BTreeSet};

use catena_driver::DriverError;
use catena_model::forwarding::{Direction, ElementState, Object};
use catena_model::name::PortName;

use crate::apply::{find_port, ports, roles};
use crate::contents::Contents;
use crate::device::Device;
use crate::hook::{self, Hook};
use crate::maps::Maps;
use crate::pins::Pins;
use crate::program::{Program, Programs};

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
    pub(crate) hook: Option<Hook>,
    pub(crate) mark: u32,
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
        for object in contents.objects.iter() {
            let damage = self.port_damage(&maps, object, &damaged)?.or_else(|| match object {
                Object::Tunnel(_) => tunnels.clone(),
                _ => None,
            });
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
        if contents.objects.iter().any(|object| matches!(object, Object::Tunnel(_))) {
            damage.extend(self.tunnels_damage(&maps)?);
        }
        Ok(damage)
    }

    /// For each port that is to run our program, what is wrong with it, if anything.
    fn damaged_ports(
        &self,
        maps: &Maps,
        contents: &Contents,
    ) -> Result<BTreeMap<PortName, Option<Damage>>, DriverError> {
        let names: BTreeSet<_> = contents.objects.iter().flat_map(ports).collect();
        names
            .into_iter()
            .map(|name| {
                let damage = self.damaged_port(maps, contents, &name)?;
                Ok((name, damage))
            })
            .collect()
    }

    fn damaged_port(
        &self,
        maps: &Maps,
        contents: &Contents,
        name: &PortName,
    ) -> Result<Option<Damage>, DriverError> {
        let ifindex = match find_port(name) {
            Err(DriverError::NoPort(_)) => return Ok(Some(format!("port {name} is gone"))),
            found => found?,
        };
        let Some(entry) = maps.ports.get(&ifindex)? else {
            return Ok(Some(format!("port {name} is another than it was")));
        };
        let wanted = roles(&contents.objects, name).map(|(roles, _)| roles);
        if wanted != Some(entry.roles) || entry.mark != self.mark {
            return Ok(Some(format!("port {name} has other roles than its objects give it")));
        }
        Ok(self.unattached(ifindex, &self.programs.steer, name.as_str()))
    }

    fn unattached(&self, ifindex: u32, program: &Program, name: &str) -> Option<Damage> {
        (!hook::is_attached(self.hook, self.pins, ifindex, program))
            .then(|| format!("the steering program is off port {name}"))
    }

    /// What is wrong with the ports of one object.
    fn port_damage(
        &self,
        maps: &Maps,
        object: &Object,
        damaged: &BTreeMap<PortName, Option<Damage>>,
    ) -> Result<Option<Damage>, DriverError> {
        if let Some(damage) = ports(object).iter().find_map(|port| damaged.get(port).cloned().flatten()) {
            return Ok(Some(damage));
        }
        for (name, ifindex) in recorded_ports(maps, object)? {
            match find_port(&name) {
                Err(DriverError::NoPort(_)) => return Ok(Some(format!("port {name} is gone"))),
                Ok(current) if current != ifindex => {
                    return Ok(Some(format!("port {name} is another than it was")));
                }
                found => drop(found?),
            }
        }
        Ok(None)
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

/// The ports that an object sends by, with the numbers that they had.
fn recorded_ports(maps: &Maps, object: &Object) -> Result<Vec<(PortName, u32)>, DriverError> {
    Ok(match object {
        Object::Instance(instance) => match maps.instances.get(&instance.id.0)? {
            Some(entry) => vec![
                (instance.inside.port.clone(), entry.inside.ifindex),
                (instance.outside.port.clone(), entry.outside.ifindex),
            ],
            None => Vec::new(),
        },
        Object::Policy(policy) => match (&policy.exits, maps.policies.get(&policy.site.0)?) {
            (Some(exits), Some(entry)) => Direction::BOTH
                .into_iter()
                .map(|direction| (exits.of(direction).port.clone(), entry.exits[direction as usize].ifindex))
                .collect(),
            _ => Vec::new(),
        },
        Object::Tunnel(tunnel) => match maps.tunnels.get(&tunnel.site.0)? {
            Some(entry) => vec![(tunnel.underlay.clone(), entry.underlay)],
            None => Vec::new(),
        },
        Object::Ingress(_) | Object::Path(_) | Object::Table(_) | Object::Rule(_) => Vec::new(),
    })
}
