//! What the owner's packet filter (nftables, and iptables through it) does to addresses, as nft(8) lists it. Whatever asks for
//! more than ports and prefixes is taken to be for more packets than it is.

use std::io;
use std::net::IpAddr;
use std::process::{Command, Output};

use catena_driver::DriverError;
use catena_driver::netns::NetNs;
use catena_model::address::{Family, Prefix};
use catena_model::base::{NewAddress, Translation, TranslationHook};
use catena_model::name::PortName;
use ipnet::IpNet;
use serde_json::Value;

use crate::iptables;
use crate::words::Place;

pub(crate) fn translations(place: &Place, netns: &NetNs) -> Result<Vec<Translation>, DriverError> {
    // Without the elements of sets and maps, of which there may be many.
    const DOING: &str = "nft -jnt list ruleset";
    let failed = |said: String| DriverError::failed(format!("{place}: {DOING}"), said);
    let (listed, legacy) =
        netns.run(|| Ok((list(), iptables::legacy()))).map_err(|error| failed(error.to_string()))?;
    let listed = match listed {
        Ok(listed) if listed.status.success() => listed.stdout,
        Ok(listed) => return Err(failed(String::from_utf8_lossy(&listed.stderr).trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let what = "what cannot be read without nft(8) (apt-get install nftables)";
            return Ok(vec![unknown(None, what.to_owned())]);
        }
        Err(error) => return Err(failed(error.to_string())),
    };
    let listing: Value = serde_json::from_slice(&listed).map_err(|error| failed(error.to_string()))?;
    let objects = listing["nftables"].as_array().map(Vec::as_slice).unwrap_or_default();
    let (mut told, by_iptables) = read(objects);
    let by_iptables = netns.run(|| Ok(iptables::in_full(by_iptables)));
    told.extend(by_iptables.map_err(|error| failed(error.to_string()))?);
    Ok(told.into_iter().chain(legacy).collect())
}

/// What may do anything to any packet of a family.
pub(crate) fn unknown(family: Option<Family>, rule: String) -> Translation {
    let into = NewAddress::Any;
    Translation { hook: TranslationHook::Arriving, family, port: None, from: None, to: None, into, rule }
}

fn list() -> io::Result<Output> {
    Command::new("nft").args(["-jnt", "list", "ruleset"]).env("LC_ALL", "C").output()
}

/// The rules that translate, in the order of the listing (libnftables-json(5)): those in words of nftables, and those of iptables.
fn read(objects: &[Value]) -> (Vec<Translation>, Vec<Translation>) {
    let chains: Vec<&Value> =
        objects.iter().map(|object| &object["chain"]).filter(|chain| !chain.is_null()).collect();
    let rules = objects.iter().map(|object| &object["rule"]).filter(|rule| !rule.is_null());
    let (by_iptables, others): (Vec<&Value>, Vec<&Value>) = rules.partition(|rule| is_of_iptables(rule));
    let read = |rules: Vec<&Value>| {
        rules.into_iter().filter_map(|rule| translation(rule, hook_of(&chains, rule))).collect()
    };
    (read(others), read(by_iptables))
}

/// Whether what a rule does is what only iptables has words for.
fn is_of_iptables(rule: &Value) -> bool {
    let mut statements = rule["expr"].as_array().into_iter().flatten();
    statements.any(|statement| statement.get("xt").is_some_and(|xt| xt["type"] != "match"))
}

/// The hook of the chain that a rule is in; `None` for a chain that others jump to.
fn hook_of<'a>(chains: &[&'a Value], rule: &Value) -> Option<&'a str> {
    let is_its = |chain: &&&Value| {
        chain["family"] == rule["family"] && chain["table"] == rule["table"] && chain["name"] == rule["chain"]
    };
    chains.iter().find(is_its)?["hook"].as_str()
}

fn translation(rule: &Value, hook: Option<&str>) -> Option<Translation> {
    // What the element sends itself, or gets for itself.
    if matches!(hook, Some("input" | "output")) {
        return None;
    }
    let statements = rule["expr"].as_array()?;
    let (nth, (hook, what)) =
        (0..).zip(statements).find_map(|(nth, statement)| Some((nth, translating(statement)?)))?;
    let (into, asked) = statements[nth].as_object()?.iter().next().map(|(name, of)| given(name, of))?;
    let family = match rule["family"].as_str() {
        Some("ip") => Some(Family::V4),
        Some("ip6") => Some(Family::V6),
        _ => asked,
    };
    let word = |key: &str| rule[key].as_str().unwrap_or("?").to_owned();
    let mut translation = Translation {
        hook,
        family,
        port: None,
        from: None,
        to: None,
        into,
        rule: format!("{what} in chain {} of table {} {}", word("chain"), word("family"), word("table")),
    };
    // What stands behind it is asked of packets that it has changed.
    for statement in &statements[..nth] {
        translation.narrow(&statement["match"]);
    }
    Some(translation)
}

/// When a statement may give packets other addresses, or lead them past the policy rules, and its name. Only of what netfilter's
/// own translation does to sources is it known that replies get them back: all else is taken for a change on arrival.
fn translating(statement: &Value) -> Option<(TranslationHook, &str)> {
    let (name, of) = statement.as_object()?.iter().next()?;
    let (name, arriving) = (name.as_str(), |what| Some((TranslationHook::Arriving, what)));
    match name {
        "snat" | "masquerade" => Some((TranslationHook::Leaving, name)),
        "dnat" | "redirect" | "tproxy" => arriving(name),
        // Packets go to a program, which gives them back as it likes; or to where they, or others of their flow, went before.
        "queue" | "fwd" | "flow" => arriving(name),
        "mangle" if is_address(&of["key"]) => arriving("a change of addresses"),
        "xt" if of["type"] != "match" => match of["name"].as_str() {
            Some(name) => Some((iptables::hook_of(name)?, name)),
            // An nft that was built without iptables' extensions does not say what it is.
            None => arriving("what nft(8) cannot read"),
        },
        _ => None,
    }
}

/// What packets that a statement is for have in the place of an address, and of which family they are, where it says so.
fn given(name: &str, of: &Value) -> (NewAddress, Option<Family>) {
    let family = match of["family"].as_str() {
        Some("ip") => Some(Family::V4),
        Some("ip6") => Some(Family::V6),
        _ => None,
    };
    let into = match name {
        "masquerade" | "redirect" | "tproxy" | "flow" => NewAddress::Own,
        "snat" | "dnat" => match of.get("addr") {
            // Another port alone.
            None => NewAddress::Own,
            Some(addresses) => within(addresses),
        },
        "mangle" => within(&of["value"]),
        "xt" if of["name"].as_str().is_some_and(iptables::gives_own) => NewAddress::Own,
        _ => NewAddress::Any,
    };
    (into, family)
}

/// All of these addresses; what a map or another field of the packet says is not known.
fn within(addresses: &Value) -> NewAddress {
    let range = || {
        let [first, last] = addresses["range"].as_array()?.as_slice() else { return None };
        around(first.as_str()?.parse().ok()?, last.as_str()?.parse().ok()?)
    };
    prefix(addresses).or_else(range).map_or(NewAddress::Any, NewAddress::Within)
}

/// The longest prefix that has both addresses.
pub(crate) fn around(first: IpAddr, last: IpAddr) -> Option<Prefix> {
    let lengths = (0..=Family::of(first).bits()).rev();
    let mut prefixes = lengths.filter_map(|length| Some(Prefix::of(IpNet::new(first, length).ok()?)));
    prefixes.find(|prefix| prefix.contains(last))
}

/// Bytes that are named by where they stand may be any.
fn is_address(expression: &Value) -> bool {
    let payload = &expression["payload"];
    !payload["base"].is_null() || matches!(payload["field"].as_str(), Some("saddr" | "daddr"))
}

trait Narrow {
    /// Leaves the packets that match; what is not understood leaves all.
    fn narrow(&mut self, asks: &Value);
}

impl Narrow for Translation {
    fn narrow(&mut self, asks: &Value) {
        if asks["op"] != "==" {
            return;
        }
        let (left, right) = (&asks["left"], &asks["right"]);
        match (left["meta"]["key"].as_str(), left["payload"]["field"].as_str(), self.hook) {
            (Some("iifname" | "iif"), _, TranslationHook::Arriving)
            | (Some("oifname" | "oif"), _, TranslationHook::Leaving) => {
                // Of a wildcard, or a set, it is not known which ports it means.
                let name = right.as_str().filter(|name| !name.ends_with('*') && !name.starts_with('@'));
                self.port = self.port.take().or(name.and_then(|name| name.parse::<PortName>().ok()));
            }
            (_, Some(field), _) => {
                let Some(family) = family_of(left) else { return };
                // In a table of both families only packets of one have such a field.
                self.family = self.family.or(Some(family));
                let asked = prefix(right).filter(|prefix| prefix.family() == family);
                match field {
                    "saddr" => self.from = self.from.or(asked),
                    "daddr" => self.to = self.to.or(asked),
                    _ => {}
                }
            }
            _ => {}
        }
    }
}

/// Whose field is asked for; `None` also of a header within the packet.
fn family_of(expression: &Value) -> Option<Family> {
    let payload = &expression["payload"];
    match payload["protocol"].as_str().filter(|_| payload["tunnel"].is_null())? {
        "ip" => Some(Family::V4),
        "ip6" => Some(Family::V6),
        _ => None,
    }
}

fn prefix(value: &Value) -> Option<Prefix> {
    if let Some(host) = value.as_str() {
        return Some(Prefix::host(host.parse().ok()?));
    }
    let address = value["prefix"]["addr"].as_str()?.parse().ok()?;
    let length = u8::try_from(value["prefix"]["len"].as_u64()?).ok()?;
    Some(Prefix::of(IpNet::new(address, length).ok()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// As nft lists what iptables has put into nftables.
    #[test]
    fn what_iptables_says_is_read() {
        let rule = |chain: &str, statements: Value| {
            let expr = statements;
            json!({"rule": {"family": "ip", "table": "nat", "chain": chain, "handle": 1, "expr": expr}})
        };
        let asks =
            |left: Value, op: &str, right: Value| json!({"match": {"op": op, "left": left, "right": right}});
        let wan = |op| asks(json!({"meta": {"key": "oifname"}}), op, json!("wan"));
        let listing = [
            json!({"metainfo": {"json_schema_version": 1}}),
            json!({"table": {"family": "ip", "name": "nat", "handle": 1}}),
            json!({"chain": {"family": "ip", "table": "nat", "name": "POSTROUTING", "type": "nat", "hook": "postrouting"}}),
            json!({"chain": {"family": "ip", "table": "nat", "name": "agent"}}),
            rule(
                "POSTROUTING",
                json!([wan("=="), {"counter": null}, {"xt": {"type": "target", "name": "MASQUERADE"}}]),
            ),
            rule("POSTROUTING", json!([{"jump": {"target": "agent"}}])),
            rule(
                "agent",
                json!([wan("!="), {"xt": {"type": "match", "name": "conntrack"}}, {"accept": null}]),
            ),
            rule("agent", json!([wan("!="), {"xt": {"type": "target", "name": "SNAT"}}])),
            rule("agent", json!([{"xt": null}])),
        ];
        let (others, told) = read(&listing);
        assert_eq!(others, []);
        let told: Vec<_> = told
            .into_iter()
            .map(|told| (told.hook, told.port.map(|port| port.to_string()), told.into, told.rule))
            .collect();
        let agents = |what: &str| format!("{what} in chain agent of table ip nat");
        assert_eq!(
            told,
            [
                (
                    TranslationHook::Leaving,
                    Some("wan".to_owned()),
                    NewAddress::Own,
                    "MASQUERADE in chain POSTROUTING of table ip nat".to_owned()
                ),
                (TranslationHook::Leaving, None, NewAddress::Any, agents("SNAT")),
                (TranslationHook::Arriving, None, NewAddress::Any, agents("what nft(8) cannot read")),
            ]
        );
    }

    #[test]
    fn what_packets_are_given_is_read() {
        let within = |prefix: &str| NewAddress::Within(prefix.parse().unwrap());
        for (statement, into) in [
            (json!({"masquerade": null}), NewAddress::Own),
            (json!({"redirect": {"port": 80}}), NewAddress::Own),
            (json!({"snat": {"port": {"range": [1024, 2000]}}}), NewAddress::Own),
            (json!({"snat": {"addr": "10.20.0.7"}}), within("10.20.0.7/32")),
            (json!({"snat": {"addr": {"range": ["10.20.0.7", "10.20.0.9"]}}}), within("10.20.0.0/28")),
            (
                json!({"dnat": {"addr": "2001:db8::1", "port": 80, "family": "ip6"}}),
                within("2001:db8::1/128"),
            ),
            (json!({"dnat": {"addr": {"prefix": {"addr": "10.9.0.0", "len": 24}}}}), within("10.9.0.0/24")),
            (
                json!({"dnat": {"addr": {"map": {"key": {"numgen": {}}, "data": "@servers"}}}}),
                NewAddress::Any,
            ),
            (json!({"dnat": {"addr": "nonsense"}}), NewAddress::Any),
            (json!({"queue": {"num": 1}}), NewAddress::Any),
            (json!({"flow": {"op": "add", "flowtable": "@fast"}}), NewAddress::Own),
        ] {
            let rule = json!({"family": "inet", "table": "nat", "chain": "nat", "expr": [statement]});
            assert_eq!(translation(&rule, None).map(|told| told.into), Some(into), "{rule}");
        }
        let daddr = json!({"payload": {"protocol": "ip", "field": "daddr"}});
        for (value, into) in [(json!("10.0.0.9"), within("10.0.0.9/32")), (daddr.clone(), NewAddress::Any)] {
            let statement = json!({"mangle": {"key": daddr, "value": value}});
            let rule = json!({"family": "ip", "expr": [statement]});
            assert_eq!(translation(&rule, None).map(|told| told.into), Some(into), "{rule}");
        }
    }
}
