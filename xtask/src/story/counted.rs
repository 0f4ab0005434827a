//! Between the chapters: what is going on, as counters tell it.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::command;
use crate::story::Story;
use crate::story::node::{self, Request, Web};
use crate::story::world::{Catena, INSTANCES, V4, World, eventually};

/// An address at acme's site that nobody has.
const MADE_UP: &str = "172.16.1.77";

pub fn tell(world: &World, story: &mut Story) {
    let catena = &world.catena;
    story.check("what the firewall forbids went in and did not come out, and it says how much", || {
        let fw = passage("fw-1", "up")?;
        ensure!(fw.missing > 0 && fw.packets_out > 0, "fw-1 up: {fw:?}");
        let text = catena.say(&["describe", "function", "fw"])?;
        let sentence = text.lines().find(|line| line.contains("did not come out"));
        Ok(sentence.with_context(|| format!("no sentence says so:\n{text}"))?.to_owned())
    });
    story.check("of other traffic nothing is missing: as many packets come out as go in", || {
        let missing = || INSTANCES.iter().map(|name| passage(name, "up")).collect::<Result<Vec<_>>>();
        let before = missing()?;
        for _ in 0..10 {
            let web = Request::new("alice", &V4.url(V4.server, "")).send()?;
            ensure!(web == Web::Status(200), "the answer: {web:?}");
        }
        let after = missing()?;
        let went_in = packets_in(&after) - packets_in(&before);
        let was_lost = lost(&after).saturating_sub(lost(&before));
        ensure!(
            was_lost == 0,
            "{was_lost} of {went_in} packets are missing: before {before:?}, after {after:?}"
        );
        Ok(format!("{went_in} packets into functions on the way up"))
    });
    story.check("catena top sees the rates of what passes meanwhile", || {
        let enough = AtomicBool::new(false);
        let rates = std::thread::scope(|scope| {
            let traffic = scope.spawn(|| {
                while !enough.load(Ordering::Relaxed) {
                    Request::new("alice", &V4.url(V4.server, "")).send()?;
                }
                anyhow::Ok(())
            });
            let rates = catena.json(&["top", "--once", "--interval", "0.5"]);
            enough.store(true, Ordering::Relaxed);
            traffic.join().map_err(|_| anyhow::anyhow!("the traffic panicked"))??;
            rates
        })?;
        let chain =
            rates["chains"].as_array().into_iter().flatten().find(|chain| chain["chain"] == "acme-web");
        let up = chain.and_then(|chain| chain["upIn"]["packetsPerSecond"].as_f64());
        let up = up.with_context(|| format!("it tells of no chain: {rates:#}"))?;
        ensure!(up > 0.0, "it sees no traffic: {rates:#}");
        Ok(format!("{up:.0} packets/s up"))
    });
    story.check("a packet that a function makes up is dropped, and get drops says why", || {
        let before = dropped(catena, "unexpected")?;
        // From an address of acme's, and no web traffic. What it sends from its own address would be its own affair.
        node::ask("fw-1", &format!("ip address add {MADE_UP}/32 dev lo"))?;
        let mut ping = node::on("fw-1", "ping");
        ping.args(["-n", "-c", "1", "-W", "1", "-I", MADE_UP, V4.server]).stdin(Stdio::null());
        let pinged = command::output("fw-1 sends a packet of its own", &mut ping);
        node::ask("fw-1", &format!("ip address del {MADE_UP}/32 dev lo"))?;
        ensure!(!pinged?.status.success(), "it was answered");
        eventually(Duration::from_secs(2), || {
            let after = dropped(catena, "unexpected")?;
            ensure!(after > before, "{after} were dropped so, as many as before");
            Ok(())
        })?;
        let text = catena.say(&["get", "drops"])?;
        let line = text.lines().find(|line| line.contains("unexpected")).context("no line says so")?;
        Ok(line.split_whitespace().collect::<Vec<_>>().join(" "))
    });
    story.check("/metrics tells Prometheus the same", || {
        let text = ask_api("metrics")?;
        ensure!(text.ends_with("# EOF\n"), "it has no end:\n{text}");
        let samples = |name: &str, instance: &str| -> f64 {
            let instance = format!("instance=\"{instance}\"");
            let lines = text.lines().filter(|line| {
                line.starts_with(&format!("{name}{{")) && line.contains(&instance) && line.contains("\"up\"")
            });
            lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
        };
        for instance in INSTANCES {
            let fw = passage(instance, "up")?;
            let scraped = samples("catena_hop_packets_total", instance);
            ensure!(scraped == fw.packets_in as f64, "{instance}: {scraped}, elsewhere {}", fw.packets_in);
        }
        Ok(format!("{} lines", text.lines().count()))
    });
}

/// What went through an instance in one direction.
#[derive(Debug)]
struct Passage {
    packets_in: u64,
    packets_out: u64,
    missing: u64,
}

fn packets_in(all: &[Passage]) -> u64 {
    all.iter().map(|passage| passage.packets_in).sum()
}

fn lost(all: &[Passage]) -> u64 {
    all.iter().map(|passage| passage.missing).sum()
}

fn passage(instance: &str, direction: &str) -> Result<Passage> {
    let report: Value = serde_json::from_str(&ask_api("v1alpha1/functions")?).context("no JSON")?;
    let functions = report["functions"].as_array().into_iter().flatten();
    let mut instances = functions.flat_map(|function| function["instances"].as_array().into_iter().flatten());
    let found = instances.find(|found| found["name"] == instance);
    let found = &found.with_context(|| format!("there is no {instance}"))?[direction];
    let number = |field: &str| found[field].as_u64().with_context(|| format!("{instance} has no {field}"));
    Ok(Passage {
        packets_in: number("packetsIn")?,
        packets_out: number("packetsOut")?,
        missing: number("missing")?,
    })
}

/// How many packets were dropped for this reason.
fn dropped(catena: &Catena, reason: &str) -> Result<u64> {
    let drops = catena.json(&["get", "drops"])?;
    let of_reason = drops.as_array().into_iter().flatten().filter(|drop| drop["reason"] == reason);
    Ok(of_reason.filter_map(|drop| drop["packets"].as_u64()).sum())
}

/// As any program can ask, without ours.
fn ask_api(path: &str) -> Result<String> {
    let socket = std::env::var("CATENA_SOCKET").context("not in a lab")?;
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--fail", "--unix-socket", &socket, &format!("http://localhost/{path}")]);
    command::read(path, &mut curl)
}
