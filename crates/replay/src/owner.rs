//! The owner's part of an element: its addresses, rules and routes, brought to where they were found elsewhere.
//!
//! What is asked of the kernel is text for `ip -batch`, made without touching anything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use catena_driver::Driver;
use catena_driver::netns::NetNs;
use catena_model::address::{Family, Prefix};
use catena_model::base::{BaseRoute, BaseRouteAction, BaseRouting, BaseRule, BaseRuleAction};
use catena_model::name::{NodeName, PortName};
use nix::net::if_::if_nameindex;

use crate::ReplayError;
use crate::replica::Place;

/// Has the owner of an element route as `wanted`; tells what of that was left out.
pub async fn adopt(
    place: &Place,
    owner: &Arc<dyn Driver>,
    wanted: &BaseRouting,
) -> Result<Vec<String>, ReplayError> {
    let failed =
        |source| ReplayError::Driver { element: place.element.clone(), what: "cannot be read", source };
    let (name, netns) = (&place.element, &place.netns);
    let ports = ports(name, netns)?;
    let found = owner.base().await.map_err(failed)?.unwrap_or_default();
    batch(name, netns, &[], &addresses(&found, wanted, &ports))?;
    // The kernel makes routes for addresses.
    let found = owner.base().await.map_err(failed)?.unwrap_or_default();
    let mut left_out = Vec::new();
    for (family, option) in [(Family::V4, "-4"), (Family::V6, "-6")] {
        let mut commands = routes(&found, wanted, family, &ports, &mut left_out);
        commands += &rules(&found, wanted, family, &mut left_out);
        batch(name, netns, &[option], &commands)?;
    }
    left_out.extend(wanted.translations.iter().map(|translation| translation.rule.clone()));
    Ok(left_out.into_iter().map(|what| format!("{name}: {what}")).collect())
}

fn ports(node: &NodeName, netns: &NetNs) -> Result<BTreeSet<PortName>, ReplayError> {
    let all = netns.run(|| {
        let all = if_nameindex()?;
        Ok(all.iter().filter_map(|port| PortName::new(port.name().to_str().ok()?).ok()).collect())
    });
    all.map_err(|source| ReplayError::Netns { node: node.clone(), source })
}

/// Link-local and multicast ones are the kernel's: it makes them of the ports' MAC addresses (RFC 4291).
fn is_the_kernels(prefix: Prefix) -> bool {
    let of_kernel = |text: &str| text.parse::<Prefix>().is_ok_and(|all| all.contains(prefix.address()));
    of_kernel("fe80::/10") || of_kernel("ff00::/8")
}

fn addresses(found: &BaseRouting, wanted: &BaseRouting, ports: &BTreeSet<PortName>) -> String {
    let is_owners = |(port, address): &&(PortName, ipnet::IpNet)| {
        !is_the_kernels(Prefix::host(address.addr())) && ports.contains(port)
    };
    let surplus = found.addresses.iter().filter(|address| !wanted.addresses.contains(address));
    let missing = wanted.addresses.iter().filter(|address| !found.addresses.contains(address));
    let delete =
        surplus.filter(is_owners).map(|(port, address)| format!("address del {address} dev {port}\n"));
    let add = missing.filter(is_owners).map(|(port, address)| {
        let at_once = if address.addr().is_ipv6() { " nodad" } else { "" };
        format!("address add {address} dev {port}{at_once}\n")
    });
    delete.chain(add).collect()
}

/// Routes to one prefix of one table: several are next hops that share what goes there.
type Routes<'a> = BTreeMap<(u32, Prefix, u32), Vec<&'a BaseRouteAction>>;

fn routes(
    found: &BaseRouting,
    wanted: &BaseRouting,
    family: Family,
    ports: &BTreeSet<PortName>,
    left_out: &mut Vec<String>,
) -> String {
    let (found, wanted) = (by_prefix(found, family), by_prefix(wanted, family));
    let differ = |a: &Routes, b: &Routes| {
        let mut keys: Vec<(u32, Prefix, u32)> =
            a.iter().filter(|(key, actions)| b.get(key) != Some(actions)).map(|(key, _)| *key).collect();
        // A neighbour has to be there before the routes by way of it, and goes after them.
        keys.sort_by_key(|key| a[key].iter().any(|action| is_by_way_of_another(action)));
        keys
    };
    let mut commands = String::new();
    for (table, prefix, metric) in differ(&found, &wanted).into_iter().rev() {
        commands += &format!("route del {prefix} table {table}{}\n", metric_of(metric));
    }
    for key @ (table, prefix, metric) in differ(&wanted, &found) {
        match words(&wanted[&key], ports) {
            Ok((kind, hops)) => {
                commands += &format!("route add {kind}{prefix} table {table}{}{hops}\n", metric_of(metric));
            }
            Err(port) => {
                left_out.push(format!("route {prefix} of table {table}: there is no link at {port}"));
            }
        }
    }
    commands
}

fn by_prefix(base: &BaseRouting, family: Family) -> Routes<'_> {
    let mut routes = Routes::new();
    let of_family = |route: &&BaseRoute| route.prefix.family() == family && !is_the_kernels(route.prefix);
    for route in base.routes.iter().filter(of_family) {
        routes.entry((route.table, route.prefix, route.metric)).or_default().push(&route.action);
    }
    routes
}

fn is_by_way_of_another(action: &BaseRouteAction) -> bool {
    matches!(action, BaseRouteAction::Forward { via: Some(_), .. })
}

fn metric_of(metric: u32) -> String {
    if metric == 0 { String::new() } else { format!(" metric {metric}") }
}

/// What comes before the prefix and what after it; the port that there is not, if one is missing.
fn words<'a>(
    actions: &[&'a BaseRouteAction],
    ports: &BTreeSet<PortName>,
) -> Result<(&'static str, String), &'a PortName> {
    let mut hops = Vec::new();
    for action in actions {
        match action {
            BaseRouteAction::Local => return Ok(("local ", " dev lo".to_owned())),
            BaseRouteAction::Drop => return Ok(("blackhole ", String::new())),
            BaseRouteAction::Forward { port, .. } if !ports.contains(port) => return Err(port),
            BaseRouteAction::Forward { port, via } => {
                let via = via.map(|via| format!(" via {via}")).unwrap_or_default();
                hops.push(format!("{via} dev {port}"));
            }
        }
    }
    Ok((
        "",
        match hops.as_slice() {
            [only] => only.clone(),
            several => several.iter().map(|hop| format!(" nexthop{hop}")).collect(),
        },
    ))
}

fn rules(found: &BaseRouting, wanted: &BaseRouting, family: Family, left_out: &mut Vec<String>) -> String {
    let of_family = |rule: &&BaseRule| rule.family == family;
    let surplus = found.rules.iter().filter(of_family).filter(|rule| !wanted.rules.contains(rule));
    let missing = wanted.rules.iter().filter(of_family).filter(|rule| !found.rules.contains(rule));
    let mut commands = String::new();
    for (verb, rule) in surplus.map(|rule| ("del", rule)).chain(missing.map(|rule| ("add", rule))) {
        match rule_words(rule) {
            Some(words) => commands += &format!("rule {verb} {words}\n"),
            // Who meets it is told that this is not understood: it is on no way that is known.
            None => left_out.push(format!("rule {}: it is not understood", rule.priority)),
        }
    }
    commands
}

fn rule_words(rule: &BaseRule) -> Option<String> {
    let BaseRule { priority, family: _, from, to, in_port, opaque, action } = rule;
    let prefix = |what: &str, prefix: &Option<Prefix>| match prefix {
        Some(prefix) => format!(" {what} {prefix}"),
        None => String::new(),
    };
    let in_port = in_port.as_ref().map(|port| format!(" iif {port}")).unwrap_or_default();
    let action = match action {
        _ if !opaque.is_empty() => return None,
        BaseRuleAction::Lookup(table) => format!("lookup {table}"),
        BaseRuleAction::Drop => "blackhole".to_owned(),
        BaseRuleAction::Other(_) => return None,
    };
    Some(format!("pref {priority}{}{}{in_port} {action}", prefix("from", from), prefix("to", to)))
}

fn batch(node: &NodeName, netns: &NetNs, options: &[&str], commands: &str) -> Result<(), ReplayError> {
    if commands.is_empty() {
        return Ok(());
    }
    let arguments: Vec<&str> = options.iter().copied().chain(["-batch", "-"]).collect();
    command(node, netns, "ip", &arguments, commands)
}

/// Runs a program in a node of the copy, with something to read.
pub fn command(
    node: &NodeName,
    netns: &NetNs,
    program: &'static str,
    arguments: &[&str],
    input: &str,
) -> Result<(), ReplayError> {
    let ran = netns.run(|| Ok(catena_lab::feed(program, arguments, input)));
    let output = ran.map_err(|source| ReplayError::Netns { node: node.clone(), source })??;
    match output.status.success() {
        true => Ok(()),
        false => {
            let output = format!("{}\n{input}", String::from_utf8_lossy(&output.stderr).trim_end());
            Err(ReplayError::Command { node: node.clone(), program, output })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str) -> PortName {
        name.parse().unwrap()
    }

    fn forward(name: &str, via: Option<&str>) -> BaseRouteAction {
        BaseRouteAction::Forward { port: port(name), via: via.map(|via| via.parse().unwrap()) }
    }

    fn route(prefix: &str, table: u32, action: BaseRouteAction) -> BaseRoute {
        BaseRoute { table, prefix: prefix.parse().unwrap(), metric: 0, action }
    }

    fn rule(priority: u32, opaque: &[&str]) -> BaseRule {
        BaseRule {
            priority,
            family: Family::V4,
            from: Some("172.16.1.0/24".parse().unwrap()),
            to: None,
            in_port: None,
            opaque: opaque.iter().map(|&part| part.to_owned()).collect(),
            action: BaseRuleAction::Lookup(254),
        }
    }

    #[test]
    fn what_is_asked_of_the_kernel_is_the_difference() {
        let same = route("10.0.0.0/24", 254, forward("a", None));
        let found = BaseRouting {
            rules: vec![rule(90, &[])],
            routes: vec![same.clone(), route("0.0.0.0/0", 254, forward("a", Some("10.0.0.1")))],
            ..BaseRouting::default()
        };
        let wanted = BaseRouting {
            rules: vec![rule(100, &[]), rule(101, &["fwmark 0x1/0x1"])],
            routes: vec![
                route("192.0.2.0/24", 7, forward("b", Some("10.0.1.1"))),
                route("10.0.1.0/24", 7, forward("b", None)),
                same,
                route("198.51.100.0/25", 254, BaseRouteAction::Drop),
                route("203.0.113.0/24", 254, forward("c", None)),
                route("fe80::/64", 254, forward("b", None)),
                route("0.0.0.0/0", 254, forward("a", Some("10.0.0.1"))),
                route("0.0.0.0/0", 254, forward("b", Some("10.0.1.1"))),
            ],
            ..BaseRouting::default()
        };
        let ports = ["a", "b"].map(port).into();
        let mut left_out = Vec::new();
        assert_eq!(
            routes(&found, &wanted, Family::V4, &ports, &mut left_out),
            "route del 0.0.0.0/0 table 254\n\
             route add 10.0.1.0/24 table 7 dev b\n\
             route add blackhole 198.51.100.0/25 table 254\n\
             route add 192.0.2.0/24 table 7 via 10.0.1.1 dev b\n\
             route add 0.0.0.0/0 table 254 nexthop via 10.0.0.1 dev a nexthop via 10.0.1.1 dev b\n"
        );
        assert_eq!(routes(&found, &wanted, Family::V6, &ports, &mut left_out), "");
        assert_eq!(
            rules(&found, &wanted, Family::V4, &mut left_out),
            "rule del pref 90 from 172.16.1.0/24 lookup 254\nrule add pref 100 from 172.16.1.0/24 lookup 254\n"
        );
        assert_eq!(
            left_out,
            ["route 203.0.113.0/24 of table 254: there is no link at c", "rule 101: it is not understood"]
        );
    }

    #[test]
    fn addresses_of_the_kernel_are_left_to_it() {
        let at = |name: &str, address: &str| (port(name), address.parse().unwrap());
        let found = BaseRouting { addresses: vec![at("a", "10.0.0.1/24")], ..BaseRouting::default() };
        let addresses_wanted = vec![at("a", "2001:db8::1/64"), at("a", "fe80::1/64"), at("c", "10.0.2.1/24")];
        let wanted = BaseRouting { addresses: addresses_wanted, ..BaseRouting::default() };
        assert_eq!(
            addresses(&found, &wanted, &[port("a")].into()),
            "address del 10.0.0.1/24 dev a\naddress add 2001:db8::1/64 dev a nodad\n"
        );
    }
}
