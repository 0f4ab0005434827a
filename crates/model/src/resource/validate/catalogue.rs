//! All documents by kind and name, and all ports by node.

use std::borrow::Borrow;
use std::collections::btree_map::Entry as MapEntry;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::ops::Deref;

use super::prefix_set::PrefixSet;
use super::report::Report;
use crate::address::Prefix;
use crate::name::{ChainName, FunctionName, LinkName, NodeName, PortName, SiteName, TenantName};
use crate::resource::source::{Located, Span};
use crate::resource::written::{
    Attachment, Chain, Element, Host, Link, LinkEnd, Resource, Scope, ServiceFunction, Site, Tenant,
};
use crate::resource::{Diagnostic, Document, Label, ResourceKind, Role};

#[derive(Default)]
pub(super) struct Catalogue<'d> {
    pub elements: Entries<'d, NodeName, Element>,
    pub hosts: Entries<'d, NodeName, Host>,
    pub links: Entries<'d, LinkName, Link>,
    pub functions: Entries<'d, FunctionName, ServiceFunction>,
    pub tenants: Entries<'d, TenantName, Tenant>,
    pub sites: Entries<'d, SiteName, Site>,
    pub chains: Entries<'d, ChainName, Chain>,
    sites_of: HashMap<&'d TenantName, Vec<Entry<'d, Site>>>,
    ports: HashMap<&'d NodeName, BTreeMap<&'d PortName, Port<'d>>>,
    addresses: HashMap<&'d NodeName, BTreeSet<IpAddr>>,
    subnets: HashMap<&'d NodeName, PrefixSet>,
}

pub(super) type Entries<'d, N, T> = BTreeMap<&'d N, Entry<'d, T>>;

/// A resource, and the document that it stands in.
pub(super) struct Entry<'d, T> {
    pub document: &'d Document,
    pub spec: &'d T,
}

impl<T> Clone for Entry<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Entry<'_, T> {}

impl<T> Deref for Entry<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.spec
    }
}

impl<T> Entry<'_, T> {
    pub fn label(&self, span: Span, text: impl Into<String>) -> Label {
        self.document.label(span, text)
    }

    /// Where the resource is named.
    pub fn name_label(&self, text: impl Into<String>) -> Label {
        self.document.name_label(text)
    }
}

/// A link, as seen from one of its ends.
#[derive(Clone, Copy)]
pub(super) struct Port<'d> {
    pub link: Entry<'d, Link>,
    pub near: &'d LinkEnd,
    pub far: &'d LinkEnd,
}

/// A prefix of a site, and where the site was given it.
#[derive(Clone, Copy)]
pub(super) struct SitePrefix<'d> {
    pub site: Entry<'d, Site>,
    pub prefix: Prefix,
    span: Span,
}

impl SitePrefix<'_> {
    pub fn label(&self, text: impl Into<String>) -> Label {
        self.site.label(self.span, text)
    }
}

impl<'d> Catalogue<'d> {
    /// Reports names and ports that are taken twice; the first one keeps them.
    pub fn of(documents: impl IntoIterator<Item = &'d Document>, report: &mut Report) -> Self {
        let mut catalogue = Self::default();
        for document in documents {
            catalogue.add(document, report);
        }
        catalogue.refuse_shared_names(report);
        for link in catalogue.links.values().copied().collect::<Vec<_>>() {
            let [a, b] = &link.spec.ends;
            catalogue.add_end(link, a, b, report);
            catalogue.add_end(link, b, a, report);
        }
        for site in catalogue.sites.values() {
            catalogue.sites_of.entry(&site.spec.tenant).or_default().push(*site);
        }
        catalogue
    }

    fn add(&mut self, document: &'d Document, report: &mut Report) {
        match &document.resource {
            Resource::Element(spec) => {
                insert(&mut self.elements, &spec.name, Entry { document, spec }, report)
            }
            Resource::Host(spec) => insert(&mut self.hosts, &spec.name, Entry { document, spec }, report),
            Resource::Link(spec) => insert(&mut self.links, &spec.name, Entry { document, spec }, report),
            Resource::ServiceFunction(spec) => {
                insert(&mut self.functions, &spec.name, Entry { document, spec }, report);
            }
            Resource::Tenant(spec) => insert(&mut self.tenants, &spec.name, Entry { document, spec }, report),
            Resource::Site(spec) => insert(&mut self.sites, &spec.name, Entry { document, spec }, report),
            Resource::Chain(spec) => insert(&mut self.chains, &spec.name, Entry { document, spec }, report),
        }
    }

    fn refuse_shared_names(&self, report: &mut Report) {
        for (name, host) in &self.hosts {
            if let Some(element) = self.elements.get(name) {
                let message = format!("an element and a host both have the name `{name}`");
                let diagnostic = Diagnostic::new(message, "links join both by name: rename one of them")
                    .at(host.name_label(""))
                    .at(element.name_label("the element"));
                report.add(diagnostic);
            }
        }
    }

    fn add_end(&mut self, link: Entry<'d, Link>, near: &'d LinkEnd, far: &'d LinkEnd, report: &mut Report) {
        let node = &near.node.value;
        self.addresses.entry(node).or_default().extend(near.addresses.iter().map(|address| address.addr()));
        self.subnets
            .entry(node)
            .or_default()
            .extend(near.addresses.iter().map(|address| Prefix::of(address.value)));
        match self.ports.entry(node).or_default().entry(&near.port) {
            MapEntry::Vacant(place) => {
                place.insert(Port { link, near, far });
            }
            MapEntry::Occupied(former) => {
                let former = former.get();
                let message = format!("port `{}` of {node} is at two ends of links", *near.port);
                let diagnostic = Diagnostic::new(message, "a port has one link: take another port")
                    .at(link.label(near.port.span, ""))
                    .at(former.link.label(former.near.port.span, "the other end"));
                report.add(diagnostic);
            }
        }
    }

    pub fn is_node(&self, name: &NodeName) -> bool {
        self.elements.contains_key(name) || self.hosts.contains_key(name)
    }

    /// The names of all elements and hosts.
    pub fn node_names(&self) -> impl Iterator<Item = &'d str> {
        self.elements.keys().chain(self.hosts.keys()).map(|name| name.as_str())
    }

    pub fn role(&self, node: &NodeName) -> Option<Role> {
        self.elements.get(node).map(|element| *element.role)
    }

    /// Whether a port of this node has this address.
    pub fn has_address(&self, node: &NodeName, address: IpAddr) -> bool {
        self.addresses.get(node).is_some_and(|addresses| addresses.contains(&address))
    }

    /// Whether a port of this node has an address within this prefix.
    pub fn has_address_within(&self, node: &NodeName, prefix: Prefix) -> bool {
        let net = prefix.net();
        self.addresses
            .get(node)
            .is_some_and(|addresses| addresses.range(net.network()..=net.broadcast()).next().is_some())
    }

    /// The subnets of a node's ports.
    pub fn subnets(&self, node: &NodeName) -> &PrefixSet {
        const NONE: &PrefixSet = &PrefixSet::EMPTY;
        self.subnets.get(node).unwrap_or(NONE)
    }

    pub fn port(&self, node: &NodeName, port: &PortName) -> Option<&Port<'d>> {
        self.ports.get(node)?.get(port)
    }

    /// The ports of a node, by name.
    pub fn ports(&self, node: &NodeName) -> impl Iterator<Item = &Port<'d>> {
        self.ports.get(node).into_iter().flat_map(BTreeMap::values)
    }

    /// The sites whose traffic a chain is about, as far as they exist.
    pub fn sites_in(&self, chain: &Chain) -> Vec<Entry<'d, Site>> {
        match &chain.scope {
            Scope::Tenant(tenant) => self.sites_of.get(&tenant.value).cloned().unwrap_or_default(),
            Scope::Sites(names) => {
                let names: BTreeSet<&SiteName> = names.iter().map(|name| &name.value).collect();
                names.into_iter().filter_map(|name| self.sites.get(name)).copied().collect()
            }
        }
    }

    pub fn tenant_has_sites(&self, tenant: &TenantName) -> bool {
        self.sites_of.contains_key(tenant)
    }

    /// The prefixes of a site: its own, or else those of its tenant.
    pub fn prefixes_of(&self, site: Entry<'d, Site>) -> Vec<SitePrefix<'d>> {
        let all = match &site.spec.prefixes {
            Some(prefixes) => prefixes.iter().map(|prefix| (prefix.value, prefix.span)).collect(),
            None => {
                let tenant = self.tenants.get(&site.spec.tenant.value);
                let inherited = tenant.into_iter().flat_map(|tenant| &tenant.spec.prefixes);
                inherited.map(|prefix| (prefix.value, site.spec.name.span)).collect::<Vec<_>>()
            }
        };
        all.into_iter().map(|(prefix, span)| SitePrefix { site, prefix, span }).collect()
    }

    /// The functions of a chain, as far as they exist.
    pub fn functions_of(&self, chain: &'d Chain) -> impl Iterator<Item = Entry<'d, ServiceFunction>> {
        chain.functions.iter().filter_map(|name| self.functions.get(&name.value)).copied()
    }

    /// The two ends of a layer 2 attachment, the customer's first. `None` if neither could be the cloud's.
    pub fn attachment_ends(&self, link: &'d Link) -> Option<(&'d LinkEnd, &'d LinkEnd)> {
        let [a, b] = &link.ends;
        let is_cloud = |end: &LinkEnd| matches!(self.role(&end.node), Some(Role::Physical | Role::Router));
        let is_customer = |end: &LinkEnd| match self.role(&end.node) {
            Some(role) => role == Role::Access,
            None => self.hosts.contains_key(&end.node.value),
        };
        [(a, b), (b, a)].into_iter().find(|(customer, cloud)| is_customer(customer) && is_cloud(cloud))
    }

    /// The elements that a site's packets certainly pass next to the customer: the access element, where it is driven,
    /// and the one in the cloud at which the attachment ends.
    pub fn attached_to(&self, site: &'d Site) -> (Option<&'d NodeName>, Option<&'d NodeName>) {
        match &site.attachment {
            Attachment::Gre(gre) => {
                (gre.customer.element.as_ref().map(|element| &element.value), Some(&gre.cloud.element.value))
            }
            Attachment::L2 { link } => {
                let ends = self.links.get(&link.value).and_then(|link| self.attachment_ends(link.spec));
                let Some((customer, cloud)) = ends else { return (None, None) };
                let access = Some(&customer.node.value).filter(|node| self.elements.contains_key(node));
                (access, Some(&cloud.node.value))
            }
        }
    }

    /// Whether links lead from a switch to a gateway, through nothing but routers and the physical network.
    pub fn reaches_gateway(&self, switch: &NodeName) -> bool {
        let mut seen = BTreeSet::from([switch]);
        let mut queue = VecDeque::from([switch]);
        while let Some(node) = queue.pop_front() {
            for next in self.ports(node).map(|port| &port.far.node.value) {
                match self.role(next) {
                    Some(Role::Gateway) => return true,
                    Some(Role::Physical | Role::Router) if seen.insert(next) => queue.push_back(next),
                    _ => {}
                }
            }
        }
        false
    }
}

fn insert<'d, N: Ord + Borrow<str>, T>(
    entries: &mut Entries<'d, N, T>,
    name: &'d Located<N>,
    entry: Entry<'d, T>,
    report: &mut Report,
) {
    match entries.entry(&name.value) {
        MapEntry::Vacant(place) => {
            place.insert(entry);
        }
        MapEntry::Occupied(former) => {
            let kind: ResourceKind = entry.document.kind();
            let message = format!("two {}s have the name `{}`", kind.words(), name.value.borrow());
            let diagnostic = Diagnostic::new(message, "rename one of them, or leave it out")
                .at(entry.name_label(""))
                .at(former.get().name_label("the first one"));
            report.add(diagnostic);
        }
    }
}
