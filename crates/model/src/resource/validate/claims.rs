//! What the chains of one site claim: no packet twice with equal right, and all of it in one place.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::catalogue::{Catalogue, Entry, SitePrefix};
use super::report::Report;
use super::resolve;
use crate::forwarding::{FlowMatch, MAX_POLICY_RULES};
use crate::name::{ChainName, NodeName, SiteName};
use crate::resource::written::{Attachment, Chain, Site};
use crate::resource::{Diagnostic, Traffic};

pub(super) fn check(catalogue: &Catalogue, report: &mut Report) {
    let claims: Vec<Claim> = catalogue.chains.values().map(|chain| Claim::of(*chain)).collect();
    let mut told = HashSet::new();
    let mut too_long = HashSet::new();
    let mut tunnels: HashMap<&NodeName, Entry<Site>> = HashMap::new();
    for (site, claims) in by_site(catalogue, &claims) {
        let rules: usize = claims.iter().map(|claim| claim.matches.len()).sum();
        match claims.iter().find(|claim| claim.matches.len() > MAX_POLICY_RULES) {
            Some(claim) if too_long.insert(&claim.chain.spec.name.value) => report.add(too_many_of(claim)),
            Some(_) => {}
            None if rules > MAX_POLICY_RULES => report.add(too_many(site, rules, &claims)),
            None => contests(catalogue, site, &claims, &mut told, report),
        }
        one_switch(catalogue, site, &claims, report);
        one_tunnel(catalogue, site, &mut tunnels, report);
    }
}

/// What one chain claims.
struct Claim<'d> {
    chain: Entry<'d, Chain>,
    matches: Vec<FlowMatch>,
}

/// The sites that have chains, with those.
fn by_site<'a, 'd>(
    catalogue: &Catalogue<'d>,
    claims: &'a [Claim<'d>],
) -> impl Iterator<Item = (Entry<'d, Site>, Vec<&'a Claim<'d>>)> {
    let mut by_site: BTreeMap<&SiteName, (Entry<Site>, Vec<&Claim>)> = BTreeMap::new();
    for claim in claims {
        for site in catalogue.sites_in(claim.chain.spec) {
            by_site.entry(&site.spec.name).or_insert_with(|| (site, Vec::new())).1.push(claim);
        }
    }
    by_site.into_values()
}

impl<'d> Claim<'d> {
    fn of(chain: Entry<'d, Chain>) -> Self {
        let traffic = resolve::matches(chain.spec);
        Self { chain, matches: traffic.iter().flat_map(Traffic::flow_matches).collect() }
    }

    /// The first flows of these addresses that both claim with equal right.
    fn contest(&self, other: &Self, prefixes: &[SitePrefix]) -> Option<FlowMatch> {
        if *self.chain.priority != *other.chain.priority {
            return None;
        }
        let pairs = self.matches.iter().flat_map(|a| other.matches.iter().map(move |b| (a, b)));
        pairs.filter_map(|(a, b)| a.intersection(b)).find(|both| {
            prefixes.iter().any(|of_site| {
                let site = FlowMatch { local: Some(of_site.prefix), ..FlowMatch::default() };
                both.overlaps(&site)
            })
        })
    }
}

/// Pairs of chains, each told once however many sites they share.
fn contests<'d>(
    catalogue: &Catalogue<'d>,
    site: Entry<'d, Site>,
    claims: &[&Claim<'d>],
    told: &mut HashSet<(&'d ChainName, &'d ChainName)>,
    report: &mut Report,
) {
    let prefixes = catalogue.prefixes_of(site);
    for (index, first) in claims.iter().enumerate() {
        for second in &claims[index + 1..] {
            let Some(flows) = first.contest(second, &prefixes) else { continue };
            if told.insert((&first.chain.spec.name, &second.chain.spec.name)) {
                report.add(contested(first, second, site, &flows));
            }
        }
    }
}

fn contested(first: &Claim, second: &Claim, site: Entry<Site>, flows: &FlowMatch) -> Diagnostic {
    let (a, b) = (&first.chain, &second.chain);
    let message = format!(
        "chains {} and {} of site {} both claim {flows}, with equal priority {}",
        *a.name, *b.name, *site.name, *a.priority
    );
    let help =
        "give one of them another `priority` (the higher one wins), or let them match different traffic";
    Diagnostic::new(message, help)
        .at(b.name_label(""))
        .at(a.name_label(format!("{} claims them too", *a.name)))
}

const COUNTED: &str =
    "each entry of `match` counts once for each of its ports: join ports into ranges, or claim all traffic";

fn too_many_of(claim: &Claim) -> Diagnostic {
    let (name, count) = (&*claim.chain.name, claim.matches.len());
    let message = format!("chain {name} lists {count} kinds of traffic, more than {MAX_POLICY_RULES}");
    Diagnostic::new(message, COUNTED).at(claim.chain.name_label(""))
}

fn too_many(site: Entry<Site>, rules: usize, claims: &[&Claim]) -> Diagnostic {
    let message = format!(
        "the chains of site {} list {rules} kinds of traffic, more than {MAX_POLICY_RULES}",
        *site.name
    );
    let diagnostic = Diagnostic::new(message, COUNTED).at(site.name_label(""));
    claims.iter().take(3).fold(diagnostic, |diagnostic, claim| {
        let count = claim.matches.len();
        diagnostic.at(claim.chain.name_label(format!("{} lists {count}", *claim.chain.name)))
    })
}

/// A site's packets are led to one switch.
fn one_switch(catalogue: &Catalogue, site: Entry<Site>, claims: &[&Claim], report: &mut Report) {
    let mut switches = claims.iter().filter_map(|claim| {
        let mut functions = catalogue.functions_of(claim.chain.spec);
        let instance = functions.find_map(|function| function.spec.instances.first())?;
        Some((claim.chain, &instance.ports.inside().element.value))
    });
    let Some((first, switch)) = switches.next() else { return };
    if let Some((other, elsewhere)) = switches.find(|(_, element)| *element != switch) {
        let message = format!(
            "the chains of site {} have their functions on two switches, {switch} and {elsewhere}",
            *site.name
        );
        let help =
            "connect all functions of a site's chains to one switch: more than one is not supported yet";
        let diagnostic = Diagnostic::new(message, help)
            .at(other.label(other.functions.span, format!("on {elsewhere}")))
            .at(first.label(first.functions.span, format!("on {switch}")));
        report.add(diagnostic);
    }
}

/// An access element sends what it claims into its tunnel: with two, it would not know which.
fn one_tunnel<'d>(
    catalogue: &Catalogue<'d>,
    site: Entry<'d, Site>,
    tunnels: &mut HashMap<&'d NodeName, Entry<'d, Site>>,
    report: &mut Report,
) {
    let Attachment::Gre(gre) = &site.spec.attachment else { return };
    let Some(access) = &gre.customer.element else { return };
    if !catalogue.elements.contains_key(&access.value) {
        return;
    }
    if let Some(other) = tunnels.insert(&access.value, site) {
        let message =
            format!("{} and {} have their tunnels at one element, {}", *other.name, *site.name, **access);
        let help = "take one access element for each site with a chain, or make one site of both";
        let diagnostic = Diagnostic::new(message, help)
            .at(site.label(access.span, ""))
            .at(other.name_label("the other site"));
        report.add(diagnostic);
    }
}
