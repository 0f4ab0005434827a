//! Chapter 4: what arrives is what was sent, byte for byte but for the TTL and its checksum; and what happens to packets
//! that are too large for the tunnel.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};

use crate::story::Story;
use crate::story::capture::{Captured, Captures};
use crate::story::node;
use crate::story::talk::{Client, Talk};
use crate::story::world::{Family, TUNNEL_MTU, V4, V6, World};

/// Claimed by the chain.
const PORT: u16 = 443;
/// The smallest message: with all its headers it is a packet of 64 bytes (IPv4) or 84 (IPv6).
const SMALLEST: usize = 12;

pub fn tell(_: &World, story: &mut Story) {
    for family in [V4, V6] {
        let name = format!(
            "packets of {} to {TUNNEL_MTU} bytes arrive byte for byte, both ways ({})",
            family.headers + SMALLEST,
            family.name
        );
        story.check(&name, || identical(family));
        story.check(
            &format!(
                "packets that do not fit into the tunnel: both ends are told, and go on ({})",
                family.name
            ),
            || too_big(family),
        );
    }
}

fn identical(family: Family) -> Result<String> {
    without_offloads(|| {
        let sizes: Vec<usize> = (SMALLEST..=TUNNEL_MTU - family.headers)
            .step_by(44)
            .chain([TUNNEL_MTU - family.headers])
            .collect();
        let captures =
            Captures::start(&[("alice", "eth0"), ("internet", "eth0")], &format!("tcp port {PORT}"))?;
        let talk = Talk { server: server(family)?, sizes: sizes.clone(), milliseconds: 0 };
        let said = Client::start("alice", &talk)?.wait()?;
        ensure!(said.messages == sizes.len() as u64, "{} messages were answered", said.messages);
        let seen = captures.stop()?;
        let [(_, at_alice), (_, at_server)] = &seen[..] else { anyhow::bail!("there are not two captures") };
        let mut report = Vec::new();
        for (what, to_server, sender, receiver) in
            [("there", true, at_alice, at_server), ("back", false, at_server, at_alice)]
        {
            let sent = only(sender, to_server);
            let received = only(receiver, to_server);
            for size in &sizes {
                let size = size + family.headers;
                ensure!(
                    sent.iter().any(|one| one.packet.len() == size),
                    "no packet of {size} bytes went {what}"
                );
            }
            ensure!(
                sent.len() == received.len(),
                "{}: {} sent, {} received",
                what,
                sent.len(),
                received.len()
            );
            // Not in the order of sending: what one processor sends may overtake what another does, on veth pairs (each has
            // its own queue of what came in).
            let mut arrived: Vec<_> = received.iter().map(|one| one.packet.unchanging()).collect();
            for (number, one) in sent.iter().enumerate() {
                let one = one.packet.unchanging();
                let place = arrived.iter().position(|other| *other == one);
                let place =
                    place.with_context(|| format!("{what}: packet {number} was changed: {one:02x?}"))?;
                arrived.remove(place);
            }
            let (first, last) =
                (sent.first().context("nothing was sent")?, received.first().context("nothing came")?);
            report.push(format!(
                "{} packets {what}, TTL {} → {}",
                sent.len(),
                first.packet.hops_left(),
                last.packet.hops_left()
            ));
        }
        Ok(report.join("; "))
    })
}

fn too_big(family: Family) -> Result<String> {
    let captures = Captures::start(&[("alice", "eth0"), ("internet", "eth0")], "icmp or icmp6")?;
    // Larger than one segment can be on either end's own link, in both directions.
    let talk = Talk { server: server(family)?, sizes: vec![20_000], milliseconds: 0 };
    let said = Client::start("alice", &talk)?.wait()?;
    ensure!(said.messages == 1, "it was not answered");
    for (place, packets) in captures.stop()? {
        let told: Vec<u32> = packets.iter().filter_map(|captured| captured.packet.told_mtu()).collect();
        ensure!(
            told.iter().all(|mtu| *mtu == TUNNEL_MTU as u32) && !told.is_empty(),
            "{place} was told {told:?} by ICMP"
        );
    }
    Ok(format!("ICMP says {TUNNEL_MTU}; nothing is clamped, nothing is lost"))
}

fn server(family: Family) -> Result<SocketAddr> {
    Ok(SocketAddr::new(family.server.parse::<IpAddr>()?, PORT))
}

/// The packets of one direction.
fn only(seen: &[Captured], to_server: bool) -> Vec<&Captured> {
    let wanted = |captured: &&Captured| {
        captured.packet.tcp().is_some_and(|tcp| (tcp.destination_port == PORT) == to_server)
    };
    seen.iter().filter(wanted).collect()
}

/// With offloads a capture shows packets as they never are on a wire: checksums unfinished, segments put together.
fn without_offloads<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let set = |to: &str| -> Result<()> {
        for host in ["alice", "internet"] {
            node::ask(host, &format!("ethtool -K eth0 tx {to} tso {to} gso {to}"))?;
        }
        Ok(())
    };
    set("off")?;
    let outcome = work();
    set("on")?;
    outcome
}
