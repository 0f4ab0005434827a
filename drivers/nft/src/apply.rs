//! Changing what is installed, so that at no moment a packet that a rule claims can go another way than by its table.
//!
//! A step has up to four transactions of nftables, because a packet that is on its way through the table meanwhile reads a part
//! of it before a transaction and a part after. It runs the rules of the generation that it began with, but looks into maps
//! as they are by then (`nft_do_chain` and `nft_genmask_cur` in the kernel). It would find no rule in the chain of a hop that came
//! with the map's element; and nothing in a map whose element is replaced just then, or has moved to another one. (Linux 6.17
//! looks again, but one in some ten thousand packets was still missed on 6.18 when an element was replaced in its place.) So
//!
//! 1. the chains of new hops come before what leads to them, and the kernel's part of a hop before those;
//! 2. rules come, and those that change come once more, in the other one of their class's maps;
//! 3. rules go, when no packet is on its way that could have missed the new ones;
//! 4. hops go, when no packet is on its way that could have been led to them.

use std::collections::{BTreeMap, BTreeSet};

use catena_driver::DriverError;
use catena_driver::hops::{Guards, HopId, Kernel, NextHop, Place};
use catena_driver::packets::wait_for_those_on_their_way;
use catena_model::address::Family;
use catena_model::forwarding::{Change, Object, PathId, Rule, Table};

use crate::check::{expect_class, expect_one_family, too_many_hops, unsupported_kind};
use crate::contents::{Contents, Entry, Spot, Target};
use crate::installed::{Installed, NOWHERE};
use crate::nft::Nft;
use crate::ruleset::transaction;

pub(crate) fn apply(
    place: &Place,
    nft: &Nft,
    kernel: &mut Kernel<'_>,
    released: u32,
    changes: &[Change],
) -> Result<(), DriverError> {
    let installed = Installed::read(nft, kernel, released)?;
    let mut step = Step::new(place, kernel, installed);
    // What comes before a change that fails is applied.
    let outcome = changes.iter().try_for_each(|change| match change {
        Change::Put { new: Object::Rule(rule), .. } => step.put_rule(rule),
        Change::Put { new: Object::Table(table), .. } => step.put_table(table),
        Change::Delete { old: Object::Rule(rule) } => {
            step.delete_rule(rule);
            Ok(())
        }
        Change::Delete { old: Object::Table(table) } => step.delete_table(table),
        other => Err(unsupported_kind(place, other)),
    });
    step.finish(nft, released)?;
    outcome
}

struct Step<'a, 'k> {
    place: &'a Place,
    kernel: &'a mut Kernel<'k>,
    installed: Installed,
    /// What is to be there: at first what stands there, so that a step repairs what is around it. Where rules lead is
    /// worked out at the end.
    wanted: Contents,
    /// Where rules stand that are observed as leading nowhere.
    damaged: BTreeSet<Spot>,
    /// How many rules lead to each table.
    users: BTreeMap<(Family, PathId), usize>,
    /// Hops that the kernel surely has.
    made: BTreeSet<HopId>,
}

impl<'a, 'k> Step<'a, 'k> {
    fn new(place: &'a Place, kernel: &'a mut Kernel<'k>, installed: Installed) -> Self {
        let wanted = installed.contents.clone();
        let sound = installed.sound().rules;
        let leads_nowhere = |(_, entry): &(Spot, Entry)| entry.path == PathId::NOWHERE;
        let damaged = sound.into_iter().filter(leads_nowhere).map(|(spot, _)| spot).collect();
        let mut users = BTreeMap::new();
        for ((_, selector), entry) in &wanted.rules {
            *users.entry((selector.family, entry.path)).or_default() += 1;
        }
        Self { place, kernel, installed, wanted, damaged, users, made: BTreeSet::new() }
    }

    fn put_rule(&mut self, rule: &Rule) -> Result<(), DriverError> {
        expect_class(self.place, rule)?;
        let table = (rule.selector.family, rule.table);
        if rule.table != PathId::NOWHERE && !self.wanted.tables.contains_key(&table) {
            return Err(DriverError::failed(
                format!("{}: a rule for path {}", self.place, rule.table),
                "its table is not there; it must be put first",
            ));
        }
        *self.users.entry(table).or_default() += 1;
        let spot = (rule.order, rule.selector.clone());
        self.damaged.remove(&spot);
        let entry = Entry { path: rule.table, target: Target::Nowhere, twin: false };
        if let Some(former) = self.wanted.rules.insert(spot, entry) {
            self.forget_user(rule, former);
        }
        Ok(())
    }

    fn delete_rule(&mut self, rule: &Rule) {
        let spot = (rule.order, rule.selector.clone());
        let leads_nowhere = rule.table == PathId::NOWHERE && self.damaged.contains(&spot);
        if (leads_nowhere || self.wanted.rules.get(&spot).is_some_and(|entry| entry.path == rule.table))
            && let Some(former) = self.wanted.rules.remove(&spot)
        {
            self.forget_user(rule, former);
        }
    }

    fn forget_user(&mut self, rule: &Rule, former: Entry) {
        if let Some(users) = self.users.get_mut(&(rule.selector.family, former.path)) {
            *users -= 1;
        }
    }

    fn put_table(&mut self, table: &Table) -> Result<(), DriverError> {
        expect_one_family(self.place, table)?;
        let target = match table.port.as_str() {
            NOWHERE => Target::Nowhere,
            _ => Target::Hop(self.hop(&NextHop::of(table))?),
        };
        self.wanted.tables.insert((table.family, table.path), target);
        Ok(())
    }

    fn delete_table(&mut self, table: &Table) -> Result<(), DriverError> {
        let key = (table.family, table.path);
        if self.users.get(&key).is_some_and(|users| *users > 0) {
            return Err(DriverError::failed(
                format!("{}: the {} table of path {}", self.place, table.family, table.path),
                "a rule of ours still leads to it; it must go first",
            ));
        }
        self.wanted.tables.remove(&key);
        Ok(())
    }

    /// The number of a next hop, which the kernel knows from then on.
    fn hop(&mut self, next: &NextHop) -> Result<HopId, DriverError> {
        let known = self.wanted.hops.iter().find(|(_, known)| *known == next).map(|(hop, _)| *hop);
        let hop = match known {
            Some(hop) => hop,
            None => self.free_hop(next.family)?,
        };
        if !self.made.contains(&hop) {
            let rules = self.installed.rules.entry(next.family).or_default();
            self.kernel.make(hop, next, rules)?;
            self.made.insert(hop);
            self.wanted.hops.insert(hop, next.clone());
        }
        Ok(hop)
    }

    fn free_hop(&mut self, family: Family) -> Result<HopId, DriverError> {
        for hop in HopId::all().filter(|hop| !self.wanted.hops.contains_key(hop)) {
            if self.kernel.is_free(hop, family)? {
                return Ok(hop);
            }
        }
        Err(too_many_hops(self.place))
    }

    fn finish(mut self, nft: &Nft, released: u32) -> Result<(), DriverError> {
        let Contents { hops, tables, rules } = &mut self.wanted;
        for target in tables.values_mut() {
            if matches!(target, Target::Hop(hop) if !hops.contains_key(hop)) {
                *target = Target::Nowhere;
            }
        }
        let present = &self.installed.contents;
        for (spot, entry) in rules {
            entry.target = tables.get(&(spot.1.family, entry.path)).copied().unwrap_or(Target::Nowhere);
            let former = present.rules.get(spot);
            let is_former = |former: &Entry| (former.path, former.target) == (entry.path, entry.target);
            entry.twin = former.is_some_and(|former| former.twin ^ !is_former(former));
        }
        let prepared = Contents { hops: self.wanted.hops.clone(), ..present.clone() };
        let tables = self.wanted.tables.values();
        let in_use: BTreeSet<_> = tables.filter_map(|target| target.hop()).collect();
        let without_hops = {
            let mut wanted = self.wanted.clone();
            wanted.hops.retain(|hop, _| in_use.contains(hop));
            wanted
        };
        let stages = [
            (prepared.ruleset(released), false),
            (self.wanted.ruleset_beside(present, released), false),
            (self.wanted.ruleset(released), true),
            (without_hops.ruleset(released), true),
        ];
        // Nobody is on the way through a table that is not there; what is damaged is mended at once, whoever is.
        let is_sound = self.installed.understood && self.installed.ruleset.is_some();
        let skipped = if is_sound { 0 } else { 2 };
        let mut there = self.installed.ruleset.take();
        for (ruleset, is_removing) in stages.into_iter().skip(skipped) {
            let commands = transaction(there.as_ref(), &ruleset);
            if commands.is_empty() {
                continue;
            }
            if is_removing {
                wait_for_those_on_their_way();
            }
            nft.commit(&commands)?;
            there = (!ruleset.is_empty()).then_some(ruleset);
        }
        self.wanted = without_hops;
        self.clear_away()
    }

    /// Takes away what the kernel has for hops that are used no more, now or since a crash.
    fn clear_away(self) -> Result<(), DriverError> {
        for (family, mut rules) in self.installed.rules {
            let used = |hop: &HopId| self.wanted.hops.get(hop).is_some_and(|next| next.family == family);
            let known: BTreeSet<_> = self.kernel.hops(family)?.into_iter().chain(rules.lookups()).collect();
            for hop in known.into_iter().filter(|hop| !used(hop)) {
                self.kernel.remove(hop, family, &mut rules)?;
            }
            let in_use = self.wanted.hops.values().any(|next| next.family == family);
            self.kernel.sweep(family, rules, Guards { hops: in_use, unseen: &BTreeSet::new() })?;
        }
        Ok(())
    }
}
