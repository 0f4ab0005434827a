//! What the owner's packet filter (nftables, and iptables through it) does to addresses, as nft(8) lists it. Whatever asks for
//! more than ports and prefixes is taken to be for more packets than it is.

use std::io;
use std::process::{Command, Output};

use catena_driver::DriverError;
use catena_driver::netns::NetNs;
use catena_model::address::{Family, Prefix};
use catena_model::base::{Translation, TranslationHook};
use catena_model::name::PortName;
use ipnet::IpNet;
use serde_json::Value;

use crate::words::Place;

/// What iptables has of its own where it does not go through nftables (iptables-legacy): the tables in use.
const LEGACY: [(&str, Family); 2] = [
    ("/proc/thread-self/net/ip_tables_names", Family::V4),
    ("/proc/thread-self/net/ip6_tables_names", Family::V6),
];

pub(crate) fn translations(place: &Place, netns: &NetNs) -> Result<Vec<Translation>, DriverError> {
    // Without the elements of sets and maps, of which there may be many.
    const DOING: &str = "nft -jnt list ruleset";
    let failed = |said: String| DriverError::failed(format!("{place}: {DOING}"), said);
    let (listed, legacy) = netns.run(|| Ok((list(), legacy()))).map_err(|error| failed(error.to_string()))?;
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
    Ok(read(objects).into_iter().chain(legacy).collect())
}

/// What may do anything to any packet of a family.
fn unknown(family: Option<Family>, rule: String) -> Translation {
    Translation { hook: TranslationHook::Arriving, family, port: None, from: None, to: None, rule }
}

fn list() -> io::Result<Output> {
    Command::new("nft").args(["-jnt", "list", "ruleset"]).env("LC_ALL", "C").output()
}

/// A table that is in use may be empty. What is in it only iptables-legacy can tell.
fn legacy() -> Vec<Translation> {
    let has_nat = |path: &str| match std::fs::read_to_string(path) {
        Ok(names) => names.lines().any(|name| name == "nat"),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    };
    let used = LEGACY.into_iter().filter(|(path, _)| has_nat(path));
    used.map(|(_, family)| {
        unknown(Some(family), format!("the table nat of iptables-legacy ({family}), which cannot be read"))
    })
    .collect()
}

/// The rules that translate, in the order of the listing (libnftables-json(5)).
fn read(objects: &[Value]) -> Vec<Translation> {
    let chains: Vec<&Value> =
        objects.iter().map(|object| &object["chain"]).filter(|chain| !chain.is_null()).collect();
    let rules = objects.iter().map(|object| &object["rule"]).filter(|rule| !rule.is_null());
    rules.filter_map(|rule| translation(rule, hook_of(&chains, rule))).collect()
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
    let family = match rule["family"].as_str() {
        Some("ip") => Some(Family::V4),
        Some("ip6") => Some(Family::V6),
        _ => None,
    };
    let word = |key: &str| rule[key].as_str().unwrap_or("?").to_owned();
    let mut translation = Translation {
        hook,
        family,
        port: None,
        from: None,
        to: None,
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
            Some(name @ ("SNAT" | "MASQUERADE")) => Some((TranslationHook::Leaving, name)),
            Some(name @ ("DNAT" | "REDIRECT" | "NETMAP" | "TPROXY" | "NFQUEUE")) => arriving(name),
            Some(_) => None,
            // An nft that was built without iptables' extensions does not say what it is.
            None => arriving("what nft(8) cannot read"),
        },
        _ => None,
    }
}

fn is_address(expression: &Value) -> bool {
    matches!(expression["payload"]["field"].as_str(), Some("saddr" | "daddr"))
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
        let told: Vec<_> = read(&listing)
            .into_iter()
            .map(|told| (told.hook, told.port.map(|port| port.to_string()), told.rule))
            .collect();
        let agents = |what: &str| format!("{what} in chain agent of table ip nat");
        assert_eq!(
            told,
            [
                (
                    TranslationHook::Leaving,
                    Some("wan".to_owned()),
                    "MASQUERADE in chain POSTROUTING of table ip nat".to_owned()
                ),
                (TranslationHook::Leaving, None, agents("SNAT")),
                (TranslationHook::Arriving, None, agents("what nft(8) cannot read")),
            ]
        );
    }
}
