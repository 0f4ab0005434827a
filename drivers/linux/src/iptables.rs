//! What iptables does to addresses, in the words of iptables-save(8): its own tables (iptables-legacy), and what of its rules in
//! nftables nft(8) has no words for.

use std::io;
use std::net::IpAddr;
use std::process::Command;

use catena_model::address::{Family, Prefix};
use catena_model::base::{NewAddress, Translation, TranslationHook};
use ipnet::IpNet;

use crate::netfilter::{around, unknown};

/// Where iptables-legacy has its tables that are in use, which may be empty, and what reads them.
const LEGACY: [(Family, &str, &str); 2] = [
    (Family::V4, "/proc/thread-self/net/ip_tables_names", "iptables-legacy-save"),
    (Family::V6, "/proc/thread-self/net/ip6_tables_names", "ip6tables-legacy-save"),
];

/// When a target may give packets other addresses, or hand them to somebody who does. Only `SNAT` and `MASQUERADE` are known to
/// give them back to replies: all else is taken for a change on arrival.
pub(crate) fn hook_of(target: &str) -> Option<TranslationHook> {
    match target {
        "SNAT" | "MASQUERADE" => Some(TranslationHook::Leaving),
        "DNAT" | "REDIRECT" | "NETMAP" | "SNPT" | "DNPT" | "TPROXY" | "NFQUEUE" => {
            Some(TranslationHook::Arriving)
        }
        _ => None,
    }
}

/// Whether a target gives packets no addresses but the element's own, whatever else its rule says.
pub(crate) fn gives_own(target: &str) -> bool {
    matches!(target, "MASQUERADE" | "REDIRECT" | "TPROXY")
}

/// These rules of iptables in nftables as it says them itself; as they are, where it does not say the same ones.
pub(crate) fn in_full(told: Vec<Translation>) -> Vec<Translation> {
    if told.iter().all(|told| told.into == NewAddress::Own) {
        return told;
    }
    let said = [(Family::V4, "iptables-nft-save", "ip"), (Family::V6, "ip6tables-nft-save", "ip6")];
    let said: Vec<Translation> = said
        .into_iter()
        .flat_map(|(family, command, name)| {
            read(family, &save(command).unwrap_or_default(), |table| format!("{name} {table}"))
        })
        .collect();
    let rules = |all: &[Translation]| {
        let mut rules: Vec<String> = all.iter().map(|translation| translation.rule.clone()).collect();
        rules.sort_unstable();
        rules
    };
    if rules(&said) == rules(&told) { said } else { told }
}

/// What iptables-legacy has. What cannot be read may do anything, whichever table it is: each can hand packets to a program.
pub(crate) fn legacy() -> Vec<Translation> {
    LEGACY.into_iter().flat_map(|(family, names, command)| legacy_of(family, names, command)).collect()
}

fn legacy_of(family: Family, names: &str, command: &str) -> Vec<Translation> {
    let in_use = match std::fs::read_to_string(names) {
        Ok(names) if names.trim().is_empty() => return Vec::new(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Ok(names) => names.split_whitespace().collect::<Vec<_>>().join(", "),
        Err(error) => error.to_string(),
    };
    match save(command) {
        Ok(said) => read(family, &said, |table| format!("{table} of iptables-legacy ({family})")),
        Err(error) => vec![unknown(
            Some(family),
            format!(
                "the tables of iptables-legacy ({family}: {in_use}), of which {command}(8) says: {error}"
            ),
        )],
    }
}

fn save(command: &str) -> io::Result<String> {
    let output = Command::new(command).env("LC_ALL", "C").output()?;
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The rules that translate, in the order in which they are said; `name` has a table's name for people.
fn read(family: Family, said: &str, name: impl Fn(&str) -> String) -> Vec<Translation> {
    let mut table = "?";
    let mut told = Vec::new();
    for line in said.lines() {
        if let Some(begins) = line.strip_prefix('*') {
            table = begins;
        }
        told.extend(translation(family, &words(line), &name(table)));
    }
    told
}

/// Of a line `-A CHAIN [! -s PREFIX] [-i PORT] … [-m MATCH …] -j TARGET …`: what is asked of addresses and ports stands before all
/// matches, which may have any words.
fn translation(family: Family, words: &[String], table: &str) -> Option<Translation> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let ["-A", chain, ..] = words[..] else { return None };
    // What the element sends itself, or gets for itself.
    if matches!(chain, "INPUT" | "OUTPUT") {
        return None;
    }
    let (asks, does) = words.split_at(words.iter().rposition(|word| *word == "-j")?);
    let target = *does.get(1)?;
    let hook = hook_of(target)?;
    let asks = asks.split(|word| *word == "-m").next()?;
    let asked = |option: &str| {
        let negated = ["!", option];
        if asks.windows(2).any(|words| words == negated) { None } else { value(asks, option) }
    };
    let prefix = |option| Some(Prefix::of(asked(option)?.parse::<IpNet>().ok()?));
    let port = if hook == TranslationHook::Arriving { asked("-i") } else { asked("-o") };
    Some(Translation {
        hook,
        family: Some(family),
        // A name that ends with + stands for all that begin so.
        port: port.filter(|port| !port.ends_with('+')).and_then(|port| port.parse().ok()),
        from: prefix("-s"),
        to: prefix("-d"),
        into: new_address(target, does),
        rule: format!("{target} in chain {chain} of table {table}"),
    })
}

/// What stands behind an option.
fn value<'w>(words: &[&'w str], option: &str) -> Option<&'w str> {
    words.windows(2).find(|words| words[0] == option).map(|words| words[1])
}

fn new_address(target: &str, does: &[&str]) -> NewAddress {
    let known = match target {
        "SNAT" => value(does, "--to-source").map(range),
        "DNAT" => value(does, "--to-destination").map(range),
        "NETMAP" => value(does, "--to").map(range),
        "SNPT" | "DNPT" => value(does, "--dst-pfx").map(range),
        _ if gives_own(target) => Some(NewAddress::Own),
        _ => None,
    };
    known.unwrap_or_default()
}

/// Of `ADDRESS`, `ADDRESS-ADDRESS`, `ADDRESS:PORTS`, `[ADDRESS]:PORTS`, `:PORTS` or `PREFIX`.
fn range(text: &str) -> NewAddress {
    let addresses = match text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        Some((addresses, _)) => addresses,
        None if text.starts_with(':') && !text.starts_with("::") => return NewAddress::Own,
        None if text.contains('.') => text.split_once(':').map_or(text, |(addresses, _)| addresses),
        None => text,
    };
    let within = || -> Option<Prefix> {
        if let Ok(prefix) = addresses.parse::<IpNet>() {
            return Some(Prefix::of(prefix));
        }
        let (first, last) = addresses.split_once('-').unwrap_or((addresses, addresses));
        around(first.parse::<IpAddr>().ok()?, last.parse().ok()?)
    };
    within().map_or(NewAddress::Any, NewAddress::Within)
}

/// The words of a line; what stands between quotation marks, where a backslash takes the next character as it is, is one.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        let word = match character {
            '"' => {
                quoted = !quoted;
                continue;
            }
            ' ' if !quoted => {
                words.push(String::new());
                continue;
            }
            '\\' if quoted => characters.next(),
            character => Some(character),
        };
        if let Some(last) = words.last_mut() {
            last.extend(word);
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_iptables_saves_is_read() {
        let said = r#"# Generated by iptables-save
*nat
:PREROUTING ACCEPT [0:0]
-A PREROUTING -d 10.0.0.1/32 -i wan -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.1.1.1:8080
-A PREROUTING ! -d 10.0.0.0/24 -m comment --comment "-d 9.9.9.9 \" -j SNAT" -j NETMAP --to 10.1.1.0/24
-A OUTPUT -j DNAT --to-destination 10.1.1.1
-A POSTROUTING -s 10.0.0.0/24 -o w+ -j SNAT --to-source 10.1.1.1-10.1.1.4
-A POSTROUTING ! -o wan -m comment --comment -j -j MASQUERADE
-A POSTROUTING -j agent
-A agent -p tcp -j DNAT --to-destination :8080
COMMIT
*mangle
-A FORWARD -i wan -j NFQUEUE --queue-num 1
-A FORWARD -j MARK --set-xmark 0x1/0x1
COMMIT
"#;
        let within = |prefix: &str| NewAddress::Within(prefix.parse().unwrap());
        let told: Vec<_> = read(Family::V4, said, str::to_owned)
            .into_iter()
            .map(|told| {
                let prefixes = [told.from, told.to].map(|prefix| prefix.map(|prefix| prefix.to_string()));
                let of = format!("{:?} {:?} {prefixes:?}", told.hook, told.port.map(|port| port.to_string()));
                (told.rule, of, told.into)
            })
            .collect();
        let expected = [
            (
                "DNAT in chain PREROUTING of table nat",
                r#"Arriving Some("wan") [None, Some("10.0.0.1/32")]"#,
                within("10.1.1.1/32"),
            ),
            ("NETMAP in chain PREROUTING of table nat", "Arriving None [None, None]", within("10.1.1.0/24")),
            (
                "SNAT in chain POSTROUTING of table nat",
                r#"Leaving None [Some("10.0.0.0/24"), None]"#,
                within("10.1.1.0/29"),
            ),
            ("MASQUERADE in chain POSTROUTING of table nat", "Leaving None [None, None]", NewAddress::Own),
            ("DNAT in chain agent of table nat", "Arriving None [None, None]", NewAddress::Own),
            (
                "NFQUEUE in chain FORWARD of table mangle",
                r#"Arriving Some("wan") [None, None]"#,
                NewAddress::Any,
            ),
        ];
        let expected = expected.map(|(rule, of, into)| (rule.to_owned(), of.to_owned(), into));
        assert_eq!(told, expected);
        for (text, into) in [
            ("2001:db8::1", within("2001:db8::1/128")),
            ("[2001:db8::1]:80", within("2001:db8::1/128")),
            ("[2001:db8::1-2001:db8::2]:80", within("2001:db8::/126")),
            ("2001:db8::1-2001:db8::2", within("2001:db8::/126")),
            ("2001:db8:1::/64", within("2001:db8:1::/64")),
            ("what?", NewAddress::Any),
        ] {
            assert_eq!(range(text), into, "{text}");
        }
    }
}
