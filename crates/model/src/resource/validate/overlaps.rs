//! Prefixes that tell sites and tenants apart, and so may not overlap.

use std::collections::{BTreeMap, HashSet};

use super::catalogue::{Catalogue, Entry, SitePrefix};
use super::report::Report;
use crate::address::Prefix;
use crate::name::{NodeName, SiteName, TenantName};
use crate::resource::Diagnostic;
use crate::resource::written::{Chain, Site};

pub(super) fn check(catalogue: &Catalogue, report: &mut Report) {
    within_tenants(catalogue, report);
    between_tenants(catalogue, report);
}

/// An address of a tenant is at one of its sites.
fn within_tenants(catalogue: &Catalogue, report: &mut Report) {
    let mut by_tenant: BTreeMap<&TenantName, Vec<SitePrefix>> = BTreeMap::new();
    for site in catalogue.sites.values() {
        by_tenant.entry(&site.spec.tenant).or_default().extend(catalogue.prefixes_of(*site));
    }
    for (tenant, prefixes) in by_tenant {
        let mut told = HashSet::new();
        for (later, former) in overlapping(prefixes, |prefix| &prefix.site.spec.name.value) {
            let (a, b) = (&later.site.spec.name, &former.site.spec.name);
            if !told.insert((&a.value, &b.value)) {
                continue;
            }
            let message = format!("sites {} and {} of {tenant} both have {}", **b, **a, later.prefix);
            let help =
                "give each site the part of the tenant's prefixes that is there, by its own `prefixes`";
            let diagnostic = Diagnostic::new(message, help)
                .at(later.label(""))
                .at(former.label(format!("{} has {}", **b, former.prefix)));
            report.add(diagnostic);
        }
    }
}

/// Tenants may have the same addresses, as long as no element must tell them apart by address.
fn between_tenants(catalogue: &Catalogue, report: &mut Report) {
    let mut told = HashSet::new();
    for (meeting, prefixes) in meetings(catalogue) {
        for (later, former) in overlapping(prefixes, |prefix| &prefix.site.spec.tenant.value) {
            let (a, b) = (later.site.spec, former.site.spec);
            if told.insert((&a.name.value, &b.name.value)) {
                report.add(indistinct(&later, &former, &meeting));
            }
        }
    }
}

fn indistinct(later: &SitePrefix, former: &SitePrefix, meeting: &Meeting) -> Diagnostic {
    let (a, b) = (later.site.spec, former.site.spec);
    let (place, help) = match meeting {
        Meeting::Entry(node) => (
            format!("replies to both enter at {node}, which tells tenants by address"),
            "take prefixes that do not overlap, or take one of the two sites out of its chain",
        ),
        Meeting::Element(node) => (
            format!("packets of both pass {node}, which tells tenants by address"),
            "take prefixes that do not overlap, or attach one of the two at another element and give it functions \
             on another switch",
        ),
    };
    let message = format!("tenants {} and {} both have {}: {place}", *b.tenant, *a.tenant, later.prefix);
    Diagnostic::new(message, help)
        .at(later.label(format!("{} of {} has {}", *a.name, *a.tenant, later.prefix)))
        .at(former.label(format!("{} of {} has {}", *b.name, *b.tenant, former.prefix)))
}

/// An element at which packets of several sites with chains are told apart by their addresses.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Meeting<'d> {
    /// Replies enter there. Each such element claims for all sites.
    Entry(&'d NodeName),
    Element(&'d NodeName),
}

fn meetings<'d>(catalogue: &Catalogue<'d>) -> BTreeMap<Meeting<'d>, Vec<SitePrefix<'d>>> {
    let external = catalogue.links.values().flat_map(|link| &link.spec.ends).find(|end| *end.external);
    let mut meetings: BTreeMap<Meeting, Vec<SitePrefix>> = BTreeMap::new();
    let mut seen: HashSet<(&NodeName, &SiteName)> = HashSet::new();
    for chain in catalogue.chains.values() {
        for site in catalogue.sites_in(chain.spec) {
            let prefixes = || catalogue.prefixes_of(site);
            if let Some(entry) = external {
                // All sites meet there: nothing more is to be found at the other elements.
                if seen.insert((&entry.node, &site.spec.name)) {
                    meetings.entry(Meeting::Entry(&entry.node)).or_default().extend(prefixes());
                }
                continue;
            }
            for node in passed(catalogue, *chain, site) {
                if seen.insert((node, &site.spec.name)) {
                    meetings.entry(Meeting::Element(node)).or_default().extend(prefixes());
                }
            }
        }
    }
    meetings
}

/// The elements that a site's packets certainly pass: those of its attachment, and the switches of its functions.
fn passed<'d>(
    catalogue: &Catalogue<'d>,
    chain: Entry<'d, Chain>,
    site: Entry<'d, Site>,
) -> impl Iterator<Item = &'d NodeName> {
    let (access, cloud) = catalogue.attached_to(site.spec);
    let functions = catalogue.functions_of(chain.spec);
    let switches = functions.flat_map(|function| {
        function.spec.instances.iter().map(|instance| &instance.ports.inside().element.value)
    });
    access.into_iter().chain(cloud).chain(switches)
}

/// Each prefix that overlaps one before it in address order that belongs to another owner, with that one.
///
/// Sorted, the prefixes that cover the current one are a stack. Every entry of it knows the nearest one below that has
/// another owner, so that each prefix costs one look, however many cover it.
fn overlapping<'d, O: PartialEq>(
    mut prefixes: Vec<SitePrefix<'d>>,
    owner: impl Fn(&SitePrefix<'d>) -> O,
) -> Vec<(SitePrefix<'d>, SitePrefix<'d>)> {
    struct Covering<'d> {
        prefix: SitePrefix<'d>,
        below: Option<SitePrefix<'d>>,
    }
    prefixes.sort_by_key(|prefix| prefix.prefix);
    let mut found = Vec::new();
    let mut stack: Vec<Covering> = Vec::new();
    for prefix in prefixes {
        let covers = |outer: Prefix| outer.covers(prefix.prefix);
        while stack.last().is_some_and(|top| !covers(top.prefix.prefix)) {
            stack.pop();
        }
        let other = stack.last().and_then(|top| match owner(&top.prefix) == owner(&prefix) {
            true => top.below,
            false => Some(top.prefix),
        });
        found.extend(other.map(|other| (prefix, other)));
        stack.push(Covering { prefix, below: other });
    }
    found
}
