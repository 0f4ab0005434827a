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
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => DriverError::Unsupported {
            what: format!(
                "{place}: whether its packet filter translates addresses cannot be read: nft(8) is not there"
            ),
            help: "install nftables (apt-get install nftables)".to_owned(),
        },
        _ => DriverError::failed(format!("{place}: {DOING}"), error),
    };
    let (listed, legacy) = netns.run(|| Ok((list()?, legacy()))).map_err(failed)?;
    if !listed.status.success() {
        let said = String::from_utf8_lossy(&listed.stderr).trim().to_owned();
        return Err(DriverError::failed(format!("{place}: {DOING}"), said));
    }
    let listing: Value = serde_json::from_slice(&listed.stdout)
        .map_err(|error| DriverError::failed(format!("{place}: {DOING}"), error))?;
    let objects = listing["nftables"].as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(read(objects).into_iter().chain(legacy).collect())
}

fn list() -> io::Result<Output> {
    Command::new("nft").args(["-jnt", "list", "ruleset"]).env("LC_ALL", "C").output()
}

/// A table that is in use may be empty. What is in it only iptables-legacy can tell.
fn legacy() -> Vec<Translation> {
    let has_nat =
        |path: &str| std::fs::read_to_string(path).is_ok_and(|names| names.lines().any(|name| name == "nat"));
    let both = |family| {
        [TranslationHook::Arriving, TranslationHook::Leaving].map(|hook| Translation {
            hook,
            family: Some(family),
            port: None,
            from: None,
            to: None,
            rule: format!("the table nat of iptables-legacy ({family}), which cannot be read"),
        })
    };
    LEGACY.into_iter().filter(|(path, _)| has_nat(path)).flat_map(|(_, family)| both(family)).collect()
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
    let statements = rule["expr"].as_array()?;
    let (hook, what) =
        statements.iter().find_map(|statement| translating(statement, hook, rule["table"] == "nat"))?;
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
    for statement in statements {
        translation.narrow(&statement["match"]);
    }
    Some(translation)
}

/// When a statement gives packets other addresses, if it does, and its name. In what others jump to, it is the statement that says
/// when.
fn translating(statement: &Value, hook: Option<&str>, is_nat: bool) -> Option<(TranslationHook, String)> {
    let (name, of) = statement.as_object()?.iter().next()?;
    let by_hook = match hook {
        // What the element sends itself, or gets for itself.
        Some("input" | "output") => return None,
        Some("postrouting" | "forward") => Some(TranslationHook::Leaving),
        Some(_) => Some(TranslationHook::Arriving),
        None => None,
    };
    let (otherwise, what) = match name.as_str() {
        "snat" | "masquerade" => (TranslationHook::Leaving, name.as_str()),
        "dnat" | "redirect" | "tproxy" => (TranslationHook::Arriving, name.as_str()),
        // Packets go to a program, which gives them back as it likes.
        "queue" => (TranslationHook::Arriving, name.as_str()),
        "mangle" if is_address(&of["key"]) => (TranslationHook::Arriving, "a change of addresses"),
        "xt" if of["type"] != "match" => match of["name"].as_str() {
            Some(name @ ("SNAT" | "MASQUERADE")) => (TranslationHook::Leaving, name),
            Some(name @ ("DNAT" | "REDIRECT" | "NETMAP" | "TPROXY" | "NFQUEUE")) => {
                (TranslationHook::Arriving, name)
            }
            // An nft that was built without iptables' extensions does not say what it is.
            None if is_nat => (TranslationHook::Arriving, "what nft(8) cannot read"),
            _ => return None,
        },
        _ => return None,
    };
    Some((by_hook.unwrap_or(otherwise), what.to_owned()))
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
                // A name may end in a wildcard.
                let name = right.as_str().filter(|name| !name.ends_with('*'));
                self.port = self.port.take().or(name.and_then(|name| name.parse::<PortName>().ok()));
            }
            (_, Some("saddr"), _) if is_ip(left) => self.from = self.from.or(prefix(right)),
            (_, Some("daddr"), _) if is_ip(left) => self.to = self.to.or(prefix(right)),
            _ => {}
        }
    }
}

fn is_ip(expression: &Value) -> bool {
    matches!(expression["payload"]["protocol"].as_str(), Some("ip" | "ip6"))
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
