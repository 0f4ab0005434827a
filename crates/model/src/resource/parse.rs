//! From texts to documents: syntax, fields, types, and the form of each value. What names refer to is looked at later,
//! in [`validate`](super::validate).

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::diagnostic::Diagnostic;
use super::document::{API_VERSION, Document};
use super::fields::{Fields, boolean, list, located, number, one_of, same, text, word};
use super::nearest::nearest;
use super::problems::Problems;
use super::source::{Located, Source};
use super::words::Word;
use super::written::{
    Attachment, Chain, CloudEnd, CustomerEnd, Element, Gre, Host, Instance, Link, LinkEnd, PortRef, Resource,
    Route, Scope, ServiceFunction, Site, Tenant, Traffic,
};
use super::yaml::{self, Node, Value};
use super::{DriverSpec, LinuxSpec, ResourceKind, Role};
use crate::address::{Family, Prefix};
use crate::forwarding::{Insertion, PathId, Rule};
use crate::name::{ChainName, FunctionName, LinkName, NodeName, SiteName, TenantName};

/// Reads all documents of all sources, and tells all that is wrong with those that cannot be read.
pub fn parse(sources: &[Source]) -> (Vec<Document>, Vec<Diagnostic>) {
    let Parsed { documents, diagnostics, .. } = read(sources);
    (documents, diagnostics)
}

#[derive(Default)]
pub(super) struct Parsed {
    pub documents: Vec<Document>,
    pub diagnostics: Vec<Diagnostic>,
    /// The kinds that the documents which could not be read may be of.
    pub unread: BTreeSet<ResourceKind>,
}

pub(super) fn read(sources: &[Source]) -> Parsed {
    let mut parsed = Parsed::default();
    for source in sources.iter().flat_map(Source::documents) {
        let mut problems = Problems::of(&source);
        let mut kind = None;
        let root = yaml::read(&source.text, &mut problems);
        let resource = root.and_then(|root| resource(&root, &mut kind, &mut problems));
        let found = problems.into_found();
        match resource {
            Some(resource) if found.is_empty() => parsed.documents.push(Document { source, resource }),
            // Empty, or nothing but comments.
            None if found.is_empty() => {}
            _ => {
                parsed.diagnostics.extend(found);
                match kind.or_else(|| probable_kind(&source.text)) {
                    Some(kind) => parsed.unread.extend([kind]),
                    None => parsed.unread.extend(ResourceKind::ALL),
                }
            }
        }
    }
    parsed
}

/// What seems to be the kind of a document that is not YAML.
fn probable_kind(text: &str) -> Option<ResourceKind> {
    let line = text.lines().find_map(|line| line.strip_prefix("kind:"))?;
    let word = line.split('#').next()?.trim();
    ResourceKind::ALL.into_iter().find(|kind| kind.as_str() == word)
}

fn resource(
    root: &Node<'_>,
    kind: &mut Option<ResourceKind>,
    problems: &mut Problems<'_>,
) -> Option<Resource> {
    let mut fields = Fields::of(root, problems)?;
    fields.required("apiVersion", api_version, problems);
    *kind = fields.required("kind", self::kind, problems);
    let metadata = fields.required("metadata", same, problems);
    let spec = fields.required("spec", same, problems);
    fields.finish(problems);
    let (metadata, spec) = (metadata?, spec?);
    match (*kind)? {
        ResourceKind::Element => named(metadata, spec, element, problems).map(Resource::Element),
        ResourceKind::Host => named(metadata, spec, host, problems).map(Resource::Host),
        ResourceKind::Link => named(metadata, spec, link, problems).map(Resource::Link),
        ResourceKind::ServiceFunction => {
            named(metadata, spec, function, problems).map(Resource::ServiceFunction)
        }
        ResourceKind::Tenant => named(metadata, spec, tenant, problems).map(Resource::Tenant),
        ResourceKind::Site => named(metadata, spec, site, problems).map(Resource::Site),
        ResourceKind::Chain => named(metadata, spec, chain, problems).map(Resource::Chain),
    }
}

fn api_version(node: &Node<'_>, problems: &mut Problems<'_>) -> Option<()> {
    let version = text(node, problems)?;
    if version != API_VERSION {
        let message = format!("`{version}` is not a version of the file format");
        problems.report(node.span, message, format!("write `apiVersion: {API_VERSION}`"));
    }
    Some(())
}

fn kind(node: &Node<'_>, problems: &mut Problems<'_>) -> Option<ResourceKind> {
    let written = text(node, problems)?;
    let kind = ResourceKind::ALL.into_iter().find(|kind| kind.as_str() == written);
    if kind.is_none() {
        let help = match nearest(&written, ResourceKind::ALL.map(ResourceKind::as_str)) {
            Some(name) => format!("did you mean `{name}`?"),
            None => format!("write one of {}", ResourceKind::ALL.map(|kind| format!("`{kind}`")).join(", ")),
        };
        problems.report(node.span, format!("`{written}` is no kind of resource"), help);
    }
    kind
}

/// Reads the name and the spec, and reports the fields of the spec that `read` did not ask for.
fn named<'n, 't, N: Word, T>(
    metadata: &Node<'_>,
    spec: &'n Node<'t>,
    read: impl FnOnce(Option<Located<N>>, &mut Fields<'n, 't>, &mut Problems<'_>) -> Option<T>,
    problems: &mut Problems<'_>,
) -> Option<T> {
    let name = Fields::of(metadata, problems).and_then(|mut fields| {
        let name = fields.required("name", word, problems);
        fields.finish(problems);
        name
    });
    let mut fields = Fields::of(spec, problems)?;
    let resource = read(name, &mut fields, problems);
    fields.finish(problems);
    resource
}

fn element(
    name: Option<Located<NodeName>>,
    spec: &mut Fields<'_, '_>,
    problems: &mut Problems<'_>,
) -> Option<Element> {
    const ROLES: &[(&str, Role)] = &[
        ("access", Role::Access),
        ("physical", Role::Physical),
        ("router", Role::Router),
        ("switch", Role::Switch),
        ("gateway", Role::Gateway),
    ];
    let role = spec.required("role", one_of(ROLES), problems);
    let driver = spec.required("driver", located(driver), problems);
    let routes = spec.or("routes", Vec::new(), list(route), problems);
    Some(Element { name: name?, role: role?, driver: driver?, routes: routes? })
}

/// `simulated`, `linux`, or `linux: {…}`.
fn driver(node: &Node<'_>, problems: &mut Problems<'_>) -> Option<DriverSpec> {
    #[derive(Clone, Copy)]
    enum Plain {
        Linux,
        Simulated,
    }
    const PLAIN: &[(&str, Plain)] = &[("linux", Plain::Linux), ("simulated", Plain::Simulated)];
    if let Value::Scalar { .. } = node.value {
        return one_of(PLAIN)(node, problems).map(|driver| match *driver {
            Plain::Linux => DriverSpec::Linux(LinuxSpec::default()),
            Plain::Simulated => DriverSpec::Simulated,
        });
    }
    let mut fields = Fields::of(node, problems)?;
    let linux = fields.required("linux", linux, problems);
    fields.finish(problems);
    linux.map(DriverSpec::Linux)
}

fn linux(node: &Node<'_>, problems: &mut Problems<'_>) -> Option<LinuxSpec> {
    // The kernel's own rules: 0 looks up `local`, 32766 looks up `main`. Ours must come between, all of them.
    const PRIORITIES: std::ops::RangeInclusive<u32> = 1..=(32_766 - Rule::ORDERS as u32);
    // Tables up to 255 are the kernel's and those that people number by hand.
    const TABLES: std::ops::RangeInclusive<u32> = 256..=(u32::MAX - PathId::MAX.0);
    // Up to 4: `kernel`, `boot`, `static` and other protocols whose routes are not one program's own.
    const PROTOCOLS: std::ops::RangeInclusive<u8> = 5..=u8::MAX;
    let default = LinuxSpec::default();
    let mut fields = Fields::of(node, problems)?;
    let netns = fields.optional("netns", netns, problems);
    let rule_priority = fields.or("rulePriority", default.rule_priority, value(number(PRIORITIES)), problems);
    let table_base = fields.or("tableBase", default.table_base, value(number(TABLES)), problems);
    let protocol = fields.or("protocol", default.protocol, value(number(PROTOCOLS)), problems);
    let mark = fields.or("mark", default.mark, mark, problems);
    fields.finish(problems);
    Some(LinuxSpec {
        netns: netns?,
        rule_priority: rule_priority?,
        table_base: table_base?,
        protocol: protocol?,
        mark: mark?,
    })
}

/// A file name: namespaces are files in a directory.
fn netns(node: &Node<'_>, problems: &mut Problems<'_>) -> Option<String> {
    let name = text(node, problems)?;
    let is_file_name =
        !matches!(name.as_str(), "" | "." | "..") && !name.contains(['/', '\0']) && name.len() < 256;
    if !is_file_name {
        let help =
            "write a name that `ip netns list` shows; leave `netns` out for the controller's own namespace";
        problems.report(node.span, format!("`{name}` cannot be a network namespace's name"), help);
    }
    is_file_name.then_some(name)
}

fn mark(node: &Node<'_>, problems: &mut Problems<'_>) -> Option<u32> {
    let mark = number(1..=u32::MAX)(node, problems)?;
    if !mark.is_power_of_two() {
        let help =
            format!("write one bit that nothing else on the machine uses, such as {:#010x}", LinuxSpec::MARK);
        problems.report(node.span, format!("the mark {:#x} has {} bits", *mark, mark.count_ones()), help);
    }
    mark.is_power_of_two().then_some(mark.value)
}

fn route(node: &Node<'_>, problems: &mut Problems<'_>) -> Option<Route> {
    let mut fields = Fields::of(node, problems)?;
    let to = fields.required("to", same, problems);
    let via = fields.required("via", word::<IpAddr>, problems);
    fields.finish(problems);
    let to = to.and_then(|node| destination(node, via, problems));
    Some(Route { to: to?, via: via? })
}

/// A prefix, or `default` for all addresses of the family of `via`.
fn destination(
    node: &Node<'_>,
    via: Option<Located<IpAddr>>,
    problems: &mut Problems<'_>,
) -> Option<Located<Prefix>> {
    if matches!(&node.value, Value::Scalar { text, .. } if text == "default") {
        return Some(Located { value: Prefix::all(Family::of(via?.value)), span: node.span });
    }
    let to = word::<Prefix>(node, problems)?;
    let via = via?;
    if to.family() != Family::of(*via) {
        let message = format!("a route to {} by way of {}: one is IPv4, the other IPv6", *to, *via);
        problems.report_two((to.span, message), (via.span, "the next hop"), "take both of one family");
        return None;
    }
    Some(to)
}

fn host(
    name: Option<Located<NodeName>>,
    spec: &mut Fields<'_, '_>,
    problems: &mut Problems<'_>,
) -> Option<Host> {
    let routes = spec.or("routes", Vec::new(), list(route), problems);
    let forwarding = spec.or("forwarding", false, boolean, problems);
    let setup = spec.or("setup", Vec::new(), list(located(text)), problems);
    let services = spec.or("services", Vec::new(), list(located(text)), problems);
    Some(Host { name: name?, routes: routes?, forwarding: forwarding?, setup: setup?, services: services? })
}

fn link(
    name: Option<Located<LinkName>>,
    spec: &mut Fields<'_, '_>,
    problems: &mut Problems<'_>,
) -> Option<Link> {
    // Every IPv4 link carries 68 bytes (RFC 791); what IPv6 needs is looked at where there are IPv6 addresses.
    let mtu = spec.optional("mtu", number(68..=u16::MAX), problems);
    let ends = spec.required("ends", ends, problems);
    let mtu = mtu?.unwrap_or(Located { value: Link::USUAL_MTU, ..Located::default() });
    Some(Link { name: name?, mtu, ends: ends? })
}

fn ends(node: &Node<'_>, problems: &mut Problems<'_>) -> Option<[LinkEnd; 2]> {
    let ends = list(link_end)(node, problems)?;
    let count = ends.len();
    let both = ends.try_into().ok();
    if both.is_none() {
        problems.report(node.heading, format!("a link has two ends, not {count}"), "write two ends");
    }
    both
}

fn link_end(node: &Node<'_>, problems: &mut Problems<'_>) -> Option<LinkEnd> {
    let mut fields = Fields::of(node, problems)?;
    let node = fields.required("node", word, problems);
    let port = fields.required("port", word, problems);
    let addresses = fields.or("addresses", Vec::new(), list(word), problems);
    let external = fields.or("external", Located::default(), located(boolean), problems);
    fields.finish(problems);
    Some(LinkEnd { node: node?, port: port?, addresses: addresses?, external: external? })
}

fn function(
    name: Option<Located<FunctionName>>,
    spec: &mut Fields<'_, '_>,
    problems: &mut Problems<'_>,
) -> Option<ServiceFunction> {
    const INSERTIONS: &[(&str, Insertion)] = &[("l3", Insertion::L3), ("l2", Insertion::L2)];
    let insertion = spec.required("insertion", one_of(INSERTIONS), problems);
    let instances = spec.required("instances", located(list(instance)), problems);
    Some(ServiceFunction { name: name?, insertion: insertion?.value, instances: instances? })
}

fn instance(node: &Node<'_>, problems: &mut Problems<'_>) -> Option<Instance> {
    let mut fields = Fields::of(node, problems)?;
    let name = fields.required("name", word, problems);
    let inside = fields.required("inside", port_ref, problems);
    let outside = fields.required("outside", port_ref, problems);
    fields.finish(problems);
    Some(Instance { name: name?, inside: inside?, outside: outside? })
}

fn port_ref(node: &Node<'_>, problems: &mut Problems<'_>) -> Option<PortRef> {
    let mut fields = Fields::of(node, problems)?;
    let element = fields.required("element", word, problems);
    let port = fields.required("port", word, problems);
    fields.finish(problems);
    Some(PortRef { element: element?, port: port? })
}

fn tenant(
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

fn site(
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
    let mut fields = Fields::of(node, problems)?;
    let customer = fields.required("customer", customer_end, problems);
    let cloud = fields.required("cloud", cloud_end, problems);
    let key = fields.optional("key", number(0..=u32::MAX), problems);
    fields.finish(problems);
    Some(Gre { customer: customer?, cloud: cloud?, key: key? })
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

fn chain(
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
    fields.finish(problems);
    let traffic = Traffic { protocol: protocol?, ports: ports?.value, from: from?, to: to? };
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

/// Without the place.
fn value<'n, 't: 'n, T>(
    read: impl Fn(&'n Node<'t>, &mut Problems<'_>) -> Option<Located<T>>,
) -> impl Fn(&'n Node<'t>, &mut Problems<'_>) -> Option<T> {
    move |node, problems| read(node, problems).map(|located| located.value)
}
