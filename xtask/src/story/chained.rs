//! Chapter 2: the chain is applied; web traffic takes it, the rest does not.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::story::direct::direct_ways;
use crate::story::engine::{Engine, Lead, ROUTER};
use crate::story::journey::{Journey, everywhere, follow, journeys};
use crate::story::node::{self, Request, Web};
use crate::story::world::{Catena, V4, V6, World};
use crate::story::{Story, picture};

/// The elements that a packet of acme's passes between its site and the Internet.
const ELEMENTS: [&str; 5] = ["access-a", "edge", "qrouter-1234", "br-int", "core"];

pub fn tell(world: &World, story: &mut Story) {
    let catena = &world.catena;
    story.check("catena plan tells first what each element will do, and does nothing", || {
        let report = catena.json(&["plan", "-f", World::CHAIN])?;
        let elements = planned_elements(&report);
        for element in ELEMENTS {
            ensure!(elements.contains(element), "{element} is not in the plan: {elements:?}");
        }
        for question in ["ip rule show", "nft list ruleset"] {
            let rules = node::ask(ROUTER, question)?;
            ensure!(!rules.contains("172.16.1.0"), "it has installed a rule:\n{rules}");
        }
        Ok(elements.into_iter().collect::<Vec<_>>().join(", "))
    });
    story.check("catena apply returns once the chain is there: the first packet takes it", || {
        let captures = everywhere("alice", "tcp port 20001")?;
        catena.say(&["apply", "-f", World::CHAIN])?;
        let url = V4.url(V4.server, "");
        let web = Request::new("alice", &url).with(&["--local-port", "20001"]).send()?;
        ensure!(web == Web::Status(200), "the first request after it: {web:?}");
        let journey = journeys(captures.stop()?, &[20001])?.remove(0);
        passes_in_order(&journey, &["fw-1", "ips-", "web-1"])
    });
    picture::print(catena, V4);
    story.check("the same over IPv6", || {
        let journey = follow(V6, "alice", V6.port(2))?;
        ensure!(journey.web == Web::Status(200), "the answer: {:?}", journey.web);
        passes_in_order(&journey, &["fw-1", "ips-", "web-1"])
    });
    story.check("the virtual router does what Figure 2 of the paper shows", || figure_2(world.engine));
    story.check("a ping goes the direct way still", || direct_ways("alice"));
    story.check("flows are shared among both inspectors, and each comes back through its own", || {
        let ports: Vec<u16> = (20100..20116).collect();
        let captures = everywhere("alice", "tcp portrange 20100-20115")?;
        for port in &ports {
            let web = Request::new("alice", &V4.url(V4.server, ""))
                .with(&["--local-port", &port.to_string()])
                .send()?;
            ensure!(web == Web::Status(200), "the request from port {port}: {web:?}");
        }
        let journeys = journeys(captures.stop()?, &ports)?;
        let mut used = BTreeSet::new();
        for journey in &journeys {
            passes_in_order(journey, &["fw-1", "ips-", "web-1"])?;
            used.extend(journey.functions().into_iter().filter(|name| name.starts_with("ips-")));
        }
        ensure!(used.len() == 2, "all {} flows went through {used:?}", journeys.len());
        Ok(format!("{} flows", journeys.len()))
    });
    story.check("every hop has counted both directions", || counted(catena));
}

/// Fails unless the connection went up through functions whose names begin so, and came back through the same.
pub fn passes_in_order(journey: &Journey, functions: &[&str]) -> Result<String> {
    let passed = journey.functions();
    let right = passed.len() == functions.len()
        && passed.iter().zip(functions).all(|(name, begin)| name.starts_with(begin));
    ensure!(right, "it went {}", journey.shown());
    ensure!(
        journey.up.last().is_some_and(|place| place == "internet"),
        "it did not arrive: {}",
        journey.shown()
    );
    let mut back = journey.down.clone();
    back.reverse();
    ensure!(back == journey.up, "it went {}, and came back {}", journey.shown(), journey.down.join(" → "));
    Ok(journey.shown())
}

/// `from 172.16.1.0/24 lookup T`, or what another engine has for that, and in T `default via 10.21.0.5 dev qr-abc`;
/// behind that, `unreachable`.
fn figure_2(engine: Engine) -> Result<String> {
    let Lead { shown, table, .. } = engine.lead()?;
    let routes = node::ask(ROUTER, &format!("ip route show table {table}"))?;
    let first = routes.lines().next().unwrap_or_default();
    ensure!(first.starts_with("default via 10.21.0.5 dev qr-abc"), "table {table} has:\n{routes}");
    ensure!(
        routes.lines().any(|line| line.starts_with("unreachable default")),
        "table {table} is open:\n{routes}"
    );
    Ok(format!("{shown}; default via 10.21.0.5 dev qr-abc"))
}

/// The elements that a plan changes.
pub fn planned_elements(report: &Value) -> BTreeSet<String> {
    let steps = report["plan"].as_array().into_iter().flatten();
    steps.filter_map(|step| step["element"].as_str()).map(str::to_owned).collect()
}

/// Fails unless all functions have counted packets in both directions; says how many.
fn counted(catena: &Catena) -> Result<String> {
    let counters = catena.json(&["get", "counters"])?;
    let packets = |instance: &str, direction: &str| -> u64 {
        let all = counters.as_array().into_iter().flatten();
        all.filter(|counter| {
            counter["counted"] == "hop"
                && counter["instance"] == instance
                && counter["direction"] == direction
        })
        .filter_map(|counter| counter["packets"].as_u64())
        .sum()
    };
    let mut shown = Vec::new();
    for instance in crate::story::world::INSTANCES {
        let (up, down) = (packets(instance, "up"), packets(instance, "down"));
        ensure!(up > 0 && down > 0, "{instance} has counted {up} packets up and {down} down");
        shown.push(format!("{instance} ↑{up} ↓{down}"));
    }
    Ok(shown.join(", "))
}
