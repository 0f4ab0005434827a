//! Elements, hosts and links: the inventory.

use std::collections::{HashMap, HashSet};

use ipnet::IpNet;

use super::catalogue::{Catalogue, Entry};
use super::ip;
use super::report::Report;
use crate::address::{Family, Prefix};
use crate::forwarding::TUNNEL_PORT;
use crate::name::NodeName;
use crate::resource::source::Located;
use crate::resource::written::{Element, Link, LinkEnd, Route};
use crate::resource::{Diagnostic, Document, DriverSpec, ResourceKind};

/// RFC 8200, section 5: every link that carries IPv6 carries packets of this length.
pub(super) const IPV6_MINIMUM_MTU: u16 = 1280;

pub(super) fn check(catalogue: &Catalogue, report: &mut Report) {
    namespaces(catalogue, report);
    for link in catalogue.links.values() {
        for end in &link.ends {
            link_end(catalogue, *link, end, report);
        }
        subnets(*link, report);
        mtu(*link, report);
    }
    for element in catalogue.elements.values() {
        routes(catalogue, element.document, &element.name, &element.routes, report);
    }
    for host in catalogue.hosts.values() {
        routes(catalogue, host.document, &host.name, &host.routes, report);
    }
}

/// Two elements in one namespace would take each other's rules for drift.
fn namespaces(catalogue: &Catalogue, report: &mut Report) {
    let mut taken: HashMap<Option<&str>, Entry<Element>> = HashMap::new();
    for element in catalogue.elements.values() {
        let DriverSpec::Linux(linux) = &element.driver.value else { continue };
        let Some(other) = taken.insert(linux.netns.as_deref(), *element) else { continue };
        let message = match &linux.netns {
            Some(netns) => format!("two elements are the network namespace `{netns}`"),
            None => "two elements are the controller's own network namespace".to_owned(),
        };
        let diagnostic = Diagnostic::new(message, "give each element a `netns` of its own")
            .at(element.label(element.driver.span, ""))
            .at(other.label(other.driver.span, format!("also that of {}", *other.name)));
        report.add(diagnostic);
    }
}

fn link_end(catalogue: &Catalogue, link: Entry<Link>, end: &LinkEnd, report: &mut Report) {
    if !catalogue.is_node(&end.node) {
        report.unknown_node(link.document, &end.node, catalogue.node_names());
    }
    let port = end.port.as_str();
    if port == "lo" || port.starts_with(TUNNEL_PORT) {
        let message = format!("no link can have its end at port `{port}`");
        let help = format!("take another name: `lo` is the loopback, `{TUNNEL_PORT}` stands for all tunnels");
        report.add(Diagnostic::new(message, help).at(link.label(end.port.span, "")));
    }
    if *end.external && catalogue.role(&end.node).is_none() && catalogue.is_node(&end.node) {
        let message = format!("{} is a host, so its port cannot be external", *end.node);
        let help = "`external: true` belongs to the end at the element whose port faces the Internet";
        report.add(Diagnostic::new(message, help).at(link.label(end.external.span, "")));
    }
}

/// Neighbours reach each other: every address of one end has one of the other end in its subnet, if that has any of the
/// family.
fn subnets(link: Entry<Link>, report: &mut Report) {
    let [a, b] = &link.spec.ends;
    for family in Family::BOTH {
        if let Some(diagnostic) = strangers(link, a, b, family).or_else(|| strangers(link, b, a, family)) {
            report.add(diagnostic);
        }
    }
    for address in &a.addresses {
        if let Some(same) = b.addresses.iter().find(|other| other.addr() == address.addr()) {
            let message = format!("both ends of the link have the address {}", address.addr());
            let diagnostic = Diagnostic::new(message, "give each end an address of its own")
                .at(link.label(same.span, ""))
                .at(link.label(address.span, format!("{} has it", *a.node)));
            report.add(diagnostic);
        }
    }
}

fn strangers(link: Entry<Link>, near: &LinkEnd, far: &LinkEnd, family: Family) -> Option<Diagnostic> {
    fn of(end: &LinkEnd, family: Family) -> impl Iterator<Item = &Located<IpNet>> {
        end.addresses.iter().filter(move |address| Family::of(address.addr()) == family)
    }
    let first = of(far, family).next()?;
    let others: HashSet<Prefix> = of(far, family).map(|other| Prefix::of(other.value)).collect();
    // The ends may have further addresses, as long as each has a neighbour.
    let alone = of(near, family).find(|address| !others.contains(&Prefix::of(address.value)))?;
    let message = format!("{} and {} are not of one subnet", alone.value, first.value);
    let diagnostic =
        Diagnostic::new(message, "give the two ends of a link addresses of one subnet, with the same length")
            .at(link.label(alone.span, ""))
            .at(link.label(first.span, "the other end"));
    Some(diagnostic)
}

fn mtu(link: Entry<Link>, report: &mut Report) {
    let addresses = link.spec.ends.iter().flat_map(|end| &end.addresses);
    let v6 = addresses.into_iter().find(|address| address.addr().is_ipv6());
    if let Some(v6) = v6
        && *link.mtu < IPV6_MINIMUM_MTU
    {
        let message = format!("an MTU of {} is too small for IPv6", *link.mtu);
        let help = format!("write {IPV6_MINIMUM_MTU} or more, or take the IPv6 addresses away (RFC 8200)");
        let diagnostic = Diagnostic::new(message, help)
            .at(link.label(link.mtu.span, ""))
            .at(link.label(v6.span, "the link has an IPv6 address"));
        report.add(diagnostic);
    }
}

/// A next hop is a neighbour.
fn routes(
    catalogue: &Catalogue,
    document: &Document,
    node: &Located<NodeName>,
    routes: &[Route],
    report: &mut Report,
) {
    for Route { via, .. } in routes {
        if catalogue.has_address(node, **via) {
            let message = format!("{} is an address of {} itself", **via, **node);
            let help = "write the address of the neighbour at the other end of the link";
            report.add(Diagnostic::new(message, help).at(document.label(via.span, "")));
            continue;
        }
        let subnets = catalogue.subnets(node);
        if !subnets.covers(Prefix::host(**via)) {
            let message = format!("the next hop {} is on no link of {}", **via, **node);
            let family = Family::of(**via);
            let some: Vec<String> = subnets.of(family).take(3).map(|subnet| subnet.to_string()).collect();
            let help = match some.is_empty() {
                true => {
                    format!("give a link end of {} an {} address, and take a neighbour's", **node, ip(family))
                }
                false => format!("take the address of a neighbour, in {}", some.join(" or ")),
            };
            report.missing(
                &[ResourceKind::Link],
                Diagnostic::new(message, help).at(document.label(via.span, "")),
            );
        }
    }
}
