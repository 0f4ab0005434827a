//! Making the element do what contents say.
//!
//! The order keeps two promises. What a rule claims goes to its next hop or is dropped, at every moment: all that a hop needs
//! stands before a rule leads there, and goes after. And what no rule claims goes on by its owner's routes: a port is
//! closed for what was not looked at only when the program looks, and opened before it leaves.

use std::collections::{BTreeMap, BTreeSet};

use catena_driver::DriverError;
use catena_driver::hops::{Guards, HopId, Kernel, Rules};
use catena_driver::netlink::Connection;
use catena_model::address::Family;
use catena_model::forwarding::Delivery;
use catena_model::name::PortName;

use crate::hook::Attachments;
use crate::layout::Side;
use crate::maps::Map;
use crate::neighbours;
use crate::netlink::Link;
use crate::pins::Pins;
use crate::route::contents::{Contents, RuleKey, rule_key, side, table_key};
use crate::route::layout::{Entrance, Lead};
use crate::route::own;
use crate::route::ports::Ports;
use crate::route::program::Programs;
use crate::words;

/// What an element is changed by. In its namespace, with the pins taken.
pub(crate) struct Tools<'a> {
    pub(crate) pins: &'a Pins,
    pub(crate) programs: &'a Programs,
    pub(crate) attachments: &'a mut Attachments,
    pub(crate) ports: Ports,
    /// The bit of the mark that says "released".
    pub(crate) released: u32,
}

/// What has to be there: else it is an error that it is not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Needed {
    pub(crate) hops: BTreeSet<HopId>,
}

impl Tools<'_> {
    /// From what the maps say to what is wanted.
    pub(crate) fn settle(
        &mut self,
        kernel: &mut Kernel<'_>,
        found: &Contents,
        wanted: &Contents,
        needed: &Needed,
    ) -> Result<(), DriverError> {
        let mut rules = BTreeMap::new();
        for family in Family::BOTH {
            rules.insert(family, kernel.rules(family)?);
        }
        self.make_hops(kernel, wanted, needed, &mut rules)?;
        self.write_rules(found, wanted)?;
        self.enter_ports(wanted)?;
        let closed = self.close_ports(kernel, wanted, &mut rules)?;

        for (family, rules) in rules {
            self.remove_hops(kernel, wanted, family, rules, &closed)?;
        }
        self.leave_ports(wanted)?;
        self.remove_rules(found, wanted)
    }

    fn make_hops(
        &self,
        kernel: &mut Kernel<'_>,
        wanted: &Contents,
        needed: &Needed,
        rules: &mut BTreeMap<Family, Rules>,
    ) -> Result<(), DriverError> {
        let maps = &self.programs.maps;
        for (hop, next) in &wanted.hops {
            let made = kernel.make(*hop, next, rules.entry(next.family).or_default());
            match made {
                // Somebody else's port that went: the others' changes are not kept waiting for it.
                Err(DriverError::NoPort(_)) if !needed.hops.contains(hop) => {}
                made => made?,
            }
            let former = maps.hops.get(&hop.number())?.unwrap_or_default();
            let port = self.ports.find(&next.port).cloned().unwrap_or_else(Link::nowhere);
            let via = side(next);
            let stood = Side { family: 0, ..former };
            let written = words::side(&via, &port, Delivery::Direct, &stood)?;
            let written = Side {
                family: words::family(next.family).into(),
                // Each destination is a neighbour of its own.
                direct: if next.via.is_some() { written.direct } else { 0 },
                ..written
            };
            if written != former {
                maps.hops.put(&hop.number(), &written)?;
                neighbours::seed(&maps.neighbours, [&written]);
            }
        }
        Ok(())
    }

    /// A class before its rules, so that they can be read again.
    fn write_rules(&self, found: &Contents, wanted: &Contents) -> Result<(), DriverError> {
        let maps = &self.programs.maps;
        for (number, class) in
            wanted.classes.iter().filter(|entry| found.classes.get(entry.0) != Some(entry.1))
        {
            maps.classes.put(number, &class.entry()?)?;
        }
        let tables = wanted.tables.iter().filter(|(key, hop)| found.tables.get(key) != Some(hop));
        let (keys, slots): (Vec<_>, Vec<_>) = tables
            .map(|((family, path), hop)| (table_key(*family, *path), hop.map_or(0, HopId::number)))
            .unzip();
        maps.tables.put_all(&keys, &slots)?;
        let new = wanted.rules.iter().filter(|(spot, lead)| found.rules.get(spot) != Some(lead));
        let (mut v4, mut v6): (Vec<(_, Lead)>, Vec<(_, Lead)>) = Default::default();
        for (spot, lead) in new {
            match rule_key(spot) {
                RuleKey::V4(key) => v4.push((key, *lead)),
                RuleKey::V6(key) => v6.push((key, *lead)),
            }
        }
        put_all(&maps.rules4, v4)?;
        put_all(&maps.rules6, v6)
    }

    /// Gives each port that rules are for its probes, and the program.
    fn enter_ports(&mut self, wanted: &Contents) -> Result<(), DriverError> {
        self.note_own()?;
        let ports: Vec<_> = self.ports.entered(wanted).cloned().collect();
        ports.iter().try_for_each(|port| self.enter(wanted, port))
    }

    /// Writes the element's own addresses, as they are now.
    pub(crate) fn note_own(&self) -> Result<(), DriverError> {
        match self.has_new_addresses()? {
            true => self.programs.maps.owns.put(&0, &self.ports.own),
            false => Ok(()),
        }
    }

    pub(crate) fn has_new_addresses(&self) -> Result<bool, DriverError> {
        Ok(self.programs.maps.owns.get(&0)?.unwrap_or_default() != *self.ports.own)
    }

    /// Puts the program at ports that came, and closes them.
    pub(crate) fn enter_new(
        &mut self,
        kernel: &mut Kernel<'_>,
        contents: &Contents,
        new: &BTreeSet<PortName>,
    ) -> Result<(), DriverError> {
        for name in new {
            let Some(port) = self.ports.find(name).cloned() else { continue };
            self.enter(contents, &port)?;
            for family in Family::BOTH {
                if !contents.asked(name, family).is_empty() {
                    let mut rules = kernel.rules(family)?;
                    kernel.close(name, family, &mut rules)?;
                }
            }
        }
        Ok(())
    }

    pub(crate) fn enter(&mut self, wanted: &Contents, port: &Link) -> Result<(), DriverError> {
        let maps = &self.programs.maps;
        let Ok(name) = PortName::new(&port.name) else { return Ok(()) };
        let former = maps.entrances.get(&port.ifindex)?;
        let mut entry = entrance(wanted, &name, port, self.released)?;
        entry.clsact = former.map(|former| former.clsact).unwrap_or_default();
        if former.map(|former| Entrance { generation: 0, ..former }) != Some(entry) {
            entry.generation = maps.next_generation()?;
            maps.entrances.put(&port.ifindex, &entry)?;
        }
        let made_clsact =
            self.attachments.attach(self.pins, port.ifindex, &port.name, &self.programs.route)?;
        if made_clsact {
            entry.clsact = 1;
            entry.generation = maps.next_generation()?;
            maps.entrances.put(&port.ifindex, &entry)?;
        }
        Ok(())
    }

    /// Says what is closed now, or was and stays so.
    fn close_ports(
        &self,
        kernel: &mut Kernel<'_>,
        wanted: &Contents,
        rules: &mut BTreeMap<Family, Rules>,
    ) -> Result<BTreeMap<Family, BTreeSet<PortName>>, DriverError> {
        let mut closed = BTreeMap::new();
        for family in Family::BOTH {
            let ports = self.ports.closed(wanted, family);
            for port in &ports {
                kernel.close(port, family, rules.entry(family).or_default())?;
            }
            closed.insert(family, ports);
        }
        Ok(closed)
    }

    /// Takes away what the kernel has for hops that are used no more, now or since a crash, and opens what need not be closed.
    fn remove_hops(
        &self,
        kernel: &mut Kernel<'_>,
        wanted: &Contents,
        family: Family,
        mut rules: Rules,
        closed: &BTreeMap<Family, BTreeSet<PortName>>,
    ) -> Result<(), DriverError> {
        let used = |hop: &HopId| wanted.hops.get(hop).is_some_and(|next| next.family == family);
        let known: BTreeSet<_> = kernel.hops(family)?.into_iter().chain(rules.lookups()).collect();
        for hop in known.into_iter().filter(|hop| !used(hop)) {
            kernel.remove(hop, family, &mut rules)?;
        }
        let hops = wanted.hops.values().any(|next| next.family == family);
        let nothing = BTreeSet::new();
        kernel.sweep(family, rules, Guards { hops, unseen: closed.get(&family).unwrap_or(&nothing) })
    }

    fn leave_ports(&mut self, wanted: &Contents) -> Result<(), DriverError> {
        let stay: BTreeSet<_> = self.ports.entered(wanted).map(|port| port.ifindex).collect();
        let maps = &self.programs.maps;
        let known = maps.entrances.entries()?;
        for (ifindex, entry) in known.into_iter().filter(|(ifindex, _)| !stay.contains(ifindex)) {
            self.attachments.detach(self.pins, ifindex, &self.programs.route, entry.clsact != 0)?;
            maps.entrances.remove(&ifindex)?;
        }
        Ok(())
    }

    fn remove_rules(&self, found: &Contents, wanted: &Contents) -> Result<(), DriverError> {
        let maps = &self.programs.maps;
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for spot in found.rules.keys().filter(|spot| !wanted.rules.contains_key(spot)) {
            match rule_key(spot) {
                RuleKey::V4(key) => v4.push(key),
                RuleKey::V6(key) => v6.push(key),
            }
        }
        maps.rules4.remove_all(&v4)?;
        maps.rules6.remove_all(&v6)?;
        let tables = found.tables.keys().filter(|key| !wanted.tables.contains_key(key));
        let tables: Vec<_> = tables.map(|(family, path)| table_key(*family, *path)).collect();
        maps.tables.remove_all(&tables)?;
        let classes = found.classes.keys().filter(|number| !wanted.classes.contains_key(number));
        maps.classes.remove_all(&classes.copied().collect::<Vec<_>>())?;
        let hops: Vec<_> = found.hops.keys().filter(|hop| !wanted.hops.contains_key(hop)).collect();
        hops.into_iter().try_for_each(|hop| maps.hops.put(&hop.number(), &Side::default()))
    }
}

/// What is asked at a port, but for what only the map knows.
pub(crate) fn entrance(
    contents: &Contents,
    name: &PortName,
    port: &Link,
    released: u32,
) -> Result<Entrance, DriverError> {
    let mut entry = Entrance {
        released,
        ethernet: port.is_ethernet.into(),
        name: words::port_name(name)?,
        ..Default::default()
    };
    for (family, count, probes) in [
        (Family::V4, &mut entry.count4, &mut entry.probes4),
        (Family::V6, &mut entry.count6, &mut entry.probes6),
    ] {
        let asked = contents.asked(name, family);
        *count = asked.len() as u32;
        for (probe, (class, number)) in probes.iter_mut().zip(asked) {
            *probe = class.probe(number);
        }
    }
    Ok(entry)
}

fn put_all<K, V>(map: &Map<K, V>, entries: Vec<(K, V)>) -> Result<(), DriverError>
where
    K: zerocopy::FromBytes + zerocopy::IntoBytes + zerocopy::Immutable,
    V: zerocopy::FromBytes + zerocopy::IntoBytes + zerocopy::Immutable,
{
    let (keys, values): (Vec<_>, Vec<_>) = entries.into_iter().unzip();
    map.put_all(&keys, &values)
}

/// The ports and addresses that there are.
pub(crate) fn look(connection: &mut Connection) -> Result<Ports, DriverError> {
    Ports::read(own::read(connection)?)
}
