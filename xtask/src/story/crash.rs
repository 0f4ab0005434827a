//! Chapter 7: the daemon is killed, and what it installed is damaged by hand.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::story::Story;
use crate::story::chained::passes_in_order;
use crate::story::engine::ROUTER;
use crate::story::journey::follow;
use crate::story::node::{self, Web};
use crate::story::talk::{Talk, Watched};
use crate::story::watch::foreign_objects_are_there;
use crate::story::world::{V4, V6, World, eventually};

/// Within which a damage is to be repaired.
pub const REPAIR: Duration = Duration::from_secs(1);

pub fn tell(world: &mut World, story: &mut Story) {
    story.check("kill -9 of the daemon: open connections go on, new ones are made", || {
        let server = SocketAddr::new(V4.server.parse::<IpAddr>()?, 80);
        let open = Watched::start("alice", &Talk { server, sizes: vec![100, 1000], milliseconds: 1500 })?;
        std::thread::sleep(Duration::from_millis(300));
        world.kill_daemon()?;
        let journey = follow(V4, "alice", V4.port(401))?;
        ensure!(journey.web == Web::Status(200), "a new request: {:?}", journey.web);
        passes_in_order(&journey, &["ips-", "fw-1", "web-1"])?;
        let said = open.wait().context("the connection that was open")?;
        Ok(format!("{} messages on it, nothing lost", said.messages))
    });
    story.check("started again, it adopts what is there: the plan is empty", || {
        let time = world.start_daemon()?;
        let report = world.catena.json(&["plan"])?;
        ensure!(report["plan"].as_array().is_some_and(Vec::is_empty), "the plan is {}", report["plan"]);
        let status = world.catena.json(&["status"])?;
        let elements = status["elements"].as_array().into_iter().flatten();
        let objects: u64 = elements.filter_map(|element| element["objects"].as_u64()).sum();
        ensure!(objects > 0 && status["converged"] == true, "its status is {status}");
        Ok(format!("it answers after {} ms and knows {objects} objects", time.as_millis()))
    });
    let engine = world.engine;
    story.check("somebody deletes our rule on the virtual router", || {
        let removal = engine.lead()?.removal;
        damaged(world, ROUTER, || node::ask(ROUTER, &removal).map(drop))
    });
    story.check("somebody flushes our routing table on the virtual router", || {
        let flush = format!("ip route flush table {}", engine.lead()?.table);
        damaged(world, ROUTER, || node::ask(ROUTER, &flush).map(drop))
    });
    story.check("somebody removes a steering program from the virtual switch", || {
        damaged(world, "br-int", remove_steering_program)
    });
    story.check("after that the chain works as before", || {
        let journey = follow(V6, "alice", V6.port(402))?;
        ensure!(journey.web == Web::Status(200), "the answer: {:?}", journey.web);
        passes_in_order(&journey, &["ips-", "fw-1", "web-1"])
    });
    story.check("the foreign rule and the foreign tc program are still there", || {
        foreign_objects_are_there()?;
        Ok("")
    });
}

/// Does the damage; fails unless the element is told to differ, and soon does what it did before.
pub fn damaged(world: &World, element: &str, damage: impl FnOnce() -> Result<()>) -> Result<String> {
    let before = setup_of(element)?;
    let last = world.events()?.last().map_or(0, |event| event["id"].as_u64().unwrap_or(0));
    damage()?;
    // It may be repaired by the time that we look; the events come soon after.
    let is_seen = setup_of(element)? != before;
    ensure!(is_seen || eventually(REPAIR, || told(world, element, last)).is_ok(), "nothing was damaged");
    let repaired = eventually(REPAIR, || {
        ensure!(setup_of(element)? == before, "{element} is not as it was");
        Ok(())
    })?;
    eventually(REPAIR, || told(world, element, last))?;
    Ok(format!("shown as drift, repaired after {} ms", repaired.as_millis()))
}

/// Fails unless the events since `last` tell of drift of the element and of its repair.
fn told(world: &World, element: &str, last: u64) -> Result<()> {
    let events = world.events()?;
    let kinds: Vec<&str> = events
        .iter()
        .filter(|event| event["id"].as_u64() > Some(last) && event["element"] == element)
        .filter_map(|event| event["kind"].as_str())
        .collect();
    ensure!(kinds.contains(&"drift") && kinds.contains(&"repaired"), "the events of {element} are {kinds:?}");
    Ok(())
}

/// What we have on an element, as the machine shows it.
fn setup_of(element: &str) -> Result<Vec<String>> {
    let mut setup = Vec::new();
    for question in [
        "ip rule show",
        "ip route show table all",
        "ip -6 rule show",
        "nft list table inet catena",
        "tc filter show dev vr ingress",
        "tc filter show dev lan ingress",
        "tc filter show dev inet ingress",
        "tc filter show dev qg-ext ingress",
    ] {
        if let Ok(text) = node::ask(element, question) {
            setup.extend(text.lines().map(without_ids));
        }
    }
    setup.extend(link_pins(element).iter().map(|pin| pin.display().to_string()));
    Ok(setup)
}

/// A line of tc without the numbers of programs, of which the same one has another each time it is loaded.
fn without_ids(line: &str) -> String {
    let mut kept = Vec::new();
    let mut words = line.split_whitespace();
    while let Some(word) = words.next() {
        match word {
            "id" => drop(words.next()),
            // `catena_steer:[123]`
            _ => kept.push(word.split(":[").next().unwrap_or(word)),
        }
    }
    kept.join(" ")
}

/// A program that is attached by a pinned link (tcx) goes with the pin; one of a clsact filter with the filter.
fn remove_steering_program() -> Result<()> {
    match link_pins("br-int").first() {
        Some(pin) => std::fs::remove_file(pin).context("cannot remove the pin"),
        None => {
            let filters = node::ask("br-int", "tc filter show dev vr ingress")?;
            let ours = filters.lines().find(|line| line.contains("steer") || line.contains("catena"));
            let priority = ours.and_then(|line| line.split_once("pref ")?.1.split_whitespace().next());
            let priority = priority.with_context(|| format!("no program of ours:\n{filters}"))?;
            node::ask("br-int", &format!("tc filter del dev vr ingress pref {priority}")).map(drop)
        }
    }
}

/// The pinned links of an element.
fn link_pins(element: &str) -> Vec<PathBuf> {
    let folder = Path::new("/sys/fs/bpf/catena").join(element);
    let mut pins: Vec<PathBuf> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("link-"))
        .map(|entry| entry.path())
        .collect();
    pins.sort();
    pins
}
