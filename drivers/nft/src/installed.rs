//! What is on the element: our nftables table, and the kernel's part of the hops in it.

use std::collections::{BTreeMap, BTreeSet};

use catena_driver::DriverError;
use catena_driver::hops::{HopId, Kernel, Rules};
use catena_model::address::Family;
use catena_model::forwarding::{PathId, Rule, Table};
use catena_model::name::PortName;

use crate::contents::{Contents, Entry, Target};
use crate::nft::Nft;
use crate::ruleset::Ruleset;

/// A table of ours that is not whole is read as one that leads to this port, where all packets end. It is no table that
/// anybody wants, so it is put again or deleted. Put as such, packets that are led to it are dropped.
pub(crate) const NOWHERE: &str = "lo";

#[derive(Debug)]
pub(crate) struct Installed {
    /// `None`: there is no table of ours.
    pub(crate) ruleset: Option<Ruleset>,
    pub(crate) rules: BTreeMap<Family, Rules>,
    /// As it stands there, whether or not it works.
    pub(crate) contents: Contents,
    /// Whether the table says this and nothing else.
    pub(crate) understood: bool,
    /// Hops that the kernel leads packets to.
    whole: BTreeSet<HopId>,
}

/// So often it is read again if it changes while it is read. On an element that changes without pause the last reading
/// is taken as it is: what it misses will be told by an event.
const ATTEMPTS: usize = 8;

impl Installed {
    pub(crate) fn read(nft: &Nft, kernel: &mut Kernel<'_>, released: u32) -> Result<Self, DriverError> {
        let mut installed = Self::of(nft.list()?, kernel, released)?;
        for _ in 1..ATTEMPTS {
            // A hop that is not there may be one that has just been taken away, with all that led to it.
            let dangles = installed.contents.hops.keys().any(|hop| !installed.whole.contains(hop));
            if !dangles {
                break;
            }
            let ruleset = nft.list()?;
            if ruleset == installed.ruleset {
                break;
            }
            installed = Self::of(ruleset, kernel, released)?;
        }
        Ok(installed)
    }

    fn of(ruleset: Option<Ruleset>, kernel: &mut Kernel<'_>, released: u32) -> Result<Self, DriverError> {
        let (contents, behind) = ruleset.as_ref().map(Contents::read).unwrap_or_default();
        let said = contents.ruleset_beside(&behind, released);
        let understood = ruleset.as_ref().is_none_or(|ruleset| *ruleset == said);
        let mut rules = BTreeMap::new();
        for family in Family::BOTH {
            rules.insert(family, kernel.rules(family)?);
        }
        let mut whole = BTreeSet::new();
        for (hop, next) in &contents.hops {
            if kernel.is_whole(*hop, next, &rules[&next.family])? {
                whole.insert(*hop);
            }
        }
        Ok(Self { ruleset, rules, contents, understood, whole })
    }

    /// What is there and does what it says. What does not is said to lead nowhere: nobody wants that, so it is put again
    /// or deleted.
    pub(crate) fn sound(&self) -> Contents {
        let Contents { hops, tables, rules } = &self.contents;
        let leads = |family: Family, target: Target| match target {
            Target::Hop(hop) => {
                self.whole.contains(&hop) && hops.get(&hop).is_some_and(|next| next.family == family)
            }
            Target::Nowhere => true,
        };
        let sound_tables = tables
            .iter()
            .map(|(key, target)| (*key, if leads(key.0, *target) { *target } else { Target::Nowhere }));
        let sound_rules = rules.iter().map(|(spot, entry)| {
            let told = tables.get(&(spot.1.family, entry.path));
            let sound = self.understood && told == Some(&entry.target);
            let nowhere = Entry { path: PathId::NOWHERE, target: Target::Nowhere, ..*entry };
            (spot.clone(), if sound { *entry } else { nowhere })
        });
        Contents { hops: hops.clone(), tables: sound_tables.collect(), rules: sound_rules.collect() }
    }
}

impl Contents {
    pub(crate) fn all_tables(&self) -> impl Iterator<Item = Table> {
        self.tables.iter().filter_map(|((family, path), target)| {
            let (family, path) = (*family, *path);
            match target {
                Target::Hop(hop) => {
                    let next = self.hops.get(hop)?;
                    Some(Table { path, family, port: next.port.clone(), via: next.via })
                }
                Target::Nowhere => {
                    Some(Table { path, family, port: PortName::new(NOWHERE).ok()?, via: None })
                }
            }
        })
    }

    pub(crate) fn all_rules(&self) -> impl Iterator<Item = Rule> {
        self.rules.iter().map(|((order, selector), entry)| Rule {
            order: *order,
            selector: selector.clone(),
            table: entry.path,
        })
    }
}
