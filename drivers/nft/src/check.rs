//! Why changes could not be applied here, or would not do what they say. Nothing is touched.
//!
//! What any router needs, whatever the engine (forwarding, loose reverse path filtering, nothing foreign among our rule
//! priorities), is not looked at here.

use std::collections::BTreeSet;

use catena_driver::DriverError;
use catena_driver::hops::{HopId, Kernel, NextHop, Place};
use catena_model::address::Family;
use catena_model::forwarding::{Change, Object, Rule, TUNNEL_PORT, Table};
use catena_model::name::PortName;

use crate::class::Class;
use crate::contents::Contents;
use crate::nft::Nft;

pub(crate) fn check(
    place: &Place,
    nft: &Nft,
    kernel: &mut Kernel<'_>,
    changes: &[Change],
) -> Result<(), DriverError> {
    let mut hops = BTreeSet::new();
    for change in changes {
        match change {
            Change::Put { new: Object::Rule(rule), .. } => {
                expect_class(place, rule)?;
                rule.selector.in_port.iter().try_for_each(|port| expect_port(kernel, port))?;
            }
            Change::Put { new: Object::Table(table), .. } => {
                expect_one_family(place, table)?;
                expect_port(kernel, &table.port)?;
                hops.insert(NextHop::of(table));
            }
            Change::Delete { old: Object::Rule(_) | Object::Table(_) } => {}
            other => return Err(unsupported_kind(place, other)),
        }
    }
    let (installed, _) = nft.list()?.as_ref().map(Contents::read).unwrap_or_default();
    hops.extend(installed.hops.into_values());
    if hops.len() > HopId::all().count() { Err(too_many_hops(place)) } else { Ok(()) }
}

/// Whoever makes the tunnels makes their port before it is needed; it may not be there yet.
fn expect_port(kernel: &mut Kernel<'_>, port: &PortName) -> Result<(), DriverError> {
    if port.as_str() == TUNNEL_PORT { Ok(()) } else { kernel.expect_port(port) }
}

pub(crate) fn expect_one_family(place: &Place, table: &Table) -> Result<(), DriverError> {
    match table.via.filter(|via| Family::of(*via) != table.family) {
        None => Ok(()),
        Some(via) => Err(DriverError::Unsupported {
            what: format!("{place}: an {} table by way of {via}", table.family),
            help: "give a next hop of the same family".to_owned(),
        }),
    }
}

/// Whether a map could hold the rule.
pub(crate) fn expect_class(place: &Place, rule: &Rule) -> Result<(), DriverError> {
    let unsupported = |what: String, help: &str| {
        Err(DriverError::Unsupported { what: format!("{place}: {what}"), help: help.to_owned() })
    };
    let selector = &rule.selector;
    for prefix in [selector.from, selector.to].into_iter().flatten() {
        if prefix.family() != selector.family {
            let what = format!("an {} rule with the prefix {prefix}", selector.family);
            return unsupported(what, "give a prefix of the same family");
        }
        if prefix.length() == 0 {
            return unsupported(format!("a rule for {prefix}"), "leave out a prefix that is everything");
        }
    }
    if rule.order >= Rule::ORDERS {
        return unsupported(format!("a rule of order {}", rule.order), "give one below 256");
    }
    match Class::of(rule.order, selector, false) {
        Some(_) => Ok(()),
        None => unsupported("a rule without a prefix".to_owned(), "give a source or destination prefix"),
    }
}

pub(crate) fn too_many_hops(place: &Place) -> DriverError {
    DriverError::Unsupported {
        what: format!("{place}: more than {} next hops", HopId::all().count()),
        help: "leave out the driver's engine, or lead some of the sites another way".to_owned(),
    }
}

pub(crate) fn unsupported_kind(place: &Place, change: &Change) -> DriverError {
    DriverError::Unsupported {
        what: format!("{place}: nftables has no {}", change.object().kind()),
        help: "give the change to the driver that has the capability".to_owned(),
    }
}
