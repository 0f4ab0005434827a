//! By what means the elements route: the same story is told with each.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

use crate::story::node;
use crate::story::world::{SCRATCH, World};
use crate::workspace;

/// The virtual router of the paper's Figure 2.
pub const ROUTER: &str = "qrouter-1234";
/// Acme's prefix without its length, as nft shows it, and with it.
const ACME: &str = "172.16.1.0";
const ACME_PREFIX: &str = "172.16.1.0/24";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// A line of `ip rule` for each tenant, as in the paper
    #[default]
    Rules,
    /// Verdict maps of nftables
    Nft,
    /// The eBPF routing engine
    Steer,
}

/// How the virtual router leads acme's packets to their next hop.
pub struct Lead {
    /// What a person would look for.
    pub shown: String,
    /// The routing table that they are looked up in.
    pub table: u32,
    /// The command that takes the tenant's own part of it away.
    pub removal: String,
}

impl Engine {
    /// As the program's arguments call it.
    pub fn name(self) -> &'static str {
        match self {
            Engine::Rules => "rules",
            Engine::Nft => "nft",
            Engine::Steer => "steer",
        }
    }

    /// The paper's network with this engine on every element.
    pub fn network(self) -> Result<PathBuf> {
        if self == Engine::default() {
            return Ok(World::NETWORK.into());
        }
        let paper = std::fs::read_to_string(workspace::root().join(World::NETWORK)).context("no network")?;
        let engine = format!(", engine: {}}}}}", self.name());
        let lines = paper.lines().map(|line| match line.strip_suffix("}}") {
            Some(rest) if rest.contains("driver: {linux: {netns: ") => format!("{rest}{engine}\n"),
            _ => format!("{line}\n"),
        });
        let text: String = lines.collect();
        ensure!(text.contains(&engine), "{} names no driver as this story expects it", World::NETWORK);
        let path = PathBuf::from(SCRATCH).join("network.yaml");
        std::fs::write(&path, text).context("cannot write the network with another engine")?;
        Ok(path)
    }

    /// How the virtual router leads acme's IPv4 packets, as the machine shows it.
    pub fn lead(self) -> Result<Lead> {
        match self {
            Engine::Rules => lead_by_rule(),
            Engine::Nft => lead_by_map(),
            Engine::Steer => lead_by_program(),
        }
    }
}

/// `10136: from 172.16.1.0/24 lookup 10001 proto 202`
fn lead_by_rule() -> Result<Lead> {
    let rules = node::ask(ROUTER, "ip rule show")?;
    let from = format!("from {ACME_PREFIX} ");
    let rule = rules.lines().find(|line| line.contains(&from)).with_context(|| format!("no rule {from}"))?;
    let (priority, _) = rule.split_once(':').context("not a rule")?;
    let table = rule.split_once("lookup ").and_then(|(_, rest)| rest.split_whitespace().next());
    let table = table.with_context(|| format!("the rule looks nothing up: {rule}"))?;
    Ok(Lead {
        shown: format!("{from}lookup {table}"),
        table: table.parse().context("not a table")?,
        removal: format!("ip rule del priority {priority}"),
    })
}

/// `map order136-ip-from24 { … elements = { 172.16.1.0 comment "path 4" : goto hop-1 } }`, and
/// `10000: from all fwmark 0x2010000/0x3ff0000 lookup 10001 proto 202`: hop 1 has table 10001.
fn lead_by_map() -> Result<Lead> {
    const FIRST_TABLE: u32 = 10_000;
    let listing = node::ask(ROUTER, "nft list table inet catena")?;
    let mut map = "";
    for line in listing.lines().map(str::trim) {
        map = line.strip_prefix("map ").and_then(|rest| rest.split(' ').next()).unwrap_or(map);
        let element = line.split_once(ACME).filter(|_| map.contains("-from"));
        let Some((_, hop)) = element.and_then(|(_, rest)| rest.split_once("goto hop-")) else { continue };
        let hop: u32 = hop.split([' ', ',']).next().unwrap_or_default().parse().context("not a hop")?;
        let lookup = format!("lookup {} ", FIRST_TABLE + hop);
        let rules = node::ask(ROUTER, "ip rule show")?;
        ensure!(rules.contains(&lookup), "no rule for hop {hop}:\n{rules}");
        return Ok(Lead {
            shown: format!("{map}: {ACME} goto hop-{hop}; {lookup}"),
            table: FIRST_TABLE + hop,
            removal: format!("nft delete element inet catena {map} {{ {ACME} }}"),
        });
    }
    bail!("no map has {ACME}:\n{listing}")
}

/// `filter protocol all pref 203 bpf … catena_route:[123]` at the port that acme's packets come in by, and for what the kernel
/// has to think about, `10000: from all fwmark 0x2010000/0x3ff0000 lookup 10001 proto 202`.
fn lead_by_program() -> Result<Lead> {
    const PORT: &str = "qg-ext";
    const PREFERENCE: &str = "pref 203";
    let filters = node::ask(ROUTER, &format!("tc filter show dev {PORT} ingress"))?;
    let stands = filters.lines().any(|line| line.contains(PREFERENCE) && line.contains("catena_route"));
    ensure!(stands, "the program is not at {PORT}:\n{filters}");
    let rules = node::ask(ROUTER, "ip rule show")?;
    for rule in rules.lines().filter(|line| line.contains("fwmark 0x2")) {
        let table = rule.split_once("lookup ").and_then(|(_, rest)| rest.split_whitespace().next());
        let Some(table) = table.and_then(|table| table.parse::<u32>().ok()) else { continue };
        let routes = node::ask(ROUTER, &format!("ip route show table {table}"))?;
        if routes.starts_with("default via 10.21.0.5 ") {
            return Ok(Lead {
                shown: format!("catena_route at {PORT}; lookup {table}"),
                table,
                removal: format!("tc filter del dev {PORT} ingress {PREFERENCE}"),
            });
        }
    }
    bail!("no rule leads to the switch:\n{rules}")
}
