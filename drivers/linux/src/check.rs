//! Why changes could not be applied here, or would not do what they say. Nothing is touched.

use std::collections::BTreeSet;
use std::fmt;
use std::io;

use catena_driver::DriverError;
use catena_driver::netns::NetNs;
use catena_model::address::Family;
use catena_model::forwarding::{Change, Object, PathId, Rule, TUNNEL_PORT, Table};
use catena_model::name::PortName;
use netlink_packet_route::rule::RuleMessage;

use crate::kernel::Kernel;
use crate::numbers::Part;
use crate::rule::{self, OurRule};
use crate::table::Routes;
use crate::words;

pub(crate) fn check(kernel: &mut Kernel<'_>, netns: &NetNs, changes: &[Change]) -> Result<(), DriverError> {
    let mut families = BTreeSet::new();
    let mut in_ports = BTreeSet::new();
    for change in changes {
        match change {
            Change::Put { new: Object::Rule(rule), .. } => {
                rule_request(kernel, rule)?;
                let in_port = rule.selector.in_port.clone().filter(|port| !comes_with_tunnels(port));
                if let Some(port) = &in_port {
                    kernel.port_index(port)?;
                }
                families.insert(rule.selector.family);
                in_ports.insert((rule.selector.family, in_port));
            }
            Change::Put { new: Object::Table(table), .. } => check_table(kernel, table)?,
            Change::Delete { old: Object::Rule(_) | Object::Table(_) } => {}
            other => return Err(unsupported_kind(other)),
        }
    }
    for family in families {
        foreign_rules(kernel, family)?;
    }
    for (family, port) in in_ports {
        check_settings(kernel, netns, family, port.as_ref())?;
    }
    Ok(())
}

fn check_table(kernel: &mut Kernel<'_>, table: &Table) -> Result<(), DriverError> {
    expect_one_family(kernel, table)?;
    if !comes_with_tunnels(&table.port) {
        kernel.port_index(&table.port)?;
    }
    let number = table_number(kernel, table.path)?;
    let routes = kernel.table(table.family, number)?;
    foreign_routes(kernel, table, &routes)
}

/// Whoever makes the tunnels makes this port, fit for us, before packets come in by it; it may not be there yet.
pub(crate) fn comes_with_tunnels(port: &PortName) -> bool {
    port.as_str() == TUNNEL_PORT
}

pub(crate) fn expect_one_family(kernel: &Kernel<'_>, table: &Table) -> Result<(), DriverError> {
    match table.via.filter(|via| Family::of(*via) != table.family) {
        None => Ok(()),
        Some(via) => Err(DriverError::Unsupported {
            what: format!("{}: an {} table by way of {via}", kernel.place, table.family),
            help: "give a next hop of the same family".to_owned(),
        }),
    }
}

/// A foreign route in a table of ours would take packets round the chain, and we touch nothing foreign.
pub(crate) fn foreign_routes(kernel: &Kernel<'_>, table: &Table, routes: &Routes) -> Result<(), DriverError> {
    let Some(foreign) = routes.foreign.first() else { return Ok(()) };
    let ip = kernel.place.ip(table.family);
    let route = words::route(foreign);
    Err(DriverError::Conflict {
        what: format!("{}: the route {route}", kernel.place),
        help: format!("remove it ({ip} route del {route}), or give the element's driver another tableBase"),
    })
}

fn foreign_rules(kernel: &mut Kernel<'_>, family: Family) -> Result<(), DriverError> {
    let numbers = kernel.numbers;
    let rules = kernel.rules(family)?;
    let foreign = rules.into_iter().find(|message| {
        numbers.part(rule::priority(message)).is_some() && OurRule::read(message.clone(), &numbers).is_none()
    });
    let Some(foreign) = foreign else { return Ok(()) };
    let priority = rule::priority(&foreign);
    let ip = kernel.place.ip(family);
    Err(DriverError::Conflict {
        what: format!("{}: the rule {}", kernel.place, words::foreign_rule(&foreign)),
        help: format!(
            "move it out of {} to {} ({ip} rule show pref {priority}), or give the element's driver another \
             rulePriority",
            numbers.rule_priority,
            numbers.last_priority(),
        ),
    })
}

/// The number of a path's table; an error if our range has none for it.
pub(crate) fn table_number(kernel: &Kernel<'_>, path: PathId) -> Result<u32, DriverError> {
    kernel.numbers.table(path).ok_or_else(|| DriverError::Unsupported {
        what: format!("{}: there is no routing table for path {path}", kernel.place),
        help: "give the element's driver a smaller tableBase".to_owned(),
    })
}

/// The request that makes a rule; an error if it cannot be made, or could not be read back.
pub(crate) fn rule_request(kernel: &Kernel<'_>, rule: &Rule) -> Result<RuleMessage, DriverError> {
    let unsupported = |what: String, help: &str| DriverError::Unsupported {
        what: format!("{}: {what}", kernel.place),
        help: help.to_owned(),
    };
    let selector = &rule.selector;
    for prefix in [selector.from, selector.to].into_iter().flatten() {
        if prefix.family() != selector.family {
            let what = format!("an {} rule with the prefix {prefix}", selector.family);
            return Err(unsupported(what, "give a prefix of the same family"));
        }
        if prefix.length() == 0 {
            return Err(unsupported(format!("a rule for {prefix}"), "leave out a prefix that is everything"));
        }
    }
    if selector.unless_released && kernel.numbers.mark == 0 {
        return Err(unsupported("the mark is 0".to_owned(), "give the element's driver a mark with one bit"));
    }
    if rule::part(rule) == Part::Lookup {
        table_number(kernel, rule.table)?;
    }
    rule::request(rule, &kernel.numbers).ok_or_else(|| {
        unsupported(
            format!("there is no rule priority for order {}", rule.order),
            "give the element's driver a smaller rulePriority",
        )
    })
}

pub(crate) fn unsupported_kind(change: &Change) -> DriverError {
    DriverError::Unsupported {
        what: format!("policy routing has no {}", change.object().kind()),
        help: "give the change to the driver that has the capability".to_owned(),
    }
}

/// Settings of the machine with which packets that our rules mean would be dropped before or after them.
fn check_settings(
    kernel: &Kernel<'_>,
    netns: &NetNs,
    family: Family,
    port: Option<&PortName>,
) -> Result<(), DriverError> {
    match family {
        Family::V4 => {
            expect_forwarding(kernel, netns, family, port)?;
            expect_loose_filter(kernel, netns, port)
        }
        // There, forwarding between ports is one setting of the whole namespace.
        Family::V6 => expect_forwarding(kernel, netns, family, None),
    }
}

fn expect_forwarding(
    kernel: &Kernel<'_>,
    netns: &NetNs,
    family: Family,
    port: Option<&PortName>,
) -> Result<(), DriverError> {
    let setting = Setting { family, port, key: "forwarding" };
    if setting.read(kernel, netns)? != 0 {
        return Ok(());
    }
    let all = Setting { port: None, ..setting };
    Err(DriverError::Unsupported {
        what: format!("{}: {setting} is 0, so nothing is forwarded", kernel.place),
        help: format!("run {}", kernel.place.command(&format!("sysctl -w {all}=1"))),
    })
}

/// With strict reverse path filtering (RFC 3704 section 2.2) a packet is dropped unless the way back to its source is
/// by the port that it came in by; on the way into and out of a chain it often is not.
fn expect_loose_filter(
    kernel: &Kernel<'_>,
    netns: &NetNs,
    port: Option<&PortName>,
) -> Result<(), DriverError> {
    const STRICT: u32 = 1;
    let of_all = Setting { family: Family::V4, port: None, key: "rp_filter" };
    let of_port = Setting { port, ..of_all };
    // The higher of the two counts (Documentation/networking/ip-sysctl.rst).
    let filter = of_all.read(kernel, netns)?.max(of_port.read(kernel, netns)?);
    if filter != STRICT {
        return Ok(());
    }
    Err(DriverError::Unsupported {
        what: format!("{}: reverse path filtering is strict on {of_port}", kernel.place),
        help: format!("make it loose: run {}", kernel.place.command(&format!("sysctl -w {of_port}=2"))),
    })
}

/// A setting of one port, or of all.
#[derive(Clone, Copy)]
struct Setting<'a> {
    family: Family,
    port: Option<&'a PortName>,
    key: &'static str,
}

impl Setting<'_> {
    fn read(&self, kernel: &Kernel<'_>, netns: &NetNs) -> Result<u32, DriverError> {
        let path = format!("/proc/sys/{self}");
        let read = netns.run(|| std::fs::read_to_string(&path)).and_then(|text| {
            text.trim().parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
        });
        read.map_err(|error| DriverError::failed(format!("{}: sysctl {self}", kernel.place), error))
    }
}

/// With slashes, as a port's name may have dots (sysctl.d(5)).
impl fmt::Display for Setting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.port.map_or("all", PortName::as_str);
        write!(f, "net/{}/conf/{port}/{}", self.family, self.key)
    }
}
