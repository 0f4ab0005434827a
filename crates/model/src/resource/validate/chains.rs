//! Chains: whose traffic, and through which functions.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::catalogue::{Catalogue, Entry};
use super::functions::has_family;
use super::ip;
use super::report::Report;
use crate::address::Family;
use crate::forwarding::{Insertion, MAX_HOPS};
use crate::name::{FunctionName, NodeName};
use crate::resource::source::Span;
use crate::resource::written::{Chain, Scope, ServiceFunction, Site};
use crate::resource::{Diagnostic, ResourceKind, Role};

pub(super) fn check(catalogue: &Catalogue, report: &mut Report) {
    let mut seen = HashSet::new();
    for chain in catalogue.chains.values() {
        scope(catalogue, *chain, report);
        functions(catalogue, *chain, report);
        claimed_addresses(catalogue, *chain, report);
        if let Some(switch) = one_switch(catalogue, *chain, report)
            && seen.insert(switch)
            && !catalogue.reaches_gateway(switch)
        {
            let message = format!("no links lead from {switch}, where the functions are, to a gateway");
            let help = "link it to an element with `role: gateway`, directly or through routers";
            let diagnostic = Diagnostic::new(message, help).at(chain.label(chain.functions.span, ""));
            report.missing(&[ResourceKind::Link, ResourceKind::Element], diagnostic);
        }
    }
    rewriting(catalogue, report);
    addresses(catalogue, report);
}

fn scope(catalogue: &Catalogue, chain: Entry<Chain>, report: &mut Report) {
    match &chain.spec.scope {
        Scope::Tenant(name) if !catalogue.tenants.contains_key(&name.value) => {
            let known = catalogue.tenants.keys().map(|name| name.as_str());
            report.unknown(ResourceKind::Tenant, chain.document, name, known);
        }
        Scope::Tenant(name) if !catalogue.tenant_has_sites(name) => {
            let message = format!("tenant {} has no sites, so this chain has nothing to claim", **name);
            let help = format!("add a site with `tenant: {}`", **name);
            let diagnostic = Diagnostic::new(message, help).at(chain.label(name.span, ""));
            report.missing(&[ResourceKind::Site], diagnostic);
        }
        Scope::Tenant(_) => {}
        Scope::Sites(names) => {
            let mut seen = HashSet::new();
            for name in names {
                if !catalogue.sites.contains_key(&name.value) {
                    let known = catalogue.sites.keys().map(|name| name.as_str());
                    report.unknown(ResourceKind::Site, chain.document, name, known);
                }
                if !seen.insert(&name.value) {
                    let message = format!("site {} is listed twice", **name);
                    report.add(Diagnostic::new(message, "list it once").at(chain.label(name.span, "")));
                }
            }
            one_tenant(catalogue, chain, report);
        }
    }
}

fn one_tenant(catalogue: &Catalogue, chain: Entry<Chain>, report: &mut Report) {
    let sites = catalogue.sites_in(chain.spec);
    let Some((first, others)) = sites.split_first() else { return };
    if let Some(other) = others.iter().find(|other| *other.tenant != *first.tenant) {
        let message = format!(
            "one chain for sites of two tenants: {} is of {}, {} of {}",
            *first.name, *first.tenant, *other.name, *other.tenant
        );
        let diagnostic = Diagnostic::new(message, "make one chain for each tenant")
            .at(chain.name_label(""))
            .at(first.label(first.tenant.span, format!("{} is here", *first.name)))
            .at(other.label(other.tenant.span, format!("{} is here", *other.name)));
        report.add(diagnostic);
    }
}

fn functions(catalogue: &Catalogue, chain: Entry<Chain>, report: &mut Report) {
    let names = &chain.spec.functions;
    match names.len() {
        0 => {
            let message = format!("chain {} has no functions", *chain.name);
            let help = "list at least one, in the order of the way to the Internet; to claim nothing, delete the chain";
            report.add(Diagnostic::new(message, help).at(chain.label(names.span, "")));
        }
        1..=MAX_HOPS => {}
        many => {
            let message = format!("chain {} has {many} functions, more than {MAX_HOPS}", *chain.name);
            let help = format!("keep up to {MAX_HOPS}");
            report.add(Diagnostic::new(message, help).at(chain.label(names[MAX_HOPS].span, "one too many")));
        }
    }
    let mut seen: HashMap<&FunctionName, _> = HashMap::new();
    for name in &names.value {
        let Some(function) = catalogue.functions.get(&name.value) else {
            let known = catalogue.functions.keys().map(|name| name.as_str());
            report.unknown(ResourceKind::ServiceFunction, chain.document, name, known);
            continue;
        };
        let Some(first) = seen.insert(&name.value, name.span) else { continue };
        if let Some(help) = why_once(function.spec) {
            let message = format!("{} stands twice in the chain", **name);
            let diagnostic = Diagnostic::new(message, help)
                .at(chain.label(name.span, ""))
                .at(chain.label(first, "the first"));
            report.add(diagnostic);
        }
    }
}

/// Why a function cannot have two places in one chain, and the way out; `None` if it can.
fn why_once(function: &ServiceFunction) -> Option<&'static str> {
    match *function.insertion {
        _ if *function.changes_addresses => Some(
            "list it once: when a packet comes back with other addresses, nothing tells which of the two places it \
             has passed",
        ),
        Insertion::L3 => Some(
            "list it once: when a packet comes back from a function that routes, nothing tells which of its two \
             places it has passed (a function with `insertion: l2`, `nsh` or `tap` may stand twice)",
        ),
        Insertion::Vlan => Some(
            "list it once: a VLAN tells the chain that a packet is in, not which of the two places it has passed (a \
             function with `insertion: l2`, `nsh` or `tap` may stand twice)",
        ),
        Insertion::L2 | Insertion::Tap | Insertion::Nsh(_) => None,
    }
}

/// Packets that come back with other addresses than they had belong to whom the port is for. Where there is no function
/// after it, nobody asks.
fn rewriting(catalogue: &Catalogue, report: &mut Report) {
    struct User<'d> {
        chain: Entry<'d, Chain>,
        site: Entry<'d, Site>,
        span: Span,
        is_last: bool,
    }
    let mut users: BTreeMap<&FunctionName, Vec<User>> = BTreeMap::new();
    for chain in catalogue.chains.values() {
        let names = &chain.spec.functions.value;
        let rewriting = names.iter().enumerate().filter(|(_, name)| {
            catalogue.functions.get(&name.value).is_some_and(|function| *function.changes_addresses)
        });
        for (nth, name) in rewriting {
            let is_last = nth + 1 == names.len();
            let user = |site| User { chain: *chain, site, span: name.span, is_last };
            users
                .entry(&name.value)
                .or_default()
                .extend(catalogue.sites_in(chain.spec).into_iter().map(user));
        }
    }
    for (name, users) in users {
        let Some(amid) = users.iter().find(|user| !user.is_last) else { continue };
        let elsewhere =
            |user: &&User| *user.chain.name != *amid.chain.name || *user.site.name != *amid.site.name;
        let Some(other) = users.iter().find(elsewhere) else { continue };
        let whose = |user: &User| format!("{} of {}", *user.chain.name, *user.site.name);
        let message = format!(
            "{name} changes addresses and is used by {} and {}: nothing tells whose packets come back",
            whose(amid),
            whose(other)
        );
        let help = "make a function of its own for each chain and site, with ports of its own, or put it last in each \
                    chain";
        let diagnostic = Diagnostic::new(message, help).at(amid.chain.label(amid.span, "not the last one"));
        let diagnostic = match amid.chain.spec.name == other.chain.spec.name {
            true => diagnostic.at(other.site.name_label("the other site")),
            false => diagnostic.at(other.chain.label(other.span, "the other use")),
        };
        report.add(diagnostic);
    }
}

/// What a chain claims is traffic of its sites.
fn claimed_addresses(catalogue: &Catalogue, chain: Entry<Chain>, report: &mut Report) {
    let froms = chain.spec.matches.iter().flatten().filter_map(|traffic| traffic.from);
    let mut froms = froms.peekable();
    if froms.peek().is_none() {
        return;
    }
    let sites = catalogue.sites_in(chain.spec);
    let prefixes: Vec<_> = sites.iter().flat_map(|site| catalogue.prefixes_of(*site)).collect();
    for from in froms {
        if !prefixes.is_empty() && !prefixes.iter().any(|of_site| of_site.prefix.overlaps(*from)) {
            let message = format!("no site of chain {} has addresses in {}", *chain.name, *from);
            let help =
                format!("take a prefix within a site's, such as {}, or leave `from` out", prefixes[0].prefix);
            let diagnostic = Diagnostic::new(message, help)
                .at(chain.label(from.span, ""))
                .at(prefixes[0].label("the addresses of a site"));
            report.add(diagnostic);
        }
    }
}

/// The switch that all instances of all functions are on.
fn one_switch<'d>(
    catalogue: &Catalogue<'d>,
    chain: Entry<'d, Chain>,
    report: &mut Report,
) -> Option<&'d NodeName> {
    let functions = catalogue.functions_of(chain.spec);
    let mut sides = functions
        .flat_map(|function| {
            function.spec.instances.iter().map(move |instance| (function, &instance.ports.inside().element))
        })
        .filter(|(_, element)| catalogue.role(element) == Some(Role::Switch));
    let (_, switch) = sides.next()?;
    if let Some((function, other)) = sides.find(|(_, element)| element.value != switch.value) {
        let message = format!(
            "the functions of chain {} are on two switches, {} and {}",
            *chain.name, **switch, **other
        );
        let help =
            "connect all instances of all its functions to one switch: more than one is not supported yet";
        let diagnostic = Diagnostic::new(message, help)
            .at(chain.label(chain.functions.span, ""))
            .at(function.label(other.span, format!("{} is on {}", *function.name, **other)));
        report.add(diagnostic);
    }
    Some(&switch.value)
}

/// A function that routes has addresses of each family that the sites have which use it.
fn addresses(catalogue: &Catalogue, report: &mut Report) {
    let mut users: HashMap<(&FunctionName, Family), Entry<Site>> = HashMap::new();
    for chain in catalogue.chains.values() {
        for site in catalogue.sites_in(chain.spec) {
            for family in catalogue.prefixes_of(site).iter().map(|prefix| prefix.prefix.family()) {
                for name in &chain.spec.functions.value {
                    users.entry((&name.value, family)).or_insert(site);
                }
            }
        }
    }
    for (name, function) in &catalogue.functions {
        for family in Family::BOTH {
            if let Some(site) = users.get(&(name, family)) {
                function_addresses(catalogue, *function, family, *site, report);
            }
        }
    }
}

fn function_addresses(
    catalogue: &Catalogue,
    function: Entry<ServiceFunction>,
    family: Family,
    site: Entry<Site>,
    report: &mut Report,
) {
    if *function.insertion != Insertion::L3 {
        return;
    }
    let ip = ip(family);
    for side in function.spec.instances.iter().flat_map(|instance| instance.ports.all()) {
        let Some(port) = catalogue.port(&side.element, &side.port) else { continue };
        let addressed =
            Family::BOTH.map(|family| has_family(port.near, family) && has_family(port.far, family));
        // A link without any addresses is reported with the function.
        let any = addressed.contains(&true);
        let Some(lacking) = [port.near, port.far].into_iter().find(|end| !has_family(end, family)) else {
            continue;
        };
        if any {
            let message = format!(
                "port `{}` of {} has no {ip} address, but {} routes packets of {}, which has {ip} prefixes",
                *lacking.port, *lacking.node, *function.name, *site.name
            );
            let help = format!("give both ends of the link an {ip} address");
            let diagnostic = Diagnostic::new(message, help)
                .at(port.link.label(lacking.port.span, ""))
                .at(site.name_label("the site"));
            report.add(diagnostic);
        }
    }
}
