//! Chapter 8: the programs that tell what a chain claims are taken away, at both ends of it, without a daemon and with one.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::story::Story;
use crate::story::capture::Captures;
use crate::story::chained::passes_in_order;
use crate::story::crash::{REPAIR, damaged};
use crate::story::direct::direct_ways;
use crate::story::engine::Engine;
use crate::story::journey::follow;
use crate::story::node::{self, Web, ping};
use crate::story::talk::{Talk, Watched};
use crate::story::world::{V4, World, eventually, in_both_families};

/// Where requests come in, and where replies do.
const CLAIMING: [(&str, &str); 2] = [("access-a", "lan"), ("core", "inet")];

pub fn tell(world: &mut World, story: &mut Story) {
    story.check("no daemon runs, and nobody claims any more: all of acme's goes into the chain", || {
        world.stop_daemon()?;
        for (element, port) in CLAIMING {
            remove_claim(element, port)?;
        }
        nothing_goes_directly(701)
    });
    let engine = world.engine;
    let anew = match engine {
        // What routes there was at the port, too, and has to be put back.
        Engine::Steer => "by a port that was removed and made anew, nothing goes",
        Engine::Rules | Engine::Nft => "so it does by a port that was removed and made anew",
    };
    story.check(anew, || {
        make_lan_anew()?;
        match engine {
            Engine::Steer => nothing_goes(702),
            Engine::Rules | Engine::Nft => nothing_goes_directly(702),
        }
    });
    story.check("the daemon starts: what no chain claims goes the direct way again", || {
        world.start_daemon()?;
        let mut way = String::new();
        eventually(REPAIR, || {
            way = direct_ways("alice")?;
            Ok(())
        })?;
        Ok(way)
    });
    for (element, port) in CLAIMING {
        let name =
            format!("somebody removes the claim at {element}'s {port}: an open connection loses nothing");
        story.check(&name, || {
            let server = SocketAddr::new(V4.server.parse::<IpAddr>()?, 80);
            let open = Watched::start("alice", &Talk { server, sizes: vec![100, 1000], milliseconds: 1000 })?;
            let repaired = damaged(world, element, || remove_claim(element, port))?;
            let said = open.wait().context("the connection that was open")?;
            Ok(format!("{} messages on it; {repaired}", said.messages))
        });
    }
    story.check("somebody removes access-a's lan and makes it anew", || {
        let repaired = damaged(world, "access-a", make_lan_anew)?;
        let [passed, _] = in_both_families(|family| {
            let journey = follow(family, "alice", family.port(703))?;
            ensure!(journey.web == Web::Status(200), "the answer: {:?}", journey.web);
            passes_in_order(&journey, &["ips-", "fw-1", "web-1"])
        })?;
        Ok(format!("{repaired}; {passed}"))
    });
}

/// The filter and not its qdisc: to put a qdisc on a port or off it, the kernel stops the port for a moment, and loses what is
/// sent by it then (`qdisc_graft` in net/sched/sch_api.c).
fn remove_claim(element: &str, port: &str) -> Result<()> {
    node::ask(element, &format!("tc filter del dev {port} ingress pref 202")).map(drop)
}

/// Fails unless web requests get no answer, and nothing of acme's is seen in any direction.
fn nothing_goes(number: u16) -> Result<String> {
    let acme = "net 172.16.1.0/24 or net 2001:db8:a1::/64";
    let any = Captures::start(&[("access-a", "wan"), ("gateway", "vr")], acme)?;
    in_both_families(|family| {
        let journey = follow(family, "alice", family.port(number))?;
        ensure!(!matches!(journey.web, Web::Status(_)), "there is an answer: {:?}", journey.web);
        Ok(())
    })?;
    for (node, seen) in any.stop()? {
        ensure!(seen.is_empty(), "{} packets went on at {node}", seen.len());
    }
    Ok("until a daemon runs".to_owned())
}

/// Fails unless web requests pass the functions, pings are answered, and of neither is seen a packet beside the tunnel.
fn nothing_goes_directly(number: u16) -> Result<String> {
    let acme = "net 172.16.1.0/24 or net 2001:db8:a1::/64";
    let direct = Captures::start(&[("access-a", "wan"), ("gateway", "vr")], acme)?;
    let [passed, _] = in_both_families(|family| {
        let journey = follow(family, "alice", family.port(number))?;
        ensure!(journey.web == Web::Status(200), "the answer: {:?}", journey.web);
        ensure!(ping("alice", family.server)?, "a ping is not answered");
        passes_in_order(&journey, &["ips-", "fw-1", "web-1"])
    })?;
    for (node, seen) in direct.stop()? {
        ensure!(seen.is_empty(), "{} packets went the direct way at {node}", seen.len());
    }
    Ok(passed)
}

/// Removes the link between alice and her access router, and makes one like it, as `examples/paper` has it. It gets the
/// numbers and addresses of the former one, so that the last chapter finds the machine as it was.
fn make_lan_anew() -> Result<()> {
    let (lan, eth0) = (identity("access-a", "lan")?, identity("alice", "eth0")?);
    node::ask("access-a", "ip link del lan")?;
    node::ask("access-a", &format!("ip link add lan {lan} type veth peer name eth0 {eth0} netns alice"))?;
    for (node, line) in [
        ("access-a", "ip link set lan up"),
        ("access-a", "ip address add 172.16.1.1/24 dev lan"),
        ("access-a", "ip address add 2001:db8:a1::1/64 dev lan nodad"),
        ("alice", "ethtool -K eth0 tx off tso off gso off gro off"),
        ("alice", "ip link set eth0 up"),
        ("alice", "ip address add 172.16.1.10/24 dev eth0"),
        ("alice", "ip address add 2001:db8:a1::10/64 dev eth0 nodad"),
        ("alice", "ip route add default via 172.16.1.1"),
        ("alice", "ip route add default via 2001:db8:a1::1"),
    ] {
        node::ask(node, line)?;
    }
    Ok(())
}

/// A port's number and MAC address, in the words of `ip link add`.
fn identity(node: &str, port: &str) -> Result<String> {
    let links: Value = serde_json::from_str(&node::ask(node, &format!("ip -json link show dev {port}"))?)?;
    let (index, mac) = (&links[0]["ifindex"], &links[0]["address"]);
    let (index, mac) = index.as_u64().zip(mac.as_str()).with_context(|| format!("not a link: {links}"))?;
    Ok(format!("index {index} address {mac}"))
}
