//! The inventory: elements, hosts, links.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use crate::address::{Family, Prefix};
use crate::forwarding::{PathId, Rule};
use crate::name::{LinkName, NodeName};
use crate::resource::fields::{Fields, boolean, list, located, number, one_of, same, text, value, word};
use crate::resource::problems::Problems;
use crate::resource::source::Located;
use crate::resource::written::{Element, Host, Link, LinkEnd, Route};
use crate::resource::yaml::{Node, Value};
use crate::resource::{DriverSpec, Engine, IdleTimes, LinuxSpec, Role, SteerSettings, TenantLimits};

pub(super) fn element(
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
    // The kernel's own rules: 0 looks up `local`, 32766 looks up `main`. Ours and their guards must come between, all of
    // them.
    const PRIORITIES: RangeInclusive<u32> = 1..=(32_766 - 2 * Rule::ORDERS as u32);
    // Tables up to 255 are the kernel's and those that people number by hand.
    const TABLES: RangeInclusive<u32> = 256..=(u32::MAX - PathId::MAX.0);
    // Up to 4: `kernel`, `boot`, `static` and other protocols whose routes are not one program's own.
    const PROTOCOLS: RangeInclusive<u8> = 5..=u8::MAX;
    const ENGINES: &[(&str, Engine)] =
        &[("rules", Engine::Rules), ("nft", Engine::Nft), ("steer", Engine::Steer)];
    let default = LinuxSpec::default();
    let mut fields = Fields::of(node, problems)?;
    let netns = fields.optional("netns", netns, problems);
    let rule_priority = fields.or("rulePriority", default.rule_priority, value(number(PRIORITIES)), problems);
    let table_base = fields.or("tableBase", default.table_base, value(number(TABLES)), problems);
    let protocol = fields.or("protocol", default.protocol, value(number(PROTOCOLS)), problems);
    let usual_mark = Located { value: default.mark, ..Located::default() };
    let mark = fields.or("mark", usual_mark, mark, problems);
    let engine = fields.or("engine", default.engine, value(one_of(ENGINES)), problems);
    let steer = fields.or("steer", default.steer, steer, problems);
    fields.finish(problems);
    let (mark, engine) = (mark?, engine?);
    let numbers_hops = ENGINES.iter().find(|(_, named)| *named == engine && engine != Engine::Rules);
    if let Some((name, _)) = numbers_hops.filter(|_| *mark & LinuxSpec::HOP_MARKS != 0) {
        let message =
            format!("the mark {:#x} is among those that `engine: {name}` numbers next hops with", *mark);
        let help = format!("write a bit outside {:#010x}, or leave it out", LinuxSpec::HOP_MARKS);
        problems.report(mark.span, message, help);
        return None;
    }
    Some(LinuxSpec {
        netns: netns?,
        rule_priority: rule_priority?,
        table_base: table_base?,
        protocol: protocol?,
        mark: *mark,
        engine,
        steer: steer?,
    })
}

fn steer(node: &Node<'_>, problems: &mut Problems<'_>) -> Option<SteerSettings> {
    /// What the kernel's maps are made for; more is more than a machine's memory holds.
    const ENTRIES: RangeInclusive<u32> = 1..=16_777_216;
    let default = SteerSettings::default();
    let mut fields = Fields::of(node, problems)?;
    let tenants = fields.or("tenants", default.tenants, value(number(ENTRIES)), problems);
    let flows = fields.or("flows", default.flows, value(number(ENTRIES)), problems);
    let tenant_limits = fields.or("tenantLimits", default.tenant_limits, tenant_limits, problems);
    let idle = fields.or("idle", default.idle, idle, problems);
    let tell_too_big = fields.or("tellTooBig", default.tell_too_big, boolean, problems);
    fields.finish(problems);
    Some(SteerSettings {
        tenants: tenants?,
        flows: flows?,
        tenant_limits: tenant_limits?,
        idle: idle?,
        tell_too_big: tell_too_big?,
    })
}

fn tenant_limits(node: &Node<'_>, problems: &mut Problems<'_>) -> Option<TenantLimits> {
    const LIMIT: RangeInclusive<u32> = 1..=u32::MAX;
    let default = TenantLimits::default();
    let mut fields = Fields::of(node, problems)?;
    let flows = fields.or("flows", default.flows, value(number(LIMIT)), problems);
    let half_open = fields.or("halfOpen", default.half_open, value(number(LIMIT)), problems);
    let new_per_second = fields.or("newPerSecond", default.new_per_second, value(number(LIMIT)), problems);
    fields.finish(problems);
    Some(TenantLimits { flows: flows?, half_open: half_open?, new_per_second: new_per_second? })
}

fn idle(node: &Node<'_>, problems: &mut Problems<'_>) -> Option<IdleTimes> {
    /// Up to a day.
    const SECONDS: RangeInclusive<u32> = 1..=86_400;
    let default = IdleTimes::default();
    let mut fields = Fields::of(node, problems)?;
    let tcp = fields.or("tcp", default.tcp, value(number(SECONDS)), problems);
    let tcp_closing = fields.or("tcpClosing", default.tcp_closing, value(number(SECONDS)), problems);
    let half_open = fields.or("halfOpen", default.half_open, value(number(SECONDS)), problems);
    let udp = fields.or("udp", default.udp, value(number(SECONDS)), problems);
    let other = fields.or("other", default.other, value(number(SECONDS)), problems);
    fields.finish(problems);
    Some(IdleTimes { tcp: tcp?, tcp_closing: tcp_closing?, half_open: half_open?, udp: udp?, other: other? })
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

fn mark(node: &Node<'_>, problems: &mut Problems<'_>) -> Option<Located<u32>> {
    let mark = number(1..=u32::MAX)(node, problems)?;
    if !mark.is_power_of_two() {
        let help =
            format!("write one bit that nothing else on the machine uses, such as {:#010x}", LinuxSpec::MARK);
        problems.report(node.span, format!("the mark {:#x} has {} bits", *mark, mark.count_ones()), help);
    }
    mark.is_power_of_two().then_some(mark)
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

pub(super) fn host(
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

pub(super) fn link(
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
