//! Tenancy: tenants, sites, chains.

use crate::address::Prefix;
use crate::forwarding::Oversize;
use crate::name::{ChainName, LinkName, SiteName, TenantName};
use crate::resource::fields::{Fields, list, located, number, one_of, word};
use crate::resource::problems::Problems;
use crate::resource::source::Located;
use crate::resource::written::{Attachment, Chain, CloudEnd, CustomerEnd, Gre, Scope, Site, Tenant, Traffic};
use crate::resource::yaml::Node;

pub(super) fn tenant(
    name: Option<Located<TenantName>>,
    spec: &mut Fields<'_, '_>,
    problems: &mut Problems<'_>,
) -> Option<Tenant> {
    let prefixes = spec.required("prefixes", prefixes, problems);
    Some(Tenant { name: name?, prefixes: prefixes? })
}

/// At least one prefix.
fn prefixes(node: &Node<'_>, problems: &mut Problems<'_>) -> Option<Vec<Located<Prefix>>> {
    let prefixes = list(word)(node, problems)?;
    if prefixes.is_empty() {
        problems.report(node.heading, "no prefixes are listed", "list at least one, such as 172.16.1.0/24");
        return None;
    }
    Some(prefixes)
}

pub(super) fn site(
    name: Option<Located<SiteName>>,
    spec: &mut Fields<'_, '_>,
    problems: &mut Problems<'_>,
) -> Option<Site> {
    let tenant = spec.required("tenant", word, problems);
    let prefixes = spec.optional("prefixes", prefixes, problems);
    let attachment = spec.required("attachment", attachment, problems);
    Some(Site { name: name?, tenant: tenant?, prefixes: prefixes?, attachment: attachment? })
}

fn attachment(node: &Node<'_>, problems: &mut Problems<'_>) -> Option<Attachment> {
    let mut fields = Fields::of(node, problems)?;
    let gre = fields.optional("gre", gre, problems);
    let l2 = fields.optional("l2", l2, problems);
    fields.finish(problems);
    match (gre?, l2?) {
        (Some(gre), None) => Some(Attachment::Gre(gre)),
        (None, Some(link)) => Some(Attachment::L2 { link }),
        (found, _) => {
            let message = match found {
                Some(_) => "a site is attached in one way, here are two",
                None => "here is no way in which the site is attached",
            };
            problems.report(node.heading, message, "write either `gre: {…}` or `l2: {link: …}`");
            None
        }
    }
}

fn gre(node: &Node<'_>, problems: &mut Problems<'_>) -> Option<Gre> {
    const OVERSIZE: &[(&str, Oversize)] =
        &[("tell-sender", Oversize::TellSender), ("fragment-outer", Oversize::FragmentOuter)];
    let mut fields = Fields::of(node, problems)?;
    let customer = fields.required("customer", customer_end, problems);
    let cloud = fields.required("cloud", cloud_end, problems);
    let key = fields.optional("key", number(0..=u32::MAX), problems);
    let oversize = fields.optional("oversize", one_of(OVERSIZE), problems);
    fields.finish(problems);
    Some(Gre { customer: customer?, cloud: cloud?, key: key?, oversize: oversize? })
}

fn customer_end(node: &Node<'_>, problems: &mut Problems<'_>) -> Option<CustomerEnd> {
    let mut fields = Fields::of(node, problems)?;
    let element = fields.optional("element", word, problems);
    let address = fields.required("address", word, problems);
    fields.finish(problems);
    Some(CustomerEnd { element: element?, address: address? })
}

fn cloud_end(node: &Node<'_>, problems: &mut Problems<'_>) -> Option<CloudEnd> {
    let mut fields = Fields::of(node, problems)?;
    let element = fields.required("element", word, problems);
    let address = fields.required("address", word, problems);
    fields.finish(problems);
    Some(CloudEnd { element: element?, address: address? })
}

fn l2(node: &Node<'_>, problems: &mut Problems<'_>) -> Option<Located<LinkName>> {
    let mut fields = Fields::of(node, problems)?;
    let link = fields.required("link", word, problems);
    fields.finish(problems);
    link
}

pub(super) fn chain(
    name: Option<Located<ChainName>>,
    spec: &mut Fields<'_, '_>,
    problems: &mut Problems<'_>,
) -> Option<Chain> {
    let scope = scope(name.as_ref(), spec, problems);
    let matches = spec.optional("match", matches, problems);
    let functions = spec.required("functions", located(list(word)), problems);
    let priority = spec.or("priority", Located::default(), number(i32::MIN..=i32::MAX), problems);
    Some(Chain { name: name?, scope: scope?, matches: matches?, functions: functions?, priority: priority? })
}

fn scope(
    name: Option<&Located<ChainName>>,
    spec: &mut Fields<'_, '_>,
    problems: &mut Problems<'_>,
) -> Option<Scope> {
    const HELP: &str = "write `tenant: NAME` for all sites of a tenant, or `sites: [NAME, …]` for some";
    let tenant = spec.optional("tenant", word, problems)?;
    let sites = spec.optional("sites", located(list(word)), problems)?;
    match (tenant, sites) {
        (Some(tenant), None) => Some(Scope::Tenant(tenant)),
        (None, Some(sites)) if sites.is_empty() => {
            problems.report(sites.span, "a chain for no site", HELP);
            None
        }
        (None, Some(sites)) => Some(Scope::Sites(sites.value)),
        (Some(tenant), Some(sites)) => {
            let message = "a chain has either a tenant or sites, this one has both";
            problems.report_two((sites.span, message), (tenant.span, "the tenant"), HELP);
            None
        }
        (None, None) => {
            let place = name.map_or(spec.heading(), |name| name.span);
            problems.report(place, "this chain has neither a tenant nor sites", HELP);
            None
        }
    }
}

fn matches(node: &Node<'_>, problems: &mut Problems<'_>) -> Option<Vec<Located<Traffic>>> {
    let matches = list(located(traffic))(node, problems)?;
    if matches.is_empty() {
        let help =
            "leave `match` out to claim all traffic, or list what to claim: `match: [{protocol: tcp}]`";
        problems.report(node.heading, "an empty list matches nothing", help);
        return None;
    }
    Some(matches)
}

fn traffic(node: &Node<'_>, problems: &mut Problems<'_>) -> Option<Traffic> {
    let mut fields = Fields::of(node, problems)?;
    let protocol = fields.optional("protocol", word, problems);
    let ports = fields.or("ports", Located::default(), located(list(word)), problems);
    let from = fields.optional("from", word, problems);
    let to = fields.optional("to", word, problems);
    let dscp = fields.optional("dscp", word, problems);
    fields.finish(problems);
    let traffic = Traffic { protocol: protocol?, ports: ports?.value, from: from?, to: to?, dscp: dscp? };
    traffic_makes_sense(&traffic, problems).then_some(traffic)
}

fn traffic_makes_sense(traffic: &Traffic, problems: &mut Problems<'_>) -> bool {
    let mut sense = true;
    if let Some(ports) = traffic.ports.first() {
        match traffic.protocol {
            None => {
                problems.report(ports.span, "ports of no protocol", "add `protocol: tcp` (or udp, sctp)");
                sense = false;
            }
            Some(protocol) if !protocol.has_ports() => {
                problems.report_two(
                    (ports.span, format!("{} packets have no ports", *protocol)),
                    (protocol.span, "the protocol"),
                    "leave `ports` out, or take tcp, udp or sctp",
                );
                sense = false;
            }
            Some(_) => {}
        }
    }
    if let (Some(from), Some(to)) = (traffic.from, traffic.to)
        && from.family() != to.family()
    {
        problems.report_two(
            (to.span, format!("no packet goes from {} to {}: one is IPv4, the other IPv6", *from, *to)),
            (from.span, "from here"),
            "take both of one family",
        );
        sense = false;
    }
    sense
}
