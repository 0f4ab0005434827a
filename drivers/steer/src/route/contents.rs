//! What an element's maps say in our own words, and what changes make of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use catena_driver::DriverError;
use catena_driver::hops::{HopId, NextHop, Place};
use catena_model::address::{Family, Prefix};
use catena_model::forwarding::{Change, NextHops, Object, PathId, Rule, Side, Table};
use catena_model::name::PortName;

use crate::layout;
use crate::route::class::{Class, read_family};
use crate::route::layout::{HOP_SLOTS, Lead, MAX_PROBES, RuleKey4, RuleKey6, TableKey};
use crate::route::maps::Maps;
use crate::words;

/// A table of ours that is not whole is read as one that leads to this port, where all packets end. It is no table that
/// anybody wants, so it is put again or deleted. Put as such, packets that are led to it are dropped.
pub(crate) const NOWHERE: &str = "lo";

/// Where a rule stands: the number of its class, and its prefix.
pub(crate) type Spot = (u32, Prefix);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) hops: BTreeMap<HopId, NextHop>,
    /// `None`: packets are dropped.
    pub(crate) tables: BTreeMap<(Family, PathId), Option<HopId>>,
    pub(crate) classes: BTreeMap<u32, Class>,
    pub(crate) rules: BTreeMap<Spot, Lead>,
}

impl Contents {
    /// Without rules and tables: what does not grow with the tenants.
    pub(crate) fn read_frame(maps: &Maps) -> Result<Self, DriverError> {
        let mut contents = Self::default();
        for (slot, side) in maps.hops.entries()? {
            contents.hops.extend(HopId::new(slot).zip(read_hop(&side)));
        }
        for (number, entry) in maps.classes.entries()? {
            contents.classes.extend(Class::read(&entry).map(|class| (number, class)));
        }
        Ok(contents)
    }

    pub(crate) fn read(maps: &Maps) -> Result<Self, DriverError> {
        let mut contents = Self::read_frame(maps)?;
        for (key, slot) in maps.tables.entries()? {
            let family = read_family(key.family);
            contents.tables.extend(family.map(|family| ((family, PathId(key.path)), HopId::new(slot))));
        }
        let v4 = maps.rules4.entries()?.into_iter();
        let v6 = maps.rules6.entries()?.into_iter();
        let all = v4
            .map(|(key, lead)| (key.class, IpAddr::from(key.address), lead))
            .chain(v6.map(|(key, lead)| (key.class, IpAddr::from(key.address), lead)));
        for (class, address, lead) in all {
            let prefix = contents.classes.get(&class).and_then(|class| class.prefix(address));
            contents.rules.extend(prefix.map(|prefix| ((class, prefix), lead)));
        }
        Ok(contents)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tables.is_empty() && self.rules.is_empty()
    }

    pub(crate) fn hop(&self, next: &NextHop) -> Option<HopId> {
        self.hops.iter().find(|(_, known)| *known == next).map(|(hop, _)| *hop)
    }

    /// The ports that rules name.
    pub(crate) fn named_ports(&self) -> BTreeSet<&PortName> {
        self.classes.values().filter_map(|class| class.port.as_ref()).collect()
    }

    /// Whether some rule is for packets that come in by any port.
    pub(crate) fn is_for_all_ports(&self) -> bool {
        self.classes.values().any(|class| class.port.is_none())
    }

    /// The classes of a family that are asked at a port, in their order.
    pub(crate) fn asked(&self, port: &PortName, family: Family) -> Vec<(&Class, u32)> {
        let classes = self.classes.iter().map(|(number, class)| (class, *number));
        let mut asked: Vec<_> =
            classes.filter(|(class, _)| class.family == family && class.is_asked_at(port)).collect();
        asked.sort();
        asked
    }

    pub(crate) fn all_rules(&self) -> impl Iterator<Item = (&Class, Rule)> {
        self.rules.iter().filter_map(|((number, prefix), lead)| {
            let class = self.classes.get(number)?;
            let (order, selector) = (class.order, class.selector(*prefix));
            Some((class, Rule { order, selector, table: PathId(lead.path) }))
        })
    }

    /// Where a rule leads by what tables say.
    fn lead(&self, family: Family, path: PathId) -> Lead {
        let hop = self.tables.get(&(family, path)).copied().flatten();
        Lead { path: path.0, hop: hop.map_or(0, HopId::number) }
    }
}

/// What changes make of contents.
pub(crate) struct Edit<'a> {
    pub(crate) place: &'a Place,
    pub(crate) wanted: Contents,
    /// Hops of tables that are put: their ports have to be there.
    pub(crate) put_hops: BTreeSet<HopId>,
    /// Ports that rules name which are put.
    pub(crate) put_ports: BTreeSet<PortName>,
    damaged: BTreeSet<Spot>,
}

impl<'a> Edit<'a> {
    /// `damaged` are the rules that are observed as leading nowhere, `is_free` says whether nobody else has what belongs to a hop.
    pub(crate) fn of(
        place: &'a Place,
        found: &Contents,
        changes: &[Change],
        damaged: BTreeSet<Spot>,
        is_free: impl FnMut(HopId, Family) -> Result<bool, DriverError>,
    ) -> Result<Self, DriverError> {
        let (put_hops, put_ports) = Default::default();
        let mut edit = Self { place, wanted: found.clone(), put_hops, put_ports, damaged };
        edit.make(changes, is_free)?;
        edit.resolve();
        edit.expect_room()?;
        Ok(edit)
    }

    fn make(
        &mut self,
        changes: &[Change],
        mut is_free: impl FnMut(HopId, Family) -> Result<bool, DriverError>,
    ) -> Result<(), DriverError> {
        let mut numbers: BTreeMap<Class, u32> =
            self.wanted.classes.iter().map(|(number, class)| (class.clone(), *number)).collect();
        for change in changes {
            match change {
                Change::Put { new: Object::Rule(rule), .. } => {
                    let (class, prefix) = Class::of(self.place, rule)?;
                    self.put_ports.extend(class.port.clone());
                    let number = *numbers.entry(class.clone()).or_insert_with(|| free(&self.wanted.classes));
                    self.wanted.classes.insert(number, class);
                    self.damaged.remove(&(number, prefix));
                    self.wanted.rules.insert((number, prefix), Lead { path: rule.table.0, hop: 0 });
                }
                Change::Delete { old: Object::Rule(rule) } => {
                    let (class, prefix) = Class::of(self.place, rule)?;
                    let Some(spot) = numbers.get(&class).map(|number| (*number, prefix)) else { continue };
                    let leads_nowhere = rule.table == PathId::NOWHERE && self.damaged.contains(&spot);
                    let is_it = |lead: &Lead| leads_nowhere || lead.path == rule.table.0;
                    if self.wanted.rules.get(&spot).is_some_and(is_it) {
                        self.wanted.rules.remove(&spot);
                    }
                }
                Change::Put { new: Object::Table(table), .. } => {
                    let hop = self.put_table(table, &mut is_free)?;
                    self.wanted.tables.insert((table.family, table.path), hop);
                }
                Change::Delete { old: Object::Table(table) } => {
                    self.wanted.tables.remove(&(table.family, table.path));
                }
                other => {
                    return Err(DriverError::Unsupported {
                        what: format!("{}: routing has no {}", self.place, other.object().kind()),
                        help: "give the change to the driver that has the capability".to_owned(),
                    });
                }
            }
        }
        Ok(())
    }

    fn put_table(
        &mut self,
        table: &Table,
        mut is_free: impl FnMut(HopId, Family) -> Result<bool, DriverError>,
    ) -> Result<Option<HopId>, DriverError> {
        if table.port.as_str() == NOWHERE {
            return Ok(None);
        }
        if let Some(via) = table.via.filter(|via| Family::of(*via) != table.family) {
            return Err(DriverError::Unsupported {
                what: format!("{}: an {} table by way of {via}", self.place, table.family),
                help: "give a next hop of the same family".to_owned(),
            });
        }
        let next = NextHop::of(table);
        let hop = match self.wanted.hop(&next) {
            Some(hop) => hop,
            None => {
                let mut free = HopId::all().filter(|hop| !self.wanted.hops.contains_key(hop));
                loop {
                    let hop = free.next().ok_or_else(|| too_many_hops(self.place))?;
                    if is_free(hop, next.family)? {
                        break hop;
                    }
                }
            }
        };
        self.wanted.hops.insert(hop, next);
        self.put_hops.insert(hop);
        Ok(Some(hop))
    }

    /// Says of every rule where it leads, and forgets what nobody uses any more.
    fn resolve(&mut self) {
        let Contents { hops, tables, classes, rules } = &mut self.wanted;
        let used: BTreeSet<_> = tables.values().flatten().copied().collect();
        hops.retain(|hop, _| used.contains(hop));
        tables.values_mut().for_each(|hop| *hop = hop.filter(|hop| hops.contains_key(hop)));
        let used: BTreeSet<_> = rules.keys().map(|(number, _)| *number).collect();
        classes.retain(|number, _| used.contains(number));
        let leads: Vec<_> = self
            .wanted
            .rules
            .iter()
            .map(|(spot, lead)| (*spot, self.wanted.lead(spot.1.family(), PathId(lead.path))))
            .collect();
        self.wanted.rules = leads.into_iter().collect();
    }

    fn expect_room(&self) -> Result<(), DriverError> {
        let nobody = PortName::tunnel();
        let ports = self.wanted.named_ports().into_iter().chain([&nobody]);
        for port in ports {
            for family in Family::BOTH {
                let count = self.wanted.asked(port, family).len();
                if count > MAX_PROBES {
                    return Err(DriverError::Unsupported {
                        what: format!(
                            "{}: the {family} rules for packets from port {port} have {count} different orders, \
                             ends and lengths of prefixes",
                            self.place
                        ),
                        help: format!("use at most {MAX_PROBES}, or leave out the driver's engine"),
                    });
                }
            }
        }
        Ok(())
    }
}

fn too_many_hops(place: &Place) -> DriverError {
    DriverError::Unsupported {
        what: format!("{place}: more than {} next hops", HOP_SLOTS - 1),
        help: "leave out the driver's engine, or lead some of the sites another way".to_owned(),
    }
}

/// A number that no class has, and none had since they were counted up.
fn free(classes: &BTreeMap<u32, Class>) -> u32 {
    let last = classes.keys().next_back().copied().unwrap_or_default();
    (1..=u32::MAX)
        .map(|step| last.wrapping_add(step))
        .find(|number| *number != 0 && !classes.contains_key(number))
        .unwrap_or(1)
}

/// The port and next hop of a hop, as the engines write them.
pub(crate) fn side(next: &NextHop) -> Side {
    let mut next_hops = NextHops::default();
    match next.via {
        Some(IpAddr::V4(address)) => next_hops.v4 = Some(address),
        Some(IpAddr::V6(address)) => next_hops.v6 = Some(address),
        None => {}
    }
    Side { port: next.port.clone(), next_hops }
}

/// `None` for a slot where nobody is.
fn read_hop(entry: &layout::Side) -> Option<NextHop> {
    let Side { port, next_hops } = words::read_side(entry)?;
    let via = next_hops.v4.map(IpAddr::V4).or(next_hops.v6.map(IpAddr::V6));
    Some(NextHop { family: read_family(entry.family)?, port, via })
}

pub(crate) fn table_key(family: Family, path: PathId) -> TableKey {
    TableKey { path: path.0, family: words::family(family).into() }
}

/// The key of a rule in the map of its family.
pub(crate) enum RuleKey {
    V4(RuleKey4),
    V6(RuleKey6),
}

pub(crate) fn rule_key((class, prefix): &Spot) -> RuleKey {
    match prefix.address() {
        IpAddr::V4(address) => RuleKey::V4(RuleKey4 { class: *class, address: address.octets() }),
        IpAddr::V6(address) => RuleKey::V6(RuleKey6 { class: *class, address: address.octets() }),
    }
}
