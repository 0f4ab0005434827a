//! Reading back: what the maps say, less what does not work.

use std::collections::{BTreeMap, BTreeSet};

use catena_driver::DriverError;
use catena_driver::hops::{HopId, Kernel, Rules};
use catena_model::address::Family;
use catena_model::forwarding::{ElementState, Object, PathId, Table};
use catena_model::name::PortName;

use crate::hook::{self, Hook};
use crate::observe::Damage;
use crate::pins::Pins;
use crate::route::class::Class;
use crate::route::contents::{Contents, NOWHERE, Spot};
use crate::route::layout::Entrance;
use crate::route::ports::Ports;
use crate::route::program::Programs;
use crate::route::settle::entrance;

/// What an element is looked at with. In its namespace, with the pins locked.
pub(crate) struct Look<'a> {
    pub(crate) pins: &'a Pins,
    pub(crate) hook: Option<Hook>,
    pub(crate) programs: &'a Programs,
    pub(crate) ports: Ports,
    pub(crate) released: u32,
}

/// What does not work.
#[derive(Debug, Default)]
pub(crate) struct Damages {
    ports: BTreeMap<PortName, Damage>,
    hops: BTreeMap<HopId, Damage>,
    families: BTreeMap<Family, Damage>,
    /// Ports that came since the last change; the program is to be put there, as if it had always been.
    pub(crate) new: BTreeSet<PortName>,
}

impl Damages {
    pub(crate) fn all(self) -> BTreeSet<Damage> {
        self.ports.into_values().chain(self.hops.into_values()).chain(self.families.into_values()).collect()
    }

    fn of_hop(&self, hop: Option<HopId>) -> bool {
        hop.is_some_and(|hop| self.hops.contains_key(&hop))
    }

    /// Whether packets that rules of a class mean would not all be led by them.
    fn of_class(&self, class: &Class) -> bool {
        let at_port = match &class.port {
            Some(port) => self.ports.contains_key(port),
            None => !self.ports.is_empty(),
        };
        at_port || self.families.contains_key(&class.family)
    }

    /// The rules that are.
    pub(crate) fn rules(&self, contents: &Contents) -> BTreeSet<Spot> {
        let classes: BTreeSet<_> = contents
            .classes
            .iter()
            .filter(|(_, class)| self.of_class(class))
            .map(|(number, _)| *number)
            .collect();
        contents.rules.keys().filter(|(number, _)| classes.contains(number)).copied().collect()
    }
}

impl Look<'_> {
    /// A table whose hop is damaged is read as one that leads to [`NOWHERE`], a rule that does not see all of its packets as one
    /// for [`PathId::NOWHERE`].
    pub(crate) fn observe(
        &self,
        kernel: &mut Kernel<'_>,
        contents: &Contents,
    ) -> Result<(ElementState, BTreeSet<Damage>), DriverError> {
        let damages = self.damages(kernel, contents)?;
        let mut state = ElementState::default();
        for ((family, path), hop) in &contents.tables {
            let next = hop.filter(|hop| !damages.of_hop(Some(*hop))).and_then(|hop| contents.hops.get(&hop));
            let (port, via) = match next {
                Some(next) => (next.port.clone(), next.via),
                None => (nowhere()?, None),
            };
            state.insert(Object::Table(Table { path: *path, family: *family, port, via }));
        }
        for (class, mut rule) in contents.all_rules() {
            if damages.of_class(class) {
                rule.table = PathId::NOWHERE;
            }
            state.insert(Object::Rule(rule));
        }
        Ok((state, damages.all()))
    }

    pub(crate) fn damages(
        &self,
        kernel: &mut Kernel<'_>,
        contents: &Contents,
    ) -> Result<Damages, DriverError> {
        let mut damages = Damages::default();
        let mut rules = BTreeMap::new();
        for family in Family::BOTH {
            rules.insert(family, kernel.rules(family)?);
        }
        self.look_at_ports(contents, &mut damages)?;
        self.look_at_guards(contents, &rules, &mut damages);
        for (hop, next) in &contents.hops {
            let is_whole = match rules.get(&next.family) {
                Some(rules) => kernel.is_whole(*hop, next, rules)?,
                None => false,
            };
            if !is_whole {
                damages.hops.insert(*hop, format!("the kernel does not lead hop {hop} to {next}"));
            }
            let entry = self.programs.maps.hops.get(&hop.number())?.unwrap_or_default();
            if self.ports.find(&next.port).is_none_or(|port| port.ifindex != entry.ifindex) {
                damages.hops.insert(*hop, format!("port {} is gone, or another than it was", next.port));
            }
        }
        Ok(damages)
    }

    fn look_at_ports(&self, contents: &Contents, damages: &mut Damages) -> Result<(), DriverError> {
        let named = contents.named_ports();
        for port in self.ports.entered(contents) {
            let Ok(name) = PortName::new(&port.name) else { continue };
            let known = self.programs.maps.entrances.get(&port.ifindex)?;
            let Some(known) = known else {
                if named.contains(&name) {
                    damages.ports.insert(name.clone(), format!("port {name} is another than it was"));
                }
                damages.new.insert(name);
                continue;
            };
            let says = Entrance { generation: 0, clsact: 0, ..known };
            if says != entrance(contents, &name, port, self.released)? {
                damages.ports.insert(name.clone(), format!("other rules are looked up at port {name}"));
            } else if !hook::is_attached(self.hook, self.pins, port.ifindex, &self.programs.route) {
                damages.ports.insert(name.clone(), format!("the routing program is off port {name}"));
            }
        }
        Ok(())
    }

    fn look_at_guards(&self, contents: &Contents, rules: &BTreeMap<Family, Rules>, damages: &mut Damages) {
        for (family, rules) in rules {
            let wanted = self.ports.closed(contents, *family);
            // Of a port that just came, there is nothing yet.
            let mut open = wanted.difference(rules.unseen()).filter(|port| !damages.new.contains(*port));
            if let Some(port) = open.next() {
                let what = format!("the {family} rule that closes port {port} is gone");
                damages.families.insert(*family, what);
            }
        }
    }
}

fn nowhere() -> Result<PortName, DriverError> {
    PortName::new(NOWHERE).map_err(|error| DriverError::failed("the port that leads nowhere", error))
}
