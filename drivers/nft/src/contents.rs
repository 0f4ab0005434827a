//! What an element's nftables table says in our own words, and the table that says so.
//!
//! ```text
//! table inet catena {
//!     map order136-ip-from24 {
//!         type ipv4_addr : verdict
//!         elements = { 172.16.1.0 comment "path 4" : goto hop-1 }
//!     }
//!     map tables-ip { type mark : verdict; elements = { 0x00000004 : goto hop-1 } }
//!     set hops { type mark . ifname; elements = { 0x02010000 . "qr-abc" comment "ip 10.21.0.5" } }
//!     chain hop-1 { meta mark set meta mark & 0xfe01ffff | 0x02010000; }
//!     chain nowhere { drop; }
//!     chain prerouting {
//!         type filter hook prerouting priority 200; policy accept;
//!         meta mark & 0x03ff0000 != 0x00000000 meta mark set meta mark & 0xfc00ffff
//!         ip saddr & 255.255.255.0 vmap @order136-ip-from24
//!     }
//!     chain forward {
//!         type filter hook forward priority 200; policy accept;
//!         meta mark & 0x03ff0000 != 0x00000000 meta mark & 0x03ff0000 . oifname != @hops drop
//!         meta mark & 0x03ff0000 != 0x00000000 meta mark set meta mark & 0xfc00ffff
//!     }
//! }
//! ```
//!
//! A rule that changes moves to a map of the same class with `-twin` behind its name, which is looked into next, and the next
//! time back: an element that is replaced in its place is missed by a packet that is looked up in that moment.
//!
//! No packet is looked up in `tables-ip`: it is where a [`Table`](catena_model::forwarding::Table) stands, so that it can
//! be read back.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry::{Occupied, Vacant};
use std::net::IpAddr;

use catena_driver::hops::{FIELD, HopId, NextHop};
use catena_model::address::Family;
use catena_model::forwarding::{PathId, Selector};
use catena_model::name::PortName;
use nftables::expr::{BinaryOperation, Expression, Meta, MetaKey, NamedExpression};
use nftables::stmt::{Mangle, Match, Operator, Statement, VerdictMap};

use crate::class::{Class, family_word};
use crate::ruleset::{Chain, Element, Hook, Ruleset, Set, Statements};

/// After all others have changed addresses and marks (connection tracking and DNAT are at -100): what is looked at is what
/// `ip rule` would see.
const PRIORITY: i32 = 200;
const HOPS: &str = "hops";
const NOWHERE: &str = "nowhere";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) hops: BTreeMap<HopId, NextHop>,
    pub(crate) tables: BTreeMap<(Family, PathId), Target>,
    pub(crate) rules: BTreeMap<Spot, Entry>,
}

/// Where a rule stands, its order and selector: a map has room for one rule there.
pub(crate) type Spot = (u16, Selector);

/// Where packets are led.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Hop(HopId),
    /// They are dropped.
    Nowhere,
}

/// A rule, and where its packets go as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) path: PathId,
    pub(crate) target: Target,
    /// In the second of its class's maps.
    pub(crate) twin: bool,
}

impl Target {
    pub(crate) fn hop(self) -> Option<HopId> {
        match self {
            Target::Hop(hop) => Some(hop),
            Target::Nowhere => None,
        }
    }

    fn chain(self) -> String {
        match self {
            Target::Hop(hop) => format!("hop-{hop}"),
            Target::Nowhere => NOWHERE.to_owned(),
        }
    }

    fn of_chain(name: &str) -> Option<Self> {
        if name == NOWHERE {
            return Some(Target::Nowhere);
        }
        name.strip_prefix("hop-")?.parse().ok().and_then(HopId::new).map(Target::Hop)
    }
}

impl Contents {
    /// All that can be read of a table, also of a damaged one; and the rules that stand behind others, in the second of their
    /// class's maps, as they do for a moment when they change.
    pub(crate) fn read(ruleset: &Ruleset) -> (Self, Self) {
        let (mut contents, mut behind) = (Self::default(), Self::default());
        for (name, set) in &ruleset.sets {
            let family = Family::BOTH.into_iter().find(|family| *name == tables_name(*family));
            for (key, element) in &set.elements {
                if name == HOPS {
                    contents.hops.extend(read_hop(key, element));
                } else if let Some(family) = family {
                    contents.tables.extend(read_table(family, key, element));
                } else if let Ok(class) = name.parse()
                    && let Some((spot, entry)) = read_rule(class, key, element)
                {
                    // The first map comes first here, as it does for packets.
                    match contents.rules.entry(spot) {
                        Vacant(place) => drop(place.insert(entry)),
                        Occupied(first) => drop(behind.rules.insert(first.key().clone(), entry)),
                    }
                }
            }
        }
        (contents, behind)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.hops.is_empty() && self.tables.is_empty() && self.rules.is_empty()
    }

    /// The table that says this; an empty one if there is nothing to say. `released` is the mark's bit that a rule can
    /// ask for.
    pub(crate) fn ruleset(&self, released: u32) -> Ruleset {
        self.ruleset_beside(&Self::default(), released)
    }

    /// The same while the rules of `former` still stand, those that have changed in the other one of their class's maps.
    pub(crate) fn ruleset_beside(&self, former: &Self, released: u32) -> Ruleset {
        if self.is_empty() {
            return Ruleset::default();
        }
        let mut ruleset = Ruleset::default();
        ruleset.sets.insert(HOPS.to_owned(), self.hops_set());
        for family in Family::BOTH {
            ruleset.sets.insert(tables_name(family), self.tables_map(family));
        }
        let maps = rule_maps(self.rules.iter().chain(&former.rules));
        let prerouting = std::iter::once(clear()).chain(maps.keys().map(|class| look_up(*class, released)));
        let prerouting = Chain { hook: hook("prerouting"), rules: prerouting.collect() };
        ruleset.sets.extend(maps.into_iter().map(|(class, map)| (class.to_string(), map)));
        let forward = Chain { hook: hook("forward"), rules: vec![guard(), clear()] };
        let nowhere = Chain { hook: None, rules: vec![vec![Statement::Drop(None)]] };
        ruleset.chains = [("prerouting", prerouting), ("forward", forward), (NOWHERE, nowhere)]
            .map(|(name, chain)| (name.to_owned(), chain))
            .into();
        for hop in self.hops.keys() {
            let chain = Chain { hook: None, rules: vec![choose(*hop)] };
            ruleset.chains.insert(Target::Hop(*hop).chain(), chain);
        }
        ruleset
    }

    fn hops_set(&self) -> Set {
        let elements = self.hops.iter().map(|(hop, next)| {
            let family = family_word(next.family);
            let comment = match next.via {
                Some(via) => format!("{family} {via}"),
                None => family.to_owned(),
            };
            let key = vec![hop.mark().to_string(), next.port.to_string()];
            (key, Element { goto: None, comment: Some(comment) })
        });
        Set { key: types(&["mark", "ifname"]), is_map: false, elements: elements.collect() }
    }

    fn tables_map(&self, family: Family) -> Set {
        let of_family = self.tables.iter().filter(|((of, _), _)| *of == family);
        let elements = of_family.map(|((_, path), target)| {
            (vec![path.to_string()], Element { goto: Some(target.chain()), comment: None })
        });
        Set { key: types(&["mark"]), is_map: true, elements: elements.collect() }
    }
}

/// Of two rules at one place of one map, the first.
fn rule_maps<'a>(rules: impl Iterator<Item = (&'a Spot, &'a Entry)>) -> BTreeMap<Class, Set> {
    let mut maps = BTreeMap::new();
    for ((order, selector), Entry { path, target, twin }) in rules {
        let Some(class) = Class::of(*order, selector, *twin) else { continue };
        let map = maps.entry(class).or_insert_with(|| Set {
            key: class.key_type(),
            is_map: true,
            elements: BTreeMap::new(),
        });
        let comment = Some(format!("path {path}"));
        let element = Element { goto: Some(target.chain()), comment };
        map.elements.entry(class.key(selector)).or_insert(element);
    }
    maps
}

fn read_hop(key: &[String], element: &Element) -> Option<(HopId, NextHop)> {
    let [mark, port] = key else { return None };
    let mut words = element.comment.as_deref()?.split(' ');
    let family = words.next()?;
    let family = Family::BOTH.into_iter().find(|known| family_word(*known) == family)?;
    let via = words.next().map(str::parse::<IpAddr>).transpose().ok()?;
    let next = NextHop { family, port: PortName::new(port).ok()?, via };
    Some((HopId::of_mark(mark.parse().ok()?)?, next))
}

fn read_table(family: Family, key: &[String], element: &Element) -> Option<((Family, PathId), Target)> {
    let [path] = key else { return None };
    Some(((family, PathId(path.parse().ok()?)), Target::of_chain(element.goto.as_deref()?)?))
}

fn read_rule(class: Class, key: &[String], element: &Element) -> Option<(Spot, Entry)> {
    let path = element.comment.as_deref()?.strip_prefix("path ")?.parse().ok()?;
    let target = Target::of_chain(element.goto.as_deref()?)?;
    Some((class.rule(key)?, Entry { path: PathId(path), target, twin: class.is_twin() }))
}

fn tables_name(family: Family) -> String {
    format!("tables-{}", family_word(family))
}

fn types(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn hook(name: &str) -> Option<Hook> {
    Some(Hook { name: name.to_owned(), priority: PRIORITY })
}

/// On the way in, so that nobody else says which hop a packet has. On the way out because it has been routed: whoever
/// routes it once more, such as a program that put it into a tunnel, would route it by the same mark.
fn clear() -> Statements {
    vec![has_hop(), set_mark(and(mark(), !FIELD))]
}

fn look_up(class: Class, released: u32) -> Statements {
    let data = Expression::String(format!("@{class}").into());
    let unreleased = class.unless_released().then(|| is(Operator::EQ, and(mark(), released), 0));
    let look_up = Statement::VerdictMap(VerdictMap { key: class.lookup(), data });
    unreleased.into_iter().chain([look_up]).collect()
}

/// Written as nft(8) lists it: with the bits that are set anyway among those that are kept.
fn choose(hop: HopId) -> Statements {
    let kept = and(mark(), !FIELD | hop.mark());
    let chosen = BinaryOperation::OR(vec![kept, Expression::Number(hop.mark())]);
    vec![set_mark(Expression::BinaryOperation(Box::new(chosen)))]
}

/// What has a hop leaves by the hop's port, or not at all.
fn guard() -> Statements {
    let way_out =
        Expression::Named(NamedExpression::Concat(vec![and(mark(), FIELD), meta(MetaKey::Oifname)]));
    let known =
        Match { left: way_out, right: Expression::String(format!("@{HOPS}").into()), op: Operator::NEQ };
    vec![has_hop(), Statement::Match(known), Statement::Drop(None)]
}

fn has_hop() -> Statement<'static> {
    is(Operator::NEQ, and(mark(), FIELD), 0)
}

fn is(op: Operator, left: Expression<'static>, right: u32) -> Statement<'static> {
    Statement::Match(Match { left, right: Expression::Number(right), op })
}

fn set_mark(value: Expression<'static>) -> Statement<'static> {
    Statement::Mangle(Mangle { key: mark(), value })
}

fn mark() -> Expression<'static> {
    meta(MetaKey::Mark)
}

fn meta(key: MetaKey) -> Expression<'static> {
    Expression::Named(NamedExpression::Meta(Meta { key }))
}

fn and(left: Expression<'static>, mask: u32) -> Expression<'static> {
    Expression::BinaryOperation(Box::new(BinaryOperation::AND(left, Expression::Number(mask))))
}
