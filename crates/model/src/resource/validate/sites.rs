//! Sites: whose they are, which addresses they have, and how they are attached.

use std::collections::HashMap;
use std::net::IpAddr;

use super::catalogue::{Catalogue, Entry, Port};
use super::ip;
use super::network::IPV6_MINIMUM_MTU;
use super::prefix_set::PrefixSet;
use super::report::Report;
use crate::address::{Family, Prefix};
use crate::forwarding::Oversize;
use crate::name::{LinkName, NodeName, TenantName};
use crate::resource::source::{Located, Span};
use crate::resource::written::{Attachment, Gre, Site};
use crate::resource::{self, Diagnostic, ResourceKind, Role};

pub(super) fn check(catalogue: &Catalogue, report: &mut Report) {
    let mut tenants: HashMap<&TenantName, PrefixSet> = HashMap::new();
    let mut tunnels = HashMap::new();
    let telling = telling(catalogue);
    for site in catalogue.sites.values() {
        prefixes(catalogue, *site, &mut tenants, report);
        match &site.spec.attachment {
            Attachment::Gre(gre) => {
                tunnel(catalogue, *site, gre, report);
                cutting(*site, gre, &telling, report);
                let identity = (*gre.customer.address, *gre.cloud.address, gre.key.map(|key| key.value));
                if let Some(other) = tunnels.insert(identity, (*site, gre)) {
                    report.add(same_tunnel((*site, gre), other));
                }
            }
            Attachment::L2 { link } => l2(catalogue, *site, link, report),
        }
        at_access(catalogue, *site, report);
    }
}

fn prefixes<'d>(
    catalogue: &Catalogue<'d>,
    site: Entry<'d, Site>,
    tenants: &mut HashMap<&'d TenantName, PrefixSet>,
    report: &mut Report,
) {
    let name = &site.spec.tenant;
    let Some(tenant) = catalogue.tenants.get(&name.value) else {
        let known = catalogue.tenants.keys().map(|name| name.as_str());
        report.unknown(ResourceKind::Tenant, site.document, name, known);
        return;
    };
    let Some(own) = &site.spec.prefixes else { return };
    let allowed = tenants
        .entry(&name.value)
        .or_insert_with(|| tenant.spec.prefixes.iter().map(|prefix| prefix.value).collect());
    for prefix in own.iter().filter(|prefix| !allowed.covers(prefix.value)) {
        let message = format!("{} is not within the prefixes of {}", **prefix, **name);
        let help = format!("take a prefix within the tenant's, or add this one to tenant {}", **name);
        let diagnostic = Diagnostic::new(message, help)
            .at(site.label(prefix.span, ""))
            .at(tenant.name_label("the tenant"));
        report.add(diagnostic);
    }
}

fn tunnel(catalogue: &Catalogue, site: Entry<Site>, gre: &Gre, report: &mut Report) {
    if let Some(element) = &gre.customer.element {
        tunnel_end(catalogue, site, element, gre.customer.address, &[Role::Access], report);
    }
    let cloud = &gre.cloud;
    tunnel_end(catalogue, site, &cloud.element, cloud.address, &[Role::Physical, Role::Router], report);
    if *gre.customer.address == *cloud.address {
        let message = format!("both ends of the tunnel are {}", *cloud.address);
        let diagnostic =
            Diagnostic::new(message, "write the customer's address at one end, the cloud's at the other")
                .at(site.label(cloud.address.span, ""))
                .at(site.label(gre.customer.address.span, "the customer's end"));
        report.add(diagnostic);
    }
    let families = [&gre.customer.address, &cloud.address].map(|address| Family::of(**address));
    if families[0] != families[1] {
        let message = format!(
            "a tunnel between {} and {}: one is {}, the other {}",
            *gre.customer.address,
            *cloud.address,
            ip(families[0]),
            ip(families[1])
        );
        let diagnostic = Diagnostic::new(message, "take outer addresses of one family")
            .at(site.label(cloud.address.span, ""))
            .at(site.label(gre.customer.address.span, "the customer's end"));
        report.add(diagnostic);
    } else {
        room_for_ipv6(catalogue, site, gre, report);
    }
}

/// Where it is written that the tunnel's outer packets are cut, if it is.
fn cuts(gre: &Gre) -> Option<Located<Oversize>> {
    gre.oversize.filter(|oversize| **oversize == Oversize::FragmentOuter)
}

/// Whether outer packets can be cut, where that is asked for.
fn cutting(site: Entry<Site>, gre: &Gre, telling: &Telling, report: &mut Report) {
    let Some(cuts) = cuts(gre) else { return };
    let message = format!("the tunnel of {} cannot cut outer packets", *site.name);
    let leave_out = "leave `oversize` out, so that senders are told";
    if Family::of(*gre.cloud.address) == Family::V6 {
        let help = format!("take outer addresses of IPv4, or {leave_out}");
        let diagnostic = Diagnostic::new(message, help)
            .at(site.label(cuts.span, ""))
            .at(site.label(gre.cloud.address.span, "no router cuts IPv6 packets (RFC 8200 section 5)"));
        report.add(diagnostic);
    } else if let Some(element) = &gre.customer.element {
        let label = format!("{} would have to put them together", **element);
        let help = format!("{leave_out}: no end of a tunnel that the controller drives takes fragments");
        let diagnostic =
            Diagnostic::new(message, help).at(site.label(cuts.span, "")).at(site.label(element.span, label));
        report.add(diagnostic);
    } else if let Some((other, telling)) = telling.get(&gre.cloud.element.value) {
        let label = format!("that of {} ends at {}, too, and tells senders", *other.name, *gre.cloud.element);
        let help = "write the same `oversize` for all tunnels that end at one element: they share an interface and its MTU";
        let diagnostic =
            Diagnostic::new(message, help).at(site.label(cuts.span, "")).at(other.label(*telling, label));
        report.add(diagnostic);
    }
}

/// For each element at which tunnels end that cut nothing, one of their sites, and where it names the element.
type Telling<'d> = HashMap<&'d NodeName, (Entry<'d, Site>, Span)>;

fn telling<'d>(catalogue: &Catalogue<'d>) -> Telling<'d> {
    let end = |site: &Entry<'d, Site>| match &site.spec.attachment {
        Attachment::Gre(gre) if cuts(gre).is_none() => Some(&gre.cloud.element),
        _ => None,
    };
    catalogue.sites.values().filter_map(|site| end(site).map(|end| (&end.value, (*site, end.span)))).collect()
}

/// What carries IPv6 carries packets of [`IPV6_MINIMUM_MTU`] (RFC 8200 section 5; for GRE, RFC 7676 section 3.1): senders
/// make no smaller ones, whatever they are told.
fn room_for_ipv6(catalogue: &Catalogue, site: Entry<Site>, gre: &Gre, report: &mut Report) {
    let prefixes = catalogue.prefixes_of(site);
    let Some(ipv6) = prefixes.iter().find(|prefix| prefix.prefix.family() == Family::V6) else { return };
    if cuts(gre).is_some() {
        return;
    }
    let overhead = resource::Gre::overhead(*gre.cloud.address, gre.key.map(|key| key.value));
    let ends = gre.customer.element.iter().map(|element| (element, &gre.customer.address));
    for (element, address) in ends.chain([(&gre.cloud.element, &gre.cloud.address)]) {
        let mut ports = catalogue.ports(element);
        let has = |port: &&Port| port.near.addresses.iter().any(|near| near.addr() == address.value);
        let Some(link) = ports.find(has).map(|port| port.link) else { continue };
        if link.mtu.saturating_sub(overhead) < IPV6_MINIMUM_MTU {
            let message = format!(
                "IPv6 packets of {IPV6_MINIMUM_MTU} bytes do not fit into the tunnel of {}: {} are left of {}'s {}",
                *site.name,
                link.mtu.saturating_sub(overhead),
                *link.name,
                *link.mtu
            );
            let help = format!("give the link an `mtu` of {} or more", IPV6_MINIMUM_MTU + overhead);
            let diagnostic = Diagnostic::new(message, help)
                .at(site.label(address.span, ""))
                .at(link.name_label("the link under the tunnel"))
                .at(ipv6.label("the site's IPv6 prefix"));
            report.add(diagnostic);
        }
    }
}

/// An element of the right role, which has the outer address.
fn tunnel_end(
    catalogue: &Catalogue,
    site: Entry<Site>,
    name: &Located<NodeName>,
    address: Located<IpAddr>,
    roles: &[Role],
    report: &mut Report,
) {
    let Some(element) = catalogue.elements.get(&name.value) else {
        if catalogue.hosts.contains_key(&name.value) {
            let message = format!("{} is a host, which the controller does not drive", **name);
            let help = match roles {
                [Role::Access] => {
                    "leave `element` out: the host decides itself what it sends into the tunnel"
                }
                _ => "name an element with `role: physical` or `role: router`",
            };
            report.add(Diagnostic::new(message, help).at(site.label(name.span, "")));
        } else {
            let known = catalogue.elements.keys().map(|name| name.as_str());
            report.unknown(ResourceKind::Element, site.document, name, known);
        }
        return;
    };
    if !roles.contains(&element.role) {
        let wanted: Vec<String> = roles.iter().map(|role| format!("`{role}`")).collect();
        let message =
            format!("a tunnel cannot end here at {}, an element of the role {}", **name, *element.role);
        let help = format!("name an element whose role is {}", wanted.join(" or "));
        let diagnostic = Diagnostic::new(message, help)
            .at(site.label(name.span, ""))
            .at(element.label(element.role.span, "its role"));
        report.add(diagnostic);
    }
    if !catalogue.has_address(name, *address) {
        let message = format!("{} is not an address of {}", *address, **name);
        let some: Vec<String> = catalogue
            .ports(name)
            .flat_map(|port| &port.near.addresses)
            .filter(|other| Family::of(other.addr()) == Family::of(*address))
            .take(3)
            .map(|address| address.addr().to_string())
            .collect();
        let help = match some.is_empty() {
            true => format!("give a link end of {} this address", **name),
            false => format!("it has {}: take one, or give a link end this address", some.join(", ")),
        };
        let diagnostic = Diagnostic::new(message, help).at(site.label(address.span, ""));
        report.missing(&[ResourceKind::Link], diagnostic);
    }
}

fn same_tunnel((site, gre): (Entry<Site>, &Gre), (other, former): (Entry<Site>, &Gre)) -> Diagnostic {
    let message = format!("the tunnels of {} and {} cannot be told apart", *site.name, *other.name);
    let help = "write another `key`, or another outer address, at one of the two";
    let place = |gre: &Gre| gre.key.map_or(gre.customer.address.span, |key| key.span);
    Diagnostic::new(message, help)
        .at(site.label(place(gre), "equal outer addresses and key"))
        .at(other.label(place(former), format!("the tunnel of {}", *other.name)))
}

/// A link between the customer's side and the cloud's.
fn l2(catalogue: &Catalogue, site: Entry<Site>, name: &Located<LinkName>, report: &mut Report) {
    let Some(link) = catalogue.links.get(&name.value) else {
        let known = catalogue.links.keys().map(|name| name.as_str());
        report.unknown(ResourceKind::Link, site.document, name, known);
        return;
    };
    let both_known = link.ends.iter().all(|end| catalogue.is_node(&end.node));
    if both_known && catalogue.attachment_ends(link.spec).is_none() {
        let [a, b] = &link.spec.ends;
        let message = format!("{} joins {} and {}, which attaches no site", **name, *a.node, *b.node);
        let help = "take a link with a host or an element with `role: access` at one end, and an element with \
                    `role: physical` or `role: router` at the other";
        let diagnostic =
            Diagnostic::new(message, help).at(site.label(name.span, "")).at(link.name_label("the link"));
        report.add(diagnostic);
    }
}

/// A driven access element has a port in the site's own network: there the site's packets come in and are claimed.
fn at_access(catalogue: &Catalogue, site: Entry<Site>, report: &mut Report) {
    let (Some(access), _) = catalogue.attached_to(site.spec) else { return };
    let Some(element) = catalogue.elements.get(access) else { return };
    let prefixes = catalogue.prefixes_of(site);
    let routes: Vec<Prefix> =
        element.routes.iter().map(|route| *route.to).filter(|to| to.length() > 0).collect();
    let on_a_link = |prefix: Prefix| catalogue.has_address_within(access, prefix);
    let nowhere = match prefixes.iter().any(|prefix| on_a_link(prefix.prefix)) {
        true => prefixes.iter().find(|prefix| {
            !on_a_link(prefix.prefix) && !routes.iter().any(|route| route.overlaps(prefix.prefix))
        }),
        false => prefixes.first(),
    };
    if let Some(nowhere) = nowhere {
        let message = format!("{} of {} is on no link of {access}", nowhere.prefix, *site.name);
        let help = format!(
            "give the link end of {access} that faces the site an address in {}, or name the element that has one",
            nowhere.prefix
        );
        let diagnostic =
            Diagnostic::new(message, help).at(nowhere.label("")).at(element.name_label("the access element"));
        report.missing(&[ResourceKind::Link], diagnostic);
    }
}
