//! Tenants by source prefix on a router: the engine, one `ip rule` for each, an nftables map.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::chain::{Chain, Joint, far_end};
use crate::engine::Engine;
use crate::figure::{Bar, Figure, Key};
use crate::flows;
use crate::line::{Line, Loss};
use crate::objects::route;
use crate::pairs::{Effort, Pairs};
use crate::world::Host;

pub const VS_IPRULE_1K: Key = Key {
    name: "vs_iprule_1k",
    what: "router with 1,000 tenants, engine ÷ an ip rule for each",
    unit: None,
    bar: Bar::AtLeast(15.0),
};
pub const VS_IPRULE_10K: Key = Key {
    name: "vs_iprule_10k",
    what: "router with 10,000 tenants, engine ÷ an ip rule for each",
    unit: None,
    bar: Bar::AtLeast(100.0),
};
pub const VS_NFT_10K: Key = Key {
    name: "vs_nft_10k",
    what: "router with 10,000 tenants, engine ÷ an nft verdict map",
    unit: None,
    bar: Bar::AtLeast(1.5),
};

const FLOWS: usize = 16_384;
/// Of the routing table that all rules lead to. (One for each tenant, as real ones would have it, is slower still: the
/// kernel keeps tables in 256 lists.)
const TABLE: u32 = 10_000;

pub fn vs_iprule(key: Key, effort: Effort, tenants: u32) -> Result<Figure> {
    versus(key, effort, tenants, by_rules)
}

pub fn vs_nft(effort: Effort, tenants: u32) -> Result<Figure> {
    versus(VS_NFT_10K, effort, tenants, by_nft)
}

fn versus(key: Key, effort: Effort, tenants: u32, other: fn(&Host, u32) -> Result<()>) -> Result<Figure> {
    let mut pairs = Pairs::default();
    for _ in 0..effort.builds {
        let [ours, theirs] = [Chain::new(1, Joint::Cable)?, Chain::new(1, Joint::Cable)?];
        let engine = by_engine(router(&ours)?, tenants)?;
        other(router(&theirs)?, tenants)?;
        let line = |chain| Line::new(chain, flows::of_tenants(FLOWS, tenants), Loss::Forbidden);
        pairs.measure(effort, &mut line(&ours)?, &mut line(&theirs)?)?;
        engine.expect_no_drops()?;
    }
    Ok(Figure::ratio(key, pairs))
}

fn router(chain: &Chain) -> Result<&Host> {
    Ok(&chain.lefts.first().context("no router")?.host)
}

fn by_engine(router: &Host, tenants: u32) -> Result<Engine> {
    let engine = Engine::routing(router)?;
    let routes = (0..tenants)
        .map(|tenant| route(tenant + 1, &flows::prefixes_of(tenant)[0], "left", "right", far_end(1)));
    engine.put(routes.collect::<Result<Vec<_>>>()?.into_iter().flatten())?;
    Ok(engine)
}

fn by_rules(router: &Host, tenants: u32) -> Result<()> {
    router.ip(&format!("route add default via {} dev right table {TABLE}\nroute del default", far_end(1)))?;
    let mut batch = String::new();
    for tenant in 0..tenants {
        let prefix = &flows::prefixes_of(tenant)[0];
        writeln!(batch, "rule add from {prefix} lookup {TABLE} priority {}", 10_000 + tenant)?;
    }
    router.ip(&batch)
}

/// On the ports' ingress, before all routing, and straight to the neighbour: the fastest that nftables can.
fn by_nft(router: &Host, tenants: u32) -> Result<()> {
    let mut elements = String::new();
    for tenant in 0..tenants {
        writeln!(elements, "{} : goto out,", flows::prefixes_of(tenant)[0])?;
    }
    let next_hop: Ipv4Addr = far_end(1);
    let ruleset = format!(
        "table netdev bench {{
            chain out {{
                fwd ip to {next_hop} device right
            }}
            map tenants {{
                type ipv4_addr : verdict; flags interval; elements = {{ {elements} }}
            }}
            chain in {{
                type filter hook ingress device left priority 0
                ip saddr vmap @tenants
            }}
        }}"
    );
    router.feed(Command::new("nft").args(["-f", "-"]), &ruleset)
}
